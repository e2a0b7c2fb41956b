"""The margins of the clock that the env process and `rtcore-profile tick` both use."""

import os

import pytest

from rtcore.clock import TickClock

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("period_ns", "min_spin_ns", "max_spin_ns"),
    [(16_742_706, 200_000, 2_000_000), (1_000_000, 62_500, 250_000), (100_000, 6_250, 25_000)],
)
def test_the_margins_for_a_period_are_absolute_for_slow_ticks_and_shares_for_fast_ones(
    monkeypatch, period_ns, min_spin_ns, max_spin_ns
):
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: os.SCHED_FIFO | os.SCHED_RESET_ON_FORK)
    clock = TickClock.for_period(period_ns)
    expected = TickClock(max_spin_ns=max_spin_ns, min_spin_ns=min_spin_ns)
    for now_late_ns in (10 * period_ns, 0):
        for one in (clock, expected):
            for _ in range(10_000):
                one._learn(now_late_ns)
        assert clock.spin_ns == expected.spin_ns
    assert min_spin_ns <= clock.spin_ns < max_spin_ns


@pytest.mark.parametrize(("policy", "spin_ns"), [(os.SCHED_FIFO, 2_000_000), (os.SCHED_OTHER, 300_000)])
def test_who_has_to_give_way_does_not_spin_for_longer_than_a_turn(monkeypatch, policy, spin_ns):
    monkeypatch.setattr(os, "sched_getscheduler", lambda pid: policy)
    clock = TickClock.for_period(16_742_706)
    clock._learn(3_000_000)
    assert clock.spin_ns == spin_ns


def test_a_clock_wakes_as_early_as_what_is_done_before_the_deadline_takes(monkeypatch):
    time_ns, took_ns, period_ns = 0, 1_500_000, 10_000_000

    def pass_by(some_ns):
        nonlocal time_ns
        time_ns += some_ns
        return time_ns

    monkeypatch.setattr("rtcore.clock.time.monotonic_ns", lambda: pass_by(100))
    monkeypatch.setattr("rtcore.clock.time.sleep", lambda sleep_s: pass_by(round(sleep_s * 1e9) + 20_000))
    late_ns = []
    clock = TickClock(max_spin_ns=2_000_000, min_spin_ns=200_000, before_spin=lambda: pass_by(took_ns))
    for tick in range(1, 100):
        clock.sleep_until_ns(tick * period_ns)
        late_ns.append(time_ns - tick * period_ns)
    assert late_ns[0] > 500_000
    assert max(late_ns[50:]) <= 1_000
    assert took_ns < clock.spin_ns < 1_700_000
