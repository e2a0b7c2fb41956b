"""Learners that die, hang, or meet an infinity; everything killed at once: ticks go on, and nothing learned is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import load_state, read_state
from rtcore.watch.attached import AttachedRun
from tests.support.drills import (
    SHM,
    children_by_name,
    kill,
    kill_all,
    rows_in,
    run_id_of,
    run_to_end,
    running,
    segments,
    stop,
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


def updates_kept(folder: Path) -> int:
    """After how many updates the newest checkpoint was made; 0 if there is none, or it goes just now."""
    with suppress(ConfigError, FileNotFoundError):
        return int(read_state((folder / "checkpoints" / "last").resolve(strict=True))["updates"])
    return 0


def wait_for_updates(run: subprocess.Popen[str]) -> None:
    """Until the first learner has made one more."""
    with AttachedRun.attach(run_id_of(run)) as onlooker:

        def made() -> int:
            onlooker.refresh()
            learner = onlooker.stats().learner if onlooker.has_begun else None
            return int(learner.places[0]["updates"]) if learner is not None else 0

        before = made()
        wait_for(lambda: made() > before, "an update")


def test_a_learner_that_is_killed_over_and_over_comes_back_and_goes_on_and_no_tick_is_lost(tmp_path: Path) -> None:
    with running(*LEARNING, "--duration", "600", "--learners", "2", "--out", str(tmp_path)) as run:
        victims = [wait_until_ticking(run)["rt-learner0"]]
        wait_for_updates(run)
        for _ in range(3):
            kill(victims[-1])
            known = {victim.pid for victim in victims}
            wait_for(
                lambda known=known: children_by_name(run).get("rt-learner0", victims[0]).pid not in known,
                "the learner to come back",
            )
            victims.append(children_by_name(run)["rt-learner0"])
            wait_for_updates(run)
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 128 + signal.SIGINT, output
    assert f"learner 0 (pid {victims[0].pid}) is down: killed by SIGKILL" in output
    summary = summary_of(tmp_path)
    learner = summary["learner"]
    assert learner["restarts"] == 3
    assert learner["restart_reasons"] == {"killed by SIGKILL": 3}
    assert [place["restarts"] for place in learner["places"]] == [3, 0]
    # Updates are counted once by the master, and once by whoever made them: one may have died in between.
    assert 0 <= learner["updates"] - sum(place["updates"] for place in learner["places"]) <= 3
    assert learner["places"][0]["updates"] > 0
    assert summary["ticks"]["count"] == rows_in(tmp_path / "actions.csv")
    assert summary["books"]["agree"], summary["books"]
    saved = load_state(tmp_path)
    assert saved.state["updates"] == learner["updates"]


def test_a_learner_that_hangs_is_replaced(tmp_path: Path) -> None:
    with running(*LEARNING, "--duration", "600", "--hang-timeout-s", "1", "--out", str(tmp_path)) as run:
        victim = wait_until_ticking(run)["rt-learner0"]
        wait_for_updates(run)
        os.kill(victim.pid, signal.SIGSTOP)
        wait_for(
            lambda: children_by_name(run).get("rt-learner0", victim).pid != victim.pid, "the learner to be replaced"
        )
        wait_for_updates(run)
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
        wait_for_updates(run)
        wait_for(lambda: stopped_with_the_lock(victim, SHM / name), "it to be stopped in the middle of an update")
        run.send_signal(signal.SIGINT)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 128 + signal.SIGINT, output
    assert load_state(tmp_path).state["updates"] == summary_of(tmp_path)["learner"]["updates"] > 0


def stopped_with_the_lock(victim: psutil.Process, segment: Path) -> bool:
    """Stop it. If it does not hold the master's lock, it goes on."""
    stop(victim.pid)
    with segment.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    victim.send_signal(signal.SIGCONT)
    return False


def test_a_learner_that_always_dies_ends_the_run_and_what_was_learned_is_kept(tmp_path: Path) -> None:
    arguments = (*LEARNING, "--duration", "600", "--max-restarts", "0", "--checkpoint-every-s", "1")
    with running(*arguments, "--out", str(tmp_path)) as run:
        processes = wait_until_ticking(run)
        wait_for(lambda: updates_kept(tmp_path) > 0, "a checkpoint")
        kill(processes["rt-learner0"])
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 1
    assert "learner 0" in output
    assert "SIGKILL" in output
    assert load_state(tmp_path).state["updates"] > 0


def test_everything_is_killed_and_the_resumed_run_has_the_counters_of_the_last_checkpoint(tmp_path: Path) -> None:
    arguments = (*LEARNING, "--checkpoint-every-s", "1", "--duration", "600", "--out", str(tmp_path))
    with running(*arguments) as run:
        wait_until_ticking(run)
        wait_for(lambda: updates_kept(tmp_path) > 0, "a checkpoint")
        first = updates_kept(tmp_path)
        wait_for(lambda: updates_kept(tmp_path) > first, "another one")
        kill_all(run)
        # With the fork server killed too nobody removes the segments: the next run does.
        saved = load_state(tmp_path)
        with running(*arguments, "--resume", str(tmp_path)) as resumed:
            wait_until_ticking(resumed)
            wait_for_updates(resumed)
            resumed.send_signal(signal.SIGINT)
            output, _ = resumed.communicate(timeout=150)
    assert resumed.returncode == 128 + signal.SIGINT, output
    summary, again = summary_of(tmp_path), load_state(tmp_path)
    ticks = summary["ticks"]
    assert summary["learner"]["updates"] == again.state["updates"] > saved.state["updates"]
    assert again.state["ticks"] == saved.state["ticks"] + ticks["count"] + ticks["skipped"]
    assert again.state["episodes"] == saved.state["episodes"] + summary["episodes"]["count"]


def test_a_loss_that_is_not_finite_stops_learning_says_so_once_and_the_last_good_weights_play_on(
    tmp_path: Path,
) -> None:
    now = tmp_path / "now"
    arguments = (*LEARNING, "--duration", "8", "--env-args", f"too_much_once={now}", "--learners", "2")
    with running(*arguments, "--out", str(tmp_path / "out")) as run:
        wait_until_ticking(run)
        wait_for_updates(run)
        now.touch()
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 1, output
    said = [line for line in output.splitlines() if "stopped learning" in line]
    assert len(said) == 1
    assert "loss was inf at update" in said[0]
    summary = summary_of(tmp_path / "out")
    learner = summary["learner"]
    assert learner["stopped"].startswith("loss was inf at update")
    assert learner["updates"] > 0
    assert {place["state"] for place in learner["places"]} == {"stopped"}, "nobody publishes any more"
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 1600, "the run goes to its end"
    weights = load_state(tmp_path / "out").weights
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
        assert finished.returncode == 1, "what was learned last is nowhere\n" + finished.stdout + finished.stderr
        learner, ticks = summary_of(out)["learner"], summary_of(out)["ticks"]
        assert ticks["count"] + ticks["skipped"] == 8 * ticks["ideal_hz"], "the run goes to its end"
        assert learner["failed_checkpoints"] >= 1
        assert os.strerror(errno.ENOSPC) in learner["lost_checkpoint"]
        assert f"the last checkpoint could not be written: {learner['lost_checkpoint']}" in finished.stdout
        assert learner["checkpoints"] >= 1
        assert load_state(out).state["updates"] > 0
    finally:
        subprocess.run(["umount", str(small)], check=True)
