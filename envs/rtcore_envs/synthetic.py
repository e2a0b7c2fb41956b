"""A synthetic world: frames of any size, nothing to play. For measuring what frame size and tick rate cost."""

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rtcore_envs.errors import SettingError


class SyntheticWorld(gymnasium.Env[npt.NDArray[np.uint8], np.int64]):
    """Synthetic: every byte of the uint8 frame is new at each step, no action changes anything, no episode ends.

    As a world: ``--env-id rtcore_envs.synthetic:SyntheticWorld --env-args frame=210x160x3``. A step costs one pass over
    the frame, as for a world that draws it. The frame is the world's own array, overwritten by the next step.
    """

    metadata = {"render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention

    def __init__(self, frame: str = "144x160") -> None:
        sizes = str(frame).lower().split("x")
        if not all(size.isdecimal() and int(size) for size in sizes):
            raise SettingError(f"frame: got {frame!r}, expected lengths of at least 1 with x between, as in 210x160x3")
        self._frame = np.zeros([int(size) for size in sizes], np.uint8)
        self.observation_space = gymnasium.spaces.Box(0, 255, self._frame.shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(4)
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
