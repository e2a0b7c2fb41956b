"""The learning curve and the TensorBoard events of a run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.report.learning_curve import draw_learning_curve, running_mean
from rtcore.report.tensorboard import Board, board_is_installed
from rtcore.results.run_record import Episode
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit


def test_the_running_mean_is_of_fewer_values_at_the_start():
    assert running_mean(np.array([2.0, 4.0, 6.0, 8.0]), 2).tolist() == [2.0, 3.0, 5.0, 7.0]


def test_the_learning_curve_is_a_picture_of_every_run(tmp_path: Path):
    runs = {f"seed {seed}": [Episode(100 * n, 90, float(n * seed)) for n in range(1, 30)] for seed in (1, 2)}
    draw_learning_curve(runs, tmp_path / "curve.png", rate_hz=60)
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]


@pytest.mark.skipif(not board_is_installed(), reason="the extra tensorboard is not installed")
def test_events_bear_the_usual_names_and_every_episode_is_there_once(tmp_path: Path, said: list[str]):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = make_config(env_id="CartPole-v1", fps=50, policy="random", clock="virtual", ticks=400, workers=1)
    simulation = Simulation(config)
    board = Board(tmp_path, ticks_before=1000)
    simulation.run(lambda tick: board.update(simulation.stats()) if tick % 100 == 0 else None)
    board.update(simulation.stats())
    board.close()
    simulation.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    returns = events.Scalars("charts/episodic_return")
    assert [event.value for event in returns] == [
        episode.total_reward for episode in simulation.record.episodes.newest()
    ]
    assert returns[0].step == 1000 + simulation.record.episodes.newest()[0].end_tick
    assert {"rt/tick_hz", "rt/inaction_rate", "rt/delay_ticks_p99", "charts/SPS"} <= set(events.Tags()["scalars"])
    assert said == []


@pytest.mark.skipif(not board_is_installed(), reason="the extra tensorboard is not installed")
def test_a_folder_that_cannot_be_written_is_said_and_ends_nothing(tmp_path: Path, said: list[str]):
    (tmp_path / "file").write_text("in the way")
    board = Board(tmp_path / "file")
    config = make_config(env_id="CartPole-v1", fps=50, policy="random", clock="virtual", ticks=10, workers=1)
    simulation = Simulation(config).run()
    board.update(simulation.stats())
    board.close()
    simulation.close()
    assert len(said) == 1
    assert "TensorBoard" in said[0]
