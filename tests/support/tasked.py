"""A world with a task, and a policy that says which one it was given. No torch: the env process imports this."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

TASK = {"goal": [0.5, -0.25], "say": "wait", "fast": False, "count": 3, "speed": 0.125}


class Tasked(gymnasium.Env[Any, Any]):
    """Shows and pays what its task says at that step."""

    metadata: dict[str, Any] = {"render_modes": [], "render_fps": 100}  # noqa: RUF012
    rtcore_task: dict[str, Any]
    rtcore_task_version: int

    def __init__(self) -> None:
        self.observation_space = gymnasium.spaces.Box(-10, 10, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-100, 100, (1,))
        self.noop_action = np.zeros(1, np.float32)
        self._steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self._steps = 0
        return np.array(self.rtcore_task["goal"], np.float32), {}

    def step(self, action: Any) -> Any:
        self._steps += 1
        shown = np.array(self.rtcore_task["goal"], np.float32)
        return shown, float(self.rtcore_task_version), False, self._steps >= 30, {}


class RefusesHaste(Tasked):
    @property
    def rtcore_task(self) -> Any:
        return self._task

    @rtcore_task.setter
    def rtcore_task(self, task: Any) -> None:
        if task["fast"]:
            raise ValueError("too fast for me")
        self._task = task


def says_its_task(observation: Any, context: Any) -> Any:
    """Refuses a text that is none of those that are set, in the warm-up as well."""
    task = context.task
    assert task["say"] in ("wait", "go ü"), task["say"]
    assert task["goal"].shape == (1, 2)
    assert (task["fast"][0], task["count"][0], task["speed"][0]) == (task["say"] == "go ü", 3, np.float32(0.125))
    return np.array([[10.0 * context.task_version[0] + task["goal"][0, 0]]])
