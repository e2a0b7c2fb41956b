"""What `kill -9` of a worker costs: are ticks late because of it, when are the others spread anew, when is it back?

    python -m benchmarks.kills [--kills 8] [--latency-ms 100] [--workers 8]

A run with real processes; every few seconds one worker is killed. Ticks within a second after a kill are compared
with all others of the same run.
"""

from __future__ import annotations

import argparse
import os
import signal
from itertools import pairwise

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rtcore
from rtcore.clock import MonotonicClock
from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import TickKind

_AFTER_NS = 1_000_000_000
_BETWEEN_S = 4.0
_BACK_LIMIT_S = 10.0


def _kill_one(runtime: rtcore.Runtime, worker: int) -> tuple[int, float]:
    """(when it was killed [ns], seconds until its successor is ready; NaN if it is not within 10 s)"""
    clock = MonotonicClock()
    pid = runtime.worker_pids[worker]
    killed_ns = clock.now_ns()
    os.kill(pid, signal.SIGKILL)
    while clock.now_ns() - killed_ns < _BACK_LIMIT_S * 1e9:
        row = runtime.stats().workers[worker]
        if row.restarts and row.pid not in (-1, pid):
            return killed_ns, (clock.now_ns() - killed_ns) / 1e9
        runtime.wait(0.02)
    return killed_ns, float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--workers", type=int, default=8)
    options = parser.parse_args()
    kills: list[tuple[int, float]] = []
    with rtcore.Runtime(
        policy="synthetic",
        policy_args={"latency_ms": options.latency_ms},
        workers=options.workers,
        duration=(options.kills + 1) * (_BETWEEN_S + 2) + 5,
    ) as runtime:
        runtime.wait(_BETWEEN_S)
        for number in track(range(options.kills), "kills"):
            kills.append(_kill_one(runtime, number % options.workers))
            runtime.wait(_BETWEEN_S)
        runtime.stop()
        runtime.wait()
    if runtime.record is None:
        raise SystemExit("the run left no record")
    ticks = list(runtime.record.ticks)
    near = [any(0 <= row.start_ns - at_ns < _AFTER_NS for at_ns, _ in kills) for row in ticks]
    table = Table("ticks", "number", "late p50 us", "p99 us", "max us", "missed", "skipped", title=_title(options))
    for name, wanted in (("within 1 s after a kill", True), ("all others", False)):
        rows = [row for row, is_near in zip(ticks, near, strict=True) if is_near is wanted]
        late_us = np.array([row.start_ns - row.deadline_ns for row in rows]) / 1e3
        p50, p99 = np.percentile(late_us, [50, 99])
        missed = sum(row.kind == TickKind.MISSED for row in rows)
        skipped = sum(row.skipped_ticks for row in rows)
        table.add_row(
            name, f"{len(rows)}", f"{p50:.1f}", f"{p99:.1f}", f"{late_us.max():.1f}", f"{missed}", f"{skipped}"
        )
    console = Console()
    console.print(table)
    back = [seconds for _, seconds in kills]
    console.print(f"back after s: {', '.join(f'{seconds:.2f}' for seconds in back)} (largest {max(back):.2f})")
    gaps = [_first_gap(ticks, at_ns) for at_ns, _ in kills]
    console.print(f"longest gap between two actions in the second after each kill, ticks: {gaps}")
    summary = runtime.summary()
    restarts = sum(worker["restarts"] for worker in summary["workers"])
    dropped = summary["actions"]["outcomes"]["dropped_dead_worker"]
    console.print(f"counted: {restarts} restarts {summary['restart_reasons']}, {dropped} jobs dropped_dead_worker")


def _first_gap(ticks: list[FrameHeader], at_ns: int) -> int:
    acted = [row.tick for row in ticks if row.kind == TickKind.ACTED and 0 <= row.start_ns - at_ns < _AFTER_NS]
    return max((b - a for a, b in pairwise(acted)), default=0)


def _title(options: argparse.Namespace) -> str:
    return f"{options.workers} workers of {options.latency_ms:g} ms, {options.kills} kills, {os.cpu_count()} CPUs"


if __name__ == "__main__":
    main()
