"""How a worker waits for its job and its frame, and how it is woken.

It is asleep until it is woken, or spins, or both (`WAITING`). Asleep it is on one of two words that the env process
writes: idle on the count of jobs that were posted to its group of workers, booked on the number of the newest frame
(`futex.py`). So one system call wakes all whose job or frame has come, however many, and nobody else.

The env process makes that call only if one of them says that it sleeps. Each side writes one word and then reads the
other's, as with the weights (`weights.py`): without a full fence on both sides they could miss each other. What a
process that is killed in its sleep leaves behind, its word `asleep`, costs a system call at each booking of its place
until another process stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from rtcore._tick import compiled
from rtcore.clock import NS_PER_MS, NS_PER_US, MonotonicClock
from rtcore.memory.futex import ALL_BITS, Futex, full_fence
from rtcore.memory.layout import RING_CONTROL, RING_DONE, WORD_BYTES, WORKER_STATUS, WORKERS_PER_GROUP, Layout
from rtcore.memory.stores import IndexedWords, ordered_words

if TYPE_CHECKING:
    from rtcore._tick._compiled import Waker as _CompiledWaker

#: Longest sleep: how often an idle worker shows that it is alive.
_IDLE_BEAT_NS = 200 * NS_PER_MS
#: How often a worker that spins shows that it is alive.
_SPIN_BEAT_NS = NS_PER_MS
#: A shorter spin costs more than it saves.
_LEAST_SPIN_NS = 20 * NS_PER_US
_ASLEEP = WORKER_STATUS.index["asleep"]


class WakeWords:
    """The words that workers sleep on, in a run's `control` and `ring` segments.

    Args:
        control: That segment.
        ring: That segment.
        layout: Of the run.
    """

    def __init__(self, control: memoryview, ring: memoryview, layout: Layout) -> None:
        groups = range(layout.num_groups)
        #: Per group of workers: how often jobs were posted to some of them.
        self.posted: list[IndexedWords] = [_words(control, layout.posted_at(group), 1) for group in groups]
        self.posted_futexes = [Futex(control, layout.posted_at(group)) for group in groups]
        #: Number of the newest frame, at `RING_DONE`.
        self.ring_control = _words(ring, layout.ring_control_at, RING_CONTROL.itemsize // WORD_BYTES)
        self.frame_futex = Futex(ring, layout.ring_control_at + RING_DONE * WORD_BYTES)
        #: Per worker its status, with `asleep`.
        self.status: list[IndexedWords] = [
            _words(control, layout.worker_status_at(worker), len(WORKER_STATUS.fields))
            for worker in range(layout.max_workers)
        ]
        #: Of `Waker`.
        self.compiled: _CompiledWaker | None = None
        if compiled is not None:
            posted_at, asleep_at = layout.posted_at(0), layout.worker_status_at(0) + _ASLEEP * WORD_BYTES
            strides = layout.posted_at(1) - posted_at, layout.worker_status_at(1) - layout.worker_status_at(0)
            frame_at = layout.ring_control_at + RING_DONE * WORD_BYTES
            self.compiled = compiled.Waker(
                control, posted_at, strides[0], asleep_at, strides[1], layout.max_workers, ring, frame_at
            )


def _words(buffer: memoryview, at: int, count: int) -> IndexedWords:
    return ordered_words(buffer[at : at + count * WORD_BYTES])


class Waker:
    """Wakes the workers that sleep. Never waits; `for_jobs` and `for_frame` are the env process's alone."""

    #: Does what is below, in C; None without the extension.
    compiled: _CompiledWaker | None = None

    def __init__(self, words: WakeWords) -> None:
        self._posted, self._futexes = words.posted, words.posted_futexes
        self._frame, self._status = words.frame_futex, words.status
        self.compiled = words.compiled
        if self.compiled is not None:
            self.for_jobs = self.compiled.for_jobs  # type: ignore[assignment,method-assign]
            self.for_frame = self.compiled.for_frame  # type: ignore[assignment,method-assign]
            self.ahead = self.compiled.ahead  # type: ignore[assignment,method-assign]

    def for_jobs(self, workers: Sequence[int]) -> None:
        """Jobs of these workers have been posted. At most one system call for each group of `WORKERS_PER_GROUP`."""
        for group in {worker // WORKERS_PER_GROUP for worker in workers}:
            self._posted[group][0] += 1  # (W11) pairs with (R11): after the jobs, which a worker then finds
        full_fence()  # between (W11) and (R12): either this sees who sleeps, or the kernel sees (R13) the new count
        self.ahead(workers)

    def ahead(self, workers: Sequence[int]) -> None:
        """Wake these workers, if they are idle and asleep: they will probably be booked soon."""
        bits_of: dict[int, int] = {}
        for worker in workers:
            if self._status[worker][_ASLEEP]:  # (R12) pairs with (W12)
                group, number = divmod(worker, WORKERS_PER_GROUP)
                bits_of[group] = bits_of.get(group, 0) | 1 << number
        for group, bits in bits_of.items():
            self._futexes[group].wake(bits)

    def for_frame(self, workers: Sequence[int]) -> None:
        """The frame that these workers are booked for is in the ring. At most one system call."""
        full_fence()  # between (W2) and (R12), as above
        status = self._status
        for worker in workers:
            if status[worker][_ASLEEP]:  # (R12)
                self._frame.wake()
                return

    def everybody(self) -> None:
        """Supervisor: all workers look again at what is wanted of them.

        One that looked just before, and falls asleep just now, sleeps on for at most `_IDLE_BEAT_NS`.
        """
        for futex in (*self._futexes, self._frame):
            futex.wake()


class Sleep:
    """One worker's sleep on one word."""

    def __init__(self, word: IndexedWords, index: int, futex: Futex, bits: int, status: IndexedWords) -> None:
        self._word, self._index, self._futex, self._bits, self._status = word, index, futex, bits, status

    @classmethod
    def until_posted(cls, words: WakeWords, worker: int) -> Sleep:
        """Of an idle worker, until it has a job, or is woken ahead of one."""
        group, number = divmod(worker, WORKERS_PER_GROUP)
        return cls(words.posted[group], 0, words.posted_futexes[group], 1 << number, words.status[worker])

    @classmethod
    def until_frame(cls, words: WakeWords, worker: int) -> Sleep:
        """Of a booked worker, until its frame is there."""
        return cls(words.ring_control, RING_DONE, words.frame_futex, ALL_BITS, words.status[worker])

    def unless(self, newest: Callable[[], int], wanted: int) -> bool:
        """Sleep until woken, for a moment at most, unless `newest()` is `wanted` already.

        Args:
            newest: Reads a number that only grows, and is written before the word that this sleeps on.
            wanted: What it is to reach.

        Returns:
            Whether it slept and was woken.
        """
        seen = self._word[self._index]  # (R11) before the look at `newest`: what comes later changes the word
        if newest() >= wanted:
            return False
        self._status[_ASLEEP] = 1  # (W12) pairs with (R12)
        full_fence()  # between (W12) and (R13)
        # (R13) in the kernel pairs with (W11) and (W2): it sleeps only if the word is still what was seen
        woken = self._futex.wait(seen, self._bits, MonotonicClock.now_ns() + _IDLE_BEAT_NS)
        self._status[_ASLEEP] = 0
        return woken


class Waiting(Protocol):
    """How one worker waits for a number that only grows, its newest job or the newest frame, to be at least `wanted`.

    `newest` reads that number; it is read again after few instructions, as each one adds latency.
    """

    #: Whether the env process wakes this worker when it has something for it.
    is_woken: ClassVar[bool]

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        """Until then, or for a moment: the caller shows that it lives, and waits again."""
        ...

    def spin_ns(self, usual_ns: int) -> int:
        """How long to spin for the frame before `for_frame`. `usual_ns`: how long it takes, usually."""
        ...

    def for_frame(self, newest: Callable[[], int], wanted: int, goes_on: Callable[[], bool]) -> bool:
        """Until then; False if `goes_on`, asked now and then, has said no."""
        ...


class Blocking:
    """Asleep until woken: costs no CPU time; each wait takes as long as the kernel needs to wake a process."""

    is_woken: ClassVar[bool] = True

    def __init__(self, until_posted: Sleep, until_frame: Sleep, spin_ns: int) -> None:
        self._until_posted, self._until_frame = until_posted, until_frame
        self._spin_ns = spin_ns

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        self._until_posted.unless(newest, wanted)

    def spin_ns(self, usual_ns: int) -> int:
        return 0

    def for_frame(self, newest: Callable[[], int], wanted: int, goes_on: Callable[[], bool]) -> bool:
        while newest() < wanted:
            if not goes_on():
                return False
            self._until_frame.unless(newest, wanted)
        return True


class Hybrid(Blocking):
    """Asleep until woken, which is ahead of time, then spinning: awake when the tick comes, asleep between ticks."""

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        if self._until_posted.unless(newest, wanted):
            _spin(newest, wanted, self._spin_ns)

    def spin_ns(self, usual_ns: int) -> int:
        # A wait that is usually longer than a spin (the world's step takes long) is not spun.
        return max(self._spin_ns, _LEAST_SPIN_NS) if usual_ns < self._spin_ns else 0


class Spinning:
    """Never asleep: the shortest latency, for a CPU of its own. Nobody has to wake it."""

    is_woken: ClassVar[bool] = False

    def __init__(self, until_posted: Sleep, until_frame: Sleep, spin_ns: int) -> None:
        """Same arguments as the other ways of waiting; none of them is used."""

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        _spin(newest, wanted, _SPIN_BEAT_NS)

    def spin_ns(self, usual_ns: int) -> int:
        return _SPIN_BEAT_NS

    def for_frame(self, newest: Callable[[], int], wanted: int, goes_on: Callable[[], bool]) -> bool:
        while newest() < wanted:
            if not goes_on():
                return False
            _spin(newest, wanted, _SPIN_BEAT_NS)
        return True


#: By the names that the setting `wait` has for them.
WAITING: dict[str, type[Blocking | Spinning]] = {"hybrid": Hybrid, "block": Blocking, "spin": Spinning}


def make_waiting(wait: str, words: WakeWords, worker: int, spin_ns: int, period_ns: int) -> Waiting:
    """`wait`: one of `WAITING`. `spin_ns`: longest spin of `hybrid`."""
    # Never more than an eighth of a tick: at 1 kHz fourteen spinning workers would leave no CPU to anybody.
    sleeps = Sleep.until_posted(words, worker), Sleep.until_frame(words, worker)
    return WAITING[wait](*sleeps, min(spin_ns, period_ns // 8))


def _spin(newest: Callable[[], int], wanted: int, for_ns: int) -> None:
    now_ns = MonotonicClock.now_ns
    until_ns = now_ns() + for_ns
    while newest() < wanted and now_ns() < until_ns:
        pass
