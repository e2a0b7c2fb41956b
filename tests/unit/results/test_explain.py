"""One tick in words, on rows made by hand: a tick is 10 ms, a usual inference 25 ms, the delay 3 ticks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtcore.errors import ConfigError
from rtcore.results.explain import causes_of, explain_tick
from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow
from rtcore.scheduling.dispatch import Outcome, TickKind
from tests.support.told_runs import (
    inference,
    run_of,
    says,
    text_of,
    tick,
    unanswered,
    without,
)

pytestmark = pytest.mark.unit


# -- ticks that went well ----------------------------------------------------------------------------------


def test_an_action_on_time_names_its_worker_its_frame_and_its_margin() -> None:
    text = text_of(run_of({}, {}), 20)
    says(
        text,
        "Tick 20: acted",
        "an action of worker 2, booked at tick 17 for tick 20 from the frame of tick 17",
        "there in time, 4.4 ms before tick 20 began",
        "inference 25.0 ms (25.0 ms)",
        "action 1 of worker 2, from the frame of tick 17, 3 ticks old",
    )
    assert "late" not in text.replace("tick began late 2 us", "")


def test_a_later_action_of_a_chunk_is_told_from_its_first() -> None:
    job = inference(10)
    run = run_of({number: tick(number, job=job) for number in (13, 14, 15)}, {11: None, 12: None}, chunk=3)
    says(text_of(run, 14), "for ticks 13 to 15", "number 2 of its 3 actions")
    assert "number" not in text_of(run, 13)


def test_a_chunk_from_the_held_frame_covers_the_ticks_from_the_first_step_on() -> None:
    job, next_one = inference(0), inference(5)
    rows = {number: tick(number, job=job, chunk_index=number - 3) for number in range(3, 8)}
    rows |= {number: tick(number, job=next_one, chunk_index=number - 6) for number in range(8, 11)}
    run = run_of(rows, {0: job, **dict.fromkeys(range(1, 37)), 5: next_one}, chunk=6, chunk_from="frame")
    says(text_of(run, 7), "booked at tick 0 for ticks 3 to 8 from the frame of tick 0", "number 5 of its 6 actions")
    says(text_of(run, 9), "booked at tick 5 for ticks 8 to 11 from the frame of tick 5", "number 4 of its 6 actions")


def test_lead_in_says_when_the_first_action_could_be_due() -> None:
    says(text_of(run_of({}, {}), 2), "the reset at tick 0", "booked at tick 0 (worker 0) for tick 3", "ended at tick 3")


def test_lead_in_after_a_reset_without_an_idle_worker_says_so() -> None:
    slow = {number: inference(number, took_ms=80, outcome=Outcome.STALE_EPISODE, at=26) for number in (17, 18, 19)}
    none = dict.fromkeys(range(20, 26))
    rows = {20: tick(20, TickKind.RESET)} | {number: tick(number, TickKind.LEAD_IN) for number in range(21, 29)}
    text = text_of(run_of(rows, slow | none), 22)
    says(text, "reset at tick 20", "booked at tick 26", "At the reset no worker was idle", "worker 2 since tick 17")


def test_a_reset_says_how_the_episode_ended_and_what_was_lost_by_it() -> None:
    rows = {19: tick(19, job=inference(16), terminated=True, episode_return=12.5), 20: tick(20, TickKind.RESET)}
    stale = {number: inference(number, outcome=Outcome.STALE_EPISODE, at=20) for number in (17, 18, 19)}
    text = text_of(run_of(rows, stale), 20)
    says(text, "terminated at tick 19 with return 12.5", "3 answers under way", "nothing: the world was held")
    says(text_of(run_of({}, {}), 0), "the start of the run")


# -- missed: who was late, and why -------------------------------------------------------------------------


def missed(job: InferenceRow, **fields: Any) -> RunFolder:
    """Tick 20, for which `job` (booked at 17) was due, got no action."""
    return run_of({20: tick(20, TickKind.MISSED, **fields)}, {17: job})


def test_a_slow_inference_is_blamed_with_its_usual_time() -> None:
    text = text_of(missed(inference(17, took_ms=48, outcome=Outcome.LATE, at=22)), 20)
    says(
        text,
        "Tick 20: missed",
        "too late: 18.6 ms after tick 20 began",
        "why: the inference was slow: 48.0 ms, usually 25.0 ms.",
        "late: applied at tick 22, 2 ticks after it was due",
        "action 1 of no worker: the stand-in for a missing action (on-missing noop)",
    )


def test_a_worker_that_woke_late_is_blamed_and_not_its_policy() -> None:
    text = text_of(missed(inference(17, woke_ms=12, outcome=Outcome.LATE, at=21)), 20)
    says(text, "why: the worker started late", "12.1 ms, usually 100 us", "It woke 12.0 ms after the frame was there")
    assert "the inference was slow" not in text


def test_a_frame_that_came_late_is_blamed_on_its_tick_or_on_the_world() -> None:
    shifted = inference(17, step_ms=8.5, outcome=Outcome.LATE, at=21)
    late_tick = run_of(
        {17: tick(17, job=inference(14), lateness_us=8000.0), 20: tick(20, TickKind.MISSED)}, {17: shifted}
    )
    says(text_of(late_tick, 20), "why: the frame was late: its tick began late: 8.0 ms, usually 2 us")
    slow_world = run_of({17: tick(17, job=inference(14), step_us=8500.0), 20: tick(20, TickKind.MISSED)}, {17: shifted})
    says(text_of(slow_world, 20), "why: the frame was late: the world's step was slow: 8.5 ms, usually 500 us")


def test_a_slow_write_is_blamed_on_the_cpu() -> None:
    text = text_of(missed(inference(17, wrote_ms=9, outcome=Outcome.LATE, at=21)), 20)
    says(text, "why: writing the answer was slow", "9.0 ms, usually 10 us")


def test_when_every_part_took_its_usual_time_the_delay_is_too_short() -> None:
    jobs: dict[int, InferenceRow | None] = {
        number: inference(number, took_ms=31, outcome=Outcome.LATE, at=number + 4) for number in range(37)
    }
    run = run_of({20: tick(20, TickKind.MISSED)}, jobs)
    says(text_of(run, 20), "every part took about its usual time", "the delay of 3 ticks is too short")


def test_a_superseded_answer_names_the_newer_one() -> None:
    run = run_of(
        {20: tick(20, TickKind.MISSED), 21: tick(21, job=inference(18))},
        {17: inference(17, took_ms=40, outcome=Outcome.SUPERSEDED, at=22)},
    )
    says(
        text_of(run, 20), "superseded: not used", "worker 1's action from the newer frame of tick 19 (its own: tick 17)"
    )


def test_an_answer_dropped_for_being_late_says_so() -> None:
    text = text_of(missed(inference(17, took_ms=40, outcome=Outcome.DROPPED_LATE, at=22)), 20)
    says(text, "dropped at tick 22: it was late, and on-late is drop")


def test_an_answer_without_an_action_is_why_its_tick_had_none_however_early_it_came() -> None:
    run = run_of({20: tick(20, TickKind.IDLE)}, {17: inference(17, outcome=Outcome.ABSTAINED, at=20)})
    why = "the policy gave no action this time; its answer was there at tick 20."
    says(text_of(run, 20), f"why: {why}")
    assert "in time" not in text_of(run, 20)
    assert causes_of(run, [20]) == {20: f"worker 2: {why}"}


def test_an_idle_tick_for_which_the_policy_gave_none_is_not_told_as_one_for_which_none_was_due() -> None:
    run = run_of({20: tick(20, TickKind.IDLE)}, {17: inference(17, outcome=Outcome.ABSTAINED, at=20)})
    says(text_of(run, 20), "Tick 20: idle, the policy gave no action for it.")
    nothing = run_of({20: tick(20, TickKind.IDLE)}, {17: None})
    says(text_of(nothing, 20), "Tick 20: idle, none was due.")


# -- two speeds --------------------------------------------------------------------------------------------

HEAD = 9


def with_head(*others: InferenceRow, base: int = -1) -> RunFolder:
    """A head in place 9 acts at each tick on the features of 4 ticks ago; at tick `base` the worker's action does."""
    jobs = {number: inference(number, outcome=Outcome.FEATURES_USED, at=number + 4) for number in range(36)}
    glances = {n: inference(n, HEAD, took_ms=1, at=n + 1)._replace(due_tick=n + 1) for n in range(5, 38)}
    if base >= 0:
        del glances[base - 1]
    glances |= {job.booked_tick: job for job in others}
    used = {"features_tick": -1, "features_worker": -1}
    rows = {
        n + 1: tick(n + 1, job=job, **used | {"features_tick": n - 3, "features_worker": (n - 3) % 3})
        for n, job in glances.items()
        if n + 1 != base
    }
    if base >= 0:
        jobs[base - 3] = inference(base - 3)
    run = run_of(rows, {**jobs})
    return replace(run, jobs=[*run.jobs, *glances.values()])


