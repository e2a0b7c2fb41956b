"""Which action is applied at which tick, and what became of every other one. Pure: no process, no clock.

Rule: at tick k, of all actions due by k, apply the one with the newest observation. Every job that was ever
booked ends in exactly one counted `Outcome`; every tick is of exactly one `TickKind`.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Any, Literal, NamedTuple, TypeAlias

from rtcore.scheduling.schedule import Job, OnLate

OnMissing = Literal["noop", "repeat", "random"]
#: What a chunk holds behind its first action: the policy's own, the no-op, or the first one again.
ChunkRest = Literal["own", "noop", "hold"]
#: An answer that waits for its tick: (due tick, answer, tick at which it was collected, answers collected before it).
_Pending: TypeAlias = "tuple[int, Entry, int, int]"


class Outcome(IntEnum):
    """How a job ended."""

    ON_TIME = 0  #: first applied at its due tick (without a due tick: the first tick after it was ready)
    LATE = 1  #: first applied after its due tick: it came late, or the tick itself was skipped
    SUPERSEDED = 2  #: never applied: an action from a newer observation took its place
    STALE_EPISODE = 3  #: never applied: its episode was over
    DROPPED_DEAD_WORKER = 4  #: never delivered: its worker died, hung or was stopped
    DROPPED_LATE = 5  #: never applied: it came late and `on_late` is "drop"
    UNFINISHED = 6  #: still under way when the run ended


class TickKind(IntEnum):
    """What acted at a tick."""

    ACTED = 0  #: a policy action
    MISSED = 1  #: one was due and was not there: `on_missing` acted
    IDLE = 2  #: none was due: `on_missing` acted
    LEAD_IN = 3  #: before the first due tick of the episode: the world is held, or `on_missing` acted
    RESET = 4  #: the world was reset


#: Counter of each tick kind and of each outcome: the enums' own names, which `layout.ENV_COUNTERS` has as fields.
KIND_COUNTERS = tuple(kind.name.lower() for kind in TickKind)
OUTCOME_COUNTERS = tuple(outcome.name.lower() for outcome in Outcome)


class Source(IntEnum):
    """Who chose the action that was applied at a tick."""

    POLICY = 0
    NOOP = 1
    REPEAT = 2
    RANDOM = 3
    HELD = 4  #: no action: the world was held or reset


class Entry(NamedTuple):
    """A worker's answer to one job, as the dispatcher sees it.

    `chunk_ticks` actions for the ticks due, due + 1, ...; `payload` is handed back to the caller unread.
    `obs_tick` is the tick of the frame that was used (with `hold` always the booked one).
    """

    job: Job
    obs_tick: int
    episode: int
    chunk_ticks: int = 1
    payload: Any = None


class Decision(NamedTuple):
    """What to do at a tick: `entry` and the `chunk_index` into it, or nothing (`entry is None`)."""

    kind: TickKind
    entry: Entry | None
    chunk_index: int
    due_tick: int
    first_use: bool = False
    outcome: Outcome = Outcome.ON_TIME


class Resolution(NamedTuple):
    """The one outcome of a job; `entry` is None where no answer ever came.

    `taken_tick`, `taken_seq`: the tick at which its answer (or its loss) was collected, and how many before it; -1
    where neither came. A replay needs both to repeat the dispatch.
    """

    job: Job
    entry: Entry | None
    outcome: Outcome
    tick: int
    taken_tick: int = -1
    taken_seq: int = -1


class Dispatcher:
    """Due-time dispatch with provenance. Call order within a tick: `offer`s, `decide`, then `expect`s.

    `resolutions` collects the outcomes since the caller last cleared it; `outcomes` counts them all.
    """

    def __init__(self, on_late: OnLate = "apply") -> None:
        self.outcomes = [0] * len(Outcome)
        self.resolutions: list[Resolution] = []
        self.episode = 0
        self._on_late = on_late
        self._jobs: dict[int, Job] = {}
        self._pending: list[_Pending] = []
        self._active: _Pending | None = None
        self._num_taken = 0
        self._newest_obs_tick = -1
        self._due: deque[tuple[int, int]] = deque()
        self._covered_until = -1
        self._lead_in_until: int | None = None
        self._first_use = False
        self._outcome = Outcome.ON_TIME

    # -- what happened -------------------------------------------------------------------------------------

    def expect(self, job: Job, chunk_ticks: int = 1) -> None:
        """A job was booked."""
        self._jobs[job.worker] = job
        if job.hold:
            self._due.append((job.due_tick, job.due_tick + chunk_ticks - 1))
        if self._lead_in_until is None:
            self._lead_in_until = job.due_tick

    def offer(self, entry: Entry, tick: int) -> None:
        """An answer was found in a slot at `tick`."""
        if self._jobs.pop(entry.job.worker, None) is None:
            return
        taken_seq = self._num_taken
        self._num_taken = taken_seq + 1
        if entry.episode != self.episode:
            self._resolve(entry.job, entry, Outcome.STALE_EPISODE, tick, tick, taken_seq)
        elif entry.obs_tick < self._newest_obs_tick:
            self._resolve(entry.job, entry, Outcome.SUPERSEDED, tick, tick, taken_seq)
        else:
            due_tick = entry.job.due_tick if entry.job.hold else tick
            self._pending.append((due_tick, entry, tick, taken_seq))

    def lose(self, job: Job, tick: int) -> None:
        """The worker of `job` is gone. Its due tick stays due: it will be `MISSED`, not `IDLE`."""
        if self._jobs.pop(job.worker, None) is not None:
            taken_seq = self._num_taken
            self._num_taken = taken_seq + 1
            self._resolve(job, None, Outcome.DROPPED_DEAD_WORKER, tick, tick, taken_seq)

    def new_episode(self, tick: int) -> None:
        """The world was reset at `tick`: all pending and later answers of the old episode are stale."""
        self.episode += 1
        for pending in self._pending:
            self._end(pending, Outcome.STALE_EPISODE, tick)
        self._pending.clear()
        self._active = None
        self._newest_obs_tick = -1
        self._due.clear()
        self._covered_until = -1
        self._lead_in_until = None

    def finish(self, tick: int) -> None:
        """The run is over: what is still under way ends as `UNFINISHED`."""
        for job in list(self._jobs.values()):
            self._resolve(job, None, Outcome.UNFINISHED, tick, -1, -1)
        for pending in self._pending:
            self._end(pending, Outcome.UNFINISHED, tick)
        self._jobs.clear()
        self._pending.clear()

    # -- what to do ----------------------------------------------------------------------------------------

    def decide(self, tick: int) -> Decision:
        """The action for `tick`. Call once for every tick that runs, in order."""
        was_due = self._pop_due(tick)
        chosen = self._choose(tick)
        if chosen is not None:
            due_tick, entry = chosen[0], chosen[1]
            self._lead_in_until = -1
            index = min(tick - due_tick, entry.chunk_ticks - 1)
            return Decision(TickKind.ACTED, entry, index, due_tick, self._first_use, self._outcome)
        if self._lead_in_until is None or tick < self._lead_in_until:
            return Decision(TickKind.LEAD_IN, None, 0, -1)
        return Decision(TickKind.MISSED if was_due else TickKind.IDLE, None, 0, -1)

    def _pop_due(self, tick: int) -> bool:
        was_due = False
        while self._due and self._due[0][0] <= tick:
            self._covered_until = max(self._covered_until, self._due.popleft()[1])
            was_due = True
        return was_due or tick <= self._covered_until

    def _choose(self, tick: int) -> _Pending | None:
        """The due answer with the newest frame; without one, the chunk that is being applied."""
        best: _Pending | None = None
        if self._pending:
            waiting: list[_Pending] = []
            for candidate in self._pending:
                due_tick, entry = candidate[0], candidate[1]
                if due_tick > tick:
                    waiting.append(candidate)
                elif self._on_late == "drop" and tick >= due_tick + entry.chunk_ticks:
                    self._end(candidate, Outcome.DROPPED_LATE, tick)
                elif best is None or (entry.obs_tick, due_tick) > (best[1].obs_tick, best[0]):
                    if best is not None:
                        self._end(best, Outcome.SUPERSEDED, tick)
                    best = candidate
                else:
                    self._end(candidate, Outcome.SUPERSEDED, tick)
            self._pending = waiting
        if best is not None and best[1].obs_tick < self._newest_obs_tick:
            self._end(best, Outcome.SUPERSEDED, tick)
            best = None
        if best is not None:
            due_tick, entry = best[0], best[1]
            self._newest_obs_tick = entry.obs_tick
            self._first_use, self._outcome = True, Outcome.ON_TIME if tick == due_tick else Outcome.LATE
            self._end(best, self._outcome, tick)
            self._active = best if tick < due_tick + entry.chunk_ticks - 1 else None
            return best
        self._first_use = False
        if self._active is not None:
            active = self._active
            due_tick, entry = active[0], active[1]
            if tick >= due_tick + entry.chunk_ticks - 1:
                self._active = None
            return active if tick < due_tick + entry.chunk_ticks else None
        return None

    def _end(self, pending: _Pending, outcome: Outcome, tick: int) -> None:
        _, entry, taken_tick, taken_seq = pending
        self._resolve(entry.job, entry, outcome, tick, taken_tick, taken_seq)

    def _resolve(
        self, job: Job, entry: Entry | None, outcome: Outcome, tick: int, taken_tick: int, taken_seq: int
    ) -> None:
        self.outcomes[outcome] += 1
        self.resolutions.append(Resolution(job, entry, outcome, tick, taken_tick, taken_seq))
