"""The frame ring and the job log under every schedule of one writer and its readers."""

import numpy as np
import pytest

from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.ring import NONE_YET, FrameRing, JobLog, ReadStatus, SequenceRing
from rtcore.scheduling.jobs import JobRow
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import SteppedBuffer
from tests.support.broken_protocols import (
    BeginAfterThePayload,
    CommitBeforeThePayload,
    FrameCheckedBeforeTheCopy,
    LappedCheckOffByOne,
    LogCheckOffByOne,
    NoCheckAtAll,
    NoLookAtWhatIsDone,
)

pytestmark = pytest.mark.interleaving

NUM_SLOTS = 2
FRAME_WORDS = 2
LAYOUT = Layout(
    max_workers=1, ring_slots=NUM_SLOTS, log_slots=NUM_SLOTS, frame_bytes=8 * FRAME_WORDS, action_bytes=8, chunk=1
)
OK, NOT_YET, LAPPED = ReadStatus


def frame_of(seq):
    return [1000 * seq + 1 + word for word in range(FRAME_WORDS)]


def header_of(seq):
    return FrameHeader(seq, *(1000 * seq + 100 + index for index in range(len(FrameHeader._fields) - 1)))


def action_of(seq):
    return (1000 * seq + 500).to_bytes(8, "little")


def new_ring(ring_class=FrameRing):
    memory = bytearray(LAYOUT.ring_bytes)
    attach_ring(memory).sequence.format()
    return memory, lambda: attach_ring(memory, ring_class)


def attach_ring(memory, ring_class=FrameRing):
    return ring_class(SteppedBuffer(memoryview(memory)), LAYOUT, (FRAME_WORDS,), "<i8")


def write_frames(ring, count):
    for seq in range(count):
        assert ring.publish(np.array(frame_of(seq)), header_of(seq), action_of(seq)) == seq


def read_frame(ring, seq):
    """What came of it, and whether the copy is frame `seq`, whole."""
    out = np.zeros(FRAME_WORDS, "<i8")
    status = ring.read(seq, out)
    return status, seq, out.tolist() == frame_of(seq)


def read_header(ring, seq):
    status, header = ring.read_header(seq)
    return status, seq, header is not None and header == header_of(seq)


def read_both(ring, seq):
    """What came of it, and whether frame and header are those of `seq`, whole."""
    out = np.zeros(FRAME_WORDS, "<i8")
    status, header = ring.read_with_header(seq, out)
    whole = out.tolist() == frame_of(seq) and header is not None and header == header_of(seq)
    return status, seq, whole


def read_action(ring, seq):
    action = ring.read_action(seq)
    status = OK if action is not None else NOT_YET
    return status, seq, action == action_of(seq)


def frames_and_a_reader(reader, num_frames, ring_class=FrameRing, num_readers=1):
    def make():
        memory, attach = new_ring(ring_class)
        actors = {"writer": lambda ring=attach(): write_frames(ring, num_frames)}
        for index in range(num_readers):
            actors[f"reader {index}"] = lambda ring=attach(): reader(ring)
        return Scenario([memory], actors)

    return make


def torn_reads(exploration):
    """Reads that said OK of something that is not the whole record asked for."""
    return [
        (schedule, read)
        for schedule, results in exploration.outcomes
        for name, reads in results.items()
        if name.startswith("reader")
        for read in reads
        if read[0] is OK and not read[2]
    ]


def statuses(exploration, name="reader 0"):
    return {read[0] for _, results in exploration.outcomes for read in results[name]}


# -- the protocol as it is ---------------------------------------------------------------------------------------


def test_reader_never_returns_a_torn_frame():
    def reader(ring):
        return [read_frame(ring, 0), read_frame(ring, 1)]

    exploration = explore(frames_and_a_reader(reader, num_frames=4))
    assert torn_reads(exploration) == []
    assert statuses(exploration) == {OK, NOT_YET, LAPPED}
    assert exploration.num_schedules > 1_000_000


def test_reader_of_the_newest_frame_never_goes_back_and_never_gets_a_torn_one():
    def reader(ring):
        reads = []
        for _ in range(2):
            seq = ring.sequence.newest()
            reads.append(read_frame(ring, seq))
        return reads

    exploration = explore(frames_and_a_reader(reader, num_frames=4))
    assert torn_reads(exploration) == []
    assert statuses(exploration) == {OK, NOT_YET, LAPPED}
    seen = {tuple(seq for _, seq, _ in results["reader 0"]) for _, results in exploration.outcomes}
    assert all(first <= second for first, second in seen), seen
    assert {(NONE_YET, NONE_YET), (0, 3), (3, 3)} <= seen


def test_a_frame_and_its_header_that_are_both_ok_belong_together():
    """As one may read them: the frame first, then the header of the same number."""

    def reader(ring):
        seq = ring.sequence.newest()
        return [read_frame(ring, seq), read_header(ring, seq)]

    exploration = explore(frames_and_a_reader(reader, num_frames=3))
    assert torn_reads(exploration) == []
    pairs = {tuple(read[0] for read in results["reader 0"]) for _, results in exploration.outcomes}
    assert pairs == {(NOT_YET, NOT_YET), (OK, OK), (OK, LAPPED), (LAPPED, LAPPED)}


