"""The cells of a sweep as tables: a line for each agent, a column for each delay (or another axis), over all seeds."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from rich.box import SIMPLE_HEAD
from rich.table import Table as RichTable
from rich.text import Text

from rtcore.errors import ConfigError, counted
from rtcore.experiments.estimates import NONE, By, Estimate, estimate
from rtcore.experiments.records import CellRecord, CellResult

SEED, WORLD, AGENT, DELAY = "seed", "world", "agent", "delay_ticks"
#: The role of an agent that nothing was learned for: what others are compared with.
FLOOR = "floor"
#: What an axis is called over a column and along a picture.
AXIS_LABELS = {DELAY: "delay [ticks]"}


class Metric(NamedTuple):
    """A number of a cell: what it is called, and how it is made of the cell's result."""

    label: str
    of: Callable[[CellResult], float]


def _mean_return(result: CellResult) -> float:
    return math.fsum(result.returns) / len(result.returns) if result.returns else math.nan


def _per_1000_ticks(result: CellResult) -> float:
    return 1000 * result.points / result.ticks if result.ticks else math.nan


def _acted(result: CellResult) -> float:
    return math.nan if result.acted_fraction is None else result.acted_fraction


METRICS = {
    "return": Metric("return", _mean_return),
    "per-1000-ticks": Metric("reward per 1,000 ticks", _per_1000_ticks),
    "acted": Metric("share of ticks with an action", _acted),
}


@dataclass(frozen=True)
class Grid:
    """The cells of one world (and of one value of every axis that is neither lines, columns nor seeds)."""

    where: dict[str, Any]  #: axis and value that all of its cells have
    line_axis: str
    column_axis: str
    lines: list[Any]
    columns: list[Any]
    floors: frozenset[Any]  #: lines that nothing learned: what others are compared with
    cells: dict[tuple[Any, Any], list[CellRecord]]  #: by line and column, in the order of their seeds

    @property
    def title(self) -> str:
        return ", ".join(value_text(axis, value) for axis, value in self.where.items()) or "all cells"

    def values(self, line: Any, column: Any, metric: Metric) -> dict[int, float]:
        """What each seed came to, of the cells that have a result."""
        cells = self.cells.get((line, column), ())
        found = {cell.seed: metric.of(cell.result) for cell in cells if cell.result is not None}
        return {seed: value for seed, value in found.items() if not math.isnan(value)}

    def columns_of(self, line: Any) -> list[Any]:
        """Where the line has cells."""
        return [column for column in self.columns if (line, column) in self.cells]


def grids_of(cells: Sequence[CellRecord], *, line_axis: str = AGENT, column_axis: str | None = None) -> list[Grid]:
    """The tables of these cells, in the order of their worlds.

    Args:
        cells: Those that have a result.
        line_axis: Whose values are the lines.
        column_axis: Whose values are the columns; None: the delay, or what has most values where that has only one,
            or the world where there is nothing else.
    """
    axes = list(dict.fromkeys(axis for cell in cells for axis in cell.axes))
    column_axis = column_axis or _most_varied(cells, axes, line_axis)
    for axis in (line_axis, column_axis):
        if axis not in axes:
            raise ConfigError(f"these cells have no axis {axis!r}; expected one of {', '.join(sorted(axes))}")
    others = [axis for axis in axes if axis not in (line_axis, column_axis, SEED)]
    found: dict[tuple[str, ...], list[CellRecord]] = {}
    for cell in cells:
        found.setdefault(tuple(repr(cell.axes.get(axis)) for axis in others), []).append(cell)
    varied = [axis for axis in others if len({repr(cell.axes.get(axis)) for cell in cells}) > 1 or axis == WORLD]
    return [
        _grid({axis: group[0].axes.get(axis) for axis in varied}, group, line_axis, column_axis)
        for group in found.values()
    ]


def _grid(where: dict[str, Any], cells: list[CellRecord], line_axis: str, column_axis: str) -> Grid:
    by_place: dict[tuple[Any, Any], list[CellRecord]] = {}
    for cell in sorted(cells, key=lambda cell: cell.seed):
        place = _key(cell.axes.get(line_axis)), _key(cell.axes.get(column_axis))
        by_place.setdefault(place, []).append(cell)
    floors = {_key(cell.axes.get(line_axis)) for cell in cells if cell.role == FLOOR}
    lines = sorted(dict.fromkeys(_key(cell.axes.get(line_axis)) for cell in cells), key=lambda line: line in floors)
    columns = _sorted(dict.fromkeys(column for _, column in by_place))
    return Grid(where, line_axis, column_axis, lines=lines, columns=columns, floors=frozenset(floors), cells=by_place)


