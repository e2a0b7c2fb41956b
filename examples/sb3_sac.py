"""Stable-Baselines3's SAC learns to swing up a pendulum in real time, 150 ms late: from nothing in 15 minutes.

    pip install 'rtcore[sb3]'
    python examples/sb3_sac.py --duration 900
    rtcore-run --env-id Pendulum-v1 --fps 20 --policy sb3:pendulum.zip --policy-args pad_ms=100 \\
        --obs-history 2 --act-history 3

The policy takes as long as one of 100 ms would, at 20 Hz, so that three workers take turns and each action is three
ticks old when it is applied. The two older frames and the three last actions tell it what it cannot see yet. TD3 and
DQN go the same way: `rtcore.sb3.policy(TD3, ..., action_noise=NormalActionNoise(...))`.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from stable_baselines3 import SAC

import rtcore
import rtcore.sb3
from rtcore.errors import RtcoreError


def make_policy(observation_space: Any, action_space: Any, act_history: int) -> torch.nn.Module:
    """For the workers and for `learn`: SAC with settings of one's own."""
    settings = {"learning_rate": 1e-3, "gamma": 0.98, "learning_starts": 400, "policy_kwargs": {"net_arch": [64, 64]}}
    return rtcore.sb3.policy(SAC, "MultiInputPolicy", observation_space, action_space, act_history, **settings)


def train(duration_s: float, seed: int, out: str | None) -> None:
    torch.set_num_threads(1)
    late = {"policy_args": {"pad_ms": 100}, "obs_history": 2, "act_history": 3}
    world = {"env_id": "Pendulum-v1", "fps": 20, "seed": seed, "duration": duration_s, "out": out}
    with rtcore.Runtime(policy=make_policy, ring_slots=30_000, **world, **late) as runtime:
        model = rtcore.sb3.learn(runtime)
    model.save("pendulum.zip")
    summary = runtime.summary()
    returns = [round(value) for value in summary["episodes"]["returns"]]
    print(f"{model._n_updates} updates, {summary['weights']['publications']} versions; returns {returns}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=900, metavar="S", help="how long to learn [s] (default 900)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the run and of SAC (default 0)")
    parser.add_argument("--out", metavar="DIR", help="write the run's rows there")
    arguments = parser.parse_args()
    try:
        train(arguments.duration, arguments.seed, arguments.out)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
