"""How many workers, which delay, which stride, or why not: before the run."""

import json
import math
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.errors import ConfigError
from rtcore.processes.rehearsal import Growth, Round
from rtcore.scheduling.planner import Plan, Tau, make_plan
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

MS = 1_000_000
HZ_100 = Fraction(100)


def tau_of(mean_ms, p99_ms=None, cost_ms=0):
    p99_ms = mean_ms if p99_ms is None else p99_ms
    return Tau(mean_ms * MS, mean_ms * MS, p99_ms * MS, p99_ms * MS, cost_ms * MS, 100)


def plan_of(tau, *, stagger="max-time", workers=None, max_workers=64, guard_ms=0, parallelism=math.inf, **chunks):
    return make_plan(
        stagger,
        tau,
        HZ_100,
        workers=workers,
        max_workers=max_workers,
        guard_ns=guard_ms * MS,
        device_parallelism=parallelism,
        **chunks,
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


@examples(100)
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
    assert plan.acted_fraction == pytest.approx(1 / 5.02, rel=1e-3)  # two of a hundred take 6 ticks


def test_free_running_acts_all_at_once_every_delay():
    plan = plan_of(tau_of(41), stagger="free-running", workers=4)
    assert plan.acted_fraction == pytest.approx(1 / 5)


def test_chunks_fill_the_ticks_between_two_actions_and_no_more():
    assert plan_of(tau_of(60), workers=2, chunk=2).acted_fraction == pytest.approx(2 / 3)
    assert plan_of(tau_of(60), workers=2, chunk=5).acted_fraction == 1.0


@pytest.mark.parametrize(
    ("replan_every", "workers", "stride"), [(0, 1, 7), (16, 1, 16), (7, 1, 7), (4, 2, 4), (2, 4, 2), (1, 7, 1)]
)
def test_a_wished_replanning_interval_takes_as_few_workers_as_it_needs(replan_every, workers, stride):
    plan = plan_of(tau_of(70), chunk=16, replan_every=replan_every)
    assert (plan.delay_ticks, plan.workers, plan.stride_ticks) == (7, workers, stride)
    assert plan.acted_fraction == 1.0


def test_given_workers_replan_no_more_often_than_is_wished():
    assert plan_of(tau_of(70), workers=7, chunk=16, replan_every=5).stride_ticks == 5
    assert plan_of(tau_of(70), workers=1, chunk=16, replan_every=5).stride_ticks == 7


def test_a_chunk_from_the_frame_has_fewer_actions_left_so_that_more_workers_are_needed():
    """Seven ticks after its frame, six of ten actions are past: the other four reach up to the next start but one."""
    plan = plan_of(tau_of(70), chunk=10, chunk_from="frame")
    assert (plan.usable_chunk, plan.workers, plan.stride_ticks, plan.acted_fraction) == (4, 2, 4, 1.0)
    assert "its first 6 of 10 actions are past" in " ".join(plan.remarks())
    assert plan_of(tau_of(70), workers=1, chunk=10, chunk_from="frame").acted_fraction == pytest.approx(4 / 7)


def test_a_chunk_that_is_over_before_it_is_due_is_refused():
    assert plan_of(tau_of(70), chunk=7, chunk_from="frame").usable_chunk == 1
    with pytest.raises(ConfigError, match="expected a chunk of at least 7"):
        plan_of(tau_of(70), chunk=6, chunk_from="frame")


def test_a_chunk_that_is_over_before_it_is_replaced_is_refused():
    with pytest.raises(ConfigError, match="expected 4 at most"):
        plan_of(tau_of(70), chunk=10, chunk_from="frame", replan_every=5)


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


@examples(100)
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


# -- what is true of the times -----------------------------------------------------------------------------------


def test_the_p99_is_the_p99_and_what_the_delay_is_made_for_is_named_beside_it():
    tau = Tau.of([50 * MS] * 90 + [400 * MS] * 10, [1])
    plan = plan_of(tau, workers=5)
    assert (tau.p99_ns, tau.planned_ns, plan.delay_ticks) == (400 * MS, 50 * MS, 5)
    assert plan.to_json()["tau_ms"]["planned_for"] == 50.0
    assert "p99 400.0 ms" in plan.sentence("Tiny")
    assert "The delay is made for p75 (50.0 ms)" in plan.sentence("Tiny")
    assert 0.4 < plan.acted_fraction < 0.6  # one in ten is late, and keeps its worker for eight times as long


def test_a_slow_worker_is_named_and_its_late_actions_are_in_the_plan():
    by_worker = {worker: [80 * MS] * 10 for worker in range(4)} | {4: [160 * MS] * 5}
    taus = [tau for times in by_worker.values() for tau in times]
    plan = plan_of(Tau.of(taus, [0], by_worker), workers=5)
    assert plan.slow_workers == (4,)
    assert plan.acted_fraction < 0.6
    assert "Slow: worker 4 (160.0 ms)" in plan.sentence("Tiny")
    assert plan.to_json()["slow_workers"] == [4]
    assert plan.to_json()["tau_by_worker_ms"] == [80.0] * 4 + [160.0]


def test_workers_that_are_alike_are_not_called_slow():
    by_worker = {worker: [(80 + worker) * MS] * 10 for worker in range(5)}
    plan = plan_of(Tau.of([tau for times in by_worker.values() for tau in times], [0], by_worker), workers=9)
    assert (plan.slow_workers, "Slow" in plan.sentence("Tiny")) == ((), False)


def test_a_plan_survives_the_way_through_text():
    plan = plan_of(Tau.of([50 * MS, 60 * MS], [1], {0: [50 * MS], 1: [60 * MS]}), chunk=3)
    assert Plan.from_text(json.loads(json.dumps(plan.to_text()))) == plan


# -- chunks ------------------------------------------------------------------------------------------------------


def test_auto_takes_no_more_workers_than_it_takes_for_a_chunk_to_reach_to_the_next():
    plan = plan_of(tau_of(300), chunk=16)
    assert (plan.workers, plan.stride_ticks, plan.acted_fraction, plan.limit) == (2, 15, 1.0, "")
    assert plan_of(tau_of(300), chunk=100).workers == 1


def test_actions_of_a_chunk_that_nobody_will_apply_are_told():
    sentence = plan_of(tau_of(60), workers=6, chunk=16).sentence("Tiny")
    assert "15 of 16 actions of a chunk are replaced by newer ones" in sentence
    assert "Action 0 of a chunk is for the tick it is due at, 6 ticks after its frame" in sentence
    assert "chunk" not in plan_of(tau_of(60), workers=6).sentence("Tiny")


def test_a_rehearsal_whose_time_was_up_is_told_with_what_its_p99_is():
    short = replace(Tau.of([5 * MS, 6 * MS, 9 * MS], [1]), wanted_samples=40)
    remarks = plan_of(short).remarks()
    assert "up after 3 of 40 inferences: its p99 is the longest of 3" in remarks[0]
    assert not plan_of(replace(short, wanted_samples=3)).remarks()


# -- growing, with auto ------------------------------------------------------------------------------------------


def grown(wanted_of, answers_of, first=1, seconds_a_round=1, rate_hz=1e6):
    """Rounds until one is kept: (the most workers, those kept, why)."""
    growth, workers, rounds = Growth(rate_hz), first, 0
    while True:
        rounds += 1
        tried = Round(workers, tau_of(10), answers_of(workers))
        goal = growth.after(tried, wanted_of(workers), elapsed_ns=rounds * seconds_a_round * 10**9)
        if not isinstance(goal, int):
            return workers, goal.workers, growth.why
        assert workers < goal <= 2 * workers
        workers = goal


def test_workers_are_added_while_they_answer_more_often():
    assert grown(lambda _: 7, lambda workers: 10 * workers) == (7, 7, "")


def test_a_machine_whose_cpus_are_full_gets_its_last_doubling_back():
    """Each further worker makes all others slower: any number of them calls for three times as many."""
    most, kept, why = grown(lambda workers: 3 * workers, lambda workers: 10 * min(workers, 4))
    assert (most, kept) == (8, 4)
    assert "the CPUs are full" in why


def test_who_answers_every_tick_is_not_taken_for_a_machine_whose_cpus_are_full():
    """Six of 115 ms answer 52 times a second; with eight each tick is answered, and there is nothing more to answer."""
    assert grown(lambda _: 8, lambda workers: min(8.7 * workers, 59.73), first=6, rate_hz=59.73) == (8, 8, "")
    assert grown(lambda _: 9, lambda workers: min(8.7 * workers, 59.73), first=7, rate_hz=59.73) == (9, 9, "")


def test_planning_ends_in_time_and_says_so():
    most, kept, why = grown(lambda workers: 3 * workers, lambda workers: 10 * workers, seconds_a_round=6)
    assert (most, kept) == (2, 2)
    assert "planned after 12 s" in why


@examples(200)
@given(
    cpus=st.floats(0.2, 64),
    busy=st.integers(0, 16),
    cost_ms=st.floats(1, 500),
    pad_ms=st.floats(0, 500),
    first=st.integers(1, 20),
)
def test_never_more_than_twice_the_workers_that_are_kept_were_started(cpus, busy, cost_ms, pad_ms, first):
    """CPUs shared fairly with `busy` loops of somebody else."""

    def tau_ms(workers):
        share = min(1.0, cpus / (workers + busy))
        return pad_ms + cost_ms / share

    def answers(workers):
        return 1000 * workers / tau_ms(workers)

    def wanted(workers):
        return math.ceil(tau_ms(workers) / 10)

    most, kept, why = grown(wanted, answers, first)
    assert most <= 2 * kept or kept == most == first
    assert kept >= min(first, most)
    assert why or wanted(kept) <= kept
