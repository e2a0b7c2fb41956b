"""The tick grid is exact for ever; a late wake-up never moves it."""

import os
import threading
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.clock import (
    ManualClock,
    TickGrid,
    TickPace,
    TickPlan,
    cpu_time_of_ns,
    plan_every_tick,
    plan_next_tick,
    rate_from,
    thread_cpu_time_ns,
)
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

GAME_BOY = Fraction(4194304, 70224)
rates = st.fractions(min_value=Fraction(1, 100), max_value=10_000, max_denominator=100_000)
epochs = st.integers(0, 10**18)


# -- deadlines ---------------------------------------------------------------------------------------------------


def test_the_game_boys_grid_is_exact_over_a_billion_ticks():
    grid = TickGrid(123, GAME_BOY)
    # 4194304/70224 = 262144/4389 Hz: 262144 ticks take 4389 s, to the nanosecond.
    assert grid.deadline_ns(262_144) == 123 + 4389 * 10**9
    assert grid.deadline_ns(262_144 * 4_000) == 123 + 4389 * 4_000 * 10**9
    assert grid.deadline_ns(10**9) == 123 + 10**9 * 10**9 * 4389 // 262_144
    assert grid.period_ns == Fraction(10**9 * 70224, 4194304)


@examples(200)
@given(rate=rates, epoch=epochs, tick=st.integers(0, 10**9))
def test_a_deadline_is_the_exact_instant_rounded_down_and_never_drifts(rate, epoch, tick):
    grid = TickGrid(epoch, rate)
    exact = epoch + tick * Fraction(10**9) / rate
    assert 0 <= exact - grid.deadline_ns(tick) < 1


@examples(200)
@given(rate=rates, epoch=epochs, tick=st.integers(0, 10**9))
def test_tick_at_is_the_inverse_of_deadline(rate, epoch, tick):
    grid = TickGrid(epoch, rate)
    deadline_ns = grid.deadline_ns(tick)
    assert grid.tick_at(deadline_ns) == tick
    assert grid.tick_at(deadline_ns - 1) == tick - 1


@examples(100)
@given(rate=rates, epoch=epochs, offset_ns=st.integers(-(10**12), 10**15))
def test_tick_at_is_the_last_tick_that_is_not_in_the_future(rate, epoch, offset_ns):
    grid, now_ns = TickGrid(epoch, rate), epoch + offset_ns
    tick = grid.tick_at(now_ns)
    assert grid.deadline_ns(tick) <= now_ns < grid.deadline_ns(tick + 1)


@pytest.mark.parametrize("rate", [Fraction(0), Fraction(-60)])
def test_a_rate_that_is_not_positive_is_refused(rate):
    with pytest.raises(ValueError, match="must be positive"):
        TickGrid(0, rate)


# -- the next tick -----------------------------------------------------------------------------------------------


def test_on_time_the_next_tick_is_the_one_after_the_last():
    assert plan_next_tick(TickGrid(0, Fraction(10**8)), 4, 45) == TickPlan(5, 50, 0)


def test_late_wakeup_skips_whole_ticks_without_moving_the_grid():
    grid = TickGrid(0, Fraction(10**8))
    assert plan_next_tick(grid, 4, 73) == TickPlan(7, 70, 2)
    assert plan_next_tick(grid, 7, 74) == TickPlan(8, 80, 0)


def test_a_tick_that_is_merely_late_still_runs():
    grid = TickGrid(0, Fraction(10**8))
    assert plan_next_tick(grid, 4, 59) == TickPlan(5, 50, 0)
    assert plan_next_tick(grid, 4, 60) == TickPlan(6, 60, 1)


def test_before_the_epoch_the_first_tick_is_tick_0():
    assert plan_next_tick(TickGrid(1000, Fraction(10**8)), -1, 0) == TickPlan(0, 1000, 0)


