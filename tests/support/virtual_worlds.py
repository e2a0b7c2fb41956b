"""Worlds that are quick to step and easy to learn, for runs on the virtual clock."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np


class Signs(gymnasium.Env[Any, Any]):
    """A sign is shown for `hold_ticks`; the action that names it pays `pay` a tick. An episode has `episode_ticks`."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 100}  # noqa: RUF012

    def __init__(
        self, hold_ticks: int = 8, episode_ticks: int = 200, pay: float = 1.0, continuous: bool = False
    ) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,)) if continuous else gymnasium.spaces.Discrete(3)
        self.noop_action: Any = np.zeros(1, np.float32) if continuous else 0
        self._hold_ticks = hold_ticks
        self._pay = pay
        self._episode_ticks = episode_ticks
        self._tick = 0
        self._sign = 1

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._tick = 0
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        reward = self._pay * float(np.ndim(action) == 0 and action == (1 if self._sign < 0 else 2))
        self._tick += 1
        frame = self._draw() if self._tick % self._hold_ticks == 0 else self._frame()
        return frame, reward, False, self._tick >= self._episode_ticks, {}

    def make_teacher(self, *, delay_ticks: int, every_ticks: int) -> Any:
        """Says what the sign that is to be seen names."""
        self.taught = delay_ticks, every_ticks
        return lambda: 1 if self._sign < 0 else 2

    def _draw(self) -> Any:
        self._sign = int(self.np_random.choice([-1, 1]))
        return self._frame()

    def _frame(self) -> Any:
        return np.array([self._sign, -self._sign], np.float32)


class Alternating(gymnasium.Env[Any, Any]):
    """A sign is shown, and is the other one after every `hold_ticks` steps; nothing is random.

    Actions 1 and 2 name a sign and pay 1 where it is the one shown, 3 and 4 name the same signs and pay 2; 0 is the
    no-op. What a schedule comes to can be counted by hand.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 50}  # noqa: RUF012

    def __init__(self, hold_ticks: int = 12, episode_ticks: int = 240) -> None:
        self.observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(5)
        self.noop_action = 0
        self._hold_ticks = hold_ticks
        self._episode_ticks = episode_ticks
        self._tick = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._tick = 0
        return self._frame(), {}

    def step(self, action: Any) -> Any:
        named, pays = (action - 1) % 2, (action + 1) // 2
        reward = float(pays) if action and named == self._sign() else 0.0
        self._tick += 1
        return self._frame(), reward, False, self._tick >= self._episode_ticks, {}

    def _sign(self) -> int:
        return self._tick // self._hold_ticks % 2

    def _frame(self) -> Any:
        return np.array([self._sign()], np.float32)


def name_sign(observation_space: Any, action_space: Any, pay: int = 1) -> Any:
    """A policy for `Alternating`: names the sign that it sees, by the action that pays 1 or 2."""
    return lambda frames: frames[:, 0].astype(np.int64) + (1 if pay == 1 else 3)


class Handled(gymnasium.Env[Any, Any]):
    """A world that may do something else than it is asked for, and says so; its frame is what it really did.

    Its shield turns an action beyond `most` into that bound. A person acts at the steps that `Handled.hands` has, by
    number, within that bound.
    `info` has what was done as `effort`. Every action that it got, and what it did, is in `Handled.done`.
    """

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 100}  # noqa: RUF012
    hands: ClassVar[dict[int, float]] = {}
    done: ClassVar[list[tuple[float, float]]] = []

    def __init__(self, most: float = 1.0, episode_ticks: int = 37, declares: bool = True) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
        self.reports_applied_action = declares
        self._most, self._episode_ticks, self._steps, self._tick = np.float32(most), episode_ticks, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self._tick = 0
        return np.zeros(2, np.float32), {"effort": 0.0}

    def step(self, action: Any) -> Any:
        applied, said = np.clip(action, -self._most, self._most), {}
        if self._steps in self.hands:
            applied = np.clip(np.array([self.hands[self._steps]], np.float32), -self._most, self._most)
            said = {"rtcore": {"applied_action": applied, "source": "human"}}
        elif applied != action:
            said = {"rtcore": {"applied_action": applied, "source": "shield"}}
        self.done.append((float(action[0]), float(applied[0])))
        self._steps += 1
        self._tick += 1
        frame = np.array([applied[0], self._tick / 64], np.float32)
        return frame, float(applied[0]), False, self._tick >= self._episode_ticks, {"effort": float(applied[0]), **said}
