"""What only takes long, or stood still with everybody else, is not taken for a hang."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.support.drills import HEALTHY, freeze, run_to_end, running, thaw, wait_for, wait_until_ticking

pytestmark = pytest.mark.fault

CART_POLE = ("--env-id", "CartPole-v1", "--no-live", "--no-pictures")


@pytest.mark.parametrize("first", [pytest.param("the program", marks=pytest.mark.slow), "its children"])
def test_a_run_that_was_frozen_as_a_whole_goes_on_when_it_thaws(first: str, tmp_path: Path) -> None:
    with running(
        *HEALTHY, "--duration", "8", "--hang-timeout-s", "2.5", "--env-timeout-s", "2.5", "--out", str(tmp_path)
    ) as run:
        wait_until_ticking(run)
        freeze(run)
        time.sleep(3)
        thaw(run, first)
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 0, output
    assert "hung" not in output
    assert json.loads((tmp_path / "summary.json").read_text())["restart_reasons"] == {}


def test_a_run_that_was_frozen_as_a_whole_while_its_world_was_closed_has_closed_it(tmp_path: Path) -> None:
    world = ("--env-id", "tests.support.family_world:make", "--env-args")
    args = f"notes={tmp_path},how_closing=half a second"
    policy = ("--policy", "random", "--workers", "1", "--no-live", "--no-pictures")
    with running(*world, args, *policy, "--ticks", "20", "--env-timeout-s", "1.8") as run:
        wait_for((tmp_path / "closing").exists, "the world to be closed")
        freeze(run)
        time.sleep(2)
        thaw(run, "the program")
        output, _ = run.communicate(timeout=150)
    assert run.returncode == 0, output
    assert (tmp_path / "closed").exists()


def test_inferences_and_ticks_that_are_longer_than_the_timeouts_are_no_hangs() -> None:
    slow = ("--policy", "synthetic", "--policy-args", "latency_ms=1600", "--workers", "1", "--hang-timeout-s", "1.5")
    run = run_to_end(*CART_POLE, *slow, "--fps", "1", "--env-timeout-s", "0.5", "--ticks", "4")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "hung" not in run.stdout + run.stderr


@pytest.mark.slow
def test_updates_that_are_longer_than_the_hang_timeout_are_made_all_the_same(tmp_path: Path) -> None:
    learning = ("--learn", "dqn", "--mode", "infer-then-learn", "--stagger", "sequential", "--workers", "1")
    settings = ("--learning-starts", "5", "--batch-size", "8", "--hang-timeout-s", "1", "--duration", "6")
    run = run_to_end(
        *CART_POLE,
        "--policy",
        "tests.support.bad_policies:slow_to_learn",
        *learning,
        *settings,
        "--fps",
        "50",
        "--out",
        str(tmp_path),
    )
    assert run.returncode == 0, run.stdout + run.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["learner"]["updates"] >= 1
    assert summary["restart_reasons"] == {}
