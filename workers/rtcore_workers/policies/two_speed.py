"""A policy with two speeds, for images and vectors: a large trunk thinks, and a small head acts at every tick."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore_workers.policies.base import positive_int
from rtcore_workers.policies.impala import trunk_of
from rtcore_workers.policies.layers import ActionHead, PastActions, strided
from rtcore_workers.policies.mlp import VectorInput

#: Convolutions of the head, for images: (filters, kernel, stride).
_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2))
#: Units of the trunk's two layers, for vectors, in units of `k`.
_VECTOR_UNITS = 64
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
    """A trunk of width `k` with `features` outputs, and a head with `hidden` units that looks at the newest frame.

    Images: the trunk is IMPALA's, the head begins with two convolutions. Vectors (any Box but one of uint8 images): the
    trunk has two dense layers of 64k units, the head takes the observation as it is.

    PolicyConfigError for a Dict, and for images that are smaller than 20x20.
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
        is_vector = _is_vector(observation_space)
        layers, num_outputs = (_dense_trunk if is_vector else trunk_of)("two-speed", observation_space, k)
        self.trunk = nn.Sequential(*layers, nn.Linear(num_outputs, num_features), nn.ReLU())
        self.base = ActionHead(num_features, action_space, chunk)
        if is_vector:
            glance: list[nn.Module] = [VectorInput()]
            num_seen = math.prod(observation_space.shape or ())
        else:
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


def _dense_trunk(policy: str, observation_space: spaces.Space[Any], k: int) -> tuple[list[nn.Module], int]:
    """As `trunk_of`, for vectors."""
    num_units = _VECTOR_UNITS * positive_int(policy, "k", k)
    first = nn.Linear(math.prod(observation_space.shape or ()), num_units)
    return [VectorInput(), first, nn.ReLU(), nn.Linear(num_units, num_units), nn.ReLU()], num_units


def _is_vector(space: spaces.Space[Any]) -> bool:
    """Whether the observations are numbers without a picture's order."""
    return isinstance(space, spaces.Box) and (space.dtype != "uint8" or len(space.shape) < 2)
