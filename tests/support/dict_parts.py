"""A policy for the Dict world of the unit tests (tests/support/dict_worlds.py), which looks at all that it is given."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from tests.support.dict_worlds import PARTS, differences


class Checking(nn.Module):
    """The newest count that is shown, and its negative. Raises for a part that is not of its frame's count."""

    def __init__(self, obs_history: int) -> None:
        super().__init__()
        self._lead = (1, obs_history + 1) if obs_history else (1,)

    def forward(self, parts: dict[str, Tensor], past_actions: Tensor | None = None) -> Tensor:
        found = differences({name: part.cpu().numpy() for name, part in parts.items()}, self._lead)
        if found:
            raise AssertionError(f"not as the world made it: {found}")
        counts = parts["inner/count"][..., 0].reshape(-1)
        steps = counts[1:] - counts[:-1]
        # Older frames: one step each, or the first frame of the episode again.
        if ((steps < 0) | (steps > 1)).any():
            raise AssertionError(f"the frames show the counts {counts.tolist()}")
        return torch.stack([counts[-1:], -counts[-1:]], dim=1).to(torch.float32)


def checking(observation_space: Any, _action_space: Any, obs_history: int = 0) -> nn.Module:
    lead = (obs_history + 1,) if obs_history else ()
    got = {name: (box.shape, box.dtype.name) for name, box in observation_space.spaces.items()}
    expected = {name: ((*lead, *shape), dtype) for name, (shape, dtype) in PARTS.items()}
    if not isinstance(observation_space, spaces.Dict) or got != expected:
        raise AssertionError(f"the factory got {observation_space}")
    return Checking(obs_history)
