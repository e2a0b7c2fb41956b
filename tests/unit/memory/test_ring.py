"""The ring without schedules: what goes in comes out."""

import numpy as np
import pytest

from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.ring import FrameRing, ReadStatus

pytestmark = pytest.mark.unit


def ring_with(ticks, num_slots=8):
    """A ring that got one frame for each of `ticks`."""
    layout = Layout(max_workers=1, ring_slots=num_slots, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1)
    buffer = memoryview(bytearray(layout.ring_bytes))
    FrameRing(buffer, layout, (8,), "uint8").sequence.format()
    ring = FrameRing(buffer, layout, (8,), "uint8")
    for tick in ticks:
        ring.publish(np.full(8, tick % 256, np.uint8), FrameHeader(ring.next_seq, tick=tick), bytes(8))
    return ring


def test_a_frame_of_another_size_does_not_fit_and_leaves_the_ring_as_it_was():
    ring = ring_with([1, 2])
    with pytest.raises(ValueError, match="the frame has 9 bytes, expected 8"):
        ring.publish(np.zeros(9, np.uint8), FrameHeader(ring.next_seq), bytes(8))
    assert ring.read(1, np.zeros(8, np.uint8)) is ReadStatus.OK
    assert ring.publish(np.zeros(8, np.uint8), FrameHeader(ring.next_seq), bytes(8)) == 2


@pytest.mark.parametrize(
    ("shape", "dtype"), [((), "<f8"), ((3,), "|b1"), ((2, 3), "<f2"), ((2, 2, 2), "<i8"), ((4,), "<u2")]
)
def test_frames_of_any_shape_and_dtype_come_back_as_they_were(shape, dtype):
    frame = (np.arange(int(np.prod(shape, dtype=int))).reshape(shape) % 2).astype(dtype)
    layout = Layout(1, 4, 2, frame.nbytes, 8, 1)
    buffer = memoryview(bytearray(layout.ring_bytes))
    FrameRing(buffer, layout, shape, dtype).sequence.format()
    ring = FrameRing(buffer, layout, shape, dtype)
    assert ring.publish(frame, FrameHeader(ring.next_seq), b"12345678") == 0
    out = np.empty(shape, dtype)
    assert ring.read(0, out) is ReadStatus.OK
    assert np.array_equal(out, frame)
    status, header = ring.read_with_header(0, out)
    assert (status, header) == (ReadStatus.OK, FrameHeader(0))
    assert ring.read_action(0) == b"12345678"


def test_a_frame_that_is_a_strided_view_or_of_another_number_type_is_copied_in_as_it_looks():
    ring = ring_with([])
    ring.publish(np.arange(16, dtype=np.uint8)[::2], FrameHeader(ring.next_seq), bytes(8))
    ring.publish(np.arange(8, dtype=np.int64), FrameHeader(ring.next_seq), bytes(8))
    out = np.empty(8, np.uint8)
    ring.read(0, out)
    assert out.tolist() == [0, 2, 4, 6, 8, 10, 12, 14]
    ring.read(1, out)
    assert out.tolist() == [0, 1, 2, 3, 4, 5, 6, 7]


def test_warming_changes_nothing():
    ring = ring_with([5, 6])
    before = bytes(ring._buffer)
    ring.warm()
    ring.touch(ring.next_seq)
    assert bytes(ring._buffer) == before
    assert ring.next_seq == 2


@pytest.mark.parametrize("frame_seq", [-1, 1, 3])
def test_a_header_with_another_number_than_the_next_is_refused_and_leaves_the_ring_as_it_was(frame_seq):
    ring = ring_with([1, 2])
    with pytest.raises(ValueError, match=f"frame_seq={frame_seq}; expected 2, the ring's next_seq"):
        ring.publish(np.zeros(8, np.uint8), FrameHeader(frame_seq), bytes(8))
    assert ring.read_header(1)[1].tick == 2
    assert ring.next_seq == 2
