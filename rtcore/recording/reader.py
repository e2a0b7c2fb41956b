"""Reads a recording back: of a run that is over, goes on, or was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rtcore.clock import rate_from
from rtcore.errors import ConfigError
from rtcore.memory.layout import FrameHeader
from rtcore.recording.inspection import check_datasets, inspect
from rtcore.recording.schema import (
    FORMAT,
    FORMAT_VERSION,
    LATER_COLUMNS,
    UNFINISHED,
    column_of,
    frames_by_column,
    job_columns,
    require_h5py,
    tick_columns,
    ticks_file,
)
from rtcore.scheduling.jobs import JobRow
from rtcore.spaces import ActionSpec, Block, ObservationSpec, PolicyNeeds
from rtcore.spaces.payload import REQUESTED

if TYPE_CHECKING:
    from rtcore.messages import RecordingCounts

_BLOCK_ROWS = 1024
_SUPERBLOCK_FLAGS_AT = 11
_BLOCK_BYTES = 1 << 25


class RecordedTick(NamedTuple):
    """A tick that ran: what happened, what was applied, what was seen after it. Arrays are copies."""

    header: FrameHeader
    action: npt.NDArray[Any]  #: as in the action space; decode with `Recording.action.decode`
    frame: npt.NDArray[Any]  #: as in the ring; of a Dict `Recording.observation.unpack` gives the parts
    requested: npt.NDArray[Any]  #: the action asked for: `action`, unless a person, a shield or a limit changed it


class Recording:
    """A recording, read only. Use it as a context manager; values are those of when it was opened."""

    def __init__(self, path: Path, *, is_known: bool = False, limit_s: float | None = None) -> None:
        """Opens it, once it was found whole: by its checksum, or read once by a process of its own.

        Args:
            path: ticks.hdf5, its folder, or its run's.
            limit_s: How long that process may take; default: 20 s and a second for each 10 MB.
            is_known: This program wrote it just now, or looked into it before: open it at once.

        Raises:
            ConfigError: There is none, or it is damaged.
        """
        self.path = ticks_file(path)
        if not is_known:
            inspect(self.path, limit_s)
        self._file = _open(self.path)
        try:
            self._read_about()
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError, OSError, RuntimeError) as error:
            self._file.close()
            raise ConfigError(
                f"{self.path}: is damaged, or no recording ({type(error).__name__}: {error}). Use another copy"
            ) from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    # -- what it is of --------------------------------------------------------------------------------------

    def _read_about(self) -> None:
        about = dict(self._file.attrs)
        if about.get("format") != FORMAT or about.get("format_version") != FORMAT_VERSION:
            raise ConfigError(
                f"{self.path}: format {about.get('format')!r} version {about.get('format_version')}; expected "
                f"{FORMAT!r} version {FORMAT_VERSION}. Read it with the rtcore that wrote it"
            )
        #: Every attribute of the file; those that hold JSON as text.
        self.about = about
        self.config: dict[str, Any] = json.loads(about["config"])
        self.world: dict[str, Any] = json.loads(about["world"])
        self.observation = ObservationSpec.from_json(self.world["observation"])
        self.action = ActionSpec.from_json(self.world["action"])
        #: What came with each applied action: extras, and the state that the policy carried into its decision.
        self.kept = Block.from_json(json.loads(about["kept"])) if "kept" in about else Block()
        #: Index of the worker that was the head; -1: the policy had one speed.
        self.head = int(json.loads(about["policy"]).get("head", -1)) if "policy" in about else -1
        self.rate_hz = rate_from(str(about["rate_hz"]))
        self.first_frame_seq = int(about["first_frame_seq"])
        self.first_log_seq = int(about["first_log_seq"])
        #: "complete", "N frames lost", ...; "unfinished": still being written, or its writer was killed.
        self.end = bytes(about["end"]).decode().rstrip()
        ticks, jobs = tick_columns(self.observation, self.action, self.kept), job_columns()
        ticks = [column for column in ticks if column.name in self._file["ticks"] or column.name not in LATER_COLUMNS]
        expected = {
            f"{table}/{column.name}": (column.dtype, column.shape)
            for table, columns in (("ticks", ticks), ("jobs", jobs))
            for column in columns
        }
        found = check_datasets(self.path, self._file, expected | {"flushed": (np.dtype(np.int64), ())})
        self._ticks = {column.name: found[f"ticks/{column.name}"] for column in ticks}
        self._jobs = {column.name: found[f"jobs/{column.name}"] for column in jobs}
        # Columns may be longer, by rows that were being written when the writer was killed or the disk was full.
        num_ticks, num_jobs = found["flushed"][()].tolist()
        self.num_ticks: int = max(0, min(num_ticks, *map(len, self._ticks.values())))
        self.num_jobs: int = max(0, min(num_jobs, *map(len, self._jobs.values())))

    @property
    def is_finished(self) -> bool:
        """Whether its writer came to its end."""
        return self.end != UNFINISHED

    @cached_property
    def lost_frames(self) -> int:
        """Frames that the ring lapped, up to the last one that is there."""
        return _missing(self.column("frame_seq"), self.first_frame_seq)

    @cached_property
    def lost_jobs(self) -> int:
        """Job records that the log lapped, up to the last one that is there."""
        return _missing(self.jobs("log_seq")["log_seq"], self.first_log_seq)

    @property
    def counts(self) -> RecordingCounts:
        """As its writer counts them: what is there, and what the rings lapped before the last row that is there."""
        # All settings come with it: a third of the start of the process that only looks into a file.
        from rtcore.messages import RecordingCounts  # noqa: PLC0415

        return RecordingCounts(
            frames=self.num_ticks,
            lost_frames=self.lost_frames,
            jobs=self.num_jobs,
            lost_jobs=self.lost_jobs,
            bytes=self.path.stat().st_size,
        )

    # -- what is in it --------------------------------------------------------------------------------------

    def column(self, name: str, begin: int = 0, end: int | None = None) -> npt.NDArray[Any]:
        """Rows of a tick column, read from the file.

        Args:
            name: A field of `FrameHeader`, `delay_ticks`, `action`, `extras/NAME`, `state/NAME`,
                `requested/action`, `info/NAME`, `stamp_ns/NAME`, `task/NAME` or `frame`. Of a Dict
                `frame` is the frames as they were in the ring, of its parts, and `frame/NAME` is one part.
            begin: First row.
            end: Row after the last; None: to the end.

        Returns:
            (rows, ...) of the column's dtype: a copy.
        """
        end = self.num_ticks if end is None else min(self.num_ticks, end)
        if name == "frame" and self.observation.parts:
            frames = np.zeros((max(0, end - begin), *self.observation.shape), self.observation.np_dtype)
            # What is between the parts is 0 in every frame.
            for column, part in frames_by_column(self.observation, frames).items():
                part[...] = self._ticks[column][begin:end]
            return frames
        values: npt.NDArray[Any] = self._ticks[name][begin:end]
        return values

    def _header_column(self, name: str, first: int, last: int) -> npt.NDArray[Any]:
        """Of a field of `FrameHeader`; an older recording lacks the newest, which say of it that there was none."""
        if name in self._ticks:
            return self.column(name, first, last)
        return np.full(last - first, FrameHeader._field_defaults[name])

    def has(self, name: str) -> bool:
        """Whether there is such a tick column."""
        return name in self._ticks

    def stored(self, name: str) -> tuple[Any, tuple[int, ...]]:
        """HDF5 type and shape of a tick column as it is in the file: for virtual datasets that refer to it."""
        return self._ticks[name].id.get_type(), self._ticks[name].shape

    def copy_into(self, file: Any) -> None:
        """Copy everything that is whole.

        Args:
            file: An empty h5py file, open for writing.
        """
        for name, value in self.about.items():
            file.attrs[name] = value
        for name in ("ticks", "jobs", "flushed"):
            self._file.copy(name, file)
        for table, columns, count in (("ticks", self._ticks, self.num_ticks), ("jobs", self._jobs, self.num_jobs)):
            for column in columns:
                file[table][column].resize(count, axis=0)

    def task_at(self, row: int) -> bytes:
        """What world and booked jobs were given as their task at the tick of a row.

        Args:
            row: From 0.

        Returns:
            A block of the world's `TaskSpec`; empty where the run had no task.
        """
        block = PolicyNeeds(world=self.kept).task_of_world
        raw = bytearray(block.nbytes)
        for name, array in block.views(raw).items():
            array[...] = self.column(f"task/{name}", row, row + 1)[0]
        return bytes(raw)

    def jobs(self, *names: str) -> dict[str, npt.NDArray[Any]]:
        """Columns of the job log.

        Args:
            names: Fields of `JobRow`; none: all of them.

        Returns:
            (num_jobs,) by name: copies.
        """
        return {name: self._jobs[name][: self.num_jobs] for name in names or JobRow._fields}

    def ticks(self, begin: int = 0, end: int | None = None) -> Iterator[RecordedTick]:
        """Ticks one by one, read in blocks: memory does not grow with the length of the run.

        Args:
            begin: First row.
            end: Row after the last; None: to the end.

        Yields:
            Header, action and frame of each tick that is in the recording.
        """
        end = min(self.num_ticks, self.num_ticks if end is None else end)
        block = max(1, min(_BLOCK_ROWS, _BLOCK_BYTES // self.observation.nbytes))
        for first in range(begin, end, block):
            last = min(end, first + block)
            # Python's own numbers: a bool column is 0 and 1 in a header.
            columns = [self._header_column(name, first, last) for name in FrameHeader._fields]
            numbers = [(values * 1).tolist() if values.dtype == bool else values.tolist() for values in columns]
            actions, frames = self.column("action", first, last), self.column("frame", first, last)
            asked = column_of(REQUESTED)
            requested = self.column(asked, first, last) if asked in self._ticks else actions
            for row, values in enumerate(zip(*numbers, strict=True)):
                yield RecordedTick(FrameHeader._make(values), actions[row], frames[row], requested[row])


def _missing(seqs: npt.NDArray[Any], first: int) -> int:
    return int(seqs[-1]) + 1 - first - len(seqs) if len(seqs) else 0


def _open(path: Path) -> Any:
    h5py = require_h5py()
    try:
        try:
            return h5py.File(path, "r")
        except OSError:
            # One that is being written, or whose writer was killed. Of another that fails, HDF5 would try to read what
            # is damaged again and again.
            if not _is_being_written(path):
                raise
            return h5py.File(path, "r", swmr=True)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read as a recording ({error}). Was its run killed before its first tick?"
        ) from error


def _is_being_written(path: Path) -> bool:
    """By the flags in HDF5's superblock (version 3): "open for writing", "SWMR"."""
    with path.open("rb") as file:
        head = file.read(_SUPERBLOCK_FLAGS_AT + 1)
    return len(head) > _SUPERBLOCK_FLAGS_AT and head[_SUPERBLOCK_FLAGS_AT] != 0


@contextmanager
def fitting_together(recording: Recording) -> Iterator[None]:
    """ConfigError for what goes wrong in the block because rows of the file contradict each other.

    A checksum does not tell: the file was made like that.
    """
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{recording.path}: its rows do not fit together ({type(error).__name__}: {error}); rtcore writes none such"
        ) from error
