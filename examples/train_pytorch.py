"""A trainer of one's own around `rtcore.Runtime`: DQN in one file, in plain PyTorch.

    python examples/train_pytorch.py --duration 60

rtcore plays: a world at 50 Hz, as many workers as give an action every tick, exploration. This program only learns. It
takes decisions out of the frame ring (`sample`), and hands new weights to all workers at once (`publish`), between two
of their inferences. Neither delays a tick, however long an update takes.
"""

from __future__ import annotations

import argparse
import copy
from collections import deque
from typing import Any

import gymnasium
import torch
from torch import Tensor, nn
from torch.nn import functional

import rtcore
from rtcore.errors import RtcoreError

GAMMA = 0.95  # per tick
BATCH_SIZE = 64
PUBLISH_EVERY = 20  # updates
TARGET_EVERY = 200  # updates


def make_network(observation_space: gymnasium.spaces.Box, action_space: gymnasium.spaces.Discrete) -> nn.Module:
    """The Q-network. Each worker process calls this too: it imports this file, which does nothing then."""
    return nn.Sequential(
        nn.Linear(observation_space.shape[0], 64),
        nn.ReLU(),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Linear(64, action_space.n),
    )


def loss_of(online: nn.Module, target: nn.Module, batch: Any) -> Tensor:
    """DQN. A decision governs one tick or more: `discount` is GAMMA to that power, whatever the delay was."""
    with torch.no_grad():
        best = target(batch.next_obs).max(dim=1).values
        wanted = batch.reward + batch.discount * best * ~batch.terminated
    chosen = online(batch.obs).gather(1, batch.action[:, None]).squeeze(1)
    return functional.smooth_l1_loss(chosen, wanted)


def train(duration_s: float, most_updates: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    returns: deque[float] = deque(maxlen=5)
    runtime = rtcore.Runtime(
        env_id="own_world:make_world",
        policy=make_network,
        policy_args={"pad_ms": 30},  # as if it were a large network: 2 ticks
        explore=True,
        epsilon_ticks=int(duration_s * 50 * 0.6),
        duration=duration_s,
        on_episode=lambda episode: returns.append(episode.total_reward),
    )
    with runtime:
        online = make_network(runtime.observation_space, runtime.action_space)
        target = copy.deepcopy(online)
        optimizer = torch.optim.Adam(online.parameters(), lr=1e-3)
        runtime.publish(online.state_dict())
        updates, version = 0, 0
        while updates < most_updates and not runtime.wait(0):  # raises whatever goes wrong in any process of the run
            batch = runtime.sample(BATCH_SIZE, gamma=GAMMA)
            if batch is None:
                runtime.wait(0.05)
                continue
            optimizer.zero_grad()
            loss = loss_of(online, target, batch)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            updates += 1
            if updates % PUBLISH_EVERY == 0:
                version = runtime.publish(online.state_dict(), updates=updates) or version
            if updates % TARGET_EVERY == 0:
                target.load_state_dict(online.state_dict())
            if updates % 1000 == 0 and returns:
                recent = sum(returns) / len(returns)
                print(f"update {updates}, version {version}, loss {loss.item():.4f}, return {recent:.1f}")
    episodes = runtime.summary()["episodes"]["returns"]
    print(
        f"{updates} updates, {version} versions; first returns {rounded(episodes[:3])}, last {rounded(episodes[-3:])}"
    )


def rounded(values: list[float]) -> list[float]:
    return [round(value, 1) for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=60.0, metavar="S", help="how long to learn [s] (default 60)")
    parser.add_argument("--updates", type=int, default=10**9, metavar="N", help="or how many updates to make")
    arguments = parser.parse_args()
    try:
        train(arguments.duration, arguments.updates)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
