"""The report of a sweep: tables on the terminal; report.md, report.json and pictures in a folder."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from rtcore.errors import ConfigError
from rtcore.experiments import regret as regrets
from rtcore.experiments import scaling as scalings
from rtcore.experiments.records import CellRecord, read_sweep
from rtcore.experiments.table import METRICS, Estimates, Grid, grids_of, markdown_of, rich_of
from rtcore.files.strict_json import dumps, write_json
from rtcore.files.whole import whole_file
from rtcore.report.terminal import Terminal
from rtcore.results.run_record import writing_to

_MOST_NAMED = 20


class _Section:
    """A heading, tables with their captions, and the pictures that belong to them."""

    def __init__(self, title: str, pictures: Sequence[Path] = ()) -> None:
        self.title = title
        self.tables: list[tuple[str, str, list[str], list[list[str]]]] = []  #: title, caption, heading, rows
        self.pictures = [picture for picture in pictures if picture.suffix == ".png"]

    def add(self, title: str, caption: str, table: tuple[list[str], list[list[str]]]) -> None:
        self.tables.append((title, caption, *table))

    def markdown(self) -> Iterable[str]:
        yield f"## {self.title}"
        for picture in self.pictures:
            yield f"![{self.title}]({picture.name})"
        for title, caption, heading, rows in self.tables:
            yield from (f"### {title}", caption, markdown_of(heading, rows))

    def show(self, console: Terminal) -> None:
        for title, caption, heading, rows in self.tables:
            console.print(rich_of(title, heading, rows))
            console.print(caption, markup=False, highlight=False, style="dim")
            console.print()


def write_report(options: argparse.Namespace) -> int:
    """Everything that `rtcore-sweep report` was asked for; the exit code."""
    cells, notes = _read(options.folders)
    grids = grids_of(cells, line_axis=options.lines, column_axis=options.columns)
    out = options.out if options.out is not None else options.folders[0] / "report"
    content: dict[str, Any] = {"schema_version": 1, "num_cells": len(cells), "not_there": notes}
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        sections = []
        if options.scaling:
            sections.append(_scaling(cells, options, out, content))
        if options.regret or not options.scaling:
            sections.append(_tables(grids, options, out, content))
        if options.regret:
            sections.append(_regrets(grids, options, out, content))
        text = "\n\n".join([part for section in sections for part in section.markdown()] + _about(notes)) + "\n"
        with whole_file(out / "report.md") as draft:
            draft.write_text(text, encoding="utf-8")
        write_json(out / "report.json", content)
    _show(sections, notes, content, out, as_json=options.json)
    return 0


def _read(folders: Sequence[Path]) -> tuple[list[CellRecord], list[str]]:
    """The cells that have a result, and a sentence for each that has none. A cell of two sweeps counts once."""
    cells: dict[str, CellRecord] = {}
    notes: list[str] = []
    for folder in folders:
        found = read_sweep(folder)
        where = f"{folder.name}: " if len(folders) > 1 else ""
        notes += [f"{where}{cell.name} failed: {cell.error}" for cell in found.failed]
        notes += [f"{where}{name} is missing" for name in found.missing]
        notes += [f"{where}{name} is left out: it is of other settings than the sweep's" for name in found.stale]
        for cell in found.cells:
            if cells.setdefault(cell.name, cell).fingerprint != cell.fingerprint:
                raise ConfigError(f"{folder}: {cell.name} was in another of these folders, with other settings")
    if not cells:
        named = ", ".join(map(str, folders))
        raise ConfigError("; ".join([f"no cell in {named} has a result", *notes[:3]]))
    return list(cells.values()), notes


def _about(notes: Sequence[str]) -> list[str]:
    if not notes:
        return []
    return ["## Not there", "\n".join(f"- {note}" for note in notes)]


def _show(sections: Sequence[_Section], notes: Sequence[str], content: Any, out: Path, *, as_json: bool) -> None:
    if as_json:
        print(dumps(content, indent=2))
        return
    console, errors = Terminal(highlight=False), Terminal(stderr=True, highlight=False)
    for section in sections:
        section.show(console)
    for note in notes[:_MOST_NAMED]:
        errors.print(Text(note, style="yellow"), soft_wrap=True)
    if len(notes) > _MOST_NAMED:
        errors.print(f"{len(notes) - _MOST_NAMED} more are in {out / 'report.md'}", style="yellow", markup=False)
    console.print(f"wrote {out}", markup=False, soft_wrap=True)


# -- the parts -----------------------------------------------------------------------------------------------------


def _tables(grids: Sequence[Grid], options: argparse.Namespace, out: Path, content: dict[str, Any]) -> _Section:
    metric, pictures = METRICS[options.metric], []
    if not any(grid.values(*place, metric) for grid in grids for place in grid.cells):
        others = ", ".join(name for name in METRICS if name != options.metric)
        raise ConfigError(f"no cell has a {options.metric}: no episode ended; give --metric {others}, or --scaling")
    tables = [Estimates(grid, metric, options.by) for grid in grids]
    if not options.no_plots:
        from rtcore.experiments.plots import draw_curves, draw_grids  # noqa: PLC0415 - NumPy's and matplotlib's second

        pictures = draw_grids(grids, options.metric, options.by, out / options.metric)
        pictures += draw_curves(grids, options.by, out)
    section = _Section(metric.label.capitalize(), pictures)
    for table in tables:
        section.add(table.grid.title, table.caption, table.rows())
    content["tables"] = [table.to_json() for table in tables]
    return section


def _regrets(grids: Sequence[Grid], options: argparse.Namespace, out: Path, content: dict[str, Any]) -> _Section:
    chosen = {role: name for role in regrets.ROLES[:3] if (name := getattr(options, role.replace("-", "_")))}
    best = _best_of(options.best, grids)
    found = []
    for grid in grids:
        value = best.get(grid.title, best.get(""))
        number = _number(value)
        agents = chosen | ({regrets.BEST: value} if value is not None and number is None else {})
        found.append(regrets.regret_of(grid, agents, number, options.by))
    pictures = []
    if not options.no_plots:
        from rtcore.experiments.plots import draw_regrets  # noqa: PLC0415

        pictures = draw_regrets(found, out / "regret")
    section = _Section("Regret", pictures)
    for regret in found:
        section.add(f"{regret.grid.title}: regret", regrets.caption_of(regret), regrets.rows_of(regret))
    content["regret"] = [regrets.to_json(regret) for regret in found]
    return section


def _best_of(given: Sequence[str], grids: Sequence[Grid]) -> dict[str, str]:
    """By world; "" for all."""
    found: dict[str, str] = {}
    titles = [grid.title for grid in grids]
    for text in given:
        world, is_of_one, value = text.rpartition("=")
        if is_of_one and world not in titles:
            raise ConfigError(f"--best {text}: there is no world {world!r}; expected one of {', '.join(titles)}")
        found[world] = value
    return found


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None


def _scaling(cells: Sequence[CellRecord], options: argparse.Namespace, out: Path, content: dict[str, Any]) -> _Section:
    scaling = scalings.scaling_of(cells)
    pictures = []
    if not options.no_plots:
        from rtcore.experiments.plots import draw_scaling  # noqa: PLC0415

        pictures = draw_scaling(scaling, out / "workers")
    section = _Section("Workers over inference time", pictures)
    section.add(section.title, " ".join([scalings.caption_of(scaling), *scaling.left_out]), scalings.rows_of(scaling))
    content["scaling"] = scalings.to_json(scaling)
    return section
