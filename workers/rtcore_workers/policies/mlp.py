"""A small dense network for vector observations (CartPole, MuJoCo), and for Dicts of them."""

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

    The parts of a Dict are treated so one by one and put side by side, in the order of the space.

    PolicyConfigError unless both are integers of 1 or more.
    """
    num_units = positive_int("mlp", "hidden", hidden)
    boxes = observation_space.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    num_features = sum(math.prod(box.shape or ()) for box in boxes)
    widths = [num_units] * positive_int("mlp", "layers", layers)
    return assemble([VectorInput()], num_features, widths, nn.Tanh, action_space, chunk=chunk, act_history=act_history)


class VectorInput(nn.Module):
    """Any numbers (B, ...), or a dict of such, to float32 (B, num_features). Not scaled."""

    def forward(self, observations: Tensor | dict[str, Tensor]) -> Tensor:
        if isinstance(observations, dict):
            return torch.cat([self.forward(part) for part in observations.values()], dim=1)
        return observations.to(torch.float32).reshape(observations.shape[0], -1)
