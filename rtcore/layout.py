"""Every shared struct, with explicit offsets. Nothing else knows an offset.

Five POSIX shared-memory segments per run, `/rtcore-<run id>-<part>`, little endian, x86-64, one more if it is
traced, and one more if its policy has a network:

    control  header | run control | env status | env stats | per worker: control, status, job, stats
    slots    per worker: publication word | two entries, each a SLOT_ENTRY and `chunk` actions
    ring     RING_CONTROL | frame headers (FRAME_HEADER + applied action) | frames
    log      RING_CONTROL | LOG_RECORDs: one per resolved job
    about    RING_CONTROL | two texts (ABOUT_TEXT and JSON): what the run consists of, for who attaches to it
    trace    per process (env, supervisor, workers): RING_CONTROL | TRACE_EVENTs
    params   header | sizes | newest | counts | buffer heads | claims | manifest (JSON) | weight buffers

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
LAYOUT_VERSION = 3


def _round_up(num_bytes: int, multiple: int = CACHE_LINE_BYTES) -> int:
    return -(-num_bytes // multiple) * multiple


class Record:
    """Named 8-byte fields in the order given: `i8` unless the name is listed in `floats`.

    `writer` says which process writes it, `docs[name]` what a field means (docs/layout.md and the C header are made
    from both). `index[name]` is the field's word (8 bytes) within the record, `struct` packs all fields at once,
    `dtype` is the NumPy description (documentation, bulk reads). `num_bytes` is a multiple of the cache line.
    """

    def __init__(self, name: str, writer: str, docs: dict[str, str], floats: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.writer = writer
        self.docs = docs
        self.floats = floats
        self.fields = fields = tuple(docs)
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

    def struct_with(self, num_bytes: int) -> struct.Struct:
        """All fields and, behind them, so many bytes: packed at once."""
        padding = self.num_bytes - self.struct.size
        return struct.Struct(f"{self.struct.format}{padding}x{num_bytes}s")


#: Start of every segment. Written once by the supervisor, before anybody else attaches.
SEGMENT_HEADER = Record(
    "segment header",
    "supervisor (once, before anybody else attaches)",
    {
        "magic": "the first eight bytes of every segment; anything else is not rtcore's",
        "layout_version": "of this description; another one is another description",
        "size_bytes": "size of the segment, which is that of its file",
        "owner_pid": "process that made the segment: the user's program",
        "owner_start_ticks": "field 22 of that process's /proc/PID/stat: tells it from a later one of the same pid",
        "max_workers": "worker places, from 0",
        "ring_slots": "frames the ring keeps",
        "log_slots": "records the job log keeps",
        "frame_bytes": "size of one frame, C order",
        "action_bytes": "size of one action",
        "chunk": "actions in one answer",
        "about_bytes": "room for each of the two texts",
        "trace_slots": "events each process's trace keeps; 0: there is no trace segment",
        "owner_pid_namespace": "inode of /proc/OWNER/ns/pid: where `owner_pid` means something; 0 if unknown",
    },
)

#: Commands of the supervisor. Written by the supervisor only.
RUN_CONTROL = Record(
    "run control",
    "supervisor",
    {
        "phase": "the newest order's `Phase`, for who only asks whether the run is to stop",
        "phase_seq": "the newest order: grows with each, its low 3 bits are its `Phase`; written after all it says",
        "membership_seq": "grows by one whenever a worker comes or goes",
        "num_workers": "workers the schedule starts with",
        "delay_ticks": "planned ticks from a frame to its action",
        "tau_mean_ns": "planned mean time from booking to answer",
        "guard_ns": "slack added to that for the plan",
        "num_ticks": "ticks the run lasts",
        "reset_seq": "resets asked for by a program that steps the world itself; seed and options come by message",
    },
)

#: Where the env process is. Written by the env process only.
ENV_STATUS = Record(
    "env status",
    "env process",
    {
        "pid": "of the env process",
        "heartbeat_ns": "when it last showed life",
        "phase_seen": "`phase_seq` of the last order that it has carried out",
        "epoch_ns": "when tick 0 was due",
        "tick": "the tick it is in",
        "first_frame_seq": "number of the phase's first frame",
        "first_log_seq": "number of the phase's first log record",
        "episode": "kept for later; 0",
        "finished": "1 once the run is over and all of it is written",
        "delay_ticks": "ticks from a frame to its action, as scheduled now",
        "stride_ticks": "ticks from one start of a worker to the next, as scheduled now",
        "spin_ns": "kept for later; 0",
        "num_up": "workers in the rotation",
        "reset_frame_seq": "number of the first frame of the newest episode that was asked for",
        "reset_seen": "`reset_seq` of the newest reset that was asked for and done; written after `reset_frame_seq`",
    },
)

#: What the supervisor wants of a worker, and how often it had to start it again. Written by the supervisor only.
WORKER_CONTROL = Record(
    "worker control",
    "supervisor",
    {
        "generation": "grows by one each time a process is started in this place",
        "up": "1: to be given jobs",
        "restarts": "processes started again after a death or a hang",
        "gone_generation": "newest generation whose process is known to have ended: its claim on weights is void",
    },
)

#: Where a worker is. Written by that worker only.
WORKER_STATUS = Record(
    "worker status",
    "the worker",
    {
        "pid": "of the worker",
        "generation": "the `generation` this process was started as",
        "ready": "the generation that is warm and takes jobs",
        "heartbeat_ns": "when it last showed life",
        "busy_since_ns": "when it took up the job it is at; 0: idle",
        "inferences": "answers of this phase",
        "lapped_frames": "frames that were overwritten before it had read them",
        "policy_version": "of the weights it used last; 0: none",
        "torn_weights": "inferences whose weights were written meanwhile; must stay 0",
    },
)

#: A booking. Written by the env process only, `job_seq` last; the worker it is for is idle then.
JOB = Record(
    "job",
    "env process",
    {
        "job_seq": "number of the job, from 1; written last",
        "obs_tick": "tick it is booked at, whose frame it is to use",
        "due_tick": "tick its action is for",
        "frame_seq": "number of that frame",
        "hold": "1: wait for that frame and apply the action at its due tick; 0: the newest frame, applied when ready",
        "booked_ns": "when it was booked",
        "phase_seq": "order it belongs to",
        "generation": "of the worker it is for",
    },
)

#: Newest complete entry of a worker. Written by that worker only, after the entry.
SLOT_CONTROL = Record(
    "slot control",
    "the worker",
    {
        "entry_seq": "number of the newest whole entry, from 1; 0: none yet",
    },
)

#: One answer; `chunk * action_bytes` of actions follow. Written by its worker only.
SLOT_ENTRY = Record(
    "slot entry",
    "the worker",
    {
        "entry_seq": "number of the entry; it is in place `entry_seq % 2`",
        "job_seq": "job it answers",
        "obs_tick": "tick of the frame that was used",
        "due_tick": "tick the action is for",
        "episode": "episode of that frame",
        "frame_seq": "number of that frame",
        "generation": "of the worker",
        "policy_version": "of the weights that were used; 0: the policy has none",
        "frame_publish_ns": "when publishing that frame began",
        "start_ns": "when the worker took up the job",
        "read_ns": "when it had its copy of the frame",
        "infer_end_ns": "when the policy had answered",
        "write_ns": "when writing the entry began",
        "h2d_ns": "of the inference: copy to the device; 0 on a CPU",
        "compute_ns": "of the inference: on the device",
        "d2h_ns": "of the inference: copy back",
        "cpu_ns": "what the inference cost: GPU time on a GPU, else CPU time",
        "clipped": "actions of the chunk that were cut to the action space",
        "policy_checksum": "CRC-32 of those weights; 0: the policy has none",
        "explored": "actions of the chunk that were drawn at random, to explore",
    },
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
    "env process",
    {
        "frame_seq": "number of the frame; it is in slot `frame_seq % ring_slots`",
        "tick": "tick that made it; ticks may have been skipped, frames never are",
        "episode": "from 0",
        "deadline_ns": "when the tick was due",
        "start_ns": "when it began: `start_ns - deadline_ns` is its lateness",
        "publish_ns": "when publishing this frame began",
        "step_ns": "the world's step (or reset)",
        "kind": "what governed the tick: a `TickKind`",
        "source": "who chose the action: a `Source`",
        "reward": "of this tick's step",
        "terminated": "1: the episode ended by its own rules",
        "truncated": "1: the episode was cut off",
        "episode_return": "sum of the episode's rewards up to here",
        "episode_ticks": "ticks of the episode up to here",
        "worker": "whose action was applied; -1: nobody's",
        "obs_tick": "tick of the frame that action was chosen from: `tick - obs_tick` is its delay; -1: no action",
        "due_tick": "tick that action was for; -1: no action",
        "chunk_index": "which action of its answer; -1: no action",
        "outcome": "of its job: an `Outcome`; -1: no action",
        "policy_version": "of the weights it came from; -1: no action",
        "write_ns": "when its answer was written; 0: no action",
        "skipped_ticks": "ticks that were passed over just before this one",
        "dispatch_ns": "when it was decided what to apply",
        "phase_seq": "order the tick belongs to: those of a rehearsal are not those of the run",
        "policy_checksum": "CRC-32 of those weights; 0: no action, or a policy without weights",
    },
    frozenset({"reward", "episode_return"}),
)

#: How a job ended. Written by the env process only.
LOG_RECORD = Record(
    "log record",
    "env process",
    {
        "log_seq": "number of the record; it is in slot `log_seq % log_slots`",
        "worker": "whose job it was",
        "obs_tick": "tick of the frame that was used; -1: no answer came",
        "booked_tick": "tick it was booked at",
        "due_tick": "tick its action was for",
        "hold": "as in `job`",
        "episode": "episode of that frame; -1: no answer came",
        "outcome": "how it ended: an `Outcome`",
        "tick": "tick at which it ended",
        "booked_ns": "when it was booked; 0, as all times below: no answer came",
        "start_ns": "when the worker took it up",
        "read_ns": "when the worker had its copy of the frame",
        "infer_end_ns": "when the policy had answered",
        "write_ns": "when writing the answer began",
        "cpu_ns": "what the inference cost, as in `slot entry`",
        "phase_seq": "order the job belongs to",
    },
)

#: Head of a text; `num_bytes` of JSON follow. Written by the supervisor only.
ABOUT_TEXT = Record(
    "about text",
    "supervisor",
    {
        "num_bytes": "length of the JSON that follows",
    },
)

#: Something that took a process from `start_ns` to `end_ns` (see trace.TraceKind). Written by that process only.
TRACE_EVENT = Record(
    "trace event",
    "the process the event is about",
    {
        "kind": "what took the time: a `TraceKind`",
        "start_ns": "from here",
        "end_ns": "to here; the same for a moment",
        "tick": "tick it belongs to; -1: none",
        "worker": "worker it is about; -1: none",
        "booked_tick": "tick at which that worker's job was booked; -1: none",
        "frame_seq": "number of the frame it is about; -1: none",
        "value": "see `TraceKind`; else 0",
    },
)
#: Whose ring is which: the env process, the supervisor, then the workers.
TRACE_ENV = 0
TRACE_SUPERVISOR = 1
TRACE_FIRST_WORKER = 2

#: Sizes of the parameter store, from which its offsets follow. Written once by the supervisor.
PARAM_SIZES = Record(
    "parameter sizes",
    "supervisor (once, before anybody else attaches)",
    {
        "num_buffers": "copies of the weights there is room for",
        "manifest_bytes": "room for the manifest: JSON, padded with blanks, that says where each tensor is",
        "buffer_bytes": "size of one copy of the weights",
        "trainable_bytes": "of those, the first: all parameters that are trained, float32, no gap but padding",
    },
)
#: Which weights to use. Written by one publisher at a time (flock), after all of the buffer.
PARAM_NEWEST = Record(
    "parameter newest",
    "the publisher that holds the segment's flock",
    {
        "newest": "version * 8 + buffer of the newest weights; 0: none yet",
    },
)
#: What publishers met. Written by one publisher at a time (flock).
PARAM_COUNTS = Record(
    "parameter counts",
    "the publisher that holds the segment's flock",
    {
        "publisher_pid": "of the newest publication",
        "published_ns": "when it became visible",
        "waits": "publications that had to wait for a buffer that nobody uses",
        "skipped": "publications that were given up, because no buffer became free or another publisher was at it",
    },
)
#: What is in a buffer. Written by one publisher at a time (flock), and never while the buffer is newest or claimed.
PARAM_BUFFER = Record(
    "parameter buffer",
    "the publisher that holds the segment's flock",
    {
        "version": "of the weights in it, from 1; 0: none yet; -1: being written",
        "checksum": "CRC-32 of the buffer",
        "updates": "of the learners that led to these weights",
    },
)
#: Which buffer a worker computes with. Written by that worker only.
PARAM_CLAIM = Record(
    "parameter claim",
    "the worker",
    {
        "using": "generation * 8 + buffer + 1 while it computes with that buffer; 0: none",
    },
)
#: Sizes of the learners' segment, from which its offsets follow. Written once by the supervisor.
LEARNER_SIZES = Record(
    "learner sizes",
    "supervisor (once, before anybody else attaches)",
    {
        "num_learners": "learner places, from 0",
        "trainable_bytes": "size of one copy of what is trained: as in `parameter sizes`",
        "first_updates": "updates of the runs that this one goes on from; 0: it begins anew",
    },
)
#: Which copies of weights, optimizer and target are the present ones. Flipped last, by one learner at a time (flock).
MASTER_COMMIT = Record(
    "master commit",
    "the learner that holds the segment's flock",
    {
        "commit": "updates * 4 + target slot * 2 + slot: all three change at once",
    },
)
#: When learners are to begin. Written by one learner at a time (flock).
LEARNER_PACE = Record(
    "learner pace",
    "the learner that holds the segment's flock",
    {
        "next_start_ns": "earliest start of the next update: starts are kept a share of an update apart",
        "update_ns": "how long an update takes, on average",
    },
)
#: What the supervisor wants of a learner. Written by the supervisor only.
LEARNER_CONTROL = Record(
    "learner control",
    "supervisor",
    {
        "generation": "grows by one each time a process is started in this place; -1: end",
        "restarts": "processes started again after a death or a hang",
        "paused": "1: collect, but do not learn",
    },
)
#: Where a learner is and what it met. Written by that learner only.
LEARNER_STATUS = Record(
    "learner status",
    "the learner",
    {
        "pid": "of the learner",
        "generation": "the `generation` this process was started as",
        "heartbeat_ns": "when it last showed life",
        "state": "what it is at: a `LearnerState`",
        "updates": "it has made, restarts included",
        "publications": "of weights, by it",
        "publish_skipped": "publications that found no free buffer",
        "transitions": "it could sample from, when it last looked",
        "lapped_samples": "samples that were overwritten while they were read, and drawn again",
        "yields": "pauses because ticks were missed or late",
        "yielded_ns": "length of those pauses together",
        "loss": "of its newest update",
        "td_error": "mean absolute temporal-difference error of its newest update",
        "q_mean": "mean value of the actions taken, in its newest update",
        "grad_norm": "of its newest update, before clipping",
        "version_diff": "updates by others between reading weights and applying its gradient, newest update",
        "version_diff_sum": "the same, over all its updates",
        "version_diff_min": "the same, the smallest",
        "version_diff_max": "the same, the largest",
        "policy_lag": "versions between those that chose the sampled actions and the newest, mean, newest update",
        "stopped_at": "number of the update whose loss or gradient was not finite, plus 1; 0: none was",
        "stopped_by": "0: nothing; 1: the loss, 2: the gradient",
        "learning_ns": "CPU time of its updates together",
    },
    frozenset({"loss", "td_error", "q_mean", "grad_norm", "policy_lag"}),
)
#: Versions and buffers share a word: the buffer is in its lowest bits.
PARAM_BUFFER_BITS = 3
PAGE_BYTES = 4096

#: A histogram: count, sum, sum of squares, smallest, largest, then buckets (see stats.Histogram).
HISTOGRAM_SUB_BITS = 7
HISTOGRAM_MAX_BITS = 42
HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
HISTOGRAM_HEAD_WORDS = 8
HISTOGRAM_BYTES = WORD_BYTES * (HISTOGRAM_HEAD_WORDS + HISTOGRAM_BUCKETS)

ENV_COUNTERS = Record(
    "env counters",
    "env process",
    {
        "ticks": "that ran",
        "acted": "ticks by kind (`TickKind`), here and in the next four",
        "missed": "one was due and was not there",
        "idle": "none was due",
        "lead_in": "none could be due yet",
        "reset": "the world was reset",
        "on_time": "jobs by outcome (`Outcome`), here and in the next six",
        "late": "first applied after its due tick",
        "superseded": "a newer one was applied",
        "stale_episode": "its episode was over",
        "dropped_dead_worker": "its worker was gone",
        "dropped_late": 'late, and `on_late` is "drop"',
        "unfinished": "under way when the run ended",
        "overruns": "ticks that ended later than the next one was due",
        "skipped_ticks": "passed over because the tick before them took too long",
        "skipped_starts": "starts for which no worker was idle",
        "replans": "changes of delay or stride during the phase",
        "jobs": "that ended",
        "episodes": "that ended",
        "clipped_actions": "actions that were cut to the action space",
        "explored_actions": "actions that were drawn at random, to explore",
        "first_start_ns": "when the first tick began",
        "last_start_ns": "when the newest tick began",
        "unknown_entries": "answers that belonged to no job",
        "waited_ticks": "not run because an episode was over and the program that steps the world had not reset it",
    },
)
#: What each histogram holds, of the phase.
ENV_HISTOGRAM_DOCS = {
    "lateness_ns": "every tick: from its deadline to its start",
    "step_ns": "every tick that steps the world: its step",
    "publish_ns": "every tick: copying frame and header into the ring",
    "write_to_dispatch_ns": "every action at its first use: from its due tick, or its answer if later, to the decision",
    "observation_age_ns": "every acted tick: from publishing the frame that was used to the decision",
    "interval_ticks": "every acted tick: since the one before",
    "delay_ticks": "every acted tick: since the frame that was used",
    "reset_ns": "every reset of the world: from the decision to publishing",
}
ENV_HISTOGRAMS = tuple(ENV_HISTOGRAM_DOCS)
WORKER_HISTOGRAM_DOCS = {
    "inference_ns": "every inference, padding included",
    "publish_to_read_ns": "every inference: from publishing its frame to having a copy",
}
WORKER_HISTOGRAMS = tuple(WORKER_HISTOGRAM_DOCS)

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


@dataclass(frozen=True)
class ParamLayout:
    """The sizes of a parameter store, from which its offsets follow. In bytes from the segment's start."""

    max_workers: int
    manifest_bytes: int
    buffer_bytes: int
    trainable_bytes: int
    num_buffers: int = 3

    @property
    def sizes_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def newest_at(self) -> int:
        return self.sizes_at + PARAM_SIZES.num_bytes

    @property
    def counts_at(self) -> int:
        return self.newest_at + PARAM_NEWEST.num_bytes

    def head_at(self, buffer: int) -> int:
        return self.counts_at + PARAM_COUNTS.num_bytes + buffer * PARAM_BUFFER.num_bytes

    def claim_at(self, worker: int) -> int:
        return self.head_at(self.num_buffers) + worker * PARAM_CLAIM.num_bytes

    @property
    def manifest_at(self) -> int:
        return self.claim_at(self.max_workers)

    def buffer_at(self, buffer: int) -> int:
        """On a page of its own: a buffer that was never written takes no memory."""
        first = _round_up(self.manifest_at + self.manifest_bytes, PAGE_BYTES)
        return first + buffer * _round_up(self.buffer_bytes, PAGE_BYTES)

    @property
    def num_bytes(self) -> int:
        return self.buffer_at(self.num_buffers)


