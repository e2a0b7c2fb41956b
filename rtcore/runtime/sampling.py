"""Transitions of a run for the trainer that embeds it: readers of the frame ring, and batches of torch tensors."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.learn.replay_memory import NothingToSample, TransitionReader
from rtcore.learn.ticks import TickReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.processes.supervisor import Supervisor

#: Gives the run once it has started; raises before that.
Started = Callable[[], Supervisor]


class Sampling:
    """What `Runtime.transitions`, `sample`, `take` and `ticks` do."""

    def __init__(self, config: RuntimeConfig) -> None:
        self._config = config
        self._readers: dict[float, TransitionReader] = {}
        self._turn = threading.Lock()
        self._rng = np.random.default_rng(np.random.SeedSequence([config.world.seed, 2]))

    def transitions(self, started: Started, gamma: float, discount_rewards: bool) -> TransitionReader:
        """See `Runtime.transitions`."""
        supervisor = started()
        shared, builder = (
            supervisor.shared,
            TransitionBuilder(gamma, discount_rewards, chunks=self._config.agent.policy_chunk > 1),
        )
        action = supervisor.world.action
        history = History.of(self._config.history)
        return TransitionReader(
            ring=shared.ring,
            action=action,
            phase_seq=supervisor.run_phase_seq,
            builder=builder,
            first_frame=supervisor.run_first_frame,
            history=history,
            since_ticks=shared.payload.needs.since_ticks if shared.payload is not None else 0,
        )

    def sample(
        self,
        started: Started,
        batch_size: int,
        *,
        gamma: float,
        device: str,
        n_step: int,
        reuse: Any | None,
        prioritized: bool,
    ) -> Any | None:
        """See `Runtime.sample`. Threads take turns: they share a reader."""
        from rtcore_workers.tensors import to_arrays, to_tensors  # noqa: PLC0415 - imports torch

        with self._turn:
            reader = self._reader(started, gamma)
            reader.update()
            self._require_room(started, batch_size)
            if len(reader) < batch_size:
                return None
            old = None if reuse is None or len(reuse.reward) != batch_size else to_arrays(reuse)
            try:
                batch = reader.sample(batch_size, self._rng, n_step=n_step, reuse=old, prioritized=prioritized)
            except NothingToSample:  # all of it was overwritten meanwhile: this process stood still
                return None
            return to_tensors(batch, device)

    def take(self, started: Started, count: int, *, gamma: float, device: str) -> Any | None:
        """See `Runtime.take`."""
        from rtcore_workers.tensors import to_tensors  # noqa: PLC0415 - imports torch

        with self._turn:
            self._require_room(started, count)
            batch = self._reader(started, gamma).take(count)
            return None if batch is None else to_tensors(batch, device)

    def prioritize(self, started: Started, rows: Any, priorities: Any, gamma: float) -> None:
        """See `Runtime.prioritize`."""
        with self._turn:
            try:
                self._reader(started, gamma).set_priorities(*(np.asarray(_on_cpu(each)) for each in (rows, priorities)))
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def ticks(self, started: Started) -> TickReader:
        """See `Runtime.ticks`."""
        supervisor = started()
        return TickReader(supervisor.shared.ring, supervisor.world.action, supervisor.run_first_frame)

    def _reader(self, started: Started, gamma: float) -> TransitionReader:
        if gamma not in self._readers:
            self._readers[gamma] = self.transitions(started, gamma, True)
        return self._readers[gamma]

    def _require_room(self, started: Started, count: int) -> None:
        ring_slots = started().shared.layout.ring_slots
        if count > ring_slots - 2:
            raise ConfigError(f"batch_size={count}: ring_slots={ring_slots} never holds as many; raise ring_slots")


def _on_cpu(values: Any) -> Any:
    """Tensors of any device, and arrays, as what NumPy takes."""
    return values.detach().cpu() if hasattr(values, "detach") else values
