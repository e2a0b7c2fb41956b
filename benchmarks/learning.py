"""What an update of a learner costs, beside a plain single-file DQN loop with the same network and batch.

    python -m benchmarks.learning [--policy dqn] [--batch 32] [--rounds 12] [--updates 50]

Both learn from the same random 84x84 frames, one thread, in turns (plain rtcore, rtcore plain, ...), so that a machine
that slows down hits both alike. rtcore: transitions from a frame ring, weights and optimizer in the master (locked,
copied to and fro), weights published to a parameter store every 10 updates. plain: frames in a NumPy array, gradients
by torch.autograd, torch.optim.Adam, torch.nn.utils.clip_grad_norm_: a loop as people write it, without any of that.
What counts is CPU time. Wanted: rtcore makes at least as many updates per second of CPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional

from rtcore.clock import cpu_time_ns
from rtcore.config.groups import LearningSettings
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.layout import FrameHeader
from rtcore.memory.master import MasterState
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import ParamStore, layout_of
from rtcore.scheduling.dispatch import TickKind
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.dqn import DqnLearner
from rtcore_workers.policies import build_network
from rtcore_workers.weights.shared import manifest_of, write_weights

FRAMES = 4000
NUM_ACTIONS = 7
TARGET_EVERY = 1000
GAMMA = 0.99
OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 255, (84, 84), np.uint8))
ACTION = ActionSpec.from_space(spaces.Discrete(NUM_ACTIONS))
SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "max_grad_norm": 10.0, "target_every": TARGET_EVERY}


def network(policy: str) -> nn.Module:
    return build_network(policy, {}, OBSERVATION, ACTION, seed=0)


def filled_ring(frames: np.ndarray[Any, Any], actions: np.ndarray[Any, Any]) -> FrameRing:
    """One decision a tick, a tick old, without an end."""
    ring = FrameRing.private(OBSERVATION, ACTION.nbytes, len(frames) + 2)
    for tick, frame in enumerate(frames):
        kind = TickKind.RESET if tick == 0 else TickKind.ACTED
        header = FrameHeader(
            frame_seq=ring.next_seq, tick=tick, kind=kind, reward=tick % 2, obs_tick=tick - 1, due_tick=tick
        )
        ring.publish(frame, header, actions[tick].tobytes())
    return ring


def rtcore_update(policy: str, batch: int, frames: Any, actions: Any) -> Callable[[], None]:
    """One update as a learner process makes it, master and parameter store included."""
    module = network(policy)
    manifest = manifest_of(module)
    layout = layout_of(manifest, 1)
    store = ParamStore(memoryview(bytearray(layout.num_bytes)), layout)
    store.publish(lambda buffer: write_weights(module, manifest, buffer))
    master = MasterState.private(manifest.trainable_bytes)
    master.begin(manifest.trainable_array(store.buffer(store.newest().buffer)))
    reader = TransitionReader(filled_ring(frames, actions), ACTION, 0, TransitionBuilder(GAMMA))
    reader.update()

    def publish(weights: Any, updates: int) -> int | None:
        version = store.publish(lambda buffer: np.copyto(manifest.trainable_array(buffer), weights), updates=updates)
        return version.version if version is not None else None

    settings = LearningSettings(batch_size=batch, n_step=1, double_dqn=False, publish_every=10, **SETTINGS)
    learner = DqnLearner(
        network(policy), network(policy), manifest, master, reader, settings, ACTION, seed=0, publish=publish
    )

    def update() -> None:
        reader.update()
        learner.update()

    return update


def plain_update(policy: str, batch: int, frames: Any, actions: Any) -> Callable[[], None]:
    """One update of a loop as people write it."""
    online, target = network(policy), network(policy)
    optimizer = torch.optim.Adam(online.parameters(), lr=SETTINGS["learning_rate"])
    rewards = np.arange(len(frames), dtype=np.float32) % 2
    dones = np.zeros(len(frames), np.float32)
    rng = np.random.default_rng(0)
    updates = 0

    def update() -> None:
        nonlocal updates
        rows = rng.integers(0, len(frames) - 1, batch)
        obs, next_obs = torch.from_numpy(frames[rows]), torch.from_numpy(frames[rows + 1])
        action = torch.from_numpy(actions[rows + 1])
        reward, done = torch.from_numpy(rewards[rows]), torch.from_numpy(dones[rows])
        with torch.no_grad():
            goal = reward + GAMMA * (1 - done) * target(next_obs).max(1).values
        loss = functional.smooth_l1_loss(online(obs).gather(1, action[:, None])[:, 0], goal)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(online.parameters(), SETTINGS["max_grad_norm"])
        optimizer.step()
        updates += 1
        loss.item()
        if updates % TARGET_EVERY == 0:
            target.load_state_dict(online.state_dict())

    return update


def cpu_ms(update: Callable[[], None], count: int) -> float:
    start_ns = cpu_time_ns()
    for _ in range(count):
        update()
    return (cpu_time_ns() - start_ns) / count / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="dqn", help="network (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=32, help="transitions in an update (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=12, help="turns of each (default: %(default)s)")
    parser.add_argument("--updates", type=int, default=50, help="updates in a turn (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (FRAMES, 84, 84), dtype=np.uint8)
    actions = rng.integers(0, NUM_ACTIONS, FRAMES)
    makers = {"plain": plain_update, "rtcore": rtcore_update}
    updates = {name: make(arguments.policy, arguments.batch, frames, actions) for name, make in makers.items()}
    for update in updates.values():
        cpu_ms(update, 20)
    times: dict[str, list[float]] = {name: [] for name in updates}
    watch = HostWatch()
    for number in range(arguments.rounds):
        for name in sorted(updates, reverse=bool(number % 2)):
            times[name].append(cpu_ms(updates[name], arguments.updates))
    table = Table("", "CPU ms an update, median", "least", "most", "updates per s of CPU")
    for name, each in times.items():
        row = (f"{median(each):.2f}", f"{min(each):.2f}", f"{max(each):.2f}", f"{1000 / median(each):.1f}")
        table.add_row(name, *row)
    console = Console()
    console.print(table)
    ratios = [plain / ours for plain, ours in zip(times["plain"], times["rtcore"], strict=True)]
    console.print(
        f"rtcore makes {median(ratios):.3f} times as many updates (least {min(ratios):.3f}, most {max(ratios):.3f} "
        f"over {len(ratios)} pairs); policy {arguments.policy}, batch {arguments.batch}"
    )
    console.print(conditions_text(watch.conditions()), highlight=False)


if __name__ == "__main__":
    main()
