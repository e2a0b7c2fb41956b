"""A world that is learned within seconds, and that pays more than a float32 holds once it is told to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

EPISODE_STEPS = 20
NUM_ACTIONS = 4
BEST_ACTION = 2


class Bandit(gym.Env[Any, Any]):
    """One action pays 1 a step, the others nothing: 5 an episode at random, 20 at best."""

    metadata: dict[str, Any] = {"render_fps": 200}  # noqa: RUF012 - as Gymnasium has it
    observation_space = spaces.Box(0, 1, (3,), np.float32)
    action_space = spaces.Discrete(NUM_ACTIONS)

    def __init__(self, too_much_once: str = "") -> None:
        """`too_much_once`: there is this file."""
        self._too_much_once = Path(too_much_once) if too_much_once else None
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = float(action == BEST_ACTION)
        if self._too_much_once is not None and self._too_much_once.exists():
            reward = 1e300
        return self._observation(), reward, self._steps >= EPISODE_STEPS, False, {}

    def _observation(self) -> Any:
        return np.array([1, self._steps / EPISODE_STEPS, 0.5], np.float32)


def bandit(**args: Any) -> Bandit:
    return Bandit(**args)
