"""The small CNN of "Playing Atari with Deep Reinforcement Learning" (Mnih et al., 2013), for images."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import nn

from rtcore.errors import PolicyError
from rtcore_workers.policies.layers import ImageInput, assemble

#: (filters, kernel, stride) of the two convolutions.
_CONVOLUTIONS = ((16, 8, 4), (32, 4, 2))


def dqn(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    chunk: int = 1,
    act_history: int = 0,
) -> nn.Module:
    """Convolutions 16x8x8/4, 32x4x4/2, dense 256, one output per action value: 0.68M parameters at 84x84.

    PolicyError unless the observations are uint8 images of at least 20x20.
    """
    images = ImageInput("dqn", observation_space)
    num_channels, height, width = images.shape
    if min(height, width) < 20:
        raise PolicyError(
            f"policy 'dqn' got images of {height}x{width}; expected at least 20x20, as its strides need. "
            f"Use 'impala', or enlarge them with gymnasium.wrappers.ResizeObservation"
        )
    layers: list[nn.Module] = [images]
    for num_filters, kernel, stride in _CONVOLUTIONS:
        layers += [nn.Conv2d(num_channels, num_filters, kernel, stride), nn.ReLU()]
        num_channels = num_filters
        height, width = ((length - kernel) // stride + 1 for length in (height, width))
    layers.append(nn.Flatten())
    num_features = num_channels * height * width
    return assemble(layers, num_features, [256], nn.ReLU, action_space, chunk=chunk, act_history=act_history)
