"""The real rtgym and ours, one after the other, with one interface class. A program of its own: rtgym's drone runs in
threads that never end, and that draw random numbers."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import rtgym

from rtcore.runtime.rtgym import realtime_env
from tests.support import rtgym_drone


def main() -> None:
    config = rtgym.DEFAULT_CONFIG_DICT | {"interface": rtgym_drone.Drone, "ep_max_length": 30, "act_buf_len": 4}
    ours = realtime_env(config)
    theirs = gymnasium.make("real-time-gym-v1", config=config, disable_env_checker=True)
    try:
        assert ours.observation_space == theirs.observation_space
        assert ours.action_space == theirs.action_space
        for env in (ours, theirs):
            play(env)
    finally:
        ours.close()
        theirs.close()


def play(env: gymnasium.Env[Any, Any]) -> None:
    obs, _ = env.reset()
    assert obs in env.observation_space
    is_over, steps = False, 0
    while not is_over and steps < 30:  # fewer, where the machine stood still: the world went on meanwhile
        obs, reward, terminated, truncated, _ = env.step(np.array([1.0, 0.5], np.float32))
        is_over = terminated or truncated
        steps += 1
    assert is_over
    # 1.45 s at up to (1, 0.5) a second, less some delays; the drone stops at the border of its world.
    assert 0.2 < obs[0][0] <= 1
    assert [list(action) for action in obs[-4:]] == [[1.0, 0.5]] * 4
    assert float(reward) < 0
    print("played")


if __name__ == "__main__":
    main()
