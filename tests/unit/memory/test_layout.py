"""Pins every offset of the shared layout. A change here is a new `LAYOUT_VERSION`, for which this file is rewritten."""

import struct
from dataclasses import replace
from typing import Annotated, NamedTuple

import pytest

from rtcore.memory import layout
from rtcore.memory.layout import (
    ENV_HISTOGRAMS,
    WORKER_HISTOGRAMS,
    FrameHeader,
    Layout,
    MasterLayout,
    ParamLayout,
    PayloadLayout,
)

pytestmark = pytest.mark.unit

#: Layout version 9: size of each record and the offset of each field [bytes].
RECORDS = {
    "SEGMENT_HEADER": (
        128,
        {
            "magic": 0,
            "layout_version": 8,
            "size_bytes": 16,
            "owner_pid": 24,
            "owner_start_ticks": 32,
            "max_workers": 40,
            "ring_slots": 48,
            "log_slots": 56,
            "frame_bytes": 64,
            "action_bytes": 72,
            "chunk": 80,
            "description_bytes": 88,
            "trace_slots": 96,
            "owner_pid_namespace": 104,
        },
    ),
    "RUN_CONTROL": (
        128,
        {
            "phase": 0,
            "phase_seq": 8,
            "membership_seq": 16,
            "num_workers": 24,
            "delay_ticks": 32,
            "tau_mean_ns": 40,
            "reset_seq": 48,
            "has_payload": 56,
            "pauses": 64,
            "operator_seq": 72,
        },
    ),
    "ENV_STATUS": (
        128,
        {
            "pid": 0,
            "heartbeat_ns": 8,
            "phase_seen": 16,
            "epoch_ns": 24,
            "tick": 32,
            "first_frame_seq": 40,
            "first_log_seq": 48,
            "finished": 56,
            "delay_ticks": 64,
            "stride_ticks": 72,
            "num_up": 80,
            "reset_frame_seq": 88,
            "reset_seen": 96,
            "is_paused": 104,
            "intervention": 112,
        },
    ),
    "WORKER_CONTROL": (
        64,
        {
            "generation": 0,
            "up": 8,
            "restarts": 16,
            "gone_generation": 24,
        },
    ),
    "WORKER_STATUS": (
        128,
        {
            "pid": 0,
            "generation": 8,
            "ready": 16,
            "heartbeat_ns": 24,
            "busy_since_ns": 32,
            "inferences": 40,
            "lapped_frames": 48,
            "policy_version": 56,
            "torn_weights": 64,
            "learning_since_ns": 72,
            "checked_frames": 80,
            "frames_outside": 88,
            "policy_errors": 96,
            "asleep": 104,
        },
    ),
    "JOB": (
        64,
        {
            "obs_tick": 0,
            "due_tick": 8,
            "hold": 16,
            "frame_seq": 24,
            "booked_ns": 32,
            "phase_seq": 40,
            "generation": 48,
            "job_seq": 56,
        },
    ),
    "POSTED_JOBS": (64, {"posted": 0}),
    "SLOT_CONTROL": (
        64,
        {
            "entry_seq": 0,
        },
    ),
    "SLOT_ENTRY": (
        192,
        {
            "entry_seq": 0,
            "job_seq": 8,
            "obs_tick": 16,
            "due_tick": 24,
            "episode": 32,
            "frame_seq": 40,
            "generation": 48,
            "policy_version": 56,
            "frame_publish_ns": 64,
            "start_ns": 72,
            "read_ns": 80,
            "infer_end_ns": 88,
            "write_ns": 96,
            "h2d_ns": 104,
            "compute_ns": 112,
            "d2h_ns": 120,
            "cpu_ns": 128,
            "clipped": 136,
            "policy_checksum": 144,
            "explored": 152,
            "abstained": 160,
        },
    ),
    "FRAME_HEADER": (
        256,
        {
            "frame_seq": 0,
            "tick": 8,
            "episode": 16,
            "deadline_ns": 24,
            "start_ns": 32,
            "publish_ns": 40,
            "step_ns": 48,
            "kind": 56,
            "source": 64,
            "reward": 72,
            "terminated": 80,
            "truncated": 88,
            "episode_return": 96,
            "episode_ticks": 104,
            "worker": 112,
            "obs_tick": 120,
            "due_tick": 128,
            "chunk_index": 136,
            "outcome": 144,
            "policy_version": 152,
            "write_ns": 160,
            "skipped_ticks": 168,
            "dispatch_ns": 176,
            "phase_seq": 184,
            "policy_checksum": 192,
            "booked_jobs": 200,
            "task_version": 208,
            "intervention": 216,
            "state_tick": 224,
            "features_tick": 232,
            "features_worker": 240,
        },
    ),
    "LOG_RECORD": (
        192,
        {
            "log_seq": 0,
            "worker": 8,
            "obs_tick": 16,
            "booked_tick": 24,
            "due_tick": 32,
            "hold": 40,
            "episode": 48,
            "outcome": 56,
            "tick": 64,
            "booked_ns": 72,
            "start_ns": 80,
            "read_ns": 88,
            "infer_end_ns": 96,
            "write_ns": 104,
            "cpu_ns": 112,
            "phase_seq": 120,
            "taken_tick": 128,
            "taken_seq": 136,
        },
    ),
    "DESCRIPTION_HEAD": (
        64,
        {
            "num_bytes": 0,
        },
    ),
    "TRACE_EVENT": (
        64,
        {
            "kind": 0,
            "start_ns": 8,
            "end_ns": 16,
            "tick": 24,
            "worker": 32,
            "booked_tick": 40,
            "frame_seq": 48,
            "value": 56,
        },
    ),
    "PARAM_SIZES": (
        64,
        {
            "num_buffers": 0,
            "manifest_bytes": 8,
            "buffer_bytes": 16,
            "trainable_bytes": 24,
            "num_holders": 32,
        },
    ),
    "PAYLOAD_SIZES": (
        64,
        {
            "manifest_bytes": 0,
            "context_bytes": 8,
            "payload_bytes": 16,
            "kept_bytes": 24,
            "task_bytes": 32,
        },
    ),
    "PARAM_NEWEST": (
        64,
        {
            "newest": 0,
        },
    ),
    "PARAM_COUNTS": (
        64,
        {
            "publisher_pid": 0,
            "published_ns": 8,
            "waits": 16,
            "skipped": 24,
        },
    ),
    "PARAM_BUFFER": (
        64,
        {
            "version": 0,
            "checksum": 8,
            "updates": 16,
        },
    ),
    "PARAM_CLAIM": (
        64,
        {
            "using": 0,
        },
    ),
    "LEARNER_SIZES": (
        64,
        {
            "num_learners": 0,
            "trainable_bytes": 8,
            "first_updates": 16,
        },
    ),
    "MASTER_COMMIT": (
        64,
        {
            "commit": 0,
        },
    ),
    "LEARNER_PACE": (
        64,
        {
            "next_start_ns": 0,
            "update_ns": 8,
        },
    ),
    "LEARNER_CONTROL": (
        64,
        {
            "generation": 0,
            "restarts": 8,
            "paused": 16,
        },
    ),
    "LEARNER_STATUS": (
        192,
        {
            "pid": 0,
            "generation": 8,
            "heartbeat_ns": 16,
            "state": 24,
            "updates": 32,
            "publications": 40,
            "publish_skipped": 48,
            "transitions": 56,
            "lapped_samples": 64,
            "yields": 72,
            "yielded_ns": 80,
            "loss": 88,
            "td_error": 96,
            "q_mean": 104,
            "grad_norm": 112,
            "version_diff": 120,
            "version_diff_sum": 128,
            "version_diff_min": 136,
            "version_diff_max": 144,
            "policy_lag": 152,
            "stopped_at": 160,
            "stopped_by": 168,
            "learning_ns": 176,
        },
    ),
    "ENV_COUNTERS": (
        448,
        {
            "ticks": 0,
            "acted": 8,
            "missed": 16,
            "idle": 24,
            "lead_in": 32,
            "reset": 40,
            "on_time": 48,
            "late": 56,
            "superseded": 64,
            "stale_episode": 72,
            "dropped_dead_worker": 80,
            "dropped_late": 88,
            "unfinished": 96,
            "overruns": 104,
            "skipped_ticks": 112,
            "skipped_starts": 120,
            "replans": 128,
            "jobs": 136,
            "episodes": 144,
            "clipped_actions": 152,
            "explored_actions": 160,
            "first_start_ns": 168,
            "last_start_ns": 176,
            "unknown_entries": 184,
            "waited_ticks": 192,
            "reset_overruns": 200,
            "stretched_ticks": 208,
            "stretched_ns": 216,
            "altered_actions": 224,
            "garbage_collections": 232,
            "garbage_forced": 240,
            "garbage_ns": 248,
            "abstained": 256,
            "features_used": 264,
            "head_actions": 272,
            "broken_invariants": 280,
            "broken_kinds": 288,
            "first_broken": 296,
            "first_broken_tick": 304,
            "starved_ticks": 312,
            "starvations": 320,
            "human_ticks": 328,
            "shield_ticks": 336,
            "limited_actions": 344,
            "lost_requests": 352,
            "take_overs": 360,
            "lost_cycles": 368,
            "cycles": 376,
            "cycle_ps": 384,
        },
    ),
}
FLOATS = {
    "FRAME_HEADER": {"reward", "episode_return"},
    "LEARNER_STATUS": {"loss", "td_error", "q_mean", "grad_norm", "policy_lag"},
}

