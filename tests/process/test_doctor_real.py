"""The doctor on this machine: real rights in real children, real segments of living, dead and foreign owners."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest

from rtcore.cli.doctor import main
from rtcore.config.run import make_config
from rtcore.doctor import kernel, segments, system
from rtcore.doctor.checks import Needs, Status
from rtcore.doctor.machine import Machine, ProbeError
from rtcore.doctor.segments import RunSegments
from rtcore.memory.layout import SEGMENT_HEADER, Layout
from rtcore.memory.owners import Standing
from rtcore.memory.segments import create_segment, files_of, new_run_id, unlink_all
from rtcore.runtime.runtime import Runtime
from tests.support.drills import Run

pytestmark = pytest.mark.process

DOCTOR = [sys.executable, "-m", "rtcore.cli.doctor"]
LAYOUT = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=64, action_bytes=8, chunk=1)
#: Makes a run's segments and a semaphore (up to layout 7), says its run id, and is killed, as by an OOM killer.
DIES = """
import os, signal, sys
from rtcore.memory.layout import Layout
from rtcore.memory.segments import SHM_DIR, create_segment, new_run_id
layout, run_id = Layout(1, 2, 2, 64, 8, 1), new_run_id()
for part in ("control", "slots", "ring", "log", "description"):
    create_segment(run_id, part, layout)
(SHM_DIR / f"sem.rtcore-{run_id}-w0").write_bytes(bytes(32))
print(run_id, flush=True)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def left_by_a_dead_program() -> str:
    """Run id of what is in /dev/shm now, until any program of rtcore starts: that removes it."""
    killed = subprocess.run(
        [sys.executable, "-c", DIES], capture_output=True, text=True, timeout=150, input="\n", check=False
    )
    run_id = killed.stdout.strip()
    assert run_id, killed.stderr
    return run_id


