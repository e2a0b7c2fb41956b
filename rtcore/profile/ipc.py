"""`rtcore-profile ipc`: frames to workers and answers back, beside other transports and the physical limit."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mode
from types import ModuleType
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

import rtcore
from rtcore.errors import ConfigError, RtcoreError, counted
from rtcore.profile.children import Placement, as_publisher, choose, start_fork_server
from rtcore.profile.commands import FRAMES, GAP_US, LARGE_GAP_US, LIMITS, PEERS, RTCORE, TRANSPORTS
from rtcore.profile.options import frame_text, parse_frame, whole_numbers
from rtcore.profile.pingpong import BOUNCED, End, RingEnd, bounce
from rtcore.profile.results import Result, Row, percentiles_us
from rtcore.profile.session import BLOCK, PRELOAD, MeasuredTimes, Session, TransportFailed
from rtcore.profile.transports import Rhythm, RtcoreTransport, Shape, Transport
from rtcore.profile.views import Steps, TableColumn, draw_lines, new_figure, save, table_of

#: The frame that most is said about.
REFERENCE = "144x160"
_COLUMNS = (
    TableColumn("transport", "transport"),
    TableColumn("p50", "p50_us", 1),
    TableColumn("p99", "p99_us", 1),
    TableColumn("p99.9", "p999_us", 1),
    TableColumn("max", "max_us", 0),
    TableColumn("book\np50", "book_p50_us", 1),
    TableColumn("publish\np50", "publish_p50_us", 1),
    TableColumn("slot\np50", "slot_p50_us", 1),
    TableColumn("slot\np99", "slot_p99_us", 1),
    TableColumn("p50 /\nlimit", "ratio_to_limit", 2),
    TableColumn("p50 /\nbest\npeer", "ratio_to_best_peer", 2),
    TableColumn("missed", "missed"),
)
_PINGPONG = (*_COLUMNS[:5], TableColumn("samples", "samples"))
#: Of each transport, for each frame.
_TURNS = 3
_LABELS = {"p50_us": "latency p50 [us]", "p99_us": "latency p99 [us]", "publish_p50_us": "cost to publisher p50 [us]"}
#: Of `TRANSPORTS`. One family each: rtcore, the others, the limit.
_COLOURS = (
    *("#1f4e9c", "#3f7fd6", "#8fb6ee"),
    *("#b23a1e", "#d9653b", "#e8926b", "#a6761d", "#c9a227", "#7f5a2b"),
    *("#333333", "#888888"),
)
#: A reader that loses its CPU more often than this a frame is measured against something else that runs.
_BUSY_PREEMPTIONS = 0.1
_NO_CLONE = (
    "the transports of others and the limit are in rtcore's repository (benchmarks/ipc), not in the installed package; "
    "run it in a clone"
)
_SPINNING = ("rtcore-spin", "manager", "c-spin")
_READERS = (1, 2, 8, 32)
_LARGE_BYTES = 1_000_000
#: Left out by default with several readers: slow, and no better for it.
_ONE_READER_ONLY = ("queue", "manager")


class Combination(NamedTuple):
    """One combination to measure."""

    frame: str
    readers: int
    transports: tuple[str, ...]
    rounds: int

    @property
    def shape(self) -> Shape:
        return parse_frame(self.frame)

    @property
    def is_large(self) -> bool:
        return math.prod(self.shape) > _LARGE_BYTES

    def rhythm(self, gap_us: int | None, step_us: int) -> Rhythm:
        usual = LARGE_GAP_US if self.is_large else GAP_US
        return Rhythm(gap_ns=1000 * (usual if gap_us is None else gap_us), step_ns=1000 * step_us)


def run(options: argparse.Namespace, console: Console) -> Result:
    """Measure every cell. `ConfigError` for shapes, numbers or names that make no sense."""
    if options.pattern == "pingpong":
        return _run_pingpong(options, console)
    num_cpus = len(os.sched_getaffinity(0))
    cells = plan_cells(options, num_cpus)
    missing = {name: why for name in sorted({n for cell in cells for n in cell.transports}) if (why := _missing(name))}
    whys = sorted(set(missing.values()))
    cells = [cell._replace(transports=tuple(name for name in cell.transports if name not in missing)) for cell in cells]
    if not any(cell.transports for cell in cells):
        raise ConfigError(f"none of the chosen transports can be measured here: {'; '.join(whys)}")
    _say_left_out([*whys, *spinning_left_out(options, cells, num_cpus)], console)
    start_fork_server(*PRELOAD)
    placement = choose(pin=not options.no_pin)
    rows: list[Row] = []
    with Steps(console, sum(len(cell.transports) * _blocks(cell) for cell in cells)) as steps:
        for cell in filter(lambda cell: cell.transports, cells):
            steps.begin(f"{cell.frame}, {counted(cell.readers, 'reader')}")
            rhythm = cell.rhythm(options.gap_us, options.step_us)
            with as_publisher(placement):
                found = measure(cell, rhythm, lambda name: steps.advance(1, name), missing, placement)
            rows += found
            if found:
                console.print(cell_table(found))
    _say_left_out([why for why in missing.values() if why not in whys], console)
    for line in disturbances(rows):
        console.print(line, highlight=False)
    extra = {"missing": missing, "pinned": placement.is_pinned}
    return Result("ipc", rows, ("frame_bytes", "readers", "transport"), extra, lambda row: row["transport"] in RTCORE)


def _run_pingpong(options: argparse.Namespace, console: Console) -> Result:
    """Every frame through every transport that can be bounced, in turns."""
    unfit = [f"--{name.replace('_', '-')}" for name in ("readers", "gap_us", "full") if getattr(options, name)]
    names = [name.strip() for name in options.transports.split(",")] if options.transports else list(BOUNCED)
    if unfit or (unknown := [name for name in names if name not in BOUNCED]):
        wrong = ", ".join(unfit) if unfit else f"--transports {', '.join(unknown)}"
        raise ConfigError(f"--pattern pingpong has no {wrong}: two processes, no pause, of {', '.join(BOUNCED)}")
    missing = {name: why for name in names if (why := _missing(name))}
    _say_left_out(sorted(set(missing.values())), console)
    shapes = [parse_frame(text) for text in (options.frames.split(",") if options.frames else FRAMES)]
    start_fork_server("rtcore.profile.pingpong")
    placement, rows = choose(pin=not options.no_pin), list[Row]()
    if not placement.is_pinned:
        console.print("both sides share CPUs: one that spins keeps the other waiting", style="yellow")
    with Steps(console, len(shapes) * len(names) * _TURNS) as steps, as_publisher(placement):
        for shape in shapes:
            steps.begin(f"{frame_text(shape)}, ping-pong")
            rounds = max(1, (options.rounds or (300 if math.prod(shape) > _LARGE_BYTES else 3000)) // _TURNS)
            halves: dict[str, list[int]] = {}
            for name in names * _TURNS:
                try:
                    if name not in missing:
                        halves[name] = halves.get(name, []) + bounce(_end(name, shape), shape, rounds, placement, name)
                except Exception as error:
                    if name in RTCORE:
                        raise
                    missing[name] = f"{name} failed with {frame_text(shape)}: {error}"
                    _say_left_out([missing[name]], console)
                steps.advance(1, name)
            about = {"frame": frame_text(shape), "frame_bytes": math.prod(shape), "readers": 1, "pattern": "pingpong"}
            for name, times in halves.items():
                found = percentiles_us(times, (50, 90, 99, 99.9, 100)) | {"samples": len(times)}
                rows.append({**about, "transport": name, **found})
            title = f"{about['frame']} uint8, half a round trip; microseconds"
            console.print(table_of(rows[-len(halves) :] if halves else [], _PINGPONG, title))
    extra = {"missing": missing, "pinned": placement.is_pinned}
    keys = ("frame_bytes", "readers", "transport", "pattern")
    return Result("ipc", rows, keys, extra, lambda row: row["transport"] in RTCORE)


def _end(name: str, shape: Shape) -> End:
    others = find_others()
    end: End = RingEnd(shape) if name in RTCORE or others is None else others.ENDS[name](shape)
    return end


def _say_left_out(whys: list[str], console: Console) -> None:
    for why in whys:
        console.print(f"left out: {why}", style="yellow", highlight=False)


def plan_cells(options: argparse.Namespace, num_cpus: int) -> list[Combination]:
    """What to measure, from the options and the CPUs there are."""
    for name in ("gap_us", "step_us", "rounds"):
        value = getattr(options, name)
        if value is not None and value < (BLOCK if name == "rounds" else 0):
            least = f"at least {BLOCK}, one turn" if name == "rounds" else "0 or more"
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {least}")
    frames = [frame_text(parse_frame(text)) for text in options.frames.split(",")] if options.frames else []
    readers = whole_numbers("--readers", options.readers, 256) if options.readers else []
    if options.full:
        chosen = [(frame, count) for frame in frames or FRAMES for count in readers or _READERS]
    elif frames or readers:
        chosen = [(frame, count) for frame in frames or [REFERENCE] for count in readers or [1]]
    else:
        chosen = [(frame, 1) for frame in FRAMES] + [(REFERENCE, count) for count in _READERS[1:]]
    cells = []
    for frame, count in chosen:
        cell = Combination(frame, count, _chosen_transports(options, count, num_cpus), 0)
        cells.append(cell._replace(rounds=options.rounds or _usual_rounds(cell, options.full)))
    return cells


def _usual_rounds(cell: Combination, full: bool) -> int:
    if full:
        return 1000
    if cell.is_large:
        return 75
    return 500 if (cell.frame, cell.readers) == (REFERENCE, 1) else 150


def measure(
    cell: Combination, rhythm: Rhythm, step: Callable[[str], None], missing: dict[str, str], placement: Placement
) -> list[Row]:
    """Rows of one cell. `missing` gets the transports of others that do not work, and why.

    One that fails in the middle is dropped, and the others are measured again from the start: their readers live in
    the same processes, and where those stand then is not known.
    """
    while True:
        try:
            return _measure_all(cell, rhythm, step, missing, placement)
        except TransportFailed as failed:
            missing[failed.name] = (
                f"{failed.name} failed with {cell.frame}, {counted(cell.readers, 'reader')}: {failed.why}"
            )
            cell = cell._replace(transports=tuple(name for name in cell.transports if name != failed.name))
            if not cell.transports:
                return []


def _measure_all(
    cell: Combination, rhythm: Rhythm, step: Callable[[str], None], missing: dict[str, str], placement: Placement
) -> list[Row]:
    frame = np.random.default_rng(0).integers(0, 256, cell.shape, dtype=np.uint8)
    with Session(cell.readers, placement, optional=PEERS) as session:
        makers = {name: partial(make_transport, name, cell.shape, cell.readers) for name in cell.transports}
        for name, why in session.open(makers).items():
            missing[name] = f"{name} cannot be used: {why}"
        for name in session.run(_blocks(cell), frame, rhythm):
            step(name)
        return rows_of(cell, frame.nbytes, session.samples)


def make_transport(name: str, shape: Shape, readers: int) -> Transport:
    """The publisher's end of the transport of that name."""
    if name in RTCORE:
        return RtcoreTransport(name.removeprefix("rtcore-"), shape, readers)
    others = find_others()
    if others is None:
        raise RtcoreError(f"{name}: {_NO_CLONE}")
    made: Transport = others.MAKERS[name](shape, readers)
    return made


