"""Worlds that are slower than their tick: every tick is run, skipped or put off, and counted as what it was."""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rtcore
from rtcore.memory.layout import FrameHeader
from rtcore.report.finished import write_results
from rtcore.results.explain import explain_tick
from rtcore.results.folder import read_run
from rtcore.results.out_folder import write_config
from rtcore.scheduling.dispatch import TickKind

pytestmark = pytest.mark.process

PERIOD_NS = 20_000_000
SYNTHETIC: dict[str, Any] = {"policy": "synthetic", "policy_args": {"latency_ms": 30}, "workers": 4, "fps": "50"}


def run(out: Path | None = None, **fields: Any) -> tuple[dict[str, Any], Sequence[FrameHeader]]:
    with rtcore.Runtime(**SYNTHETIC, **fields, out=out) as runtime:
        runtime.wait()
    summary, record = runtime.summary(), runtime.record
    assert record is not None
    assert summary["leftover_shared_memory"] == []
    assert summary["record"]["lost_ticks"] == 0
    if out is not None:
        write_config(out, runtime.config, [])
        write_results(out, summary, runtime.stats(), record)
    return summary, list(record.ticks)


def took_too_long(rows: Sequence[FrameHeader], *, reset: bool) -> int:
    """Ticks whose world alone took longer than a period: all of them are overruns."""
    return sum(row.step_ns > PERIOD_NS for row in rows if (row.kind == TickKind.RESET) == reset)


def test_ticks_that_have_gone_by_are_skipped_and_all_of_them_are_accounted_for() -> None:
    summary, rows = run(env_id="tests.support.worlds:slow", env_args={"step_s": 0.03, "reset_s": 0.05}, ticks=150)
    ticks = summary["ticks"]
    # The last tick may itself have been skipped: the run is over where the one after it would have been.
    assert ticks["count"] + ticks["skipped"] == rows[-1].tick + 1 >= 150
    assert ticks["count"] == len(rows)
    assert ticks["skipped"] == sum(row.skipped_ticks for row in rows) > 0
    for before, row in pairwise(rows):
        assert row.tick == before.tick + 1 + row.skipped_ticks
        assert abs(row.deadline_ns - before.deadline_ns - (row.tick - before.tick) * PERIOD_NS) <= 1, "an even grid"
    assert ticks["overruns"] >= took_too_long(rows, reset=False) > 0
    assert ticks["reset_overruns"] >= took_too_long(rows, reset=True) > 0
    assert (ticks["stretched"], ticks["stretched_ms"]) == (0, 0)


def test_stretched_every_tick_runs_and_what_it_was_put_off_by_is_counted_to_the_nanosecond(tmp_path: Path) -> None:
    world = {"step_s": 0.03, "reset_s": 0.05, "every": 3}
    summary, rows = run(tmp_path, env_id="tests.support.worlds:slow", env_args=world, ticks=100, overrun="stretch")
    ticks = summary["ticks"]
    assert [row.tick for row in rows] == list(range(100))
    assert (ticks["count"], ticks["skipped"]) == (100, 0)
    put_off_ns = [row.deadline_ns - before.deadline_ns - PERIOD_NS for before, row in pairwise(rows)]
    assert min(put_off_ns) >= 0
    assert ticks["stretched"] == sum(ns > 0 for ns in put_off_ns) > 0
    assert ticks["stretched_ms"] == pytest.approx(sum(put_off_ns) / 1e6, abs=1e-5)
    assert ticks["overruns"] >= took_too_long(rows, reset=False) > 0
    assert ticks["reset_overruns"] >= took_too_long(rows, reset=True) > 0
    # A tick that overran puts the next one off, if there is one; so may what happens after its books are closed.
    assert ticks["stretched"] >= ticks["overruns"] + ticks["reset_overruns"] - 1
    told_of_the_record(tmp_path, rows, put_off_ns)


