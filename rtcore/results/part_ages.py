"""How old the parts of the observations were when their frames were published, of a world that says so."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rtcore.clock import NS_PER_S
from rtcore.memory.counters import Distribution, Histogram
from rtcore.spaces.parts import Part
from rtcore.spaces.payload import age_of, stamps_of

#: A part that is older than so many of its periods is stale.
STALE_PERIODS = 3


@dataclass(frozen=True)
class PartAge:
    """Of one part, over all ticks."""

    age_ns: Distribution
    hz: float  #: how often it was measured anew in the run: NaN of fewer than two times
    nominal_hz: float  #: as the world declares; NaN: it does not
    stale_ticks: int  #: at which it was older than `STALE_PERIODS` periods; 0 where the rate is not declared


class _Part:
    def __init__(self, part: Part) -> None:
        self.nominal_hz = math.nan if part.rate_hz is None else part.rate_hz
        self.stale_ns = math.inf if part.rate_hz is None else STALE_PERIODS * NS_PER_S / part.rate_hz
        self.ages = Histogram()
        self.first_ns = 0
        self.last_ns: int | None = None
        self.num_stamps = self.stale_ticks = 0

    def add(self, age_ns: int, stamp_ns: int) -> None:
        self.ages.add(age_ns)
        self.stale_ticks += age_ns > self.stale_ns
        if self.last_ns is None:
            self.last_ns = stamp_ns  # of the world's start: it stood still from then to the first tick
        elif stamp_ns > self.last_ns:
            if not self.num_stamps:
                self.first_ns = stamp_ns
            self.last_ns = stamp_ns
            self.num_stamps += 1

    def found(self) -> PartAge:
        hz = math.nan
        if self.last_ns is not None and self.num_stamps > 1:
            hz = (self.num_stamps - 1) * NS_PER_S / (self.last_ns - self.first_ns)
        return PartAge(self.ages.snapshot(), hz, self.nominal_hz, self.stale_ticks)


class PartAges:
    """Counts the ages of a run's parts. One thread adds; any may read."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """`parts`: those that have stamps (`ObservationSpec.stamped`)."""
        self._parts = {part.name: _Part(part) for part in parts}

    def add(self, publish_ns: int, stamps: bytes) -> None:
        """A tick.

        Args:
            publish_ns: When its frame was published.
            stamps: `FrameRing.read_stamps` of it.
        """
        for part, stamp_ns in zip(self._parts.values(), stamps_of(stamps), strict=True):
            part.add(age_of(stamp_ns, publish_ns), stamp_ns)

    def found(self) -> dict[str, PartAge]:
        """By the parts' names."""
        return {name: part.found() for name, part in self._parts.items()}
