/* Made from rtcore/memory/layout/ by `python -m tools.layoutdoc --write`. Do not edit: a test compares.
 *
 * The shared memory of a run of rtcore: little endian, every field 8 bytes. docs/layout.md says how to attach
 * and in which order to read. Times are nanoseconds of CLOCK_MONOTONIC.
 */
#ifndef RTCORE_LAYOUT_H
#define RTCORE_LAYOUT_H

#include <stdint.h>

#define RTCORE_MAGIC INT64_C(0x10045524f435452)
#define RTCORE_LAYOUT_VERSION 10
#define RTCORE_ENV_HISTOGRAMS 9
#define RTCORE_WORKER_HISTOGRAMS 2
#define RTCORE_HISTOGRAM_BUCKETS 4608
#define RTCORE_TRACE_ENV 0
#define RTCORE_TRACE_SUPERVISOR 1
#define RTCORE_TRACE_FIRST_WORKER 2

/* Writer: supervisor (once, before anybody else attaches). */
struct rtcore_segment_header {
    int64_t magic; /* the first eight bytes of every segment; anything else is not rtcore's */
    int64_t layout_version; /* of this description; another one is another description */
    int64_t size_bytes; /* size of the segment, which is that of its file */
    int64_t owner_pid; /* process that made the segment: the user's program */
    int64_t owner_start_ticks; /* field 22 of that process's /proc/PID/stat: tells it from a later one of the same pid */
    int64_t max_workers; /* worker places, from 0 */
    int64_t ring_slots; /* frames the ring keeps */
    int64_t log_slots; /* records the job log keeps */
    int64_t frame_bytes; /* size of one frame, C order */
    int64_t action_bytes; /* size of one action */
    int64_t chunk; /* actions in one answer */
    int64_t description_bytes; /* room for each of the two texts */
    int64_t trace_slots; /* events each process's trace keeps; 0: there is no trace segment */
    int64_t owner_pid_namespace; /* inode of /proc/OWNER/ns/pid: where `owner_pid` means something; 0 if unknown */
    int64_t unused[2];
};
_Static_assert(sizeof(struct rtcore_segment_header) == 128, "rtcore_segment_header");

/* Writer: supervisor. */
struct rtcore_run_control {
    int64_t phase; /* the newest order's `Phase`: enough to see whether the run is to stop */
    int64_t phase_seq; /* the newest order: grows with each, its low 3 bits are its `Phase`; written after all it says */
    int64_t membership_seq; /* grows by one whenever a worker comes or goes */
    int64_t num_workers; /* workers the schedule starts with */
    int64_t delay_ticks; /* planned ticks from a frame to its action */
    int64_t tau_mean_ns; /* planned mean time from booking to answer */
    int64_t reset_seq; /* resets asked for by a program that steps the world itself; seed and options come by message */
    int64_t has_payload; /* 1: there is a `payload` segment; written before the first order */
    int64_t pauses; /* how many want the world to stand still; it does from the next tick on while there are any */
    int64_t operator_seq; /* who may step in: what another one has written into the operator's slot is void */
    int64_t unused[6];
};
_Static_assert(sizeof(struct rtcore_run_control) == 128, "rtcore_run_control");

/* Writer: env process. */
struct rtcore_env_status {
    int64_t pid; /* of the env process */
    int64_t heartbeat_ns; /* when it last showed life */
    int64_t phase_seen; /* `phase_seq` of the last order that it has carried out */
    int64_t epoch_ns; /* when tick 0 was due */
    int64_t tick; /* the tick it is in */
    int64_t first_frame_seq; /* number of the phase's first frame */
    int64_t first_log_seq; /* number of the phase's first log record */
    int64_t finished; /* 1 once the run is over and all of it is written */
    int64_t delay_ticks; /* ticks from a frame to its action, as scheduled now */
    int64_t stride_ticks; /* ticks from one start of a worker to the next, as scheduled now */
    int64_t num_up; /* workers in the rotation */
    int64_t reset_frame_seq; /* number of the first frame of the newest episode that was asked for */
    int64_t reset_seen; /* `reset_seq` of the newest reset that was asked for and done; written after `reset_frame_seq` */
    int64_t is_paused; /* 1: the world stands still, as somebody wants it to */
    int64_t intervention; /* number of the take-over that is under way, from 1; 0: nobody has stepped in */
    int64_t unused[1];
};
_Static_assert(sizeof(struct rtcore_env_status) == 128, "rtcore_env_status");

/* Writer: supervisor. */
struct rtcore_worker_control {
    int64_t generation; /* grows by one each time a process is started in this place */
    int64_t up; /* 1: to be given jobs */
    int64_t restarts; /* processes started again after a death or a hang */
    int64_t gone_generation; /* newest generation whose process is known to have ended: its claim on weights is void */
    int64_t unused[4];
};
_Static_assert(sizeof(struct rtcore_worker_control) == 64, "rtcore_worker_control");

