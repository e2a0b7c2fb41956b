"""`rtcore-profile scale`: what N workers, larger frames and faster ticks cost, with synthetic workers and world."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from statistics import linear_regression
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from rtcore.clock import rate_from
from rtcore.errors import ConfigError, RtcoreError, SharedMemoryError, StartupError
from rtcore.profile.results import Result, Row
from rtcore.profile.scale_run import Case, describe, measure
from rtcore.profile.synthetic_world import parse_frame

HELP = (
    "acted fraction, interval CV, lateness, CPU and memory for 1 to 96 synthetic workers, by frame size and tick rate"
)
DESCRIPTION = """\
Three sweeps of short real runs: the number of workers, the tick rate, the frame size. Workers are synthetic (they
sleep, then answer at random) and so is the world (every byte of a frame is new at each step): the numbers are the
runtime's own. The inference time is chosen so that all N workers are needed for one action every tick, started at the
stagger's own even spacing (max-time): N ticks less half a tick, or less 2 ms where that is more.

CPU is in percent of one CPU: of the env process, of all workers together, and of the supervising thread. Memory is
the proportional set size: `last worker` is what one worker more costs; `total` is env process, workers and fork
server, PyTorch included, without the program that started them. The env process locks its memory where it may, which
makes all of PyTorch resident.

With no worker to spare, what else the machine does shows at once: a worker that is held up by more than its slack
misses its start (`skipped starts`), and its tick goes without an action; where the rehearsal before the run found that
most are held up, the plan is an action every second tick (`planned stride` 2). `machine busy` is of all CPUs, this run
included. Measure on an idle machine.
"""
EXAMPLES = """\
examples:
  rtcore-profile scale                                       all three sweeps, about four minutes
  rtcore-profile scale --workers 1,8,64 --rates none --frames none
  rtcore-profile scale --plot plots --json scale.json        with pictures, and for comparing later
  rtcore-profile scale --baseline scale.json --fail-if 'scale.acted<-2%'
  rtcore-profile scale --seconds 30 --workers 96             a longer look at many workers
