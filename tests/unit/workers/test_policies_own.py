"""Policies as people write them: with a state, from a file, differentiating, at a path."""

from __future__ import annotations

import sys
import threading
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import nn

from rtcore.errors import PolicyError
from rtcore.memory.weights import ParamStore
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import Policy, load_policy
from rtcore_workers.weights.shared import connect

pytestmark = pytest.mark.unit
HERE = __name__
OBSERVATION, ACTION = Box(-1, 1, (4,), np.float32), Discrete(3)


def load(
    name: str,
    *,
    shared: bool = False,
    worker: int = 0,
    store: list[ParamStore] | None = None,
    action=ACTION,
    is_head: bool = False,
    **args,
) -> Policy:
    """As a worker does. `shared`: on a store of weights, `store` if there is one."""
    store = [] if store is None else store

    def make_store(manifest):
        if manifest is not None:
            store.append(ParamStore.private(manifest, max_workers=2))
        return store[0]

    def share(build, plain):
        return connect(build, make_store, is_first=not worker and not plain, plain=plain, worker=worker)

    spaces = ObservationSpec.from_space(OBSERVATION), ActionSpec.from_space(action)
    options = {"seed": 0, "worker_index": worker, "device": "cpu", "share": share if shared else None}
    return load_policy(name, dict(args), *spaces, is_head=is_head, **options)


class Keeps(nn.Module):
    """`what` it keeps between two calls."""

    def __init__(self, observation_space, action_space, what="nothing"):
        super().__init__()
        self.layer, self.what = nn.Linear(4, 3), what
        self.cell = nn.GRUCell(4, 3)
        self.frames, self.state, self.seen, self.mask = [], None, None, None
        self.queue, self.calls = deque(), 0

        class Holder:  # cannot be pickled
            last = None

        given = {"noise": {"noise": np.random.default_rng(3)}, "kept": {"of": Holder(), "lock": threading.Lock()}}
        self.kept = given.get(what, {})
        self.register_buffer("hidden", torch.zeros(1, 3), persistent=False)

    def forward(self, x):
        if self.what == "state":
            self.state = self.cell(x, self.state)
            return self.state
        if self.what == "hidden":
            self.hidden.copy_(self.cell(x, self.hidden))
            return self.hidden.clone()
        if self.what == "frames":
            self.frames = [*self.frames, x.clone()][-3:]
            return self.layer(torch.stack(self.frames).mean(0))
        if self.what == "mask" and self.mask is None:
            self.mask = torch.ones(4)
        if self.what == "queue":
            if not self.queue:
                self.queue.extend(self.layer(x) for _ in range(50))
            return self.queue.popleft()
        if self.what == "every":
            self.calls += 1
            if self.calls % 4 == 1:
                self.state = self.layer(x)
            return self.state
        if self.what == "calls":
            self.calls += 1
            return self.layer(x) + self.calls
        if self.what == "kept":
            self.kept["of"].last = self.layer(x) if self.kept["of"].last is None else self.kept["of"].last
            return self.kept["of"].last
        if self.what == "log":
            self.calls += 1
            self.frames.append(x.clone())
        if self.what == "noise":
            return self.layer(x) + float(self.kept["noise"].normal())
        if self.what == "dropout":
            self.calls += 1
            return nn.functional.dropout(self.layer(x), 0.5, training=True)
        if self.what == "seen":
            self.seen = x.clone()
        return self.layer(x)


@pytest.mark.parametrize("shared", (True, False))
@pytest.mark.parametrize(
    ("what", "named"),
    (
        ("state", " state"),
        ("frames", " frames"),
        ("queue", " queue"),
        ("every", " state"),
        ("calls", " calls"),
    ),
)
def test_a_state_that_is_kept_from_call_to_call_is_warned_of_by_name(what: str, named: str, shared: bool) -> None:
    (note,) = load(f"{HERE}:Keeps", what=what, shared=shared).info.notes
    assert note.startswith(f"WARNING: the policy keeps a state from call to call (attribute{named})")
    assert "--chunk" in note
    assert "initial_state()" in note


@pytest.mark.parametrize("shared", (True, False))
def test_a_state_in_a_buffer_is_refused_with_how_to_carry_it(shared: bool) -> None:
    with pytest.raises(PolicyError, match=r"state in its buffers \(hidden\).*initial_state\(\).*next state"):
        load(f"{HERE}:Keeps", what="hidden", shared=shared)