/* Writer: the worker. */
struct rtcore_worker_status {
    int64_t pid; /* of the worker */
    int64_t generation; /* the `generation` this process was started as */
    int64_t ready; /* the generation that is warm and takes jobs */
    int64_t heartbeat_ns; /* when it last showed life */
    int64_t busy_since_ns; /* when it began its present job; 0: idle */
    int64_t inferences; /* answers of this phase */
    int64_t lapped_frames; /* frames that were overwritten before it had read them */
    int64_t policy_version; /* of the weights it used last; 0: none */
    int64_t torn_weights; /* inferences whose weights were written meanwhile; must stay 0 */
    int64_t learning_since_ns; /* when it began its present update, in the sequential modes; 0: none */
    int64_t checked_frames; /* frames it has looked at: whether they lie in the observation space */
    int64_t frames_outside; /* of these, those that do not */
    int64_t policy_errors; /* inferences that raised, where that gives no action instead of ending the run */
    int64_t asleep; /* 1: it sleeps or is about to, and the env process wakes it; 0: awake */
    int64_t unused[2];
};
_Static_assert(sizeof(struct rtcore_worker_status) == 128, "rtcore_worker_status");

/* Writer: env process. */
struct rtcore_job {
    int64_t obs_tick; /* tick it is booked at, whose frame it is to use */
    int64_t due_tick; /* tick its action is for */
    int64_t hold; /* 1: wait for that frame and apply the action at its due tick; 0: the newest frame, applied when ready */
    int64_t frame_seq; /* number of that frame */
    int64_t booked_ns; /* when it was booked */
    int64_t phase_seq; /* order it belongs to */
    int64_t generation; /* of the worker it is for */
    int64_t job_seq; /* number of the worker's job, from 1; written last */
};
_Static_assert(sizeof(struct rtcore_job) == 64, "rtcore_job");

/* Writer: env process. */
struct rtcore_posted_jobs {
    int64_t posted; /* grows by one whenever jobs were posted to workers of the group; written after the jobs */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_posted_jobs) == 64, "rtcore_posted_jobs");

/* Writer: the worker. */
struct rtcore_slot_control {
    int64_t entry_seq; /* number of the newest whole entry, from 1; 0: none yet */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_slot_control) == 64, "rtcore_slot_control");

/* Writer: the worker. */
struct rtcore_slot_entry {
    int64_t entry_seq; /* number of the entry; it is in place `entry_seq % 2` */
    int64_t job_seq; /* job it answers */
    int64_t obs_tick; /* tick of the frame that was used: with `hold` always the booked one */
    int64_t due_tick; /* tick the action is for */
    int64_t episode; /* episode of that frame */
    int64_t frame_seq; /* number of that frame */
    int64_t generation; /* of the worker */
    int64_t policy_version; /* of the weights that were used; 0: the policy has none */
    int64_t frame_publish_ns; /* when publishing that frame began */
    int64_t start_ns; /* when the worker took up the job */
    int64_t read_ns; /* when it had its copy of the frame */
    int64_t infer_end_ns; /* when the policy had answered */
    int64_t write_ns; /* when writing the entry began */
    int64_t h2d_ns; /* of the inference: copy to the device; 0 on a CPU */
    int64_t compute_ns; /* of the inference: on the device */
    int64_t d2h_ns; /* of the inference: copy back */
    int64_t cpu_ns; /* what the inference cost: GPU time on a GPU, else CPU time */
    int64_t clipped; /* actions of the chunk that were cut to the action space */
    int64_t policy_checksum; /* CRC-32 of those weights; 0: the policy has none */
    int64_t explored; /* actions of the chunk that were drawn at random, to explore */
    int64_t abstained; /* 1: the policy gave no action this time; what follows is none */
    int64_t unused[3];
};
_Static_assert(sizeof(struct rtcore_slot_entry) == 192, "rtcore_slot_entry");

/* Writer: env process. */
struct rtcore_frame_header {
    int64_t frame_seq; /* number of the frame; it is in slot `frame_seq % ring_slots` */
    int64_t tick; /* tick that made it; ticks may have been skipped, frames never are */
    int64_t episode; /* from 0 */
    int64_t deadline_ns; /* when the tick was due */
    int64_t start_ns; /* when it began: `start_ns - deadline_ns` is its lateness */
    int64_t publish_ns; /* when publishing this frame began */
    int64_t step_ns; /* the world's step (or reset) */
    int64_t kind; /* what governed the tick: a `TickKind` */
    int64_t source; /* who chose the action: a `Source` */
    double reward; /* of this tick's step */
    int64_t terminated; /* 1: the episode ended by its own rules */
    int64_t truncated; /* 1: the episode was cut off */
    double episode_return; /* sum of the episode's rewards up to here */
    int64_t episode_ticks; /* ticks of the episode up to here */
    int64_t worker; /* whose action was applied; -1: nobody's */
    int64_t obs_tick; /* tick of the frame that action was chosen from: `tick - obs_tick` is its delay; -1: no action */
    int64_t due_tick; /* tick that action was for; -1: no action */
    int64_t chunk_index; /* which action of its answer; -1: no action */
    int64_t outcome; /* of its job: an `Outcome`; -1: no action */
    int64_t policy_version; /* of the weights it came from; -1: no action */
    int64_t write_ns; /* when its answer was written; 0: no action */
    int64_t skipped_ticks; /* ticks that were passed over just before this one */
    int64_t dispatch_ns; /* when it was decided what to apply */
    int64_t phase_seq; /* order the tick belongs to: those of a rehearsal are not those of the run */
    int64_t policy_checksum; /* CRC-32 of those weights; 0: no action, or a policy without weights */
    int64_t booked_jobs; /* jobs that were booked at this tick */
    int64_t task_version; /* of the task that world and booked jobs had; 0: the run has none */
    int64_t intervention; /* number of the take-over it belongs to, from 1: a person has the controls, or gives them back; 0: none */
    int64_t state_tick; /* tick of the frame that the state which that action was chosen with had seen last; -1: none, or the first */
    int64_t features_tick; /* tick of the frame that the features came from which it was chosen with; -1: none */
    int64_t features_worker; /* whose features these were; -1: nobody's */
    int64_t unused[1];
};
_Static_assert(sizeof(struct rtcore_frame_header) == 256, "rtcore_frame_header");

