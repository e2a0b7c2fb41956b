"""What `rtcore-sweep FILE.toml` does: find the cells that are left, check them, play them, say what failed."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from fnmatch import fnmatchcase
from fractions import Fraction
from pathlib import Path

from rich.console import Console

from rtcore.cli.exits import EXIT_FAILED, Stopped, stop_if_told
from rtcore.errors import ConfigError
from rtcore.experiments.local import Backend, LocalBackend
from rtcore.experiments.progress import SweepView, in_words
from rtcore.experiments.records import CELLS, CellRecord
from rtcore.experiments.sweep import SCRATCH, CellsInFolder, begin_sweep, check_cells, end_sweep, find, play_cells
from rtcore.experiments.sweepfile import Cell, SweepFile, cells_of, load_sweep
from rtcore.host.cpus import usable_cpus
from rtcore.report.terminal import Terminal, print_line
from rtcore.results.out_folder import OutFolder

_MOST_LISTED = 20


def sweep(options: argparse.Namespace) -> int:
    """What the words of `rtcore.cli.sweep` ask for; the exit code."""
    console = Terminal(highlight=False)
    file = load_sweep(options.file)
    try:
        cells = cells_of(file)
    except ConfigError as error:
        raise ConfigError(f"{options.file}: {error}") from error
    chosen = _chosen(cells, options.only)
    plan = _Placement(options, file, chosen)
    folder = options.out if options.out is not None else Path("runs") / options.file.stem
    if options.dry_run:
        return _list(console, folder, chosen, plan)
    with OutFolder(folder) as lock:
        lock.acquire()
        begin_sweep(folder, options.file, cells)
        try:
            return _play_what_is_left(console, folder, chosen, plan)
        except Stopped:
            console.print("the cells that are done are kept; the same command goes on with the others")
            raise
        finally:
            end_sweep(folder)


class _Placement:
    """Where cells are played, and how many at a time."""

    def __init__(self, options: argparse.Namespace, file: SweepFile, cells: Sequence[Cell]) -> None:
        """ConfigError for words that do not go together."""
        on_wall_clock = next((cell for cell in cells if cell.is_on_wall_clock), None)
        self.is_ray = options.backend == "ray"
        if options.address is not None and not self.is_ray:
            raise ConfigError("--address is of a Ray cluster: give --backend ray, too")
        if self.is_ray and on_wall_clock is not None and file.cpus is None:
            raise ConfigError(
                f"cell {on_wall_clock.name} is on the wall clock, and cells beside each other would disturb it: say in "
                "the sweep file how many CPUs of a node it has for itself, as `cpus = 8`"
            )
        self._address = options.address
        self._cpus, self._gpus = file.cpus or 1, file.gpus
        self._given_jobs: int | None = options.jobs
        self.notes: list[str] = []
        if on_wall_clock is not None and not self.is_ray and options.jobs != 1:
            beside = f"{options.jobs} cells at a time" if options.jobs is not None else "cells are played one at a time"
            self.notes.append(f"{beside}: on the wall clock they disturb each other")
        self.jobs = int(options.jobs or (1 if on_wall_clock is not None else usable_cpus()))

    def ray(self) -> Backend:
        """Ray, connected to."""
        from rtcore.experiments.raytasks import RayBackend  # noqa: PLC0415 - an extra

        return RayBackend(self._address, cpus=self._cpus, gpus=self._gpus, jobs=self._given_jobs)


def _chosen(cells: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    for pattern in patterns:
        if not any(fnmatchcase(cell.name, pattern) for cell in cells):
            raise ConfigError(
                f"--only {pattern}: no cell has such a name; they are called as {cells[0].name}; --dry-run lists them"
            )
    return [cell for cell in cells if not patterns or any(fnmatchcase(cell.name, pattern) for pattern in patterns)]


def _list(console: Console, folder: Path, cells: Sequence[Cell], plan: _Placement) -> int:
    found = find(folder, cells)
    done = {record.name: in_words(record) for record in found.done}
    _say(console, f"{len(cells)} cells, {len(done)} of them done in {folder}", *plan.notes)
    for cell in cells:
        state = done.get(cell.name, "failed before" if cell.name in found.failed_before else "to do")
        _say(console, f"{cell.name}: {state}")
    with tempfile.TemporaryDirectory() as scratch, closing(LocalBackend(plan.jobs, Path(scratch) / "cells")) as local:
        _checked(console, found, local)
    return 0


def _checked(console: Console, found: CellsInFolder, local: LocalBackend) -> dict[str, Fraction]:
    with console.status("checking") as status:
        rates = check_cells(found.left, local, lambda done, of: status.update(f"checking, {done} of {of} kinds done"))
    _say(console, "every cell can be played" if found.left else "nothing is left to do")
    return rates


def _play_what_is_left(console: Console, folder: Path, cells: Sequence[Cell], plan: _Placement) -> int:
    found = find(folder, cells)
    before = f", {len(found.done)} of them done before" if found.done else ""
    again = f", {len(found.failed_before)} that failed are played again" if found.failed_before else ""
    _say(console, f"{len(cells)} cells{before}{again}; files in {folder}", *plan.notes)
    failed = _play_in(console, folder, found, plan) if found.left else []
    for record in failed[:_MOST_LISTED]:
        _say(console, f"{record.name}: {in_words(record)}")
    if failed:
        more = f" ({len(failed) - _MOST_LISTED} more are not listed)" if len(failed) > _MOST_LISTED else ""
        whole = f"the whole error is in {folder / CELLS}/NAME.json; the same command plays them again"
        _say(console, f"{len(failed)} of {len(cells)} cells failed{more}: {whole}")
        return EXIT_FAILED
    _say(console, f"all {len(cells)} cells are done: rtcore-sweep report {folder}")
    return 0


def _play_in(console: Console, folder: Path, found: CellsInFolder, plan: _Placement) -> list[CellRecord]:
    local = LocalBackend(plan.jobs, folder / SCRATCH)
    with closing(local):
        rates = _checked(console, found, local)
        if not plan.is_ray:
            return _play(console, folder, found, rates, local)
    with closing(plan.ray()) as backend:
        return _play(console, folder, found, rates, backend)


def _play(
    console: Console, folder: Path, found: CellsInFolder, rates: Mapping[str, Fraction], backend: Backend
) -> list[CellRecord]:
    with SweepView(console, found.left, found.done, backend.places, before_each=stop_if_told) as view:
        return play_cells(folder, found.left, rates, backend, view)


def _say(console: Console, *lines: str) -> None:
    for line in lines:
        print_line(console, line)
