"""Ticks and nanoseconds, through the deadlines that ticks really had."""

from typing import NamedTuple

import pytest

from rtcore.results.axis import TickAxis

pytestmark = pytest.mark.unit


class Row(NamedTuple):
    tick: int
    deadline_ns: int


#: A period of 10: tick 3 was put off by 25, ticks 5 and 6 have no row.
AXIS = TickAxis([Row(1, 1010), Row(2, 1020), Row(3, 1055), Row(4, 1065), Row(7, 1095)], 10)


@pytest.mark.parametrize(
    ("tick", "deadline_ns"), [(0, 1000), (1, 1010), (2, 1020), (3, 1055), (5, 1075), (6, 1085), (7, 1095), (9, 1115)]
)
def test_a_tick_was_due_when_its_row_says_and_without_one_where_its_neighbours_put_it(tick, deadline_ns):
    assert AXIS.deadline_ns(tick) == deadline_ns
    assert AXIS.of_ns(deadline_ns) == pytest.approx(tick)


def test_a_tick_that_took_longer_is_wider_in_time_but_not_on_the_axis():
    assert AXIS.of_ns(1015) == pytest.approx(1.5)
    assert AXIS.of_ns(1037) == pytest.approx(2 + 17 / 35)
    assert AXIS.of_ns(1054) < 3


def test_without_rows_tick_0_is_at_0_and_one_row_is_enough_to_know_where_all_are():
    assert TickAxis([], 10).of_ns(25) == 2.5
    assert TickAxis([], 10).deadline_ns(7) == 70
    assert TickAxis([Row(4, 100)], 10).of_ns(75) == 1.5


def test_rows_out_of_order_are_left_out():
    axis = TickAxis([Row(1, 10), Row(1, 20), Row(2, 5), Row(3, 30)], 10)
    assert [axis.deadline_ns(tick) for tick in (1, 2, 3)] == [10, 20, 30]
    assert axis.of_ns(20) == 2.0
