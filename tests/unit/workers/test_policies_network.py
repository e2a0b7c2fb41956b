"""Policies with a network: sizes, inputs, seeds, and factories that do it wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import ConfigError, PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy
from rtcore_workers.policies.impala import impala
from rtcore_workers.policies.nature import nature

pytestmark = pytest.mark.unit

SMALL = spaces.Box(0, 255, (36, 40), np.uint8)
BUTTONS = spaces.Discrete(7)
ACTION_SPACES = [
    spaces.Discrete(3, start=4),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-1, 1, (2, 2), np.float32),
]


def load(name: str, args: dict[str, Any], observation: Any = SMALL, action: Any = BUTTONS, **kwargs: Any) -> Any:
    specs = ObservationSpec.from_space(observation), ActionSpec.from_space(action)
    return load_policy(name, args, *specs, **{"seed": 5, "worker_index": 0, "device": "cpu", **kwargs})


def own(factory: str) -> str:
    return f"{__name__}:{factory}"


class Bias(nn.Module):
    """Always returns the same output."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output

    def forward(self, _: Tensor) -> Tensor:
        return self.output


def sum_of_pixels(_observation: Any, _action: Any) -> nn.Module:
    class SumOfPixels(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            assert frames.dtype == torch.uint8
            return frames.to(torch.int64).sum(dim=(1, 2))

    return SumOfPixels()


def fixed(_observation: Any, _action: Any, values: Any) -> nn.Module:
    return Bias(torch.tensor(values))


def in_bfloat16(_observation: Any, _action: Any) -> nn.Module:
    return Bias(torch.tensor([[0, 0, 1, 0, 0, 0, 0]], dtype=torch.bfloat16))


def linear_of_bytes(_observation: Any, _action: Any) -> nn.Module:
    return nn.Linear(40, 7)


def as_tuple(_observation: Any, _action: Any) -> nn.Module:
    class AsTuple(nn.Module):
        def forward(self, frames: Tensor) -> Any:
            return frames, frames

    return AsTuple()


def not_a_module(_observation: Any, _action: Any) -> Any:
    return 7


def broken(_observation: Any, _action: Any) -> nn.Module:
    raise ZeroDivisionError("inside the factory")


@pytest.mark.parametrize("k, num_parameters", [(1, 904_231), (7, 10_400_000), (29, 104_700_000), (98, 1_000_000_000)])
def test_impala_has_the_papers_parameter_counts(k: int, num_parameters: int):
    with torch.device("meta"):
        network = impala(spaces.Box(0, 255, (84, 84, 1), np.uint8), BUTTONS, k=k)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == pytest.approx(num_parameters, rel=0.01)
    assert k != 1 or counted == num_parameters


def test_nature_has_the_known_parameter_count_and_deep_twice_the_convolutions():
    space = spaces.Box(0, 255, (84, 84, 4), np.uint8)
    with torch.device("meta"):
        plain, deep = nature(space, BUTTONS), nature(space, BUTTONS, deep=True)
    assert sum(parameter.numel() for parameter in plain.parameters()) == 1_687_719
    counts = [sum(isinstance(layer, nn.Conv2d) for layer in network) for network in (plain, deep)]
    assert counts == [3, 6]


def test_the_title_names_the_arguments_in_force():
    assert load("impala", {}).info.describe().startswith("impala k=1, ")
    assert load("mlp", {"hidden": 8}).info.name == "mlp hidden=8 layers=2"
    assert load("impala", {"pad_ms": 100}).info.describe().endswith("cpu, padded to 100 ms")


@pytest.mark.parametrize("name", ["impala", "nature", "mlp", "dqn"])
@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("action", ACTION_SPACES, ids=lambda space: type(space).__name__)
def test_built_in_networks_act_in_every_action_space(name: str, chunk: int, action: Any):
    policy = load(name, {}, action=action, chunk=chunk)
    spec = ActionSpec.from_space(action)
    out = np.full((chunk, *spec.shape), 99, spec.np_dtype)
    policy.observation[...] = 200
    policy.act(frame_seq=0, out=out)
    assert ((out >= spec.low_array) & (out <= spec.high_array)).all()


@pytest.mark.parametrize("shape", [(36, 40), (36, 40, 3), (4, 36, 40), (36, 40, 1), (16, 36, 40)])
@pytest.mark.parametrize("name", ["impala", "nature", "dqn"])
def test_image_networks_take_frames_in_every_documented_layout(name: str, shape: tuple[int, ...]):
    policy = load(name, {}, observation=spaces.Box(0, 255, shape, np.uint8))
    assert policy.observation.shape == shape
    convolution = next(module for module in policy.module.modules() if isinstance(module, nn.Conv2d))
    assert convolution.in_channels == {2: 1, 3: min(shape)}[len(shape)]


def test_channels_first_and_channels_last_give_the_same_values():
    frame = np.random.default_rng(0).integers(0, 256, (36, 40, 3), np.uint8)
    outputs = []
    for array in (frame, np.ascontiguousarray(frame.transpose(2, 0, 1))):
        # A first axis of 3 with a last one of 40 is channels first.
        policy = load("impala", {}, observation=spaces.Box(0, 255, array.shape, np.uint8))
        policy.observation[...] = array
        outputs.append(policy.executor.run().copy())
    assert np.allclose(outputs[0], outputs[1], atol=1e-5)
    assert np.ptp(outputs[0]) > 1e-3


def test_all_workers_draw_the_same_weights_from_the_seed():
    first, second = load("impala", {}, worker_index=0), load("impala", {}, worker_index=5)
    other = load("impala", {}, seed=6)
    for name, weights in first.module.state_dict().items():
        assert torch.equal(weights, second.module.state_dict()[name])
    assert not torch.equal(first.module[-1].weight, other.module[-1].weight)


def test_drawing_weights_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load("mlp", {})
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["impala", "nature"])
@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-1, 1, (4,), np.float32),
        spaces.Box(0, 1, (84, 84), np.float32),
        spaces.Box(0, 255, (84, 84, 6), np.uint8),
        spaces.Box(0, 255, (2, 2, 84, 84, 3), np.uint8),
    ],
)
def test_image_networks_refuse_other_observations_and_name_what_fits(name: str, space: Any):
    with pytest.raises(PolicyError, match=r"'mlp'.*'random' or 'synthetic'.*module:factory"):
        load(name, {}, observation=space)


