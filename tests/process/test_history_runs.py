"""What the workers of a real run are given is what a learner samples: the action says what its network saw."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rtcore
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import ExploringPolicy, load_policy
from tests.support.drills import wait_for
from tests.support.hashing_parts import Hash
from tests.support.worlds import Noise

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.mark.parametrize("obs_history, act_history", [(0, 0), (3, 0), (0, 2), (2, 5)])
def test_every_sampled_action_is_the_one_that_its_sampled_input_leads_to(obs_history: int, act_history: int) -> None:
    rng = np.random.default_rng(0)
    with rtcore.Runtime(
        env_id="tests.support.worlds:Noise",
        policy="tests.support.hashing_parts:hash_of_input",
        policy_args={"pad_ms": 25},
        workers=3,
        duration=600,
        obs_history=obs_history,
        act_history=act_history,
        live=False,
    ) as runtime:
        reader = runtime.transitions()
        wait_for(lambda: reader.update() >= 0 and len(reader) > 200, "decisions")
        batch = reader.sample(256, rng)
    assert reader.counts.lost_ticks == 0
    past = [] if batch.past_actions is None else [torch.from_numpy(batch.past_actions)]
    expected = Hash()(torch.from_numpy(batch.obs), *past).to(torch.float32).numpy()
    assert (batch.action == expected).all()
    assert len(set(batch.action[:, 0].tolist())) > 50
    if batch.past_actions is not None:
        # Of all m: where the plan is an action every second tick, the newest one is the no-op each time.
        assert (batch.past_actions != 0).any(), "past actions were all the no-op"


def test_exploring_workers_take_the_random_actions_of_the_tick_they_saw() -> None:
    with rtcore.Runtime(
        env_id="tests.support.worlds:Noise",
        policy="tests.support.hashing_parts:hash_of_input",
        policy_args={"pad_ms": 25},
        workers=3,
        duration=600,
        seed=4,
        explore=True,
        epsilon_start=0.5,
        epsilon_end=0.5,
        explore_ticks=2,
        live=False,
    ) as runtime:
        reader = runtime.transitions()
        wait_for(lambda: reader.update() >= 0 and len(reader) > 150, "decisions")
        batch = reader.sample(256, np.random.default_rng(0))
    action, observation = ActionSpec.from_space(Noise.action_space), ObservationSpec.from_space(Noise.observation_space)
    inner = load_policy("random", {}, observation, action, seed=0, worker_index=0, device="cpu")
    exploring = ExploringPolicy(inner, action, 4, EpsilonSchedule(0.5, 0.5, 1), 2)
    seen_ticks = (batch.tick - batch.delay_ticks).tolist()
    expected = Hash()(torch.from_numpy(batch.obs)).to(torch.float32).numpy()
    explored = [exploring.explores_at(tick) for tick in seen_ticks]
    for row, tick in enumerate(seen_ticks):
        if explored[row]:
            exploring.act(frame_seq=0, out=expected[row : row + 1], tick=tick)
    assert (batch.action == expected).all()
    assert 0.25 < np.mean(explored) < 0.75
