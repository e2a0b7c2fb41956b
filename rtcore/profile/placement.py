"""Which process runs where: the publisher on one CPU, the readers on the others, for all transports alike.

Left to itself, a kernel may wake a reader on the CPU of the very process that woke it, where it waits until that one
sleeps: what is measured then is the scheduler's mood, for some transports and not for others. In a run the env
process has realtime priority and no worker waits behind it; on CPUs of their own none does here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple


class Placement(NamedTuple):
    """CPUs of the publisher and of the readers. The same set twice: nobody is pinned."""

    publisher: frozenset[int]
    readers: frozenset[int]

    @property
    def is_pinned(self) -> bool:
        return self.publisher != self.readers


def choose(*, pin: bool) -> Placement:
    """The first usable CPU for the publisher, the others for the readers; no pinning where there is only one."""
    usable = frozenset(os.sched_getaffinity(0))
    if not pin or len(usable) < 2:
        return Placement(usable, usable)
    first = frozenset({min(usable)})
    return Placement(first, usable - first)


def put(pid: int, cpus: frozenset[int]) -> None:
    """Move a process; one that has ended meanwhile is not an error here."""
    with suppress(ProcessLookupError):
        os.sched_setaffinity(pid, cpus)


@contextmanager
def as_publisher(placement: Placement) -> Iterator[None]:
    """This process is the publisher: on its CPU within the block, where it was after it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, placement.publisher)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
