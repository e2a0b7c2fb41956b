"""Learners beside a real run: returns rise, what was learned is kept, played and gone on with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import rtcore
from rtcore.errors import ConfigError, PolicyError, StartupError
from rtcore.learn.checkpoint import load_state, load_weights
from rtcore.report.log import lines_to
from rtcore.results.summary import LearnerStats
from tests.support.learnable import EPISODE_STEPS

pytestmark = pytest.mark.process

FAST: dict[str, Any] = {
    "env_id": "tests.support.learnable:bandit",
    "policy": "mlp",
    "workers": 2,
    "learn": "dqn",
    "learning_starts": 100,
    "target_every": 50,
    "epsilon_ticks": 400,
    "learner_nice": 0,
    "gamma": 0.9,
}


def learn(out: Path | None, **fields: Any) -> dict[str, Any]:
    lines: list[str] = []
    with lines_to(lines.append), rtcore.Runtime(out=out, **{**FAST, **fields}) as runtime:
        runtime.wait()
    return runtime.summary() | {"lines": lines}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param({"learners": 2, "double_dqn": True, "n_step": 3}, marks=pytest.mark.slow),
        pytest.param({"mode": "infer-then-learn", "stagger": "sequential", "workers": 1}, marks=pytest.mark.slow),
        pytest.param({"mode": "learn-then-infer", "stagger": "sequential", "workers": 1}, marks=pytest.mark.slow),
        pytest.param({"obs_history": 1, "act_history": 2}, marks=pytest.mark.slow),
    ],
    ids=["async", "two-learners", "infer-then-learn", "learn-then-infer", "histories"],
)
@pytest.mark.timeout(600)
def test_returns_rise_and_what_was_learned_is_kept_with_what_it_is_of(fields: dict[str, Any], tmp_path: Path) -> None:
    with rtcore.Runtime(**{**FAST, "ticks": 10**6, "seed": 7, "out": tmp_path, **fields}) as runtime:
        # A learner steps back where ticks are late: how long this takes is the machine's doing.
        while not has_risen(runtime.summary()):
            assert not runtime.wait(0.2), "the run ended"
        runtime.stop()
        runtime.wait()
    summary = runtime.summary()
    learner = summary["learner"]
    assert learner["stopped"] == ""
    assert learner["version"] > 1
    assert np.mean(summary["episodes"]["returns"][:10]) < 11, "at first it acts at random"
    assert summary["leftover_shared_memory"] == []
    state = load_state(tmp_path).state
    assert state["updates"] == learner["updates"] > 0
    assert state["seed"] == 7
    assert state["world"]["env_id"] == "tests.support.learnable:bandit"
    assert state["world"]["action"]["kind"] == "discrete"
    assert state["policy"]["policy"] == "mlp"
    assert state["config"]["learn"] == "dqn"


def has_risen(summary: dict[str, Any]) -> bool:
    """A tick without an action pays nothing: how many there are is the machine's doing, most of all where one process
    acts and learns in turn.
    """
    returns = summary["episodes"]["returns"]
    if len(returns) < 40:
        return False
    best = EPISODE_STEPS * summary["actions"]["acted_fraction_of_all_ticks"]
    return bool(np.mean(returns[-20:]) > max(0.6 * best, 1.5 * np.mean(returns[:10])))


@pytest.mark.slow
def test_a_run_goes_on_where_the_last_one_stopped_and_its_weights_are_played(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with rtcore.Runtime(
        **FAST | {"out": out, "ticks": 10**6, "checkpoint_every_s": 0.5, "keep_checkpoints": 2}
    ) as runtime:
        wait_for(runtime, lambda learner: learner.checkpoints >= 3 and has_risen(runtime.summary()))
        runtime.stop()
        runtime.wait()
    first, saved = runtime.summary(), load_state(out)
    ticks = first["ticks"]["count"] + first["ticks"]["skipped"]
    assert saved.state["updates"] == first["learner"]["updates"] > 100
    assert saved.state["ticks"] == ticks
    assert saved.state["episodes"] == first["episodes"]["count"]
    kept = {path.name for path in (out / "checkpoints").iterdir() if not path.is_symlink()}
    assert 2 <= len(kept) <= 3

    second = learn(out, ticks=300, resume=out, epsilon_ticks=100_000)
    again = load_state(out)
    assert again.state["updates"] == second["learner"]["updates"] > saved.state["updates"]
    assert again.state["ticks"] == ticks + 300
    assert again.state["episodes"] == first["episodes"]["count"] + second["episodes"]["count"]
    assert second["learner"]["epsilon"] == pytest.approx(1 - 0.95 * (ticks + 300) / 100_000, abs=1e-3)

    played = learn(None, ticks=600, learn=None, policy_checkpoint=out)
    assert "learner" not in played
    best = EPISODE_STEPS * played["actions"]["acted_fraction_of_all_ticks"]
    assert np.mean(played["episodes"]["returns"][3:]) > 0.85 * best

    fresh = learn(out, ticks=100, learning_starts=2000)
    assert fresh["learner"]["updates"] == 0
    assert any("checkpoints of an earlier run are now in" in line for line in fresh["lines"])
    assert load_state(out / "checkpoints-1").state["ticks"] == ticks + 300
    assert load_weights(out).keys() == again.weights.keys()


@pytest.mark.slow
def test_a_cap_on_updates_is_kept() -> None:
    with rtcore.Runtime(**FAST | {"ticks": 10**6, "updates_per_tick": 0.1}) as runtime:
        wait_for(runtime, lambda learner: learner.updates > 90)
        runtime.stop()
        runtime.wait()
    ticks = runtime.summary()["ticks"]
    assert runtime.summary()["learner"]["updates"] <= 0.1 * (ticks["count"] + ticks["skipped"]) + 30


# -- what cannot be learned is said before anything plays -----------------------------------------------------------


def test_a_world_without_discrete_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected Discrete"):
        learn(None, env_id="tests.support.worlds:checking", env_args={"space": "box"}, ticks=10)


@pytest.mark.slow
def test_the_checkpoint_of_another_network_or_world_is_refused(tmp_path: Path) -> None:
    learn(tmp_path, ticks=200)
    with pytest.raises(PolicyError, match="expected"):
        learn(None, ticks=10, resume=tmp_path, policy_args={"hidden": 7})
    with pytest.raises(ConfigError, match="was trained on tests.support.learnable:bandit"):
        learn(None, ticks=10, resume=tmp_path, env_id="CartPole-v1")
    with pytest.raises(ConfigError, match="there is no"):
        learn(None, ticks=10, resume=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is no"):
        learn(None, ticks=10, learn=None, policy_checkpoint=tmp_path / "nowhere")


def test_a_worker_that_learns_in_turn_makes_no_update_after_the_one_that_the_last_checkpoint_holds(
    tmp_path: Path,
) -> None:
    # An update of this takes longer than a tick, so that the run ends in the middle of one.
    slow = {"policy_args": {"hidden": 1024}, "batch_size": 256, "mode": "infer-then-learn", "stagger": "sequential"}
    with rtcore.Runtime(
        **{**FAST, **slow, "ticks": 10**6, "workers": 1, "learning_starts": 50, "out": tmp_path}
    ) as runtime:
        wait_for(runtime, lambda learner: learner.updates > 0)
        runtime.stop()
        runtime.wait()
    assert load_state(tmp_path).state["updates"] == runtime.summary()["learner"]["updates"] > 0


# The last ones: while its run is under way, another would have to import all that it needs anew.
@pytest.fixture(scope="module")
def learning() -> Iterator[tuple[rtcore.Runtime, list[str]]]:
    """A run that learns as long as it is asked to, and what it has said."""
    lines: list[str] = []
    fields = {**FAST, "ticks": 10**7, "updates_per_tick": None, "learner_nice": 5}
    with lines_to(lines.append), rtcore.Runtime(**fields) as runtime:
        wait_for(runtime, lambda learner: learner.updates > 5)
        yield runtime, lines


def test_paused_learners_collect_but_make_no_update_until_they_may(learning: tuple[rtcore.Runtime, list[str]]) -> None:
    runtime, lines = learning
    assert any("no checkpoints are kept" in line for line in lines)
    runtime.pause_learning()
    # Between two updates it collects: once it has, the update that was under way is over.
    paused = learner_of(runtime)
    wait_for(runtime, lambda learner: learner.transitions > paused.transitions)
    before = learner_of(runtime)
    wait_for(runtime, lambda learner: learner.transitions > before.transitions + 50)
    during = learner_of(runtime)
    assert during.updates == before.updates
    runtime.pause_learning(False)
    wait_for(runtime, lambda learner: learner.updates > during.updates)


def learner_of(runtime: rtcore.Runtime) -> LearnerStats:
    learner = runtime.stats().learner
    assert learner is not None
    return learner


def wait_for(runtime: rtcore.Runtime, done: Callable[[LearnerStats], bool]) -> None:
    """The test's own time limit ends it if that never comes."""
    while not done(learner_of(runtime)):
        assert not runtime.wait(0.05), "the run ended"


