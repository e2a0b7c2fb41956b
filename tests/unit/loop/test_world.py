"""What a world may return, what it may do with its action, and what is said where it returns something else."""

import math
import signal
import sys
import time
from types import SimpleNamespace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.host.descendants import TerminationRequested
from rtcore.loop.gymapi import flag_of, reset_results, reward_of, step_results
from rtcore.loop.process import build_world, time_steps
from rtcore.loop.world import GymnasiumWorld, make_environment
from rtcore.memory.counters import Words
from rtcore.memory.layout import ENV_COUNTERS
from rtcore.scheduling.dispatch import Source


class Plain(gymnasium.Env):
    """Returns what it is told; keeps every action it got."""

    metadata = {"render_fps": 50}  # noqa: RUF012
    observation_space = spaces.Box(-1, 1, (2,), np.float32)
    action_space = spaces.Box(-10, 10, (1,), np.float32)
    noop_action = np.array([0.25], np.float32)

    def __init__(self, *, step=None, reset=None, change=False, close=None):
        self.obs = np.zeros(2, np.float32)
        self._step = step if step is not None else (self.obs, 0.0, False, False, {})
        self._reset, self._change, self._close = reset if reset is not None else (self.obs, {}), change, close
        self.got, self.got_numbers = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self._reset

    def step(self, action):
        self.got_numbers.append(float(action[0]))
        self.got.append(action)
        if self._change:
            action *= 2
        if isinstance(self._step, BaseException):
            raise self._step
        return self._step

    def close(self):
        if self._close is not None:
            raise self._close


def world_of(**how):
    world = GymnasiumWorld(Plain(**how), seed=0)
    world.reset()
    return world


# -- actions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_missing", ["noop", "repeat"])
def test_a_world_that_writes_to_its_action_changes_neither_the_stand_in_nor_what_was_handed_over(on_missing):
    world = GymnasiumWorld(Plain(change=True), seed=0, on_missing=on_missing)
    world.reset()
    for _ in range(5):
        world.step(world.stand_in()[0])
    assert world.env.got_numbers == [0.25] * 5
    assert world.noop == pytest.approx([0.25])

    given = np.array([3.0], np.float32)
    world.step(given)
    assert given == pytest.approx([3.0])


def test_a_world_may_keep_the_actions_it_got():
    world = world_of()
    for number in (1.0, 2.0, 3.0):
        world.step(np.array([number], np.float32))
    assert [float(action[0]) for action in world.env.got] == [1.0, 2.0, 3.0]


def test_steps_in_which_the_world_wrote_to_its_action_are_counted_and_told_in_the_header():
    counters = Words(ENV_COUNTERS)
    world = world_of(change=True)
    world.count = counters.add
    for _ in range(3):
        world.step(np.array([1.0], np.float32))
    world.step(np.array([0.0], np.float32))  # twice nothing is the same
    assert counters["altered_actions"] == 3
    assert any("writes to the action" in note for note in world.notes(50))

    honest = world_of()
    honest.count = counters.add
    honest.step(np.array([1.0], np.float32))
    assert counters["altered_actions"] == 3
    assert honest.notes(50) == []


def test_a_wrapper_that_changes_actions_is_named_in_the_header():
    class Shield(gymnasium.ActionWrapper):
        def action(self, action):
            return np.clip(action, -0.5, 0.5)

    world = GymnasiumWorld(Shield(Plain()), seed=0)
    assert any(note.startswith("Shield changes actions") for note in world.notes(50))


def test_the_frame_of_a_reset_stays_when_the_world_writes_to_its_own_array():
    world = world_of()
    world.env.obs[:] = 1.0
    assert world.hold().frame.tolist() == [0.0, 0.0]


# -- speed -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate_hz", "said"), [(50, None), (50.05, None), (100, "runs at 2 times its own speed"), (25, "0.5 times its own")]
)
def test_a_rate_other_than_the_worlds_own_is_told_with_its_factor(rate_hz, said):
    notes = " ".join(world_of().notes(rate_hz))
    assert (said in notes) if said else not notes


def test_a_simulators_dt_says_more_than_its_render_fps():
    env = Plain()
    env.dt = 0.05
    (note,) = GymnasiumWorld(env, seed=0).notes(50)
    assert "2.5 times its own speed" in note and "(its dt)" in note


# -- what steps and resets return --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reward",
    [2.0, 2, np.float32(2), np.int64(2), np.array(2.0), np.array([2.0]), np.array([[2]]), torch.tensor(2.0)],
    ids=lambda reward: type(reward).__name__,
)
def test_a_reward_may_be_any_one_number(reward):
    value = reward_of(reward)
    assert type(value) is float and value == 2.0


def test_truth_is_a_number_too():
    assert (reward_of(True), reward_of(np.bool_(False))) == (1.0, 0.0)