@dataclass(frozen=True)
class MasterLayout:
    """The sizes of the learners' segment, from which its offsets follow. In bytes from the segment's start."""

    num_learners: int
    trainable_bytes: int

    @property
    def sizes_at(self) -> int:
        return SEGMENT_HEADER.num_bytes

    @property
    def commit_at(self) -> int:
        return self.sizes_at + LEARNER_SIZES.num_bytes

    @property
    def pace_at(self) -> int:
        return self.commit_at + MASTER_COMMIT.num_bytes

    def control_at(self, learner: int) -> int:
        first = self.pace_at + LEARNER_PACE.num_bytes
        return first + learner * (LEARNER_CONTROL.num_bytes + LEARNER_STATUS.num_bytes)

    def status_at(self, learner: int) -> int:
        return self.control_at(learner) + LEARNER_CONTROL.num_bytes

    def array_at(self, array: int) -> int:
        """`array` 0 to 2: weights, exp_avg and exp_avg_sq of slot 0; 3 to 5: of slot 1; 6, 7: the targets."""
        first = _round_up(self.control_at(self.num_learners), PAGE_BYTES)
        return first + array * _round_up(self.trainable_bytes, PAGE_BYTES)

    @property
    def num_bytes(self) -> int:
        return self.array_at(8)
