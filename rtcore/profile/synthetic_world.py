"""A synthetic world: frames of any size, nothing to play. For measuring what frame size and tick rate cost."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rtcore.profile.options import parse_frame
from rtcore.spaces import ActionSpec, ObservationSpec

#: As `env_id` of a run: rtcore looks worlds up by import string.
SYNTHETIC_WORLD = "rtcore.profile.synthetic_world:synthetic_world"


def specs_of(shape: tuple[int, ...], num_actions: int = 4) -> tuple[ObservationSpec, ActionSpec]:
    """Observation and action of a world with such uint8 frames."""
    observation = ObservationSpec.from_space(gymnasium.spaces.Box(0, 255, shape, np.uint8))
    return observation, ActionSpec.from_space(gymnasium.spaces.Discrete(num_actions))


class SyntheticWorld(gymnasium.Env[npt.NDArray[np.uint8], np.int64]):
    """Synthetic: every byte of the uint8 frame is new at each step, no action changes anything, no episode ends.

    A step costs one pass over the frame, as for a world that draws it. The frame is the world's own array, overwritten
    by the next step.
    """

    metadata = {"render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(4)
        self._frame = np.zeros(shape, np.uint8)
        self._steps = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        self._frame.fill(0)
        return self._frame, {}

    def step(self, action: np.int64) -> tuple[npt.NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        self._steps += 1
        self._frame.fill(self._steps & 255)
        return self._frame, 0.0, False, False, {}


def synthetic_world(frame: str = "144x160") -> SyntheticWorld:
    """Factory for `--env-id rtcore.profile.synthetic_world:synthetic_world --env-args frame=210x160x3`."""
    return SyntheticWorld(parse_frame(str(frame)))
