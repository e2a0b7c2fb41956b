"""DQN with prioritized replay in one file: double, n-step, from the decisions that it is most wrong about.

    python examples/train_prioritized.py --duration 200 --inference-ms 15             # in real time
    python examples/train_prioritized.py --duration 200 --inference-ms 15 --virtual   # as quickly as it goes

World and the loop around the update are those of train_ppo.py. Here `take` only says how many decisions are new: after
every 4 of them one update is made from the frame ring, which is the replay memory. `sample` draws a decision the more
often the more wrong it was (Schaul et al., 2016), and `prioritize` says how wrong it is now.
"""

from __future__ import annotations

import copy
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from train_ppo import GAMMA, Trainer, main

import rtcore
from rtcore.virtual.simulate import Simulation

BATCH_SIZE, N_STEP = 128, 8
TARGET_EVERY = 100  # updates
ALPHA = 0.6  # how much priorities matter; 0: not at all
BETA = 0.6  # how much of what they distort is taken back; 1: all of it


def make_network(observation_space: Any, action_space: Any) -> nn.Module:
    """A value for each action. A worker plays the best one, or, as long as it explores, any."""
    return nn.Sequential(
        *(nn.Linear(observation_space.shape[0], 64), nn.ReLU()),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, int(action_space.n))),
    )


class PrioritizedDQN(Trainer):
    policy: ClassVar[Any] = staticmethod(make_network)
    round_size, learning_rate = 4, 1e-3
    settings: ClassVar[dict[str, Any]] = {"explore": True, "epsilon_ticks": 4_000, "ring_slots": 20_000}

    def __init__(self, run: rtcore.Runtime | Simulation) -> None:
        super().__init__(run)
        self.target = copy.deepcopy(self.network)

    def update(self, batch: Any) -> None:
        """One step from what the whole run so far was most wrong about."""
        batch = self.run.sample(BATCH_SIZE, gamma=GAMMA, n_step=N_STEP, prioritized=True)
        if batch is None:
            return
        chosen, wanted = self.values_of(batch)
        weights = batch.probability.float() ** -BETA
        loss = weights / weights.max() * functional.huber_loss(chosen, wanted, reduction="none")
        self.step(loss.mean(), self.network)
        wrong_by = (chosen - wanted).detach().abs()
        self.run.prioritize(batch.row, (wrong_by + 1e-3) ** ALPHA, gamma=GAMMA)
        if self.rounds % TARGET_EVERY == 0:
            self.target.load_state_dict(self.network.state_dict())

    def values_of(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The values of the actions that were chosen, and what they should have been: double DQN."""
        with torch.no_grad():
            best = self.network(batch.next_obs).argmax(dim=1, keepdim=True)
            after = self.target(batch.next_obs).gather(1, best)[:, 0]
            wanted = batch.reward + batch.discount * after * ~batch.terminated
        return self.network(batch.obs).gather(1, batch.action[:, None])[:, 0], wanted


if __name__ == "__main__":
    main(PrioritizedDQN, __doc__)