@examples(60)
@given(rate=rates, epoch=epochs, late_periods=st.lists(st.floats(0, 6), min_size=1, max_size=60))
def test_every_tick_is_run_or_counted_as_skipped_whatever_happens(rate, epoch, late_periods):
    grid, last, now_ns, counted = TickGrid(epoch, rate), -1, 0, 0
    for late in late_periods:
        plan = plan_next_tick(grid, last, now_ns)
        assert plan.tick > last
        assert plan.deadline_ns == grid.deadline_ns(plan.tick)
        counted += 1 + plan.skipped_ticks
        last = plan.tick
        now_ns = max(now_ns, plan.deadline_ns) + int(late * grid.period_ns)
    assert counted == last + 1


# -- after an overrun --------------------------------------------------------------------------------------------


def test_stretching_runs_the_next_tick_at_once_and_says_by_how_much_it_was_put_off():
    grid = TickGrid(0, Fraction(10**8))
    assert plan_every_tick(grid, 4, 49) == TickPlan(5, 50, 0, 0)
    assert plan_every_tick(grid, 4, 50) == TickPlan(5, 50, 0, 0)
    assert plan_every_tick(grid, 4, 51) == TickPlan(5, 51, 0, 1)
    assert plan_every_tick(grid, 4, 373) == TickPlan(5, 373, 0, 323)


def test_a_stretched_grid_goes_on_from_where_it_moved_to():
    pace = TickPace(TickGrid(0, Fraction(10**8)), "stretch")
    assert pace.next_tick(-1, 0) == TickPlan(0, 0, 0, 0)
    assert pace.next_tick(0, 34) == TickPlan(1, 34, 0, 24)
    assert pace.next_tick(1, 40) == TickPlan(2, 44, 0, 0)
    assert pace.next_tick(2, 60) == TickPlan(3, 60, 0, 6)
    assert [pace.deadline_ns(tick) for tick in range(6)] == [0, 34, 44, 60, 70, 80]


def test_a_grid_that_has_moved_keeps_its_exact_rate():
    grid = TickGrid(123, GAME_BOY).later(7)
    assert grid.rate_hz == GAME_BOY
    assert [grid.deadline_ns(tick) for tick in (0, 262_144)] == [130, 130 + 4389 * 10**9]


def test_deadlines_are_remembered_for_thousands_of_moves_and_then_taken_from_the_oldest_grid():
    pace, deadlines = TickPace(TickGrid(0, Fraction(10**8)), "stretch"), []
    for tick in range(6000):
        deadlines.append(pace.next_tick(tick - 1, 13 * tick).deadline_ns)
    assert [pace.deadline_ns(tick) for tick in range(1904, 6000)] == deadlines[1904:]
    assert pace.deadline_ns(1000) == deadlines[1903] - 903 * 10


@examples(60)
@given(rate=rates, epoch=epochs, late_periods=st.lists(st.floats(0, 6), min_size=1, max_size=60))
def test_stretching_runs_every_tick_never_early_and_moves_the_grid_only_after_an_overrun(rate, epoch, late_periods):
    pace, last, now_ns, plans = TickPace(TickGrid(epoch, rate), "stretch"), -1, 0, []
    for late in late_periods:
        due_ns = pace.deadline_ns(last + 1)
        plan = pace.next_tick(last, now_ns)
        assert (plan.tick, plan.skipped_ticks) == (last + 1, 0)
        assert plan.deadline_ns == max(due_ns, now_ns)
        assert plan.stretched_ns == plan.deadline_ns - due_ns
        plans.append(plan)
        last = plan.tick
        now_ns = max(now_ns, plan.deadline_ns) + int(late * pace.grid.period_ns)
    assert [pace.deadline_ns(plan.tick) for plan in plans] == [plan.deadline_ns for plan in plans]
    for plan in plans:
        # Up to any deadline as many periods have passed as ticks: while the grid moved it stood still.
        standstill_free_ns = pace.elapsed_ns(plan.tick, plans[-1].deadline_ns)
        assert 0 <= standstill_free_ns - int((last - plan.tick) * pace.grid.period_ns) <= 1
    for before, plan in pairwise(plans):
        # Rounded down each: a gap may be a nanosecond short of the period, never more.
        assert plan.deadline_ns - before.deadline_ns - plan.stretched_ns >= int(pace.grid.period_ns)
    exact_ns = epoch + last * pace.grid.period_ns + sum(plan.stretched_ns for plan in plans)
    assert 0 <= exact_ns - plans[-1].deadline_ns < 1


