"""The network for screens made of tiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces

from rtcore.errors import PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy
from rtcore_workers.policies.tiles import DuelingHead, TileMeans, tiles

pytestmark = pytest.mark.unit
SEVEN = spaces.Discrete(7)


def test_a_tile_is_the_mean_of_its_dots():
    image = torch.rand(2, 1, 144, 160)
    means = 1 - image.reshape(2, 1, 18, 8, 20, 8).mean((3, 5))
    torch.testing.assert_close(TileMeans((144, 160), (18, 20))(image), means)


def test_a_dot_on_an_edge_counts_to_both_sides():
    row = torch.tensor([[[[0.0, 1.0, 0.0]]]])
    torch.testing.assert_close(TileMeans((1, 3), (1, 2))(row), 1 - torch.tensor([[[[1 / 3, 1 / 3]]]]))


def test_the_mean_of_dueling_values_is_the_value_of_the_state():
    head = DuelingHead(5, SEVEN)
    features = torch.rand(3, 5)
    torch.testing.assert_close(head(features).mean(1, keepdim=True), head.value(features))


@pytest.mark.parametrize(("stack", "m", "expected"), [((), 0, 160_264), ((3,), 0, 344_584), ((), 4, 167_432)])
def test_the_network_takes_stacks_and_past_actions(stack, m, expected):
    module = tiles(spaces.Box(0, 255, (*stack, 84, 84), np.uint8), SEVEN, act_history=m)
    frames = torch.randint(0, 256, (2, *stack, 84, 84), dtype=torch.uint8)
    past = [torch.zeros((2, m), dtype=torch.int64)] if m else []
    assert module(frames, *past).shape == (2, 7)
    assert sum(parameter.numel() for parameter in module.parameters()) == expected


def test_it_is_there_by_name_and_refuses_what_is_not_discrete():
    observation = ObservationSpec.from_space(spaces.Box(0, 255, (84, 84), np.uint8))
    policy = load_policy("tiles", {}, observation, ActionSpec.from_space(SEVEN), seed=0, worker_index=0, device="cpu")
    assert policy.info.describe().startswith("tiles")
    with pytest.raises(PolicyError, match="expected Discrete"):
        tiles(spaces.Box(0, 255, (84, 84), np.uint8), spaces.Box(-1, 1, (2,)))
    with pytest.raises(PolicyError, match="fewer rows"):
        tiles(spaces.Box(0, 255, (10, 10), np.uint8), SEVEN)
