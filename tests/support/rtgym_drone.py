"""The interface of rtgym's tutorial, without its drawing, as its users write one: for tests with rtgym itself."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from rtgym import DummyRCDrone, RealTimeGymInterface


class Drone(RealTimeGymInterface):  # type: ignore[misc, unused-ignore]
    def __init__(self) -> None:
        self.rc_drone = DummyRCDrone()
        self.target = np.array([0.0, 0.0], dtype=np.float32)

    def get_observation_space(self) -> Any:
        position, target = spaces.Box(low=-1.0, high=1.0, shape=(1,)), spaces.Box(low=-0.5, high=0.5, shape=(1,))
        return spaces.Tuple((position, position, target, target))

    def get_action_space(self) -> Any:
        return spaces.Box(low=-2.0, high=2.0, shape=(2,))

    def get_default_action(self) -> Any:
        return np.array([0.0, 0.0], dtype="float32")

    def send_control(self, control: Any) -> None:
        self.rc_drone.send_control(control[0], control[1])

    def reset(self, seed: Any = None, options: Any = None) -> Any:
        self.target[:] = np.random.uniform(-0.5, 0.5, 2)
        return self._observe(), {}

    def get_obs_rew_terminated_info(self) -> Any:
        obs = self._observe()
        position = np.concatenate(obs[:2])
        return obs, -np.linalg.norm(position - self.target) - 0.01, False, {}

    def _observe(self) -> list[Any]:
        pos_x, pos_y = self.rc_drone.get_observation()
        values = (pos_x, pos_y, self.target[0], self.target[1])
        return [np.array([value], dtype="float32") for value in values]
