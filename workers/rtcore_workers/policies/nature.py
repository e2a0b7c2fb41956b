"""The CNN of "Human-level control through deep reinforcement learning" (Nature, 2015), for images."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import nn

from rtcore.errors import PolicyError
from rtcore_workers.policies.layers import ImageInput, assemble

#: (filters, kernel, stride) of the three convolutions.
_CONVOLUTIONS = ((32, 8, 4), (64, 4, 2), (64, 3, 1))


def nature(
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    *,
    deep: bool = False,
    chunk: int = 1,
    act_history: int = 0,
) -> nn.Module:
    """Convolutions 32x8x8/4, 64x4x4/2, 64x3x3/1, dense 512, one output per action value.

    `deep=True` follows each convolution by a 3x3 one of the same width: twice as many, our reading of the
    paper's deep variant. PolicyError unless the observations are uint8 images of at least 36x36.
    """
    if not isinstance(deep, bool):
        raise PolicyError(f"policy 'nature' got deep={deep!r}; expected true or false")
    images = ImageInput("nature", observation_space)
    num_channels, height, width = images.shape
    if min(height, width) < 36:
        raise PolicyError(
            f"policy 'nature' got images of {height}x{width}; expected at least 36x36, as its strides need. "
            f"Use 'impala', or enlarge them with gymnasium.wrappers.ResizeObservation"
        )
    layers: list[nn.Module] = [images]
    for num_filters, kernel, stride in _CONVOLUTIONS:
        layers += [nn.Conv2d(num_channels, num_filters, kernel, stride), nn.ReLU()]
        if deep:
            layers += [nn.Conv2d(num_filters, num_filters, 3, padding=1), nn.ReLU()]
        num_channels = num_filters
        height, width = ((length - kernel) // stride + 1 for length in (height, width))
    num_features = num_channels * height * width
    layers.append(nn.Flatten())
    return assemble(layers, num_features, [512], nn.ReLU, action_space, chunk=chunk, act_history=act_history)
