"""All shared memory of one run, attached and typed: who writes what is said in `rtcore/memory/layout/`."""

from __future__ import annotations

import json
from enum import IntEnum
from functools import partial

from rtcore.memory.counters import Histogram, Words
from rtcore.memory.description import DescriptionBuffer
from rtcore.memory.layout import (
    ENV_COUNTERS,
    ENV_HISTOGRAMS,
    ENV_STATUS,
    RUN_CONTROL,
    TRACE_FIRST_WORKER,
    WORKER_CONTROL,
    WORKER_HISTOGRAMS,
    WORKER_STATUS,
    Layout,
)
from rtcore.memory.payload import PayloadMemory, Tasks, attach_payload, create_payload
from rtcore.memory.ring import FrameRing, JobLog, SequenceRing
from rtcore.memory.segments import Segment, SegmentPart, attach_segment, create_segment, layout_of, parts_of
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.memory.trace import TraceRing
from rtcore.memory.waiting import WakeWords
from rtcore.spaces import ActionSpec, ObservationSpec, PolicyNeeds


class Phase(IntEnum):
    """What the supervisor wants of the env process. Each order has a number of its own, see `next_order`."""

    IDLE = 0  #: no ticks; finish what is under way
    REHEARSE = 1  #: tick, book and publish, but leave the world on its first frame
    RUN = 2  #: the run
    STOP = 3  #: end now


#: Of a `phase_seq`, the lowest bits are the phase that it orders.
_PHASE_BITS = 3


def next_order(phase_seq: int, phase: Phase) -> int:
    """The `phase_seq` after this one, for `phase`: number and phase in one word, so that neither is read without the
    other. Two words would need their reader to know which of them was written when."""
    return ((phase_seq >> _PHASE_BITS) + 1) << _PHASE_BITS | phase


def phase_of(phase_seq: int) -> Phase:
    """What an order asks for."""
    return Phase(phase_seq & ((1 << _PHASE_BITS) - 1))


