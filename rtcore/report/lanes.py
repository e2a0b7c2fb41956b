"""Rows of a record as lanes of workers over ticks: the one place that says where the bar of an inference lies.

Drawn as characters (the live view), by matplotlib (timeline.png) and by Plotly (the page). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from rtcore.memory.layout import FrameHeader
from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS
from rtcore.results.axis import TickAxis
from rtcore.results.rows import InferenceRow
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.scheduling.jobs import JobRow


class Bar(NamedTuple):
    """One inference in its worker's lane. All in ticks."""

    worker: int
    outcome: Outcome
    booked: int  #: booked at this tick
    start: float  #: computing from here
    end: float  #: to here: the answer was there, or was given up
    until: int  #: an answer waits up to this tick
    settled: int  #: the tick that applied the answer, or found that it is not to be applied
    answered: bool


def bar_of(job: InferenceRow, axis: TickAxis) -> Bar:
    """`axis`: of the ticks around it."""
    answered, given_up = bool(job.write_ns), max(job.resolved_tick, job.booked_tick)
    return Bar(
        worker=job.worker,
        outcome=job.outcome,
        booked=job.booked_tick,
        start=axis.of_ns(job.start_ns) if answered else float(job.booked_tick),
        end=axis.of_ns(job.write_ns) if answered else float(given_up),
        until=max(job.due_tick, job.resolved_tick) if answered else given_up,
        settled=job.resolved_tick,
        answered=answered,
    )


# -- as characters -----------------------------------------------------------------------------------------

Cell: TypeAlias = tuple[str, str]  #: (glyph, style) of one tick

#: Rich turns these into the nearest colours that the terminal has.
BAR_STYLE = {outcome: OUTCOME_COLOURS[outcome.name.lower()] for outcome in Outcome}
KIND_STYLE = {kind: KIND_COLOURS[kind.name.lower()] for kind in TickKind}


class Glyphs(NamedTuple):
    """The characters of the lanes. Every state has its own, so that they read without colour."""

    start: str
    computing: str
    waiting: str
    applied: str
    late: str
    unused: str
    lost: str
    down: str
    kinds: str  #: by TickKind
    skipped: str
    full: str
    empty: str
    more: str


#: Of each the character, and the one where there is only ASCII.
_BOTH = {"start": "▐[", "computing": "█=", "waiting": "░.", "applied": "●*", "late": "◐L", "unused": "✗x", "lost": "!!"}
_BOTH |= {"down": "╌-", "skipped": "ss", "full": "█#", "empty": "░."}
UNICODE = Glyphs(kinds="●M·-R", more="…", **{name: characters[0] for name, characters in _BOTH.items()})
ASCII = Glyphs(kinds="*M.-R", more="...", **{name: characters[1] for name, characters in _BOTH.items()})


class Columns(NamedTuple):
    """Which ticks the columns of the lanes stand for."""

    first_tick: int
    width: int
    axis: TickAxis


def worker_lanes(
    jobs: Sequence[JobRow], booked: Mapping[int, int], num_lanes: int, columns: Columns, glyphs: Glyphs
) -> list[list[Cell]]:
    """A lane for each of the first `num_lanes` workers. `jobs` newest first; `booked` from `booked_ticks`."""
    lanes: list[list[Cell]] = [[(" ", "")] * columns.width for _ in range(num_lanes)]
    last_booked = [-1] * num_lanes
    for job in reversed(jobs):
        if job.worker < num_lanes and job.tick >= columns.first_tick:
            last_booked[job.worker] = job.booked_tick
            _paint(lanes[job.worker], bar_of(InferenceRow.of(job), columns.axis), columns, glyphs)
    for worker, tick in booked.items():
        start = tick - columns.first_tick
        if worker < num_lanes and tick > last_booked[worker] and start < columns.width:
            begin, lane = max(0, start), lanes[worker]
            style = BAR_STYLE[Outcome.UNFINISHED]
            lane[begin:] = _bar(lane[begin], glyphs, style, columns.width - begin, marked=start >= 0)
    return lanes


def tick_lane(ticks: Sequence[FrameHeader], columns: Columns, glyphs: Glyphs) -> list[Cell]:
    """What governed each tick. `ticks` newest first."""
    cells: list[Cell] = [(" ", "")] * columns.width
    for header in ticks:
        column = header.tick - columns.first_tick
        if column < 0:
            break
        kind = TickKind(header.kind)
        cells[column] = (glyphs.kinds[kind], KIND_STYLE[kind])
        for skipped in range(max(0, column - header.skipped_ticks), column):
            cells[skipped] = (glyphs.skipped, KIND_COLOURS["skipped"])
    return cells


def _paint(lane: list[Cell], bar: Bar, columns: Columns, glyphs: Glyphs) -> None:
    """One inference into its worker's lane. A cell where one ended and the next began shows the end."""
    style = BAR_STYLE[bar.outcome]
    start, end = bar.booked - columns.first_tick, min(bar.settled - columns.first_tick, columns.width - 1)
    written = math.floor(bar.end) - columns.first_tick if bar.answered else end
    begin = max(0, start)
    computed = max(begin, min(written + 1, end))
    if begin < end:
        cells = _bar(lane[begin], glyphs, style, computed - begin, marked=start >= 0)
        lane[begin:end] = cells + [(glyphs.waiting, style)] * (end - computed)
    if bar.outcome is Outcome.UNFINISHED:
        return
    marks = {
        Outcome.ON_TIME: glyphs.applied,
        Outcome.LATE: glyphs.late,
        Outcome.DROPPED_DEAD_WORKER: glyphs.lost,
    }
    lane[end] = (marks.get(bar.outcome, glyphs.unused), style)
    if bar.outcome is Outcome.DROPPED_DEAD_WORKER:
        lane[end + 1 :] = [(glyphs.down, style)] * (columns.width - end - 1)


def _bar(before: Cell, glyphs: Glyphs, style: str, cells: int, *, marked: bool) -> list[Cell]:
    """Computing: its first cell shows the start, or what was there: the end of the job before."""
    bar = [(glyphs.computing, style)] * cells
    if bar and marked:
        bar[0] = (glyphs.start, style) if before[0] in (" ", glyphs.down) else before
    return bar
