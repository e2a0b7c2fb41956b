"""Writes ticks.hdf5: a table `ticks` and a table `jobs`, a dataset per column, whole chunks as they fill.

A chunk holds about a second and is written once. The file is in HDF5's single-writer mode (SWMR) from the first row
on: whoever kills the writer leaves a file that opens and holds everything up to the last flush, and others may read
it while it grows. It is never opened for writing again; what Minari wants is in a file of its own.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.clock import unix_time_s
from rtcore.config.run import RuntimeConfig
from rtcore.errors import RecordError, key_of
from rtcore.files.strict_json import dumps
from rtcore.memory.layout import LAYOUT_VERSION, LOG_RECORD
from rtcore.messages import RecordingCounts
from rtcore.recording.hdf5 import bound_index, let_go_of, new_file
from rtcore.recording.schema import (
    FORMAT,
    FORMAT_VERSION,
    TICKS_FILE,
    UNFINISHED,
    RecordedColumn,
    column_of,
    frames_by_column,
    job_columns,
    remove_recording,
    require_h5py,
    tick_columns,
)
from rtcore.results.agreement import COMPLETE
from rtcore.spaces import ActionSpec, Block, ObservationSpec
from rtcore.version import __version__

#: Rows of a chunk: about a second, within these bounds, and no more frames than fit the buffer.
_MIN_ROWS, _MAX_ROWS = 16, 4096
_BUFFER_BYTES = 1 << 26
#: Of a larger column, that of frames, a chunk has fewer rows: it is compressed, and read, in one piece.
_LARGEST_CHUNK_BYTES = 1 << 20
_END_BYTES = 64
_Values = Callable[[str, npt.NDArray[Any]], npt.NDArray[Any]]


def end_of(counts: RecordingCounts) -> str:
    """How a recording that was closed has ended: `complete`, or what is missing."""
    lost = [(counts.lost_frames, "frames"), (counts.lost_jobs, "jobs")]
    return ", ".join(f"{count} {what} lost" for count, what in lost if count) or COMPLETE


def describe_run(
    config: RuntimeConfig, world: dict[str, Any], policy: dict[str, Any], rate_hz: Fraction, *, played: bool = False
) -> dict[str, Any]:
    """What a recording says of its run. `world`, `policy`: as in `Runtime.header`. `played`: see `Supervisor`."""
    return {
        "rtcore_version": __version__,
        "env_id": config.world.env_id,
        "seed": world.get("seed", config.world.seed),
        "rate_hz": str(rate_hz),
        "noop": world["noop_value"],
        "clock": config.timing.clock,
        "played": played,
        "started_unix_s": unix_time_s(),
        "first_frame_seq": 0,
        "first_log_seq": 0,
        "config": config.to_jsonable(),
        "world": world,
        "policy": policy,
    }


class RecordingWriter:
    """One recording, from its first row to its end. RecordError for every write that the disk refuses.

    Rows are put where `room` says, then `took`. After an error nothing more is to be called but `abandon`.
    """

    def __init__(
        self,
        folder: Path,
        observation: ObservationSpec,
        action: ActionSpec,
        rate_hz: Fraction,
        row_dtype: np.dtype[Any],
        about: dict[str, Any],
        kept: Block | None = None,
    ) -> None:
        """Makes the file; what an earlier recording left in `folder` is removed.

        `row_dtype`: of `FrameRing.row_dtype`. `about`: attributes of the file: text, numbers, or dicts (as JSON).
        `kept`: of `FrameRing.kept`: what comes with the applied action; None: nothing.
        ConfigError for names of parts that cannot be columns.
        """
        h5py = require_h5py()
        kept = kept or Block()
        columns = tick_columns(observation, action, kept)
        self.path = folder / TICKS_FILE
        self.lost_frames = 0
        self.lost_jobs = 0
        self._bytes = 0
        self._rows_flushed = (0, 0)
        with self._writing():
            remove_recording(folder)
            folder.mkdir(parents=True, exist_ok=True)
            frames_per_chunk, num_rows = chunking(rate_hz, observation.nbytes)
            with new_file(self.path) as file:
                _write_about(file, about | ({"kept": kept.to_json()} if kept else {}))
                _make_datasets(file.create_group("ticks"), columns, num_rows, frames_per_chunk)
                _make_datasets(file.create_group("jobs"), job_columns(), num_rows)
                # Lengths of datasets say nothing after a failed write: only what this counts is whole.
                flushed = file.create_dataset("flushed", data=np.zeros(2, np.int64))
                flushed.attrs["meaning"] = "rows of `ticks` and of `jobs` that are whole: written after them"
            # No chunk cache: chunks are written whole, and HDF5 keeps up to 1 MiB of them for each of the datasets.
            self._file = h5py.File(self.path, "r+", libver="latest", rdcc_nbytes=0, rdcc_nslots=0)
            bound_index(self._file)
            self.frames: npt.NDArray[Any] = np.empty((num_rows, *observation.shape), observation.np_dtype)
            self._seen = frames_by_column(observation, self.frames)
            #: What came with the applied actions; None: nothing ever does.
            self.kept: npt.NDArray[Any] | None = np.zeros(num_rows, kept.dtype) if kept else None
            if self.kept is not None:
                self._seen |= {column_of(name): self.kept[name] for name in kept.names}
            self.ticks = _Table(self._file["ticks"], columns, row_dtype, num_rows)
            self.jobs = _Table(self._file["jobs"], job_columns(), LOG_RECORD.dtype, num_rows)
            self._flushed = self._file["flushed"]
            try:
                self._file.swmr_mode = True
                self._flush()
            except BaseException:
                let_go_of(self._file)
                raise

    @property
    def written(self) -> int:
        """Rows that are in the file, of both tables together."""
        return self.ticks.num_written + self.jobs.num_written

    @property
    def counts(self) -> RecordingCounts:
        """Rows that were flushed: in the file, whatever happens to this process. All of them once it is closed."""
        frames, jobs = self._rows_flushed
        return RecordingCounts(
            frames=frames,
            lost_frames=self.lost_frames,
            jobs=jobs,
            lost_jobs=self.lost_jobs,
            bytes=self._bytes,
        )

    def took_ticks(self, count: int) -> None:
        """`count` rows of `ticks.rows` and `frames`, from `ticks.room` on, are filled in."""
        with self._writing():
            self.ticks.took(count, self._tick_values)

    def took_jobs(self, count: int) -> None:
        """`count` rows of `jobs.rows`, from `jobs.room` on, are filled in."""
        with self._writing():
            self.jobs.took(count, _field_of)

    def flush(self, *, everything: bool = False) -> None:
        """What was written is in the file, whatever happens to this process. `everything`: also half-full chunks."""
        with self._writing():
            if everything:
                self.ticks.write(self._tick_values)
                self.jobs.write(_field_of)
            self._flush()

    def close(self) -> None:
        """All of it, and how complete it is. Nothing if it is closed."""
        if not self._file.id.valid:
            return
        self.flush(everything=True)
        counts = self.counts
        with self._writing():
            attributes = self._file.attrs
            for name in ("frames", "lost_frames", "jobs", "lost_jobs"):
                attributes.modify(name, np.int64(getattr(counts, name)))
            attributes.modify("end", _end(end_of(counts)))
            self._file.close()
            self._bytes = self.path.stat().st_size

    def abandon(self) -> None:
        """After an error, or without a supervisor: let go of the file. It stays as it was flushed last, unfinished."""
        let_go_of(self._file)

    def _tick_values(self, name: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        seen = self._seen.get(name)
        if seen is not None:
            return seen[: len(rows)]
        if name == "delay_ticks":
            return np.where(rows["obs_tick"] < 0, -1, rows["tick"] - rows["obs_tick"])
        return _field_of(name, rows)

    def _flush(self) -> None:
        self._file.flush()
        rows = (self.ticks.num_written, self.jobs.num_written)
        self._flushed[:] = rows
        self._file.flush()
        self._rows_flushed = rows
        self._bytes = self.path.stat().st_size

    def _writing(self) -> AbstractContextManager[None]:
        return failing_as_ours(self.path)


def _write_about(file: Any, about: dict[str, Any]) -> None:
    attributes = file.attrs
    attributes["format"], attributes["format_version"] = FORMAT, FORMAT_VERSION
    attributes["layout_version"] = LAYOUT_VERSION
    for name, value in about.items():
        attributes[name] = dumps(value) if isinstance(value, (dict, list)) else value
    for name in ("frames", "lost_frames", "jobs", "lost_jobs"):
        attributes[name] = np.int64(-1)
    attributes["end"] = _end(UNFINISHED)


def _make_datasets(group: Any, columns: list[RecordedColumn], num_rows: int, frames_per_chunk: int = 1) -> None:
    """An empty one for each column, of chunks of `num_rows`, or, if they are large, of `frames_per_chunk`."""
    for column in columns:
        is_large = column.dtype.itemsize * math.prod(column.shape) * num_rows > _LARGEST_CHUNK_BYTES
        rows_per_chunk = frames_per_chunk if is_large else num_rows
        dataset = group.create_dataset(
            column.name,
            (0, *column.shape),
            column.dtype,
            maxshape=(None, *column.shape),
            chunks=(rows_per_chunk, *(column.shape)),
            compression="gzip",
            compression_opts=1,
            fletcher32=True,
            shuffle=column.dtype.itemsize > 1,
        )
        dataset.attrs["meaning"] = column.meaning
        if column.values is not None:
            dataset.attrs["values"] = json.dumps({int(value): key_of(value) for value in column.values})


class _Table:
    """Datasets of one length, filled by chunks of rows from a buffer."""

    def __init__(self, group: Any, columns: list[RecordedColumn], row_dtype: np.dtype[Any], num_rows: int) -> None:
        self.rows: npt.NDArray[Any] = np.zeros(num_rows, row_dtype)
        self.num_written = 0
        self._filled = 0
        self._datasets = [(column, group[column.name]) for column in columns]

    @property
    def room(self) -> tuple[int, int]:
        """Where the next rows go: first, and one after the last. Never empty."""
        # What is written in the middle of a chunk is followed by the rest of it: chunks stay whole.
        return self._filled, len(self.rows) - self.num_written % len(self.rows)

    def took(self, count: int, values: _Values) -> None:
        self._filled += count
        if self._filled == self.room[1]:
            self.write(values)

    def write(self, values: _Values) -> None:
        """What is in the buffer. `values(name, rows)`: the column `name` of these rows, from the buffer's first on."""
        count, begin = self._filled, self.num_written
        if not count:
            return
        rows = self.rows[:count]
        for column, dataset in self._datasets:
            dataset.resize(begin + count, axis=0)
            dataset[begin:] = values(column.name, rows).astype(column.dtype, copy=False)
        self.num_written, self._filled = begin + count, 0


@contextmanager
def failing_as_ours(path: Path) -> Iterator[None]:
    """In the block an error of the disk becomes a RecordError that names the file and the reason."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise RecordError(
            f"the recording {path} cannot be written: {reason_of(error)}; free some room, or give another folder with "
            "--out"
        ) from error


def _field_of(name: str, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.ascontiguousarray(rows[name])


def chunking(rate_hz: Fraction, frame_bytes: int) -> tuple[int, int]:
    """Frames of a chunk of frames; rows of smaller chunks, a multiple of it."""
    rows = max(_MIN_ROWS, min(_MAX_ROWS, round(rate_hz)))
    rows = max(1, min(rows, _BUFFER_BYTES // frame_bytes))
    frames = max(1, min(rows, _LARGEST_CHUNK_BYTES // frame_bytes))
    return frames, rows // frames * frames


def _end(text: str) -> np.bytes_:
    return np.bytes_(text.encode().ljust(_END_BYTES))


def reason_of(error: Exception) -> str:
    """The reason of an error of HDF5's: the system's message is in the middle of HDF5's own text."""
    found = re.search(r"errno = (\d+)", str(error))
    if found:
        return os.strerror(int(found.group(1)))
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
