"""Gymnasium spaces in and out of shared bytes: round trips, refusals, no-ops."""

from __future__ import annotations

import json
import pickle
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from rtcore.errors import ConfigError, EnvironmentFailed, PolicyError
from rtcore.spaces import ActionSpec, ObservationSpec

pytestmark = pytest.mark.unit

SHAPES = st.lists(st.integers(1, 4), max_size=3).map(tuple)


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(st.sampled_from(["float32", "float64", "uint8", "int64", "int16", "float16", "bool"])))
    shape = draw(SHAPES)
    elements: st.SearchStrategy[Any] = st.integers(0, 1)
    if dtype.kind == "f":
        elements = st.one_of(st.just(np.inf), st.just(-np.inf), st.floats(-100, 100, width=16))
    elif dtype.kind in "iu":
        top = min(int(np.iinfo(dtype).max), 2**63 - 2)
        elements = st.integers(int(np.iinfo(dtype).min), top)
    first, second = (draw(arrays(dtype, shape, elements=elements)) for _ in range(2))
    first = np.where(first == np.inf, 0, first).astype(dtype)
    second = np.where(second == -np.inf, 0, second).astype(dtype)
    swapped = first > second
    low, high = np.where(swapped, second, first), np.where(swapped, first, second)
    return spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), shape, dtype=dtype)


@st.composite
def action_spaces(draw: st.DrawFn) -> spaces.Space[Any]:
    kind = draw(st.sampled_from(["box", "discrete", "multi_discrete", "multi_binary"]))
    if kind == "box":
        return draw(boxes())
    if kind == "discrete":
        dtype = draw(st.sampled_from([np.int64, np.int32]))
        return spaces.Discrete(draw(st.integers(1, 50)), start=draw(st.integers(-20, 20)), dtype=dtype)
    shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2).map(tuple))
    if kind == "multi_binary":
        return spaces.MultiBinary(shape[0] if len(shape) == 1 else shape)
    num_choices = draw(arrays(np.int64, shape, elements=st.integers(1, 9)))
    start = draw(arrays(np.int64, shape, elements=st.integers(-5, 5)))
    return spaces.MultiDiscrete(num_choices, start=start)


class World(gymnasium.Env[Any, Any]):
    """An environment that only declares its spaces."""

    def __init__(self, action_space: spaces.Space[Any]) -> None:
        self.action_space = action_space
        self.observation_space = spaces.Box(0, 255, (2, 2), np.uint8)


def same_bounds(space: Any, other: Any) -> bool:
    """Gymnasium compares Box bounds with a tolerance; this does not."""
    return np.array_equal(space.low, other.low) and np.array_equal(space.high, other.high)


@given(boxes())
def test_an_observation_space_comes_back_from_json_with_its_exact_bounds(space: spaces.Box):
    spec = ObservationSpec.from_space(space)
    again = ObservationSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec
    assert again.to_space() == space
    assert same_bounds(again.to_space(), space)
    assert spec.nbytes == space.low.nbytes


@given(action_spaces())
def test_an_action_space_comes_back_from_json_and_from_pickle(space: spaces.Space[Any]):
    spec = ActionSpec.from_space(space)
    again = ActionSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec == pickle.loads(pickle.dumps(spec))
    assert again.to_space() == space
    assert not isinstance(space, spaces.Box) or same_bounds(again.to_space(), space)


@given(action_spaces(), st.integers(0, 2**32))
def test_an_action_survives_the_slot_and_is_in_its_space(space: spaces.Space[Any], seed: int):
    spec = ActionSpec.from_space(space)
    action = spec.sample(np.random.default_rng(seed))
    slot = np.zeros((2, *spec.shape), spec.np_dtype)
    spec.encode(action, slot[1, ...])
    decoded = spec.decode(slot[1, ...])
    assert np.array_equal(decoded, action)
    assert decoded in space
    assert ((np.asarray(action) >= spec.low_array) & (np.asarray(action) <= spec.high_array)).all()
    assert not np.shares_memory(decoded, slot)
    assert slot.nbytes == 2 * spec.nbytes


@given(action_spaces(), st.integers(0, 2**32))
def test_the_same_generator_state_gives_the_same_random_action(space: spaces.Space[Any], seed: int):
    spec = ActionSpec.from_space(space)
    first, second = (spec.sample(np.random.default_rng(seed)) for _ in range(2))
    assert np.array_equal(first, second)


