"""How long a learner pauses when ticks are missed or late: the tick comes first. Pure: no clock, no process."""

from __future__ import annotations

from dataclasses import dataclass, field

from rtcore.clock import NS_PER_MS, NS_PER_S
from rtcore.memory.counters import Histogram, Words

#: Longest pause [ns].
MAX_PAUSE_NS = NS_PER_S
#: A tick that began later than this share of a period (and than this time) counts as trouble.
_LATE_SHARE, _LATE_NS = 10, NS_PER_MS
#: Half-life of what was observed [ticks].
_MEMORY_TICKS = 600
#: Fewest ticks of pauses that must have been observed before pausing is judged useless.
_JUDGED_TICKS = 120


@dataclass
class _TroubleRate:
    """Troubles and ticks, with exponential forgetting."""

    troubles: float = 0.0
    ticks: float = 0.0

    @property
    def rate(self) -> float:
        return self.troubles / self.ticks if self.ticks else 0.0

    def add(self, troubles: int, ticks: int) -> None:
        self.troubles += troubles
        self.ticks += ticks

    def fade(self, ticks: int) -> None:
        kept: float = 0.5 ** (ticks / _MEMORY_TICKS)
        self.troubles *= kept
        self.ticks *= kept


@dataclass
class Throttle:
    """How long a learner pauses. The pause doubles with each trouble, and halves without.

    If ticks are missed just as often while nobody learns, learning is not the cause (too few workers, for example).
    Then there are no pauses, until the observations have faded; then pausing is tried again.
    """

    period_ns: int
    _pause_ns: int = field(init=False)
    _learning: _TroubleRate = field(default_factory=_TroubleRate)
    _pausing: _TroubleRate = field(default_factory=_TroubleRate)

    def __post_init__(self) -> None:
        self._least_ns = min(self.period_ns, MAX_PAUSE_NS)
        self._pause_ns = self._least_ns

    def after_learning(self, troubles: int, ticks: int) -> int:
        """Report what happened during learning; returns how long to pause now [ns], 0 for no pause."""
        self._fade(ticks)
        self._learning.add(troubles, ticks)
        if troubles == 0:
            self._pause_ns = max(self._least_ns, self._pause_ns // 2 if ticks else self._pause_ns)
            return 0
        if self._pausing.ticks >= _JUDGED_TICKS and self._pausing.rate >= self._learning.rate / 2:
            return 0
        pause_ns = self._pause_ns
        self._pause_ns = min(2 * pause_ns, MAX_PAUSE_NS)
        return pause_ns

    def after_pause(self, troubles: int, ticks: int) -> None:
        """Report what happened during the pause."""
        self._fade(ticks)
        self._pausing.add(troubles, ticks)

    def _fade(self, ticks: int) -> None:
        self._learning.fade(ticks)
        self._pausing.fade(ticks)


class TickWatch:
    """Reads the counters of the env process: how many ticks passed since the last poll, and how many had trouble."""

    def __init__(self, counters: Words, lateness: Histogram, period_ns: int) -> None:
        self._counters = counters
        self._lateness = lateness
        self._late_ns = max(_LATE_NS, period_ns // _LATE_SHARE)
        self._ticks = self._troubles = 0
        self._late_count = self._late_sum_ns = 0
        self.poll()

    def poll(self) -> tuple[int, int]:
        """(troubles, ticks) since the last poll. Trouble: ticks missed, skipped or overrun, +1 if they began late."""
        counters = self._counters
        ticks = counters["ticks"]
        overruns = counters["overruns"] + counters["reset_overruns"]
        troubles = counters["missed"] + counters["skipped_ticks"] + overruns
        count, sum_ns = self._lateness.totals()
        new_ticks, new_troubles = ticks - self._ticks, troubles - self._troubles
        late = count > self._late_count and (sum_ns - self._late_sum_ns) // (count - self._late_count) > self._late_ns
        self._ticks, self._troubles = ticks, troubles
        self._late_count, self._late_sum_ns = count, sum_ns
        if new_ticks < 0 or new_troubles < 0:  # counters were reset: the rehearsal is over, the run begins
            return 0, 0
        return new_troubles + late, new_ticks
