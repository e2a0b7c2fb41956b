"""`rtcore-profile scale`: what N workers, larger frames and faster ticks cost, with synthetic workers and world."""

from __future__ import annotations

import contextlib
import math
import threading
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from statistics import linear_regression
from typing import Any, NamedTuple

import psutil
from rich.console import Console

from rtcore.clock import MonotonicClock, cpu_time_of_ns, thread_cpu_time_ns
from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError, RtcoreError, SharedMemoryError, StartupError
from rtcore.host.conditions import HostWatch
from rtcore.profile.options import frame_text, parse_frame, tick_rate, whole_numbers
from rtcore.profile.results import Result, Row
from rtcore.profile.views import Steps, TableColumn, draw_lines, new_figure, save, table_of
from rtcore.report.log import lines_to
from rtcore.results.snapshot import pss_mb
from rtcore.runtime.runtime import Runtime

KEYS = ("sweep", "workers", "rate_hz", "frame_bytes")
_BASE_RATE = Fraction(60)
_BASE_FRAME = (144, 160)
_WORLD = "rtcore_envs.synthetic:SyntheticWorld"
#: Fields that a failed case has too.
_NONE = ("acted_fraction", "interval_cv", "lateness_p99_us", "env_cpu_per_tick_us", "total_pss_mb")
#: Two tables: all in one would not fit into 80 columns.
_QUALITY = (
    TableColumn("infer\nms", "latency_ms", 1),
    TableColumn("acted\n%", "acted_fraction", 2, 100),
    TableColumn("interval\nCV", "interval_cv", 3),
    TableColumn("late p99\nus", "lateness_p99_us", 1),
    TableColumn("planned\nstride", "planned_stride_ticks", 0),
    TableColumn("skipped\nstarts", "skipped_starts", 0),
    TableColumn("machine\nbusy %", "machine_busy_percent", 0),
)
_COST = (
    TableColumn("publish\nus", "publish_p50_us", 0),
    TableColumn("to read\nus", "publish_to_read_p50_us", 0),
    TableColumn("env us\n/tick", "env_cpu_per_tick_us", 0),
    TableColumn("env\n%", "cpu_env_percent", 1),
    TableColumn("workers\n%", "cpu_workers_percent", 1),
    TableColumn("superv.\n%", "cpu_supervisor_percent", 1),
    TableColumn("last w.\nMB", "last_worker_pss_mb", 1),
    TableColumn("total\nMB", "total_pss_mb", 0),
)
#: Time that waking, reading and writing get before the due tick; half a tick where that is more.
_SLACK_MS = 2.0
#: A run goes on for so long beyond what is measured: it is stopped, never left to end by itself.
_SPARE_S = 600.0
_ROLES = ("env", "workers", "supervisor")


class Sweep(NamedTuple):
    """How a sweep is shown: the field of its rows in tables and in pictures, its axis, what is the same in all rows."""

    field: str
    x: str
    axis: str
    title: str


_SWEEPS = {
    "workers": Sweep("workers", "workers", "workers", "By workers: {rate_hz:g} Hz, synthetic frames of {frame} bytes"),
    "rate": Sweep(
        *("rate_hz", "rate_hz", "tick rate [Hz]"),
        title="By tick rate: {workers} synthetic workers, synthetic frames of {frame} bytes",
    ),
    "frame": Sweep("frame", "frame_bytes", "frame [bytes]", "By frame: {workers} synthetic workers, {rate_hz:g} Hz"),
}
#: What one more of something costs: the sweep that tells, what grows in it, what is counted, for so many more.
_GROWTH = {
    "env_cpu_per_tick_us_per_worker": ("workers", "workers", "env_cpu_per_tick_us", 1),
    "total_pss_mb_per_worker": ("workers", "workers", "total_pss_mb", 1),
    "cpu_env_percent_per_100_hz": ("rate", "rate_hz", "cpu_env_percent", 100),
    "publish_p50_us_per_frame_mb": ("frame", "frame_bytes", "publish_p50_us", 1e6),
    "env_cpu_per_tick_us_per_frame_mb": ("frame", "frame_bytes", "env_cpu_per_tick_us", 1e6),
}


