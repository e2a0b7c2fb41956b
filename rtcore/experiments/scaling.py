"""How many workers an action at every tick takes, over the time of an inference: a straight line, says the paper.

Measured: of the cells with the same inference time, the fewest workers with which (nearly) every tick has an action.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression
from typing import Any, NamedTuple

from rtcore.errors import ConfigError, counted
from rtcore.experiments.records import CellRecord
from rtcore.experiments.table import SEED, value_text
from rtcore.files.strict_json import dumps

#: The paper's own: model, inference time on one CPU thread [ms], processes that it used, at `PAPER_RATE_HZ`.
PAPER = (("k=1", 4.2, 7), ("k=7", 59.0, 12), ("k=29", 745.0, 72))
PAPER_RATE_HZ = 4194304 / 70224
#: N = tau / T: workers for each tick of inference time.
THEORY_SLOPE = 1.0
#: Settings in which the cells of one inference time differ.
_OF_WORKERS = ("workers", "max_workers", "seed")
#: What counts as an action at every tick, where a machine may take its CPUs away for a moment.
ENOUGH_ACTED = 0.99


class ScalingPoint(NamedTuple):
    """A cell as this table sees it."""

    tau_ms: float
    rate_hz: float
    workers: int
    acted_fraction: float


class Measured(NamedTuple):
    """The workers that one inference time takes."""

    label: str
    clock: str
    tau_ms: float
    tau_ticks: float
    num_workers: int  #: the fewest that gave an action at every tick
    too_few: int  #: the most of those that did not, among the cells; 0: none was tried
    acted_fraction: float  #: with `num_workers`
    acted_with_too_few: float


class FittedLine(NamedTuple):
    """A straight line through the points of one clock."""

    slope: float  #: workers for each tick of inference time
    intercept: float


class Scaling(NamedTuple):
    """The points, by inference time; of each clock with two of them or more its straight line."""

    points: list[Measured]
    lines: dict[str, FittedLine]
    left_out: list[str]  #: inference times that no number of workers was enough for, in words


def scaling_of(cells: Sequence[CellRecord]) -> Scaling:
    """The fewest workers for every inference time: cells of one have the same settings but for their workers."""
    groups: dict[str, list[CellRecord]] = {}
    for cell in cells:
        if cell.result is not None and cell.result.acted_fraction is not None:
            same = {name: value for name, value in cell.settings.items() if name not in _OF_WORKERS}
            groups.setdefault(dumps(dict(sorted(same.items()))), []).append(cell)
    if not groups:
        raise ConfigError("no cell has a share of ticks with an action; expected cells that played")
    points, left_out = [], []
    for group in groups.values():
        label = _label_of(group, cells)
        found = _fewest([_case_of(cell) for cell in group], label, str(group[0].settings.get("clock", "wall")))
        if found is None:
            most = max(cell.result.workers for cell in group if cell.result is not None)
            left_out.append(f"{label}: {counted(most, 'worker')} did not give an action at every tick.")
        else:
            points.append(found)
    points.sort(key=lambda point: (point.clock, point.tau_ticks))
    return Scaling(points, _lines_of(points), left_out)


def _lines_of(points: Sequence[Measured]) -> dict[str, FittedLine]:
    lines = {}
    for clock in dict.fromkeys(point.clock for point in points):
        places = [(point.tau_ticks, point.num_workers) for point in points if point.clock == clock]
        if len({ticks for ticks, _ in places}) > 1:
            lines[clock] = FittedLine(*linear_regression(*zip(*places, strict=True)))
    return lines


def _label_of(group: Sequence[CellRecord], cells: Sequence[CellRecord]) -> str:
    """What its cells have in common, and others have not."""
    words = [
        value_text(axis, value)
        for axis, value in group[0].axes.items()
        if axis != SEED
        and all(cell.axes.get(axis) == value for cell in group)
        and any(cell.axes.get(axis) != value for cell in cells)
    ]
    return ", ".join(words) or "all"


def _case_of(cell: CellRecord) -> ScalingPoint:
    result = cell.result
    if result is None or result.acted_fraction is None:
        raise ValueError(f"{cell.name} has no share of ticks with an action")
    return ScalingPoint(result.tau_ms, result.rate_hz, result.workers, result.acted_fraction)


def _fewest(cases: Sequence[ScalingPoint], label: str, clock: str) -> Measured | None:
    """By workers; of several seeds the worst counts."""
    acted: dict[int, float] = {}
    for case in cases:
        acted[case.workers] = min(acted.get(case.workers, 1.0), case.acted_fraction)
    enough = [workers for workers, share in acted.items() if share >= ENOUGH_ACTED]
    if not enough:
        return None
    num_workers = min(enough)
    too_few = max((workers for workers in acted if workers < num_workers), default=0)
    taus = [case for case in cases if case.workers == num_workers]
    tau_ms = sum(case.tau_ms for case in taus) / len(taus)
    return Measured(
        label,
        clock,
        tau_ms=tau_ms,
        tau_ticks=tau_ms * taus[0].rate_hz / 1000,
        num_workers=num_workers,
        too_few=too_few,
        acted_fraction=acted[num_workers],
        acted_with_too_few=acted.get(too_few, math.nan),
    )


# -- as text -------------------------------------------------------------------------------------------------------


def rows_of(scaling: Scaling) -> tuple[list[str], list[list[str]]]:
    """The heading and a line for each inference time."""
    heading = [
        "",
        "clock",
        "inference [ms]",
        "in ticks",
        "workers for an action every tick",
        "acted",
        "with too few",
        "acted",
    ]
    return heading, [
        [
            point.label,
            point.clock,
            f"{point.tau_ms:,.1f}",
            f"{point.tau_ticks:,.2f}",
            f"{point.num_workers:,}",
            f"{point.acted_fraction:.3f}",
            f"{point.too_few:,}" if point.too_few else "-",
            "-" if math.isnan(point.acted_with_too_few) else f"{point.acted_with_too_few:.3f}",
        ]
        for point in scaling.points
    ]


def caption_of(scaling: Scaling) -> str:
    """What the numbers say."""
    parts = [
        f"Fewest workers with an action at {100 * ENOUGH_ACTED:.0f}% of the ticks or more, and the most that were not "
        "enough."
    ]
    parts += [
        f"Straight line, {clock} clock: {line.slope:.4f} workers for each tick of inference time, {line.intercept:+.2f}"
        f" (the paper: {THEORY_SLOPE:g}, rounded up)."
        for clock, line in scaling.lines.items()
    ]
    used = ", ".join(f"{processes} for {name} ({tau_ms:g} ms)" for name, tau_ms, processes in PAPER)
    parts.append(f"The paper itself used {used} at {PAPER_RATE_HZ:.2f} Hz.")
    return " ".join(parts)


def to_json(scaling: Scaling) -> dict[str, Any]:
    """Every number."""
    return {
        "points": [point._asdict() for point in scaling.points],
        "lines": {clock: line._asdict() for clock, line in scaling.lines.items()},
        "left_out": scaling.left_out,
    }
