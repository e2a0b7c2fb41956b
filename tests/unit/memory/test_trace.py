"""Trace rings: what a process writes about itself, what is collected of it, and what was overwritten before."""

import struct

import numpy as np
import pytest

from rtcore.errors import ConfigError
from rtcore.memory.layout import LAYOUT_VERSION, TRACE_EVENT, Layout
from rtcore.memory.trace import (
    SPOOL_HEAD,
    SPOOL_MAGIC,
    TraceKind,
    TraceRing,
    TraceSpool,
    process_name,
    read_spool,
    spool_head,
)

pytestmark = pytest.mark.unit

LAYOUT = Layout(max_workers=2, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1, trace_slots=4)


@pytest.fixture
def rings():
    buffer = memoryview(bytearray(LAYOUT.trace_bytes))
    rings = [TraceRing(buffer, LAYOUT, process) for process in range(4)]
    for ring in rings:
        ring.format()
    return rings


def ticks_in(raw):
    return np.frombuffer(raw, TRACE_EVENT.dtype)["tick"].tolist()


def test_events_come_back_as_they_were_written(rings):
    rings[0].add(TraceKind.DISPATCH, 10, 20, 3, 1, 2, 7, -5)
    raw, next_seq, lost = rings[0].events_from(0)
    (event,) = np.frombuffer(raw, TRACE_EVENT.dtype)
    assert event.tolist() == (TraceKind.DISPATCH, 10, 20, 3, 1, 2, 7, -5)
    assert (next_seq, lost) == (1, 0)


def test_every_event_is_collected_once_across_the_seam_of_the_ring(rings):
    seen, seq = [], 0
    for tick in range(25):
        rings[1].add(TraceKind.TICK, 0, 0, tick)
        if tick % 3 == 2:
            raw, seq, lost = rings[1].events_from(seq)
            assert lost == 0
            seen += ticks_in(raw)
    raw, _, _ = rings[1].events_from(seq)
    assert seen + ticks_in(raw) == list(range(25))


def test_events_that_were_overwritten_before_they_were_collected_are_counted(rings):
    for tick in range(10):
        rings[0].add(TraceKind.TICK, 0, 0, tick)
    raw, next_seq, lost = rings[0].events_from(0)
    assert (ticks_in(raw), next_seq, lost) == ([6, 7, 8, 9], 10, 6)


def test_an_event_that_is_overwritten_during_the_copy_is_left_out_and_counted(rings):
    ring = rings[0]
    for tick in range(4):
        ring.add(TraceKind.TICK, 0, 0, tick)
    ring.sequence.begin(4)  # the writer has begun to overwrite the oldest
    raw, _, lost = ring.events_from(0)
    assert (ticks_in(raw), lost) == ([1, 2, 3], 1)


def test_each_process_writes_into_a_ring_of_its_own(rings):
    for process, ring in enumerate(rings):
        ring.add(TraceKind.TICK, 0, 0, process)
    assert [ticks_in(ring.events_from(0)[0]) for ring in rings] == [[0], [1], [2], [3]]
    assert [process_name(process) for process in range(4)] == ["env", "supervisor", "worker0", "worker1"]


def test_the_spool_keeps_every_event_in_files_and_counts_what_it_missed(rings, tmp_path):
    (tmp_path / "trace-worker7.events").write_bytes(b"of an earlier run")
    spool = TraceSpool(tmp_path, rings)
    for tick in range(6):
        rings[0].add(TraceKind.TICK, 0, 0, tick)
        rings[2].add(TraceKind.INFER, 0, 0, tick)
        if tick % 2:
            spool.collect()
    for tick in range(6, 12):
        rings[2].add(TraceKind.INFER, 0, 0, tick)
    spool.collect()
    spool.close()
    events = read_spool(tmp_path)
    assert {name: rows["tick"].tolist() for name, rows in events.items()} == {
        "env": [0, 1, 2, 3, 4, 5],
        "worker0": [0, 1, 2, 3, 4, 5, 8, 9, 10, 11],
    }
    assert (spool.num_events, spool.lost_events) == (16, 2)


def test_the_head_of_a_file_of_events_keeps_its_place_and_meaning():
    """It must be readable by every version, also where the events are not."""
    head = spool_head()
    assert (len(head), head[:8]) == (64, b"RTCTRACE")
    assert struct.unpack_from("<qq", head, 8) == (LAYOUT_VERSION, TRACE_EVENT.num_bytes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (SPOOL_HEAD.pack(SPOOL_MAGIC, LAYOUT_VERSION + 1, TRACE_EVENT.num_bytes), f"version {LAYOUT_VERSION + 1} with"),
        (SPOOL_HEAD.pack(SPOOL_MAGIC, LAYOUT_VERSION, 72), "events of 72 bytes, expected"),
        (spool_head()[:40], "holds 40 bytes, expected a head of 64"),
        (bytes(TRACE_EVENT.num_bytes), "expected b'RTCTRACE'"),
    ],
    ids=["another version", "another size of events", "too short", "no head"],
)
def test_events_of_another_layout_are_refused_with_what_was_got_and_expected(tmp_path, content, said):
    rows = np.ones(3, TRACE_EVENT.dtype).tobytes() if len(content) == SPOOL_HEAD.size else b""
    (tmp_path / "trace-env.events").write_bytes(content + rows)
    with pytest.raises(ConfigError, match=r"trace-env\.events: ") as refused:
        read_spool(tmp_path)
    assert said in str(refused.value)
    assert f"layout version {LAYOUT_VERSION} with events of {TRACE_EVENT.num_bytes} bytes" in str(refused.value)


def test_events_of_the_layout_before_are_read_as_they_look_the_same(tmp_path):
    rows = np.ones(3, TRACE_EVENT.dtype)
    (tmp_path / "trace-env.events").write_bytes(SPOOL_HEAD.pack(SPOOL_MAGIC, 5, 64) + rows.tobytes())
    assert read_spool(tmp_path)["env"].tolist() == rows.tolist()


def test_kinds_keep_their_numbers():
    """They are in trace files and in other programs."""
    assert {kind.name: kind.value for kind in TraceKind} == {
        "SLEEP": 0,
        "PREPARE": 1,
        "TICK": 2,
        "COLLECT": 3,
        "DISPATCH": 4,
        "BOOK": 5,
        "JOB": 6,
        "STEP": 7,
        "RESET": 8,
        "PUBLISH": 9,
        "ACCOUNT": 10,
        "OUTCOME": 11,
        "COLLECT_GARBAGE": 12,
        "FEATURES": 13,
        "INTERVENTION": 14,
        "IDLE": 20,
        "WAIT_FRAME": 21,
        "READ": 22,
        "INFER": 23,
        "HOST_TO_DEVICE": 24,
        "COMPUTE": 25,
        "DEVICE_TO_HOST": 26,
        "WRITE": 27,
        "DRAIN": 40,
        "WORKER_DOWN": 41,
        "WORKER_UP": 42,
    }
