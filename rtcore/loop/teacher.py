"""The actions of a teacher for each frame: the targets of `learn=imitate`. On the virtual clock only.

The teacher is a scripted player that the world provides. It reads the state of the world, where the network sees only
the frame, and it knows the delay; it does not know the actions that are applied between the frame and its answer. The
frames are those that the network's own play leads to (DAgger, Ross et al., 2011).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.loop.world import GymnasiumWorld

#: Called once per tick, after the world's step; returns the action for the frame of that step.
Teacher = Callable[[], Any]


class TeacherAnswers:
    """The teacher's action for the frame of each tick of a run."""

    def __init__(self, world: GymnasiumWorld, num_ticks: int) -> None:
        """ConfigError if the world has no teacher."""
        try:
            self._make_teacher = world.env.get_wrapper_attr("make_teacher")
        except AttributeError:
            raise ConfigError(
                "learn=imitate: the world has no make_teacher(delay_ticks=, every_ticks=); expected one that returns a "
                "function without arguments, which says what to do in the world as it is. Or use --learn dqn"
            ) from None
        self._teacher: Teacher | None = None
        self._space = world.env.action_space
        self._actions = np.zeros(num_ticks, world.action.np_dtype)

    def begin(self, delay_ticks: int, every_ticks: int) -> None:
        """Call before the first tick. `delay_ticks`: from a frame to its action; `every_ticks`: between two actions."""
        self._teacher = self._make_teacher(delay_ticks=delay_ticks, every_ticks=every_ticks)

    def after_tick(self, tick: int) -> None:
        """Get the teacher's action. ConfigError if it is not in the action space of the world."""
        if self._teacher is None:
            raise RuntimeError("after_tick() before begin()")
        action = self._teacher()
        if not self._space.contains(np.int64(action)):
            raise ConfigError(
                f"learn=imitate: the world's teacher said {action!r} at tick {tick}; expected one of {self._space}"
            )
        self._actions[tick] = action

    def at(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The actions for the frames of these ticks, one each."""
        return self._actions[ticks]
