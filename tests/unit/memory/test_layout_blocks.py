"""What must hold of a run's segments whatever its sizes: aligned, apart, and one writing process per cache line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.memory import layout
from rtcore.memory.layout import ENV_HISTOGRAMS, WORKER_HISTOGRAMS, Layout
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

sizes = st.builds(
    Layout,
    max_workers=st.integers(1, 40),
    ring_slots=st.integers(2, 100),
    log_slots=st.integers(2, 100),
    frame_bytes=st.integers(1, 100_000),
    action_bytes=st.integers(1, 500),
    chunk=st.integers(1, 8),
    description_bytes=st.integers(1, 5000),
    trace_slots=st.integers(0, 40),
)


def blocks_of(sizes):
    """Per segment: (first byte, bytes, writing process) of every block."""
    control = [
        (0, layout.SEGMENT_HEADER.num_bytes, "supervisor"),
        (sizes.run_control_at, layout.RUN_CONTROL.num_bytes, "supervisor"),
        (sizes.env_status_at, layout.ENV_STATUS.num_bytes, "env"),
        (sizes.env_counters_at, layout.ENV_COUNTERS.num_bytes, "env"),
        *((sizes.env_histogram_at(name), layout.HISTOGRAM_BYTES, "env") for name in ENV_HISTOGRAMS),
    ]
    slots = [(0, layout.SEGMENT_HEADER.num_bytes, "supervisor")]
    entry_bytes = layout.SLOT_ENTRY.num_bytes + sizes.chunk * sizes.action_bytes
    for worker in range(sizes.max_workers):
        name = f"worker {worker}"
        control += [
            (sizes.worker_control_at(worker), layout.WORKER_CONTROL.num_bytes, "supervisor"),
            (sizes.worker_status_at(worker), layout.WORKER_STATUS.num_bytes, name),
            (sizes.job_at(worker), layout.JOB.num_bytes, "env"),
            *((sizes.worker_histogram_at(worker, h), layout.HISTOGRAM_BYTES, name) for h in WORKER_HISTOGRAMS),
        ]
        slots += [
            (sizes.slot_control_at(worker), layout.SLOT_CONTROL.num_bytes, name),
            *((sizes.slot_entry_at(worker, parity), entry_bytes, name) for parity in (0, 1)),
        ]
    header_bytes = layout.FRAME_HEADER.num_bytes + sizes.action_bytes
    ring = [
        (0, layout.SEGMENT_HEADER.num_bytes, "supervisor"),
        (sizes.ring_control_at, layout.RING_CONTROL.itemsize, "env"),
        *(
            (sizes.headers_at + slot * sizes.header_stride_bytes, header_bytes, "env")
            for slot in range(sizes.ring_slots)
        ),
        *(
            (sizes.frames_at + slot * sizes.frame_stride_bytes, sizes.frame_bytes, "env")
            for slot in range(sizes.ring_slots)
        ),
    ]
    log = [
        (0, layout.SEGMENT_HEADER.num_bytes, "supervisor"),
        (sizes.ring_control_at, layout.RING_CONTROL.itemsize, "env"),
        *(
            (sizes.log_records_at + slot * layout.LOG_RECORD.num_bytes, layout.LOG_RECORD.num_bytes, "env")
            for slot in range(sizes.log_slots)
        ),
    ]
    description = [
        (0, layout.SEGMENT_HEADER.num_bytes, "supervisor"),
        (sizes.ring_control_at, layout.RING_CONTROL.itemsize, "supervisor"),
        *(
            (sizes.description_at(seq), layout.DESCRIPTION_HEAD.num_bytes + sizes.description_bytes, "supervisor")
            for seq in (0, 1)
        ),
    ]
    trace = [(0, layout.SEGMENT_HEADER.num_bytes, "supervisor")]
    for process in range(layout.TRACE_FIRST_WORKER + sizes.max_workers):
        events_bytes = sizes.trace_slots * layout.TRACE_EVENT.num_bytes
        trace += [(sizes.trace_control_at(process), layout.RING_CONTROL.itemsize, f"process {process}")]
        trace += [(sizes.trace_events_at(process), events_bytes, f"process {process}")] if events_bytes else []
    return [
        (description, sizes.description_segment_bytes),
        (trace, sizes.trace_bytes),
        (control, sizes.control_bytes),
        (slots, sizes.slots_bytes),
        (ring, sizes.ring_bytes),
        (log, sizes.log_bytes),
    ]


@examples(60)
@given(sizes)
def test_blocks_do_not_overlap_and_fit_their_segment(sizes):
    for blocks, segment_bytes in blocks_of(sizes):
        ordered = sorted(blocks)
        for (first, num_bytes, _), (following, _, _) in zip(ordered, ordered[1:], strict=False):
            assert first + num_bytes <= following
        last, num_bytes, _ = ordered[-1]
        assert last + num_bytes <= segment_bytes


@examples(60)
@given(sizes)
def test_every_block_starts_on_a_cache_line_so_that_none_has_two_writing_processes(sizes):
    for blocks, _ in blocks_of(sizes):
        writers = {}
        for first, num_bytes, writer in blocks:
            assert first % 64 == 0
            for line in (first // 64, (first + num_bytes - 1) // 64):
                assert writers.setdefault(line, writer) == writer


@examples(20)
@given(sizes)
def test_a_layout_goes_through_json_unchanged(sizes):
    assert Layout.from_json(sizes.to_json()) == sizes
