"""Nanoseconds on the axis of ticks: through the deadlines that the ticks really had. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import Protocol


class Due(Protocol):
    """A row of a record."""

    @property
    def tick(self) -> int: ...
    @property
    def deadline_ns(self) -> int: ...


class TickAxis:
    """Converts between ticks and nanoseconds. `rows` in order of their ticks; a stretched grid (`overrun`) is uneven.

    Between two rows time goes evenly, beyond the first and the last by the period. Without rows tick 0 is at 0 ns; a
    row that is out of order is left out.
    """

    def __init__(self, rows: Iterable[Due], period_ns: float) -> None:
        self._period_ns = period_ns
        self._ticks: list[int] = []
        self._deadlines_ns: list[int] = []
        for row in rows:
            if not self._ticks or (row.tick > self._ticks[-1] and row.deadline_ns > self._deadlines_ns[-1]):
                self._ticks.append(row.tick)
                self._deadlines_ns.append(row.deadline_ns)

    def of_ns(self, at_ns: int) -> float:
        """`at_ns` in ticks. The period must not be 0."""
        tick, deadline_ns, period_ns = self._stretch(bisect_right(self._deadlines_ns, at_ns))
        return tick + (at_ns - deadline_ns) / period_ns

    def deadline_ns(self, tick: int) -> int:
        """When `tick` was due, whether it ran or not."""
        known, deadline_ns, period_ns = self._stretch(bisect_right(self._ticks, tick))
        return deadline_ns + round((tick - known) * period_ns)

    def _stretch(self, index: int) -> tuple[int, int, float]:
        """The row before row number `index` (the first one for 0), and how long a tick takes from there on."""
        if not self._ticks:
            return 0, 0, self._period_ns
        before = max(0, index - 1)
        tick, deadline_ns = self._ticks[before], self._deadlines_ns[before]
        if index == 0 or index == len(self._ticks):
            return tick, deadline_ns, self._period_ns
        return tick, deadline_ns, (self._deadlines_ns[index] - deadline_ns) / (self._ticks[index] - tick)
