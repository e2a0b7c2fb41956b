"""What a teacher would have done at each tick: what `learn=imitate` learns. On the virtual clock only.

The teacher sees the world as it is at the tick; the network saw a frame `delay_ticks` older. So the network learns what
will be right when its action acts, whatever is in flight meanwhile, in the states that its own play leads to. The
teacher is told the delay: it may leave out of account what cannot be known yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.world import GymnasiumWorld

#: Asked once a tick, with the delay: the action for the world as it is.
Teacher = Callable[[int], Any]


class Lessons:
    """The teacher's action at each tick of a run, asked before the world's step."""

    def __init__(self, teacher: Teacher, world: GymnasiumWorld, num_ticks: int) -> None:
        self._teacher = teacher
        self._space = world.env.action_space
        self._actions = np.zeros(num_ticks, world.action.np_dtype)

    @classmethod
    def of(cls, world: GymnasiumWorld, num_ticks: int) -> Lessons:
        """By the world's own teacher: what its `make_teacher()` returns. ConfigError if it has none."""
        try:
            make_teacher = world.env.get_wrapper_attr("make_teacher")
        except AttributeError:
            raise ConfigError(
                "learn=imitate: the world has no make_teacher(); expected one that returns a function of the delay "
                "[ticks], which says what to do in the world as it is. Learn without one: --learn dqn"
            ) from None
        return cls(make_teacher(), world, num_ticks)

    def before_tick(self, tick: int, delay_ticks: int) -> None:
        """Ask the teacher. ConfigError if what it says is no action of the world's."""
        action = self._teacher(delay_ticks)
        if not self._space.contains(np.int64(action)):
            raise ConfigError(
                f"learn=imitate: the world's teacher said {action!r} at tick {tick}; expected one of {self._space}"
            )
        self._actions[tick] = action

    def at(self, ticks: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """The actions of these ticks, one each."""
        return self._actions[ticks]
