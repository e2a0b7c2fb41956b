"""A policy whose action is a number made of everything it was given: what it saw can be told."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_STEPS = 1 << 20


class Hash(nn.Module):
    """A multiple of 2**-20 in 0..1 that depends on each number of both inputs and on its place; and its negative."""

    def forward(self, frames: Tensor, past_actions: Tensor | None = None) -> Tensor:
        numbers = frames.to(torch.int64).flatten(1)
        if past_actions is not None:
            steps = (past_actions.double() * _STEPS).round().to(torch.int64).flatten(1)
            numbers = torch.cat([numbers, steps], dim=1)
        weights = torch.arange(1, numbers.shape[1] + 1, dtype=torch.int64) * 2_654_435_761 % 65_521
        value = ((numbers * weights).sum(1) % _STEPS).to(torch.float64) / _STEPS
        return torch.stack([value, -value], dim=1)


def hash_of_input(_observation: Any, _action: Any) -> nn.Module:
    return Hash()