def find_others() -> ModuleType | None:
    """`benchmarks.ipc`, of the clone that rtcore is imported from or that is the current folder; None elsewhere."""
    for root in (Path(rtcore.__file__).parents[1], Path.cwd()):
        folder = root / "benchmarks" / "ipc"
        if (folder / "__init__.py").exists() and (root / "rtcore" / "profile" / "ipc.py").exists():
            if str(root) not in sys.path:
                sys.path.append(str(root))
            found = importlib.import_module("benchmarks.ipc")
            return found if Path(found.__file__ or "").parent.samefile(folder) else None
    return None


def rows_of(cell: Combination, frame_bytes: int, samples: dict[str, MeasuredTimes]) -> list[Row]:
    """One row a transport, with its ratios to the limit and to the best of the others. None: not measured."""
    rows: list[Row] = []
    for name, found in samples.items():
        row: Row = {"frame": cell.frame, "frame_bytes": frame_bytes, "readers": cell.readers, "transport": name}
        row |= percentiles_us(found.latencies, (50, 90, 99, 99.9, 100), "")
        row |= percentiles_us(found.costs, (50, 99), "publish_")
        row |= percentiles_us(found.visible, (50,), "visible_")
        row |= percentiles_us(found.booked, (50,), "book_")
        row |= percentiles_us(found.slots, (50, 99, 99.9, 100), "slot_")
        frames = len(found.latencies) + found.missed
        preempted = round(found.preempted / frames, 3) if found.preempted is not None and frames else None
        rows.append(row | {"samples": len(found.latencies), "missed": found.missed, "preempted_per_frame": preempted})
    for key, suffix in (("p50_us", ""), ("p99_us", "_p99")):
        values = {row["transport"]: row[key] for row in rows if row[key] is not None}
        limit_name = next((name for name in LIMITS if name in values), None)
        bound = values[limit_name] if limit_name is not None else None
        best = min((values[name] for name in PEERS if name in values), default=None)
        for row in rows:
            row["limit"] = limit_name
            row[f"ratio_to_limit{suffix}"] = _ratio(row[key], bound)
            row[f"ratio_to_best_peer{suffix}"] = _ratio(row[key], best)
    return rows


