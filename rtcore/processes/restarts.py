"""Whether a worker or a learner is restarted, or the run ends instead: one place for both roles.

`Places` knows who is in each numbered place of a role, finds a process that hangs, and counts one that has died; then
`WorkerProcesses` (workers.py) or `LearnerProcesses` (learners.py) starts another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from enum import Enum
from typing import NamedTuple

from rtcore.errors import PolicyHung, describe_exit
from rtcore.host.watchdog import Watchdog
from rtcore.processes.launcher import Child, Role

#: A process that has done so much work (answers, updates) since its start counts as recovered from the last death.
_ENOUGH_WORK = 10


class Restarts:
    """The restarts of one role: how many, why, and when it is enough.

    A process that dies again before it has done some work will go on doing so: after `allowed` such deaths in a row
    the run ends with a named error, instead of restarting it for ever and reporting success.
    """

    def __init__(self, allowed: int) -> None:
        self.by_place: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self._allowed = allowed
        self._in_a_row: Counter[int] = Counter()
        self._work: dict[int, int] = {}

    @property
    def total(self) -> int:
        return self.by_place.total()

    def note(self, place: int, reason: str, work: int, *, is_own: bool = True) -> bool:
        """Count a death. `work`: what was done in this place so far (answers, updates). Returns whether to restart.

        `is_own`: the process would do the same again; else nothing speaks against another one, however often.
        """
        done = work - self._work.get(place, 0)
        if done < 0 or done >= _ENOUGH_WORK:  # less than before: a new phase has cleared the counts
            self._in_a_row[place] = 0
        self._work[place] = work
        if is_own and self._in_a_row[place] >= self._allowed:
            return False
        self._in_a_row[place] += is_own
        self.by_place[place] += 1
        self.reasons[reason] += 1
        return True


class Ending(Enum):
    """How a process ended."""

    DIED = "died"  #: nobody asked it to
    HUNG = "hung"  #: killed by the supervisor, as it showed no sign of life for too long
    HOLDER_DIED = "holder died"  #: killed by the supervisor, as the memory that it computes with is gone


class Death(NamedTuple):
    """How a process ended. `reason`: for people, and for the counts of summary.json."""

    ending: Ending
    reason: str


class Places:
    """The numbered places of a role, and which process is in each. Used by the supervising thread; `pids` by any."""

    def __init__(self, role: Role, allowed_restarts: int, watchdog: Watchdog) -> None:
        self.restarts = Restarts(allowed_restarts)
        self._role = role
        self._watchdog = watchdog
        self._children: dict[int, Child] = {}
        #: Of those that the supervisor has killed and whose end is not reported yet.
        self._deaths: dict[int, Death] = {}

    # -- who is there ----------------------------------------------------------------------------------------

    def put(self, child: Child) -> None:
        """A process has just been started in its place: from now on its silence is measured."""
        self._watchdog.forget(self._key(child.index))
        self._children[child.index] = child

    def remove(self, index: int) -> None:
        """Nobody is wanted in this place any more."""
        self._children.pop(index)

    def get(self, index: int) -> Child | None:
        return self._children.get(index)

    def holds(self, child: Child) -> bool:
        """False of a process that was replaced."""
        return self._children.get(child.index) is child

    @property
    def all(self) -> list[Child]:
        return list(self._children.values())

    @property
    def pids(self) -> dict[int, int]:
        """pid of each that is alive."""
        return {child.index: child.pid for child in self.all if child.exitcode is None}

    def waiting(self, indices: Iterable[int]) -> list[int]:
        """Those that are not ready yet."""
        return [index for index in indices if self._children[index].ready is None]

    # -- who hangs -------------------------------------------------------------------------------------------

    def watched(self) -> Iterator[Child]:
        """Those that live and have not been killed."""
        return (child for child in self.all if child.exitcode is None and child.index not in self._deaths)

    def silent_ns(self, child: Child, sign: object, kind: str) -> int:
        """How long it has shown the same sign of life; see `Watchdog.silent_ns`."""
        return self._watchdog.silent_ns(self._key(child.index), sign, kind)

    def find_hang(
        self,
        child: Child,
        sign: object,
        kind: str,
        limit_ns: int,
        doing: str = "",
    ) -> Death | None:
        """What to `kill` it for, if it has shown the same sign of life for longer than `limit_ns`, in which it slept or
        computed: see `Watchdog.silent_ns`.
        """
        silent_ns = self._watchdog.silent_ns(self._key(child.index), sign, kind, child.cpu_use, limit_ns)
        if silent_ns <= limit_ns:
            return None
        return Death(Ending.HUNG, f"hung: silent for {silent_ns / 1e9:.1f} s{doing}")

    def kill(self, child: Child, death: Death) -> None:
        """It is replaced once its end is reported."""
        self._deaths[child.index] = death
        self._watchdog.forget(self._key(child.index))
        child.kill()

    def note_end(self, child: Child, death: Death) -> None:
        """It ends by itself, and this is why."""
        self._deaths[child.index] = death

    def is_ending(self, child: Child) -> bool:
        """It was killed, or ends by itself, and its end is not reported yet."""
        return child.index in self._deaths

    def note_life(self, child: Child) -> None:
        """It has said that it is there: its silence begins anew."""
        self._watchdog.forget(self._key(child.index))

    # -- who is replaced -------------------------------------------------------------------------------------

    def count_death(self, child: Child, work: int, *, may_restart: bool = True) -> str:
        """A process has ended, and another is to take its place: returns why, for people.

        Args:
            child: the process.
            work: what was done in this place so far (answers, updates): see `Restarts`.
            may_restart: False before the run has begun.

        Raises:
            PolicyHung: it hung, once too often.
            WorkerDied: it died, once too often.
        """
        index = child.index
        death = self._deaths.pop(index, None) or Death(Ending.DIED, describe_exit(child.exitcode))
        if not may_restart or not self.restarts.note(index, death.reason, work):
            if death.ending is Ending.HUNG:
                restarts = self.restarts.by_place[index]
                raise PolicyHung(
                    f"{child.display_name} {death.reason}, restarted {restarts} times: does the policy ever return? "
                    "--hang-timeout-s allows more"
                )
            raise child.death
        return death.reason

    def count_lost_link(self, child: Child, work: int, reason: str) -> None:
        """It goes on in its place with another link. Counts as a restart, of which there may be as many as it takes."""
        self.restarts.note(child.index, reason, work, is_own=False)

    def _key(self, index: int) -> tuple[str, int]:
        return self._role, index
