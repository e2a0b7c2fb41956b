"""Stable-Baselines3's DQN learns from a run of rtcore: its network plays in the workers, its `train` learns beside.

    pip install 'rtcore[sb3]'
    python examples/sb3_dqn.py --duration 60

The replay memory is the run's frame ring, each decision discounted by the ticks that it really governed; exploration is
DQN's own and travels to the workers with the weights. SAC and TD3 go the same way: examples/sb3_sac.py.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from own_world import make_world
from stable_baselines3 import DQN

import rtcore
import rtcore.sb3
from rtcore.errors import RtcoreError


def make_policy(observation_space: Any, action_space: Any) -> torch.nn.Module:
    """For the workers and for `learn`: DQN with settings of one's own."""
    return rtcore.sb3.policy(
        *(DQN, "MlpPolicy", observation_space, action_space),
        **{"gamma": 0.95, "learning_rate": 1e-3, "batch_size": 64, "learning_starts": 100},
        **{"train_freq": 1, "target_update_interval": 500, "exploration_fraction": 0.6},
    )


def train(duration_s: float, num_steps: int | None) -> None:
    torch.set_num_threads(1)
    with rtcore.Runtime(
        env_id=make_world, policy=make_policy, policy_args={"pad_ms": 30}, ring_slots=20_000, duration=duration_s
    ) as runtime:
        model = rtcore.sb3.learn(runtime, total_timesteps=num_steps)
    summary = runtime.summary()
    returns = [round(value, 1) for value in summary["episodes"]["returns"]]
    versions = summary["weights"]["publications"]
    print(f"{model._n_updates} updates, {versions} versions; first returns {returns[:3]}, last {returns[-3:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60.0, metavar="S", help="how long to learn [s] (default 60)")
    parser.add_argument("--steps", type=int, metavar="N", help="or from how many decisions")
    arguments = parser.parse_args()
    try:
        train(arguments.duration, arguments.steps)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
