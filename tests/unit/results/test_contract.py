"""A contract is judged by the summary's numbers, followed by the rows, and lost only when nothing can mend it."""

from __future__ import annotations

import io
import json
import math
import random
from dataclasses import replace
from functools import cache

import pytest
from rich.console import Console

from rtcore.cli.compare import halves_of
from rtcore.cli.exits import EXIT_CONTRACT_BROKEN
from rtcore.cli.play import keep, play
from rtcore.config.contract import KEYS, Condition
from rtcore.config.run import make_config
from rtcore.errors import ContractBroken
from rtcore.memory.counters import Histogram
from rtcore.memory.layout import FrameHeader
from rtcore.report.live import plain_line
from rtcore.report.table import header_lines, headline, troubles
from rtcore.results.contract import Contract, broken_in, judge
from rtcore.results.out_folder import OutFolder
from rtcore.results.summary import build_summary, number_of
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.simulate import Simulation
from tests.support.made_up_runs import made_up_run, made_up_run_with_head

pytestmark = pytest.mark.unit

MS = 1_000_000


def condition(text):
    return Condition.parse(text)


def row(tick, kind=TickKind.ACTED, late_ns=0, skipped=0):
    return FrameHeader(
        tick, tick=tick, deadline_ns=1000 * tick, start_ns=1000 * tick + late_ns, kind=kind, skipped_ticks=skipped,
        obs_tick=tick - 3,
    )  # fmt: skip


def followed(text, rows, num_ticks=0):
    contract = Contract([condition(text)], num_ticks)
    for one in rows:
        contract.see(one)
    return contract.states()[0]


# -- the keys ----------------------------------------------------------------------------------------------


def leaves(tree, place=""):
    for key, value in tree.items():
        path = f"{place}.{key}".removeprefix(".")
        if isinstance(value, dict):
            yield from leaves(value, path)
        else:
            yield path, value


def test_each_number_that_may_be_required_is_in_a_summary_and_each_of_these_parts_may_be_required():
    stats, _ = made_up_run_with_head()
    seen = {"checked": 3, "outside": 0, "first": ""}
    summary = build_summary(replace(stats, observations=seen, clock="world"))
    there = dict(leaves(summary))
    missing = {path for path in KEYS if path not in there and not path.startswith("learner.")}
    assert not missing
    # A new number of these parts is one line in KEYS; what says what a run was, and no result, is named here.
    described = {"ticks.ideal_hz", "head.index", "head.pid", "head.device", "head.lapped_frames", "head.pss_mb"}
    described |= {f"episodes.{name}" for name in ("unfinished_return", "unfinished_ticks", "points_ticks")}
    described |= {
        "world_clock.nominal_hz",
        "invariants.first",
        "episodes.first_listed",
        "observations.checked",
        "observations.first",
    }
    parts = (
        "ticks",
        "actions",
        "ipc_us",
        "inference_ms",
        "episodes",
        "record",
        "restarts",
        "observations",
        "invariants",
        "world_clock",
        "head",
    )
    of_parts = {
        path
        for path, value in there.items()
        if path.split(".")[0] in parts and not isinstance(value, list) and not path.startswith("head.inference_ms")
    }
    assert of_parts - described <= KEYS.keys()


def test_a_number_asked_for_alone_is_that_of_the_summary():
    stats, _ = made_up_run_with_head()
    summary = dict(leaves(build_summary(stats)))
    for path in KEYS:
        assert number_of(stats, path) == summary.get(path), path


# -- since when, and whether anything can mend it ----------------------------------------------------------


@cache
def _made_up_stats():
    return made_up_run()[0]


def kept_by_the_numbers(text, rows):
    """What a summary of just these rows would say, by the run's own histograms and formulas."""
    stats, late = _made_up_stats(), Histogram()
    kinds = [one.kind for one in rows]
    for one in rows:
        late.add(one.start_ns - one.deadline_ns)
    counters = stats.counters | {kind.name.lower(): kinds.count(kind) for kind in TickKind}
    counters |= {"ticks": len(rows), "skipped_ticks": sum(one.skipped_ticks for one in rows)}
    shapes = stats.distributions | {"lateness_ns": late.snapshot()}
    wanted = condition(text)
    return wanted.holds(number_of(replace(stats, counters=counters, distributions=shapes), wanted.path))


def random_rows(rng, count):
    rows = []
    for tick in range(count):
        late = rng.random() < 0.15
        kind = rng.choices((TickKind.ACTED, TickKind.MISSED, TickKind.IDLE, TickKind.LEAD_IN), (14, 1, 1, 1))[0]
        # Below 256 ns a histogram is exact, and so is what it says of them.
        rows.append(row(tick, kind, rng.randrange(101, 200) if late else rng.randrange(100), rng.random() < 0.02))
    return rows


