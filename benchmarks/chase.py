"""A world for measuring that does not wait for its player: a thing swings along a line, the agent keeps up with it.

The opposite of Blocks in one respect: there a tick without an action costs next to nothing, here the thing moves on.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.float32]

LEFT, STAY, RIGHT = 0, 1, 2
STEP = 0.04  # how far the agent moves in a tick: twice as fast as the thing at its fastest
THING_HZ = 0.15  # the thing swings to and fro so often a second
NEAR = 0.15
EPISODE_TICKS = 500  # 10 s at 50 Hz


class Chase(gymnasium.Env[Frame, np.int64]):
    """Observation: where the thing is, how far it moved in the last tick (times 10), and where the agent is.

    (3,) float32. Actions: LEFT, STAY, RIGHT, by `STEP`. Reward: 1 for each tick at which the agent is within `NEAR` of
    the thing. Truncates after 500 ticks; never terminates.
    """

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012 - Gymnasium's own form
    noop_action = STAY

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (3,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._ticks = 0
        self._phase = 0.0
        self._agent = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed)
        self._ticks = 0
        self._phase = float(self.np_random.uniform(0.0, 2.0 * math.pi))
        self._agent = 0.0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._ticks += 1
        self._agent = min(1.0, max(-1.0, self._agent + STEP * (int(action) - STAY)))
        near = abs(self._thing(self._ticks) - self._agent) < NEAR
        return self._observe(), float(near), False, self._ticks >= EPISODE_TICKS, {}

    def _thing(self, tick: int) -> float:
        return math.sin(self._phase + 2.0 * math.pi * THING_HZ * tick / 50.0)

    def _observe(self) -> Frame:
        now = self._thing(self._ticks)
        return np.array([now, 10.0 * (now - self._thing(self._ticks - 1)), self._agent], np.float32)


def make_world(max_episode_steps: int = EPISODE_TICKS) -> gymnasium.Env[Frame, np.int64]:
    """`max_episode_steps`: what benchmarks.delays gives every world."""
    return gymnasium.wrappers.TimeLimit(Chase(), max_episode_steps)