@dataclass(frozen=True)
class ScaleCase:
    """What is run. Synthetic workers, all of them needed for an action every tick."""

    workers: int
    rate_hz: Fraction
    frame: tuple[int, ...]

    @property
    def frame_bytes(self) -> int:
        return math.prod(self.frame)

    @property
    def latency_ms(self) -> float:
        """Inference time for which `workers` give one action a tick: their ticks together, less half a tick.

        At high rates half a tick is less than a wake-up may take: then 2 ms less, though never below a quarter of all.
        """
        period_ms = 1000 / float(self.rate_hz)
        whole_ms = self.workers * period_ms
        return round(max(whole_ms / 4, whole_ms - max(period_ms / 2, _SLACK_MS)), 3)

    @property
    def lead_in_s(self) -> float:
        """From tick 0 until every worker has answered once."""
        return (self.workers + 1) / float(self.rate_hz)

    def config(self, seconds: float) -> RuntimeConfig:
        """The ring holds a second of frames: with the default size, memory would say nothing about frames."""
        return make_config(
            env_id=_WORLD,
            env_args={"frame": frame_text(self.frame)},
            fps=str(self.rate_hz),
            policy="synthetic",
            policy_args={"latency_ms": self.latency_ms},
            workers=self.workers,
            warmup=1,
            duration=self.lead_in_s + seconds + _SPARE_S,
            ring_slots=max(2 * self.workers + 8, math.ceil(self.rate_hz)),
        )

    def about_s(self, seconds: float) -> float:
        """Roughly how long `measure` takes: start, warm-up, rehearsal (two answers each), lead-in, measurement."""
        return 3.5 + 0.03 * self.workers + 5 * self.lead_in_s + seconds


Measure = Callable[[ScaleCase, float, Callable[[str], None]], Row]


def run(options: Namespace, console: Console) -> Result:
    """Measure every case once, print the tables. A case that fails is a row that says why; all failed: its error."""
    if not 0 < options.seconds <= 86_400:
        raise ConfigError(f"--seconds {options.seconds:g}: expected more than 0, at most 86400")
    return _run(plan_sweeps(options), options.seconds, console, measure)


def plan_sweeps(options: Namespace) -> list[tuple[str, ScaleCase]]:
    """(sweep, case) in order; the same case may be part of several sweeps."""
    fixed, *others = whole_numbers("--fixed-workers", options.fixed_workers)
    if others:
        raise ConfigError(f"--fixed-workers {options.fixed_workers}: expected one number")
    sweeps = [
        ("workers", ScaleCase(whole_numbers("--workers", text)[0], _BASE_RATE, _BASE_FRAME))
        for text in _listed(options.workers)
    ]
    sweeps += [("rate", ScaleCase(fixed, tick_rate("--rates", text), _BASE_FRAME)) for text in _listed(options.rates)]
    sweeps += [("frame", ScaleCase(fixed, _BASE_RATE, parse_frame(text))) for text in _listed(options.frames)]
    if not sweeps:
        raise ConfigError("--workers, --rates and --frames are all none; expected something to measure")
    return list(dict.fromkeys(sweeps))


def _run(sweeps: list[tuple[str, ScaleCase]], seconds: float, console: Console, measure_case: Measure) -> Result:
    cases = list(dict.fromkeys(case for _, case in sweeps))
    rows: dict[ScaleCase, Row] = {}
    failure: RtcoreError | None = None
    total_s = sum(case.about_s(seconds) for case in cases)
    console.print(f"{len(cases)} runs, about {max(1, round(total_s / 60))} min", markup=False)
    with Steps(console, total_s) as steps:
        for number, case in enumerate(cases, 1):
            steps.begin(
                f"{number}/{len(cases)}  {case.workers} workers, {float(case.rate_hz):g} Hz, {frame_text(case.frame)}"
            )
            try:
                rows[case] = measure_case(case, seconds, lambda text: steps.advance(0, text))
            except (SharedMemoryError, StartupError) as error:
                # No room, or too slow to start: the smaller cases still tell something. Anything else is a failure.
                failure = error
                rows[case] = describe(case) | {"error": str(error)} | dict.fromkeys(_NONE)
            steps.advance(case.about_s(seconds))
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


# -- one run --------------------------------------------------------------------------------------------------------


def _spent(runtime: Runtime) -> dict[str, int]:
    """Up to now: the time and the CPU time of each role [ns], and what had been done in it."""
    stats = runtime.stats()
    supervisors = [thread.ident for thread in threading.enumerate() if thread.name == f"rtcore-{runtime.run_id}"]
    return {
        "elapsed_ns": MonotonicClock.now_ns(),
        "env_ns": cpu_time_of_ns(runtime.env_pid),
        "workers_ns": sum(map(cpu_time_of_ns, runtime.worker_pids.values())),
        "supervisor_ns": sum(thread_cpu_time_ns(ident) for ident in supervisors if ident is not None),
        "ticks": stats.counters["ticks"],
        "inferences": sum(worker.inferences for worker in stats.workers),
    }


def measure(case: ScaleCase, seconds: float, on_step: Callable[[str], None] = lambda text: None) -> Row:
    """Run it; the numbers of `seconds` of it, as a row. Raises what went wrong with the run."""
    with lines_to(on_step), Runtime(case.config(seconds)) as runtime:
        on_step("first answers")
        _go_on(runtime, case.lead_in_s)
        watch, before = HostWatch(), _spent(runtime)
        on_step("measuring")
        _go_on(runtime, seconds)
        after, busy = _spent(runtime), watch.conditions()["busy_percent"]
        summary = runtime.summary()
        # Last: it holds the processes up.
        memory = _memory(runtime, case)
    return (
        describe(case)
        | {"error": None}
        | _quality(summary)
        | _cpu(before, after)
        | memory
        | {"machine_busy_percent": busy}
    )