def test_an_action_of_the_head_names_both_frames_and_whose_features_it_used() -> None:
    says(
        text_of(with_head(), 20),
        "head: an action of the head, booked at tick 19 for tick 20 from the frame of tick 19",
        "inference 1.0 ms (1.0 ms)",
        "inference 25.0 ms (25.0 ms)",
        "features used: its own action was not applied, but the head used its features at tick 21.",
        "action 1 of the head, from the frame of tick 19, 1 tick old, with worker 1's features of the frame of "
        "tick 16, 4 ticks old.",
    )


def test_a_base_action_says_that_the_head_was_not_there_and_why() -> None:
    late = inference(19, HEAD, took_ms=14, outcome=Outcome.SUPERSEDED, at=20)._replace(due_tick=20)
    stands_in = (
        "action 1 of worker 2, from the frame of tick 17, 3 ticks old: a base action, as the head's was not there"
    )
    says(
        text_of(with_head(late, base=20), 20),
        "too late: 4.6 ms after tick 20 began",
        "the inference was slow: 14.0 ms, usually 1.0 ms",
        stands_in,
    )
    busy = inference(18, HEAD, took_ms=24, outcome=Outcome.SUPERSEDED, at=20)._replace(due_tick=19)
    run = with_head(busy, base=20)
    says(text_of(run, 20), "head: not booked at tick 19: its job of tick 18 was still under way.", stands_in)
    dead = unanswered(inference(18, HEAD), Outcome.DROPPED_DEAD_WORKER, at=19)._replace(due_tick=19)
    run = replace(run, jobs=[dead if job is busy else job for job in run.jobs])
    says(text_of(run, 20), "head: not booked at tick 19: it had died at work on tick 18, and was not back.")


