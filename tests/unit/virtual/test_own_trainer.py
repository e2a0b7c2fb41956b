"""A trainer of one's own on the virtual clock: as with a `Runtime`, but nothing waits, and a seed is a run."""

from __future__ import annotations

from itertools import chain
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, PolicyError
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit
TICKS, COUNT = 60, 20


class Draws(nn.Module):
    policy_extras: ClassVar = {"logp": ((), "float32")}

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.net = nn.Linear(observation_space.shape[0], int(action_space.n))

    def forward(self, observation: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logps = self.net(observation).log_softmax(dim=1)
        action = torch.multinomial(logps.exp(), 1)
        return action, {"logp": logps.gather(1, action)[:, 0]}


def a_run(policy: str = f"{__name__}:Draws", **settings: Any) -> Simulation:
    return Simulation(
        RuntimeConfig(
            env_id="rtcore/PushedCartPole-v0",
            env_args={"has_noop": True},
            policy=policy,
            clock="virtual",
            latency="constant:30",
            ticks=TICKS,
            **settings,
        )
    )


def trained() -> tuple[list[list[int]], list[bool], Simulation]:
    """What each round was made with, and whether the weights of that version had said what came with it."""
    torch.manual_seed(7)
    run = a_run()
    networks: dict[int | None, Draws | None] = {1: None}
    versions: list[list[int]] = []
    fits: list[bool] = []

    def learn(tick: int) -> None:
        while (batch := run.take(COUNT, gamma=0.9)) is not None:
            versions.append(batch.policy_version.tolist())
            for version, obs, action, logp in zip(
                versions[-1], batch.obs, batch.action, batch.extras["logp"], strict=True
            ):
                if (network := networks[version]) is not None:
                    fits.append(bool(torch.isclose(network.net(obs).log_softmax(0)[int(action)], logp)))
            network = Draws(run.observation_space, run.action_space)
            networks[run.publish(network.state_dict(), updates=len(versions))] = network

    run.run(learn)
    run.close()
    return versions, fits, run


def test_decisions_come_in_order_and_published_weights_act_from_the_next_inference_on():
    versions, fits, run = trained()
    flat = list(chain.from_iterable(versions))
    # Two workers, and an action is for the tick after next: one round was made by the weights before and these.
    assert set(versions[0]) == {1}
    assert flat == sorted(flat)
    assert set(flat[COUNT:]) > {2}
    assert fits
    assert all(fits)
    assert run.publish({}) is None, "the run is over"
    assert trained()[0] == versions
    assert trained()[2].summary()["episodes"] == run.summary()["episodes"]


def test_what_cannot_be_learned_from_says_so():
    with pytest.raises(PolicyError, match="has no network to publish weights for"):
        a_run("random").publish({})
    with pytest.raises(ConfigError, match="never holds as many; raise ring_slots"):
        a_run().take(10**6)
    with pytest.raises(ConfigError, match="this run learns by itself"):
        a_run("mlp", learn="dqn").publish({})
