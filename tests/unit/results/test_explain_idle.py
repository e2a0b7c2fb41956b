"""Ticks for which nothing was due, in words: on rows made by hand (`tests/support/told_runs.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind
from tests.support.told_runs import inference, run_of, says, text_of, tick, unanswered, without

pytestmark = pytest.mark.unit


def idle(jobs: dict[int, InferenceRow | None]) -> RunFolder:
    """Nothing was due at tick 20."""
    return run_of({20: tick(20, TickKind.IDLE)}, jobs)


def test_an_idle_tick_names_the_busy_workers_when_all_were_busy() -> None:
    slow = {number: inference(number, took_ms=62, outcome=Outcome.LATE, at=22) for number in (14, 15, 16)}
    text = text_of(idle(slow | {17: None}), 20)
    says(
        text, "none booked", "3 ticks before, at tick 17, when no worker was idle", "worker 2 since tick 14", "62.0 ms"
    )


def test_an_idle_tick_counts_dead_workers_as_not_idle() -> None:
    jobs: dict[int, InferenceRow | None] = {
        14: unanswered(inference(14), Outcome.DROPPED_DEAD_WORKER, at=16),
        15: inference(15, took_ms=40),
        16: inference(16, took_ms=40),
        17: None,
        20: None,
    }
    says(text_of(idle(jobs), 20), "no worker was idle", "down: worker 2")


def test_an_idle_tick_between_two_starts_is_planned_so() -> None:
    every_third: dict[int, InferenceRow | None] = {number: None for number in range(37) if number % 3}
    says(text_of(idle(every_third), 20), "none planned: inferences start every 3 ticks", "2 after the one at 15")


def test_an_idle_tick_whose_booking_tick_was_skipped_says_so() -> None:
    says(text_of(without(idle({17: None}), 17), 20), "at tick 17, which did not run")


def test_an_idle_tick_in_the_gap_of_a_raised_delay_says_so() -> None:
    longer = {
        number: inference(number, worker=number % 3)._replace(due_tick=number + 4, resolved_tick=number + 4)
        for number in range(17, 36)
    }
    says(text_of(idle(dict(longer)), 20), "the delay changed: what was booked at tick 17 was for tick 21")


def test_an_idle_tick_that_the_rows_do_not_explain_is_said_to_be_unknown() -> None:
    says(text_of(idle({17: None}), 20), "not known from the record", "1 of 3 workers seem to have been idle")


# -- staggers without due ticks ----------------------------------------------------------------------------


def free(jobs: Sequence[InferenceRow], ticks: dict[int, TickRow], stagger: str) -> RunFolder:
    base = run_of(ticks, dict.fromkeys(range(37)), stagger=stagger)
    return replace(base, jobs=list(jobs))


def test_sequential_says_that_its_one_worker_is_busy() -> None:
    jobs = [inference(number, 0, hold=False) for number in range(0, 36, 3)]
    rows = {number: tick(number, TickKind.IDLE) for number in range(3, 40) if number % 3}
    rows |= {job.resolved_tick: tick(job.resolved_tick, job=job) for job in jobs}
    run = free(jobs, rows, "sequential")
    text = text_of(run, 20)
    says(
        text,
        "with sequential, an action counts from the first tick after it is ready",
        "nothing: no answer came since tick 19",
        "one at a time: w0 since tick 18",
        "Its answer came 5.6 ms after this tick began",
        "every part took about its usual time",
    )
    says(text_of(run, 21), "ready: an action of worker 0, booked at tick 18 from the frame of tick 18", "there in time")


def test_expected_time_blames_the_slow_one_that_would_have_been_next() -> None:
    jobs = [inference(number, hold=False) for number in range(17)]
    jobs += [inference(17, took_ms=45, hold=False, at=22)]
    rows = {20: tick(20, TickKind.IDLE), 21: tick(21, TickKind.IDLE)}
    says(
        text_of(free(jobs, rows, "expected-time"), 20),
        "1 of 3 workers: w2 since tick 17",
        "the inference was slow: 45.0 ms",
    )


def test_an_answer_overtaken_by_a_newer_one_is_told_at_the_tick_it_came() -> None:
    overtaken = inference(16, took_ms=38, outcome=Outcome.SUPERSEDED, hold=False, at=20)
    newer = inference(17, took_ms=11, hold=False, at=19)
    rows = {19: tick(19, job=newer), 20: tick(20, TickKind.IDLE)}
    says(
        text_of(free([overtaken, newer], rows, "expected-time"), 20),
        "arrived: an action of worker 1, booked at tick 16",
        "superseded: not used, as worker 2's action from the newer frame of tick 17 (its own: tick 16)",
        "nobody: no inference was under way",
    )


def test_a_newer_frame_than_the_booked_one_is_named() -> None:
    job = inference(17, hold=False)._replace(booked_tick=16)
    says(text_of(free([job], {20: tick(20, job=job)}, "free-running"), 20), "it used the newer frame of tick 17")


def test_workers_that_died_and_are_not_back_are_named() -> None:
    dead = unanswered(inference(15, 1, hold=False), Outcome.DROPPED_DEAD_WORKER, at=18)
    text = text_of(free([dead], {20: tick(20, TickKind.IDLE)}, "expected-time"), 20)
    says(text, "worker 1 had died and was not back", "nobody: no inference was under way")


def test_at_the_last_tick_those_still_at_work_are_named() -> None:
    cut = unanswered(inference(36, 0, hold=False), Outcome.UNFINISHED, at=39)
    says(
        text_of(free([cut], {39: tick(39, TickKind.IDLE)}, "sequential"), 39),
        "one at a time: w0 since tick 36",
        "none of them ever answered",
    )