def told_of_the_record(folder: Path, rows: Sequence[FrameHeader], put_off_ns: Sequence[int]) -> None:
    """What is read back from the folder places ticks where they were, and says why one was put off."""
    found = read_run(folder)
    assert found.stretches
    assert found.period_ns == PERIOD_NS
    for row in rows:
        assert found.deadline_ns(row.tick) == pytest.approx(row.deadline_ns, abs=100)
        assert found.axis.of_ns(row.deadline_ns) == pytest.approx(row.tick, abs=1e-4)
    longest = max(range(len(put_off_ns)), key=put_off_ns.__getitem__)
    (fact,) = (fact for fact in explain_tick(found, longest + 1) if fact.label == "put off")
    assert f"at tick {longest} took" in fact.text
    with (folder / "jobs.csv").open() as file:
        answered = [job for job in csv.DictReader(file) if int(job["write_ns"])]
    assert answered
    for job in answered:
        assert found.axis.of_ns(int(job["start_ns"])) >= int(job["booked_tick"]) - 0.5
        assert found.axis.of_ns(int(job["write_ns"])) <= int(job["resolved_tick"]) + 1


@pytest.mark.slow
def test_a_stretched_slow_world_is_acted_on_at_nearly_every_tick() -> None:
    summary, _ = run(env_id="tests.support.worlds:slow", env_args={"step_s": 0.06}, ticks=60, overrun="stretch")
    # 30 ms of inference in ticks of 60 ms: late by two ticks at the most, whatever the plan first thought.
    assert summary["plan"]["delay_ticks"] <= 4
    assert summary["actions"]["acted_fraction"] > 0.6


@pytest.mark.parametrize("overrun", ["skip", "stretch"])
def test_a_program_that_steps_a_slow_world_itself_is_told_of_every_tick(overrun: str) -> None:
    world = {"env_args": {"step_s": 0.07, "every": 4, "length": 1000}, "fps": 50, "overrun": overrun}
    with rtcore.RealtimeEnv("tests.support.worlds:slow", **world) as env:
        env.reset(seed=0)
        steps = [env.step(0) for _ in range(40)]
    infos = [step[4]["rtcore"] for step in steps]
    passed = infos[-1]["tick"] - infos[0]["tick"]
    assert passed == sum(info["ticks_since_last_step"] for info in infos[1:])
    # Each step of the world pays 1: what was not paid for is a tick that did not run.
    not_run = passed - sum(step[1] for step in steps[1:])
    ticks = env.runtime.summary()["ticks"]
    assert (ticks["stretched"] > 5, ticks["skipped"] > 5) == (overrun == "stretch", overrun == "skip")
    if overrun == "stretch":
        assert not_run == ticks["skipped"] == 0
    else:
        assert 5 < not_run <= ticks["skipped"]


def test_a_step_returns_with_the_next_frame_also_if_it_is_made_late_in_its_tick() -> None:
    """The world takes 16 ms of 20 and the program 6: the next tick has begun when it answers, its frame is to come."""
    with rtcore.RealtimeEnv(
        "tests.support.worlds:slow", env_args={"step_s": 0.016, "length": 1000}, fps=50, delay_ticks=2
    ) as env:
        env.reset(seed=0)
        # Nearly always on a quiet machine; waiting for the frame after the next would make it never.
        returned_with_the_next = 0
        while returned_with_the_next < 20:
            returned_with_the_next += env.step(0)[4]["rtcore"]["ticks_since_last_step"] == 1
            time.sleep(0.006)


# -- worlds of others --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("overrun", ["skip", pytest.param("stretch", marks=pytest.mark.slow)])
def test_a_third_partys_world_that_takes_longer_than_its_tick_is_counted_not_broken(overrun: str) -> None:
    """highway-env simulates 4 frames a step, which takes longer than 5 ms; it states a rate of its own."""
    pytest.importorskip("highway_env")
    config = {"vehicles_count": 10, "lanes_count": 3, "simulation_frequency": 4, "duration": 20}
    fields = {**SYNTHETIC, "fps": "200", "policy": "random", "policy_args": {}, "noop_action": 1}
    with rtcore.Runtime(
        env_id="highway_env:highway-v0", env_args={"config": config}, ticks=120, overrun=overrun, **fields
    ) as runtime:
        runtime.wait()
    summary = runtime.summary()
    ticks = summary["ticks"]
    assert summary["leftover_shared_memory"] == []
    assert ticks["kinds"]["acted"] > 0
    assert ticks["overruns"] > 0
    assert (ticks["skipped"] > 0, ticks["stretched"] > 0) == (overrun == "skip", overrun == "stretch")
    assert ticks["count"] + ticks["skipped"] >= 120
