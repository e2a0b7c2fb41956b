"""The pictures of a sweep: return against delay with bands, learning curves, regret, workers over inference time.

The same cells give the same files, byte for byte: no date, no random names. Lines are labelled where they end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from rtcore.experiments.estimates import By, band
from rtcore.experiments.records import CellRecord
from rtcore.experiments.regret import DELAY_PART, INACTION, LEARNING, PARTS, Regret
from rtcore.experiments.scaling import PAPER, PAPER_RATE_HZ, Scaling
from rtcore.experiments.table import AXIS_LABELS, DELAY, METRICS, Estimates, Grid, value_text
from rtcore.files.whole import whole_file
from rtcore.report.colours import RUN_COLOURS

_FLOOR_COLOUR = "#8A9099"
_TEXT_COLOUR = "#3A4048"
_MARKERS = "osD^vP"
_LINE_STYLES = ("solid", (0, (6, 2)), (0, (1, 1)))
_FLOOR_STYLES = ((0, (4, 2)), (0, (1, 1.5)), (0, (4, 2, 1, 2)), "solid")
#: Regret's parts: what staggering removes, what only newer frames do, what is left to learn.
_PART_COLOURS = {INACTION: RUN_COLOURS[4], DELAY_PART: RUN_COLOURS[1], LEARNING: RUN_COLOURS[5]}
_CLOCK_STYLES = {"virtual": (RUN_COLOURS[0], "o"), "wall": (RUN_COLOURS[2], "s")}
_SETTINGS: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9AA0A8",
    "axes.labelcolor": _TEXT_COLOUR,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlecolor": _TEXT_COLOUR,
    "axes.titlelocation": "left",
    "xtick.color": _TEXT_COLOUR,
    "ytick.color": _TEXT_COLOUR,
    "font.size": 9.5,
    "grid.color": "#DADDE2",
    "grid.linewidth": 0.6,
    "figure.constrained_layout.h_pad": 0.08,
    "figure.constrained_layout.w_pad": 0.08,
    "figure.constrained_layout.hspace": 0.06,
    "figure.constrained_layout.wspace": 0.04,
    "svg.hashsalt": "rtcore",
    "svg.fonttype": "path",
}
#: Lines in a picture are this far apart at least, of a text's height.
_LABEL_GAP = 1.15
#: Points that a learning curve is drawn at.
_CURVE_POINTS = 100


class Style(NamedTuple):
    """How a line of a table looks in every picture."""

    colour: str
    marker: str
    dashes: Any
    is_floor: bool


_BEST_STYLE = Style(_TEXT_COLOUR, "", (0, (1, 1.5)), is_floor=True)


def styles_of(grids: Sequence[Grid]) -> dict[Any, Style]:
    """The same agent has the same colour in every world."""
    lines = list(dict.fromkeys(line for grid in grids for line in grid.lines))
    floors = {line for grid in grids for line in grid.floors}
    learned = [line for line in lines if line not in floors]
    styles = {}
    for index, line in enumerate(learned):
        again, place = divmod(index, len(RUN_COLOURS))  # more of them than colours: other markers and dashes
        marker = _MARKERS[(place + again) % len(_MARKERS)]
        styles[line] = Style(RUN_COLOURS[place], marker, _LINE_STYLES[again % len(_LINE_STYLES)], is_floor=False)
    for index, line in enumerate(line for line in lines if line in floors):
        styles[line] = Style(_FLOOR_COLOUR, "", _FLOOR_STYLES[index % len(_FLOOR_STYLES)], is_floor=True)
    return styles


# -- return against delay ------------------------------------------------------------------------------------------


def draw_grids(grids: Sequence[Grid], metric: str, by: By, stem: Path) -> list[Path]:
    """A panel for each world: a line with its band for each agent over the columns; floors are thin lines."""
    styles = styles_of(grids)
    with _figure(len(grids)) as (figure, panels):
        labels = []
        for axes, grid in zip(panels, grids, strict=True):
            labels += _draw_grid(axes, Estimates(grid, METRICS[metric], by), styles)
        _place_labels(figure, labels)
        return _save(figure, stem)


class _Label(NamedTuple):
    """A text at the end of a line."""

    axes: Any
    y: float
    text: str
    style: Style


def _draw_grid(axes: Any, table: Estimates, styles: Mapping[Any, Style]) -> list[_Label]:
    grid = table.grid
    at = _positions(grid.columns)
    labels = []
    for line in grid.lines:
        points = [(at[column], table.at(line, column)) for column in grid.columns if table.at(line, column).num_seeds]
        if not points:
            continue
        style, xs = styles[line], [x for x, _ in points]
        if len(points) == 1 and style.is_floor:  # it has no delay of its own: the same everywhere
            axes.axhline(points[0][1].value, color=style.colour, linestyle=style.dashes, linewidth=1, zorder=1)
        else:
            _draw_line(axes, xs, [found for _, found in points], style)
        labels.append(_Label(axes, points[-1][1].value, str(line), style))
    best = {cell.best_known for cells in grid.cells.values() for cell in cells} - {None}
    if table.metric is METRICS["return"] and len(best) == 1:
        value = float(best.pop() or 0.0)
        axes.axhline(value, color=_BEST_STYLE.colour, linestyle=_BEST_STYLE.dashes, linewidth=1, zorder=1)
        labels.append(_Label(axes, value, "best known", _BEST_STYLE))
    axes.set_title(grid.title)
    _label_columns(axes, grid, at)
    axes.set_ylabel(table.metric.label)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    return labels


def _draw_line(axes: Any, xs: Sequence[float], found: Sequence[Any], style: Style) -> None:
    values, low, high = ([getattr(each, name) for each in found] for name in ("value", "low", "high"))
    if style.is_floor:
        axes.plot(xs, values, color=style.colour, linestyle=style.dashes, linewidth=1, zorder=1)
        return
    if len(xs) == 1:  # a band has no width here
        axes.vlines(xs, low, high, color=style.colour, alpha=0.5, linewidth=2, zorder=2)
    axes.fill_between(xs, low, high, color=style.colour, alpha=0.18, linewidth=0, zorder=2)
    axes.plot(
        xs,
        values,
        color=style.colour,
        linestyle=style.dashes,
        marker=style.marker,
        markersize=5,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linewidth=2,
        zorder=3,
    )


def _positions(columns: Sequence[Any]) -> dict[Any, float]:
    """Where columns are drawn: numbers at their value, names one after another."""
    if all(isinstance(column, (int, float)) for column in columns):
        return {column: float(column) for column in columns}
    return {column: float(index) for index, column in enumerate(columns)}


def _label_columns(axes: Any, grid: Grid, at: Mapping[Any, float]) -> None:
    places = list(at.values())
    if min(places) > 0 and max(places) >= 8 * min(places):
        axes.set_xscale("log")
    axes.set_xticks(places, [str(column) for column in grid.columns])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(AXIS_LABELS.get(grid.column_axis, grid.column_axis))


def _place_labels(figure: Any, labels: Sequence[_Label]) -> None:
    """Each at the height of its line's end, moved apart where they would lie on each other."""
    figure.draw_without_rendering()
    for axes in dict.fromkeys(label.axes for label in labels):
        mine = sorted((label for label in labels if label.axes is axes), key=lambda label: label.y)
        to_points = axes.transData.transform
        unit = 72 / figure.dpi
        wanted = [to_points((axes.get_xlim()[1], label.y))[1] * unit for label in mine]
        heights = _apart(wanted, _LABEL_GAP * 8.5)
        for label, want, height in zip(mine, wanted, heights, strict=True):
            weight = "normal" if label.style.is_floor else "bold"
            _write_beside(axes, label.y, label.text, label.style.colour, weight=weight, raised_by=height - want)


