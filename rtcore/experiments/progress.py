"""How far a sweep is, and how long it will still take: a bar on a terminal, a line for each cell anywhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.experiments.records import CellRecord
from rtcore.experiments.sweepfile import Axes, Cell
from rtcore.report.bars import Bar
from rtcore.report.terminal import print_line

#: Of a cell that is being played: less says nothing yet of how long it will take.
_TELLING_SHARE = 0.05
_MOST_NAMED = 3


class TimeLeft:
    """Estimates how long the cells that are left will take: as long as others of their kind took.

    Of one kind are cells that differ in their seed alone; where none of them is done, those of one world and agent
    count, then all. What a cell that is being played has done so far counts where nothing else is known.
    """

    def __init__(self, left: Sequence[Cell], done: Iterable[CellRecord], places: int) -> None:
        self._left = {cell.name: cell for cell in left}
        self._places = places
        self._took_s: dict[Any, list[float]] = {}
        for record in done:
            self._learn(record.axes, record.cost.wall_s)

    def ended(self, record: CellRecord) -> None:
        """A cell is over."""
        self._left.pop(record.name, None)
        if record.error is None:
            self._learn(record.axes, record.cost.wall_s)

    def left_s(self, shares: Mapping[str, float], elapsed_s: Mapping[str, float]) -> float:
        """Seconds until all are done; NaN while nothing is known.

        Args:
            shares: How much is done of each cell that is being played, by name.
            elapsed_s: For how long each of them has been played [s].
        """
        telling = [elapsed_s[name] / share for name, share in shares.items() if share >= _TELLING_SHARE]
        otherwise = sum(telling) / len(telling) if telling else math.nan
        work_s = longest_s = 0.0
        for name, cell in self._left.items():
            share = shares.get(name, 0.0)
            whole_s = elapsed_s[name] / share if share >= _TELLING_SHARE else self._expected_s(cell.axes, otherwise)
            work_s += whole_s * (1 - share)
            longest_s = max(longest_s, whole_s * (1 - share))
        return work_s if math.isnan(work_s) else max(longest_s, work_s / self._places)

    def _learn(self, axes: Axes, wall_s: float) -> None:
        for kind in _kinds(axes):
            self._took_s.setdefault(kind, []).append(wall_s)

    def _expected_s(self, axes: Axes, otherwise: float) -> float:
        for kind in _kinds(axes):
            if (took := self._took_s.get(kind)) is not None:
                return sum(took) / len(took)
        return otherwise


def _kinds(axes: Axes) -> list[Any]:
    """From the narrowest on."""
    return [
        tuple((axis, value) for axis, value in axes.items() if axis != "seed"),
        (axes.get("world"), axes.get("agent")),
        (),
    ]


class SweepView:
    """Shows a sweep: `with` it, and tell it what happens."""

    def __init__(
        self,
        console: Console,
        left: Sequence[Cell],
        done: Sequence[CellRecord],
        places: int,
        *,
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """`before_each`: called before each update, several times a second; what it raises ends the sweep."""
        self._before_each = before_each
        self._console = console
        self._clock = MonotonicClock()
        self._time_left = TimeLeft(left, done, places)
        self._since_ns: dict[str, int] = {}
        self._num_done, self._num_cells = len(done), len(done) + len(left)
        now = TextColumn("{task.fields[now]}", style="dim")
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}"), now)
        self._bar = Bar(TextColumn("cells"), *columns, console=console, transient=False)
        self._task = self._bar.add_task("cells", total=self._num_cells, completed=self._num_done, left="", now="")

    def __enter__(self) -> SweepView:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def update(self, shares: Mapping[str, float]) -> None:
        """How much is done of each that is being played."""
        self._before_each()
        left = self._left(shares)
        names = [f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda one: -one[1])]
        now = ", ".join(names[:_MOST_NAMED]) + (f" and {len(names) - _MOST_NAMED} more" * (len(names) > _MOST_NAMED))
        self._bar.update(self._task, completed=self._num_done + sum(shares.values()), left=left, now=now)

    def ended(self, record: CellRecord) -> None:
        """A cell is over, and its record written."""
        self._num_done += 1
        self._time_left.ended(record)
        self._since_ns.pop(record.name, None)
        lines = [f"{self._num_done}/{self._num_cells} {record.name}: {in_words(record)}"]
        if not self._console.is_terminal and (left := self._left({})):
            lines[0] += f"; {left}"
        for line in (*lines, *(f"  note: {note}" for note in record.notes)):
            print_line(self._console, line)

    def _left(self, shares: Mapping[str, float]) -> str:
        now_ns = self._clock.now_ns()
        elapsed_s = {name: (now_ns - self._since_ns.setdefault(name, now_ns)) / NS_PER_S for name in shares}
        left_s = self._time_left.left_s(shares, elapsed_s)
        return "" if math.isnan(left_s) or self._num_done == self._num_cells else f"{duration(left_s)} left"


def in_words(record: CellRecord) -> str:
    """What a cell came to, in a line."""
    if record.result is None:
        return f"FAILED: {(record.error or '').splitlines()[0]}"
    result, took = record.result, f"{duration(record.cost.wall_s)}"
    if result.returns:
        mean = math.fsum(result.returns) / len(result.returns)
        return f"mean return {mean:.2f} of {len(result.returns)} episodes, {took}"
    acted = f"{result.acted_fraction:.1%}" if result.acted_fraction is not None else "none"
    return f"{result.ticks:,} ticks, acted {acted}, {result.workers} workers, {took}"


def duration(seconds: float) -> str:
    """For people: 8 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
