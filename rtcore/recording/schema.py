"""What a recording consists of: its files, and the columns of its two tables. The reader and the writer agree here."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.files.outside import SUMS, is_there
from rtcore.host.extras import import_extra
from rtcore.memory.layout import FRAME_HEADER, LOG_RECORD, Record
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.spaces import ActionSpec, Block, ObservationSpec

#: Of a run's folder; Minari wants the files of a data set in a folder `data` of their own.
FOLDER = Path("recording") / "data"
TICKS_FILE = "ticks.hdf5"
MINARI_FILES = (MAIN_FILE, METADATA_FILE) = ("main_data.hdf5", "metadata.json")

FORMAT = "rtcore recording"
FORMAT_VERSION = 1
#: `end` of a recording that is still being written, or whose writer was killed.
UNFINISHED = "unfinished"

_ENUMS: dict[str, type[IntEnum]] = {"kind": TickKind, "source": Source, "outcome": Outcome}
_FLAGS = ("terminated", "truncated", "hold")


@dataclass(frozen=True)
class RecordedColumn:
    """One dataset of a table, a row per tick or job."""

    name: str
    dtype: np.dtype[Any]
    meaning: str
    shape: tuple[int, ...] = ()  #: of one row
    values: type[IntEnum] | None = None  #: what its numbers stand for


#: Columns of `ticks` that recordings before layout versions 7 and 10 lack.
LATER_COLUMNS = ("state_tick", "features_tick", "features_worker", "task_version", "intervention")


def tick_columns(observation: ObservationSpec, action: ActionSpec, kept: Block) -> list[RecordedColumn]:
    """The table `ticks`: a frame header, the action, what came with it, the frame. ConfigError as `frame_columns`."""
    return [
        *_columns_of(FRAME_HEADER),
        RecordedColumn(
            "delay_ticks", np.dtype(np.int64), "tick - obs_tick: how old what it acted on was; -1: no action"
        ),
        RecordedColumn(
            "action", action.np_dtype, "what was applied (the no-op where the world was held)", action.shape
        ),
        *kept_columns(kept),
        *frame_columns(observation),
    ]


def kept_columns(kept: Block) -> list[RecordedColumn]:
    """What came with the action that was applied (`PolicyNeeds.kept`): `extras/NAME`, `state/NAME`, `requested/action`,
    `info/NAME`, `stamp_ns/NAME`, `task/NAME`."""
    meanings = {
        "extras": "given by the policy with its action; 0 where none was applied",
        "state": "what the policy carried into the decision that was applied; 0 where none was",
        "requested": "what was asked for: `action`, unless a person, a shield or a limit changed it",
        "info": "of the world's info after the step",
        "stamp_ns": "when that part of the observation was measured [ns of the run's clock]",
        "task": "of the task of that version; a text is its UTF-8, filled up with 0",
    }
    return [
        RecordedColumn(column_of(name), np.dtype(dtype), meanings[name.partition(".")[0]], shape)
        for name, shape, dtype in kept.fields
    ]


def column_of(name: str) -> str:
    """The column of an array of `PolicyNeeds.kept`: in HDF5 a group for extras, and one for the state."""
    return name.replace(".", "/", 1)


def frame_columns(observation: ObservationSpec) -> list[RecordedColumn]:
    """What was seen: the column `frame`; of a Dict one for each part, `frame/NAME`.

    ConfigError for parts whose names HDF5 cannot tell apart, or cannot have.
    """
    if not observation.parts:
        return [RecordedColumn("frame", observation.np_dtype, "the observation after the step", observation.shape)]
    names = [part.name for part in observation.parts]
    for name in names:
        inside = next((other for other in names if other.startswith(f"{name}/")), None)
        if inside is not None or "\0" in name or not {"", "."}.isdisjoint(name.split("/")):
            why = f"be a column beside {inside!r}" if inside is not None else "be the name of a column"
            raise ConfigError(
                f"record: observation part {name!r} cannot {why}: in HDF5 a '/' separates the names of groups, none of "
                "them empty or '.'. Rename the key in a wrapper"
            )
    meaning = "a part of the observation after the step"
    return [RecordedColumn(f"frame/{part.name}", part.np_dtype, meaning, part.shape) for part in observation.parts]


def frames_by_column(observation: ObservationSpec, frames: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Frames (..., *shape) as `frame_columns` has them: views of `frames`, each (..., *column.shape)."""
    if not observation.parts:
        return {"frame": frames}
    return {f"frame/{name}": part for name, part in observation.unpack(frames).items()}


def job_columns() -> list[RecordedColumn]:
    """The table `jobs`: a record of the job log."""
    return _columns_of(LOG_RECORD)


def _columns_of(record: Record[Any]) -> list[RecordedColumn]:
    columns = []
    for name in record.fields:
        kind = "f8" if name in record.floats else "?" if name in _FLAGS else "i1" if name in _ENUMS else "i8"
        columns.append(RecordedColumn(name, np.dtype(kind), record.docs[name], values=_ENUMS.get(name)))
    return columns


def require_h5py() -> Any:
    """The module h5py; `ConfigError` if it is not installed."""
    return import_extra("h5py", "a recording", "record")


def ticks_file(path: Path) -> Path:
    """The recording that `path` means: the file itself, its folder, or the folder of its run. ConfigError: none."""
    places = [path / FOLDER / TICKS_FILE, path / "data" / TICKS_FILE, path / TICKS_FILE]
    if not (is_there(path, "recording") and path.is_dir()):
        places = [path.with_name(TICKS_FILE) if path.name in MINARI_FILES else path]
    for place in places:
        if is_there(place, "recording") and place.is_file():
            return place
    raise ConfigError(
        f"{path}: no recording; expected {TICKS_FILE} or the folder of a run that was made with "
        "`rtcore-run --record --out DIR`"
    )


def remove_recording(folder: Path) -> None:
    """Whatever an earlier recording left in `folder`."""
    with suppress(NotADirectoryError):  # something else that has the name
        for name in (*MINARI_FILES, TICKS_FILE, SUMS, *(part.name for part in folder.glob("*.part"))):
            (folder / name).unlink(missing_ok=True)
