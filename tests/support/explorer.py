"""Runs real protocol code under every schedule of its actors, one memory access at a time.

An actor is a plain function in a greenlet. Before each access to shared memory it hands control back to the
explorer, which then lets any actor go next. Greenlets cannot be copied, so a branch is reached by running its
choices again from the start. An actor is a deterministic function of what it has read, hence memory plus what
each actor has seen *is* the state: a state met before is not entered again, and the number of schedules is
counted as the number of paths through the graph of states. Exhaustive, under sequential consistency.

A record is not written at a stroke: `struct.pack_into` clears it, then fills it (CPython does just that), a
frame moves word by word. So the real classes of `rtcore.memory.ring` and `rtcore.memory.slots` run unchanged;
`conftest.py` swaps the record descriptions and the copying in those modules for the stepped ones here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet

WORD_BYTES = 8
#: A record is cleared in one step and then written (or read) in this many.
RECORD_PIECES = 2


class Actor(greenlet):  # type: ignore[misc]  # it has no types
    """One of the processes. `seen` is all it knows of shared memory."""

    seen: list[Any]
    waits_for: Callable[[], bool] | None
    result: Any


def access(action: Callable[[], Any]) -> Any:
    """Do one indivisible access; an actor lets the explorer choose who goes first."""
    me = getcurrent()
    if not isinstance(me, Actor):
        return action()
    me.parent.switch()
    value = action()
    me.seen.append(value)
    return value


def wait_until(condition: Callable[[], bool]) -> None:
    """Block the actor until `condition` holds; it may have ceased to hold when the actor goes on."""
    me = getcurrent()
    assert isinstance(me, Actor), "only actors wait"
    me.waits_for = condition
    me.parent.switch()
    me.waits_for = None
    me.seen.append("woke")


class SteppedWords:
    """`memoryview.cast("q")`: each word is read and written at a stroke, as an aligned 8-byte move is."""

    def __init__(self, raw: memoryview) -> None:
        self._words = raw.cast("q")

    def __getitem__(self, index: int) -> int:
        word: int = access(lambda: self._words[index])
        return word

    def __setitem__(self, index: int, value: int) -> None:
        access(lambda: self._words.__setitem__(index, value))


class SteppedBuffer:
    """A memoryview whose slices move word by word."""

    def __init__(self, raw: memoryview) -> None:
        self.raw = raw

    def cast(self, code: str) -> SteppedWords:
        assert code == "q"
        return SteppedWords(self.raw)

    def __getitem__(self, part: slice) -> SteppedBuffer:
        return SteppedBuffer(self.raw[part])

    def __setitem__(self, part: slice, data: bytes) -> None:
        target, source = self.raw[part], bytes(data)
        assert len(target) == len(source)
        for at in range(0, len(source), WORD_BYTES):
            store(target, at, source[at : at + WORD_BYTES])

    def __bytes__(self) -> bytes:
        words = range(0, len(self.raw), WORD_BYTES)
        return b"".join([load(self.raw, at, at + WORD_BYTES) for at in words])


def load(source: memoryview, begin: int, end: int) -> bytes:
    data: bytes = access(lambda: bytes(source[begin:end]))
    return data


def store(target: memoryview, at: int, data: bytes) -> None:
    access(lambda: target.__setitem__(slice(at, at + len(data)), data))


class SteppedRecord:
    """A `layout.Record` whose struct clears the record, then moves it in pieces."""

    def __init__(self, record: Any) -> None:
        self.num_bytes = record.num_bytes
        self.struct = self
        self._struct = record.struct
        self.size = record.struct.size
        words = record.struct.size // WORD_BYTES
        bounds = [words * piece // RECORD_PIECES * WORD_BYTES for piece in range(RECORD_PIECES + 1)]
        self._pieces = list(zip(bounds, bounds[1:], strict=False))

    def struct_with(self, num_bytes: int, *no_bytes: int) -> SteppedStructWithTail:
        return SteppedStructWithTail(self, num_bytes, len(no_bytes))

    def pack_into(self, buffer: SteppedBuffer, at: int, *values: float) -> None:
        store(buffer.raw, at, bytes(self.size))
        self.fill(buffer, at, *values)

    def fill(self, buffer: SteppedBuffer, at: int, *values: float) -> None:
        data = self._struct.pack(*values)
        for begin, end in self._pieces:
            store(buffer.raw, at + begin, data[begin:end])

    def unpack_from(self, buffer: SteppedBuffer, at: int) -> tuple[Any, ...]:
        raw = buffer.raw
        parts = [load(raw, at + begin, at + end) for begin, end in self._pieces]
        values: tuple[Any, ...] = self._struct.unpack(b"".join(parts))
        return values


class SteppedStructWithTail:
    """A record and the bytes behind it: cleared in one step, then moved in the record's pieces and word by word."""

    def __init__(self, record: SteppedRecord, num_bytes: int, num_empty: int) -> None:
        self._record = record
        self._num_empty = num_empty
        self._tail_at = record.num_bytes
        self.size = record.num_bytes + num_bytes

    def pack_into(self, buffer: SteppedBuffer, at: int, *values: Any) -> None:
        *fields, tail = values[: len(values) - self._num_empty]
        store(buffer.raw, at, bytes(self.size))
        self._record.fill(buffer, at, *fields)
        buffer[at + self._tail_at : at + self.size] = tail

    def unpack_from(self, buffer: SteppedBuffer, at: int) -> tuple[Any, ...]:
        tail = bytes(buffer[at + self._tail_at : at + self.size])
        return *self._record.unpack_from(buffer, at), tail, *[b""] * self._num_empty


