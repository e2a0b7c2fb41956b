"""When the head of a policy with two speeds starts: at every tick at which it is idle and there is something to act on.

The trunk's workers are staggered as without a head. The head sees the newest frame and the newest features, and its
action is for the next tick. Pure: no process, no clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rtcore.scheduling.jobs import Job


class Starts(Protocol):
    """Decides which worker starts when: a `Schedule`, or a recorded one in a replay."""

    def book(self, tick: int) -> Sequence[Job]: ...
    def complete(self, worker: int, tau_ns: int) -> None: ...
    def worker_up(self, worker: int) -> None: ...
    def worker_down(self, worker: int) -> Job | None: ...
    def next_worker(self, tick: int) -> int | None: ...
    def adapt(self) -> object: ...


class HeadSchedule:
    """The starts of a trunk's workers, and of the head beside them. Implements `Starts`.

    Args:
        trunk: Of the workers.
        head: Index of the head's place, which the trunk does not know.
    """

    #: Ticks from the head's frame to the one that its action is for.
    DELAY_TICKS = 1

    def __init__(self, trunk: Starts, head: int) -> None:
        self._trunk = trunk
        self._head = head
        self._is_up = False
        self._job: Job | None = None
        #: Whether there are features of this episode.
        self.has_features = False

    def book(self, tick: int) -> Sequence[Job]:
        """The jobs that start on the frame of a tick; the head's is the last."""
        jobs = self._trunk.book(tick)
        if not self._is_up or self._job is not None or not self.has_features:
            return jobs
        self._job = Job(self._head, tick, tick + self.DELAY_TICKS, hold=True)
        return [*jobs, self._job]

    def complete(self, worker: int, tau_ns: int) -> None:
        """An answer is there. The time of the head does not change the delay of the trunk."""
        if worker == self._head:
            self._job = None
        else:
            self._trunk.complete(worker, tau_ns)

    def worker_up(self, worker: int) -> None:
        if worker == self._head:
            self._is_up = True
        else:
            self._trunk.worker_up(worker)

    def worker_down(self, worker: int) -> Job | None:
        """Returns the job that is lost with it."""
        if worker != self._head:
            return self._trunk.worker_down(worker)
        self._is_up = False
        job, self._job = self._job, None
        return job

    def next_worker(self, tick: int) -> int | None:
        """The head, which is booked at each tick; the trunk's workers have longer to compute than to wake up."""
        if self._is_up and self._job is None and self.has_features:
            return self._head
        return self._trunk.next_worker(tick)

    def adapt(self) -> object:
        return self._trunk.adapt()
