"""Rewards, ends and starts of the Tetris world, in a real emulator over the probe ROM."""

from __future__ import annotations

import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore_envs.errors import RomError, StateError
from rtcore_envs.tetris import MAX_IDLE_FRAMES, from_bcd
from tests.support.drawn import examples
from tests.support.probe_worlds import NOTHING, Probe, poke

pytestmark = pytest.mark.unit

SCORE, LEVEL, GAME_STATE = 49312, 65449, 65505
LUCK = 0xFF85  # the probe's: the divider at the last START
LAST_MENU = 0x11


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    return Probe(tmp_path_factory.mktemp("tetris"), "tetris", "menus")


@pytest.fixture(scope="module")
def fresh(probe):
    env = probe.make("tetris")
    yield env
    env.close()


@pytest.fixture
def env(fresh):
    fresh.reset(seed=1)
    return fresh


@pytest.fixture(scope="module")
def quirky(probe):
    env = probe.make("tetris", reference_quirks=True)
    yield env
    env.close()


def bcd(score: int) -> list[int]:
    """Three bytes, the lowest first."""
    digits = f"{score:06d}"
    return [int(digits[4:6], 16), int(digits[2:4], 16), int(digits[0:2], 16)]


def score(env, points: int):
    poke(env, dict(zip(range(SCORE, SCORE + 3), bcd(points), strict=True)))
    _, reward, terminated, truncated, info = env.step(NOTHING)
    assert not truncated
    return reward, terminated, info


# -- rewards and ends --------------------------------------------------------------------------------------------


def test_score_is_decimal_the_low_byte_first():
    assert from_bcd([0x34, 0x12]) == 1234
    assert from_bcd([0x99, 0x99, 0x99]) == 999_999


def test_the_reward_is_what_the_score_rose_by_in_this_frame(env):
    assert score(env, 40)[:2] == (40.0, False)
    assert score(env, 40)[:2] == (0.0, False)
    reward, _, info = score(env, 1240)
    assert reward == 1200.0
    assert info["score"] == 1240


def test_the_score_rolls_over_at_ten_thousand_without_a_loss(env):
    score(env, 9990)
    assert score(env, 10_030)[:2] == (40.0, False)


def test_with_the_quirks_of_the_reference_the_roll_over_costs_ten_thousand(quirky):
    quirky.reset(seed=1)
    score(quirky, 9990)
    reward, terminated, info = score(quirky, 10_030)
    assert (reward, terminated) == (30.0 - 9990.0, False)
    assert info["score"] == 30


@pytest.mark.parametrize("state", [1, 4, 13, 0x80, 255])
def test_the_episode_ends_when_the_game_leaves_the_playing_state(env, state):
    assert score(env, 10)[1] is False
    poke(env, {GAME_STATE: state})
    assert score(env, 10)[1] is True


def test_info_tells_level_and_the_lines_on_the_screen(env):
    poke(env, {LEVEL: 0x12} | {0x9800 + 32 * 10 + 14 + column: tile for column, tile in enumerate((47, 0, 4, 2))})
    info = score(env, 0)[2]
    assert info == {"state": "power-on", "score": 0, "lines": 42, "level": 12}


def test_points_of_the_start_state_are_no_reward(probe):
    path = probe.save("far", "tetris", {SCORE: 0x00, SCORE + 1: 0x05, GAME_STATE: 0})
    env = probe.make("tetris", states=path)
    _, info = env.reset(seed=0)
    assert (info["state"], info["score"]) == ("far", 500)
    assert score(env, 540)[0] == 40.0
    env.reset()
    assert score(env, 500)[0] == 0.0
    env.close()


@examples(40)
@given(scores=st.lists(st.integers(0, 999_999), min_size=1, max_size=10))
def test_rewards_of_an_episode_sum_to_its_score(fresh, scores):
    fresh.reset(seed=0)
    assert sum(score(fresh, points)[0] for points in scores) == scores[-1]


# -- the way to a game -------------------------------------------------------------------------------------------


def test_a_fresh_game_is_reached_from_power_on(env):
    _, info = env.reset(seed=5)
    assert env.memory[GAME_STATE] == 0
    assert info["state"] == "power-on"
    assert env.memory[0xFF81] == 0, "no key is left down"


