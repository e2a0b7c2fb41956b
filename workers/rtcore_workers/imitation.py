"""Imitation learning: the largest output of the network shall be the teacher's action for the same frame.

Only the loss differs from DQN: replay, master, Adam and publishing are those of `DqnLearner`. The frames come from the
network's own play (DAgger, Ross et al., 2011), the actions from rtcore/loop/teacher.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy.typing as npt
from torch import Tensor
from torch.nn import functional

from rtcore.learn.replay_memory import Batch
from rtcore_workers.dqn import DqnLearner

_KEEPS_NEAR_ZERO = 1e-3


class Imitator(DqnLearner):
    """One update at a time. "TD error" in the statistics is the share of actions that differ from the teacher's."""

    def __init__(self, teacher: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], *args: Any, **kwargs: Any) -> None:
        """`teacher`: from the ticks of frames to the teacher's actions for them."""
        super().__init__(*args, **kwargs)
        self._teacher = teacher

    def _loss(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        outputs, _ = self._values_of(batch)
        wanted = self._tensor(self._teacher(batch.tick - batch.delay_ticks)).long().reshape(-1) - self._first_action
        differs = (outputs.argmax(dim=1) != wanted).float()
        # Cross entropy does not depend on the mean of the outputs, which would drift without a penalty.
        loss = functional.cross_entropy(outputs, wanted) + _KEEPS_NEAR_ZERO * outputs.mean(dim=1).square().mean()
        return loss, differs, outputs.detach().max(dim=1).values