def test_learning_is_paused_in_a_run_and_not_before_it() -> None:
    with pytest.raises(StartupError, match="has not started"):
        rtcore.Runtime(**FAST).pause_learning()


def test_weights_of_one_s_own_are_refused_where_the_next_publication_of_the_learners_would_overwrite_them(
    learning: tuple[rtcore.Runtime, list[str]],
) -> None:
    with pytest.raises(ConfigError, match="learns by itself"):
        learning[0].publish({})


def test_a_learner_that_ends_by_itself_in_the_middle_of_the_run_is_replaced_like_one_that_died(
    learning: tuple[rtcore.Runtime, list[str]],
) -> None:
    runtime, _ = learning
    crew = runtime._supervisor.learners
    assert crew is not None
    first = runtime.learner_pids[0]
    stepped_back = min(psutil.Process().nice() + 5, 19)  # the kernel knows no more
    assert psutil.Process(first).nice() == stepped_back
    # It takes this for the word that another process has its place.
    crew.master.control[0]["generation"] = 0
    wait_for(runtime, lambda learner: learner.restarts == 1)
    assert learner_of(runtime).restart_reasons == {"exit code 0": 1}
    updates = learner_of(runtime).updates
    wait_for(runtime, lambda learner: learner.updates > updates)
    assert runtime.learner_pids[0] != first
    assert psutil.Process(runtime.learner_pids[0]).nice() == stepped_back
