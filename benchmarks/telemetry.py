"""What telemetry costs a run: trace and record on (`--trace --out DIR`) against off, in turns in one session.

    python -m benchmarks.telemetry [--pairs 6] [--duration 20] [--latency-ms 100] [--workers 7] [--env-id ID]

Runs with real processes. Within a pair the order alternates (on off, off on, ...), so that a machine that slows down
or warms up hits both alike. Wanted: acted fraction equal within 0.002, lateness p99 within 10%, and recording costs
the env process less than 2% of a tick at 60 Hz. The spread between runs of the same kind stands below: a difference
within it says nothing.

What recording costs the env process is between two numbers, per tick: the events it writes times what writing one takes
in a loop (at least: warm caches), and the time from the end of TICK to the end of ACCOUNT in a traced run (at most: it
holds the counters and histograms too, which are kept without telemetry as well). Beside them: TICK, the tick up to its
published frame; ACCOUNT, everything after it; and the env process's CPU time with telemetry less that without, mostly
decided by how long it spins before a deadline, which follows the machine's mood.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import rtcore
from rtcore.clock import MonotonicClock, cpu_time_of_ns
from rtcore.config.run import make_config
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.memory.counters import Distribution
from rtcore.memory.layout import TRACE_ENV, Layout
from rtcore.memory.trace import TRACE_SLOTS, TraceKind, TraceRing, read_spool
from rtcore.report.bars import Bar

_TICK_60_HZ_US = 1e6 / 60
_LEAD_IN_S = 0.5
_MAX_ACTED_DIFFERENCE = 0.002
_MAX_P99_DIFFERENCE_PERCENT = 10.0
_MAX_COST_PERCENT = 2.0
_TIMED_EVENTS = 20_000


@dataclass(frozen=True)
class Run:
    """One run. Trace durations only of a traced one."""

    traced: bool
    acted: int
    possible: int
    lateness_ns: Distribution
    env_us_per_tick: float
    events: dict[str, Any] | None = None
    lost_events: int = 0

    @property
    def acted_fraction(self) -> float:
        return self.acted / self.possible if self.possible else float("nan")

    @property
    def p99_us(self) -> float:
        return self.lateness_ns.percentile(0.99) / 1e3


def _measure(options: argparse.Namespace, traced: bool) -> Run:
    with tempfile.TemporaryDirectory(prefix="rtcore-telemetry-") as name:
        folder = Path(name)
        config = make_config(
            env_id=options.env_id,
            policy="synthetic",
            policy_args={"latency_ms": options.latency_ms},
            workers=options.workers,
            duration=options.duration + _LEAD_IN_S + 600,  # it is stopped
            **({"trace": True, "out": folder} if traced else {}),
        )
        with rtcore.Runtime(config) as runtime:
            runtime.wait(_LEAD_IN_S)
            cpu_before_ns, ticks_before = cpu_time_of_ns(runtime.env_pid), runtime.stats().counters["ticks"]
            runtime.wait(options.duration)
            cpu_after_ns, stats = cpu_time_of_ns(runtime.env_pid), runtime.stats()
            runtime.stop()
            runtime.wait()
        counters = stats.counters
        return Run(
            traced,
            acted=counters["acted"],
            possible=counters["acted"] + counters["missed"] + counters["idle"],
            lateness_ns=stats.distributions["lateness_ns"],
            env_us_per_tick=(cpu_after_ns - cpu_before_ns) / 1e3 / max(1, counters["ticks"] - ticks_before),
            events=_env_events(folder) if traced else None,
            lost_events=runtime.stats().trace.get("lost_events", 0),
        )


def _env_events(folder: Path) -> dict[str, Any]:
    """Times [us] of TICK, ACCOUNT and from the end of the one to the end of the other; events per tick."""
    events = read_spool(folder)["env"]
    ticks, accounts = (events[events["kind"] == kind] for kind in (TraceKind.TICK, TraceKind.ACCOUNT))
    _, first, second = np.intersect1d(ticks["tick"], accounts["tick"], return_indices=True)
    return {
        "tick": (ticks["end_ns"] - ticks["start_ns"]) / 1e3,
        "account": (accounts["end_ns"] - accounts["start_ns"]) / 1e3,
        "books": (accounts["end_ns"][second] - ticks["end_ns"][first]) / 1e3,
        "per_tick": len(events) / max(1, len(ticks)),
    }


def _time_add() -> float:
    """What writing one event into a trace ring takes, in a loop [us]: the median of ten rounds."""
    layout = Layout(
        max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1, trace_slots=TRACE_SLOTS
    )
    ring = TraceRing(memoryview(bytearray(layout.trace_bytes)), layout, TRACE_ENV)
    ring.format()
    now_ns, rounds_us = MonotonicClock.now_ns, []
    for _ in range(10):
        start_ns = now_ns()
        for tick in range(_TIMED_EVENTS // 10):
            ring.add(TraceKind.TICK, start_ns, start_ns, tick, 1, tick, tick, 1)
        rounds_us.append((now_ns() - start_ns) / 1e3 / (_TIMED_EVENTS // 10))
    return float(np.median(rounds_us))


def _print_runs(console: Console, runs: list[Run]) -> None:
    table = Table("telemetry", title="Every run, in order")
    for heading in ("acted", "late p50 us", "p99 us", "env CPU us/tick"):
        table.add_column(heading, justify="right")
    for run in runs:
        p50_us = run.lateness_ns.percentile(0.5) / 1e3
        cells = (f"{run.acted_fraction:.4f}", f"{p50_us:.1f}", f"{run.p99_us:.1f}", f"{run.env_us_per_tick:.0f}")
        table.add_row("on" if run.traced else "off", *cells)
    console.print(table)


def _print_verdict(console: Console, runs: list[Run]) -> None:
    """All runs of a kind together, and the median run, which one bad moment of the machine does not move."""
    on, off = ([run for run in runs if run.traced is traced] for traced in (True, False))
    table = Table(f"{len(on)} runs each")
    for heading in ("on", "off", "difference", "wanted"):
        table.add_column(heading, justify="right")
    acted = [sum(run.acted for run in kind) / max(1, sum(run.possible for run in kind)) for kind in (on, off)]
    median_acted = [median(run.acted_fraction for run in kind) for kind in (on, off)]
    for name, (with_it, without) in (("all runs", acted), ("median run", median_acted)):
        difference = with_it - without
        held = _verdict(abs(difference) <= _MAX_ACTED_DIFFERENCE)
        numbers = (f"{with_it:.4f}", f"{without:.4f}", f"{difference:+.4f}")
        table.add_row(f"acted, {name}", *numbers, f"{held} ({_MAX_ACTED_DIFFERENCE})")
    late = [reduce(Distribution.merged, (run.lateness_ns for run in kind)).percentile(0.99) / 1e3 for kind in (on, off)]
    median_late = [median(run.p99_us for run in kind) for kind in (on, off)]
    for name, (with_it, without) in (("all runs", late), ("median run", median_late)):
        percent = 100 * (with_it / without - 1)
        held = _verdict(percent <= _MAX_P99_DIFFERENCE_PERCENT)
        numbers = (f"{with_it:.1f}", f"{without:.1f}", f"{percent:+.1f}%")
        table.add_row(f"p99 us, {name}", *numbers, f"{held} ({_MAX_P99_DIFFERENCE_PERCENT:g}%)")
    console.print(table)
    for name, kind in (("on", on), ("off", off)):
        fractions, p99s = [run.acted_fraction for run in kind], [run.p99_us for run in kind]
        console.print(
            f"{name}, lowest to highest run: acted {min(fractions):.4f} to {max(fractions):.4f}, "
            f"p99 {min(p99s):.1f} to {max(p99s):.1f} us",
            highlight=False,
        )


def _print_cost(console: Console, runs: list[Run]) -> None:
    on, off = ([run for run in runs if run.traced is traced] for traced in (True, False))
    differences = [a.env_us_per_tick - b.env_us_per_tick for a, b in zip(on, off, strict=True)]
    traces = [run.events for run in on if run.events is not None]
    per_tick = float(np.mean([events["per_tick"] for events in traces]))
    add_us = _time_add()
    times_us = {name: np.concatenate([events[name] for events in traces]) for name in ("tick", "account", "books")}
    p50_us, p99_us = ({name: float(np.percentile(took, q)) for name, took in times_us.items()} for q in (50, 99))
    rows = [
        (f"at least: {per_tick:.1f} events of {add_us:.2f} us", per_tick * add_us, True),
        ("at most: books and trace, p50", p50_us["books"], True),
        ("at most: books and trace, p99", p99_us["books"], False),
        ("CPU time on less off, median pair", median(differences), False),
        ("CPU time on less off, lowest pair", min(differences), False),
        ("CPU time on less off, highest pair", max(differences), False),
        ("TICK, p50", p50_us["tick"], False),
        ("TICK, p99", p99_us["tick"], False),
        ("ACCOUNT, p50", p50_us["account"], False),
        ("ACCOUNT, p99", p99_us["account"], False),
    ]
    table = Table("env process, per tick at 60 Hz")
    for heading in ("us", "% of tick", "wanted"):
        table.add_column(heading, justify="right")
    for name, us, judged in rows:
        share = 100 * us / _TICK_60_HZ_US
        wanted = f"{_verdict(share < _MAX_COST_PERCENT)} (< {_MAX_COST_PERCENT:g}%)" if judged else ""
        table.add_row(name, f"{us:.1f}", f"{share:.2f}", wanted)
    console.print(table)
    lost = sum(run.lost_events for run in on)
    console.print(f"events lost (overwritten before they were collected): {lost}", highlight=False)


def _verdict(held: bool) -> str:
    return "held" if held else "MISSED"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6, help="runs with and without telemetry [%(default)s]")
    parser.add_argument("--duration", type=float, default=20.0, help="measured time of a run [s, %(default)s]")
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--workers", type=int, default=7)
    parser.add_argument("--env-id", default="rtcore/Blocks-v0")
    options = parser.parse_args()
    if options.pairs < 1 or not options.duration > 0:
        parser.error("expected at least one pair and a duration above 0")
    console, watch = Console(), HostWatch()
    order = [traced for pair in range(options.pairs) for traced in ((True, False) if pair % 2 == 0 else (False, True))]
    runs: list[Run] = []
    with Bar(console=console) as progress:
        for traced in progress.track(order, description="runs"):
            runs.append(_measure(options, traced))
    console.print(
        f"{options.env_id}, {options.workers} synthetic workers of {options.latency_ms:g} ms, {options.pairs} pairs of "
        f"{options.duration:g} s, {len(os.sched_getaffinity(0))} CPUs"
    )
    _print_runs(console, runs)
    _print_verdict(console, runs)
    _print_cost(console, runs)
    console.print(conditions_text(watch.conditions()), highlight=False)


if __name__ == "__main__":
    main()
