"""Learners that die, hang, or meet an infinity; everything killed at once: ticks go on, and nothing learned is lost."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rtcore.learn.checkpoint import load_state
from tests.support.drills import (
    COMMAND,
    HERE,
    SHM,
    children_by_name,
    kill,
    run_to_end,
    running,
    segments,
    wait_for,
    wait_until_ticking,
)

pytestmark = [pytest.mark.fault, pytest.mark.slow]

LEARNING = (
    *(
        "--env-id",
        "tests.support.learnable:bandit",
        "--policy",
        "mlp",
        "--workers",
        "2",
        "--learn",
        "dqn",
        "--no-live",
        "--no-pictures",
    ),
    *("--learning-starts", "50", "--learner-nice", "0"),
)


def summary_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "summary.json").read_text()))


def wait_for_checkpoint(folder: Path) -> int:
    """Until there is one; the updates it was made after."""
    wait_for((folder / "checkpoints" / "last" / "state.json").exists, "a checkpoint")
    return int(load_state(folder).state["updates"])


def test_a_learner_that_is_killed_over_and_over_comes_back_and_goes_on_and_no_tick_is_lost(tmp_path: Path) -> None:
    with running(*LEARNING, "--duration", "12", "--learners", "2", "--out", str(tmp_path)) as run:
        victims = [wait_until_ticking(run)["rt-learner0"]]
        time.sleep(1.5)
        for _ in range(3):
            kill(victims[-1])
            known = {victim.pid for victim in victims}
            wait_for(
                lambda known=known: children_by_name(run).get("rt-learner0", victims[0]).pid not in known,
                "the learner to come back",
            )
            victims.append(children_by_name(run)["rt-learner0"])
            time.sleep(1)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 0, output
    assert f"learner 0 (pid {victims[0].pid}) is down: killed by SIGKILL" in output
    summary = summary_of(tmp_path)
    learner = summary["learner"]
    assert learner["restarts"] == 3
    assert learner["restart_reasons"] == {"killed by SIGKILL": 3}
    assert [place["restarts"] for place in learner["places"]] == [3, 0]
    # Updates are counted once by the master, and once by whoever made them: one may have died in between.
    assert 0 <= learner["updates"] - sum(place["updates"] for place in learner["places"]) <= 3
    assert learner["places"][0]["updates"] > 0
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 2400
    saved = load_state(tmp_path)
    assert saved.state["updates"] == learner["updates"]


def test_a_learner_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running(*LEARNING, "--duration", "60", "--hang-timeout-s", "1", "--out", str(tmp_path)) as run:
        victim = wait_until_ticking(run)["rt-learner0"]
        time.sleep(2)
        os.kill(victim.pid, signal.SIGSTOP)
        wait_for(
            lambda: children_by_name(run).get("rt-learner0", victim).pid != victim.pid, "the learner to be replaced"
        )
        time.sleep(2)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=150)
    assert "hung: silent for" in output
    assert run.returncode == 128 + signal.SIGINT
    assert summary_of(tmp_path)["learner"]["restarts"] == 1
    assert load_state(tmp_path).state["updates"] > 0, "a run that is stopped leaves its last checkpoint"


def test_a_learner_that_hangs_with_the_master_locked_does_not_keep_the_last_checkpoint_from_being_written(
    tmp_path: Path,
) -> None:
    arguments = (*LEARNING, "--duration", "600", "--hang-timeout-s", "600", "--checkpoint-every-s", "600")
    with running(*arguments, "--out", str(tmp_path)) as run:
        victim = wait_until_ticking(run)["rt-learner0"]
        name = next(name for name in segments(run.pid) if name.endswith("-learner"))
        time.sleep(2)
        wait_for(lambda: stopped_with_the_lock(victim, SHM / name), "it to be stopped in the middle of an update")
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 128 + signal.SIGINT, output
    assert load_state(tmp_path).state["updates"] == summary_of(tmp_path)["learner"]["updates"] > 0


def stopped_with_the_lock(victim: psutil.Process, segment: Path) -> bool:
    """Stop it. If it does not hold the master's lock, it goes on."""
    victim.send_signal(signal.SIGSTOP)
    wait_for(lambda: victim.status() == psutil.STATUS_STOPPED, "it to stop")
    with segment.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    victim.send_signal(signal.SIGCONT)
    return False


