"""The learning curve of a run, and its numbers for TensorBoard, Weights & Biases and MLflow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.report import boards
from rtcore.report.boards import Board, is_installed
from rtcore.report.learning_curve import draw_learning_curve, running_mean
from rtcore.results.run_record import Episode
from rtcore.virtual.simulate import Simulation
from tests.support.drills import wait_for

pytestmark = pytest.mark.unit


def test_the_running_mean_is_of_fewer_values_at_the_start():
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2.0, 3.0, 5.0, 7.0]


def test_the_learning_curve_is_a_picture_of_every_run(tmp_path: Path):
    runs = {f"seed {seed}": [Episode(100 * n, 90, float(n * seed)) for n in range(1, 30)] for seed in (1, 2)}
    draw_learning_curve(runs, tmp_path / "curve.png", rate_hz=60)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


def played(place: str, out: Path | None, ticks_before: int = 0) -> Simulation:
    """A run of 400 ticks whose numbers went there, four times."""
    config = make_config(env_id="CartPole-v1", fps=50, policy="random", clock="virtual", ticks=400, workers=1)
    simulation = Simulation(config)
    board = Board(place, config.replace(out=out), ticks_before=ticks_before)
    simulation.run(lambda tick: board.update(simulation.stats()) if tick % 100 == 0 else None)
    board.update(simulation.stats())
    board.close()
    board.close()
    simulation.close()
    return simulation


#: A few of the names that each place gets.
NAMES = {"rt/tick_hz", "rt/inaction_rate", "rt/delay_ticks_p99", "charts/SPS", "charts/episodic_return"}


def returns_of(simulation: Simulation) -> list[tuple[int, float]]:
    return [(episode.end_tick, episode.total_reward) for episode in simulation.record.episodes.newest()]


@pytest.mark.skipif(not is_installed("tensorboard"), reason="the extra tensorboard is not installed")
def test_tensorboard_gets_the_usual_names_and_every_episode_once(tmp_path: Path, said: list[str]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    simulation = played("tensorboard", tmp_path, ticks_before=1000)
    events = EventAccumulator(str(tmp_path)).Reload()
    returns = [(event.step - 1000, event.value) for event in events.Scalars("charts/episodic_return")]
    assert returns == returns_of(simulation)
    assert set(events.Tags()["scalars"]) >= NAMES
    played("tensorboard", tmp_path, ticks_before=1200)
    kept = [event.step for event in EventAccumulator(str(tmp_path)).Reload().Scalars("rt/tick_hz")]
    assert kept == [1101, 1301, 1401, 1501, 1600], "what a run wrote after the checkpoint of the next is forgotten"
    assert said == []


@pytest.mark.slow
@pytest.mark.skipif(not is_installed("wandb"), reason="the extra wandb is not installed")
def test_weights_and_biases_gets_them_too_offline(tmp_path: Path, said: list[str], monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    simulation = played("wandb", tmp_path)
    (file,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    returns = returns_of(simulation)
    assert returns
    # It says that it has finished a moment before all is in the file. An episode has a row of its own: no other has its
    # return.
    wait_for(lambda: file.read_bytes().count(b"charts/episodic_return") >= len(returns), "W&B to write the episodes")
    wait_for(lambda: all(name.encode() in file.read_bytes() for name in NAMES), "W&B to write the names")
    assert said == [f"Weights & Biases: {file.parent / 'files'}"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of MLflow's own, about SQLAlchemy
@pytest.mark.skipif(not is_installed("mlflow"), reason="the extra mlflow is not installed")
def test_mlflow_gets_them_too_in_a_file_beside_the_run(tmp_path: Path, said: list[str], monkeypatch):
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    simulation = played("mlflow", tmp_path)
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("rtcore").experiment_id])
    assert set(run.data.metrics) >= NAMES
    assert run.data.params["env_id"] == "CartPole-v1"
    assert run.info.status == "FINISHED"
    history = client.get_metric_history(run.info.run_id, "charts/episodic_return")
    assert sorted((metric.step, metric.value) for metric in history) == returns_of(simulation)
    assert said == []


@pytest.mark.skipif(not is_installed("tensorboard"), reason="the extra tensorboard is not installed")
def test_a_folder_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path, said: list[str]):
    (tmp_path / "file").write_text("in the way")
    played("tensorboard", tmp_path / "file")
    assert len(said) == 1
    assert "TensorBoard" in said[0]


def test_a_place_that_is_none_and_one_that_is_not_installed_are_refused(monkeypatch):
    config = make_config(env_id="CartPole-v1", policy="random")
    with pytest.raises(ConfigError, match="no place 'excel' .* expected one of tensorboard, wandb, mlflow"):
        Board("excel", config)
    monkeypatch.setattr(boards, "is_installed", lambda place: False)
    with pytest.raises(ConfigError, match=r"wandb is not installed: pip install 'rtcore\[wandb\]'"):
        Board("wandb", config)
