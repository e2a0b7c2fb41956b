"""How many inferences a worker makes before it is ready."""

import pytest

from rtcore.clock import NS_PER_MS, ManualClock
from rtcore_workers.inference import timed

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("infer_ms", "at_most", "at_least", "expected"),
    [
        (2, 3, 1, 3),
        (400, 3, 1, 3),
        (500, 3, 1, 2),
        (1200, 3, 1, 1),  # one that is slow is enough: 74 workers start within seconds
        (1200, 3, 2, 2),
        (1200, 1, 2, 1),  # what the user said holds
        (1200, 0, 2, 0),
    ],
)
def test_slow_inferences_are_made_less_often_and_at_least_once(infer_ms, at_most, at_least, expected):
    clock = ManualClock()
    times = timed(lambda _: clock.advance_ns(infer_ms * NS_PER_MS), clock, at_most, at_least)
    assert len(times) == expected
