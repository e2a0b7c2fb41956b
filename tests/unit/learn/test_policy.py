"""The policy of a run that names none follows the world's observations."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Space

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.learn.policy import fitting_policy
from rtcore.spaces import ObservationSpec
from rtcore.virtual.simulate import Simulation
from rtcore_workers.policies.layers import ImageInput

pytestmark = pytest.mark.unit


def image(*shape: int) -> Box:
    return Box(0, 255, shape, np.uint8)


def vector(*shape: int) -> Box:
    return Box(-1, 1, shape, np.float32)


def chosen(space: Space) -> str:
    return fitting_policy(RuntimeConfig(), ObservationSpec.from_space(space)).agent.policy


@pytest.mark.parametrize("space", (image(84, 84), image(96, 96, 3), image(4, 84, 84), image(64, 64, 1)))
def test_images_get_a_network_that_takes_them(space: Box) -> None:
    assert chosen(space) == "impala"
    ImageInput("impala", space)


@pytest.mark.parametrize("space", (vector(4), image(128), vector(), Dict(joints=vector(7), goal=vector(3))))
def test_vectors_and_dicts_of_them_get_a_dense_one(space: Space) -> None:
    assert chosen(space) == "mlp"


@pytest.mark.parametrize(
    "space", (vector(84, 84), image(84, 2, 2, 3), image(9, 8, 8), Dict(camera=image(84, 84), joints=vector(7)))
)
def test_what_no_built_in_network_is_made_for_is_refused_with_what_to_give(space: Space) -> None:
    with pytest.raises(ConfigError, match="policy is auto, and no built-in network.*Give --policy module:factory"):
        chosen(space)


def test_a_policy_that_was_named_stays() -> None:
    config = RuntimeConfig(policy="random")
    assert fitting_policy(config, ObservationSpec.from_space(vector(84, 84))) is config


def test_a_world_of_vectors_plays_without_a_word_about_its_policy() -> None:
    simulation = Simulation(RuntimeConfig(env_id="CartPole-v1", ticks=20, clock="virtual", latency="constant:10"))
    try:
        simulation.run()
    finally:
        simulation.close()
    assert simulation.config.agent.policy == "mlp"
    assert simulation.stats().policy.startswith("mlp hidden=64 layers=2, ")