@pytest.mark.parametrize(
    "text",
    [
        *("acted>=0.9", "acted>0.85", "acted_fraction_of_all_ticks>=0.8", "missed<=4", "missed<4", "idle==0"),
        *("skipped<=1", "lateness_p50_us<=0.1", "lateness_p90_us<=0.1", "lateness_p99_us<0.1", "lateness_max_us<=0.19"),
    ],
)
def test_since_when_is_the_tick_from_which_the_numbers_so_far_did_not_keep_it_up_to_the_end(text):
    rng = random.Random(text)
    outcomes = set()
    for _ in range(4):
        rows = random_rows(rng, 60)
        kept = [kept_by_the_numbers(text, rows[: count + 1]) for count in range(len(rows))]
        # Until a tick that counts there is no number, which keeps nothing; nor has anything been broken then.
        last_kept = max((tick for tick, held in enumerate(kept) if held), default=-1)
        since = followed(text, rows).since
        if kept[-1]:
            assert since is None
        else:
            assert since is not None
            assert since.tick == last_kept + 1 or not any(kept[: since.tick])
        outcomes.add(kept[-1])
    assert outcomes, "something was compared"


@pytest.mark.parametrize("text", ["acted>=0.9", "missed<=2", "lateness_p90_us<=0.1", "lateness_max_us<=0.196"])
def test_it_is_lost_exactly_when_even_good_ticks_to_the_end_cannot_mend_it(text):
    rng = random.Random(5)
    outcomes = set()
    for seen in (*range(5, 60, 5), *range(40, 60)):
        rows = random_rows(rng, 60)
        lost = followed(text, rows[:seen], num_ticks=60).is_lost
        mended = rows[:seen] + [row(tick) for tick in range(seen, 60)]
        assert lost == (not kept_by_the_numbers(text, mended)), (text, seen)
        outcomes.add(lost)
    assert outcomes == {True, False}


def test_a_miss_at_the_start_is_one_of_those_that_are_allowed_and_what_is_used_up_is_a_share_of_these():
    first = [row(0, TickKind.MISSED)]
    state = followed("acted>=0.999", first, num_ticks=4000)
    assert not state.is_lost
    assert state.since == (0, 0.0)
    assert state.used == pytest.approx(1 / 4)
    over = followed("acted>=0.999", [*first, *(row(tick) for tick in range(1, 1500))], num_ticks=4000)
    assert over.since is None, "1 of 1,500 missed keeps it again"
    five = followed("acted>=0.999", [row(tick, TickKind.MISSED) for tick in range(5)], num_ticks=4000)
    assert five.is_lost
    assert five.used == pytest.approx(5 / 4)


def test_a_run_without_an_end_counts_as_long_enough_for_one_miss():
    one = [row(0, TickKind.MISSED), row(1)]
    assert not followed("acted>=0.999", one).is_lost
    assert followed("acted>=0.999", [*one, row(2, TickKind.MISSED)]).is_lost
    assert followed("acted>=1", one).is_lost


def test_what_no_row_tells_is_known_from_the_looks_and_a_count_that_is_too_high_is_lost():
    told, wanted = [], ("overruns<=2", "interval_cv<=0.1", "overruns>=1")
    contract = Contract([condition(text) for text in wanted], 100, told.append)
    assert contract.needs_looks
    found = {"ticks.overruns": 2.0, "actions.interval_ticks.cv": 0.2}
    contract.see(row(7))
    contract.look(found.get)
    contract.see(row(9))
    found["ticks.overruns"] = 3.0
    contract.look(found.get)
    overruns, cv, least = contract.states()
    assert (overruns.since, overruns.is_lost, overruns.used) == ((9, 2e-06), True, 1.5)
    assert (cv.since, cv.is_lost, math.isnan(cv.used)) == ((7, 0.0), False, True)
    assert (least.since, least.is_lost) == (None, False)
    contract.follow()
    contract.follow()
    assert [str(broken) for broken in told] == [
        "the contract is broken: overruns<=2: cannot be kept any more, seen at tick 9 (0.0 s) first"
    ]


def test_what_was_not_measured_is_not_kept():
    contract = Contract([condition("lateness_p99_us<=50")], 100)
    judged = judge(contract.states(), {"ticks": {"lateness_us": {"p99": None}}})
    assert not judged["kept"]
    assert broken_in({"contract": judged}) == ["lateness_p99_us<=50: there is no such number, nothing was measured"]


@pytest.mark.parametrize("damaged", [{"contract": 3}, {"contract": {"conditions": [3, {}]}}, {}])
def test_a_summary_that_is_damaged_breaks_nothing(damaged):
    assert broken_in(damaged) == []


# -- whole runs, on the virtual clock -----------------------------------------------------------------------


