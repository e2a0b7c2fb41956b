"""What it costs a run to be looked at: lateness and acted fraction with and without rtcore-top attached.

    python -m benchmarks.onlooker [--rounds 12] [--window-s 6] [--latency-ms 100] [--workers 7] [--realtime auto|off]

One run of Blocks. Windows alone and windows with `rtcore-top` drawing into a terminal of 120x40 take turns within it,
so that what else goes on on the machine hits both. Each round has two windows alone, before and after: how far those
two differ is what the machine does by itself. The time in which rtcore-top starts (imports, first view) is counted
apart. Beside the figures over all windows stands the median over the rounds, which one disturbance does not move.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import psutil
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rtcore
from rtcore.clock import MonotonicClock
from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import TickKind

_POSSIBLE = (TickKind.ACTED, TickKind.MISSED, TickKind.IDLE)
_WINDOWS = ("alone", "rtcore-top starting", "rtcore-top attached", "alone again")
_SETTLE_S = 0.5
_START_LIMIT_S = 60.0

Windows = list[list[FrameHeader]]


class Terminal:
    """rtcore-top in a terminal that is read as fast as it draws."""

    def __init__(self, run_id: str, interval_s: float) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        command = [sys.executable, "-m", "rtcore.cli.top", run_id, "--interval", f"{interval_s:g}"]
        environment = os.environ | {"TERM": "xterm-256color"}
        self.process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
        os.close(theirs)
        self.has_drawn = threading.Event()
        self.drawn_bytes = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.drawn_bytes += len(data)
                if b"w00" in data:
                    self.has_drawn.set()
        except OSError:  # it has closed its end
            pass

    def cpu_s(self) -> float:
        times = psutil.Process(self.process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self._reader.join()
        os.close(self._ours)


class Bench:
    """The run, and the ticks of each kind of window."""

    def __init__(self, runtime: rtcore.Runtime, options: argparse.Namespace) -> None:
        self.windows: dict[str, Windows] = {name: [] for name in _WINDOWS}
        self.cpu_percent: list[float] = []
        self.start_cpu_s: list[float] = []
        self._runtime = runtime
        self._options = options
        self._clock = MonotonicClock()

    def round(self) -> None:
        window_s = self._options.window_s
        with self._window("alone"):
            self._wait(window_s)
        with self._window("rtcore-top starting"):
            terminal = Terminal(self._runtime.run_id, self._options.interval_s)
            if not terminal.has_drawn.wait(_START_LIMIT_S):
                raise SystemExit(f"rtcore-top drew nothing within {_START_LIMIT_S:g} s")
        before_s = terminal.cpu_s()
        self.start_cpu_s.append(before_s)
        with self._window("rtcore-top attached"):
            self._wait(window_s)
        self.cpu_percent.append(100 * (terminal.cpu_s() - before_s) / window_s)
        terminal.close()
        self._wait(_SETTLE_S)
        with self._window("alone again"):
            self._wait(window_s)

    def _wait(self, seconds: float) -> None:
        if self._runtime.wait(seconds):
            raise SystemExit("the run ended before the measurement did")

    @contextmanager
    def _window(self, name: str) -> Iterator[None]:
        first_ns = self._clock.now_ns()
        yield
        last_ns = self._clock.now_ns()
        self._wait(0.1)  # the record is drained every 50 ms
        if self._runtime.record is None:
            raise SystemExit("the run has no record")
        rows = self._runtime.record.ticks.copy()
        self.windows[name].append([row for row in rows if first_ns <= row.start_ns < last_ns])


def acted_fraction(rows: list[FrameHeader]) -> float:
    possible = sum(row.kind in _POSSIBLE for row in rows)
    return sum(row.kind == TickKind.ACTED for row in rows) / possible if possible else float("nan")


def lateness_us(rows: list[FrameHeader]) -> np.ndarray:
    return np.array([row.start_ns - row.deadline_ns for row in rows]) / 1e3


def table_of(windows: dict[str, Windows]) -> Table:
    table = Table("", "ticks", "skipped", "acted", "late p50 us", "p99", "p99.9", "max")
    table.title = "all windows"
    for name, parts in windows.items():
        rows = [row for part in parts for row in part]
        p50, p99, p999 = np.percentile(lateness_us(rows), [50, 99, 99.9])
        skipped = sum(row.skipped_ticks for row in rows)
        figures = (f"{p50:.2f}", f"{p99:.1f}", f"{p999:.1f}", f"{lateness_us(rows).max():.1f}")
        table.add_row(name, f"{len(rows)}", f"{skipped}", f"{acted_fraction(rows):.4f}", *figures)
    return table


def medians_of(windows: dict[str, Windows]) -> Table:
    table = Table("", "acted", "late p50 us", "p99 (quartiles)", title="median over the rounds")
    for name, parts in windows.items():
        acted = np.median([acted_fraction(rows) for rows in parts])
        p50s, p99s = np.transpose([np.percentile(lateness_us(rows), [50, 99]) for rows in parts])
        low, middle, high = np.percentile(p99s, [25, 50, 75])
        table.add_row(name, f"{acted:.4f}", f"{np.median(p50s):.2f}", f"{middle:.1f} ({low:.1f} .. {high:.1f})")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--window-s", type=float, default=6)
    parser.add_argument("--interval-s", type=float, default=0.5, help="of rtcore-top")
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--workers", type=int, default=7)
    parser.add_argument("--realtime", choices=("auto", "off"), default="auto", help="off: no SCHED_FIFO for the ticks")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    with rtcore.Runtime(
        policy="synthetic",
        policy_args={"latency_ms": options.latency_ms},
        workers=options.workers,
        realtime=options.realtime,
        duration=options.rounds * (3 * options.window_s + _START_LIMIT_S),
    ) as runtime:
        bench = Bench(runtime, options)
        for _ in track(range(options.rounds), "rounds"):
            bench.round()
        granted = runtime.header["world"].get("realtime") or {}
        runtime.stop()
        runtime.wait()
    console = Console(width=120)
    console.print(table_of(bench.windows), medians_of(bench.windows))
    load = f"load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
    console.print(f"{options.rounds} rounds, windows of {options.window_s:g} s; {os.cpu_count()} CPUs, {load}")
    console.print(f"realtime: {granted or 'not asked for'}")
    cpu = f"{np.median(bench.cpu_percent):.1f}% of a CPU while attached"
    console.print(f"rtcore-top: {cpu}, {np.median(bench.start_cpu_s):.2f} s of CPU to its first view")


if __name__ == "__main__":
    main()
