"""The margins of the clock that the env process and `rtcore-profile tick` both use."""

import pytest

from rtcore.clock import TickClock

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("period_ns", "min_spin_ns", "max_spin_ns"),
    [(16_742_706, 200_000, 2_000_000), (1_000_000, 62_500, 250_000), (100_000, 6_250, 25_000)],
)
def test_the_margins_for_a_period_are_absolute_for_slow_ticks_and_shares_for_fast_ones(
    period_ns, min_spin_ns, max_spin_ns
):
    clock = TickClock.for_period(period_ns)
    expected = TickClock(max_spin_ns=max_spin_ns, min_spin_ns=min_spin_ns)
    for now_late_ns in (10 * period_ns, 0):
        for one in (clock, expected):
            for _ in range(10_000):
                one._learn(now_late_ns)
        assert clock.spin_ns == expected.spin_ns
    assert min_spin_ns <= clock.spin_ns < max_spin_ns
