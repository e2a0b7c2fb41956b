"""A network for any world of the trainer's."""

from __future__ import annotations

from typing import Any

from torch import nn


def make_net(observation_space: Any, action_space: Any) -> nn.Module:
    return nn.Linear(observation_space.shape[0], int(action_space.n))