def _write_beside(
    axes: Any, y: float, text: str, colour: str, *, weight: str = "normal", raised_by: float = 0.0
) -> None:
    """To the right of the panel, at a height of its own axis, raised by so many points."""
    axes.annotate(
        text,
        (1, y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(6, raised_by),
        textcoords="offset points",
        color=colour,
        fontsize=8.5,
        fontweight=weight,
        va="center",
        annotation_clip=False,
    )


def _apart(wanted: Sequence[float], gap: float) -> list[float]:
    """The ascending heights nearest to the wanted ones that are `gap` apart."""
    groups: list[list[float]] = []  # of one group: the sum of what each would have its first at, and how many
    for index, height in enumerate(wanted):
        groups.append([height - index * gap, 1, index])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] >= groups[-1][0] / groups[-1][1]:
            total, count, _ = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += count
    places: list[float] = []
    for total, count, _ in groups:
        places += [total / count] * int(count)
    return [place + index * gap for index, place in enumerate(places)]


# -- learning curves -----------------------------------------------------------------------------------------------


def draw_curves(grids: Sequence[Grid], by: By, folder: Path) -> list[Path]:
    """A picture for each world, with a panel for each column that something was learned in."""
    styles = styles_of(grids)
    paths = []
    for grid in grids:
        learned = {
            column: [line for line in grid.lines if any(map(_has_curve, grid.cells.get((line, column), ())))]
            for column in grid.columns
        }
        columns = [column for column in grid.columns if learned[column]]
        if not columns:
            continue
        with _figure(len(columns), width_in=4.3, height_in=2.8, across=3, sharey=True) as (figure, panels):
            labels: list[_Label] = []
            for axes, column in zip(panels, columns, strict=True):
                for line in learned[column]:
                    labels += _draw_curve(axes, grid.cells[line, column], str(line), styles[line], by)
                axes.set(title=value_text(grid.column_axis, column), xlabel="ticks of learning")
                axes.grid(axis="y")
                axes.xaxis.set_major_formatter(_thousands)
            figure.suptitle(f"{grid.title}: return while learning", color=_TEXT_COLOUR, fontweight="bold")
            _place_labels(figure, labels)
            paths += _save(figure, folder / f"curves-{_file_name(grid.title)}")
    return paths