@given(action_spaces(), st.integers(1, 3), st.integers(0, 2**32))
def test_float_policy_output_always_gives_actions_inside_the_space(space: spaces.Space[Any], chunk: int, seed: int):
    spec = ActionSpec.from_space(space)
    output = 1e6 * np.random.default_rng(seed).standard_normal(spec.policy_output_shape(chunk))
    actions = spec.from_policy_output(output.astype(np.float32), chunk)
    assert actions.shape == (chunk, *spec.shape)
    assert actions.dtype == spec.np_dtype
    assert ((actions >= spec.low_array) & (actions <= spec.high_array)).all()


@given(action_spaces(), st.integers(1, 3), st.integers(0, 2**32))
def test_actions_given_as_policy_output_come_back_unchanged(space: spaces.Space[Any], chunk: int, seed: int):
    if isinstance(space, spaces.Box) and space.dtype.kind == "b":
        return
    spec = ActionSpec.from_space(space)
    rng = np.random.default_rng(seed)
    actions = np.array([spec.sample(rng) for _ in range(chunk)], spec.np_dtype)
    output = actions if chunk == 1 else actions[None]
    assert np.array_equal(spec.from_policy_output(output, chunk), actions)


def test_random_actions_differ_and_reach_every_choice():
    spec = ActionSpec.from_space(spaces.Discrete(4, start=-1))
    rng = np.random.default_rng(0)
    assert {spec.sample(rng) for _ in range(200)} == {-1, 0, 1, 2}


@pytest.mark.parametrize("low, high", [(-np.inf, np.inf), (2.0, np.inf), (-np.inf, -2.0)])
def test_random_actions_of_an_unbounded_box_are_finite_and_inside(low: float, high: float):
    spec = ActionSpec.from_space(spaces.Box(low, high, (50,), np.float64))
    action = np.asarray(spec.sample(np.random.default_rng(1)))
    assert np.isfinite(action).all()
    assert ((action >= low) & (action <= high)).all()
    assert np.unique(action).size == 50


@pytest.mark.parametrize(
    "space, output, expected",
    [
        (spaces.Discrete(3, start=5), [[0.1, 0.9, 0.3]], 6),
        (spaces.Discrete(3, start=5), [7], 7),
        (spaces.Discrete(3, start=5), [[5]], 5),
        (spaces.MultiDiscrete([2, 3]), [[0.0, 1.0, 5.0, 2.0, 3.0]], [1, 0]),
        (spaces.MultiDiscrete([2, 3], start=[10, -1]), [[0.0, 1.0, 5.0, 2.0, 9.0]], [11, 1]),
        (spaces.MultiDiscrete([2, 3]), [[1, 2]], [1, 2]),
        (spaces.MultiBinary(3), [[-0.5, 0.5, 0.0]], [0, 1, 0]),
        (spaces.MultiBinary(3), [[True, False, True]], [1, 0, 1]),
        (spaces.Box(-1, 1, (2,), np.float32), [[-7.0, 0.25]], [-1.0, 0.25]),
        (spaces.Box(0, 10, (3,), np.uint8), [[-3.0, 4.6, 300.0]], [0, 5, 10]),
        (spaces.Box(-(2**63), 2**63 - 2, (2,), np.int64), [[-1e300, 1e300]], [-(2**63), 2**63 - 2]),
    ],
)
def test_policy_output_means_the_documented_action(space: Any, output: Any, expected: Any):
    actions = ActionSpec.from_space(space).from_policy_output(np.array(output))
    assert np.array_equal(actions[0], expected)


def test_a_chunk_holds_one_action_per_tick():
    output = np.array([[[0.0, 1.0], [1.0, 0.0], [0.0, 2.0]]], np.float32)
    actions = ActionSpec.from_space(spaces.Discrete(2)).from_policy_output(output, chunk=3)
    assert actions.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    "space", [spaces.Discrete(2), spaces.MultiDiscrete([2]), spaces.MultiBinary(2), spaces.Box(-1, 1, (2,))]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_in_the_output_are_refused(space: Any, bad: float):
    with pytest.raises(PolicyError, match="NaN or infinity"):
        ActionSpec.from_space(space).from_policy_output(np.array([[0.0, bad]]))


