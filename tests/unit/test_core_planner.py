"""How many workers, which delay, which stride, or why not: before the run."""

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtcore.planner import Tau, make_plan

pytestmark = pytest.mark.unit

MS = 1_000_000
HZ_100 = Fraction(100)


def tau_of(mean_ms, p99_ms=None, cost_ms=0):
    p99_ms = mean_ms if p99_ms is None else p99_ms
    return Tau(mean_ms * MS, mean_ms * MS, p99_ms * MS, p99_ms * MS, cost_ms * MS, 100)


def plan_of(tau, *, stagger="max-time", workers=None, max_workers=64, guard_ms=0, parallelism=math.inf, chunk=1):
    return make_plan(
        stagger,
        tau,
        HZ_100,
        workers=workers,
        max_workers=max_workers,
        guard_ns=guard_ms * MS,
        device_parallelism=parallelism,
        chunk=chunk,
    )


# -- enough workers ----------------------------------------------------------------------------------------------


def test_auto_takes_as_many_workers_as_the_delay_has_ticks():
    plan = plan_of(tau_of(41, p99_ms=58))
    assert (plan.workers, plan.delay_ticks, plan.stride_ticks) == (6, 6, 1)
    assert (plan.min_workers_every_tick, plan.acted_fraction, plan.limit) == (6, 1.0, "")


def test_the_guard_goes_into_the_delay():
    assert plan_of(tau_of(60)).delay_ticks == 6
    assert plan_of(tau_of(60), guard_ms=1).delay_ticks == 7


def test_expected_time_is_planned_from_the_mean_but_manned_for_the_slow_ones():
    plan = plan_of(tau_of(41, p99_ms=58), stagger="expected-time")
    assert (plan.workers, plan.delay_ticks, plan.stride_ticks) == (6, 5, 1)


@settings(deadline=None, max_examples=100)
@given(p99_ms=st.integers(1, 2000), workers=st.integers(1, 64))
def test_given_workers_act_every_ceil_d_by_n_ticks(p99_ms, workers):
    plan = plan_of(tau_of(p99_ms), workers=workers)
    delay = max(1, math.ceil(p99_ms / 10))
    assert (plan.workers, plan.delay_ticks) == (workers, delay)
    assert plan.stride_ticks == max(1, math.ceil(delay / workers))
    assert plan.acted_fraction == 1 / plan.stride_ticks
    assert (plan.limit == "") == (plan.stride_ticks == 1)


def test_too_few_workers_are_told_how_many_it_takes():
    plan = plan_of(tau_of(60), workers=2)
    assert plan.limit == "An action every tick takes 6 workers."
    assert plan.stride_ticks == 3


def test_a_maximum_number_of_workers_is_kept_and_named():
    plan = plan_of(tau_of(200), max_workers=8)
    assert (plan.workers, plan.stride_ticks) == (8, 3)
    assert "takes 20 workers" in plan.limit
    assert "--max-workers allows 8" in plan.limit


def test_sequential_has_one_worker_and_acts_once_a_tau():
    plan = plan_of(tau_of(41, p99_ms=58), stagger="sequential")
    assert (plan.workers, plan.stride_ticks, plan.delay_ticks, plan.limit) == (1, 5, 5, "")
    assert plan.acted_fraction == pytest.approx(1 / 5)


def test_free_running_acts_all_at_once_every_delay():
    plan = plan_of(tau_of(41), stagger="free-running", workers=4)
    assert plan.acted_fraction == pytest.approx(1 / 5)


def test_chunks_fill_the_ticks_between_two_actions_and_no_more():
    assert plan_of(tau_of(60), workers=2, chunk=2).acted_fraction == pytest.approx(2 / 3)
    assert plan_of(tau_of(60), workers=2, chunk=5).acted_fraction == 1.0


# -- a device that is full ---------------------------------------------------------------------------------------


def test_more_workers_than_the_device_can_serve_are_not_planned():
    """17 ms of one CPU each, at 10 ms a tick: a start every 2 ticks fills the 85% that may be used."""
    plan = plan_of(tau_of(60, cost_ms=17), parallelism=1)
    assert (plan.workers, plan.stride_ticks) == (3, 2)
    assert "Every tick is out of reach" in plan.limit
    assert "17.0 ms" in plan.limit
    assert "every 2 ticks" in plan.limit


def test_a_device_with_room_for_all_sets_no_limit():
    plan = plan_of(tau_of(60, cost_ms=17), parallelism=2)
    assert (plan.workers, plan.stride_ticks, plan.limit) == (6, 1, "")


def test_the_share_left_to_the_world_counts():
    """9 ms of every 10 would fit, were nothing else running."""
    assert plan_of(tau_of(60, cost_ms=9), parallelism=1).stride_ticks == 2
    assert plan_of(tau_of(60, cost_ms=8), parallelism=1).stride_ticks == 1


# -- in words ----------------------------------------------------------------------------------------------------


def test_the_sentence_says_it_all():
    sentence = plan_of(tau_of(41, p99_ms=58)).sentence("Tiny")
    assert sentence == (
        "Tiny: tau p50 41.0 / p99 58.0 ms; 6 workers, max-time: an action every tick, delay 6 ticks (60 ms)"
    )
    assert (
        plan_of(tau_of(60), workers=1)
        .sentence("Tiny")
        .endswith(
            "1 worker, max-time: an action every 6 ticks, delay 6 ticks (60 ms). An action every tick takes 6 workers."
        )
    )


def test_the_json_has_the_plan_and_the_times_it_rests_on():
    fields = plan_of(tau_of(41, p99_ms=58)).to_json()
    assert fields["workers"] == 6
    assert fields["tau_ms"]["p99"] == 58.0
    assert fields["acted_fraction"] == 1.0


# -- what the rehearsal measured ---------------------------------------------------------------------------------


def test_tau_of_a_hundred_samples():
    tau = Tau.of([MS * n for n in range(100, 200)], [7, 9, 8])
    assert tau.samples == 100
    assert tau.mean_ns == 149_500_000
    assert tau.p50_ns == 149 * MS
    assert tau.p99_ns >= 198 * MS
    assert tau.max_ns == 199 * MS
    assert tau.cost_ns == 8


def test_tau_of_one_sample_is_that_sample():
    tau = Tau.of([5], [])
    assert (tau.mean_ns, tau.p50_ns, tau.p99_ns, tau.max_ns, tau.cost_ns, tau.samples) == (5, 5, 5, 5, 0, 1)


@settings(deadline=None, max_examples=100)
@given(taus=st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_the_statistics_of_tau_are_in_order(taus):
    tau = Tau.of(taus, taus)
    assert min(taus) <= tau.p50_ns <= tau.p99_ns <= tau.max_ns == max(taus)
    assert tau.mean_ns == sum(taus) // len(taus)


@pytest.mark.parametrize("samples", [8, 9, 10, 16, 32, 64, 100])
def test_one_hiccup_is_not_planned_for(samples):
    tau = Tau.of([50 * MS] * (samples - 1) + [500 * MS], [1])
    assert (tau.planned_ns, tau.max_ns) == (50 * MS, 500 * MS)


def test_a_tail_that_is_usual_is_planned_for():
    tau = Tau.of([50 * MS] * 60 + [70 * MS] * 40, [1])
    assert tau.planned_ns == 70 * MS
