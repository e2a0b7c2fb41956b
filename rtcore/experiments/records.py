"""What a cell leaves: one small JSON file, whole or not there. Reports read these files, and nothing else.

    OUT/sweep.json           every cell of the sweep with its fingerprint: what is missing or of an older file is known
    OUT/cells/NAME.json      one `CellRecord`, with a result or an error

Everything of a record but `cost` is the same whenever, wherever and beside whatever the cell was played, on the virtual
clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from rtcore.config.run import SETTINGS
from rtcore.errors import ConfigError
from rtcore.experiments.sweepfile import Cell
from rtcore.files.outside import is_there, parse_object, read_bytes
from rtcore.files.strict_json import write_json
from rtcore.files.values import to_json

SCHEMA_VERSION: Literal[1] = 1
CELLS, MANIFEST = "cells", "sweep.json"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Spread(_Strict):
    """Of a quantity in ticks over the actions that were applied; null of none."""

    min: int | None
    max: int | None
    mean: float | None


class CellResult(_Strict):
    """What the judged run came to. None where there is no such number (no episode, no action)."""

    returns: list[float]  #: of each episode that ended, in order
    episode_ticks: list[int]  #: their lengths
    ticks: int  #: that were played
    points: float  #: rewards of all these ticks, the unfinished episode's included
    acted_fraction: float | None  #: of the ticks at which a policy action could be due
    delay_ticks: Spread  #: from frame to action
    interval_ticks: Spread  #: between two actions
    workers: int  #: planned
    rate_hz: float
    tau_ms: float  #: mean inference time of the plan
    updates: int = 0  #: of learning
    #: (tick, mean return) over the training: of the episodes that ended in each hundredth of it, if any did.
    curve: list[tuple[int, float]] = []


class Cost(_Strict):
    """What it took, where: not part of what a cell comes to."""

    cpu_s: float | None  #: of a cell that failed: not known
    wall_s: float
    host: str


class CellRecord(_Strict):
    """A cell's file: it has a `result` or an `error`."""

    schema_version: Literal[1]
    name: str
    axes: dict[str, bool | int | float | str]
    role: str | None = None  #: of the agent, for reports
    best_known: float | None = None  #: return of the world, for reports
    settings: dict[str, Any]  #: flat, those that somebody gave: everything else has its default
    fingerprint: str
    result: CellResult | None = None
    error: str | None = None
    notes: list[str] = []  #: what was warned of
    cost: Cost

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if (self.result is None) == (self.error is None):
            raise ValueError("expected a result or an error")
        return self

    @property
    def seed(self) -> int:
        return int(self.axes["seed"])


def record_of(cell: Cell, rate_hz: Fraction, cost: Cost, outcome: CellResult | str, notes: Sequence[str]) -> CellRecord:
    """The record of a cell that came to that result, or that failed with the error of that text.

    Args:
        cell: Which one.
        rate_hz: Of its world.
        cost: What it took.
        outcome: A result, or the text of an error.
        notes: What was warned of.
    """
    given = cell.config(rate_hz).given
    return CellRecord(
        schema_version=SCHEMA_VERSION,
        name=cell.name,
        axes=cell.axes,
        role=cell.role,
        best_known=cell.best_known,
        settings=to_json({name: value for name, value in given.items() if value != SETTINGS[name].default}),
        fingerprint=cell.fingerprint,
        result=outcome if isinstance(outcome, CellResult) else None,
        error=outcome if isinstance(outcome, str) else None,
        notes=list(notes),
        cost=cost,
    )


def cell_file(folder: Path, name: str) -> Path:
    """Where a cell's record is."""
    return folder / CELLS / f"{name}.json"


def write_record(folder: Path, record: CellRecord) -> None:
    """Whole, on the disk itself, or not at all. OSError."""
    left_out = {"error"} if record.error is None else {"result"}
    write_json(cell_file(folder, record.name), record.model_dump(mode="json", exclude=left_out), indent=None, sync=True)


def read_record(path: Path) -> CellRecord:
    """A cell's file. ConfigError if it is none that rtcore wrote."""
    try:
        return CellRecord.model_validate(parse_object(read_bytes(path, "cell"), path, "cell"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"cell: {path} is not what rtcore-sweep wrote ({place}: {first['msg']}); remove it, and give the sweep's "
            "command again"
        ) from error


class Manifest(NamedTuple):
    """Which cells a sweep has."""

    file: str  #: the sweep file's name
    fingerprints: dict[str, str]  #: by cell


def write_manifest(folder: Path, file: str, cells: Sequence[Cell]) -> None:
    """sweep.json. OSError."""
    fingerprints = {cell.name: cell.fingerprint for cell in cells}
    write_json(folder / MANIFEST, {"schema_version": SCHEMA_VERSION, "file": file, "cells": fingerprints})


def read_manifest(folder: Path) -> Manifest:
    """ConfigError if there is none, or if it is none that rtcore wrote."""
    path = folder / MANIFEST
    if not is_there(path, "sweep"):
        raise ConfigError(f"{folder} is no folder of a sweep: it has no {MANIFEST}; expected what rtcore-sweep wrote")
    content = parse_object(read_bytes(path, "sweep"), path, "sweep")
    cells = content.get("cells")
    if not isinstance(cells, dict) or not all(isinstance(value, str) for value in cells.values()):
        raise ConfigError(f"sweep: {path} is not what rtcore-sweep wrote: it lists no cells; give the command again")
    return Manifest(str(content.get("file", "")), cells)


@dataclass(frozen=True)
class SweepRecords:
    """What there is of a sweep, in the order of its file."""

    cells: list[CellRecord] = field(default_factory=list)  #: with a result
    failed: list[CellRecord] = field(default_factory=list)  #: with an error
    missing: list[str] = field(default_factory=list)  #: without a file, or one of other settings
    stale: list[str] = field(default_factory=list)  #: files of cells, or of settings, that the sweep has not any more


def read_sweep(folder: Path) -> SweepRecords:
    """All records of a sweep's folder. ConfigError as `read_manifest` and `read_record`.

    A record of other settings than those of the sweep is not among the cells: two kinds would be mixed.
    """
    expected = read_manifest(folder).fingerprints
    found = SweepRecords(stale=sorted({path.stem for path in (folder / CELLS).glob("*.json")} - expected.keys()))
    for name, fingerprint in expected.items():
        path = cell_file(folder, name)
        record = read_record(path) if path.exists() else None
        if record is None:
            found.missing.append(name)
        elif record.fingerprint != fingerprint:
            found.missing.append(name)
            found.stale.append(name)
        else:
            (found.failed if record.result is None else found.cells).append(record)
    return found
