"""A network whose action says which weights it was computed with."""

from __future__ import annotations

import time
from typing import Any

import torch
from torch import Tensor, nn


class Constant(nn.Module):
    """All its weights are one number; the action is the smallest and the largest that it met, reading them twice.

    `pause_ms`: between the two, so that an inference outlasts several versions.
    """

    def __init__(self, num_parameters: int, pause_ms: float) -> None:
        super().__init__()
        self._pause_s = pause_ms / 1000
        sizes = [num_parameters // 4] * 4
        self.weights = nn.ParameterList(nn.Parameter(torch.ones(size)) for size in sizes)
        self.register_buffer("same", torch.ones(1))

    def forward(self, observation: Tensor) -> Tensor:
        met = [each.aminmax() for each in self.weights]
        if self._pause_s:
            time.sleep(self._pause_s)
        met += [each.aminmax() for each in self.weights]
        low = torch.stack([pair.min for pair in met]).min()
        high = torch.stack([pair.max for pair in met]).max()
        return torch.stack([low, high]).expand(len(observation), 2)


def constant(
    observation_space: Any, action_space: Any, num_parameters: int = 1 << 18, pause_ms: float = 0
) -> nn.Module:
    del observation_space, action_space
    return Constant(num_parameters, pause_ms)