def test_nature_refuses_images_smaller_than_its_strides():
    with pytest.raises(PolicyError, match="36x36"):
        load("nature", {}, observation=spaces.Box(0, 255, (35, 84), np.uint8))


@pytest.mark.parametrize("k", [0, -1, 1.5, "1", True])
def test_a_width_that_is_no_positive_integer_is_refused(k: Any):
    with pytest.raises(PolicyError, match="k="):
        load("impala", {"k": k})


def test_mlp_reads_vectors_of_any_dtype():
    policy = load("mlp", {"layers": 1}, observation=spaces.Box(-1, 1, (4,), np.float64))
    assert policy.info.num_parameters == 4 * 64 + 64 + 64 * 7 + 7


def test_an_own_factory_sees_raw_frames_and_its_integers_are_the_actions():
    policy = load(own("sum_of_pixels"), {})
    policy.observation[0, :3] = [1, 2, 3]
    out = np.zeros((1,), np.int64)
    policy.act(frame_seq=0, out=out)
    assert out.tolist() == [6]
    assert policy.info.name == own("sum_of_pixels")


def test_the_largest_value_of_a_bfloat16_network_wins():
    out = np.zeros((1,), np.int64)
    load(own("in_bfloat16"), {}).act(frame_seq=0, out=out)
    assert out.tolist() == [2]


@pytest.mark.parametrize(
    "name, args, message, cause",
    [
        ("no_such_module:make", {}, "PYTHONPATH", ModuleNotFoundError),
        (own("sum_of_pixel"), {}, "did you mean 'sum_of_pixels'", AttributeError),
        (own("BUTTONS"), {}, "an nn.Module or a callable", None),
        (own("not_a_module"), {}, "returned int; expected an nn.Module, or any callable", None),
        (own("broken"), {}, "ZeroDivisionError: inside the factory", ZeroDivisionError),
        (own("fixed"), {"value": 1}, "did you mean 'values'", TypeError),
        (own("fixed"), {}, "values", TypeError),
        (own("linear_of_bytes"), {}, r"uint8 tensor of shape \(1, 36, 40\)", RuntimeError),
        (own("as_tuple"), {}, "returned tuple; expected one tensor", None),
        (
            own("fixed"),
            {"values": [[0.0, 1.0]]},
            r"shape \(1, 2\).*float action values of shape \(1, 7\)",
            None,
        ),
        (own("fixed"), {"values": [[float("nan")] * 7]}, "NaN", None),
        (own("fixed"), {"values": [7]}, "outside", None),
        ("impala", {"width": 3}, "expected its arguments to be among k", TypeError),
        (":make", {}, "module:factory", None),
        ("module:", {}, "module:factory", None),
    ],
)
def test_a_wrong_network_is_refused_at_load_with_got_expected_and_cause(
    name: str, args: dict[str, Any], message: str, cause: type[Exception] | None
):
    with pytest.raises(PolicyError, match=message) as caught:
        load(name, args)
    assert type(caught.value.__cause__) is (cause or type(None))


def test_a_network_that_turns_nan_later_is_caught_at_that_frame():
    policy = load("mlp", {}, observation=spaces.Box(-1, 1, (4,), np.float32))
    policy.observation[...] = np.nan
    with pytest.raises(PolicyError, match="NaN"):
        policy.act(frame_seq=1, out=np.zeros((1,), np.int64))


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_cuda_policy_without_a_gpu_names_the_flag_to_use():
    with pytest.raises(ConfigError, match="--device cpu"):
        load("mlp", {}, device="cuda")
