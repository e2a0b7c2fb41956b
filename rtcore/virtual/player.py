"""The policy on the virtual clock: what it sees comes from the run's own ring, how long it takes from a model."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from rtcore.clock import ManualClock
from rtcore.memory.history import History, HistoryReader
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import Version
from rtcore.scheduling.jobs import Job
from rtcore.spaces import ObservationCheck
from rtcore.virtual.latency import LatencyModel
from rtcore.virtual.workers import Inference


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
    """Runs the policy for the simulated workers. Without a policy every action is the one that stood in the buffer.

    `latency`: inference time of job n [ns]; None: what `policy_clock` says that the policy just took (a synthetic or
    padded one moves it on). `weights`: where the network's come from; those published when an inference begins.
    """

    def __init__(
        self,
        policy: SimPolicy | None,
        actions: npt.NDArray[Any],
        latency: LatencyModel | None,
        policy_clock: ManualClock,
        *,
        ring: FrameRing | None = None,
        history: History | None = None,
        weights: SimWeights | None = None,
        watch: ObservationCheck | None = None,
    ) -> None:
        self.actions = actions
        self._policy = policy
        self._latency = latency
        self._clock = policy_clock
        self._weights = weights
        self._watch = watch
        self._timing = getattr(policy, "timing", None)
        #: What the policy gave with its last actions: its memory.
        self._payload: memoryview | bytes = getattr(policy, "payload", None) or b""
        self._reader: HistoryReader | None = None
        if policy is not None and ring is not None:
            past_actions = getattr(policy, "past_actions", None)
            self._reader = HistoryReader(ring, history or History(), policy.observation, past_actions)

    def infer(self, number: int, frame_seq: int, job: Job) -> Inference:
        """Job `number`, on frame `frame_seq` of the ring."""
        header = self._reader.read(frame_seq) if self._reader is not None else None
        before_ns = self._clock.now_ns()
        try:
            version = self._act(frame_seq)
        except Exception as error:
            if self._watch is None or self._policy is None or header is None:
                raise
            self._watch.bounds.raise_culprit(error, self._policy.observation, f"at tick {header.tick}")
        tau_ns = self._latency(number) if self._latency is not None else self._clock.now_ns() - before_ns
        if self._watch is not None and self._reader is not None and header is not None:
            self._watch.check(self._reader.newest, header.tick)
        timing = self._timing
        clipped, explored = (timing.clipped, timing.explored) if timing is not None else (0, 0)
        return Inference(
            self.actions.tobytes(),
            tau_ns,
            payload=bytes(self._payload),
            abstained=timing.abstained if timing is not None else 0,
            version=version.version if version is not None else 0,
            checksum=version.checksum if version is not None else 0,
            clipped=clipped,
            explored=explored,
        )

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
        self._policy.act(frame_seq=frame_seq, out=self.actions)
        weights.release()
        return version
