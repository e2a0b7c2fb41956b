"""`rtcore-profile tick`: how late ticks start on this machine, beside cyclictest."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from rtcore.clock import MonotonicClock, TickClock, TickGrid, plan_next_tick, whole_period_ns
from rtcore.errors import ConfigError, RtcoreError, describe_exit
from rtcore.host.load import be_busy
from rtcore.profile.children import AnsweringProcesses, run_in_processes, start_fork_server
from rtcore.profile.options import tick_rate
from rtcore.profile.results import Result, Row, percentiles_us
from rtcore.profile.views import Steps, TableColumn, new_figure, save, table_of
from rtcore.realtime import prepare_env_process

Policy = Literal["other", "fifo"]
_FIFO_PRIORITY = 20
#: Seconds of the tick clock, then of cyclictest, in turn.
_TURN_S = 5.0
_MOST_S = 86_400
#: Buckets of cyclictest's histogram [us]; what is later is known by its number and the maximum only.
_CYCLICTEST_BUCKETS_US = 20_000
#: Above this load average a machine is not idle.
_IDLE_LOAD = 0.5
_COLUMNS = (
    *(TableColumn(name, name) for name in ("load", "policy", "source")),
    *(TableColumn(name, f"{name}_us", 1) for name in ("p50", "p90", "p99", "max", "mean")),
    TableColumn("/mean", "p99_to_cyclictest_mean", 2),
    TableColumn("/p99", "p99_to_cyclictest_p99", 2),
    TableColumn("skipped", "skipped_ticks"),
)
_CLOCK, _CYCLICTEST = "tick-clock", "cyclictest"
#: How late each of them was [us].
Lateness = npt.NDArray[np.float64]


class TickCase(NamedTuple):
    """What is measured: `load` busy processes, a scheduling policy."""

    policy: Policy
    load: int


def run(options: argparse.Namespace, console: Console) -> Result:
    """Every case in turn. What the kernel refuses, or is not installed, is said and left out."""
    rate_hz, cases = _plan(options)
    cyclictest = None if options.no_cyclictest else find_cyclictest()
    if cyclictest is None and not options.no_cyclictest:
        console.print("cyclictest is not installed (apt install rt-tests): left out", style="yellow", highlight=False)
    load = os.getloadavg()[0]
    if load > _IDLE_LOAD:
        words = f"the load of this machine is {load:.1f} already: what is called idle below is not idle"
        console.print(words, style="yellow", highlight=False)
    rows: list[Row] = []
    shapes: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    sources = 2 if cyclictest else 1
    with Steps(console, options.seconds * len(cases) * sources) as steps:
        for case in cases:
            if case.policy in refused:
                steps.advance(options.seconds * sources)
                continue
            steps.begin(f"measuring: {_case_name(case)}, {options.seconds * sources:g} s")
            for source, found, mean_us, skipped in _measure(
                case, rate_hz, options.seconds, cyclictest=cyclictest, refused=refused, steps=steps
            ):
                rows.append(_row(case, source, rate_hz, found, mean_us=mean_us, skipped_ticks=skipped))
                shapes.append(_shape(rows[-1], found))
    for what, why in refused.items():
        console.print(f"{what}: {why}: left out", style="yellow", highlight=False)
    _add_ratios(rows)
    if rows:
        console.print(_table(rows, rate_hz))
    keys = ("source", "policy", "load", "rate_hz")
    extra = {"refused": refused, "cyclictest": cyclictest, "histograms": shapes}
    return Result("tick", rows, keys, extra, lambda row: row["source"] == _CLOCK)


def plot(result: Result, folder: Path) -> list[Path]:
    """One picture: a panel a case, the share of ticks that started later than x, both axes logarithmic."""
    cases = list(dict.fromkeys((row["policy"], row["load"]) for row in result.rows))
    if not cases:
        return []
    figure = new_figure(5.5 * min(2, len(cases)), 3.8 * -(-len(cases) // 2))
    panels = figure.subplots(-(-len(cases) // 2), min(2, len(cases)), squeeze=False, sharex=True, sharey=True).ravel()
    for axes, (policy, load) in zip(panels, cases, strict=False):
        for shape in result.extra["histograms"]:
            if (shape["policy"], shape["load"]) != (policy, load):
                continue
            draw_later(axes, shape, shape["source"], color="#1f4e9c" if shape["source"] == _CLOCK else "#b23a1e")
        axes.set_title(_case_name(TickCase(policy, load)), fontsize=10)
        axes.set_xlabel("lateness x [us]")
        axes.set_ylabel("share of ticks later than x")
    for axes in panels[len(cases) :]:
        axes.set_visible(False)
    return [save(figure, folder, "tick-lateness")]


def draw_later(axes: Any, shape: dict[str, Any], label: str, **line: Any) -> None:
    """The share of a distribution above x, both axes logarithmic; the last point at half a sample."""
    counts = np.array(shape["counts"])
    later = np.maximum(1 - np.cumsum(counts) / counts.sum(), 0.5 / counts.sum())
    axes.step(np.maximum(shape["values_us"], 0.5), later, where="post", label=label, **line)
    axes.set(xscale="log", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


# -- the tick clock ----------------------------------------------------------------------------------------


def measure_clock(policy: Policy, rate_hz: Fraction, seconds: float) -> tuple[list[int], int, dict[str, str]]:
    """Lateness of each tick [ns] in a process of its own, how many ticks were skipped (their whole period had gone by
    before they could start), and what the kernel said to what was asked of it."""
    start_fork_server("rtcore.profile.tick")
    answers = run_in_processes(_run_clock, [(policy, rate_hz, seconds)], role="tick clock", timeout_s=seconds + 30.0)
    lateness, skipped_ticks, report = answers[0]
    return lateness, skipped_ticks, report


def _run_clock(policy: Policy, rate_hz: Fraction, seconds: float) -> tuple[list[int], int, dict[str, str]]:
    """In a child process, which prepares itself as the env process does, but without a world."""
    report = prepare_env_process(None, wants_fifo=policy == "fifo")
    period_ns = whole_period_ns(rate_hz)
    clock = TickClock.for_period(period_ns)
    # The first ticks teach the clock how long this machine oversleeps; they are not counted.
    lead_in = max(10, int(rate_hz) // 4)
    count = lead_in + max(1, int(seconds * rate_hz))
    lateness: list[int] = [0] * count
    grid = TickGrid(clock.now_ns() + 2 * period_ns, rate_hz)
    tick, skipped_ticks = -1, 0
    for index in range(count):
        plan = plan_next_tick(grid, tick, clock.now_ns())
        clock.sleep_until_ns(plan.deadline_ns)
        lateness[index] = clock.now_ns() - plan.deadline_ns
        tick = plan.tick
        skipped_ticks += plan.skipped_ticks if index >= lead_in else 0
    return lateness[lead_in:], skipped_ticks, report


def measure_timer(policy: Policy, rate_hz: Fraction, seconds: float) -> Lateness:
    """As cyclictest, where that is not installed: sleep to absolute deadlines, spin never; how late each waking was."""
    prepare_env_process(None)
    if policy == "other":
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    clock = MonotonicClock()
    grid, late_ns = TickGrid(clock.now_ns(), rate_hz), np.zeros(max(1, int(seconds * rate_hz)))
    for tick in range(len(late_ns)):
        clock.sleep_until_ns(grid.deadline_ns(tick + 1))
        late_ns[tick] = clock.now_ns() - grid.deadline_ns(tick + 1)
    return late_ns / 1e3


# -- cyclictest --------------------------------------------------------------------------------------------


def find_cyclictest() -> str | None:
    """The program; None where it is not installed."""
    return shutil.which("cyclictest")


def measure_cyclictest(program: str, policy: Policy, rate_hz: Fraction, seconds: float) -> tuple[Lateness, float]:
    """As `parse_cyclictest`; `RtcoreError` with its own words if it does not run."""
    with tempfile.TemporaryDirectory(prefix="rtcore-profile-") as folder:
        found = Path(folder) / "cyclictest.json"
        words = [program, "-q", "-m", "-i", str(round(1_000_000 / rate_hz)), f"--policy={policy}"]
        words += ["-D", str(max(1, round(seconds))), "-h", str(_CYCLICTEST_BUCKETS_US), f"--json={found}"]
        words += ["-p", str(_FIFO_PRIORITY)] if policy == "fifo" else []
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 60)
        if done.returncode != 0 or not found.exists():
            said = (done.stderr or done.stdout).strip().splitlines()
            raise RtcoreError(
                f"{' '.join(words)} ended ({describe_exit(done.returncode)}): {said[-1] if said else 'no words'}"
            )
        return parse_cyclictest(json.loads(found.read_text()))


def parse_cyclictest(report: dict[str, Any]) -> tuple[Lateness, float]:
    """(lateness of each wake-up, their mean) from its --json.

    What overflowed its histogram counts as its maximum: percentiles there are too high.
    """
    thread = report["thread"]["0"]
    counts = {int(value): int(count) for value, count in thread["histogram"].items()}
    counted = np.repeat(np.array(list(counts), np.float64), list(counts.values()))
    overflow = np.full(max(0, int(thread["cycles"]) - len(counted)), float(thread["max"]))
    return np.append(counted, overflow), float(thread["avg"])


# -- taking turns ------------------------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> tuple[Fraction, list[TickCase]]:
    rate_hz = tick_rate("--rate", options.rate)
    if not 1 <= rate_hz <= 10_000:
        raise ConfigError(f"--rate {options.rate}: expected 1 to 10000 ticks per second")
    if not 1 <= options.seconds <= _MOST_S:
        raise ConfigError(f"--seconds {options.seconds}: expected 1 to {_MOST_S}; a tick's p99 needs hundreds of ticks")
    load = len(os.sched_getaffinity(0)) if options.load is None else options.load
    if not 0 <= load <= 1024:
        raise ConfigError(f"--load {load}: expected 0 to 1024 processes")
    policies: tuple[Policy, ...] = ("other", "fifo") if options.policy == "both" else (options.policy,)
    return rate_hz, [TickCase(policy, busy) for busy in dict.fromkeys((0, load)) for policy in policies]


def _measure(
    case: TickCase,
    rate_hz: Fraction,
    seconds: float,
    cyclictest: str | None,
    refused: dict[str, str],
    steps: Steps,
) -> Iterator[tuple[str, Lateness, float, int | None]]:
    """Sources with their lateness, its mean and skipped ticks (None: cyclictest skips none, it is late)."""
    turns = max(1, round(seconds / _TURN_S))
    ticks: list[int] = []
    skipped_ticks = 0
    cycles: list[tuple[Lateness, float]] = []
    with busy_processes(["compute"] * case.load):
        for _ in range(turns):
            lateness, skipped, report = measure_clock(case.policy, rate_hz, seconds / turns)
            answer = next((text for what, text in report.items() if what.startswith("SCHED_FIFO")), "granted")
            if case.policy == "fifo" and answer != "granted":
                refused["fifo"] = f"SCHED_FIFO {answer} (ulimit -r, CAP_SYS_NICE, docker run --cap-add SYS_NICE)"
                return
            ticks += lateness
            skipped_ticks += skipped
            steps.advance(seconds / turns)
            if cyclictest is not None and f"cyclictest, {case.policy}" not in refused:
                try:
                    cycles.append(measure_cyclictest(cyclictest, case.policy, rate_hz, seconds / turns))
                except (RtcoreError, subprocess.TimeoutExpired) as error:
                    refused[f"cyclictest, {case.policy}"] = str(error)
            if cyclictest is not None:
                steps.advance(seconds / turns)
    yield _CLOCK, np.array(ticks) / 1e3, float(np.mean(ticks)) / 1e3, skipped_ticks
    if cycles:
        parts, means = zip(*cycles, strict=True)
        yield _CYCLICTEST, np.concatenate(parts), float(np.average(means, weights=list(map(len, parts)))), None


@contextmanager
def busy_processes(kinds: Sequence[str]) -> Iterator[None]:
    """Of these kinds of load, one each, with normal priority until the block ends."""
    busy = AnsweringProcesses("busy process", _be_busy, [(kind,) for kind in kinds])
    try:
        busy.hear(60.0)
        yield
    finally:
        busy.close()


def _be_busy(owner: Connection, kind: str) -> None:
    """Until the owner says a word, or is gone."""
    be_busy(kind, lambda: owner.send((None, "at it")), owner.poll)


# -- numbers and views -------------------------------------------------------------------------------------


def _row(
    case: TickCase, source: str, rate_hz: Fraction, found: Lateness, mean_us: float, skipped_ticks: int | None
) -> Row:
    row: Row = {"source": source, "policy": case.policy, "load": case.load, "rate_hz": round(float(rate_hz), 4)}
    row |= {"ticks": len(found), "skipped_ticks": skipped_ticks, "mean_us": round(mean_us, 3)}
    return row | percentiles_us(found * 1e3, (50, 90, 99, 99.9, 100))


def _shape(row: Row, found: Lateness) -> dict[str, Any]:
    """The distribution in at most some hundred buckets, equally wide on a logarithmic scale, for JSON and pictures."""
    edges = np.unique(np.concatenate([[0.0], np.logspace(-1, 7, 321)]))
    counts, _ = np.histogram(found, edges)
    used = counts > 0
    shape = {key: row[key] for key in ("source", "policy", "load")}
    return shape | {"values_us": edges[1:][used].round(3).tolist(), "counts": counts[used].tolist()}


def _add_ratios(rows: list[Row]) -> None:
    """To cyclictest's average and p99 under the same policy and load; None without it."""
    for row in rows:
        same = [r for r in rows if (r["policy"], r["load"]) == (row["policy"], row["load"])]
        other = next((r for r in same if r["source"] == _CYCLICTEST), None)
        pairs = {"p99_to_cyclictest_mean": ("p99_us", "mean_us"), "p99_to_cyclictest_p99": ("p99_us", "p99_us")}
        for name, (own, theirs) in pairs.items():
            base = other[theirs] if other is not None and row["source"] == _CLOCK else None
            row[name] = round(row[own] / base, 3) if base else None


def _case_name(case: TickCase) -> str:
    beside = "idle" if case.load == 0 else f"{case.load} busy process{'es' * (case.load > 1)}"
    return f"{beside}, {'SCHED_FIFO' if case.policy == 'fifo' else 'normal scheduling'}"


def _table(rows: list[Row], rate_hz: Fraction) -> Table:
    title = (
        f"Lateness of ticks at {float(rate_hz):.4f} Hz, microseconds\n"
        "/mean, /p99: the tick clock's p99 as a multiple of cyclictest's mean and p99"
    )
    beside = {row["load"]: f"{row['load']} busy" if row["load"] else "idle" for row in rows}
    return table_of([row | {"load": beside[row["load"]]} for row in rows], _COLUMNS, title)
