"""Every example, run as its own docstring says, in another process; nothing of it may be left in /dev/shm."""

from __future__ import annotations

import importlib
import json
import re
import sys
import threading
from pathlib import Path
from typing import Any

import gymnasium
import pytest

from rtcore.errors import PolicyError
from rtcore.memory.history import History
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import Policy, load_policy
from tests.support.drills import segments, started, wait_for

pytestmark = pytest.mark.process

EXAMPLES = Path(__file__).parents[2] / "examples"
RTCORE_RUN = [sys.executable, "-m", "rtcore.cli.run"]


def run(*command: str, cwd: Path) -> str:
    """The output of a program that ended well and left none of its segments behind."""
    with started(*command, cwd=cwd) as process:
        output, _ = process.communicate(timeout=150)
    assert process.returncode == 0, output
    assert segments(process.pid) == []
    return output


@pytest.mark.slow
def test_a_program_watches_its_run_and_then_has_two_at_once(tmp_path: Path) -> None:
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "embed.py"), "--duration", "1", cwd=tmp_path)
    assert "rehearsing" in output, "start-up reports its progress"
    assert re.search(r"^tick \d+: acted on ", output, re.MULTILINE), "stats are there while it runs"
    summaries = re.findall(r"^(staggered|sequential): (\d+) ticks, acted on (\S+)% .* delay (\S+) ticks", output, re.M)
    assert [name for name, *_ in summaries] == ["staggered", "staggered", "sequential"]
    for _, ticks, acted, delay in summaries:
        assert 0 < int(ticks) <= 50
        assert 0 < float(acted) <= 100
        assert float(delay) >= 5, "100 ms are 5 ticks of 20 ms"
    assert float(summaries[2][2]) < float(summaries[0][2]), "one worker cannot act as often as many"


def test_an_own_world_and_an_own_policy_run_from_the_folder_they_are_in(tmp_path: Path) -> None:
    output = run(
        *RTCORE_RUN,
        *("--env-id", "own_world:make_world", "--env-args", "speed=2"),
        *("--policy", "own_policy:make_policy", "--policy-args", "gain=50,pad_ms=30"),
        *("--duration", "1", "--no-live", "--no-pictures", "--out", str(tmp_path)),
        cwd=EXAMPLES,
    )
    assert "own_world:make_world (speed=2) at 50.0000 Hz" in output
    assert "own_policy:make_policy gain=50" in output
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["ticks"]["count"] + summary["ticks"]["skipped"] == 50
    assert summary["ticks"]["kinds"]["acted"] > 0
    assert summary["environment"]["noop_source"] == "Chase declares noop_action = 1"


def test_the_own_world_is_short_and_moves_on_whoever_looks_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len((EXAMPLES / "own_world.py").read_text().splitlines()) <= 60
    monkeypatch.syspath_prepend(str(EXAMPLES))
    threads = set(threading.enumerate())
    world = importlib.import_module("own_world").make_world(speed=3)
    (mover,) = set(threading.enumerate()) - threads
    before, _ = world.reset(seed=1)
    wait_for(lambda: world.reset()[0][0] != before[0], "what moves though nobody has stepped")
    world.step(2)
    wait_for(lambda: world.step(2)[0][1] > 0.5, "the command, which stands until the next one")
    at_reset, _ = world.reset()
    assert at_reset[1] > 0.4, "an episode begins wherever things are"
    world.close()
    assert not mover.is_alive()


def load(policy: str, world: gymnasium.Env[Any, Any], history: History | None = None) -> Policy:
    """As a worker loads it, before the run begins."""
    specs = ObservationSpec.from_space(world.observation_space), ActionSpec.from_space(world.action_space)
    return load_policy(policy, {}, *specs, seed=0, worker_index=0, device="cpu", history=history)


