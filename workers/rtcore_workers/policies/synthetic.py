"""A policy that only takes time: it sleeps as long as a network would compute, then acts at random.

It stands in for networks that a machine cannot run, in tests and in scheduling studies. Whatever it measures
is about the runtime, never about a network; its description always says "synthetic".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from rtcore.clock import NS_PER_MS, Clock, MonotonicClock
from rtcore.errors import PolicyConfigError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies.base import Array, FrameOnly, InferenceTiming, PolicyInfo, number, refuse_unknown
from rtcore_workers.policies.random import LATENCY_STREAM, RandomPolicy, frame_rng


@dataclass(frozen=True)
class LatencyModel:
    """Normal around `latency_ms` with standard deviation `jitter_ms`, cut off at 0, plus rare outliers.

    With probability `outlier_prob`, `outlier_ms` is added. All times in milliseconds.
    """

    latency_ms: float
    jitter_ms: float = 0.0
    outlier_prob: float = 0.0
    outlier_ms: float = 0.0

    @classmethod
    def from_args(cls, args: Mapping[str, object]) -> LatencyModel:
        """Read a policy's arguments; PolicyConfigError on an unknown, missing or impossible one."""
        refuse_unknown("synthetic", args, [field.name for field in fields(cls)])
        if "latency_ms" not in args:
            raise PolicyConfigError(
                "policy 'synthetic' got no latency_ms; expected the inference time, as latency_ms=100"
            )
        model = cls(**{field.name: number("synthetic", args, field.name) for field in fields(cls)})
        if model.outlier_prob > 1:
            raise PolicyConfigError(
                f"policy 'synthetic' got outlier_prob={model.outlier_prob:g}; expected a probability, 0 to 1"
            )
        if (model.outlier_prob > 0) != (model.outlier_ms > 0):
            raise PolicyConfigError(
                f"policy 'synthetic' got outlier_prob={model.outlier_prob:g} and "
                f"outlier_ms={model.outlier_ms:g}; expected both or neither above 0: one alone has no effect"
            )
        return model

    def describe(self) -> str:
        """One phrase, such as "latency 100 ms, jitter 5 ms"."""
        text = f"latency {self.latency_ms:g} ms"
        if self.jitter_ms:
            text += f", jitter {self.jitter_ms:g} ms"
        if self.outlier_prob:
            text += f", +{self.outlier_ms:g} ms with probability {self.outlier_prob:g}"
        return text


def draw_latency_ns(model: LatencyModel, seed: int, frame_seq: int) -> int:
    """Inference time [ns] of the synthetic policy for one frame: a pure function, for simulators too."""
    if model.jitter_ms == 0 and model.outlier_prob == 0:
        return round(model.latency_ms * NS_PER_MS)
    rng = frame_rng(seed, LATENCY_STREAM, frame_seq)
    latency_ms = max(0.0, rng.normal(model.latency_ms, model.jitter_ms))
    if rng.random() < model.outlier_prob:
        latency_ms += model.outlier_ms
    return round(latency_ms * NS_PER_MS)


class SyntheticPolicy(FrameOnly):
    """Sleeps for the drawn latency, then returns what `RandomPolicy` returns for the frame."""

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        model: LatencyModel,
        *,
        seed: int,
        clock: Clock | None = None,
        past_actions: Array | None = None,
    ) -> None:
        self._clock = clock or MonotonicClock()
        self._random = RandomPolicy(observation, action, seed=seed, clock=self._clock, past_actions=past_actions)
        self._model = model
        self._seed = seed
        self.info = PolicyInfo(f"synthetic {model.describe()}", 0, synthetic=True, pad_ms=None, device="cpu")
        self.observation = self._random.observation
        self.past_actions = past_actions
        self.timing = InferenceTiming()

    def draw_latency_ns(self, frame_seq: int) -> int:
        """How long `act` sleeps for this frame [ns]."""
        return draw_latency_ns(self._model, self._seed, frame_seq)

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out` (chunk, *action_shape), and return the drawn latency after the start. Does not spin."""
        start_ns = self._clock.now_ns()
        self._random.act(frame_seq=frame_seq, out=out)
        self._clock.sleep_until_ns(start_ns + self.draw_latency_ns(frame_seq))
        self.timing.compute_ns = self._clock.now_ns() - start_ns
