"""One job from its booking to its end: Job, Answer, JobRow. Pure: no process, no clock.

Fields with a text also stand in shared memory, as 8-byte words in this order (`memory.layout.records`).
"""

from __future__ import annotations

from typing import Annotated, NamedTuple


class Job(NamedTuple):
    """A booking. The worker it is for is idle while it is written, `job_seq` last.

    `hold`: the action waits for its due tick (max-time). Without it the action is applied as soon as it is
    ready, the worker may use a newer frame, and `due_tick` is only when it is expected at the latest.
    A schedule fills the first four; who books the job fills the others.
    """

    worker: int  #: whom it is for; in shared memory each worker has a place of its own
    obs_tick: Annotated[int, "tick it is booked at, whose frame it is to use"]
    due_tick: Annotated[int, "tick its action is for"]
    hold: Annotated[
        bool, "1: wait for that frame and apply the action at its due tick; 0: the newest frame, applied when ready"
    ]
    frame_seq: Annotated[int, "number of that frame"] = -1
    booked_ns: Annotated[int, "when it was booked"] = 0
    phase_seq: Annotated[int, "order it belongs to"] = 0
    generation: Annotated[int, "of the worker it is for"] = 0
    job_seq: Annotated[int, "number of the worker's job, from 1; written last"] = 0
    context: bytes = b""  #: what travels with it, for a policy that needs it: a block of `PolicyNeeds.context`


class Answer(NamedTuple):
    """One answer; `chunk * action_bytes` of actions follow."""

    entry_seq: Annotated[int, "number of the entry; it is in place `entry_seq % 2`"] = 0
    job_seq: Annotated[int, "job it answers"] = 0
    obs_tick: Annotated[int, "tick of the frame that was used: with `hold` always the booked one"] = -1
    due_tick: Annotated[int, "tick the action is for"] = -1
    episode: Annotated[int, "episode of that frame"] = -1
    frame_seq: Annotated[int, "number of that frame"] = -1
    generation: Annotated[int, "of the worker"] = 0
    policy_version: Annotated[int, "of the weights that were used; 0: the policy has none"] = 0
    frame_publish_ns: Annotated[int, "when publishing that frame began"] = 0
    start_ns: Annotated[int, "when the worker took up the job"] = 0
    read_ns: Annotated[int, "when it had its copy of the frame"] = 0
    infer_end_ns: Annotated[int, "when the policy had answered"] = 0
    write_ns: Annotated[int, "when writing the entry began"] = 0
    h2d_ns: Annotated[int, "of the inference: copy to the device; 0 on a CPU"] = 0
    compute_ns: Annotated[int, "of the inference: on the device"] = 0
    d2h_ns: Annotated[int, "of the inference: copy back"] = 0
    cpu_ns: Annotated[int, "what the inference cost: GPU time on a GPU, else CPU time"] = 0
    clipped: Annotated[int, "actions of the chunk that were cut to the action space"] = 0
    policy_checksum: Annotated[int, "CRC-32 of those weights; 0: the policy has none"] = 0
    explored: Annotated[int, "actions of the chunk that were drawn at random, to explore"] = 0
    abstained: Annotated[int, "1: the policy gave no action this time; what follows is none"] = 0
    actions: bytes = b""  #: for the ticks due, due + 1, ..., one after the other
    payload: bytes = b""  #: what travels with them, of a policy that gives it: a block of `PolicyNeeds.payload`


class JobRow(NamedTuple):
    """How a job ended."""

    log_seq: Annotated[int, "number of the record; it is in slot `log_seq % log_slots`"] = -1
    worker: Annotated[int, "whose job it was"] = -1
    obs_tick: Annotated[int, "tick of the frame that was used; -1: no answer came"] = -1
    booked_tick: Annotated[int, "tick it was booked at"] = -1
    due_tick: Annotated[int, "tick its action was for"] = -1
    hold: Annotated[int, "as in `job`"] = 0
    episode: Annotated[int, "episode of that frame; -1: no answer came"] = -1
    outcome: Annotated[int, "how it ended: an `Outcome`"] = -1
    tick: Annotated[int, "tick at which it ended"] = -1
    booked_ns: Annotated[int, "when it was booked; 0, as all times below: no answer came"] = 0
    start_ns: Annotated[int, "when the worker took it up"] = 0
    read_ns: Annotated[int, "when the worker had its copy of the frame"] = 0
    infer_end_ns: Annotated[int, "when the policy had answered"] = 0
    write_ns: Annotated[int, "when writing the answer began"] = 0
    cpu_ns: Annotated[int, "what the inference cost, as in `slot entry`"] = 0
    phase_seq: Annotated[int, "order the job belongs to"] = 0
    taken_tick: Annotated[int, "tick for which its answer, or its worker's loss, was taken in; -1: neither came"] = -1
    taken_seq: Annotated[
        int, "how many answers and losses of the phase had been taken in before it; -1: neither came"
    ] = -1
