"""Which action governs which tick, and what becomes of every other one."""

import pytest

from rtcore.scheduling.dispatch import Dispatcher, Known, Outcome, TickKind
from rtcore.scheduling.jobs import Answer, Job

pytestmark = pytest.mark.unit

ACTED, MISSED, IDLE, LEAD_IN = TickKind.ACTED, TickKind.MISSED, TickKind.IDLE, TickKind.LEAD_IN


class Desk:
    """A dispatcher in which jobs are booked and answered by name of their observation tick."""

    def __init__(self, on_late="apply", *, chunk=1, hold=True, delay=3):
        self.dispatcher = Dispatcher(on_late, chunk_ticks=chunk)
        self.hold, self.delay = hold, delay
        self.jobs = {}

    def book(self, *obs_ticks):
        for obs_tick in obs_ticks:
            job = Job(obs_tick, obs_tick, obs_tick + self.delay, self.hold)
            self.jobs[obs_tick] = job
            self.dispatcher.expect(job)
        return self

    def answer(self, obs_tick, *, at, episode=0, used=None):
        used = obs_tick if used is None else used
        self.dispatcher.offer(self.jobs[obs_tick], Answer(obs_tick=used, episode=episode), at)
        return self

    def decide(self, tick):
        """(kind, observation tick of the action, index into its chunk)"""
        decision = self.dispatcher.decide(tick)
        obs_tick = decision.offer.answer.obs_tick if decision.offer is not None else None
        return decision.kind, obs_tick, decision.chunk_index

    def kinds(self, ticks):
        return [self.dispatcher.decide(tick).kind for tick in ticks]

    def outcome(self, obs_tick):
        found = [row.outcome for row in self.dispatcher.ended if row.booked_tick == obs_tick]
        assert len(found) <= 1, "a job ends once"
        return found[0] if found else None


# -- holding and lateness ----------------------------------------------------------------------------------------


def test_an_early_action_waits_for_its_due_tick():
    desk = Desk().book(0).answer(0, at=1)
    assert desk.kinds([1, 2]) == [LEAD_IN, LEAD_IN]
    assert desk.decide(3) == (ACTED, 0, 0)
    assert desk.outcome(0) is Outcome.ON_TIME
    assert desk.dispatcher.ended[0].tick == 3


def test_without_hold_an_action_is_applied_as_soon_as_it_is_there():
    desk = Desk(hold=False).book(0).answer(0, at=1)
    assert desk.decide(1) == (ACTED, 0, 0)
    assert desk.outcome(0) is Outcome.ON_TIME


def test_a_late_action_is_applied_at_the_first_tick_after_it_came():
    desk = Desk().book(0)
    assert desk.kinds([1, 2, 3, 4]) == [LEAD_IN, LEAD_IN, MISSED, IDLE]
    desk.answer(0, at=5)
    assert desk.decide(5) == (ACTED, 0, 0)
    assert desk.outcome(0) is Outcome.LATE


def test_a_late_action_is_dropped_if_that_is_asked_for():
    desk = Desk("drop").book(0)
    desk.kinds([1, 2, 3])
    desk.answer(0, at=4)
    assert desk.decide(4) == (IDLE, None, 0)
    assert desk.outcome(0) is Outcome.DROPPED_LATE


def test_an_action_whose_due_tick_was_skipped_is_late_at_the_next():
    desk = Desk().book(0).answer(0, at=1)
    desk.kinds([1, 2])
    assert desk.decide(4) == (ACTED, 0, 0)
    assert desk.outcome(0) is Outcome.LATE


def test_the_due_tick_of_a_skipped_tick_is_missed_at_the_next_that_runs():
    desk = Desk().book(0, 1)
    desk.kinds([1, 2])
    assert desk.kinds([5, 6]) == [MISSED, IDLE]


# -- the newest observation --------------------------------------------------------------------------------------


def test_of_two_actions_due_the_one_with_the_newer_observation_is_applied():
    desk = Desk().book(0, 1).answer(1, at=4).answer(0, at=4)
    assert desk.decide(4) == (ACTED, 1, 0)
    assert (desk.outcome(0), desk.outcome(1)) == (Outcome.SUPERSEDED, Outcome.ON_TIME)


def test_an_older_action_that_comes_after_a_newer_was_applied_is_superseded():
    desk = Desk().book(0, 1)
    desk.kinds([1, 2, 3])
    desk.answer(1, at=4)
    assert desk.decide(4) == (ACTED, 1, 0)
    desk.answer(0, at=5)
    assert desk.outcome(0) is Outcome.SUPERSEDED
    assert desk.decide(5)[0] is IDLE


def test_an_older_action_still_waiting_is_superseded_when_its_turn_comes():
    """After the delay was lowered an older job can be due after a newer one."""
    dispatcher = Dispatcher()
    older, newer = Job(0, 0, 9, True), Job(1, 2, 5, True)
    for job in (older, newer):
        dispatcher.expect(job)
    for job in (older, newer):
        dispatcher.offer(job, Answer(obs_tick=job.obs_tick, episode=0), 4)
    assert dispatcher.decide(5).offer.job is newer
    assert dispatcher.decide(9).offer is None
    assert [(row.worker, row.outcome) for row in dispatcher.ended] == [
        (newer.worker, Outcome.ON_TIME),
        (older.worker, Outcome.SUPERSEDED),
    ]