# -- options -----------------------------------------------------------------------------------------------


def _chosen_transports(options: argparse.Namespace, readers: int, num_cpus: int) -> tuple[str, ...]:
    if options.transports:
        names = [name.strip() for name in options.transports.split(",")]
        unknown = [name for name in names if name not in TRANSPORTS]
        if unknown:
            raise ConfigError(f"--transports {', '.join(unknown)}: not known; there are {', '.join(TRANSPORTS)}")
        return tuple(dict.fromkeys(names))
    # A spinning reader takes a CPU for itself: with too few, it would be measured against everybody's loss.
    left_out: tuple[str, ...] = _SPINNING if readers >= num_cpus else ()
    if readers > 1 and not options.full:
        left_out += _ONE_READER_ONLY
    return tuple(name for name in TRANSPORTS if name not in left_out)


def spinning_left_out(options: argparse.Namespace, cells: list[Combination], num_cpus: int) -> list[str]:
    """Why which transports are not measured with which numbers of readers, for lack of CPUs."""
    if options.transports:
        return []
    counts = sorted({cell.readers for cell in cells if cell.readers >= num_cpus})
    if not counts:
        return []
    readers = ", ".join(map(str, counts))
    return [
        f"{', '.join(_SPINNING)} with {readers} reader{'s' * (counts != [1])}: each of these readers spins on a CPU of "
        f"its own, and there are {num_cpus} CPUs, one of them the publisher's (--transports measures them all the same)"
    ]


