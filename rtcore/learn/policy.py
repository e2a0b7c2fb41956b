"""The network that fits a world's observations, for a run that names no policy."""

from __future__ import annotations

from rtcore.config.groups import POLICY_SERVER
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.spaces import ObservationSpec

#: The setting for a network that fits the world's observations.
AUTO = "auto"
#: Policies without a network: their runs need no torch.
WITHOUT_NETWORK = ("random", "synthetic")
_LARGEST_IMAGE_CHANNELS = 4


def has_network(policy: str) -> bool:
    """Whether whoever plays this policy computes with a network, and so needs torch."""
    return policy not in WITHOUT_NETWORK and not policy.startswith(POLICY_SERVER)


def fitting_policy(config: RuntimeConfig, observation: ObservationSpec) -> RuntimeConfig:
    """The config with a policy in the place of "auto": impala for images, mlp for vectors and Dicts of them.

    Raises:
        ConfigError: observations that no built-in network is made for.
    """
    if config.agent.policy != AUTO:
        return config
    if _is_image(observation):
        return config.replace(policy="impala")
    shapes = [part.shape for part in observation.parts] or [observation.shape]
    if all(len(shape) <= 1 for shape in shapes):
        return config.replace(policy="mlp")
    raise ConfigError(
        f"policy is auto, and no built-in network is made for observations {observation.to_space()}; expected uint8 "
        "images (H, W), (H, W, C) with C <= 4 or (C, H, W), vectors or Dicts of them. Give --policy module:factory; "
        "mlp, which flattens anything and scales nothing; or random, to see the world run"
    )


def _is_image(observation: ObservationSpec) -> bool:
    """Whether the built-in networks for images take it. Three axes: channels last if the last axis is short."""
    shape = observation.shape
    if observation.parts or observation.dtype != "uint8" or len(shape) not in (2, 3):
        return False
    if len(shape) == 2:
        return True
    last = shape[-1] <= _LARGEST_IMAGE_CHANNELS
    channels, *sides = (shape[2], shape[0], shape[1]) if last else shape
    return channels <= min(sides)