def test_actions_that_wait_are_taken_at_their_ticks_and_end_in_the_order_in_which_they_came():
    dispatcher = Dispatcher()
    jobs = {due: Job(worker, due - 4, due, True) for worker, due in enumerate((9, 6, 8, 5, 7, 12, 11))}
    for job in jobs.values():
        dispatcher.expect(job)
    for job in jobs.values():  # not in the order of their ticks
        dispatcher.offer(job, Answer(obs_tick=job.obs_tick, episode=0), 4)
    assert dispatcher.decide(5).offer.job is jobs[5]
    assert dispatcher.decide(9).offer.job is jobs[9]  # three ticks were skipped
    dispatcher.finish(9)
    superseded, unfinished = Outcome.SUPERSEDED, Outcome.UNFINISHED
    assert [(row.due_tick, row.outcome) for row in dispatcher.ended] == [
        *((5, Outcome.ON_TIME), (6, superseded), (8, superseded), (7, superseded), (9, Outcome.ON_TIME)),
        *((12, unfinished), (11, unfinished)),
    ]


def test_the_frame_really_used_counts_not_the_one_booked():
    desk = Desk(hold=False).book(0, 1).answer(0, at=5, used=4).answer(1, at=5, used=3)
    assert desk.decide(5) == (ACTED, 4, 0)
    assert desk.outcome(1) is Outcome.SUPERSEDED


def test_two_answers_from_one_frame_may_follow_each_other():
    desk = Desk(hold=False).book(0, 1).answer(0, at=5, used=3)
    assert desk.decide(5) == (ACTED, 3, 0)
    desk.answer(1, at=6, used=3)
    assert desk.decide(6) == (ACTED, 3, 0)
    assert desk.outcome(1) is Outcome.ON_TIME


# -- episodes ----------------------------------------------------------------------------------------------------


def test_an_answer_for_an_earlier_tick_that_saw_the_same_frame_does_not_take_over_a_chunk():
    """Its worker was away for so long that the booked frame was overwritten; it read the newest one instead."""
    desk = Desk(chunk=4).book(0, 10).answer(10, at=12)
    assert desk.decide(13) == (ACTED, 10, 0)
    desk.answer(0, at=14, used=10)
    assert desk.decide(14) == (ACTED, 10, 1)
    assert desk.outcome(0) is Outcome.SUPERSEDED
    assert desk.outcome(10) is Outcome.ON_TIME


def test_whatever_is_pending_or_under_way_at_a_reset_is_stale():
    desk = Desk().book(0, 1).answer(0, at=2)
    desk.dispatcher.new_episode(2)
    assert desk.outcome(0) is Outcome.STALE_EPISODE
    desk.answer(1, at=3)
    assert desk.outcome(1) is Outcome.STALE_EPISODE
    assert desk.kinds([3, 4]) == [LEAD_IN, LEAD_IN]


def test_a_new_episode_has_a_lead_in_of_its_own():
    desk = Desk().book(0).answer(0, at=2)
    assert desk.kinds([1, 2, 3, 4]) == [LEAD_IN, LEAD_IN, ACTED, IDLE]
    desk.dispatcher.new_episode(5)
    desk.book(5)
    assert desk.kinds([6, 7]) == [LEAD_IN, LEAD_IN]
    assert desk.kinds([8, 9]) == [MISSED, IDLE]


def test_the_chunk_of_an_old_episode_does_not_play_on():
    desk = Desk(chunk=4).book(0).answer(0, at=1)
    assert desk.decide(3) == (ACTED, 0, 0)
    desk.dispatcher.new_episode(4)
    assert desk.decide(5) == (LEAD_IN, None, 0)


def test_a_job_of_the_old_episode_that_used_a_frame_of_the_new_one_is_valid():
    desk = Desk(hold=False).book(0)
    desk.dispatcher.new_episode(2)
    desk.answer(0, at=3, used=2, episode=1)
    assert desk.decide(3) == (ACTED, 2, 0)


def test_an_old_observation_tick_of_the_last_episode_does_not_bar_the_new_one():
    desk = Desk(hold=False).book(7).answer(7, at=8)
    desk.decide(8)
    desk.dispatcher.new_episode(9)
    desk.book(9).answer(9, at=10, episode=1)
    assert desk.decide(10) == (ACTED, 9, 0)


# -- death and the end -------------------------------------------------------------------------------------------


def test_the_due_tick_of_a_dead_workers_job_is_missed_not_idle():
    desk = Desk().book(0, 1)
    desk.dispatcher.lose(desk.jobs[0], 2)
    assert desk.outcome(0) is Outcome.DROPPED_DEAD_WORKER
    assert desk.kinds([3]) == [MISSED]


def test_an_answer_after_the_job_was_given_up_changes_nothing():
    desk = Desk().book(0)
    desk.dispatcher.lose(desk.jobs[0], 1)
    desk.answer(0, at=2)
    assert sum(desk.dispatcher.outcomes) == 1
    assert desk.decide(3) == (MISSED, None, 0)