def _missing(name: str) -> str | None:
    """Why a transport cannot be measured here; None if it can."""
    if name in RTCORE:
        return None
    others = find_others()
    return _NO_CLONE if others is None else others.why_missing(name)


def _blocks(cell: Combination) -> int:
    return max(1, cell.rounds // BLOCK)


# -- numbers -----------------------------------------------------------------------------------------------


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 3) if value is not None and base else None


# -- tables and pictures ---------------------------------------------------------------------------------------------


def disturbances(rows: list[Row]) -> list[str]:
    """Whether something else ran where a reader should have, although there were CPUs enough for all."""
    enough = [row for row in rows if row["transport"] in RTCORE and row["readers"] < len(os.sched_getaffinity(0))]
    pushed = [row for row in enough if (row["preempted_per_frame"] or 0) > _BUSY_PREEMPTIONS]
    if not pushed:
        return []
    worst = max(pushed, key=lambda row: row["preempted_per_frame"])
    return [
        f"NOT A QUIET MACHINE: in {len(pushed)} of {len(enough)} rows that have CPUs enough a reader lost its CPU more "
        f"than once in ten frames ({worst['transport']}, {worst['frame']}: {worst['preempted_per_frame']:.2f} times a "
        "frame). Those latencies are the scheduler's: measure again with nothing else running"
    ]


def cell_table(rows: list[Row]) -> Table:
    first = rows[0]
    title = f"{first['frame']} uint8, {counted(first['readers'], 'reader')}; microseconds"
    return table_of(rows, _COLUMNS, title)


def plot(result: Result, folder: Path) -> list[Path]:
    """By frame size with the fewest readers, and by the number of readers where several were measured."""
    rows = result.rows
    if not rows or "pattern" in rows[0]:
        return [_draw(rows, "frame_bytes", "p99_us", folder / "ipc-pingpong")] if rows else []
    fewest = min(row["readers"] for row in rows)
    paths = [_draw([row for row in rows if row["readers"] == fewest], "frame_bytes", "p99_us", folder / "ipc-frames")]
    # The frame that was measured with the most numbers of readers.
    frame = mode(frame for frame, _ in dict.fromkeys((row["frame"], row["readers"]) for row in rows))
    many = [row for row in rows if row["frame"] == frame]
    if len({row["readers"] for row in many}) > 1:
        paths.append(_draw(many, "readers", "publish_p50_us", folder / "ipc-readers"))
    return paths


def _draw(rows: list[Row], x: str, beside: str, path: Path) -> Path:
    """p50, and beside it another number, over `x`: a line for each transport."""
    what, fixed = ("frame", "readers") if x == "frame_bytes" else ("readers", "frame")
    figure = new_figure(11.0, 4.5)
    both = figure.subplots(1, 2)
    for axes, field in zip(both, ("p50_us", beside), strict=True):
        axes.set_prop_cycle(color=_COLOURS)
        for name in TRANSPORTS:
            draw_lines(axes, [row for row in rows if row["transport"] == name], x, {field: name})
        axes.set_xscale("log", base=2)
        ticks = {row[x]: row[what] for row in rows}
        axes.set(yscale="log", xlabel=f"{what} ({fixed}: {rows[0][fixed]})", ylabel=_LABELS[field])
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.get_legend().remove()  # one for both, beside them: it would cover lines
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return save(figure, path.parent, path.name)
