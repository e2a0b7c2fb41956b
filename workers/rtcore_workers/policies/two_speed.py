"""A policy with two speeds, for images: a large trunk that thinks, and a small head that acts at every tick."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore_workers.policies.base import positive_int
from rtcore_workers.policies.impala import trunk_of
from rtcore_workers.policies.layers import ActionHead, PastActions, strided

#: Convolutions of the head: (filters, kernel, stride).
_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2))
#: The age of features is counted in so many ticks.
_AGE_TICKS = 32.0


def two_speed(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    k: int = 1,
    features: int = 256,
    hidden: int = 256,
    chunk: int = 1,
) -> nn.Module:
    """An IMPALA trunk of width `k` with `features` outputs, and a head of two convolutions and `hidden` units.

    PolicyConfigError unless the observations are uint8 images of at least 20x20.
    """
    for name, value in (("features", features), ("hidden", hidden)):
        positive_int("two-speed", name, value)
    return TwoSpeed(observation_space, action_space, k=k, num_features=features, hidden=hidden, chunk=chunk)


class TwoSpeed(nn.Module):
    """`think`: the trunk's features, and a base action from them alone. `act`: what the newest frame makes of them."""

    def __init__(
        self,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        *,
        k: int,
        num_features: int,
        hidden: int,
        chunk: int,
    ) -> None:
        super().__init__()
        layers, num_outputs = trunk_of("two-speed", observation_space, k)
        self.trunk = nn.Sequential(*layers, nn.Linear(num_outputs, num_features), nn.ReLU())
        self.base = ActionHead(num_features, action_space, chunk)
        glance, num_seen = strided("two-speed", observation_space, _CONVOLUTIONS)
        self.glance = nn.Sequential(*glance)
        self.since = PastActions(action_space, 1)
        self.head = nn.Sequential(
            nn.Linear(num_seen + num_features + self.since.num_features + 1, hidden),
            nn.ReLU(),
            ActionHead(hidden, action_space, 1),
        )
        # Channels last saves a third of the inference time on a CPU. The values are the same.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def think(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Frames (B, ...) to features (B, num_features) and base actions."""
        features = self.trunk(frames)
        return features, self.base(features)

    def act(self, frames: Tensor, features: Tensor, age_ticks: Tensor, past_actions: Tensor) -> Tensor:
        """The action for the newest frames (B, ...), from features that are `age_ticks` (B,) old.

        `past_actions`, (B, C, *action_shape): those applied since; the first `age_ticks` of them count.
        """
        counts = torch.arange(past_actions.shape[1], device=age_ticks.device) < age_ticks.unsqueeze(1)
        each = self.since(past_actions.flatten(0, 1).unsqueeze(1)).unflatten(0, past_actions.shape[:2])
        done = (each * counts.unsqueeze(2)).sum(1) / _AGE_TICKS
        age = age_ticks.to(torch.float32).unsqueeze(1) / _AGE_TICKS
        return self.head(torch.cat([self.glance(frames), features, done, age], dim=1))  # type: ignore[no-any-return]
