"""A run's numbers for TensorBoard, under the names its users know: charts/*, losses/*, train/*, and rt/*.

Loggers must not be able to end a run: whatever goes wrong here is said once, and the run goes on without.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rtcore.memory.counters import Distribution
from rtcore.results.run_record import Episode
from rtcore.results.summary import LearnerStats, RunStats, WorkerStats

_log = logging.getLogger(__name__)


def board_is_installed() -> bool:
    """Whether the package that writes the events is there (the extra `tensorboard`)."""
    return importlib.util.find_spec("tensorboardX") is not None


class Board:
    """Event file writer of one run. `ticks_before`: of the runs that this one goes on from."""

    def __init__(self, folder: Path, *, ticks_before: int = 0) -> None:
        self._ticks_before = ticks_before
        self._num_episodes = 0
        self._writer: Any = None
        self._guard(lambda: self._open(folder))

    def update(self, stats: RunStats) -> None:
        """Everything as it stands now, and each episode since the last call."""
        if self._writer is not None:
            self._guard(lambda: self._write(stats))

    def close(self) -> None:
        if self._writer is not None:
            self._guard(self._writer.close)
            self._writer = None

    def _open(self, folder: Path) -> None:
        from tensorboardX import SummaryWriter  # noqa: PLC0415 - an extra, and 0.3 s to import

        # What the run before wrote after the checkpoint that this one goes on from was forgotten with it.
        purge_step = self._ticks_before or None
        self._writer = SummaryWriter(str(folder), purge_step=purge_step)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._writer = None
            _log.warning(f"TensorBoard events are not written any more: {type(error).__name__}: {error}")

    def _write(self, stats: RunStats) -> None:
        for episode in stats.episodes[max(0, self._num_episodes - stats.dropped_episodes) :]:
            self._scalars(_of_episode(episode), episode.end_tick)
        self._num_episodes = stats.dropped_episodes + len(stats.episodes)
        ticks = stats.counters["ticks"] + stats.counters["skipped_ticks"]
        self._scalars(_of_run(stats), ticks)
        if stats.learner is not None:
            self._scalars(_of_learner(stats.learner), ticks)
        self._writer.flush()

    def _scalars(self, values: dict[str, float], tick: int) -> None:
        for name, value in values.items():
            if not math.isnan(value):
                self._writer.add_scalar(name, value, self._ticks_before + tick)


def _of_episode(episode: Episode) -> dict[str, float]:
    return {"charts/episodic_return": episode.total_reward, "charts/episodic_length": episode.num_ticks}


def _of_run(stats: RunStats) -> dict[str, float]:
    shapes, counters = stats.distributions, stats.counters
    delay, read = shapes["delay_ticks"], [worker.publish_to_read_ns for worker in stats.workers]
    return {
        "charts/SPS": stats.measured_hz,
        "rt/tick_hz": stats.measured_hz,
        "rt/lateness_us_p99": shapes["lateness_ns"].percentile(0.99) / 1e3,
        "rt/missed_ticks": counters["missed"],
        "rt/skipped_ticks": counters["skipped_ticks"],
        "rt/stretched_ticks": counters["stretched_ticks"],
        "rt/overruns": counters["overruns"],
        "rt/reset_overruns": counters["reset_overruns"],
        "rt/inaction_rate": 1 - stats.acted_fraction,
        "rt/delay_ticks_p50": delay.percentile(0.5),
        "rt/delay_ticks_p99": delay.percentile(0.99),
        "rt/obs_age_ms_p99": shapes["observation_age_ns"].percentile(0.99) / 1e6,
        "rt/inference_ms_p99": _worst(stats.workers) / 1e6,
        "rt/ipc_us_p99": max(map(_p99, read), default=math.nan) / 1e3,
    }


def _of_learner(learner: LearnerStats) -> dict[str, float]:
    least, mean, most = learner.version_diff
    return {
        "charts/epsilon": learner.epsilon,
        "losses/td_loss": learner.loss,
        "losses/td_error": learner.td_error,
        "losses/q_values": learner.q_mean,
        "losses/grad_norm": learner.grad_norm,
        "train/updates": learner.updates,
        "train/updates_per_s": learner.updates_per_s,
        "train/version": learner.version,
        "train/version_diff_min": least,
        "train/version_diff_avg": mean,
        "train/version_diff_max": most,
        "train/yields": learner.yields,
    }


def _worst(workers: list[WorkerStats]) -> float:
    return max((_p99(worker.inference_ns) for worker in workers), default=math.nan)


def _p99(shape: Distribution) -> float:
    return shape.percentile(0.99)