def test_losing_a_job_twice_counts_once():
    desk = Desk().book(0)
    desk.dispatcher.lose(desk.jobs[0], 1)
    desk.dispatcher.lose(desk.jobs[0], 1)
    assert sum(desk.dispatcher.outcomes) == 1


def test_at_the_end_what_is_under_way_or_waiting_is_unfinished():
    desk = Desk().book(0, 1).answer(0, at=2)
    desk.dispatcher.finish(2)
    assert (desk.outcome(0), desk.outcome(1)) == (Outcome.UNFINISHED, Outcome.UNFINISHED)
    desk.dispatcher.finish(2)
    assert desk.dispatcher.outcomes[Outcome.UNFINISHED] == 2


# -- kinds of ticks ----------------------------------------------------------------------------------------------


def test_without_a_due_tick_nothing_is_ever_missed():
    desk = Desk(hold=False).book(0)
    assert desk.kinds(range(1, 6)) == [LEAD_IN, LEAD_IN, IDLE, IDLE, IDLE]


def test_before_the_first_booking_every_tick_is_lead_in():
    assert Desk().kinds(range(4)) == [LEAD_IN] * 4


def test_an_action_before_the_lead_in_was_over_ends_it():
    desk = Desk(hold=False, delay=5).book(0).answer(0, at=2)
    assert desk.kinds([1, 2, 3]) == [LEAD_IN, ACTED, IDLE]


def test_ticks_between_two_due_ticks_are_idle():
    desk = Desk().book(0, 3).answer(0, at=1).answer(3, at=4)
    assert desk.kinds(range(1, 8)) == [LEAD_IN, LEAD_IN, ACTED, IDLE, IDLE, ACTED, IDLE]


# -- chunks ------------------------------------------------------------------------------------------------------


def test_a_chunk_plays_one_action_a_tick_and_counts_once():
    desk = Desk(chunk=3).book(0).answer(0, at=2)
    desk.kinds([1, 2])
    assert [desk.decide(tick) for tick in (3, 4, 5)] == [(ACTED, 0, 0), (ACTED, 0, 1), (ACTED, 0, 2)]
    assert desk.decide(6) == (IDLE, None, 0)
    assert sum(desk.dispatcher.outcomes) == desk.dispatcher.outcomes[Outcome.ON_TIME] == 1


@pytest.mark.parametrize("on_late", ["apply", "drop"])
def test_a_late_chunk_goes_on_where_it_would_have_been(on_late):
    desk = Desk(on_late, chunk=3).book(0)
    assert desk.kinds([3]) == [MISSED]
    desk.answer(0, at=4)
    assert [desk.decide(tick) for tick in (4, 5, 6)] == [(ACTED, 0, 1), (ACTED, 0, 2), (IDLE, None, 0)]
    assert desk.outcome(0) is Outcome.LATE


def test_a_chunk_that_is_wholly_past_gives_its_last_action_or_is_dropped():
    applied = Desk(chunk=3).book(0)
    dropped = Desk("drop", chunk=3).book(0)
    assert applied.kinds(range(3, 6)) == dropped.kinds(range(3, 6)) == [MISSED] * 3
    assert applied.answer(0, at=6).decide(6) == (ACTED, 0, 2)
    assert dropped.answer(0, at=6).decide(6) == (IDLE, None, 0)
    assert (applied.outcome(0), dropped.outcome(0)) == (Outcome.LATE, Outcome.DROPPED_LATE)
    assert applied.decide(7) == (IDLE, None, 0)


def test_a_newer_chunk_takes_over_in_mid_chunk():
    desk = Desk(chunk=4).book(0, 2).answer(0, at=1).answer(2, at=3)
    assert [desk.decide(tick)[1:] for tick in (3, 4, 5, 6)] == [(0, 0), (0, 1), (2, 0), (2, 1)]
    assert (desk.outcome(0), desk.outcome(2)) == (Outcome.ON_TIME, Outcome.ON_TIME)


def test_an_older_chunk_does_not_come_back_after_a_newer_one():
    desk = Desk(chunk=6).book(0, 1).answer(1, at=3)
    assert desk.decide(4) == (ACTED, 1, 0)
    desk.answer(0, at=5)
    assert desk.decide(5) == (ACTED, 1, 1)
    assert desk.outcome(0) is Outcome.SUPERSEDED


def test_a_skipped_tick_skips_its_action_of_the_chunk():
    desk = Desk(chunk=4).book(0).answer(0, at=1)
    assert [desk.decide(tick) for tick in (3, 6, 7)] == [(ACTED, 0, 0), (ACTED, 0, 3), (IDLE, None, 0)]


def test_every_tick_a_missing_chunk_was_to_cover_is_missed():
    desk = Desk(chunk=3).book(0)
    assert desk.kinds(range(3, 7)) == [MISSED, MISSED, MISSED, IDLE]