/* Writer: env process. */
struct rtcore_log_record {
    int64_t log_seq; /* number of the record; it is in slot `log_seq % log_slots` */
    int64_t worker; /* whose job it was */
    int64_t obs_tick; /* tick of the frame that was used; -1: no answer came */
    int64_t booked_tick; /* tick it was booked at */
    int64_t due_tick; /* tick its action was for */
    int64_t hold; /* as in `job` */
    int64_t episode; /* episode of that frame; -1: no answer came */
    int64_t outcome; /* how it ended: an `Outcome` */
    int64_t tick; /* tick at which it ended */
    int64_t booked_ns; /* when it was booked; 0, as all times below: no answer came */
    int64_t start_ns; /* when the worker took it up */
    int64_t read_ns; /* when the worker had its copy of the frame */
    int64_t infer_end_ns; /* when the policy had answered */
    int64_t write_ns; /* when writing the answer began */
    int64_t cpu_ns; /* what the inference cost, as in `slot entry` */
    int64_t phase_seq; /* order the job belongs to */
    int64_t taken_tick; /* tick for which its answer, or its worker's loss, was taken in; -1: neither came */
    int64_t taken_seq; /* how many answers and losses of the phase had been taken in before it; -1: neither came */
    int64_t unused[6];
};
_Static_assert(sizeof(struct rtcore_log_record) == 192, "rtcore_log_record");

/* Writer: supervisor. */
struct rtcore_description_head {
    int64_t num_bytes; /* length of the JSON that follows */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_description_head) == 64, "rtcore_description_head");

/* Writer: the process the event is about. */
struct rtcore_trace_event {
    int64_t kind; /* what took the time: a `TraceKind` */
    int64_t start_ns; /* from here */
    int64_t end_ns; /* to here; the same for a moment */
    int64_t tick; /* tick it belongs to; -1: none */
    int64_t worker; /* worker it is about; -1: none */
    int64_t booked_tick; /* tick at which that worker's job was booked; -1: none */
    int64_t frame_seq; /* number of the frame it is about; -1: none */
    int64_t value; /* see `TraceKind`; else 0 */
};
_Static_assert(sizeof(struct rtcore_trace_event) == 64, "rtcore_trace_event");