def test_the_own_policy_is_refused_on_a_world_that_it_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    with pytest.raises(PolicyError, match="policy 'own_policy:make_policy' raised RuntimeError"):
        load("own_policy:make_policy", gymnasium.make("CartPole-v1"))


@pytest.mark.slow
def test_a_trainer_in_one_file_learns_from_a_run_and_hands_its_weights_to_the_workers(tmp_path: Path) -> None:
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "train_pytorch.py"), "--updates", "200", cwd=tmp_path)
    last = re.search(r"^(\d+) updates, (\d+) versions; first returns \[", output, re.MULTILINE)
    assert last is not None, output
    assert int(last[1]) == 200
    assert int(last[2]) >= 2, "the first weights, and at least some that were learned"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("example", "arguments", "count", "rounds"),
    [
        ("train_ppo.py", ("--virtual", "--duration", "50"), 1000, 2),
        ("train_vtrace.py", ("--rounds", "2"), 50, 2),
        ("train_prioritized.py", ("--virtual", "--duration", "20", "--rounds", "100"), 4, 100),
    ],
)
def test_ppo_vtrace_and_prioritized_dqn_take_every_decision_in_order_with_what_the_policy_said_of_it(
    tmp_path: Path, example: str, arguments: tuple[str, ...], count: int, rounds: int
) -> None:
    output = run(sys.executable, "-W", "error", str(EXAMPLES / example), *arguments, cwd=tmp_path)
    last = re.search(rf"^(\d+) rounds of {count} decisions, (\d+) lost; mean return of the first \d+", output, re.M)
    assert last is not None, output
    assert (int(last[1]), int(last[2])) == (rounds, 0)


@pytest.mark.slow
def test_stable_baselines3_learns_from_a_run_with_its_own_dqn(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "sb3_dqn.py"), "--steps", "200", cwd=tmp_path)
    last = re.search(r"^(\d+) updates, (\d+) versions; first returns \[", output, re.MULTILINE)
    assert last is not None, output
    # From decision 100 on one for each, if this machine keeps up.
    assert 0 < int(last[1]) <= 100
    assert int(last[2]) >= 2


@pytest.mark.slow
def test_stable_baselines3_sac_acts_late_and_is_played_again_from_the_file_that_it_saved(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "sb3_sac.py"), "--duration", "1", cwd=tmp_path)
    assert re.search(r"^0 updates, [1-9]\d* versions; returns \[", output, re.MULTILINE), (
        "it learns from decision 400 on"
    )
    policy = load(f"sb3:{tmp_path / 'pendulum.zip'}", gymnasium.make("Pendulum-v1"), History(2, 3))
    assert "pendulum.zip spread=0.0, 5.12k parameters" in policy.info.describe()


@pytest.mark.slow
def test_stable_baselines3_ppo_steps_a_world_that_does_not_wait(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "sb3_ppo.py"), "--steps", "300", cwd=tmp_path)
    last = re.search(r"^(\d+) steps in (\d+) ticks, (\d+) of them without an action", output, re.MULTILINE)
    assert last is not None, output
    steps, ticks, missed = map(int, last.groups())
    assert steps >= 300
    assert ticks >= steps
    assert 0 < missed < ticks, "while the network is updated nobody acts"


@pytest.mark.slow
def test_cells_of_a_notebook_run_without_a_main_guard_and_none_runs_twice(tmp_path: Path) -> None:
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "notebook_style.py"), cwd=tmp_path)
    assert [line.split()[0] for line in output.splitlines()] == ["starting", "tick", "acted", "after"]


@pytest.mark.slow
def test_a_trainer_may_have_folders_called_envs_and_workers(tmp_path: Path) -> None:
    output = run(sys.executable, "-W", "error", str(EXAMPLES / "own_folders" / "train.py"), cwd=tmp_path)
    assert re.search(r"^workers\.net:make_net, 6 parameters, cpu on envs\.line:Line: [1-9]", output, re.MULTILINE), (
        output
    )