@pytest.mark.parametrize("space, shape", [(spaces.Discrete(4), (1, 4)), (spaces.MultiBinary(4), (1, 4))])
def test_a_wrong_output_shape_is_refused_with_got_and_expected(space: Any, shape: tuple[int, ...]):
    with pytest.raises(PolicyError) as caught:
        ActionSpec.from_space(space).from_policy_output(np.zeros((1, 5), np.float32))
    assert "(1, 5)" in str(caught.value)
    assert str(shape) in str(caught.value)
    if isinstance(space, spaces.Discrete):
        assert "(1,) or (1, 1)" in str(caught.value)


@pytest.mark.parametrize(
    "space, output",
    [
        (spaces.Discrete(4), np.zeros((1, 4), bool)),
        (spaces.Discrete(4), np.zeros((1, 4), np.int64)),
        (spaces.Discrete(4), np.zeros((4,), np.float32)),
        (spaces.Discrete(4), np.zeros((2, 4), np.float32)),
        (spaces.Discrete(4), np.zeros((1, 4), np.complex64)),
        (spaces.Box(-1, 1, (2,)), np.zeros((1, 2), bool)),
        (spaces.Box(-1, 1, (2,)), np.zeros((2,), np.float32)),
    ],
)
def test_outputs_that_only_look_similar_are_refused(space: Any, output: np.ndarray):
    with pytest.raises(PolicyError, match="expected"):
        ActionSpec.from_space(space).from_policy_output(output)


@pytest.mark.parametrize(
    "space, output",
    [
        (spaces.Discrete(3, start=1), [0]),
        (spaces.Discrete(3, start=1), [4]),
        (spaces.MultiDiscrete([2, 3]), [[1, 3]]),
        (spaces.MultiBinary(2), [[0, 2]]),
    ],
)
def test_an_integer_action_outside_the_space_is_refused(space: Any, output: Any):
    with pytest.raises(PolicyError, match="outside"):
        ActionSpec.from_space(space).from_policy_output(np.array(output))


@pytest.mark.parametrize(
    "space, action",
    [
        (spaces.Discrete(3), 3),
        (spaces.Discrete(3), 1.0),
        (spaces.Discrete(3), [1]),
        (spaces.MultiDiscrete([2, 2]), [1, 2]),
        (spaces.MultiDiscrete([2, 2]), [[1], [1, 1]]),
        (spaces.Box(-1, 1, (2,)), [0.0, np.nan]),
        (spaces.Box(-np.inf, np.inf, (1,)), [1e300]),
        (spaces.Box(-1, 1, (2,)), "ab"),
    ],
)
def test_encode_refuses_what_is_not_in_the_space(space: Any, action: Any):
    spec = ActionSpec.from_space(space)
    out = np.zeros(spec.shape, spec.np_dtype)
    with pytest.raises(PolicyError, match="expected an element of"):
        spec.encode(action, out)
    assert not out.any()


def test_decode_gives_a_python_int_for_discrete_and_a_private_array_otherwise():
    discrete = ActionSpec.from_space(spaces.Discrete(3))
    assert type(discrete.decode(np.array([2], np.int64)[0, ...])) is int
    raw = np.array([0.5, 0.5], np.float32)
    decoded = ActionSpec.from_space(spaces.Box(-1, 1, (2,))).decode(raw)
    raw[:] = 0
    assert np.array_equal(decoded, [0.5, 0.5])


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(4), spaces.Dict({"a": spaces.Discrete(4)}), spaces.Tuple([spaces.Box(0, 1)]), "pixels"],
)
def test_an_observation_space_other_than_boxes_names_the_way_out(space: Any):
    with pytest.raises(ConfigError, match="FlattenObservation"):
        ObservationSpec.from_space(space)


def test_an_action_space_without_array_form_is_refused():
    with pytest.raises(ConfigError, match="MultiDiscrete"):
        ActionSpec.from_space(spaces.Text(5))


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 1, (0,)), spaces.Box(0, 1, (2, 0)), spaces.Box(0, 1, (2,), np.dtype(">f4"))]
)
def test_boxes_that_hold_nothing_or_foreign_bytes_are_refused(space: spaces.Box):
    with pytest.raises(ConfigError):
        ObservationSpec.from_space(space)
    with pytest.raises(ConfigError):
        ActionSpec.from_space(space)