/* Writer: env process. */
struct rtcore_env_counters {
    int64_t ticks; /* ticks that ran, of all kinds */
    int64_t acted; /* ticks at which a policy's action was applied */
    int64_t missed; /* ticks at which one was due and was not there */
    int64_t idle; /* ticks at which none was due */
    int64_t lead_in; /* ticks at which none of the episode could be due yet */
    int64_t reset; /* ticks at which the world was reset */
    int64_t on_time; /* jobs whose action was first applied at its due tick */
    int64_t late; /* jobs whose action was first applied after its due tick */
    int64_t superseded; /* jobs in whose place a newer one's action was applied */
    int64_t stale_episode; /* jobs whose episode was over before their action was applied */
    int64_t dropped_dead_worker; /* jobs whose worker was gone */
    int64_t dropped_late; /* jobs that were late, and dropped because `on_late` is "drop" */
    int64_t unfinished; /* jobs that were under way when the run ended */
    int64_t overruns; /* ticks that ended later than the next one was due, those of a reset apart */
    int64_t skipped_ticks; /* passed over because the tick before them took too long */
    int64_t skipped_starts; /* starts for which no worker was idle */
    int64_t replans; /* changes of delay or stride during the phase */
    int64_t jobs; /* jobs that ended, of all outcomes */
    int64_t episodes; /* that ended */
    int64_t clipped_actions; /* actions that were cut to the action space */
    int64_t explored_actions; /* actions that were drawn at random, to explore */
    int64_t first_start_ns; /* when the first tick began */
    int64_t last_start_ns; /* when the newest tick began */
    int64_t unknown_entries; /* answers that belonged to no job */
    int64_t waited_ticks; /* not run because an episode was over and the program that steps the world had not reset it */
    int64_t reset_overruns; /* ticks of a reset that ended later than the next one was due */
    int64_t stretched_ticks; /* ticks that were put off because the one before them took too long (`overrun` = stretch) */
    int64_t stretched_ns; /* by how much, in all */
    int64_t altered_actions; /* steps in which the world wrote to the action it was given: it acted on other numbers */
    int64_t garbage_collections; /* of this process, between two ticks */
    int64_t garbage_forced; /* of these: did not fit into the time before the next tick */
    int64_t garbage_ns; /* what all of them took */
    int64_t abstained; /* jobs whose policy gave no action this time */
    int64_t features_used; /* jobs whose own action was never applied, but whose features the head used */
    int64_t head_actions; /* ticks at which the head's action was applied, not the base action of a worker */
    int64_t broken_invariants; /* how often something did not hold that must hold at every tick; must stay 0 */
    int64_t broken_kinds; /* which of them: bit n stands for `Invariant` n */
    int64_t first_broken; /* the first: an `Invariant`; 0: none */
    int64_t first_broken_tick; /* tick at which that was found */
    int64_t starved_ticks; /* ticks at which the safe action acted, as no fresh one had come for too long */
    int64_t starvations; /* how often that began */
    int64_t human_ticks; /* ticks at which a person's action was applied */
    int64_t shield_ticks; /* ticks at which the world's shield, or a limit, changed the action asked for */
    int64_t limited_actions; /* actions that a limit cut */
    int64_t lost_requests; /* actions asked for that were not kept: a world that had not said so reports what it applied instead */
    int64_t take_overs; /* how often a person took the controls */
    int64_t lost_cycles; /* of the skipped ticks: those for which the world's device gave no cycle */
    int64_t cycles; /* of the world's device, each of which gave a tick; 0: the world has no clock */
    int64_t cycle_ps; /* how long such a cycle takes [ps]: the slope of all time stamps up to now */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_env_counters) == 448, "rtcore_env_counters");

/* Writer: supervisor (once, before anybody else attaches). */
struct rtcore_parameter_sizes {
    int64_t num_buffers; /* copies of the weights there is room for */
    int64_t manifest_bytes; /* room for the manifest: JSON, padded with blanks, that says where each tensor is */
    int64_t buffer_bytes; /* size of one copy of the weights */
    int64_t trainable_bytes; /* of those, the first: all parameters that are trained, float32, no gap but padding */
    int64_t num_holders; /* places for weight holders, which claim as workers do; 0 where weights stay in host memory */
    int64_t unused[3];
};
_Static_assert(sizeof(struct rtcore_parameter_sizes) == 64, "rtcore_parameter_sizes");

/* Writer: the publisher that holds the segment's flock. */
struct rtcore_parameter_newest {
    int64_t newest; /* version * 8 + buffer of the newest weights; 0: none yet */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_parameter_newest) == 64, "rtcore_parameter_newest");

/* Writer: the publisher that holds the segment's flock. */
struct rtcore_parameter_counts {
    int64_t publisher_pid; /* of the newest publication */
    int64_t published_ns; /* when it became visible */
    int64_t waits; /* publications that had to wait for a buffer that nobody uses */
    int64_t skipped; /* publications that were given up, because no buffer became free or another publisher did not finish */
    int64_t unused[4];
};
_Static_assert(sizeof(struct rtcore_parameter_counts) == 64, "rtcore_parameter_counts");

/* Writer: the publisher that holds the segment's flock. */
struct rtcore_parameter_buffer {
    int64_t version; /* of the weights in it, from 1; 0: none yet; -1: being written */
    int64_t checksum; /* CRC-32 of the buffer */
    int64_t updates; /* of the learners that led to these weights */
    int64_t unused[5];
};
_Static_assert(sizeof(struct rtcore_parameter_buffer) == 64, "rtcore_parameter_buffer");

/* Writer: the worker, or the weight holder. */
struct rtcore_parameter_claim {
    int64_t using; /* generation * 8 + buffer + 1 while it computes with that buffer; 0: none */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_parameter_claim) == 64, "rtcore_parameter_claim");

/* Writer: supervisor (once, before anybody else attaches). */
struct rtcore_learner_sizes {
    int64_t num_learners; /* learner places, from 0 */
    int64_t trainable_bytes; /* size of one copy of what is trained: as in `parameter sizes` */
    int64_t first_updates; /* updates of the runs that this one goes on from; 0: none */
    int64_t unused[5];
};
_Static_assert(sizeof(struct rtcore_learner_sizes) == 64, "rtcore_learner_sizes");

/* Writer: the learner that holds the segment's flock. */
struct rtcore_master_commit {
    int64_t commit; /* updates * 4 + target slot * 2 + slot: all three change at once */
    int64_t unused[7];
};
_Static_assert(sizeof(struct rtcore_master_commit) == 64, "rtcore_master_commit");

