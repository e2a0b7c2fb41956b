"""Exploration without anything shared: the same ticks and the same actions in every worker."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

from rtcore.errors import PolicyError
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import ExploringPolicy, InferenceTiming, PolicyInfo
from rtcore_workers.policies.base import FrameOnly

pytestmark = pytest.mark.unit

SPACES = [
    spaces.Discrete(7, start=-3),
    spaces.MultiDiscrete([2, 3]),
    spaces.MultiBinary(4),
    spaces.Box(-1, 2, (2, 2), np.float32),
    spaces.Box(0, np.inf, (2,), np.float64),
]
BUTTONS = spaces.Discrete(7)


class Constant(FrameOnly):
    """Always the lowest action; says it clipped one."""

    def __init__(self, action: ActionSpec) -> None:
        self.info = PolicyInfo("constant", 0, synthetic=False, pad_ms=None, device="cpu")
        self.observation = np.zeros(ObservationSpec.from_space(spaces.Box(0, 1, (2,), np.float32)).shape)
        self.past_actions = None
        self.timing = InferenceTiming()
        self.num_calls = 0
        self._action = action

    def act(self, *, frame_seq: int, out: Any, tick: int | None = None) -> None:
        self.num_calls += 1
        out[...] = np.clip(np.zeros(out.shape), self._action.low_array, self._action.high_array)
        self.timing.clipped = 1


def exploring(space: Any = BUTTONS, epsilon: Any = 0.4, seed: int = 1, explore_ticks: int = 1, **kwargs: Any) -> Any:
    spec = ActionSpec.from_space(space)
    schedule = epsilon if isinstance(epsilon, EpsilonSchedule) else EpsilonSchedule(epsilon, epsilon, 1)
    return ExploringPolicy(Constant(spec), spec, seed, schedule, explore_ticks, **kwargs)


def actions_of(policy: Any, ticks: Any, space: Any = BUTTONS, chunk: int = 1) -> Any:
    spec = ActionSpec.from_space(space)
    out = np.zeros((chunk, *spec.shape), spec.np_dtype)
    found = []
    for tick in ticks:
        policy.act(frame_seq=10_000 + tick, out=out, tick=tick)
        found.append(out.copy())
    return np.array(found)


def test_epsilon_falls_linearly_and_goes_on_where_the_run_before_ended():
    schedule = EpsilonSchedule(1.0, 0.1, 100)
    assert [schedule.epsilon(tick) for tick in (0, 50, 100, 1000)] == pytest.approx([1.0, 0.55, 0.1, 0.1])
    assert EpsilonSchedule(1.0, 0.1, 100, ticks_before=30).epsilon(20) == pytest.approx(0.55)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_all_workers_draw_the_same_valid_actions_whatever_ticks_each_of_them_sees(space: Any):
    ticks = range(60)
    everything = actions_of(exploring(space), ticks, space, chunk=2)
    for worker in range(3):
        mine = actions_of(exploring(space), ticks[worker::3], space, chunk=2)
        assert (mine == everything[worker::3]).all()
    assert all(space.contains(each) for pair in everything for each in (pair if space.shape else pair.tolist()))
    assert len({each.tobytes() for each in everything}) > 5
    other = actions_of(exploring(space, seed=2), ticks, space, chunk=2)
    assert (other != everything).any()


def test_the_share_of_random_actions_is_epsilon_and_every_action_is_as_likely():
    policy = exploring(epsilon=0.3)
    explored = np.array([policy.explores_at(tick) for tick in range(20_000)])
    assert explored.mean() == pytest.approx(0.3, abs=0.015)
    assert np.corrcoef(explored[1:], explored[:-1])[0, 1] == pytest.approx(0, abs=0.03)
    counts = np.bincount(actions_of(exploring(epsilon=1.0), range(7000)).ravel(), minlength=7)
    assert (abs(counts - 1000) < 150).all()


def test_a_random_action_is_kept_up_for_a_block_of_ticks():
    policy = exploring(epsilon=1.0, explore_ticks=5)
    actions = actions_of(policy, range(100)).reshape(20, 5)
    assert (actions == actions[:, :1]).all()
    assert len(set(actions[:, 0].tolist())) > 3
    partly = exploring(epsilon=0.5, explore_ticks=5)
    coins = np.array([partly.explores_at(tick) for tick in range(500)]).reshape(100, 5)
    assert (coins == coins[:, :1]).all()


def test_a_resumed_run_goes_on_with_the_draws_where_the_one_before_stopped():
    whole = actions_of(exploring(epsilon=EpsilonSchedule(1.0, 0.0, 200)), range(200))
    rest = actions_of(exploring(epsilon=EpsilonSchedule(1.0, 0.0, 200, ticks_before=80)), range(120))
    assert (rest == whole[80:]).all()


def test_random_actions_are_counted_and_the_inner_policy_takes_its_time_all_the_same():
    policy = exploring(epsilon=0.5)
    inner = policy.inner
    explored = []
    for tick in range(200):
        policy.act(frame_seq=tick, out=np.zeros((1,), np.int64))
        explored.append(policy.timing.explored)
        assert policy.timing.clipped == 1 - policy.timing.explored
    assert 60 < sum(explored) < 140
    assert inner.num_calls == 200
    assert policy.timing is inner.timing
    assert any("epsilon 0.5" in note for note in policy.info.notes)
    spared = exploring(epsilon=0.5, always_infer=False)
    actions_of(spared, range(200))
    assert spared.inner.num_calls == 200 - sum(explored), "the same ticks explore"


@pytest.mark.parametrize(
    "wrong", [{"start": 1.5}, {"end": -0.1}, {"ticks": 0}, {"ticks_before": -1}], ids=lambda wrong: next(iter(wrong))
)
def test_an_impossible_schedule_is_refused(wrong: Any):
    with pytest.raises(PolicyError, match="expected|must be"):
        EpsilonSchedule(**{"start": 1.0, "end": 0.1, "ticks": 10, **wrong})


def test_a_random_action_is_kept_for_at_least_one_tick():
    with pytest.raises(PolicyError, match="explore_ticks=0 must be at least 1"):
        exploring(explore_ticks=0)
