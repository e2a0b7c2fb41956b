"""What `rtcore-run` adds to a run: of one that learns, a folder to keep it in and the learning curve; its numbers for
TensorBoard, Weights & Biases and MLflow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from rtcore.clock import NS_PER_S, MonotonicClock, unix_time_s
from rtcore.config.run import RuntimeConfig
from rtcore.learn.checkpoint import read_state
from rtcore.report.boards import Board, is_installed
from rtcore.report.learning_curve import draw_learning_curve, learned_episodes
from rtcore.results.summary import RunStats

_log = logging.getLogger(__name__)

CURVE_FILE = "learning_curve.png"
#: Between two entries.
_EVERY_NS = 5 * NS_PER_S


def with_folder(config: RuntimeConfig) -> RuntimeConfig:
    """Learning leaves something behind: without --out it goes to runs/<world>__<algorithm>__<seed>__<time>."""
    if config.learning.learn is None or "out" in config.given:
        return config
    world = config.world.env_id.rpartition("/")[2].replace(":", ".")
    began = time.strftime("%Y%m%d-%H%M%S", time.localtime(unix_time_s()))
    return config.replace(out=Path("runs") / f"{world}__{config.learning.learn}__{config.world.seed}__{began}")


def places_of(config: RuntimeConfig) -> list[str]:
    """Where the numbers of every run go: that has to be installed."""
    return [place for place in ("wandb", "mlflow") if getattr(config.output, place)]


class Boards:
    """The run's numbers at all places where they are wanted: an entry every few seconds and a last one.

    TensorBoard gets those of a run that learns, where it is installed.
    """

    def __init__(self, config: RuntimeConfig) -> None:
        self._clock = MonotonicClock()
        self._written_ns = self._clock.now_ns()
        wanted = places_of(config)
        if config.learning.learn is not None and config.output.out is not None and config.weights.tensorboard:
            if is_installed("tensorboard"):
                wanted.append("tensorboard")
            else:
                _log.warning("no TensorBoard events are written: pip install rtcore[tensorboard], or --no-tensorboard")
        before = int(read_state(config.weights.resume)["ticks"]) if wanted and config.weights.resume is not None else 0
        self._boards = [Board(place, config, ticks_before=before) for place in wanted]

    def update(self, stats: Callable[[], RunStats]) -> None:
        """If it is time. `stats` is only asked then."""
        now_ns = self._clock.now_ns()
        if self._boards and now_ns - self._written_ns >= _EVERY_NS:
            self._written_ns = now_ns
            self._write(stats())

    def close(self, stats: RunStats) -> None:
        """With everything up to the end."""
        self._write(stats)
        for board in self._boards:
            board.close()
        self._boards = []

    def _write(self, stats: RunStats) -> None:
        for board in self._boards:
            board.update(stats)


def draw_curve(config: RuntimeConfig, stats: RunStats) -> None:
    """The returns of a run that learned, those of the runs that it goes on from included, as a picture in its folder.

    Nothing if it had no episode.
    """
    if config.learning.learn is None or config.output.out is None:
        return
    episodes = learned_episodes(config.output.out)
    if episodes:
        name = f"{config.world.env_id}, {config.learning.learn}, seed {config.world.seed}"
        draw_learning_curve({name: episodes}, config.output.out / CURVE_FILE, rate_hz=float(stats.rate_hz))
