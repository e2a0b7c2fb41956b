"""Workers over ticks: timeline.png, a typical stretch beside the worst one and distributions of the whole run, and the
picture of a typical stretch alone, in a notebook.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rtcore.clock import NS_PER_S, NS_PER_US
from rtcore.errors import counted, key_of
from rtcore.files.whole import whole_file
from rtcore.memory.counters import Distribution, bucket_bounds
from rtcore.memory.layout import FrameHeader
from rtcore.report.colours import KIND_COLOURS, RUN_COLOURS
from rtcore.report.lanes import BAR_STYLE, bar_of, lane_name, shade_name, shade_of
from rtcore.report.wording import number, share
from rtcore.results.axis import TickAxis
from rtcore.results.folder import RunFolder, number_at
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunStats
from rtcore.scheduling.dispatch import Outcome, TickKind

_APPLIED = (Outcome.ON_TIME, Outcome.LATE)
_WIDTH_INCHES, _INLINE_INCHES = 14.0, 9.0
_MAX_WORKER_LABELS = 24
#: The label of the axes that hold one bar per job, and of the one below it: for whoever inspects the figure.
WORKERS_AXES, TICKS_AXES = "workers", "ticks"
#: What the labels of the worst stretch begin with.
WORST = "worst "


Rows: TypeAlias = Sequence[FrameHeader] | Sequence[TickRow]


class Window(NamedTuple):
    """The ticks that are drawn, both included, and what ties them to nanoseconds."""

    first_tick: int
    last_tick: int
    axis: TickAxis


class TimelinePart(NamedTuple):
    """A stretch of the run, as it is drawn: workers over ticks."""

    ticks: Rows
    jobs: Sequence[InferenceRow]
    window: Window | None
    name: str
    label: str = ""

    def shows(self, job: InferenceRow) -> bool:
        window = self.window
        return window is not None and job.booked_tick <= window.last_tick and job.resolved_tick >= window.first_tick


class Stagger(NamedTuple):
    """What the picture of a typical stretch is drawn from: of a run under way or over, or of its folder."""

    ticks: Rows
    jobs: Sequence[InferenceRow]
    places: Sequence[int]  #: indices of the workers, and the head's behind them: a lane each
    head: int  #: index of the head; -1: there is none
    delay_ticks: int
    period_ns: float

    @classmethod
    def of_stats(cls, record: RunRecord, stats: RunStats) -> Stagger:
        """A run as its record has it now, however far it is."""
        head = stats.head.index if stats.head is not None else -1
        delay, period_ns = stats.delay_ticks or stats.plan.delay_ticks, float(NS_PER_S / stats.rate_hz)
        # Copies: the run's own thread may add rows meanwhile.
        ticks, jobs = list(record.ticks), [InferenceRow.of(job) for job in list(record.jobs)]
        return cls(ticks, jobs, stats.places, head, delay_ticks=delay, period_ns=period_ns)

    @classmethod
    def of_folder(cls, run: RunFolder) -> Stagger:
        """A run as its folder has it."""
        delay = number_at(run.summary, "plan", "delay_ticks") or max((row.delay_ticks for row in run.ticks), default=0)
        return cls(run.ticks, run.jobs, run.places, run.head, delay_ticks=int(delay), period_ns=run.period_ns)

    @property
    def part(self) -> TimelinePart:
        """A typical stretch of it."""
        window = choose_window(self.ticks, self.delay_ticks, self.period_ns)
        return TimelinePart(self.ticks, self.jobs, window, "a typical stretch")


def draw_timeline(record: RunRecord, stats: RunStats, path: Path) -> None:
    """Write `build_figure` as a PNG. Imports matplotlib (a second); touches none of its global state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as draft:
        build_figure(record, stats).savefig(draft, format="png", dpi=110)


def build_figure(record: RunRecord, stats: RunStats) -> Any:
    """Workers over ticks for a typical stretch and the worst one, and histograms of the whole run. A `Figure`."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - see draw_timeline

    inches = (_workers_inches(stats.places), 0.3, 2.3)
    figure = Figure(figsize=(_WIDTH_INCHES, sum(inches) + 2.0), layout="constrained")
    grid = figure.add_gridspec(3, 6, height_ratios=inches)
    stagger, worst = Stagger.of_stats(record, stats), record.worst.found()
    figure.suptitle(_title(stats), fontsize=11)
    panels = [stagger.part]
    # A run without a tick that lacks an action has no worst stretch.
    if worst is not None and panels[0].window is not None:
        name = f"the worst stretch, {worst.without_action} ticks without a policy action"
        bad = Window(worst.first_tick, worst.last_tick, TickAxis(worst.ticks, stagger.period_ns))
        panels.append(TimelinePart(worst.ticks, [InferenceRow.of(job) for job in worst.jobs], bad, name, WORST))
    columns = 6 // len(panels)
    for index, panel in enumerate(panels):
        _draw_part(figure, grid, slice(index * columns, (index + 1) * columns), panel, stagger)
    interval, delay, late = (stats.distributions[name] for name in ("interval_ticks", "delay_ticks", "lateness_ns"))
    title = f"action interval: mean {number(interval.mean, 3)} ticks, CV {number(interval.cv, 3)}"
    _draw_histogram(figure.add_subplot(grid[2, :2]), interval, title)
    title = f"delay, frame to action: mean {number(delay.mean, 3)} ticks, max {delay.max}"
    _draw_histogram(figure.add_subplot(grid[2, 2:4]), delay, title)
    p50, p99 = (number(late.percentile(q) / NS_PER_US) for q in (0.5, 0.99))
    title = f"tick lateness: p50 {p50}, p99 {p99}, max {number(late.max / NS_PER_US)} us"
    _draw_histogram(figure.add_subplot(grid[2, 4:]), late, title, is_time=True)
    return figure


def build_stagger(stagger: Stagger) -> Any:
    """Workers over ticks for a typical stretch, and nothing else. A `Figure`. Imports matplotlib."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - see draw_timeline

    inches = (_workers_inches(stagger.places), 0.3)
    figure = Figure(figsize=(_INLINE_INCHES, sum(inches) + 1.6), layout="constrained")
    _draw_part(figure, figure.add_gridspec(2, 1, height_ratios=inches), slice(None), stagger.part, stagger)
    return figure


