"""kill -9 of each role: what is lost is counted, what is left goes on or ends, and nothing stays behind."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import rtcore
from rtcore.errors import WorkerDied
from tests.support.drills import (
    HEALTHY,
    children_by_name,
    kill,
    rows_in,
    running,
    segments,
    stopped,
    wait_for,
    wait_for_answers,
    wait_until_ticking,
)
from tests.support.recorded_runs import played_again

pytestmark = pytest.mark.fault


#: As HEALTHY, in the test's own process.
FIELDS: dict[str, Any] = {
    **{"env_id": "CartPole-v1", "fps": 60, "policy": "synthetic", "policy_args": {"latency_ms": 50}},
    **{"workers": 4, "duration": 600},
}


def test_a_killed_worker_is_replaced_everything_about_it_is_counted_and_the_run_is_the_same_again(
    tmp_path: Path, said: list[str]
) -> None:
    with rtcore.Runtime(**FIELDS, record=True, out=tmp_path) as runtime:
        wait_for_answers(runtime, 1)
        victim = runtime.worker_pids[1]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: runtime.worker_pids.get(1, victim) != victim, "the worker to come back")
        wait_for_answers(runtime, 1)
        runtime.stop()
        assert runtime.wait(150)
    assert any(f"worker 1 (pid {victim}) is down: killed by SIGKILL" in line for line in said)
    summary = runtime.summary()
    assert [worker["restarts"] for worker in summary["workers"]] == [0, 1, 0, 0]
    # None, if it was killed between two jobs.
    assert summary["actions"]["outcomes"]["dropped_dead_worker"] <= 1
    assert sum(summary["actions"]["outcomes"].values()) == summary["actions"]["jobs"]
    assert summary["books"]["agree"], summary["books"]
    report = played_again(tmp_path)
    assert report.is_identical, report.first
    assert (report.ticks, report.jobs) == (summary["ticks"]["count"], summary["actions"]["jobs"])
    assert report.notes == []


def test_a_stopped_worker_is_a_hang_and_is_replaced(said: list[str]) -> None:
    with rtcore.Runtime(**FIELDS, hang_timeout_s=1) as runtime:
        victim = runtime.worker_pids[2]
        os.kill(victim, signal.SIGSTOP)
        wait_for(lambda: runtime.worker_pids.get(2, victim) != victim, "the worker to be replaced")
    assert any(f"worker 2 (pid {victim}) is down: hung: silent for" in line for line in said), said


def test_a_killed_env_process_ends_the_run_with_its_name() -> None:
    with pytest.raises(WorkerDied, match=r"env 0 .*SIGKILL"), rtcore.Runtime(**FIELDS) as runtime:
        processes = {f"worker {index}": psutil.Process(pid) for index, pid in runtime.worker_pids.items()}
        processes["env"] = psutil.Process(runtime.env_pid)
        os.kill(runtime.env_pid, signal.SIGKILL)
        runtime.wait(150)
    assert runtime.summary()["leftover_shared_memory"] == []
    assert_gone(processes)


def test_when_the_parent_is_killed_everything_goes_with_it() -> None:
    with running(*HEALTHY) as run:
        processes = wait_until_ticking(run)
        run.kill()
        run.wait()
        wait_for(lambda: not any(process.is_running() for process in processes.values()), "the children to end")


def test_a_killed_fork_server_ends_the_run_with_its_name() -> None:
    with running(*HEALTHY) as run:
        processes = wait_until_ticking(run)
        kill(processes["forkserver"])
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 1
    assert "LauncherDied" in output
    assert_gone(processes)


def test_a_worker_that_always_dies_ends_the_run_once_its_restarts_are_used_up() -> None:
    with pytest.raises(WorkerDied, match="worker 3 .*SIGKILL"), rtcore.Runtime(**FIELDS, max_restarts=0) as runtime:
        os.kill(runtime.worker_pids[3], signal.SIGKILL)
        runtime.wait(150)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_run_ends_it_with_its_summary(signum: signal.Signals, tmp_path: Path) -> None:
    with running(*HEALTHY, "--out", str(tmp_path)) as run:
        processes = wait_until_ticking(run)
        wait_for(lambda: rows_in(tmp_path / "actions.csv") > 0, "rows")
        run.send_signal(signum)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 128 + signum, output
    assert "cleaned up" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped_by"] == signum.name
    assert summary["ticks"]["count"] > 0
    assert summary["leftover_shared_memory"] == []
    assert_gone(processes)


def imports(run: subprocess.Popen[str]) -> bool:
    """Whether it is at it: numpy is among the first that it needs."""
    return "_multiarray_umath" in Path(f"/proc/{run.pid}/maps").read_text()


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param(lambda run: True, marks=pytest.mark.slow),
        imports,
        pytest.param(lambda run: "forkserver" in children_by_name(run), marks=pytest.mark.slow),
        lambda run: bool(segments(run.pid)),
        pytest.param(lambda run: "rt-env" in children_by_name(run), marks=pytest.mark.slow),
        lambda run: "rt-worker0" in children_by_name(run),
    ],
    ids=["at once", "it imports", "it has a fork server", "it has shared memory", "it has a world", "it has a worker"],
)
def test_ctrl_c_during_start_up_leaves_nothing_behind(moment: Callable[[subprocess.Popen[str]], bool]) -> None:
    with running(*HEALTHY) as run:
        wait_for(lambda: moment(run), "the moment")
        processes = children_by_name(run)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=150)
        assert run.returncode != 0, output
    assert_gone(processes)


def assert_gone(processes: dict[str, psutil.Process]) -> None:
    wait_for(lambda: not any(process.is_running() for process in processes.values()), "every process to end")


def test_a_killed_worker_that_carries_a_state_takes_nothing_with_it() -> None:
    """The policy refuses a state that is not whole, or of another episode or tick than its context says."""
    args = {"env_id": "tests.support.virtual_worlds:Signs", "env_args": {"episode_ticks": 40}}
    policy = "tests.unit.virtual.test_what_policies_carry:Chained"
    with rtcore.Runtime(**args, policy=policy, workers=2, duration=600) as runtime:
        first = runtime.worker_pids[1]
        wait_for_answers(runtime, 1)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: runtime.worker_pids.get(1, first) != first, "the worker to come back")
        wait_for_answers(runtime, 1, 30)
    summary = runtime.summary()
    assert [worker["restarts"] for worker in summary["workers"]] == [0, 1]
    assert summary["actions"]["outcomes"]["on_time"] > 0


def test_while_a_killed_head_is_away_the_trunks_actions_act(tmp_path: Path) -> None:
    args = {"policy": "two-speed", "policy_args": {"pad_ms": 40}, "workers": 4, "duration": 600, "out": tmp_path}
    with rtcore.Runtime(env_id="rtcore/Blocks-v0", **args) as runtime:
        place = runtime.header["policy"]["head"]
        first = runtime.worker_pids[place]

        def count(what: str) -> int:
            return runtime.stats().counters[what]

        wait_for(lambda: count("features_used") > 20, "the head to act")
        assert runtime._supervisor._launcher is not None
        with stopped(runtime._supervisor._launcher._server.process.pid):  # who would start another one
            os.kill(first, signal.SIGKILL)
            before = count("acted")
            wait_for(lambda: count("acted") > before + 10, "the others to act")
        wait_for(lambda: runtime.worker_pids.get(place, first) != first, "the head to come back")
        before = count("features_used")
        wait_for(lambda: count("features_used") > before + 20, "it to act again")
    with (tmp_path / "actions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "acted"]
    who = "".join("h" if int(row["worker"]) == place else "t" for row in rows)
    assert re.search("ht{3,}.*h", who), who
