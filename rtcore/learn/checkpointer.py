"""Writes a learning run's checkpoints, in a thread of the program that embeds the run: never in the env process."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from rtcore.learn.checkpoint import Arrays, CheckpointFolder
from rtcore.results.startup import start_thread
from rtcore.results.summary import LearnerStats

_log = logging.getLogger(__name__)


class Snapshot(NamedTuple):
    """What a checkpoint holds; `mean_return` of the newest episodes, None while there are too few."""

    weights: Arrays
    optimizer: Arrays
    state: Mapping[str, Any]
    mean_return: float | None


class Checkpointer:
    """Writes a checkpoint every `every_s` seconds, and a last one at `stop`.

    One that cannot be written is counted and logged (once for several failures in a row); the older ones stay, and the
    run goes on. The last one has no other after it: `lost` then says why. `take` is called in this object's thread.
    """

    def __init__(
        self,
        folder: CheckpointFolder,
        every_s: float,
        take: Callable[[], Snapshot],
        best_return: float | None = None,
    ) -> None:
        self.written = 0
        self.failed = 0
        self.lost = ""
        self.last = ""
        self.best_return = best_return
        self._folder = folder
        self._every_s = every_s
        self._take = take
        self._is_failing = False
        self._over = threading.Event()
        self._updates_written = -1
        self._updates_taken: int | None = None
        self._thread = threading.Thread(target=self._run, name="rtcore-checkpoints", daemon=True)

    def start(self) -> None:
        start_thread(self._thread)

    def stop(self) -> None:
        """Write the last checkpoint and end. Once the learners have ended."""
        if self._thread.ident is not None:
            self._over.set()
            self._thread.join()
            self.write(last=True)

    def counted_in(self, stats: LearnerStats) -> LearnerStats:
        """These, with what became of the checkpoints."""
        best = math.nan if self.best_return is None else self.best_return
        return replace(
            stats,
            checkpoints=self.written,
            failed_checkpoints=self.failed,
            lost_checkpoint=self.lost,
            best_return=best,
        )

    def _run(self) -> None:
        while not self._over.wait(min(self._every_s, threading.TIMEOUT_MAX)):
            self.write()

    def write(self, *, last: bool = False) -> None:
        """Write a checkpoint, unless nothing was learned since the last one (at the end: always, for the counters)."""
        try:
            self._write(last)
        except Exception as error:  # no error must end the run; the older checkpoints are still there
            self.failed += 1
            reason, hint = f"{type(error).__name__}: {error}", ""
            if isinstance(error, OSError):
                reason, hint = error.strerror or str(error), f"; free space for {self._folder.folder}"
            if last and self._updates_taken != self._updates_written:
                self.lost = reason
                there = f"the newest one, of {self._updates_written:,} updates," if self.written else "the run began"
                _log.warning(
                    f"the last checkpoint could not be written: {reason}. What was learned since {there} is lost{hint}"
                )
            elif not self._is_failing:
                _log.warning(
                    f"a checkpoint could not be written: {reason}. The run goes on, older checkpoints stay{hint}"
                )
            self._is_failing = True

    def _write(self, last: bool) -> None:
        self._updates_taken = None  # until it is known
        snapshot = self._take()
        self._updates_taken = updates = int(snapshot.state["updates"])
        if updates == self._updates_written and not last:
            return
        mean = snapshot.mean_return
        # A return that is not finite must not become the best: it could never be beaten.
        is_best = mean is not None and math.isfinite(mean) and (self.best_return is None or mean > self.best_return)
        best = mean if is_best else self.best_return
        folder = self._folder.write(
            snapshot.weights,
            snapshot.optimizer,
            {**snapshot.state, "mean_return": mean if mean is not None and math.isfinite(mean) else None}
            | {"best_mean_return": best},
            is_best=is_best,
        )
        self.written += 1
        self.last = folder.name
        self.best_return = best
        self._is_failing = False
        self._updates_written = updates
        _log.debug("checkpoint %s after %d updates, mean return %s", folder, updates, mean)
