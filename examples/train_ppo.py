"""PPO in one file, in plain PyTorch: what a policy says of its own actions travels with them.

    python examples/train_ppo.py --duration 300

The policy runs in the workers, several ticks late and with weights that may be a few versions old. So each action
brings along its log-probability and the value that the policy expected (`policy_extras`), and `Runtime.take` hands the
decisions over in order, each once: the ratio of PPO is then exact, whoever made the decision and when.

Tested is that: what arrives is what the policy said, and nothing is lost. That it plays better within minutes is not:
two runs of 150 and 180 s at a larger GAMMA did not, nor did one of 300 s as it stands, on a machine that was busy with
other work: 5,000 decisions (35% of the ticks acted), mean returns of -153, -194, -212, -200, -194, -174, -181, -160,
-149 and -201 by tenth of the run. PPO wants ten times as many. Take it as how to wire PPO, and tune it.
"""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

import rtcore
from rtcore.errors import RtcoreError

GAMMA, LAMBDA = 0.9, 0.9  # per tick, per decision
ROUND = 200  # decisions
EPOCHS, BATCH_SIZE = 10, 50
CLIP, ENTROPY = 0.2, 0.01


class ActorCritic(nn.Module):
    """Draws an action, and says how likely it was and what it expects. A policy's factory, too: a class is called."""

    policy_extras: ClassVar = {"logp": ((), "float32"), "value": ((), "float32")}

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        num_inputs, num_actions = observation_space.shape[0], int(action_space.n)
        self.actor = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, num_actions))
        self.critic = nn.Sequential(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 1))

    def forward(self, observation: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logps = self.actor(observation).log_softmax(dim=1)
        action = torch.multinomial(logps.exp(), 1)
        return action, {"logp": logps.gather(1, action)[:, 0], "value": self.critic(observation)[:, 0]}


def advantages_of(network: ActorCritic, batch: Any) -> Tensor:
    """Generalized advantage estimates, backwards over decisions that follow each other without a gap."""
    value, goes_on = batch.extras["value"], torch.zeros(len(batch.reward), dtype=torch.bool)
    goes_on[:-1] = (batch.decision[1:] == batch.decision[:-1] + 1) & (batch.episode[1:] == batch.episode[:-1])
    with torch.no_grad():
        next_value = torch.where(goes_on, value.roll(-1), network.critic(batch.next_obs)[:, 0])
    surprise = batch.reward + batch.discount * next_value * ~batch.terminated - value
    advantages, after = torch.zeros_like(value), torch.zeros(())
    for row in range(len(value) - 1, -1, -1):
        after = surprise[row] + LAMBDA * batch.discount[row] * after * goes_on[row]
        advantages[row] = after
    return advantages


def update(network: ActorCritic, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    advantages = advantages_of(network, batch)
    wanted = advantages + batch.extras["value"]
    advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(wanted)).split(BATCH_SIZE):
            obs = batch.obs[rows]
            logps = network.actor(obs).log_softmax(dim=1)
            ratio = (logps.gather(1, batch.action[rows, None])[:, 0] - batch.extras["logp"][rows]).exp()
            gain = torch.minimum(ratio * advantages[rows], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[rows])
            entropy = -(logps.exp() * logps).sum(dim=1)
            error = functional.mse_loss(network.critic(obs)[:, 0], wanted[rows])
            optimizer.zero_grad()
            (0.5 * error - (gain + ENTROPY * entropy).mean()).backward()
            nn.utils.clip_grad_norm_(network.parameters(), 0.5)
            optimizer.step()


def train(duration_s: float, most_rounds: int) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    with rtcore.Runtime(
        env_id="own_world:make_world", policy=ActorCritic, policy_args={"pad_ms": 30}, duration=duration_s
    ) as runtime:
        network = ActorCritic(runtime.observation_space, runtime.action_space)
        optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
        runtime.publish(network.state_dict())
        rounds, lost, newest = 0, 0, -1
        while rounds < most_rounds and not runtime.wait(0.02):  # raises whatever goes wrong in any process of the run
            while (batch := runtime.take(ROUND, gamma=GAMMA)) is not None:
                update(network, optimizer, batch)
                runtime.publish(network.state_dict())
                lost += int(batch.decision[-1]) - newest - ROUND
                newest, rounds = int(batch.decision[-1]), rounds + 1
    returns = [round(value, 1) for value in runtime.summary()["episodes"]["returns"]]
    print(f"{rounds} rounds of {ROUND} decisions, {lost} lost; first returns {returns[:3]}, last {returns[-3:]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=300, metavar="S", help="how long to learn [s] (default 300)")
    parser.add_argument("--rounds", type=int, default=10**9, metavar="N", help="or how many rounds to learn")
    arguments = parser.parse_args()
    try:
        train(arguments.duration, arguments.rounds)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
