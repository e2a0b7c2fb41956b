"""Worlds that misbehave, each in one way, for runs under test: `tests.support.bad_worlds:name`.

No torch: a world that does not use it would import it into the env process, which takes longer than the test.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class _World(gymnasium.Env[Any, Any]):
    """A counter. From step `after` on it goes wrong."""

    metadata = {"render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention
    observation_space: gymnasium.Space[Any] = gymnasium.spaces.Box(-1e9, 1e9, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, after: int = 5) -> None:
        self.after = after
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        observation = np.full(4, self.steps, np.float32)
        if self.steps > self.after:
            return self.go_wrong(observation)
        return observation, 1.0, False, False, {}

    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise NotImplementedError


class RaisingWorld(_World):
    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise RuntimeError("the pole fell through the floor")


class WrongDtypeWorld(_World):
    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return observation.astype(np.float64), 1.0, False, False, {}


class WrongPartWorld(_World):
    """A Dict, one part of which goes wrong."""

    observation_space = gymnasium.spaces.Dict({"pole": _World.observation_space, "clock": _World.observation_space})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        observation, info = super().reset(seed=seed)
        return {"pole": observation, "clock": observation}, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        observation = np.full(4, self.steps, np.float32)
        shown = {"pole": observation, "clock": observation[:3] if self.steps > self.after else observation}
        return shown, 1.0, False, False, {}


class DiscretePartWorld(_World):
    observation_space = gymnasium.spaces.Dict({"pole": _World.observation_space, "gear": gymnasium.spaces.Discrete(3)})


class NanRewardWorld(_World):
    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return observation, float("nan"), False, False, {}


class HangingWorld(_World):
    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        time.sleep(3600)
        return observation, 1.0, False, False, {}


class FloatFrame(_World):
    """Returns from reset() what its space does not promise."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return [0.0, 0.0, 0.0, 0.0], {}


class RaisingReset(_World):
    """Episodes of 30 steps; raises in reset number `after`."""

    def __init__(self, after: int = 4) -> None:
        super().__init__(after)
        self.resets = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self.resets += 1
        if self.resets >= self.after:
            raise RuntimeError("the key does not fit")
        return super().reset(seed=seed)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return np.full(4, self.steps, np.float32), 1.0, self.steps % 30 == 0, False, {}


def raising_reset(**args: Any) -> gymnasium.Env[Any, Any]:
    return RaisingReset(**args)


def not_made(**args: Any) -> gymnasium.Env[Any, Any]:
    raise RuntimeError("no such robot")


def raising_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return RaisingWorld(**args)


def wrong_dtype_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return WrongDtypeWorld(**args)


def wrong_part_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return WrongPartWorld(**args)


def discrete_part_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return DiscretePartWorld(**args)


def nan_reward_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return NanRewardWorld(**args)


def hanging_world(**args: Any) -> gymnasium.Env[Any, Any]:
    return HangingWorld(**args)


def float_frame(**args: Any) -> gymnasium.Env[Any, Any]:
    return FloatFrame(**args)


class SlowReset(gymnasium.Env[Any, Any]):
    """Every reset but the first two (made before the run) takes `reset_s`; `closed` is a file that close() makes."""

    metadata = {"render_fps": 60}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 255, (4,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reset_s: float = 0.0, closed: str = "") -> None:
        self._reset_s, self._closed = reset_s, closed
        self._resets = self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._resets += 1
        self._steps = 0
        if self._resets > 2:
            time.sleep(self._reset_s)
        return np.zeros(4, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        return np.zeros(4, np.uint8), 0.0, self._steps >= 60, False, {}

    def close(self) -> None:
        if self._closed:
            Path(self._closed).touch()


def slow_reset(**arguments: Any) -> gymnasium.Env[Any, Any]:
    return SlowReset(**arguments)


class DyingWorld(_World):
    """Its process is killed, as by the kernel when memory is short."""

    def go_wrong(self, observation: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        print("I go", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        raise NotImplementedError
