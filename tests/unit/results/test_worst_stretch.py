"""The stretch with the most ticks without a policy action: a skip counts only where it lies in the stretch."""

from __future__ import annotations

from collections import deque

import pytest

from rtcore.memory.layout import FrameHeader
from rtcore.results.worst_stretch import SIZE_TICKS, WorstStretch
from rtcore.scheduling.dispatch import TickKind

pytestmark = pytest.mark.unit


def header(tick: int, *, skipped: int = 0, kind: TickKind = TickKind.ACTED) -> FrameHeader:
    fields = dict.fromkeys(FrameHeader._fields, 0) | {"tick": tick, "skipped_ticks": skipped, "kind": kind}
    return FrameHeader(**fields)


def worst(*ticks: FrameHeader) -> int:
    stretch = WorstStretch(deque(ticks), deque())
    for tick in ticks:
        stretch.add(tick)
    found = stretch.found()
    return 0 if found is None else found.without_action


def test_a_stretch_has_no_more_ticks_without_an_action_than_ticks():
    skip = header(100, skipped=60)
    missed = [header(tick, kind=TickKind.MISSED) for tick in range(101, 101 + SIZE_TICKS)]
    assert worst(header(39), skip, *missed) == SIZE_TICKS


def test_ticks_of_a_skip_leave_the_stretch_one_by_one():
    # 40 to 99 are skipped: of the stretch of 64 ticks that ends at 104 only those from 41, and 101 to 104 were missed.
    ticks = [header(39), header(100, skipped=60), *(header(tick, kind=TickKind.MISSED) for tick in range(101, 105))]
    assert worst(*ticks) == 63