def test_a_frame_read_with_its_header_is_whole_or_nothing():
    """As a worker reads them."""

    def reader(ring):
        return [read_both(ring, 0), read_both(ring, ring.sequence.newest())]

    exploration = explore(frames_and_a_reader(reader, num_frames=3))
    assert torn_reads(exploration) == []
    assert statuses(exploration) == {OK, NOT_YET, LAPPED}


def test_an_action_is_whole_or_none():
    def reader(ring):
        return [read_action(ring, 0), read_action(ring, 1)]

    exploration = explore(frames_and_a_reader(reader, num_frames=4))
    assert torn_reads(exploration) == []
    assert statuses(exploration) == {OK, NOT_YET}


def test_two_readers_at_once_do_not_disturb_each_other_or_the_writer():
    def reader(ring):
        return [read_frame(ring, 0)]

    exploration = explore(frames_and_a_reader(reader, num_frames=3, num_readers=2))
    assert torn_reads(exploration) == []
    for name in ("reader 0", "reader 1"):
        assert statuses(exploration, name) == {OK, NOT_YET, LAPPED}


def test_lapped_reads_are_counted_by_their_reader():
    def reader(ring):
        return [read_frame(ring, 0), (None, ring.lapped_reads, None)]

    exploration = explore(frames_and_a_reader(reader, num_frames=3))
    counts = {(results["reader 0"][0][0], results["reader 0"][1][1]) for _, results in exploration.outcomes}
    assert counts == {(OK, 0), (NOT_YET, 0), (LAPPED, 1)}


# -- the same for the job log ------------------------------------------------------------------------------------


def row_of(seq):
    return JobRow(seq, *(1000 * seq + index for index in range(len(JobRow._fields) - 1)))


def log_and_a_reader(reader, num_records=4, log_class=JobLog):
    def make():
        memory = bytearray(LAYOUT.log_bytes)
        JobLog(SteppedBuffer(memoryview(memory)), LAYOUT).sequence.format()
        writer, mine = (log_class(SteppedBuffer(memoryview(memory)), LAYOUT) for _ in range(2))

        def write():
            for seq in range(num_records):
                writer.append(row_of(seq))

        return Scenario([memory], {"writer": write, "reader 0": lambda: reader(mine)})

    return make


def read_log(log, seq):
    status, row = log.read(seq)
    return status, seq, row == row_of(seq)


def test_reader_never_returns_a_torn_log_record():
    def reader(log):
        return [read_log(log, 0), read_log(log, log.sequence.newest())]

    exploration = explore(log_and_a_reader(reader))
    assert torn_reads(exploration) == []
    assert statuses(exploration) == {OK, NOT_YET, LAPPED}


# -- broken variants: each must be caught ------------------------------------------------------------------------


BROKEN = (
    CommitBeforeThePayload,
    BeginAfterThePayload,
    FrameCheckedBeforeTheCopy,
    NoCheckAtAll,
    NoLookAtWhatIsDone,
    LappedCheckOffByOne,
)


@pytest.mark.parametrize("ring_class", BROKEN, ids=lambda ring_class: ring_class.__name__)
def test_a_broken_ring_is_caught(ring_class):
    def reader(ring):
        return [read_frame(ring, 0)]

    exploration = explore(frames_and_a_reader(reader, num_frames=3, ring_class=ring_class))
    assert torn_reads(exploration) != []


@pytest.mark.parametrize(
    "ring_class",
    [CommitBeforeThePayload, BeginAfterThePayload, NoCheckAtAll, LappedCheckOffByOne],
    ids=lambda ring_class: ring_class.__name__,
)
def test_a_broken_ring_is_caught_by_who_reads_frame_and_header_at_once(ring_class):
    exploration = explore(frames_and_a_reader(lambda ring: [read_both(ring, 0)], num_frames=3, ring_class=ring_class))
    assert torn_reads(exploration) != []


def test_a_log_whose_lapped_check_is_off_by_one_is_caught():
    exploration = explore(log_and_a_reader(lambda log: [read_log(log, 0)], log_class=LogCheckOffByOne))
    assert torn_reads(exploration) != []


# -- what needs no schedule --------------------------------------------------------------------------------------


def test_a_ring_of_one_slot_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        SequenceRing([0] * 16, 1)


def test_numbers_below_zero_and_beyond_the_newest_do_not_exist_yet():
    memory, attach = new_ring()
    ring = attach()
    out = np.zeros(FRAME_WORDS, "<i8")
    assert (ring.read(NONE_YET, out), ring.read(0, out)) == (NOT_YET, NOT_YET)
    write_frames(ring, 2)
    assert [ring.read(seq, out) for seq in (-1, 0, 1, 2)] == [NOT_YET, OK, OK, NOT_YET]
    assert (ring.read_header(-1), ring.read_header(2)) == ((NOT_YET, None), (NOT_YET, None))
    assert (ring.read_action(-1), ring.read_action(2)) == (None, None)


def test_a_writer_that_attaches_again_goes_on_where_the_last_one_stopped():
    _, attach = new_ring()
    write_frames(attach(), 3)
    ring = attach()
    assert ring.next_seq == 3
    assert ring.publish(np.array(frame_of(3)), header_of(3), action_of(3)) == 3
