"""kill -9 of each role: what is lost is counted, what is left goes on or ends, and nothing stays behind."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest

import rtcore
from tests.support.drills import (
    HEALTHY,
    children_by_name,
    kill,
    running,
    wait_for,
    wait_until_ticking,
)

pytestmark = pytest.mark.fault


def test_a_killed_worker_is_replaced_and_everything_about_it_is_counted(tmp_path: Path) -> None:
    arguments = [word if word != "60" or HEALTHY[index - 1] == "--fps" else "6" for index, word in enumerate(HEALTHY)]
    with running(*arguments, "--out", str(tmp_path)) as run:
        victim = wait_until_ticking(run)["rt-worker1"]
        time.sleep(1)
        kill(victim)
        wait_for(lambda: children_by_name(run).get("rt-worker1", victim).pid != victim.pid, "the worker to come back")
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 0, output
    assert f"worker 1 (pid {victim.pid}) is down: killed by SIGKILL" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [worker["restarts"] for worker in summary["workers"]] == [0, 1, 0, 0]
    assert summary["actions"]["outcomes"]["dropped_dead_worker"] <= 1
    assert sum(summary["actions"]["outcomes"].values()) == summary["actions"]["jobs"]
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 360
    with (tmp_path / "jobs.csv").open() as file:
        workers = [int(row["worker"]) for row in csv.DictReader(file)]
    assert 1 in workers[-12:], "the worker never worked again"


def test_a_stopped_worker_is_a_hang_and_is_replaced() -> None:
    with running(*HEALTHY, "--hang-timeout-s", "1") as run:
        victim = wait_until_ticking(run)["rt-worker2"]
        os.kill(victim.pid, signal.SIGSTOP)
        wait_for(lambda: children_by_name(run).get("rt-worker2", victim).pid != victim.pid, "the worker to be replaced")
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=60)
    assert "hung: silent for" in output
    assert run.returncode == 128 + signal.SIGINT


def test_a_killed_env_process_ends_the_run_with_its_name() -> None:
    with running(*HEALTHY) as run:
        processes = wait_until_ticking(run)
        kill(processes["rt-env"])
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "env 0" in output
    assert "SIGKILL" in output
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
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "LauncherDied" in output
    assert_gone(processes)


def test_a_worker_that_always_dies_ends_the_run_once_its_restarts_are_used_up() -> None:
    with running(*HEALTHY, "--max-restarts", "0") as run:
        kill(wait_until_ticking(run)["rt-worker3"])
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "worker 3" in output
    assert "SIGKILL" in output


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_run_ends_it_with_its_summary(signum: signal.Signals, tmp_path: Path) -> None:
    with running(*HEALTHY, "--out", str(tmp_path)) as run:
        processes = wait_until_ticking(run)
        time.sleep(0.5)
        run.send_signal(signum)
        output, _ = run.communicate(timeout=60)
    assert run.returncode == 128 + signum, output
    assert "cleaned up" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["stopped_by"] == signum.name
    assert summary["ticks"]["count"] > 0
    assert summary["leftover_shared_memory"] == []
    assert_gone(processes)


@pytest.mark.parametrize("delay_s", [0.1, 0.6, 1.2, 1.8, 2.4, 3.0, 3.6])
def test_ctrl_c_during_start_up_leaves_nothing_behind(delay_s: float) -> None:
    with running(*HEALTHY) as run:
        time.sleep(delay_s)
        processes = children_by_name(run)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=60)
        assert run.returncode != 0, output
    assert_gone(processes)


def assert_gone(processes: dict[str, psutil.Process]) -> None:
    wait_for(lambda: not any(process.is_running() for process in processes.values()), "every process to end")


def test_a_killed_worker_that_carries_a_state_takes_nothing_with_it() -> None:
    """The policy refuses a state that is not whole, or of another episode or tick than its context says."""
    args = {"env_id": "tests.support.virtual_worlds:Signs", "env_args": {"episode_ticks": 40}}
    policy = "tests.unit.virtual.test_what_policies_carry:Chained"
    with rtcore.Runtime(**args, policy=policy, workers=2, ticks=500) as runtime:
        first = runtime.worker_pids[1]
        os.kill(first, signal.SIGKILL)
        runtime.wait()
    summary = runtime.summary()
    assert [worker["restarts"] for worker in summary["workers"]] == [0, 1]
    assert summary["actions"]["outcomes"]["on_time"] > 200


def test_while_a_killed_head_is_away_the_trunks_actions_act(tmp_path: Path) -> None:
    args = {"policy": "two-speed", "policy_args": {"pad_ms": 40}, "workers": 4, "duration": 9, "out": tmp_path}
    with rtcore.Runtime(env_id="rtcore/Blocks-v0", **args) as runtime:
        place = runtime.header["policy"]["head"]
        first = runtime.worker_pids[place]
        wait_for(lambda: runtime.stats().counters["features_used"] > 20, "the head to act")
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: runtime.worker_pids.get(place, first) != first, "the head to come back")
        runtime.wait()
    with (tmp_path / "actions.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["kind"] == "acted"]
    who = "".join("h" if int(row["worker"]) == place else "t" for row in rows)
    assert re.search("ht{5,}.*h", who), who
