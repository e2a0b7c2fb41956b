"""Reads a run folder back: what `rtcore-run --out` wrote, whole or only as far as the run got.

A run that was killed leaves actions.csv and jobs.csv that may end in the middle of a row, and no summary.json.
Whatever is missing or unreadable is said in `RunFolder.notes`; only a folder that holds nothing of a run, or
tables of another version, is an error.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from rtcore.clock import NS_PER_S, rate_from
from rtcore.errors import ConfigError
from rtcore.files.outside import is_there, lines_of, parse_object, read_bytes
from rtcore.results.axis import TickAxis
from rtcore.results.rows import INFERENCES, TICKS, InferenceRow, TickRow

CONFIG, SUMMARY, ACTIONS, JOBS = FILES = ("config.json", "summary.json", "actions.csv", "jobs.csv")

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class RunFolder:
    """A run, as far as its folder says. `notes`: what is missing, in sentences for the reader."""

    path: Path
    about: dict[str, Any]  #: config.json: settings, command, versions, machine
    summary: dict[str, Any]
    ticks: Sequence[TickRow]
    jobs: Sequence[InferenceRow]
    notes: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The resolved config; {} where config.json is missing."""
        found = self.about.get("config")
        return found if isinstance(found, dict) else {}

    @cached_property
    def period_ns(self) -> float:
        """Tick period: from the rows themselves, else the stated rate; 0 where neither is there.

        A grid that was stretched is not even: there the stated rate counts first, then the shortest period of all.
        """
        rate = number_at(self.summary, "ticks", "ideal_hz")
        if rate is None and self.settings.get("fps"):
            rate = float(rate_from(self.settings["fps"]))
        first, last = (self.ticks[0], self.ticks[-1]) if self.ticks else (None, None)
        if first is None or last is None or last.tick <= first.tick or (rate and self.stretches):
            return NS_PER_S / rate if rate else 0.0
        if self.stretches:
            return min(
                (b.deadline_ns - a.deadline_ns) / (b.tick - a.tick) for a, b in pairwise(self.ticks) if b.tick > a.tick
            )
        return (last.deadline_ns - first.deadline_ns) / (last.tick - first.tick)

    @property
    def stretches(self) -> bool:
        """Ticks that took too long put the later ones off (--overrun stretch)."""
        return self.settings.get("overrun") == "stretch"

    @property
    def has_world_clock(self) -> bool:
        """Its ticks are cycles of the world's device."""
        return self.settings.get("clock") == "world"

    @cached_property
    def axis(self) -> TickAxis:
        """Ticks and nanoseconds."""
        return TickAxis(self.ticks, self.period_ns)

    @cached_property
    def row_of(self) -> dict[int, TickRow]:
        """The row of each tick that ran."""
        return {row.tick: row for row in self.ticks}

    @cached_property
    def head(self) -> int:
        """Index of the worker that is the head of a policy with two speeds; -1: there is none, or it never acted."""
        return head_of(self.summary, self.ticks)

    @property
    def places(self) -> list[int]:
        """Indices of the workers, and the head's behind them: a lane of a picture each."""
        return [*range(self.num_workers), *([self.head] if self.head >= 0 else [])]

    def who(self, worker: int) -> str:
        """As people call it."""
        return "the head" if worker == self.head else f"worker {worker}"

    @cached_property
    def num_workers(self) -> int:
        """Worker places beside a head: as planned or asked for, or as many as appear in the record."""
        planned = number_at(self.summary, "plan", "workers") or number_at(self.settings, "workers")
        seen = max((job.worker for job in self.jobs if job.worker != self.head), default=-1) + 1
        return max(seen, int(planned or 0))

    def deadline_ns(self, tick: int) -> int:
        """When a tick was due, whether it ran or not.

        Args:
            tick: Its number.

        Returns:
            Absolute time of CLOCK_MONOTONIC of that boot [ns].
        """
        return self.axis.deadline_ns(tick)


def head_of(summary: Mapping[str, Any], ticks: Iterable[TickRow]) -> int:
    """Index of the worker that is the head; -1: there is none, or it never acted.

    Args:
        summary: Of the run; {} of one that was killed.
        ticks: Its rows, which say it where the summary does not: only an action of a head has features.
    """
    told = number_at(summary, "head", "index")
    return next((row.worker for row in ticks if row.features_tick >= 0), -1) if told is None else int(told)


def number_at(tree: Mapping[str, Any], *keys: str) -> float | None:
    """The number under `keys`; None where there is none, however much of the path is missing."""
    found: Any = tree
    for key in keys:
        found = found.get(key) if isinstance(found, dict) else None
    if not isinstance(found, (int, float)) or isinstance(found, bool) or not abs(found) < 1e300:
        return None
    return float(found)


