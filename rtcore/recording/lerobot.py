"""The recording as a LeRobot data set (version 3.0 of https://github.com/huggingface/lerobot): a folder of its own.

Frames are kept as PNG within the tables, without loss, not as videos. A row is a step: what was seen before it, the
action that was applied, what it paid. Written with pyarrow (extra `lerobot`): LeRobot itself pins PyTorch and av in
versions of its own. Episodes are those of the Minari data set.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image as Pillow

from rtcore.errors import ConfigError
from rtcore.files.strict_json import dumps, write_json
from rtcore.host.extras import import_extra
from rtcore.recording.minari import EpisodeRows, episodes_of
from rtcore.recording.reader import Recording
from rtcore.spaces import ObservationSpec
from rtcore.spaces.image import ImageOf, arrays_of, is_image, specs_of

_VERSION = "v3.0"
#: Rows of a data file, of which one is written at a time: frames of so many bytes, at most.
_FILE_BYTES = 64 << 20
_FILES_IN_CHUNK = 1000
_DATA, _EPISODES = "data/chunk-{:03d}/file-{:03d}.parquet", "meta/episodes/chunk-{:03d}/file-{:03d}.parquet"
#: Of each step, beside what was seen and done: column of the recording, and under which name.
_BESIDE = {
    "reward": "next.reward",
    "tick": "info.tick",
    "delay_ticks": "info.delay_ticks",
    "worker": "info.worker",
    "source": "info.source",
    "intervention": "info.intervention",
}
_COUNTED = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def write_lerobot(
    recording: Recording, folder: Path, progress: Callable[[int, int], None] = lambda done, of: None
) -> int:
    """Make the data set.

    Args:
        recording: A run's.
        folder: To be made; there must be nothing of that name yet.
        progress: Gets (episodes done, of so many) after each.

    Returns:
        How many episodes it has.

    Raises:
        ConfigError: pyarrow is missing, the folder is there, or no episode of the recording is whole.
    """
    _parquet()
    episodes, _ = episodes_of(recording)
    if not episodes:
        raise ConfigError(f"{recording.path}: holds no whole episode with a step: nothing to export")
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ConfigError(f"{folder}: is there already; a data set is made in a folder of its own") from error
    columns = _Columns(recording)
    task = str(recording.config["env_id"])
    # Those of an image are (channels, 1, 1).
    stats = {
        name: _Stats((3, 1, 1) if feature["dtype"] == "image" else tuple(feature["shape"]))
        for name, feature in columns.features.items()
    }
    about: list[dict[str, Any]] = []
    first = 0
    rows_of_a_file = max(1, _FILE_BYTES // recording.observation.nbytes)
    for place, group in enumerate(_groups(episodes, rows_of_a_file)):
        chunk, file = divmod(place, _FILES_IN_CHUNK)
        tables: list[dict[str, Any]] = []
        for episode in group:
            number, steps = len(about), episode.num_steps
            table = columns.of(episode)
            table["timestamp"] = np.arange(steps, dtype=np.float32) / np.float32(columns.fps)
            table |= {"frame_index": np.arange(steps), "episode_index": np.full(steps, number)}
            table |= {"index": np.arange(first, first + steps), "task_index": np.zeros(steps, np.int64)}
            for name, one in stats.items():
                one.add(columns.numbers(name, table[name]))
            about.append(
                {
                    "episode_index": number,
                    "tasks": [task],
                    "length": steps,
                    "data/chunk_index": chunk,
                    "data/file_index": file,
                    "dataset_from_index": first,
                    "dataset_to_index": first + steps,
                    "meta/episodes/chunk_index": 0,
                    "meta/episodes/file_index": 0,
                    "rtcore_episode": episode.number,
                }
            )
            tables.append(table)
            first += steps
            progress(len(about), len(episodes))
        _write(folder / _DATA.format(chunk, file), columns.merged(tables))
    _write(folder / _EPISODES.format(0, 0), {name: [row[name] for row in about] for name in about[0]})
    _write(folder / "meta/tasks.parquet", {"task_index": [0], "task": [task]}, index="task")
    write_json(folder / "meta/stats.json", {name: one.to_json() for name, one in stats.items()})
    info = {
        "codebase_version": _VERSION,
        "robot_type": "rtcore",
        "total_episodes": len(episodes),
        "total_frames": first,
        "total_tasks": 1,
        "chunks_size": _FILES_IN_CHUNK,
        "data_files_size_in_mb": _FILE_BYTES >> 20,
        "video_files_size_in_mb": 0,
        "fps": columns.fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": _DATA.replace("{:03d}", "{chunk_index:03d}", 1).replace("{:03d}", "{file_index:03d}", 1),
        "video_path": None,
        "features": columns.features,
    }
    # The last one: a folder without it is no data set.
    write_json(folder / "meta/info.json", info)
    return len(episodes)


def _parquet() -> Any:
    return import_extra("pyarrow.parquet", "a data set for LeRobot", "lerobot")


def _groups(episodes: list[EpisodeRows], rows: int) -> Iterator[list[EpisodeRows]]:
    """Episodes that share a file: at least one, at most so many rows if it is more than one."""
    group: list[EpisodeRows] = []
    count = 0
    for episode in episodes:
        if group and count + episode.num_steps > rows:
            yield group
            group, count = [], 0
        group.append(episode)
        count += episode.num_steps
    yield group


class _Columns:
    """What becomes of the columns of a recording, and how it is described."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        rate = recording.rate_hz
        self.fps: int | float = int(rate) if rate.denominator == 1 else float(rate)
        observation = recording.observation
        self._images = {
            f"observation.images.{name.replace('/', '.') or 'world'}": ImageOf(observation, name)
            for name, spec in specs_of(observation).items()
            if is_image(spec)
        }
        self._vectors = {
            f"observation.{name.replace('/', '.') or 'state'}": name
            for name, spec in specs_of(observation).items()
            if not is_image(spec)
        }
        self.features: dict[str, dict[str, Any]] = {}
        for name, image in self._images.items():
            shape, names = [image.height, image.width, 3], ["height", "width", "channels"]
            self.features[name] = {"dtype": "image", "shape": shape, "names": names}
        for name, part in self._vectors.items():
            spec = specs_of(observation)[part]
            self._describe(name, spec.dtype, int(np.prod(spec.shape, dtype=int)))
        action = recording.action
        self._describe("action", action.dtype, int(np.prod(action.shape, dtype=int)))
        self._describe("next.done", "bool", 1)
        #: An older recording lacks the newest.
        self._beside = {column: name for column, name in _BESIDE.items() if recording.has(column)}
        for column, name in self._beside.items():
            self._describe(name, "float32" if column == "reward" else "int64", 1)
        for name in _COUNTED:
            self._describe(name, "float32" if name == "timestamp" else "int64", 1)

    def _describe(self, name: str, dtype: str, size: int) -> None:
        self.features[name] = {"dtype": dtype, "shape": [size], "names": None}

    def of(self, episode: EpisodeRows) -> dict[str, Any]:
        """One episode: (steps,) or (steps, size) each; images as PNG."""
        rows = np.concatenate([np.arange(first, last) for first, last in episode.steps])
        seen = np.concatenate([[episode.reset], rows[:-1]])
        begin, end = episode.reset, int(rows[-1]) + 1

        def column(name: str, of: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
            return self._recording.column(name, begin, end)[of - begin]

        parts = arrays_of(self._observation, column("frame", seen))
        table: dict[str, Any] = {
            name: [_png(image.of_part(array)) for array in parts[image.name]] for name, image in self._images.items()
        }
        table |= {name: _flat(parts[part]) for name, part in self._vectors.items()}
        table["action"] = _flat(column("action", rows))
        table["next.done"] = column("terminated", rows) | column("truncated", rows)
        for of, name in self._beside.items():
            table[name] = column(of, rows).astype(self.features[name]["dtype"])
        return table

    @property
    def _observation(self) -> ObservationSpec:
        return self._recording.observation

    def merged(self, tables: list[dict[str, Any]]) -> dict[str, Any]:
        """Episodes one after another, in the order of the features."""
        return {
            name: [value for table in tables for value in table[name]]
            if name in self._images
            else np.concatenate([table[name] for table in tables])
            for name in self.features
        }

    def numbers(self, name: str, values: Any) -> npt.NDArray[np.float64]:
        """(n, size) for statistics; of images (n, 3): the mean of each channel, from 0 to 1."""
        if name in self._images:
            levels = [np.asarray(Pillow.open(io.BytesIO(value["bytes"]))).mean(axis=(0, 1)) / 255 for value in values]
            return np.array(levels)
        return np.asarray(values, np.float64).reshape(len(values), -1)


class _Stats:
    """Least, largest, mean and deviation of each number, of all steps."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        """`shape`: of each of these in the file."""
        self._shape = shape
        self._count = 0
        self._min: Any = np.inf
        self._max: Any = -np.inf
        self._sum: Any = 0.0
        self._squares: Any = 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """(n, size), n at least 1."""
        self._count += len(values)
        self._min, self._max = np.minimum(self._min, values.min(0)), np.maximum(self._max, values.max(0))
        self._sum, self._squares = self._sum + values.sum(0), self._squares + (values**2).sum(0)

    def to_json(self) -> dict[str, Any]:
        mean = self._sum / self._count
        std = np.sqrt(np.maximum(self._squares / self._count - mean**2, 0))
        found = {"min": self._min, "max": self._max, "mean": mean, "std": std}
        return {name: np.asarray(value).reshape(self._shape).tolist() for name, value in found.items()} | {
            "count": [self._count]
        }


def _flat(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(n, size); (n,) where size is 1, as LeRobot has them."""
    flat = array.reshape(len(array), -1)
    return flat[:, 0] if flat.shape[1] == 1 else flat


def _png(image: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """As the `datasets` of Hugging Face keep an image in a table."""
    file = io.BytesIO()
    Pillow.fromarray(np.broadcast_to(image, (*image.shape[:2], 3))).save(file, "PNG", compress_level=1)
    return {"bytes": file.getvalue(), "path": None}


def _write(path: Path, columns: Mapping[str, Any], index: str | None = None) -> None:
    """`index`: the column that pandas takes for its index."""
    import pyarrow  # noqa: PLC0415 - an extra

    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {name: list(value) if getattr(value, "ndim", 1) == 2 else value for name, value in columns.items()}
    table = pyarrow.table(arrays)
    if index is not None:
        kinds = {"string": ("unicode", "object"), "int64": ("int64", "int64")}
        about = [
            {"name": field.name, "field_name": field.name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
            for field in table.schema
            for kind, numpy in [kinds[str(field.type)]]
        ]
        pandas = {"index_columns": [index], "column_indexes": [], "columns": about, "pandas_version": "2.0.0"}
        table = table.replace_schema_metadata({"pandas": dumps(pandas)})
    _parquet().write_table(table, path)
