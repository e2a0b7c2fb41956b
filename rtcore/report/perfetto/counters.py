"""What the curves of a trace are made of: rows of actions.csv, one at a time, as far as they can be read.

A run that was killed leaves a table that ends anywhere, or none; another version's has other columns. The events are
worth a trace without it: what is left out is said.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_COLUMNS = "lateness_us", "delay_ticks", "start_ns"
_WITHOUT = "the curves lateness and delay are left out"
_INT64_MAX = 2**63 - 1


class CurvePoint(NamedTuple):
    """One tick. `delay_ticks`: None where no action of the policy was applied."""

    start_ns: int
    lateness_us: float
    delay_ticks: int | None


@contextmanager
def open_curves(path: Path, notes: list[str]) -> Iterator[Iterator[CurvePoint] | None]:
    """The ticks in order of time; None, and a note, if the table is missing, unreadable or of another version."""
    try:
        file = path.open(newline="", encoding="utf-8", errors="replace")
    except FileNotFoundError:
        notes.append(f"{path.name} is missing: {_WITHOUT}.")
        yield None
        return
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error}): {_WITHOUT}.")
        yield None
        return
    with file:
        reader = csv.DictReader(file)
        refused = _refused(reader)
        if refused:
            notes.append(f"{path.name} {refused}: {_WITHOUT}.")
        yield None if refused else _points(reader, path.name, notes)


def _refused(reader: csv.DictReader[str]) -> str:
    """Why nothing can be made of the table; "" if something can."""
    try:
        names = reader.fieldnames or []
    except (OSError, csv.Error) as error:
        return f"cannot be read ({error})"
    missing = [name for name in _COLUMNS if name not in names]
    if not names:
        return "is empty"
    return f"has no column {', '.join(missing)} and is of another version" if missing else ""


def _points(reader: csv.DictReader[str], name: str, notes: list[str]) -> Iterator[CurvePoint]:
    unreadable: list[int] = []
    last_ns = 1
    try:
        for row in reader:
            try:
                point = _point(row, last_ns)
            except (ValueError, TypeError):
                unreadable.append(reader.line_num)
                continue
            last_ns = point.start_ns
            yield point
    except csv.Error as error:
        notes.append(f"{name} cannot be read beyond line {reader.line_num} ({error}): the curves end there.")
    if unreadable:
        notes.append(
            f"{name}: {len(unreadable)} unreadable rows are left out of the curves, the first on line {unreadable[0]}. "
            "The last line of a run that was killed may be cut short."
        )


def _point(row: dict[str, str], last_ns: int) -> CurvePoint:
    """ValueError or TypeError: the row is cut short, or its numbers are none that a trace can hold."""
    start_ns = int(row["start_ns"])
    delay_ticks = int(row["delay_ticks"]) if row["delay_ticks"] else None
    if not last_ns <= start_ns <= _INT64_MAX or abs(delay_ticks or 0) > _INT64_MAX:
        raise ValueError(row)
    return CurvePoint(start_ns, float(row["lateness_us"]), delay_ticks)