def _most_varied(cells: Sequence[CellRecord], axes: Sequence[str], line_axis: str) -> str:
    counts = {
        axis: len({repr(cell.axes.get(axis)) for cell in cells})
        for axis in axes
        if axis not in (line_axis, WORLD, SEED)
    }
    if counts.get(DELAY, 0) > 1:
        return DELAY
    return max(counts, key=lambda axis: counts[axis], default=WORLD)  # worlds and agents alone are one table


def _key(value: Any) -> Any:
    """An axis may be a table of values: those have no hash."""
    return value if isinstance(value, (str, int, float, type(None))) else str(value)


def _sorted(values: Iterable[Any]) -> list[Any]:
    listed = list(values)
    if all(isinstance(value, (int, float)) for value in listed):
        return sorted(listed)
    return listed


# -- as text -------------------------------------------------------------------------------------------------------


def value_text(axis: str, value: Any) -> str:
    """A value of an axis, for people: names say what they are, numbers need the axis beside them."""
    if axis == DELAY:
        return f"delay {value}"
    return f"{axis} {value}" if isinstance(value, (int, float)) else str(value)


def digits_of(values: Iterable[float]) -> int:
    """Digits behind the point, so that the largest of the values has three that count."""
    largest = max((abs(value) for value in values if math.isfinite(value)), default=0.0)
    return 0 if largest >= 100 else 1 if largest >= 10 else 2


def estimate_text(found: Estimate, digits: int, most_seeds: int) -> str:
    """ "482 [470, 494]", and "(4)" behind it where it rests on fewer seeds than others."""
    if not found.num_seeds:
        return "-"
    text = f"{found.value:,.{digits}f}"
    if found.has_interval:
        text += f" [{found.low:,.{digits}f}, {found.high:,.{digits}f}]"
    return f"{text} ({found.num_seeds})" if found.num_seeds < most_seeds else text


class Estimates:
    """What each point of a grid comes to."""

    def __init__(self, grid: Grid, metric: Metric, by: By) -> None:
        self.grid = grid
        self.metric = metric
        self.by = by
        self._found = {(line, column): estimate(grid.values(line, column, metric), by) for line, column in grid.cells}
        self.most_seeds = max((found.num_seeds for found in self._found.values()), default=0)

    def at(self, line: Any, column: Any) -> Estimate:
        return self._found.get((line, column), NONE)

    @property
    def caption(self) -> str:
        """What the numbers are."""
        what = {"mean": "Mean", "iqm": "Interquartile mean"}[self.by]
        seeds = counted(self.most_seeds, "seed")
        caption = f"{what} {self.metric.label} over {seeds}"
        if any(found.has_interval for found in self._found.values()):
            caption += ", 95% bootstrap interval over the seeds"
        if any(0 < found.num_seeds < self.most_seeds for found in self._found.values()):
            caption += "; in brackets the seeds of what rests on fewer"
        return f"{caption}."

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The heading and the lines, as text."""
        grid = self.grid
        digits = digits_of(found.value for found in self._found.values())
        heading = [grid.line_axis, *(value_text(grid.column_axis, column) for column in grid.columns)]
        return heading, [
            [str(line), *(estimate_text(self.at(line, column), digits, self.most_seeds) for column in grid.columns)]
            for line in grid.lines
        ]

    def to_json(self) -> dict[str, Any]:
        """Every number of the table, and what each seed came to."""
        grid = self.grid
        return {
            "where": grid.where,
            "metric": self.metric.label,
            "by": self.by,
            "rows": [
                {
                    grid.line_axis: line,
                    grid.column_axis: column,
                    **self.at(line, column)._asdict(),
                    "seeds": {str(seed): value for seed, value in grid.values(line, column, self.metric).items()},
                }
                for line in grid.lines
                for column in grid.columns_of(line)
            ],
        }


def markdown_of(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown."""
    escaped = ([cell.replace("|", "\\|") for cell in row] for row in (heading, *rows))
    first, *others = (f"| {' | '.join(row)} |" for row in escaped)
    return "\n".join([first, "|---" * len(heading) + "|", *others])


def rich_of(title: str, heading: Sequence[str], rows: Iterable[Sequence[str]]) -> RichTable:
    """The same for a terminal."""
    table = RichTable(title=Text(title), title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for index, text in enumerate(heading):
        table.add_column(Text(text), justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
