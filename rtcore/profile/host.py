"""The machine a measurement was made on, and what else it was doing meanwhile: no number means much without it."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path
from typing import Any

from rtcore.clock import MonotonicClock, unix_time_s
from rtcore.host.cpus import usable_cpus

#: Columns of the first line of /proc/stat, in ticks; guest time is part of user time already.
_STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")


class HostWatch:
    """From its creation to `conditions`: load, and the time this virtual machine was not given its CPUs."""

    def __init__(self) -> None:
        self._stat = _read_stat()
        self._load = os.getloadavg()[0]
        self._start_ns = MonotonicClock.now_ns()
        self._started_unix_s = unix_time_s()

    def conditions(self) -> dict[str, Any]:
        """The machine and its state, for `machine` of a result. Shares are of all CPUs' time; None: not known."""
        now = _read_stat()
        spent = {name: now[name] - self._stat[name] for name in now.keys() & self._stat.keys()}
        total = sum(spent.values())
        return {
            "host": platform.node(),
            "kernel": platform.release(),
            "preemption": _preemption(platform.version()),
            "cpu_model": _cpu_model(),
            "num_cpus": os.cpu_count(),
            "usable_cpus": usable_cpus(),
            "python": platform.python_version(),
            "started_unix_s": round(self._started_unix_s, 3),
            "duration_s": round((MonotonicClock.now_ns() - self._start_ns) / 1e9, 3),
            "load_before": round(self._load, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "steal_percent": round(100 * spent["steal"] / total, 3) if total and "steal" in spent else None,
            "busy_percent": round(100 * (1 - (spent["idle"] + spent["iowait"]) / total), 1) if total else None,
        }


def conditions_text(found: dict[str, Any]) -> str:
    """In two lines, for people."""
    steal = (
        "steal time not known" if found["steal_percent"] is None else f"{found['steal_percent']}% stolen by the host"
    )
    return (
        f"{found['cpu_model']}, {found['usable_cpus']:g} of {found['num_cpus']} CPUs, Linux {found['kernel']} "
        f"({found['preemption']}), Python {found['python']}\n"
        f"load {found['load_before']} before, {found['load_after']} after; CPUs {found['busy_percent']}% busy, "
        f"{steal}, in {found['duration_s']:.0f} s"
    )


def _read_stat() -> dict[str, int]:
    """CPU ticks of the whole machine since boot; empty where there is no /proc/stat to read."""
    try:
        words = Path("/proc/stat").read_text().splitlines()[0].split()
    except (OSError, IndexError):
        return {}
    return dict(zip(_STAT_FIELDS, map(int, words[1:]), strict=False))


def _preemption(version: str) -> str:
    return next((word for word in version.split() if word.startswith("PREEMPT")), "no preemption named")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return sys.platform
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
