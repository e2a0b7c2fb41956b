"""When who starts, tick by tick: strides, membership, unequal and hung workers, the estimate."""

import math
import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.scheduling.dispatch import Dispatcher, TickKind
from rtcore.scheduling.jobs import Answer, Job
from rtcore.scheduling.planner import Tau, make_plan
from rtcore.scheduling.schedule import Schedule, ScheduleParams, TauWindow, Times, delay_for, quantile_ns, stride_for
from tests.support.drawn import cases, examples

pytestmark = pytest.mark.unit

#: One tick a second: a tau of n * TICK_NS is n ticks.
TICK_NS = 1_000_000_000
RATE_HZ = Fraction(1)


def schedule_of(stagger="max-time", *, workers, delay=1, mean_ticks=None, **params):
    mean_ns = int((delay if mean_ticks is None else mean_ticks) * TICK_NS)
    return Schedule(ScheduleParams(stagger, RATE_HZ, delay, mean_ns, **params), workers)


class Office:
    """Workers that take `taus[worker]` ticks each, on virtual ticks. `booked` is every job in order."""

    def __init__(self, schedule, tau):
        self.schedule = schedule
        self.tau = tau if callable(tau) else lambda job: tau
        self.tick = -1
        self.out = {}
        self.booked = []

    def run(self, ticks):
        for _ in range(ticks):
            self.tick += 1
            for worker, (job, ready_tick) in list(self.out.items()):
                if ready_tick <= self.tick:
                    del self.out[worker]
                    self.schedule.complete(worker, (ready_tick - job.obs_tick) * TICK_NS)
            for job in self.schedule.book(self.tick):
                assert job.worker not in self.out, "a worker holds one job at most"
                tau = self.tau(job)
                self.out[job.worker] = (job, self.tick + tau if tau is not None else 10**9)
                self.booked.append(job)
            self.schedule.adapt()
        return self

    def lose(self, worker):
        self.out.pop(worker, None)
        return self.schedule.worker_down(worker)

    def starts(self, since=0):
        return [job.obs_tick for job in self.booked if job.obs_tick >= since]


def gaps(ticks):
    return {later - earlier for earlier, later in zip(ticks, ticks[1:], strict=False)}


# -- the arithmetic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tau_ns", "guard_ns", "delay"),
    [(0, 0, 1), (1, 0, 1), (TICK_NS, 0, 1), (TICK_NS + 1, 0, 2), (TICK_NS, 1, 2), (7 * TICK_NS, TICK_NS, 8)],
)
def test_the_delay_is_tau_and_guard_in_whole_ticks_and_at_least_one(tau_ns, guard_ns, delay):
    assert delay_for(tau_ns, RATE_HZ, guard_ns) == delay


def test_the_delay_at_the_rate_of_a_game_boy():
    assert delay_for(71_000_000, Fraction(4194304, 70224), 1_000_000) == 5


@pytest.mark.parametrize(
    ("stagger", "delay", "workers", "mean_ticks", "stride"),
    [
        ("max-time", 5, 5, 5, 1),
        ("max-time", 5, 9, 5, 1),
        ("max-time", 5, 4, 5, 2),
        ("max-time", 5, 2, 5, 3),
        ("max-time", 5, 1, 5, 5),
        ("expected-time", 9, 1, 4, 4),
        ("expected-time", 9, 3, 4, 2),
        ("expected-time", 9, 9, 4, 1),
        ("sequential", 9, 1, 4, 4),
        ("free-running", 9, 3, 4, 1),
    ],
)
def test_the_stride_spreads_the_starts_evenly(stagger, delay, workers, mean_ticks, stride):
    assert stride_for(stagger, delay, workers, mean_ticks * TICK_NS, RATE_HZ) == stride


def test_a_schedule_without_workers_is_refused():
    with pytest.raises(ValueError, match="num_workers=0"):
        schedule_of(workers=0)


# -- the four staggers -------------------------------------------------------------------------------------------


@examples(60)
@given(delay=st.integers(1, 12), spare=st.integers(0, 4))
def test_max_time_with_enough_workers_starts_one_at_every_tick(delay, spare):
    office = Office(schedule_of(workers=delay + spare, delay=delay), delay).run(60)
    assert office.starts() == list(range(60))
    assert {job.due_tick - job.obs_tick for job in office.booked} == {delay}
    assert all(job.hold for job in office.booked)
    assert office.schedule.skipped_starts == 0


