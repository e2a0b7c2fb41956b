"""How a policy is called, and what its answer is made of. Imports no torch: the same for tensors and NumPy arrays.

A policy is a callable whose first argument is the observation. What else it gets follows from the names of its other
arguments: `past_actions`, `context`, `state`; a head (`act` of two speeds) also `features` and `age_ticks`. It returns
an action, and behind it what it has declared: the next state, extras, or (`think`) features before it. All of that is
found out before the first call, but for the shape of features, which the first call shows.

One that has a method `advance(observation, committed, committed_mask)` gets what that returns in the place of the
observation: the state that it expects when its action is due.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from rtcore.errors import ConfigError, PolicyError
from rtcore.memory.payload import require_room
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.spaces.payload import AGES, CONTEXT_WORDS, WORD_AT, Block, PolicyNeeds
from rtcore.spaces.task import TaskSpec, is_text, text_in
from rtcore_workers.policies.base import Array, suggestion

#: Which part of a policy is called: all of it, the slow part of two speeds, or the fast one.
ModulePart = Literal["whole", "trunk", "head"]
#: What a policy may ask for by the name of an argument, beside the observation.
ARGUMENTS = {
    "past_actions": "the last applied actions, with --act-history",
    "context": "what is known when the decision is booked",
    "state": "what the last decision left, where the policy has initial_state()",
}
HEAD_ARGUMENTS = {
    "features": "what think returned last",
    "age_ticks": "ticks since the frame that they come from",
    "past_actions": "the actions applied since that frame",
    "context": ARGUMENTS["context"],
}
_METHODS: dict[ModulePart, str] = {"whole": "forward", "trunk": "think", "head": "act"}
#: The name of a state or of features that are one array.
ALONE = "value"
_NOTHING: dict[str, Any] = {}
_BECAUSE = {
    "extras": "as policy_extras declares it: change one of the two",
    "state": "as initial_state() gives it: a state keeps its shape and dtype from decision to decision",
    "features": "as the first call gave them: features keep their shape and dtype",
}
_COMMITTED = ("committed", "committed_mask")


class NoSuchField(PolicyError, AttributeError):
    """A field of a context that there is not. An AttributeError too, so that hasattr and getattr work."""


class Context:
    """What a policy may know when its decision is booked: arrays of a batch of one, always the same ones.

    Every word of `CONTEXT_WORDS`, (1,) int64; `committed`, (1, C, *action_shape): entry i is the action of tick
    `tick + 1 + i`; `committed_mask`, (1, C) uint8: what is known of each (`dispatch.Known`). A head's begin behind
    the frame of its features: entry i is what was applied at tick `features_tick + 1 + i`. In a run with a task also
    `task`, its values by name, and `task_version`, (1,) int64. Where the world says when the parts of its observation
    were measured also `ages_ms`: by a part's name how old it was when the frame was published, (1,) float32 [ms].
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> Any:
        raise NoSuchField(
            f"the policy reads context.{name}, which there is not{suggestion(name, list(vars(self)))}; expected one of "
            f"{', '.join(vars(self))}"
        )


class KnownTask(Mapping[str, Any]):
    """A run's task as a policy sees it: arrays of a batch of one, always the same ones.

    Of a list of n numbers (1, n) float32; of a number (1,) float32 or int64; of true or false (1,) bool. A text is a
    `str` for a plain callable; for a module, which may be compiled, (1, TEXT_BYTES) uint8: its UTF-8, filled up with 0.
    """

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self._arrays = arrays

    def __getitem__(self, name: str) -> Any:
        array = self._arrays[name]
        return text_in(array) if isinstance(array, np.ndarray) and is_text(array) else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


