"""What a teacher would answer to each frame: what `learn=imitate` learns. On the virtual clock only.

The teacher is the world's own scripted player. It looks into the world where the network looks at the frame, and knows
the delay; what acts between the frame and its answer it knows no better. The frames are those that the network's own
play leads to.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.loop.world import GymnasiumWorld

#: Asked once a tick, after the world's step: the answer to the frame that came of it.
Teacher = Callable[[], Any]


class Lessons:
    """The teacher's answer to the frame of each tick of a run."""

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
        """Before the first tick: how old frames are when they are answered, and ticks from one answer to the next."""
        self._teacher = self._make_teacher(delay_ticks=delay_ticks, every_ticks=every_ticks)

    def after_tick(self, tick: int) -> None:
        """Ask the teacher. ConfigError if its answer is no action of the world's."""
        if self._teacher is None:
            raise RuntimeError("after_tick() before begin()")
        action = self._teacher()
        if not self._space.contains(np.int64(action)):
            raise ConfigError(
                f"learn=imitate: the world's teacher said {action!r} at tick {tick}; expected one of {self._space}"
            )
        self._actions[tick] = action

    def at(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The answers to the frames of these ticks, one each."""
        return self._actions[ticks]