def test_a_chunk_from_the_frame_begins_behind_the_actions_that_are_past():
    desk = Desk(chunk=5)
    desk.dispatcher = Dispatcher(chunk_ticks=5, chunk_from="frame", holds=False)
    desk.book(0).answer(0, at=2)
    assert [desk.decide(tick) for tick in (3, 4, 5)] == [(ACTED, 0, 2), (ACTED, 0, 3), (ACTED, 0, 4)]
    assert desk.decide(6) == (IDLE, None, 0)


def test_a_late_chunk_from_the_frame_keeps_time_with_its_frame():
    desk = Desk(chunk=5)
    desk.dispatcher = Dispatcher(chunk_ticks=5, chunk_from="frame", holds=False)
    desk.book(0)
    assert desk.kinds([3]) == [MISSED]
    desk.answer(0, at=4)
    assert [desk.decide(tick) for tick in (4, 5, 6)] == [(ACTED, 0, 3), (ACTED, 0, 4), (IDLE, None, 0)]


def test_without_hold_a_chunk_from_the_frame_counts_from_the_frame_that_was_used():
    desk = Desk(chunk=5, hold=False)
    desk.dispatcher = Dispatcher(chunk_ticks=5, chunk_from="frame", holds=False)
    desk.book(0).answer(0, at=4, used=1)
    assert [desk.decide(tick) for tick in (4, 5, 6)] == [(ACTED, 1, 2), (ACTED, 1, 3), (ACTED, 1, 4)]


def test_in_a_lead_in_that_is_held_no_action_of_a_chunk_is_past():
    """The world stands on its first frame: action 0 is for its first step, whichever held frame was looked at."""
    desk = Desk(chunk=5)
    desk.dispatcher = Dispatcher(chunk_ticks=5, chunk_from="frame")
    desk.book(0, 1, 4).answer(0, at=2).answer(1, at=3)
    assert desk.kinds([1, 2]) == [LEAD_IN, LEAD_IN]
    assert [desk.decide(tick) for tick in (3, 4, 5)] == [(ACTED, 0, 0), (ACTED, 1, 1), (ACTED, 1, 2)]
    desk.answer(4, at=6)
    assert [desk.decide(tick) for tick in (6, 7)] == [(ACTED, 1, 3), (ACTED, 4, 2)]


def test_without_hold_a_chunk_that_ends_the_lead_in_begins_with_its_first_action():
    desk = Desk(chunk=5, hold=False)
    desk.dispatcher = Dispatcher(chunk_ticks=5, chunk_from="frame")
    desk.book(0).answer(0, at=2)
    assert desk.decide(2) == (ACTED, 0, 0)


def blending_desk():
    """Chunks of four bytes from tick 3 and 5 on, answered in time; where both have an action, their bytes are added."""
    desk = Desk(chunk=4)
    desk.dispatcher = Dispatcher(chunk_ticks=4, blend=lambda actions: bytes([sum(one[0] for one in actions)]))
    desk.book(0, 2)
    for obs_tick, actions in ((0, bytes([1, 2, 3, 4])), (2, bytes([10, 20, 30, 40]))):
        desk.dispatcher.offer(desk.jobs[obs_tick], Answer(obs_tick=obs_tick, episode=0, actions=actions), 2)
    return desk


def acted(desk, tick):
    decision = desk.dispatcher.decide(tick)
    return decision.offer.answer.actions[decision.chunk_index] if decision.offer is not None else None


def test_where_chunks_overlap_what_acts_is_made_of_all_of_them():
    desk = blending_desk()
    assert [acted(desk, tick) for tick in range(3, 10)] == [1, 2, 3 + 10, 4 + 20, 30, 40, None]
    assert (desk.outcome(0), desk.outcome(2)) == (Outcome.ON_TIME, Outcome.ON_TIME)


def test_what_a_job_is_told_is_what_is_made_of_the_chunks_that_overlap():
    desk = blending_desk()
    assert acted(desk, 3) == 1
    told = desk.dispatcher.committed(Job(9, 3, 9, hold=True), 3)
    known = [piece.answer.actions[piece.chunk_index + n] for piece in told for n in range(piece.num_ticks)]
    assert known == [acted(desk, tick) for tick in range(4, 9)]


def test_actions_are_blended_once_for_each_tick_and_again_where_another_chunk_joins_them():
    desk, asked = Desk(chunk=4), []

    def blend(actions):
        asked.append(len(actions))
        return bytes([sum(one[0] for one in actions)])

    desk.dispatcher = Dispatcher(chunk_ticks=4, blend=blend)
    desk.book(0, 1)
    for obs_tick, actions in ((0, bytes([1, 2, 3, 4])), (1, bytes([10, 20, 30, 40]))):
        desk.dispatcher.offer(desk.jobs[obs_tick], Answer(obs_tick=obs_tick, episode=0, actions=actions), 2)
    job = Job(9, 3, 8, hold=True)
    acted(desk, 3)
    told = [desk.dispatcher.committed(job, 3) for _ in range(3)]
    assert told[1:] == told[:-1]
    assert asked == [2, 2, 2], "ticks 4 to 6"
    assert (acted(desk, 4), asked) == (2 + 10, [2, 2, 2])
    desk.book(2)
    desk.dispatcher.offer(desk.jobs[2], Answer(obs_tick=2, episode=0, actions=bytes([100] * 4)), 4)
    assert (acted(desk, 5), asked[3:]) == (3 + 20 + 100, [3])
    assert (acted(desk, 6), asked[4:]) == (4 + 30 + 100, [3])