def begin_context(given: Mapping[str, Array], needs: PolicyNeeds, first_task: bytes) -> None:
    """What a warm-up sees: the beginning of an episode, and the task that the run begins with.

    Args:
        given: The arrays of a context; none: the policy gets no context.
        needs: Of the policy.
        first_task: A block of `needs.task`.
    """
    if given:
        for name, value in (("is_first", 1), ("state_tick", -1), ("features_tick", -1)):
            given["words"][WORD_AT[name]] = value
    if needs.task:
        given["task_version"][...] = 1
        for name, begun in needs.task.views(first_task).items():
            given[f"task.{name}"][...] = begun


@dataclass(frozen=True)
class Calling:
    """How one policy is called. `block`: of its context; `keywords`: what it gets by name. `what`: it, in errors.
    `first_task`: a block of `needs.task`, that the run begins with."""

    part: ModulePart = "whole"
    keywords: tuple[str, ...] = ()
    needs: PolicyNeeds = field(default_factory=PolicyNeeds)
    block: Block = field(default_factory=Block)
    what: str = "the policy's module"
    first_task: bytes = b""

    def bind(
        self, policy: Any, observation: ObservationSpec, inputs: Sequence[Any], context: Mapping[str, Any]
    ) -> Callable[[], Any]:
        """A call of the policy on these arrays (or tensors), whose values may change.

        Args:
            policy: What has `forward`, `think` and `act`, or is called itself.
            observation: What the first of `inputs` is: of a Dict, the policy gets its parts.
            inputs: The observation and, if there are any, the past actions, each a batch of one.
            context: The arrays of `block`.

        Returns:
            The call.
        """
        function = policy if self.part == "whole" else getattr(policy, _METHODS[self.part])
        past = inputs[1] if len(inputs) > 1 else None
        positional = [past] if past is not None and "past_actions" not in self.keywords else []
        given = {name: make for name, make in self._makers(past, context).items() if name in self.keywords}
        advance, rolled_by = advance_of(policy, self.part)
        if not observation.parts and not given and advance is None:
            return lambda: function(inputs[0], *positional)
        # A dict of the call's own: the policy may take it apart.
        parts = observation.unpack(inputs[0]) if observation.parts else None

        def seen() -> Any:
            frame = inputs[0] if parts is None else dict(parts)
            return frame if advance is None else advance(frame, **{name: context[name][None] for name in rolled_by})

        return lambda: function(seen(), *positional, **{name: make() for name, make in given.items()})

    def _makers(self, past: Any, context: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
        """What makes each argument for one call."""
        words = context.get("words")
        fields = {} if words is None else {name: words[at : at + 1] for at, name in enumerate(CONTEXT_WORDS)}
        if self.needs.committed_ticks:
            fields |= {name: context[name][None] for name in _COMMITTED}
        if self.needs.task:
            named = {name: context[f"task.{name}"][None] for name in self.needs.task.names}
            fields |= {"task": KnownTask(named), "task_version": context["task_version"][None]}
        if self.needs.ages:
            ages = {name: context[AGES][at : at + 1] for at, name in enumerate(self.needs.ages)}
            fields["ages_ms"] = MappingProxyType(ages)
        known, is_head = Context(fields), self.part == "head"
        return {
            "past_actions": lambda: fields["committed"] if is_head else past,
            "context": lambda: known,
            "state": lambda: tree(self.needs.state.names, context, "state."),
            "features": lambda: tree(self.needs.features.names, context, "features."),
            "age_ticks": lambda: fields["tick"] - fields["features_tick"],
        }

    def parts_of(self, result: Any) -> tuple[Any, dict[str, Any]]:
        """An answer taken apart: the action, and by their names in the payload the arrays behind it.

        Raises:
            PolicyError: It is not made as declared; extras are missing, or not declared.
        """
        if self.is_plain and not isinstance(result, (tuple, list)):
            return result, _NOTHING
        names = self._names
        items = list(result) if isinstance(result, (tuple, list)) else [result]
        extras: Mapping[str, Any] = _NOTHING
        if len(items) == len(names) + 1 and isinstance(items[-1], Mapping):
            extras = items.pop()
        if len(items) != len(names) or (extras is _NOTHING and len(names) == 1 and items[0] is not result):
            raise self._not_as_expected(result, names)
        if extras.keys() != self._extras.keys():
            raise self._wrong_extras(extras, self.needs.extras.names)
        found = {place: extras[name] for name, place in self._extras.items()}
        if len(names) == 1:
            return items[0], found
        by_name = dict(zip(names, items, strict=True))
        for what in ("state", "features"):
            if what in by_name:
                named = leaves(what, by_name[what])
                if (expected := self._parts[what]) and named.keys() != expected:
                    raise self._other_parts(what, named)
                found |= {f"{what}.{name}": value for name, value in named.items()}
        return by_name["action"], found

    @cached_property
    def _names(self) -> list[str]:
        """What it returns, in this order; extras may come last."""
        return [*(["features"] if self.part == "trunk" else []), "action", *(["state"] if self.has_state else [])]

    @cached_property
    def _extras(self) -> dict[str, str]:
        """Each extra's name in the payload."""
        return {name: f"extras.{name}" for name in self.needs.extras.names}

    @cached_property
    def _parts(self) -> dict[str, frozenset[str]]:
        """What the state and the features consist of; nothing where that is not known yet."""
        return {what: frozenset(getattr(self.needs, what).names) for what in ("state", "features")}

    @cached_property
    def is_plain(self) -> bool:
        """Whether it returns an action alone."""
        return not self.needs.payload and self.part == "whole"

    @cached_property
    def has_state(self) -> bool:
        return bool(self.needs.state) and self.part != "head"

    def with_features(self, returned: Mapping[str, Array], action: ActionSpec) -> Calling:
        """The same, once a call of the trunk has shown what the features are (`parts_of`)."""
        found = [(name.partition("."), array) for name, array in returned.items()]
        features = _block_of("features", {name: array for (what, _, name), array in found if what == "features"})
        if not features.nbytes:
            raise PolicyError(f"{self.what} returned no features from think; expected a number or more for act")
        needs = replace(self.needs, features=features)
        require_room(needs, action)
        return replace(self, needs=needs, block=needs.context(action))

    def misfit(self, name: str, got: tuple[Any, Any], expected: tuple[Any, Any]) -> PolicyError:
        """For an array of the payload that is not as it was declared; each (shape, dtype)."""
        what, _, which = name.partition(".")
        label = {"extras": f"extra {which!r}"}.get(what, what if which == ALONE else f"{what} {which!r}")
        return PolicyError(
            f"{self.what} returned the {label} with shape {got[0]} and dtype {got[1]}; expected shape {expected[0]} "
            f"and dtype {expected[1]}, {_BECAUSE[what]}"
        )

    def _other_parts(self, what: str, named: Mapping[str, Any]) -> PolicyError:
        return PolicyError(
            f"{self.what} returned the {what} as {', '.join(named) or 'nothing'}; expected "
            f"{', '.join(getattr(self.needs, what).names)}, {_BECAUSE[what]}"
        )

    def _not_as_expected(self, result: Any, names: Sequence[str]) -> PolicyError:
        got = type(result).__name__
        if len(names) == 1 and isinstance(result, list):
            return PolicyError(f"{self.what} returned list; expected one array or tensor, as np.array(...) makes of it")
        if len(names) == 1:
            return PolicyError(
                f"{self.what} returned {got}; expected one tensor of action values or actions, or (action, {{...}}) "
                "with the extras that policy_extras declares. Return only that: of a mean and a value the mean, of a "
                "distribution a sample. A recurrent state is carried for a policy that has initial_state()"
            )
        if isinstance(result, (tuple, list)):
            got = f"{got} of {len(result)} ({', '.join(type(item).__name__ for item in result)})"
        form = ", ".join(names)
        return PolicyError(
            f"{self.what} returned {got} from {_METHODS[self.part]}; expected ({form}), or ({form}, {{...}}) with "
            "the extras that policy_extras declares"
        )

    def _wrong_extras(self, extras: Mapping[str, Any], declared: Sequence[str]) -> PolicyError:
        missing = [name for name in declared if name not in extras]
        unknown = [str(name) for name in extras if name not in declared]
        told = [f"without the extras {', '.join(missing)}"] if missing else []
        told += [f"with the extras {', '.join(unknown)}, which are not declared"] if unknown else []
        return PolicyError(
            f"{self.what} answered {' and '.join(told)}{_of_part(self.part)}; expected exactly those of policy_extras "
            f"({', '.join(declared) or 'none'}), in a dict behind the action. Declare each as its shape (without the "
            'batch) and dtype: policy_extras = {"logp": ((), "float32")} on the module, or --policy-extras'
        )


def _of_part(part: ModulePart) -> str:
    """Of two speeds both parts give what is declared: which did not."""
    return "" if part == "whole" else f", from {_METHODS[part]}"


def calling_of(
    policy: Any,
    action: ActionSpec,
    *,
    act_history: bool = False,
    committed_ticks: int = 1,
    extras: Mapping[str, Any] | None = None,
    task: TaskSpec | None = None,
    ages: Sequence[str] = (),
    part: ModulePart = "whole",
    array_of: Callable[[Any], Array] = np.asarray,
    what: str = "the policy's module",
) -> Calling:
    """How a policy is called, from its signature and attributes.

    Args:
        policy: An nn.Module or any callable.
        action: Of the world.
        act_history: Past actions come with the observation.
        committed_ticks: How many actions `context.committed` has, if the policy asks for a context.
        extras: The setting `policy_extras`.
        task: Of the run: it is in a context.
        ages: Parts of the observation whose ages are in one.
        part: Which of a policy with two speeds.
        array_of: A leaf of `initial_state()` as NumPy's.
        what: The policy, in errors.

    Returns:
        The call, without the features of two speeds yet (`Calling.with_features`).

    Raises:
        PolicyError: It asks for what there is not, or declares what cannot be.
    """
    initial = initial_state_of(policy, array_of)
    known = HEAD_ARGUMENTS if part == "head" else ARGUMENTS
    given = {name for name in known if name != "past_actions" or act_history or part == "head"}
    given -= set() if initial else {"state"}
    positional = 2 if act_history and part != "head" else 1
    function = _function_of(policy, part)
    keywords = _keywords(function, given, known, positional, f"{what}: {_METHODS[part]}")
    if "context" in keywords and _schema_of(function) is not None:
        raise PolicyError(
            f"{what} is a script of torch, which takes tensors alone, and asks for the context; expected one without. "
            "Give it what it needs in an nn.Module around it: self.script(observation, context.delay_ticks)"
        )
    if initial and part != "head" and "state" not in keywords:
        raise PolicyError(
            f"{what} has initial_state(), but {_METHODS[part]} has no parameter `state`; expected "
            f"{_METHODS[part]}(observation, state) -> (action, state)"
        )
    if part == "trunk" and not callable(getattr(policy, "act", None)):
        raise PolicyError(
            f"{what} has think() but no act(); expected both: think(observation) -> (features, base action), and "
            "act(observation, features, age_ticks, past_actions) -> action, which is called at every tick"
        )
    state = _block_of("initial_state()", initial)
    asks = "context" in keywords or part != "whole" or advance_of(policy, part)[0] is not None
    needs = PolicyNeeds(
        committed_ticks=committed_ticks if asks else 0,
        extras=extras_of(policy, extras, what),
        state=state,
        has_head=part != "whole",
        first_state=_packed(state, initial),
        task=task.block if task is not None and asks else Block(),
        ages=tuple(ages) if asks else (),
    )
    require_room(needs, action)
    first = task.first if task is not None and asks else b""
    return Calling(part, keywords, needs, needs.context(action), what=what, first_task=first)


def advance_of(policy: Any, part: ModulePart) -> tuple[Callable[..., Any] | None, tuple[str, ...]]:
    """The policy's hook that rolls an observation forward, and what it asks for.

    A method of that name without an argument `committed` is not this hook. A head has none: it sees the newest frame.
    """
    advance = getattr(policy, "advance", None)
    if part == "head" or not callable(advance):
        return None, ()
    if "committed" not in {each.name for each in _parameters_of(advance)}:
        return None, ()
    known = {"committed": "the actions up to the due tick", "committed_mask": "what is known of each"}
    return advance, _keywords(advance, _COMMITTED, known, 1, "the policy's advance")


def asked_for(policy: Any, part: ModulePart) -> tuple[str, ...]:
    """What a part of a policy asks for by name, beside its first argument."""
    names = [each.name for each in _parameters_of(_function_of(policy, part))[1:]]
    return tuple(name for name in names if name in (HEAD_ARGUMENTS if part == "head" else ARGUMENTS))


def initial_state_of(policy: Any, array_of: Callable[[Any], Array]) -> dict[str, Array]:
    """The arrays of `initial_state()`, by name; none for a policy without it. PolicyError for anything else."""
    make = getattr(policy, "initial_state", None)
    if not callable(make):
        return {}
    try:
        state = make()
    except Exception as error:
        raise PolicyError(
            f"initial_state() of the policy raised {type(error).__name__}: {error}; expected a method without "
            "arguments that returns the state of one episode's begin, a batch of one"
        ) from error
    arrays = {name: np.array(array_of(value), order="C") for name, value in leaves("initial_state()", state).items()}
    if not arrays:
        raise PolicyError(
            "initial_state() of the policy returned nothing; expected a tensor, a dict or a tuple of them"
        )
    return arrays


def _block_of(what: str, arrays: Mapping[str, Array]) -> Block:
    """As these arrays are; PolicyError for what a block cannot have."""
    try:
        return Block.of(what, {name: (array.shape, array.dtype) for name, array in arrays.items()})
    except ConfigError as error:
        raise PolicyError(str(error)) from error


def _packed(block: Block, arrays: Mapping[str, Array]) -> bytes:
    """The arrays as a block has them."""
    memory = bytearray(block.nbytes)
    for name, view in block.views(memory).items():
        view[...] = arrays[name]
    return bytes(memory)


def extras_of(policy: Any, setting: Mapping[str, Any] | None, what: str) -> Block:
    """What a policy declares as `policy_extras`, or the setting of that name. PolicyError if they differ."""
    own = getattr(policy, "policy_extras", None)
    if own is not None and not isinstance(own, Mapping):
        raise PolicyError(
            f"{what} has policy_extras of type {type(own).__name__}; expected a dict of name: (shape, dtype), as in "
            '{"logp": ((), "float32")}'
        )
    try:
        declared = Block.of("policy_extras of the policy", own) if own else Block()
        wanted = Block.of("policy_extras", setting) if setting else Block()
    except ConfigError as error:
        raise PolicyError(str(error)) from error
    if declared and wanted and declared != wanted:
        raise PolicyError(
            f"the setting policy_extras is {dict(setting or {})}, and {what} declares {dict(own or {})}; expected the "
            "same in both, or one of them alone"
        )
    return declared or wanted


def leaves(what: str, value: Any) -> dict[str, Any]:
    """The arrays of a state or of features by name: its keys, `part0`, `part1`, ..., or `ALONE` for one array."""
    if isinstance(value, Mapping):
        named = {str(name): leaf for name, leaf in value.items()}
    elif isinstance(value, (tuple, list)):
        named = {f"part{at}": leaf for at, leaf in enumerate(value)}
    else:
        named = {ALONE: value}
    if isinstance(value, Mapping) and named and not isinstance(tree(list(named), named, ""), dict):
        raise PolicyError(
            f"{what} of the policy is a dict of {', '.join(named)}; expected other keys: these stand for one tensor "
            "and for a tuple. Rename them, or return the tensor or the tuple itself"
        )
    for name, leaf in named.items():
        if isinstance(leaf, (Mapping, tuple, list)) or leaf is None:
            raise PolicyError(
                f"{what} of the policy has {type(leaf).__name__} at {name!r}; expected a tensor, or a dict or tuple "
                "of tensors, not deeper"
            )
    return named


def tree(names: Sequence[str], arrays: Mapping[str, Any], prefix: str) -> Any:
    """Inverse of `leaves`: one array, a tuple or a dict of the call's own."""
    if tuple(names) == (ALONE,):
        return arrays[prefix + ALONE]
    if all(name == f"part{at}" for at, name in enumerate(names)):
        return tuple(arrays[prefix + name] for name in names)
    return {name: arrays[prefix + name] for name in names}


def is_policy_itself(found: Any) -> bool:
    """Whether a function takes an observation, and is no factory, which takes the two spaces."""
    parameters = [] if inspect.isclass(found) else _parameters_of(found)
    if any(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in parameters):
        return False
    by_place = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
    return bool(by_place) and all(each.name in ARGUMENTS for each in by_place[1:])


def taken_for_factory(found: Any) -> str:
    """Of a function that is no good as a factory: why it was taken for one, if it may have been meant otherwise."""
    if inspect.isclass(found) or len(parameters := _parameters_of(found)) < 2:
        return ""
    name = parameters[1].name
    if name == "action_space":
        return ""
    return (
        f". It was taken for a factory because of its parameter {name!r}{suggestion(name, list(ARGUMENTS))}: a policy "
        f"itself takes the observation and any of {', '.join(ARGUMENTS)}"
    )


def _function_of(policy: Any, part: ModulePart) -> Callable[..., Any]:
    policy = getattr(policy, "_orig_mod", policy)  # of torch.compile, whose own signature says nothing
    method = getattr(policy, _METHODS[part], None)
    return method if callable(method) else policy  # type: ignore[no-any-return]


def _keywords(
    function: Callable[..., Any], given: Iterable[str], known: Mapping[str, str], positional: int, what: str
) -> tuple[str, ...]:
    """Which of `given` the function asks for by name; PolicyError if it needs something else."""
    parameters = _parameters_of(function)
    found = []
    for at, each in enumerate(parameters):
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) or at == 0:
            continue
        if each.name in known and each.kind is not each.POSITIONAL_ONLY:
            if each.name in given:
                found.append(each.name)
                continue
        elif at < positional:
            continue
        if each.default is each.empty:
            raise _unknown_argument(each.name, given, known, what)
    return tuple(found)


def _schema_of(function: Callable[..., Any]) -> Any:
    """The parameters of a function of TorchScript; None for any other."""
    return getattr(getattr(function, "schema", None), "arguments", None)


def _parameters_of(function: Callable[..., Any]) -> list[inspect.Parameter]:
    schema = _schema_of(function)
    if schema is not None:
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        return [
            inspect.Parameter(
                each.name, kind, default=each.default_value if each.has_default_value() else inspect.Parameter.empty
            )
            for each in schema
            if each.name != "self"
        ]
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return []


def _unknown_argument(name: str, given: Iterable[str], known: Mapping[str, str], what: str) -> PolicyError:
    if name in known:
        missing = {"past_actions": "give --act-history N", "state": "give the policy a method initial_state()"}
        return PolicyError(f"{what} asks for {name!r} ({known[name]}), which there is not: {missing[name]}")
    there = "; ".join(f"{each}: {known[each]}" for each in known if each in given)
    return PolicyError(
        f"{what} asks for {name!r}, which there is not{suggestion(name, list(known))}; expected the observation "
        f"first, and then any of {there}. Or give it a default"
    )
