"""V-trace (the update of IMPALA) in one file, from decisions that older weights made.

    python examples/train_vtrace.py --virtual --duration 1200 --inference-ms 15 --pole-m 1    # as quickly as it goes
    python examples/train_vtrace.py --duration 1200 --inference-ms 15 --pole-m 1              # the same in real time

World, network and the loop around the update are those of train_ppo.py. PPO goes over 1,000 decisions ten times and
throws them away. This makes one step of every 50, while decisions by the weights before are still under way. The
log-probability that came along with each action says how likely it was when it was chosen, whoever chose it and with
which version of the weights; V-trace (Espeholt et al., 2018, section 4.1) weighs each by how much likelier it is now.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from train_ppo import ENTROPY, GAMMA, Trainer, follows, main

MOST_RHO, MOST_C = 1.0, 1.0
SCALE = 1 - GAMMA  # of rewards, so that values are as large as a reward: few steps do not take a critic to 100


def vtrace(value: Tensor, next_value: Tensor, ratio: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """The values to learn and the advantages, backwards over decisions that follow each other.

    `value`, `next_value`: of the weights of now, (n,); `ratio`: how much likelier each action is by them, (n,).
    """
    rho, goes_on, discount = ratio.clamp(max=MOST_RHO), follows(batch), batch.discount * ~batch.terminated
    reward = batch.reward * SCALE
    surprise = (rho * (reward + discount * next_value - value)).tolist()
    fades = (discount * ratio.clamp(max=MOST_C) * goes_on).tolist()
    changes, after = [0.0] * len(fades), 0.0  # by how much each value is to change
    for row in reversed(range(len(fades))):
        changes[row] = after = surprise[row] + fades[row] * after
    wanted = value + torch.tensor(changes)
    next_wanted = torch.where(goes_on, wanted.roll(-1), next_value)
    return wanted, rho * (reward + discount * next_wanted - value)


class VTrace(Trainer):
    round_size = 50

    def update(self, batch: Any) -> None:
        """One step."""
        logps = self.network.actor(batch.obs).log_softmax(dim=1)
        logp, value = logps.gather(1, batch.action[:, None])[:, 0], self.network.critic(batch.obs)[:, 0]
        with torch.no_grad():
            next_value = self.network.critic(batch.next_obs)[:, 0]
            wanted, advantages = vtrace(value, next_value, (logp - batch.extras["logp"]).exp(), batch)
            advantages = advantages / (advantages.std() + 1e-8)
        entropy = -(logps.exp() * logps).sum(dim=1)
        gain = (advantages * logp + ENTROPY * entropy).mean()
        self.step(0.5 * (value - wanted).pow(2).mean() - gain, self.network.actor, self.network.critic)


if __name__ == "__main__":
    main(VTrace, __doc__)