#: The segments of one run of these sizes, in bytes from the start of their segment.
SIZES = Layout(
    max_workers=3,
    ring_slots=4,
    log_slots=8,
    frame_bytes=23040,
    action_bytes=12,
    chunk=2,
    description_bytes=1000,
    trace_slots=16,
)
SEGMENTS = {
    "run_control_at": 128,
    "env_status_at": 256,
    "env_counters_at": 384,
    "control_bytes": 555584,
    "slots_bytes": 2432,
    "ring_control_at": 128,
    "header_stride_bytes": 320,
    "headers_at": 256,
    "frame_stride_bytes": 23040,
    "frames_at": 1536,
    "ring_bytes": 93696,
    "log_records_at": 256,
    "log_bytes": 1792,
    "description_segment_bytes": 2432,
    "trace_bytes": 5888,
}
HISTOGRAMS = {
    "lateness_ns": 832,
    "step_ns": 37760,
    "publish_ns": 74688,
    "write_to_dispatch_ns": 111616,
    "observation_age_ns": 148544,
    "interval_ticks": 185472,
    "delay_ticks": 222400,
    "reset_ns": 259328,
    "phase_error_ns": 296256,
}
#: Per worker: control, status, job, the two histograms.
WORKERS = [
    (333184, 333248, 333376, 333440, 370368),
    (407296, 407360, 407488, 407552, 444480),
    (481408, 481472, 481600, 481664, 518592),
]
#: Per worker: publication word, even entry, odd entry.
SLOTS = [(128, 192, 448), (704, 768, 1024), (1280, 1344, 1600)]

