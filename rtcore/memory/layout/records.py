"""The records of a run: control, slots, ring, log, about, trace, and what is counted."""

from __future__ import annotations

import numpy as np

from rtcore.memory.layout.record import CACHE_LINE_BYTES, WORD_BYTES, Record

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
        "learning_since_ns": "when it began the update it is at, in the sequential modes; 0: it is at none",
        "checked_frames": "frames it has looked at: whether they lie in the observation space",
        "frames_outside": "of these, those that do not",
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
        "booked_jobs": "jobs that were booked at this tick",
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
        "taken_tick": "tick for which its answer, or its worker's loss, was taken in; -1: neither came",
        "taken_seq": "how many answers and losses of the phase had been taken in before it; -1: neither came",
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
        "overruns": "ticks that ended later than the next one was due, those of a reset apart",
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
        "reset_overruns": "ticks of a reset that ended later than the next one was due",
        "stretched_ticks": "ticks that were put off because the one before them took too long (`overrun` = stretch)",
        "stretched_ns": "by how much, in all",
        "altered_actions": "steps in which the world wrote to the action it was given: it acted on other numbers",
        "garbage_collections": "of this process, between two ticks",
        "garbage_forced": "of these: did not fit into the time before the next tick",
        "garbage_ns": "what all of them took",
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
