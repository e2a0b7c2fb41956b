"""A run's numbers at the places where people look: TensorBoard, Weights & Biases, MLflow. One seam, three writers.

The names are those that users of TensorBoard know: charts/*, losses/*, train/*, and rt/*. The step is the tick.
Loggers must not be able to end a run: whatever goes wrong here is said once, and the run goes on without.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from rtcore.clock import unix_time_s
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.memory.counters import Distribution
from rtcore.results.run_record import Episode
from rtcore.results.summary import LearnerStats, RunStats, WorkerStats

_log = logging.getLogger(__name__)

#: Project of Weights & Biases, experiment of MLflow, where the environment names no other.
_PROJECT = "rtcore"


class Writer(Protocol):
    """Where the numbers go."""

    def add(self, values: Mapping[str, float], step: int) -> None:
        """Numbers by name, of a tick. Ticks may go back: an episode is told after it has ended."""

    def flush(self) -> None:
        """What was added can be seen."""

    def close(self) -> None:
        """No more will come."""


class TensorBoard:
    """Event files in the folder of the run. `ticks_before`: of the runs that this one goes on from.

    Written by what TensorBoard itself brings: tensorboardX and torch's own writer import torch, of which the program of
    a run needs nothing.
    """

    def __init__(self, config: RuntimeConfig, ticks_before: int) -> None:
        # An extra, and 0.3 s to import.
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415
        from tensorboard.summary.writer.record_writer import RecordWriter  # noqa: PLC0415

        self._event, self._summary = Event, Summary
        if (folder := config.output.out) is None:
            raise ConfigError("out: got none; expected the folder for TensorBoard's events")
        folder.mkdir(parents=True, exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        name = f"events.out.tfevents.{unix_time_s():017.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = (folder / name).open("xb")
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")
        if ticks_before:
            # What the run before wrote after the checkpoint that this one goes on from was forgotten with it.
            self._write(step=ticks_before, session_log=SessionLog(status=SessionLog.START))
        self.flush, self.close = self._file.flush, self._file.close

    def add(self, values: Mapping[str, float], step: int) -> None:
        scalars = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(step=step, summary=self._summary(value=scalars))

    def _write(self, **what: Any) -> None:
        self._records.write(self._event(wall_time=unix_time_s(), **what).SerializeToString())


class WeightsAndBiases:
    """A run of Weights & Biases. Its environment says where: with WANDB_MODE=offline it is in wandb/ of the folder."""

    def __init__(self, config: RuntimeConfig, ticks_before: int) -> None:
        import wandb  # noqa: PLC0415 - an extra, and a second to import

        out = config.output.out
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=_run_name(config),
            dir=out,
            config=config.to_jsonable(),
            reinit="create_new",
            # It would take over what the program prints.
            settings=wandb.Settings(console="off", silent=True),
        )
        _log.info(f"Weights & Biases: {self._run.dir if self._run.offline else self._run.url}")
        # By the tick, not by the number of the call.
        self._run.define_metric("*", step_metric="tick")
        self.close = self._run.finish

    def add(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "tick": step})

    def flush(self) -> None:
        """It does so by itself."""


class MLflow:
    """A run of MLflow. MLFLOW_TRACKING_URI says where; else it is mlflow.db, in the run's folder if it has one."""

    def __init__(self, config: RuntimeConfig, ticks_before: int) -> None:
        import mlflow  # noqa: PLC0415 - an extra, and seconds to import

        self._entities = mlflow.entities
        folder = (config.output.out or Path()).resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{folder / 'mlflow.db'}"
        # Of a client of its own: a run that the program has begun with mlflow.start_run stays its own.
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = found.experiment_id if found else self._client.create_experiment(experiment)
        self._run_id = self._client.create_run(number, run_name=_run_name(config)).info.run_id
        settings = [mlflow.entities.Param(name, str(value)) for name, value in config.to_jsonable().items()]
        self._client.log_batch(self._run_id, params=settings)

    def add(self, values: Mapping[str, float], step: int) -> None:
        now_ms = round(unix_time_s() * 1000)
        metrics = [self._entities.Metric(name, value, now_ms, step) for name, value in values.items()]
        self._client.log_batch(self._run_id, metrics=metrics)

    def flush(self) -> None:
        """Each batch is."""

    def close(self) -> None:
        self._client.set_terminated(self._run_id)


class Place(NamedTuple):
    """Where people look."""

    name: str  #: for people
    package: str  #: what has to be installed
    writer: Callable[[RuntimeConfig, int], Writer]


#: By the name of the setting and of the extra.
PLACES = {
    "tensorboard": Place("TensorBoard", "tensorboard", TensorBoard),
    "wandb": Place("Weights & Biases", "wandb", WeightsAndBiases),
    "mlflow": Place("MLflow", "mlflow", MLflow),
}


def is_installed(place: str) -> bool:
    """Whether the package of that place is there (the extra of its name)."""
    return importlib.util.find_spec(PLACES[place].package) is not None


def require_installed(place: str) -> None:
    """ConfigError if there is no such place, or its package is not there."""
    if place not in PLACES:
        raise ConfigError(f"no place {place!r} for a run's numbers; expected one of {', '.join(PLACES)}")
    if not is_installed(place):
        raise ConfigError(f"{place}: {PLACES[place].package} is not installed: pip install 'rtcore[{place}]'")


class Board:
    """A run's numbers at one place: what a program calls now and then, and at the end.

    Args:
        place: "tensorboard", "wandb" or "mlflow".
        config: The run's settings; they are kept there, too.
        ticks_before: Of the runs that this one goes on from.

    Raises:
        ConfigError: There is no such place, or its package is not installed.
    """

    def __init__(self, place: str, config: RuntimeConfig, *, ticks_before: int = 0) -> None:
        require_installed(place)
        self._name, _, writer = PLACES[place]
        self._ticks_before = ticks_before
        self._num_episodes = 0
        self._writer: Writer | None = None
        self._guard(lambda: self._open(writer, config))

    def update(self, stats: RunStats) -> None:
        """Everything as it stands now, and each episode since the last call.

        Args:
            stats: `Runtime.stats()`.
        """
        if (writer := self._writer) is not None:
            self._guard(lambda: self._write(writer, stats))

    def close(self) -> None:
        """No more will come. Safe to call more than once."""
        writer, self._writer = self._writer, None
        if writer is not None:
            self._guard(writer.close)

    def _open(self, writer: Callable[[RuntimeConfig, int], Writer], config: RuntimeConfig) -> None:
        self._writer = writer(config, self._ticks_before)

    def _guard(self, step: Callable[[], None]) -> None:
        try:
            step()
        except Exception as error:
            self._writer = None
            _log.warning(f"{self._name} is not written any more: {type(error).__name__}: {error}")

    def _write(self, writer: Writer, stats: RunStats) -> None:
        for episode in stats.episodes[max(0, self._num_episodes - stats.dropped_episodes) :]:
            self._add(writer, _of_episode(episode), episode.end_tick)
        self._num_episodes = stats.dropped_episodes + len(stats.episodes)
        ticks = stats.counters["ticks"] + stats.counters["skipped_ticks"]
        learner = _of_learner(stats.learner) if stats.learner is not None else {}
        self._add(writer, _of_run(stats) | learner, ticks)
        writer.flush()

    def _add(self, writer: Writer, values: Mapping[str, float], tick: int) -> None:
        writer.add({name: value for name, value in values.items() if not math.isnan(value)}, self._ticks_before + tick)


def _run_name(config: RuntimeConfig) -> str:
    """As its folder is called, else its world."""
    return config.output.out.resolve().name if config.output.out is not None else config.world.env_id


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
