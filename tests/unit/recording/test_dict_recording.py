"""A Dict world's recording: each part is a column, frames come back as they were, Minari reads dicts."""

from __future__ import annotations

import json
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces

from rtcore.errors import ConfigError
from rtcore.files.outside import SUMS
from rtcore.memory.layout import FrameHeader
from rtcore.recording.mending import mend
from rtcore.recording.minari import write_minari
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, MAIN_FILE, TICKS_FILE, frame_columns
from rtcore.report.video.film import Scene, write_video
from rtcore.report.video.panel import Moment
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces import ObservationSpec
from tests.support.dict_worlds import PARTS, SPACE, differences
from tests.support.filmed import film, header
from tests.support.recorded_runs import recorded, replayed, tampering

pytestmark = pytest.mark.unit

PANEL: dict[str, Any] = {"env_id": "tests.support.dict_worlds:panel", "env_args": {"discrete": True}}
CAMERA = spaces.Dict(
    {
        "arm": spaces.Dict({"angles": spaces.Box(-9, 9, (3,), np.float64)}),
        "camera": spaces.Box(0, 255, (60, 80, 3), np.uint8),
    }
)
INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]
DTYPES = [*INTEGERS, "bool", "float16", "float32", "float64"]


def spec_of(space: spaces.Space[Any]) -> ObservationSpec:
    return ObservationSpec.from_space(space)


def random_frames(space: spaces.Space[Any], count: int) -> Any:
    """(count, num_bytes): every bit of every part, but for those of a bool, is drawn: also what is no number."""
    spec, rng = spec_of(space), np.random.default_rng(4)
    frames = np.zeros((count, *spec.shape), np.uint8)
    for part in spec.unpack(frames).values():
        values = rng.integers(0, 256, (*part.shape, part.itemsize)).astype(np.uint8)
        if part.dtype == bool:
            values &= 1
        part[...] = values.view(part.dtype).reshape(part.shape)
    return frames


def an_episode(count: int) -> list[FrameHeader]:
    reset = {"kind": TickKind.RESET, "source": Source.HELD}
    return [header(tick, **(reset if tick == 0 else {})) for tick in range(count)]


# -- the file ----------------------------------------------------------------------------------------------------


def test_each_part_is_a_column_of_its_own_dtype_and_shape(tmp_path):
    recorded(tmp_path, **PANEL)
    with h5py.File(tmp_path / FOLDER / TICKS_FILE) as file:
        assert set(file["ticks/frame"]) == {"age", "bits", "image", "inner", "pose"}
        seen = {name: file[f"ticks/frame/{name}"] for name in PARTS}
        assert {name: (part.shape, part.dtype.name) for name, part in seen.items()} == {
            name: ((120, *shape), dtype) for name, (shape, dtype) in PARTS.items()
        }
        assert all(part.attrs["meaning"] for part in seen.values())
        assert differences({name: part[()] for name, part in seen.items()}, (120,)) == []
        assert len(set(seen["inner/count"][:, 0].tolist())) > 80


def test_frames_come_back_as_they_were_in_the_ring_and_their_parts_by_name(tmp_path):
    simulation = recorded(tmp_path, ring_slots=200, **PANEL)
    spec = spec_of(SPACE)
    frame = np.empty(spec.shape, np.uint8)
    with Recording(tmp_path) as recording:
        assert recording.observation == spec
        for row, tick in enumerate(recording.ticks()):
            simulation.ring.read(tick.header.frame_seq, frame)
            assert np.array_equal(tick.frame, frame)
            assert differences(recording.observation.unpack(tick.frame), ()) == []
            assert np.array_equal(recording.column("frame", row, row + 1), [frame])
        whole = recording.column("frame", 20, 50)
        assert whole.shape == (30, *spec.shape)
        for name, part in spec.unpack(whole).items():
            assert np.array_equal(recording.column(f"frame/{name}", 20, 50), part)
        assert [len(recording.column("frame", *rows)) for rows in ((100, 500), (120,), (90, 80))] == [20, 0, 0]


@pytest.mark.parametrize("count", [1, 59, 60, 157])
def test_every_bit_of_every_dtype_is_kept(tmp_path, count):
    shapes = [(), (2,), (3, 1), (4,)]
    space = spaces.Dict({name: spaces.Box(0, 1, shapes[at % 4], name) for at, name in enumerate(DTYPES)})
    frames = random_frames(space, count)
    film(tmp_path, frames, an_episode(count), [0] * count, observation=space)
    with Recording(tmp_path) as recording:
        assert recording.num_ticks == count
        assert np.array_equal(recording.column("frame"), frames)
        assert np.array_equal([tick.frame for tick in recording.ticks()], frames)


