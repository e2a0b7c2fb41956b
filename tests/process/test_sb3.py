"""Stable-Baselines3 learns from a run of real processes."""

from __future__ import annotations

import math
from typing import Any

import pytest

import rtcore
from rtcore.errors import ConfigError, EnvironmentFailed
from tests.support import embed_worlds

pytest.importorskip("stable_baselines3")

from stable_baselines3 import DQN, TD3
from stable_baselines3.common.callbacks import BaseCallback

import rtcore.sb3

pytestmark = pytest.mark.process

QUICK: dict[str, Any] = {"learning_starts": 20, "batch_size": 8, "policy_kwargs": {"net_arch": [8]}}


def td3(observation_space: Any, action_space: Any, act_history: int = 0) -> Any:
    return rtcore.sb3.policy(TD3, "MultiInputPolicy", observation_space, action_space, act_history, **QUICK)


def dqn(observation_space: Any, action_space: Any) -> Any:
    return rtcore.sb3.policy(DQN, "MlpPolicy", observation_space, action_space, **QUICK)


class Enough(BaseCallback):
    """Says so once there are 32 updates."""

    def _on_step(self) -> bool:
        return self.model._n_updates < 32


def test_a_callback_ends_the_learning_and_the_run_goes_on_with_what_was_published(
    caplog: pytest.LogCaptureFixture,
) -> None:
    args = {"env_id": "Pendulum-v1", "fps": 50, "policy": td3, "act_history": 2, "duration": 600}
    with pytest.raises(ConfigError, match="explore=True: the model explores by itself"):
        rtcore.sb3.learn(rtcore.Runtime(**args, explore=True))
    with rtcore.Runtime(**args) as runtime:
        with pytest.raises(ConfigError, match="total_timesteps=0: expected at least 1"):
            rtcore.sb3.learn(runtime, total_timesteps=0)
        enough = Enough()
        model = rtcore.sb3.learn(runtime, callback=enough)
        assert model.num_timesteps == enough.n_calls > QUICK["learning_starts"]
        assert model._n_updates >= 32
        assert not runtime.wait(0), "the run itself goes on"
        assert runtime.summary()["weights"]["updates"] == model._n_updates, "what was learned last is played, too"
        assert rtcore.sb3.learn(runtime, total_timesteps=30).num_timesteps == 30
    assert "the replay memory is the frame ring, of 4096 frames: ring_slots was not given" in caplog.text


def test_what_ends_the_run_is_raised_by_learn_and_a_run_without_an_end_asks_for_a_number_of_steps() -> None:
    args = {"break_at": 300, "fps": 50}
    with rtcore.Runtime(env_id=embed_worlds.unlucky, env_args=args, policy=dqn, duration=math.inf) as runtime:
        with pytest.raises(ConfigError, match="goes on until it is stopped.*give total_timesteps"):
            rtcore.sb3.learn(runtime)
        with pytest.raises(EnvironmentFailed):
            rtcore.sb3.learn(runtime, total_timesteps=10**6)
