"""A world with a Dict observation in which every number of every part follows from one count: a wrong byte is seen."""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

SPACE = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (5, 7), np.uint8),
        "pose": spaces.Box(-np.inf, np.inf, (3,), np.float32),
        "age": spaces.Box(0, np.inf, (), np.float64),
        "bits": spaces.Box(0, 1, (11,), np.bool_),
        "inner": spaces.Dict({"count": spaces.Box(0, 2**62, (2,), np.int64), "low": spaces.Box(0, 99, (1,), np.int16)}),
    }
)
#: The parts' names, shapes and dtypes as policies and trainers get them, in that order.
PARTS: dict[str, tuple[tuple[int, ...], str]] = {
    "age": ((), "float64"),
    "bits": ((11,), "bool"),
    "image": ((5, 7), "uint8"),
    "inner/count": ((2,), "int64"),
    "inner/low": ((1,), "int16"),
    "pose": ((3,), "float32"),
}


def parts_at(counts: Any) -> dict[str, Any]:
    """What is shown at each of these counts, with the axes of `counts` in front. All zeros at 0."""
    n = np.asarray(counts, np.int64)
    each = n[..., None]
    return {
        "age": n / 8,
        "bits": (each >> np.arange(11)) & 1 == 1,
        "image": (each * np.arange(1, 36) % 256).astype(np.uint8).reshape(*n.shape, 5, 7),
        "inner/count": each * np.array([1, 2**33]),
        "inner/low": (each % 100).astype(np.int16),
        "pose": (each * np.array([1, 0.5, -0.25])).astype(np.float32),
    }


def differences(observation: Any, lead: tuple[int, ...]) -> list[str]:
    """What of an observation, a dict of arrays with these axes in front, is not of the count that it shows."""
    if list(observation) != list(PARTS):
        return [f"parts {list(observation)}"]
    expected = parts_at(observation["inner/count"][..., 0])
    found = []
    for name, (shape, dtype) in PARTS.items():
        part = observation[name]
        if part.shape != (*lead, *shape) or part.dtype != dtype:
            found.append(f"{name} is {part.dtype} {part.shape}")
        elif not np.array_equal(part, expected[name]):
            found.append(f"{name} is {part.tolist()}")
    return found


class Panel(gymnasium.Env[Any, Any]):
    """Shows how often it was stepped or reset, in all. An episode lasts 30 steps; the reward is the action, if one.

    `discrete`: two actions instead of a Box. `fault`: what is wrong with an observation from step `after` on.
    `image_ms_ago`: how old its image says it is; 0: it does not say.
    """

    metadata = {"render_fps": 100}  # noqa: RUF012 - Gymnasium's own convention
    observation_space = SPACE

    def __init__(self, *, discrete: bool = False, fault: str = "", after: int = 0, image_ms_ago: int = 0) -> None:
        box = spaces.Box(-(2.0**20), 2.0**20, (2,), np.float32)
        self.action_space: spaces.Space[Any] = spaces.Discrete(2) if discrete else box
        self._fault, self._after, self._image_ms_ago = fault, after, image_ms_ago
        self._count = self._steps = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = float(action) if np.ndim(action) == 0 else 1.0
        return self._observation(), reward, False, self._steps >= 30, self._info()

    def _info(self) -> dict[str, Any]:
        stamps = {"image": time.monotonic_ns() - self._image_ms_ago * 1_000_000}
        return {"rtcore": {"stamps_ns": stamps}} if self._image_ms_ago else {}

    def _observation(self) -> dict[str, Any]:
        self._count += 1
        shown: dict[str, Any] = {"inner": {}}
        for name, value in parts_at(self._count).items():
            outer, _, inner = name.rpartition("/")
            (shown[outer] if outer else shown)[inner] = np.asarray(value)
        if self._steps > self._after:
            self._spoil(shown)
        return shown

    def _spoil(self, shown: dict[str, Any]) -> None:
        if self._fault == "wrong key":
            shown["posse"] = shown.pop("pose")
        elif self._fault == "missing key":
            del shown["inner"]["low"]
        elif self._fault == "wrong dtype":
            shown["pose"] = shown["pose"].astype(np.float64)


def panel(**arguments: Any) -> Panel:
    return Panel(**arguments)


class WithDiscrete(Panel):
    """A Discrete in the Dict: not a world for rtcore."""

    observation_space = spaces.Dict({**SPACE.spaces, "mode": spaces.Discrete(4)})


def with_discrete() -> Panel:
    return WithDiscrete()
