"""PPO in one file, in plain PyTorch: what a policy says of its own actions travels with them.

    python examples/train_ppo.py --duration 1000 --virtual        # 50,000 ticks, as quickly as they can be computed
    python examples/train_ppo.py --duration 600                   # the same in real time, 50 ticks a second

A pole of 8 m is balanced on a cart that is pushed at random, and the policy is late: an inference takes 30 ms, two
workers take turns, and an action is for the tick after next. So each action brings along its log-probability and the
value that the policy expected (`policy_extras`), and `take` hands the decisions over in order, each once: the ratio of
PPO is then exact, whoever made the decision, when, and with which version of the weights. What was measured with it is
in docs/learning.md.
"""

from __future__ import annotations

import argparse
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

import rtcore
from rtcore.config.run import make_config
from rtcore.errors import RtcoreError
from rtcore.virtual.simulate import Simulation

GAMMA, LAMBDA = 0.99, 0.95  # per tick, per decision
ROUND = 1000  # decisions
EPOCHS, BATCH_SIZE = 10, 100
CLIP, ENTROPY = 0.2, 0.01


class ActorCritic(nn.Module):
    """Draws an action, and says how likely it was and what it expects. A policy's factory, too: a class is called."""

    policy_extras: ClassVar = {"logp": ((), "float32"), "value": ((), "float32")}

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        num_inputs, num_actions = observation_space.shape[0], int(action_space.n)
        self.actor = layers(num_inputs, num_actions, 0.01)
        self.critic = layers(num_inputs, 1, 1.0)

    def forward(self, observation: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logps = self.actor(observation).log_softmax(dim=1)
        action = torch.multinomial(logps.exp(), 1)
        return action, {"logp": logps.gather(1, action)[:, 0], "value": self.critic(observation)[:, 0]}


def layers(num_inputs: int, num_outputs: int, last_gain: float) -> nn.Sequential:
    """Orthogonal weights; a small last layer lets an actor begin with all actions alike."""
    net = nn.Sequential(
        *(nn.Linear(num_inputs, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, num_outputs))
    )
    for layer, gain in zip(net[::2], (2**0.5, 2**0.5, last_gain), strict=True):
        nn.init.orthogonal_(layer.weight, gain)  # type: ignore[no-untyped-call]
        nn.init.zeros_(layer.bias)
    return net


def follows(batch: Any) -> Tensor:
    """Whether the next row is the decision after it, in the same episode: nothing was lost between the two."""
    found = torch.zeros(len(batch.reward), dtype=torch.bool)
    found[:-1] = (batch.decision[1:] == batch.decision[:-1] + 1) & (batch.episode[1:] == batch.episode[:-1])
    return found


def advantages_of(network: ActorCritic, batch: Any) -> Tensor:
    """Generalized advantage estimates, backwards over decisions that follow each other."""
    value, goes_on = batch.extras["value"], follows(batch)
    with torch.no_grad():
        next_value = torch.where(goes_on, value.roll(-1), network.critic(batch.next_obs)[:, 0])
    surprise = batch.reward + batch.discount * next_value * ~batch.terminated - value
    advantages, after = torch.zeros_like(value), torch.zeros(())
    for row in range(len(value) - 1, -1, -1):
        after = surprise[row] + LAMBDA * batch.discount[row] * after * goes_on[row]
        advantages[row] = after
    return advantages


class Trainer:
    """Takes the decisions of a run in order, learns from them by `update`, and publishes the new weights.

    `policy`: makes the network, here and in the workers; `round_size`: decisions taken at a time; `settings`: more of
    the run's.
    """

    policy: ClassVar[Any] = ActorCritic
    round_size, learning_rate = ROUND, 1e-3
    settings: ClassVar[dict[str, Any]] = {}

    def __init__(self, run: rtcore.Runtime | Simulation) -> None:
        self.run, self.network = run, self.policy(run.observation_space, run.action_space)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=self.learning_rate, eps=1e-5)
        self.rounds, self.lost, self.newest = 0, 0, -1
        run.publish(self.network.state_dict())

    def update(self, batch: Any) -> None:
        """Learn from one round."""
        raise NotImplementedError

    def step(self, loss: Tensor, *parts: nn.Module) -> None:
        """One step down the loss. The critic's gradient is the larger one: each of the parts has a limit of its own."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for part in parts:
            nn.utils.clip_grad_norm_(part.parameters(), 0.5)
        self.optimizer.step()

    def learn(self, most_rounds: int) -> bool:
        """All whole rounds that are there; whether those were the last ones."""
        while self.rounds < most_rounds and (batch := self.run.take(self.round_size, gamma=GAMMA)) is not None:
            self.update(batch)
            self.run.publish(self.network.state_dict())
            self.lost += int(batch.decision[-1]) - self.newest - self.round_size
            self.newest, self.rounds = int(batch.decision[-1]), self.rounds + 1
        return self.rounds >= most_rounds


class PPO(Trainer):
    def update(self, batch: Any) -> None:
        """Over the round again and again, as long as what is likely now was about as likely then."""
        advantages = advantages_of(self.network, batch)
        wanted = advantages + batch.extras["value"]
        advantages = (advantages - advantages.mean()) / (advantages.std() + 1e-8)
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(wanted)).split(BATCH_SIZE):
                obs = batch.obs[rows]
                logps = self.network.actor(obs).log_softmax(dim=1)
                ratio = (logps.gather(1, batch.action[rows, None])[:, 0] - batch.extras["logp"][rows]).exp()
                gain = torch.minimum(ratio * advantages[rows], ratio.clamp(1 - CLIP, 1 + CLIP) * advantages[rows])
                entropy = -(logps.exp() * logps).sum(dim=1)
                error = functional.mse_loss(self.network.critic(obs)[:, 0], wanted[rows])
                loss = 0.5 * error - (gain + ENTROPY * entropy).mean()
                self.step(loss, self.network.actor, self.network.critic)


def train(arguments: argparse.Namespace, trainer_type: type[Trainer]) -> Trainer:
    """In real time or on the virtual clock: the trainer is the same."""
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    settings = {
        "env_id": "rtcore/PushedCartPole-v0",
        "env_args": {"pole_m": arguments.pole_m, "has_noop": True},
        "policy": trainer_type.policy,
        "policy_args": {"pad_ms": arguments.inference_ms},
        "seed": arguments.seed,
        "duration": arguments.duration,
        **trainer_type.settings,
    }
    if arguments.virtual:
        simulation = Simulation(make_config(clock="virtual", **settings))
        trainer = trainer_type(simulation)
        simulation.run(lambda tick: trainer.learn(arguments.rounds))
        simulation.close()
        return trainer
    with rtcore.Runtime(**settings) as runtime:
        trainer = trainer_type(runtime)
        while not runtime.wait(0.02):  # raises whatever goes wrong in any process of the run
            if trainer.learn(arguments.rounds):
                break
    return trainer


def main(trainer_type: type[Trainer], about: str | None) -> None:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=600, metavar="S", help="how long to learn [s] (default 600)")
    parser.add_argument("--virtual", action="store_true", help="on the virtual clock: as quickly as it goes")
    parser.add_argument("--inference-ms", type=float, default=30, metavar="MS", help="of the policy (default 30)")
    parser.add_argument(
        "--pole-m", type=float, default=8.0, metavar="M", help="a shorter one falls quicker (default 8)"
    )
    parser.add_argument("--rounds", type=int, default=10**9, metavar="N", help="end after so many rounds")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of world, policy and trainer (default 0)")
    arguments = parser.parse_args()
    try:
        trainer = train(arguments, trainer_type)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error
    returns = trainer.run.summary()["episodes"]["returns"]
    few = max(1, min(20, len(returns) // 2))
    first, last = (sum(part) / max(1, len(part)) for part in (returns[:few], returns[-few:]))
    print(
        f"{trainer.rounds} rounds of {trainer.round_size} decisions, {trainer.lost} lost; mean return of the first "
        f"{few} episodes {first:.0f}, of the last {last:.0f}"
    )


if __name__ == "__main__":
    main(PPO, __doc__)