def test_chunks_of_an_old_episode_are_not_mixed_in():
    desk = blending_desk()
    acted(desk, 3), acted(desk, 5)
    desk.dispatcher.new_episode(6)
    desk.book(6)
    desk.dispatcher.offer(desk.jobs[6], Answer(obs_tick=6, episode=1, actions=bytes([5, 6, 7, 8])), 8)
    assert acted(desk, 9) == 5


# -- what is known at booking ------------------------------------------------------------------------------------

UNKNOWN, FACT, PLAN, HELD = Known.UNKNOWN, Known.FACT, Known.PLAN, Known.HELD


def known(desk, tick):
    """Per tick between the booking at `tick` and its due tick: (what is known, frame of the action, its index)."""
    job = Job(1000 + tick, tick, tick + desk.delay, desk.hold)
    told = dict.fromkeys(range(tick + 1, job.due_tick), (UNKNOWN, None, None))
    next_tick = tick + 1
    for piece in desk.dispatcher.committed(job, tick):
        assert next_tick <= piece.first_tick, "in order"
        assert piece.num_ticks > 0
        next_tick = piece.first_tick + piece.num_ticks
        for index, at in enumerate(range(piece.first_tick, next_tick), piece.chunk_index):
            of = piece.answer
            told[at] = (piece.known, None, None) if of is None else (piece.known, of.obs_tick, index)
    assert next_tick <= job.due_tick
    return list(told.values())


def test_answers_that_wait_for_their_tick_are_facts_and_those_still_computed_unknown():
    desk = Desk(delay=4).book(0, 1, 2).answer(0, at=2).answer(1, at=3)
    desk.kinds([1, 2, 3])
    assert known(desk, 3) == [(FACT, 0, 0), (FACT, 1, 0), (UNKNOWN, None, None)]


def test_a_lead_in_is_held_up_to_the_first_due_tick_of_the_episode():
    desk = Desk(delay=4).book(0)
    assert known(desk, 0) == [(HELD, None, None)] * 3
    desk.book(1)
    desk.kinds([1, 2])
    assert known(desk, 2) == [(HELD, None, None), (UNKNOWN, None, None), (UNKNOWN, None, None)]


def test_the_first_booking_of_an_episode_is_held_all_the_way_also_before_it_is_expected():
    desk = Desk(delay=3)
    assert known(desk, 0) == [(HELD, None, None)] * 2


def test_a_newer_answer_that_came_first_is_a_fact_and_the_older_one_before_it_unknown():
    desk = Desk(delay=4).book(0, 1).answer(1, at=2)
    desk.kinds([1, 2])
    assert known(desk, 2) == [(HELD, None, None), (UNKNOWN, None, None), (FACT, 1, 0)]


def test_an_idle_tick_is_a_fact_once_no_answer_can_come_late():
    """One worker, one start in four ticks: its action was applied, and `on_missing` acts until the next."""
    desk = Desk(delay=4).book(0).answer(0, at=4)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, None, None)] * 3


def test_an_idle_tick_is_unknown_while_an_answer_may_still_come_late():
    desk = Desk(delay=4).book(0, 2).answer(0, at=4)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, None, None), (UNKNOWN, None, None), (UNKNOWN, None, None)]


def test_the_ticks_of_a_late_job_are_unknown_at_once():
    desk = Desk(delay=3).book(0)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(UNKNOWN, None, None)] * 2


def test_the_chunk_in_force_is_a_fact_up_to_the_first_due_tick_under_way_and_a_plan_behind_it():
    desk = Desk(chunk=6, delay=4).book(0, 2).answer(0, at=4)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, 0, 1), (PLAN, 0, 2), (PLAN, 0, 3)]


def test_a_job_that_was_booked_later_for_an_earlier_tick_is_the_one_that_may_replace_a_chunk_first():
    desk = Desk(chunk=20, delay=4).book(0).answer(0, at=4)
    desk.kinds([1, 2, 3, 4])
    for job in (Job(1, 4, 12, hold=True), Job(2, 5, 8, hold=True)):
        desk.dispatcher.expect(job)
    desk.decide(5)
    told = desk.dispatcher.committed(Job(3, 5, 14, hold=True), 5)
    assert [(piece.first_tick, piece.num_ticks, piece.known) for piece in told] == [(6, 2, FACT), (8, 6, PLAN)]


def test_a_chunk_that_ends_before_the_due_tick_leaves_a_stand_in_behind_it():
    desk = Desk(chunk=2, delay=4).book(0).answer(0, at=4)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, 0, 1), (FACT, None, None), (FACT, None, None)]


def test_a_chunk_that_waits_takes_over_from_the_one_in_force_at_its_due_tick():
    desk = Desk(chunk=6, delay=4).book(0, 2, 4).answer(0, at=4).answer(2, at=5)
    desk.kinds([1, 2, 3, 4, 5])
    assert known(desk, 5) == [(FACT, 2, 0), (FACT, 2, 1), (PLAN, 2, 2)]