class SharedRun:
    """Typed views of a run's segments. The supervisor creates it, everybody else attaches.

    `payload`: of the segment that the run gets if its policy takes or gives more than frame and action; None: not yet.
    """

    def __init__(
        self,
        run_id: str,
        segments: dict[SegmentPart, Segment],
        layout: Layout,
        observation: ObservationSpec,
        *,
        readonly: bool = False,
    ) -> None:
        self._run_id, self._readonly = run_id, readonly
        self._segments = segments
        self.layout = layout
        control = segments["control"].buf
        self.run_control = Words(RUN_CONTROL, control, layout.run_control_at)
        self.env_status = Words(ENV_STATUS, control, layout.env_status_at)
        self.env_counters = Words(ENV_COUNTERS, control, layout.env_counters_at)
        self.env_histograms = {name: Histogram(control, layout.env_histogram_at(name)) for name in ENV_HISTOGRAMS}
        workers = range(layout.max_workers)
        self.worker_control = [Words(WORKER_CONTROL, control, layout.worker_control_at(w)) for w in workers]
        self.worker_status = [Words(WORKER_STATUS, control, layout.worker_status_at(w)) for w in workers]
        self.jobs = JobSlots(control, layout)
        self.slots = ActionSlots(segments["slots"].buf, layout)
        self.ring = FrameRing(segments["ring"].buf, layout, observation.shape, observation.dtype, observation.parts)
        self.log = JobLog(segments["log"].buf, layout)
        self.description = DescriptionBuffer(segments["description"].buf, layout)
        self._control_buffer = control
        self.payload: PayloadMemory | None = None
        if self.run_control["has_payload"]:
            self.attach_payload()

    def attach_payload(self) -> None:
        """From now on jobs, answers and frames carry what the policy takes and gives. Once the segment has been made.

        Raises:
            LayoutMismatchError: There is none.
        """
        if self.payload is None:
            self._segments["payload"], self.payload = attach_payload(self._run_id, self.layout, readonly=self._readonly)
            self.payload.join(self.jobs, self.slots, self.ring)

    def make_payload(self, needs: PolicyNeeds, action: ActionSpec) -> None:
        """Supervisor, before the first order: make that segment, for a policy that needs it.

        Args:
            needs: What the policy takes and gives.
            action: Of the world.

        Raises:
            PolicyError: A block is too large to be copied within a tick.
            SharedMemoryError: There is no room.
        """
        create_payload(self._run_id, self.layout, needs, action)
        self.attach_payload()
        self.run_control["has_payload"] = 1

    @property
    def tasks(self) -> Tasks | None:
        """Tasks on their way to the env process; None: the run has none."""
        return self.payload.tasks if self.payload is not None else None

    def wake_words(self) -> WakeWords:
        """What workers sleep on, for who wakes them and for them. Not of memory that was attached read-only."""
        return WakeWords(self._control_buffer, self._segments["ring"].buf, self.layout)

    def worker_histogram(self, worker: int, name: str) -> Histogram:
        """A worker's histogram, as a view of shared memory.

        Args:
            worker: Its index.
            name: One of `WORKER_HISTOGRAMS`.

        Returns:
            A view, valid until `close`.
        """
        return Histogram(self._control_buffer, self.layout.worker_histogram_at(worker, name))

    def worker_histograms(self, worker: int) -> dict[str, Histogram]:
        """All histograms of one worker, by name: views, valid until `close`."""
        return {name: self.worker_histogram(worker, name) for name in WORKER_HISTOGRAMS}

    def trace_ring(self, process: int) -> TraceRing | None:
        """The events of one process.

        Args:
            process: `layout.TRACE_ENV`, `TRACE_SUPERVISOR` or `TRACE_FIRST_WORKER` + the worker's index.

        Returns:
            A view, valid until `close`; None if the run is not traced.
        """
        segment = self._segments.get("trace")
        return TraceRing(segment.buf, self.layout, process) if segment is not None else None

    def trace_rings(self) -> list[TraceRing]:
        """Of every process, in that order; empty if the run is not traced."""
        rings = map(self.trace_ring, range(TRACE_FIRST_WORKER + self.layout.max_workers))
        return [ring for ring in rings if ring is not None]

    @classmethod
    def create(cls, run_id: str, layout: Layout, observation: ObservationSpec) -> SharedRun:
        """Create and format every segment. The caller unlinks, whatever happens.

        Args:
            run_id: Part of every segment's name.
            layout: Sizes of everything.
            observation: What a frame is.

        Returns:
            Views of the new segments.

        Raises:
            SharedMemoryError: There is no room.
        """
        segments = {
            part: create_segment(run_id, part, layout, partial(_empty, part, layout)) for part in parts_of(layout)
        }
        return cls(run_id, segments, layout, observation)

    @classmethod
    def attach(cls, run_id: str, layout: Layout, observation: ObservationSpec, *, readonly: bool = False) -> SharedRun:
        """Map the segments of a run, to read and write.

        Args:
            run_id: Part of every segment's name.
            layout: What the segments must have.
            observation: What a frame is.
            readonly: Only to read.

        Returns:
            Views of the segments, valid until `close`.

        Raises:
            LayoutMismatchError: They are not what is expected.
        """
        segments = {part: attach_segment(run_id, part, layout, readonly=readonly) for part in parts_of(layout)}
        return cls(run_id, segments, layout, observation, readonly=readonly)

    @classmethod
    def watch(cls, run_id: str) -> SharedRun:
        """Map the segments of any run read-only, as an onlooker: nothing of the run can be changed or delayed.

        Args:
            run_id: Part of every segment's name, as `rtcore-top` lists it.

        Returns:
            Views of the segments, valid until `close`.

        Raises:
            LayoutMismatchError: There is no such run, or another version of rtcore has started it.
        """
        control = attach_segment(run_id, "control", readonly=True)
        layout = layout_of(control)
        segments: dict[SegmentPart, Segment] = {"control": control}
        for part in parts_of(layout):
            if part != "control":
                segments[part] = attach_segment(run_id, part, layout, readonly=True)
        observation = ObservationSpec((layout.frame_bytes,), "uint8", (0,), (255,))
        description = DescriptionBuffer(segments["description"].buf, layout).read()
        if description is not None:
            observation = ObservationSpec.from_json(json.loads(description)["world"]["observation"])
        return cls(run_id, segments, layout, observation, readonly=True)

    def close(self) -> None:
        """Unmap the segments. No view of them may be used afterwards."""
        for segment in self._segments.values():
            segment.close()


def _empty(part: SegmentPart, layout: Layout, buffer: memoryview) -> None:
    """The rings of a new segment hold nothing yet."""
    if part in ("ring", "log", "description"):
        SequenceRing.over(buffer, layout.ring_control_at, layout.ring_slots).format()
    elif part == "trace":
        for process in range(TRACE_FIRST_WORKER + layout.max_workers):
            TraceRing(buffer, layout, process).format()
