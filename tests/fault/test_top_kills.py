"""Kill the watched, kill the watcher: the one says that the run is over, the other is not missed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import rtcore
from rtcore.cli import top
from rtcore.memory.segments import files_of, unlink_all
from rtcore.watch.attached import RunState
from rtcore.watch.visible import list_runs
from tests.support.drills import HEALTHY, kill_all, run_id_of, running, started, wait_for, wait_until_ticking

pytestmark = [pytest.mark.fault, pytest.mark.slow]

TOP = [sys.executable, "-m", "rtcore.cli.top"]


@contextmanager
def watching(run_id: str) -> Iterator[subprocess.Popen[str]]:
    """rtcore-top, once it has shown something."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with started(*TOP, run_id, "--interval", "0.2", env=environment) as process:
        assert process.stdout is not None
        assert any("acted" in line for line in process.stdout), f"it ended with {process.wait()} and showed nothing"
        yield process


def last_line_of(watcher: subprocess.Popen[str]) -> str:
    output, _ = watcher.communicate(timeout=150)
    assert watcher.returncode == 0
    return output.splitlines()[-1]


def test_a_watched_program_that_is_killed_is_a_run_that_is_over():
    with running(*HEALTHY) as program:
        wait_until_ticking(program)
        run_id = run_id_of(program)
        with watching(run_id) as watcher:
            program.kill()
            assert last_line_of(watcher).startswith("run over: ")
        wait_for(lambda: files_of(run_id) == [], "the fork server to remove the run")


def test_a_run_that_was_killed_with_its_fork_server_is_a_dead_owner(capsys):
    for _ in range(5):  # any run that starts on this machine, of another test too, removes what a dead one left
        with running(*HEALTHY) as program:
            wait_until_ticking(program)
            run_id = run_id_of(program)
            with watching(run_id) as watcher:
                kill_all(program)
                rows = [row for row in list_runs() if row.run_id == run_id]
                exitcode, said = top.run([run_id]), capsys.readouterr().err
                ended = last_line_of(watcher)
            unlink_all(run_id)
        if rows and f"run {run_id} is dead" in said:
            break
    assert [row.state for row in rows] == [RunState.DEAD_OWNER], said
    assert rows[0].ticks > 0
    assert f"run {run_id} is dead" in said
    assert exitcode == 1
    assert ended == f"run over: its program (pid {program.pid}) was killed"


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM])
def test_a_watcher_that_is_killed_or_stopped_is_not_missed(signum):
    fields = {"env_id": "CartPole-v1", "fps": "60", "policy": "synthetic", "policy_args": {"latency_ms": 50}}
    with rtcore.Runtime(**fields, workers=4, duration=600) as runtime, watching(runtime.run_id) as watcher:
        watcher.send_signal(signum)
        ticks = runtime.stats().counters["ticks"]
        wait_for(lambda: runtime.stats().counters["ticks"] > ticks + 30, "ticks after the watcher's end")
        runtime.stop()
        assert runtime.wait(150)
        if signum == signal.SIGTERM:
            assert watcher.wait(150) == 128 + signum
    summary = runtime.summary()
    assert summary["leftover_shared_memory"] == []
    assert sum(worker["restarts"] for worker in summary["workers"]) == 0
