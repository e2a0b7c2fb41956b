"""CPUs: how many, which of them are quiet, how fast they wake up, whether they are really ours."""

from __future__ import annotations

from rtcore.doctor.checks import Check, Needs, Verdict, not_applicable, ok, unknown, warn
from rtcore.doctor.machine import Machine, ProbeError, cpu_list, in_words

_CPU = "/sys/devices/system/cpu"
#: A CPU that takes longer to wake up shows in the lateness of ticks: TickClock spins at least 60 us.
_WAKE_UP_US = 50
_STEAL_NS = 500_000_000
_STEAL_SHARE = 0.01
_CLOCK_SOURCES = ("tsc", "kvm-clock", "hyperv_clocksource_tsc_page")


def count(machine: Machine, needs: Needs) -> Verdict:
    online = cpu_list(machine.read(f"{_CPU}/online"))
    usable = machine.cpus
    found = f"{len(usable)} of {len(online)} may be used (CPU {in_words(usable)})"
    pinned = needs.config.host.env_cpu
    if pinned is not None and pinned not in usable:
        return warn(
            f"{found}; --env-cpu {pinned} is not among them", f"--env-cpu {max(usable)}, or a wider mask (taskset)"
        )
    if len(usable) > 1:
        return ok(found)
    if len(online) > 1:
        return warn(
            f"{found}: workers share the CPU that ticks",
            f"start it with: taskset -c {in_words(online)} (container: --cpuset-cpus)",
        )
    return warn(f"{found}: workers share the CPU that ticks", "use a machine with two CPUs or more")


def isolated(machine: Machine, needs: Needs) -> Verdict:
    alone = cpu_list(machine.find(f"{_CPU}/isolated") or "")
    # Without CONFIG_NO_HZ_FULL the file is missing; with it but unused, some kernels write "(null)".
    text = machine.find(f"{_CPU}/nohz_full") or ""
    tickless = cpu_list(text) if text[:1].isdigit() else set()
    if alone:
        quiet = alone & tickless or alone
        found = f"isolated: CPU {in_words(alone)}; without scheduler tick: {in_words(tickless) or 'none'}"
        if needs.config.host.env_cpu in alone:
            return ok(f"{found}; --env-cpu {needs.config.host.env_cpu} uses it")
        return warn(f"{found}; the env process would not use it", f"rtcore-run --env-cpu {min(quiet)}")
    last = max(machine.cpus)
    if len(machine.cpus) < 4:
        return not_applicable(f"no isolated CPU; of {len(machine.cpus)} none is to spare")
    return warn(
        "no isolated CPU: other programs may run where the env process ticks",
        f"kernel command line: isolcpus=managed_irq,domain,{last} nohz_full={last} rcu_nocbs={last}; "
        f"then rtcore-run --env-cpu {last}",
    )


def governor(machine: Machine, needs: Needs) -> Verdict:
    paths = machine.glob(f"{_CPU}/cpu[0-9]*/cpufreq/scaling_governor")
    if not paths:
        return not_applicable("the frequency is not this system's to choose (no cpufreq: a virtual machine, or fixed)")
    governors = {machine.read(path) for path in paths}
    found = f"{', '.join(sorted(governors))} on {len(paths)} CPUs"
    if governors == {"performance"}:
        return ok(found)
    return warn(f"{found}: slow for the first moments after sleep", "sudo cpupower frequency-set -g performance")


def idle_states(machine: Machine, needs: Needs) -> Verdict:
    states = [path.rpartition("/")[0] for path in machine.glob(f"{_CPU}/cpu0/cpuidle/state*/latency")]
    if not states:
        return not_applicable("no idle states to choose from (no cpuidle driver)")
    enabled = [
        (int(machine.read(f"{state}/latency")), machine.read(f"{state}/name"))
        for state in states
        if machine.read(f"{state}/disable") == "0"
    ]
    if not enabled:
        return ok("all idle states are switched off")
    wake_us, name = max(enabled)
    found = f"deepest idle state {name}, {wake_us} us to wake up"
    if wake_us <= _WAKE_UP_US:
        return ok(found)
    bound = _latency_bound_us(machine)
    if bound is not None and bound <= _WAKE_UP_US:
        return ok(f"{found}, but /dev/cpu_dma_latency keeps it below {bound} us")
    return warn(
        f"{found}; {'/dev/cpu_dma_latency can be read by root only' if bound is None else 'nothing forbids it'}",
        f"sudo cpupower idle-set -D {_WAKE_UP_US}",
    )


def _latency_bound_us(machine: Machine) -> int | None:
    """What programs that hold /dev/cpu_dma_latency open have asked for. Reading asks for nothing."""
    try:
        with machine.path("/dev/cpu_dma_latency").open("rb") as device:
            raw = device.read(4)
    except OSError:
        return None
    return int.from_bytes(raw, "little", signed=True)


def clock_source(machine: Machine, needs: Needs) -> Verdict:
    folder = "/sys/devices/system/clocksource/clocksource0"
    current = machine.read(f"{folder}/current_clocksource")
    found = f"{current}; reading the clock takes {machine.clock_cost_ns():.0f} ns (Python's share included)"
    if current in _CLOCK_SOURCES:
        return ok(found)
    available = machine.read(f"{folder}/available_clocksource").split()
    better = [name for name in _CLOCK_SOURCES if name in available]
    if better:
        return warn(f"{found}: a system call", f"echo {better[0]} | sudo tee {folder}/current_clocksource")
    return warn(
        f"{found}: a system call", "kernel command line: tsc=reliable clocksource=tsc (if the CPU's TSC is constant)"
    )


def steal(machine: Machine, needs: Needs) -> Verdict:
    """Only a busy CPU can be stolen from: one is kept busy meanwhile."""
    if "hypervisor" not in machine.read("/proc/cpuinfo"):
        return not_applicable("no virtual machine")
    before = _cpu_times(machine)
    pause_ns = machine.spin(_STEAL_NS)
    after = _cpu_times(machine)
    elapsed = [late - early for early, late in zip(before, after, strict=True)]
    if sum(elapsed[:8]) <= 0:
        return unknown("/proc/stat stood still")
    share = elapsed[7] / sum(elapsed[:8])
    found = (
        f"{share:.1%} of the CPU time of 0.5 s was taken by the host; longest pause of a busy loop "
        f"{pause_ns / 1e6:.2f} ms (other programs included)"
    )
    if share < _STEAL_SHARE:
        return ok(found)
    return warn(found, "ask for dedicated CPUs (pinned, not overcommitted), or use a machine of your own")


def _cpu_times(machine: Machine) -> list[int]:
    """user, nice, system, idle, iowait, irq, softirq, steal, ... of all CPUs [clock ticks]."""
    first = machine.read("/proc/stat").splitlines()[0].split()
    if first[0] != "cpu" or len(first) < 9:
        raise ProbeError("/proc/stat does not begin with the times of all CPUs")
    return [int(value) for value in first[1:]]


CHECKS = (
    Check("cpu.count", "CPUs", count),
    Check("cpu.isolated", "isolated CPUs", isolated),
    Check("cpu.governor", "frequency governor", governor),
    Check("cpu.idle_states", "C-states", idle_states),
    Check("cpu.clock_source", "clock source", clock_source),
    Check("cpu.steal", "steal time", steal),
)