def stepped_copy(target: memoryview | SteppedBuffer, source: memoryview | SteppedBuffer) -> None:
    """Stands in for `rtcore.memory.ring.copy_bytes`: word by word, whichever side is shared."""
    if isinstance(source, SteppedBuffer):
        for at in range(0, len(source.raw), WORD_BYTES):
            target[at : at + WORD_BYTES] = load(source.raw, at, at + WORD_BYTES)
    else:
        target[:] = source  # type: ignore[assignment]  # a buffer, as bytes are


@dataclass
class Scenario:
    """Fresh shared memory and the actors on it. Objects are per actor: processes share nothing else."""

    memories: list[bytearray]
    actors: dict[str, Callable[[], Any]]


@dataclass
class Exploration:
    """What all schedules together did: one outcome per distinct final state."""

    outcomes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    num_states: int = 0
    num_runs: int = 0
    num_schedules: int = 0


class Deadlock(AssertionError):
    """Every actor that is not done waits."""


class _Run:
    """One execution, driven choice by choice."""

    def __init__(self, scenario: Scenario) -> None:
        self.memories = scenario.memories
        self.actors: dict[str, Actor] = {}
        self.choices: list[str] = []
        for name, body in scenario.actors.items():
            actor = Actor(body)
            actor.seen, actor.waits_for, actor.result = [], None, None
            self.actors[name] = actor
            self._go(actor)

    def step(self, name: str) -> None:
        self.choices.append(name)
        self._go(self.actors[name])

    def _go(self, actor: Actor) -> None:
        try:
            result = actor.switch()
        except Exception as error:
            error.add_note(f"schedule: {self.schedule}")
            raise
        if actor.dead:
            actor.result = result

    @property
    def schedule(self) -> str:
        return " ".join(self.choices)

    def runnable(self) -> list[str]:
        alive = [(name, actor) for name, actor in self.actors.items() if not actor.dead]
        ready = [name for name, actor in alive if actor.waits_for is None or actor.waits_for()]
        if alive and not ready:
            raise Deadlock(f"{[name for name, _ in alive]} wait for ever after: {self.schedule}")
        return ready

    def state(self) -> tuple[Any, ...]:
        seen = tuple((actor.dead, *actor.seen) for actor in self.actors.values())
        return (*(bytes(memory) for memory in self.memories), seen)


def explore(
    make_scenario: Callable[[], Scenario], *, until: Callable[[dict[str, Any]], bool] | None = None
) -> Exploration:
    """Every schedule of the scenario's actors; or, for a broken variant, only until the first such results."""
    found = Exploration()
    ids: dict[tuple[Any, ...], int] = {}
    children: list[list[int]] = []
    depths: list[int] = []
    branches: list[tuple[str, ...]] = [()]
    while branches:
        run = _Run(make_scenario())
        found.num_runs += 1
        branch = branches.pop()
        parent = -1
        for name in branch[:-1]:
            run.step(name)
        if branch:
            parent = ids[run.state()]
            run.step(branch[-1])
        while True:
            state = run.state()
            known = ids.get(state)
            me = ids.setdefault(state, len(ids))
            if parent >= 0:
                children[parent].append(me)
            if known is not None:
                break
            children.append([])
            depths.append(len(run.choices))
            ready = run.runnable()
            if not ready:
                results = {name: actor.result for name, actor in run.actors.items()}
                found.outcomes.append((run.schedule, results))
                if until is not None and until(results):
                    branches.clear()
                break
            branches.extend((*run.choices, other) for other in ready[1:])
            parent = me
            run.step(ready[0])
    found.num_states = len(ids)
    found.num_schedules = _count_paths(children, depths)
    return found


def _count_paths(children: list[list[int]], depths: list[int]) -> int:
    paths = [0] * len(children)
    for state in sorted(range(len(children)), key=depths.__getitem__, reverse=True):
        paths[state] = sum(paths[child] for child in children[state]) if children[state] else 1
    return paths[0]
