"""Real-time chunking: chunks of a random policy that go on where the last one is, shown with a flow policy of our own.

    python examples/realtime_chunking.py

A pen draws one of two paths, one the mirror image of the other; both are right, and a policy that learned from both
draws one at random. Its chunks (16 actions from the frame on) take 5 ticks to compute, and a new one comes every 5
ticks. So each new chunk may be of the other path, and the pen jumps. Three ways, by `mode`:

- naive: a chunk knows nothing of the one before. The pen jumps at every second border.
- prefix: the policy was trained to be given the first actions of its chunk, as in training-time real-time chunking
  (arXiv 2512.05964), and is given those that will have acted when the chunk is due (`context.committed`)
- guided: a policy that was not is led to them while it computes, by a gradient (real-time chunking, arXiv 2506.07339)

The same network plays all three: it was trained with prefixes of 0 to 8 actions. Training takes some seconds on a CPU.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from rtcore import RuntimeConfig
from rtcore.virtual.simulate import Simulation

HORIZON = 16
LONGEST_PREFIX = 8
PERIOD_TICKS = 40
EPISODE_TICKS = 400
#: Steps of the flow, from noise to a chunk. A pull has to come in small doses.
NUM_STEPS = {"naive": 10, "prefix": 10, "guided": 40}
_MOST_GUIDANCE = 15.0


def path_at(tick: int | Tensor) -> Tensor:
    """Where the upper path is at a tick; the lower one is as far below 0."""
    return 0.55 + 0.3 * torch.cos(torch.as_tensor(tick) * (2 * math.pi / PERIOD_TICKS))


class Paper(gymnasium.Env[Any, Any]):
    """Observation: the hand of a clock, (2,) float32, once round in a path. Action: where the pen is, (1,) float32."""

    metadata = {"render_modes": [], "render_fps": 50}  # noqa: RUF012 - Gymnasium's own form

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._tick = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._tick = 0
        return self._clock(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._tick += 1
        error = abs(abs(float(action[0])) - float(path_at(self._tick)))
        return self._clock(), -error, False, self._tick >= EPISODE_TICKS, {}

    def _clock(self) -> Any:
        angle = self._tick * (2 * math.pi / PERIOD_TICKS)
        return np.array([math.cos(angle), math.sin(angle)], np.float32)


class Velocity(nn.Module):
    """Which way each action of a chunk moves on its way from noise (time 0) to an action (time 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(2 * HORIZON + 2, 128), nn.SiLU(), nn.Linear(128, 128), nn.SiLU(), nn.Linear(128, HORIZON)
        )

    def forward(self, chunk: Tensor, times: Tensor, observation: Tensor) -> Tensor:
        """`chunk`, `times`: (N, H), each action at a time of its own. `observation`: (N, 2)."""
        velocity: Tensor = self.layers(torch.cat([chunk, times, observation], dim=1))
        return velocity


def train(num_updates: int = 1600, batch_size: int = 256) -> Velocity:
    """Flow matching on both paths, with the first 0 to 8 actions of a chunk given."""
    torch.set_num_threads(1)  # the network is small
    torch.manual_seed(0)
    network = Velocity()
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, num_updates)
    places = torch.arange(HORIZON)
    for _ in range(num_updates):
        ticks = torch.randint(0, PERIOD_TICKS, (batch_size, 1))
        angles = ticks * (2 * math.pi / PERIOD_TICKS)
        side = torch.randint(0, 2, (batch_size, 1)) * 2 - 1
        chunk = side * path_at(ticks + 1 + places)
        given = places < torch.randint(0, LONGEST_PREFIX + 1, (batch_size, 1))
        times = torch.where(given, 1.0, torch.rand(batch_size, 1).expand(-1, HORIZON))
        noise = torch.randn(batch_size, HORIZON)
        wanted = chunk - noise
        mixed = torch.where(given, chunk, times * chunk + (1 - times) * noise)
        found = network(mixed, times, torch.cat([torch.cos(angles), torch.sin(angles)], dim=1))
        loss = ((found - wanted).square() * ~given).sum() / (~given).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


