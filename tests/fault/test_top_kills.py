"""Kill the watched, kill the watcher: the one says that the run is over, the other is not missed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

import rtcore
from rtcore.cli import top
from rtcore.memory.segments import files_of, unlink_all
from rtcore.watch.attached import RunState
from rtcore.watch.visible import list_runs, visible_run_ids
from tests.support import drills

pytestmark = [pytest.mark.fault, pytest.mark.slow]

TOP = [sys.executable, "-m", "rtcore.cli.top"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}


@pytest.fixture
def program() -> Iterator[subprocess.Popen[str]]:
    """A healthy rtcore-run whose ticks have begun."""
    with subprocess.Popen([*drills.COMMAND, *drills.HEALTHY], **PIPES) as process:
        try:
            drills.wait_until_ticking(process)
            yield process
        finally:
            process.kill()
            process.stdout.close()


def run_id_of(process: subprocess.Popen[str]) -> str:
    (run_id,) = [run_id for run_id in visible_run_ids() if run_id.startswith(f"{process.pid}-")]
    return run_id


def watch(run_id: str) -> subprocess.Popen[str]:
    """rtcore-top, once it has shown something."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process: subprocess.Popen[str] = subprocess.Popen([*TOP, run_id, "--interval", "0.2"], env=environment, **PIPES)
    for line in process.stdout or ():
        if "acted" in line:
            return process
    raise AssertionError(f"rtcore-top ended with {process.wait()} before it showed anything")


def test_a_watched_program_that_is_killed_is_a_run_that_is_over(program):
    run_id = run_id_of(program)
    watcher = watch(run_id)
    program.kill()
    output, _ = watcher.communicate(timeout=150)
    assert watcher.returncode == 0
    assert output.splitlines()[-1].startswith("run over: ")
    drills.wait_for(lambda: files_of(run_id) == [], "the fork server to remove the run")


def test_a_run_that_was_killed_with_its_fork_server_is_a_dead_owner(program, capsys):
    run_id = run_id_of(program)
    watcher = watch(run_id)
    children = psutil.Process(program.pid).children(recursive=True)
    try:
        # Stopped first: else one of the two has the time to clean up after the other.
        for process in (psutil.Process(program.pid), *children):
            process.suspend()
        for process in (*children, psutil.Process(program.pid)):
            process.kill()
        program.wait(30)
        # At once: any run that starts on this machine removes what the dead one left.
        (row,) = [row for row in list_runs() if row.run_id == run_id]
        assert top.run([run_id]) == 1
        assert row.state is RunState.DEAD_OWNER
        assert row.ticks > 0
        assert f"run {run_id} is dead" in capsys.readouterr().err
        output, _ = watcher.communicate(timeout=150)
        assert watcher.returncode == 0
        assert output.splitlines()[-1] == f"run over: its program (pid {program.pid}) was killed"
    finally:
        unlink_all(run_id)


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_watcher_that_is_killed_or_stopped_is_not_missed(signum):
    fields = {"env_id": "CartPole-v1", "fps": "60", "policy": "synthetic", "policy_args": {"latency_ms": 50}}
    with rtcore.Runtime(**fields, workers=4, duration=120) as runtime:
        watcher = watch(runtime.run_id)
        watcher.send_signal(signum)
        ticks = runtime.stats().counters["ticks"]
        drills.wait_for(lambda: runtime.stats().counters["ticks"] > ticks + 30, "ticks after the watcher's end")
        runtime.stop()
        assert runtime.wait(150)
    if signum == signal.SIGTERM:
        assert watcher.wait(30) == 128 + signum
    watcher.kill()
    watcher.communicate(timeout=150)
    summary = runtime.summary()
    assert summary["leftover_shared_memory"] == []
    assert sum(worker["restarts"] for worker in summary["workers"]) == 0