def test_a_large_part_is_cut_into_chunks_and_a_small_one_beside_it_is_not(tmp_path):
    space = spaces.Dict({"age": spaces.Box(0, 9, (), np.float64), "film": spaces.Box(0, 255, (300, 300), np.uint8)})
    film(tmp_path, random_frames(space, 120), an_episode(120), [0] * 120, observation=space)
    with h5py.File(tmp_path / FOLDER / TICKS_FILE) as file:
        assert file["ticks/frame/film"].chunks == (11, 300, 300)
        assert file["ticks/frame/age"].chunks == file["ticks/tick"].chunks == (55,)


# -- names -------------------------------------------------------------------------------------------------------


def test_names_that_mean_something_to_hdf5_are_names_of_parts(tmp_path):
    one = spaces.Box(0, 255, (2,), np.uint8)
    names = ("50% %b", "größe", "..", "frame", "a b", "x.y", "action")
    space = spaces.Dict({**dict.fromkeys(names, one), "in": spaces.Dict({"%": one, "observations": one})})
    frames = random_frames(space, 5)
    film(tmp_path, frames, an_episode(5), [0] * 5, observation=space)
    with Recording(tmp_path) as recording:
        assert np.array_equal(recording.column("frame"), frames)
        write_minari(recording)
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.observation_space == space
    seen = data[0].observations
    assert set(seen) == {*names, "in"}
    with h5py.File(tmp_path / FOLDER / MAIN_FILE) as file:
        group = file["episode_0/observations"]
        assert group.id.links.get_info("größe".encode()).cset == h5py.h5t.CSET_UTF8
    parts = spec_of(space).unpack(frames)
    assert all(np.array_equal(seen[name], parts[name]) for name in names)
    assert all(np.array_equal(part, parts[f"in/{name}"]) for name, part in seen["in"].items())


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (("a", "a/b"), "part 'a' cannot be a column beside 'a/b'"),
        (("",), "part '' cannot be the name"),
        ((".",), "part '.' cannot"),
        (("a//b",), "part 'a//b' cannot"),
        (("/a",), "part '/a' cannot"),
        (("a\0b",), "cannot be the name of a column"),
    ],
)
def test_names_that_hdf5_cannot_have_are_refused_before_an_earlier_recording_is_touched(tmp_path, keys, said):
    earlier = film(tmp_path, [], [], [])
    space = spaces.Dict(dict.fromkeys(keys, spaces.Box(0, 1)))
    with pytest.raises(ConfigError, match=said):
        film(tmp_path, [], [], [], observation=space)
    assert earlier.exists()


def test_a_name_that_only_begins_like_another_is_none_within_it():
    names = ["a", "ab", "a b", "c/a", "c/ab"]
    space = spaces.Dict(dict.fromkeys(names, spaces.Box(0, 1)))
    assert {column.name for column in frame_columns(spec_of(space))} == {f"frame/{name}" for name in names}


# -- Minari ------------------------------------------------------------------------------------------------------


def flat(observations: dict[str, Any]) -> dict[str, Any]:
    """In the order of the parts, each under its name."""
    inner = {f"inner/{name}": part for name, part in observations["inner"].items()}
    every = {**observations, **inner}
    assert set(every) == {*PARTS, "inner"}
    return {name: every[name] for name in PARTS}


def test_minari_gives_dicts_with_exactly_the_parts_of_each_step(tmp_path):
    recorded(tmp_path, **PANEL)
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.observation_space == SPACE
    with Recording(tmp_path) as recording:
        kinds, sources, counts = (recording.column(name) for name in ("kind", "source", "frame/inner/count"))
    resets = np.flatnonzero(kinds == TickKind.RESET).tolist()
    episodes = list(data.iterate_episodes())
    assert len(episodes) == len(resets) > 2
    for episode, begin, end in zip(episodes, resets, [*resets[1:], 120], strict=True):
        seen = [begin, *(begin + np.flatnonzero(sources[begin:end] != Source.HELD)).tolist()]
        observations = flat(episode.observations)
        assert differences(observations, (len(seen),)) == []
        assert np.array_equal(observations["inner/count"], counts[seen])
        assert len(episode.actions) == len(seen) - 1
    with h5py.File(tmp_path / FOLDER / MAIN_FILE) as file:
        assert all(file[f"episode_0/observations/{name}"].is_virtual for name in PARTS)


def test_a_key_with_a_slash_is_a_dict_within_a_dict_for_minari(tmp_path):
    one, two = spaces.Box(0, 255, (2,), np.uint8), spaces.Box(-1, np.inf, (), np.float32)
    film(tmp_path, random_frames(spaces.Dict({"arm/left": one, "arm/right": two}), 4), an_episode(4), [0] * 4,
         observation=spaces.Dict({"arm/left": one, "arm/right": two}))  # fmt: skip
    with Recording(tmp_path) as recording:
        write_minari(recording)
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.observation_space == spaces.Dict({"arm": spaces.Dict({"left": one, "right": two})})
    assert {name: part.shape for name, part in data[0].observations["arm"].items()} == {"left": (4, 2), "right": (4,)}


