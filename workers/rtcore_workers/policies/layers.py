"""Pieces the built-in networks share: raw frames in, one head for every action space."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import PolicyError
from rtcore.spaces import ActionSpec

_MAX_CHANNELS_LAST = 4


class ImageInput(nn.Module):
    """uint8 frames (B, H, W), (B, H, W, C <= 4) or (B, C, H, W) to float32 (B, C, H, W) in 0..1.

    Three axes are read as channels last if the last is at most 4 long, else as channels first.
    """

    def __init__(self, policy: str, space: spaces.Space[Any]) -> None:
        super().__init__()
        shape = space.shape or ()
        if space.dtype != "uint8" or len(shape) not in (2, 3):
            raise _not_an_image(policy, space)
        self.channels_last = len(shape) == 3 and shape[-1] <= _MAX_CHANNELS_LAST
        self.shape: tuple[int, ...]
        if len(shape) == 2:
            self.shape = (1, *shape)
        elif self.channels_last:
            self.shape = (shape[2], shape[0], shape[1])
        else:
            self.shape = shape
        channels, height, width = self.shape
        if channels > min(height, width):
            raise _not_an_image(policy, space)

    @property
    def num_channels(self) -> int:
        return int(self.shape[0])

    def forward(self, frames: Tensor) -> Tensor:
        images = frames.to(torch.float32) * (1 / 255)
        if frames.ndim == 3:
            return images.unsqueeze(1)
        return images.permute(0, 3, 1, 2) if self.channels_last else images


class ActionHead(nn.Linear):
    """Features (B, num_features) to (B, ...) as `ActionSpec.policy_output_shape` says."""

    def __init__(self, num_features: int, space: spaces.Space[Any], chunk: int) -> None:
        shape = ActionSpec.from_space(space).policy_output_shape(chunk)
        super().__init__(num_features, math.prod(shape))
        self.output_shape = shape[1:]

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).reshape(-1, *self.output_shape)


def _not_an_image(policy: str, space: spaces.Space[Any]) -> PolicyError:
    return PolicyError(
        f"policy {policy!r} got observations {space}; expected uint8 images (H, W), (H, W, C) with C <= 4, "
        f"or (C, H, W). Use 'mlp' for vectors, 'random' or 'synthetic' for anything, or your module:factory"
    )