def _has_curve(cell: CellRecord) -> bool:
    return cell.result is not None and len(cell.result.curve) > 1


def _draw_curve(axes: Any, cells: Sequence[CellRecord], name: str, style: Style, by: By) -> list[_Label]:
    curves = [cell.result.curve for cell in cells if cell.result is not None and _has_curve(cell)]
    begin, end = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if end <= begin:
        return []
    ticks = np.linspace(begin, end, _CURVE_POINTS)
    heights = [np.interp(ticks, *np.array(curve, np.float64).T) for curve in curves]
    values, low, high = band(np.array(heights), by)
    axes.fill_between(ticks, low, high, color=style.colour, alpha=0.18, linewidth=0)
    axes.plot(ticks, values, color=style.colour, linestyle=style.dashes, linewidth=1.8)
    return [_Label(axes, float(values[-1]), name, style)]


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if abs(value) >= 1000 else f"{value:g}"


def _file_name(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


# -- regret --------------------------------------------------------------------------------------------------------


def draw_regrets(regrets: Sequence[Regret], stem: Path) -> list[Path]:
    """A panel for each world: from what the sequential agent gets up to the best known, part on part."""
    with _figure(len(regrets)) as (figure, panels):
        for axes, regret in zip(panels, regrets, strict=True):
            _draw_regret(axes, regret)
        handles, names = panels[0].get_legend_handles_labels()
        figure.legend(handles, names, frameon=False, ncols=len(names), loc="outside lower center")
        return _save(figure, stem)


def _draw_regret(axes: Any, regret: Regret) -> None:
    places, width = np.arange(len(regret.splits)), 0.62
    heights = np.array([split.sequential.value for split in regret.splits])
    tops = [regret.best.value, *(split.staggered.value for split in regret.splits)]
    lowest = min(0.0, min(heights) - 0.1 * (max(tops) - min(heights)))
    axes.bar(places, heights - lowest, width, bottom=lowest, color="#C9CDD3", label="what sequential gets")
    for index, part in enumerate(PARTS):
        found = [split.parts[part] for split in regret.splits]
        values = np.array([each.value for each in found])
        axes.bar(places, values, width, bottom=heights, color=_PART_COLOURS[part], label=f"lost to {part}")
        heights = heights + values
        errors = [[each.value - each.low for each in found], [each.high - each.value for each in found]]
        if not np.isnan(errors).all():
            at = places + 0.15 * (index - 1)
            axes.errorbar(at, heights, np.nan_to_num(errors), fmt="none", ecolor=_TEXT_COLOUR, elinewidth=1, capsize=2)
    axes.axhline(regret.best.value, color=_BEST_STYLE.colour, linestyle=_BEST_STYLE.dashes, linewidth=1)
    _write_beside(axes, regret.best.value, "best known", _TEXT_COLOUR)
    axes.set_ylim(bottom=lowest)
    axes.set_xticks(places, [str(split.delay_ticks) for split in regret.splits])
    axes.set(title=regret.grid.title, xlabel=AXIS_LABELS[DELAY], ylabel=METRICS["return"].label)


# -- workers over inference time -----------------------------------------------------------------------------------


def draw_scaling(scaling: Scaling, stem: Path) -> list[Path]:
    """Both axes are logarithmic: from a tick to thousands of them."""
    with _figure(1, width_in=6.4, height_in=4.6) as (figure, (axes,)):
        xs = [point.tau_ticks for point in scaling.points]
        # Not two points: between them a logarithmic axis would bend what is level below one tick.
        line = np.geomspace(min([*xs, 0.2]), max([*xs, 60.0]) * 1.3, 2000)
        label = "N = inference time / tick, rounded up"
        axes.plot(line, np.ceil(line), color=_FLOOR_COLOUR, linewidth=1, label=label, zorder=1)
        for clock, (colour, marker) in _CLOCK_STYLES.items():
            points = [(point.tau_ticks, point.num_workers) for point in scaling.points if point.clock == clock]
            if not points:
                continue
            slope = f", slope {scaling.lines[clock].slope:.3f}" if clock in scaling.lines else ""
            label = f"measured, {clock} clock: fewest with an action every tick{slope}"
            style = {"color": colour, "markersize": 6, "markeredgecolor": "white", "label": label, "zorder": 3}
            axes.plot(*zip(*points, strict=True), marker, **style)
        axes.plot(
            [tau_ms * PAPER_RATE_HZ / 1000 for _, tau_ms, _ in PAPER],
            [processes for _, _, processes in PAPER],
            "D",
            color="none",
            markeredgecolor=RUN_COLOURS[4],
            markersize=7,
            label="processes that the paper used for k = 1, 7, 29",
            zorder=2,
        )
        axes.set(xscale="log", yscale="log", xlabel="inference time [ticks]", ylabel="workers")
        axes.xaxis.set_major_formatter(_plain)
        axes.yaxis.set_major_formatter(_plain)
        axes.grid()
        axes.legend(frameon=False, fontsize=8.5, loc="upper left")
        return _save(figure, stem)


def _plain(value: float, _: int) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"


# -- figures -------------------------------------------------------------------------------------------------------


@contextmanager
def _figure(
    num_panels: int, *, width_in: float = 5.4, height_in: float = 3.5, across: int = 2, sharey: bool = False
) -> Iterator[tuple[Any, list[Any]]]:
    """A figure with so many panels of this size, at most `across` in a row. It needs no display."""
    import matplotlib  # noqa: PLC0415 - takes a second to import
    from matplotlib.figure import Figure  # noqa: PLC0415

    across = min(num_panels, across)
    down = math.ceil(num_panels / across)
    with matplotlib.rc_context(_SETTINGS):
        figure = Figure(figsize=(width_in * across, height_in * down), layout="constrained")
        panels = list(figure.subplots(down, across, squeeze=False, sharey=sharey).ravel())
        for spare in panels[num_panels:]:
            spare.set_visible(False)
        yield figure, panels[:num_panels]


def _save(figure: Any, stem: Path) -> list[Path]:
    """PNG and SVG, each whole or not at all."""
    paths = [stem.with_suffix(".png"), stem.with_suffix(".svg")]
    for path in paths:
        kind = path.suffix[1:]
        with whole_file(path) as draft:
            figure.savefig(draft, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else None)
    return paths
