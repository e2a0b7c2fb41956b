"""A whole sweep: which cells are left, each played once, each record written the moment that it is known.

Whatever is killed, and whenever, the folder holds whole records of finished cells; the same call goes on with the
others. One sweep at a time has the folder.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol, TypeAlias

from rtcore.errors import ConfigError, RecordError
from rtcore.experiments.local import CHECK, Backend, Ended, LocalBackend
from rtcore.experiments.records import (
    CellRecord,
    CellResult,
    cell_file,
    read_record,
    record_of,
    write_manifest,
    write_record,
)
from rtcore.experiments.sweepfile import Cell

#: Between two looks at the cells that are being played.
_POLL_S = 0.25
#: In the sweep's folder, while cells are played: what they need meanwhile; and room that is kept free for the records
#: of those that are being played when the disk gets full.
SCRATCH, _RESERVE, _RESERVE_BYTES = ".scratch", ".reserve", 4 << 20


#: Cells that differ in nothing but seed and lateness are of one kind.
_LATENESS = ("delay_ticks", "latency_ms", "latency")
_Kind: TypeAlias = tuple[tuple[str, object], ...]


class SweepView(Protocol):
    """Where a sweep is shown: see `rtcore.experiments.progress`."""

    def update(self, shares: Mapping[str, float]) -> None:
        """How much is done of each that is being played."""
        ...

    def ended(self, record: CellRecord) -> None:
        """A cell is over, and its record written."""
        ...


@dataclass
class CellsInFolder:
    """What there is of a sweep's cells in its folder."""

    done: list[CellRecord] = field(default_factory=list)
    #: Without a result, in the order in which they are played; of them, those that failed at the last call.
    left: list[Cell] = field(default_factory=list)
    failed_before: set[str] = field(default_factory=set)


def find(folder: Path, cells: Sequence[Cell]) -> CellsInFolder:
    """Which cells are done: with a result, of the very settings that the sweep file says now. ConfigError: see
    `read_record`."""
    found = CellsInFolder()
    for cell in cells:
        path = cell_file(folder, cell.name)
        record = read_record(path) if path.exists() else None
        if record is None or record.fingerprint != cell.fingerprint or record.result is None:
            found.left.append(cell)
            if record is not None and record.error is not None:
                found.failed_before.add(cell.name)
        else:
            found.done.append(record)
    return found


def begin_sweep(folder: Path, file: Path, cells: Sequence[Cell]) -> None:
    """What the folder says of the sweep, and room for its last records. It is locked. RecordError for a full disk."""
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)  # of a sweep that was killed
    try:
        write_manifest(folder, file.name, cells)
        by_name = {cell.name: cell for cell in cells}
        for record in find(folder, cells).done:  # what is only shown may have changed since
            cell = by_name[record.name]
            if (record.role, record.best_known) != (cell.role, cell.best_known):
                now = record.model_copy(update={"role": cell.role, "best_known": cell.best_known})
                write_record(folder, now)
        with (folder / _RESERVE).open("wb") as reserve:
            os.posix_fallocate(reserve.fileno(), 0, _RESERVE_BYTES)
    except OSError as error:
        raise _refused(folder, error) from error


def end_sweep(folder: Path) -> None:
    """The room is given back."""
    with suppress(OSError):
        (folder / _RESERVE).unlink(missing_ok=True)