def read_run(path: Path) -> RunFolder:
    """Read what a run has left.

    Args:
        path: Its folder.

    Returns:
        The run; what is missing or unreadable is told in its `notes`.

    Raises:
        ConfigError: No such folder, nothing of a run in it, or tables of another version.
    """
    _check_folder(path)
    notes: list[str] = []
    about = read_json(path / CONFIG, notes, "the settings, versions and machine are not known")
    summary = read_json(
        path / SUMMARY,
        notes,
        "the run was killed, is still going on, or never began: the numbers come from its rows, as far as they go",
    )
    ticks = list(read_table(path / ACTIONS, TICKS.required, TICKS.read, notes, "ticks"))
    jobs = list(read_table(path / JOBS, INFERENCES.required, INFERENCES.read, notes, "inferences"))
    run = RunFolder(path=path, about=about, summary=summary, ticks=ticks, jobs=jobs, notes=notes)
    _note_the_end(run)
    return run


def _check_folder(path: Path) -> None:
    if not is_there(path, "run"):
        raise ConfigError(f"{path}: no such folder; expected one that `rtcore-run --out {path}` wrote")
    if not path.is_dir():
        raise ConfigError(f"{path}: is a file; expected the folder that `rtcore-run --out DIR` wrote")
    if not any(is_there(path / name, "run") for name in FILES):
        raise ConfigError(f"{path}: not a run: it holds none of {', '.join(FILES)}; run `rtcore-run --out {path}`")


def _note_the_end(run: RunFolder) -> None:
    """What the summary says went wrong, and what the recorder missed."""
    for key, text in (("error", "The run failed: {}"), ("stopped_by", "The run was stopped early by {}.")):
        if run.summary.get(key):
            run.notes.append(text.format(run.summary[key]))
    learner = run.summary.get("learner")
    if isinstance(learner, dict) and learner.get("lost_checkpoint"):
        run.notes.append(f"The last checkpoint could not be written: {learner['lost_checkpoint']}.")
    for key, what in (("lost_ticks", "ticks"), ("lost_jobs", "inferences")):
        lost = number_at(run.summary, "record", key)
        if lost:
            run.notes.append(f"{int(lost)} rows of {what} are missing: the recorder was overtaken by the run.")
    if run.jobs and not run.summary:
        run.notes.append("Inferences that were under way where the record ends have no row in jobs.csv.")
    if run.ticks and not run.period_ns:
        run.notes.append("The tick rate is not known: there is one tick, and no file names the rate. No timeline.")


def read_json(path: Path, notes: list[str], without: str) -> dict[str, Any]:
    """The object in a JSON file; {} and a note that ends in `without` if there is none to be read."""
    if not path.exists():
        notes.append(f"{path.name} is missing: {without}.")
        return {}
    try:
        return parse_object(read_bytes(path, "run"), path, "run")
    except ConfigError as error:
        notes.append(f"{error}: {without}.")
        return {}


def read_table(
    path: Path, columns: Sequence[str], parse: Callable[[dict[str, str]], _Row], notes: list[str], what: str
) -> Iterator[_Row]:
    """The rows that are whole, one after another, as `parse` makes them; ValueError from it: the row is unreadable.

    Memory does not grow with the table. What is missing or unreadable is said in `notes`. ConfigError: a column of
    `columns` is missing.
    """
    if not path.is_file():
        notes.append(f"{path.name} is missing: no {what} to show.")
        return
    lines = _whole_lines(path, notes)
    reader = csv.DictReader(lines)
    try:
        names = reader.fieldnames
    except csv.Error:  # a first line that is no header, such as one of 200 KB
        names = []
    except ConfigError as error:
        notes.append(f"{error}: no {what} to show.")
        return
    if names is None:
        notes.append(f"{path.name} is empty: no {what} to show. A run that is killed early leaves it like this.")
        return
    missing = [name for name in columns if name not in names]
    if missing:
        raise ConfigError(
            f"{path}: no column {', '.join(missing)}; expected {', '.join(columns)}. It is not a record of rtcore, or "
            "of another version: read it with the rtcore that wrote it (config.json, versions)"
        )
    yield from _readable_rows(reader, path, parse, notes, what)


def _whole_lines(path: Path, notes: list[str]) -> Iterator[str]:
    """A last line without its end is a row cut short, even where it looks complete."""
    for line in lines_of(path, "run"):
        if line.endswith("\n"):
            yield line
        else:
            notes.append(f"{path.name} ends in the middle of a row, which is left out: the run was killed or goes on.")


def _readable_rows(
    reader: csv.DictReader[str], path: Path, parse: Callable[[dict[str, str]], _Row], notes: list[str], what: str
) -> Iterator[_Row]:
    unreadable: list[int] = []
    number_of_rows = 0
    try:
        for fields in reader:
            try:
                row = parse(fields)
            except (ValueError, KeyError, TypeError):
                unreadable.append(reader.line_num)
                continue
            number_of_rows += 1
            yield row
    except (csv.Error, ConfigError) as error:
        notes.append(f"{path.name} cannot be read beyond line {reader.line_num} ({error}): the {what} end there.")
    if unreadable:
        notes.append(f"{path.name}: {len(unreadable)} unreadable rows are left out, the first on line {unreadable[0]}.")
    if not number_of_rows:
        notes.append(f"{path.name} has no rows: no {what} to show.")