"""

KEYS = ("sweep", "workers", "rate_hz", "frame_bytes")
_BASE_RATE = Fraction(60)
_BASE_FRAME = (144, 160)
#: Fields that a failed case has too.
_NONE = ("acted_fraction", "interval_cv", "lateness_p99_us", "env_cpu_per_tick_us", "total_pss_mb")
#: Heading, field, digits, factor. Two tables: all in one would not fit into 80 columns.
_QUALITY: tuple[tuple[str, str, int, float], ...] = (
    ("infer\nms", "latency_ms", 1, 1),
    ("acted\n%", "acted_fraction", 2, 100),
    ("interval\nCV", "interval_cv", 3, 1),
    ("late p99\nus", "lateness_p99_us", 1, 1),
    ("planned\nstride", "planned_stride_ticks", 0, 1),
    ("skipped\nstarts", "skipped_starts", 0, 1),
    ("machine\nbusy %", "machine_busy_percent", 0, 1),
)
_COST: tuple[tuple[str, str, int, float], ...] = (
    ("publish\nus", "publish_p50_us", 0, 1),
    ("to read\nus", "publish_to_read_p50_us", 0, 1),
    ("env us\n/tick", "env_cpu_per_tick_us", 0, 1),
    ("env\n%", "cpu_env_percent", 1, 1),
    ("workers\n%", "cpu_workers_percent", 1, 1),
    ("superv.\n%", "cpu_supervisor_percent", 1, 1),
    ("last w.\nMB", "last_worker_pss_mb", 1, 1),
    ("total\nMB", "total_pss_mb", 0, 1),
)
_SWEEPS = {"workers": "workers", "rate": "rate_hz", "frame": "frame"}

Measure = Callable[[Case, float, Callable[[str], None]], Row]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--workers", default="1,2,4,8,16,32,64,96", metavar="N,...", help="sweep of workers at 60 Hz [%(default)s]"
    )
    parser.add_argument(
        "--rates", default="60,200,500,1000", metavar="HZ,...", help="sweep of tick rates, or none [%(default)s]"
    )
    parser.add_argument(
        "--frames",
        default="84x84,144x160,210x160x3,1080x1920x3",
        metavar="HxW[xC],...",
        help="sweep of uint8 frames at 60 Hz, or none [%(default)s]",
    )
    parser.add_argument(
        "--fixed-workers", default="8", metavar="N", help="workers in the other two sweeps [%(default)s]"
    )
    parser.add_argument(
        "--seconds", default=5.0, type=float, metavar="S", help="measured time of each run [%(default)s]"
    )


def run(options: Namespace, console: Console) -> Result:
    """Measure every case once, print the tables. A case that fails is a row that says why; all failed: its error."""
    if not 0 < options.seconds <= 86_400:
        raise ConfigError(f"--seconds {options.seconds:g}: expected more than 0, at most 86400")
    return _run(plan_sweeps(options), options.seconds, console, measure)


def plan_sweeps(options: Namespace) -> list[tuple[str, Case]]:
    """(sweep, case) in order; the same case may be part of several sweeps."""
    fixed = _whole("--fixed-workers", options.fixed_workers)
    sweeps = [
        ("workers", Case(_whole("--workers", text), _BASE_RATE, _BASE_FRAME)) for text in _listed(options.workers)
    ]
    sweeps += [("rate", Case(fixed, _rate(text), _BASE_FRAME)) for text in _listed(options.rates)]
    sweeps += [("frame", Case(fixed, _BASE_RATE, parse_frame(text))) for text in _listed(options.frames)]
    if not sweeps:
        raise ConfigError("--workers, --rates and --frames are all none; expected something to measure")
    return list(dict.fromkeys(sweeps))


def _run(sweeps: list[tuple[str, Case]], seconds: float, console: Console, measure_case: Measure) -> Result:
    cases = list(dict.fromkeys(case for _, case in sweeps))
    rows: dict[Case, Row] = {}
    failure: RtcoreError | None = None
    with _progress(console, cases, seconds) as (begin, on_step):
        for case in cases:
            begin(case)
            try:
                rows[case] = measure_case(case, seconds, on_step)
            except (SharedMemoryError, StartupError) as error:
                # No room, or too slow to start: the smaller cases still tell something. Anything else is a failure.
                failure = error
                rows[case] = describe(case) | {"error": str(error)} | dict.fromkeys(_NONE)
    if failure is not None and all(row["error"] for row in rows.values()):
        raise failure
    result = Result(
        "scale",
        [{"sweep": sweep} | rows[case] for sweep, case in sweeps],
        KEYS,
        extra={"world": "synthetic", "policy": "synthetic", "seconds": seconds},
    )
    result.extra["growth"] = growth(result.rows)
    show(result, console)
    return result


# -- what it says --------------------------------------------------------------------------------------------


def growth(rows: list[Row]) -> dict[str, float | None]:
    """What one more worker, tick per second or MB of frame adds: slopes of straight lines through each sweep."""
    return {
        "env_cpu_per_tick_us_per_worker": _slope(rows, "workers", "workers", "env_cpu_per_tick_us"),
        "total_pss_mb_per_worker": _slope(rows, "workers", "workers", "total_pss_mb"),
        "cpu_env_percent_per_100_hz": _times(_slope(rows, "rate", "rate_hz", "cpu_env_percent"), 100),
        "publish_p50_us_per_frame_mb": _times(_slope(rows, "frame", "frame_bytes", "publish_p50_us"), 1e6),
        "env_cpu_per_tick_us_per_frame_mb": _times(_slope(rows, "frame", "frame_bytes", "env_cpu_per_tick_us"), 1e6),
    }


def show(result: Result, console: Console) -> None:
    for sweep, first in _SWEEPS.items():
        rows = [row for row in result.rows if row["sweep"] == sweep]
        if not rows:
            continue
        console.print(_title(sweep, rows[0]), markup=False, style="bold")
        for columns in (_QUALITY, _COST):
            table = Table(box=SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
            for heading in (sweep, *(column[0] for column in columns)):
                table.add_column(heading, justify="right")
            for row in rows:
                table.add_row(f"{row[first]:g}" if sweep != "frame" else row[first], *_cells(row, columns))
            console.print(table)
        for row in rows:
            if row["error"]:
                console.print(f"{sweep} {row[first]}: not measured: {row['error']}", markup=False, soft_wrap=True)
    for name, value in result.extra["growth"].items():
        if value is not None:
            console.print(f"  {name.replace('_', ' ')}: {value:.3g}", markup=False, highlight=False)
    console.print(
        "Synthetic workers and world: the numbers are the runtime's, not a network's or a game's.", markup=False
    )


def plot(result: Result, folder: Path) -> list[Path]:
    """`scale-workers.png`, `scale-rate.png`, `scale-frame.png`: one for each sweep with two cases or more."""
    from rtcore.profile.plots import new_figure, save  # noqa: PLC0415 - only for --plot

    paths = []
    for sweep, field in (("workers", "workers"), ("rate", "rate_hz"), ("frame", "frame_bytes")):
        rows = [row for row in result.rows if row["sweep"] == sweep and not row["error"]]
        if len(rows) < 2:
            continue
        figure = new_figure(11.0, 7.0)
        axes = figure.subplots(2, 2).ravel()
        for axis, (title, unit, lines) in zip(axes, _panels(sweep), strict=True):
            _draw(axis, rows, field, title, unit, lines)
        figure.suptitle(_title(sweep, rows[0]))
        paths.append(save(figure, folder, f"scale-{sweep}"))
    return paths


def _panels(sweep: str) -> list[tuple[str, str, dict[str, str]]]:
    """(title, unit, {field: label}) of four panels."""
    moving = ("frame: to the ring and to a reader", "us", {"publish_p50_us": "publish p50"})
    moving[2]["publish_to_read_p50_us"] = "publish to read p50"
    memory = ("memory (PSS)", "MB", {"total_pss_mb": "total", "last_worker_pss_mb": "last worker"})
    return [
        ("actions", "fraction", {"acted_fraction": "acted fraction", "interval_cv": "interval CV"}),
        ("tick lateness", "us", {"lateness_p50_us": "p50", "lateness_p99_us": "p99"}),
        (
            "CPU",
            "% of one CPU",
            {"cpu_env_percent": "env", "cpu_workers_percent": "workers", "cpu_supervisor_percent": "supervisor"},
        ),
        memory if sweep == "workers" else moving,
    ]


def _draw(axis: Any, rows: list[Row], field: str, title: str, unit: str, lines: dict[str, str]) -> None:
    for name, label in lines.items():
        points = [(row[field], row[name]) for row in rows if row.get(name) is not None]
        axis.plot([x for x, _ in points], [y for _, y in points], "o-", label=label)
    if field == "frame_bytes":
        axis.set_xscale("log")
    if unit == "us":
        axis.set_yscale("log")
    else:
        axis.set_ylim(bottom=0)
    axis.set(title=title, xlabel={"rate_hz": "tick rate [Hz]", "frame_bytes": "frame [bytes]"}.get(field, field))
    axis.set_ylabel(unit)
    axis.grid(alpha=0.3)
    axis.legend()


def _title(sweep: str, row: Row) -> str:
    fixed = {
        "workers": f"{row['rate_hz']:g} Hz, synthetic frames of {row['frame']} bytes",
        "rate": f"{row['workers']} synthetic workers, synthetic frames of {row['frame']} bytes",
        "frame": f"{row['workers']} synthetic workers, {row['rate_hz']:g} Hz",
    }
    return f"By {'tick rate' if sweep == 'rate' else sweep}: {fixed[sweep]}"


def _cells(row: Row, columns: tuple[tuple[str, str, int, float], ...]) -> Iterator[str]:
    for _, field, digits, factor in columns:
        value = row.get(field)
        yield "-" if value is None else f"{value * factor:.{digits}f}"


def _slope(rows: list[Row], sweep: str, x: str, y: str) -> float | None:
    """Least squares; None of fewer than two points."""
    points = [(row[x], row[y]) for row in rows if row["sweep"] == sweep and row.get(y) is not None]
    if len({point[0] for point in points}) < 2:
        return None
    return linear_regression(*zip(*points, strict=True)).slope


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


# -- progress and options ------------------------------------------------------------------------------------


@contextmanager
def _progress(
    console: Console, cases: list[Case], seconds: float
) -> Iterator[tuple[Callable[[Case], None], Callable[[str], None]]]:
    """Yields (a case begins, what it is doing). A bar on a terminal; elsewhere a line for each case."""
    total_s = sum(case.about_s(seconds) for case in cases)
    console.print(f"{len(cases)} runs, about {max(1, round(total_s / 60))} min", markup=False)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total_s)
        done: list[Case] = []
        text = [""]

        def begin(case: Case) -> None:
            progress.update(bar, completed=sum(before.about_s(seconds) for before in done))
            done.append(case)
            row = describe(case)
            text[0] = f"{len(done)}/{len(cases)}  {case.workers} workers, {row['rate_hz']:g} Hz, {row['frame']}"
            on_step("starting")
            if not console.is_terminal:
                console.print(text[0], markup=False, highlight=False)

        def on_step(step: str) -> None:
            progress.update(bar, description=f"{text[0]}: {step}")

        yield begin, on_step


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [] if parts == ["none"] else parts


def _whole(option: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"{option}: got {text!r}; expected whole numbers of at least 1, as in 1,8,64")
    return value


def _rate(text: str) -> Fraction:
    try:
        return rate_from(text)
    except (ValueError, ZeroDivisionError) as error:
        raise ConfigError(f"--rates: got {text!r}; expected tick rates in Hz, as in 60,59.7275,1000") from error
