"""DQN as an algorithm, against slow references."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import nn

from rtcore.config.groups import LearningSettings
from rtcore.errors import ConfigError, PolicyError
from rtcore.learn.learnable import check_actions
from rtcore.learn.replay_memory import Batch
from rtcore.memory.history import History
from rtcore.memory.master import MasterState, Slot
from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore.spaces import ActionSpec
from rtcore_workers.dqn import (
    Adam,
    DecisionInputs,
    DqnLearner,
    FlatModule,
    bootstrap_values,
    clip_,
    refuse_what_carries,
    td_targets,
)
from rtcore_workers.weights.shared import manifest_of as shared_manifest_of

pytestmark = pytest.mark.unit

NUM_STATES, NUM_ACTIONS = 5, 3
ACTION = ActionSpec.from_space(spaces.Discrete(NUM_ACTIONS, start=2))


class Net(nn.Module):
    """A value for each (state, action): states are one-hot uint8 vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(NUM_STATES, 8)
        self.out = nn.Linear(8, NUM_ACTIONS)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.hidden(obs.float())))


def manifest_of(module: nn.Module) -> ParamManifest:
    return ParamManifest.of(
        ParamTensor((name,), tuple(p.shape), p.stride(), "float32", "parameter", True)
        for name, p in module.named_parameters()
    )


def seeded_net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return Net()


