"""The policy that comes with the package plays, and weights bring their network with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.virtual.simulate import Simulation
from rtcore_workers.policies import choice as source

pytestmark = pytest.mark.unit
#: Points of random actions on Blocks in 3,000 ticks (docs/results.md).
RANDOM_POINTS = 17


def play(**fields: object) -> Simulation:
    config = make_config(clock="virtual", **{"latency": "constant:30", "workers": 2, "ticks": 12_000, **fields})
    simulation = Simulation(config).run()
    simulation.close()
    return simulation


def test_the_trained_policy_plays_blocks_three_times_better_than_chance_at_the_delay_it_was_trained_with() -> None:
    stats = play(policy="trained", latency="constant:109", workers="auto", ticks=3000, seed=1000).stats()
    assert stats.policy.startswith("trained")
    assert stats.score.points > 3 * RANDOM_POINTS


def test_in_the_game_that_does_not_wait_it_needs_an_action_at_every_tick() -> None:
    catch = {"env_id": "rtcore/Catch-v0", "latency": "constant:109", "ticks": 896, "seed": 1000}
    staggered = play(policy="trained", workers="auto", **catch).stats().score.points
    sequential = play(policy="trained", workers=1, stagger="sequential", **catch).stats().score.points
    at_random = play(policy="random", workers="auto", **catch).stats().score.points
    assert staggered >= 3 * sequential
    assert staggered >= 3 * at_random


@pytest.mark.parametrize(("game", "recipe"), [("blocks", "imitate_blocks"), ("catch", "learn_catch")])
def test_its_weights_are_small_and_say_where_they_come_from(game: str, recipe: str) -> None:
    folder = source.trained_folder(game)
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    state = json.loads((folder / "state.json").read_text())
    assert f"examples/{recipe}.toml" in state["command"]


def test_in_another_world_it_says_where_it_plays() -> None:
    with pytest.raises(ConfigError, match=r"plays rtcore/Blocks-v0 and rtcore/Catch-v0; got CartPole-v1.*--learn dqn"):
        play(policy="trained", env_id="CartPole-v1", fps=50)
    with pytest.raises(ConfigError, match="got game='chess'"):
        play(policy="trained", policy_args={"game": "chess"})


def test_in_a_wrapper_of_ones_own_the_game_is_said() -> None:
    config = make_config(policy="trained", env_id="own_worlds:make", policy_args={"game": "catch", "pad_ms": 100})
    resolved = source.resolve_policy(config)
    assert (resolved.history.act_history, resolved.agent.policy_args) == (16, {"game": "catch", "pad_ms": 100})


@pytest.mark.parametrize("env_id", ["rtcore/Blocks-v0", "rtcore/Catch-v0"])
def test_it_takes_as_long_as_it_learned_to_play_with_unless_that_is_said(env_id: str) -> None:
    assert source.resolve_policy(make_config(policy="trained", env_id=env_id)).agent.policy_args["pad_ms"] == 100
    said = make_config(policy="trained", env_id=env_id, policy_args={"pad_ms": 50})
    assert source.resolve_policy(said).agent.policy_args["pad_ms"] == 50


def test_a_checkpoint_says_which_policy_it_is_of() -> None:
    folder = source.trained_folder("blocks")
    config = source.resolve_policy(make_config(policy_checkpoint=folder))
    assert (config.agent.policy, config.agent.policy_args) == ("tiles", {"pad_ms": 100})
    assert (config.history.obs_history, config.history.obs_every, config.history.act_history) == (4, 2, 8)
    assert (config.agent.chunk, config.agent.chunk_rest) == (2, "noop")


def test_a_checkpoint_says_in_which_world_it_learned() -> None:
    folder = source.trained_folder("catch")
    assert source.resolve_policy(make_config(policy_checkpoint=folder)).world.env_id == "rtcore/Catch-v0"
    own = source.resolve_policy(make_config(policy_checkpoint=folder, env_id="own_worlds:make", env_args={"level": 3}))
    assert (own.world.env_id, own.world.env_args) == ("own_worlds:make", {"level": 3})


def test_what_is_given_wins_over_what_the_checkpoint_says() -> None:
    folder = source.trained_folder("blocks")
    config = source.resolve_policy(make_config(policy_checkpoint=folder, policy_args={"pad_ms": 5}, act_history=2))
    assert (config.agent.policy, config.history.act_history, config.agent.policy_args) == ("tiles", 2, {"pad_ms": 5})


def test_weights_alone_say_nothing(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((source.trained_folder("blocks") / "model.safetensors").read_bytes())
    config = make_config(policy_checkpoint=tmp_path / "model.safetensors")
    assert source.resolve_policy(config) == config
