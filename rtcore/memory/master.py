"""The master weights that learners share: weights, optimizer, target network. Intact whenever a learner dies.

Two slots hold (weights, Adam's first and second moments), two hold the target network. One word, the commit, says
how many updates there were and which slots are the present ones. An update reads the present slot, writes the other
one, and flips the commit last: a learner that dies at any moment before that has changed nothing that counts, and
its update is simply not made. Learners take turns under `flock`, which the kernel frees when its holder dies.

Works over any memory: a run's segment, or `MasterState.private` for the virtual clock and tests. Needs store-store
order: (W10) pairs with (R10).
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from rtcore.clock import NS_PER_MS, MonotonicClock
from rtcore.memory.counters import Words
from rtcore.memory.layout import (
    LEARNER_CONTROL,
    LEARNER_PACE,
    LEARNER_SIZES,
    LEARNER_STATUS,
    MASTER_COMMIT,
    SEGMENT_HEADER,
    MasterLayout,
)
from rtcore.memory.segments import Segment, attach_segment, segment_path

Floats = npt.NDArray[np.float32]
#: How often a learner that waits for the lock tries again, and shows that it is alive [ns].
_POLL_NS = NS_PER_MS // 4


#: Why learning ended (`stopped_by`), with the field of the number that was not finite.
STOPPED_BY = {
    1: ("loss", "loss"),
    2: ("gradient", "grad_norm"),
    3: ("loss, of observations in which the world returned NaN or infinity,", "loss"),
}


class LearnerState(IntEnum):
    """What a learner is doing."""

    STARTING = 0
    COLLECTING = 1  #: waits for the first transitions (`learning_starts`)
    LEARNING = 2
    YIELDING = 3  #: pauses, because ticks were missed or late
    CAPPED = 4  #: has made as many updates as `updates_per_tick` allows
    STOPPED = 5  #: its loss or gradient was not finite
    PAUSED = 6  #: by the program that embeds the run


class Commit(NamedTuple):
    """Number of updates, and which slot and target are current."""

    updates: int
    slot: int
    target: int

    @property
    def word(self) -> int:
        return self.updates << 2 | self.target << 1 | self.slot

    @classmethod
    def of(cls, word: int) -> Commit:
        return cls(word >> 2, word & 1, word >> 1 & 1)


class Slot(NamedTuple):
    """Weights and optimizer, flat, in the order of the manifest: each (trainable_bytes / 4,) float32, views."""

    weights: Floats
    exp_avg: Floats
    exp_avg_sq: Floats


#: Reads one slot and writes another: (present, next, number of the update, from 1).
Step = Callable[[Slot, Slot, int], None]


class MasterCopy(NamedTuple):
    """A consistent private copy of everything."""

    updates: int
    weights: Floats
    exp_avg: Floats
    exp_avg_sq: Floats
    target: Floats


class MasterState:
    """Views of the learners' segment. One object per process that uses it; its threads may share it.

    `lock_path`: the segment's file, opened by this object alone, for the lock. None: private memory. `keep`: a segment
    that must stay mapped as long as this object lives.
    """

    def __init__(
        self,
        memory: memoryview,
        layout: MasterLayout,
        lock_path: Path | None = None,
        keep: Segment | None = None,
    ) -> None:
        self.layout = layout
        self.pace = Words(LEARNER_PACE, memory, layout.pace_at)
        learners = range(layout.num_learners)
        self.control = [Words(LEARNER_CONTROL, memory, layout.control_at(learner)) for learner in learners]
        self.status = [Words(LEARNER_STATUS, memory, layout.status_at(learner)) for learner in learners]
        arrays = [_floats(memory, layout, index) for index in range(8)]
        self.slots = (Slot(*arrays[0:3]), Slot(*arrays[3:6]))
        self.targets = (arrays[6], arrays[7])
        self._commit = Words(MASTER_COMMIT, memory, layout.commit_at)
        self._fd = os.open(lock_path, os.O_RDWR | os.O_CLOEXEC) if lock_path is not None else -1
        self._turn = threading.Lock()
        self._clock = MonotonicClock()
        self._keep = keep

    @classmethod
    def private(cls, trainable_bytes: int, num_learners: int = 1) -> Self:
        """In memory of this process, all zero."""
        layout = MasterLayout(num_learners, trainable_bytes)
        return cls(memoryview(bytearray(layout.num_bytes)), layout)

    def close(self) -> None:
        """Close the lock file. The memory belongs to its owner."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    @property
    def commit(self) -> Commit:
        """The current commit. Without the lock, its slot may be overwritten at any moment: use only the numbers."""
        return Commit.of(self._commit["commit"])  # (R10) before the slot is read

    def begin(
        self,
        weights: Floats,
        *,
        updates: int = 0,
        exp_avg: Floats | None = None,
        exp_avg_sq: Floats | None = None,
        target: Floats | None = None,
    ) -> None:
        """Set everything before learning begins. Default moments: zero; default target: the weights."""
        slot = self.slots[0]
        slot.weights[:] = weights
        slot.exp_avg[:] = 0 if exp_avg is None else exp_avg
        slot.exp_avg_sq[:] = 0 if exp_avg_sq is None else exp_avg_sq
        self.targets[0][:] = weights if target is None else target
        self._commit["commit"] = Commit(updates, 0, 0).word

    @contextmanager
    def locked(self, waiting: Callable[[], None] | None = None) -> Iterator[None]:
        """Hold the lock. `waiting` is called now and then while others hold it."""
        while not self._turn.acquire(timeout=0.05):
            if waiting is not None:
                waiting()
        try:
            self._lock_file(waiting)
            try:
                yield
            finally:
                if self._fd >= 0:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._turn.release()

    def _lock_file(self, waiting: Callable[[], None] | None) -> None:
        """Poll, do not block in the kernel: a learner that waits for a hung one must still show that it is alive."""
        while self._fd >= 0:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if waiting is not None:
                    waiting()
                self._clock.sleep_until_ns(self._clock.now_ns() + _POLL_NS)
            else:
                return

    def apply(self, step: Step, target_every: int) -> Commit:
        """One update by `step`, to be called with the lock held. Every `target_every` updates the target follows.

        If `step` raises, nothing has changed.
        """
        before = self.commit
        updates, target = before.updates + 1, before.target
        present, coming = self.slots[before.slot], self.slots[1 - before.slot]
        step(present, coming, updates)
        if updates % target_every == 0:
            target = 1 - target
            self.targets[target][:] = coming.weights
        after = Commit(updates, 1 - before.slot, target)
        self._commit["commit"] = after.word  # (W10) pairs with (R10): all of the slot is written before it is present
        return after

    def read_weights(self, out: Floats, waiting: Callable[[], None] | None = None) -> Commit:
        """Copy the current weights into `out`; returns their commit."""
        with self.locked(waiting):
            commit = self.commit
            out[:] = self.slots[commit.slot].weights
            return commit

    def read_target(self, out: Floats, waiting: Callable[[], None] | None = None) -> None:
        """Copy the current target network's weights into `out`."""
        with self.locked(waiting):
            out[:] = self.targets[self.commit.target]

    def copy(self) -> MasterCopy:
        """A consistent copy of everything, for a checkpoint."""
        with self.locked():
            commit = self.commit
            slot = self.slots[commit.slot]
            target = self.targets[commit.target].copy()
            return MasterCopy(commit.updates, slot.weights.copy(), slot.exp_avg.copy(), slot.exp_avg_sq.copy(), target)


def attach_master(run_id: str, *, readonly: bool = False) -> tuple[MasterState, int]:
    """Attach to the master of a run that learns. Returns it and the updates it began with. LayoutMismatchError: none.

    `readonly`: for programs that watch the run: they read counters and cannot lock.
    """
    segment = attach_segment(run_id, "learner", readonly=readonly)
    sizes = Words(LEARNER_SIZES, segment.buf, SEGMENT_HEADER.num_bytes)
    layout = MasterLayout(sizes["num_learners"], sizes["trainable_bytes"])
    lock_path = None if readonly else segment_path(run_id, "learner")
    return MasterState(segment.buf, layout, lock_path, keep=segment), sizes["first_updates"]


def _floats(memory: memoryview, layout: MasterLayout, array: int) -> Floats:
    return np.frombuffer(memory, np.float32, layout.trainable_bytes // 4, layout.array_at(array))
