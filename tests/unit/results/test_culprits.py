"""The summary names who is to blame: slow workers, the worst stretch, and the cause of its missed ticks."""

from __future__ import annotations

import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.memory.counters import Histogram
from rtcore.report.table import _culprit_rows, details
from rtcore.results.explain import slow_workers
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import WorkerStats
from rtcore.results.worst_stretch import SIZE_TICKS
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

MS = 1_000_000


def slow_at(jobs, took_ms):
    """Latencies of a policy that takes 25 ms, and `took_ms` in some jobs."""
    return lambda number: (took_ms if number in jobs else 25) * MS


def run_of(latency, **fields):
    settings = {
        "env_id": "tests.support.virtual_worlds:Signs",
        "clock": "virtual",
        "policy": "random",
        "workers": 3,
        "ticks": 4000,
    }
    simulation = Simulation(make_config(**(settings | {"fps": 100} | fields)), latency=latency).run()
    simulation.close()
    return simulation


def worker(index, took_ms, count=100):
    shape = Histogram()
    for _ in range(count):
        shape.add(took_ms * MS)
    none = Histogram().snapshot()
    return WorkerStats(index, -1, "cpu", count, shape.snapshot(), none, 0, 0, np.nan)


def test_a_worker_that_takes_much_longer_than_the_others_is_named_with_both_times():
    named = slow_workers([worker(0, 100), worker(1, 210), worker(2, 101), worker(3, 99)])
    assert [slow["worker"] for slow in named] == [1]
    assert named[0]["inference_ms"] == pytest.approx(210, rel=0.01)
    assert named[0]["others_ms"] == pytest.approx(100, rel=0.01)


@pytest.mark.parametrize(
    "workers", [[worker(0, 100)], [worker(0, 100), worker(1, 140)], [worker(0, 9), worker(1, 99, 3)]]
)
def test_a_worker_that_is_alone_or_about_as_quick_or_was_hardly_seen_is_not_blamed(workers):
    assert slow_workers(workers) == []


def test_the_worst_stretch_is_found_long_after_it_left_memory_and_each_cause_is_the_slow_inference():
    slow = {*range(700, 706)}
    simulation = run_of(slow_at(slow, 90), ticks=12_000)
    culprits = simulation.summary()["culprits"]
    worst = culprits["worst_stretch"]
    assert worst["last_tick"] < 900, "the newest rows begin at tick 3808"
    missed = [tick for tick in culprits["ticks"] if tick["kind"] == "missed"]
    assert len(culprits["ticks"]) == worst["without_action"], "each one is in summary.json"
    assert all(worst["first_tick"] <= tick["tick"] <= worst["last_tick"] for tick in culprits["ticks"])
    assert any("the inference was slow: 90.0 ms, usually 25.0 ms" in tick["cause"] for tick in missed), culprits
    assert all(tick["cause"].startswith("worker ") for tick in missed)


def test_a_run_without_a_lacking_action_blames_nobody():
    culprits = run_of(slow_at((), 0), ticks=500).summary()["culprits"]
    assert culprits == {"slow_workers": [], "worst_stretch": None, "ticks": []}


def test_the_summary_shows_the_stretch_its_ticks_and_how_to_ask_for_others(tmp_path):
    from rich.console import Console

    summary = run_of(slow_at({*range(100, 110)}, 90), ticks=600).summary()
    console = Console(width=80, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(details(summary, tmp_path))
    text = console.export_text()
    console.file.close()
    assert "worst stretch" in text
    assert f"{summary['culprits']['ticks'][0]['tick']}" in text
    assert "--tick" in text


def lacking(spans):
    """The lines about causes of a table whose ticks lack their actions as said: [(first, last, kind, cause)]."""
    ticks = [
        {"tick": tick, "kind": kind, "cause": cause}
        for first, last, kind, cause in spans
        for tick in range(first, last + 1)
    ]
    worst = {"first_tick": 0, "last_tick": 63, "without_action": len(ticks)}
    return [(row.label, row.text) for row in _culprit_rows({"worst_stretch": worst, "ticks": ticks}, None)[1:]]


def test_ticks_that_one_reset_has_cost_are_one_line_with_their_range_and_number():
    spans = [(3, 3, "missed", "slow"), (10, 19, "skipped", "reset"), (20, 20, "missed", "reset"), (22, 23, "idle", "x")]
    assert lacking(spans) == [
        ("tick 3 missed", "slow"),
        ("ticks 10 to 19 skipped", "reset (10 ticks)"),
        ("tick 20 missed", "reset"),
        ("ticks 22 to 23 idle", "x (2 ticks)"),
    ]


def test_of_many_causes_those_of_missed_ticks_are_shown_and_the_others_counted():
    shown = lacking([(2 * n, 2 * n, "idle" if n < 5 else "missed", f"cause {n}") for n in range(14)])
    assert [text for _, text in shown[:-1]] == ["cause 0", *(f"cause {n}" for n in range(5, 14))]
    assert shown[-1] == ("more causes", "4: see culprits in summary.json")


def test_a_record_that_grows_without_end_holds_only_so_much():
    simulation = run_of(slow_at((), 0), ticks=300, env_args={"episode_ticks": 3})
    record = RunRecord(None, lambda raw: raw)
    headers, jobs = list(simulation.record.ticks), list(simulation.record.jobs)
    for turn in range(400):
        for header in headers:
            record.add_tick(header._replace(tick=header.tick + turn * len(headers), skipped_ticks=turn % 2), b"")
        for job in jobs:
            record.add_job(job)
    assert record.num_ticks == 400 * len(headers)
    assert len(record.ticks) == record.ticks.maxlen
    assert len(record.jobs) == record.jobs.maxlen
    assert record.episodes.count > len(record.episodes.newest()) == 4096
    assert len(record.episodes.newest(3)) == 3
    assert record.episodes.since(record.episodes.count - 2) == record.episodes.newest(2)
    stretch = record.worst.found()
    assert stretch.last_tick - stretch.first_tick < SIZE_TICKS
    assert len(stretch.ticks) < 1000
