"""The parameter store as a segment of a run: who makes it, and who attaches to it."""

from __future__ import annotations

import os

from rtcore.memory.counters import Words
from rtcore.memory.layout import PARAM_SIZES, SEGMENT_HEADER, WORKER_CONTROL, Layout, ParamLayout
from rtcore.memory.segments import attach_segment, create_segment, segment_path
from rtcore.memory.segments import layout_of as shm_layout
from rtcore.memory.weights import PARAMS, ParamStore


def create_store(run_id: str, layout: Layout, sizes: dict[str, int], part: str = PARAMS) -> None:
    """Supervisor: make the segment of a parameter store. `sizes`: fields of `ParamLayout`, from worker 0.

    `part`: a run has one, and one more per weight holder, whose buffers are not in it.
    Memory is reserved for one buffer; the others take theirs at the first publications. SharedMemoryError if there is
    no room.
    """
    params = ParamLayout(max_workers=layout.max_workers, **sizes)

    def prepare(memory: memoryview) -> None:
        words = Words(PARAM_SIZES, memory, params.sizes_at)
        for field, size in params.sizes.items():
            words[field] = size

    create_segment(
        run_id, part, layout, prepare, num_bytes=params.num_bytes, reserved_bytes=params.buffer_at(1)
    ).close()


def attach_store(run_id: str, part: str = PARAMS, *, readonly: bool = False) -> ParamStore:
    """Anybody in a run, or an onlooker (`readonly`): its parameter store.

    `part`: see `create_store`. Into a weight holder's store that holder alone publishes: it needs no lock.
    LayoutMismatchError if the run has none, or is another rtcore's.
    """
    control = attach_segment(run_id, "control", readonly=readonly)
    layout = shm_layout(control)
    segment = attach_segment(run_id, part, populate=False, readonly=readonly)
    sizes = Words(PARAM_SIZES, segment.buf, SEGMENT_HEADER.num_bytes).to_dict()
    gone = [Words(WORKER_CONTROL, control.buf, layout.worker_control_at(w)) for w in range(layout.max_workers)]
    is_locked = part == PARAMS and not readonly
    fd = os.open(segment_path(run_id, part), os.O_RDWR | os.O_CLOEXEC) if is_locked else None
    return ParamStore(
        segment.buf,
        ParamLayout(max_workers=layout.max_workers, **sizes),
        fd=fd,
        gone=lambda worker: gone[worker]["gone_generation"],
        keep=(control, segment),
    )