def config_of(**fields):
    """Six inferences in the middle take too long: the runs act on 99.4% of their ticks."""
    settings = {"env_id": "tests.support.virtual_worlds:Signs", "clock": "virtual", "policy": "random", "workers": 3}
    return make_config(**(settings | {"fps": 100, "ticks": 2000, "latency": "constant:25"} | fields))


def slow_in_the_middle(number):
    return (90 if number in range(700, 706) else 25) * MS


def test_a_run_that_breaks_its_contract_raises_at_its_end_with_every_condition_and_since_when():
    simulation = Simulation(config_of(require=["acted>=0.999", "missed<=3", "jobs>=10"]), latency=slow_in_the_middle)
    with pytest.raises(ContractBroken) as broken:
        simulation.run()
    simulation.close()
    contract = simulation.summary()["contract"]
    acted, missed, jobs = contract["conditions"]
    assert (contract["kept"], acted["kept"], missed["kept"], jobs["kept"]) == (False, False, False, True)
    assert acted["value"] == simulation.summary()["actions"]["acted_fraction"]
    first_missed = next(one.tick for one in simulation.record.ticks if one.kind == TickKind.MISSED)
    assert acted["since_tick"] == first_missed
    assert missed["since_tick"] == [one.tick for one in simulation.record.ticks if one.kind == TickKind.MISSED][3]
    assert broken.value.conditions == [acted["broken"], missed["broken"]]
    assert f"since tick {first_missed} ({first_missed / 100:.1f} s)" in str(broken.value)


def test_who_gives_a_callback_is_told_once_as_soon_as_it_is_lost_and_may_end_the_run():
    told = []
    simulation = Simulation(
        config_of(require=["missed<=3", "skipped<=0"]), latency=slow_in_the_middle, on_contract_broken=told.append
    ).run()
    simulation.close()
    assert [len(broken.conditions) for broken in told] == [1]

    def end(broken):
        raise broken

    ended = Simulation(config_of(require="missed<=3"), latency=slow_in_the_middle, on_contract_broken=end)
    with pytest.raises(ContractBroken):
        ended.run()
    ended.close()
    assert 700 < ended.summary()["ticks"]["count"] < 720


def test_a_contract_changes_nothing_of_a_virtual_run_and_a_kept_one_raises_nothing():
    plain = Simulation(config_of(), latency=slow_in_the_middle).run()
    kept = Simulation(config_of(require="acted>=0.99"), latency=slow_in_the_middle).run()
    for simulation in (plain, kept):
        simulation.close()
    assert list(plain.record.ticks) == list(kept.record.ticks)
    assert "contract" not in plain.summary()
    assert kept.summary()["contract"]["kept"]
    assert kept.summary() == plain.summary() | {"contract": kept.summary()["contract"]}


class _View:
    def begin(self, run, see):
        self.run = run

    def update(self, stats, record, booked=None, *, force=False):
        self.line = plain_line(stats, 1.0, 2.0)


@pytest.mark.parametrize(("require", "exitcode"), [("missed<=0", 0), ("jobs<=9", EXIT_CONTRACT_BROKEN)])
def test_the_program_exits_with_4_and_view_summary_and_file_say_the_same(tmp_path, require, exitcode):
    out, view = tmp_path / "run", _View()
    config = config_of(require=require, ticks=300, out=out, pictures=False)
    with OutFolder(out, ["rtcore-run"]) as folder:
        folder.acquire()
        over = play(config, view, folder)
        console = Console(file=io.StringIO(), record=True, width=120)
        keep(over, console)
    assert over.exitcode() == exitcode
    assert json.loads((out / "summary.json").read_text())["contract"] == over.summary["contract"]
    console.print(headline(over.summary))
    shown = console.export_text()
    if exitcode:
        assert "Contract broken: jobs<=9: 300, seen at tick 250 (2.5 s) first" in " ".join(shown.split())
        assert "jobs<=9 999% used BROKEN since tick" in view.line
        assert any(text.startswith("contract broken: jobs<=9") for text in troubles(over.summary, None))
    else:
        assert "Contract kept: missed<=0 (0)" in shown
        assert "missed<=0 0% used" in view.line


def test_the_header_names_the_contract_and_warns_of_what_takes_no_time_on_the_virtual_clock():
    simulation = Simulation(config_of(require=["acted>=0.5", "lateness_p99_us<=50"], ticks=5))
    simulation.close()
    lines = header_lines(simulation.header, simulation.resolved, simulation.plan)
    assert "contract  acted>=0.5, lateness_p99_us<=50" in lines
    assert any("WARNING" in line and "lateness_p99_us<=50" in line and "acted" not in line for line in lines)


def test_of_a_comparison_only_the_runs_own_schedule_has_to_keep_it():
    halves = halves_of(make_config(clock="virtual", ticks=100, require="acted>=0.9"), "sequential")
    assert [half.contract.require for half in halves.values()] == [(), ("acted>=0.9",)]