def _workers_inches(places: Sequence[int]) -> float:
    return min(9.0, max(1.2, 0.26 * len(places)))


def _draw_part(figure: Any, grid: Any, columns: slice, panel: TimelinePart, stagger: Stagger) -> None:
    """Workers above ticks, in `columns` of the grid's first two rows."""
    above = figure.add_subplot(grid[0, columns], label=panel.label + WORKERS_AXES)
    below = figure.add_subplot(grid[1, columns], sharex=above, label=panel.label + TICKS_AXES)
    _draw_workers(above, panel, stagger.places, stagger.head)
    _draw_ticks(below, panel, stagger.head)
    width = grid.ncols if columns == slice(None) else columns.stop - columns.start
    _legend(above, below, panel, max(3, width))


def choose_window(ticks: Rows, delay_ticks: int, period_ns: float) -> Window | None:
    """The last of the stretches (3 or 4 delays, at least 32 ticks) that lack as many policy actions as is usual."""
    if not ticks or not period_ns:
        return None
    delay = max(1, delay_ticks)
    size = min(64, max(32, 4 * delay)) if delay <= 16 else min(400, 3 * delay)
    numbers = np.array([header.tick for header in ticks])
    lacking = [header.skipped_ticks + (header.kind in (TickKind.MISSED, TickKind.IDLE)) for header in ticks]
    sums = np.concatenate([[0], np.cumsum(lacking)])
    counts = sums[1:] - sums[np.searchsorted(numbers, numbers - size, side="right")]
    if len(counts) > size + delay:
        counts = counts[:-delay]  # at the very end jobs are cut off
    whole = max(0, min(len(counts) - 1, int(np.searchsorted(numbers, numbers[0] + size - 1))))
    usual = np.sort(counts[whole:])[(len(counts) - whole) // 2]
    chosen = whole + int(np.flatnonzero(counts[whole:] == usual)[-1])
    first, last = max(int(numbers[0]), int(numbers[chosen]) - size + 1), int(numbers[chosen])
    return Window(first, last, TickAxis(ticks, period_ns))


def _title(stats: RunStats) -> str:
    plan = stats.plan
    name = str(stats.env.get("env_id", "")) or "unnamed world"
    delay = stats.delay_ticks or plan.delay_ticks
    head = " and a head" if stats.head is not None else ""
    lines = textwrap.wrap(f"{name}: {stats.policy or 'policy not named'}", 150)
    lines.append(
        f"{plan.stagger}, {counted(plan.workers, 'worker')}{head}, delay {delay} ticks "
        f"({float(delay * 1000 / stats.rate_hz):.0f} ms), {float(stats.rate_hz):.4f} Hz, "
        f"{stats.clock} clock, acted on {share(stats.acted_fraction)} of the possible ticks"
    )
    lines.append(f"histograms: all {stats.counters['ticks']:,} ticks")
    return "\n".join(lines)


def _draw_workers(axes: Any, panel: TimelinePart, places: Sequence[int], head: int) -> None:
    """A bar per job, start to answer, a thin line on to the tick it was for, a dot where it was applied."""
    lane_of = {place: lane for lane, place in enumerate(places)}
    window, jobs = panel.window, [job for job in panel.jobs if panel.shows(job) and job.worker in lane_of]
    axes.set_ylim(len(places) - 0.4, -0.6)
    step = -(-len(places) // _MAX_WORKER_LABELS)
    named = [place for lane, place in enumerate(places) if lane % step == 0 or place == head]
    axes.set_yticks([lane_of[place] for place in named], [lane_name(place, head) for place in named])
    axes.tick_params(labelbottom=False, labelsize=8)
    if window is None or not jobs:
        axes.text(0.5, 0.5, "no policy action", transform=axes.transAxes, ha="center", va="center", fontsize=14)
        return
    axes.set_xlim(window.first_tick, window.last_tick + 1)
    axes.grid(axis="x", color="#e8e8e8", linewidth=0.6)
    axes.set_axisbelow(True)
    dot = 5.0 if len(places) <= 24 else 2.5
    bars = [bar_of(job, window.axis) for job in jobs]
    for outcome in Outcome:
        ended, colour = [bar for bar in bars if bar.outcome is outcome], BAR_STYLE[outcome]
        if not ended:
            continue
        rows = [lane_of[bar.worker] for bar in ended]
        starts, ends = ([getattr(bar, name) for bar in ended] for name in ("start", "end"))
        axes.barh(
            rows,
            np.subtract(ends, starts),
            left=starts,
            height=0.62,
            color=colour,
            hatch=["" if bar.answered else "////" for bar in ended],
            edgecolor="white",
            linewidth=0.3,
            label=f"inference, {key_of(outcome).replace('_', ' ')}",
        )
        axes.hlines(rows, ends, [max(bar.end, bar.until) for bar in ended], colors=colour, linewidth=1.0, zorder=1.5)
        if outcome in _APPLIED:
            axes.plot(
                [bar.settled for bar in ended],
                rows,
                linestyle="",
                marker="o",
                markersize=dot,
                markerfacecolor="black" if outcome is Outcome.ON_TIME else "white",
                markeredgecolor="black",
                markeredgewidth=0.8,
                zorder=3,
                label=f"applied {'at its due tick' if outcome is Outcome.ON_TIME else 'late'}",
            )


def _draw_ticks(axes: Any, panel: TimelinePart, head: int) -> None:
    """A cell per tick, coloured by what governed it; cells without one are ticks that were skipped."""
    axes.set_ylim(0, 1)
    axes.set_yticks([0.5], ["ticks"])
    axes.set_xlabel("tick (a cell is one tick; it begins at its number)", fontsize=9)
    axes.tick_params(labelsize=8)
    if (window := panel.window) is None:
        return
    shown = [header for header in panel.ticks if window.first_tick <= header.tick <= window.last_tick]
    for shade, colour in KIND_COLOURS.items():
        cells = [(header.tick, 1) for header in shown if shade_of(header, head) == shade]
        if cells:
            name = f"tick: {shade_name(shade)}"
            axes.broken_barh(cells, (0, 1), facecolors=colour, edgecolor="white", linewidth=0.5, label=name)
    if len(shown) < window.last_tick - window.first_tick + 1:
        ran = {header.tick for header in shown}
        gone = [(tick, 1) for tick in range(window.first_tick, window.last_tick + 1) if tick not in ran]
        colour = KIND_COLOURS["skipped"]
        axes.broken_barh(gone, (0, 1), facecolors=colour, edgecolor="white", linewidth=0.5, label="tick: skipped")


def _legend(workers_axes: Any, ticks_axes: Any, panel: TimelinePart, columns: int) -> None:
    """One legend for both, above the workers: only what occurs."""
    window, name = panel.window, panel.name
    name += f": ticks {window.first_tick} to {window.last_tick}" if window is not None else ""
    handles, labels = workers_axes.get_legend_handles_labels()
    more, names = ticks_axes.get_legend_handles_labels()
    if handles or more:
        legend = workers_axes.legend(
            [*handles, *more],
            [*labels, *names],
            title=name,
            alignment="left",
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=columns,
            frameon=False,
            fontsize=8,
        )
        legend.get_title().set_fontweight("bold")


def _draw_histogram(axes: Any, shape: Distribution, title: str, *, is_time: bool = False) -> None:
    """Of ticks, or of nanoseconds in us over a logarithmic axis. Counts are logarithmic: a single outlier shows."""
    axes.set_xlabel("us (log)" if is_time else "ticks", fontsize=9)
    axes.tick_params(labelsize=8)
    if shape.max == 0:
        nothing = ("no tick" if not shape.count else "every tick exactly on time") if is_time else "no policy action"
        axes.set_title(title.partition(":")[0], fontsize=9)
        axes.text(0.5, 0.5, nothing, transform=axes.transAxes, ha="center", va="center")
        axes.set_xticks([])
        axes.set_yticks([])
        return
    filled = np.flatnonzero(shape.buckets)
    values, counts = np.array([sum(bucket_bounds(int(bucket))) // 2 for bucket in filled]), shape.buckets[filled]
    if is_time:
        us = np.maximum(values / NS_PER_US, 0.1)  # what is less counts as 0.1
        axes.hist(us, bins=np.geomspace(us.min() / 1.2, us.max() * 1.2, 48), weights=counts, color=RUN_COLOURS[0])
        axes.set_xscale("log")
    else:
        axes.bar(values, counts, width=0.8 if values.max() - values.min() < 100 else 1.6, color=RUN_COLOURS[0])
        axes.set_xlim(max(-0.5, values.min() - 2.5), values.max() + 2.5)
        axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.6)
    # Marks between the decades are a quarter of the time of the whole picture.
    axes.minorticks_off()
    axes.set_ylabel(f"{'ticks' if is_time else 'actions'} (log)", fontsize=9)
    axes.set_title(title, fontsize=9)
