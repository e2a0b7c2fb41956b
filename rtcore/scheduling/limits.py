"""How fast an action may change: limits between what was asked for and what a world is given. Pure.

For Box actions, element by element, in units of the action and seconds: `velocity<=V` is the most that it changes in a
second, `acceleration<=A` the most that this change changes in a second, `smoothing<=S` the share of the last action
that each new one keeps (an exponential moving average).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

#: What may be limited.
LIMITS = ("velocity", "acceleration", "smoothing")


def parse_limit(text: str) -> tuple[str, float]:
    """From what a user writes, `velocity<=0.5`. ValueError for anything else."""
    name, sign, value = text.partition("<=")
    try:
        most = float(value)
    except ValueError:
        most = math.nan
    name = name.strip()
    if not sign or name not in LIMITS or not 0 < most < (1 if name == "smoothing" else math.inf):
        raise ValueError(
            f"limit {text!r}: expected velocity<=V or acceleration<=A [units of the action per second, per second "
            "squared], above 0, or smoothing<=S between 0 and 1"
        )
    return name, most


class ActionLimits:
    """Of one world. What is applied is followed, whoever chose it: a new hand begins where the last one was.

    Args:
        limits: By name, as of `LIMITS`.
        rate_hz: Ticks a second.
        low: Of the action space, (*action_shape,).
        high: The same.
    """

    def __init__(
        self, limits: Sequence[tuple[str, float]], rate_hz: float, low: npt.NDArray[Any], high: npt.NDArray[Any]
    ) -> None:
        most = dict(limits)
        self._step = most.get("velocity", math.inf) / rate_hz
        self._change = most.get("acceleration", math.inf) / rate_hz**2
        self._kept = most.get("smoothing", 0.0)
        self._low, self._high = low, high
        self.reset()

    def reset(self) -> None:
        """Nothing is known of the world's action: the next one is free."""
        self._last: npt.NDArray[Any] | None = None
        self._speed: Any = 0.0

    def limited(self, action: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
        """What may be applied in its place, of its dtype, and whether velocity or acceleration cut it. A new array."""
        last = self._last
        if last is None:
            return action.copy(), False
        wanted = (1 - self._kept) * (action.astype(np.float64) - last)
        step = np.clip(wanted, self._speed - self._change, self._speed + self._change)
        step = np.clip(step, -self._step, self._step)
        made = np.clip(last + step, self._low, self._high).astype(action.dtype)
        return made, not np.array_equal(step, wanted)

    def follow(self, applied: npt.NDArray[Any], *, hand_over: bool = False) -> None:
        """This one was applied. `hand_over`: by somebody else, so that the next hand begins from rest."""
        now = applied.astype(np.float64)
        self._speed = 0.0 if hand_over or self._last is None else now - self._last
        self._last = now