/* Writer: the learner that holds the segment's flock. */
struct rtcore_learner_pace {
    int64_t next_start_ns; /* earliest start of the next update: starts are kept a share of an update apart */
    int64_t update_ns; /* how long an update takes, on average */
    int64_t unused[6];
};
_Static_assert(sizeof(struct rtcore_learner_pace) == 64, "rtcore_learner_pace");

/* Writer: supervisor. */
struct rtcore_learner_control {
    int64_t generation; /* grows by one each time a process is started in this place; -1: end */
    int64_t restarts; /* processes started again after a death or a hang */
    int64_t paused; /* 1: collect, but do not learn */
    int64_t unused[5];
};
_Static_assert(sizeof(struct rtcore_learner_control) == 64, "rtcore_learner_control");

/* Writer: the learner. */
struct rtcore_learner_status {
    int64_t pid; /* of the learner */
    int64_t generation; /* the `generation` this process was started as */
    int64_t heartbeat_ns; /* when it last showed life */
    int64_t state; /* what it is doing: a `LearnerState` */
    int64_t updates; /* it has made, restarts included */
    int64_t publications; /* of weights, by it */
    int64_t publish_skipped; /* publications that found no free buffer */
    int64_t transitions; /* it could sample from, when it last looked */
    int64_t lapped_samples; /* samples that were overwritten while they were read, and drawn again */
    int64_t yields; /* pauses because ticks were missed or late */
    int64_t yielded_ns; /* length of those pauses together */
    double loss; /* of its newest update */
    double td_error; /* mean absolute temporal-difference error of its newest update */
    double q_mean; /* mean value of the actions taken, in its newest update */
    double grad_norm; /* of its newest update, before clipping */
    int64_t version_diff; /* updates by others between reading weights and applying its gradient, newest update */
    int64_t version_diff_sum; /* the same, over all its updates */
    int64_t version_diff_min; /* the same, the smallest */
    int64_t version_diff_max; /* the same, the largest */
    double policy_lag; /* versions between those that chose the sampled actions and the newest, mean, newest update */
    int64_t stopped_at; /* number of the update whose loss or gradient was not finite, plus 1; 0: none was */
    int64_t stopped_by; /* 0: nothing; 1: the loss, 2: the gradient, 3: the loss of observations that were not finite */
    int64_t learning_ns; /* CPU time of its updates together */
    int64_t unused[1];
};
_Static_assert(sizeof(struct rtcore_learner_status) == 192, "rtcore_learner_status");

/* Writer: supervisor (once, before anybody else attaches). */
struct rtcore_payload_sizes {
    int64_t manifest_bytes; /* length of the manifest: JSON that says what is in each block */
    int64_t context_bytes; /* size of what a job carries */
    int64_t payload_bytes; /* size of what an answer carries behind its actions */
    int64_t kept_bytes; /* size of what stays with a tick */
    int64_t task_bytes; /* size of a task */
    int64_t unused[3];
};
_Static_assert(sizeof(struct rtcore_payload_sizes) == 64, "rtcore_payload_sizes");

/* Writer: whoever writes the records. Numbers start at 0 and never wrap; -1 is none yet. */
struct rtcore_ring_control {
    int64_t begun; /* number of the newest record that its writer has begun */
    int64_t unused_0[7];
    int64_t done; /* number of the newest record that is whole */
    int64_t unused_1[7];
};
_Static_assert(sizeof(struct rtcore_ring_control) == 128, "rtcore_ring_control");

struct rtcore_histogram {
    int64_t count;
    int64_t sum;
    double sum_of_squares;
    int64_t min;
    int64_t max;
    int64_t unused[3];
    int64_t buckets[RTCORE_HISTOGRAM_BUCKETS]; /* see docs/layout.md */
};
_Static_assert(sizeof(struct rtcore_histogram) == 36928, "rtcore_histogram");

enum rtcore_phase {
    RTCORE_PHASE_IDLE = 0, /* no ticks; finish what is under way */
    RTCORE_PHASE_REHEARSE = 1, /* tick, book and publish, but leave the world on its first frame */
    RTCORE_PHASE_RUN = 2, /* the run */
    RTCORE_PHASE_STOP = 3, /* end now */
};
static inline const char *rtcore_phase_name(int64_t value) {
    switch (value) {
    case 0: return "idle";
    case 1: return "rehearse";
    case 2: return "run";
    case 3: return "stop";
    default: return "?";
    }
}

enum rtcore_tick_kind {
    RTCORE_TICK_KIND_ACTED = 0, /* a policy action */
    RTCORE_TICK_KIND_MISSED = 1, /* one was due and was not there */
    RTCORE_TICK_KIND_IDLE = 2, /* none was due; or the policy gave none */
    RTCORE_TICK_KIND_LEAD_IN = 3, /* episode start, none could be due yet; the world is held, or `on_missing` acts */
    RTCORE_TICK_KIND_RESET = 4, /* the world was reset */
};
static inline const char *rtcore_tick_kind_name(int64_t value) {
    switch (value) {
    case 0: return "acted";
    case 1: return "missed";
    case 2: return "idle";
    case 3: return "lead_in";
    case 4: return "reset";
    default: return "?";
    }
}

