"""The recording as a Minari data set (https://minari.farama.org): episodes of steps, nothing stored twice.

main_data.hdf5 holds virtual datasets, which say where in ticks.hdf5 their rows are: the two files go together. Only
ticks at which the world stepped are steps; an episode's first observation is that of its reset. It is a file of its
own so that the recording itself, once written, is never opened for writing again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtcore.files.strict_json import write_json
from rtcore.recording.hdf5 import new_file
from rtcore.recording.reader import Recording
from rtcore.recording.schema import MAIN_FILE, METADATA_FILE, TICKS_FILE, column_of, frame_columns, require_h5py
from rtcore.scheduling.dispatch import Source, TickKind
from rtcore.spaces import ActionSpec, ArraySpec, ObservationSpec

#: The version of Minari whose format this is: older ones take every image for a JPEG, and refuse this number.
_MINARI_VERSION = "0.5.4"
_OF_EACH_STEP = {"actions": "action", "rewards": "reward", "terminations": "terminated", "truncations": "truncated"}
_INFOS = ("tick", "source", "intervention", "outcome", "worker", "policy_version", "delay_ticks", "due_tick")

#: Rows of a table, as (first, one after the last), in order.
RowRanges = list[tuple[int, int]]


class EpisodeRows(NamedTuple):
    """Where an episode is in the table of ticks."""

    number: int  #: as counted by the run
    reset: int  #: the row of its first observation
    steps: RowRanges  #: of the ticks at which the world stepped
    num_steps: int


def episodes_of(recording: Recording) -> tuple[list[EpisodeRows], int]:
    """The episodes with at least one step; and how many more there are that lack frames."""
    # One column after another, and a byte of each row to keep: a recording may be days long.
    resets = np.flatnonzero(recording.column("kind") == TickKind.RESET)
    numbers = recording.column("episode")[resets].tolist()
    whole = np.diff(recording.column("frame_seq"), prepend=recording.first_frame_seq - 1) == 1
    stepped = recording.column("source") != Source.HELD
    over = recording.column("terminated") | recording.column("truncated")
    found, partial = [], int(len(whole) > 0 and not (len(resets) and resets[0] == 0))
    for number, (begin, end) in zip(numbers, pairwise([*resets.tolist(), len(whole)]), strict=True):
        gaps = np.flatnonzero(~whole[begin + 1 : end + 1])
        stop = begin + 1 + int(gaps[0]) if len(gaps) else end
        # A gap before the episode was over may have held steps of it; rows after a gap are of another one.
        partial += int(len(gaps) > 0 and (stop < end or not over[stop - 1]))
        if (not len(gaps) or over[stop - 1]) and stepped[begin:stop].any():
            steps = _runs(stepped[begin:stop], begin)
            found.append(EpisodeRows(number, begin, steps, sum(last - first for first, last in steps)))
    return found, partial


def write_minari(recording: Recording, progress: Callable[[int, int], None] = lambda done, of: None) -> int:
    """Make main_data.hdf5 and metadata.json beside the recording, whole or not at all; returns how many episodes.

    `progress` gets (episodes done, of so many) now and then. OSError or RuntimeError if the disk is full.
    """
    folder = recording.path.parent
    episodes, partial = episodes_of(recording)
    draft = folder / (MAIN_FILE + ".part")
    try:
        draft.unlink(missing_ok=True)
        with new_file(draft) as file:
            views = _Views(recording, file)
            for index, episode in enumerate(episodes):
                views.add(index, episode)
                if index % 64 == 0:
                    progress(index, len(episodes))
        draft.replace(folder / MAIN_FILE)
        write_json(folder / METADATA_FILE, _metadata(recording, episodes, partial))
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    return len(episodes)


def _metadata(recording: Recording, episodes: list[EpisodeRows], partial: int) -> dict[str, Any]:
    config, world = recording.config, recording.world
    policy = "program" if recording.about.get("played") else str(config["policy"])
    name = str(config["env_id"]).rpartition("/")[2].partition("-v")[0].replace(":", ".").lower()
    spec = world.get("env_spec")
    return {
        "dataset_id": f"rtcore/{name}/{policy.replace(':', '.')}-v0",
        "minari_version": _MINARI_VERSION,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "total_episodes": len(episodes),
        "total_steps": sum(episode.num_steps for episode in episodes),
        "observation_space": json.dumps(_observation_space(recording.observation)),
        "action_space": json.dumps(_space(recording.action)),
        **({"env_spec": spec} if spec else {}),
        "algorithm_name": policy,
        "description": f"A run of rtcore {recording.about['rtcore_version']} at {float(recording.rate_hz)} Hz: "
        "steps are ticks, and an action was chosen from the observation delay_ticks steps before.",
        "rtcore_end": recording.end,
        "rtcore_partial_episodes": partial,
    }


def _observation_space(spec: ObservationSpec) -> dict[str, Any]:
    """As `minari.serialization` writes a space. Of the part "a/b" it is one within another, as its column is."""
    if not spec.parts:
        return _space(spec)
    whole: dict[str, Any] = {"type": "Dict", "subspaces": {}}
    for part in spec.parts:
        *outer, name = part.name.split("/")
        inside = whole["subspaces"]
        for key in outer:
            inside = inside.setdefault(key, {"type": "Dict", "subspaces": {}})["subspaces"]
        inside[name] = _space(part)
    return whole


def _space(spec: ArraySpec) -> dict[str, Any]:
    """As `minari.serialization` writes a space of one array."""
    kind = spec.kind if isinstance(spec, ActionSpec) else "box"
    if kind == "box":
        bounds = {"low": spec.low_array.tolist(), "high": spec.high_array.tolist()}
        return {"type": "Box", "dtype": spec.dtype, "shape": list(spec.shape), **bounds}
    if kind == "discrete" and isinstance(spec, ActionSpec):
        return {"type": "Discrete", "dtype": "int64", "start": int(spec.low[0]), "n": spec.num_choices[0]}
    if kind == "multi_discrete":
        nvec = spec.high_array.astype(np.int64) - spec.low_array + 1
        return {"type": "MultiDiscrete", "dtype": spec.dtype, "nvec": nvec.tolist(), "start": spec.low_array.tolist()}
    return {"type": "MultiBinary", "n": spec.shape[0] if len(spec.shape) == 1 else list(spec.shape)}


class _Views:
    """main_data.hdf5 under a name of its own. With h5py's lower level: its upper one takes six times as long."""

    def __init__(self, recording: Recording, file: Any) -> None:
        self._h5py = require_h5py()
        self._file = file
        self._columns: dict[str, tuple[Any, tuple[int, ...], Any]] = {}
        self._frames = [column.name for column in frame_columns(recording.observation)]
        # Parts of a Dict within a Dict are in a group within a group.
        self._links = self._h5py.h5p.create(self._h5py.h5p.LINK_CREATE)
        self._links.set_create_intermediate_group(True)
        self._links.set_char_encoding(self._h5py.h5t.CSET_UTF8)
        infos = [name for name in _INFOS if recording.has(name)]  # an older recording lacks the newest
        self._infos = (*infos, *map(column_of, recording.kept.names))
        for name in (*self._frames, *_OF_EACH_STEP.values(), *self._infos):
            kind, shape = recording.stored(name)
            self._columns[name] = (kind, shape[1:], self._h5py.h5s.create_simple(shape))

    def add(self, index: int, episode: EpisodeRows) -> None:
        group = self._file.create_group(f"episode_{index}")
        group.attrs["id"], group.attrs["total_steps"] = index, episode.num_steps
        group.attrs["rtcore_episode"] = episode.number
        # Like observations, infos begin with those of the reset.
        from_reset = _joined((episode.reset, episode.reset + 1), episode.steps)
        for column in self._frames:
            self._add(group, "observations" + column.removeprefix("frame"), column, from_reset)
        for name, column in _OF_EACH_STEP.items():
            self._add(group, name, column, episode.steps)
        infos = group.create_group("infos")
        for column in self._infos:
            self._add(infos, column, column, from_reset)

    def _add(self, group: Any, name: str, column: str, rows: RowRanges) -> None:
        h5 = self._h5py
        kind, shape, source = self._columns[column]
        here, origin = h5.h5s.create_simple((sum(end - begin for begin, end in rows), *shape)), (0,) * len(shape)
        mapping = h5.h5p.create(h5.h5p.DATASET_CREATE)
        if column == "reward":
            # Without ticks.hdf5 beside it HDF5 shows fill values: these cannot be taken for rewards.
            mapping.set_fill_value(np.array(np.nan))
        at = 0
        # In the name of a source HDF5 takes % for the beginning of a placeholder.
        where = f"ticks/{column}".replace("%", "%%").encode()
        for begin, end in rows:
            here.select_hyperslab((at, *origin), (end - begin, *shape))
            source.select_hyperslab((begin, *origin), (end - begin, *shape))
            mapping.set_virtual(here, TICKS_FILE.encode(), where, source)
            at += end - begin
        here.select_all()
        h5.h5d.create(group.id, name.encode(), kind, here, mapping, self._links)


def _joined(first: tuple[int, int], rest: RowRanges) -> RowRanges:
    """One run where the two touch."""
    if rest and rest[0][0] == first[1]:
        return [(first[0], rest[0][1]), *rest[1:]]
    return [first, *rest]


def _runs(flags: npt.NDArray[np.bool_], offset: int) -> RowRanges:
    """Where `flags` are set, as runs; their indices plus `offset`."""
    edges = np.flatnonzero(np.diff(flags, prepend=False, append=False)) + offset
    pairs: Iterator[int] = iter(edges.tolist())
    return list(zip(pairs, pairs, strict=True))
