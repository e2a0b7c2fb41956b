"""What must hold at every tick, looked at in every run: a fault of rtcore itself is counted and named, never hidden.

Each look is a few comparisons of integers, after the frame is out. Nothing is repaired: the run goes on as it would,
its summary says what broke first and at which tick, and its exit code that its results are not to be trusted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rtcore.loop.tick import Tick
from rtcore.scheduling.dispatch import Decision, Dispatcher, Invariant, Offer, Outcome, Source, TickKind
from rtcore.scheduling.jobs import JobRow

#: Called with what broke, and at which tick.
OnBroken = Callable[[Invariant, int], object]

#: Who may have changed an action that acts.
_STEPPED_IN = (Source.HUMAN, Source.SHIELD)
#: More than there are workers: a job's key is the tick it was booked at, times this, plus its worker.
_PLACES = 1 << 20
# Looked up once: in their classes it takes ten times as long.
_ACTED, _RESET, _POLICY = TickKind.ACTED, TickKind.RESET, Source.POLICY
_ON_TIME, _LATE = Outcome.ON_TIME, Outcome.LATE


class TickInvariants:
    """Looks at one tick after another of a `TickLoop`. Allocates a number for each job.

    Args:
        due_ns: When a tick is due, before any stretching.
        on_broken: Called once a tick for each invariant that does not hold.
        holds: The world stands still in an episode's lead-in.
        has_head: The policy has two speeds: where the head is not there, an older action acts.
    """

    def __init__(self, due_ns: Callable[[int], int], on_broken: OnBroken, *, holds: bool, has_head: bool) -> None:
        self._due_ns = due_ns
        self._stretched_ns = self._last_deadline_ns = 0
        self._on_broken = on_broken
        self._holds = holds
        self._has_head = has_head
        self._next_frame_seq = -1
        self._episode = 0
        self._episode_tick = -1
        self._has_acted = False  # in this episode
        self._newest_obs_tick = -1  # of the actions applied in it
        self._under_way: set[int] = set()

    def after_tick(self, now: Tick, last_tick: int, dispatcher: Dispatcher) -> None:
        """Look at a tick. Before its ended jobs are cleared.

        Args:
            now: All of it.
            last_tick: The one before, or the last that the world was not stepped at.
            dispatcher: That decided it.
        """
        plan, decision = now.plan, now.decision
        tick, deadline_ns, kind, offer = plan.tick, plan.deadline_ns, decision.kind, decision.offer
        frame_seq, next_frame_seq, broken = now.header.frame_seq, self._next_frame_seq, self._on_broken
        if tick != last_tick + 1 + plan.skipped_ticks or (frame_seq != next_frame_seq and next_frame_seq >= 0):
            broken(Invariant.ORDER, tick)
        self._next_frame_seq = frame_seq + 1
        self._stretched_ns += plan.stretched_ns
        last_ns = self._last_deadline_ns
        if deadline_ns != self._due_ns(tick) + self._stretched_ns or not last_ns <= deadline_ns <= now.start_ns:
            broken(Invariant.GRID, tick)
        self._last_deadline_ns = deadline_ns
        acts = kind is _ACTED and offer is not None and now.source is _POLICY
        if not acts and not self._kind_fits(kind, now.source, offer, is_taken=now.header.intervention > 0):
            broken(Invariant.KIND, tick)
        if kind is _RESET:
            if dispatcher.episode != self._episode + (self._episode_tick >= 0):
                broken(Invariant.KIND, tick)
            self._episode, self._episode_tick = dispatcher.episode, tick
            self._has_acted, self._newest_obs_tick = False, -1
        elif offer is not None:
            answer = offer.answer
            obs_tick = answer.obs_tick
            if not (
                answer.episode == self._episode
                and self._episode_tick <= obs_tick < tick
                and obs_tick >= offer.job.obs_tick  # newer, also with `hold`, if that frame was overwritten meanwhile
                and offer.due_tick <= tick
                and 0 <= decision.chunk_index <= tick - offer.first_tick
                and (obs_tick >= self._newest_obs_tick or self._has_head)
            ):
                broken(Invariant.ACTION, tick)
            self._has_acted, self._newest_obs_tick = True, obs_tick
        applied, under_way = self._end_jobs(dispatcher.ended, tick), self._under_way
        for job in now.jobs:
            key = job.obs_tick * _PLACES + job.worker
            if key in under_way or job.obs_tick != tick or job.due_tick <= tick:
                broken(Invariant.JOB, tick)
            under_way.add(key)
        if (applied is not None or decision.first_use) and not self._use_fits(decision, applied, tick):
            broken(Invariant.JOB, tick)

    def after_run(self, ended: Sequence[JobRow], tick: int) -> None:
        """The run is over, and with it every job.

        Args:
            ended: The jobs that ended with it.
            tick: The last one.
        """
        if self._end_jobs(ended, tick) is not None or self._under_way:
            self._on_broken(Invariant.JOB, tick)

    def _kind_fits(self, kind: TickKind, source: Source, offer: Offer | None, *, is_taken: bool) -> bool:
        """Of a tick at which no policy action acts as it is. `is_taken`: a person has the controls."""
        if kind is _ACTED:
            return offer is not None and (source in _STEPPED_IN or (source is Source.SAFE and is_taken))
        if offer is not None or source is _POLICY:
            return False
        if kind is TickKind.LEAD_IN:
            return not self._has_acted and (source is Source.HELD) is self._holds
        return (source is Source.HELD) is (kind is TickKind.RESET)

    def _end_jobs(self, rows: Sequence[JobRow], tick: int) -> JobRow | None:
        """Take them off those that are under way; returns the one whose action was applied."""
        applied = None
        for row in rows:
            try:
                self._under_way.remove(row.booked_tick * _PLACES + row.worker)
            except KeyError:
                self._on_broken(Invariant.JOB, tick)
            if row.outcome <= _LATE:
                if applied is not None:
                    self._on_broken(Invariant.JOB, tick)
                applied = row
        return applied

    @staticmethod
    def _use_fits(decision: Decision, applied: JobRow | None, tick: int) -> bool:
        """Of a tick with one of the two: whether an action acts for the first time exactly where its job ends as
        applied, on time or late."""
        offer = decision.offer
        if applied is None or offer is None:
            return False
        job = offer.job
        return (
            decision.first_use
            and applied.worker == job.worker
            and applied.booked_tick == job.obs_tick
            and applied.outcome == decision.outcome == (_ON_TIME if tick == offer.due_tick else _LATE)
        )
