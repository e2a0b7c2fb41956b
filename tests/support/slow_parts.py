"""A world that is slow to reset and says when it is closed, and a policy that breaks after a while."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch


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


class BreaksLater(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 60:
            raise RuntimeError("this policy has had enough")
        return torch.zeros(len(observation), 2)


def breaks_later(observation_space: Any, action_space: Any) -> torch.nn.Module:
    return BreaksLater()


class SlowToLearn(torch.nn.Module):
    """An inference takes no time, each batch of an update half a second."""

    def __init__(self, num_inputs: int, num_actions: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(num_inputs, num_actions)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        if len(observation) > 1:
            time.sleep(0.5)
        values: torch.Tensor = self.layer(observation.float().flatten(1))
        return values


def slow_to_learn(observation_space: Any, action_space: Any) -> torch.nn.Module:
    return SlowToLearn(observation_space.shape[0], action_space.n)
