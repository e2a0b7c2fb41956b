"""What it costs the ticks to show the world: lateness with the live view's picture, without it, and without a view.

    python -m benchmarks.live_view [--rounds 8] [--window-s 4] [--latency-ms 100] [--workers 7] [--realtime auto|off]

One run of Catch, shown by the program that runs it, as rtcore-run does: 4 looks a second, into a terminal of 80x24
that is read as fast as it is drawn. Windows take turns within the run, so that what else goes on on the machine hits
all of them. The CPU time is that of the showing program, per second.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import pty
import struct
import termios
import threading
import time
from collections.abc import Callable

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

import rtcore
from benchmarks.onlooker import Windows, medians_of, table_of
from rtcore.clock import MonotonicClock
from rtcore.report.live import LiveView
from rtcore.report.terminal import Terminal
from rtcore.results.summary import RunHeader
from rtcore.spaces import ObservationSpec
from rtcore.spaces.image import WorldImage

_WINDOWS = ("no view", "view", "view with the world", "view again", "no view again")
_LOOK_S = 0.25


class Screen:
    """A terminal of 80x24 that somebody reads."""

    def __init__(self) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.file = os.fdopen(theirs, "w", encoding="utf-8")
        self.drawn_bytes = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.drawn_bytes += len(data)
        except OSError:
            pass


def window(runtime: rtcore.Runtime, seconds: float, look: Callable[[], None]) -> list:
    """The ticks of a stretch in which `look` was called again and again."""
    clock = MonotonicClock()
    first_ns = clock.now_ns()
    while (now_ns := clock.now_ns()) - first_ns < seconds * 1e9:
        if runtime.wait(_LOOK_S):
            raise SystemExit("the run ended before the measurement did")
        look()
    runtime.wait(0.2)  # the record is drained every 150 ms
    if runtime.record is None:
        raise SystemExit("the run has no record")
    return [row for row in runtime.record.ticks.copy() if first_ns <= row.start_ns < now_ns]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--window-s", type=float, default=4)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--workers", type=int, default=7)
    parser.add_argument("--realtime", choices=("auto", "off"), default="auto", help="off: no SCHED_FIFO for the ticks")
    options = parser.parse_args()
    load_before = os.getloadavg()[0]
    windows: dict[str, Windows] = {name: [] for name in _WINDOWS}
    cpu_s, drawn = dict.fromkeys(_WINDOWS, 0.0), dict.fromkeys(_WINDOWS, 0)
    with rtcore.Runtime(
        env_id="rtcore/Catch-v0",
        policy="synthetic",
        policy_args={"latency_ms": options.latency_ms},
        workers=options.workers,
        realtime=options.realtime,
        duration=options.rounds * len(_WINDOWS) * (options.window_s + 2) + 60,
    ) as runtime:
        header = RunHeader.of(runtime.header, runtime.resolved, runtime.stats().plan)
        see = WorldImage(ObservationSpec.from_json(runtime.header["world"]["observation"]), runtime.newest_frame)
        screen = Screen()
        views = {}
        for name in _WINDOWS[1:3]:
            console = Terminal(file=screen.file, force_terminal=True, width=80, height=24, color_system="256")
            views[name] = LiveView(console, show_world=name == "view with the world")
            views[name].begin(header, see)
        views["view again"] = views["view"]
        for _ in track(range(options.rounds), "rounds"):
            for name in _WINDOWS:
                view = views.get(name)

                def look(view: LiveView | None = view) -> None:
                    if view is not None and runtime.record is not None:
                        view.update(runtime.stats(), runtime.record, runtime.booked_ticks(), force=True)

                before_s, before_bytes = time.process_time(), screen.drawn_bytes
                windows[name].append(window(runtime, options.window_s, look))
                cpu_s[name] += time.process_time() - before_s
                drawn[name] += screen.drawn_bytes - before_bytes
        granted = runtime.header["world"].get("realtime") or {}
        lapped = runtime.stats().workers
        runtime.stop()
        runtime.wait()
    console = Console(width=120)
    console.print(table_of(windows), medians_of(windows))
    costs = Table("", "CPU of the showing program", "KB a second", title="what showing takes")
    total_s = options.rounds * options.window_s
    for name in _WINDOWS:
        costs.add_row(name, f"{100 * cpu_s[name] / total_s:.1f}%", f"{drawn[name] / 1e3 / total_s:.1f}")
    console.print(costs)
    load = f"load {load_before:.1f} before and {os.getloadavg()[0]:.1f} after"
    console.print(f"{options.rounds} rounds, windows of {options.window_s:g} s; {os.cpu_count()} CPUs, {load}")
    console.print(f"frames lapped by workers: {sum(worker.lapped_frames for worker in lapped)}; realtime: {granted}")
    p99 = {name: np.median([np.percentile(_late_us(part), 99) for part in parts]) for name, parts in windows.items()}
    plain = (p99["view"] + p99["view again"]) / 2
    console.print(f"lateness p99, median of the rounds: {p99['view with the world'] / plain - 1:+.1%} with the world")


def _late_us(rows: list) -> np.ndarray:
    return np.array([row.start_ns - row.deadline_ns for row in rows]) / 1e3


if __name__ == "__main__":
    main()
