"""How many CPUs this process may really use: its affinity, and the quotas of its control groups (`docker --cpus`)."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_CGROUP = "/sys/fs/cgroup"

#: The text of a file, None where it cannot be read.
Find = Callable[[str], str | None]


class CpuQuota(NamedTuple):
    cpus: float
    period_us: int  #: once it is used up, everything stands still for the rest of this


def find_text(path: str) -> str | None:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return None


def cpu_model() -> str:
    """What the CPU calls itself, for people; of what family it is, where it has no name."""
    names = (
        line.partition(":")[2].strip()
        for line in (find_text("/proc/cpuinfo") or "").splitlines()
        if line.startswith("model name")
    )
    return next(names, platform.machine())


def usable_cpus(find: Find = find_text) -> float:
    """CPUs that the processes of a run can fill, all together: at least a hundredth."""
    allowed = float(len(os.sched_getaffinity(0)))
    quota = cpu_quota(find)
    return max(0.01, min(allowed, quota.cpus)) if quota is not None else allowed


def cpu_quota(find: Find = find_text) -> CpuQuota | None:
    """The tightest on the way from this process's control group to the top; None: there is none."""
    quotas = []
    for folder in cgroup_folders("cpu", find):
        text = find(f"{folder}/cpu.max")
        if text is None:
            text = f"{find(f'{folder}/cpu.cfs_quota_us') or -1} {find(f'{folder}/cpu.cfs_period_us') or 100_000}"
        quota, _, period = text.strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):  # neither "max" nor -1
            quotas.append(CpuQuota(int(quota) / int(period), int(period)))
    return min(quotas, default=None)


def cgroup_folders(controller: str, find: Find = find_text) -> Iterator[str]:
    """Where the files of this process's control group may be, and those of the groups above it."""
    for line in (find("/proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            bases = [_CGROUP, f"{_CGROUP}/unified"]
        elif controller in controllers.split(","):
            bases = list(dict.fromkeys((f"{_CGROUP}/{controllers}", f"{_CGROUP}/{controller}")))
        else:
            continue
        parts = [part for part in path.split("/") if part and part != ".."]
        for base in bases:
            for depth in range(len(parts), -1, -1):
                yield "/".join([base, *parts[:depth]])
