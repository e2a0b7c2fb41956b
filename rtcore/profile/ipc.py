"""`rtcore-profile ipc`: frames to workers and answers back, beside other transports and the physical limit."""

from __future__ import annotations

import argparse
import importlib
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
from rich.console import Console

import rtcore
from rtcore.errors import ConfigError, RtcoreError
from rtcore.profile.children import Placement, as_publisher, choose, start_fork_server
from rtcore.profile.ipc_views import LIMITS, PEERS, REFERENCE, RTCORE, TRANSPORTS, cell_table, findings, plot
from rtcore.profile.results import Result, Row
from rtcore.profile.session import BLOCK, PRELOAD, Samples, Session, TransportFailed
from rtcore.profile.transports import Rhythm, RtcoreTransport, Shape, Transport
from rtcore.profile.views import Steps

__all__ = ["DESCRIPTION", "EXAMPLES", "HELP", "add_arguments", "plot", "run"]

HELP = "frame to worker and back: latency and cost, beside other transports and the physical limit"
DESCRIPTION = """\
Measures, for frames of several sizes and for 1 to 32 readers:

  p50, p99      publish start -> a private copy in the reader process
  book          what it costs the env process, before the world's step, to post a job to every reader and wake it
                (rtcore only)
  publish       what it costs the env process to publish the frame, waking the readers that still sleep included.
                Not in it: book, and waking ahead of the deadline, while the env process waits for it anyway
  visible       the part of it until every reader can see the frame (rtcore only; in the JSON as visible_p50_us)
  slot          an answer on its way back: write start -> read by the env process (rtcore-hybrid and pipe)
  p50 / limit   p50 as a multiple of c-spin: two C programs over the same ring, compiled on the spot (of c-futex,
                where there are not enough CPUs for spinning)
  p50 / best peer
                p50 as a multiple of the best transport that is not rtcore's
  missed        frames that a reader never saw, because the next one was there before it had looked

The publisher has the first CPU, the readers the others, for all transports alike (--no-pin: as the kernel likes).
All transports take turns in one run, 25 frames each. Between two frames the publisher sleeps, as between ticks,
and waits for nobody: what cannot keep up falls behind, as it would in a run. With several readers, every reader
gets every frame. A transport whose reader spins is left out by default where there are not enough CPUs for it."""
EXAMPLES = """\
examples:
  rtcore-profile ipc                                       about two minutes
  rtcore-profile ipc --frames 144x160 --readers 1 --rounds 2000
  rtcore-profile ipc --frames 84x84x4 --readers 1,8 --transports rtcore-hybrid,pipe,c-spin
  rtcore-profile ipc --full --json full.json --plot pictures
  rtcore-profile ipc --baseline old.json --fail-if 'ipc.p99[transport=rtcore-hybrid]>+10%'"""

_NO_CLONE = (
    "the transports of others and the limit are in rtcore's repository (benchmarks/ipc), not in the installed package; "
    "run it in a clone"
)
_SPINNING = ("rtcore-spin", "manager", "c-spin")
_FRAMES = ("84x84", "144x160", "210x160x3", "1080x1920x3")
_READERS = (1, 2, 8, 32)
_LARGE_BYTES = 1_000_000
_GAP_US = 4000
#: A frame of megabytes comes at 60 Hz, not at 200: the slower transports could not keep up at all.
_LARGE_GAP_US = 16_000
#: Left out by default with several readers: slow, and no better for it.
_ONE_READER_ONLY = ("queue", "manager")


