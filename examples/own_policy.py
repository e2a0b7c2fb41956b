"""An own policy: a function that returns an `nn.Module`.

    cd examples
    rtcore-run --env-id own_world:make_world --policy own_policy:make_policy --policy-args gain=50 --duration 5

The module gets a batch of one raw observation, with the world's own shape and dtype (uint8 pixels are not scaled),
and returns one tensor: for Discrete(n) the n action values, of which the largest wins. `docs/policies.md` lists what
the other action spaces take. Each worker process calls the function itself, with the same seed: all workers hold the
same weights. rtcore puts the module in eval mode, on its device, and calls it under `torch.inference_mode()`.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import torch
from torch import Tensor, nn


class Steer(nn.Module):
    """A linear layer from (thing, agent) to the values of left, stay and right, set by hand to follow it."""

    def __init__(self, num_features: int, num_actions: int, gain: float) -> None:
        super().__init__()
        self.values = nn.Linear(num_features, num_actions)
        with torch.no_grad():
            # left: agent - thing, stay: a small constant (a dead zone), right: thing - agent
            self.values.weight.copy_(gain * torch.tensor([[-1.0, 1.0], [0.0, 0.0], [1.0, -1.0]]))
            self.values.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))

    def forward(self, observations: Tensor) -> Tensor:
        action_values: Tensor = self.values(observations.to(torch.float32))
        return action_values


def make_policy(
    observation_space: gymnasium.spaces.Box, action_space: gymnasium.spaces.Discrete, *, gain: float = 25.0, **_: Any
) -> nn.Module:
    """Called as make_policy(observation_space, action_space, **policy_args)."""
    return Steer(observation_space.shape[0], int(action_space.n), gain)