def test_a_learner_that_always_dies_ends_the_run_and_what_was_learned_is_kept(tmp_path: Path) -> None:
    arguments = (*LEARNING, "--duration", "60", "--max-restarts", "0", "--checkpoint-every-s", "1")
    with running(*arguments, "--out", str(tmp_path)) as run:
        processes = wait_until_ticking(run)
        wait_for_checkpoint(tmp_path)
        kill(processes["rt-learner0"])
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 1
    assert "learner 0" in output
    assert "SIGKILL" in output
    assert load_state(tmp_path).state["updates"] > 0


def test_everything_is_killed_and_the_resumed_run_has_the_counters_of_the_last_checkpoint(tmp_path: Path) -> None:
    arguments = (*LEARNING, "--checkpoint-every-s", "1", "--out", str(tmp_path))
    with running(*arguments, "--duration", "60") as run:
        processes = wait_until_ticking(run)
        wait_for_checkpoint(tmp_path)
        time.sleep(2)
        for victim in (psutil.Process(run.pid), *processes.values()):
            victim.send_signal(signal.SIGKILL)
        run.communicate(timeout=150)
        # With the fork server killed too nobody removes the segments: the next run does.
        saved = load_state(tmp_path)
        finished = run_to_end_after_a_crash(*arguments, "--duration", "4", "--resume", str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    summary, again = summary_of(tmp_path), load_state(tmp_path)
    assert summary["learner"]["updates"] == again.state["updates"] > saved.state["updates"]
    assert again.state["ticks"] == saved.state["ticks"] + 800
    assert again.state["episodes"] == saved.state["episodes"] + summary["episodes"]["count"]


def run_to_end_after_a_crash(*arguments: str) -> Any:
    return subprocess.run([*COMMAND, *arguments], cwd=HERE, capture_output=True, text=True, timeout=120, check=False)


def test_a_loss_that_is_not_finite_stops_learning_says_so_once_and_the_last_good_weights_play_on(
    tmp_path: Path,
) -> None:
    finished = run_to_end(
        *LEARNING,
        "--duration",
        "6",
        "--env-args",
        "too_much_after_steps=400",
        "--learners",
        "2",
        "--out",
        str(tmp_path),
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    said = [line for line in (finished.stdout + finished.stderr).splitlines() if "stopped learning" in line]
    assert len(said) == 1
    assert "loss was inf at update" in said[0]
    summary = summary_of(tmp_path)
    learner = summary["learner"]
    assert learner["stopped"].startswith("loss was inf at update")
    assert learner["updates"] > 0
    assert {place["state"] for place in learner["places"]} == {"stopped"}, "nobody publishes any more"
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 1200, "the run goes to its end"
    weights = load_state(tmp_path).weights
    assert all(np.isfinite(array).all() for array in weights.values()), "none of it got into what is kept"


def test_a_full_disk_leaves_the_old_checkpoint_and_the_run_goes_on(tmp_path: Path) -> None:
    """A folder of its own file system, too small for a second checkpoint."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=320k", "tmpfs", str(small)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    out = tmp_path / "run"
    out.mkdir()
    (out / "checkpoints").symlink_to(small)
    try:
        finished = run_to_end(*LEARNING, "--duration", "8", "--checkpoint-every-s", "1", "--out", str(out))
        assert finished.returncode == 0, finished.stdout + finished.stderr
        warnings = [line for line in finished.stdout.splitlines() if "could not be written" in line]
        learner = summary_of(out)["learner"]
        assert learner["failed_checkpoints"] >= 1
        assert len(warnings) >= 1
        assert learner["checkpoints"] >= 1
        assert load_state(out).state["updates"] > 0
    finally:
        subprocess.run(["umount", str(small)], check=True)
