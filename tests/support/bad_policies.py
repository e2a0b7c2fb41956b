"""Policies that misbehave, each in one way, for runs under test: `tests.support.bad_policies:name`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

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


class BreaksLater(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 60:
            raise RuntimeError("this policy has had enough")
        return torch.zeros(len(observation), 2)


def breaks_later(observation_space: Any, action_space: Any) -> nn.Module:
    return BreaksLater()


class SlowToLearn(nn.Module):
    """An inference takes no time, each batch of an update half a second."""

    def __init__(self, num_inputs: int, num_actions: int) -> None:
        super().__init__()
        self.layer = nn.Linear(num_inputs, num_actions)

    def forward(self, observation: torch.Tensor) -> torch.Tensor:
        if len(observation) > 1:
            time.sleep(0.5)
        values: torch.Tensor = self.layer(observation.float().flatten(1))
        return values


def slow_to_learn(observation_space: Any, action_space: Any) -> nn.Module:
    return SlowToLearn(observation_space.shape[0], action_space.n)
