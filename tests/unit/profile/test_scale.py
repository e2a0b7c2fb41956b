"""`rtcore-profile scale`: which cases are run, what becomes of their numbers, the synthetic world, CPU and memory."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from rtcore.config.resolved import resolve
from rtcore.errors import ConfigError, PolicyError, SharedMemoryError
from rtcore.profile import scale
from rtcore.profile.commands import add_options
from rtcore.profile.options import parse_frame
from rtcore.profile.results import Result
from rtcore.profile.scale import ScaleCase, describe
from rtcore.scheduling.schedule import delay_for

pytestmark = pytest.mark.unit

FRAME = (144, 160)


def options(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    add_options(parser, "scale")
    return parser.parse_args(arguments)


def quiet() -> Console:
    return Console(quiet=True)


def row_of(case: ScaleCase, **numbers: Any) -> dict[str, Any]:
    return describe(case) | {"error": None, "acted_fraction": 1.0, "interval_cv": 0.0} | numbers


# -- cases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 8, 32, 96])
def test_at_60_hz_the_inference_time_needs_exactly_all_workers_for_an_action_every_tick(workers):
    case = ScaleCase(workers, Fraction(60), FRAME)
    tau_ns = round(case.latency_ms * 1e6)
    assert delay_for(tau_ns, case.rate_hz) == workers
    assert (
        delay_for(tau_ns, case.rate_hz, resolve(case.config(1.0), case.rate_hz, case.frame_bytes).guard_ns) == workers
    )


@pytest.mark.parametrize(("workers", "rate_hz"), [(1, 1000), (2, 1000), (8, 1000), (8, 500), (8, 200)])
def test_at_high_rates_there_is_time_to_wake_up_and_inference_still_takes_time(workers, rate_hz):
    case = ScaleCase(workers, Fraction(rate_hz), FRAME)
    whole_ms = workers * 1000 / rate_hz
    assert 0 < case.latency_ms <= whole_ms - min(0.75 * whole_ms, 2.0)


def test_a_case_is_a_valid_config_of_a_synthetic_policy_on_a_synthetic_world():
    config = ScaleCase(8, Fraction(500), (1080, 1920, 3)).config(5.0)
    assert (config.agent.policy, config.world.env_id, config.schedule.workers) == ("synthetic", scale._WORLD, 8)
    assert config.memory.ring_slots == 500
    assert config.timing.duration > 5.0


def test_the_defaults_go_from_1_to_96_workers_and_from_60_to_1000_hz():
    sweeps = scale.plan_sweeps(options())
    assert [case.workers for sweep, case in sweeps if sweep == "workers"] == [1, 2, 4, 8, 16, 32, 64, 96]
    assert [case.rate_hz for sweep, case in sweeps if sweep == "rate"] == [60, 200, 500, 1000]
    assert [case.frame_bytes for sweep, case in sweeps if sweep == "frame"] == [7056, 23040, 100800, 6220800]


def test_a_sweep_can_be_left_out_and_a_case_named_twice_is_one():
    sweeps = scale.plan_sweeps(options("--workers", "2,2", "--rates", "none", "--frames", "none"))
    assert sweeps == [("workers", ScaleCase(2, Fraction(60), FRAME))]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--workers", "0"), "--workers.*'0'.*at least 1"),
        (("--workers", "1,x"), "--workers.*'x'"),
        (("--fixed-workers", "none"), "--fixed-workers"),
        (("--fixed-workers", "1,2"), "--fixed-workers 1,2: expected one"),
        (("--rates", "60,fast"), "--rates.*'fast'.*expected Hz"),
        (("--rates", "1/0"), "--rates"),
        (("--frames", "144"), None),
        (("--frames", "144x"), "frame '144x'.*210x160x3"),
        (("--frames", "0x5"), "frame '0x5'"),
        (("--frames", "1x2x3x4"), "frame"),
        (("--workers", "none", "--rates", "none", "--frames", "none"), "something to measure"),
    ],
)
def test_wrong_lists_are_refused_by_name(arguments, wanted):
    if wanted is None:
        assert scale.plan_sweeps(options(*arguments))[-1][1].frame == (144,)
        return
    with pytest.raises(ConfigError, match=wanted):
        scale.plan_sweeps(options(*arguments))


@pytest.mark.parametrize("seconds", ["0", "-1", "nan"])
def test_a_measurement_takes_time(seconds):
    with pytest.raises(ConfigError, match="--seconds"):
        scale.run(options("--seconds", seconds), quiet())


# -- rows ----------------------------------------------------------------------------------------------------


def test_a_case_of_several_sweeps_is_measured_once_and_is_a_row_of_each():
    case, other = ScaleCase(8, Fraction(60), FRAME), ScaleCase(2, Fraction(60), FRAME)
    measured = []

    def measure(case, seconds, on_step):
        measured.append(case)
        return row_of(case)

    result = scale._run([("workers", other), ("workers", case), ("rate", case)], 1.0, quiet(), measure)
    assert measured == [other, case]
    assert [(row["sweep"], row["workers"]) for row in result.rows] == [("workers", 2), ("workers", 8), ("rate", 8)]
    names = {tuple(row[key] for key in result.keys) for row in result.rows}
    assert len(names) == len(result.rows)


def test_a_case_without_room_says_why_and_the_others_are_kept(capsys):
    small, large = ScaleCase(2, Fraction(60), FRAME), ScaleCase(2, Fraction(60), (1080, 1920, 3))

    def measure(case, seconds, on_step):
        if case is large:
            raise SharedMemoryError("no room in /dev/shm")
        return row_of(case, publish_p50_us=10.0)

    result = scale._run([("frame", small), ("frame", large)], 1.0, Console(width=200), measure)
    assert [row["error"] for row in result.rows] == [None, "no room in /dev/shm"]
    assert result.rows[1]["acted_fraction"] is None
    assert "frame 1080x1920x3: not measured: no room in /dev/shm" in capsys.readouterr().out


@pytest.mark.parametrize("error", [SharedMemoryError("no room"), PolicyError("broken")])
def test_where_nothing_was_measured_the_error_is_the_result(error):
    def measure(case, seconds, on_step):
        raise error

    with pytest.raises(type(error), match=str(error)):
        scale._run([("workers", ScaleCase(1, Fraction(60), FRAME))], 1.0, quiet(), measure)


def test_growth_is_the_slope_of_each_sweep_and_none_where_there_is_one_point():
    rows = [
        {"sweep": "workers"}
        | row_of(ScaleCase(n, Fraction(60), FRAME), env_cpu_per_tick_us=900 + 5 * n, total_pss_mb=None)
        for n in (1, 2, 8)
    ]
    rows += [
        {"sweep": "frame"} | row_of(ScaleCase(8, Fraction(60), shape), publish_p50_us=10 + shape[0] / 1e4)
        for shape in ((100_000,), (2_000_000,))
    ]
    growth = scale.growth(rows)
    assert growth["env_cpu_per_tick_us_per_worker"] == pytest.approx(5)
    assert growth["publish_p50_us_per_frame_mb"] == pytest.approx(100)
    assert growth["total_pss_mb_per_worker"] is None
    assert growth["cpu_env_percent_per_100_hz"] is None


def test_pictures_are_drawn_for_sweeps_of_two_cases_or_more(tmp_path: Path):
    numbers = {
        name: 1.5 for _, name, _, _ in (*scale._QUALITY, *scale._COST) if name not in ("latency_ms", "acted_fraction")
    }
    cases = [("workers", ScaleCase(n, Fraction(60), FRAME)) for n in (1, 8)]
    cases += [("frame", ScaleCase(8, Fraction(60), shape)) for shape in (FRAME, (2, 2))]
    cases += [("rate", ScaleCase(8, Fraction(60), FRAME))]
    rows = [{"sweep": sweep} | row_of(case, **numbers) for sweep, case in cases]
    paths = scale.plot(Result("scale", rows, scale.KEYS), tmp_path)
    assert [path.name for path in paths] == ["scale-workers.png", "scale-frame.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)


def test_a_frame_is_read_as_it_is_written():
    assert parse_frame("210X160x3") == (210, 160, 3)


# -- CPU ------------------------------------------------------------------------------------------------------


def test_what_was_not_done_has_no_cost_and_shares_are_of_the_time_that_went_by():
    before = dict.fromkeys(("elapsed_ns", "env_ns", "workers_ns", "supervisor_ns", "ticks", "inferences"), 7)
    spent = {"elapsed_ns": 10_000_000, "env_ns": 1_000_000, "workers_ns": 20_000_000, "supervisor_ns": 0, "ticks": 4}
    row = scale._cpu(before, {name: value + spent.get(name, 0) for name, value in before.items()})
    assert [row[f"cpu_{who}_percent"] for who in ("env", "workers", "supervisor")] == [10, 200, 0]
    assert (row["env_cpu_per_tick_us"], row["worker_cpu_per_inference_us"]) == (250, None)
    assert row["measured_s"] == 0.01
