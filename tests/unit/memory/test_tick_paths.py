"""The tick path in C and in Python: the same calls leave the same bytes and give the same answers."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.loop import job_context
from rtcore.loop.job_context import JobContexts
from rtcore.memory import stores
from rtcore.memory.counters import Histogram
from rtcore.memory.layout import HISTOGRAM_BYTES, JOB, LOG_RECORD, FrameHeader, Layout
from rtcore.memory.ring import AFTER_STEP, FrameRing, JobLog
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.scheduling.dispatch import Committed, Decision, Dispatcher, Known, TickKind
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.spaces import ActionSpec, Block, PolicyNeeds
from tests.support.drawn import examples

pytestmark = pytest.mark.unit
_compiled = pytest.importorskip(
    "rtcore._tick._compiled", reason="the tick path was not compiled: there is no C compiler"
)

LAYOUT = Layout(max_workers=3, ring_slots=4, log_slots=3, frame_bytes=24, action_bytes=3, chunk=2)
KEPT_BYTES, KEPT_STRIDE = 8, 64
CONTEXT_BYTES, PAYLOAD_BYTES = 11, 7
ACTION_BYTES = 3

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


def publish_draft(side: Side, chance: random.Random) -> Any:
    """As the tick loop does; now and then the ring is given the finished header instead of what was staged."""
    draft = draft_of(FrameHeader)
    for name, value in zip(FrameHeader._fields, words(chance, len(FrameHeader._fields)), strict=True):
        setattr(draft, name, value)
    draft.frame_seq = side.ring.next_seq + chance.choice((0, 0, 0, 0, 1))
    draft.reward = draft.episode_return = chance.choice((0.5, -1, None))
    side.ring.stage(draft)
    for name in AFTER_STEP:
        setattr(draft, name, chance.choice((True, -1, 2**62)))
    header = draft if chance.random() < 0.8 else draft.record()
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


def book_all(side: Side, chance: random.Random) -> Any:
    jobs = [
        Job(worker, *words(chance, 2), hold=chance.random() < 0.5, context=chance.randbytes(CONTEXT_BYTES))
        for worker in chance.sample(range(3), chance.randint(0, 3))
    ]
    frame_seq, booked_ns, phase_seq = words(chance, 3)
    booked = side.jobs.book(jobs, {0: 5}, None, frame_seq=frame_seq, booked_ns=booked_ns, phase_seq=phase_seq)
    return booked, [type(job) for job in booked], [side.jobs.read(worker) for worker in range(3)]


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


@examples(100)
@given(
    st.lists(
        st.sampled_from((publish, publish_draft, publish_draft, read, read, book, book_all, answer, log)), max_size=20
    ),
    chances,
    st.booleans(),
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


def pieces_of(chance: random.Random, ticks: int) -> list[Committed]:
    """Some of the ticks 1 to `ticks`, in order; seldom one of which no answer is there."""
    pieces, tick = [], 1
    while tick <= ticks:
        tick += chance.choice((0, 0, 1, 2))
        length, index = chance.randint(0, 3), chance.randint(0, 2)
        known, actions = chance.choice((Known.FACT, Known.FACT, Known.PLAN)), chance.randbytes(5 * ACTION_BYTES)
        answer = None if chance.random() < 0.1 else Answer(actions=actions)
        pieces.append(Committed(tick, length, known if answer else chance.choice((known, Known.HELD)), answer, index))
        tick += length
    return pieces


@given(chances, st.integers(0, 9), st.booleans())
def test_a_context_is_made_alike(chance: random.Random, room: int, carries: bool) -> None:
    state = Block.of("state", {"h": (3, "float64")}) if carries else Block()
    needs = PolicyNeeds(committed_ticks=room, state=state, features=Block.of("features", {"z": (2, "float32")}))
    action = ActionSpec((ACTION_BYTES,), "uint8", (0,), (255,), "box")
    pieces, episode, made = pieces_of(chance, chance.randint(0, 12)), chance.randint(0, 3), []
    for extension in (None, _compiled):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(job_context, "compiled", extension)
            known = SimpleNamespace(episode=episode, committed=lambda job, tick: pieces)
            contexts = JobContexts(needs, action, seed=7, idle_action=b"idl", on_missing="repeat", holds=True)
            jobs = [Job(worker, 0, 13, hold=True) for worker in (2, 0)]
            made.append(contexts.with_contexts(jobs, Decision(TickKind.IDLE), cast(Dispatcher, known)))
    assert made[0] == made[1]
    assert [type(job) for job in made[1]] == [Job, Job]
    assert {len(job.context) for job in made[1]} == {needs.context(action).nbytes}


@given(st.lists(st.integers(-3, 300) | st.integers(0, 2**45), max_size=30))
def test_a_sample_is_counted_alike(values: list[int]) -> None:
    in_c, in_python = memoryview(bytearray(HISTOGRAM_BYTES)), memoryview(bytearray(HISTOGRAM_BYTES))
    words, histogram = _compiled.Words(in_c), Histogram(in_python)
    for value in values:
        words.sample(value)
        Histogram.add(histogram, value)
    assert in_c == in_python
