"""CartPole with pushes, and with a place to be at that only a picture tells."""

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rtcore_envs.cartpole import SetPointCartPoleEnv, column_of
from rtcore_envs.errors import SettingError

pytestmark = pytest.mark.unit


def made(name, **arguments):
    return gymnasium.make(f"rtcore_envs:rtcore/{name}-v0", **arguments)


def played(env, actions, seed=3):
    """(observations, rewards, how it ended) of an episode's first steps."""
    observations, rewards = [env.reset(seed=seed)[0]], []
    for action in actions:
        observation, reward, terminated, truncated, _ = env.step(int(action))
        observations.append(observation)
        rewards.append(reward)
        if terminated or truncated:
            return observations, rewards, (terminated, truncated)
    return observations, rewards, (False, False)


@pytest.mark.filterwarnings("ignore:.*infinity")  # of CartPole's own space
@pytest.mark.parametrize("name", ["PushedCartPole", "SetPointCartPole"])
def test_both_are_worlds_as_gymnasium_wants_them(name):
    env = made(name)
    assert env.metadata["render_fps"] == 50
    check_env(env.unwrapped, skip_render_check=True)


def test_without_pushes_it_is_cartpole():
    actions = np.random.default_rng(0).integers(0, 2, 100)
    ours, theirs = played(made("PushedCartPole", push_std=0), actions), played(gymnasium.make("CartPole-v1"), actions)
    assert np.array_equal(ours[0], theirs[0])
    assert ours[1:] == theirs[1:]


def test_with_a_no_op_the_cart_is_pushed_left_right_or_not_at_all():
    env = made("PushedCartPole", push_std=0, has_noop=True)
    assert env.action_space == gymnasium.spaces.Discrete(3)
    assert env.unwrapped.noop_action == 1
    speeds = []
    for action in range(3):
        env.reset(seed=0)
        env.unwrapped.state = np.zeros(4)
        speeds.append(float(env.step(action)[0][1]))
    assert speeds[0] == -speeds[2] < 0
    assert speeds[1] == 0


def test_a_longer_pole_falls_more_slowly():
    def angle_after(pole_m):
        env = made("PushedCartPole", push_std=0, has_noop=True, pole_m=pole_m)
        env.reset(seed=0)
        env.unwrapped.state = np.array([0, 0, 0.1, 0], np.float64)
        for _ in range(10):
            env.step(1)
        return env.unwrapped.state[2]

    # From rest the angle grows as the cosh of time by sqrt(length / g), nearly: the cart gives way a little.
    grown = [angle_after(pole_m) / 0.1 - 1 for pole_m in (1.0, 4.0)]
    assert grown[0] / grown[1] == pytest.approx(4.0, rel=0.15)


def test_pushes_are_forces_of_the_wanted_size_and_come_from_the_seed():
    actions = [0, 1] * 8
    one, same, other = (played(made("PushedCartPole"), actions, seed)[0] for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    speeds = []
    env = made("PushedCartPole", push_std=4.0)
    env.reset(seed=0)
    for _ in range(400):
        env.unwrapped.state = np.zeros(4)
        speeds.append(float(env.step(1)[0][1]))
    # From rest, a force of 1.1 N changes the speed by 0.02 m/s in a step of 0.02 s; a pole that gives way adds 2%.
    assert np.std(speeds) == pytest.approx(4.0 * 0.02 / 1.1 * 1.02, rel=0.12)
    assert np.mean(speeds) == pytest.approx(10.0 * 0.02 / 1.1 * 1.02, abs=0.02)


def test_an_episode_is_cut_after_as_many_steps_as_it_is_told():
    assert played(made("PushedCartPole", max_steps=5), [0, 1] * 5)[2] == (False, True)
    assert played(made("PushedCartPole", max_steps=100), [1] * 100)[2] == (True, False)


@pytest.mark.parametrize("arguments", [{"push_std": -1}, {"push_std": float("nan")}, {"max_steps": 0}, {"pole_m": 0}])
def test_settings_that_mean_nothing_are_refused(arguments):
    with pytest.raises(SettingError, match="expected"):
        made("PushedCartPole", **arguments)


def test_the_picture_shows_the_place_and_nothing_else_does():
    env = made("SetPointCartPole", jump_steps=3, push_std=0)
    observations, rewards, _ = played(env, [0, 1] * 8)
    bars = [np.flatnonzero(seen["picture"][0]).mean() for seen in observations]
    places = [bar / (observations[0]["picture"].shape[1] - 1) * 4.8 - 2.4 for bar in bars]
    assert [place != before for before, place in zip(places, places[1:], strict=False)] == [False, False, True] * 5 + [
        False
    ]
    assert all(seen["state"].shape == (4,) for seen in observations)
    near = [abs(seen["state"][0] - place) < 0.4 for seen, place in zip(observations[1:], places, strict=False)]
    assert rewards == [float(is_near) for is_near in near]


def test_places_are_far_apart_and_within_reach():
    env = SetPointCartPoleEnv(jump_steps=1, push_std=0)
    env.reset(seed=0)
    places = [0.0]
    for step in range(30):
        places.append(env._set_point)
        env.step(step % 2)
    assert all(
        abs(place) <= 1.2 and abs(place - before) >= 0.8 for before, place in zip(places, places[1:], strict=False)
    )
    assert [column_of(place) for place in (-2.4, 0.0, 2.4)] == [0, 48, 95]
