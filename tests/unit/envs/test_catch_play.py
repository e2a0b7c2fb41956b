"""What players reach: a world that does not wait tells one that acts in every tick from one that does not."""

from collections import deque

import numpy as np
import pytest

from rtcore_envs.catch import CatchEnv
from rtcore_envs.catch_bot import NOTHING, RAM_START, RAM_STOP, CatchBot

pytestmark = pytest.mark.unit

WINDOW_TICKS = 896  # 15 s


@pytest.fixture(scope="module")
def env():
    env = CatchEnv()
    yield env
    env.close()


def points(env, act, seed, delay_ticks, *, sequential=False):
    """Points in 15 s of a player whose keys are ``delay_ticks`` old: in every tick, or in one of so many."""
    env.reset(seed=seed)
    total, seen = 0.0, deque(maxlen=delay_ticks)
    for tick in range(WINDOW_TICKS):
        seen.append(env.memory[RAM_START:RAM_STOP])
        idle = len(seen) < delay_ticks or (sequential and tick % delay_ticks)
        _, reward, terminated, _, _ = env.step(NOTHING if idle else act(seen[0]))
        total += reward
        if terminated:
            env.reset()
            seen.clear()
    return total


def staggered(env, delay_ticks, seed):
    return points(env, CatchBot(delay_ticks).act, seed, delay_ticks)


def sequential(env, delay_ticks, seed):
    return points(env, CatchBot(delay_ticks, every_tick=False).act, seed, delay_ticks, sequential=True)


def test_seven_ticks_late_but_every_tick_is_four_times_as_good_as_one_action_in_seven_ticks(env):
    together = [staggered(env, 7, seed) for seed in range(2)]
    alone = [sequential(env, 7, seed) for seed in range(2)]
    assert min(together) > 4 * max(alone)


def test_random_play_scores_sometimes_and_far_less(env):
    rng = np.random.default_rng(0)
    every_tick = [points(env, lambda ram: int(rng.integers(3)), seed, 1) for seed in range(3)]
    held = [points(env, lambda ram, seed=seed: seed % 3, seed, 1) for seed in range(3)]
    assert 5 < np.mean(every_tick) < 25
    assert staggered(env, 7, 0) > 6 * max(np.mean(every_tick), np.mean(held))


def test_older_sight_is_worse(env):
    assert staggered(env, 1, 1) >= staggered(env, 7, 1) > 1.5 * staggered(env, 14, 1)