class FlowPolicy(nn.Module):
    """Draws a chunk. `weights`: a file that `train` made and `main` saved."""

    def __init__(self, observation_space: Any, action_space: Any, *, mode: str, weights: str) -> None:
        super().__init__()
        if mode not in NUM_STEPS:
            raise ValueError(f"mode={mode!r}: expected one of {', '.join(NUM_STEPS)}")
        self.mode = mode
        self.velocity = Velocity()
        self.velocity.load_state_dict(torch.load(weights, weights_only=True))

    def forward(self, observation: Tensor, *, context: Any) -> Tensor:
        prefix, given = self._prefix(context)
        chunk = torch.randn(1, HORIZON)
        num_steps = NUM_STEPS[self.mode]
        for step in range(num_steps):
            time = step / num_steps
            if self.mode == "guided":
                velocity = self._guided(chunk, time, observation, prefix, given)
            else:
                chunk = torch.where(given, prefix, chunk)
                velocity = self.velocity(chunk, torch.where(given, 1.0, time), observation)
            chunk = chunk + velocity / num_steps
        return torch.where(given, prefix, chunk).clamp(-1, 1).unsqueeze(2)

    def _prefix(self, context: Any) -> tuple[Tensor, Tensor]:
        """The first actions of the chunk that are decided already, (1, H), and which those are."""
        prefix, given = torch.zeros(1, HORIZON), torch.zeros(1, HORIZON, dtype=torch.bool)
        if self.mode == "naive":
            return prefix, given
        mask, place = context.committed_mask[0], 0
        for action, known in zip(context.committed[0, :, 0], mask.tolist(), strict=True):
            if known in (1, 2):  # a fact or a plan
                prefix[0, place], given[0, place] = action, True
                place += 1
            elif known == 0:
                break  # while the world stands still (3), no action of the chunk is past
        return prefix, given

    def _guided(self, chunk: Tensor, time: float, observation: Tensor, prefix: Tensor, given: Tensor) -> Tensor:
        """The velocity, and a pull towards the prefix: along the gradient of where the chunk would end."""
        with torch.enable_grad():
            start = chunk.clone().requires_grad_()
            times = torch.full((1, HORIZON), time)
            velocity = self.velocity(start, times, observation.clone())
            end = start + (1 - time) * velocity
            error = ((prefix - end) * given).detach()
            (pull,) = torch.autograd.grad((end * error).sum(), start)
        spread = (1 - time) ** 2 / (time**2 + (1 - time) ** 2)
        weight = min(_MOST_GUIDANCE, (1 - time) / max(time, 1e-6) / spread)
        led: Tensor = velocity.detach() + weight * pull
        return led


def play(mode: str, weights: Path, *, ticks: int = 1200, seed: int = 0) -> tuple[float, float]:
    """The mean jump of the pen at the borders between chunks, and its mean step inside of them."""
    config = RuntimeConfig(
        env_id="realtime_chunking:Paper",
        policy="realtime_chunking:FlowPolicy",
        policy_args={"mode": mode, "weights": str(weights)},
        chunk=HORIZON,
        chunk_from="frame",
        workers=1,
        latency="constant:99",  # 5 ticks of 20 ms: the world, and the pen, go on meanwhile
        clock="virtual",
        ticks=ticks,
        seed=seed,
    )
    simulation = Simulation(config)
    ring = simulation.ring
    if ring is None:
        raise RuntimeError("this policy looks at frames")
    found: list[tuple[int, int, float]] = []  # (episode, tick of the frame that was used, where the pen is)

    def look(_: int) -> None:
        seq = ring.sequence.newest()
        _, header = ring.read_header(seq)
        action = ring.read_action(seq)
        if header is not None and action is not None and header.obs_tick >= 0:
            found.append((header.episode, header.obs_tick, float(np.frombuffer(action, np.float32)[0])))

    simulation.run(look)
    simulation.close()
    return jumps_and_steps(found)


def jumps_and_steps(found: Sequence[tuple[int, int, float]]) -> tuple[float, float]:
    jumps: list[float] = []
    steps: list[float] = []
    for (episode, chunk, before), (next_episode, next_chunk, after) in pairwise(found):
        if episode == next_episode:
            (steps if chunk == next_chunk else jumps).append(abs(after - before))
    return sum(jumps) / len(jumps), sum(steps) / len(steps)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "flow.pt"
        torch.save(train().state_dict(), weights)
        print("mode    jump at a border / step inside")
        for mode in NUM_STEPS:
            jump, step = play(mode, weights)
            print(f"{mode:7s} {jump:.4f} / {step:.4f} = {jump / step:.2f}")


if __name__ == "__main__":
    main()
