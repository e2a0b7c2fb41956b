"""A small dense network for vector observations (CartPole, MuJoCo)."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore_workers.policies.base import positive_int
from rtcore_workers.policies.layers import assemble


def mlp(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    hidden: int = 64,
    layers: int = 2,
    chunk: int = 1,
    act_history: int = 0,
) -> nn.Module:
    """`layers` dense layers of `hidden` units with tanh between, for any Box, flattened and cast to float32.

    PolicyError unless both are integers of 1 or more.
    """
    num_units = positive_int("mlp", "hidden", hidden)
    num_features = math.prod(observation_space.shape or ())
    widths = [num_units] * positive_int("mlp", "layers", layers)
    return assemble([VectorInput()], num_features, widths, nn.Tanh, action_space, chunk=chunk, act_history=act_history)


class VectorInput(nn.Module):
    """Any numbers (B, ...) to float32 (B, num_features). Not scaled."""

    def forward(self, observations: Tensor) -> Tensor:
        return observations.to(torch.float32).reshape(observations.shape[0], -1)
