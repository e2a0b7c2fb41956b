"""Rows of a record as lanes of workers over ticks: the one place that says where the bar of an inference lies.

Drawn as characters (the live view), by matplotlib (timeline.png) and by Plotly (the page). Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from rtcore.errors import key_of
from rtcore.memory.layout import FrameHeader
from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS
from rtcore.report.wording import HUMAN_MEANING
from rtcore.results.axis import TickAxis
from rtcore.results.rows import InferenceRow, TickRow
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

LaneCell: TypeAlias = tuple[str, str]  #: (glyph, style) of one tick


def lane_name(place: int, head: int) -> str:
    """Of a worker's lane, or the head's."""
    return "head" if place == head else f"w{place:02d}"


def shade_of(row: FrameHeader | TickRow, head: int) -> str:
    """What governed a tick, as `KIND_COLOURS` names it. `head`: index of the head; -1: there is none."""
    kind = TickKind(row.kind)
    if row.intervention and kind is not TickKind.RESET:
        return "human"
    return "base" if kind is TickKind.ACTED and 0 <= head != row.worker else key_of(kind)


def shade_name(shade: str) -> str:
    """For a legend."""
    names = {"base": "base action, not the head's", "human": HUMAN_MEANING}
    return names.get(shade, shade.replace("_", "-"))


#: Rich turns these into the nearest colours that the terminal has.
BAR_STYLE = {outcome: OUTCOME_COLOURS[key_of(outcome)] for outcome in Outcome}


class Glyphs(NamedTuple):
    """The characters of the lanes. Every state has its own, so that they read without colour."""

    start: str
    computing: str
    waiting: str
    applied: str
    late: str
    unused: str
    features: str  #: not applied itself, but the head used its features
    lost: str
    down: str
    ticks: dict[str, str]  #: by name of `KIND_COLOURS`
    full: str
    empty: str
    more: str


#: Of each the character, and the one where there is only ASCII.
_BOTH = {
    "start": "▐[",
    "computing": "█=",
    "waiting": "░.",
    "applied": "●*",
    "late": "◐L",
    "unused": "✗x",
    "features": "○o",
    "lost": "!!",
}
_BOTH |= {"down": "╌-", "full": "█#", "empty": "░."}
_TICKS = {"missed": "M", "lead_in": "-", "reset": "R", "skipped": "s", "base": "b", "human": "H"}
UNICODE = Glyphs(
    ticks=_TICKS | {"acted": "●", "idle": "·"}, more="…", **{name: pair[0] for name, pair in _BOTH.items()}
)
ASCII = Glyphs(
    ticks=_TICKS | {"acted": "*", "idle": "."}, more="...", **{name: pair[1] for name, pair in _BOTH.items()}
)


class Columns(NamedTuple):
    """Which ticks the columns of the lanes stand for."""

    first_tick: int
    width: int
    axis: TickAxis


def worker_lanes(
    jobs: Sequence[JobRow], booked: Mapping[int, int], places: Sequence[int], columns: Columns, glyphs: Glyphs
) -> dict[int, list[LaneCell]]:
    """A lane for each of `places`. `jobs` newest first; `booked` from `booked_ticks`."""
    lanes: dict[int, list[LaneCell]] = {place: [(" ", "")] * columns.width for place in places}
    last_booked = dict.fromkeys(places, -1)
    for job in reversed(jobs):
        if job.worker in lanes and job.tick >= columns.first_tick:
            last_booked[job.worker] = job.booked_tick
            _paint(lanes[job.worker], bar_of(InferenceRow.of(job), columns.axis), columns, glyphs)
    for worker, tick in booked.items():
        start = tick - columns.first_tick
        if worker in lanes and tick > last_booked[worker] and start < columns.width:
            begin, lane = max(0, start), lanes[worker]
            style = BAR_STYLE[Outcome.UNFINISHED]
            lane[begin:] = _bar(lane[begin], glyphs, style, columns.width - begin, marked=start >= 0)
    return lanes


def tick_lane(ticks: Sequence[FrameHeader], columns: Columns, glyphs: Glyphs, head: int) -> list[LaneCell]:
    """What governed each tick. `ticks` newest first."""
    cells: list[LaneCell] = [(" ", "")] * columns.width
    for header in ticks:
        column = header.tick - columns.first_tick
        if column < 0:
            break
        shade = shade_of(header, head)
        cells[column] = (glyphs.ticks[shade], KIND_COLOURS[shade])
        for skipped in range(max(0, column - header.skipped_ticks), column):
            cells[skipped] = (glyphs.ticks["skipped"], KIND_COLOURS["skipped"])
    return cells


def _paint(lane: list[LaneCell], bar: Bar, columns: Columns, glyphs: Glyphs) -> None:
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
        Outcome.FEATURES_USED: glyphs.features,
        Outcome.LATE: glyphs.late,
        Outcome.DROPPED_DEAD_WORKER: glyphs.lost,
    }
    lane[end] = (marks.get(bar.outcome, glyphs.unused), style)
    if bar.outcome is Outcome.DROPPED_DEAD_WORKER:
        lane[end + 1 :] = [(glyphs.down, style)] * (columns.width - end - 1)


def _bar(before: LaneCell, glyphs: Glyphs, style: str, cells: int, *, marked: bool) -> list[LaneCell]:
    """Computing: its first cell shows the start, or what was there: the end of the job before."""
    bar = [(glyphs.computing, style)] * cells
    if bar and marked:
        bar[0] = (glyphs.start, style) if before[0] in (" ", glyphs.down) else before
    return bar
