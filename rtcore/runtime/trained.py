"""What a trainer of one's own reads from a run, and the weights that it gives back.

Batches are torch tensors; what reads the frames of the run is `rtcore.learn.replay_memory`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, PolicyError
from rtcore.learn.replay_memory import NothingToSample, TransitionReader
from rtcore.learn.ticks import TickReader
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.memory.ring import FrameRing
from rtcore.memory.weights import ParamStore
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunStats, build_summary
from rtcore.runtime.controls import Steerable
from rtcore.spaces import ActionSpec, PolicyNeeds

_log = logging.getLogger(__name__)


class RunFrames(NamedTuple):
    """Where a run's decisions stand: in its ring, from its first frame on, among frames of `phase_seq`."""

    ring: FrameRing
    action: ActionSpec
    phase_seq: int
    first_frame: int
    needs: PolicyNeeds


class TrainedRun(Steerable):
    """A run that a trainer of one's own learns from: `Runtime` in real time, `Simulation` on the virtual clock.

    Args:
        config: The run's settings.
    """

    record: RunRecord | None

    def __init__(self, config: RuntimeConfig) -> None:
        super().__init__()
        self.config = config
        self._readers: dict[float, TransitionReader] = {}
        self._turn = threading.Lock()
        self._rng = np.random.default_rng(np.random.SeedSequence([config.world.seed, 2]))

    def _frames(self) -> RunFrames:
        """Once the run has started; raises before that."""
        raise NotImplementedError

    def stats(self) -> RunStats:
        """A snapshot of every counter and histogram."""
        raise NotImplementedError

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the numbers so far, and the stagger. None before the first tick: its usual text."""
        if self.record is None or not self.record.ticks:
            return None
        from rtcore.report.loaded import html_of  # noqa: PLC0415 - a program that is no notebook needs neither
        from rtcore.report.timeline import Stagger  # noqa: PLC0415

        stats = self.stats()
        return html_of(self.config.world.env_id, build_summary(stats), Stagger.of_stats(self.record, stats))

    def transitions(self, gamma: float = 0.99, *, discount_rewards: bool = True) -> TransitionReader:
        """The run's decisions from tick 0 on, for a trainer: `update()` now and then, then `sample(batch, rng)`.

        A reader of the frame ring, which is the replay memory (`--ring-slots` says how far it reaches back). With
        `obs_history` or `act_history` in the config a batch holds what the policy saw: older frames, past actions.

        Args:
            gamma: Discount per tick.
            discount_rewards: Whether the rewards within a decision are discounted from tick to tick.

        Returns:
            An independent reader at each call, to be used by one thread, until the run is closed.

        Raises:
            StartupError: Tick 0 is not there yet.
        """
        frames = self._frames()
        return TransitionReader(
            ring=frames.ring,
            action=frames.action,
            phase_seq=frames.phase_seq,
            builder=TransitionBuilder(gamma, discount_rewards, chunks=self.config.agent.policy_chunk > 1),
            first_frame=frames.first_frame,
            history=History.of(self.config.history),
            since_ticks=frames.needs.since_ticks,
        )

    def sample(
        self,
        batch_size: int,
        *,
        gamma: float = 0.99,
        device: str = "cpu",
        n_step: int = 1,
        reuse: Any | None = None,
        prioritized: bool = False,
    ) -> Any | None:
        """A batch of transitions as torch tensors. Threads take turns.

        Args:
            batch_size: How many, drawn from those that the ring still holds.
            gamma: Discount per tick; each has a `transitions` reader of its own.
            device: Where the tensors are to be. From pinned memory where there is a GPU: a copy to one does not wait.
            n_step: Chain up to so many decisions that follow each other: `reward`, `discount` and `num_ticks` are of
                all of them, `next_obs`, `terminated` and `truncated` of the last.
            reuse: A batch that is not needed any more: on the CPU, and of the same size, its memory is filled again.
            prioritized: Draw rows by the priorities that `prioritize` gave them; `probability` says how likely each
                was. False: evenly.

        Returns:
            A `Batch` of tensors, (batch_size, ...) each: uint8 frames stay uint8, a Dict world's are a dict of tensors.
            None while there are fewer transitions than that.

        Raises:
            ConfigError: The ring can never hold so many.
            StartupError: Tick 0 is not there yet.
        """
        from rtcore_workers.tensors import to_arrays, to_tensors  # noqa: PLC0415 - imports torch

        with self._turn:
            reader = self._reader(gamma)
            reader.update()
            self._require_room(batch_size)
            if len(reader) < batch_size:
                return None
            old = None if reuse is None or len(reuse.reward) != batch_size else to_arrays(reuse)
            try:
                batch = reader.sample(batch_size, self._rng, n_step=n_step, reuse=old, prioritized=prioritized)
            except NothingToSample:  # all of it was overwritten meanwhile: this process stood still
                return None
            return to_tensors(batch, device)

    def prioritize(self, rows: Any, priorities: Any, *, gamma: float = 0.99) -> None:
        """Say how likely transitions are to be drawn by `sample(..., prioritized=True)` from now on.

        Args:
            rows: (n,) `row` of a batch. What has been overwritten meanwhile is left out.
            priorities: (n,) above 0, as they are: take their power first, such as (|error| + 1e-6) ** 0.6. A new
                transition gets the largest that was ever given.
            gamma: That of the `sample`.

        Raises:
            ConfigError: A priority is no finite number above 0.
            StartupError: Tick 0 is not there yet.
        """
        with self._turn:
            try:
                self._reader(gamma).set_priorities(*(np.asarray(_on_cpu(each)) for each in (rows, priorities)))
            except ValueError as error:
                raise ConfigError(str(error)) from error

    def take(self, count: int, *, gamma: float = 0.99, device: str = "cpu") -> Any | None:
        """The next decisions in the order in which they were applied, each once, for algorithms that learn in order.

        Args:
            count: How many.
            gamma: Discount per tick; each has a place of its own in the run, from tick 0 on.
            device: Where the tensors are to be.

        Returns:
            A `Batch` of tensors as of `sample`; None while there are fewer. What was overwritten before it was taken
            is left out: it is a gap in `decision`.

        Raises:
            ConfigError: The ring can never hold so many.
            StartupError: Tick 0 is not there yet.
        """
        from rtcore_workers.tensors import to_tensors  # noqa: PLC0415 - imports torch

        with self._turn:
            self._require_room(count)
            batch = self._reader(gamma).take(count)
            return None if batch is None else to_tensors(batch, device)

    def ticks(self) -> TickReader:
        """Ticks as they happen, from tick 0 on: frame, applied action and header of each, also where nobody acted.

        Returns:
            An independent reader at each call, to be used by one thread, until the run is closed: `take()` gives all
            ticks since the last call.

        Raises:
            StartupError: Tick 0 is not there yet.
        """
        frames = self._frames()
        return TickReader(frames.ring, frames.action, frames.first_frame)

    def publish(self, weights: Mapping[str, Any], *, updates: int = 0, wait_s: float = 2.0) -> int | None:
        """New weights for all workers, from their next inferences on. Any thread; workers never wait for it.

        Args:
            weights: The state_dict of the policy's network: tensors of any device, or arrays.
            updates: Of the trainer, for the record.
            wait_s: How long to wait for a buffer that no worker computes with [s].

        Returns:
            The version they got. None if there was no such buffer (counted as skipped), and once the run is over:
            a trainer learns that from `wait`, not in the middle of a round.

        Raises:
            PolicyError: A name, shape or dtype is not the network's, or there is a NaN or an infinity; the last good
                weights stay in use.
            ConfigError: The run learns by itself.
        """
        raise NotImplementedError

    def _publish(self, store: ParamStore | None, weights: Mapping[str, Any], updates: int, wait_ns: int) -> int | None:
        config = self.config
        if config.learning.learn is not None:
            raise ConfigError(
                f"publish: this run learns by itself (learn={config.learning.learn}), and its next publication would "
                "overwrite yours; publish from a run without learn"
            )
        if store is None:
            raise PolicyError(
                f"policy {config.agent.policy!r} has no network to publish weights for; expected a network, such as "
                "--policy nature or module:factory"
            )
        manifest = store.manifest()
        arrays = manifest.check(weights, "the published state_dict")
        version = store.publish(lambda buffer: manifest.write(buffer, arrays), updates=updates, wait_ns=wait_ns)
        if version is None:
            _log.debug("no buffer came free: the weights are not published")
            return None
        _log.debug("version %d of the weights is out", version.version)
        return version.version

    def _reader(self, gamma: float) -> TransitionReader:
        if gamma not in self._readers:
            self._readers[gamma] = self.transitions(gamma)
        return self._readers[gamma]

    def _require_room(self, count: int) -> None:
        ring_slots = self._frames().ring.sequence.num_slots
        if count > ring_slots - 2:
            raise ConfigError(f"batch_size={count}: ring_slots={ring_slots} never holds as many; raise ring_slots")


def _on_cpu(values: Any) -> Any:
    """Tensors of any device, and arrays, as what NumPy takes."""
    return values.detach().cpu() if hasattr(values, "detach") else values