enum rtcore_source {
    RTCORE_SOURCE_POLICY = 0, /* policy */
    RTCORE_SOURCE_NOOP = 1, /* no-op */
    RTCORE_SOURCE_REPEAT = 2, /* repeat of the last */
    RTCORE_SOURCE_RANDOM = 3, /* random action */
    RTCORE_SOURCE_HELD = 4, /* world held; or reset: no action */
    RTCORE_SOURCE_HUMAN = 5, /* person; who took the controls */
    RTCORE_SOURCE_SHIELD = 6, /* shield of the world; or limit: it changed what was asked for */
    RTCORE_SOURCE_SAFE = 7, /* safe action, as nothing fresh came */
};
static inline const char *rtcore_source_name(int64_t value) {
    switch (value) {
    case 0: return "policy";
    case 1: return "noop";
    case 2: return "repeat";
    case 3: return "random";
    case 4: return "held";
    case 5: return "human";
    case 6: return "shield";
    case 7: return "safe";
    default: return "?";
    }
}

enum rtcore_outcome {
    RTCORE_OUTCOME_ON_TIME = 0, /* applied at its due tick; without a due tick: at the first tick after it was ready */
    RTCORE_OUTCOME_LATE = 1, /* applied after its due tick; it came late, or the tick itself was skipped */
    RTCORE_OUTCOME_SUPERSEDED = 2, /* not applied: one from a newer frame took its place */
    RTCORE_OUTCOME_STALE_EPISODE = 3, /* not applied: its episode was over */
    RTCORE_OUTCOME_DROPPED_DEAD_WORKER = 4, /* never came: its worker died, hung or was stopped */
    RTCORE_OUTCOME_DROPPED_LATE = 5, /* not applied: came after its due tick (on_late = drop) */
    RTCORE_OUTCOME_UNFINISHED = 6, /* still under way when the run ended */
    RTCORE_OUTCOME_ABSTAINED = 7, /* not applied: the policy gave no action this time */
    RTCORE_OUTCOME_FEATURES_USED = 8, /* not applied itself: the head used its features */
};
static inline const char *rtcore_outcome_name(int64_t value) {
    switch (value) {
    case 0: return "on_time";
    case 1: return "late";
    case 2: return "superseded";
    case 3: return "stale_episode";
    case 4: return "dropped_dead_worker";
    case 5: return "dropped_late";
    case 6: return "unfinished";
    case 7: return "abstained";
    case 8: return "features_used";
    default: return "?";
    }
}

enum rtcore_trace_kind {
    RTCORE_TRACE_KIND_SLEEP = 0, /* nothing to do before the next deadline */
    RTCORE_TRACE_KIND_PREPARE = 1, /* awake before the deadline: warming caches, waking the next worker, spinning */
    RTCORE_TRACE_KIND_TICK = 2, /* the whole tick; value: its `TickKind` */
    RTCORE_TRACE_KIND_COLLECT = 3, /* reading answers from the slots, and which workers are up */
    RTCORE_TRACE_KIND_DISPATCH = 4, /* the decision; worker and booked_tick of the applied job; value: 1 if this is its first tick */
    RTCORE_TRACE_KIND_BOOK = 5, /* jobs booked and their workers woken */
    RTCORE_TRACE_KIND_JOB = 6, /* an instant within BOOK: one job (worker, booked_tick); value: its due tick */
    RTCORE_TRACE_KIND_STEP = 7, /* the world's step */
    RTCORE_TRACE_KIND_RESET = 8, /* the world's reset */
    RTCORE_TRACE_KIND_PUBLISH = 9, /* frame `frame_seq` made visible */
    RTCORE_TRACE_KIND_ACCOUNT = 10, /* counters, histograms, job log */
    RTCORE_TRACE_KIND_OUTCOME = 11, /* an instant: the job (worker, booked_tick) ended; value: its `Outcome` */
    RTCORE_TRACE_KIND_FEATURES = 13, /* an instant: the head's action was chosen with the features of the job (worker, booked_tick) */
    RTCORE_TRACE_KIND_INTERVENTION = 14, /* an instant: a person acts at this tick; value: number of the take-over */
    RTCORE_TRACE_KIND_COLLECT_GARBAGE = 12, /* Python's garbage collector, run where it disturbs least */
    RTCORE_TRACE_KIND_IDLE = 20, /* no job */
    RTCORE_TRACE_KIND_WAIT_FRAME = 21, /* has a job; its frame is not there yet */
    RTCORE_TRACE_KIND_READ = 22, /* copying frame `frame_seq` out of the ring */
    RTCORE_TRACE_KIND_INFER = 23, /* the policy, padding included */
    RTCORE_TRACE_KIND_HOST_TO_DEVICE = 24, /*  */
    RTCORE_TRACE_KIND_COMPUTE = 25, /*  */
    RTCORE_TRACE_KIND_DEVICE_TO_HOST = 26, /*  */
    RTCORE_TRACE_KIND_WRITE = 27, /* the answer into the slot */
    RTCORE_TRACE_KIND_DRAIN = 40, /* reading ticks and jobs out of shared memory */
    RTCORE_TRACE_KIND_WORKER_DOWN = 41, /* worker taken out; value: its new number of restarts */
    RTCORE_TRACE_KIND_WORKER_UP = 42, /* worker ready (again) */
};
static inline const char *rtcore_trace_kind_name(int64_t value) {
    switch (value) {
    case 0: return "sleep";
    case 1: return "prepare";
    case 2: return "tick";
    case 3: return "collect";
    case 4: return "dispatch";
    case 5: return "book";
    case 6: return "job";
    case 7: return "step";
    case 8: return "reset";
    case 9: return "publish";
    case 10: return "account";
    case 11: return "outcome";
    case 13: return "features";
    case 14: return "intervention";
    case 12: return "collect_garbage";
    case 20: return "idle";
    case 21: return "wait_frame";
    case 22: return "read";
    case 23: return "infer";
    case 24: return "host_to_device";
    case 25: return "compute";
    case 26: return "device_to_host";
    case 27: return "write";
    case 40: return "drain";
    case 41: return "worker_down";
    case 42: return "worker_up";
    default: return "?";
    }
}

