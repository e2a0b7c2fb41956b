"""Pushed CartPole through the real loop against a calculation without one: what an action is worth that knows more."""

import pytest

from benchmarks.pushed_cartpole import Cell, calculated, played, set_point_score, two_speed_score

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("kind", "delay", "episodes"),
    [
        pytest.param("sequential", 3, 40, marks=pytest.mark.slow),
        ("sequential", 5, 40),
        pytest.param("sequential", 8, 40, marks=pytest.mark.slow),
        pytest.param("staggered", 3, 60, marks=pytest.mark.slow),
        ("staggered", 5, 40),
        pytest.param("staggered", 8, 40, marks=pytest.mark.slow),
        pytest.param("chunks", 3, 12, marks=pytest.mark.slow),
        ("chunks", 5, 60),
        pytest.param("chunks", 8, 40, marks=pytest.mark.slow),
        ("head", 5, 4),
    ],
)
def test_the_loop_gives_what_the_calculation_does(kind, delay, episodes):
    cell = Cell(played(kind, delay, episodes), calculated(kind, delay, 2_000))
    assert cell.agrees, cell


def test_at_a_delay_of_five_steps_a_look_at_the_newest_frame_is_all_and_staggering_next_to_nothing():
    assert played("head", 5, 4, seed=1) >= 490
    assert played("staggered", 5, 40, seed=1) < 60


@pytest.mark.slow
def test_a_place_that_only_the_slow_part_can_read_takes_both_speeds():
    """The trunk alone falls, the head alone stands at the wrong place."""
    score = {kind: set_point_score(kind, 2) for kind in ("zero delay", "trunk alone", "head alone", "both")}
    assert score["both"] >= 0.9 * score["zero delay"], score
    assert score["trunk alone"] < 0.1 * score["zero delay"], score
    assert score["head alone"] < 0.5 * score["zero delay"], score


def test_a_head_pays_with_one_trunk_worker_and_a_second_stage_in_the_workers_with_one_for_each_tick():
    head, second_stage = True, False
    assert two_speed_score(head, 8, 1, 3) >= 490
    assert two_speed_score(second_stage, 8, 1, 20) < 60
    assert two_speed_score(second_stage, 8, 8, 3) >= 490


def test_a_head_that_is_away_costs_the_balance_and_one_of_many_workers_with_a_second_stage_does_not():
    """While the head is away only late actions act; a second stage loses one worker's share."""
    assert two_speed_score(True, 8, 8, 6, disturbance="one away") < 400
    assert two_speed_score(False, 8, 8, 3, disturbance="one away") >= 490


@pytest.mark.parametrize("workers", [4, 8])
def test_a_head_that_takes_longer_than_a_tick_balances_whatever_the_workers_beside_it_would_do(workers):
    assert two_speed_score(True, 8, workers, 3, disturbance="slow act") >= 490
