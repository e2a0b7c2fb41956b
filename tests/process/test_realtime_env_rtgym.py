"""rtgym's interface classes on rtcore's clock."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

import rtcore
from rtcore.errors import ConfigError
from rtcore.memory.segments import files_of
from rtcore.runtime.rtgym import InterfaceEnv, realtime_env
from tests.support import embed_worlds
from tests.support.drills import let_ticks_run

pytestmark = pytest.mark.process


ROBOT: dict[str, Any] = {
    "interface": embed_worlds.FakeRobot,
    "interface_kwargs": {"gain": 2.0},
    "time_step_duration": 0.02,
    "ep_max_length": math.inf,
    "act_buf_len": 2,
}


def test_an_interface_is_stepped_as_rtgym_would_with_its_observation_put_together_again() -> None:
    env = realtime_env(ROBOT)
    try:
        assert [type(space) for space in env.observation_space.spaces] == [gymnasium.spaces.Box] * 4
        assert env.metadata["render_fps"] == 50
        obs, _ = env.reset()
        assert obs in env.observation_space
        assert (obs[0], obs[1].tolist()) == (0, [[0, 7]])
        position, before = 0.0, 1  # reset has sent the default action, after its observation
        # So small that the robot is not at its end, however long this program is kept from a CPU.
        for control in (1 / 64, 1 / 32, 1 / 16, 1 / 128):
            obs, _, terminated, truncated, info = env.step(np.array([control], np.float32))
            assert obs in env.observation_space
            assert obs[-1] == control
            about = info["rtcore"]
            assert obs[1][0, 0] - before == about["acted_ticks"] + about["missed_ticks"], "a control at every tick"
            position, before = obs[0][0], obs[1][0, 0]
            assert not terminated
            assert not truncated
        assert position >= 2 * (1 / 64 + 1 / 32 + 1 / 16 + 1 / 128)
        assert obs[2] == [1 / 16]
    finally:
        env.close()
    assert files_of(env.unwrapped.runtime.run_id) == []


def test_a_control_stays_as_a_robots_does_while_the_program_thinks() -> None:
    env = realtime_env(ROBOT)
    try:
        env.reset()
        obs, *_ = env.step(np.array([1 / 64], np.float32))
        before = obs[0][0]
        let_ticks_run(env.unwrapped.runtime, 4)
        # The same again: the tick in which it acts need not be the last before the frame that is seen.
        obs, *_, info = env.step(np.array([1 / 64], np.float32))
        moved = info["rtcore"]["acted_ticks"] + info["rtcore"]["missed_ticks"]
        assert obs[0][0] == before + moved * 2 / 64
        assert info["rtcore"]["missed_ticks"] >= 3
    finally:
        env.close()


def test_an_interface_is_a_world_for_workers_too() -> None:
    args = {"interface": "tests.support.embed_worlds:FakeRobot", "time_step_duration": 0.02, "ep_max_length": 20}
    with rtcore.Runtime(
        env_id="rtcore.runtime.rtgym:make_world", env_args=args, policy="random", workers=1, ticks=90, overrun="stretch"
    ) as runtime:
        runtime.wait()
    summary = runtime.summary()
    assert summary["ticks"]["ideal_hz"] == 50
    assert summary["episodes"]["count"] >= 2
    assert set(summary["episodes"]["num_ticks"]) == {20}


def test_keys_that_cannot_be_kept_are_refused() -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"obs_prepro_func": abs}, "obs_prepro_func is not supported"),
        ({"start_obs_capture": 0.01}, "expected the same"),
        ({"time_step": 0.01}, "unknown key time_step"),
        ({"interface": lambda: None}, "move it to a module"),
    ]
    for change, message in wrong:
        with pytest.raises(ConfigError, match=message):
            realtime_env(ROBOT | change)


@pytest.mark.unit
def test_an_interface_with_one_box_keeps_its_shape_and_dtype() -> None:
    class Camera(embed_worlds.FakeRobot):
        def get_observation_space(self) -> Any:
            return gymnasium.spaces.Tuple((gymnasium.spaces.Box(0, 255, (4, 5), np.uint8),))

        def _observe(self) -> list[Any]:
            return [np.full((4, 5), 9, np.uint8)]

    env = InterfaceEnv(Camera())
    obs, _ = env.reset()
    assert (obs.shape, obs.dtype) == ((4, 5), np.uint8)


def test_the_real_rtgym_drone_runs_unchanged() -> None:
    pytest.importorskip("rtgym")
    program = "tests.support.rtgym_side_by_side"
    done = subprocess.run([sys.executable, "-m", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["played", "played"]
