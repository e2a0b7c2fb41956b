"""Stable-Baselines3's DQN learns from a run of rtcore: its network plays in the workers, its `train` learns beside.

    pip install 'rtcore[sb3]'
    python examples/sb3_dqn.py --duration 60

Three things connect the two: the policy's factory returns SB3's own Q-network, so that weights fit; the replay buffer
draws from the run's frame ring, each decision with the discount of the ticks that it really governed; and `publish`
hands the learned weights to all workers.
"""

from __future__ import annotations

import argparse
from typing import Any

import gymnasium
import torch
from own_world import make_world
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.type_aliases import ReplayBufferSamples
from stable_baselines3.common.utils import polyak_update
from torch import nn

import rtcore
from rtcore.errors import RtcoreError

GAMMA = 0.95  # per tick
UPDATES_PER_ROUND = 20
TARGET_EVERY = 10  # rounds


class Spaces(gymnasium.Env[Any, Any]):
    """All that SB3 has to know of the world. It is never stepped: rtcore does that."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        return self.observation_space.sample(), {}


def make_model(observation_space: Any, action_space: Any, **arguments: Any) -> DQN:
    return DQN("MlpPolicy", Spaces(observation_space, action_space), gamma=GAMMA, device="cpu", seed=0, **arguments)


def make_network(observation_space: Any, action_space: Any) -> nn.Module:
    """For the workers: SB3's Q-network, which takes raw observations and returns action values."""
    return make_model(observation_space, action_space, buffer_size=1).q_net


class RunReplay(ReplayBuffer):
    """SB3's replay buffer, but nothing is stored twice: the run's frames are in its ring already."""

    runtime: rtcore.Runtime

    def sample(self, batch_size: int, env: Any = None) -> ReplayBufferSamples:
        batch = self.runtime.sample(batch_size, gamma=GAMMA)
        if batch is None:
            raise RuntimeError("there are not enough transitions yet: ask Runtime.sample first")
        columns = (batch.terminated.float(), batch.reward, batch.discount)
        dones, rewards, discounts = (column[:, None] for column in columns)
        # A decision that governed several ticks is discounted by all of them.
        return ReplayBufferSamples(batch.obs, batch.action[:, None], batch.next_obs, dones, rewards, discounts)


def train(duration_s: float) -> None:
    torch.set_num_threads(1)
    with rtcore.Runtime(
        env_id=make_world,
        policy=make_network,
        policy_args={"pad_ms": 30},
        explore=True,
        epsilon_ticks=int(duration_s * 50 * 0.6),
        duration=duration_s,
    ) as runtime:
        model = make_model(
            runtime.observation_space,
            runtime.action_space,
            learning_rate=1e-3,
            batch_size=64,
            buffer_size=1,
            replay_buffer_class=RunReplay,
        )
        model.set_logger(configure(None, []))
        model.replay_buffer.runtime = runtime
        rounds, version = 0, 0
        while not runtime.wait(0):
            if runtime.sample(model.batch_size, gamma=GAMMA) is None:
                runtime.wait(0.05)
                continue
            model.train(gradient_steps=UPDATES_PER_ROUND, batch_size=model.batch_size)
            rounds += 1
            if rounds % TARGET_EVERY == 0:
                polyak_update(model.q_net.parameters(), model.q_net_target.parameters(), tau=1.0)
            version = runtime.publish(model.q_net.state_dict(), updates=model._n_updates) or version
    returns = [round(value, 1) for value in runtime.summary()["episodes"]["returns"]]
    print(f"{model._n_updates} updates, {version} versions; first returns {returns[:3]}, last {returns[-3:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60.0, metavar="S", help="how long to learn [s] (default 60)")
    try:
        train(parser.parse_args().duration)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
