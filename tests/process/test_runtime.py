"""The runtime with real processes: worlds, policies, staggers, several runs at once."""

from __future__ import annotations

import csv
import json
import multiprocessing
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtcore
from rtcore.config.run import make_config
from rtcore.errors import StartupError
from rtcore.files.strict_json import dumps
from rtcore.memory.segments import files_of
from rtcore.results.summary import RunStats
from rtcore.virtual.simulate import Simulation
from tests.support.drills import let_ticks_run, wait_for

pytestmark = pytest.mark.process

SYNTHETIC: dict[str, Any] = {"policy": "synthetic", "policy_args": {"latency_ms": 30}, "workers": 4}


def run(until: Callable[[RunStats], bool] | None = None, **fields: Any) -> dict[str, Any]:
    """Its summary. It ends by itself, or as soon as `until` holds of it."""
    with rtcore.Runtime(**fields) as runtime:
        if until is not None:
            wait_for(lambda: until(runtime.stats()), "the run to come so far")
            runtime.stop()
        runtime.wait()
    summary = runtime.summary()
    assert summary["leftover_shared_memory"] == []
    assert files_of(runtime.run_id) == []
    return summary


def has_acted(stats: RunStats) -> bool:
    """Not in a given time: the machine may be busy."""
    return stats.counters["acted"] > 20


def books_balance(summary: dict[str, Any]) -> None:
    actions, ticks = summary["actions"], summary["ticks"]
    assert sum(actions["outcomes"].values()) == actions["jobs"]
    assert sum(ticks["kinds"].values()) == ticks["count"]
    assert actions["unknown_entries"] == 0


