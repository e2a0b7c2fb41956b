"""The share of random actions at each tick: for the workers, which explore, and for the report of a run."""

from __future__ import annotations

from dataclasses import dataclass

from rtcore.config.groups import ExplorationSettings
from rtcore.errors import PolicyConfigError


@dataclass(frozen=True)
class EpsilonSchedule:
    """Share of random actions: `start` at tick 0, falling linearly to `end` at tick `ticks`, `end` from then on.

    `ticks_before`: ticks of the runs that this one goes on from; they count as well.
    """

    start: float
    end: float
    ticks: int
    ticks_before: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise PolicyConfigError(f"epsilon from {self.start} to {self.end}: both must be shares, 0 to 1")
        if self.ticks < 1 or self.ticks_before < 0:
            raise PolicyConfigError(
                f"epsilon over {self.ticks} ticks after {self.ticks_before}: expected at least 1, and 0 or more"
            )

    @classmethod
    def of(cls, settings: ExplorationSettings, ticks_before: int = 0) -> EpsilonSchedule:
        """As a run's settings say."""
        return cls(settings.epsilon_start, settings.epsilon_end, settings.epsilon_ticks, ticks_before)

    def epsilon(self, tick: int) -> float:
        """At `tick` of this run."""
        part = min(1.0, (self.ticks_before + tick) / self.ticks)
        return self.start + (self.end - self.start) * part
