"""Containers and control groups: what they hold back."""

from __future__ import annotations

from rtcore.doctor.checks import Check, Needs, Verdict, not_applicable, ok, size, warn
from rtcore.doctor.machine import Machine
from rtcore.host.cpus import cgroup_folders
from rtcore.host.cpus import cpu_quota as tightest_quota

_CGROUP = "/sys/fs/cgroup"
#: Bits of the kernel's capability sets.
_CAPABILITIES = {"SYS_NICE": 23, "IPC_LOCK": 14}
_NO_LIMIT_BYTES = 1 << 60


def kind(machine: Machine, needs: Needs) -> Verdict:
    where = machine.in_container
    groups = sorted({line.split(":", 2)[2] for line in machine.read("/proc/self/cgroup").splitlines()})
    version = "v2" if machine.exists(f"{_CGROUP}/cgroup.controllers") else "v1"
    found = f"control groups {version}: {', '.join(groups)}"
    return ok(f"in a container ({where}); {found}") if where else not_applicable(f"no container; {found}")


def capabilities(machine: Machine, needs: Needs) -> Verdict:
    """Both serve where limits do not: SYS_NICE for SCHED_FIFO, IPC_LOCK for locked memory."""
    bits = int(machine.word("/proc/self/status", "CapEff:"), 16)
    held = [name for name, bit in _CAPABILITIES.items() if bits >> bit & 1]
    found = f"{', '.join(held) or 'neither SYS_NICE nor IPC_LOCK'}"
    missing = [name for name in _CAPABILITIES if name not in held]
    if not missing:
        return ok(found)
    if machine.uid == 0 and machine.in_container:
        return warn(
            f"{found}; root without {', '.join(missing)}", "docker run " + " ".join(f"--cap-add {m}" for m in missing)
        )
    return not_applicable(f"{found}; not needed where the limits above grant the same")


def cpu_quota(machine: Machine, needs: Needs) -> Verdict:
    """The tightest on the way from this process's group to the top."""
    quota = tightest_quota(machine.find)
    if quota is None:
        return ok("none")
    cpus, period_us = quota
    return warn(
        f"{cpus:.3g} CPUs: once used up, everything stands still for the rest of {period_us / 1000:.0f} ms",
        "whole CPUs instead of a quota: docker run --cpuset-cpus=0-3, without --cpus (Kubernetes: static CPU policy)",
    )


def memory_limit(machine: Machine, needs: Needs) -> Verdict:
    limits = []
    for folder in cgroup_folders("memory", machine.find):
        for limit_name, used_name in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            text = machine.find(f"{folder}/{limit_name}")
            if text is not None and text.isdigit() and int(text) < _NO_LIMIT_BYTES:
                used = int(machine.find(f"{folder}/{used_name}") or 0)
                limits.append((int(text) - used, int(text)))
    if not limits:
        return ok("none")
    left, limit = min(limits)
    found = f"{size(limit)}, {size(left)} left (shared memory counts)"
    if needs.shm_bytes is not None and left < needs.shm_bytes:
        return warn(f"{found}; the ring alone needs {size(needs.shm_bytes)}", "docker run --memory=4g, or no limit")
    return ok(found)


CHECKS = (
    Check("container.kind", "container", kind),
    Check("container.capabilities", "capabilities", capabilities),
    Check("container.cpu_quota", "CPU quota", cpu_quota),
    Check("container.memory_limit", "memory limit", memory_limit),
)
