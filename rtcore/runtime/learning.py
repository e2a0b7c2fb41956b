"""Learning in a run on the wall clock, beside the learners' processes: its checkpoints and their content."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.learn.checkpoint import SavedState, load_state, load_weights
from rtcore.learn.checkpointer import Checkpointer, Snapshot
from rtcore.learn.state import checkpoint_folder, judged_return, state_of, warn_of_changes, warn_of_unchecked
from rtcore.processes.supervisor import Supervisor
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import LearnerStats

_log = logging.getLogger(__name__)


class LearningRun:
    """The checkpoints of one run: what goes into them, and when. Of `Runtime`, which supervises in another thread."""

    def __init__(self, config: RuntimeConfig) -> None:
        """Reads the run to resume. ConfigError, before anything is started, if that or the weights cannot be used."""
        self.saved: SavedState | None = None
        self._config = config
        self._keeper: Checkpointer | None = None
        if config.weights.resume is not None:
            self.saved = load_state(config.weights.resume)
            warn_of_changes(config, self.saved)
        elif config.weights.policy_checkpoint is not None:
            load_weights(config.weights.policy_checkpoint)
        warn_of_unchecked(config.weights)

    def begin(self, supervisor: Supervisor, record: RunRecord) -> None:
        """At tick 0. Nothing is kept without an output folder."""
        config = self._config
        if supervisor.learners is None:
            return
        if config.output.out is None:
            _log.warning("no checkpoints are kept: there is no output folder (--out)")
            return
        before = self.saved.state if self.saved is not None else {}
        folder = checkpoint_folder(config.weights.keep_checkpoints, config.output.out, self.saved)
        self._keeper = Checkpointer(
            folder,
            config.weights.checkpoint_every_s,
            lambda: _snapshot(config, supervisor, record, before),
            before.get("best_mean_return"),
        )
        self._keeper.start()

    def end(self, supervisor: Supervisor) -> None:
        """Once the run is over: the learners end, and what they reached is kept."""
        supervisor.end_learning()
        if self._keeper is not None:
            self._keeper.stop()

    def stats(self, supervisor: Supervisor) -> LearnerStats | None:
        """How learning goes; None if nobody learns."""
        if supervisor.learners is None:
            return None
        ticks = supervisor.ticks_before + supervisor.shared.env_status["tick"] + 1
        stats, keeper = supervisor.learners.stats(ticks), self._keeper
        return stats if stats is None or keeper is None else keeper.counted_in(stats)


def _snapshot(config: RuntimeConfig, supervisor: Supervisor, record: RunRecord, before: Mapping[str, Any]) -> Snapshot:
    """What there is now. Called in the checkpointer's thread: reads shared memory and what only grows."""
    learners = supervisor.learners
    if learners is None:
        raise RuntimeError("nobody learns")
    updates, network, optimizer = learners.copy()
    state = state_of(
        config,
        supervisor.env_info,
        str(supervisor.policy_info.get("policy", "")),
        updates=updates,
        ticks=int(before.get("ticks", 0)) + supervisor.shared.env_status["tick"] + 1,
        episodes=int(before.get("episodes", 0)) + supervisor.shared.env_counters["episodes"],
    )
    return Snapshot(network, optimizer, state, judged_return(record))
