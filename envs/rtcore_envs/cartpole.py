"""CartPole with random pushes: worlds in which what an action does not know of the last ticks costs the balance.

``rtcore/PushedCartPole-v0`` is CartPole-v1 and the pushes. ``rtcore/SetPointCartPole-v0`` also has a place that the
cart should be at, which jumps every few seconds and is to be read from a picture: it takes a slow look and a quick one.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from rtcore_envs.errors import SettingError

State = npt.NDArray[np.float32]

#: The picture of the set-point: (rows, columns), grey. The track reaches from its left edge to its right one.
PICTURE_SHAPE = (32, 96)
#: Half the width of the bar that shows the set-point, in columns.
_BAR_COLUMNS = 2


class PushedCartPoleEnv(CartPoleEnv):
    """Balance a pole on a cart that is pushed at random in every step. 50 steps a second.

    Physics, observation (4,) float32 (position, speed, angle, angular speed), actions (0 left, 1 right, by 10 N),
    reward (1 a step) and the end of an episode are those of Gymnasium's CartPole-v1, 500 steps included.

    `push_std`: standard deviation of the push [N], drawn anew in each step and added to the force. Seeded as the start
    is. `pole_m`: length of the pole [m]; a longer one falls more slowly. `has_noop`: the actions are 0 left, 1 none,
    2 right.

    Without `has_noop` it has no no-op: give ``--on-missing repeat``.
    """

    def __init__(
        self,
        push_std: float = 5.0,
        max_steps: int = 500,
        pole_m: float = 1.0,
        has_noop: bool = False,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(render_mode=render_mode)
        if not push_std >= 0:
            raise SettingError(f"push_std={push_std!r}: expected a force of 0 N or more")
        if max_steps < 1:
            raise SettingError(f"max_steps={max_steps!r}: expected 1 or more")
        if not 0 < pole_m < math.inf:
            raise SettingError(f"pole_m={pole_m!r}: expected a length above 0 m")
        self._push_std, self._max_steps = float(push_std), int(max_steps)
        self._own_force = self.force_mag
        self._num_steps = 0
        self.length = float(pole_m) / 2  # Gymnasium's name for half of it
        self.polemass_length = self.masspole * self.length
        #: Force of each action, in units of CartPole's.
        self._directions = (-1, 0, 1) if has_noop else (-1, 1)
        if has_noop:
            self.action_space = spaces.Discrete(3)  # type: ignore[assignment]
            self.noop_action = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._num_steps = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        push = self.np_random.normal(0.0, self._push_std)
        self.force_mag = self._own_force * self._directions[int(action)] + push
        # Its action 1 applies just that.
        observation, reward, terminated, _, info = super().step(1)  # type: ignore[no-untyped-call]
        self._num_steps += 1
        return observation, reward, terminated, self._num_steps >= self._max_steps, info


class SetPointCartPoleEnv(PushedCartPoleEnv):
    """The same, and the cart should stand at a place that jumps every `jump_steps` steps.

    Observation: a Dict of ``state``, that of CartPole, and ``picture``, (32, 96) uint8: black, with a white bar at the
    place. Nothing else says where that is. It is within 1.2 m of the middle, and at least 0.8 m from the one before.

    Reward: 1 for each step that ends within 0.4 m of the place, else 0. An episode ends as in CartPole, or after
    `max_steps`.
    """

    NEAR = 0.4
    _FARTHEST, _LEAST_JUMP = 1.2, 0.8

    def __init__(
        self,
        push_std: float = 5.0,
        jump_steps: int = 250,
        max_steps: int = 1000,
        render_mode: str | None = None,
    ) -> None:
        super().__init__(push_std, max_steps, render_mode=render_mode)
        if jump_steps < 1:
            raise SettingError(f"jump_steps={jump_steps!r}: expected 1 or more")
        self._jump_steps = int(jump_steps)
        self._set_point = 0.0
        state = self.observation_space
        picture = spaces.Box(0, 255, PICTURE_SHAPE, np.uint8)
        parts = spaces.Dict({"picture": picture, "state": state})
        self.observation_space = parts  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        state, info = super().reset(seed=seed, options=options)
        self._set_point = 0.0
        self._jump()
        return self._observed(state), info

    def step(self, action: Any) -> Any:
        state, _, terminated, truncated, info = super().step(action)
        is_near = abs(float(state[0]) - self._set_point) < self.NEAR and not terminated
        if self._num_steps % self._jump_steps == 0:
            self._jump()
        return self._observed(state), float(is_near), terminated, truncated, info

    def _jump(self) -> None:
        before = self._set_point
        while abs(self._set_point - before) < self._LEAST_JUMP:
            self._set_point = float(self.np_random.uniform(-self._FARTHEST, self._FARTHEST))

    def _observed(self, state: State) -> dict[str, Any]:
        picture = np.zeros(PICTURE_SHAPE, np.uint8)
        column = column_of(self._set_point)
        picture[:, max(0, column - _BAR_COLUMNS) : column + _BAR_COLUMNS + 1] = 255
        return {"picture": picture, "state": state}


def column_of(place: float) -> int:
    """The picture's column for a place on the track [m]: 2.4 m on both sides of the middle."""
    return round((place / 2.4 + 1) / 2 * (PICTURE_SHAPE[1] - 1))
