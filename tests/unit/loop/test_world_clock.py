"""The world's clock, on devices that are made up: jitter, drift, lost cycles, silence, time stamps of another clock."""

import random
import time
from fractions import Fraction

import gymnasium
import numpy as np
import pytest

from rtcore.clock import ManualClock, TickGrid
from rtcore.errors import ConfigError, EnvironmentFailed, EnvironmentHung
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.world import GymnasiumWorld
from rtcore.loop.world_clock import Cycles, WorldPace, even_grid, measure_cycles
from rtcore.scheduling.dispatch import Dispatcher
from rtcore.scheduling.schedule import Schedule, ScheduleParams

pytestmark = pytest.mark.unit

PERIOD_NS = 10_000_000
HZ = Fraction(100)
PATIENCE_NS = 1_000_000_000
BEGINS_NS = 5_000_000_000


class Device(gymnasium.Env):
    """A world whose device gives a cycle every 10 ms of a manual clock."""

    observation_space = gymnasium.spaces.Box(0, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, clock, *, drift_ppm=0, jitter_ns=0, lost=(), stops_at=None, known_after_ns=0):
        self.clock, self.lost, self.stops_at, self.known_after_ns = clock, frozenset(lost), stops_at, known_after_ns
        self.period_ns = PERIOD_NS * (1 + drift_ppm / 1e6)
        noise = random.Random(4)
        self.stamps = [
            BEGINS_NS + round(number * self.period_ns) + noise.randint(-jitter_ns, jitter_ns) for number in range(8000)
        ]
        self.returned = -1

    def newest(self):
        """Of the cycles that are known by now; -1: none."""
        now_ns, found = self.clock.now_ns(), int((self.clock.now_ns() - BEGINS_NS) / self.period_ns) + 1
        while found >= 0 and (
            found in self.lost or self.stamps[found] + self.known_after_ns > now_ns or self.has_stopped(found)
        ):
            found -= 1
        return found

    def has_stopped(self, number):
        return self.stops_at is not None and number >= self.stops_at


class Waits(Device):
    def wait_cycle(self, timeout_s):
        if self.newest() <= self.returned:
            ends_ns, coming = self.clock.now_ns() + round(timeout_s * 1e9), self.returned + 1
            while coming in self.lost:
                coming += 1
            known_ns = self.stamps[coming] + self.known_after_ns
            self.clock.sleep_until_ns(ends_ns if self.has_stopped(coming) else min(ends_ns, known_ns))
        if self.newest() <= self.returned:
            return None
        self.returned = self.newest()
        return self.stamps[self.returned]


class Stamps(Device):
    def cycle_stamp_ns(self):
        return self.stamps[self.newest()] if self.newest() >= 0 else None


class Drive:
    """Ticks of a pace, each taking `work_ns` of the clock."""

    def __init__(self, kind, *, work_ns=1_000_000, num_ticks=None, **device):
        self.clock = ManualClock(BEGINS_NS - PERIOD_NS)
        self.device = kind(self.clock, **device)
        self.cycles = Cycles(gymnasium.wrappers.PassiveEnvChecker(self.device), self.clock, PATIENCE_NS)
        self.errors, self.lost, self.periods = [], [], []
        self.pace = WorldPace(
            self.cycles, self.clock, HZ, BEGINS_NS - 1_000_000, num_ticks=num_ticks, on_cycle=self.took
        )
        self.work_ns, self.tick, self.plans, self.starts = work_ns, -1, [], []

    def took(self, error_ns, lost, period_ns):
        self.errors.append(error_ns)
        self.lost.append(lost)
        self.periods.append(period_ns)

    def run(self, ticks, slow=()):
        """`slow`: how long these ticks take instead [ns]."""
        slow = dict(slow)
        for _ in range(ticks):
            while not self.pace.await_cycle(self.tick):
                pass
            plan = self.pace.next_tick(self.tick, self.clock.now_ns())
            self.clock.sleep_until_ns(plan.deadline_ns)
            self.plans.append(plan)
            self.starts.append(self.clock.now_ns())
            self.tick = plan.tick
            self.clock.advance_ns(slow.get(self.tick, self.work_ns))
        return self

    @property
    def drift_ppm(self):
        return (self.periods[-1] / PERIOD_NS - 1) * 1e6


both = pytest.mark.parametrize("kind", [Waits, Stamps])


