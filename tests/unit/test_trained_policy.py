"""The policy that comes with the package plays, and weights bring their network with them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import mean

import pytest

import rtcore.learn.policysource as source
from rtcore.config import make_config
from rtcore.errors import PolicyError
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit
#: Mean return of uniformly random actions, 50 episodes (docs/results.md).
RANDOM_RETURN = 2.94


def play(**fields: object) -> Simulation:
    config = make_config(clock="virtual", **{"latency": "constant:30", "workers": 2, "ticks": 12_000, **fields})
    simulation = Simulation(config).run()
    simulation.close()
    return simulation


@pytest.mark.parametrize("latency_ms", [30, 100])
def test_the_trained_policy_plays_three_times_better_than_chance(latency_ms: int) -> None:
    stats = play(policy="trained", latency=f"constant:{latency_ms}", workers="auto", seed=11).stats()
    assert stats.policy.startswith("trained")
    assert mean([episode.total_reward for episode in stats.episodes]) > 3 * RANDOM_RETURN


def test_its_weights_are_small_and_say_where_they_come_from() -> None:
    folder = source.trained_folder()
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    state = json.loads((folder / "state.json").read_text())
    assert "examples/learn_blocks.toml" in state["command"]


def test_in_another_world_it_says_where_it_plays() -> None:
    with pytest.raises(PolicyError, match="plays rtcore/Blocks-v0"):
        play(policy="trained", env_id="CartPole-v1", fps=50)


def test_a_checkpoint_says_which_policy_it_is_of() -> None:
    folder = source.trained_folder()
    config = source.resolve_policy(make_config(policy_checkpoint=folder))
    assert (config.policy, config.act_history, config.policy_args["pad_ms"]) == ("tiles", 4, 30)


def test_what_is_given_wins_over_what_the_checkpoint_says() -> None:
    folder = source.trained_folder()
    config = source.resolve_policy(make_config(policy_checkpoint=folder, policy_args={"pad_ms": 5}, act_history=2))
    assert (config.policy, config.act_history, config.policy_args) == ("tiles", 2, {"pad_ms": 5})


def test_weights_alone_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((source.trained_folder() / "model.safetensors").read_bytes())
    config = make_config(policy_checkpoint=tmp_path / "model.safetensors")
    assert source.resolve_policy(config) == config