def test_an_older_job_under_way_replaces_nothing():
    """Its chunk would be superseded by the newer one that is in force."""
    desk = Desk(chunk=6, delay=3).book(0, 1).answer(1, at=3)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, 1, 1), (FACT, 1, 2)]


def test_a_job_of_the_last_episode_replaces_nothing_if_its_frame_is_the_booked_one():
    desk = Desk(delay=4).book(0, 1)
    desk.dispatcher.new_episode(2)
    assert known(desk, 2) == [(HELD, None, None)] * 3


def test_a_dead_workers_job_replaces_nothing():
    desk = Desk(chunk=6, delay=4).book(0, 2).answer(0, at=4)
    desk.dispatcher.lose(desk.jobs[2], 4)
    desk.kinds([1, 2, 3, 4])
    assert known(desk, 4) == [(FACT, 0, 1), (FACT, 0, 2), (FACT, 0, 3)]


def test_without_hold_any_other_job_may_act_at_once():
    desk = Desk(hold=False, chunk=6, delay=4).book(0, 1).answer(0, at=2)
    desk.decide(2)
    assert known(desk, 2) == [(PLAN, 0, 1), (PLAN, 0, 2), (PLAN, 0, 3)]


def test_a_sequential_agents_chunk_goes_on_as_a_fact():
    desk = Desk(hold=False, chunk=3, delay=4).book(0).answer(0, at=4)
    desk.decide(4)
    assert known(desk, 4) == [(FACT, 0, 1), (FACT, 0, 2), (FACT, None, None)]


def test_with_a_delay_of_one_tick_nothing_lies_in_between():
    assert known(Desk(delay=1).book(0), 1) == []


# -- no action this time -----------------------------------------------------------------------------------------


def abstain(desk, obs_tick, *, at, episode=0):
    desk.dispatcher.offer(desk.jobs[obs_tick], Answer(obs_tick=obs_tick, episode=episode, abstained=1), at)


def test_an_answer_without_an_action_ends_as_abstained_and_its_tick_is_idle_not_missed():
    desk = Desk().book(0, 1).answer(0, at=2)
    abstain(desk, 1, at=3)
    assert desk.kinds([1, 2, 3, 4]) == [LEAD_IN, LEAD_IN, ACTED, IDLE]
    assert (desk.outcome(1), desk.dispatcher.outcomes[Outcome.ABSTAINED]) == (Outcome.ABSTAINED, 1)


def test_an_answer_without_an_action_leaves_the_chunk_in_force():
    desk = Desk(chunk=4).book(0, 2).answer(0, at=3)
    assert desk.decide(3) == (ACTED, 0, 0)
    abstain(desk, 2, at=5)
    assert [desk.decide(tick) for tick in (5, 6, 7)] == [(ACTED, 0, 2), (ACTED, 0, 3), (IDLE, None, 0)]


def test_an_answer_without_an_action_that_is_late_leaves_its_tick_missed():
    desk = Desk().book(0, 1).answer(0, at=2)
    assert desk.kinds([3, 4]) == [ACTED, MISSED]
    abstain(desk, 1, at=5)
    assert desk.kinds([5]) == [IDLE]
    assert desk.outcome(1) is Outcome.ABSTAINED


# -- a head ------------------------------------------------------------------------------------------------------

HEAD = 99


class TwoSpeedDesk(Desk):
    """Trunk workers with a delay of 3 ticks, and a head with one of 1. Head's jobs are known by their tick."""

    def __init__(self, on_late="apply", *, chunk=1):
        super().__init__(on_late, chunk=chunk)
        self.dispatcher = Dispatcher(on_late, chunk_ticks=chunk, head=HEAD)
        self.of_head = {}

    def ask_head(self, tick):
        self.of_head[tick] = Job(HEAD, tick, tick + 1, True)
        self.dispatcher.expect(self.of_head[tick])
        return self

    def head_answers(self, tick, *, at, episode=0, abstained=0):
        self.dispatcher.offer(self.of_head[tick], Answer(obs_tick=tick, episode=episode, abstained=abstained), at)
        return self

    def outcome(self, obs_tick):
        found = [row.outcome for row in self.dispatcher.ended if row.booked_tick == obs_tick and row.worker != HEAD]
        assert len(found) <= 1, "a job ends once"
        return found[0] if found else None


def test_the_heads_action_takes_the_place_of_the_trunks_and_that_one_ends_with_its_features():
    desk = TwoSpeedDesk().book(0).answer(0, at=2)
    assert desk.kinds([1, 2]) == [LEAD_IN, LEAD_IN]
    desk.ask_head(2).head_answers(2, at=3)
    assert desk.decide(3) == (ACTED, 2, 0)
    assert desk.outcome(0) is None, "its action may still act, if it is a chunk"
    desk.decide(4)
    assert desk.outcome(0) is Outcome.FEATURES_USED
    assert [row.outcome for row in desk.dispatcher.ended if row.worker == HEAD] == [Outcome.ON_TIME]


