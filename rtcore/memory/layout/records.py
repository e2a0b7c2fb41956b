"""The records of a run: control, slots, ring, log, description, trace, and what is counted."""

from __future__ import annotations

from typing import Annotated, NamedTuple

import numpy as np

from rtcore.memory.layout.record_type import CACHE_LINE_BYTES, WORD_BYTES, Record
from rtcore.scheduling.jobs import Answer, Job, JobRow


class SegmentHeader(NamedTuple):
    """Start of every segment."""

    magic: Annotated[int, "the first eight bytes of every segment; anything else is not rtcore's"]
    layout_version: Annotated[int, "of this description; another one is another description"]
    size_bytes: Annotated[int, "size of the segment, which is that of its file"]
    owner_pid: Annotated[int, "process that made the segment: the user's program"]
    owner_start_ticks: Annotated[
        int, "field 22 of that process's /proc/PID/stat: tells it from a later one of the same pid"
    ]
    max_workers: Annotated[int, "worker places, from 0"]
    ring_slots: Annotated[int, "frames the ring keeps"]
    log_slots: Annotated[int, "records the job log keeps"]
    frame_bytes: Annotated[int, "size of one frame, C order"]
    action_bytes: Annotated[int, "size of one action"]
    chunk: Annotated[int, "actions in one answer"]
    description_bytes: Annotated[int, "room for each of the two texts"]
    trace_slots: Annotated[int, "events each process's trace keeps; 0: there is no trace segment"]
    owner_pid_namespace: Annotated[int, "inode of /proc/OWNER/ns/pid: where `owner_pid` means something; 0 if unknown"]


SEGMENT_HEADER = Record(SegmentHeader, writer="supervisor (once, before anybody else attaches)")


class RunControl(NamedTuple):
    """Commands of the supervisor."""

    phase: Annotated[int, "the newest order's `Phase`: enough to see whether the run is to stop"]
    phase_seq: Annotated[
        int, "the newest order: grows with each, its low 3 bits are its `Phase`; written after all it says"
    ]
    membership_seq: Annotated[int, "grows by one whenever a worker comes or goes"]
    num_workers: Annotated[int, "workers the schedule starts with"]
    delay_ticks: Annotated[int, "planned ticks from a frame to its action"]
    tau_mean_ns: Annotated[int, "planned mean time from booking to answer"]
    reset_seq: Annotated[
        int, "resets asked for by a program that steps the world itself; seed and options come by message"
    ]
    has_payload: Annotated[int, "1: there is a `payload` segment; written before the first order"]
    pauses: Annotated[int, "how many want the world to stand still; it does from the next tick on while there are any"]
    operator_seq: Annotated[int, "who may step in: what another one has written into the operator's slot is void"]


RUN_CONTROL = Record(RunControl, writer="supervisor")


class EnvStatus(NamedTuple):
    """Where the env process is."""

    pid: Annotated[int, "of the env process"]
    heartbeat_ns: Annotated[int, "when it last showed life"]
    phase_seen: Annotated[int, "`phase_seq` of the last order that it has carried out"]
    epoch_ns: Annotated[int, "when tick 0 was due"]
    tick: Annotated[int, "the tick it is in"]
    first_frame_seq: Annotated[int, "number of the phase's first frame"]
    first_log_seq: Annotated[int, "number of the phase's first log record"]
    finished: Annotated[int, "1 once the run is over and all of it is written"]
    delay_ticks: Annotated[int, "ticks from a frame to its action, as scheduled now"]
    stride_ticks: Annotated[int, "ticks from one start of a worker to the next, as scheduled now"]
    num_up: Annotated[int, "workers in the rotation"]
    reset_frame_seq: Annotated[int, "number of the first frame of the newest episode that was asked for"]
    reset_seen: Annotated[
        int, "`reset_seq` of the newest reset that was asked for and done; written after `reset_frame_seq`"
    ]
    is_paused: Annotated[int, "1: the world stands still, as somebody wants it to"]
    intervention: Annotated[int, "number of the take-over that is under way, from 1; 0: nobody has stepped in"]


