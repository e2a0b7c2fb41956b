"""The Gymnasium side of Game Boy worlds: spaces, frames, keys, resets, determinism, imports."""

import subprocess
import sys
from contextlib import redirect_stdout
from fractions import Fraction
from io import StringIO

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.catch import CatchEnv
from rtcore_envs.gameboy import ACTION_KEYS, FRAME_RATE_HZ, GameBoyEnv
from rtcore_envs.registration import register_envs

pytestmark = pytest.mark.unit

HELD, PRESSED, PHASE, POSITION = 0xC00C, 0xC00D, 0xC011, 0xC010
A, B, LEFT, UP, RIGHT, DOWN, NOTHING = range(7)
PAD_BIT = {A: 0x01, B: 0x02, LEFT: 0x20, UP: 0x40, RIGHT: 0x10, DOWN: 0x80, NOTHING: 0}


@pytest.fixture
def env():
    env = BlocksEnv(render_mode="rgb_array")
    env.reset(seed=7)
    yield env
    env.close()


def word(env, address):
    return env.memory[address] | env.memory[address + 1] << 8


@pytest.mark.parametrize(
    ("env_id", "observation"),
    [("rtcore/Blocks-v0", "grey84"), ("rtcore/Blocks-v0", "native"), ("rtcore/Catch-v0", "grey84")],
)
def test_gymnasium_checker_has_no_complaint(env_id, observation):
    env = gymnasium.make(env_id, observation=observation, render_mode="rgb_array")
    check_env(env.unwrapped)
    env.close()


@pytest.mark.parametrize(("observation", "shape"), [("grey84", (84, 84)), ("native", (144, 160))])
def test_frames_are_fresh_grey_arrays_of_the_promised_shape(observation, shape):
    env = BlocksEnv(observation=observation)
    first, _ = env.reset(seed=1)
    kept = first.copy()
    second, *_ = env.step(LEFT)
    third, *_ = env.step(NOTHING)
    assert first.shape == shape
    assert first.dtype == np.uint8
    assert not np.shares_memory(first, second)
    assert not np.array_equal(second, third), "the piece has moved"
    np.testing.assert_array_equal(first, kept)
    env.close()


def test_native_frame_is_the_grey_of_the_rendered_screen():
    env = BlocksEnv(observation="native", render_mode="rgb_array")
    frame, _ = env.reset(seed=1)
    screen = env.render()
    assert screen.shape == (144, 160, 3)
    for channel in range(3):
        np.testing.assert_array_equal(frame, screen[..., channel])
    env.close()


def test_frame_rate_is_the_clock_over_the_cycles_of_a_frame():
    assert Fraction(4194304, 70224) == FRAME_RATE_HZ
    assert GameBoyEnv.metadata["render_fps"] == pytest.approx(59.7275, abs=1e-4)


@pytest.mark.parametrize("action", range(7))
def test_action_holds_exactly_its_key_in_the_same_frame(env, action):
    env.step(action)
    assert env.memory[HELD] == PAD_BIT[action]
    env.step(env.noop_action)
    assert env.memory[HELD] == 0


def test_actions_are_named_after_their_keys(env):
    assert env.get_action_meanings() == ["A", "B", "LEFT", "UP", "RIGHT", "DOWN", "NOOP"]
    assert env.get_action_meanings().index("NOOP") == env.noop_action


def test_noop_action_presses_nothing():
    assert ACTION_KEYS[GameBoyEnv.noop_action] == frozenset()


def test_repeated_action_is_one_long_press(env):
    presses = []
    for action in [A, A, A, NOTHING, A, B, A, A]:
        env.step(action)
        presses.append(env.memory[PRESSED])
    assert presses == [1, 0, 0, 0, 1, 2, 1, 0]


def test_held_direction_moves_once_then_repeats(env):
    env.memory[POSITION] = 5
    env.memory[0xC00E] = 0  # a grain fits everywhere
    columns = []
    for _ in range(20):
        env.step(LEFT)
        columns.append(env.memory[POSITION] & 7)
    assert columns == [4] * 10 + [3] * 4 + [2] * 4 + [1] * 2


@pytest.mark.parametrize("action", range(7))
def test_no_key_leaks_into_the_next_episode(env, action):
    clean_frame, _ = env.reset(seed=3)
    clean_memory = env.memory[0xC000:0xC0D0]
    for _ in range(5):
        env.step(action)
    # An event that waits in the emulator, as after an exception between press and frame.
    env._emulator.button_press("left")
    env._emulator.button_release("left")
    frame, _ = env.reset(seed=3)
    assert env.memory[HELD] == 0
    assert env.memory[0xC000:0xC0D0] == clean_memory
    np.testing.assert_array_equal(frame, clean_frame)


