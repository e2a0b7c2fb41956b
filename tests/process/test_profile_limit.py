"""The C limit and rtcore's own ring are one protocol over one layout: each reads what the other writes."""

import threading

import numpy as np
import pytest

from benchmarks.ipc import limit
from benchmarks.ipc.limit import LimitProcess, LimitTransport, compile_limit
from rtcore.clock import MonotonicClock
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import ReadStatus
from rtcore.memory.segments import files_of
from rtcore.profile.transports import Rhythm, Ring, RtcoreTransport

pytestmark = [
    pytest.mark.process,
    pytest.mark.slow,
    pytest.mark.skipif(limit.find_compiler() is None, reason="needs a C compiler (cc, gcc or clang)"),
]

SHAPE = (24, 20)
QUICK = Rhythm(gap_ns=500_000, prepare_ns=20_000, step_ns=20_000)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return compile_limit(tmp_path_factory.mktemp("limit"))


@pytest.fixture
def ring():
    made = Ring(SHAPE, 1)
    yield made
    made.close()
    assert files_of(made.run_id) == []


@pytest.fixture
def process_of(program, ring):
    started = []

    def start(role, mode):
        started.append(LimitProcess(program, role, mode, ring.run_id, ring.layout))
        return started[-1]

    yield start
    for process in started:
        process.close()


def signed_frame(seq):
    """As limit.c signs its frames: the number in the first and the last byte."""
    frame = np.zeros(SHAPE, np.uint8)
    frame[0, 0], frame[-1, -1] = seq % 256, (seq + 1) % 256
    return frame


@pytest.mark.parametrize("mode", ["spin", "futex"])
def test_rtcore_reads_the_frames_of_the_c_writer(ring, process_of, mode):
    count = 300  # comes round the ring more than four times
    writer = process_of("write", mode)
    before_ns = MonotonicClock.now_ns()
    writer.tell(count, 0, 0, 0)
    costs = writer.times_ns()
    frames, out = ring.shared.ring, np.zeros(SHAPE, np.uint8)
    assert len(costs) == count
    assert frames.sequence.newest() == count - 1
    for seq in range(count - ring.layout.ring_slots, count):
        status, header = frames.read_header(seq)
        assert (status, frames.read(seq, out)) == (ReadStatus.OK, ReadStatus.OK)
        assert header.frame_seq == seq
        assert before_ns < header.publish_ns < MonotonicClock.now_ns()
        assert (out[0, 0], out[-1, -1]) == (seq % 256, (seq + 1) % 256)
        assert out[0, 1] == 7, "the body of the frame is the writer's pattern"
    assert frames.read(0, out) is ReadStatus.LAPPED


def publish(ring, seq, frame):
    header = FrameHeader(frame_seq=seq, publish_ns=MonotonicClock.now_ns())
    assert ring.shared.ring.publish(frame, header, bytes(ring.layout.action_bytes)) == seq


@pytest.mark.parametrize("mode", ["spin"])
def test_the_c_reader_reads_the_frames_of_rtcore(ring, process_of, mode):
    reader = process_of("read", mode)
    reader.tell(20)
    assert reader.line() == "ready"
    for seq in range(20):
        publish(ring, seq, signed_frame(seq))
    latencies = reader.times_ns()
    assert len(latencies) == 20
    assert min(latencies) > 0


def test_the_c_reader_counts_only_frames_that_carry_their_number(ring, process_of):
    reader = process_of("read", "spin")
    reader.tell(20)
    assert reader.line() == "ready"
    for seq in range(20):
        publish(ring, seq, signed_frame(seq + (seq == 7)))
    assert len(reader.times_ns()) == 19


@pytest.mark.parametrize("mode", ["spin", "futex"])
def test_every_c_reader_gets_every_frame(mode):
    transport = LimitTransport(mode, SHAPE, readers=3)
    try:
        transport.begin(25)
        costs = transport.run_block(25, signed_frame(0), QUICK)
        received = transport.collect()
    finally:
        transport.close()
    assert len(costs) == 25
    assert [len(latencies) for latencies in received] == [25, 25, 25]


def test_the_rhythm_is_that_of_the_benchmark(ring, process_of):
    writer = process_of("write", "futex")
    start_ns = MonotonicClock.now_ns()
    writer.tell(10, *QUICK)
    writer.times_ns()
    assert MonotonicClock.now_ns() - start_ns >= 10 * sum(QUICK)


def test_without_a_compiler_the_limit_is_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    assert "no C compiler found (looked for cc, gcc, clang)" in limit.why_missing()
    with pytest.raises(limit.RtcoreError, match="apt install gcc"):
        compile_limit(tmp_path)


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    compiler = tmp_path / "badcc"
    compiler.write_text("#!/bin/sh\necho 'this is not C' >&2\nexit 4\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    with pytest.raises(limit.RtcoreError, match=r"exit code 4\):\nthis is not C"):
        compile_limit(tmp_path)


def test_answers_are_read_from_the_slots_that_the_worker_wrote():
    transport = RtcoreTransport("hybrid", SHAPE, readers=1)
    try:
        opener = transport.answerer(0)
        answer = opener.function(*opener.arguments)
        thread = threading.Thread(target=answer, args=(3,))
        thread.start()
        found = []
        for _ in range(3):
            found += transport.ask()
        thread.join(150)
        assert len(found) == 3
        assert min(found) > 0
    finally:
        run_id = transport._ring.run_id
        transport.close()
    assert files_of(run_id) == []