def test_while_the_grid_moves_no_time_passes_on_it():
    pace = TickPace(TickGrid(0, Fraction(10**8)), "stretch")
    for tick, now_ns in enumerate((0, 34, 40, 60)):
        pace.next_tick(tick - 1, now_ns)
    # Tick 1 is due at 34 and not at 10, tick 3 at 60 and not at 54.
    assert [pace.elapsed_ns(0, at_ns) for at_ns in (0, 7, 10, 20, 34, 35, 44, 54, 57, 60, 66)] == [
        *(0, 7, 10, 10, 10, 11, 20, 30, 30, 30, 36)
    ]
    assert [pace.elapsed_ns(2, at_ns) for at_ns in (40, 44, 54, 60, 66)] == [-4, 0, 10, 10, 16]


@examples(60)
@given(rate=rates, epoch=epochs, late_periods=st.lists(st.floats(0, 6), min_size=1, max_size=60))
def test_skipping_never_moves_the_grid(rate, epoch, late_periods):
    grid = TickGrid(epoch, rate)
    pace, last, now_ns = TickPace(grid), -1, 0
    for late in late_periods:
        plan = pace.next_tick(last, now_ns)
        assert plan == plan_next_tick(grid, last, now_ns)
        assert plan.stretched_ns == 0
        last = plan.tick
        now_ns = max(now_ns, plan.deadline_ns) + int(late * grid.period_ns)
    assert pace.grid is grid
    assert pace.deadline_ns(last) == grid.deadline_ns(last)


@pytest.mark.parametrize(
    ("now_ns", "plan"),
    [(40, (4, 40, 1)), (95, (9, 90, 6)), (5_000, (9, 90, 6))],
    ids=["before the end", "in the last tick", "long after the end"],
)
def test_a_stall_to_after_the_end_of_a_run_leaves_its_last_tick_and_counts_none_beyond_it(now_ns, plan):
    pace = TickPace(TickGrid(0, Fraction(10**8)), num_ticks=10)
    assert pace.next_tick(2, now_ns) == TickPlan(*plan)
    assert pace.next_tick(9, 5_000).tick == 500, "whoever goes on after the end does so on the grid"


# -- durations and rates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fps", "rate"),
    [
        (60, Fraction(60)),
        (59.7275, Fraction(23891, 400)),
        ("59.7275", Fraction(597275, 10_000)),
        ("4194304/70224", GAME_BOY),
        (4194304 / 70224, GAME_BOY),
        (1 / 3, Fraction(1, 3)),
        (Fraction(30000, 1001), Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
    ],
)
def test_a_rate_is_exact_from_a_float_a_string_or_a_fraction(fps, rate):
    assert rate_from(fps) == rate


def test_the_game_boys_rate_as_a_float_gives_back_its_fraction_in_lowest_terms():
    rate = rate_from(4194304 / 70224)
    assert (rate.numerator, rate.denominator) == (262_144, 4389)


@pytest.mark.parametrize("fps", [0, -1.5, "0", "-60", "sixty", float("nan"), 1e-9])
def test_what_is_no_positive_rate_is_refused(fps):
    with pytest.raises(ValueError, match=r"."):
        rate_from(fps)


# -- the manual clock --------------------------------------------------------------------------------------------


def test_the_manual_clock_stands_still_until_told_and_never_goes_back():
    clock = ManualClock(5)
    assert (clock.now_ns(), clock.now_ns()) == (5, 5)
    clock.sleep_until_ns(9)
    clock.sleep_until_ns(7)
    assert clock.now_ns() == 9
    clock.advance_ns(3)
    assert clock.now_ns() == 12


def test_cpu_time_grows_with_work_seen_from_this_process_or_another_and_one_that_is_gone_has_none():
    before_ns, number = cpu_time_of_ns(os.getpid()), 0
    while cpu_time_of_ns(os.getpid()) - before_ns < 5_000_000 and number < 10**7:
        number += 1
    assert cpu_time_of_ns(os.getpid()) - before_ns >= 5_000_000
    assert 0 < thread_cpu_time_ns(threading.get_ident()) <= cpu_time_of_ns(os.getpid())
    assert cpu_time_of_ns(2**22 + 7) == 0