class Cell(NamedTuple):
    """One combination to measure."""

    frame: str
    readers: int
    transports: tuple[str, ...]
    rounds: int

    @property
    def shape(self) -> Shape:
        return tuple(int(side) for side in self.frame.split("x"))

    @property
    def is_large(self) -> bool:
        return math.prod(self.shape) > _LARGE_BYTES

    def rhythm(self, gap_us: int | None, step_us: int) -> Rhythm:
        usual = _LARGE_GAP_US if self.is_large else _GAP_US
        return Rhythm(gap_ns=1000 * (usual if gap_us is None else gap_us), step_ns=1000 * step_us)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--frames", metavar="HxW[xC],...", help=f"frame shapes, uint8 [{','.join(_FRAMES)}]")
    parser.add_argument("--readers", metavar="N,...", help="numbers of readers [1, and 2,8,32 for 144x160]")
    parser.add_argument("--transports", metavar="NAME,...", help=f"of {', '.join(TRANSPORTS)} [all that suit]")
    rounds = "500 for 144x160 and one reader, 75 above a megabyte, else 150"
    parser.add_argument("--rounds", type=int, metavar="N", help=f"frames per transport [{rounds}]")
    parser.add_argument("--full", action="store_true", help="every size with every number of readers, 1000 frames each")
    gap = f"sleep between two frames [{_GAP_US}, above a megabyte {_LARGE_GAP_US}]"
    parser.add_argument("--gap-us", type=int, metavar="US", help=gap)
    parser.add_argument(
        "--no-pin",
        action="store_true",
        help="leave it to the kernel where publisher and readers run (else: on CPUs of their own)",
    )
    parser.add_argument("--step-us", type=int, default=300, metavar="US", help="the world's step, busy [300]")


def run(options: argparse.Namespace, console: Console) -> Result:
    """Measure every cell. `ConfigError` for shapes, numbers or names that make no sense."""
    cells = plan_cells(options, len(os.sched_getaffinity(0)))
    missing = {name: why for name in sorted({n for cell in cells for n in cell.transports}) if (why := _missing(name))}
    left_out = set(missing)
    for why in sorted(set(missing.values())):
        console.print(f"left out: {why}", style="yellow", highlight=False)
    cells = [cell._replace(transports=tuple(name for name in cell.transports if name not in missing)) for cell in cells]
    if not any(cell.transports for cell in cells):
        raise ConfigError(
            f"none of the chosen transports can be measured here: {'; '.join(sorted(set(missing.values())))}"
        )
    for why in spinning_left_out(options, cells, len(os.sched_getaffinity(0))):
        console.print(f"left out: {why}", style="yellow", highlight=False)
    start_fork_server(*PRELOAD)
    placement = choose(pin=not options.no_pin)
    rows: list[Row] = []
    with Steps(console, sum(len(cell.transports) * _blocks(cell) for cell in cells)) as steps:
        for cell in filter(lambda cell: cell.transports, cells):
            steps.begin(f"{cell.frame}, {cell.readers} reader{'s' * (cell.readers > 1)}")
            rhythm = cell.rhythm(options.gap_us, options.step_us)
            with as_publisher(placement):
                found = measure(cell, rhythm, lambda name: steps.advance(1, name), missing, placement)
            rows += found
            if found:
                console.print(cell_table(found))
    for name, why in missing.items():
        if name not in left_out:
            console.print(f"left out: {why}", style="yellow", highlight=False)
    for line in findings(rows):
        console.print(line, highlight=False)
    extra = {"missing": missing, "pinned": placement.is_pinned}
    return Result("ipc", rows, ("frame_bytes", "readers", "transport"), extra, lambda row: row["transport"] in RTCORE)


def plan_cells(options: argparse.Namespace, num_cpus: int) -> list[Cell]:
    """What to measure, from the options and the CPUs there are."""
    for name in ("gap_us", "step_us", "rounds"):
        value = getattr(options, name)
        if value is not None and value < (BLOCK if name == "rounds" else 0):
            least = f"at least {BLOCK}, one turn" if name == "rounds" else "0 or more"
            raise ConfigError(f"--{name.replace('_', '-')} {value}: expected {least}")
    frames = [_frame(text) for text in options.frames.split(",")] if options.frames else []
    readers = [_count(text) for text in options.readers.split(",")] if options.readers else []
    if options.full:
        chosen = [(frame, count) for frame in frames or _FRAMES for count in readers or _READERS]
    elif frames or readers:
        chosen = [(frame, count) for frame in frames or [REFERENCE] for count in readers or [1]]
    else:
        chosen = [(frame, 1) for frame in _FRAMES] + [(REFERENCE, count) for count in _READERS[1:]]
    cells = []
    for frame, count in chosen:
        cell = Cell(frame, count, _chosen_transports(options, count, num_cpus), 0)
        cells.append(cell._replace(rounds=options.rounds or _usual_rounds(cell, options.full)))
    return cells