# -- replay, mend, video -----------------------------------------------------------------------------------------


def test_a_dict_world_is_the_same_again_and_a_changed_part_is_named(tmp_path):
    recorded(tmp_path, **PANEL)
    report = replayed(tmp_path)
    assert (report.is_identical, report.ticks, report.notes) == (True, 120, [])
    with tampering(tmp_path) as file:
        file["ticks/frame/inner/low"][30] = -7
        file["ticks/frame/image"][40, 2, 3] ^= 1
        file["ticks/frame/age"][50] = np.nan
    report = replayed(tmp_path)
    assert dict(report.differing) == {"frame/inner/low": 1, "frame/image": 1, "frame/age": 1}
    low, image, age = report.first
    assert low.recorded == "1 of 1 values differ, the first at (0,): -7"
    assert "1 of 35 values differ, the first at (2, 3)" in image.recorded
    assert age.recorded == "1 of 1 values differ, the first at (0,): nan"


def test_what_a_killed_recorder_left_of_a_dict_world_is_mended(tmp_path):
    frames = random_frames(CAMERA, 90)
    film(tmp_path, frames, an_episode(90), [0] * 90, observation=CAMERA, is_finished=False)
    assert mend(tmp_path) == (90, 1)
    with Recording(tmp_path) as recording:
        assert np.array_equal(recording.column("frame"), frames)
    with h5py.File(tmp_path / FOLDER / TICKS_FILE) as file:
        assert len(file["ticks/frame/arm/angles"]) == len(file["ticks/frame/camera"]) == 90
    (episode,) = minari.MinariDataset(tmp_path / FOLDER).iterate_episodes()
    assert np.array_equal(episode.observations["camera"], spec_of(CAMERA).unpack(frames)["camera"])


def test_a_part_that_was_written_further_than_the_others_when_the_disk_was_full_is_cut(tmp_path):
    path = film(tmp_path, random_frames(CAMERA, 20), an_episode(20), [0] * 20, observation=CAMERA)
    (path.parent / SUMS).unlink()
    with h5py.File(path, "r+") as file:
        file["ticks/frame/arm/angles"].resize(15, axis=0)
        file.attrs.modify("end", np.bytes_(b"unfinished"))
    with Recording(tmp_path) as recording:
        assert recording.num_ticks == 15
    assert mend(tmp_path)[0] == 15
    with h5py.File(path) as file:
        assert len(file["ticks/frame/camera"]) == len(file["ticks/tick"]) == 15


def test_a_video_shows_the_first_part_that_is_an_image(tmp_path):
    frames = random_frames(CAMERA, 12)
    film(tmp_path, frames, an_episode(12), [0] * 12, observation=CAMERA)
    with Recording(tmp_path) as recording:
        scene, cameras = Scene(recording), recording.column("frame/camera")
        for number in (0, 7):
            seen = scene.draw(Moment(number, header(number), np.zeros(())), frames[number])[scene.frame_area]
            assert np.array_equal(seen[3::7, 3::7], cameras[number])
        assert write_video({"": recording}, tmp_path / "v.mp4").frames == 12


# -- with ticks that are put off ---------------------------------------------------------------------------------


def test_a_slow_dict_world_whose_ticks_are_put_off_is_recorded_and_the_same_again(tmp_path):
    stalls_ms = {10: 35, 11: 4, 40: 18, 41: 60, 90: 25, 118: 12}
    simulation = recorded(
        tmp_path,
        overrun="stretch",
        on_late="drop",
        on_tick=lambda run, tick: run._clock.advance_ns(stalls_ms.get(tick, 0) * 1_000_000),
        **PANEL,
    )
    ticks = simulation.summary()["ticks"]
    assert (ticks["skipped"], ticks["stretched"]) == (0, 5)
    with Recording(tmp_path) as recording:
        assert (recording.end, recording.column("tick").tolist()) == ("complete", list(range(120)))
        assert recording.config["overrun"] == "stretch"
        # The deadlines are those that the ticks had.
        put_off_ms = np.diff(recording.column("deadline_ns")) / 1e6 - 10
        assert put_off_ms.sum() == pytest.approx(ticks["stretched_ms"])
        assert np.flatnonzero(put_off_ms).tolist() == [10, 40, 41, 90, 118]
        assert write_video({"": recording}, tmp_path / "v.mp4", max_ticks=60).frames == 60, "a picture for each tick"
        steps = int((recording.column("source") != Source.HELD).sum())
    report = replayed(tmp_path)
    assert (report.is_identical, report.ticks, report.notes) == (True, 120, []), report.first
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.total_steps == steps
    assert all(differences(flat(episode.observations), (len(episode) + 1,)) == [] for episode in data)
    assert json.loads((tmp_path / FOLDER / "metadata.json").read_text())["rtcore_end"] == "complete"