ENV_STATUS = Record(EnvStatus, writer="env process")


class WorkerControl(NamedTuple):
    """What the supervisor wants of a worker, and how often it had to start it again."""

    generation: Annotated[int, "grows by one each time a process is started in this place"]
    up: Annotated[int, "1: to be given jobs"]
    restarts: Annotated[int, "processes started again after a death or a hang"]
    gone_generation: Annotated[
        int, "newest generation whose process is known to have ended: its claim on weights is void"
    ]


WORKER_CONTROL = Record(WorkerControl, writer="supervisor")


class WorkerStatus(NamedTuple):
    """Where a worker is."""

    pid: Annotated[int, "of the worker"]
    generation: Annotated[int, "the `generation` this process was started as"]
    ready: Annotated[int, "the generation that is warm and takes jobs"]
    heartbeat_ns: Annotated[int, "when it last showed life"]
    busy_since_ns: Annotated[int, "when it began its present job; 0: idle"]
    inferences: Annotated[int, "answers of this phase"]
    lapped_frames: Annotated[int, "frames that were overwritten before it had read them"]
    policy_version: Annotated[int, "of the weights it used last; 0: none"]
    torn_weights: Annotated[int, "inferences whose weights were written meanwhile; must stay 0"]
    learning_since_ns: Annotated[int, "when it began its present update, in the sequential modes; 0: none"]
    checked_frames: Annotated[int, "frames it has looked at: whether they lie in the observation space"]
    frames_outside: Annotated[int, "of these, those that do not"]
    policy_errors: Annotated[int, "inferences that raised, where that gives no action instead of ending the run"]
    asleep: Annotated[int, "1: it sleeps or is about to, and the env process wakes it; 0: awake"]


WORKER_STATUS = Record(WorkerStatus, writer="the worker")


JOB = Record(Job, writer="env process")
#: As many as a futex has bits.
WORKERS_PER_GROUP = 32


class PostedJobs(NamedTuple):
    """What the idle workers of a group sleep on: its low half is a futex, on which each has a bit of its own."""

    posted: Annotated[int, "grows by one whenever jobs were posted to workers of the group; written after the jobs"]


POSTED_JOBS = Record(PostedJobs, writer="env process")


class SlotControl(NamedTuple):
    """Newest complete entry of a worker; written after the entry."""

    entry_seq: Annotated[int, "number of the newest whole entry, from 1; 0: none yet"]


SLOT_CONTROL = Record(SlotControl, writer="the worker")


SLOT_ENTRY = Record(Answer, writer="the worker", name="slot entry")

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


