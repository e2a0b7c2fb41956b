"""Points: of every episode, ended or not, whatever of the record is missing."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rtcore.cli.nextsteps import steps_of
from rtcore.config.run import make_config
from rtcore.results.run_record import Episode, RunRecord, Score
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.simulate import Simulation
from tests.support.filmed import header

pytestmark = pytest.mark.unit


def recorded(*ticks: dict[str, Any]) -> RunRecord:
    record = RunRecord(None, lambda raw: raw)
    for tick, fields in enumerate(ticks):
        record.add_tick(header(**({"tick": tick, "episode_ticks": tick} | fields)), b"")
    return record


def paid(reward: float, so_far: float, episode: int = 0, **fields: Any) -> dict[str, Any]:
    return {"reward": reward, "episode_return": so_far, "episode": episode} | fields


RESET = paid(0.0, 0.0, 1, kind=TickKind.RESET)


def test_points_are_those_of_the_unfinished_episode_too():
    record = recorded(paid(2.0, 2.0), paid(1.0, 3.0, terminated=1), RESET, paid(0.5, 0.5, 1))
    assert record.score == Score(3.5, 4, Episode(3, 3, 0.5))
    assert record.score.per_1000_ticks == 875.0
    assert [episode.total_reward for episode in record.episodes.newest()] == [3.0]


def test_between_two_episodes_none_is_unfinished():
    record = recorded(paid(2.0, 2.0), paid(1.0, 3.0, truncated=1))
    assert record.score == Score(3.0, 2, None)


def test_before_the_first_tick_there_is_no_rate():
    assert recorded().score == Score(0.0, 0, None)
    assert math.isnan(recorded().score.per_1000_ticks)


def test_rows_that_were_lost_cost_no_points():
    record = recorded(paid(1.0, 1.0), paid(1.0, 5.0), RESET, paid(1.0, 4.0, 1))
    assert record.score.points == 9.0


def test_what_was_paid_before_the_first_row_that_is_seen_does_not_count():
    """As for rtcore-top, which comes later."""
    record = recorded(paid(1.0, 41.0), paid(2.0, 43.0))
    assert record.score.points == 3.0


def test_the_summary_holds_points_beside_the_mean_return():
    simulation = Simulation(
        make_config(env_id="CartPole-v1", fps=50, policy="random", clock="virtual", ticks=200, on_reset="run")
    ).run()
    simulation.close()
    episodes = simulation.summary()["episodes"]
    rewards = sum(row.reward for row in simulation.record.ticks)
    assert episodes["points"] == rewards > 100
    assert episodes["points_ticks"] == 200
    assert episodes["points_per_1000_ticks"] == pytest.approx(rewards * 5)
    assert sum(episodes["returns"]) + (episodes["unfinished_return"] or 0) == rewards


def commands(out: object = None, summary: dict[str, Any] | None = None, **fields: Any) -> list[str]:
    config = make_config(out=out, **fields)
    return [command for command, _ in steps_of(config, summary or {}, ["--policy", "my net"])]


def test_what_to_do_next_is_a_command_that_can_be_copied(tmp_path):
    folder = tmp_path / "of mine"
    assert commands() == ["rtcore-run --policy 'my net' --out runs/latest"]
    assert commands(folder) == [f"rtcore-report '{folder}'", "rtcore-run --policy 'my net' --video"]


def test_a_recorded_run_can_be_replayed_and_watched_and_its_own_world_is_named_again(tmp_path):
    recorded = {"recording": {"frames": 3}}
    replay, video = commands(tmp_path, recorded, record=True, env_id="tests.support.worlds:Mine", rom="my.gb")[1:]
    assert replay == f"rtcore-run --replay {tmp_path} --env-id tests.support.worlds:Mine --rom my.gb"
    assert video == f"rtcore-run --replay {tmp_path} --video"
    (tmp_path / "video.mp4").touch()
    assert commands(tmp_path, recorded, record=True)[1:] == [f"rtcore-run --replay {tmp_path}"]
