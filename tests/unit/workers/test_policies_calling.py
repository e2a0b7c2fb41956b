"""What a policy asks for by the names of its parameters, and what it gives behind its action."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

from rtcore.errors import PolicyError
from rtcore.learn.exploration import EpsilonSchedule
from rtcore.memory.history import History
from rtcore.memory.weights import ParamStore
from rtcore.scheduling.dispatch import Known
from rtcore.spaces import ActionSpec, Block, ObservationSpec
from rtcore.spaces.payload import WORD_AT
from rtcore_workers.policies import ExploringPolicy, PaddedPolicy, Policy, fill_chunks, load_policy
from rtcore_workers.policies.calling import calling_of
from rtcore_workers.weights.shared import connect

pytestmark = pytest.mark.unit
HERE = __name__
OBSERVATION = ObservationSpec.from_space(Box(-1, 1, (4,), np.float32))
BUTTONS, STICK = ActionSpec.from_space(Discrete(3)), ActionSpec.from_space(Box(-1000, 1000, (2,), np.float32))


def load(name: str, action: ActionSpec = STICK, **options: Any) -> Policy:
    args = options.pop("args", {})
    history = History(act_history=options.pop("act_history", 0))
    given = {"seed": 0, "worker_index": 0, "device": "cpu", "history": history} | options
    return load_policy(f"{HERE}:{name}", args, OBSERVATION, action, **given)


def act(policy: Policy, observation: Any = 0.0, action: ActionSpec = STICK, **words: int) -> list[Any]:
    """The action for an observation, and a context with these words."""
    policy.observation[...] = observation
    if policy.context is not None:
        given = context_of(policy, action)["words"]
        for name, value in words.items():
            given[WORD_AT[name]] = value
    out = np.zeros((1, *action.shape), action.np_dtype)
    policy.act(frame_seq=0, out=out)
    return out[0].tolist()


def context_of(policy: Policy, action: ActionSpec = STICK) -> dict[str, Any]:
    return policy.needs.context(action).views(policy.context)


def payload_of(policy: Policy) -> dict[str, Any]:
    return {name: array.tolist() for name, array in policy.needs.payload.views(policy.payload).items()}


class Base(nn.Module):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


# -- context ---------------------------------------------------------------------------------------------------------


class TellsWords(Base):
    """The words as numbers of its action."""

    def forward(self, x: Tensor, *, context: Any) -> Tensor:
        return torch.stack([context.tick + context.worker, context.delay_ticks - context.is_first], 1).float()


class SumsCommitted(Base):
    def forward(self, x: Tensor, past_actions: Tensor, context: Any) -> Tensor:
        facts = (context.committed_mask == Known.FACT).unsqueeze(2)
        return (context.committed * facts).sum(1) + past_actions.sum(1)


def test_a_module_that_names_context_gets_what_is_staged_as_tensors_of_a_batch_of_one():
    policy = load("TellsWords", committed_ticks=5)
    assert policy.needs.committed_ticks == 5
    assert context_of(policy)["committed"].shape == (5, 2)
    assert act(policy, tick=7, worker=1, delay_ticks=4, is_first=1) == [8, 3]
    assert act(policy, tick=8, worker=1, delay_ticks=4, is_first=0) == [9, 4], "the same memory, new values"


def test_the_committed_actions_come_with_their_mask_and_beside_the_past_ones():
    policy = load("SumsCommitted", committed_ticks=3, act_history=2)
    arrays = context_of(policy)
    arrays["committed"][...] = [[1, 0], [0.5, 0], [100, 100]]
    arrays["committed_mask"][...] = [Known.FACT, Known.FACT, Known.UNKNOWN]
    policy.past_actions[...] = [[0, 1], [0, 2]]
    assert act(policy) == [1.5, 3]


def test_a_policy_that_asks_for_nothing_needs_nothing_and_has_no_memory_for_it():
    policy = load("Plain")
    assert not policy.needs
    assert policy.context is None
    assert policy.payload is None


class Plain(Base):
    def forward(self, x: Tensor, temperature: float = 1.0) -> Tensor:
        return x[:, :2] * temperature


class ReadsWhatIsNot(Base):
    def forward(self, x: Tensor, context: Any) -> Tensor:
        return context.comitted.sum(1)


class LooksBeforeItReads(Base):
    def forward(self, x: Tensor, context: Any) -> Tensor:
        return x[:, :2] + (1 if hasattr(context, "goal") else 2)


class AsksForMore(Base):
    def forward(self, x: Tensor, contxt: Any) -> Tensor:
        return x[:, :2]


class AsksForPast(Base):
    def forward(self, x: Tensor, past_actions: Tensor) -> Tensor:
        return x[:, :2]


class AsksForState(Base):
    def forward(self, x: Tensor, state: Tensor) -> Tensor:
        return x[:, :2]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ReadsWhatIsNot", r"context\.comitted.*did you mean 'committed'.*expected one of worker, seed"),
        ("AsksForMore", r"asks for 'contxt'.*did you mean 'context'.*past_actions|context: what"),
        ("AsksForPast", r"asks for 'past_actions'.*give --act-history N"),
        ("AsksForState", r"asks for 'state'.*initial_state\(\)"),
    ],
)
def test_what_there_is_not_is_refused_when_the_policy_is_loaded(name: str, says: str):
    with pytest.raises(PolicyError, match=says):
        load(name)


def test_a_policy_may_ask_whether_its_context_has_a_field():
    assert act(load("LooksBeforeItReads")) == [2, 2]


def compiled(observation_space: Any, action_space: Any) -> Any:
    return torch.compile(TellsWords(observation_space, action_space), backend="eager")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_compiled_module_asks_as_the_one_that_was_compiled():
    assert act(load("compiled"), tick=7, worker=1, delay_ticks=4) == [8, 3]


# -- extras ----------------------------------------------------------------------------------------------------------


class GivesExtras(Base):
    policy_extras = {"logp": ((), "float32"), "mean": (2, "float32")}  # noqa: RUF012 - as a user writes it

    def forward(self, x: Tensor) -> Any:
        return x[:, :2], {"logp": x.sum(1), "mean": 2 * x[0, :2]}


class GivesWhatItIsTold(Base):
    def __init__(self, observation_space: Any, action_space: Any, extras: Any = None) -> None:
        super().__init__(observation_space, action_space)
        self.extras = extras

    def forward(self, x: Tensor) -> Any:
        return x[:, :2], {name: torch.zeros(shape, dtype=dtype) for name, (shape, dtype) in self.extras.items()}


def test_extras_travel_behind_the_action_with_or_without_the_axis_of_the_batch():
    policy = load("GivesExtras")
    assert policy.needs.extras == Block((("logp", (), "float32"), ("mean", (2,), "float32")))
    assert act(policy, [1, 2, 3, 4]) == [1, 2]
    assert payload_of(policy) == {"extras.logp": 10, "extras.mean": [2, 4]}
    assert act(policy, [1, 1, 0, 0]) == [1, 1]
    assert payload_of(policy) == {"extras.logp": 2, "extras.mean": [2, 2]}


def test_a_setting_declares_extras_as_well():
    policy = load("GivesWhatItIsTold", args={"extras": {"v": ((1,), torch.int64)}}, extras={"v": [[], "int64"]})
    assert policy.needs.extras.names == ("v",)


@pytest.mark.parametrize(
    ("given", "declared", "says"),
    [
        (
            {"v": ((1, 3), torch.float32)},
            {"v": (2, "float32")},
            r"'v' with shape \(1, 3\).*expected shape \(2,\)",
        ),
        ({"v": ((1,), torch.float64)}, {"v": ((), "float32")}, "extra 'v' .*dtype float64; .*dtype float32"),
        ({"v": ((1,), torch.float32)}, {}, "with the extras v, which are not declared.*policy_extras"),
        ({"v": ((1,), torch.float32)}, {"logp": ((), "float32")}, "without the extras logp and with the extras v"),
        ({}, {"logp": ((), "float32")}, "without the extras logp"),
    ],
)
def test_extras_that_are_not_as_declared_are_refused_by_name(given: Any, declared: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        load("GivesWhatItIsTold", args={"extras": given}, extras=declared)


def test_the_setting_and_the_module_must_declare_the_same():
    with pytest.raises(PolicyError, match="expected the same in both"):
        load("GivesExtras", extras={"logp": ((), "float64")})
    with pytest.raises(PolicyError, match=r"policy_extras.*'logp' is 'float32'"):
        load("DeclaresBadly")


class DeclaresBadly(Base):
    policy_extras = {"logp": "float32"}  # noqa: RUF012

    def forward(self, x: Tensor) -> Any:
        return x[:, :2]


class GivesTooMuch(Base):
    policy_extras = {"picture": ((1024, 1025), "float32")}  # noqa: RUF012

    def forward(self, x: Tensor) -> Any:
        return x[:, :2], {"picture": torch.zeros(1024, 1025)}


def test_what_cannot_be_copied_within_a_tick_is_refused():
    with pytest.raises(PolicyError, match=r"gives a payload of 4\.2 MB, most of it extras\.picture"):
        load("GivesTooMuch")


# -- state -----------------------------------------------------------------------------------------------------------


class Counts(Base):
    """Its state is a counter in the form of `kind`, which its action shows."""

    def __init__(self, observation_space: Any, action_space: Any, kind: str = "tensor", grows: bool = False) -> None:
        super().__init__(observation_space, action_space)
        self.kind, self.grows = kind, grows

    def initial_state(self) -> Any:
        first = torch.full((1, 2), 10.0)
        return {"tensor": first, "dict": {"n": first}, "tuple": (first, torch.zeros(1, dtype=torch.int64))}[self.kind]

    def forward(self, x: Tensor, state: Any) -> Any:
        count = {"tensor": lambda: state, "dict": lambda: state["n"], "tuple": lambda: state[0]}[self.kind]()
        count = count + 1
        if self.grows and x.sum() > 0:
            count = count.repeat(1, 2)
        return count[:, :2], {"tensor": count, "dict": {"n": count}, "tuple": (count, torch.ones(1).long())}[self.kind]


@pytest.mark.parametrize(
    ("kind", "names"),
    [("tensor", ("value",)), ("dict", ("n",)), ("tuple", ("part0", "part1"))],
    ids=["tensor", "dict", "tuple"],
)
def test_a_state_goes_out_with_the_action_and_comes_back_in_the_context(kind: str, names: tuple[str, ...]):
    policy = load("Counts", args={"kind": kind})
    assert policy.needs.state.names == names
    first = f"state.{names[0]}"
    assert act(policy, state_tick=-1) == [11, 11], "warm-up has left no trace"
    assert payload_of(policy)[first] == [[11, 11]]
    context_of(policy)[first][...] = 41
    assert act(policy, state_tick=3) == [42, 42]
    assert payload_of(policy)[first] == [[42, 42]]
    assert act(policy, state_tick=-1) == [11, 11], "another episode"


def test_a_state_that_changes_its_shape_is_refused():
    policy = load("Counts", args={"grows": True})
    with pytest.raises(PolicyError, match=r"the state with shape \(1, 4\).*expected shape \(1, 2\).*initial_state"):
        act(policy, 1.0)


class DividesByZero(Base):
    """Its action stays finite, one part of its state does not. `marks`: NaN in it means "not yet" at first."""

    def __init__(self, observation_space: Any, action_space: Any, marks: bool = False) -> None:
        super().__init__(observation_space, action_space)
        self.marks = marks

    def initial_state(self) -> Any:
        return {"hidden": torch.zeros(1, 2), "cell": torch.tensor([[1.0, math.nan if self.marks else 1.0]])}

    def forward(self, x: Tensor, state: Any) -> Any:
        gone = torch.where(x.sum() > 0, math.nan, 1.0)
        return x[:, :2], {"hidden": state["hidden"], "cell": torch.stack((state["cell"][0, 0], gone))[None]}


def test_a_carried_state_that_turns_nan_is_named_though_the_action_is_finite():
    policy = load("DividesByZero")
    act(policy, 0.0)
    with pytest.raises(PolicyError, match=r"carried state 'cell' has become NaN \(1 of 2 numbers, dtype float32\)"):
        act(policy, 1.0)
    act(load("DividesByZero", args={"marks": True}), 1.0)


class ForgetsItsState(Counts):
    def forward(self, x: Tensor, state: Any) -> Any:
        return x[:, :2]


class HasNoPlaceForIt(Counts):
    def forward(self, x: Tensor) -> Any:
        return x[:, :2]


class BeginsWith(Base):
    def __init__(self, observation_space: Any, action_space: Any, state: Any = None) -> None:
        super().__init__(observation_space, action_space)
        self.state = state

    def initial_state(self) -> Any:
        return self.state

    def forward(self, x: Tensor, state: Any) -> Any:
        return x[:, :2], state


@pytest.mark.parametrize(
    ("name", "args", "says"),
    [
        ("ForgetsItsState", {}, r"returned Tensor from forward; expected \(action, state\)"),
        ("HasNoPlaceForIt", {}, r"has initial_state\(\), but forward has no parameter `state`"),
        ("BeginsWith", {"state": {"a": (torch.zeros(1),)}}, "has tuple at 'a'.*not deeper"),
        ("BeginsWith", {"state": {}}, "returned nothing"),
        ("BeginsWith", {"state": {"value": torch.zeros(1)}}, "dict of value; expected other keys"),
        ("BeginsWith", {"state": {"a b": torch.zeros(1)}}, "has the name 'a b'.*letters, digits and _"),
        ("BeginsWith", {"state": torch.zeros(1, dtype=torch.bfloat16)}, "bfloat16"),
    ],
)
def test_a_recurrent_policy_that_is_not_made_as_one_is_refused(name: str, args: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        load(name, args=args)


class HandsOn(Base):
    """Begins with `first`, and goes on with `then`."""

    def __init__(self, observation_space: Any, action_space: Any, first: Any, then: Any) -> None:
        super().__init__(observation_space, action_space)
        self.first, self.then = first, then

    def initial_state(self) -> Any:
        return self.first()

    def forward(self, x: Tensor, state: Any) -> Any:
        return x[:, :2], self.then(state)


def one() -> Tensor:
    return torch.zeros(1)


@pytest.mark.parametrize(
    ("first", "then", "says"),
    [
        (
            lambda: {"h": one()},
            lambda state: (state["h"],),
            "returned the state as part0; expected h, as initial_state",
        ),
        (lambda: (one(), one()), lambda state: state[:1], "returned the state as part0; expected part0, part1"),
        (
            lambda: {"h": one()},
            lambda state: {**state, "c": one()},
            "returned the state as h, c; expected h, as initial_",
        ),
        (lambda: 1 / 0, None, r"initial_state\(\) of the policy raised ZeroDivisionError"),
        (lambda: torch.zeros(1, 0), None, "expected numbers .* lengths of 1 or more"),
    ],
)
def test_a_state_has_the_same_parts_from_decision_to_decision(first: Any, then: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        load("HandsOn", args={"first": first, "then": then})


class Hands(Base):
    """Features that `make` makes, and an action."""

    def __init__(self, observation_space: Any, action_space: Any, make: Any) -> None:
        super().__init__(observation_space, action_space)
        self.make, self.calls = make, 0

    def think(self, x: Tensor) -> Any:
        self.calls += 1
        return self.make(self.calls), x[:, :2]

    def act(self, x: Tensor, features: Any) -> Any:
        return x[:, :2]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda call: {}, "returned no features from think"),
        (lambda call: one().to(torch.complex64), "features: 'value' is .*expected numbers of up to 64 bits"),
        (lambda call: {f"h{min(call, 2)}": one()}, "returned the features as h2; expected h1, as the first call gave"),
    ],
)
def test_features_are_numbers_with_the_same_names_each_time(make: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        load("Hands", args={"make": make})


class AllOfIt(Counts):
    policy_extras = {"logp": ((), "float32")}  # noqa: RUF012

    def forward(self, x: Tensor, past_actions: Tensor, *, context: Any, state: Any) -> Any:
        return state + past_actions.sum(1) + context.tick, state + 1, {"logp": x.sum(1)}


def test_context_state_extras_and_past_actions_go_together():
    policy = load("AllOfIt", act_history=1)
    policy.past_actions[...] = -4
    assert act(policy, 0.25, state_tick=-1, tick=2) == [8, 8]
    assert payload_of(policy) == {"extras.logp": 1, "state.value": [[11, 11]]}


def test_wrappers_hand_the_memory_through():
    inner = load("AllOfIt", act_history=1)
    schedule = EpsilonSchedule(1.0, 1.0, 1)
    exploring = ExploringPolicy(PaddedPolicy(inner, 0.001), STICK, 0, schedule, always_infer=False)
    policy = fill_chunks(exploring, "hold", None)
    for name in ("needs", "context", "payload"):
        assert getattr(policy, name) is getattr(inner, name)
    policy.observation[...] = 1
    policy.act(frame_seq=0, out=np.zeros((2, 2), np.float32))
    assert payload_of(policy)["extras.logp"] == 4, "computed where a random action acts, too"
    assert any("extras are those of the policy's own action" in note for note in policy.info.notes)


# -- plain callables -------------------------------------------------------------------------------------------------


def own_action(observation: Any) -> Any:
    """No factory: the policy itself."""
    return observation[:, :2] * 2


def sometimes(observation_space: Any, action_space: Any) -> Any:
    def decide(observation: Any, context: Any) -> Any:
        return None if context.tick[0] % 2 else np.float64([[context.tick[0], observation.sum()]])

    return decide


class Recurrent:
    """Takes and gives NumPy arrays, keeps nothing itself."""

    policy_extras = {"logp": ((), "float32")}  # noqa: RUF012

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        pass

    def initial_state(self) -> Any:
        return {"n": np.zeros(2, np.int64)}

    def __call__(self, observation: Any, state: Any) -> Any:
        n = state["n"] + 1
        return (None if n[0] == 3 else n[None].astype(np.float32)), {"n": n}, {"logp": np.float32(0.5)}


def test_a_function_of_an_observation_is_a_policy_itself():
    policy = load("own_action")
    assert act(policy, [1, 2, 3, 4]) == [2, 4]
    assert policy.info.device == "cpu"
    with pytest.raises(PolicyError, match="is a policy itself, and got the arguments k"):
        load("own_action", args={"k": 1})


def zeros_at_first(observation: Any) -> Any:
    """Whole numbers for a blank observation, as the warm-up shows it, and fractions of 53 bits for others."""
    return np.zeros((1, 2), np.int64) if not observation.any() else np.full((1, 2), 0.1)


class Doubles(nn.Module):
    def __init__(self, observation_space: Any, action_space: Any) -> None:
        super().__init__()

    def forward(self, x: Any) -> Any:
        return torch.full((1, 2), 0.1, dtype=torch.float64)


@pytest.mark.parametrize("name", ["zeros_at_first", "Doubles"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_actions_have_the_precision_of_their_space_whatever_came_first(name: str, dtype: Any):
    action = ActionSpec.from_space(Box(-1, 1, (2,), dtype))
    assert act(load(name, action), 1.0, action) == [float(dtype(0.1))] * 2


def test_a_callable_may_give_no_action_this_time():
    policy = load("sometimes")
    assert act(policy, 1.0, tick=4) == [4, 4]
    assert policy.timing.abstained == 0
    act(policy, 1.0, tick=5)
    assert policy.timing.abstained == 1
    assert act(policy, 1.0, tick=6) == [6, 4]
    assert policy.timing.abstained == 0


def test_a_recurrent_callable_that_hands_on_a_state_without_an_action_is_refused():
    policy = load("Recurrent")
    assert act(policy, state_tick=-1) == [1, 1]
    assert payload_of(policy) == {"extras.logp": 0.5, "state.n": [1, 1]}
    context_of(policy)["state.n"][...] = 2
    with pytest.raises(PolicyError, match=r"returned \(None, state\).*Return None alone"):
        act(policy, state_tick=0)


class NeverActs:
    def __init__(self, observation_space: Any, action_space: Any, recurrent: bool) -> None:
        if recurrent:
            self.initial_state = lambda: np.zeros(1)

    def __call__(self, observation: Any, state: Any = None) -> Any:
        return None


@pytest.mark.parametrize("recurrent", [True, False])
def test_no_random_action_hands_on_the_state_of_a_decision_that_was_none(recurrent: bool):
    inner = load("NeverActs", args={"recurrent": recurrent})
    policy = ExploringPolicy(inner, STICK, 0, EpsilonSchedule(1.0, 1.0, 1))
    policy.act(frame_seq=0, out=np.zeros((1, 2), np.float32))
    assert (policy.timing.abstained, policy.timing.explored) == ((1, 0) if recurrent else (0, 1))


def test_a_callable_plays_on_the_weights_of_a_run_and_has_none():
    def share(build: Any, plain: bool) -> Any:
        return connect(build, ParamStore.private, is_first=True, plain=plain)

    policy = load("sometimes", share=share)
    assert act(policy, 1.0, tick=4) == [4, 4]
    assert policy.info.num_parameters == 0
    assert any("publish and checkpoints do not reach it" in note for note in policy.info.notes)


def test_a_module_gives_an_action_each_time():
    with pytest.raises(PolicyError, match=r"NoneType as its action.*plain callables"):
        load("Abstains")


class Abstains(Base):
    def forward(self, x: Tensor) -> Any:
        return None


# -- files of torch ----------------------------------------------------------------------------------------------------


class Cell(nn.Module):
    def forward(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2] + state, state + 1

    @torch.jit.export
    def initial_state(self) -> Tensor:
        return torch.ones(1, 2)


def scripted(observation_space: Any, action_space: Any) -> nn.Module:
    return torch.jit.script(Cell())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_script_of_torch_may_be_recurrent():
    policy = load("scripted")
    assert act(policy, 0.5, state_tick=-1) == [1.5, 1.5]
    assert payload_of(policy) == {"state.value": [[2, 2]]}


# -- two speeds ------------------------------------------------------------------------------------------------------


class TwoSpeeds(Base):
    def think(self, x: Tensor) -> Any:
        return {"sum": x.sum(1, keepdim=True), "max": x.max(1).indices}, x[:, :2]

    def act(self, x: Tensor, features: Any, age_ticks: Tensor, past_actions: Tensor) -> Any:
        recent = past_actions[:, :1].sum(1)
        return torch.cat([features["sum"] + age_ticks, features["max"].float().unsqueeze(1)], 1) + recent


class ThinksOnly(Base):
    def think(self, x: Tensor) -> Any:
        return x, x[:, :2]


class ThinksALot(TwoSpeeds):
    def think(self, x: Tensor) -> Any:
        return torch.zeros(1, 1 << 21), x[:, :2]


class ForgetsItsAction(TwoSpeeds):
    def think(self, x: Tensor) -> Any:
        return x


def test_the_trunk_gives_features_and_a_base_action_which_the_head_gets_with_their_age():
    trunk, head = load("TwoSpeeds", committed_ticks=4), load("TwoSpeeds", committed_ticks=4, is_head=True)
    assert trunk.needs == head.needs
    assert trunk.needs.has_head
    assert trunk.needs.features == Block((("sum", (1, 1), "float32"), ("max", (1,), "int64")))
    assert act(trunk, [1, 2, 3, 2]) == [1, 2]
    assert payload_of(trunk) == {"features.sum": [[8]], "features.max": [2]}
    arrays, given = context_of(head), trunk.needs.payload.views(trunk.payload)
    for name in ("features.sum", "features.max"):
        arrays[name][...] = given[name]
    arrays["committed"][0] = 0.5
    assert act(head, tick=9, features_tick=6) == [11.5, 2.5]


def test_no_padding_slows_the_head_down():
    trunk, head = (load("TwoSpeeds", args={"pad_ms": 1}, is_head=is_head) for is_head in (False, True))
    assert isinstance(trunk, PaddedPolicy)
    assert not isinstance(head, PaddedPolicy)


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("ThinksOnly", {}, r"has think\(\) but no act\(\)"),
        ("ThinksALot", {}, r"8\.4 MB, most of it features\.value"),
        ("ForgetsItsAction", {}, r"returned Tensor from think; expected \(features, action\)"),
        ("Plain", {"is_head": True}, r"has no think\(\)"),
    ],
)
def test_two_speeds_that_are_none_are_refused(name: str, options: Any, says: str):
    with pytest.raises(PolicyError, match=says):
        load(name, **options)


IMAGES = ObservationSpec.from_space(Box(0, 255, (40, 40), np.uint8))
VECTORS = ObservationSpec.from_space(Box(-np.inf, np.inf, (3,), np.float32))


@pytest.mark.parametrize("observation", [IMAGES, VECTORS], ids=["images", "vectors"])
@pytest.mark.parametrize("action", [BUTTONS, STICK], ids=["discrete", "box"])
def test_the_built_in_policy_of_two_speeds_looks_at_the_newest_frame_the_features_and_what_was_done_since(
    action: Any, observation: ObservationSpec
):
    options: dict[str, Any] = {"seed": 0, "worker_index": 0, "device": "cpu", "committed_ticks": 4}
    trunk, head = (
        load_policy("two-speed", {"features": 8}, observation, action, is_head=is_head, **options)
        for is_head in (False, True)
    )
    assert trunk.needs.features == Block((("value", (1, 8), "float32"),))
    act(trunk, 100, action)
    arrays = context_of(head, action)
    arrays["features.value"][...] = trunk.needs.payload.views(trunk.payload)["features.value"]
    before = output_of(head, 100, action, tick=2, features_tick=0)
    arrays["committed"][3] = 1
    assert (output_of(head, 100, action, tick=2, features_tick=0) == before).all(), "not yet applied"
    arrays["committed"][1] = 1
    since = output_of(head, 100, action, tick=2, features_tick=0)
    newer = output_of(head, 200, action, tick=2, features_tick=0)
    arrays["features.value"][...] += 1
    others = output_of(head, 200, action, tick=2, features_tick=0)
    older = output_of(head, 200, action, tick=3, features_tick=0)
    seen = [before, since, newer, others, older]
    assert all((one != other).any() for one, other in zip(seen[:-1], seen[1:], strict=True))


def output_of(policy: Any, observation: Any, action: ActionSpec, **words: int) -> Any:
    act(policy, observation, action, **words)
    return policy.executor.output.copy()


def test_a_head_gives_one_action_where_the_trunk_gives_a_chunk():
    options: dict[str, Any] = {"seed": 0, "worker_index": 0, "device": "cpu", "chunk": 3}
    for is_head, length in ((False, 3), (True, 1)):
        policy = load_policy("two-speed", {}, IMAGES, BUTTONS, is_head=is_head, **options)
        policy.act(frame_seq=0, out=np.zeros((length,), np.int64))


# -- rolling the observation forward -----------------------------------------------------------------------------


class RollsForward:
    def advance(self, observation, committed, committed_mask):
        return observation + (committed * (committed_mask == 1)).sum()

    def __call__(self, observation):
        return observation.astype(np.int64)


class KeepsItsOwn:
    """An `advance` of its own, which has nothing to do with what is committed."""

    def advance(self):
        raise AssertionError("nobody calls it")

    def __call__(self, observation):
        return observation.astype(np.int64)


def test_a_policy_that_rolls_its_observation_forward_is_given_what_it_made_of_it():
    action = ActionSpec.from_space(Discrete(10))
    observation = ObservationSpec.from_space(Box(0, 9, (1,), np.float32))
    policy = RollsForward()
    calling = calling_of(policy, action, committed_ticks=4)
    assert calling.needs.committed_ticks == 4
    arrays = calling.block.views(bytearray(calling.block.nbytes))
    arrays["committed"][:3], arrays["committed_mask"][:3] = [1, 2, 4], [1, 0, 1]
    call = calling.bind(policy, observation, [np.full((1, 1), 3, np.float32)], arrays)
    assert call().tolist() == [[8]]


def test_a_method_of_that_name_that_does_not_ask_for_what_is_committed_is_left_alone():
    calling = calling_of(KeepsItsOwn(), ActionSpec.from_space(Discrete(10)), committed_ticks=4)
    assert not calling.needs


def test_a_hook_that_asks_for_what_there_is_not_is_refused():
    class Wants:
        def advance(self, observation, committed, velocity):
            return observation

        def __call__(self, observation):
            return observation

    with pytest.raises(PolicyError, match="velocity"):
        calling_of(Wants(), ActionSpec.from_space(Discrete(10)), committed_ticks=4)