def describe(case: ScaleCase) -> Row:
    """The fields that name a case."""
    return {
        "workers": case.workers,
        "rate_hz": float(case.rate_hz),
        "frame": frame_text(case.frame),
        "frame_bytes": case.frame_bytes,
        "latency_ms": case.latency_ms,
    }


def _go_on(runtime: Runtime, seconds: float) -> None:
    if runtime.wait(seconds):
        raise RtcoreError("the run ended before it was measured; expected it to go on until it is stopped")


def _quality(summary: dict[str, Any]) -> Row:
    ticks, actions, ipc = summary["ticks"], summary["actions"], summary["ipc_us"]
    return {
        "acted_fraction": actions["acted_fraction"],
        "interval_cv": actions["interval_ticks"]["cv"],
        "lateness_p50_us": ticks["lateness_us"]["p50"],
        "lateness_p99_us": ticks["lateness_us"]["p99"],
        "skipped_ticks": ticks["skipped"],
        "delay_p50_ticks": actions["delay_ticks"]["p50"],
        "planned_stride_ticks": summary["plan"]["stride_ticks"],
        "skipped_starts": actions["skipped_starts"],
        "delay_changes": actions["delay_changes"],
        "publish_p50_us": ipc["publish"]["p50"],
        "publish_p99_us": ipc["publish"]["p99"],
        "publish_to_read_p50_us": ipc["publish_to_read"]["p50"],
        "publish_to_read_p99_us": ipc["publish_to_read"]["p99"],
        "step_p50_us": ticks["world_step_us"]["p50"],
    }


def _cpu(before: dict[str, int], after: dict[str, int]) -> Row:
    """Shares are of one CPU: 100% is one CPU all the time."""
    spent = {name: after[name] - before[name] for name in before}
    per_tick, per_inference = (spent[name] * 1e3 or math.nan for name in ("ticks", "inferences"))
    return {
        **{f"cpu_{who}_percent": 100 * spent[f"{who}_ns"] / spent["elapsed_ns"] for who in _ROLES},
        "env_cpu_per_tick_us": _known(spent["env_ns"] / per_tick),
        "worker_cpu_per_inference_us": _known(spent["workers_ns"] / per_inference),
        "measured_s": spent["elapsed_ns"] / 1e9,
    }


def _memory(runtime: Runtime, case: ScaleCase) -> Row:
    """Of the run's own processes: env, workers and fork server; not of the program that started it."""
    workers = runtime.worker_pids
    processes = [runtime.env_pid, *workers.values()]
    with contextlib.suppress(psutil.Error):
        processes.append(psutil.Process(runtime.env_pid).ppid())
    return {
        "last_worker_pss_mb": _known(pss_mb(workers.get(case.workers - 1, -1))),
        "env_pss_mb": _known(pss_mb(runtime.env_pid)),
        "total_pss_mb": _known(sum(map(pss_mb, processes))),
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


# -- what it says --------------------------------------------------------------------------------------------


def growth(rows: list[Row]) -> dict[str, float | None]:
    """Slopes of straight lines through each sweep; None of fewer than two points."""
    slopes: dict[str, float | None] = {}
    for name, (sweep, x, y, more) in _GROWTH.items():
        points = [(row[x], row[y]) for row in rows if row["sweep"] == sweep and row.get(y) is not None]
        is_line = len({at for at, _ in points}) > 1
        slopes[name] = more * linear_regression(*zip(*points, strict=True)).slope if is_line else None
    return slopes


def show(result: Result, console: Console) -> None:
    for sweep, (first, _, _, title) in _SWEEPS.items():
        rows = [row for row in result.rows if row["sweep"] == sweep]
        if not rows:
            continue
        console.print(title.format(**rows[0]), markup=False, style="bold")
        for columns in (_QUALITY, _COST):
            console.print(table_of(rows, (TableColumn(sweep, first), *columns)))
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
    paths = []
    for sweep, (_, x, label, title) in _SWEEPS.items():
        rows = [row for row in result.rows if row["sweep"] == sweep and not row["error"]]
        if len(rows) < 2:
            continue
        figure = new_figure(11.0, 7.0)
        axes = figure.subplots(2, 2).ravel()
        for axis, (panel, unit, lines) in zip(axes, _panels(sweep), strict=True):
            scales: dict[str, Any] = {"xscale": "log"} if sweep == "frame" else {}
            scales |= {"yscale": "log"} if unit == "us" else {"ylim": (0, None)}
            draw_lines(axis, rows, x, lines, title=panel, xlabel=label, ylabel=unit, **scales)
        figure.suptitle(title.format(**rows[0]))
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


# -- options ------------------------------------------------------------------------------------


def _listed(text: str) -> list[str]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [] if parts == ["none"] else parts
