"""Worlds and policies that misbehave, each in one way. Runs under test load them: `tests.support.bad_parts:name`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import nn


class _Network(nn.Module):
    """Action values of CartPole; from call number `after` on it goes wrong."""

    def __init__(self, after: int = 0) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)
        self.calls = 0
        self.after = after

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        values: torch.Tensor = self.layer(observation)
        return self.go_wrong(values) if self.calls > self.after else values

    def go_wrong(self, values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class Raising(_Network):
    def go_wrong(self, values: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("the weights are made of cheese")


class NotANumber(_Network):
    def go_wrong(self, values: torch.Tensor) -> torch.Tensor:
        return values * float("nan")


class WrongShape(_Network):
    def go_wrong(self, values: torch.Tensor) -> torch.Tensor:
        return values[:, :1]


class Sleeping(_Network):
    def __init__(self, after: int, mark: str) -> None:
        super().__init__(after)
        self._mark = mark

    def go_wrong(self, values: torch.Tensor) -> torch.Tensor:
        if self._mark:
            Path(self._mark).touch()
        time.sleep(3600)
        return values


def raising(observation_space: Any, action_space: Any, after: int = 0) -> nn.Module:
    return Raising(after)


def not_a_number(observation_space: Any, action_space: Any, after: int = 0) -> nn.Module:
    return NotANumber(after)


def wrong_shape(observation_space: Any, action_space: Any, after: int = 0) -> nn.Module:
    return WrongShape(after)


def sleeping(observation_space: Any, action_space: Any, after: int = 0, then: int = -1, mark: str = "") -> nn.Module:
    """Sleeps for ever from call `after` on; once a process has, in every later one from call `then` on."""
    return Sleeping(then if mark and Path(mark).exists() else after, mark)


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
