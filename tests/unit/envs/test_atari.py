"""The Atari world: ALE's own frames and rewards, cloned resets, what the seed decides, what is refused."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from gymnasium.utils.env_checker import check_env

import rtcore_envs  # noqa: F401 - registers the ids
from rtcore_envs.area import AreaResizer
from rtcore_envs.atari import AtariEnv, games

ale_py = pytest.importorskip("ale_py")
pytestmark = pytest.mark.unit

GAMES = ("boxing", "krull", "name_this_game")

#: Plays 300 drawn actions and prints a digest of every frame, reward, life and end.
PLAY = """
import hashlib, sys
import numpy as np
from rtcore_envs.atari import AtariEnv
game, seed, sticky = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
env = AtariEnv(game=game, repeat_action_probability=sticky)
digest, actions = hashlib.sha256(env.reset(seed=seed)[0].tobytes()), np.random.default_rng(0)
for _ in range(300):
    frame, *rest = env.step(actions.integers(env.action_space.n))
    digest.update(frame.tobytes() + repr(rest).encode())
print(digest.hexdigest(), [name for name in ("torch", "rtcore") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def env():
    return AtariEnv(game="breakout", render_mode="rgb_array")


def played(*arguments):
    command = [sys.executable, "-c", PLAY, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("observation", ["grey84", "grey", "rgb"])
def test_gymnasium_checker_has_no_complaint(observation):
    check_env(gymnasium.make("rtcore/Atari-v0", observation=observation, render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("game", GAMES)
def test_frames_and_rewards_are_those_of_ales_own_env_at_frame_skip_1(game):
    gymnasium.register_envs(ale_py)
    name = "".join(word.title() for word in game.split("_"))
    own = {"frameskip": 1, "repeat_action_probability": 0.0, "obs_type": "grayscale"}
    theirs = gymnasium.make(f"ALE/{name}-v5", **own).unwrapped
    env = AtariEnv(game=game, observation="grey", max_noops=1)
    assert env.get_action_meanings() == [action.name for action in theirs.ale.getMinimalActionSet()]
    rng = np.random.default_rng(1)
    for _ in range(2):  # the second episode of env begins from the state that was kept
        theirs.reset()
        beginning = [theirs.step(0)[0] for _ in range(3)]
        np.testing.assert_array_equal(env.reset()[0], beginning[-1])
        rewards = []
        for _ in range(400):
            action = rng.integers(env.action_space.n)
            frame, reward, *_, info = env.step(action)
            expected_frame, expected_reward, *_, expected_info = theirs.step(action)
            np.testing.assert_array_equal(frame, expected_frame)
            assert (reward, info["lives"]) == (expected_reward, expected_info["lives"])
            rewards.append(reward)
        assert (info["score"], info["episode_frame_number"]) == (sum(rewards), 400)


def test_the_small_picture_is_the_area_mean_of_the_grey_screen():
    small, whole = AtariEnv(game="krull"), AtariEnv(game="krull", observation="grey")
    expected = np.empty((84, 84), np.uint8)
    AreaResizer((210, 160), (84, 84))(whole.reset(seed=4)[0], expected)
    np.testing.assert_array_equal(small.reset(seed=4)[0], expected)


def test_frames_are_fresh_arrays_that_the_caller_may_keep():
    env = AtariEnv(game="breakout")
    first, _ = env.reset(seed=1)
    kept = first.copy()
    frames = [env.step(env.action_space.sample())[0] for _ in range(60)]
    np.testing.assert_array_equal(first, kept)
    assert not any(np.shares_memory(first, frame) for frame in frames)


def test_the_rendered_screen_is_the_newest_one(env):
    env.reset(seed=1)
    before = env.render()
    for _ in range(40):
        env.step(env.get_action_meanings().index("RIGHT"))
    assert before.shape == (210, 160, 3)
    assert not np.array_equal(before, env.render())
    env.reset(seed=1)
    np.testing.assert_array_equal(before, env.render())


@pytest.mark.parametrize("sticky", [0, 0.25])
def test_the_same_seed_and_actions_give_the_same_episode_in_another_process(sticky):
    first, again, other = played("boxing", 3, sticky), played("boxing", 3, sticky), played("boxing", 4, sticky)
    assert first == again
    assert first != other
    assert first.rstrip().endswith("[]"), "the world imports neither torch nor rtcore"


def test_sticky_actions_are_the_ones_before():
    """The seed alone draws where: with FIRE given once, the ball is served when it gets through."""
    env, plain = AtariEnv(game="breakout", repeat_action_probability=0.75, max_noops=1), AtariEnv(game="breakout")
    fire, noop = env.get_action_meanings().index("FIRE"), env.noop_action
    assert plain.get_action_meanings() == env.get_action_meanings()
    served = 0
    for seed in range(40):
        env.reset(seed=seed)
        env.step(fire)
        served += env._last_action.name == "FIRE"
        env.step(noop)
    assert 3 <= served <= 20, "a quarter of them, by the draw of these seeds"


def test_a_reset_runs_as_many_frames_without_an_action_as_the_seed_draws():
    env = AtariEnv(game="boxing")
    first = {seed: env.reset(seed=seed)[0] for seed in range(30)}
    for seed, frame in first.items():
        np.testing.assert_array_equal(env.reset(seed=seed)[0], frame)
    assert len({frame.tobytes() for frame in first.values()}) > 3
    alike = AtariEnv(game="boxing", max_noops=1)
    assert len({alike.reset(seed=seed)[0].tobytes() for seed in range(5)}) == 1


def test_an_episode_ends_with_the_game_and_the_next_one_has_all_its_lives(env):
    actions = np.random.default_rng(5)
    env.reset(seed=2)
    for _ in range(20_000):
        _, _, terminated, truncated, info = env.step(actions.integers(env.action_space.n))
        if terminated:
            break
    assert (terminated, truncated, info["lives"]) == (True, False, 0)
    assert info["episode_frame_number"] > 100
    _, info = env.reset()
    assert info == {"lives": 5, "score": 0, "episode_frame_number": 0}
    assert not env.step(env.noop_action)[2]


def test_gymnasiums_time_limit_goes_in_with_the_arguments():
    env = gymnasium.make("rtcore/Atari-v0", game="pong", max_episode_steps=5)
    env.reset(seed=1)
    assert [env.step(0)[3] for _ in range(5)] == [False] * 4 + [True]


def test_the_actions_are_the_games_own_or_all_of_the_consoles():
    few, all_of_them = AtariEnv(game="name_this_game"), AtariEnv(game="name_this_game", full_action_space=True)
    assert few.get_action_meanings() == ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    assert (few.action_space.n, all_of_them.action_space.n) == (6, 18)
    assert few.get_action_meanings()[few.noop_action] == "NOOP"


def test_doing_nothing_is_an_action_of_every_game():
    env = AtariEnv(game="backgammon")
    assert env.get_action_meanings() == ["NOOP", "FIRE", "RIGHT", "LEFT"]
    assert env.noop_action == 0


@pytest.mark.parametrize("name", ["NameThisGame", "name_this_game", "namethisgame", "Name_This_Game"])
def test_a_game_is_known_by_either_spelling(name):
    assert AtariEnv(game=name).get_action_meanings()[-1] == "LEFTFIRE"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"game": "boxin"}, "game='boxin', expected a game of ale-py.*did you mean boxing"),
        ({"game": "NameThisGane"}, "did you mean name_this_game"),
        ({"game": "zzz9"}, r"rtcore_envs.atari.games\(\) lists them"),
        ({"game": 7}, "game=7"),
        ({"game": "combat"}, "game='combat', expected a game for one player"),
        ({"observation": "native"}, "observation='native', expected one of"),
        ({"mode": 77}, r"mode=77 for boxing, expected one of \[0"),
        ({"difficulty": 9}, r"difficulty=9 for boxing, expected one of \[0, 1, 2, 3\]"),
        ({"repeat_action_probability": 1}, "repeat_action_probability=1, expected a number from 0"),
        ({"max_noops": 0}, "max_noops=0, expected at least 1"),
        ({"render_mode": "human"}, "render_mode='human'"),
    ],
)
def test_what_it_cannot_do_is_said_with_what_it_can(arguments, said):
    with pytest.raises(ValueError, match=said):
        AtariEnv(**arguments)


def test_an_action_outside_the_game_is_refused(env):
    env.reset()
    with pytest.raises(ValueError, match="action=4, expected a whole number from 0 to 3"):
        env.step(4)


def test_a_step_before_the_first_reset_is_refused():
    with pytest.raises(ResetNeeded, match="before the first reset"):
        AtariEnv(game="boxing").step(0)


def test_without_ale_py_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DependencyNotInstalled, match=r"pip install 'rtcore\[atari\]'"):
        gymnasium.make("rtcore/Atari-v0")


def test_mode_and_difficulty_make_another_game():
    plain, harder = AtariEnv(game="boxing", max_noops=1), AtariEnv(game="boxing", max_noops=1, difficulty=3)
    frames = []
    for env in (plain, harder):
        env.reset(seed=1)
        frames.append(np.array([env.step(step % 18)[0] for step in range(200)]))
    assert not np.array_equal(*frames)


@pytest.mark.slow
def test_every_game_begins_runs_and_begins_again():
    names = games()
    assert len(names) >= 100
    assert set(GAMES) <= set(names)
    for name in names:
        env = AtariEnv(game=name)
        first, info = env.reset(seed=0)
        for _ in range(50):
            assert env.observation_space.contains(env.step(env.action_space.sample())[0]), name
        again, info_again = env.reset(seed=0)
        np.testing.assert_array_equal(first, again, err_msg=name)
        assert info == info_again, name
