"""V-trace (IMPALA's actor-critic) in one file, from decisions that older weights made.

    python examples/train_vtrace.py --duration 2000 --virtual     # 100,000 ticks, as quickly as they can be computed
    python examples/train_vtrace.py --duration 600                # the same in real time, 50 ticks a second

World, network and the loop around the update are those of train_ppo.py. PPO goes over 1,000 decisions ten times and
throws them away. This makes one step of every fifty, so that the weights are newer than those that decided: workers are
one to two versions behind, and further where the trainer is slow. The log-probability that came along with each action
says how likely it was then; V-trace (Espeholt et al., 2018, section 4.1) weighs by how much likelier it is now.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from train_ppo import ENTROPY, ActorCritic, follows, main, step

ROUND = 50  # decisions
MOST_RHO, MOST_C = 1.0, 1.0


def vtrace(value: Tensor, next_value: Tensor, ratio: Tensor, batch: Any) -> tuple[Tensor, Tensor]:
    """The values to learn and the advantages, backwards over decisions that follow each other.

    `value`, `next_value`: of the weights of now, (n,); `ratio`: how much likelier each action is by them, (n,).
    """
    rho, trace, goes_on = ratio.clamp(max=MOST_RHO), ratio.clamp(max=MOST_C), follows(batch)
    discount = batch.discount * ~batch.terminated
    surprise = rho * (batch.reward + discount * next_value - value)
    wanted, after = torch.zeros_like(value), torch.zeros(())
    for row in range(len(value) - 1, -1, -1):
        # `after`: by how much the next decision's value is to change.
        after = surprise[row] + discount[row] * trace[row] * after * goes_on[row]
        wanted[row] = value[row] + after
    next_wanted = torch.where(goes_on, wanted.roll(-1), next_value)
    return wanted, rho * (batch.reward + discount * next_wanted - value)


def update(network: ActorCritic, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    """One step from one round."""
    logps = network.actor(batch.obs).log_softmax(dim=1)
    logp, value = logps.gather(1, batch.action[:, None])[:, 0], network.critic(batch.obs)[:, 0]
    with torch.no_grad():
        next_value = network.critic(batch.next_obs)[:, 0]
        ratio = (logp - batch.extras["logp"]).exp()
        wanted, advantages = vtrace(value, next_value, ratio, batch)
    entropy = -(logps.exp() * logps).sum(dim=1)
    gain = (advantages * logp + ENTROPY * entropy).mean()
    step(network, optimizer, 0.5 * (value - wanted).pow(2).mean() - gain)


if __name__ == "__main__":
    main(ActorCritic, update, ROUND, 1e-3, __doc__)
