"""When learners step back."""

from __future__ import annotations

import pytest

from rtcore.learn.throttle import MAX_PAUSE_NS, Throttle, TickWatch
from rtcore.memory.counters import Histogram, Words
from rtcore.memory.layout import ENV_COUNTERS

pytestmark = pytest.mark.unit

PERIOD_NS = 16_000_000


def test_no_trouble_no_pause() -> None:
    throttle = Throttle(PERIOD_NS)
    assert [throttle.after_learning(0, 1) for _ in range(100)] == [0] * 100


def test_pauses_double_while_there_is_trouble_up_to_a_second_and_shrink_without_it() -> None:
    throttle = Throttle(PERIOD_NS)
    pauses = []
    for _ in range(10):
        pauses.append(throttle.after_learning(1, 1))
        throttle.after_pause(0, 5)
    assert pauses[:3] == [PERIOD_NS, 2 * PERIOD_NS, 4 * PERIOD_NS]
    assert pauses[-1] == MAX_PAUSE_NS
    for _ in range(3):
        assert throttle.after_learning(0, 1) == 0
    assert throttle.after_learning(1, 1) == MAX_PAUSE_NS // 8


def test_trouble_that_pausing_does_not_cure_is_not_learnings_and_is_not_waited_out() -> None:
    throttle = Throttle(PERIOD_NS)
    pauses = []
    for _ in range(400):
        pauses.append(throttle.after_learning(1, 2))
        if pauses[-1]:
            ticks = pauses[-1] // PERIOD_NS
            throttle.after_pause(ticks // 2, ticks)
    assert pauses[0] > 0
    assert sum(1 for pause in pauses if not pause) > 300, "every second tick is missed, whatever it does"


def test_what_was_judged_is_tried_again_later() -> None:
    throttle = Throttle(PERIOD_NS)
    for _ in range(20):
        throttle.after_learning(1, 2)
        throttle.after_pause(10, 20)
    assert throttle.after_learning(1, 2) == 0
    for _ in range(3000):
        throttle.after_learning(0, 1)
    assert throttle.after_learning(1, 1) > 0


def test_missed_skipped_overrun_and_late_ticks_are_trouble() -> None:
    counters, lateness = Words(ENV_COUNTERS), Histogram()
    watch = TickWatch(counters, lateness, PERIOD_NS)
    assert watch.poll() == (0, 0)
    counters["ticks"] = 10
    for _ in range(10):
        lateness.add(1000)
    assert watch.poll() == (0, 10)
    for name in ("missed", "skipped_ticks", "overruns"):
        counters["ticks"] += 1
        counters[name] += 2
        assert watch.poll() == (2, 1), name
    counters["ticks"] += 1
    lateness.add(PERIOD_NS // 2)
    assert watch.poll() == (1, 1)


def test_books_that_are_begun_anew_are_no_trouble() -> None:
    counters = Words(ENV_COUNTERS)
    watch = TickWatch(counters, Histogram(), PERIOD_NS)
    counters["ticks"], counters["missed"] = 100, 50
    watch.poll()
    counters["ticks"], counters["missed"] = 3, 0
    assert watch.poll() == (0, 0)
    counters["ticks"], counters["missed"] = 5, 1
    assert watch.poll() == (1, 2)
