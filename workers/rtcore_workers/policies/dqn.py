"""The small CNN of "Playing Atari with Deep Reinforcement Learning" (Mnih et al., 2013), for images."""

from __future__ import annotations

from typing import Any

from gymnasium import spaces
from torch import nn

from rtcore_workers.policies.layers import assemble, strided

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

    PolicyConfigError unless the observations are uint8 images of at least 20x20.
    """
    layers, num_features = strided("dqn", observation_space, _CONVOLUTIONS)
    return assemble(layers, num_features, [256], nn.ReLU, action_space, chunk=chunk, act_history=act_history)