def test_the_first_frame_shows_the_game_and_not_the_menu_or_the_blank_between(fresh, probe):
    frame, _ = fresh.reset(seed=3)
    menu = probe.make("tetris", states=probe.save("menu", "tetris", {GAME_STATE: 0}))
    before, _ = menu.reset(seed=3)
    menu.close()
    assert frame.min() != frame.max()
    assert int(np.abs(frame.astype(int) - before).sum()) >= 10_000


def frames_since_power_on(env) -> int:
    return env.memory[0xFF82] | env.memory[0xFF83] << 8


def test_the_random_start_follows_the_seed_and_spreads(fresh):
    starts = {}
    for seed in range(60):
        fresh.reset(seed=seed)
        starts[seed] = (fresh.memory[LUCK], frames_since_power_on(fresh))
    for seed in (0, 17, 59):
        fresh.reset(seed=seed)
        assert (fresh.memory[LUCK], frames_since_power_on(fresh)) == starts[seed]
    waits = {frames for _, frames in starts.values()}
    assert len(waits) > 25, "of the 41 that there are"
    assert max(waits) - min(waits) <= MAX_IDLE_FRAMES


def test_later_episodes_of_one_seed_differ(fresh):
    fresh.reset(seed=0)
    starts = set()
    for _ in range(12):
        fresh.reset()
        starts.add(frames_since_power_on(fresh))
    assert len(starts) > 3


def test_a_rom_that_shows_no_menu_is_an_error_and_no_endless_loop(tmp_path):
    with pytest.raises(RomError, match=r"no menu within 900 frames.*rtcore-rom play --world tetris"):
        Probe(tmp_path, "tetris", "still").make("tetris")


def test_menus_that_lead_nowhere_are_an_error_and_no_endless_loop(tmp_path):
    with pytest.raises(RomError, match=r"no game after 30 presses of START"):
        Probe(tmp_path, "tetris", "stuck").make("tetris")


def test_a_start_state_in_the_last_menu_gets_the_random_start(probe):
    env = probe.make("tetris", states=probe.save("level select", "tetris", {GAME_STATE: LAST_MENU}))
    starts = set()
    for seed in range(8):
        _, info = env.reset(seed=seed)
        assert env.memory[GAME_STATE] == 0
        starts.add(frames_since_power_on(env))
    assert info["state"] == "level select"
    assert len(starts) > 3
    env.close()


def test_each_try_begins_with_the_start_state_anew(probe):
    env = probe.make("tetris", states=probe.save("one menu too early", "tetris", {GAME_STATE: 0x0E}))
    with pytest.raises(StateError, match="Save the state in the last menu"):
        env.reset(seed=0)
    env.close()


def test_a_start_state_in_a_menu_that_leads_to_no_game_is_an_error_that_names_it(probe):
    path = probe.save("title screen", "tetris", {GAME_STATE: 0x55})
    env = probe.make("tetris", states=path)
    with pytest.raises(StateError, match=r"title screen\.rtstate: got no game after 3 times START and A"):
        env.reset(seed=0)
    env.close()


DIGEST = """
import hashlib, random
from pathlib import Path
from tests.support.probe_worlds import Probe
env = Probe(Path({out!r}), "tetris", "menus").make("tetris")
for seeds in ((1, 2), (1, 3)):
    rng, digest = random.Random(5), hashlib.sha256()
    for seed in seeds:
        frame, info = env.reset(seed=seed)
        digest.update(frame.tobytes() + repr(info).encode())
        for number in range(200):
            env.memory[0xC0A0] = number % 10
            frame, *rest = env.step(rng.randrange(7))
            digest.update(frame.tobytes() + repr(rest).encode() + bytes(env.memory[0xFF80:0xFF90]))
            if number == 120:
                env.memory[0xFFE1] = 1
            if rest[1]:
                frame, info = env.reset()
                digest.update(frame.tobytes() + repr(info).encode())
    print(digest.hexdigest())
env.close()
"""


def test_same_seed_and_actions_give_the_same_episodes_in_two_processes(tmp_path):
    code = DIGEST.format(out=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with redirect_stdout(StringIO()) as here:
        exec(code, {})
    first, other = here.getvalue().split()
    assert done.stdout.split() == [first, other]
    assert first != other