def flat_weights(module: nn.Module, manifest: ParamManifest) -> np.ndarray[Any, Any]:
    flat = np.zeros(manifest.trainable_bytes // 4, np.float32)
    for tensor in manifest.tensors:
        manifest.array(flat, tensor)[...] = module.get_parameter(tensor.name).detach().numpy()
    return flat


def batch_of(rng: np.random.Generator, size: int, **fixed: Any) -> Batch:
    eye = np.eye(NUM_STATES, dtype=np.uint8)
    zeros = np.zeros(size, np.int64)
    fields = {
        "obs": eye[rng.integers(0, NUM_STATES, size)],
        "action": rng.integers(2, 2 + NUM_ACTIONS, size),
        "reward": rng.normal(size=size).astype(np.float32),
        "discount": (0.9 ** rng.integers(1, 6, size)).astype(np.float32),
        "next_obs": eye[rng.integers(0, NUM_STATES, size)],
        "terminated": rng.random(size) < 0.3,
        "truncated": rng.random(size) < 0.3,
        **dict.fromkeys(("tick", "num_ticks", "delay_ticks", "policy_version", "worker", "num_decisions"), zeros),
        **dict.fromkeys(("episode", "row", "decision", "chunk_index"), zeros),
    }
    return Batch(**{**fields, **fixed})


class Replay:
    """Batches drawn from the generator that the learner brings."""

    history = History()

    def __init__(self, **fixed: Any) -> None:
        self.fixed = fixed
        self.drawn: list[Batch] = []

    def __len__(self) -> int:
        return 100

    def sample(self, batch_size: int, rng: np.random.Generator, *, n_step: int = 1) -> Batch:
        self.drawn.append(batch_of(rng, batch_size, **self.fixed))
        return self.drawn[-1]


def settings(**changes: Any) -> LearningSettings:
    fields = {
        "learn": "dqn",
        "learning_rate": 1e-2,
        "batch_size": 16,
        "n_step": 1,
        "double_dqn": False,
        "target_every": 7,
        "max_grad_norm": 10.0,
        "publish_every": 5,
        "mode": "async",
    }
    return LearningSettings(**{**fields, **changes})


def learner(replay: Replay, publish: Any = None, **changes: Any) -> tuple[DqnLearner, Net, ParamManifest]:
    net = seeded_net()
    manifest = manifest_of(net)
    master = MasterState.private(manifest.trainable_bytes)
    master.begin(flat_weights(net, manifest))
    made = DqnLearner(Net(), Net(), manifest, master, replay, settings(**changes), ACTION, seed=11, publish=publish)
    return made, net, manifest


# -- targets -----------------------------------------------------------------------------------------------------


class Recurrent(nn.Linear):
    def initial_state(self) -> torch.Tensor:
        return torch.zeros(1)


class AsksForContext(nn.Linear):
    def forward(self, x: Any, context: Any = None) -> Any:
        return super().forward(x)


class RollsForward(nn.Linear):
    def advance(self, x: Any, committed: Any) -> Any:
        return x


class TwoSpeeds(nn.Linear):
    def think(self, x: Any) -> Any:
        return x, self(x)


class NamesItsArguments(nn.Module):
    """Takes what workers give by name in an order of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)

    def forward(self, x: Any, *, past_actions: Any) -> Any:
        return self.layer(x) + past_actions.sum(1)

    def think(self, x: Any) -> Any:
        return self.layer(x), torch.zeros(len(x), 2)

    def act(self, x: Any, age_ticks: Any, *, features: Any) -> Any:
        return features + 100 * age_ticks.unsqueeze(1) + x


def test_a_learner_gives_a_policy_what_it_asks_for_by_name_as_workers_do() -> None:
    flat = FlatModule(module := NamesItsArguments(), manifest_of(module), with_grads=False)
    x, past, age = torch.ones(3, 2), torch.full((3, 4, 2), 7.0), torch.tensor([2, 5, -1])
    with torch.no_grad():
        seen = module.layer(x)
        assert torch.equal(flat.values(DecisionInputs(x, past))[0], seen + 28)
        acted = flat.values(DecisionInputs(x, None, 2 * x, age, past))[0]
        assert torch.equal(acted[:2], module.layer(2 * x)[:2] + 100 * age[:2, None] + x[:2])
        assert torch.equal(acted[2], torch.zeros(2)), "a base action"


class TwoSpeedsWithContext(TwoSpeeds):
    def act(self, x: Any, features: Any, context: Any) -> Any:
        return x


@pytest.mark.parametrize(
    ("kind", "learn", "has_past_actions", "what"),
    [
        (Recurrent, "dqn", False, r"a carried state \(initial_state\(\)\)"),
        (AsksForContext, "dqn", False, "a context"),
        (TwoSpeedsWithContext, "dqn", False, "a context"),
        (RollsForward, "dqn", False, r"advance\(\), which rolls its observation forward"),
        (TwoSpeeds, "imitate", False, "two speeds, with learn=imitate"),
        (TwoSpeeds, "dqn", True, "two speeds, with act_history"),
    ],
)
def test_a_policy_that_needs_more_than_the_learner_gives_it_is_refused(
    kind: Any, learn: Any, has_past_actions: bool, what: str
) -> None:
    settings = LearningSettings(learn=learn)
    with pytest.raises(ConfigError, match=f"learn={learn}: the policy has {what}.*Runtime.sample"):
        refuse_what_carries(kind(2, 2), settings, has_past_actions)
    refuse_what_carries(nn.Linear(2, 2), settings, has_past_actions)
    refuse_what_carries(TwoSpeeds(2, 2), LearningSettings(learn="dqn"), False)


def test_a_target_bootstraps_from_what_goes_on_or_was_cut_off_and_from_nothing_that_terminated() -> None:
    target = td_targets(
        torch.tensor([1.0, 1.0, 1.0]),
        torch.tensor([0.5, 0.25, 0.5]),
        torch.tensor([False, False, True]),
        torch.tensor([8.0, 8.0, math.nan]),
    )
    assert target.tolist() == [5.0, 3.0, 1.0]


def test_double_dqn_values_the_online_networks_choice_with_the_target_network() -> None:
    target_q = torch.tensor([[1.0, 5.0, 3.0]])
    online_q = torch.tensor([[9.0, 0.0, 0.0]])
    assert bootstrap_values(target_q).item() == 5.0
    assert bootstrap_values(target_q, online_q).item() == 1.0


@pytest.mark.parametrize("double_dqn", [False, True])
def test_loss_and_gradient_are_those_of_a_slow_reference(double_dqn: bool) -> None:
    replay = Replay()
    made, net, manifest = learner(replay, double_dqn=double_dqn, max_grad_norm=1e9)
    gradient = made.compute()
    batch = replay.drawn[0]
    # The reference: one transition at a time, in float64, differentiated by hand-written finite differences.
    parameters = {name: p.detach().double().numpy().copy() for name, p in net.named_parameters()}

    def values(weights: dict[str, Any], obs: Any) -> Any:
        hidden = np.tanh(weights["hidden.weight"] @ obs.astype(float) + weights["hidden.bias"])
        return weights["out.weight"] @ hidden + weights["out.bias"]

    def loss(weights: dict[str, Any]) -> float:
        total = 0.0
        for i in range(len(batch.reward)):
            next_values = values(parameters, batch.next_obs[i])
            best = next_values.max()  # at first the target is the network itself
            goal = float(batch.reward[i]) + (0.0 if batch.terminated[i] else float(batch.discount[i]) * best)
            error = abs(values(weights, batch.obs[i])[int(batch.action[i]) - 2] - goal)
            total += 0.5 * error**2 if error < 1 else error - 0.5
        return total / len(batch.reward)

    assert gradient.loss == pytest.approx(loss(parameters), rel=1e-5)
    grads = made._online.grads.numpy()
    for tensor in manifest.tensors:
        got = manifest.array(grads, tensor)
        for place in np.ndindex(tensor.shape):
            moved = {name: value.copy() for name, value in parameters.items()}
            moved[tensor.name][place] += 1e-6
            slope = (loss(moved) - loss(parameters)) / 1e-6
            assert got[place] == pytest.approx(slope, abs=2e-4), (tensor.name, place)


def test_gradients_do_not_add_up_over_updates() -> None:
    made, _, _ = learner(Replay(), learning_rate=1e-30)
    made.compute()
    first = made._online.grads.clone()
    made.compute()  # nothing was applied: the same weights, the same batch
    assert torch.equal(first, made._online.grads)


# -- clipping and Adam -------------------------------------------------------------------------------------------


def test_clipping_scales_a_long_gradient_to_the_limit_and_leaves_a_short_one() -> None:
    long, short = torch.tensor([3.0, 4.0]), torch.tensor([0.3, 0.4])
    assert clip_(long, 1.0) == pytest.approx(5.0)
    assert long.tolist() == pytest.approx([0.6, 0.8])
    assert clip_(short, 1.0) == pytest.approx(0.5)
    assert short.tolist() == pytest.approx([0.3, 0.4])


def test_the_gradient_that_is_applied_is_the_clipped_one() -> None:
    made, _, _ = learner(Replay(reward=np.full(16, 1000, np.float32)), max_grad_norm=0.01)
    gradient = made.compute()
    assert gradient.grad_norm > 0.01
    assert float(made._online.grads.norm()) == pytest.approx(0.01, rel=1e-5)


def test_adam_takes_the_same_steps_as_torchs_to_the_bit() -> None:
    rng = np.random.default_rng(0)
    parameter = nn.Parameter(torch.from_numpy(rng.normal(size=64).astype(np.float32)))
    reference = torch.optim.Adam([parameter], lr=3e-3, foreach=False)
    slots = [Slot(*(np.zeros(64, np.float32) for _ in range(3))) for _ in range(2)]
    slots[0].weights[:] = parameter.detach().numpy()
    adam = Adam(3e-3)
    for step in range(1, 60):
        grads = torch.from_numpy(rng.normal(size=64).astype(np.float32) * 10 ** float(rng.uniform(-6, 2)))
        parameter.grad = grads.clone()
        reference.step()
        adam(grads, slots[(step - 1) % 2], slots[step % 2], step)
        assert np.array_equal(slots[step % 2].weights, parameter.detach().numpy()), step


def test_updates_are_those_of_a_plain_dqn_loop_with_torchs_adam() -> None:
    replay = Replay()
    made, net, manifest = learner(replay, target_every=4, max_grad_norm=0.5)
    target = seeded_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, foreach=False)
    for number in range(1, 14):
        _, update = made.update()
        assert update is not None
        assert update.commit.updates == number
        batch = replay.drawn[-1]
        with torch.no_grad():
            best = target(torch.from_numpy(batch.next_obs)).max(1).values
            goal = torch.from_numpy(batch.reward) + torch.from_numpy(batch.discount) * best * ~torch.from_numpy(
                batch.terminated
            )
        taken = net(torch.from_numpy(batch.obs)).gather(1, torch.from_numpy(batch.action - 2)[:, None])[:, 0]
        optimizer.zero_grad()
        nn.functional.smooth_l1_loss(taken, goal).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.5)
        optimizer.step()
        if number % 4 == 0:
            target.load_state_dict(net.state_dict())
        master = made.master
        np.testing.assert_allclose(
            master.slots[master.commit.slot].weights, flat_weights(net, manifest), rtol=2e-5, atol=2e-6
        )


# -- what a learner does beside ----------------------------------------------------------------------------------


def test_every_so_many_updates_the_weights_are_published_that_the_update_started_from() -> None:
    published: list[tuple[Any, int]] = []
    made, _, _ = learner(Replay(), publish=lambda weights, updates: published.append((np.array(weights), updates)) or 7)
    versions, weights = [], {}
    for _ in range(11):
        weights[made.master.commit.updates] = made.master.copy().weights
        versions.append(made.update()[1].version)  # type: ignore[union-attr]
    assert [updates for _, updates in published] == [4, 9]
    assert [number for number, version in enumerate(versions, 1) if version == 7] == [5, 10]
    for out, updates in published:
        assert np.array_equal(out, weights[updates])


@pytest.mark.parametrize("mode", ["infer-then-learn", "learn-then-infer"])
def test_an_agent_that_learns_and_acts_in_turn_acts_on_what_it_has_just_learned(mode: str) -> None:
    published: list[tuple[Any, int]] = []
    made, _, _ = learner(
        Replay(),
        publish=lambda weights, updates: published.append((np.array(weights), updates)) or 7,
        publish_every=1,
        mode=mode,
    )
    for updates in range(1, 4):
        made.update()
        assert published[-1][1] == updates
        assert np.array_equal(published[-1][0], made.master.copy().weights)


def test_weights_that_diverged_in_the_last_update_are_never_published() -> None:
    published: list[Any] = []
    made, net, manifest = learner(
        Replay(),
        publish=lambda weights, updates: published.append(np.array(weights)) or 1,
        learning_rate=3e37,
        publish_every=1,
    )
    first = flat_weights(net, manifest)
    flaws = []
    while not flaws:
        gradient, _ = made.update()
        flaws += [gradient.flaw] if gradient.flaw else []
    assert not np.abs(made.master.copy().weights).max() < 1e30
    assert len(published) == made.master.commit.updates
    assert np.array_equal(published[0], first)
    assert all(np.isfinite(weights).all() for weights in published)


@pytest.mark.parametrize("which", ["obs", "next_obs"])
def test_a_loss_that_the_worlds_nan_made_is_told_as_that(which: str) -> None:
    made, _, _ = learner(Replay())
    frames = getattr(made._replay.sample(16, np.random.default_rng(0)), which).astype(np.float32)
    frames[3] = math.nan
    made, _, _ = learner(Replay(**{which: frames}))
    gradient, update = made.update()
    assert update is None
    assert "the world returned NaN" in gradient.flaw


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_changes_nothing(value: float) -> None:
    made, net, manifest = learner(Replay(reward=np.full(16, value, np.float32)))
    gradient, update = made.update()
    assert gradient.flaw == "loss"
    assert update is None
    assert made.master.commit.updates == 0
    assert np.array_equal(made.master.slots[0].weights, flat_weights(net, manifest))


def test_the_batches_of_an_update_depend_on_its_number_alone_so_that_a_resumed_run_goes_on_with_the_same() -> None:
    through = Replay()
    made, _, _ = learner(through)
    for _ in range(6):
        made.update()
    copy = made.master.copy()
    resumed_replay = Replay()
    resumed, _, _ = learner(resumed_replay)
    resumed.master.begin(
        copy.weights, updates=copy.updates, exp_avg=copy.exp_avg, exp_avg_sq=copy.exp_avg_sq, target=copy.target
    )
    for _ in range(5):
        made.update()
        resumed.update()
    for theirs, ours in zip(through.drawn[6:], resumed_replay.drawn, strict=True):
        assert np.array_equal(theirs.obs, ours.obs)
    assert np.array_equal(made.master.copy().weights, resumed.master.copy().weights)
    assert len({batch.obs.tobytes() for batch in through.drawn}) > 1


def test_only_discrete_actions_can_be_learned_and_the_error_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"expected Discrete.*trainer of your own"):
        check_actions("dqn", ActionSpec.from_space(spaces.Box(-1, 1, (2,))))


def test_a_network_that_loses_the_batch_is_named() -> None:
    made, _, _ = learner(Replay())
    made._online.module.forward = lambda obs: torch.zeros(1, NUM_ACTIONS)  # type: ignore[method-assign]
    made._target.module.forward = lambda obs: torch.zeros(16, NUM_ACTIONS)  # type: ignore[method-assign]
    with pytest.raises(PolicyError, match=r"shape \(1, 3\) for a batch of 16; expected \(16, 3\)"):
        made.compute()


def test_a_network_that_is_another_each_time_is_named() -> None:
    other = nn.Linear(2, 2)
    net = seeded_net()
    manifest = manifest_of(net)
    master = MasterState.private(manifest.trainable_bytes)
    with pytest.raises(PolicyError, match="has no parameter 'hidden.weight'"):
        DqnLearner(other, Net(), manifest, master, Replay(), settings(), ACTION, seed=0)


def test_weights_that_share_their_memory_follow_the_master_together_and_their_gradients_add_up() -> None:
    """Tied by their memory, not by being one object: a worker binds both, so must a learner."""

    def tied() -> nn.Sequential:
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        net[1].weight = nn.Parameter(net[0].weight.data)
        return net

    manifest = shared_manifest_of(tied())
    assert [tensor.names for tensor in manifest.tensors] == [("0.weight", "1.weight")]
    flat = FlatModule(tied(), manifest, with_grads=True)
    flat.weights[:4] = torch.tensor([2.0, 0.0, 0.0, 2.0])
    out = flat.values(DecisionInputs(torch.tensor([[1.0, 3.0]])))[0]
    assert out.tolist() == [[4.0, 12.0]]
    out.sum().backward()  # type: ignore[no-untyped-call]
    assert flat.grads[:4].tolist() == [4.0, 12.0, 4.0, 12.0]


def test_a_tiny_world_is_solved() -> None:
    """Five states in a row, right pays at the end: the values are gamma ** steps."""
    rng = np.random.default_rng(1)
    eye = np.eye(NUM_STATES, dtype=np.uint8)

    class Corridor(Replay):
        def sample(self, batch_size: int, rng: np.random.Generator, *, n_step: int = 1) -> Batch:
            state = rng.integers(0, NUM_STATES, batch_size)
            action = rng.integers(0, NUM_ACTIONS, batch_size)
            after = np.clip(state + action - 1, 0, NUM_STATES - 1)
            goal = (state == NUM_STATES - 1) & (action == 2)
            return batch_of(
                rng,
                batch_size,
                obs=eye[state],
                action=action + 2,
                reward=goal.astype(np.float32),
                discount=np.full(batch_size, 0.9, np.float32),
                next_obs=eye[after],
                terminated=goal,
            )

    made, _, _ = learner(Corridor(), target_every=25, batch_size=32)
    del rng
    for _ in range(1500):
        made.update()
    with torch.no_grad():
        made._read_master()
        best = made._online.values(DecisionInputs(torch.from_numpy(eye)))[0].max(1)
    assert best.indices.tolist() == [2] * NUM_STATES
    assert best.values.tolist() == pytest.approx([0.9 ** (NUM_STATES - 1 - i) for i in range(NUM_STATES)], abs=0.05)