def test_an_action_of_a_slow_head_that_goes_on_says_so() -> None:
    slow = inference(19, HEAD, took_ms=14, outcome=Outcome.LATE, at=21)._replace(due_tick=20)
    run = with_head(slow, base=20)
    held = tick(20, job=inference(18, HEAD, at=19)._replace(due_tick=19), features_tick=15, features_worker=0)
    run = replace(run, ticks=[held if row.tick == 20 else row for row in run.ticks])
    says(
        text_of(run, 20),
        "too late: 4.6 ms after tick 20 began",
        "action 1 of the head, from the frame of tick 18, 2 ticks old, with worker 0's features of the frame of "
        "tick 15, 5 ticks old: once more, as its next answer was not there.",
    )


def test_a_late_answer_whose_episode_is_over_says_so() -> None:
    text = text_of(missed(inference(17, took_ms=60, outcome=Outcome.STALE_EPISODE, at=24)), 20)
    says(text, "stale episode: not used, its episode was over (found at tick 24)")


def test_a_dead_worker_is_named_with_when_it_came_back() -> None:
    dead = unanswered(inference(17), Outcome.DROPPED_DEAD_WORKER, at=19)
    text = text_of(missed(dead), 20)
    says(
        text,
        "answer: none: worker 2 died, hung or was stopped, which was noticed at tick 19",
        "then: worker 2 was restarted and booked again at tick 20, 1 tick on",
    )
    gone: dict[int, InferenceRow | None] = dict.fromkeys(range(20, 37, 3))
    run = run_of({20: tick(20, TickKind.MISSED)}, {17: dead} | gone)
    says(text_of(run, 20), "then: worker 2 does not appear in the record again")


