"""How often a part was measured, of what was counted at each tick."""

import struct

import pytest

from rtcore.results.part_ages import PartAges
from rtcore.spaces.parts import Part


def test_the_time_between_the_worlds_start_and_the_first_tick_slows_no_part_down() -> None:
    space = ((1,), "float32", b"", b"")
    ages = PartAges([Part(*space, "place", 0, has_stamp=True, rate_hz=100.0)])
    for publish_ns, stamp_ns in [(10**9, 0), *((at, at - 1) for at in range(10**9 + 10**7, 2 * 10**9, 10**7))]:
        ages.add(publish_ns, struct.pack("q", stamp_ns))
    found = ages.found()["place"]
    assert found.hz == pytest.approx(100)
    assert found.stale_ticks == 1, "the first frame's, which really is a second old"