@pytest.mark.parametrize(
    "reward",
    [None, "1.5", [1.0], {"a": 1.0}, np.array([1.0, 2.0]), np.array([]), np.array(["1"]), 1j, np.complex64(1)],
    ids=repr,
)
def test_what_is_not_one_number_is_no_reward_and_named(reward):
    with pytest.raises(EnvironmentFailed, match="the world returned reward .*expected one number"):
        reward_of(reward)


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf, np.float32("inf"), 10**400, torch.tensor(math.nan)])
def test_a_reward_is_finite(reward):
    with pytest.raises(EnvironmentFailed, match="the world returned reward .*expected a finite number"):
        reward_of(reward)


@pytest.mark.parametrize("flag", [True, np.bool_(True), 1, 1.0, np.array(True), np.array([1]), torch.tensor(True)])
def test_a_flag_may_be_any_one_truth(flag):
    assert flag_of(flag, "terminated") is True


@pytest.mark.parametrize("flag", [None, "yes", 2, np.array([False, True]), {"a": True}, math.nan], ids=repr)
def test_what_is_not_one_truth_is_no_flag_and_named(flag):
    with pytest.raises(EnvironmentFailed, match="the world returned truncated=.*expected True or False"):
        flag_of(flag, "truncated")


def test_four_results_are_the_old_api_and_the_error_says_what_to_do():
    with pytest.raises(EnvironmentFailed, match=r"returned a tuple of 4 .*expected a tuple of 5.*shimmy"):
        step_results((np.zeros(2), 0.0, False, {}))
    with pytest.raises(EnvironmentFailed, match=r"returned None .*from step\(\); expected a tuple of 5"):
        step_results(None)


@pytest.mark.parametrize(
    "returned", [np.zeros(3), np.zeros(2), {"a": 1, "b": 2}, None, (np.zeros(2),), (np.zeros(2), None)], ids=repr
)
def test_a_reset_without_info_is_the_old_api_also_where_it_would_unpack(returned):
    with pytest.raises(EnvironmentFailed, match=r"the world returned .* from reset\(\); expected a tuple of 2.*shimmy"):
        reset_results(returned)


def test_errors_say_returned_where_nothing_was_raised():
    world = world_of(step=(np.zeros(2), 0.0, False, False, {}))
    with pytest.raises(EnvironmentFailed, match="the world returned an array .*float64.*DtypeObservation"):
        world.step(world.noop)


def test_ctrl_c_is_no_fault_of_the_worlds_where_that_is_what_it_means(monkeypatch):
    world = world_of(step=KeyboardInterrupt())
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        world.step(np.zeros(1, np.float32))
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_IGN)
    with pytest.raises(EnvironmentFailed, match="KeyboardInterrupt"):
        world.step(np.zeros(1, np.float32))


def test_an_order_to_end_goes_through_the_world():
    with pytest.raises(TerminationRequested):
        world_of(step=TerminationRequested()).step(np.zeros(1, np.float32))


@pytest.mark.parametrize(
    ("made", "advice"),
    [(None, "does the function return"), (SimpleNamespace(step=1, reset=2), "shimmy"), (SimpleNamespace(), "Env$")],
)
def test_what_is_no_world_is_refused_with_advice(made, advice, monkeypatch):
    monkeypatch.setitem(sys.modules, "no_world", SimpleNamespace(make=lambda: made))
    with pytest.raises(ConfigError, match=advice):
        make_environment("no_world:make", {})


@pytest.mark.parametrize("error", [RuntimeError("the pole fell"), SystemExit("game over"), StopIteration("done")])
def test_whatever_the_world_raises_has_its_kind_and_text_in_the_error(error):
    with pytest.raises(EnvironmentFailed, match=rf"the world raised in step\(.*{type(error).__name__}: {error}"):
        world_of(step=error).step(np.zeros(1, np.float32))
    with pytest.raises(EnvironmentFailed, match=rf"the world raised in close\(\): {type(error).__name__}: {error}"):
        world_of(close=error).close()


def test_an_error_without_a_text_is_named_all_the_same():
    class Mute(Exception):
        def __str__(self):
            raise ValueError("no words")

    with pytest.raises(EnvironmentFailed, match="Mute: .*ValueError in its __str__"):
        world_of(step=Mute()).step(np.zeros(1, np.float32))


def test_a_reset_that_takes_no_seed_is_the_old_api():
    class Old(Plain):
        def reset(self):
            return self.obs

    with pytest.raises(EnvironmentFailed, match="unexpected keyword argument 'seed'.*shimmy"):
        GymnasiumWorld(Old(), seed=0).reset()


def test_repeat_goes_on_with_what_was_handed_over():
    world = GymnasiumWorld(Plain(change=True), seed=0, on_missing="repeat")
    world.reset()
    world.step(np.array([2.0], np.float32))
    action, source = world.stand_in()
    assert (float(action[0]), source) == (2.0, Source.REPEAT)


def test_an_id_of_a_package_that_is_not_installed_is_a_wrong_setting():
    with pytest.raises(ConfigError, match=r"no_such_package.*module:id of a package that is installed"):
        make_environment("no_such_package:World-v0", {})


def needs_a_level(level: int, *, lives: int = 3):
    raise AssertionError("never called")


