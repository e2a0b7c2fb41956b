"""Pieces the built-in networks share: raw frames in, one head for every action space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import PolicyConfigError
from rtcore.spaces import ActionSpec

_MAX_CHANNELS_LAST = 4


class ImageInput(nn.Module):
    """uint8 frames (B, H, W), (B, H, W, C <= 4) or (B, C, H, W) to float32 (B, C, H, W) in 0..1.

    Three axes are read as channels last if the last is at most 4 long, else as channels first. A stack of K frames,
    (B, K, ...), has K * C channels, oldest first.
    """

    def __init__(self, policy: str, space: spaces.Space[Any]) -> None:
        super().__init__()
        shape = space.shape or ()
        if space.dtype != "uint8" or len(shape) not in (2, 3, 4):
            raise _not_an_image(policy, space)
        self.channels_last = len(shape) > 2 and shape[-1] <= _MAX_CHANNELS_LAST
        # A stack of frames has one axis more in front; one of (H, W) looks like channels first, and is treated as that.
        num_frames = shape[0] if len(shape) == 4 else 1
        image = shape[-3:] if len(shape) > 2 else (1, *shape)
        if self.channels_last:
            image = (image[2], image[0], image[1])
        channels, height, width = image
        self.shape: tuple[int, ...] = (num_frames * channels, height, width)
        if channels > min(height, width):
            raise _not_an_image(policy, space)

    @property
    def num_channels(self) -> int:
        return int(self.shape[0])

    def forward(self, frames: Tensor) -> Tensor:
        images = frames.to(torch.float32) * (1 / 255)
        if frames.ndim == 3:
            return images.unsqueeze(1)
        if self.channels_last:
            images = images.movedim(-1, -3)
        return images.flatten(1, 2) if frames.ndim == 5 else images


def strided(
    policy: str, space: spaces.Space[Any], convolutions: Sequence[tuple[int, int, int]], *, deep: bool = False
) -> tuple[list[nn.Module], int]:
    """Layers from raw frames to flat features, and how many features there are.

    `convolutions`: (filters, kernel, stride) of each, unpadded, a ReLU behind each. `deep`: each is followed by a
    padded 3x3 one of the same width. PolicyConfigError unless the observations are uint8 images that are large enough.
    """
    images = ImageInput(policy, space)
    num_channels, height, width = images.shape
    least = 1
    for _, kernel, stride in reversed(convolutions):
        least = (least - 1) * stride + kernel
    if min(height, width) < least:
        raise PolicyConfigError(
            f"policy {policy!r} got images of {height}x{width}; expected at least {least}x{least}, as its strides "
            f"need. Use 'impala', or enlarge them with gymnasium.wrappers.ResizeObservation"
        )
    layers: list[nn.Module] = [images]
    for num_filters, kernel, stride in convolutions:
        layers += [nn.Conv2d(num_channels, num_filters, kernel, stride), nn.ReLU()]
        if deep:
            layers += [nn.Conv2d(num_filters, num_filters, 3, padding=1), nn.ReLU()]
        num_channels = num_filters
        height, width = ((length - kernel) // stride + 1 for length in (height, width))
    return [*layers, nn.Flatten()], num_channels * height * width


class ActionHead(nn.Linear):
    """Features (B, num_features) to (B, ...) as `ActionSpec.policy_output_shape` says."""

    def __init__(self, num_features: int, space: spaces.Space[Any], chunk: int) -> None:
        shape = ActionSpec.from_space(space).policy_output_shape(chunk)
        super().__init__(num_features, math.prod(shape))
        self.output_shape = shape[1:]

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features).reshape(-1, *self.output_shape)


class PastActions(nn.Module):
    """Past actions (B, m, *action_shape) to float32 features (B, `num_features`).

    One-hot for Discrete and MultiDiscrete; 0 or 1 for MultiBinary; for a Box scaled to -1..1 where it is bounded on
    both sides, as it is elsewhere. Has no parameter and nothing in the state_dict.
    """

    offset: Tensor
    scale: Tensor
    choices: Tensor
    columns: Tensor

    def __init__(self, space: spaces.Space[Any], act_history: int) -> None:
        super().__init__()
        spec = ActionSpec.from_space(space)
        self._one_hot = bool(spec.num_choices)
        if self._one_hot:
            lows = spec.low_array.ravel().tolist()
            pairs = [
                (column, low + choice)
                for column, (low, count) in enumerate(zip(lows, spec.num_choices, strict=True))
                for choice in range(count)
            ]
            self._keep("columns", torch.tensor([column for column, _ in pairs]))
            self._keep("choices", torch.tensor([choice for _, choice in pairs]))
            self.num_features = act_history * len(pairs)
            return
        # By numpy: a worker that builds the network on torch's meta device would compute it with 800 modules more.
        low, high = (bound.astype(np.float64).ravel() for bound in (spec.low_array, spec.high_array))
        bounded = np.isfinite(low) & np.isfinite(high) & (high > low) & (spec.kind == "box")
        low, high = np.where(bounded, low, -1.0), np.where(bounded, high, 1.0)
        offset, scale = (high / 2 + low / 2).astype(np.float32), (1 / (high / 2 - low / 2)).astype(np.float32)
        self._keep("offset", torch.from_numpy(offset))
        self._keep("scale", torch.from_numpy(scale))
        self.num_features = act_history * spec.num_elements

    def _keep(self, name: str, values: Tensor) -> None:
        self.register_buffer(name, values, persistent=False)

    def forward(self, actions: Tensor) -> Tensor:
        flat = actions.reshape(actions.shape[0], actions.shape[1], -1)
        if self._one_hot:
            return (flat[:, :, self.columns] == self.choices).to(torch.float32).flatten(1)
        return ((flat.to(torch.float32) - self.offset) * self.scale).flatten(1)


class WithPastActions(nn.Module):
    """`features` of the observation and the past actions side by side, then `dense`."""

    def __init__(self, features: nn.Module, past: PastActions, dense: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.past = past
        self.dense = dense

    def forward(self, observations: Tensor | dict[str, Tensor], past_actions: Tensor) -> Tensor:
        both = torch.cat([self.features(observations), self.past(past_actions)], dim=1)
        return self.dense(both)  # type: ignore[no-any-return]


def assemble(
    features: Sequence[nn.Module],
    num_features: int,
    dense: Sequence[int],
    activation: type[nn.Module],
    action_space: spaces.Space[Any],
    *,
    chunk: int,
    act_history: int,
) -> nn.Module:
    """`features` (the last gives (B, num_features)), dense layers of these widths, and the head for the action space.

    With an `act_history` m the module takes (observations, past_actions (B, m, *action_shape)); the actions enter
    before the first dense layer.
    """
    past = PastActions(action_space, act_history) if act_history else None
    num_inputs = num_features + (past.num_features if past is not None else 0)
    layers: list[nn.Module] = []
    for num_units in dense:
        layers += [nn.Linear(num_inputs, num_units), activation()]
        num_inputs = num_units
    layers.append(ActionHead(num_inputs, action_space, chunk))
    if past is None:
        return nn.Sequential(*features, *layers)
    return WithPastActions(nn.Sequential(*features), past, nn.Sequential(*layers))


def _not_an_image(policy: str, space: spaces.Space[Any]) -> PolicyConfigError:
    is_dict = isinstance(space, spaces.Dict)
    return PolicyConfigError(
        f"policy {policy!r} got observations {space}; expected uint8 images (H, W), (H, W, C) with C <= 4, or (C, H, W)"
        f"{', and nothing beside them' if is_dict else ''}. Use 'mlp' for vectors{' and Dicts' if is_dict else ''}, "
        f"'random' or 'synthetic' for anything, or your module:factory"
    )
