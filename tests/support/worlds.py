"""Small worlds with each kind of action space, for runs of the real runtime."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

SPACES = {
    "box": gymnasium.spaces.Box(-2.0, 2.0, (3,), np.float32),
    "discrete": gymnasium.spaces.Discrete(5, start=2),
    "multi-discrete": gymnasium.spaces.MultiDiscrete([3, 4]),
    "multi-binary": gymnasium.spaces.MultiBinary(4),
}


class Checking(gymnasium.Env[Any, Any]):
    """Refuses an action that is not of its space; ends an episode every 40 steps."""

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 255, (12, 10), np.uint8)

    def __init__(self, space: str) -> None:
        self.action_space = SPACES[space]
        self.steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros((12, 10), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.steps += 1
        return np.full((12, 10), self.steps, np.uint8), 1.0, False, self.steps >= 40, {}


def checking(space: str) -> gymnasium.Env[Any, Any]:
    return Checking(space)


class Slow(gymnasium.Env[Any, Any]):
    """Takes `step_s` for every `every`-th step, and `reset_s` for a reset in the run; ends after `length` steps."""

    metadata = {"render_fps": 50}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 255, (4,), np.uint8)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, step_s: float = 0.0, reset_s: float = 0.0, every: int = 1, length: int = 20) -> None:
        self._step_s, self._reset_s, self._every, self._length = step_s, reset_s, every, length
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        time.sleep(self._reset_s)
        self._steps = 0
        return np.zeros(4, np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        if self._steps % self._every == 0:
            time.sleep(self._step_s)
        return np.full(4, self._steps % 256, np.uint8), 1.0, self._steps >= self._length, False, {}


def slow(**arguments: Any) -> gymnasium.Env[Any, Any]:
    return Slow(**arguments)


class Noise(gymnasium.Env[Any, Any]):
    """Every frame is new; an episode lasts 30 steps."""

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 255, (6, 5), np.uint8)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.steps += 1
        return self._frame(), 1.0, False, self.steps >= 30, {}

    def _frame(self) -> Any:
        return self.np_random.integers(0, 256, (6, 5), np.uint8)


class Counts(gymnasium.Env[Any, Any]):
    """Shows how often it was stepped; writes into `notes` when it is paused and resumed, and after how many steps."""

    metadata = {"render_fps": 50}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(0.0, np.inf, (1,), np.float64)
    action_space = gymnasium.spaces.Discrete(1 << 40)

    def __init__(self, notes: str = "", can_pause: bool = True) -> None:
        self._notes, self.can_pause, self._steps, self._last = Path(notes), can_pause, 0, -1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._steps = 0
        return np.zeros(1), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps, self._last = self._steps + 1, action
        return np.array([float(self._steps)]), 1.0, False, False, {}

    def pause(self) -> None:
        self._note("pause")

    def resume(self) -> None:
        self._note("resume")

    def close(self) -> None:
        self._note(f"close after {self._last} at")

    def _note(self, what: str) -> None:
        if self._notes.name:
            with self._notes.open("a") as file:
                file.write(f"{what} {self._steps}\n")


class _Level:
    """Made anew for each episode. Its rooms know it, so that only the garbage collector ends it."""

    alive = 0

    def __init__(self) -> None:
        self.rooms = [[self] for _ in range(4_000)]
        _Level.alive += 1

    def __del__(self) -> None:
        _Level.alive -= 1


class Cyclic(gymnasium.Env[Any, Any]):
    """Episodes of one step, which pays how many levels there are in memory."""

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(0, 1, (2,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.level = _Level()
        return np.zeros(2, np.float32), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.zeros(2, np.float32), float(_Level.alive), True, False, {}


def cyclic() -> gymnasium.Env[Any, Any]:
    return Cyclic()


class LeavesItsSpace(gymnasium.Env[Any, Any]):
    """Returns 7 from observation 60 on, and NaN from observation `nan_from` on. Its space ends at 1."""

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def __init__(self, nan_from: int = 120) -> None:
        self.made, self.nan_from = 0, nan_from

    def _observe(self) -> Any:
        self.made += 1
        value = np.nan if self.made > self.nan_from else 7.0 if self.made > 60 else 0.5
        return np.full(3, value, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return self._observe(), 0.0, False, False, {}
