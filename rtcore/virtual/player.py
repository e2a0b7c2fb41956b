"""The policy on the virtual clock: what it sees comes from the run's own ring, how long it takes from a model."""

from __future__ import annotations

import logging
from collections import Counter
from functools import partial
from typing import Any, Protocol

import numpy.typing as npt

from rtcore.clock import ManualClock
from rtcore.errors import PolicyError
from rtcore.memory.history import History, HistoryReader
from rtcore.memory.layout import FrameHeader
from rtcore.memory.payload import ContextStage
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import Version
from rtcore.scheduling.jobs import Job
from rtcore.spaces import Block, ObservationCheck
from rtcore.spaces.payload import AGES
from rtcore.virtual.latency import JobLatency
from rtcore.virtual.workers import Inference

_log = logging.getLogger(__name__)


class SimPolicy(Protocol):
    """What the simulator needs of a policy: `rtcore_workers.policies.Policy` has it."""

    @property
    def observation(self) -> npt.NDArray[Any]: ...

    def act(self, *, frame_seq: int, out: npt.NDArray[Any]) -> None: ...


class SimWeights(Protocol):
    """A network that plays from a parameter store (`rtcore_workers.weights.shared.SharedWeights`)."""

    def switch(self) -> Version:
        """Before an inference: the newest weights, held until `done`."""
        ...

    def release(self) -> None: ...


class SimPlayer:
    """Runs the policy for the simulated workers. Without a policy every action is what is in `actions` at first.

    `latency`: inference time of job n [ns]; None: what `policy_clock` says that the policy just took (a synthetic or
    padded one moves it on). `weights`: where the network's come from; those published when an inference begins.
    """

    def __init__(
        self,
        policy: SimPolicy | None,
        actions: npt.NDArray[Any],
        latency: JobLatency | None,
        policy_clock: ManualClock,
        *,
        ring: FrameRing | None = None,
        history: History | None = None,
        weights: SimWeights | None = None,
        watch: ObservationCheck | None = None,
        context: Block | None = None,
        goes_on_after_errors: bool = False,
    ) -> None:
        """`context`: what a job carries to the policy's memory. `goes_on_after_errors`: see `on_policy_error`."""
        self.actions = actions
        self._policy = policy
        self._latency = latency
        self._clock = policy_clock
        self._weights = weights
        self._watch = watch
        self._timing = getattr(policy, "timing", None)
        #: What the policy gave with its last actions: its memory.
        self._payload: memoryview | bytes = getattr(policy, "payload", None) or b""
        #: Inferences of each worker that raised, where that gives no action.
        self.policy_errors = Counter[int]()
        self._goes_on_after_errors = goes_on_after_errors
        #: What a job carries to the policy's memory.
        self.context = context
        memory = getattr(policy, "context", None)
        self._stage = ContextStage(memory, context) if memory is not None and context is not None else None
        self._reader: HistoryReader | None = None
        if policy is not None and ring is not None:
            past_actions = getattr(policy, "past_actions", None)
            wants_ages = context is not None and AGES in context.names
            self._reader = HistoryReader(
                ring, history or History(), policy.observation, past_actions, with_stamps=wants_ages
            )

    def infer(self, number: int, frame_seq: int, job: Job) -> Inference:
        """Job `number`, on frame `frame_seq` of the ring."""
        header = self._reader.read(frame_seq) if self._reader is not None else None
        if self._stage is not None and self._reader is not None and header is not None:
            self._stage.fill(job.context, booked_tick=job.obs_tick, header=header, stamps=self._reader.stamps)
        before_ns = self._clock.now_ns()
        version, failed = None, False
        try:
            version = self._act(frame_seq)
        except Exception as error:
            self._raise_unless_missed(error, header, job.worker)
            failed = True
        tau_ns = self._latency(number) if self._latency is not None else self._clock.now_ns() - before_ns
        if self._watch is not None and self._reader is not None and header is not None:
            self._watch.check(self._reader.newest, header.tick, partial(self._reader.read, header.frame_seq))
        timing = self._timing
        clipped, explored = (timing.clipped, timing.explored) if timing is not None else (0, 0)
        return Inference(
            self.actions.tobytes(),
            tau_ns,
            payload=bytes(self._payload),
            abstained=int(failed or (timing is not None and timing.abstained)),
            version=version.version if version is not None else 0,
            checksum=version.checksum if version is not None else 0,
            clipped=clipped,
            explored=explored,
        )

    def _raise_unless_missed(self, error: Exception, header: FrameHeader | None, worker: int) -> None:
        """Raise the error of a failed inference, or count it where the run goes on after errors of the policy."""
        try:
            if self._watch is None or self._policy is None or self._reader is None or header is None:
                raise error
            self._reader.read(header.frame_seq)  # again: the policy may have written to it
            self._watch.bounds.raise_culprit(error, self._policy.observation, f"at tick {header.tick}")
        except PolicyError as culprit:
            if not self._goes_on_after_errors:
                raise
            if not self.policy_errors:
                _log.warning(f"an inference gave no action and more of them are only counted: {culprit}")
            self.policy_errors[worker] += 1

    def tau_ns(self, number: int) -> int:
        """How long job `number` will take, for the plan [ns]: asks the latency model, else the policy itself."""
        if self._latency is not None:
            return self._latency(number)
        before_ns = self._clock.now_ns()
        self._act(number)
        return self._clock.now_ns() - before_ns

    def _act(self, frame_seq: int) -> Version | None:
        if self._policy is None:
            return None
        weights = self._weights
        if weights is None:
            self._policy.act(frame_seq=frame_seq, out=self.actions)
            return None
        version = weights.switch()
        try:
            self._policy.act(frame_seq=frame_seq, out=self.actions)
        finally:
            weights.release()
        return version
