"""What different players reach: the world must tell good play from bad, and be playable with a delay."""

from collections import deque

import numpy as np
import pytest

from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.blocks_bot import NOTHING, RAM_START, RAM_STOP, GreedyBot

pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def env():
    env = BlocksEnv()
    yield env
    env.close()


def play(env, act, seed, max_ticks, delay_ticks=0):
    """Return and length of an episode of a player that sees the memory of ``delay_ticks`` ago."""
    _, info = env.reset(seed=seed)
    seen = deque([env.memory[RAM_START:RAM_STOP]], maxlen=delay_ticks + 1)
    total = 0.0
    for tick in range(1, max_ticks + 1):
        _, reward, terminated, _, info = env.step(act(seen[0]))
        seen.append(env.memory[RAM_START:RAM_STOP])
        total += reward
        if terminated:
            return total, tick
    assert total == info["score"] >= info["lines"]
    return total, max_ticks


def test_random_play_scores_sometimes_and_dies_within_seconds(env):
    rng = np.random.default_rng(0)
    returns, lengths = zip(
        *(play(env, lambda ram: int(rng.integers(7)), seed, 5000) for seed in range(12)), strict=True
    )
    assert 1 < np.mean(returns) < 8
    assert sum(total > 0 for total in returns) >= 6
    assert 300 < np.mean(lengths) < 1500
    assert max(lengths) < 5000


def test_doing_nothing_scores_nothing_and_dies(env):
    for seed in range(3):
        total, length = play(env, lambda ram: NOTHING, seed, 5000)
        assert total == 0
        assert 600 < length < 5000


def test_greedy_bot_scores_many_times_what_random_play_does(env):
    total, length = play(env, GreedyBot().act, seed=1, max_ticks=3000)
    assert length == 3000, "the bot must not die"
    assert total > 15 * 3.1  # random play: 3.1 in the mean over 60 episodes
    assert env.memory[0xC016] < 144


def test_greedy_bot_with_eight_ticks_of_delay_plays_nearly_as_well(env):
    total, length = play(env, GreedyBot().act, seed=1, max_ticks=3000, delay_ticks=8)
    assert length == 3000
    assert total > 15 * 3.1


@pytest.mark.parametrize("every_ticks", [1, 2])
def test_the_teacher_s_answers_score_as_the_scripted_player_does(env, every_ticks):
    env.reset(seed=1)
    teacher, total = env.make_teacher(delay_ticks=7, every_ticks=every_ticks), 0.0
    for tick in range(2000):
        action = teacher()
        _, reward, terminated, _, _ = env.step(action if tick % every_ticks == 0 else NOTHING)
        total += reward
        assert not terminated
    assert total > 30
