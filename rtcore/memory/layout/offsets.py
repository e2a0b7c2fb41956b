"""Where the records of a run lie in its segments."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rtcore.memory.layout.record_type import round_up
from rtcore.memory.layout.records import (
    DESCRIPTION_HEAD,
    ENV_COUNTERS,
    ENV_HISTOGRAMS,
    ENV_STATUS,
    FRAME_HEADER,
    HISTOGRAM_BYTES,
    JOB,
    LOG_RECORD,
    POSTED_JOBS,
    RING_CONTROL,
    RUN_CONTROL,
    SEGMENT_HEADER,
    SLOT_CONTROL,
    SLOT_ENTRY,
    TRACE_EVENT,
    TRACE_FIRST_WORKER,
    WORKER_CONTROL,
    WORKER_HISTOGRAMS,
    WORKER_STATUS,
    WORKERS_PER_GROUP,
)

_WORKER_CONTROL_AT = 0
_WORKER_STATUS_AT = _WORKER_CONTROL_AT + WORKER_CONTROL.num_bytes
_WORKER_JOB_AT = _WORKER_STATUS_AT + WORKER_STATUS.num_bytes
_WORKER_STATS_AT = _WORKER_JOB_AT + JOB.num_bytes
_WORKER_BLOCK_BYTES = round_up(_WORKER_STATS_AT + len(WORKER_HISTOGRAMS) * HISTOGRAM_BYTES)


@dataclass(frozen=True)
class Layout:
    """The sizes of one run, from which every offset follows. Also stored in each segment's header."""

    max_workers: int
    ring_slots: int
    log_slots: int
    frame_bytes: int
    action_bytes: int
    chunk: int
    description_bytes: int = 65536  #: room for each of the two texts
    trace_slots: int = 0  #: events each process's trace keeps; 0: no trace

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Layout:
        return cls(**fields)

    # -- control -------------------------------------------------------------------------------------------

    @property
    def run_control_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def env_status_at(self) -> int:
        return self.run_control_at + RUN_CONTROL.num_bytes

    @property
    def env_counters_at(self) -> int:
        return self.env_status_at + ENV_STATUS.num_bytes

    def env_histogram_at(self, name: str) -> int:
        first = self.env_counters_at + ENV_COUNTERS.num_bytes
        return first + ENV_HISTOGRAMS.index(name) * HISTOGRAM_BYTES

    def _worker_at(self, worker: int) -> int:
        first = self.env_histogram_at(ENV_HISTOGRAMS[-1]) + HISTOGRAM_BYTES
        return round_up(first) + worker * _WORKER_BLOCK_BYTES

    def worker_control_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_CONTROL_AT

    def worker_status_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_STATUS_AT

    def job_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_JOB_AT

    def worker_histogram_at(self, worker: int, name: str) -> int:
        return self._worker_at(worker) + _WORKER_STATS_AT + WORKER_HISTOGRAMS.index(name) * HISTOGRAM_BYTES

    @property
    def num_groups(self) -> int:
        """Of workers that sleep on one word for their jobs."""
        return -(-self.max_workers // WORKERS_PER_GROUP)

    def posted_at(self, group: int) -> int:
        return self._worker_at(self.max_workers) + group * POSTED_JOBS.num_bytes

    @property
    def control_bytes(self) -> int:
        return self.posted_at(self.num_groups)

    # -- slots ---------------------------------------------------------------------------------------------

    @property
    def _entry_bytes(self) -> int:
        return round_up(SLOT_ENTRY.num_bytes + self.chunk * self.action_bytes)

    def slot_control_at(self, worker: int) -> int:
        return SEGMENT_HEADER.num_bytes + worker * (SLOT_CONTROL.num_bytes + 2 * self._entry_bytes)

    def slot_entry_at(self, worker: int, entry_seq: int) -> int:
        return self.slot_control_at(worker) + SLOT_CONTROL.num_bytes + (entry_seq & 1) * self._entry_bytes

    @property
    def operator_place(self) -> int:
        """Of who may step in, behind the workers': a slot as theirs."""
        return self.max_workers

    @property
    def slots_bytes(self) -> int:
        return self.slot_control_at(self.operator_place + 1)

    # -- rings ---------------------------------------------------------------------------------------------

    @property
    def ring_control_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def header_stride_bytes(self) -> int:
        return round_up(FRAME_HEADER.num_bytes + self.action_bytes)

    @property
    def headers_at(self) -> int:
        return self.ring_control_at + RING_CONTROL.itemsize

    @property
    def frame_stride_bytes(self) -> int:
        return round_up(self.frame_bytes)

    @property
    def frames_at(self) -> int:
        return self.headers_at + self.ring_slots * self.header_stride_bytes

    @property
    def ring_bytes(self) -> int:
        return self.frames_at + self.ring_slots * self.frame_stride_bytes

    @property
    def log_records_at(self) -> int:
        return SEGMENT_HEADER.num_bytes + RING_CONTROL.itemsize

    @property
    def log_bytes(self) -> int:
        return self.log_records_at + self.log_slots * LOG_RECORD.num_bytes

    # -- description and trace -----------------------------------------------------------------------------

    def description_at(self, seq: int) -> int:
        return SEGMENT_HEADER.num_bytes + RING_CONTROL.itemsize + (seq & 1) * self._description_stride_bytes

    @property
    def _description_stride_bytes(self) -> int:
        return round_up(DESCRIPTION_HEAD.num_bytes + self.description_bytes)

    @property
    def description_segment_bytes(self) -> int:
        return self.description_at(1) + self._description_stride_bytes

    def trace_control_at(self, process: int) -> int:
        """`process`: TRACE_ENV, TRACE_SUPERVISOR or TRACE_FIRST_WORKER + worker."""
        stride = RING_CONTROL.itemsize + self.trace_slots * TRACE_EVENT.num_bytes
        return SEGMENT_HEADER.num_bytes + process * stride

    def trace_events_at(self, process: int) -> int:
        return self.trace_control_at(process) + RING_CONTROL.itemsize

    @property
    def trace_bytes(self) -> int:
        return self.trace_control_at(TRACE_FIRST_WORKER + self.max_workers)
