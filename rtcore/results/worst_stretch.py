"""The stretch of a run with the most ticks without a policy action, kept while the run goes on, however long it is."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import TickKind
from rtcore.scheduling.jobs import JobRow

#: Ticks of a stretch; and what is kept before and after it, to see what was usual, and how it ended.
SIZE_TICKS = 64
_CONTEXT_TICKS = 256
#: A stretch is kept so many ticks later, because the rows of its jobs come after those of its ticks.
_PATIENCE_TICKS = 2048


class Stretch(NamedTuple):
    """`ticks` and `jobs` include what was around it."""

    first_tick: int
    last_tick: int
    without_action: int  #: ticks of it that were missed, idle or skipped
    ticks: list[FrameHeader]
    jobs: list[JobRow]


class WorstStretch:
    """Checks each tick as it is recorded. `ticks`, `jobs`: the newest rows, as the record has them."""

    def __init__(self, ticks: deque[FrameHeader], jobs: deque[JobRow]) -> None:
        self._ticks = ticks
        self._jobs = jobs
        self._window: deque[tuple[int, int]] = deque()
        self._without_action = 0
        self._most = 0
        self._last_tick = -1
        self._is_kept = True
        self._kept: Stretch | None = None

    def add(self, header: FrameHeader) -> None:
        """A tick that was just recorded."""
        window = self._window
        skipped = min(header.skipped_ticks, SIZE_TICKS - 1)
        window.extend((tick, 1) for tick in range(header.tick - skipped, header.tick))
        missing = int(header.kind in (TickKind.MISSED, TickKind.IDLE))
        window.append((header.tick, missing))
        self._without_action += skipped + missing
        while window[0][0] <= header.tick - SIZE_TICKS:
            self._without_action -= window.popleft()[1]
        if self._without_action > self._most:
            self._most, self._last_tick, self._is_kept = self._without_action, header.tick, False
        elif not self._is_kept and header.tick > self._last_tick + _PATIENCE_TICKS:
            self._keep()

    def found(self) -> Stretch | None:
        """None if no tick lacked an action. Once nothing is recorded any more."""
        if not self._is_kept:
            self._keep()
        return self._kept

    def _keep(self) -> None:
        self._is_kept = True
        last = self._last_tick
        first = max(0, last - SIZE_TICKS + 1)
        begin, end = first - _CONTEXT_TICKS, last + SIZE_TICKS
        ticks = [header for header in self._ticks if begin <= header.tick <= end]
        jobs = [job for job in self._jobs if job.tick >= begin and job.booked_tick <= end]
        self._kept = Stretch(first, last, self._most, ticks, jobs)