class FrameHeader(NamedTuple):
    """What happened at a tick; the applied action's bytes follow."""

    frame_seq: Annotated[int, "number of the frame; it is in slot `frame_seq % ring_slots`"]
    tick: Annotated[int, "tick that made it; ticks may have been skipped, frames never are"] = 0
    episode: Annotated[int, "from 0"] = 0
    deadline_ns: Annotated[int, "when the tick was due"] = 0
    start_ns: Annotated[int, "when it began: `start_ns - deadline_ns` is its lateness"] = 0
    publish_ns: Annotated[int, "when publishing this frame began"] = 0
    step_ns: Annotated[int, "the world's step (or reset)"] = 0
    kind: Annotated[int, "what governed the tick: a `TickKind`"] = 0
    source: Annotated[int, "who chose the action: a `Source`"] = 0
    reward: Annotated[float, "of this tick's step"] = 0.0
    terminated: Annotated[int, "1: the episode ended by its own rules"] = 0
    truncated: Annotated[int, "1: the episode was cut off"] = 0
    episode_return: Annotated[float, "sum of the episode's rewards up to here"] = 0.0
    episode_ticks: Annotated[int, "ticks of the episode up to here"] = 0
    worker: Annotated[int, "whose action was applied; -1: nobody's"] = -1
    obs_tick: Annotated[
        int, "tick of the frame that action was chosen from: `tick - obs_tick` is its delay; -1: no action"
    ] = -1
    due_tick: Annotated[int, "tick that action was for; -1: no action"] = -1
    chunk_index: Annotated[int, "which action of its answer; -1: no action"] = -1
    outcome: Annotated[int, "of its job: an `Outcome`; -1: no action"] = -1
    policy_version: Annotated[int, "of the weights it came from; -1: no action"] = -1
    write_ns: Annotated[int, "when its answer was written; 0: no action"] = 0
    skipped_ticks: Annotated[int, "ticks that were passed over just before this one"] = 0
    dispatch_ns: Annotated[int, "when it was decided what to apply"] = 0
    phase_seq: Annotated[int, "order the tick belongs to: those of a rehearsal are not those of the run"] = 0
    policy_checksum: Annotated[int, "CRC-32 of those weights; 0: no action, or a policy without weights"] = 0
    booked_jobs: Annotated[int, "jobs that were booked at this tick"] = 0
    task_version: Annotated[int, "of the task that world and booked jobs had; 0: the run has none"] = 0
    intervention: Annotated[
        int, "number of the take-over it belongs to, from 1: a person has the controls, or gives them back; 0: none"
    ] = 0
    state_tick: Annotated[
        int, "tick of the frame that the state which that action was chosen with had seen last; -1: none, or the first"
    ] = -1
    features_tick: Annotated[
        int, "tick of the frame that the features came from which it was chosen with; -1: none"
    ] = -1
    features_worker: Annotated[int, "whose features these were; -1: nobody's"] = -1


FRAME_HEADER = Record(FrameHeader, writer="env process")


LOG_RECORD = Record(JobRow, writer="env process", name="log record")


class DescriptionHead(NamedTuple):
    """Head of a text; `num_bytes` of JSON follow."""

    num_bytes: Annotated[int, "length of the JSON that follows"]


DESCRIPTION_HEAD = Record(DescriptionHead, writer="supervisor")


class TraceEvent(NamedTuple):
    """Something that took a process from `start_ns` to `end_ns` (see trace.TraceKind)."""

    kind: Annotated[int, "what took the time: a `TraceKind`"]
    start_ns: Annotated[int, "from here"]
    end_ns: Annotated[int, "to here; the same for a moment"]
    tick: Annotated[int, "tick it belongs to; -1: none"]
    worker: Annotated[int, "worker it is about; -1: none"]
    booked_tick: Annotated[int, "tick at which that worker's job was booked; -1: none"]
    frame_seq: Annotated[int, "number of the frame it is about; -1: none"]
    value: Annotated[int, "see `TraceKind`; else 0"]


TRACE_EVENT = Record(TraceEvent, writer="the process the event is about")
#: Whose ring is which: the env process, the supervisor, then the workers.
TRACE_ENV = 0
TRACE_SUPERVISOR = 1
TRACE_FIRST_WORKER = 2

#: A histogram: count, sum, sum of squares, smallest, largest, then buckets (see counters.Histogram).
HISTOGRAM_SUB_BITS = 7
HISTOGRAM_MAX_BITS = 42
HISTOGRAM_BUCKETS = (HISTOGRAM_MAX_BITS - HISTOGRAM_SUB_BITS + 1) << HISTOGRAM_SUB_BITS
HISTOGRAM_HEAD_WORDS = 8
HISTOGRAM_BYTES = WORD_BYTES * (HISTOGRAM_HEAD_WORDS + HISTOGRAM_BUCKETS)


