"""Dict observations as frames: every part has its place, whatever is asked for it, and nothing else fits."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.spaces import FramePacker, ObservationSpec

pytestmark = pytest.mark.unit

#: All that a Box may hold.
DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "float32", "float64"),
]
NAMES = st.text("abcxyz_", min_size=1, max_size=4)
IMAGE, SPEED, GOAL = spaces.Box(0, 255, (3, 5), np.uint8), spaces.Box(-9, 9, (), np.float32), spaces.Box(0, 1, (2,))
CAR = spaces.Dict({"image": IMAGE, "car": spaces.Dict({"speed": SPEED, "goal": GOAL})})


@st.composite
def boxes(draw: st.DrawFn) -> spaces.Box:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.one_of(st.just(()), array_shapes(max_dims=3, max_side=4)))
    high = np.full(shape, np.inf if dtype.kind == "f" and draw(st.booleans()) else 1, dtype)
    low = np.zeros(shape, dtype) if dtype.kind in "ub" else -high
    return spaces.Box(np.asarray(low), high, shape, dtype=dtype)


def dicts() -> st.SearchStrategy[spaces.Dict]:
    """Dicts of Boxes, and of Dicts, in an order of their own: not only the one that Gymnasium sorts keys into."""
    entries = st.recursive(boxes(), lambda inner: named(inner).map(spaces.Dict), max_leaves=6)
    return named(entries).map(spaces.Dict)


def named(values: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[str, Any]]]:
    return st.lists(st.tuples(NAMES, values), min_size=1, max_size=4, unique_by=lambda entry: entry[0])


def observation_of(space: spaces.Dict, rng: np.random.Generator) -> dict[str, Any]:
    """With any bits, NaN too: what is copied is bytes."""
    return {
        key: observation_of(inner, rng) if isinstance(inner, spaces.Dict) else any_bits(inner, rng)
        for key, inner in space.spaces.items()
    }


def any_bits(box: spaces.Box, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    size = int(np.prod(box.shape)) * box.dtype.itemsize
    raw = rng.integers(0, 2 if box.dtype.kind == "b" else 256, size, np.uint8)
    return raw.view(box.dtype).reshape(box.shape)


def flat(observation: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in observation.items():
        if isinstance(value, dict):
            yield from flat(value, f"{before}{key}/")
        else:
            yield before + key, value


def same(one: Any, other: Any) -> bool:
    """Shape, dtype and every bit."""
    one, other = np.asarray(one), np.asarray(other)
    return one.shape == other.shape and one.dtype == other.dtype and one.tobytes() == other.tobytes()


@given(dicts(), st.integers(0, 2**32))
def test_every_part_of_an_observation_comes_out_of_its_frame_bit_by_bit(space: spaces.Dict, seed: int):
    rng = np.random.default_rng(seed)
    spec = ObservationSpec.from_space(space)
    packer = FramePacker(spec, space)
    for _ in range(2):  # what was there before leaves no trace
        observation = observation_of(space, rng)
        frame = packer.pack(observation)
        parts, expected = spec.unpack(frame), dict(flat(observation))
        assert list(parts) == list(expected) == [part.name for part in spec.parts]
        assert all(same(parts[name], value) for name, value in expected.items())
        assert all(np.shares_memory(part, frame) for part in parts.values())
    assert frame is packer.frame
    assert frame.nbytes == spec.nbytes


@given(dicts(), array_shapes(min_dims=0, max_dims=3, max_side=3), st.integers(0, 2**32))
def test_parts_have_the_axes_in_front_of_their_frames_in_numpy_and_in_torch(
    space: spaces.Dict, lead: tuple[int, ...], seed: int
):
    rng = np.random.default_rng(seed)
    spec = ObservationSpec.from_space(space)
    packer = FramePacker(spec, space)
    frames = np.empty((*lead, spec.nbytes), np.uint8)
    expected: dict[tuple[int, ...], dict[str, Any]] = {}
    for place in np.ndindex(lead):
        observation = observation_of(space, rng)
        frames[place] = packer.pack(observation)
        expected[place] = dict(flat(observation))
    parts, tensors = spec.unpack(frames), spec.unpack(torch.from_numpy(frames))
    for part in spec.parts:
        array, tensor = parts[part.name], tensors[part.name]
        assert array.shape == tuple(tensor.shape) == (*lead, *part.shape)
        assert same(array, tensor.numpy())
        assert all(same(array[place], expected[place][part.name]) for place in expected)
        assert tensor.untyped_storage().data_ptr() == frames.ctypes.data, "a tensor is a view too"


@given(dicts())
def test_no_two_parts_overlap_and_each_begins_where_its_numbers_are_aligned(space: spaces.Dict):
    spec = ObservationSpec.from_space(space)
    ends = [part.offset + part.nbytes for part in spec.parts]
    for part, end in zip(spec.parts, [0, *ends], strict=False):
        assert part.offset % 8 == 0
        assert end <= part.offset < end + 8
    assert ends[-1] <= spec.nbytes < ends[-1] + 8
    assert spec.nbytes % 8 == 0


@given(dicts())
def test_a_dict_space_comes_back_from_json_from_pickle_and_as_a_space(space: spaces.Dict):
    spec = ObservationSpec.from_space(space)
    again = ObservationSpec.from_json(json.loads(json.dumps(spec.to_json(), allow_nan=False)))
    assert again == spec == pickle.loads(pickle.dumps(spec))
    assert again.to_space() == spec.to_space()
    assert ObservationSpec.from_space(again.to_space()) == spec
    if not any(isinstance(inner, spaces.Dict) for inner in space.spaces.values()):
        assert again.to_space() == space
        assert list(again.to_space().spaces) == list(space.spaces)


def test_the_json_of_a_dict_says_where_each_part_is_for_a_program_without_rtcore():
    spec = ObservationSpec.from_space(CAR)
    assert spec.to_json() == {
        "shape": [32],
        "dtype": "uint8",
        "low": [0],
        "high": [255],
        "parts": [
            {"name": "car/goal", "offset": 0, "shape": [2], "dtype": "float32", "low": [0.0], "high": [1.0]},
            {"name": "car/speed", "offset": 8, "shape": [], "dtype": "float32", "low": [-9.0], "high": [9.0]},
            {"name": "image", "offset": 16, "shape": [3, 5], "dtype": "uint8", "low": [0], "high": [255]},
        ],
    }


def test_the_json_of_a_box_has_no_parts():
    assert "parts" not in ObservationSpec.from_space(IMAGE).to_json()
    frame = np.zeros((2, 3, 5), np.uint8)
    assert ObservationSpec.from_space(IMAGE).unpack(frame) is frame


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"parts": []}, "parts"),
        ({"parts": "image"}, "parts"),
        ({"parts": [7]}, "parts"),
        (
            {"parts": [{"name": "image", "offset": 8, "shape": [3], "dtype": "uint8", "low": [0], "high": [1]}]},
            "byte 0",
        ),
        ({"parts": [{"name": "image", "offset": 0, "shape": [3], "low": [0], "high": [1]}]}, "'image'"),
        ({"parts": [{"offset": 0, "shape": [3], "dtype": "uint8", "low": [0], "high": [1]}]}, "name"),
        ({"shape": [31]}, "32 bytes"),
        ({"dtype": "uint16"}, "32 bytes"),
    ],
)
def test_a_broken_description_of_parts_is_a_config_error(change: dict[str, Any], said: str):
    with pytest.raises(ConfigError, match=said):
        ObservationSpec.from_json({**ObservationSpec.from_space(CAR).to_json(), **change})


def test_frames_of_another_size_are_not_taken_apart():
    with pytest.raises(ValueError, match=r"expected \(\.\.\., 32\)"):
        ObservationSpec.from_space(CAR).unpack(np.zeros((2, 40), np.uint8))


# -- spaces that are refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (spaces.Dict({"image": IMAGE, "mode": spaces.Discrete(4)}), ["'mode'", "Discrete(4)", "FlattenObservation"]),
        (spaces.Dict({"car": spaces.Dict({"gear": spaces.MultiBinary(3)})}), ["'car/gear'", "MultiBinary"]),
        (spaces.Dict({"image": IMAGE, "both": spaces.Tuple([GOAL, GOAL])}), ["'both'", "Tuple"]),
        (spaces.Dict({"note": spaces.Text(5)}), ["'note'", "Text"]),
        (spaces.Tuple([IMAGE, GOAL]), ["Tuple", "Dict of Boxes", "FlattenObservation"]),
        (spaces.Dict({"image": IMAGE, "none": spaces.Box(0, 1, (2, 0))}), ["'none'", "(2, 0)", "holds nothing"]),
        (spaces.Dict({"far": spaces.Box(0, 1, (2,), np.dtype(">f4"))}), ["'far'", ">f4"]),
        (spaces.Dict({"wide": spaces.Box(0, 1, (2,), np.longdouble)}), ["'wide'", "8 bytes"]),
        (spaces.Dict({}), ["observation space", "holds nothing"]),
        (spaces.Dict({"image": IMAGE, "car": spaces.Dict({})}), ["'car'", "holds nothing"]),
        (spaces.Dict([(3, IMAGE)]), ["key 3", "names"]),
        (spaces.Dict({"car/goal": GOAL, "car": spaces.Dict({"goal": GOAL})}), ["'car/goal'", "Rename"]),
    ],
)
def test_a_dict_that_is_more_than_boxes_is_refused_with_the_name_of_the_part(space: Any, said: list[str]):
    with pytest.raises(ConfigError) as caught:
        ObservationSpec.from_space(space)
    for words in said:
        assert words in str(caught.value)


# -- observations that are refused -------------------------------------------------------------------------------


def car(**changes: Any) -> dict[str, Any]:
    """An observation of `CAR`; `changes` to the outer Dict, "car_speed" and "car_goal" to the inner one."""
    inner = {"speed": np.array(3, np.float32), "goal": np.ones(2, np.float32)}
    outer = {"image": np.zeros((3, 5), np.uint8), "car": inner}
    for key, value in changes.items():
        if key.startswith("car_"):
            inner[key.removeprefix("car_")] = value
        else:
            outer[key] = value
    return outer


def without(observation: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in observation.items() if name != key}


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (without(car(), "image"), ["lacks 'image'", "'image', 'car'"]),
        (car(extra=1), ["has 'extra'"]),
        ({**without(car(), "image"), "img": np.zeros((3, 5), np.uint8)}, ["lacks 'image' and has 'img'"]),
        ({**car(), "car": without(car()["car"], "goal")}, ["part 'car'", "lacks 'goal'"]),
        (car(car_speeed=1), ["part 'car'", "has 'speeed'"]),
        (car(car=np.zeros(2, np.float32)), ["part 'car'", "ndarray", "a dict of 'goal', 'speed'"]),
        (car(image=np.zeros((5, 3), np.uint8)), ["'image'", "(5, 3)", "(3, 5)"]),
        (car(image=np.zeros((3, 5), np.float32)), ["'image'", "float32", "uint8"]),
        (car(car_goal=np.ones(2)), ["'car/goal'", "float64", "float32"]),
        (car(car_goal=[1.0, 1.0]), ["'car/goal'", "list", "(2,)"]),
        (car(car_goal=None), ["'car/goal'", "None"]),
        (car(car_speed=3.0), ["'car/speed'", "float 3.0"]),
        (car(car_speed=np.float64(3)), ["'car/speed'", "float64"]),
        (np.zeros(32, np.uint8), ["ndarray", "a dict of"]),
        (None, ["None", "a dict of"]),
    ],
)
def test_an_observation_unlike_its_dict_space_is_named_by_its_part(observation: Any, said: list[str]):
    packer = FramePacker(ObservationSpec.from_space(CAR), CAR)
    with pytest.raises(EnvironmentFailed) as caught:
        packer.pack(observation)
    for words in said:
        assert words in str(caught.value), str(caught.value)


def test_masked_elements_of_a_part_are_named_as_a_frame_has_no_mask():
    packer = FramePacker(ObservationSpec.from_space(CAR), CAR)
    whole = np.ma.array(np.ones(2, np.float32))
    packer.pack(car(car_goal=whole))
    with pytest.raises(EnvironmentFailed, match=r"'car/goal'.* 1 of 2 elements are masked"):
        packer.pack(car(car_goal=np.ma.array(whole, mask=[True, False])))


def test_a_strided_part_and_a_number_of_numpys_own_are_taken_as_they_are():
    spec = ObservationSpec.from_space(CAR)
    image = np.arange(15, dtype=np.uint8).reshape(5, 3).T
    parts = spec.unpack(FramePacker(spec, CAR).pack(car(image=image, car_speed=np.float32(2.5))))
    assert np.array_equal(parts["image"], image)
    assert parts["car/speed"] == 2.5
