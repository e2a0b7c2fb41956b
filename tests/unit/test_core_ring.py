"""The ring as a record: looking up the frame of a tick."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtcore.layout import FRAME_HEADER, Layout
from rtcore.ring import FrameRing

pytestmark = pytest.mark.unit


def ring_with(ticks, num_slots=8):
    """A ring that got one frame for each of `ticks`."""
    layout = Layout(1, num_slots, 2, 8, 8, 1)
    buffer = memoryview(bytearray(layout.ring_bytes))
    FrameRing(buffer, layout, (8,), "uint8").sequence.format()
    ring = FrameRing(buffer, layout, (8,), "uint8")
    for tick in ticks:
        header = [0] * (len(FRAME_HEADER.fields) - 1)
        header[0] = tick
        ring.publish(np.full(8, tick % 256, np.uint8), tuple(header), bytes(8))
    return ring


def test_a_frame_is_found_by_its_tick():
    ring = ring_with(range(20))
    assert [ring.find_tick(tick) for tick in (19, 15, 12)] == [19, 15, 12]


def test_a_tick_that_was_overwritten_or_is_yet_to_come_is_not_found():
    ring = ring_with(range(20))
    assert (ring.find_tick(11), ring.find_tick(0), ring.find_tick(20)) == (None, None, None)
    assert ring_with([]).find_tick(0) is None


def test_a_tick_that_was_skipped_is_not_found():
    assert ring_with([0, 1, 3, 4]).find_tick(2) is None


def test_after_one_skipped_tick_the_frames_before_it_are_found():
    ring = ring_with([0, 1, 3, 4])
    assert [ring.find_tick(tick) for tick in (0, 1, 3, 4)] == [0, 1, 2, 3]


def test_after_many_skipped_ticks_the_frames_before_them_are_found():
    ring = ring_with([0, 1, 10])
    assert [ring.find_tick(tick) for tick in (0, 1, 10)] == [0, 1, 2]


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=20))
def test_every_frame_still_in_the_ring_is_found_whatever_was_skipped(advances):
    ticks = np.cumsum(advances).tolist()
    ring = ring_with(ticks)
    for seq, tick in list(enumerate(ticks))[-8:]:
        assert ring.find_tick(tick) == seq


def test_a_frame_of_another_shape_does_not_fit():
    ring = ring_with([])
    with pytest.raises(ValueError, match="broadcast"):
        ring.publish(np.zeros(9, np.uint8), tuple([0] * (len(FRAME_HEADER.fields) - 1)), bytes(8))
