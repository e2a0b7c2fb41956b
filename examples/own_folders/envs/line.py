"""A walk along a line."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np


class Line(gymnasium.Env[Any, Any]):
    """Left, stay, right; pays for being far from where it began."""

    metadata = {"render_modes": [], "render_fps": 60}  # noqa: RUF012 - Gymnasium's own form
    observation_space = gymnasium.spaces.Box(-100.0, 100.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)
    noop_action = 1

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._at = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._at += action - 1
        return np.array([self._at], np.float32), float(abs(self._at)), abs(self._at) >= 50, False, {}
