"""An own world: a thing drifts along a line and the agent steers after it.

    cd examples
    rtcore-run --env-id own_world:make_world --policy own_policy:make_policy --duration 5

Nothing here knows rtcore: it is an ordinary Gymnasium environment. Three things are worth having:

* `metadata["render_fps"]`: the tick rate; without it give `--fps`.
* `noop_action`: what acts at a tick that has no policy action; without it give `--noop-action`.
* a `step` that is short against the tick: it is the world's own share of every tick.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.float32]

LEFT, STAY, RIGHT = 0, 1, 2
STEP = 0.04  # how far the agent moves in a tick
THING_HZ = 0.15  # the thing swings to and fro so often a second, at speed=1
EPISODE_TICKS = 200  # 4 s at 50 Hz


class Chase(gymnasium.Env[Frame, np.int64]):
    """Observation: where the thing is, and where the agent is. Reward: minus their distance."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012 - Gymnasium's own form
    noop_action = STAY

    def __init__(self, *, speed: float = 1.0) -> None:
        self.observation_space = gymnasium.spaces.Box(-2.0, 2.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(3)
        self._speed = speed
        self._ticks = 0
        self._phase = 0.0
        self._agent = 0.0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        super().reset(seed=seed)  # rtcore seeds the first reset only; later episodes follow from it
        self._ticks = 0
        self._phase = float(self.np_random.uniform(0.0, 2.0 * math.pi))
        self._agent = 0.0
        return self._observe(), {}

    def step(self, action: np.int64) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        self._ticks += 1
        self._agent = min(1.0, max(-1.0, self._agent + STEP * (int(action) - STAY)))
        distance = abs(self._thing() - self._agent)
        return self._observe(), -distance, False, self._ticks >= EPISODE_TICKS, {}

    def _thing(self) -> float:
        return math.sin(self._phase + 2.0 * math.pi * THING_HZ * self._speed * self._ticks / 50.0)

    def _observe(self) -> Frame:
        # Shape and dtype must be what the space says: rtcore checks them at every tick.
        return np.array([self._thing(), self._agent], np.float32)


def make_world(**kwargs: Any) -> Chase:
    """Called in the env process with `--env-args`, such as `--env-args speed=2`."""
    return Chase(**kwargs)