def _usual_rounds(cell: Cell, full: bool) -> int:
    if full:
        return 1000
    if cell.is_large:
        return 75
    return 500 if (cell.frame, cell.readers) == (REFERENCE, 1) else 150


def measure(
    cell: Cell, rhythm: Rhythm, step: Callable[[str], None], missing: dict[str, str], placement: Placement
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
                f"{failed.name} failed with {cell.frame}, {cell.readers} reader{'s' * (cell.readers > 1)}: {failed.why}"
            )
            cell = cell._replace(transports=tuple(name for name in cell.transports if name != failed.name))
            if not cell.transports:
                return []


def _measure_all(
    cell: Cell, rhythm: Rhythm, step: Callable[[str], None], missing: dict[str, str], placement: Placement
) -> list[Row]:
    frame = np.random.default_rng(0).integers(0, 256, cell.shape, dtype=np.uint8)
    with Session(cell.readers, placement) as session:
        for name in cell.transports:
            try:
                session.add(make_transport(name, cell.shape, cell.readers))
            except Exception as error:
                if name not in PEERS:
                    raise
                missing[name] = f"{name} cannot be used: {type(error).__name__}: {error}"
        failed = session.start(lambda name: name in PEERS)
        missing |= {name: f"{name} cannot be used: {why}" for name, why in failed.items()}
        for name in session.run(_blocks(cell), frame, rhythm, optional=lambda name: name in PEERS):
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


def rows_of(cell: Cell, frame_bytes: int, samples: dict[str, Samples]) -> list[Row]:
    """One row a transport, with its ratios to the limit and to the best of the others. None: not measured."""
    rows: list[Row] = []
    for name, found in samples.items():
        row: Row = {"frame": cell.frame, "frame_bytes": frame_bytes, "readers": cell.readers, "transport": name}
        row |= _percentiles("", found.latencies, (50, 90, 99, 100))
        row |= _percentiles("publish_", found.costs, (50, 99))
        row |= _percentiles("visible_", found.visible, (50,))
        row |= _percentiles("book_", found.booked, (50,))
        row |= _percentiles("slot_", found.slots, (50, 99))
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


def _frame(text: str) -> str:
    sides = text.strip().split("x")
    if not (1 <= len(sides) <= 4 and all(side.isdecimal() and int(side) > 0 for side in sides)):
        raise ConfigError(f"--frames {text!r}: expected sides joined by x, such as 144x160 or 210x160x3")
    return text.strip()


def _count(text: str) -> int:
    if not text.strip().isdecimal() or not 1 <= int(text) <= 256:
        raise ConfigError(f"--readers {text!r}: expected numbers from 1 to 256, such as 1,2,8")
    return int(text)


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


def spinning_left_out(options: argparse.Namespace, cells: list[Cell], num_cpus: int) -> list[str]:
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


def _blocks(cell: Cell) -> int:
    return max(1, cell.rounds // BLOCK)


# -- numbers -----------------------------------------------------------------------------------------------


def _percentiles(prefix: str, times_ns: list[int], which: tuple[int, ...]) -> Row:
    names = [f"{prefix}{'max' if percent == 100 else f'p{percent}'}_us" for percent in which]
    if not times_ns:
        return dict.fromkeys(names)
    values = np.percentile(np.array(times_ns) / 1e3, which)
    return {name: round(float(value), 3) for name, value in zip(names, values, strict=True)}


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 3) if value is not None and base else None
