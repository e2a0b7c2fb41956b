"""How long the parts of a step take, as moving means."""

from __future__ import annotations

from rtcore.runtime.player import Seen

#: Weight of the newest value, as in rtgym.
_NEWEST = 0.1


class MovingMean:
    """Mean and mean deviation, of which the newest value makes a tenth."""

    def __init__(self) -> None:
        self.mean = 0.0
        self.deviation = 0.0
        self._empty = True

    def add(self, value: float) -> None:
        if self._empty:
            self._empty = False
            self.mean = value
            return
        self.deviation += _NEWEST * (abs(value - self.mean) - self.deviation)
        self.mean += _NEWEST * (value - self.mean)


class StepClock:
    """The parts of one `RealtimeEnv.step` after another. Times in ns of the monotonic clock."""

    def __init__(self) -> None:
        self._means: dict[str, MovingMean] = {}
        self._last_ns = 0

    def begin(self, seen: Seen) -> None:
        """A reset: there is no step before the next one."""
        self._last_ns = seen.seen_ns

    def add(self, start_ns: int, seen: Seen, answered_ns: int) -> None:
        """A step that began at `start_ns`, had handed its action over at `answered_ns` and saw `seen`."""
        parts = {
            "time_step_duration": seen.seen_ns - self._last_ns,
            "inference_duration": start_ns - self._last_ns,
            "step_duration": seen.seen_ns - start_ns,
            "send_control_duration": answered_ns - start_ns,
            "retrieve_obs_duration": seen.seen_ns - answered_ns,
        }
        self._last_ns = seen.seen_ns
        for name, took_ns in parts.items():
            self._means.setdefault(name, MovingMean()).add(took_ns / 1e9)

    def to_dict(self) -> dict[str, tuple[float, float]]:
        """(mean, mean deviation) [s] by name; empty before the first step."""
        return {name: (value.mean, value.deviation) for name, value in self._means.items()}
