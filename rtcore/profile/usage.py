"""What processes of a run cost: CPU time to the microsecond, and memory with its fair share of what is shared."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable
from pathlib import Path

import psutil


def cpu_ns(pid: int) -> int:
    """CPU time of a process over its living threads [ns]; 0 if it is gone.

    Out of `/proc/PID/task/*/schedstat`, which is exact; where the kernel keeps none, psutil's steps of 10 ms.
    """
    total_ns = found = 0
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):
                total_ns += int((task / "schedstat").read_text().split()[0])
                found += 1
    return total_ns if found else _psutil_cpu_ns(pid)


def thread_cpu_ns(thread_id: int) -> int | None:
    """CPU time of one thread of this process [ns], by its `threading.Thread.native_id`; None where not known."""
    try:
        return int(Path(f"/proc/self/task/{thread_id}/schedstat").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def pss_bytes(pid: int) -> float:
    """Proportional set size: private memory plus a fair share of what is shared. NaN if it cannot be read.

    The kernel walks the process's page tables for it, which holds the process up for milliseconds.
    """
    try:
        return float(psutil.Process(pid).memory_full_info().pss)
    except (psutil.Error, ValueError):  # ValueError: a negative pid, of no process
        return math.nan


def total_pss_bytes(pids: Iterable[int]) -> float:
    """Memory of several processes together; what they share counts once. NaN if one of them cannot be read."""
    return math.fsum(pss_bytes(pid) for pid in pids)


def _psutil_cpu_ns(pid: int) -> int:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0
    return round((times.user + times.system) * 1e9)
