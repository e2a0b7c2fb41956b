"""What the doctor says of machines described by files: fake /proc and /sys trees, recorded output of programs."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rtcore.cli.doctor import main
from rtcore.config.run import make_config
from rtcore.doctor import container, cpu, gpu, kernel, segments, system
from rtcore.doctor.checks import Check, Needs, Status, Verdict, ok, run_checks, size
from rtcore.doctor.examination import GROUPS, find_needs, to_json
from rtcore.doctor.machine import Machine, ProbeError, cpu_list, in_words
from rtcore.errors import ConfigError
from rtcore.memory.counters import Words
from rtcore.memory.layout import LAYOUT_VERSION, MAGIC, SEGMENT_HEADER, Layout
from rtcore.memory.segments import pid_namespace

pytestmark = pytest.mark.unit

LAYOUT = Layout(max_workers=2, ring_slots=64, log_slots=64, frame_bytes=1000, action_bytes=8, chunk=1)
TRACED = Layout(max_workers=2, ring_slots=64, log_slots=64, frame_bytes=1000, action_bytes=8, chunk=1, trace_slots=8192)
NEEDS = Needs(make_config(), LAYOUT, TRACED)
CPU = "/sys/devices/system/cpu"
STATUS = "Name:\tpython\nCpus_allowed_list:\t0-3\nCapEff:\t0000000000000000\n"
LIMITS = (
    "Limit                     Soft Limit           Hard Limit           Units     \n"
    "Max locked memory         8388608              8388608              bytes     \n"
    "Max realtime priority     0                    0                              \n"
)
GRANTED = {
    "report": {"timer slack 1 ns": "granted", "SCHED_FIFO 20": "granted", "mlockall": "granted"},
    "fifo": True,
    "priority": 20,
    "locked_bytes": 215_000_000,
    "timer_slack_ns": 1,
    "turns": "granted",
}
REFUSED = GRANTED | {
    "report": {
        "timer slack 1 ns": "refused: Invalid argument",
        "SCHED_FIFO 20": "refused: Operation not permitted",
        "mlockall": "refused: Cannot allocate memory",
    },
    "fifo": False,
    "turns": "refused: needs Linux 6.12",
}


class Described(Machine):
    """A machine of files, programs with recorded answers, and trials with given results."""

    def __init__(
        self,
        root: Path,
        files: Mapping[str, str | bytes],
        programs: Mapping[str, str | None] | None = None,
        trials: Mapping[str, Any] | None = None,
        *,
        uid: int = 1000,
        free_bytes: int = 10**9,
    ) -> None:
        super().__init__(root)
        self.programs = programs or {}
        self.answers = trials or {}
        self.asked: list[str] = []
        self._uid = uid
        self._free_bytes = free_bytes
        for path, content in files.items():
            target = self.path(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content if isinstance(content, bytes) else content.encode())

    @property
    def uid(self) -> int:
        return self._uid

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def run(self, *command: str, stdin: str = "") -> str:
        answer = self.programs.get(" ".join(command), self.programs.get(command[0]))
        if answer is None:
            raise ProbeError(f"{command[0]}: no answer")
        return answer

    def room_bytes(self, path: str) -> tuple[int, int]:
        return 2 * 10**9, self._free_bytes

    def trial(self, name: str, **request: Any) -> dict[str, Any]:
        self.asked.append(name)
        result: dict[str, Any] = self.answers[name]
        return result

    def spin(self, duration_ns: int) -> int:
        return 1_500_000

    def package(self, name: str) -> str | None:
        return {"torch": "2.9.0+cu130", "numpy": "1.20"}.get(name)


Describe = Callable[..., Described]


@pytest.fixture
def describe(tmp_path: Path) -> Describe:
    def make(files: Mapping[str, str | bytes] | None = None, *arguments: Any, **options: Any) -> Described:
        return Described(tmp_path, {"/proc/self/status": STATUS, **(files or {})}, *arguments, **options)

    return make


def said(answer: Verdict, status: Status, *words: str) -> None:
    text = f"{answer.found} | {answer.fix}"
    assert answer.status is status, text
    for word in words:
        assert word in text
    if status in (Status.WARN, Status.LACKS):
        assert answer.fix, "what is wrong comes with what to do"


# -- the frame -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/sys/x"), "could not be told: /sys/x: Permission denied"),
        (ValueError("bad\n number"), "could not be told: ValueError: bad number"),
        (ProbeError("x did not answer"), "could not be told: x did not answer"),
    ],
)
def test_a_probe_that_fails_is_an_answer_and_the_next_check_still_runs(
    describe: Describe, error: Exception, told: str
) -> None:
    def fails(machine: Machine, needs: Needs) -> Verdict:
        raise error

    checks = (Check("a.b", "one", fails), Check("a.c", "two", lambda machine, needs: ok("fine")))
    first, second = run_checks(checks, describe(), NEEDS)
    assert (first.answer.status, first.answer.found) == (Status.UNKNOWN, told)
    assert second.answer.status is Status.OK


def test_nothing_at_all_in_proc_and_sys_ends_no_check(tmp_path: Path) -> None:
    machine = Described(tmp_path, {}, trials={"realtime": GRANTED})
    findings = [finding for checks in GROUPS.values() for finding in run_checks(checks, machine, NEEDS)]
    assert len(findings) == sum(map(len, GROUPS.values()))
    unknown = [finding for finding in findings if finding.answer.status is Status.UNKNOWN]
    assert unknown and all(finding.answer.found.startswith("could not be told: ") for finding in unknown)


def test_keys_are_unique() -> None:
    keys = [check.key for checks in GROUPS.values() for check in checks]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(("text", "cpus"), [("0-2,5", {0, 1, 2, 5}), ("", set()), ("7", {7})])
def test_sets_of_cpus_are_read_and_written_as_the_kernel_does(text: str, cpus: set[int]) -> None:
    assert cpu_list(text) == cpus
    assert in_words(cpus) == text


def test_json_counts_and_verdict_agree_with_the_lines(describe: Describe) -> None:
    lines = [ok("fine"), system.platform(Odd(describe().root, {}), NEEDS)]
    checks = [Check(f"a.{i}", str(i), lambda machine, needs, line=line: line) for i, line in enumerate(lines)]
    told = to_json(NEEDS, list(run_checks(checks, describe(), NEEDS)), [])
    assert told["ok"] is False
    assert (told["counts"]["ok"], told["counts"]["lacks"]) == (1, 1)
    assert [line["status"] for line in told["checks"]] == ["ok", "lacks"]
    assert told["needs"]["shm_bytes"] == NEEDS.shm_bytes
    assert json.loads(json.dumps(told)) == told


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (999, 23_040, 94_400_000, 25.3e9, 2e12)] == [
        "999 B",
        "23 kB",
        "94.4 MB",
        "25.3 GB",
        "2 TB",
    ]


def test_a_world_that_does_not_exist_is_a_wrong_setting_and_one_that_fails_is_not(describe: Describe) -> None:
    with pytest.raises(ConfigError, match="no such world"):
        find_needs(describe(trials={"world": {"wrong_setting": "no such world"}}), make_config())

    class Failing(Described):
        def trial(self, name: str, **request: Any) -> dict[str, Any]:
            raise ProbeError("the world crashed")

    needs = find_needs(Failing(describe().root, {}), make_config())
    said(segments.room(describe(), needs), Status.UNKNOWN, "the world crashed")


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    for words in ("examples:", "exit codes:", "--clean", "--json"):
        assert words in shown


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["--ring-slots", "0"], ["--config", "/no/such/file"]])
def test_wrong_options_end_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().out == ""


# -- system --------------------------------------------------------------------------------------------------------


class Odd(Described):
    system = ("linux", "aarch64")

    def tick_path(self) -> tuple[bool, str, str]:
        return False, "Python", ""

    python = "3.10.2"

    def requirements(self) -> list[str]:
        return ["torch>=2.4", "numpy>=1.26", "gymnasium>=1.0", "pyzmq>=25; extra == 'bench'"]


def test_another_processor_an_old_python_and_old_packages_are_lacking(describe: Describe) -> None:
    machine = Odd(describe().root, {})
    said(system.platform(machine, NEEDS), Status.LACKS, "aarch64", "C extension", "libc6-dev python3-dev")
    machine.tick_path = lambda: (True, "C", "")  # type: ignore[method-assign]
    said(system.platform(machine, NEEDS), Status.OK, "aarch64")
    said(system.python(machine, NEEDS), Status.LACKS, "3.10.2", "3.11")
    answer = system.packages(machine, NEEDS)
    said(answer, Status.LACKS, "numpy 1.20 (needs >=1.26)", "gymnasium missing", "pip install")
    assert "torch" not in answer.found, "what is there is not complained about"
    assert "pyzmq" not in answer.found, "an extra that nobody asked for is not missing"


def test_tools_are_named_or_said_to_be_missing(describe: Describe) -> None:
    said(system.compiler(describe(None, {"cc": "cc 12.2\nmore"}), NEEDS), Status.OK, "cc 12.2")
    said(system.compiler(describe(), NEEDS), Status.WARN, "apt install gcc")


def test_a_tick_path_that_was_not_compiled_is_warned_of_and_one_that_was_not_wanted_is_not(describe: Describe) -> None:
    machine = describe()
    machine.tick_path = lambda: (False, "Python: no module", "install a C compiler")  # type: ignore[method-assign]
    said(system.tick_path(machine, NEEDS), Status.WARN, "Python: no module", "install a C compiler")
    for words in ("C", "Python (RTCORE_TICK=python)"):
        machine.tick_path = lambda words=words: (words == "C", words, "")  # type: ignore[misc]
        said(system.tick_path(machine, NEEDS), Status.OK, words)


# -- CPUs ----------------------------------------------------------------------------------------------------------


def test_one_cpu_is_a_warning_with_the_command_that_gives_more(describe: Describe) -> None:
    alone = {f"{CPU}/online": "0-7\n", "/proc/self/status": "Cpus_allowed_list:\t2\n"}
    said(cpu.count(describe(alone), NEEDS), Status.WARN, "1 of 8", "taskset -c 0-7")
    said(cpu.count(describe({f"{CPU}/online": "0-3\n"}), NEEDS), Status.OK, "4 of 4")


def test_a_pinned_cpu_outside_the_mask_is_named(describe: Describe) -> None:
    needs = Needs(make_config(env_cpu=9), LAYOUT, TRACED)
    said(cpu.count(describe({f"{CPU}/online": "0-15"}), needs), Status.WARN, "--env-cpu 9 is not among", "--env-cpu 3")


def test_isolated_cpus_are_to_be_used(describe: Describe) -> None:
    files = {f"{CPU}/isolated": "2-3\n", f"{CPU}/nohz_full": "3\n"}
    said(cpu.isolated(describe(files), NEEDS), Status.WARN, "rtcore-run --env-cpu 3")
    said(cpu.isolated(describe(files), Needs(make_config(env_cpu=2))), Status.OK, "uses it")
    said(cpu.isolated(describe({f"{CPU}/isolated": "", f"{CPU}/nohz_full": "(null)"}), NEEDS), Status.WARN, "isolcpus")


def test_two_cpus_have_none_to_isolate(describe: Describe) -> None:
    machine = describe({"/proc/self/status": "Cpus_allowed_list:\t0-1\n"})
    assert cpu.isolated(machine, NEEDS).status is Status.NOT_APPLICABLE


def test_a_saving_governor_is_a_warning(describe: Describe) -> None:
    paths = [f"{CPU}/cpu{n}/cpufreq/scaling_governor" for n in (0, 1)]
    said(cpu.governor(describe(dict.fromkeys(paths, "performance\n")), NEEDS), Status.OK, "2 CPUs")
    said(cpu.governor(describe({paths[1]: "powersave\n"}), NEEDS), Status.WARN, "powersave", "cpupower frequency-set")


def test_without_cpufreq_the_governor_does_not_apply(describe: Describe) -> None:
    assert cpu.governor(describe(), NEEDS).status is Status.NOT_APPLICABLE


def _idle(deep_disabled: str) -> dict[str, str | bytes]:
    states = {"state0": ("POLL", "0", "0"), "state1": ("C1", "2", "0"), "state2": ("C6", "133", deep_disabled)}
    return {
        f"{CPU}/cpu0/cpuidle/{state}/{name}": value
        for state, values in states.items()
        for name, value in zip(("name", "latency", "disable"), values, strict=True)
    }


def test_a_deep_idle_state_is_a_warning_unless_switched_off_or_forbidden(describe: Describe) -> None:
    said(cpu.idle_states(describe(_idle("0")), NEEDS), Status.WARN, "C6, 133 us", "by root only", "idle-set -D")
    bound = (2_000_000_000).to_bytes(4, "little")
    unbound = describe(_idle("0") | {"/dev/cpu_dma_latency": bound})
    said(cpu.idle_states(unbound, NEEDS), Status.WARN, "nothing forbids it")
    forbidden = describe(_idle("0") | {"/dev/cpu_dma_latency": (10).to_bytes(4, "little")})
    said(cpu.idle_states(forbidden, NEEDS), Status.OK, "below 10 us")
    said(cpu.idle_states(describe(_idle("1")), NEEDS), Status.OK, "C1, 2 us")


def test_a_slow_clock_source_is_a_warning_with_a_better_one_that_is_there(describe: Describe) -> None:
    folder = "/sys/devices/system/clocksource/clocksource0"
    files = {f"{folder}/current_clocksource": "hpet\n", f"{folder}/available_clocksource": "tsc hpet acpi_pm\n"}
    said(cpu.clock_source(describe(files), NEEDS), Status.WARN, "hpet", "echo tsc")
    said(cpu.clock_source(describe(files | {f"{folder}/available_clocksource": "hpet"}), NEEDS), Status.WARN, "tsc=")
    said(cpu.clock_source(describe(files | {f"{folder}/current_clocksource": "tsc"}), NEEDS), Status.OK, "ns")


@pytest.mark.parametrize(("stolen", "status"), [(0, Status.OK), (10, Status.WARN)])
def test_stolen_time_is_what_grew_meanwhile(describe: Describe, stolen: int, status: Status) -> None:
    class Stolen(Described):
        def spin(self, duration_ns: int) -> int:
            self.path("/proc/stat").write_text(f"cpu 150 0 10 840 0 0 0 {5 + stolen} 0 0\n")
            return 1_500_000

    files = {"/proc/cpuinfo": "flags : fpu hypervisor", "/proc/stat": "cpu 100 0 10 800 0 0 0 5 0 0\n"}
    answer = cpu.steal(Stolen(describe().root, files), NEEDS)
    said(answer, status, "10.0%" if stolen else "0.0%", "1.50 ms")


def test_a_real_machine_has_nobody_to_steal(describe: Describe) -> None:
    assert cpu.steal(describe({"/proc/cpuinfo": "flags : fpu"}), NEEDS).status is Status.NOT_APPLICABLE


# -- kernel --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "status", "word"),
    [
        ({"/sys/kernel/realtime": "1"}, Status.OK, "PREEMPT_RT"),
        ({"/sys/kernel/debug/sched/preempt": "none voluntary (full) lazy"}, Status.OK, "full"),
        ({"/proc/cmdline": "quiet preempt=voluntary x"}, Status.WARN, "voluntary"),
        ({"/proc/config.gz": gzip.compress(b"CONFIG_PREEMPT_NONE=y\nCONFIG_PREEMPT_DYNAMIC=y\n")}, Status.WARN, "no "),
        (
            {"/proc/sys/kernel/osrelease": "6.1-x", "/boot/config-6.1-x": "# CONFIG_PREEMPT_NONE\nCONFIG_PREEMPT=y\n"},
            Status.OK,
            "full",
        ),
        ({}, Status.UNKNOWN, "As root"),
    ],
)
def test_the_preemption_model_is_found_where_the_kernel_says_it(
    describe: Describe, files: dict[str, str | bytes], status: Status, word: str
) -> None:
    base: dict[str, str | bytes] = {"/proc/version": "Linux #1 SMP PREEMPT_DYNAMIC", "/proc/cmdline": "quiet"}
    said(kernel.preemption(describe(base | files), NEEDS), status, word)


RIGHTS: dict[str, str | bytes] = {
    "/proc/self/limits": LIMITS,
    "/proc/meminfo": "MemAvailable: 8000000 kB\n",
    "/proc/self/timerslack_ns": "50000\n",
    "/proc/swaps": "Filename Type Size Used Priority\n/dev/sda2 partition 2097148 4096 -2\n",
}


def test_rights_that_the_trial_got_are_granted_whatever_the_limits_say(describe: Describe) -> None:
    machine = describe(RIGHTS, trials={"realtime": GRANTED})
    said(kernel.fifo(machine, NEEDS), Status.OK, "priority 20")
    said(kernel.memory_lock(machine, NEEDS), Status.OK, "215 MB locked", "8.39 MB")
    said(kernel.timer_slack(machine, NEEDS), Status.OK, "50000 ns")
    said(kernel.short_turns(machine, NEEDS), Status.OK, "granted")


def test_rights_that_the_trial_did_not_get_come_with_the_setting(describe: Describe) -> None:
    machine = describe(RIGHTS, trials={"realtime": REFUSED})
    said(kernel.fifo(machine, NEEDS), Status.WARN, "Operation not permitted", "limits.d", "rtprio 20")
    said(kernel.memory_lock(machine, NEEDS), Status.WARN, "Cannot allocate", "memlock unlimited")
    said(kernel.timer_slack(machine, NEEDS), Status.WARN, "Invalid argument")
    said(kernel.short_turns(machine, NEEDS), Status.WARN, "needs Linux 6.12", "sched_setattr")


def test_in_a_container_the_setting_is_that_of_the_engine(describe: Describe) -> None:
    files = RIGHTS | {"/.dockerenv": ""}
    user = describe(files, trials={"realtime": REFUSED})
    said(kernel.fifo(user, NEEDS), Status.WARN, "--ulimit rtprio=20")
    root = describe(files, trials={"realtime": REFUSED}, uid=0)
    said(kernel.memory_lock(root, NEEDS), Status.WARN, "--cap-add IPC_LOCK")


def test_a_group_without_a_realtime_budget_is_the_reason(describe: Describe) -> None:
    files = RIGHTS | {"/sys/fs/cgroup/cpu/cpu.rt_runtime_us": "0\n"}
    said(kernel.fifo(describe(files, trials={"realtime": REFUSED}), NEEDS), Status.WARN, "cpu.rt_runtime_us")


def test_memory_that_is_not_there_is_not_locked_for_trying(describe: Describe) -> None:
    machine = describe(RIGHTS | {"/proc/meminfo": "MemAvailable: 100 kB\n"}, trials={"realtime": GRANTED})
    (finding,) = run_checks([Check("k.m", "m", kernel.memory_lock)], machine, NEEDS)
    said(finding.answer, Status.UNKNOWN, "not tried")
    assert machine.asked == []


@pytest.mark.parametrize(("runtime", "status"), [("-1", Status.OK), ("950000", Status.OK), ("0", Status.WARN)])
def test_the_realtime_budget_is_judged(describe: Describe, runtime: str, status: Status) -> None:
    folder = "/proc/sys/kernel/"
    files = {f"{folder}sched_rt_runtime_us": runtime, f"{folder}sched_rt_period_us": "1000000"}
    assert kernel.fifo_budget(describe(files), NEEDS).status is status


def test_swap_matters_where_memory_cannot_be_locked_or_is_used_already(describe: Describe) -> None:
    said(kernel.swap(describe(RIGHTS, trials={"realtime": REFUSED}), NEEDS), Status.WARN, "swapoff")
    said(kernel.swap(describe(RIGHTS, trials={"realtime": GRANTED}), NEEDS), Status.WARN, "4.19 MB of it used")
    unused = RIGHTS | {"/proc/swaps": "Filename\n/dev/sda2 partition 2097148 0 -2\n"}
    said(kernel.swap(describe(unused, trials={"realtime": GRANTED}), NEEDS), Status.OK, "locked")
    said(kernel.swap(describe(RIGHTS | {"/proc/swaps": "Filename\n"}), NEEDS), Status.OK, "none")


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("[always] madvise never", Status.WARN),
        ("always [madvise] never", Status.OK),
        ("", Status.UNKNOWN),
    ],
)
def test_huge_pages_for_everybody_are_a_warning(describe: Describe, text: str, status: Status) -> None:
    files = {"/sys/kernel/mm/transparent_hugepage/enabled": text}
    assert kernel.huge_pages(describe(files), NEEDS).status is status


# -- room in /dev/shm (what lies in it: tests/process/test_doctor_real.py) ------------------------------------------

MEMORY: dict[str, str | bytes] = {"/proc/meminfo": "MemTotal: 1 kB\nMemAvailable: 8000000 kB\n"}


def test_room_is_judged_by_the_layout_of_the_configured_run(describe: Describe) -> None:
    assert NEEDS.shm_bytes is not None and NEEDS.traced_shm_bytes is not None
    said(segments.room(describe(MEMORY), NEEDS), Status.OK, "64 frames", "2 worker places")
    tight = describe(MEMORY, free_bytes=NEEDS.shm_bytes)
    said(segments.room(tight, NEEDS), Status.WARN, "too small for --trace", "remount,size=")
    full = describe(MEMORY, free_bytes=NEEDS.shm_bytes - 1)
    said(segments.room(full, NEEDS), Status.LACKS, "--ring-slots")
    engine = describe(MEMORY | {"/.dockerenv": ""}, free_bytes=NEEDS.shm_bytes - 1)
    said(segments.room(engine, NEEDS), Status.LACKS, "--shm-size=3g")


def test_room_without_memory_behind_it_is_no_room(describe: Describe) -> None:
    machine = describe({"/proc/meminfo": "MemAvailable: 100 kB\n"})
    said(segments.room(machine, NEEDS), Status.LACKS, "only 102 kB of memory")


def test_what_dev_shm_is_mounted_on_is_said(describe: Describe) -> None:
    base = "25 24 0:23 / /dev/shm {0} - {1} {1} rw,size=65536k\n"
    files = {"/dev/shm/.keep": ""}
    tmpfs = describe(files | {"/proc/self/mountinfo": base.format("rw,nosuid", "tmpfs")})
    said(segments.mount(tmpfs, NEEDS), Status.OK, "tmpfs", "rw,nosuid", "size=65536k")
    disk = describe(files | {"/proc/self/mountinfo": base.format("rw", "ext4")})
    said(segments.mount(disk, NEEDS), Status.WARN, "ext4")
    said(segments.mount(describe(files | {"/proc/self/mountinfo": ""}), NEEDS), Status.WARN, "plain folder")


def test_no_dev_shm_is_lacking(describe: Describe) -> None:
    said(segments.mount(describe(), NEEDS), Status.LACKS, "mount -t tmpfs")


# -- GPUs ----------------------------------------------------------------------------------------------------------

DEVICE = "/sys/bus/pci/devices/0000:65:00.0"
ON_BUS: dict[str, str | bytes] = {
    f"{DEVICE}/vendor": "0x10de\n",
    f"{DEVICE}/class": "0x030200\n",
    f"{DEVICE}/numa_node": "1\n",
    "/sys/devices/system/node/node1/cpulist": "8-15\n",
}
SMI = {
    "nvidia-smi": "| NVIDIA-SMI 580.65  Driver Version: 580.65  CUDA Version: 13.0 |",
    f"nvidia-smi --query-gpu={gpu._QUERY} --format=csv,noheader": (
        "0, NVIDIA H100 80GB HBM3, 580.65, Enabled, 00000000:65:00.0\n"
        "1, NVIDIA H100 80GB HBM3, 580.65, Disabled, 00000000:66:00.0"
    ),
}
TORCH = {"version": "2.9.0+cu130", "cuda": "13.0", "error": ""}


def test_without_a_gpu_nothing_of_it_applies_and_torch_is_not_imported(describe: Describe) -> None:
    machine = describe({f"{DEVICE}/vendor": "0x8086", f"{DEVICE}/class": "0x030000"})
    for finding in run_checks(gpu.CHECKS, machine, NEEDS):
        assert finding.answer.status is Status.NOT_APPLICABLE, finding
    assert machine.asked == []


def test_a_demanded_gpu_that_is_not_there_is_lacking(describe: Describe) -> None:
    needs = Needs(make_config(device="cuda:0"))
    said(gpu.driver(describe(), needs), Status.LACKS, "cuda:0")


def test_a_gpu_without_a_driver_is_found_on_the_bus(describe: Describe) -> None:
    said(gpu.driver(describe(ON_BUS), NEEDS), Status.WARN, "0000:65:00.0", "no nvidia-smi")
    said(gpu.driver(describe(ON_BUS | {"/.dockerenv": ""}), NEEDS), Status.WARN, "--gpus all")


def test_a_driver_that_does_not_answer_is_a_warning(describe: Describe) -> None:
    said(gpu.driver(describe(ON_BUS, {"nvidia-smi": None}), NEEDS), Status.WARN, "no answer")


def test_what_nvidia_smi_says_is_read(describe: Describe) -> None:
    machine = describe(ON_BUS, SMI, {"torch": TORCH})
    said(gpu.driver(machine, NEEDS), Status.OK, "580.65", "0: NVIDIA H100", "1: NVIDIA H100")
    said(gpu.pytorch(machine, NEEDS), Status.OK, "CUDA 13.0", "up to 13.0", "worked")
    said(gpu.persistence(machine, NEEDS), Status.WARN, "off on GPU 1", "nvidia-smi -pm 1")
    said(gpu.numa(machine, NEEDS), Status.WARN, "0000:65:00.0 on node 1", "numactl --cpunodebind=1", "8-15")


def test_a_torch_that_does_not_fit_is_told_with_its_own_words(describe: Describe) -> None:
    broken = TORCH | {"error": "The NVIDIA driver on your system is too old"}
    said(gpu.pytorch(describe(ON_BUS, SMI, {"torch": broken}), NEEDS), Status.WARN, "too old", "whl/cuNNN")
    cpu_build = TORCH | {"cuda": None}
    said(gpu.pytorch(describe(ON_BUS, SMI, {"torch": cpu_build}), NEEDS), Status.WARN, "without CUDA", "whl/cu130")


def test_mps_is_asked(describe: Describe) -> None:
    said(gpu.mps(describe(ON_BUS, SMI | {"nvidia-cuda-mps-control": ""}), NEEDS), Status.OK, "running")
    silent = describe(ON_BUS, SMI | {"nvidia-cuda-mps-control": None})
    said(gpu.mps(silent, NEEDS), Status.WARN, "not running", "nvidia-cuda-mps-control -d")
    said(gpu.mps(describe(ON_BUS, SMI), NEEDS), Status.WARN, "no nvidia-cuda-mps-control")


# -- containers ----------------------------------------------------------------------------------------------------


def test_a_container_is_recognised(describe: Describe) -> None:
    files = {"/proc/self/cgroup": "0::/docker/abc\n", "/sys/fs/cgroup/cgroup.controllers": "cpu memory"}
    said(container.kind(describe(files), NEEDS), Status.NOT_APPLICABLE, "v2", "/docker/abc")
    said(container.kind(describe(files | {"/run/.containerenv": ""}), NEEDS), Status.OK, "/run/.containerenv")


def test_the_tightest_quota_on_the_way_up_counts(describe: Describe) -> None:
    files = {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
        "/sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    }
    said(container.cpu_quota(describe(files), NEEDS), Status.WARN, "1.5 CPUs", "--cpuset-cpus")


def test_quotas_of_the_first_kind_of_control_groups_are_read(describe: Describe) -> None:
    files = {
        "/proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/x\n",
        "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
        "/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
    }
    said(container.cpu_quota(describe(files), NEEDS), Status.WARN, "0.5 CPUs")
    files["/sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us"] = "-1\n"
    assert container.cpu_quota(describe(files), NEEDS).status is Status.OK


def test_a_memory_limit_below_the_ring_is_a_warning(describe: Describe) -> None:
    folder = "/sys/fs/cgroup/"
    files = {"/proc/self/cgroup": "0::/\n", f"{folder}memory.max": "1000000", f"{folder}memory.current": "990000"}
    said(container.memory_limit(describe(files), NEEDS), Status.WARN, "10 kB left", "--memory")
    files[f"{folder}memory.max"] = "max"
    said(container.memory_limit(describe(files), NEEDS), Status.OK, "none")


def test_capabilities_matter_to_root_in_a_container_only(describe: Describe) -> None:
    files = {"/.dockerenv": ""}
    said(container.capabilities(describe(files, uid=0), NEEDS), Status.WARN, "--cap-add SYS_NICE --cap-add IPC_LOCK")
    assert container.capabilities(describe(), NEEDS).status is Status.NOT_APPLICABLE
    held = {"/proc/self/status": f"CapEff:\t{(1 << 23) | (1 << 14):016x}\n"}
    said(container.capabilities(describe(held), NEEDS), Status.OK, "SYS_NICE, IPC_LOCK")


def test_cleaning_removes_every_part_of_a_dead_run_and_says_what_strange_names_it_left(tmp_path: Path) -> None:
    folder = tmp_path / "dev/shm"
    folder.mkdir(parents=True)
    (tmp_path / "proc/self/ns").mkdir(parents=True)
    (tmp_path / "proc/self/ns/pid").touch()
    head = bytearray(4096)
    words = Words(SEGMENT_HEADER, memoryview(head))
    words["magic"], words["layout_version"], words["size_bytes"] = MAGIC, LAYOUT_VERSION, len(head)
    words["owner_pid"], words["owner_start_ticks"] = 99999999, 1
    words["owner_pid_namespace"] = pid_namespace(tmp_path / "proc")
    run_id = "99999999-abcdef"
    for part in ("control", "slots", "ring", "log", "description", "trace", "params", "learner", "holder0", "holder1"):
        (folder / f"rtcore-{run_id}-{part}").write_bytes(head)
    (folder / f"sem.rtcore-{run_id}-w0").write_bytes(b"x")
    strange = ["rtcore-*-control", f"rtcore-{run_id}-control~"]
    for name in strange:
        (folder / name).write_bytes(head)
    os.mkfifo(folder / "rtcore-1-abcdef-control")
    machine = Machine(root=tmp_path)
    assert [run.run_id for run in segments.clean(machine)] == [run_id]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*strange, "rtcore-1-abcdef-control"])
    told = segments.stale(machine, NEEDS)
    assert "2 names that no run has, left alone" in told.found
    assert "1-abcdef without a readable header" in told.found