# -- pinned ------------------------------------------------------------------------------------------------------


def test_the_layout_version_and_the_magic_are_pinned():
    assert layout.LAYOUT_VERSION == 10
    assert struct.pack("<Q", layout.MAGIC) == b"RTCORE\x00\x01"
    assert (layout.WORD_BYTES, layout.CACHE_LINE_BYTES) == (8, 64)


@pytest.mark.parametrize("name", RECORDS)
def test_every_field_of_every_record_is_where_it_always_was(name):
    record = getattr(layout, name)
    num_bytes, offsets = RECORDS[name]
    assert record.num_bytes == record.dtype.itemsize == num_bytes
    assert {field: record.dtype.fields[field][1] for field in record.fields} == offsets
    assert {field: 8 * index for field, index in record.index.items()} == offsets
    for field in record.fields:
        assert record.dtype[field] == ("<f8" if field in FLOATS.get(name, ()) else "<i8")


def test_no_record_is_left_out_here():
    assert set(RECORDS) == {name for name, value in vars(layout).items() if isinstance(value, layout.Record)}


def test_the_ring_control_words_are_where_they_always_were():
    dtype = layout.RING_CONTROL
    assert {name: dtype.fields[name] for name in dtype.names} == {
        "begun": (dtype["begun"], 0),
        "done": (dtype["done"], 64),
    }
    assert dtype.itemsize == 128
    assert (layout.RING_BEGUN, layout.RING_DONE) == (0, 8)


def test_the_histograms_have_the_size_they_always_had():
    assert (layout.HISTOGRAM_HEAD_WORDS, layout.HISTOGRAM_BUCKETS, layout.HISTOGRAM_BYTES) == (8, 4608, 36928)
    assert list(HISTOGRAMS) == list(ENV_HISTOGRAMS)
    assert WORKER_HISTOGRAMS == ("inference_ns", "publish_to_read_ns")


@pytest.mark.parametrize("name", SEGMENTS)
def test_every_part_of_a_segment_is_where_it_always_was(name):
    assert getattr(SIZES, name) == SEGMENTS[name]


def test_the_blocks_of_env_workers_and_slots_are_where_they_always_were():
    assert {name: SIZES.env_histogram_at(name) for name in ENV_HISTOGRAMS} == HISTOGRAMS
    for worker in range(3):
        got = (
            SIZES.worker_control_at(worker),
            SIZES.worker_status_at(worker),
            SIZES.job_at(worker),
            *(SIZES.worker_histogram_at(worker, name) for name in WORKER_HISTOGRAMS),
        )
        assert got == WORKERS[worker]
        slots = SIZES.slot_control_at(worker), SIZES.slot_entry_at(worker, 0), SIZES.slot_entry_at(worker, 1)
        assert slots == SLOTS[worker]
    assert (SIZES.num_groups, SIZES.posted_at(0)) == (1, 555520)


def test_every_32_workers_have_a_word_for_their_jobs():
    assert [replace(SIZES, max_workers=workers).num_groups for workers in (1, 32, 33, 64, 65)] == [1, 1, 2, 2, 3]
    two = replace(SIZES, max_workers=33)
    assert (two.posted_at(1) - two.posted_at(0), two.control_bytes - two.posted_at(1)) == (64, 64)