def check_cells(cells: Sequence[Cell], local: LocalBackend, told: Callable[[int, int], None]) -> dict[str, Fraction]:
    """Have the worlds, policies and learners of all cells made once, before the first one is played.

    Of cells that differ in nothing but seed and delay the one with the longest delay stands for all.

    Args:
        cells: All that are to be played.
        local: Where.
        told: How many are checked, of how many.

    Returns:
        The tick rate of each cell's world [Hz], by the cell's name.

    Raises:
        ConfigError: A cell is refused; it is named.
    """
    kinds: dict[_Kind, Cell] = {}
    for cell in cells:
        kinds[_kind(cell)] = max(kinds.get(_kind(cell), cell), cell, key=_lateness)
    waiting, under_way = deque(kinds.values()), 0
    rates: dict[_Kind, Fraction] = {}
    while waiting or under_way:
        while waiting and under_way < local.places:
            local.start(waiting.popleft(), Fraction(1), CHECK)
            under_way += 1
        for ended in local.poll(_POLL_S):
            under_way -= 1
            if ended.result is None:
                error = ConfigError(f"cell {ended.cell.name}: {ended.error}")
                if ended.traceback:
                    error.add_note(ended.traceback)
                raise error
            rates[_kind(ended.cell)] = Fraction(ended.result["rate_hz"])
            told(len(rates), len(kinds))
    return {cell.name: rates[_kind(cell)] for cell in cells}


def _kind(cell: Cell) -> _Kind:
    return tuple((axis, value) for axis, value in cell.axes.items() if axis not in ("seed", *_LATENESS))


def _lateness(cell: Cell) -> float:
    return max((float(value) for axis in _LATENESS if not isinstance(value := cell.axes.get(axis, 0), str)), default=0)


def play_cells(
    folder: Path, cells: Sequence[Cell], rates: Mapping[str, Fraction], backend: Backend, view: SweepView
) -> list[CellRecord]:
    """Play them, and write each record the moment that the cell is over.

    When the disk is full no further cell is begun; those that are being played come to their end, and have room kept
    for them.

    Args:
        folder: Of the sweep.
        cells: In the order in which they are begun.
        rates: Tick rate of each cell's world [Hz], by the cell's name.
        backend: Where they are played.
        view: Told of everything.

    Returns:
        Those that failed.

    Raises:
        RecordError: The disk refused a record.
    """
    waiting, under_way = deque(cells), 0
    failed: list[CellRecord] = []
    refusal: OSError | None = None
    unwritten: list[CellRecord] = []
    while under_way or (waiting and refusal is None):
        while waiting and refusal is None and under_way < backend.places:
            cell = waiting.popleft()
            try:
                backend.start(cell, rates[cell.name])
            except OSError as error:
                refusal = error
            else:
                under_way += 1
        for ended in backend.poll(_POLL_S):
            under_way -= 1
            record = _record(ended, rates[ended.cell.name])
            try:
                write_record(folder, record)
            except OSError as error:
                refusal = error
                unwritten.append(record)
                unwritten = _written_into_reserve(folder, unwritten)
            if record not in unwritten:
                view.ended(record)
            if record.error is not None:
                failed.append(record)
        view.update(backend.shares())
    if refusal is not None:
        unwritten = _written_into_reserve(folder, unwritten)
        raise _refused(folder, refusal, unwritten)
    return failed


def _record(ended: Ended, rate_hz: Fraction) -> CellRecord:
    if ended.result is not None:
        outcome: CellResult | str = CellResult.model_validate(ended.result)
    else:
        outcome = f"{ended.error}\n{ended.traceback}" if ended.traceback else ended.error
    return record_of(ended.cell, rate_hz, ended.cost, outcome, ended.notes)


def _written_into_reserve(folder: Path, records: list[CellRecord]) -> list[CellRecord]:
    """Write what the disk had no room for into that which was kept free; returns what still cannot be written."""
    end_sweep(folder)
    left = []
    for record in records:
        try:
            write_record(folder, record)
        except OSError:
            left.append(record)
    return left


def _refused(folder: Path, error: OSError, unwritten: Sequence[CellRecord] = ()) -> RecordError:
    what = "free some room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "make it writable"
    lost = ", ".join(record.name for record in unwritten)
    kept = f"but {lost}, which will be played again" if lost else "all that were finished"
    return RecordError(
        f"cells' files in {folder} cannot be written: {error.strerror or error}; no further cell was begun. Kept are "
        f"{kept}. {what.capitalize()}, and give the same command again"
    )
