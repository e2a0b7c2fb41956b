"""Random actions: the floor that every agent must beat, and the filler of tests."""

from __future__ import annotations

import numpy as np

from rtcore.clock import Clock, MonotonicClock
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies.base import Array, FrameOnly, InferenceTiming, PolicyInfo

#: Streams of random numbers that must not repeat each other.
ACTION_STREAM, LATENCY_STREAM = 0, 1


def frame_rng(seed: int, stream: int, frame_seq: int) -> np.random.Generator:
    """A generator that depends on its arguments (all 0 or more) alone: the same in every worker."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(stream, frame_seq)))


class RandomPolicy(FrameOnly):
    """Samples the action space; an action is a pure function of (seed, frame_seq)."""

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        seed: int,
        clock: Clock | None = None,
        past_actions: Array | None = None,
    ) -> None:
        self.info = PolicyInfo("random", 0, synthetic=False, pad_ms=None, device="cpu")
        self.observation: Array = np.zeros(observation.shape, observation.np_dtype)
        self.past_actions = past_actions
        self.timing = InferenceTiming()
        self._action = action
        self._seed = seed
        self._clock = clock or MonotonicClock()

    def act(self, *, frame_seq: int, out: Array, tick: int | None = None) -> None:
        """Fill `out` (chunk, *action_shape). Allocates a generator and one action per tick of the chunk."""
        start_ns = self._clock.now_ns()
        rng = frame_rng(self._seed, ACTION_STREAM, frame_seq)
        for step in range(len(out)):
            self._action.encode(self._action.sample(rng), out[step, ...])
        self.timing.compute_ns = self._clock.now_ns() - start_ns
