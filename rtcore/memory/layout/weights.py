"""The records of weights and learners, and where they lie: the segments `params` and `learner`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, NamedTuple

from rtcore.memory.layout.record_type import Record, round_up
from rtcore.memory.layout.records import SEGMENT_HEADER


class ParameterSizes(NamedTuple):
    """Sizes of the parameter store, from which its offsets follow."""

    num_buffers: Annotated[int, "copies of the weights there is room for"]
    manifest_bytes: Annotated[int, "room for the manifest: JSON, padded with blanks, that says where each tensor is"]
    buffer_bytes: Annotated[int, "size of one copy of the weights"]
    trainable_bytes: Annotated[int, "of those, the first: all parameters that are trained, float32, no gap but padding"]
    num_holders: Annotated[
        int, "places for weight holders, which claim as workers do; 0 where weights stay in host memory"
    ]


PARAM_SIZES = Record(ParameterSizes, writer="supervisor (once, before anybody else attaches)")


class ParameterNewest(NamedTuple):
    """Which weights to use."""

    newest: Annotated[int, "version * 8 + buffer of the newest weights; 0: none yet"]


PARAM_NEWEST = Record(ParameterNewest, writer="the publisher that holds the segment's flock")


class ParameterCounts(NamedTuple):
    """What publishers met."""

    publisher_pid: Annotated[int, "of the newest publication"]
    published_ns: Annotated[int, "when it became visible"]
    waits: Annotated[int, "publications that had to wait for a buffer that nobody uses"]
    skipped: Annotated[
        int, "publications that were given up, because no buffer became free or another publisher did not finish"
    ]


PARAM_COUNTS = Record(ParameterCounts, writer="the publisher that holds the segment's flock")


class ParameterBuffer(NamedTuple):
    """What is in a buffer. Never written while the buffer is newest or claimed."""

    version: Annotated[int, "of the weights in it, from 1; 0: none yet; -1: being written"]
    checksum: Annotated[int, "CRC-32 of the buffer"]
    updates: Annotated[int, "of the learners that led to these weights"]


PARAM_BUFFER = Record(ParameterBuffer, writer="the publisher that holds the segment's flock")


class ParameterClaim(NamedTuple):
    """Which buffer a worker computes with, or a weight holder copies from."""

    using: Annotated[int, "generation * 8 + buffer + 1 while it computes with that buffer; 0: none"]


PARAM_CLAIM = Record(ParameterClaim, writer="the worker, or the weight holder")


class LearnerSizes(NamedTuple):
    """Sizes of the learners' segment, from which its offsets follow."""

    num_learners: Annotated[int, "learner places, from 0"]
    trainable_bytes: Annotated[int, "size of one copy of what is trained: as in `parameter sizes`"]
    first_updates: Annotated[int, "updates of the runs that this one goes on from; 0: none"]


LEARNER_SIZES = Record(LearnerSizes, writer="supervisor (once, before anybody else attaches)")


class MasterCommit(NamedTuple):
    """Which copies of weights, optimizer and target are the present ones. Flipped last."""

    commit: Annotated[int, "updates * 4 + target slot * 2 + slot: all three change at once"]


MASTER_COMMIT = Record(MasterCommit, writer="the learner that holds the segment's flock")


class LearnerPace(NamedTuple):
    """When learners are to begin."""

    next_start_ns: Annotated[int, "earliest start of the next update: starts are kept a share of an update apart"]
    update_ns: Annotated[int, "how long an update takes, on average"]


LEARNER_PACE = Record(LearnerPace, writer="the learner that holds the segment's flock")


class LearnerControl(NamedTuple):
    """What the supervisor wants of a learner."""

    generation: Annotated[int, "grows by one each time a process is started in this place; -1: end"]
    restarts: Annotated[int, "processes started again after a death or a hang"]
    paused: Annotated[int, "1: collect, but do not learn"]


LEARNER_CONTROL = Record(LearnerControl, writer="supervisor")


class LearnerStatus(NamedTuple):
    """Where a learner is and what it met."""

    pid: Annotated[int, "of the learner"]
    generation: Annotated[int, "the `generation` this process was started as"]
    heartbeat_ns: Annotated[int, "when it last showed life"]
    state: Annotated[int, "what it is doing: a `LearnerState`"]
    updates: Annotated[int, "it has made, restarts included"]
    publications: Annotated[int, "of weights, by it"]
    publish_skipped: Annotated[int, "publications that found no free buffer"]
    transitions: Annotated[int, "it could sample from, when it last looked"]
    lapped_samples: Annotated[int, "samples that were overwritten while they were read, and drawn again"]
    yields: Annotated[int, "pauses because ticks were missed or late"]
    yielded_ns: Annotated[int, "length of those pauses together"]
    loss: Annotated[float, "of its newest update"]
    td_error: Annotated[float, "mean absolute temporal-difference error of its newest update"]
    q_mean: Annotated[float, "mean value of the actions taken, in its newest update"]
    grad_norm: Annotated[float, "of its newest update, before clipping"]
    version_diff: Annotated[int, "updates by others between reading weights and applying its gradient, newest update"]
    version_diff_sum: Annotated[int, "the same, over all its updates"]
    version_diff_min: Annotated[int, "the same, the smallest"]
    version_diff_max: Annotated[int, "the same, the largest"]
    policy_lag: Annotated[
        float, "versions between those that chose the sampled actions and the newest, mean, newest update"
    ]
    stopped_at: Annotated[int, "number of the update whose loss or gradient was not finite, plus 1; 0: none was"]
    stopped_by: Annotated[
        int, "0: nothing; 1: the loss, 2: the gradient, 3: the loss of observations that were not finite"
    ]
    learning_ns: Annotated[int, "CPU time of its updates together"]


LEARNER_STATUS = Record(LearnerStatus, writer="the learner")
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