def test_an_argument_that_a_world_needs_and_did_not_get_is_a_wrong_setting_that_names_it():
    name = f"{__name__}:needs_a_level"
    with pytest.raises(ConfigError, match=r"env-args: .*needs_a_level needs level, as in --env-args level="):
        build_world(RuntimeConfig(env_id=name, env_args={"lives": 2}).world, seed=0)


def test_what_a_worlds_own_module_lacks_is_not_taken_for_a_wrong_name(tmp_path, monkeypatch):
    (tmp_path / "needy_world.py").write_text("import no_such_simulator\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(EnvironmentFailed, match="no_such_simulator"):
        build_world(RuntimeConfig(env_id="needy_world:make").world, seed=0)
    with pytest.raises(ConfigError, match="no_such_world"):
        build_world(RuntimeConfig(env_id="no_such_world:make").world, seed=0)


def test_a_first_step_that_compiles_has_a_starts_time_and_is_not_what_a_step_is_taken_to_last() -> None:
    class Compiles(gymnasium.Wrapper):
        steps = 0

        def step(self, action):
            self.steps += 1
            if self.steps == 1:
                time.sleep(0.6)  # more than all timed steps may take together
            return self.env.step(action)

    env = Compiles(gymnasium.make("CartPole-v1"))
    calls = []
    world = GymnasiumWorld(env, seed=0)
    world.reset()
    time_steps(world, before_call=lambda call, first: calls.append((call, first)))
    assert env.steps > 1
    assert [first for _call, first in calls] == [True] + [False] * (len(calls) - 1)


# -- the safe action ---------------------------------------------------------------------------------------


def safe_world(safe_action="[-2.5]", **how):
    return GymnasiumWorld(Plain(**how), seed=0, safe_action=safe_action)


def test_the_safe_action_is_the_last_that_a_world_gets_before_it_is_closed():
    world = safe_world()
    world.reset()
    world.step(np.array([1.0], np.float32))
    world.close()
    assert world.env.got_numbers == [1.0, -2.5]


def test_what_was_made_safe_is_not_made_safe_twice_but_again_after_another_step_or_reset():
    world = safe_world()
    world.close()
    assert world.env.got_numbers == [], "it has never moved"
    for begin in (world.reset, lambda: world.step(np.array([1.0], np.float32))):
        begin()
        world.make_safe()
        world.make_safe()
    world.close()
    assert world.env.got_numbers == [-2.5, 1.0, -2.5]


@pytest.mark.parametrize("raises", [OSError("no answer"), TerminationRequested()])
def test_a_world_is_closed_even_if_it_does_not_take_the_safe_action(raises):
    world = safe_world(step=raises, close=OSError("cannot close"))
    world.reset()
    with pytest.raises(EnvironmentFailed, match=r"close\(\): OSError: cannot close") as caught:
        world.close()
    first = caught.value.__context__.__context__
    assert type(first) in (EnvironmentFailed, TerminationRequested), "what came first is kept"
    assert world.env.got_numbers == [-2.5]


def test_a_world_that_raised_is_made_safe_all_the_same():
    world = safe_world(step=OSError("a joint limit"))
    world.reset()
    with pytest.raises(EnvironmentFailed, match="a joint limit"):
        world.step(np.array([9.0], np.float32))
    world.env._step = (world.env.obs, 0.0, False, False, {})
    world.close()
    assert world.env.got_numbers == [9.0, -2.5]


def test_a_world_that_fails_in_its_first_reset_is_closed(monkeypatch):
    made = Plain(reset=OSError("no calibration"), close=OSError("was closed"))

    def make(*_):
        return made

    def reset(**_):
        raise OSError("no calibration")

    made.reset = reset
    monkeypatch.setattr("rtcore.loop.process.make_environment", make)
    closed = []
    made.close = lambda: closed.append(True)
    with pytest.raises(EnvironmentFailed, match="no calibration"):
        build_world(RuntimeConfig(env_id="x:y").world, 0)
    assert closed == [True]


@pytest.mark.parametrize(
    ("said", "meant"),
    [("noop", [0.25]), (3, [3.0]), ("-1", [-1.0]), ([0.5], [0.5]), ("[0.5]", [0.5])],
)
def test_a_safe_action_is_noop_a_number_or_a_list(said, meant):
    config = RuntimeConfig(safe_action=said).world
    assert safe_world(config.safe_action).safe == pytest.approx(meant)


def test_a_safe_action_that_is_none_is_refused_by_name():
    with pytest.raises(ConfigError, match="safe.action.*expected noop, a number, or a list"):
        make_config(safe_action="hands up")
    with pytest.raises(ConfigError, match=r"safe-action: \[1, 2\] has shape \(2,\); expected an element of Box"):
        safe_world("[1, 2]")
    with pytest.raises(ConfigError, match="safe-action: 11 is out of range"):
        safe_world("11")


def test_before_tick_0_a_step_is_timed_with_the_safe_action():
    world = safe_world()
    world.reset()
    time_steps(world)
    assert set(world.env.got_numbers) == {-2.5}
