"""Both ends of the operator's slot: who may step in writes what a person does, the env process reads it once a tick.

It is a slot as the workers have: a whole entry is published by its number, and nobody waits for anybody. What tells
one who may step in from the next is `run_control.operator_seq`, which the supervisor raises when it finds that one dead
or hanging: what was written before is void then, and the controls are the policy's at the next tick.
"""

from __future__ import annotations

from rtcore.clock import MonotonicClock
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.jobs import Answer
from rtcore.scheduling.takeover import Said


class OperatorReader:
    """The env process's end. Implements `scheduling.takeover.Operator`."""

    def __init__(self, shared: SharedRun) -> None:
        self._slots = shared.slots
        self._place = shared.layout.operator_place
        self._newest = shared.slots.newest_word(self._place)
        self._action_bytes = shared.layout.action_bytes
        self._words = shared.run_control.words
        self._operator_at = shared.run_control.record.index["operator_seq"]
        self._said = self._nothing = Said()
        self._seq = 0
        self._is_held = False
        self._generation = 0

    def poll(self) -> Said:
        """Copies an entry that is new; allocates nothing without one."""
        entry_seq = self._newest[0]
        if entry_seq != self._seq:
            answer = self._slots.read(self._place, entry_seq)
            if answer is not None:  # else another one was written meanwhile, which the next tick finds
                self._seq, self._generation, self._is_held = entry_seq, answer.generation, not answer.abstained
                self._said = Said(entry_seq, answer.actions[: self._action_bytes] if self._is_held else None)
        if self._is_held and self._generation != self._words[self._operator_at]:
            return self._nothing
        return self._said


class OperatorWriter:
    """The other end: of a process, or of the program that started the run. One at a time; used by one thread."""

    def __init__(self, shared: SharedRun, generation: int) -> None:
        """`generation`: as `run_control.operator_seq`; from then on what is written here is void."""
        self._slots = shared.slots
        self._place = shared.layout.operator_place
        self._chunk_bytes = shared.layout.chunk * shared.layout.action_bytes
        self._generation = generation

    def write(self, action: bytes | None) -> None:
        """What acts from the next tick on; None: hands off."""
        given = action or b""
        self._slots.write(
            self._place,
            Answer(
                entry_seq=self._slots.newest(self._place) + 1,
                generation=self._generation,
                write_ns=MonotonicClock.now_ns(),
                abstained=int(action is None),
                actions=given.ljust(self._chunk_bytes, b"\0"),
            ),
        )


def said_in(shared: SharedRun) -> tuple[int, bool]:
    """For who watches: number of the newest entry of the operator's slot, and whether a person has the controls."""
    place = shared.layout.operator_place
    entry_seq = shared.slots.newest(place)
    answer = shared.slots.read(place, entry_seq) if entry_seq else None
    mine = answer is not None and answer.generation == shared.run_control["operator_seq"]
    return entry_seq, bool(mine and answer is not None and not answer.abstained)
