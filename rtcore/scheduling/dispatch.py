"""Which action is applied at which tick, and what became of every other one. Pure: no process, no clock.

Rule: at tick k, of all actions due by k, apply the one with the newest observation. Every job that was ever
booked ends in exactly one counted `Outcome`; every tick is of exactly one `TickKind`.

A head (the fast part of a policy of two speeds) answers for one tick at a time. Where its answer is there, it has the
newest observation; where it is not, the action of the other workers acts that would have acted without a head. So those
are compared among themselves, and end when their own ticks are over. After an answer of the head that came late its
action goes on while the next one is computed, unless another worker's has a newer observation: a head that takes longer
than a tick acts on a newer one than they do.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Literal, NamedTuple, Self

from rtcore.errors import key_of
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.scheduling.schedule import ChunkFrom, OnLate

#: What a chunk holds behind its first action: the policy's own, the no-op, or the first one again.
ChunkRest = Literal["own", "noop", "hold"]
#: Ticks that `committed` covers, where a policy asks for a context and nothing says how many.
COMMITTED_TICKS = 32


class _Meant(IntEnum):
    """A number with what it means, in a few words for people."""

    meaning: str

    def __new__(cls, value: int, meaning: str = "") -> Self:
        member = int.__new__(cls, value)
        member._value_, member.meaning = value, meaning
        return member


class Outcome(_Meant):
    """How a job ended."""

    ON_TIME = 0, "applied at its due tick"  #: without a due tick: at the first tick after it was ready
    LATE = 1, "applied after its due tick"  #: it came late, or the tick itself was skipped
    SUPERSEDED = 2, "not applied: one from a newer frame took its place"
    STALE_EPISODE = 3, "not applied: its episode was over"
    DROPPED_DEAD_WORKER = 4, "never came: its worker died, hung or was stopped"
    DROPPED_LATE = 5, "not applied: came after its due tick (on_late = drop)"
    UNFINISHED = 6, "still under way when the run ended"
    ABSTAINED = 7, "not applied: the policy gave no action this time"
    FEATURES_USED = 8, "not applied itself: the head used its features"


class TickKind(_Meant):
    """What acted at a tick: where it was no policy action, `on_missing` did."""

    ACTED = 0, "a policy action"
    MISSED = 1, "one was due and was not there"
    IDLE = 2, "none was due"  #: or the policy gave none
    LEAD_IN = 3, "episode start, none could be due yet"  #: the world is held, or `on_missing` acts
    RESET = 4, "the world was reset"


#: Counter of each tick kind and of each outcome: the enums' own names, which `layout.ENV_COUNTERS` has as fields.
KIND_COUNTERS = tuple(key_of(kind) for kind in TickKind)
OUTCOME_COUNTERS = tuple(key_of(outcome) for outcome in Outcome)


class Source(_Meant):
    """Who chose the action that was applied at a tick."""

    POLICY = 0, "policy"
    NOOP = 1, "no-op"
    REPEAT = 2, "repeat of the last"
    RANDOM = 3, "random action"
    HELD = 4, "world held"  #: or reset: no action
    HUMAN = 5, "person"  #: who took the controls
    SHIELD = 6, "shield of the world"  #: or limit: it changed what was asked for
    SAFE = 7, "safe action, as nothing fresh came"


class Invariant(_Meant):
    """What must hold at every tick (`loop.invariants` looks), with its number in shared memory; 0 is none."""

    ORDER = 1, "each tick follows the one before it and those that were skipped, each frame the one before it"
    GRID = 2, "a tick is due where the exact rate puts it, plus what was stretched, and never begins before"
    KIND = 3, "a tick is of the kind that its action and its source say; an episode has one lead-in, before it acts"
    ACTION = 4, "an action that acts is due, of this episode, of its job's frame or a newer one, never of an older one"
    JOB = 5, "a job is booked once and ends once, as applied at the tick of its action's first use"


#: Makes one action's bytes of those of several chunks for a tick, the one with the oldest frame first.
Blend = Callable[[Sequence[bytes]], bytes]


@dataclass(slots=True)
class Offer:
    """An answer that was collected at tick `taken_tick`, after `taken_seq` other answers and losses.

    `first_tick`: which action 0 of its chunk is for. `features_tick`: of the frame whose features a head's answer used;
    else -1; `features_seq`: the `taken_seq` of the answer that they came with.
    """

    job: Job
    answer: Answer
    due_tick: int
    taken_tick: int
    taken_seq: int
    first_tick: int
    features_tick: int = -1
    features_seq: int = -1


@dataclass(slots=True)
class Decision:
    """What to do at a tick: action `chunk_index` of the answer in `offer`, or nothing (`offer` is None)."""

    kind: TickKind
    offer: Offer | None = None
    chunk_index: int = 0
    first_use: bool = False
    outcome: Outcome = Outcome.ON_TIME


class Known(IntEnum):
    """What is known of the action of a tick, when a job is booked that will act later: values of `committed_mask`."""

    UNKNOWN = 0  #: nothing: a job under way may act, or what stands in is not known beforehand
    FACT = 1  #: nothing under way can replace it (or it was applied)
    PLAN = 2  #: of the newest finished chunk, which a job under way may replace
    HELD = 3  #: it is of the episode's lead-in, and no job under way can act


class Committed(NamedTuple):
    """What is known, when a job is booked, of the actions of `num_ticks` consecutive ticks: they share an answer.

    Of ticks at which nothing is known there is none.

    `answer` holds the actions, from `chunk_index` on one a tick. Without an answer `FACT` says that `on_missing` acts:
    no action is due, and nothing under way can come late. `HELD`: the world stands still, or with `on_reset` "run"
    `on_missing` acts.
    """

    first_tick: int
    num_ticks: int
    known: Known
    answer: Answer | None = None
    chunk_index: int = 0


class Dispatcher:
    """Due-time dispatch with provenance. Call order within a tick: `offer`s, `decide`, then `expect`s.

    `ended` collects the jobs that ended since the caller last cleared it; `outcomes` counts them all.

    Args:
        on_late: Whether an action that comes after its tick is applied all the same, or dropped.
        chunk_ticks: Actions of an answer, for the ticks due, due + 1, ...
        chunk_from: "frame": they are for the ticks after the frame's. The first of them are past when it is due.
        holds: The world stands still in an episode's lead-in. Then nothing is past in it: a chunk that was decided on
            the held frame begins at the first step.
        blend: What acts where chunks overlap; None: the action of the newest one. What it makes stands in that one's
            place in what `decide` and `committed` return.
        head: Index of the worker that is the head; -1: there is none.
        phase_seq: The order that the jobs belong to, for their rows.
        first_log_seq: Number of the first row in `ended`.

    Examples:
        An answer to the frame of tick 0 waits for tick 2; there is none for tick 3.

        >>> from rtcore import Dispatcher
        >>> from rtcore.scheduling.dispatch import Outcome
        >>> from rtcore.scheduling.jobs import Answer, Job
        >>> dispatcher = Dispatcher()
        >>> first, second = (Job(worker, obs_tick=worker, due_tick=worker + 2, hold=True) for worker in (0, 1))
        >>> for tick in range(4):
        ...     if tick == 1:
        ...         dispatcher.offer(first, Answer(obs_tick=0, due_tick=2, episode=0, actions=b"left"), tick)
        ...     print(tick, dispatcher.decide(tick).kind.name)
        ...     if tick < 2:
        ...         dispatcher.expect((first, second)[tick])
        0 LEAD_IN
        1 LEAD_IN
        2 ACTED
        3 MISSED
        >>> dispatcher.finish(4)
        >>> [Outcome(row.outcome).name for row in dispatcher.ended]
        ['ON_TIME', 'UNFINISHED']
    """

    # With more than 30 attributes a look at one takes more than twice the time, but for slots.
    __slots__ = (
        *("outcomes", "ended", "episode", "_on_late", "_chunk_ticks", "_from_frame", "_holds", "_blend", "_earlier"),
        *("_blends", "_head", "_phase_seq", "_draft", "_next_log_seq", "_jobs", "_pending", "_active", "_has_acted"),
        *("_of_head", "_late_head", "_newest_features", "_given_features", "_open", "_used_features", "_num_taken"),
        *("_newest_obs_tick", "_due", "_are_due_in_order", "_covered_until", "_lead_in_until", "_first_step_tick"),
        *("_episode_tick", "_outcome", "_is_single"),
    )

    def __init__(
        self,
        on_late: OnLate = "apply",
        *,
        chunk_ticks: int = 1,
        chunk_from: ChunkFrom = "due",
        holds: bool = True,
        blend: Blend | None = None,
        head: int = -1,
        phase_seq: int = 0,
        first_log_seq: int = 0,
    ) -> None:
        self.outcomes = [0] * len(Outcome)
        self.ended: list[JobRow] = []
        self.episode = 0
        self._on_late = on_late
        self._chunk_ticks = chunk_ticks
        self._from_frame = chunk_from == "frame"
        self._holds = holds
        self._blend = blend
        self._is_single = chunk_ticks == 1 and blend is None
        self._earlier: list[Offer] = []  # chunks that newer ones took over from, where both are to act
        #: By tick: the blended action, and of whose. Kept, because `committed` is asked for a tick many times before
        #: that tick is there.
        self._blends: dict[int, tuple[tuple[int, ...], bytes]] = {}
        self._head = head
        self._phase_seq = phase_seq
        self._draft = draft_of(JobRow)
        self._draft.phase_seq = phase_seq
        self._next_log_seq = first_log_seq
        self._jobs: dict[int, Job] = {}
        self._pending: list[Offer] = []  # by due tick; those of one tick as they came
        #: What acts now, where no head does; and whether it did.
        self._active: Offer | None = None
        self._has_acted = False
        self._of_head: Offer | None = None
        #: What the head did last, if that came late.
        self._late_head: Offer | None = None
        #: Frame's tick and `taken_seq` of the newest answer that has features, and of what the head's job was given.
        self._newest_features = self._given_features = _NO_FEATURES
        #: Answers whose own action will not be applied, while the head may still use their features; each with the
        #: outcome that it gets if the head does not.
        self._open: list[tuple[Offer, Outcome]] = []
        self._used_features: set[int] = set()  # by `taken_seq`: several answers can be to one frame
        self._num_taken = 0
        self._newest_obs_tick = -1
        self._due: deque[tuple[int, int]] = deque()
        #: Jobs were booked in the order of their due ticks so far, as a `Schedule` does.
        self._are_due_in_order = True
        self._covered_until = -1
        self._lead_in_until: int | None = None
        self._first_step_tick = -1  # of the episode, after its lead-in; -1: not made yet
        self._episode_tick = -1
        self._outcome = Outcome.ON_TIME

    # -- what happened -------------------------------------------------------------------------------------

    def expect(self, job: Job) -> None:
        """A job was booked. The head's is given the features of the newest frame that there are.

        Args:
            job: Its worker holds no other.
        """
        worker = job.worker
        self._jobs[worker] = job
        if worker == self._head:
            self._given_features = self._newest_features
            self._due.appendleft((job.due_tick, job.due_tick))  # the next tick: before all others
            return
        if self._lead_in_until is None:
            self._lead_in_until = job.due_tick
        if job.hold:
            due, due_tick = self._due, job.due_tick
            if due and due_tick < due[-1][0]:
                self._are_due_in_order = False
            due.append((due_tick, self._last_tick(job) if self._from_frame else due_tick + self._chunk_ticks - 1))

    def offer(self, job: Job, answer: Answer, tick: int) -> None:
        """An answer was found in a slot. Nothing if its job is not under way.

        Args:
            job: What was asked.
            answer: What was answered.
            tick: At which it was found.
        """
        if self._jobs.pop(job.worker, None) is None:
            return
        taken_seq = self._num_taken
        self._num_taken = taken_seq + 1
        is_of_head = job.worker == self._head
        first_tick = due_tick = job.due_tick if job.hold else tick
        if self._from_frame and not is_of_head:
            first_tick = self._after_frame(answer.obs_tick, due_tick)
        features_tick, features_seq = self._given_features if is_of_head else _NO_FEATURES
        offer = _new_object(Offer)  # not Offer(...): calling the class by keyword takes three times as long
        offer.job = job
        offer.answer = answer
        offer.due_tick = due_tick
        offer.taken_tick = tick
        offer.taken_seq = taken_seq
        offer.first_tick = first_tick
        offer.features_tick = features_tick
        offer.features_seq = features_seq
        if answer.abstained:
            self._forget_due(job)
            self._end(offer, Outcome.ABSTAINED, tick)  # at once: it hands no features on, either
        elif answer.episode != self.episode or 0 <= features_tick < self._episode_tick:
            # A head that was away for a whole ring answers to a frame of this episode, from features of the last one.
            self._end(offer, Outcome.STALE_EPISODE, tick)
        elif is_of_head:  # it holds one job at a time: the last one was decided about at the tick before at the latest
            self._of_head = offer
        else:
            if self._head >= 0 and answer.obs_tick > self._newest_features[0]:
                self._newest_features = answer.obs_tick, taken_seq
                self._settle_open(tick)
            if answer.obs_tick < self._newest_obs_tick:
                self._end_unapplied(offer, Outcome.SUPERSEDED, tick)
            elif not self._pending or due_tick >= self._pending[-1].due_tick:
                self._pending.append(offer)
            else:
                insort(self._pending, offer, key=_due_tick)

    def _last_tick(self, job: Job) -> int:
        """That a held job's answer has an action for."""
        if job.worker == self._head:
            return job.due_tick
        first_tick = self._after_frame(job.obs_tick, job.due_tick) if self._from_frame else job.due_tick
        return first_tick + self._chunk_ticks - 1

    def _after_frame(self, obs_tick: int, due_tick: int) -> int:
        """The tick of the first step after this frame."""
        if not self._holds:
            return obs_tick + 1
        if self._first_step_tick >= 0:
            return max(obs_tick + 1, self._first_step_tick)
        return min(due_tick, max(obs_tick + 1, self._lead_in_until or 0))

    def _forget_due(self, job: Job) -> None:
        """The policy abstained: its due tick counts as idle, not as missed, unless it is over."""
        if (due := (job.due_tick, self._last_tick(job))) in self._due:
            self._due.remove(due)

    def lose(self, job: Job, tick: int) -> None:
        """A worker is gone. The due tick of its job stays due: it will be `MISSED`, not `IDLE`.

        Args:
            job: What it held.
            tick: At which that was found.
        """
        if self._jobs.pop(job.worker, None) is not None:
            taken_seq = self._num_taken
            self._num_taken = taken_seq + 1
            self._end_unanswered(job, Outcome.DROPPED_DEAD_WORKER, tick, tick, taken_seq)

    def new_episode(self, tick: int) -> None:
        """The world was reset: all pending and later answers of the old episode are stale.

        Args:
            tick: At which it was reset.
        """
        self.episode += 1
        self._close(Outcome.STALE_EPISODE, tick)
        self._newest_obs_tick = -1
        self._newest_features = _NO_FEATURES
        self._due.clear()
        self._covered_until = -1
        self._lead_in_until = None
        self._first_step_tick = -1
        self._episode_tick = tick

    def end_lead_in(self) -> None:
        """Somebody steps the world before the episode's first action is due: it is held no longer."""
        self._lead_in_until = -1

    def finish(self, tick: int) -> None:
        """The run is over: what is still under way ends as `UNFINISHED`.

        Args:
            tick: The last one.
        """
        for job in list(self._jobs.values()):
            self._end_unanswered(job, Outcome.UNFINISHED, tick, -1, -1)
        self._jobs.clear()
        self._close(Outcome.UNFINISHED, tick)

    def _close(self, outcome: Outcome, tick: int) -> None:
        """End everything that waits: applied ones are ended already, all others with `outcome`."""
        for offer, otherwise in self._open:
            self._end(offer, otherwise, tick)
        self._open.clear()
        self._retire(tick, keep=False)
        self._earlier.clear()
        self._blends.clear()
        for offer in sorted(self._pending, key=_taken_seq):
            self._end_unapplied(offer, outcome, tick, keep=False)
        self._pending.clear()
        if self._of_head is not None:
            self._end(self._of_head, outcome, tick)
        self._of_head = self._late_head = None
        self._used_features.clear()

    # -- what to do ----------------------------------------------------------------------------------------

    def decide(self, tick: int) -> Decision:
        """Decide what acts at a tick. Call once for every tick that runs, in order.

        Args:
            tick: Its number.

        Returns:
            The action, or why there is none.
        """
        was_due = self._pop_due(tick)
        base, of_head = self._choose(tick), self._of_head
        chosen = base if self._head < 0 else self._prefer_head(base, tick)
        if chosen is None:
            if self._lead_in_until is None or tick < self._lead_in_until:
                return Decision(TickKind.LEAD_IN)
            if self._first_step_tick < 0:
                self._first_step_tick = tick
            return Decision(TickKind.MISSED if was_due else TickKind.IDLE)
        if self._first_step_tick < 0:
            self._first_step_tick = tick
        self._lead_in_until = -1
        if chosen is not base:
            outcome = Outcome.ON_TIME if tick == chosen.due_tick else Outcome.LATE
            return Decision(TickKind.ACTED, chosen, 0, chosen is of_head, outcome)
        first_use = not self._has_acted
        if first_use:
            self._has_acted = True
            self._used_features.discard(chosen.taken_seq)
            self._outcome = _ON_TIME if tick == chosen.due_tick else _LATE
            self._end(chosen, self._outcome, tick)
        index = 0 if self._chunk_ticks == 1 else min(tick - chosen.first_tick, self._chunk_ticks - 1)
        if self._earlier:
            chosen = replace(chosen, answer=self._blended(chosen, self._earlier, tick, tick + 1))
            self._blends.pop(tick, None)
        decision = _new_object(Decision)  # not Decision(...), as in `offer`
        decision.kind = _ACTED
        decision.offer = chosen
        decision.chunk_index = index
        decision.first_use = first_use
        decision.outcome = self._outcome
        return decision

    def _blended(self, newest: Offer, earlier: Sequence[Offer], first: int, until: int) -> Answer:
        """The newest chunk, in which the actions of these ticks are blended with those of earlier ones."""
        answer, blend, chunk = newest.answer, self._blend, self._chunk_ticks
        if blend is None or not any(first < offer.first_tick + chunk for offer in earlier):
            return answer
        actions, size = bytearray(answer.actions), len(answer.actions) // chunk
        for tick in range(first, min(until, newest.first_tick + chunk)):
            covering = [offer for offer in earlier if tick < offer.first_tick + chunk] + [newest]
            if len(covering) == 1:
                continue
            begin, of_whom = (tick - newest.first_tick) * size, tuple(offer.taken_seq for offer in covering)
            made = self._blends.get(tick)
            if made is None or made[0] != of_whom:
                places = [(offer.answer.actions, (tick - offer.first_tick) * size) for offer in covering]
                made = self._blends[tick] = of_whom, blend([whole[at : at + size] for whole, at in places])
            actions[begin : begin + size] = made[1]
        return answer._replace(actions=bytes(actions))

    def committed(self, job: Job, tick: int) -> list[Committed]:
        """What governs the ticks between a job's booking and its due tick, as far as that is known. Changes nothing.

        It holds as long as every tick is run, the episode goes on, and no worker under way was away for a whole ring:
        one that was answers to a newer frame than the booked one. A `FACT` is what no job under way can replace;
        one that is booked later can, but only where actions do not wait for their due tick. Of a tick at which a
        job under way may act, only a finished chunk that reaches over it is known (`PLAN`). A stand-in is a fact as
        well: at an idle tick `on_missing` acts. With "noop" that is the no-op; with "repeat" it is the action of the
        tick before, with what is known of that one; with "random" nobody knows it. With a head nothing is known: its
        actions are decided at the tick before.

        Args:
            job: Its own answer is not for these ticks.
            tick: At which it is booked, after `decide` for this tick.

        Returns:
            Of the ticks `tick + 1` to `job.due_tick - 1` those of which something is known, in order: one small tuple
            for each piece of them, no copy of an action.
        """
        t, jobs, pending = tick + 1, self._jobs, self._pending
        if t >= job.due_tick or self._head >= 0:
            return []
        if self._is_single and self._are_due_in_order and job.hold and jobs:
            # The usual case, in half the time: an answer for each tick up to the first due tick of a job under way.
            oldest = next(iter(jobs.values()))
            if oldest.due_tick == t + len(pending) and oldest.obs_tick >= self._episode_tick:
                pieces, newest_obs_tick = [], self._newest_obs_tick
                for offer in pending:
                    answer = offer.answer
                    obs_tick = answer.obs_tick
                    if offer.due_tick != t or obs_tick <= newest_obs_tick:
                        break
                    pieces.append(_new_tuple(Committed, (t, 1, _FACT, answer, 0)))
                    newest_obs_tick = obs_tick
                    t += 1
                if t == oldest.due_tick and newest_obs_tick < oldest.obs_tick:
                    return pieces
        return self._committed_in_general(job, tick)

    def _committed_in_general(self, job: Job, tick: int) -> list[Committed]:
        """`committed` without a head, whatever waits and is under way."""
        t, end, pieces = tick + 1, job.due_tick, list[Committed]()
        best, earlier = self._active, self._earlier
        # Before the episode's first action: any answer to a frame of it is newer.
        if best is None:
            newness = max(self._newest_obs_tick, self._episode_tick), -1
        else:
            newness = best.answer.obs_tick, best.due_tick
        lead_in_until = end if self._lead_in_until is None else self._lead_in_until
        for offer in (*self._pending, None):  # what acts until this one does, or until the end
            until, newer = end, newness
            if offer is not None and (due_tick := offer.due_tick) < end:
                until, newer = due_tick, (offer.answer.obs_tick, due_tick)
                if newer <= newness:
                    continue
            if t < until:
                replaced_at = self._replaced_at(job, newness, until)
                if best is not None and t < (covered_until := best.first_tick + self._chunk_ticks):
                    first_tick, answer = best.first_tick, best.answer
                    covered_until = until if until < covered_until else covered_until
                    if earlier:
                        answer = self._blended(best, earlier, t, covered_until)
                    if t < replaced_at:
                        first, t = t, covered_until if covered_until < replaced_at else replaced_at
                        pieces.append(_new_tuple(Committed, (first, t - first, _FACT, answer, first - first_tick)))
                    if t < covered_until:
                        piece = (t, covered_until - t, _PLAN, answer, t - first_tick)
                        pieces.append(_new_tuple(Committed, piece))
                        t = covered_until
                if t < replaced_at:
                    if t < lead_in_until:
                        first, t = t, lead_in_until if lead_in_until < replaced_at else replaced_at
                        pieces.append(_new_tuple(Committed, (first, t - first, _HELD, None, 0)))
                    if t < replaced_at:
                        pieces.append(_new_tuple(Committed, (t, replaced_at - t, _FACT, None, 0)))
                if until == end:
                    break
                t = until
            if best is not None and self._blend is not None:
                earlier = [*earlier, best]
            best, newness, lead_in_until = offer, newer, -1
        return pieces

    def _replaced_at(self, job: Job, newness: tuple[int, int], end: int) -> int:
        """From which tick on, before `end`, an answer under way may act in place of one that is that new; else `end`.

        Args:
            job: That is booked now. All jobs of a run wait for their due tick, or none does.
            newness: Of what acts (`_newness`).
            end: Its due tick, or one before that.
        """
        if (
            not job.hold
        ):  # the others act as soon as they are there, and may have used a newer frame than the booked one
            return -1 if self._jobs.keys() - {job.worker} else end
        for other in self._jobs.values():
            due_tick = other.due_tick
            if due_tick < end and (other.obs_tick, due_tick) > newness:
                end = due_tick
                if self._are_due_in_order:
                    break
        return end

    def _pop_due(self, tick: int) -> bool:
        was_due, due = False, self._due
        while due and due[0][0] <= tick:
            last_tick, was_due = due.popleft()[1], True
            if last_tick > self._covered_until:  # noqa: PLR1730 - a call takes longer than the comparison
                self._covered_until = last_tick
        return was_due or tick <= self._covered_until

    def _take_due(self, tick: int) -> list[Offer]:
        """Out of those that wait: those due by now, as they came. What waits longer is not looked at."""
        pending, num_due = self._pending, 1
        while num_due < len(pending) and pending[num_due].due_tick <= tick:
            num_due += 1
        due = sorted(pending[:num_due], key=_taken_seq)
        del pending[:num_due]
        return due

    def _choose(self, tick: int) -> Offer | None:
        """The due answer with the newest frame; without one, the chunk that is being applied. Not of the head."""
        best: Offer | None = None
        pending = self._pending
        if pending and pending[0].due_tick <= tick:
            is_alone = len(pending) == 1 or pending[1].due_tick > tick  # as nearly always
            for candidate in (pending.pop(0),) if is_alone else self._take_due(tick):
                if self._on_late == "drop" and tick >= candidate.first_tick + self._chunk_ticks:
                    self._end_unapplied(candidate, Outcome.DROPPED_LATE, tick)
                elif best is None:
                    best = candidate
                elif _newness(candidate) > _newness(best):
                    self._end_unapplied(best, Outcome.SUPERSEDED, tick)
                    best = candidate
                else:
                    self._end_unapplied(candidate, Outcome.SUPERSEDED, tick)
        if best is not None and self._is_older(best, tick):
            self._end_unapplied(best, Outcome.SUPERSEDED, tick)
            best = None
        if self._earlier:
            self._earlier = [offer for offer in self._earlier if tick < offer.first_tick + self._chunk_ticks]
            if not self._earlier:
                self._blends.clear()
        if best is not None:
            if self._blend is not None and self._active is not None:
                self._earlier.append(self._active)
            if not self._has_acted:
                self._retire(tick)
            self._active, self._has_acted = best, False
            self._newest_obs_tick = best.answer.obs_tick
        elif self._active is not None and tick >= self._active.first_tick + self._chunk_ticks:
            self._retire(tick)
        return self._active

    def _is_older(self, offer: Offer, tick: int) -> bool:
        """Whether something newer acts or has acted. A worker that was away for a whole ring answers to a newer frame
        than the booked one, and may share it with the answer that acts: that one is for a later tick."""
        active = self._active
        if active is not None and tick < active.first_tick + self._chunk_ticks:
            return _newness(offer) < _newness(active)
        return offer.answer.obs_tick < self._newest_obs_tick

    def _retire(self, tick: int, *, keep: bool = True) -> None:
        """The active answer acts no longer. If it has never acted, the head acted in its place: it ends here."""
        active, self._active = self._active, None
        if active is not None and not self._has_acted:
            self._end_unapplied(active, Outcome.SUPERSEDED, tick, keep=keep)

    def _prefer_head(self, base: Offer | None, tick: int) -> Offer | None:
        """The head's answer, or what is held of it; or the other one, if that has a newer frame."""
        head = self._of_head
        if head is None or head.due_tick > tick:
            return self._held_head(base)
        self._of_head = self._late_head = None
        if self._on_late == "drop" and tick > head.due_tick:
            self._end(head, Outcome.DROPPED_LATE, tick)
            return base
        if base is not None and base.answer.obs_tick > head.answer.obs_tick:
            self._end(head, Outcome.SUPERSEDED, tick)
            return base
        if tick == head.due_tick:
            self._end(head, Outcome.ON_TIME, tick)
        else:
            self._end(head, Outcome.LATE, tick)
            self._late_head = head
        self._use_features(head.features_seq, tick)
        return head

    def _held_head(self, base: Offer | None) -> Offer | None:
        """The head's last action once more, if that came late and the next one is under way: it is slow, not gone."""
        held, is_at_it = self._late_head, self._head in self._jobs
        if held is None or not is_at_it or (base is not None and base.answer.obs_tick > held.answer.obs_tick):
            self._late_head = None  # nor at the next ticks
            return base
        return held

    def _use_features(self, seq: int, tick: int) -> None:
        """The head acted on the features of that answer."""
        active = self._active
        is_open = active is not None and not self._has_acted and active.taken_seq == seq
        if is_open or any(offer.taken_seq == seq for offer in self._pending):
            self._used_features.add(seq)
        self._settle_open(tick, used=seq)

    def _may_use(self, seq: int) -> bool:
        """Whether the head may still act on the features of that answer: it, or its next job, has them."""
        waits = self._of_head is not None and self._of_head.features_seq == seq
        is_given = self._head in self._jobs and self._given_features[1] == seq
        return waits or is_given or self._newest_features[1] == seq

    def _settle_open(self, tick: int, *, used: int = -1) -> None:
        """End the answers whose features the head used, or cannot use any more: few stay open, also without a head."""
        waiting, self._open = self._open, []
        for offer, otherwise in waiting:
            if offer.taken_seq == used:
                self._end(offer, Outcome.FEATURES_USED, tick)
            elif self._may_use(offer.taken_seq):
                self._open.append((offer, otherwise))
            else:
                self._end(offer, otherwise, tick)

    def _end_unapplied(self, offer: Offer, outcome: Outcome, tick: int, *, keep: bool = True) -> None:
        """Its action will not be applied. The head may have used its features, or `keep` the job open to see."""
        if self._head < 0:
            self._end(offer, outcome, tick)
        elif offer.taken_seq in self._used_features:
            self._used_features.discard(offer.taken_seq)
            self._end(offer, Outcome.FEATURES_USED, tick)
        elif keep and offer.answer.episode == self.episode and self._may_use(offer.taken_seq):
            self._open.append((offer, outcome))
        else:
            self._end(offer, outcome, tick)

    def _end(self, offer: Offer, outcome: Outcome, tick: int) -> None:
        job, answer = offer.job, offer.answer
        row = self._draft
        row.log_seq = self._next_log_seq
        row.worker = job.worker
        row.obs_tick = answer.obs_tick
        row.booked_tick = job.obs_tick
        row.due_tick = job.due_tick
        row.hold = 1 if job.hold else 0
        row.episode = answer.episode
        row.outcome = outcome
        row.tick = tick
        row.booked_ns = job.booked_ns
        row.start_ns = answer.start_ns
        row.read_ns = answer.read_ns
        row.infer_end_ns = answer.infer_end_ns
        row.write_ns = answer.write_ns
        row.cpu_ns = answer.cpu_ns
        row.taken_tick = offer.taken_tick
        row.taken_seq = offer.taken_seq
        self._add(outcome, row.record())

    def _end_unanswered(self, job: Job, outcome: Outcome, tick: int, taken_tick: int, taken_seq: int) -> None:
        self._add(
            outcome,
            JobRow(
                log_seq=self._next_log_seq,
                worker=job.worker,
                booked_tick=job.obs_tick,
                due_tick=job.due_tick,
                hold=int(job.hold),
                outcome=outcome,
                tick=tick,
                phase_seq=self._phase_seq,
                taken_tick=taken_tick,
                taken_seq=taken_seq,
            ),
        )

    def _add(self, outcome: Outcome, row: JobRow) -> None:
        self._next_log_seq += 1
        self.outcomes[outcome] += 1
        self.ended.append(row)


_NO_FEATURES = -1, -1
# Each job that is booked asks for these: to look them up in their class takes as long as all else of a short piece.
_FACT, _PLAN, _HELD = Known.FACT, Known.PLAN, Known.HELD
_ACTED, _ON_TIME, _LATE = TickKind.ACTED, Outcome.ON_TIME, Outcome.LATE
_new_tuple, _new_object = tuple.__new__, object.__new__


def _due_tick(offer: Offer) -> int:
    return offer.due_tick


def _taken_seq(offer: Offer) -> int:
    return offer.taken_seq


def _newness(offer: Offer) -> tuple[int, int]:
    return offer.answer.obs_tick, offer.due_tick