def test_the_game_boy_game_is_played_with_an_action_for_nearly_every_tick(tmp_path: Path) -> None:
    summary = run(
        env_id="rtcore/Blocks-v0",
        policy="synthetic",
        policy_args={"latency_ms": 100},
        workers=7,
        ticks=240,
        wait="hybrid",
        out=tmp_path,
    )
    books_balance(summary)
    assert summary["wait"] == "hybrid"
    assert summary["plan"]["delay_ticks"] >= 7, "100 ms are 6 ticks, and the step of the world comes on top"
    # Far below what it reaches (README): this machine may be busy. One worker alone would act at one tick in seven.
    assert summary["actions"]["acted_fraction"] > 2 / 7
    kept = rtcore.load_run(tmp_path)
    assert kept.summary == json.loads(dumps(summary))
    with (tmp_path / "actions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) + summary["record"]["lost_ticks"] == summary["ticks"]["count"]
    acted = [row for row in rows if row["kind"] == "acted"]
    assert all(int(row["tick"]) - int(row["obs_tick"]) == int(row["delay_ticks"]) for row in acted)
    assert {row["source"] for row in acted} == {"policy"}


@pytest.mark.parametrize("stagger", ["max-time", "expected-time", "sequential", "free-running"])
def test_every_stagger_acts_and_its_books_balance(stagger: str) -> None:
    expected = 1 if stagger == "sequential" else 4

    def all_have_answered(stats: RunStats) -> bool:
        return has_acted(stats) and sum(worker.inferences > 0 for worker in stats.workers) >= expected

    world = {"env_id": "tests.support.worlds:checking", "env_args": {"space": "discrete"}, "duration": 600}
    summary = run(all_have_answered, **world, stagger=stagger, **SYNTHETIC)
    books_balance(summary)
    assert sum(worker["inferences"] > 0 for worker in summary["workers"]) == expected


@pytest.mark.parametrize(
    ("policy", "space"),
    [("random", space) for space in ("box", "multi-discrete", "multi-binary")]
    + [("impala", "box")]
    + [pytest.param("impala", space, marks=pytest.mark.slow) for space in ("multi-discrete", "multi-binary")],
)
def test_every_kind_of_action_arrives_as_the_world_expects_it(space: str, policy: str) -> None:
    world = {"env_id": "tests.support.worlds:checking", "env_args": {"space": space}, "duration": 600}
    summary = run(has_acted, **world, policy=policy, workers=2, chunk=2)
    books_balance(summary)


def test_what_a_world_leaves_behind_in_cycles_is_collected_while_it_runs() -> None:
    summary = run(
        env_id="tests.support.worlds:cyclic", policy="random", workers=1, ticks=200, on_reset="run", overrun="stretch"
    )
    alive = summary["episodes"]["returns"]
    assert len(alive) > 40
    assert max(alive) <= 12, "levels pile up in memory"
    garbage = summary["ticks"]["garbage"]
    assert garbage["collections"] >= garbage["forced"]
    assert garbage["collections"] > 5


def test_a_mujoco_world_runs() -> None:
    pytest.importorskip("mujoco")
    summary = run(has_acted, env_id="HalfCheetah-v5", policy="random", workers="auto", fps="20", duration=600)
    books_balance(summary)


def test_a_program_that_blocks_while_it_waits_acts_keeps_its_signals_and_start_method_and_has_workers_as_planned() -> (
    None
):
    kept = (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)
    before = list(map(signal.getsignal, kept))
    method = multiprocessing.get_start_method(allow_none=True)
    policy = {"policy": "synthetic", "policy_args": {"latency_ms": 60}}
    summary = run(has_acted, env_id="CartPole-v1", fps="60", wait="block", **policy, duration=600)
    assert list(map(signal.getsignal, kept)) == before
    assert multiprocessing.get_start_method(allow_none=True) == method
    assert len(summary["workers"]) == summary["plan"]["workers"] >= 4
    assert summary["wait"] == "block"


def test_several_runs_at_once_in_one_process_do_not_meet() -> None:
    first = rtcore.Runtime(env_id="CartPole-v1", fps="50", ticks=80, **SYNTHETIC)
    second = rtcore.Runtime(env_id="tests.support.worlds:checking", env_args={"space": "box"}, ticks=120, **SYNTHETIC)
    with first, second:
        first.wait()
        second.wait()
    for runtime, ticks in ((first, 80), (second, 120)):
        summary = runtime.summary()
        assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == ticks
        assert summary["leftover_shared_memory"] == []


def test_a_run_can_be_stopped_early_and_closed_twice() -> None:
    runtime = rtcore.Runtime(env_id="CartPole-v1", fps="60", duration=600, **SYNTHETIC)
    with pytest.raises(StartupError):
        runtime.wait()
    runtime.start()
    assert not runtime.wait(0.3)
    let_ticks_run(runtime, 1)
    runtime.stop()
    assert runtime.wait(150)
    runtime.close()
    runtime.close()
    assert 0 < runtime.summary()["ticks"]["count"] < 36000


def test_the_same_seed_and_trace_give_the_same_virtual_run_bit_for_bit(tmp_path: Path) -> None:
    trace = tmp_path / "trace.txt"
    trace.write_text("\n".join(str(20 + 7 * (n % 13)) for n in range(100)))
    for name in ("first", "second"):
        fields = {"env_id": "rtcore/Blocks-v0", "policy": "nature", "latency": f"trace:{trace}", "workers": 3}
        simulation = Simulation(make_config(clock="virtual", seed=5, ticks=250, out=tmp_path / name, **fields)).run()
        simulation.close()
        (tmp_path / name / "summary.json").write_text(json.dumps(simulation.summary()))
    for file in ("actions.csv", "jobs.csv", "summary.json"):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()
    assert len((tmp_path / "first" / "actions.csv").read_text().splitlines()) == 251


def test_a_thousand_workers_are_no_problem_on_the_virtual_clock() -> None:
    config = make_config(
        env_id="tests.support.worlds:checking",
        env_args={"space": "discrete"},
        policy="random",
        clock="virtual",
        latency="constant:9995",
        workers=1000,
        ticks=4000,
    )
    simulation = Simulation(config).run()
    simulation.close()
    summary = simulation.summary()
    assert summary["plan"]["delay_ticks"] == 1000
    assert summary["actions"]["acted_fraction"] == 1.0
    assert summary["actions"]["outcomes"]["late"] == 0


# -- transitions -------------------------------------------------------------------------------------------------


def test_a_trainer_samples_the_decisions_of_a_run_under_way_and_the_frames_are_those_that_were_seen() -> None:
    rng = np.random.default_rng(0)
    with rtcore.Runtime(
        env_id="tests.support.worlds:checking", env_args={"space": "discrete"}, fps=60, duration=600, **SYNTHETIC
    ) as runtime:
        reader = runtime.transitions(gamma=0.9)
        seen = 0
        while seen < 20:
            assert not runtime.wait(0.1)
            reader.update()
            if len(reader):
                batch = reader.sample(16, rng)
                seen += 1
                # The frames of this world show how many steps its episode is old.
                assert batch.obs.dtype == np.uint8
                assert (batch.delay_ticks >= 1).all()
                assert (batch.num_ticks >= 1).all()
                assert batch.discount == pytest.approx(0.9**batch.num_ticks, rel=1e-5)
                steps = batch.next_obs.reshape(16, -1)[:, 0].astype(int) - batch.obs.reshape(16, -1)[:, 0]
                assert (steps >= 0).all()
        runtime.stop()
        runtime.wait()
        reader.update()
        assert reader.counts.lost_ticks == 0
    acted = runtime.summary()["ticks"]["kinds"]["acted"]
    assert acted - 1 <= reader.counts.transitions <= acted
