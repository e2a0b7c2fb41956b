"""Transitions of a run for the trainer that embeds it: readers of the frame ring, and batches of torch tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.learn.replay_memory import NothingToSample, TransitionReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.processes.supervisor import Supervisor

#: The run past its start-up; raises before that.
Started = Callable[[], Supervisor]


class Sampling:
    """What `Runtime.transitions` and `Runtime.sample` do."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._readers: dict[float, TransitionReader] = {}
        self._turn = threading.Lock()
        self._rng = np.random.default_rng(np.random.SeedSequence([config.world.seed, 2]))

    def transitions(self, started: Started, gamma: float, discount_rewards: bool) -> TransitionReader:
        """See `Runtime.transitions`. ConfigError where a decision is more than one action."""
        if self._config.agent.policy_chunk > 1:
            raise ConfigError(
                f"chunk={self._config.agent.chunk}: a transition holds one action, and a decision of this run is as "
                "many; use chunk=1, or chunk_rest=noop or hold, where a decision is one action"
            )
        supervisor = started()
        shared, builder = supervisor.shared, TransitionBuilder(gamma, discount_rewards)
        action = supervisor.world.action
        history = History.of(self._config.history)
        return TransitionReader(
            ring=shared.ring,
            action=action,
            phase_seq=supervisor.run_phase_seq,
            builder=builder,
            first_frame=supervisor.run_first_frame,
            history=history,
        )

    def sample(self, started: Started, batch_size: int, gamma: float, device: str) -> Any | None:
        """See `Runtime.sample`. Threads take turns: they share a reader."""
        with self._turn:
            return self._sample(started, batch_size, gamma, device)

    def _sample(self, started: Started, batch_size: int, gamma: float, device: str) -> Any | None:
        reader = self._readers.get(gamma)
        if reader is None:
            reader = self._readers[gamma] = self.transitions(started, gamma, True)
        reader.update()
        if len(reader) < batch_size:
            ring_slots = started().shared.layout.ring_slots
            if batch_size > ring_slots - 2:
                raise ConfigError(
                    f"batch_size={batch_size}: ring_slots={ring_slots} never holds as many; raise ring_slots"
                )
            return None
        from rtcore_workers.tensors import to_tensors  # noqa: PLC0415 - imports torch

        try:
            return to_tensors(reader.sample(batch_size, self._rng), device)
        except NothingToSample:  # all of it was overwritten meanwhile: this process stood still
            return None
