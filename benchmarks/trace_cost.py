"""What tracing costs: the env process per event and per tick, and making the Perfetto trace of a long run.

    python -m benchmarks.trace_cost [--ticks 600] [--minutes 10]

Per tick, the traced and the untraced recorder take turns on the same record: back to back (warm), and asleep for a
tick's length before each (cold, as the env process is). The long run is a short real one, repeated with shifted times
and numbers: the conversion reads as many events as a real one of that length would have left.
"""

from __future__ import annotations

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rtcore
from rtcore.clock import MonotonicClock, TickClock, TickPlan
from rtcore.loop.counting import Books, StatsRecorder, TracingRecorder
from rtcore.loop.tick import Tick
from rtcore.memory.layout import TRACE_ENV, FrameHeader, Layout
from rtcore.memory.trace import TRACE_SLOTS, TraceKind, TraceRing, read_spool, spool_head
from rtcore.report.perfetto.writer import TRACE_FILE, convert_folder
from rtcore.scheduling.dispatch import Decision, Offer, Outcome, TickKind
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.scheduling.schedule import Schedule, ScheduleParams

_RATE = Fraction(60)
_PERIOD_NS = int(1_000_000_000 / _RATE)
_BATCH = 1000
_TITLES = {"TraceRing.add": "one event", "untraced": "books of a tick, untraced", "traced": "the same, traced"}


def _ring() -> TraceRing:
    layout = Layout(
        max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1, trace_slots=TRACE_SLOTS
    )
    ring = TraceRing(memoryview(bytearray(layout.trace_bytes)), layout, TRACE_ENV)
    ring.format()
    return ring


def _time_events(batches: int) -> list[float]:
    """ns an event, one number a batch."""
    ring, now_ns, took = _ring(), MonotonicClock.now_ns, []
    for _ in range(batches):
        start_ns = now_ns()
        for tick in range(_BATCH):
            ring.add(TraceKind.DISPATCH, start_ns, start_ns, tick, 1, tick, -1, 1)
        took.append((now_ns() - start_ns) / _BATCH)
    return took


class _Tick:
    """Two recorders and a tick for both: an action applied, one job booked, one ended, as in every tick of a run."""

    def __init__(self) -> None:
        schedule = Schedule(ScheduleParams("max-time", _RATE, 4, 60_000_000, 2_000_000, "quantile"), 4)
        clock = TickClock(2_000_000)
        shared = (schedule, _PERIOD_NS)
        self.recorders: dict[str, StatsRecorder] = {
            "untraced": StatsRecorder(Books.private(lambda row: None), *shared),
            "traced": TracingRecorder(Books.private(lambda row: None), *shared, _ring(), clock),
        }

    def account(self, recorder: StatsRecorder, tick: int) -> int:
        """Returns how long it took [ns]."""
        now_ns = MonotonicClock.now_ns()
        job = Job(tick % 4, tick - 4, tick, True)
        came_ns = now_ns - 50_000_000
        answer = Answer(obs_tick=tick - 4, episode=0, frame_publish_ns=came_ns, write_ns=came_ns, cpu_ns=40_000_000)
        now = Tick()
        now.plan = TickPlan(tick, now_ns - 300_000, 0)
        now.decision = Decision(TickKind.ACTED, Offer(job, answer, tick, tick, 0, tick), first_use=True)
        now.collected_ns, now.dispatch_ns, now.booked_ns = now_ns - 270_000, now_ns - 250_000, now_ns - 230_000
        now.jobs = [job]
        now.header = FrameHeader(
            frame_seq=tick,
            tick=tick,
            kind=TickKind.ACTED,
            start_ns=now_ns - 290_000,
            publish_ns=now_ns - 80_000,
            step_ns=150_000,
        )
        now.published_ns, now.end_ns = now_ns - 60_000, now_ns
        now.interval_ticks, now.due_deadline_ns = 1, now_ns - 300_000
        start_ns = MonotonicClock.now_ns()
        recorder.end_tick(now)
        recorder.job_ended(JobRow(worker=job.worker, booked_tick=job.obs_tick, outcome=Outcome.ON_TIME, tick=tick))
        return MonotonicClock.now_ns() - start_ns