def test_the_two_texts_about_a_run_alternate():
    assert [SIZES.description_at(seq) for seq in range(3)] == [256, 1344, 256]


def test_every_process_has_a_trace_of_its_own():
    assert [SIZES.trace_control_at(process) for process in range(5)] == [128, 1280, 2432, 3584, 4736]
    assert SIZES.trace_events_at(0) == 256
    assert (layout.TRACE_ENV, layout.TRACE_SUPERVISOR, layout.TRACE_FIRST_WORKER) == (0, 1, 2)


def test_two_entries_of_a_worker_alternate():
    for seq in range(4):
        assert SIZES.slot_entry_at(1, seq) == SLOTS[1][1 + seq % 2]


def test_a_record_is_filled_by_keyword_and_is_then_what_its_class_is():
    header = layout.FRAME_HEADER.new(frame_seq=3, tick=7, reward=0.5)
    assert header == FrameHeader(frame_seq=3, tick=7, reward=0.5)
    assert isinstance(header, FrameHeader)
    assert layout.FRAME_HEADER.struct.unpack(layout.FRAME_HEADER.struct.pack(*header)) == header
    with pytest.raises(TypeError, match="positional"):
        layout.FRAME_HEADER.new(7)
    with pytest.raises(TypeError, match="unexpected keyword argument 'tock'"):
        layout.FRAME_HEADER.new(frame_seq=3, tock=7)
    with pytest.raises(TypeError, match="missing .* 'generation'"):
        layout.WORKER_CONTROL.new(up=1, restarts=0, gone_generation=0)


@pytest.mark.parametrize("name", RECORDS)
def test_every_record_says_who_writes_it_and_what_each_field_means(name):
    record = getattr(layout, name)
    assert record.writer
    assert record.kind.__doc__
    assert all(record.docs[field] for field in record.fields)
    assert {record.unit(field) for field in record.fields if field.endswith("_ns")} <= {"ns"}


def test_a_field_without_a_text_is_no_word_of_shared_memory():
    class Place(NamedTuple):
        x: Annotated[int, "to the right"]
        name: str = ""

    assert layout.Record(Place, writer="nobody").fields == ("x",)


def test_the_parts_of_a_parameter_store_are_where_they_always_were():
    store = ParamLayout(max_workers=3, manifest_bytes=5000, buffer_bytes=4160, trainable_bytes=4096)
    assert (store.sizes_at, store.newest_at, store.counts_at) == (128, 192, 256)
    assert [store.head_at(buffer) for buffer in range(3)] == [320, 384, 448]
    assert [store.claim_at(worker) for worker in range(3)] == [512, 576, 640]
    assert store.manifest_at == 704
    assert [store.buffer_at(buffer) for buffer in range(3)] == [8192, 16384, 24576]
    assert store.num_bytes == 32768
    held = ParamLayout(3, 5000, 4160, 4096, num_holders=2)
    assert [held.claim_at(3 + holder) for holder in range(2)] == [704, 768]
    assert held.manifest_at == 832
    heads = ParamLayout.heads_only(max_workers=3)
    assert (heads.claim_at(0), heads.manifest_at, heads.num_bytes) == (512, 704, 4096)
    assert (layout.PARAM_BUFFER_BITS, layout.PAGE_BYTES) == (3, 4096)


def test_the_parts_of_the_payload_segment_are_where_they_always_were():
    parts = {"manifest_bytes": 500, "context_bytes": 80, "payload_bytes": 8, "kept_bytes": 72}
    payload = PayloadLayout(3, 4, **parts, task_bytes=0)
    assert (payload.sizes_at, payload.manifest_at) == (128, 192)
    assert [payload.context_at(worker) for worker in range(3)] == [704, 832, 960]
    assert [payload.payload_at(worker, seq) for worker in range(3) for seq in (4, 5)] == list(range(1088, 1472, 64))
    assert (payload.kept_at, payload.kept_stride_bytes, payload.num_bytes) == (1472, 128, 1984)
    payload = PayloadLayout(3, 4, **parts, task_bytes=72)
    assert (payload.task_control_at, payload.task_at(0), payload.task_at(3), payload.num_bytes) == (
        1984,
        2112,
        2240,
        2368,
    )


def test_the_parts_of_the_learners_segment_are_where_they_always_were():
    master = MasterLayout(num_learners=2, trainable_bytes=4160)
    assert (master.sizes_at, master.commit_at, master.pace_at) == (128, 192, 256)
    assert [master.control_at(learner) for learner in range(2)] == [320, 576]
    assert [master.status_at(learner) for learner in range(2)] == [384, 640]
    assert [master.array_at(array) for array in (0, 1, 7)] == [4096, 12288, 61440]
    assert master.num_bytes == 69632
