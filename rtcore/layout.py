"""Every shared struct, with explicit offsets. Nothing else knows an offset.

Five POSIX shared-memory segments per run, `/rtcore-<run id>-<part>`, little endian, x86-64, and a sixth if it is
traced:

    control  header | run control | env status | env stats | per worker: control, status, job, stats
    slots    per worker: publication word | two entries, each a SLOT_ENTRY and `chunk` actions
    ring     RING_CONTROL | frame headers (FRAME_HEADER + applied action) | frames
    log      RING_CONTROL | LOG_RECORDs: one per resolved job
    about    RING_CONTROL | two texts (ABOUT_TEXT and JSON): what the run consists of, for who attaches to it
    trace    per process (env, supervisor, workers): RING_CONTROL | TRACE_EVENTs

and one POSIX semaphore per worker, `/rtcore-<run id>-w<index>`, as a wake-up counter only.
Each field has one writer, each cache line one writing process. Fields are 8 bytes wide and 8-byte aligned, so
that every load and store is atomic. A test pins every offset; changing one bumps `LAYOUT_VERSION`.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CACHE_LINE_BYTES = 64
WORD_BYTES = 8
#: First eight bytes of every segment.
MAGIC = int.from_bytes(b"RTCORE\x00\x01", "little")
LAYOUT_VERSION = 2


def _round_up(num_bytes: int, multiple: int = CACHE_LINE_BYTES) -> int:
    return -(-num_bytes // multiple) * multiple


class Record:
    """Named 8-byte fields in the order given: `i8` unless the name is listed in `floats`.

    `index[name]` is the field's word (8 bytes) within the record, `struct` packs all fields at once, `dtype` is
    the NumPy description (documentation, bulk reads). `num_bytes` is a multiple of the cache line.
    """

    def __init__(self, name: str, fields: tuple[str, ...], floats: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.fields = fields
        self.index = {field: position for position, field in enumerate(fields)}
        self.struct = struct.Struct("<" + "".join("d" if field in floats else "q" for field in fields))
        self.num_bytes = _round_up(WORD_BYTES * len(fields))
        self.dtype = np.dtype(
            {
                "names": list(fields),
                "formats": ["<f8" if field in floats else "<i8" for field in fields],
                "offsets": [WORD_BYTES * position for position in range(len(fields))],
                "itemsize": self.num_bytes,
            }
        )


#: Start of every segment. Written once by the supervisor, before anybody else attaches.
SEGMENT_HEADER = Record(
    "segment header",
    (
        "magic",
        "layout_version",
        "size_bytes",
        "owner_pid",
        "owner_start_ticks",
        "max_workers",
        "ring_slots",
        "log_slots",
        "frame_bytes",
        "action_bytes",
        "chunk",
        "about_bytes",
        "trace_slots",
        "owner_pid_namespace",
    ),
)

#: Commands of the supervisor. Written by the supervisor only.
RUN_CONTROL = Record(
    "run control",
    (
        "phase",
        "phase_seq",
        "membership_seq",
        "num_workers",
        "delay_ticks",
        "tau_mean_ns",
        "guard_ns",
        "num_ticks",
    ),
)

#: Where the env process is. Written by the env process only.
ENV_STATUS = Record(
    "env status",
    (
        "pid",
        "heartbeat_ns",
        "phase_seen",
        "epoch_ns",
        "tick",
        "first_frame_seq",
        "first_log_seq",
        "episode",
        "finished",
        "delay_ticks",
        "stride_ticks",
        "spin_ns",
        "num_up",
    ),
)

#: What the supervisor wants of a worker, and how often it had to start it again. Written by the supervisor only.
WORKER_CONTROL = Record("worker control", ("generation", "up", "restarts"))

#: Where a worker is. Written by that worker only.
WORKER_STATUS = Record(
    "worker status",
    (
        "pid",
        "generation",
        "ready",
        "heartbeat_ns",
        "busy_since_ns",
        "inferences",
        "lapped_frames",
        "policy_version",
    ),
)

#: A booking. Written by the env process only, `job_seq` last; the worker it is for is idle then.
JOB = Record(
    "job",
    ("job_seq", "obs_tick", "due_tick", "frame_seq", "hold", "booked_ns", "phase_seq", "generation"),
)

#: Newest complete entry of a worker. Written by that worker only, after the entry.
SLOT_CONTROL = Record("slot control", ("entry_seq",))

#: One answer; `chunk * action_bytes` of actions follow. Written by its worker only.
SLOT_ENTRY = Record(
    "slot entry",
    (
        "entry_seq",
        "job_seq",
        "obs_tick",
        "due_tick",
        "episode",
        "frame_seq",
        "generation",
        "policy_version",
        "frame_publish_ns",
        "start_ns",
        "read_ns",
        "infer_end_ns",
        "write_ns",
        "h2d_ns",
        "compute_ns",
        "d2h_ns",
        "cpu_ns",
        "clipped",
    ),
)

#: Sequence numbers of a ring: on cache lines of their own. Numbers start at 0 and never wrap; -1 is none yet.
RING_CONTROL = np.dtype(
    {
        "names": ["begun", "done"],
        "formats": ["<i8", "<i8"],
        "offsets": [0, CACHE_LINE_BYTES],
        "itemsize": 2 * CACHE_LINE_BYTES,
    }
)
RING_BEGUN = 0
RING_DONE = CACHE_LINE_BYTES // WORD_BYTES

#: What happened at a tick; the applied action's bytes follow. Written by the env process only.
FRAME_HEADER = Record(
    "frame header",
    (
        "frame_seq",
        "tick",
        "episode",
        "deadline_ns",
        "start_ns",
        "publish_ns",
        "step_ns",
        "kind",
        "source",
        "reward",
        "terminated",
        "truncated",
        "episode_return",
        "episode_ticks",
        "worker",
        "obs_tick",
        "due_tick",
        "chunk_index",
        "outcome",
        "policy_version",
        "write_ns",
        "skipped_ticks",
        "dispatch_ns",
        "phase_seq",
    ),
    frozenset({"reward", "episode_return"}),
)

#: How a job ended. Written by the env process only.
LOG_RECORD = Record(
    "log record",
    (
        "log_seq",
        "worker",
        "obs_tick",
        "booked_tick",
        "due_tick",
        "hold",
        "episode",
        "outcome",
        "tick",
        "booked_ns",
        "start_ns",
        "read_ns",
        "infer_end_ns",
        "write_ns",
        "cpu_ns",
        "phase_seq",
    ),
)

#: Head of a text; `num_bytes` of JSON follow. Written by the supervisor only.
ABOUT_TEXT = Record("about text", ("num_bytes",))

#: Something that took a process from `start_ns` to `end_ns` (see trace.TraceKind). Written by that process only.
TRACE_EVENT = Record(
    "trace event",
    ("kind", "start_ns", "end_ns", "tick", "worker", "booked_tick", "frame_seq", "value"),
)
#: Whose ring is which: the env process, the supervisor, then the workers.
TRACE_ENV = 0
TRACE_SUPERVISOR = 1
TRACE_FIRST_WORKER = 2

#: A histogram: count, sum, sum of squares, smallest, largest, then buckets (see stats.Histogram).
HISTOGRAM_SUB_BITS = 7
HISTOGRAM_MAX_BITS = 42
HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
HISTOGRAM_HEAD_WORDS = 8
HISTOGRAM_BYTES = WORD_BYTES * (HISTOGRAM_HEAD_WORDS + HISTOGRAM_BUCKETS)

ENV_COUNTERS = Record(
    "env counters",
    (
        "ticks",
        "acted",
        "missed",
        "idle",
        "lead_in",
        "reset",
        "on_time",
        "late",
        "superseded",
        "stale_episode",
        "dropped_dead_worker",
        "dropped_late",
        "unfinished",
        "overruns",
        "skipped_ticks",
        "skipped_starts",
        "replans",
        "jobs",
        "episodes",
        "clipped_actions",
        "first_start_ns",
        "last_start_ns",
        "unknown_entries",
    ),
)
ENV_HISTOGRAMS = (
    "lateness_ns",
    "step_ns",
    "publish_ns",
    "write_to_dispatch_ns",
    "observation_age_ns",
    "interval_ticks",
    "delay_ticks",
    "reset_ns",
)
WORKER_HISTOGRAMS = ("inference_ns", "publish_to_read_ns")

_WORKER_CONTROL_AT = 0
_WORKER_STATUS_AT = _WORKER_CONTROL_AT + WORKER_CONTROL.num_bytes
_WORKER_JOB_AT = _WORKER_STATUS_AT + WORKER_STATUS.num_bytes
_WORKER_STATS_AT = _WORKER_JOB_AT + JOB.num_bytes
_WORKER_BLOCK_BYTES = _round_up(_WORKER_STATS_AT + len(WORKER_HISTOGRAMS) * HISTOGRAM_BYTES)


@dataclass(frozen=True)
class Layout:
    """The sizes of one run, from which every offset follows. Also stored in each segment's header."""

    max_workers: int
    ring_slots: int
    log_slots: int
    frame_bytes: int
    action_bytes: int
    chunk: int
    about_bytes: int = 65536  #: room for each of the two texts
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
        return _round_up(first) + worker * _WORKER_BLOCK_BYTES

    def worker_control_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_CONTROL_AT

    def worker_status_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_STATUS_AT

    def job_at(self, worker: int) -> int:
        return self._worker_at(worker) + _WORKER_JOB_AT

    def worker_histogram_at(self, worker: int, name: str) -> int:
        return self._worker_at(worker) + _WORKER_STATS_AT + WORKER_HISTOGRAMS.index(name) * HISTOGRAM_BYTES

    @property
    def control_bytes(self) -> int:
        return self._worker_at(self.max_workers)

    # -- slots ---------------------------------------------------------------------------------------------

    @property
    def _entry_bytes(self) -> int:
        return _round_up(SLOT_ENTRY.num_bytes + self.chunk * self.action_bytes)

    def slot_control_at(self, worker: int) -> int:
        return SEGMENT_HEADER.num_bytes + worker * (SLOT_CONTROL.num_bytes + 2 * self._entry_bytes)

    def slot_entry_at(self, worker: int, entry_seq: int) -> int:
        return self.slot_control_at(worker) + SLOT_CONTROL.num_bytes + (entry_seq & 1) * self._entry_bytes

    @property
    def slots_bytes(self) -> int:
        return self.slot_control_at(self.max_workers)

    # -- rings ---------------------------------------------------------------------------------------------

    @property
    def ring_control_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def header_stride_bytes(self) -> int:
        return _round_up(FRAME_HEADER.num_bytes + self.action_bytes)

    @property
    def headers_at(self) -> int:
        return self.ring_control_at + RING_CONTROL.itemsize

    @property
    def frame_stride_bytes(self) -> int:
        return _round_up(self.frame_bytes)

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

    # -- about and trace -----------------------------------------------------------------------------------

    def about_text_at(self, seq: int) -> int:
        return SEGMENT_HEADER.num_bytes + RING_CONTROL.itemsize + (seq & 1) * self._about_stride_bytes

    @property
    def _about_stride_bytes(self) -> int:
        return _round_up(ABOUT_TEXT.num_bytes + self.about_bytes)

    @property
    def about_segment_bytes(self) -> int:
        return self.about_text_at(1) + self._about_stride_bytes

    def trace_control_at(self, process: int) -> int:
        """`process`: TRACE_ENV, TRACE_SUPERVISOR or TRACE_FIRST_WORKER + worker."""
        stride = RING_CONTROL.itemsize + self.trace_slots * TRACE_EVENT.num_bytes
        return SEGMENT_HEADER.num_bytes + process * stride

    def trace_events_at(self, process: int) -> int:
        return self.trace_control_at(process) + RING_CONTROL.itemsize

    @property
    def trace_bytes(self) -> int:
        return self.trace_control_at(TRACE_FIRST_WORKER + self.max_workers)
