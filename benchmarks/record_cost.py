"""What recording costs: CPU of the recorder, bytes per tick, and lateness of the ticks with it and without.

    python -m benchmarks.record_cost [--seconds 20] [--pairs 3]

Real runs, recorded and not in turns, of the built-in game at 60 Hz (trained policy) and of CartPole at 1 kHz (a
synthetic policy of 4 ms). The recorder's CPU time is that of its process from tick 0 on, its end included.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

import rtcore
from rtcore.host.conditions import HostWatch, conditions_text

CASES: dict[str, dict[str, Any]] = {
    "Blocks, 60 Hz": {"policy": "trained", "policy_args": {"pad_ms": 50}, "workers": 4},
    "CartPole, 1 kHz": {
        "env_id": "CartPole-v1",
        "fps": 1000,
        "policy": "synthetic",
        "policy_args": {"latency_ms": 4},
        "workers": 6,
    },
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    watch = HostWatch()
    lateness = ("lateness p50, us", "p99, us", "max, us")
    table = Table("run", "recorded", *lateness, "acted", "recorder CPU", "bytes per tick")
    for name, fields in CASES.items():
        for _ in range(options.pairs):
            for record in (False, True):
                table.add_row(name, "yes" if record else "no", *measure(fields, options.seconds, record=record))
    Console(width=140).print(table)
    Console(width=140).print(conditions_text(watch.conditions()))


def measure(fields: dict[str, Any], seconds: float, *, record: bool) -> list[str]:
    """One run, as a row of the table."""
    with tempfile.TemporaryDirectory() as folder:
        with rtcore.Runtime(**fields, duration=seconds, record=record, out=Path(folder)) as runtime:
            recorder = [child for child in psutil.Process().children(recursive=True) if child.name() == "rt-recorder"]
            before_s = _cpu_s(recorder)
            cpu_s = before_s
            while not runtime.is_over:
                cpu_s = max(cpu_s, _cpu_s(recorder))
                time.sleep(0.02)
            runtime.wait()
        summary = runtime.summary()
    late, recording = summary["ticks"]["lateness_us"], summary.get("recording")
    row = [f"{late[key]:.1f}" for key in ("p50", "p99", "max")] + [f"{summary['actions']['acted_fraction']:.4f}"]
    if recording is None:
        return [*row, "", ""]
    return [*row, f"{(cpu_s - before_s) / seconds:.2%}", f"{recording['bytes'] / recording['frames']:.0f}"]


def _cpu_s(processes: list[psutil.Process]) -> float:
    """User and system time; 0 of one that has ended."""
    try:
        return sum(sum(process.cpu_times()[:2]) for process in processes)
    except psutil.NoSuchProcess:
        return 0.0


if __name__ == "__main__":
    main()