def test_looking_for_a_state_leaves_no_trace_in_the_policy() -> None:
    policy = load(f"{HERE}:Keeps", what="queue", shared=True)
    assert len(policy.module.queue) == 49, "one call, of the warm-up"


@pytest.mark.parametrize("what", ("nothing", "mask", "seen", "log", "noise", "dropout"))
def test_what_is_made_once_or_only_looked_at_is_no_state(what: str) -> None:
    assert load(f"{HERE}:Keeps", what=what).info.notes == ()


class Script(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(1, 4))

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        self.mean += x
        return self.layer(self.mean) * scale


class AsksForContext(nn.Module):
    def forward(self, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        return x[:, :3]


def script(observation_space, action_space):
    return torch.jit.script(Script())


def script_with_context(observation_space, action_space):
    return torch.jit.script(AsksForContext())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_script_of_torch_may_have_defaults_and_is_looked_at_for_a_state_that_blank_frames_leave_as_it_is() -> None:
    (_, note) = load(f"{HERE}:script").info.notes
    assert "keeps a state from call to call (attribute buffers of the file)" in note
    with pytest.raises(PolicyError, match=r"takes tensors alone.*self.script\(observation, context.delay_ticks\)"):
        load(f"{HERE}:script_with_context")


class KeepsInOnePart(nn.Module):
    """Of two speeds, whose `part` keeps a state, in `where`."""

    def __init__(self, observation_space, action_space, part, where):
        super().__init__()
        self.layer, self.part, self.where = nn.Linear(4, 3), part, where
        self.last = None
        self.register_buffer("hidden", torch.zeros(1, 3), persistent=False)

    def _remember(self, value, part):
        if part != self.part:
            return value
        if self.where == "last":
            self.last = value if self.last is None else value + self.last
            return self.last
        self.hidden = value + self.hidden
        return self.hidden

    def think(self, x):
        features = self._remember(self.layer(x), "think")
        return features, self.layer(x)  # which the state is not in

    def act(self, x, features, age_ticks):
        return self._remember(self.layer(x) + features, "act")


@pytest.mark.parametrize("part", ("think", "act"))
def test_each_part_of_two_speeds_is_looked_at_for_a_state(part: str) -> None:
    def notes(is_head: bool, where: str) -> tuple[str, ...]:
        return load(f"{HERE}:KeepsInOnePart", worker=9 * is_head, is_head=is_head, part=part, where=where).info.notes

    is_head = part == "act"
    assert notes(not is_head, "last") == notes(not is_head, "hidden") == ()
    (note,) = notes(is_head, "last")
    assert "keeps a state from call to call (attribute last)" in note
    with pytest.raises(PolicyError, match=r"state in its buffers \(hidden\)"):
        notes(is_head, "hidden")


class Recalls:
    """A plain callable that keeps `what`."""

    def __init__(self, observation_space, action_space, what):
        self.what, self.calls, self.frames = what, 0, deque(maxlen=3)
        self.weights = np.zeros(1 << 22)  # 32 MB
        self.lock = threading.Lock()

    def __call__(self, observation):
        if self.what == "weights":
            self.weights[0] += 1
            return self.weights[:3][None]
        self.calls += 1
        self.frames.append(observation[:, :3].copy())
        return np.mean(self.frames, axis=0) if self.what == "frames" else observation[:, :3]


class Chooses(Recalls):
    """Gives the number of an action, in which one frame more seldom shows."""

    def __call__(self, observation):
        return np.array([int(super().__call__(observation).sum() > 1)])


def around(observation_space, action_space):
    last, calls = np.zeros((1, 3)), 0

    def decide(observation):
        nonlocal last, calls
        calls += 1
        before, last = last, observation[:, :3].copy()
        return before

    return decide


def method(observation_space, action_space, what):
    return Recalls(observation_space, action_space, what).__call__


@pytest.mark.parametrize(
    ("name", "args", "named"),
    [
        ("Recalls", {"what": "frames"}, "frames"),
        ("Chooses", {"what": "frames"}, "frames"),
        ("method", {"what": "frames"}, "frames"),
        ("around", {}, "last"),
    ],
)
def test_a_plain_callable_that_keeps_a_state_is_warned_of(name: str, args: dict[str, str], named: str) -> None:
    (_, note) = load(f"{HERE}:{name}", **args).info.notes
    assert f"keeps a state from call to call (attribute {named})" in note


@pytest.mark.parametrize("what", ("log", "weights"))
def test_a_plain_callable_that_only_counts_or_is_too_large_is_not(what: str) -> None:
    policy = load(f"{HERE}:Recalls", what=what)
    assert policy.info.notes == ("a plain callable: publish and checkpoints do not reach it",)
    assert policy.module.inner.calls + policy.module.inner.weights[0] == 1, "that of the warm-up"


class Differentiates(nn.Module):
    def __init__(self, observation_space, action_space, later=False):
        super().__init__()
        self.layer, self.skip = nn.Linear(4, 3), later

    def forward(self, x):
        if self.skip:
            self.skip = False
            return self.layer(x)
        with torch.enable_grad():
            z = self.layer(x.clone()).detach().requires_grad_(True)
            (slope,) = torch.autograd.grad((z * z * self.layer.bias).sum(), z)
        return slope


@pytest.mark.parametrize("later", (False, True))
def test_a_policy_may_differentiate_in_its_forward(later: bool) -> None:
    policy = load(f"{HERE}:Differentiates", later=later, shared=True)
    out = np.zeros(1, np.int64)
    policy.observation[...] = 1
    policy.act(frame_seq=0, out=out)
    with torch.no_grad():
        layer = policy.module.layer
        expected = int((2 * layer(torch.ones(1, 4)) * layer.bias).argmax())
    assert out[0] == expected


class DifferentiatesInVain(Differentiates):
    def forward(self, x):
        with torch.inference_mode():
            return super().forward(x)


def test_one_that_cannot_is_told_how() -> None:
    with pytest.raises(PolicyError, match=r"differentiates in its forward.*torch.inference_mode\(False\)"):
        load(f"{HERE}:DifferentiatesInVain", shared=True)


def scripted(observation_space, action_space):
    return torch.jit.script(nn.Linear(4, 3))


def exported(observation_space, action_space, path):
    return torch.export.load(path).module()


def loaded(observation_space, action_space, path):
    return torch.jit.load(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_networks_from_files_of_torch_play_with_weights_of_their_own(tmp_path: Path) -> None:
    net, x = nn.Linear(4, 3), torch.ones(1, 4)
    torch.jit.script(net).save(tmp_path / "net.pt")
    torch.export.save(torch.export.export(net, (x,)), tmp_path / "net.pt2")
    script, export = ({"path": str(tmp_path / name)} for name in ("net.pt", "net.pt2"))
    for name, given in {"loaded": script, "exported": export, "scripted": {}}.items():
        store: list[ParamStore] = []
        for worker in range(2):
            policy = load(f"{HERE}:{name}", shared=True, worker=worker, store=store, **given)
            assert policy.info.num_parameters == 15
            assert "weights: from the file, a copy in each worker" in policy.info.notes[0]
            policy.observation[...] = 1
            out = np.zeros(1, np.int64)
            policy.act(frame_seq=0, out=out)
            assert not given or out[0] == int(net(x).argmax())


def test_a_policy_may_be_named_by_its_file_and_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside_the_net.py").write_text("WIDTH = 3\n")
    (tmp_path / "net_in_a_file.py").write_text(
        "from torch import nn\nfrom beside_the_net import WIDTH\n"
        "def make(observation_space, action_space):\n    return nn.Linear(4, WIDTH)\n"
    )
    try:
        assert load(f"{tmp_path}/net_in_a_file.py:make").info.num_parameters == 15
    finally:
        sys.path.remove(str(tmp_path))
    with pytest.raises(PolicyError, match=r"there is no file .*/none\.py"):
        load(f"{tmp_path}/none.py:make")


class Lazy(nn.Module):
    def __init__(self, observation_space, action_space):
        super().__init__()
        self.layer = nn.LazyLinear(3)

    def forward(self, x):
        return self.layer(x)


class Pair(Keeps):
    def forward(self, x):
        return self.layer(x), x


def number(observation_space, action_space):
    return 7


def misspelt(observation, contxt):
    return np.zeros((1, 3))


def listed(observation):
    return [1]


def fails(observation, temperature):
    raise ValueError("no spaces here")


@pytest.mark.parametrize(
    ("name", "says"),
    (
        ("Lazy", r"'layer.weight' is not initialised yet.*nn.Linear\(n, ...\) for nn.LazyLinear"),
        ("Pair", "returned tuple; expected one tensor.*of a mean and a value the mean"),
        (
            "number",
            r"returned int; expected an nn.Module, or any callable .*number\(observation_space, action_space\)$",
        ),
        (
            "misspelt",
            r"taken for a factory because of its parameter 'contxt' \(did you mean 'context'\?\): a policy its",
        ),
        ("fails", "raised ValueError.*taken for a factory because of its parameter 'temperature': a policy itself"),
        ("listed", r"the policy returned list; expected one array or tensor, as np.array\(...\) makes of it"),
        ("ACTION", "'ACTION' is Discrete; expected a policy, or what returns one: an nn.Module or a callable"),
    ),
)
def test_what_cannot_be_a_policy_is_refused_with_what_to_do(name: str, says: str) -> None:
    with pytest.raises(PolicyError, match=says):
        load(f"{HERE}:{name}", shared=True)


class Squashed(nn.Module):
    def __init__(self, observation_space, action_space, how="tanh", trained_on=None):
        super().__init__()
        self.layer, self.how = nn.Linear(4, 2), how
        self.low, self.high = torch.from_numpy(action_space.low), torch.from_numpy(action_space.high)
        if trained_on is not None:
            self.observation_space = Box(-trained_on, trained_on, (4,), np.float32)

    def forward(self, x):
        x = self.layer(x)
        if self.how == "scaled":
            return self.low + (torch.tanh(x) + 1) / 2 * (self.high - self.low)
        squashed = {"tanh": torch.tanh, "sigmoid": torch.sigmoid, "clamp": lambda x: x.clamp(-1, 1)}
        return squashed.get(self.how, lambda x: x)(x).reshape(1, 2)


@pytest.mark.parametrize(
    ("how", "bound", "says"),
    (
        ("tanh", 2, "from -1 to 1, and the world's actions are from -2 to 2"),
        ("tanh", 3, "low + (x +1) / 2 * (high - low)"),
        ("sigmoid", 2, "from 0 to 1"),
        ("clamp", 0.4, "from -1 to 1"),
        ("tanh", 1, ""),
        ("tanh", np.inf, ""),
        ("scaled", 2, ""),
        ("plain", 2, ""),
    ),
)
def test_an_actor_of_another_scale_than_the_worlds_actions_is_warned_of(how: str, bound: float, says: str) -> None:
    notes = load(f"{HERE}:Squashed", action=Box(-bound, bound, (2,), np.float32), how=how, shared=True).info.notes
    assert [says in note for note in notes] == ([True] if says else [])


def test_a_policy_that_says_it_was_made_for_other_bounds_is_warned_of() -> None:
    box = Box(-1, 1, (2,), np.float32)
    (note,) = load(f"{HERE}:Squashed", action=box, trained_on=5.0).info.notes
    assert "the policy's observation_space is Box(-5.0, 5.0, (4,), float32), the world's is Box(-1.0, 1.0" in note
    assert load(f"{HERE}:Squashed", action=box, trained_on=1.0).info.notes == ()


def stable_baselines(observation_space, action_space, kind):
    import stable_baselines3
    from gymnasium import Env

    class Nowhere(Env):
        pass

    world = Nowhere()
    world.observation_space, world.action_space = observation_space, action_space
    policy = getattr(stable_baselines3, kind)("MlpPolicy", world, device="cpu").policy
    return policy.q_net if kind == "DQN" else policy.actor


@pytest.mark.parametrize(("kind", "bound", "warnings"), (("SAC", 2, 1), ("TD3", 2, 1), ("TD3", 1, 0), ("DQN", 0, 0)))
def test_stable_baselines_actors_are_warned_of_where_they_would_have_to_scale(kind, bound, warnings) -> None:
    pytest.importorskip("stable_baselines3")
    action = Box(-bound, bound, (2,), np.float32) if bound else ACTION
    notes = load(f"{HERE}:stable_baselines", action=action, kind=kind, shared=True).info.notes
    assert ["from -1 to 1" in note for note in notes] == [True] * warnings
