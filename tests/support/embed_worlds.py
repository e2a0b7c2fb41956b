"""Worlds for programs that step, embed or break a run."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import gymnasium
import numpy as np

#: An episode that begins with this number is the one that breaks, at `break_at`.
UNLUCKY = 13
_OBSERVATION = gymnasium.spaces.Box(-1.0, 1e6, (3,), np.float32)


class Counting(gymnasium.Env[Any, Any]):
    """Shows (steps of the episode, last action, number the episode began with); pays 1 + action a tick."""

    observation_space = _OBSERVATION
    noop_action = 0

    def __init__(self, *, fps: float = 100, length: int = 10**6, break_at: int = -1, how: str = "raise") -> None:
        self.metadata = {"render_modes": [], "render_fps": fps}
        self.action_space = gymnasium.spaces.Discrete(1000)
        self._length, self._break_at, self._how = length, break_at, how
        self._state = np.zeros(3, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        start = (options or {}).get("start", int(self.np_random.integers(1, 10**6)))
        if start == "nowhere":
            raise ValueError("there is no such start")
        self._state = np.array([0, -1, start], np.float32)
        return self._state.copy(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._state[:2] = self._state[0] + 1, action
        # Not while it is tried out before the run.
        if self._state[0] == self._break_at and self._state[2] == UNLUCKY:
            self._break()
        ended = self._state[0] >= self._length
        # Episodes with an even first number terminate, those with an odd one are cut off.
        even = bool(self._state[2] % 2 == 0)
        return self._state.copy(), 1.0 + action, bool(ended and even), bool(ended and not even), {}

    def _break(self) -> None:
        if self._how == "raise":
            raise ArithmeticError("the counter is full")
        if self._how == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(3600)


def counting(**kwargs: Any) -> Counting:
    return Counting(**kwargs)


def unlucky(**kwargs: Any) -> gymnasium.Env[Any, Any]:
    """Breaks in its second life: the first is the one it is tried out in."""
    world = counting(**kwargs)
    lives = iter(range(100))
    begin = world.reset

    def reset(*, seed: int | None = None, options: Any = None) -> Any:
        return begin(seed=seed, options={"start": UNLUCKY} if next(lives) else {"start": 1})

    world.reset = reset  # type: ignore[method-assign]
    return world


class Gliding(gymnasium.Env[Any, Any]):
    """A Box of actions; shows the last one. Without a no-op of its own."""

    metadata = {"render_modes": [], "render_fps": 100}  # noqa: RUF012 - Gymnasium's own form
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1, 1, 2).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.array(action, np.float32), 0.0, False, False, {}


class FakeRobot:
    """An rtgym interface, as its users write them: the position is the sum of all controls that were sent."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain
        self.position = np.zeros(1, np.float32)
        self.sent = 0

    def get_observation_space(self) -> Any:
        box = gymnasium.spaces.Box
        return gymnasium.spaces.Tuple((box(-100.0, 100.0, (1,), np.float32), box(0, 10**6, (1, 2), np.int32)))

    def get_action_space(self) -> Any:
        return gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def get_default_action(self) -> Any:
        return np.zeros(1, np.float32)

    def send_control(self, control: Any) -> None:
        self.sent += 1
        self.position = self.position + self.gain * control

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        self.position = np.zeros(1, np.float32)
        self.sent = 0
        return self._observe(), {}

    def get_obs_rew_terminated_info(self) -> Any:
        return self._observe(), float(self.position[0]), bool(self.position[0] > 50), {}

    def wait(self) -> None:
        pass

    def _observe(self) -> list[Any]:
        return [self.position.copy(), np.array([[self.sent, 7]], np.int32)]
