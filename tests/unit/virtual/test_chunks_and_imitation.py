"""One decision for a chunk of ticks (`chunk_rest`), and learning what a world's teacher would do (`learn=imitate`)."""

from __future__ import annotations

import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.simulate import Simulation
from rtcore_workers.policies.choice import resolve_policy

pytestmark = pytest.mark.unit

SIGNS = {
    "env_id": "tests.support.virtual_worlds:Signs",
    "clock": "virtual",
    "latency": "constant:25",
    "fps": 100,
    "policy": "mlp",
    "tensorboard": False,
}
NOOP = 0


def played(**fields: object) -> Simulation:
    simulation = Simulation(make_config(**{**SIGNS, **fields})).run()
    simulation.close()
    return simulation


def applied(simulation: Simulation) -> list[tuple[int, int]]:
    """(index in its chunk, action) of each tick with a policy action."""
    ring = simulation.ring
    assert ring is not None
    ticks = [header for header in simulation.record.ticks if header.kind == TickKind.ACTED]
    return [(each.chunk_index, int.from_bytes(ring.read_action(each.frame_seq) or b"", "little")) for each in ticks]


def test_between_two_decisions_the_no_op_acts():
    found = applied(played(chunk=3, chunk_rest="noop", ticks=200, policy="random"))
    assert {action for index, action in found if index} == {NOOP}
    assert {action for index, action in found if not index} == {0, 1, 2}
    assert sorted({index for index, _ in found}) == [0, 1, 2]


def test_between_two_decisions_the_action_is_held():
    found = applied(played(chunk=3, chunk_rest="hold", ticks=200, policy="random"))
    firsts = [place for place, (index, _) in enumerate(found) if index == 0]
    for first, end in zip(firsts, [*firsts[1:], len(found)], strict=True):
        assert len({action for _, action in found[first:end]}) == 1
    assert {action for _, action in found} == {0, 1, 2}


def test_a_decision_for_a_chunk_is_one_transition_of_as_many_ticks():
    simulation = played(
        chunk=2, chunk_rest="hold", ticks=600, learn="dqn", learning_starts=50, updates_per_tick=0.1, explore_ticks=2
    )
    learning = simulation.learning
    assert learning is not None
    assert learning.learners.updates > 20
    batch = learning.replay.sample(200, np.random.default_rng(0))
    assert np.bincount(batch.num_ticks).argmax() == 2
    assert batch.num_ticks.max() == 2


def test_learning_needs_one_decision_a_chunk_and_says_how():
    with pytest.raises(ConfigError, match="--chunk-rest noop or hold"):
        make_config(**SIGNS, learn="dqn", chunk=2)


def test_how_often_it_decides_comes_with_the_weights(tmp_path):
    played(chunk=2, chunk_rest="noop", obs_history=2, obs_every=3, ticks=300, learn="dqn", out=tmp_path)
    config = resolve_policy(make_config(env_id=SIGNS["env_id"], policy_checkpoint=tmp_path))
    assert (config.agent.chunk, config.agent.chunk_rest, config.history.obs_history, config.history.obs_every) == (
        2,
        "noop",
        2,
        3,
    )


def test_what_the_teacher_would_do_is_learned_from_frames_alone():
    simulation = played(
        learn="imitate", ticks=3000, updates_per_tick=0.5, learning_starts=100, learning_rate=1e-3, epsilon_end=0.0
    )
    world = simulation.world.env.unwrapped  # type: ignore[attr-defined]
    assert world.taught == (simulation.plan.delay_ticks, simulation.plan.stride_ticks)
    learner = simulation.stats().learner
    assert learner is not None
    assert learner.td_error < 0.02, "the share of answers that differ from the teacher's"


def test_a_world_without_a_teacher_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"no make_teacher.*--learn dqn"):
        Simulation(make_config(**{**SIGNS, "env_id": "CartPole-v1"}, learn="imitate"))


def test_a_teacher_is_asked_at_each_tick_which_takes_the_virtual_clock():
    with pytest.raises(ConfigError, match="--clock virtual"):
        make_config(env_id="CartPole-v1", fps=100, policy="mlp", learn="imitate")
    with pytest.raises(ConfigError, match="mode"):
        make_config(**SIGNS, learn="imitate", mode="infer-then-learn")
