"""The kernel: whether it can be interrupted, and which realtime rights it really grants."""

from __future__ import annotations

import gzip
import re
from typing import Any

from rtcore.doctor.checks import Check, Needs, Verdict, not_applicable, ok, size, unknown, warn
from rtcore.doctor.machine import Machine, ProbeError

#: Locked in the trial where the world could not be made: about what the default run maps.
_USUAL_BYTES = 128_000_000


def preemption(machine: Machine, needs: Needs) -> Verdict:
    if machine.find("/sys/kernel/realtime") == "1" or "PREEMPT_RT" in machine.read("/proc/version"):
        return ok("PREEMPT_RT: the kernel gives way to realtime programs nearly everywhere")
    mode, source = _preemption_mode(machine)
    fix = "kernel command line: preempt=full; best: a PREEMPT_RT kernel (Debian: linux-image-rt-amd64)"
    if mode is None:
        return unknown(f"{source}. As root: cat /sys/kernel/debug/sched/preempt")
    if mode == "full":
        return ok(f"full preemption ({source})")
    return warn(f"{mode} preemption ({source}): a system call of another program may delay a tick", fix)


def _preemption_mode(machine: Machine) -> tuple[str | None, str]:
    """("full", where it says so), or (None, what was tried)."""
    try:
        debug = machine.find("/sys/kernel/debug/sched/preempt")
    except PermissionError:
        debug = None
    if debug and (chosen := re.search(r"\((\w+)\)", debug)):
        return chosen[1], "/sys/kernel/debug/sched/preempt"
    if chosen := re.search(r"\bpreempt=(\w+)", machine.read("/proc/cmdline")):
        return chosen[1], "kernel command line"
    config = _kernel_config(machine)
    for option, mode in (
        ("PREEMPT_NONE", "no"),
        ("PREEMPT_VOLUNTARY", "voluntary"),
        ("PREEMPT_LAZY", "lazy"),
        ("PREEMPT", "full"),
    ):
        if f"CONFIG_{option}=y" in config.splitlines():
            return mode, "kernel configuration"
    return None, "neither the command line nor a kernel configuration says it"


def _kernel_config(machine: Machine) -> str:
    if machine.exists("/proc/config.gz"):
        return gzip.decompress(machine.path("/proc/config.gz").read_bytes()).decode()
    release = machine.find("/proc/sys/kernel/osrelease") or ""
    return machine.find(f"/boot/config-{release}") or ""


# -- what is really tried ---------------------------------------------------------------------------------------


def realtime_trial(machine: Machine, needs: Needs) -> dict[str, Any]:
    """One child that asks for all the env process asks for; its answer serves several checks."""
    lock_bytes = needs.shm_bytes or _USUAL_BYTES
    if machine.available_bytes < 4 * lock_bytes:
        raise ProbeError(f"not tried: locking {size(lock_bytes)} needs memory that this machine does not have free")
    return machine.trial("realtime", lock_bytes=lock_bytes)


def _refusal(trial: dict[str, Any], name: str) -> str:
    """ "" if granted, else why not."""
    for key, answer in trial["report"].items():
        if key.startswith(name):
            return "" if answer == "granted" else str(answer).removeprefix("refused: ")
    return "not asked for"


def _limits_fix(machine: Machine, name: str, value: str, capability: str) -> str:
    if machine.in_container:
        if machine.uid == 0:
            return f"docker run --cap-add {capability} (root), or --ulimit {name}={value.replace('unlimited', '-1')}"
        return f"docker run --ulimit {name}={value.replace('unlimited', '-1')} (compose: ulimits)"
    return (
        f"echo '* - {name} {value}' | sudo tee -a /etc/security/limits.d/rtcore.conf, then log in again "
        f"(a systemd service: Limit{name.upper()}={value.replace('unlimited', 'infinity')})"
    )


def fifo(machine: Machine, needs: Needs) -> Verdict:
    trial = realtime_trial(machine, needs)
    limit = machine.word("/proc/self/limits", "Max realtime priority")
    refused = _refusal(trial, "SCHED_FIFO")
    if not refused and trial["fifo"]:
        return ok(f"granted in a trial, priority {trial['priority']} (RLIMIT_RTPRIO {limit})")
    budget = machine.find("/sys/fs/cgroup/cpu/cpu.rt_runtime_us")
    if budget == "0":
        return warn(
            f"refused: {refused}; this control group has no realtime budget",
            "cpu.rt_runtime_us of each group above it, then its own (docker run --cpu-rt-runtime=200000)",
        )
    return warn(
        f"refused: {refused or 'asked for, not given'} (RLIMIT_RTPRIO {limit}): under load ticks are milliseconds late",
        _limits_fix(machine, "rtprio", "20", "SYS_NICE"),
    )


