"""The tick path in C and in Python: the same calls leave the same bytes and give the same answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtcore.memory import stores
from rtcore.memory.counters import Histogram
from rtcore.memory.layout import HISTOGRAM_BYTES, JOB, LOG_RECORD, FrameHeader, Layout
from rtcore.memory.ring import FrameRing, JobLog
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.spaces import Block

pytestmark = pytest.mark.unit
_compiled = pytest.importorskip(
    "rtcore._tick._compiled", reason="the tick path was not compiled: there is no C compiler"
)

LAYOUT = Layout(max_workers=3, ring_slots=4, log_slots=3, frame_bytes=24, action_bytes=3, chunk=2)
KEPT_BYTES, KEPT_STRIDE = 8, 64
CONTEXT_BYTES, PAYLOAD_BYTES = 11, 7

#: Drawn as one: hypothesis would take a second for the hundreds of numbers of a few records.
chances = st.integers(0, 2**32).map(random.Random)


def words(chance: random.Random, count: int) -> list[int]:
    return [chance.choice((-1, 0, 1, chance.getrandbits(63), -(2**63), 2**63 - 1)) for _ in range(count)]


class Side:
    """A run's ring, log, jobs and slots in memory of its own, by one of the two."""

    def __init__(self, extension: Any, *, carries: bool) -> None:
        before, stores.compiled = stores.compiled, extension
        try:
            self.memory = {
                name: bytearray(size)
                for name, size in (
                    ("ring", LAYOUT.ring_bytes),
                    ("kept", LAYOUT.ring_slots * KEPT_STRIDE),
                    ("log", LAYOUT.log_bytes),
                    ("control", LAYOUT.control_bytes),
                    ("slots", LAYOUT.slots_bytes),
                    ("blocks", 9 * 64),
                )
            }
            view = {name: memoryview(memory) for name, memory in self.memory.items()}
            FrameRing(view["ring"], LAYOUT, (3,), "<i8").sequence.format()
            JobLog(view["log"], LAYOUT).sequence.format()
            self.ring, self.reader = (FrameRing(view["ring"], LAYOUT, (3,), "<i8") for _ in range(2))
            self.log = JobLog(view["log"], LAYOUT)
            self.jobs, self.slots = JobSlots(view["control"], LAYOUT), ActionSlots(view["slots"], LAYOUT)
            if carries:
                self.ring.keep(Block((("kept", (KEPT_BYTES,), "uint8"),)), view["kept"], KEPT_STRIDE)
                self.jobs.carry(view["blocks"], [0, 64, 128], CONTEXT_BYTES)
                self.slots.carry(view["blocks"], [(192, 256), (320, 384), (448, 512)], PAYLOAD_BYTES)
        finally:
            stores.compiled = before
        self.out = np.zeros(3, "<i8")

    def outcome(self, call: Callable[[Side, random.Random], Any], chance: random.Random) -> Any:
        try:
            result = call(self, chance)
        except Exception as error:
            result = type(error)
        return result, self.out.tobytes()


FRAMES = [
    np.arange(3, dtype="<i8"),
    np.full(3, -1, "<i8"),
    np.arange(6, dtype="<i8")[::2],
    np.arange(3, dtype=np.int32),
    np.arange(4, dtype="<i8"),
    np.array([[1, 2, 3]]),
]


def publish(side: Side, chance: random.Random) -> Any:
    number = side.ring.next_seq + chance.choice((0, 0, 0, 0, 1, -1))
    header = FrameHeader(number, *words(chance, len(FrameHeader._fields) - 1))
    header = header._replace(reward=chance.choice((-1, -1.0, 0.5, math.inf)), episode_return=chance.random())
    return side.ring.publish(chance.choice(FRAMES), header, chance.randbytes(3), chance.randbytes(KEPT_BYTES))


def read(side: Side, chance: random.Random) -> Any:
    ring, seq, until_ns = side.reader, side.ring.next_seq - chance.randint(0, 6), chance.choice((0, 1))
    out = chance.choice((side.out, side.out, side.out[::2], np.zeros(2, "<i8")))
    how: list[Callable[[], Any]] = [
        lambda: ring.read(seq, out),
        lambda: ring.read_header(seq),
        lambda: ring.read_action(seq),
        lambda: ring.read_with_header(seq, out, until_ns),
    ]
    ring.seen_ns = 0
    # When it came is said whenever somebody waited for it, also if it was there by then.
    return chance.choice(how)(), ring.lapped_reads, ring.seen_ns > 0


def book(side: Side, chance: random.Random) -> Any:
    worker = chance.randrange(3)
    seq = side.jobs.newest(worker) + chance.choice((1, 1, 1, 0, 2))
    numbers: list[Any] = words(chance, len(JOB.fields) - 1)
    side.jobs.post(Job(worker, *numbers, job_seq=seq, context=chance.randbytes(CONTEXT_BYTES)))
    return side.jobs.newest(worker), side.jobs.read(worker)


def answer(side: Side, chance: random.Random) -> Any:
    worker = chance.randrange(3)
    seq = side.slots.newest(worker) + chance.choice((1, 1, 1, 0, 2))
    numbers, actions = words(chance, len(Answer._fields) - 3), chance.choice((b"abcdef", b"ghijkl", b"short"))
    side.slots.write(worker, Answer(seq, *numbers, actions, chance.randbytes(PAYLOAD_BYTES)))
    return side.slots.read(worker, side.slots.newest(worker) - chance.randint(-1, 2))


def log(side: Side, chance: random.Random) -> Any:
    row = JobRow(side.log.next_seq + chance.choice((0, 0, 0, 1)), *words(chance, len(LOG_RECORD.fields) - 1))
    side.log.append(row)
    return side.log.next_seq, side.log.read(side.log.next_seq - chance.randint(0, 5))


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from((publish, publish, read, read, book, answer, log)), max_size=20), chances, st.booleans()
)
def test_both_leave_the_same_bytes_and_give_the_same_answers(
    calls: list[Callable[[Side, random.Random], Any]], chance: random.Random, carries: bool
) -> None:
    sides = [Side(None, carries=carries), Side(_compiled, carries=carries)]
    assert sides[1].jobs._stores and not sides[0].jobs._stores
    for call in calls:
        seed = chance.random()
        in_python, in_c = (side.outcome(call, random.Random(seed)) for side in sides)
        assert repr(in_python) == repr(in_c)
        assert sides[0].memory == sides[1].memory


@given(st.lists(st.integers(-3, 300) | st.integers(0, 2**45), max_size=30))
def test_a_sample_is_counted_alike(values: list[int]) -> None:
    in_c, in_python = memoryview(bytearray(HISTOGRAM_BYTES)), memoryview(bytearray(HISTOGRAM_BYTES))
    words, histogram = _compiled.Words(in_c), Histogram(in_python)
    for value in values:
        words.sample(value)
        Histogram.add(histogram, value)
    assert in_c == in_python