@examples(80)
@given(delay=st.integers(1, 40), workers=st.integers(1, 12))
def test_max_time_with_too_few_workers_starts_every_ceil_d_by_n_ticks(delay, workers):
    office = Office(schedule_of(workers=workers, delay=delay), delay).run(6 * delay + 10)
    assert gaps(office.starts()) == {max(1, -(-delay // workers))}
    assert office.schedule.skipped_starts == 0


@examples(80)
@given(tau=st.integers(1, 40), workers=st.integers(1, 12))
def test_expected_time_starts_every_ceil_mean_by_n_ticks(tau, workers):
    office = Office(schedule_of("expected-time", workers=workers, delay=tau), tau).run(6 * tau + 10)
    assert gaps(office.starts()) == {max(1, -(-tau // workers))}
    assert not any(job.hold for job in office.booked)


@examples(40)
@given(tau=st.integers(1, 20), workers=st.integers(1, 3))
def test_sequential_has_one_job_out_and_starts_again_when_it_is_done(tau, workers):
    office = Office(schedule_of("sequential", workers=workers, delay=tau), tau)
    for _ in range(5 * tau + 5):
        office.run(1)
        assert len(office.out) == 1
    assert gaps(office.starts()) == {tau}


def test_free_running_books_every_idle_worker_at_each_tick():
    taus = {0: 2, 1: 3, 2: 5}
    office = Office(schedule_of("free-running", workers=3, delay=3), lambda job: taus[job.worker]).run(31)
    for worker, tau in taus.items():
        assert [job.obs_tick for job in office.booked if job.worker == worker] == list(range(0, 31, tau))


def test_idle_workers_take_turns():
    office = Office(schedule_of(workers=3, delay=3), 3).run(9)
    assert [job.worker for job in office.booked] == [0, 1, 2] * 3


def test_a_start_without_an_idle_worker_moves_to_the_first_tick_that_has_one_and_is_counted():
    office = Office(schedule_of(workers=2, delay=2), lambda job: 5 if job.obs_tick == 0 else 2).run(8)
    # Worker 0 is out until tick 5, worker 1 until 3 and again until 5.
    assert office.starts() == [0, 1, 3, 5, 6, 7]
    assert office.schedule.skipped_starts == 2


def test_a_skipped_tick_does_not_lose_the_start():
    schedule = schedule_of(workers=2, delay=4)
    assert schedule.stride_ticks == 2
    assert schedule.book(0) == [Job(0, 0, 4, True)]
    assert schedule.book(1) == []
    assert schedule.book(3) == [Job(1, 3, 7, True)]


# -- who is there ------------------------------------------------------------------------------------------------


def test_the_survivors_of_a_death_start_at_their_new_stride_from_the_next_tick():
    office = Office(schedule_of(workers=6, delay=6), 6).run(20)
    dead = [office.booked[-1].worker, office.booked[-2].worker, office.booked[-3].worker]
    for worker in dead:
        assert office.lose(worker).worker == worker
    assert (office.schedule.num_up, office.schedule.stride_ticks) == (3, 2)
    office.run(40)
    assert office.starts(since=20)[0] == 20
    assert gaps(office.starts(since=20)) == {2}
    assert not {job.worker for job in office.booked if job.obs_tick >= 20} & set(dead)


def test_a_death_while_idle_loses_no_job():
    schedule = schedule_of(workers=2, delay=2)
    assert schedule.worker_down(1) is None
    assert [schedule.book(tick) for tick in (0, 1)] == [[Job(0, 0, 2, True)], []]


def test_a_worker_that_is_down_twice_or_up_twice_counts_once():
    schedule = schedule_of(workers=3, delay=3)
    schedule.worker_down(2)
    schedule.worker_down(2)
    assert schedule.num_up == 2
    schedule.worker_up(2)
    schedule.worker_up(2)
    assert schedule.num_up == 3
    jobs = [job for tick in range(4) for job in schedule.book(tick)]
    assert sorted(job.worker for job in jobs) == [0, 1, 2]


def test_a_returning_worker_is_used_again_and_the_stride_shrinks_at_once():
    office = Office(schedule_of(workers=2, delay=6), 6).run(12)
    office.lose(1)
    office.run(18)
    assert gaps(office.starts(since=13)) == {6}
    office.schedule.worker_up(1)
    assert office.schedule.stride_ticks == 3
    office.run(30)
    assert gaps(office.starts(since=33)) == {3}
    assert {job.worker for job in office.booked if job.obs_tick >= 30} == {0, 1}


def test_with_every_worker_dead_nothing_is_booked_until_one_returns():
    office = Office(schedule_of(workers=1, delay=2), 2).run(5)
    office.lose(0)
    office.run(10)
    assert office.starts(since=5) == []
    office.schedule.worker_up(0)
    office.run(3)
    assert office.starts(since=5) == [15, 17]


def test_the_answer_of_a_worker_that_was_taken_out_changes_nothing():
    schedule = schedule_of(workers=2, delay=2)
    schedule.book(0)
    schedule.worker_down(0)
    schedule.complete(0, TICK_NS)
    assert len(schedule.window) == 0
    assert [job.worker for tick in range(1, 8) for job in schedule.book(tick)] == [1]


@pytest.mark.parametrize("stagger", ["max-time", "expected-time", "sequential", "free-running"])
def test_a_hung_worker_does_not_stop_the_others(stagger):
    delay = 3
    office = Office(schedule_of(stagger, workers=3, delay=delay), lambda job: None if job.worker == 0 else delay)
    limit = Schedule.OVERDUE_DELAYS * delay + 8
    office.run(limit + 1)
    assert office.schedule.num_up == 3
    office.run(1)
    assert office.schedule.num_up == 2
    office.run(40)
    later = [job for job in office.booked if job.obs_tick > limit + 1]
    # The sequential agent is one process, and stays the one that took over.
    assert {job.worker for job in later} == ({1} if stagger == "sequential" else {1, 2})
    wanted_gaps = {"max-time": {2}, "expected-time": {2}, "sequential": {3}, "free-running": {0, 3}}[stagger]
    assert gaps([job.obs_tick for job in later[3:]]) <= wanted_gaps | {1}
    assert len(later) >= 40 // delay


def test_a_hung_worker_counts_again_when_its_answer_comes_after_all():
    office = Office(schedule_of(workers=3, delay=3, adapt=False), lambda job: 30 if job.obs_tick == 0 else 3)
    office.run(25)
    assert (office.schedule.num_up, office.schedule.stride_ticks) == (2, 2)
    office.run(20)
    assert office.schedule.num_up == 3
    assert {job.worker for job in office.booked if job.obs_tick > 30} == {0, 1, 2}


def test_when_a_hung_worker_counts_again_the_stride_shrinks_with_it():
    office = Office(schedule_of(workers=3, delay=3, adapt=False), lambda job: 30 if job.obs_tick == 0 else 3)
    office.run(45)
    assert (office.schedule.num_up, office.schedule.stride_ticks) == (3, 1)
    assert gaps(office.starts(since=35)) == {1}


# -- unequal devices ---------------------------------------------------------------------------------------------


def test_a_worker_three_times_as_fast_gets_about_three_times_the_jobs():
    taus = {0: 4, 1: 12}
    office = Office(schedule_of(workers=2, delay=12), lambda job: taus[job.worker]).run(500)
    late = [job.worker for job in office.booked if job.obs_tick >= 300]
    assert office.schedule.stride_ticks == 3
    assert 2 < late.count(0) / late.count(1) < 4


def test_workers_that_differ_by_little_share_evenly():
    taus = {0: 10, 1: 12}
    office = Office(schedule_of(workers=2, delay=12), lambda job: taus[job.worker]).run(400)
    late = [job.worker for job in office.booked if job.obs_tick >= 200]
    assert office.schedule.stride_ticks == 6
    assert abs(late.count(0) - late.count(1)) <= 1


# -- the estimate ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outlier_at", [10, 100, 300])
def test_one_outlier_does_not_change_the_delay(outlier_at):
    office = Office(schedule_of(workers=5, delay=5), lambda job: 17 if job.obs_tick == outlier_at else 5).run(700)
    assert office.schedule.delay_ticks == 5
    assert office.schedule.replans == 0


def test_a_lasting_slow_down_raises_the_delay_to_what_it_takes_now():
    office = Office(schedule_of(workers=10, delay=5), lambda job: 5 if job.obs_tick < 100 else 9).run(500)
    assert office.schedule.delay_ticks == 9
    assert office.schedule.replans == 1


def test_a_lasting_speed_up_lowers_the_delay_once_the_window_has_forgotten_the_slow_ones():
    office = Office(schedule_of(workers=10, delay=9), lambda job: 9 if job.obs_tick < 100 else 5)
    office.run(300)
    assert office.schedule.delay_ticks == 9
    office.run(300)
    assert office.schedule.delay_ticks == 5


def test_a_shorter_delay_that_is_planned_now_and_then_is_taken_although_a_longer_one_is_planned_in_between():
    """About a tenth of the jobs take long. By that the planner wavers between 3 and 9 ticks; of a delay of 5 it makes
    neither, and 9 was taken as a reason not to change to 3 (`rtcore-torture sim`, seed 187)."""
    draw = random.Random(1)

    def tau(job):
        return 9 if draw.random() < (0.07 if job.obs_tick // 100 % 3 == 0 else 0.15) else 3

    office = Office(schedule_of(workers=8, delay=5, chunk=2), tau).run(4_000)
    assert (office.schedule.delay_ticks, office.schedule.replans) == (3, 1)


def test_a_long_delay_is_left_for_the_one_that_would_be_planned_also_where_that_costs_a_few_actions():
    """A longer one was right while a worker was away, and stayed when it was back (`rtcore-torture sim`, seed 1638)."""
    office = Office(schedule_of(workers=8, delay=17, on_late="drop"), lambda job: 17 if job.worker % 2 else 7)
    office.run(4_000)
    assert (office.schedule.delay_ticks, office.schedule.replans) == (8, 1)
    assert office.schedule.times().delay() == 8


def test_a_speed_up_smaller_than_twice_the_guard_changes_nothing():
    office = Office(schedule_of(workers=6, delay=6, guard_ns=TICK_NS), 5).run(700)
    assert (office.schedule.delay_ticks, office.schedule.replans) == (6, 0)


def test_without_adaptation_the_delay_stays():
    office = Office(schedule_of(workers=10, delay=5, adapt=False), 9).run(500)
    assert (office.schedule.delay_ticks, office.schedule.replans) == (5, 0)


def test_the_ratchet_takes_the_longest_time_ever_seen_and_never_lowers():
    office = Office(
        schedule_of(workers=12, delay=5, tau_estimate="ratchet"), lambda job: 11 if job.obs_tick == 40 else 3
    )
    delays = []
    for _ in range(800):
        delays.append(office.run(1).schedule.delay_ticks)
    assert delays == sorted(delays)
    assert (delays[0], delays[-1]) == (5, 11)


@examples(40)
@given(before=st.integers(2, 12), after=st.integers(1, 11), workers=st.integers(1, 14), death=st.integers(300, 460))
def test_after_a_lowering_no_two_actions_are_due_at_one_tick(before, after, workers, death):
    office = Office(schedule_of(workers=workers, delay=before), lambda job: before if job.obs_tick < 40 else after)
    office.run(death)
    if workers > 1:
        office.lose(workers - 1)
    office.run(40 * before)
    dues = [job.due_tick for job in office.booked]
    assert len(dues) == len(set(dues))
    assert dues == sorted(dues)


def test_after_a_raise_no_two_actions_are_due_at_one_tick():
    office = Office(schedule_of(workers=10, delay=4), lambda job: 4 if job.obs_tick < 60 else 9).run(400)
    dues = [job.due_tick for job in office.booked]
    assert office.schedule.delay_ticks == 9
    assert len(dues) == len(set(dues))


@pytest.mark.parametrize("stall", [30, 60, 180])
@pytest.mark.parametrize(("workers", "tau"), [(4, 7), (2, 12), (6, 24), (12, 45)])
def test_a_stall_changes_the_stride_only_while_its_worker_is_away(workers, tau, stall):
    taus = {100: tau * 4 + 8 + stall}
    office = Office(
        schedule_of(workers=workers, delay=tau), lambda job: taus.pop(100, tau) if job.obs_tick >= 100 else tau
    )
    before = office.run(100).schedule.stride_ticks
    office.run(2 * (tau * 4 + 8 + stall))
    assert (office.schedule.num_up, office.schedule.stride_ticks) == (workers, before)
    office.run(1200)
    assert (office.schedule.stride_ticks, office.schedule.replans) == (before, 0)


@pytest.mark.parametrize("stagger", ["max-time", "expected-time"])
def test_a_stall_of_all_workers_at_once_changes_nothing_once_it_is_over(stagger):
    office = Office(schedule_of(stagger, workers=7, delay=7), lambda job: 187 if 600 <= job.obs_tick < 607 else 7).run(
        900
    )
    assert (office.schedule.delay_ticks, office.schedule.stride_ticks, office.schedule.replans) == (7, 1, 0)


# -- the plan that is kept ---------------------------------------------------------------------------------------


def lognormal_office(median, sigma, workers, seed, *, delay, adapt=True):
    rng = random.Random(seed)
    mean_ticks = median * math.exp(sigma**2 / 2)
    schedule = schedule_of(workers=workers, delay=delay, mean_ticks=mean_ticks, adapt=adapt)
    return Office(schedule, lambda job: max(1, math.ceil(rng.lognormvariate(math.log(median), sigma))))


def acted_of(office, ticks):
    """The share of `ticks` further ticks with an action, as the dispatcher decides."""
    dispatcher, kinds = Dispatcher(), []
    for job, _ in office.out.values():
        dispatcher.expect(job)
    for _ in range(ticks):
        before = dict(office.out)
        office.run(1)
        for job, ready in before.values():
            if ready <= office.tick:
                dispatcher.offer(job, Answer(obs_tick=job.obs_tick, episode=0), office.tick)
        kinds.append(dispatcher.decide(office.tick).kind)
        for worker, (job, _) in office.out.items():
            if before.get(worker, (None,))[0] is not job:
                dispatcher.expect(job)
        dispatcher.ended.clear()
    return kinds.count(TickKind.ACTED) / (len(kinds) - kinds.count(TickKind.LEAD_IN))


def plan_for(median, sigma, workers, seed):
    rng = random.Random(1000 + seed)
    ordered = sorted(int(rng.lognormvariate(math.log(median), sigma) * TICK_NS) for _ in range(256))
    return Times("max-time", ordered, (), workers, RATE_HZ).fit()


def combinations(count):
    rng = random.Random(5)
    return [(rng.uniform(1.2, 12), rng.uniform(0.05, 0.6), rng.randint(1, 14), seed) for seed in range(count)]


@pytest.mark.drawn
def test_over_a_hundred_kinds_of_times_what_the_plan_says_is_acted_on_is_what_the_adapting_schedule_acts_on():
    wrong = []
    for median, sigma, workers, seed in combinations(cases(100)):
        draw = random.Random(seed).lognormvariate
        jobs = round(2000 * min(1, workers / median))
        taus = [int(draw(math.log(median), sigma) * TICK_NS) for _ in range(jobs)]
        tau = Tau.of(taus, [0])
        plan = make_plan(
            "max-time",
            tau,
            RATE_HZ,
            workers=workers,
            max_workers=workers,
            guard_ns=0,
            device_parallelism=math.inf,
            came_ns=taus,
        )
        coming = iter(taus + taus)
        office = Office(
            schedule_of(workers=workers, delay=plan.delay_ticks, mean_ticks=tau.usual_ns / TICK_NS),
            lambda job, coming=coming: max(1, math.ceil(next(coming) / TICK_NS)),
        )
        acted = acted_of(office, jobs * plan.stride_ticks)
        if abs(acted - plan.acted_fraction) > 0.01:
            wrong.append((median, sigma, workers, plan.acted_fraction, acted))
    assert wrong == []


@pytest.mark.drawn
@pytest.mark.parametrize("factor", [0.5, 2, 3])
def test_a_wrong_delay_is_left_for_what_the_planner_would_make_of_the_same_times(factor):
    worse = []
    for median, sigma, workers, seed in combinations(cases(12)):
        delay = plan_for(median, sigma, workers, seed).delay_ticks
        office = lognormal_office(median, sigma, workers, seed, delay=max(1, round(delay * factor)))
        office.run(600 + 300 * office.schedule.stride_ticks)
        planned = lognormal_office(median, sigma, workers, seed + 7, delay=delay, adapt=False).run(600)
        planned_acted, acted = acted_of(planned, 2500), acted_of(office, 2500)
        if acted < planned_acted - 0.03:
            worse.append((median, sigma, workers, planned_acted, acted, delay, office.schedule.delay_ticks))
    assert worse == []


@examples(60)
@given(
    taus=st.lists(st.integers(1, 40 * TICK_NS), min_size=1, max_size=60),
    workers=st.integers(1, 20),
    guard_ns=st.integers(0, TICK_NS),
)
def test_no_delay_that_the_fit_considers_is_worth_more_than_the_one_it_takes(taus, workers, guard_ns):
    times = Times("max-time", sorted(taus), (), workers, RATE_HZ, guard_ns)
    fit = times.fit()
    assert fit.stride_ticks == stride_for("max-time", fit.delay_ticks, workers, 1, RATE_HZ)
    # What is played begins and ends with an action: it may hold one more than its length has strides.
    assert 0 <= fit.acted_fraction <= 1 / fit.stride_ticks + 1e-3
    for share in (0.5, 0.75, 0.9):
        stride = -(-delay_for(quantile_ns(sorted(taus), share), RATE_HZ) // workers)
        assert (
            workers * stride > fit.delay_ticks or times.worth(workers * stride) <= times.worth(fit.delay_ticks) + 1e-9
        )


@examples(50)
@given(tau=st.integers(1, 60), workers=st.integers(1, 20), stall=st.integers(1, 10**6), samples=st.integers(9, 60))
def test_times_that_are_all_alike_but_one_fit_as_without_it(tau, workers, stall, samples):
    ordered = [tau * TICK_NS] * (samples - 1)
    stalled = [*ordered, (5 * tau + stall) * TICK_NS]
    for stagger in ("max-time", "expected-time"):
        fits = {Times(stagger, times, (), workers, RATE_HZ).fit()[:2] for times in (ordered, stalled)}
        assert len(fits) == 1


@examples(60)
@given(
    stagger=st.sampled_from(["max-time", "expected-time", "sequential", "free-running"]),
    workers=st.integers(1, 9),
    delay=st.integers(1, 20),
    taus=st.lists(st.integers(1, 60), min_size=1, max_size=12),
    turns=st.lists(st.tuples(st.integers(0, 8), st.integers(1, 90)), max_size=12),
    on_late=st.sampled_from(["apply", "drop"]),
)
def test_whatever_happens_jobs_are_booked_by_the_rules(stagger, workers, delay, taus, turns, on_late):
    """Any times, workers that go and come at any tick: no worker twice, no tick twice, and nobody is forgotten."""
    schedule = schedule_of(stagger, workers=workers, delay=delay, on_late=on_late)
    office = Office(schedule, lambda job: taus[(7 * job.obs_tick + job.worker) % len(taus)])
    down = set()
    for place, ticks in turns:
        worker = place % workers
        if worker in down:
            schedule.worker_up(worker)
        else:
            office.lose(worker)
        down ^= {worker}
        office.run(ticks)
        assert schedule.delay_ticks >= 1
        assert schedule.stride_ticks >= 1
        assert not down & {job.worker for job, _ in office.out.values()}
    for worker in down:
        schedule.worker_up(worker)
    before = len(office.booked)
    office.run(40 * (max(taus) + delay))
    assert len(office.booked) > before
    if stagger == "max-time":
        dues = [job.due_tick for job in office.booked]
        assert dues == sorted(set(dues))
    if stagger != "sequential":
        assert {job.worker for job in office.booked[before:]} == set(range(workers))


# -- the window --------------------------------------------------------------------------------------------------


@examples(60)
@given(taus=st.lists(st.integers(0, 50), min_size=1, max_size=80), size=st.integers(1, 20), q=st.floats(0, 1))
def test_the_window_knows_the_quantiles_of_the_last_samples(taus, size, q):
    window = TauWindow(size)
    for tau in taus:
        window.add(tau)
    recent = sorted(taus[-size:])
    assert len(window) == len(recent)
    assert quantile_ns(window.ordered_ns, q) == recent[min(len(recent) - 1, int(q * len(recent)))]
    assert list(window.ordered_ns) == recent
    assert window.max_ns == max(taus)


def test_an_empty_window_says_nought():
    window = TauWindow(4)
    assert (quantile_ns(window.ordered_ns, 0.5), window.max_ns, list(window.ordered_ns)) == (0, 0, [])
