"""A network and a world that write down what their processes had when they were made, for tests."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class Fast(gymnasium.Env[Any, Any]):
    """Says whether its process has torch. A test gives the folder."""

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)

    def __init__(self, folder: str) -> None:
        _note(Path(folder) / "env.json", {"torch": "torch" in sys.modules})

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(4, np.float32), 0.0, False, False, {}


def noise(observation_space: Any, action_space: Any, folder: str) -> Any:
    """A network whose action is what Python, numpy and torch draw; each takes a while, so that all workers have one.

    It computes in its constructor, as one with a positional encoding does, and writes down what its process had then.
    """
    import random
    import time

    import torch
    from torch import nn

    had = "torch._dynamo" in sys.modules
    encoding = torch.sin(torch.arange(4).float())

    class Noise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 3)
            self.register_buffer("encoding", encoding, persistent=False)

        def forward(self, x: Any) -> Any:
            time.sleep(0.025)
            return 2 * torch.tensor([[random.random(), np.random.random(), torch.rand(1).item()]]) - 1

    _note(Path(folder) / f"worker-{os.getpid()}.json", {"meta_imported": had, "on_meta": encoding.is_meta})
    return Noise()


def unreliable(observation_space: Any, action_space: Any) -> Any:
    """A plain callable whose action is what Python and numpy draw, and 0 as long as its state is what its context says.

    At times it raises, or says nothing.
    """
    import random
    import time

    calls = 0

    def decide(observation: Any, context: Any, state: Any) -> Any:
        nonlocal calls
        calls += 1
        is_right = state == (context.state_tick if context.state_tick[0] >= 0 else -5)
        time.sleep(0.015)
        if calls % 4 == 3:
            raise ConnectionError("the server does not answer")
        if calls % 4 == 0:
            return None
        action = np.array([[random.random(), np.random.random(), float(not is_right)]])
        return action, context.tick, {"state_was": np.int64(state[0])}

    decide.initial_state = lambda: np.array([-5])  # type: ignore[attr-defined]
    decide.policy_extras = {"state_was": ((), "int64")}  # type: ignore[attr-defined]
    return decide


def counting(observation_space: Any, action_space: Any) -> Any:
    """A network that keeps a state from call to call."""
    import torch
    from torch import nn

    class Counting(nn.Module):
        calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return torch.full((1, 2), float(self.calls))

    return Counting()


def _note(path: Path, found: dict[str, Any]) -> None:
    path.write_text(json.dumps(found))
