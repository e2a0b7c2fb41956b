"""A policy that says what it was told: `benchmarks.gpu_proof` compares that with the recording."""

from __future__ import annotations

from math import prod
from typing import Any, ClassVar

import torch
from gymnasium import spaces
from torch import Tensor, nn


class Carries(nn.Module):
    """Takes a context and a state and gives back what it saw of them: the recording says whether they came through.

    Nothing in it makes the host wait for the device, so that it can be captured into a CUDA graph.
    """

    policy_extras: ClassVar = {
        "tick": ((), "int64"),
        "delay": ((), "int64"),
        "known": ((), "int64"),
        "count": ((), "float32"),
    }

    def __init__(self, observation_space: spaces.Box, action_space: spaces.Discrete) -> None:
        super().__init__()
        self.values = nn.Linear(prod(observation_space.shape), int(action_space.n))

    def initial_state(self) -> Tensor:
        return torch.zeros(1, 1)

    def forward(self, observation: Tensor, *, context: Any, state: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        count, known = state + 1, (context.committed_mask == 0).logical_not().sum(dim=1)
        values = self.values(observation.float().flatten(1))
        extras = {"tick": context.tick, "delay": context.delay_ticks, "known": known, "count": count[:, 0]}
        return values, count, extras
