"""Policies that see older frames and past actions: what the networks are given, and modules that do not take it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import PolicyError
from rtcore.memory.history import History
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy
from rtcore_workers.policies.dqn import dqn
from rtcore_workers.policies.layers import ImageInput, PastActions

pytestmark = pytest.mark.unit

SMALL = spaces.Box(0, 255, (36, 40), np.uint8)
BUTTONS = spaces.Discrete(7)
ACTION_SPACES = [
    spaces.Discrete(3, start=4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-1, 1, (2, 2), np.float32),
]


def load(name: str, history: History, observation: Any = SMALL, action: Any = BUTTONS, **kwargs: Any) -> Any:
    specs = ObservationSpec.from_space(observation), ActionSpec.from_space(action)
    return load_policy(name, {}, *specs, history=history, **{"seed": 5, "worker_index": 0, "device": "cpu", **kwargs})


def own(factory: str) -> str:
    return f"{__name__}:{factory}"


class Total(nn.Module):
    """Puts the sum over both arguments into every action value but the first."""

    def forward(self, frames: Tensor, past_actions: Tensor) -> Tensor:
        total = frames.double().flatten(1).sum(1) + 1000 * past_actions.double().flatten(1).sum(1)
        return torch.stack([torch.zeros_like(total), total], dim=1)


def total_of_both(observation: Any, action: Any) -> nn.Module:
    assert observation.shape == (3, 36, 40)
    return Total()


def told_how_many(observation: Any, action: Any, act_history: int = 0) -> nn.Module:
    assert act_history == 2
    return Total()


def one_argument(observation: Any, action: Any) -> nn.Module:
    return nn.Sequential(nn.Flatten(1), nn.Linear(36 * 40, 2))


@pytest.mark.parametrize("name", ["impala", "nature", "mlp", "dqn"])
@pytest.mark.parametrize("history", [History(3, 0), History(0, 2), History(1, 3)])
@pytest.mark.parametrize("action", ACTION_SPACES, ids=lambda space: type(space).__name__)
def test_built_in_networks_act_on_histories_in_every_action_space(name: str, history: History, action: Any):
    policy = load(name, history, action=action)
    spec = ActionSpec.from_space(action)
    assert policy.observation.shape == ((history.obs_history + 1, 36, 40) if history.obs_history else (36, 40))
    assert (policy.past_actions is None) == (history.act_history == 0)
    out = np.full((1, *spec.shape), 99, spec.np_dtype)
    policy.observation[...] = 200
    policy.act(frame_seq=0, out=out)
    assert ((out >= spec.low_array) & (out <= spec.high_array)).all()


@pytest.mark.parametrize("name", ["impala", "nature", "mlp", "dqn"])
def test_every_frame_and_every_past_action_counts(name: str):
    policy = load(name, History(2, 2))
    rng = np.random.default_rng(0)
    policy.observation[...] = rng.integers(0, 256, policy.observation.shape)
    policy.past_actions[...] = [1, 2]
    before = policy.executor.run().copy()
    for place in range(3):
        kept = policy.observation[place].copy()
        policy.observation[place] = 255 - kept
        assert not np.allclose(policy.executor.run(), before, rtol=1e-6), f"frame {place}"
        policy.observation[place] = kept
    for place in range(2):
        kept = policy.past_actions[place].copy()
        policy.past_actions[place] = 6
        assert not np.allclose(policy.executor.run(), before, rtol=1e-6), f"action {place}"
        policy.past_actions[place] = kept
    assert (policy.executor.run() == before).all()


@pytest.mark.parametrize("factory", ["total_of_both", "told_how_many"])
def test_a_module_of_ones_own_gets_stacked_frames_and_past_actions_as_two_arguments(factory: str):
    policy = load(own(factory), History(2, 2), action=spaces.Discrete(2))
    policy.observation[0, 0, 0] = 5
    policy.past_actions[...] = [1, 0]
    assert policy.executor.run().tolist() == [[0.0, 1005.0]]


@pytest.mark.parametrize("action", [BUTTONS, spaces.Box(-1, 1, (3,), np.float32)], ids=["discrete", "box"])
def test_a_module_that_takes_one_argument_is_refused_with_the_shape_of_the_second(action: Any):
    shape = r"\(1, 4\)" if action is BUTTONS else r"\(1, 4, 3\)"
    match = rf"(?s)TypeError.*as a second argument, the past actions as a \w+ tensor of shape {shape} \(act_history=4\)"
    with pytest.raises(PolicyError, match=match):
        load(own("one_argument"), History(0, 4), action=action)


@pytest.mark.parametrize("name", ["random", "synthetic"])
def test_policies_without_a_network_can_be_staged_with_histories_too(name: str):
    args = {"latency_ms": 0} if name == "synthetic" else {}
    specs = ObservationSpec.from_space(SMALL), ActionSpec.from_space(BUTTONS)
    history = History(2, 3)
    policy = load_policy(name, args, *specs, seed=1, worker_index=0, device="cpu", history=history)
    assert policy.observation.shape == (3, 36, 40)
    assert policy.past_actions is not None
    assert policy.past_actions.shape == (3,)


def test_the_network_of_mnih_2013_has_its_known_size_and_the_past_actions_add_one_column_each():
    frames = spaces.Box(0, 255, (4, 84, 84), np.uint8)
    with torch.device("meta"):
        plain = dqn(frames, BUTTONS)
    counted = sum(parameter.numel() for parameter in plain.parameters())
    assert counted == 677_943
    assert counted + 256 * 3 * 7 == sum(p.numel() for p in dqn(frames, BUTTONS, act_history=3).parameters())


def test_a_network_without_past_actions_keeps_the_names_of_its_weights():
    names = list(load("impala", History()).module.state_dict())
    assert names[0] == "1.conv.weight"
    assert names[-1] == "9.bias"


@pytest.mark.parametrize("shape", [(2, 36, 40, 3), (2, 3, 36, 40), (2, 36, 40)])
def test_stacked_images_become_channels_oldest_first(shape: tuple[int, ...]):
    images = ImageInput("dqn", spaces.Box(0, 255, shape, np.uint8))
    frames = torch.zeros((1, *shape), dtype=torch.uint8)
    frames[:, 1] = 255
    channels = images(frames)
    assert channels.shape == (1, images.num_channels, 36, 40)
    newest = images.num_channels // 2
    assert channels[:, :newest].sum() == 0
    assert (channels[:, newest:] == 1).all()


def test_past_actions_are_one_hot_or_scaled_to_one_and_leave_nothing_in_the_state_dict():
    discrete = PastActions(spaces.Discrete(3, start=4), 2)
    assert discrete(torch.tensor([[4, 6]])).tolist() == [[1, 0, 0, 0, 0, 1]]
    multi = PastActions(spaces.MultiDiscrete([2, 3]), 1)
    assert multi(torch.tensor([[[1, 2]]])).tolist() == [[0, 1, 0, 0, 1]]
    binary = PastActions(spaces.MultiBinary(3), 1)
    assert binary(torch.tensor([[[1, 0, 1]]], dtype=torch.int8)).tolist() == [[1, 0, 1]]
    low, high = np.array([0.0, -np.inf], np.float32), np.array([10.0, np.inf], np.float32)
    box = PastActions(spaces.Box(low, high), 1)
    assert box(torch.tensor([[[10.0, 3.0]]])).tolist() == [[1.0, 3.0]]
    assert [module.num_features for module in (discrete, multi, binary, box)] == [6, 5, 3, 2]
    assert not any(module.state_dict() for module in (discrete, multi, binary, box))