def test_press_pending_in_the_emulator_does_not_survive_a_reset(env):
    env.step(NOTHING)
    env._emulator.button("left", 3)
    env.reset(seed=3)
    held = []
    for _ in range(5):
        env.step(NOTHING)
        held.append(env.memory[HELD])
    assert held == [0] * 5


@pytest.mark.parametrize("action", [-1, 7, np.int64(7)])
def test_action_outside_the_space_is_refused(env, action):
    with pytest.raises(ValueError, match="from 0 to 6"):
        env.step(action)


def test_step_before_the_first_reset_is_refused():
    env = BlocksEnv()
    with pytest.raises(ResetNeeded, match="before the first reset"):
        env.step(NOTHING)
    env.close()


def test_closed_world_refuses_calls_and_closes_twice(env):
    env.close()
    env.close()
    for call in (env.reset, env.render, lambda: env.step(NOTHING)):
        with pytest.raises(ResetNeeded, match="after close"):
            call()


@pytest.mark.parametrize("bad", [{"observation": "cmyk"}, {"render_mode": "human"}])
def test_unknown_modes_are_refused_with_the_choices(bad):
    with pytest.raises(ValueError, match=r"expected .*(grey84|rgb_array)"):
        BlocksEnv(**bad)


def test_truncation_is_left_to_the_time_limit_of_gymnasium():
    env = gymnasium.make("rtcore/Blocks-v0", max_episode_steps=4)
    env.reset(seed=0)
    ends = [env.step(NOTHING)[2:4] for _ in range(4)]
    assert ends == [(False, False)] * 3 + [(False, True)]
    env.close()


def test_registration_may_be_repeated():
    before = gymnasium.registry["rtcore/Blocks-v0"]
    register_envs()  # a second registration by Gymnasium would warn, and warnings are errors
    assert gymnasium.registry["rtcore/Blocks-v0"] is before


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def run_here(code: str) -> str:
    """In this process, in which many games have been played."""
    with redirect_stdout(StringIO()) as said:
        exec(code, {})
    return said.getvalue()


def test_world_can_be_made_from_its_id_without_an_import():
    code = "import gymnasium as g; e = g.make('rtcore_envs:rtcore/Blocks-v0'); print(e.reset(seed=1)[0].shape)"
    assert run_python(code) == "(84, 84)\n"


def test_importing_the_package_loads_no_emulator_and_no_runtime():
    code = """
import sys, rtcore_envs, rtcore_envs.gameboy, rtcore_envs.blocks, gymnasium
assert 'rtcore/Blocks-v0' in gymnasium.registry
print([name for name in ('pyboy', 'sdl2', 'torch', 'rtcore') if name in sys.modules])
"""
    assert run_python(code) == "[]\n"


DIGEST = """
import hashlib, random
from rtcore_envs.{module} import {world}
env = {world}()
for seeds in ((1, 2, 3), (1, 2, 4)):
    rng, digest = random.Random(5), hashlib.sha256()
    for seed in seeds:
        frame, info = env.reset(seed=seed)
        digest.update(frame.tobytes())
        for _ in range(400):
            frame, *rest = env.step(rng.randrange(env.action_space.n))
            digest.update(frame.tobytes() + repr(rest).encode())
            if rest[1]:
                frame, info = env.reset()
                digest.update(frame.tobytes() + repr(info).encode())
    print(digest.hexdigest())
env.close()
"""


@pytest.mark.parametrize("world", [BlocksEnv, CatchEnv])
def test_same_seed_and_actions_give_the_same_episodes_in_two_processes(world):
    code = DIGEST.format(module=world.__module__.removeprefix("rtcore_envs."), world=world.__name__)
    first, other = run_python(code).split()
    assert run_here(code).split() == [first, other]
    assert first != other


def test_frame_counter_advances_by_one_per_step_and_logic_ends_before_vblank(env):
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(3000):
        before = word(env, 0xC004)
        *_, terminated, _, _ = env.step(rng.integers(7))
        assert word(env, 0xC004) == (before + 1) & 0xFFFF
        if terminated:
            ends += 1
            assert 0 < env.memory[0xC016] < 144
            env.reset()
    assert ends > 2, "the walk must have crossed whole games"
    assert 0 < env.memory[0xC016] < 144
