"""What travels with a job and with its answer beside frame and action: a job carries context, an answer a payload.

Both are blocks of bytes made of named arrays, each at a multiple of 8 bytes. A policy says what it needs
(`PolicyNeeds`); from that and the action space follow both blocks. Nothing is laid out, copied or allocated for a
policy that needs nothing. Pure: no process, no shared memory (`memory.payload` has that).
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from operator import index
from typing import Any, cast

import numpy as np

from rtcore.errors import WARNING_NOTE, ConfigError, PolicyError
from rtcore.spaces.action import ActionSpec
from rtcore.spaces.arrays import Array, JsonDict
from rtcore.spaces.parts import ALIGN_BYTES, aligned

#: A payload is copied within a tick: larger ones would show in its lateness.
MAX_BLOCK_BYTES = 4 << 20

#: Whole numbers of a job's context, one int64 each, in this order.
CONTEXT_WORDS = {
    "worker": "index of the worker",
    "seed": "of the run",
    "tick": "of the frame that is used",
    "episode": "of that frame, counted from 0",
    "is_first": "1: the episode's first decision",
    "delay_ticks": "ticks from that frame to the one whose action is decided: under max-time a fact",
    "state_tick": "tick of the frame that the carried state has seen last; -1: the state is the initial one",
    "features_tick": "tick of the frame that the features come from; -1: there are none",
}
#: Which of them each is.
WORD_AT = {name: at for at, name in enumerate(CONTEXT_WORDS)}


@dataclass(frozen=True)
class Block:
    """Named arrays one behind the other, in this order, each at a multiple of 8 bytes.

    `fields`: name, shape, dtype (NumPy's name) of each.
    """

    fields: tuple[tuple[str, tuple[int, ...], str], ...] = ()

    @classmethod
    def of(cls, what: str, declared: Mapping[str, object]) -> Block:
        """From {"name": (shape, dtype)}, as a user writes it.

        Args:
            what: For the error: "policy_extras", say.
            declared: Shape (an int or a sequence of them) and dtype of each array.

        Returns:
            The block.

        Raises:
            ConfigError: A name that is none, a shape with a negative length, or a dtype that is no plain number.
        """
        for name in declared:
            # It is also that of an argument, and of a column of a recording.
            if not isinstance(name, str) or not name.isidentifier():
                raise ConfigError(f"{what} has the name {name!r}; {_wanted(what)}: letters, digits and _")
        return cls(tuple(_field(what, name, spec) for name, spec in declared.items()))

    def __bool__(self) -> bool:
        return bool(self.fields)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _, _ in self.fields)

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Byte at which each array begins."""
        places, at = {}, 0
        for name, shape, dtype in self.fields:
            places[name] = at
            at = aligned(at + prod(shape) * np.dtype(dtype).itemsize)
        return places

    @cached_property
    def nbytes(self) -> int:
        """Size, a multiple of 8."""
        if not self.fields:
            return 0
        name, shape, dtype = self.fields[-1]
        return aligned(self.offsets[name] + prod(shape) * np.dtype(dtype).itemsize)

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy description of one block: for bulk reads, a field for each array."""
        return np.dtype(
            {
                "names": list(self.names),
                "formats": [(np.dtype(dtype), shape) for _, shape, dtype in self.fields],
                "offsets": [self.offsets[name] for name in self.names],
                "itemsize": max(self.nbytes, ALIGN_BYTES) if self.fields else 0,
            }
        )

    def views(self, buffer: Any) -> dict[str, Array]:
        """The arrays in a buffer.

        Args:
            buffer: At least `nbytes` long.

        Returns:
            Views by name, writable if the buffer is.
        """
        return {
            name: np.frombuffer(buffer, dtype, prod(shape), self.offsets[name]).reshape(shape)
            for name, shape, dtype in self.fields
        }

    def to_json(self) -> list[JsonDict]:
        return [{"name": name, "shape": list(shape), "dtype": dtype} for name, shape, dtype in self.fields]

    @classmethod
    def from_json(cls, data: object) -> Block:
        """Inverse of `to_json`. ConfigError on anything else."""
        if not isinstance(data, list) or not all(isinstance(one, Mapping) and "name" in one for one in data):
            raise ConfigError(f"the arrays of a payload are {data!r:.80}; expected what to_json wrote")
        return cls(tuple(_field("payload", one["name"], (one.get("shape"), one.get("dtype"))) for one in data))


@dataclass(frozen=True)
class PolicyNeeds:
    """What a policy takes and gives beside the frame and the action, and what its world adds; nothing by default.

    `committed_ticks`: length of `committed` in its context; 0: it asks for no context. `extras`: arrays that it
    gives with each answer. `state`: what it carries from decision to decision; `first_state`: a block of it, which an
    episode begins with. `features`: what a trunk hands to its head. `has_head`: a head is booked at every tick.
    `world`: arrays that the world leaves with each tick (`kept_by_world`); no policy sees them. `task`: values of the
    run's task (`TaskSpec.block`) that are in its context. `ages`: parts of the observation, by name, whose ages are.
    """

    committed_ticks: int = 0
    extras: Block = field(default_factory=Block)
    state: Block = field(default_factory=Block)
    features: Block = field(default_factory=Block)
    has_head: bool = False
    first_state: bytes = field(default=b"", compare=False)
    world: Block = field(default_factory=Block)
    task: Block = field(default_factory=Block)
    ages: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return self != PolicyNeeds()

    def compare(self, other: PolicyNeeds, whose: str) -> str:
        """What is to be said of another process's policy, where this is the first one's; "" if they are the same.

        Args:
            other: What that one needs.
            whose: The process, in words.

        Raises:
            PolicyError: It does not fit the memory that was made for the first one.
        """
        if other != self:
            raise PolicyError(
                f"the policy of {whose} needs {other}; expected {self}, as of the first worker. Build the same policy "
                "in each worker"
            )
        if other.first_state == self.first_state:
            return ""
        return (
            f"the policy of {whose} has another initial_state() than that of the first worker, which is the one that "
            "episodes begin with. Make it the same each time"
        )

    def context(self, action: ActionSpec) -> Block:
        """What a job carries: words, committed actions with their mask, state, features, the task and its version, and
        room for the ages of the frame that is read."""
        if not (self.committed_ticks or self.state or self.features or self.task or self.ages):
            return Block()
        ticks = self.committed_ticks
        known = (("committed", (ticks, *action.shape), action.dtype), ("committed_mask", (ticks,), "uint8"))
        return Block(
            (
                ("words", (len(CONTEXT_WORDS),), "int64"),
                *(known if ticks else ()),
                *_prefixed("state", self.state),
                *_prefixed("features", self.features),
                *((("task_version", (), "int64"),) if self.task else ()),
                *_prefixed("task", self.task),
                *self.ages_block.fields,
            )
        )

    @property
    def ages_block(self) -> Block:
        """Ages of parts of the frame that a policy sees, the last array of its context; empty: it is told none."""
        return Block(((AGES, (len(self.ages),), "float32"),) if self.ages else ())

    @property
    def since_ticks(self) -> int:
        """How many of the actions applied since the features' frame a head gets; 0: there is no head."""
        return self.committed_ticks if self.has_head else 0

    @property
    def payload(self) -> Block:
        """What an answer carries behind its actions: extras, the new state, features."""
        return Block(
            (
                *_prefixed("extras", self.extras),
                *_prefixed("state", self.state),
                *_prefixed("features", self.features),
            )
        )

    @property
    def kept(self) -> Block:
        """What stays with the tick at which the action is applied (frame ring, recording): extras, the state that the
        decision began from, and what the world leaves with it."""
        return Block((*_prefixed("extras", self.extras), *_prefixed("state", self.state), *self.world.fields))

    @property
    def task_of_world(self) -> Block:
        """The run's task as it is kept with each tick (`TaskSpec.block`); empty: it has none."""
        return Block(
            tuple((name[5:], shape, dtype) for name, shape, dtype in self.world.fields if name.startswith("task."))
        )

    def notes(self, delay_ticks: int, action: ActionSpec) -> list[str]:
        """What a run's header is to say of it, where its actions come `delay_ticks` after their frame."""
        told, between, context = self.committed_ticks, delay_ticks - 1, self.context(action).nbytes
        parts = {"extras": self.extras, "state": self.state, "features": self.features}
        named = ", ".join(f"{name} {_size(block.nbytes)}" for name, block in parts.items() if block)
        answer = [f"{_size(self.payload.nbytes)} an answer ({named})"] if named else []
        sizes = [*answer, *([f"context {_size(context)} a job"] if context else [])]
        notes = [f"payload: {', '.join(sizes)}"] if sizes else []
        if not told or told >= between:
            return notes
        return [
            *notes,
            f"{WARNING_NOTE}the policy's context has the actions of {told} ticks behind its frame, and {between} lie "
            f"between that and the one it decides: the last {between - told} are missing. Give --context-ticks "
            f"{between} or more",
        ]

    def to_json(self) -> JsonDict:
        return {
            "committed_ticks": self.committed_ticks,
            "extras": self.extras.to_json(),
            "state": self.state.to_json(),
            "features": self.features.to_json(),
            "has_head": self.has_head,
            "first_state": b64encode(self.first_state).decode(),
            "world": self.world.to_json(),
            "task": self.task.to_json(),
            "ages": list(self.ages),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PolicyNeeds:
        """Inverse of `to_json`. ConfigError on anything else."""
        try:
            blocks = {name: Block.from_json(data[name]) for name in ("extras", "state", "features", "world", "task")}
            has_head, first_state = bool(data["has_head"]), b64decode(data["first_state"], validate=True)
            ages = tuple(map(str, data["ages"]))
            return cls(int(data["committed_ticks"]), **blocks, has_head=has_head, first_state=first_state, ages=ages)
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"a policy's needs are {data!r:.80}; expected what to_json wrote") from error


#: The array of `kept_by_world` that holds what was asked for.
REQUESTED = "requested.action"
#: The array of a context that holds how old the parts of its frame were when that was published [ms].
AGES = "ages_ms"
#: What the names of stamps among `kept_by_world` begin with.
STAMP = "stamp_ns."


def stamps_block(parts: Iterable[str]) -> Block:
    """When these parts of an observation were measured: `stamp_ns.NAME` of each, [ns of CLOCK_MONOTONIC]."""
    return Block(tuple((f"{STAMP}{name}", (), "int64") for name in parts))


def stamps_of(raw: bytes) -> list[int]:
    """What a `stamps_block` holds."""
    return memoryview(raw).cast("q").tolist()


def age_of(stamp_ns: int, publish_ns: int) -> int:
    """How old a part of a frame was when that was published [ns]; 0 where its stamp is a little ahead."""
    return max(0, publish_ns - stamp_ns)


def stamps_in(kept: Block) -> slice:
    """Where in a block of `PolicyNeeds.kept` the stamps are, one int64 each in the order of the parts; an empty slice
    where there are none."""
    places = [kept.offsets[name] for name in kept.names if name.startswith(STAMP)]
    return slice(places[0], places[-1] + 8) if places else slice(0, 0)


def kept_by_world(action: ActionSpec, info: Block, *, requested: bool, stamps: Block, task: Block) -> Block:
    """What a world leaves with each tick.

    Args:
        action: The world's.
        info: Scalars of its `info`, by name.
        requested: The action asked for as well, where another one may be applied.
        stamps: Of the parts of its observation (`stamps_block`).
        task: Values of the run's task.

    Returns:
        `requested.action` if there is one, `info.NAME` for each scalar, `stamp_ns.NAME` for each part that has a time
        stamp, `task.NAME` for each value.
    """
    asked = ((REQUESTED, action.shape, action.dtype),) if requested else ()
    return Block((*asked, *_prefixed("info", info), *stamps.fields, *_prefixed("task", task)))


def _prefixed(what: str, block: Block) -> Iterable[tuple[str, tuple[int, ...], str]]:
    return ((f"{what}.{name}", shape, dtype) for name, shape, dtype in block.fields)


def _size(num_bytes: int) -> str:
    if num_bytes < 1000:
        return f"{num_bytes} B"
    return f"{num_bytes / 1000:.1f} KB" if num_bytes < 1_000_000 else f"{num_bytes / 1e6:.1f} MB"


def _wanted(what: str) -> str:
    return f'expected {what}={{"name": (shape, dtype)}}, as in {{"logp": ((), "float32")}}'


def _field(what: str, name: object, spec: object) -> tuple[str, tuple[int, ...], str]:
    if not isinstance(name, str):
        raise ConfigError(f"{what} has the name {name!r}; {_wanted(what)}")
    try:
        shape, dtype = cast(tuple[Any, Any], spec)
        lengths = (shape,) if isinstance(shape, int) else tuple(index(length) for length in shape)
        kind = np.dtype(dtype)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{what}: {name!r} is {spec!r:.60}; {_wanted(what)}") from error
    # Tensors have no numbers of more than 8 bytes.
    if kind.kind not in "fiub" or kind.itemsize > 8 or any(length < 1 for length in lengths):
        raise ConfigError(
            f"{what}: {name!r} is {spec!r:.60}; expected numbers of up to 64 bits or bool, and lengths of 1 or more"
        )
    return name, lengths, kind.name