def fifo_budget(machine: Machine, needs: Needs) -> Verdict:
    runtime_us = int(machine.read("/proc/sys/kernel/sched_rt_runtime_us"))
    period_us = int(machine.read("/proc/sys/kernel/sched_rt_period_us"))
    if runtime_us < 0:
        return ok("sched_rt_runtime_us is -1: realtime programs are never held back")
    found = f"realtime programs get {runtime_us} of {period_us} us"
    if runtime_us >= period_us // 2:
        return ok(f"{found}; the env process sleeps for most of a tick")
    return warn(f"{found}: the env process may be stopped in a tick", "sudo sysctl kernel.sched_rt_runtime_us=950000")


def memory_lock(machine: Machine, needs: Needs) -> Verdict:
    trial = realtime_trial(machine, needs)
    limit = machine.word("/proc/self/limits", "Max locked memory")
    limit = limit if limit == "unlimited" else size(int(limit))
    refused = _refusal(trial, "mlockall")
    if not refused:
        return ok(f"mlockall granted in a trial: {size(trial['locked_bytes'])} locked (RLIMIT_MEMLOCK {limit})")
    return warn(
        f"mlockall refused: {refused} (RLIMIT_MEMLOCK {limit}): a page fault may delay a tick",
        _limits_fix(machine, "memlock", "unlimited", "IPC_LOCK"),
    )


def timer_slack(machine: Machine, needs: Needs) -> Verdict:
    own_ns = int(machine.read("/proc/self/timerslack_ns"))
    trial = realtime_trial(machine, needs)
    refused = _refusal(trial, "timer slack")
    if refused:
        return warn(
            f"{own_ns} ns, and a smaller one is refused: {refused}",
            "allow prctl(PR_SET_TIMERSLACK) in the seccomp profile (docker run --security-opt seccomp=...)",
        )
    return ok(f"{own_ns} ns; the env process gets 1 ns (granted in a trial)")


def short_turns(machine: Machine, needs: Needs) -> Verdict:
    answer = str(realtime_trial(machine, needs)["turns"])
    if answer == "granted":
        return ok("granted in a trial: workers are on a CPU soon after they are woken")
    return warn(
        f"{answer}: a worker that is woken beside busy processes may wait for milliseconds",
        "Linux 6.12 or newer, and a seccomp profile that allows sched_setattr; or nothing else on the workers' CPUs",
    )


# -- memory that moves ------------------------------------------------------------------------------------------


def huge_pages(machine: Machine, needs: Needs) -> Verdict:
    path = "/sys/kernel/mm/transparent_hugepage/enabled"
    text = machine.find(path)
    if text is None:
        return not_applicable("this kernel has none")
    chosen = re.search(r"\[(\w+)\]", text)
    if chosen is None:
        return unknown(f"{path} holds {text!r}")
    if chosen[1] == "always":
        return warn(
            "always: the kernel may stop a program for milliseconds to gather a huge page",
            f"echo madvise | sudo tee {path}",
        )
    return ok(f"{chosen[1]}: only for programs that ask")


def swap(machine: Machine, needs: Needs) -> Verdict:
    lines = machine.read("/proc/swaps").splitlines()[1:]
    if not lines:
        return ok("none")
    total_kb, used_kb = (sum(int(line.split()[column]) for line in lines) for column in (2, 3))
    found = f"{size(1024 * total_kb)}, {size(1024 * used_kb)} of it used"
    locked = not _refusal(realtime_trial(machine, needs), "mlockall")
    if locked and not used_kb:
        return ok(f"{found}; the env process's memory is locked, so it stays in memory")
    why = "workers may be swapped out" if locked else "nothing keeps the env process and the ring in memory"
    return warn(f"{found}: {why}", "sudo swapoff -a, or more memory (container: --memory-swap equal to --memory)")


CHECKS = (
    Check("kernel.preemption", "preemption", preemption),
    Check("kernel.fifo", "SCHED_FIFO", fifo),
    Check("kernel.fifo_budget", "realtime budget", fifo_budget),
    Check("kernel.memory_lock", "locked memory", memory_lock),
    Check("kernel.timer_slack", "timer slack", timer_slack),
    Check("kernel.short_turns", "short turns", short_turns),
    Check("kernel.huge_pages", "transparent huge pages", huge_pages),
    Check("kernel.swap", "swap", swap),
)