@pytest.mark.parametrize(
    "observation",
    [
        np.zeros((2, 2), np.float32),
        np.zeros((4,), np.uint8),
        np.zeros((2, 2), ">u2"),
        [[0, 0], [0, 0]],
        None,
        3,
    ],
)
def test_an_observation_unlike_its_space_is_named_with_what_was_promised(observation: object):
    spec = ObservationSpec.from_space(spaces.Box(0, 255, (2, 2), np.uint8))
    with pytest.raises(EnvironmentFailed, match=r"promises an array of shape \(2, 2\) and dtype uint8"):
        spec.check(observation)


def test_arrays_of_a_subclass_are_taken_as_plain_ones_and_masked_elements_are_named():
    spec = ObservationSpec.from_space(spaces.Box(0, 255, (2, 2), np.uint8))
    whole = np.ma.array([[1, 2], [3, 4]], dtype=np.uint8)
    assert type(spec.check(whole)) is np.ndarray
    with pytest.raises(EnvironmentFailed, match=r"1 of 4 elements are masked.*filled"):
        spec.check(np.ma.array(whole, mask=[[False, True], [False, False]]))


def test_a_right_observation_passes_even_as_a_strided_view():
    spec = ObservationSpec.from_space(spaces.Box(0, 255, (2, 2), np.uint8))
    spec.check(np.zeros((2, 4), np.uint8)[:, ::2])


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"shape": [2], "dtype": "uint8", "low": [0]},
        {"shape": [2], "dtype": "no such", "low": [0], "high": [1]},
        {"shape": [2], "dtype": "uint8", "low": [0, 0, 0], "high": [1]},
        {"shape": 2, "dtype": "uint8", "low": [0], "high": [1]},
        {"shape": [2], "dtype": "uint8", "low": [0], "high": ["x"]},
    ],
)
def test_a_broken_json_header_is_a_config_error(broken: dict[str, object]):
    with pytest.raises(ConfigError):
        ObservationSpec.from_json(broken)
    with pytest.raises(ConfigError):
        ActionSpec.from_json({"kind": "box", **broken})
    with pytest.raises(ConfigError, match="kind"):
        ActionSpec.from_json({"kind": "juggling", **broken})


def test_the_environments_own_noop_is_found_through_wrappers():
    world = World(spaces.Discrete(7))
    world.noop_action = 6  # type: ignore[attr-defined]
    action, how = ActionSpec.from_space(world.action_space).noop(gymnasium.wrappers.TimeLimit(world, 10))
    assert action == 6
    assert "noop_action" in how


def test_an_ale_style_noop_is_found_by_its_name():
    world = World(spaces.Discrete(3))
    world.get_action_meanings = lambda: ["FIRE", "NOOP", "LEFT"]  # type: ignore[attr-defined]
    action, how = ActionSpec.from_space(world.action_space).noop(world)
    assert action == 1
    assert "NOOP" in how


def test_action_names_of_another_action_set_are_not_trusted():
    world = World(spaces.Discrete(2))
    world.get_action_meanings = lambda: ["FIRE", "NOOP", "LEFT"]  # type: ignore[attr-defined]
    action, how = ActionSpec.from_space(world.action_space).noop(world)
    assert action == 0
    assert "has no no-op" in how


@pytest.mark.parametrize(
    "space, expected",
    [
        (spaces.Box(-1, 1, (2,)), [0, 0]),
        (spaces.Box(np.array([0.5, -1], np.float32), np.array([1, 1], np.float32)), [0.5, 0]),
        (spaces.MultiBinary(2), [0, 0]),
        (spaces.MultiDiscrete([2, 2], start=[3, 4]), [3, 4]),
    ],
)
def test_without_a_declared_noop_the_neutral_action_is_used(space: Any, expected: list[float]):
    action, how = ActionSpec.from_space(space).noop(World(space))
    assert np.array_equal(action, expected)
    assert "no no-op" in how


def test_a_stand_in_for_the_noop_is_announced_with_the_flag_that_changes_it():
    env = gymnasium.make("CartPole-v1")
    action, how = ActionSpec.from_space(env.action_space).noop(env)
    env.close()
    assert action == 0
    assert how == "CartPole-v1 has no no-op: action 0 stands in; choose with --noop-action"


def test_an_impossible_noop_of_the_environment_is_a_config_error():
    world = World(spaces.Discrete(3))
    world.noop_action = 3  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"World.noop_action = 3 is out of range"):
        ActionSpec.from_space(world.action_space).noop(world)
