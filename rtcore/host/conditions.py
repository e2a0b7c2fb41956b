"""The machine a measurement was made on, and what else it was doing meanwhile: no number means much without it."""

from __future__ import annotations

import os
import platform
from typing import Any

import psutil

from rtcore.clock import MonotonicClock, unix_time_s
from rtcore.host.cpus import cpu_model, usable_cpus


class HostWatch:
    """From its creation to `conditions`: load, and the time this virtual machine was not given its CPUs."""

    def __init__(self) -> None:
        self._times = psutil.cpu_times()
        self._load = os.getloadavg()[0]
        self._start_ns = MonotonicClock.now_ns()
        self._started_unix_s = unix_time_s()

    def conditions(self) -> dict[str, Any]:
        """The machine and its state, for `machine` of a result. Shares are of all CPUs' time; None: not known."""
        now = psutil.cpu_times()._asdict()
        spent = {name: seconds - getattr(self._times, name) for name, seconds in now.items()}
        total = sum(spent.values()) - spent["guest"] - spent["guest_nice"]  # those are in user and nice, too
        return {
            "host": platform.node(),
            "kernel": platform.release(),
            "preemption": _preemption(platform.version()),
            "cpu_model": cpu_model(),
            "num_cpus": os.cpu_count(),
            "usable_cpus": usable_cpus(),
            "python": platform.python_version(),
            "started_unix_s": round(self._started_unix_s, 3),
            "duration_s": round((MonotonicClock.now_ns() - self._start_ns) / 1e9, 3),
            "load_before": round(self._load, 2),
            "load_after": round(os.getloadavg()[0], 2),
            "steal_percent": round(100 * spent["steal"] / total, 3) if total else None,
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


def _preemption(version: str) -> str:
    return next((word for word in version.split() if word.startswith("PREEMPT")), "no preemption named")
