"""Garbage collection in the env process: between two ticks, when it fits into the time that is left.

Python's own collector may start at any allocation, in the middle of a tick, so the env process turns it off
(`realtime.py`). Reference cycles that a world leaves behind (objects that refer to each other, an exception with its
traceback) would then stay for ever, so `SlackCollector` collects them. Workers, learners and the recorder keep Python's
collector, as a pause there delays no tick; and so does the env process with `realtime="off"`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

from rtcore.clock import Clock

#: New containers that are worth a small collection (Python's own collector: 700).
_YOUNG_OBJECTS = 2_000
#: Survivors of small collections that are worth a full one, added to a quarter of the last full one's survivors.
_OLD_OBJECTS = 10_000
#: So many are collected even if a tick has to wait for it.
_MOST_OBJECTS = 200_000
#: The same in memory: a few objects may hold a lot of it.
_GROWN_BYTES = 64 << 20
_MOST_GROWN_BYTES = 256 << 20
_CHECK_MEMORY_EVERY_TICKS = 256
#: What an object takes until it was measured [ns].
_FIRST_GUESS_NS = 300
_YOUNG, _ALL = 1, 2
_PAGE_BYTES = 4096


def resident_bytes() -> int:
    """Memory of this process that is in RAM; 0 if it cannot be read."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * _PAGE_BYTES
    except (OSError, ValueError, IndexError):
        return 0


class SlackCollector:
    """Decides after each tick whether to collect. Does nothing while Python's own collector is on.

    Args:
        clock: What the time that is left is measured by.
        collected: Called with (start_ns, end_ns, forced) after each collection. Forced ones did not fit; they were made
            while the world stood still (at the beginning of an episode), or because too much garbage had gathered.
        collect: Collects a generation and returns how many objects were freed.
        num_young: Number of new containers.
        is_automatic: Whether Python's own collector is on.
        memory_bytes: Memory of this process.
    """

    def __init__(
        self,
        clock: Clock,
        collected: Callable[[int, int, bool], None],
        *,
        collect: Callable[[int], int] = gc.collect,
        num_young: Callable[[], int] = lambda: gc.get_count()[0],
        is_automatic: Callable[[], bool] = gc.isenabled,
        memory_bytes: Callable[[], int] = resident_bytes,
    ) -> None:
        self._clock = clock
        self._collected = collected
        self._collect = collect
        self._num_young = num_young
        self._is_automatic = is_automatic
        self._memory_bytes = memory_bytes
        #: Survivors of the last full collection, and of the small ones since.
        self._old = self._promoted = 0
        self._base_bytes = memory_bytes()
        self._grown_bytes = 0
        self._ticks = 0
        self._ns_per_object = {_YOUNG: _FIRST_GUESS_NS, _ALL: _FIRST_GUESS_NS}

    def after_tick(self, next_deadline_ns: int, *, world_stands: bool) -> None:
        """Between two ticks. `world_stands`: the world stands still, so that a late tick does no harm."""
        self._ticks += 1
        if self._ticks % _CHECK_MEMORY_EVERY_TICKS == 0 or world_stands:
            self._check_memory()
        young = self._num_young()
        level = self._due(young)
        if level is None or self._is_automatic():
            return
        slack_ns = next_deadline_ns - self._clock.now_ns()
        for wanted in (_ALL, _YOUNG) if level == _ALL else (_YOUNG,):
            if self._cost_ns(wanted, young) <= slack_ns:
                self._run(wanted, young, forced=False)
                return
        if world_stands or self._promoted + young >= _MOST_OBJECTS or self._grown_bytes >= _MOST_GROWN_BYTES:
            self._run(level, young, forced=True)

    def while_waiting(self) -> None:
        """No tick is due until a program asks for a reset: collect what is worth it, however long it takes."""
        young = self._num_young()
        level = self._due(young)
        if level is not None and not self._is_automatic():
            self._run(level, young, forced=False)

    def _due(self, young: int) -> int | None:
        if self._promoted + young >= _OLD_OBJECTS + self._old // 4 or self._grown_bytes >= _GROWN_BYTES:
            return _ALL
        return _YOUNG if young >= _YOUNG_OBJECTS else None

    def _cost_ns(self, level: int, young: int) -> int:
        """Estimated time [ns], with a margin of one half."""
        objects = young if level == _YOUNG else self._old + self._promoted + young
        return objects * self._ns_per_object[level] * 3 // 2

    def _run(self, level: int, young: int, *, forced: bool) -> None:
        objects = young if level == _YOUNG else self._old + self._promoted + young
        start_ns = self._clock.now_ns()
        survivors = max(0, objects - self._collect(level))
        end_ns = self._clock.now_ns()
        took_ns = (end_ns - start_ns) // max(1, objects)
        # Follows the highest recent cost, as garbage costs more than objects that stay, and comes in waves.
        self._ns_per_object[level] = max(took_ns, self._ns_per_object[level] * 7 // 8, 1)
        if level == _ALL:
            self._old, self._promoted = survivors, 0
            self._base_bytes, self._grown_bytes = self._memory_bytes(), 0
        else:
            self._promoted += survivors
        self._collected(start_ns, end_ns, forced)

    def _check_memory(self) -> None:
        self._grown_bytes = max(0, self._memory_bytes() - self._base_bytes)
