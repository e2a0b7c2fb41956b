"""The learners of a run, seen from outside and read-only."""

from __future__ import annotations

import math
from dataclasses import replace

from rtcore.clock import MonotonicClock
from rtcore.config.run import RuntimeConfig
from rtcore.learn.stats import learner_stats
from rtcore.memory.master import attach_master
from rtcore.memory.weights import attach_store
from rtcore.results.summary import LearnerStats


class LearnersView:
    """Maps the learners' segment and the parameter store's; used by one thread.

    LayoutMismatchError if the run has none, or not yet.
    """

    def __init__(self, run_id: str, config: RuntimeConfig, ticks_before: int) -> None:
        """`ticks_before`: of the runs that this one goes on from, for the share of random actions."""
        self._config = config
        self._ticks_before = ticks_before
        self._clock = MonotonicClock()
        self._master, _ = attach_master(run_id, readonly=True)
        self._store = attach_store(run_id, readonly=True)
        self._first = self._newest = (self._master.commit.updates, self._clock.now_ns())

    def stats(self, tick: int) -> LearnerStats:
        """At `tick`. Updates per second are those since the first look. What only the run's own program knows
        (checkpoints, the best return, why learners were restarted) is left as if there were none.
        """
        updates, now_ns = self._master.commit.updates, self._clock.now_ns()
        if updates > self._newest[0]:
            self._newest = (updates, now_ns)
        made, elapsed_ns = (newest - first for newest, first in zip(self._newest, self._first, strict=True))
        rate = made * 1e9 / elapsed_ns if elapsed_ns else math.nan
        return replace(
            learner_stats(self._config, self._master, self._store, self._ticks_before + tick + 1), updates_per_s=rate
        )

    def close(self) -> None:
        """Let go of the memory."""
        self._store.close()
        self._master.close()