def test_a_heads_answer_from_features_of_the_last_episode_is_stale_whatever_frame_it_saw():
    """The head was away for so long that the booked frame was overwritten; it read one of the new episode instead."""
    desk = TwoSpeedDesk().book(0).answer(0, at=2).ask_head(2)
    desk.dispatcher.new_episode(40)
    desk.dispatcher.offer(desk.of_head[2], Answer(obs_tick=41, episode=1), 42)
    assert desk.dispatcher.decide(42).offer is None
    assert [row.outcome for row in desk.dispatcher.ended if row.worker == HEAD] == [Outcome.STALE_EPISODE]


def test_where_the_head_misses_its_tick_the_trunks_action_acts():
    desk = TwoSpeedDesk().book(0, 1).answer(0, at=2)
    desk.kinds([1, 2])
    desk.ask_head(2).head_answers(2, at=3).answer(1, at=3)
    assert desk.decide(3) == (ACTED, 2, 0)
    desk.ask_head(3)
    assert desk.decide(4) == (ACTED, 1, 0)
    assert (desk.outcome(0), desk.outcome(1)) == (Outcome.FEATURES_USED, Outcome.ON_TIME)


def test_a_trunks_chunk_goes_on_under_the_head():
    """One slow trunk: its plan stands in whenever the head is not there, also after the head has acted."""
    desk = TwoSpeedDesk(chunk=4).book(0).answer(0, at=3)
    assert desk.decide(3) == (ACTED, 0, 0)
    desk.ask_head(3).head_answers(3, at=4)
    assert desk.decide(4) == (ACTED, 3, 0)
    assert desk.decide(5) == (ACTED, 0, 2)
    assert desk.outcome(0) is Outcome.ON_TIME


def test_a_head_that_was_late_does_not_make_the_rest_of_a_trunks_chunk_late():
    desk = TwoSpeedDesk(chunk=5).book(0).answer(0, at=3)
    desk.decide(3)
    desk.ask_head(3)
    desk.decide(4)
    desk.head_answers(3, at=5)
    assert [desk.dispatcher.decide(tick).outcome for tick in (5, 6)] == [Outcome.LATE, Outcome.ON_TIME]


def test_an_action_whose_features_nobody_used_ends_as_superseded_once_newer_ones_are_in_use():
    desk = TwoSpeedDesk().book(0, 1).ask_head(2).head_answers(2, at=3).answer(0, at=3).answer(1, at=3)
    desk.decide(3)
    desk.ask_head(3).head_answers(3, at=4)
    desk.decide(4)
    assert desk.outcome(0) is Outcome.SUPERSEDED
    desk.decide(5)
    assert desk.outcome(1) is Outcome.FEATURES_USED


def test_a_late_answer_of_the_trunk_may_still_give_its_features():
    desk = TwoSpeedDesk("drop").book(0)
    desk.kinds([1, 2, 3])
    desk.answer(0, at=4)
    assert desk.decide(4)[0] is IDLE
    assert desk.outcome(0) is None
    desk.ask_head(4).head_answers(4, at=5)
    desk.decide(5)
    assert desk.outcome(0) is Outcome.FEATURES_USED


def test_a_late_answer_to_an_older_frame_ends_at_once_as_the_head_is_given_the_newest_features():
    desk = TwoSpeedDesk().book(0, 1).answer(1, at=3)
    assert desk.kinds([1, 2, 3, 4])[-1] is ACTED
    desk.answer(0, at=5)
    assert desk.outcome(0) is Outcome.SUPERSEDED


@pytest.mark.parametrize("hangs_with_a_job", [False, True])
@pytest.mark.parametrize("on_late", ["apply", "drop"])
def test_what_waits_for_a_head_that_is_away_does_not_pile_up(hangs_with_a_job, on_late):
    """Each tick an answer comes that is superseded, and one that is newer; or both are too late."""
    desk = TwoSpeedDesk(on_late)
    for tick in range(400):
        desk.book(2 * tick, 2 * tick + 1)
        desk.answer(2 * tick, at=2 * tick + 9).answer(2 * tick + 1, at=2 * tick + 9)
        desk.decide(2 * tick + 9)
        if tick == 200 and hangs_with_a_job:
            desk.ask_head(2 * tick + 9)
    open_jobs = 2 * 400 - len(desk.dispatcher.ended)
    assert open_jobs <= 4


def test_of_two_answers_to_one_frame_one_ends_with_its_features():
    desk = TwoSpeedDesk().book(0, 1).answer(0, at=2, used=1).answer(1, at=2, used=1)
    desk.kinds([1, 2])
    desk.ask_head(2).head_answers(2, at=3)
    assert desk.decide(3) == (ACTED, 2, 0)
    desk.decide(4)
    desk.dispatcher.finish(5)
    assert sorted(row.outcome for row in desk.dispatcher.ended if row.worker != HEAD) == [
        Outcome.ON_TIME,
        Outcome.FEATURES_USED,
    ]


def test_a_head_that_is_very_late_gives_way_to_a_newer_frame():
    desk = TwoSpeedDesk().book(0, 4).answer(0, at=2).answer(4, at=6)
    desk.ask_head(2)
    assert desk.decide(3) == (ACTED, 0, 0)
    desk.head_answers(2, at=7)
    assert desk.decide(7) == (ACTED, 4, 0)
    assert Outcome.SUPERSEDED in [row.outcome for row in desk.dispatcher.ended if row.worker == HEAD]