enum rtcore_env_histogram {
    RTCORE_ENV_HISTOGRAM_LATENESS_NS = 0, /* every tick: from its deadline to its start */
    RTCORE_ENV_HISTOGRAM_STEP_NS = 1, /* every tick that steps the world: its step */
    RTCORE_ENV_HISTOGRAM_PUBLISH_NS = 2, /* every tick: copying frame and header into the ring */
    RTCORE_ENV_HISTOGRAM_WRITE_TO_DISPATCH_NS = 3, /* every action at its first use: from its due tick, or its answer if later, to the decision */
    RTCORE_ENV_HISTOGRAM_OBSERVATION_AGE_NS = 4, /* every acted tick: from publishing the frame that was used to the decision */
    RTCORE_ENV_HISTOGRAM_INTERVAL_TICKS = 5, /* every acted tick: since the one before */
    RTCORE_ENV_HISTOGRAM_DELAY_TICKS = 6, /* every acted tick: since the frame that was used */
    RTCORE_ENV_HISTOGRAM_RESET_NS = 7, /* every reset of the world: from the decision to publishing */
    RTCORE_ENV_HISTOGRAM_PHASE_ERROR_NS = 8, /* every cycle of the world's clock: how far its stamp lies from where the grid expected it */
};

enum rtcore_worker_histogram {
    RTCORE_WORKER_HISTOGRAM_INFERENCE_NS = 0, /* every inference, padding included */
    RTCORE_WORKER_HISTOGRAM_PUBLISH_TO_READ_NS = 1, /* every inference: from publishing its frame to having a copy */
};

/* Offsets and sizes [bytes], from the sizes in a segment's header. */
static inline int64_t rtcore_round_up(int64_t num_bytes) {
    return (num_bytes + 63) / 64 * 64;
}

static inline int64_t rtcore_run_control_at(const struct rtcore_segment_header *h) {
    (void)h;
    return (int64_t)sizeof(struct rtcore_segment_header);
}

static inline int64_t rtcore_env_status_at(const struct rtcore_segment_header *h) {
    return rtcore_run_control_at(h) + (int64_t)sizeof(struct rtcore_run_control);
}

static inline int64_t rtcore_env_counters_at(const struct rtcore_segment_header *h) {
    return rtcore_env_status_at(h) + (int64_t)sizeof(struct rtcore_env_status);
}

static inline int64_t rtcore_env_histogram_at(const struct rtcore_segment_header *h, int64_t index) {
    return rtcore_env_counters_at(h) + (int64_t)sizeof(struct rtcore_env_counters) + index * (int64_t)sizeof(struct rtcore_histogram);
}

static inline int64_t rtcore_workers_at(const struct rtcore_segment_header *h) {
    return rtcore_round_up(rtcore_env_histogram_at(h, RTCORE_ENV_HISTOGRAMS));
}

static inline int64_t rtcore_worker_block_bytes(const struct rtcore_segment_header *h) {
    (void)h;
    return rtcore_round_up((int64_t)sizeof(struct rtcore_worker_control) + (int64_t)sizeof(struct rtcore_worker_status) + (int64_t)sizeof(struct rtcore_job) + RTCORE_WORKER_HISTOGRAMS * (int64_t)sizeof(struct rtcore_histogram));
}

static inline int64_t rtcore_worker_control_at(const struct rtcore_segment_header *h, int64_t worker) {
    return rtcore_workers_at(h) + worker * rtcore_worker_block_bytes(h);
}

static inline int64_t rtcore_worker_status_at(const struct rtcore_segment_header *h, int64_t worker) {
    return rtcore_worker_control_at(h, worker) + (int64_t)sizeof(struct rtcore_worker_control);
}

