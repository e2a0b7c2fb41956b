"""The operator's slot: what is read at a tick, and of whom."""

from types import SimpleNamespace
from typing import Any

import pytest

from rtcore.memory.counters import Words
from rtcore.memory.layout import RUN_CONTROL, Layout
from rtcore.memory.operator import OperatorReader, OperatorWriter, said_in
from rtcore.memory.slots import ActionSlots
from rtcore.scheduling.jobs import Answer

pytestmark = pytest.mark.unit

LAYOUT = Layout(max_workers=2, ring_slots=4, log_slots=4, frame_bytes=8, action_bytes=4, chunk=3)


@pytest.fixture
def shared() -> Any:
    slots = ActionSlots(memoryview(bytearray(LAYOUT.slots_bytes)), LAYOUT)
    return SimpleNamespace(slots=slots, layout=LAYOUT, run_control=Words(RUN_CONTROL))


def test_what_is_written_is_read_once_and_hands_off_is_nothing(shared: Any) -> None:
    reader, writer = OperatorReader(shared), OperatorWriter(shared, 0)
    first = reader.poll()
    assert (first, reader.poll() is first) == ((0, None), True)
    writer.write(b"left")
    said = reader.poll()
    assert (said, reader.poll() is said) == ((1, b"left"), True)
    assert said_in(shared) == (1, True)
    writer.write(b"left")
    assert reader.poll() == (2, b"left")
    writer.write(None)
    assert reader.poll() == (3, None)
    assert said_in(shared) == (3, False)


def test_what_one_wrote_who_is_no_longer_the_one_is_void(shared: Any) -> None:
    reader, lost = OperatorReader(shared), OperatorWriter(shared, 0)
    lost.write(b"left")
    assert reader.poll().action == b"left"
    shared.run_control["operator_seq"] = 1
    assert reader.poll().action is None
    lost.write(b"last")
    assert (reader.poll().action, said_in(shared)) == (None, (2, False))
    OperatorWriter(shared, 1).write(b"mine")
    assert reader.poll().action == b"mine"


@pytest.mark.parametrize("compiled", [True, False])
def test_the_workers_payloads_are_none_of_its(shared: Any, compiled: bool) -> None:
    if not compiled:
        shared.slots._stores = []
    memory = memoryview(bytearray(64))
    shared.slots.carry(memory, [(0, 16), (32, 48)], 16)
    OperatorWriter(shared, 0).write(b"left")
    assert OperatorReader(shared).poll() == (1, b"left")
    assert bytes(memory) == bytes(64)
    shared.slots.write(0, Answer(entry_seq=1, actions=b"up..up..up..", payload=b"p" * 16))
    answer = shared.slots.read(0, 1)
    assert answer is not None
    assert answer.payload == b"p" * 16