class SlowHeadDesk(TwoSpeedDesk):
    """A trunk worker for every tick, and a head that takes two: it is asked at ticks 3, 5, 7, ..."""

    def play(self, ticks):
        """Observation tick of the action at each of them."""
        applied = []
        for tick in ticks:
            if tick >= 3:
                self.answer(tick - 3, at=tick)
            if tick >= 5 and tick % 2:
                self.head_answers(tick - 2, at=tick)
            decision = self.dispatcher.decide(tick)
            applied.append(decision.offer.answer.obs_tick if decision.offer is not None else None)
            self.book(tick)
            if tick >= 3 and tick % 2:
                self.ask_head(tick)
        return applied


def test_while_a_slow_head_computes_its_last_action_goes_on_over_base_actions_that_saw_no_newer_frame():
    desk = SlowHeadDesk()
    assert desk.play(range(12)) == [None, None, None, 0, 1, 3, 3, 5, 5, 7, 7, 9]
    decision = desk.dispatcher.decide(12)
    assert (decision.kind, decision.offer.job.worker, decision.first_use) == (ACTED, HEAD, False)
    assert decision.outcome is Outcome.LATE
    desk.dispatcher.finish(13)
    ended = [row for row in desk.dispatcher.ended if row.worker != HEAD]
    assert len({row.booked_tick for row in ended}) == len(ended) == 12
    passed_over = {row.outcome for row in ended if 2 <= row.booked_tick <= 7}
    assert passed_over == {Outcome.FEATURES_USED, Outcome.SUPERSEDED}


def test_an_action_of_a_slow_head_gives_way_to_a_base_action_with_a_newer_frame():
    desk = SlowHeadDesk()
    desk.play(range(6))
    applied = []
    for tick in range(6, 9):
        desk.answer(tick - 3, at=tick)
        applied.append(desk.decide(tick)[1])
        desk.book(tick)
    assert applied == [3, 4, 5]


@pytest.mark.parametrize("how", ["dies", "abstains", "is not asked again"])
def test_an_action_of_a_slow_head_does_not_go_on_once_nothing_of_the_head_is_under_way(how):
    desk = SlowHeadDesk()
    desk.play(range(6))
    desk.answer(3, at=6)
    if how == "abstains":
        desk.head_answers(5, at=6, abstained=1)
    else:
        desk.dispatcher.lose(desk.of_head[5], 6)
    assert desk.dispatcher.decide(6).offer.job.worker != HEAD
    desk.book(6)
    if how != "is not asked again":
        desk.ask_head(6)
    assert desk.kinds([7]) == [MISSED]


def test_a_slow_heads_action_does_not_go_on_in_the_next_episode():
    desk = SlowHeadDesk()
    desk.play(range(6))
    desk.dispatcher.new_episode(6)
    assert desk.decide(7)[0] is LEAD_IN


@pytest.mark.parametrize(("on_late", "kind", "outcome"), [("apply", ACTED, 1), ("drop", IDLE, 5)])
def test_a_late_head_acts_or_is_dropped_as_on_late_says(on_late, kind, outcome):
    desk = TwoSpeedDesk(on_late).book(0).answer(0, at=3)
    desk.decide(3)
    desk.ask_head(3)
    assert desk.decide(4)[0] is MISSED
    desk.head_answers(3, at=5)
    assert desk.decide(5)[0] is kind
    assert [row.outcome for row in desk.dispatcher.ended if row.worker == HEAD] == [outcome]


def test_a_trunk_that_abstains_ends_at_once_as_its_features_are_not_used_either():
    desk = TwoSpeedDesk().book(0, 1)
    abstain(desk, 0, at=2)
    assert desk.outcome(0) is Outcome.ABSTAINED
    abstain(desk, 1, at=4)
    assert desk.outcome(1) is Outcome.ABSTAINED


def test_a_head_that_abstains_misses_nothing():
    desk = TwoSpeedDesk().book(0).answer(0, at=3)
    desk.decide(3)
    desk.ask_head(3).head_answers(3, at=4, abstained=1)
    assert desk.kinds([4]) == [IDLE]


def test_a_reset_ends_what_the_head_was_about_to_do():
    desk = TwoSpeedDesk().book(0, 1).answer(0, at=2)
    desk.ask_head(2).head_answers(2, at=3).answer(1, at=3)
    desk.decide(3)
    desk.ask_head(3)
    desk.dispatcher.new_episode(4)
    desk.head_answers(3, at=5)
    assert (desk.outcome(0), desk.outcome(1)) == (Outcome.FEATURES_USED, Outcome.STALE_EPISODE)
    assert desk.dispatcher.outcomes[Outcome.STALE_EPISODE] == 2
    assert desk.kinds([5]) == [LEAD_IN]


def test_with_a_head_nothing_is_known_of_the_ticks_to_come():
    desk = TwoSpeedDesk(chunk=4).book(0).answer(0, at=3)
    desk.decide(3)
    assert known(desk, 3) == [(UNKNOWN, None, None)] * 2
