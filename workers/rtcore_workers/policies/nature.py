"""The CNN of "Human-level control through deep reinforcement learning" (Nature, 2015), for images."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import nn

from rtcore.errors import PolicyConfigError
from rtcore_workers.policies.layers import assemble, strided

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
    paper's deep variant. PolicyConfigError unless the observations are uint8 images of at least 36x36.
    """
    if not isinstance(deep, bool):
        raise PolicyConfigError(f"policy 'nature' got deep={deep!r}; expected true or false")
    layers, num_features = strided("nature", observation_space, _CONVOLUTIONS, deep=deep)
    return assemble(layers, num_features, [512], nn.ReLU, action_space, chunk=chunk, act_history=act_history)
