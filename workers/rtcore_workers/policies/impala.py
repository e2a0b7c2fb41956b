"""The paper's residual CNN of width k (IMPALA style), for images. Paper: "Experiments".

For 84x84x1 frames and 7 actions: k=1 0.90M parameters, k=7 10.4M, k=29 104.7M, k=98 1.0B.
"""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn
from torch.nn import functional

from rtcore_workers.policies.base import positive_int
from rtcore_workers.policies.layers import ImageInput, assemble


def impala(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    k: int = 1,
    chunk: int = 1,
    act_history: int = 0,
) -> nn.Module:
    """Three stacks of 16k, 32k and 32k filters, pooled to 7x7, dense 512, one output per action value.

    PolicyConfigError unless the observations are uint8 images and k is an integer of 1 or more. The convolution
    weights are channels last in memory: make them contiguous before saving them flat.
    """
    layers, num_outputs = trunk_of("impala", observation_space, k)
    network = assemble(layers, num_outputs, [512], nn.ReLU, action_space, chunk=chunk, act_history=act_history)
    # Channels last saves a third of the inference time on a CPU. The values are the same.
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def trunk_of(policy: str, observation_space: spaces.Space[Any], k: int) -> tuple[list[nn.Module], int]:
    """The layers from raw frames to flat outputs, and how many outputs there are. Raises as `impala`."""
    width = positive_int(policy, "k", k)
    images = ImageInput(policy, observation_space)
    stacks = []
    num_channels = images.num_channels
    for num_filters in (16 * width, 32 * width, 32 * width):
        stacks.append(ConvStack(num_channels, num_filters))
        num_channels = num_filters
    return [images, *stacks, nn.AdaptiveMaxPool2d(7), nn.ReLU(), nn.Flatten()], num_channels * 7 * 7


class ConvStack(nn.Module):
    """3x3 convolution, max pool (3, stride 2), two residual blocks: halves height and width, rounding up."""

    def __init__(self, num_channels: int, num_filters: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(num_channels, num_filters, 3, padding=1)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        self.first = ResidualBlock(num_filters)
        self.second = ResidualBlock(num_filters)

    def forward(self, images: Tensor) -> Tensor:
        return self.second(self.first(self.pool(self.conv(images))))  # type: ignore[no-any-return]


class ResidualBlock(nn.Module):
    """The input plus two 3x3 convolutions of it, a ReLU before each."""

    def __init__(self, num_filters: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(num_filters, num_filters, 3, padding=1)
        self.second = nn.Conv2d(num_filters, num_filters, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.first(functional.relu(images))
        return images + self.second(functional.relu(hidden))  # type: ignore[no-any-return]