def _time_ticks(count: int, *, cold: bool) -> dict[str, list[float]]:
    """ns a tick, by recorder."""
    tick, clock = _Tick(), MonotonicClock()
    took: dict[str, list[float]] = {name: [] for name in tick.recorders}
    for number in track(range(count), description="cold ticks", transient=True, disable=not cold):
        for name, recorder in tick.recorders.items():
            if cold:
                clock.sleep_until_ns(clock.now_ns() + _PERIOD_NS)
            took[name].append(tick.account(recorder, number))
    return took


def _real_run(folder: Path) -> None:
    with rtcore.Runtime(
        policy="random", policy_args={"pad_ms": 100}, workers=7, duration=10, trace=True, out=folder
    ) as runtime:
        runtime.wait()


def _lengthen(short: Path, long: Path, minutes: float) -> tuple[int, float]:
    """A run's events and ticks again and again; returns (events, minutes)."""
    spools = read_spool(short)
    with (short / "actions.csv").open() as file:
        rows = list(csv.DictReader(file))
    span_ns = int(rows[-1]["start_ns"]) - int(rows[0]["start_ns"]) + _PERIOD_NS
    copies = max(1, round(minutes * 60e9 / span_ns))
    events = 0
    for name, spool in spools.items():
        with (long / f"trace-{name}.events").open("wb") as out:
            out.write(spool_head())
            for copy in range(copies):
                shifted = spool.copy()
                for field in ("tick", "booked_tick", "frame_seq"):
                    shifted[field] += np.where(shifted[field] >= 0, copy * len(rows), 0)
                shifted["value"] += np.where(shifted["kind"] == TraceKind.JOB, copy * len(rows), 0)
                for field in ("start_ns", "end_ns"):
                    shifted[field] += copy * span_ns
                out.write(shifted.tobytes())
                events += len(shifted)
    with (long / "actions.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for copy in range(copies):
            writer.writerows(row | {"start_ns": int(row["start_ns"]) + copy * span_ns} for row in rows)
    return events, copies * span_ns / 60e9


def _convert(folder: Path) -> None:
    """In a process of its own, so that its memory is its own."""
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start_ns = MonotonicClock.now_ns()
    convert_folder(folder)
    took_s = (MonotonicClock.now_ns() - start_ns) / 1e9
    print(took_s, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024)


def _row(table: Table, name: str, times_ns: list[float]) -> None:
    p50, p99 = np.percentile(times_ns, (50, 99)) / 1e3
    table.add_row(name, f"{p50:.2f}", f"{p99:.2f}", f"{100 * p50 * 1e3 / _PERIOD_NS:.3f}%")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=600, help="ticks of each recorder")
    parser.add_argument("--minutes", type=float, default=10, help="length of the run that is converted")
    parser.add_argument("--convert", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.convert is not None:
        _convert(options.convert)
        return
    console = Console()
    table = Table("", "p50, us", "p99, us", "p50, of a tick at 60 Hz")
    _row(table, _TITLES["TraceRing.add"], _time_events(200))
    for cold in (False, True):
        times = _time_ticks(options.ticks, cold=cold)
        state = "cold" if cold else "warm"
        for name in ("untraced", "traced"):
            _row(table, f"{_TITLES[name]} ({state})", times[name])
        pairs = [traced - plain for plain, traced in zip(times["untraced"], times["traced"], strict=True)]
        _row(table, f"tracing alone, pair by pair ({state})", pairs)
    console.print(table)
    with tempfile.TemporaryDirectory() as short, tempfile.TemporaryDirectory() as long:
        console.print("a real run of 10 s, 7 workers ...")
        _real_run(Path(short))
        events, minutes = _lengthen(Path(short), Path(long), options.minutes)
        command = [sys.executable, "-m", "benchmarks.trace_cost", "--convert", long]
        took_s, grown_mb = map(
            float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        )
        size_mb = (Path(long) / TRACE_FILE).stat().st_size / 1e6
    console.print(
        f"{events:,} events of {minutes:.1f} min: converted in {took_s:.1f} s, {1e6 * took_s / events:.1f} us each; "
        f"{size_mb:.1f} MB ({size_mb / minutes:.1f} MB a minute; events {64e-6 * events / minutes:.1f} MB a minute), "
        f"memory grew by {grown_mb:.0f} MB"
    )


if __name__ == "__main__":
    main()