@both
def test_each_tick_is_a_cycle_and_none_begins_before_it_is_due(kind):
    drive = Drive(kind, jitter_ns=300_000).run(500)
    assert [plan.tick for plan in drive.plans] == list(range(500))
    assert not any(plan.skipped_ticks for plan in drive.plans)
    assert all(start >= plan.deadline_ns for start, plan in zip(drive.starts, drive.plans, strict=True))
    deadlines = [plan.deadline_ns for plan in drive.plans]
    assert deadlines == sorted(set(deadlines))
    assert [drive.pace.deadline_ns(tick) for tick in range(500)] == deadlines


def test_a_tick_is_due_at_the_stamp_that_was_waited_for():
    drive = Drive(Waits, jitter_ns=300_000).run(50)
    assert [plan.deadline_ns for plan in drive.plans] == drive.device.stamps[:50]


def test_on_the_locked_grid_ticks_are_far_more_even_than_the_stamps():
    drive = Drive(Stamps, jitter_ns=300_000).run(2000)
    gaps = np.diff([plan.deadline_ns for plan in drive.plans])[200:]
    assert np.std(gaps) < 0.2 * np.std(np.diff(drive.device.stamps[200:2000]))


@both
@pytest.mark.parametrize("drift_ppm", [-200, 200])
def test_a_drifting_device_is_followed_without_error_and_its_drift_is_told(kind, drift_ppm):
    drive = Drive(kind, drift_ppm=drift_ppm, jitter_ns=100_000).run(3000)
    assert abs(np.mean(drive.errors[300:])) < 10_000, "no steady error is left of the 2 us that each cycle brings"
    assert drive.drift_ppm == pytest.approx(drift_ppm, abs=2)
    assert not any(drive.lost)


