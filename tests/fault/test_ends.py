"""However a run ends, it ends: its error reaches the caller, its processes are gone, and its counts are whole."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import rtcore
from rtcore.errors import ConfigError, PolicyError, RecordError, RtcoreError
from rtcore.learn.checkpoint import load_state
from rtcore.memory.segments import files_of
from rtcore.memory.shared import SharedRun
from tests.support.drills import (
    HEALTHY,
    Run,
    rows_in,
    run_id_of,
    running,
    stop,
    stopped,
    wait_for,
    wait_for_answers,
    wait_until_ticking,
)

pytestmark = pytest.mark.fault

SLOW = {
    "env_id": "tests.support.bad_worlds:slow_reset",
    "policy": "synthetic",
    "policy_args": {"latency_ms": 50},
    "workers": 4,
}


def nothing_is_left_of(runtime: rtcore.Runtime, pids: list[int]) -> None:
    assert runtime.is_over
    assert files_of(runtime.run_id) == []
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids), "every process to end")


def pids_of(runtime: rtcore.Runtime) -> list[int]:
    return [runtime.env_pid, *runtime.worker_pids.values()]


def test_a_full_disk_ends_the_run_with_an_error_that_names_the_folder(tmp_path: Path) -> None:
    (tmp_path / "actions.csv").symlink_to("/dev/full")
    runtime = rtcore.Runtime(**SLOW, out=tmp_path, duration=600)
    pids: list[int] = []
    with pytest.raises(RecordError, match=f"{tmp_path} cannot be written: No space left on device"), runtime:
        pids = pids_of(runtime)
        runtime.wait(100)
    nothing_is_left_of(runtime, pids)


@pytest.mark.parametrize("out", ["a file/run", "a file"])
def test_a_folder_that_cannot_be_made_is_a_wrong_setting_and_starts_nothing(out: str, tmp_path: Path) -> None:
    (tmp_path / "a file").touch()
    runtime = rtcore.Runtime(**SLOW, out=tmp_path / out, duration=5)
    with pytest.raises(ConfigError, match="out: cannot make"), runtime:
        pass
    nothing_is_left_of(runtime, [])


def test_a_run_that_is_stopped_before_its_first_tick_is_over_soon() -> None:
    with rtcore.Runtime(**SLOW, duration=600) as runtime:
        pids = pids_of(runtime)
        runtime.stop()
        assert runtime.wait(150)
    nothing_is_left_of(runtime, pids)


def test_a_stop_that_is_ordered_before_the_env_process_has_heard_of_the_run_ends_it_too() -> None:
    """As if the env process had been away meanwhile: it is, by SIGSTOP."""
    runtime = rtcore.Runtime(**SLOW, duration=600)
    supervisor = runtime._supervisor
    order = supervisor._order

    def order_run_and_stop(phase: Any) -> int:
        if phase.name != "RUN":
            return order(phase)
        with stopped(supervisor.env_pid):
            number = order(phase)
            supervisor.request_stop()
        supervisor.shared.env_status["epoch_ns"] = -1  # it never begins; the start waits for it to
        return number

    supervisor._order = order_run_and_stop  # type: ignore[method-assign]
    with runtime:
        assert runtime.wait(150)
    assert runtime.is_over


def test_the_world_is_closed_when_the_policy_fails(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    fields: dict[str, Any] = SLOW | {
        "policy": "tests.support.bad_policies:breaks_later",
        "policy_args": {"pad_ms": 30},
        "workers": 2,
    }
    runtime = rtcore.Runtime(**fields, env_args={"closed": str(closed)}, duration=600)
    with pytest.raises(PolicyError, match="this policy has had enough"), runtime:
        runtime.wait(100)
    assert closed.exists(), "killed instead of being told to stop"


@pytest.mark.slow
def test_a_world_that_takes_its_time_to_reset_does_not_make_its_workers_look_hung() -> None:
    with rtcore.Runtime(**SLOW, env_args={"reset_s": 2.5}, hang_timeout_s=2.0, duration=600) as runtime:
        wait_for(lambda: runtime.summary()["ticks"]["kinds"]["reset"] >= 3, "resets")
    summary = runtime.summary()
    assert summary["ticks"]["kinds"]["reset"] >= 2
    assert [worker["restarts"] for worker in summary["workers"]] == [0, 0, 0, 0]


@pytest.mark.slow
def test_the_counts_of_a_worker_that_was_restarted_go_on(tmp_path: Path) -> None:
    with rtcore.Runtime(**SLOW, duration=600, out=tmp_path) as runtime:
        wait_for_answers(runtime, 1, 20)
        os.kill(runtime.worker_pids[1], signal.SIGKILL)
        wait_for(lambda: runtime.stats().workers[1].restarts == 1 and runtime.stats().num_up == 4, "it to come back")
        wait_for_answers(runtime, 1, 20)
    summary = runtime.summary()
    with (tmp_path / "jobs.csv").open() as file:
        answered = Counter(int(row["worker"]) for row in csv.DictReader(file) if row["write_ns"] != "0")
    worker = summary["workers"][1]
    assert worker["restarts"] == 1
    # An answer that was on its way when the worker or the run ended is in one count and not in the other.
    assert abs(worker["inferences"] - answered[1]) <= 2


def test_ticks_go_on_while_the_program_that_started_the_run_is_stopped() -> None:
    """No tick waits for the supervisor: with the whole program halted, every tick still has its policy action."""
    with running(*HEALTHY) as run:
        processes = wait_until_ticking(run)
        env = processes["rt-env"]
        run_id = run_id_of(run)
        shared = SharedRun.watch(run_id)
        stop(run.pid)
        try:
            before = shared.env_counters.to_dict()
            wait_for(lambda: shared.env_counters["ticks"] >= before["ticks"] + 30, "30 ticks without the program")
            wait_for(lambda: shared.env_counters["acted"] > before["acted"] + 30, "actions without the program")
            assert env.is_running()
        finally:
            run.send_signal(signal.SIGCONT)
            shared.close()


def test_a_full_disk_leaves_the_summary_on_the_screen_and_no_draft(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").symlink_to("/dev/full")
    done = run_here(
        *("--env-id", "tests.support.bad_worlds:slow_reset", "--policy", "synthetic", "--policy-args", "latency_ms=50"),
        *("--workers", "4", "--duration", "6", "--no-live", "--no-pictures", "--out", str(tmp_path)),
    )
    assert done.returncode == 1
    assert "RecordError" in done.stderr
    assert "Traceback" not in done.stderr
    assert "What happened" in done.stdout
    assert not list(tmp_path.glob("*.part"))


def test_a_full_disk_on_the_virtual_clock_is_the_same_error(run_here: Run, tmp_path: Path) -> None:
    (tmp_path / "actions.csv").symlink_to("/dev/full")
    done = run_here(
        *("--env-id", "CartPole-v1", "--policy", "random", "--latency", "constant:20", "--clock", "virtual"),
        *("--ticks", "3000", "--no-live", "--no-pictures", "--out", str(tmp_path)),
    )
    assert done.returncode == 1, done.stderr
    assert "RecordError" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "role",
    [
        "env",
        pytest.param("worker", marks=pytest.mark.slow),
        "recorder",
        pytest.param("fork server", marks=pytest.mark.slow),
    ],
)
def test_whoever_is_killed_rows_summary_and_recording_agree_or_say_by_how_much_not(
    role: str, tmp_path: Path, said: list[str]
) -> None:
    fields: dict[str, Any] = {
        "env_id": "CartPole-v1",
        "fps": 200,
        "workers": 3,
        "policy": "synthetic",
        "max_restarts": 0,
    }
    runtime = rtcore.Runtime(**fields, policy_args={"latency_ms": 20}, record=True, out=tmp_path, duration=600)
    with suppress(RtcoreError), runtime:
        wait_for_answers(runtime, 0, 20)
        supervisor = runtime._supervisor
        assert supervisor.recording is not None
        assert supervisor._launcher is not None
        victims = {"env": runtime.env_pid, "worker": runtime.worker_pids[0], "recorder": supervisor.recording.pid}
        os.kill(victims.get(role) or supervisor._launcher._server.process.pid, signal.SIGKILL)
        # All but the recorder end the run.
        wait_for(lambda: runtime.wait(0.1) or any("recording stopped" in line for line in said), "it to be noticed")
        runtime.stop()
        runtime.wait()
    summary = runtime.summary()
    books = summary["books"]
    for what in ("ticks", "jobs"):
        with (tmp_path / {"ticks": "actions.csv", "jobs": "jobs.csv"}[what]).open() as file:
            assert books[what]["on_disk"] == books[what]["rows"] == len(list(csv.DictReader(file))) > 0
    assert books["ticks"]["counted"] == summary["ticks"]["count"]
    assert books["jobs"]["counted"] == summary["actions"]["jobs"]
    if role == "worker":
        assert books["reasons"] == []
        assert books["ticks"]["recorded"] == books["ticks"]["counted"]
    if role == "recorder":
        assert any("recording" in reason for reason in books["reasons"])
    assert books["explained"], books["reasons"]
    if books["ticks"]["difference"]:
        assert not books["agree"]


@pytest.mark.slow
def test_a_hangup_ends_a_run_that_learns_like_any_other_signal_with_its_files_and_a_checkpoint(tmp_path: Path) -> None:
    run_is_ended_by(lambda run: run.send_signal(signal.SIGHUP), 128 + signal.SIGHUP, "SIGHUP", tmp_path)


@pytest.mark.slow
def test_a_run_whose_output_nobody_reads_any_more_ends_with_its_files_and_a_checkpoint(tmp_path: Path) -> None:
    def close(run: subprocess.Popen[str]) -> None:
        assert run.stdout is not None
        run.stdout.close()

    run_is_ended_by(close, 128 + signal.SIGPIPE, "SIGPIPE", tmp_path)


def run_is_ended_by(end: Callable[[subprocess.Popen[str]], None], exitcode: int, name: str, out: Path) -> None:
    learning = ("--learn", "dqn", "--learning-starts", "30", "--env-id", "CartPole-v1", "--policy", "mlp")
    with running(
        *learning, "--workers", "2", "--duration", "600", "--no-live", "--no-pictures", "--out", str(out)
    ) as run:
        wait_until_ticking(run)
        wait_for(lambda: rows_in(out / "actions.csv") > 0, "rows")
        # A second import of torch, in the program itself, would take seconds and 200 MB for nothing.
        assert "libtorch" not in Path(f"/proc/{run.pid}/maps").read_text()
        end(run)
        assert run.wait(150) == exitcode
        if run.stdout is not None and run.stdout.closed:
            run.stdout = None
    summary = json.loads((out / "summary.json").read_text())
    assert summary["stopped_by"] == name
    assert summary["books"]["reasons"] == []
    assert summary["leftover_shared_memory"] == []
    assert load_state(out).state["ticks"] == summary["books"]["ticks"]["on_disk"] + summary["ticks"]["skipped"]
