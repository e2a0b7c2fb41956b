"""Sweep files, and in `results` the cells that came of them: the figures of docs/results.md.

Here are the players of those files that are neither learned nor built in.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rtcore_envs.blocks_bot import Teacher

Action = npt.NDArray[np.int64]

#: All that LunarLander's controller looks at of its world.
_DISCRETE = SimpleNamespace(unwrapped=SimpleNamespace(continuous=False))


def abstain(observation: Any) -> None:
    """A policy that never acts: the floor of a world, in which `on-missing` alone acts."""


def land(observation: npt.NDArray[np.float32]) -> Action:
    """Gymnasium's own controller of LunarLander, which remembers nothing: its answer to a batch of one."""
    from gymnasium.envs.box2d.lunar_lander import heuristic  # an extra

    return np.array([heuristic(_DISCRETE, observation[0])])


class AnsweredBlocks(gymnasium.ObservationWrapper[Any, Any, Any]):
    """Blocks, whose observation is what its scripted player answers to the frame: it reads the game's memory.

    `every_ticks`: between two actions; a sequential player's are apart. With 1 it lets go of the key itself.
    """

    def __init__(self, every_ticks: int = 1, **arguments: Any) -> None:
        super().__init__(gymnasium.make("rtcore/Blocks-v0", **arguments))
        self.observation_space = gymnasium.spaces.Box(0, 6, (1,), np.uint8)
        make_teacher = self.env.get_wrapper_attr("make_teacher")
        self._teacher: Teacher = make_teacher(delay_ticks=1, every_ticks=every_ticks)

    def observation(self, observation: Any) -> npt.NDArray[np.uint8]:
        return np.array([self._teacher()], np.uint8)


def as_answered(observation: npt.NDArray[np.uint8]) -> Action:
    """The scripted player's answer to the frame, as old as that is."""
    return observation[0].astype(np.int64)