@both
def test_lost_cycles_are_skipped_ticks_and_told_apart_from_those_that_a_slow_tick_missed(kind):
    drive = Drive(kind, jitter_ns=200_000, lost=(20, 40, 41)).run(80, slow={60: 3 * PERIOD_NS + PERIOD_NS // 2})
    skipped = {plan.tick: plan.skipped_ticks for plan in drive.plans if plan.skipped_ticks}
    assert skipped == {21: 1, 42: 2, 63: 2}
    lost = {plan.tick: lost for plan, lost in zip(drive.plans, drive.lost, strict=True) if lost}
    assert lost == {21: 1, 42: 2}


@both
def test_where_a_tick_was_slow_and_the_device_lost_one_as_well_each_is_counted_once(kind):
    drive = Drive(kind, lost=(14,)).run(20, slow={10: 3 * PERIOD_NS + PERIOD_NS // 2})
    plan = next(plan for plan in drive.plans if plan.skipped_ticks)
    assert (plan.tick, plan.skipped_ticks) == (13, 2)
    assert drive.plans[12].tick == 15
    assert sum(drive.lost) == 1


@both
def test_cycles_that_are_known_late_are_not_taken_for_lost(kind):
    drive = Drive(kind, jitter_ns=100_000, known_after_ns=3_000_000).run(200)
    assert not any(plan.skipped_ticks for plan in drive.plans)
    assert all(start - stamp >= 3_000_000 for start, stamp in zip(drive.starts, drive.device.stamps[:200], strict=True))


def test_an_offset_puts_ticks_to_where_what_belongs_to_the_cycle_can_be_read():
    for kind in (Waits, Stamps):
        kind.cycle_offset_ns = 3_500_000
        try:
            drive = Drive(kind, jitter_ns=100_000, known_after_ns=3_000_000).run(100)
        finally:
            del kind.cycle_offset_ns
        late = np.array([plan.deadline_ns for plan in drive.plans]) - drive.device.stamps[:100]
        assert np.abs(late - 3_500_000).max() <= 200_000
        assert all(start == plan.deadline_ns for start, plan in zip(drive.starts, drive.plans, strict=True))


@both
def test_a_device_that_stops_is_an_error_that_names_it_after_the_time_that_a_world_may_be_silent(kind):
    drive = Drive(kind, stops_at=30).run(30)
    stopped_ns = drive.clock.now_ns()
    with pytest.raises(EnvironmentHung, match=r"Waits|Stamps.*no cycle for 1 s, after tick 29.*env-timeout"):
        drive.run(1)
    assert drive.clock.now_ns() - stopped_ns >= PATIENCE_NS


def test_a_device_that_is_silent_for_a_while_is_asked_again_in_between():
    drive = Drive(Waits, lost=range(10, 40)).run(10)
    assert not drive.pace.await_cycle(9), "so that whoever waits sees an order to stop"
    drive.run(1)
    assert (drive.tick, drive.plans[-1].skipped_ticks, drive.lost[-1]) == (40, 30, 30)


@both
def test_ticks_that_were_passed_over_in_a_pause_are_neither_skipped_nor_lost(kind):
    drive = Drive(kind, jitter_ns=300_000).run(10)
    drive.clock.advance_ns(50 * PERIOD_NS)
    drive.tick = drive.pace.grid.tick_at(drive.clock.now_ns())
    drive.run(5)
    assert [plan.skipped_ticks for plan in drive.plans[10:]] == [0] * 5
    assert not any(drive.lost)
    assert drive.plans[10].tick >= 59


def test_what_a_queue_has_kept_since_before_a_pause_is_no_cycle_after_it():
    drive = Drive(Waits).run(10)
    drive.clock.advance_ns(300 * PERIOD_NS)
    drive.tick = drive.pace.grid.tick_at(drive.clock.now_ns())
    queued = iter(drive.device.stamps[10:14])
    drive.cycles._waits = lambda timeout_s: next(queued, None) or drive.device.wait_cycle(timeout_s)
    drive.run(2)
    assert [plan.deadline_ns >= drive.device.stamps[309] for plan in drive.plans[10:]] == [True, True]
    assert not any(drive.lost)


def test_a_run_of_so_many_ticks_ends_with_its_last_one_whatever_was_lost():
    last = Drive(Waits, num_ticks=20, lost=range(15, 30)).run(16).plans[-1]
    assert (last.tick, last.skipped_ticks) == (19, 4)


def test_what_was_stamped_before_the_run_began_is_not_a_cycle_of_it():
    drive = Drive(Waits)
    drive.clock.advance_ns(3 * PERIOD_NS)
    drive.pace = WorldPace(drive.cycles, drive.clock, HZ, drive.clock.now_ns() + PERIOD_NS // 2)
    drive.run(2)
    assert drive.plans[0].deadline_ns >= BEGINS_NS + 2 * PERIOD_NS
    assert [plan.tick for plan in drive.plans] == [0, 1]


class Nobody:
    """No worker; keeps the headers. And a recorder that counts nothing, to which nothing may be broken."""

    def __init__(self):
        self.headers = []

    @property
    def next_frame_seq(self):
        return len(self.headers)

    def collect(self, tick):
        return ()

    def membership(self):
        return [(0, False)] if not self.headers else ()

    def stage(self, header):
        pass

    def publish(self, frame, header, action, kept=b""):
        self.headers.append(header.record())

    def invariant_broken(self, invariant, tick):
        raise AssertionError(f"{invariant!r} does not hold at tick {tick}")

    def begin_tick(self, tick, now_ns):
        pass

    def end_tick(self, tick):
        pass


@both
def test_a_whole_tick_loop_runs_on_it_and_every_invariant_holds(kind):
    clock = ManualClock(BEGINS_NS - PERIOD_NS)
    device, nobody = kind(clock, drift_ppm=200, jitter_ns=400_000, lost=(30, 31, 50)), Nobody()
    device.reset = lambda **arguments: (np.zeros(1, np.float32), {})
    device.step = lambda action: (np.zeros(1, np.float32), 0.0, False, False, {})
    pace = WorldPace(Cycles(device, clock, PATIENCE_NS), clock, HZ, clock.now_ns())
    loop = TickLoop(
        GymnasiumWorld(device, seed=1),
        TickGrid(clock.now_ns(), HZ),
        clock,
        Schedule(ScheduleParams("max-time", HZ, 1, PERIOD_NS), 1),
        Dispatcher(),
        nobody,
        nobody,
        pace=pace,
    )
    for _ in range(100):
        loop.run_tick()
    assert [(header.tick, header.skipped_ticks) for header in nobody.headers if header.skipped_ticks] == [
        (32, 2),
        (51, 1),
    ]
    assert nobody.headers[-1].tick == 102


# -- what is measured before tick 0 ------------------------------------------------------------------------------


@both
def test_the_measured_rate_is_that_of_the_device_also_where_it_loses_cycles(kind):
    clock = ManualClock(BEGINS_NS)
    device = kind(clock, drift_ppm=-150, jitter_ns=50_000, lost=(5, 11, 12))
    measured = measure_cycles(Cycles(device, clock, PATIENCE_NS), HZ, lambda call: None)
    assert float(measured.rate_hz) == pytest.approx(100 * (1 + 150e-6), rel=60e-6)
    assert 20 < measured.jitter_us < 100
    assert measured.notes()[0].startswith("ticks are the device's cycles")
    assert len(measured.notes()) == 1


def test_a_device_of_another_rate_than_the_nominal_one_is_warned_of():
    clock = ManualClock(BEGINS_NS)
    measured = measure_cycles(Cycles(Waits(clock), clock, PATIENCE_NS), Fraction(60), lambda call: None)
    assert "WARNING" in measured.notes()[1]
    assert "100 cycles a second, and 60 were expected (+66.7%)" in measured.notes()[1]


def test_a_device_that_never_begins_is_an_error_before_tick_0():
    clock = ManualClock(BEGINS_NS)
    with pytest.raises(EnvironmentHung, match=r"Waits.wait_cycle\(\) gave no cycle"):
        measure_cycles(Cycles(Waits(clock, stops_at=0), clock, PATIENCE_NS), HZ, lambda call: None)


def test_an_even_grid_is_found_among_stamps_of_which_some_are_missing():
    period_ns, jitter_ns = even_grid([0, 10, 20, 40, 50, 61, 70])
    assert period_ns == pytest.approx(10, abs=0.1)
    assert 0.5 < jitter_ns < 1


# -- what a world offers -----------------------------------------------------------------------------------------


def test_a_world_without_a_clock_is_refused_by_the_methods_that_it_lacks():
    env = gymnasium.make("CartPole-v1")
    with pytest.raises(ConfigError, match=r"CartPoleEnv has neither wait_cycle\(timeout_s\).* nor cycle_stamp_ns\(\)"):
        Cycles(env, ManualClock(), PATIENCE_NS)


def test_an_offset_that_is_no_time_is_refused():
    device = Waits(ManualClock())
    device.cycle_offset_ns = -0.5
    with pytest.raises(ConfigError, match="cycle_offset_ns is -0.5; expected whole nanoseconds"):
        Cycles(device, ManualClock(), PATIENCE_NS)


class Says(gymnasium.Env):
    """Returns what it is told to."""

    def __init__(self, *stamps):
        self.left = list(stamps)

    def wait_cycle(self, timeout_s):
        said = self.left.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


@pytest.mark.parametrize(
    ("stamps", "error"),
    [
        (
            (BEGINS_NS, BEGINS_NS - 5),
            r"which is 5 ns before the stamp before it.*Expected .*CLOCK_MONOTONIC.*never falls",
        ),
        ((5.2,), r"returned 5.2 \(float\)"),
        ((True,), r"returned True \(bool\)"),
        ((BEGINS_NS + 50_000_000,), r"0.050 s in the future"),
        ((BEGINS_NS - 3_000_000_000,), r"3.000 s ago"),
        ((ValueError("no camera"),), r"the world raised in wait_cycle\(\): ValueError: no camera"),
    ],
    ids=["backwards", "float", "bool", "future", "old", "raises"],
)
def test_what_is_no_time_stamp_is_refused_with_what_was_expected(stamps, error):
    cycles = Cycles(Says(*stamps), ManualClock(BEGINS_NS), PATIENCE_NS)
    with pytest.raises(EnvironmentFailed, match=error):
        for _ in stamps:
            cycles.next_ns(1000)


@pytest.mark.parametrize(
    ("stamp", "looks_like"),
    [
        (time.time_ns, "CLOCK_REALTIME, the date"),
        (lambda: time.monotonic_ns() // 1000, "CLOCK_MONOTONIC in microseconds"),
    ],
)
def test_the_clock_that_a_stamp_is_taken_from_is_guessed(stamp, looks_like):
    cycles = Cycles(Says(stamp()), ManualClock(time.monotonic_ns()), PATIENCE_NS)
    with pytest.raises(EnvironmentFailed, match=f"That looks like {looks_like}"):
        cycles.next_ns(1000)