@contextmanager
def waiting_to_die(machine: Machine) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run id of segments in the machine's /dev/shm, and the live program that made them."""
    with subprocess.Popen([sys.executable, "-c", DIES], stdin=PIPE, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            run_id = process.stdout.readline().strip()
            for file in files_of(run_id):
                shutil.copy2(file, machine.path(str(file)))
            unlink_all(run_id)
            yield run_id, process
        finally:
            process.kill()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """The processes of this machine, with a /dev/shm of its own: no run that another test starts tidies it up."""
    (tmp_path / "dev/shm").mkdir(parents=True)
    (tmp_path / "proc").symlink_to("/proc")
    return Machine(tmp_path)


@pytest.fixture
def dead(machine: Machine) -> str:
    """Run id of segments in the machine's /dev/shm whose owner was killed."""
    with waiting_to_die(machine) as (run_id, process):
        process.communicate("\n")
    return run_id


@pytest.fixture
def alive() -> Iterator[str]:
    """Run id of segments that belong to this process."""
    run_id = new_run_id()
    create_segment(run_id, "control", LAYOUT)
    create_segment(run_id, "ring", LAYOUT)
    yield run_id
    unlink_all(run_id)


def found(run_id: str, machine: Machine | None = None) -> RunSegments:
    (run,) = [run for run in segments.find_runs(machine or Machine())[0] if run.run_id == run_id]
    return run


def doctor(*arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *DOCTOR, *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture
def doctor_here(capfd: pytest.CaptureFixture[str]) -> Run:
    """`doctor` without a Python of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, *capfd.readouterr())

    return run


def overwrite(run_id: str, field: str, value: int, machine: Machine | None = None) -> None:
    with (machine or Machine()).path(f"/dev/shm/rtcore-{run_id}-control").open("r+b") as control:
        control.seek(8 * SEGMENT_HEADER.index[field])
        control.write(value.to_bytes(8, "little"))


# -- stale segments ------------------------------------------------------------------------------------------------


def test_clean_removes_what_the_dead_left_and_nothing_of_the_living(dead: str, machine: Machine) -> None:
    with waiting_to_die(machine) as (alive, _):
        assert (found(dead, machine).standing, found(alive, machine).standing) == (Standing.DEAD, Standing.LIVE)
        assert len(found(dead, machine).files) == 6, "five segments and a semaphore"
        assert [run.run_id for run in segments.clean(machine)] == [dead]
        assert files_of(dead, machine.root) == []
        assert len(files_of(alive, machine.root)) == 6


def test_without_clean_stale_segments_are_named_and_stay(dead: str, machine: Machine) -> None:
    answer = segments.stale(machine, Needs(make_config()))
    assert answer.status is Status.WARN
    assert dead in answer.found
    assert answer.fix == "rtcore-doctor --clean"
    assert len(files_of(dead, machine.root)) == 6


@pytest.mark.parametrize(
    ("field", "value", "standing"),
    [
        ("owner_pid_namespace", 1, Standing.OTHER_NAMESPACE),
        ("layout_version", 99, Standing.OTHER_LAYOUT),
        ("magic", 0, Standing.BROKEN),
    ],
)
def test_what_cannot_be_judged_stays_even_if_its_pid_is_gone(
    dead: str, machine: Machine, field: str, value: int, standing: Standing
) -> None:
    overwrite(dead, field, value, machine)
    assert found(dead, machine).standing is standing
    assert segments.clean(machine) == []
    assert len(files_of(dead, machine.root)) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_dead_run_of_another_user_stays(dead: str, machine: Machine) -> None:
    paths = files_of(dead, machine.root)
    for path in paths:
        os.chown(path, 65534, 65534)
    assert not found(dead, machine).is_ours
    assert segments.clean(machine) == []
    assert all(path.exists() for path in paths)


def test_a_reused_pid_does_not_keep_a_dead_run(machine: Machine) -> None:
    with waiting_to_die(machine) as (run_id, _):
        overwrite(run_id, "owner_start_ticks", 1, machine)
        assert found(run_id, machine).standing is Standing.DEAD


def test_an_owner_that_only_waits_for_its_parent_is_dead(machine: Machine) -> None:
    with waiting_to_die(machine) as (run_id, process):
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert found(run_id, machine).standing is Standing.DEAD


def test_a_control_segment_without_a_head_is_being_made_and_later_broken(alive: str) -> None:
    overwrite(alive, "magic", 0)
    assert found(alive).standing is Standing.BEING_MADE
    os.utime(f"/dev/shm/rtcore-{alive}-control", (1, 1))
    assert found(alive).standing is Standing.BROKEN
    answer = segments.stale(Machine(), Needs(make_config()))
    assert f"rm /dev/shm/*rtcore-{alive}-*" in answer.fix or answer.fix == "rtcore-doctor --clean"
    segments.clean(Machine())
    assert len(files_of(alive)) == 2


def test_a_run_without_a_control_segment_is_reported_and_stays(alive: str) -> None:
    Path(f"/dev/shm/rtcore-{alive}-control").unlink()
    answer = segments.stale(Machine(), Needs(make_config()))
    assert answer.status is Status.WARN
    assert alive in answer.found
    segments.clean(Machine())
    assert len(files_of(alive)) == 1


def test_live_runs_are_named_with_their_program(alive: str) -> None:
    answer = segments.live(Machine(), Needs(make_config()))
    assert answer.status is Status.WARN
    assert f"{alive} ({Path('/proc/self/comm').read_text().strip()})" in answer.found


# -- trials --------------------------------------------------------------------------------------------------------


def test_a_trial_leaves_this_process_as_it_was() -> None:
    before = (
        os.sched_getscheduler(0),
        Path("/proc/self/timerslack_ns").read_text(),
        Machine().word("/proc/self/status", "VmLck:"),
    )
    Machine().trial("realtime", lock_bytes=1_000_000)
    assert (
        os.sched_getscheduler(0),
        Path("/proc/self/timerslack_ns").read_text(),
        Machine().word("/proc/self/status", "VmLck:"),
    ) == before


def test_what_the_trial_says_is_what_the_kernel_shows() -> None:
    trial = Machine().trial("realtime", lock_bytes=50_000_000)
    # Newer kernels show 0 for a program of a realtime class: it has no slack at all.
    assert trial["timer_slack_ns"] in (0, 1) or trial["report"]["timer slack 1 ns"] != "granted"
    assert trial["fifo"] == (trial["report"]["SCHED_FIFO 20"] == "granted")
    if trial["report"]["mlockall"] == "granted":
        assert trial["locked_bytes"] >= 50_000_000
    else:
        assert trial["locked_bytes"] == 0


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)")
def test_without_rights_the_refusals_are_real_and_warnings_only() -> None:
    prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    prefix = ("prlimit", "--rtprio=0", "--memlock=65536", *prefix)
    told = doctor("--json", prefix=prefix)
    lines = {line["check"]: line for line in json.loads(told.stdout)["checks"]}
    assert lines["kernel.fifo"]["status"] == "warn"
    assert "refused: Operation not permitted" in lines["kernel.fifo"]["found"]
    assert "rtprio" in lines["kernel.fifo"]["fix"]
    assert lines["kernel.memory_lock"]["status"] == "warn"
    assert "memlock" in lines["kernel.memory_lock"]["fix"] or "IPC_LOCK" in lines["kernel.memory_lock"]["fix"]
    assert told.returncode == 0


def test_a_trial_that_crashes_is_told_with_its_last_words() -> None:
    with pytest.raises(ProbeError, match=r"the trial 'realtime': KeyError: 'lock_bytes'"):
        Machine().trial("realtime")


def test_a_world_is_asked_for_its_sizes() -> None:
    config = make_config(env_id="CartPole-v1", fps=50, ring_slots=100, max_workers=4)
    layout = Layout.from_json(Machine().trial("world", config=config.to_jsonable())["layout"])
    assert (layout.frame_bytes, layout.action_bytes, layout.ring_slots, layout.max_workers) == (16, 8, 100, 4)


def test_the_size_told_is_the_size_a_run_takes() -> None:
    config = make_config(
        env_id="CartPole-v1", fps=50, policy="random", workers=2, ring_slots=300, chunk=2, duration=60, live=False
    )
    told = Machine().trial("world", config=config.to_jsonable())
    needs = Needs(config, Layout.from_json(told["layout"]), Layout.from_json(told["traced"]))
    with Runtime(config) as runtime:
        taken = sum(path.stat().st_size for path in files_of(runtime.run_id))
    assert needs.shm_bytes is not None and needs.traced_shm_bytes is not None
    assert needs.shm_bytes == pytest.approx(taken, abs=1024), "the text of what a run says of itself varies a little"
    assert needs.traced_shm_bytes > needs.shm_bytes + 4 * 8192 * 64, "env process, supervisor and two workers"


def test_programs_that_fail_hang_or_are_missing_give_no_answer() -> None:
    with pytest.raises(ProbeError, match="No such file"):
        Machine().run("no-such-program-at-all")
    with pytest.raises(ProbeError, match="sh: told you"):
        Machine().run("sh", "-c", "echo told you >&2; exit 3")
    assert Machine().run("cat", stdin="through") == "through"


# -- the program ---------------------------------------------------------------------------------------------------


def test_json_says_all_and_the_exit_code_follows(doctor_here: Run, alive: str) -> None:
    told = doctor_here("--json", "--env-id", "CartPole-v1", "--fps", "50")
    assert told.stderr == ""
    report: dict[str, Any] = json.loads(told.stdout)
    assert report["schema_version"] == 2
    assert set(report) == {"schema_version", "host", "kernel", "ok", "counts", "needs", "removed", "checks"}
    for line in report["checks"]:
        assert set(line) == {"check", "group", "name", "title", "status", "found", "fix"}
        assert line["found"]
        assert line["status"] in report["counts"]
        assert bool(line["fix"]) == (line["status"] in ("warn", "lacks")), line
    assert sum(report["counts"].values()) == len(report["checks"])
    assert report["needs"]["env_id"] == "CartPole-v1"
    assert report["needs"]["layout"]["frame_bytes"] == 16
    assert told.returncode == (0 if report["ok"] else 1)
    assert alive in next(line["found"] for line in report["checks"] if line["check"] == "shm.live")


def test_a_ring_that_does_not_fit_is_lacking_and_ends_with_1(doctor_here: Run) -> None:
    told = doctor_here("--ring-slots", "100000000", "--env-id", "CartPole-v1", "--fps", "50")
    assert told.returncode == 1
    assert "LACKS" in told.stdout
    assert "rtcore does not run here as configured" in told.stdout


def test_clean_says_what_it_removed(doctor_here: Run) -> None:
    for _ in range(5):  # any run that starts meanwhile, of another test, removes them as well
        dead = left_by_a_dead_program()
        told = doctor_here("--clean", "--env-id", "CartPole-v1", "--fps", "50")
        assert files_of(dead) == []
        if f"removed the shared memory of run {dead}" in told.stdout:
            return
    raise AssertionError(told.stdout)


def test_a_world_that_does_not_exist_ends_with_2(doctor_here: Run) -> None:
    told = doctor_here("--env-id", "NoSuchWorld-v0")
    assert told.returncode == 2
    assert "NoSuchWorld" in told.stderr


def test_what_is_installed_here_fits() -> None:
    """The tests run: so do the requirements that this installation was made with hold."""
    needs = Needs(make_config())
    assert system.platform(Machine(), needs).status is Status.OK
    assert system.packages(Machine(), needs).status is Status.OK
    assert kernel.preemption(Machine(), needs).status in (Status.OK, Status.WARN, Status.UNKNOWN)