class EnvCounters(NamedTuple):
    """What the env process counted of the phase."""

    ticks: Annotated[int, "ticks that ran, of all kinds"]
    acted: Annotated[int, "ticks at which a policy's action was applied"]
    missed: Annotated[int, "ticks at which one was due and was not there"]
    idle: Annotated[int, "ticks at which none was due"]
    lead_in: Annotated[int, "ticks at which none of the episode could be due yet"]
    reset: Annotated[int, "ticks at which the world was reset"]
    on_time: Annotated[int, "jobs whose action was first applied at its due tick"]
    late: Annotated[int, "jobs whose action was first applied after its due tick"]
    superseded: Annotated[int, "jobs in whose place a newer one's action was applied"]
    stale_episode: Annotated[int, "jobs whose episode was over before their action was applied"]
    dropped_dead_worker: Annotated[int, "jobs whose worker was gone"]
    dropped_late: Annotated[int, 'jobs that were late, and dropped because `on_late` is "drop"']
    unfinished: Annotated[int, "jobs that were under way when the run ended"]
    overruns: Annotated[int, "ticks that ended later than the next one was due, those of a reset apart"]
    skipped_ticks: Annotated[int, "passed over because the tick before them took too long"]
    skipped_starts: Annotated[int, "starts for which no worker was idle"]
    replans: Annotated[int, "changes of delay or stride during the phase"]
    jobs: Annotated[int, "jobs that ended, of all outcomes"]
    episodes: Annotated[int, "that ended"]
    clipped_actions: Annotated[int, "actions that were cut to the action space"]
    explored_actions: Annotated[int, "actions that were drawn at random, to explore"]
    first_start_ns: Annotated[int, "when the first tick began"]
    last_start_ns: Annotated[int, "when the newest tick began"]
    unknown_entries: Annotated[int, "answers that belonged to no job"]
    waited_ticks: Annotated[
        int, "not run because an episode was over and the program that steps the world had not reset it"
    ]
    reset_overruns: Annotated[int, "ticks of a reset that ended later than the next one was due"]
    stretched_ticks: Annotated[
        int, "ticks that were put off because the one before them took too long (`overrun` = stretch)"
    ]
    stretched_ns: Annotated[int, "by how much, in all"]
    altered_actions: Annotated[
        int, "steps in which the world wrote to the action it was given: it acted on other numbers"
    ]
    garbage_collections: Annotated[int, "of this process, between two ticks"]
    garbage_forced: Annotated[int, "of these: did not fit into the time before the next tick"]
    garbage_ns: Annotated[int, "what all of them took"]
    abstained: Annotated[int, "jobs whose policy gave no action this time"]
    features_used: Annotated[int, "jobs whose own action was never applied, but whose features the head used"]
    head_actions: Annotated[int, "ticks at which the head's action was applied, not the base action of a worker"]
    broken_invariants: Annotated[int, "how often something did not hold that must hold at every tick; must stay 0"]
    broken_kinds: Annotated[int, "which of them: bit n stands for `Invariant` n"]
    first_broken: Annotated[int, "the first: an `Invariant`; 0: none"]
    first_broken_tick: Annotated[int, "tick at which that was found"]
    starved_ticks: Annotated[int, "ticks at which the safe action acted, as no fresh one had come for too long"]
    starvations: Annotated[int, "how often that began"]
    human_ticks: Annotated[int, "ticks at which a person's action was applied"]
    shield_ticks: Annotated[int, "ticks at which the world's shield, or a limit, changed the action asked for"]
    limited_actions: Annotated[int, "actions that a limit cut"]
    lost_requests: Annotated[
        int, "actions asked for that were not kept: a world that had not said so reports what it applied instead"
    ]
    take_overs: Annotated[int, "how often a person took the controls"]
    lost_cycles: Annotated[int, "of the skipped ticks: those for which the world's device gave no cycle"]
    cycles: Annotated[int, "of the world's device, each of which gave a tick; 0: the world has no clock"]
    cycle_ps: Annotated[int, "how long such a cycle takes [ps]: the slope of all time stamps up to now"]


ENV_COUNTERS = Record(EnvCounters, writer="env process")
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
    "phase_error_ns": "every cycle of the world's clock: how far its stamp lies from where the grid expected it",
}
ENV_HISTOGRAMS = tuple(ENV_HISTOGRAM_DOCS)
WORKER_HISTOGRAM_DOCS = {
    "inference_ns": "every inference, padding included",
    "publish_to_read_ns": "every inference: from publishing its frame to having a copy",
}
WORKER_HISTOGRAMS = tuple(WORKER_HISTOGRAM_DOCS)