def test_an_inference_cut_off_by_the_end_of_the_run_says_so() -> None:
    run = run_of({39: tick(39, TickKind.MISSED)}, {36: unanswered(inference(36), Outcome.UNFINISHED, at=39)})
    says(text_of(run, 39), "still under way when the run ended at tick 39")


def test_a_missed_tick_whose_inference_has_no_row_is_not_explained_away() -> None:
    says(text_of(run_of({20: tick(20, TickKind.MISSED)}, {17: None}), 20), "has no row in jobs.csv")


def test_an_answer_whose_frame_has_no_row_leaves_the_reason_open() -> None:
    run = missed(inference(17, took_ms=48, outcome=Outcome.LATE, at=22))
    run = replace(run, ticks=[row for row in run.ticks if row.tick != 17])
    says(text_of(run, 20), "not known: the row of tick 17", "Inference took 48.0 ms, usually 25.0 ms")


# -- late and skipped ticks --------------------------------------------------------------------------------


def test_a_tick_that_began_late_says_by_how_much() -> None:
    run = run_of({20: tick(20, job=inference(17), lateness_us=3000.0)}, {})
    says(text_of(run, 20), "began late, 3.0 ms after its deadline (usually 2 us)")


def test_a_skipped_tick_is_blamed_on_the_world_step_before_it() -> None:
    run = without(run_of({19: tick(19, job=inference(16), step_us=25_000.0)}, {}), 20, 21)
    text = text_of(run, 20)
    says(
        text,
        "Tick 20: skipped",
        "2 ticks skipped in a row",
        "the world's step at tick 19 took 25.0 ms, longer than a tick (10.0 ms)",
        "was due: an action of worker 2",
        "the next tick that ran is 22",
    )
    says(text_of(run, 22), "ticks 20 to 21 before it did not run", "the world's step at tick 19")


def test_a_skipped_tick_is_blamed_on_the_cpu_where_the_world_was_quick() -> None:
    late = run_of({19: tick(19, job=inference(16), lateness_us=30_000.0)}, {})
    says(text_of(without(late, 20, 21), 20), "tick 19 began 30.0 ms late: the env process did not get the CPU in time")
    says(text_of(without(run_of({}, {}), 20), 20), "tick 19 began on time", "lost the CPU: tick 21 began 19.5 ms later")


def test_an_action_late_because_its_tick_was_skipped_is_not_blamed_on_its_worker() -> None:
    late = inference(17, outcome=Outcome.LATE, at=21)
    text = text_of(without(run_of({21: tick(21, job=late)}, {17: late, 18: None}), 20), 21)
    says(text, "there in time", "as tick 20, when it was due, did not run")
    assert "too late" not in text


def test_a_lost_row_is_told_from_a_skipped_tick() -> None:
    run = run_of({}, {})
    run = replace(run, ticks=[row for row in run.ticks if row.tick != 20])
    says(text_of(run, 20), "its row is lost", "neighbours are ticks 19 and 21")


@pytest.mark.parametrize("number", [-1, 40, 10_000])
def test_a_tick_outside_the_record_is_an_error_that_names_its_ends(number: int) -> None:
    with pytest.raises(ConfigError, match=rf"--tick {number}: not in this run; .* tick 0 to tick 39"):
        explain_tick(run_of({}, {}), number)


def test_a_run_without_ticks_is_an_error_with_its_reason() -> None:
    empty = RunFolder(Path("made"), {}, {}, [], [], ["actions.csv is empty."])
    with pytest.raises(ConfigError, match=r"no ticks to explain\. actions\.csv is empty"):
        explain_tick(empty, 0)
