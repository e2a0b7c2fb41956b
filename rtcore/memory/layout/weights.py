"""The records of weights and learners, and where they lie: the segments `params` and `learner`."""

from __future__ import annotations

from dataclasses import dataclass

from rtcore.memory.layout.record import Record, round_up
from rtcore.memory.layout.records import SEGMENT_HEADER

#: Sizes of the parameter store, from which its offsets follow. Written once by the supervisor.
PARAM_SIZES = Record(
    "parameter sizes",
    "supervisor (once, before anybody else attaches)",
    {
        "num_buffers": "copies of the weights there is room for",
        "manifest_bytes": "room for the manifest: JSON, padded with blanks, that says where each tensor is",
        "buffer_bytes": "size of one copy of the weights",
        "trainable_bytes": "of those, the first: all parameters that are trained, float32, no gap but padding",
        "num_holders": "places for weight holders, which claim as workers do; 0 where weights stay in host memory",
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
#: Which buffer a worker computes with, or a weight holder copies from. Written by that process only; a holder's also
#: by the supervisor, once that one is dead.
PARAM_CLAIM = Record(
    "parameter claim",
    "the worker, or the weight holder",
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
        "stopped_by": "0: nothing; 1: the loss, 2: the gradient, 3: the loss of observations that were not finite",
        "learning_ns": "CPU time of its updates together",
    },
    frozenset({"loss", "td_error", "q_mean", "grad_norm", "policy_lag"}),
)
#: Versions and buffers share a word: the buffer is in its lowest bits.
PARAM_BUFFER_BITS = 3
#: Places for weight holders where there are any: GPUs that one run can use with one copy of the weights each.
MAX_HOLDERS = 16
PAGE_BYTES = 4096


@dataclass(frozen=True)
class ParamLayout:
    """The sizes of a parameter store, from which its offsets follow. In bytes from the segment's start.

    Claims are the workers' and, behind them, the weight holders': holder h has number max_workers + h.
    """

    max_workers: int
    manifest_bytes: int
    buffer_bytes: int
    trainable_bytes: int
    num_buffers: int = 3
    num_holders: int = 0

    @classmethod
    def heads_only(cls, max_workers: int) -> ParamLayout:
        """For buffers that lie elsewhere: in a GPU's memory."""
        return cls(max_workers, 0, 0, 0)

    @property
    def sizes(self) -> dict[str, int]:
        """The fields of PARAM_SIZES."""
        return {field: getattr(self, field) for field in PARAM_SIZES.fields}

    @property
    def num_claims(self) -> int:
        return self.max_workers + self.num_holders

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
        return self.claim_at(self.num_claims)

    def buffer_at(self, buffer: int) -> int:
        """On a page of its own: a buffer that was never written takes no memory."""
        first = round_up(self.manifest_at + self.manifest_bytes, PAGE_BYTES)
        return first + buffer * round_up(self.buffer_bytes, PAGE_BYTES)

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
        first = round_up(self.control_at(self.num_learners), PAGE_BYTES)
        return first + array * round_up(self.trainable_bytes, PAGE_BYTES)

    @property
    def num_bytes(self) -> int:
        return self.array_at(8)
