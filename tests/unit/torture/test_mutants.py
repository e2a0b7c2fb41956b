"""Deliberate faults in schedule, dispatcher, workers and replay builder: the campaign finds each of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from rtcore.scheduling.dispatch import Dispatcher
from rtcore.scheduling.schedule import Schedule
from rtcore.torture.campaign import attempt
from rtcore.torture.scenario import Scenario
from rtcore.torture.simulation import KeptTransitions, ObservedWorkers, Parts

pytestmark = pytest.mark.unit

#: Within so many seeds each one has to be found; most are within the first few, in runs of so many ticks.
SEEDS, TICKS = 2000, 300
#: Some show in few runs, some in long ones alone, as the delay has to change first: one of these, to save the search.
KNOWN = {
    "a_lowered_delay_books_a_tick_twice": (616, 900),
    "the_delay_is_one_tick_short": (490, 900),
    "a_late_chunk_begins_at_its_first_action": (17, 300),
}


def mutant(base: type[Any], name: str, change: Any) -> type[Any]:
    """`base` with another method; `change(own)` makes it of its own one."""
    return type(f"Mutant{base.__name__}", (base,), {name: change(getattr(base, name))})


def overdue_workers_stay(own: Any) -> Any:
    return lambda self, tick: None


def a_dead_worker_keeps_its_share_of_the_starts(own: Any) -> Any:
    def worker_down(self: Any, worker: int) -> Any:
        stride, job = self.stride_ticks, own(self, worker)
        self.stride_ticks = stride
        self._up.add(worker)
        return job

    return worker_down


def who_comes_back_gets_no_job(own: Any) -> Any:
    def worker_up(self: Any, worker: int) -> None:
        own(self, worker)
        if worker in self._idle:
            self._idle.remove(worker)

    return worker_up


def a_lowered_delay_books_a_tick_twice(own: Any) -> Any:
    return lambda self, tick, *, hold: own(self, tick, hold=hold) if not hold else _without_last_due(self, own, tick)


def _without_last_due(schedule: Any, own: Any, tick: int) -> Any:
    schedule._last_due_tick = -1
    return own(schedule, tick, hold=True)


def the_delay_is_one_tick_short(own: Any) -> Any:
    def start(self: Any, tick: int, *, hold: bool) -> Any:
        job = own(self, tick, hold=hold)
        if self.replans and self.delay_ticks > 1:
            job = job._replace(due_tick=job.due_tick - 1)
            self._busy[job.worker] = job
        return job

    return start


def a_lost_job_stays(own: Any) -> Any:
    def lose(self: Any, job: Any, tick: int) -> None:
        own(self, job, tick)
        self._jobs[job.worker] = job

    return lose


def a_dead_job_waits_in_its_slot(own: Any) -> Any:
    def membership(self: Any) -> Any:
        waiting = dict(self._waiting)
        changes = own(self)
        self._waiting.update({worker: job for worker, job in waiting.items() if worker not in self._waiting})
        return changes

    return membership


def answers_of_the_old_episode_act(own: Any) -> Any:
    def offer(self: Any, job: Any, answer: Any, tick: int) -> None:
        episode, self.episode = self.episode, answer.episode
        own(self, job, answer, tick)
        self.episode = episode

    return offer


def what_waits_survives_the_episode(own: Any) -> Any:
    def new_episode(self: Any, tick: int) -> None:
        pending, self._pending = self._pending, []
        own(self, tick)
        self._pending = pending

    return new_episode


def the_oldest_of_those_due_acts(own: Any) -> Any:
    def take_due(self: Any, tick: int) -> Any:
        due = sorted(own(self, tick), key=lambda offer: offer.answer.obs_tick)
        for offer in due[1:]:
            self._end_unapplied(offer, 2, tick)
        return due[:1]

    return take_due


def a_late_chunk_begins_at_its_first_action(own: Any) -> Any:
    def decide(self: Any, tick: int) -> Any:
        decision = own(self, tick)
        return replace(decision, chunk_index=0) if decision.first_use else decision

    return decide


def no_action_counts_as_a_missed_one(own: Any) -> Any:
    return lambda self, job: None


def frames_of_the_last_episode_are_remembered(own: Any) -> Any:
    return lambda self: None


def the_next_observation_is_the_newest_frame(own: Any) -> Any:
    def close(self: Any, seen: Any, **flags: Any) -> Any:
        return own(self, seen._replace(obs_seq=self._seqs[-1][1]), **flags)

    return close


def a_decision_owns_the_tick_of_the_next_one(own: Any) -> Any:
    def feed(self: Any, header: Any, action: bytes) -> Any:
        if self._open is not None and header.kind == 0 and not self._goes_on(header):
            self._add_reward(header)
        return own(self, header, action)

    return feed


MUTANTS = [
    (Schedule, "_set_overdue_aside", overdue_workers_stay),
    (Schedule, "worker_down", a_dead_worker_keeps_its_share_of_the_starts),
    (Schedule, "worker_up", who_comes_back_gets_no_job),
    (Schedule, "_book_on_stride", a_lowered_delay_books_a_tick_twice),
    (Schedule, "_start", the_delay_is_one_tick_short),
    (Dispatcher, "lose", a_lost_job_stays),
    (Dispatcher, "offer", answers_of_the_old_episode_act),
    (Dispatcher, "new_episode", what_waits_survives_the_episode),
    (Dispatcher, "_take_due", the_oldest_of_those_due_acts),
    (Dispatcher, "decide", a_late_chunk_begins_at_its_first_action),
    (Dispatcher, "_forget_due", no_action_counts_as_a_missed_one),
    (ObservedWorkers, "membership", a_dead_job_waits_in_its_slot),
    (KeptTransitions, "_forget_episode", frames_of_the_last_episode_are_remembered),
    (KeptTransitions, "_close", the_next_observation_is_the_newest_frame),
    (KeptTransitions, "feed", a_decision_owns_the_tick_of_the_next_one),
]
PLACE = {Schedule: "schedule", Dispatcher: "dispatcher", ObservedWorkers: "workers", KeptTransitions: "builder"}


@pytest.mark.parametrize(("base", "name", "change"), MUTANTS, ids=[change.__name__ for _, _, change in MUTANTS])
def test_a_deliberate_fault_is_found_and_the_same_seeds_without_it_are_not(base: Any, name: str, change: Any) -> None:
    parts = Parts(**{PLACE[base]: mutant(base, name, change)})
    first, ticks = KNOWN.get(change.__name__, (0, TICKS))
    for seed in sorted(range(SEEDS), key=lambda seed: seed != first):
        scenario = Scenario.of(seed, ticks)
        found = attempt(scenario, parts)
        if found is not None:
            assert attempt(scenario) is None
            return
    raise AssertionError(f"not found within {SEEDS} seeds")