static inline int64_t rtcore_job_at(const struct rtcore_segment_header *h, int64_t worker) {
    return rtcore_worker_status_at(h, worker) + (int64_t)sizeof(struct rtcore_worker_status);
}

static inline int64_t rtcore_worker_histogram_at(const struct rtcore_segment_header *h, int64_t worker, int64_t index) {
    return rtcore_job_at(h, worker) + (int64_t)sizeof(struct rtcore_job) + index * (int64_t)sizeof(struct rtcore_histogram);
}

static inline int64_t rtcore_num_groups(const struct rtcore_segment_header *h) {
    return (h->max_workers + 31) / 32;
}

static inline int64_t rtcore_posted_at(const struct rtcore_segment_header *h, int64_t group) {
    return rtcore_worker_control_at(h, h->max_workers) + group * (int64_t)sizeof(struct rtcore_posted_jobs);
}

static inline int64_t rtcore_control_bytes(const struct rtcore_segment_header *h) {
    return rtcore_posted_at(h, rtcore_num_groups(h));
}

static inline int64_t rtcore_entry_bytes(const struct rtcore_segment_header *h) {
    return rtcore_round_up((int64_t)sizeof(struct rtcore_slot_entry) + h->chunk * h->action_bytes);
}

static inline int64_t rtcore_slot_control_at(const struct rtcore_segment_header *h, int64_t worker) {
    return (int64_t)sizeof(struct rtcore_segment_header) + worker * ((int64_t)sizeof(struct rtcore_slot_control) + 2 * rtcore_entry_bytes(h));
}

static inline int64_t rtcore_slot_entry_at(const struct rtcore_segment_header *h, int64_t worker, int64_t entry_seq) {
    return rtcore_slot_control_at(h, worker) + (int64_t)sizeof(struct rtcore_slot_control) + entry_seq % 2 * rtcore_entry_bytes(h);
}

static inline int64_t rtcore_slots_bytes(const struct rtcore_segment_header *h) {
    return rtcore_slot_control_at(h, h->max_workers + 1);
}

static inline int64_t rtcore_ring_control_at(const struct rtcore_segment_header *h) {
    (void)h;
    return (int64_t)sizeof(struct rtcore_segment_header);
}

static inline int64_t rtcore_header_stride_bytes(const struct rtcore_segment_header *h) {
    return rtcore_round_up((int64_t)sizeof(struct rtcore_frame_header) + h->action_bytes);
}

static inline int64_t rtcore_headers_at(const struct rtcore_segment_header *h) {
    return rtcore_ring_control_at(h) + (int64_t)sizeof(struct rtcore_ring_control);
}

static inline int64_t rtcore_frame_stride_bytes(const struct rtcore_segment_header *h) {
    return rtcore_round_up(h->frame_bytes);
}

static inline int64_t rtcore_frames_at(const struct rtcore_segment_header *h) {
    return rtcore_headers_at(h) + h->ring_slots * rtcore_header_stride_bytes(h);
}

static inline int64_t rtcore_ring_bytes(const struct rtcore_segment_header *h) {
    return rtcore_frames_at(h) + h->ring_slots * rtcore_frame_stride_bytes(h);
}

static inline int64_t rtcore_log_records_at(const struct rtcore_segment_header *h) {
    return rtcore_ring_control_at(h) + (int64_t)sizeof(struct rtcore_ring_control);
}

static inline int64_t rtcore_log_bytes(const struct rtcore_segment_header *h) {
    return rtcore_log_records_at(h) + h->log_slots * (int64_t)sizeof(struct rtcore_log_record);
}

static inline int64_t rtcore_description_stride_bytes(const struct rtcore_segment_header *h) {
    return rtcore_round_up((int64_t)sizeof(struct rtcore_description_head) + h->description_bytes);
}

static inline int64_t rtcore_description_at(const struct rtcore_segment_header *h, int64_t seq) {
    return rtcore_ring_control_at(h) + (int64_t)sizeof(struct rtcore_ring_control) + seq % 2 * rtcore_description_stride_bytes(h);
}

static inline int64_t rtcore_description_segment_bytes(const struct rtcore_segment_header *h) {
    return rtcore_description_at(h, 0) + 2 * rtcore_description_stride_bytes(h);
}

static inline int64_t rtcore_trace_control_at(const struct rtcore_segment_header *h, int64_t process) {
    return (int64_t)sizeof(struct rtcore_segment_header) + process * ((int64_t)sizeof(struct rtcore_ring_control) + h->trace_slots * (int64_t)sizeof(struct rtcore_trace_event));
}

static inline int64_t rtcore_trace_events_at(const struct rtcore_segment_header *h, int64_t process) {
    return rtcore_trace_control_at(h, process) + (int64_t)sizeof(struct rtcore_ring_control);
}

static inline int64_t rtcore_trace_bytes(const struct rtcore_segment_header *h) {
    return rtcore_trace_control_at(h, 2 + h->max_workers);
}

#endif
