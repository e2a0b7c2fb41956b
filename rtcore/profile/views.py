"""How every subcommand shows what it measured: progress while it lasts, tables of rows, pictures without a display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from rtcore.profile.results import Row
from rtcore.report.bars import Bar


class TableColumn(NamedTuple):
    """A field of a row, with its heading. `digits`: after the point, of the value times `factor`; None: all it has."""

    heading: str
    field: str
    digits: int | None = None
    factor: float = 1


class Steps:
    """What is being measured: a bar on a terminal, gone when it is over; elsewhere a line for each step."""

    def __init__(self, console: Console, total: float | None) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        self._console = console
        self._bar = Bar(*columns, console=console)
        self._task = self._bar.add_task("", total=total)
        self._text = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, text: str) -> None:
        """The next step."""
        self._text = text
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal:
            self._console.print(text, markup=False, highlight=False)

    def advance(self, amount: float = 1, detail: str = "") -> None:
        """Part of the step is done; the next part is `detail`."""
        text = f"{self._text}: {detail}" if detail else self._text
        self._bar.update(self._task, advance=amount, description=text)


def table_of(rows: Iterable[Row], columns: Iterable[TableColumn], title: str = "") -> Table:
    """A line for each row; "-" where there is no value."""
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    columns = list(columns)
    for index, column in enumerate(columns):
        table.add_column(column.heading, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(row.get(column.field), column) for column in columns))
    return table


def _cell(value: Any, column: TableColumn) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if column.digits is None:
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{value * column.factor:,.{column.digits}f}"


def new_figure(width_in: float = 9.0, height_in: float = 5.0) -> Any:
    """A matplotlib `Figure` that needs no display and no pyplot state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - half a second, only for --plot
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_lines(axis: Any, rows: Iterable[Row], x: str, lines: Mapping[str, str], **settings: Any) -> None:
    """Fields of the rows over the field `x`, as {field: label}, by `x`; `settings` as of matplotlib's `Axes.set`."""
    ordered = sorted(rows, key=lambda row: row[x])
    for field, label in lines.items():
        axis.plot([row[x] for row in ordered], [_or_nan(row.get(field)) for row in ordered], "o-", label=label)
    axis.set(**settings)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def save(figure: Any, folder: Path, name: str) -> Path:
    """Write `folder/name.png`; returns its path."""
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=120)
    return path
