"""Stable-Baselines3's PPO on a world that does not wait for it.

    pip install 'rtcore[sb3]'
    python examples/sb3_ppo.py --steps 5000

`RealtimeEnv` is an ordinary Gymnasium env, but for its clock: an action governs the next tick, and while PPO updates
its network the world goes on with the no-op. Nothing of that is hidden: `info["rtcore"]` says for each step how many
ticks went by, and the reward is the sum over all of them.
"""

from __future__ import annotations

import argparse

import torch
from own_world import make_world
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

import rtcore
from rtcore.errors import RtcoreError


class CountTicks(BaseCallback):
    """Adds up what `info["rtcore"]` says."""

    def __init__(self) -> None:
        super().__init__()
        self.ticks = self.missed_ticks = 0

    def _on_step(self) -> bool:
        for info in self.locals["infos"]:
            self.ticks += info["rtcore"]["ticks_since_last_step"]
            self.missed_ticks += info["rtcore"]["missed_ticks"]
        return True


def train(num_steps: int) -> None:
    torch.set_num_threads(1)
    # The world moves 200 times a second; looked at as often, it leaves PPO 5 ms for a step.
    with rtcore.RealtimeEnv(make_world, env_args={"fps": 200}) as env:
        count = CountTicks()
        model = PPO("MlpPolicy", env, n_steps=256, batch_size=64, n_epochs=4, gamma=0.95, device="cpu", seed=0)
        model.learn(total_timesteps=num_steps, callback=count)
        returns = [round(value, 1) for value in env.runtime.summary()["episodes"]["returns"]]
        lateness = env.runtime.summary()["ticks"]["lateness_us"]
    print(f"{model.num_timesteps} steps in {count.ticks} ticks, {count.missed_ticks} of them without an action")
    print(f"first returns {returns[:3]}, last {returns[-3:]}; tick lateness p99 {lateness['p99']:.0f} us")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, metavar="N", help="how many steps to learn (default 5000)")
    try:
        train(parser.parse_args().steps)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
