"""How a worker waits for its job and its frame: asleep until it is woken, spinning, or both (`WAITING`).

A named POSIX semaphore counts the wake-ups. sem_timedwait, which `posix_ipc` uses, measures its timeout on the wall
clock: if it is set back by an hour, a waiting process sleeps an hour longer, and counts as hung. glibc 2.30
and newer have sem_clockwait, which takes the clock as an argument; `posix_ipc` does not offer it, so ctypes calls it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import ClassVar, Protocol, Self

import posix_ipc

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US, MonotonicClock

_CLOCK_MONOTONIC = 1
#: Longest sleep: how often an idle worker shows that it is alive.
_IDLE_BEAT_NS = 200 * NS_PER_MS
#: How often a worker that spins shows that it is alive.
_SPIN_BEAT_NS = NS_PER_MS
#: A shorter spin costs more than it saves.
_LEAST_SPIN_NS = 20 * NS_PER_US


class _Deadline(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _find_clocked_wait() -> Callable[..., int] | None:
    """glibc's sem_clockwait; None if this C library has none: then timeouts follow the wall clock."""
    try:
        wait = ctypes.CDLL(None).sem_clockwait
    except AttributeError:
        return None
    wait.restype = ctypes.c_int
    wait.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Deadline))
    return wait


_clocked_wait = _find_clocked_wait()
FOLLOWS_WALL_CLOCK = _clocked_wait is None


class WakeUps:
    """One process posts, one waits. A post while nobody waits is kept: the next wait returns at once."""

    def __init__(self, semaphore: posix_ipc.Semaphore) -> None:
        self._semaphore = semaphore
        #: Wake the process that waits. Never blocks, allocates nothing.
        self.release = semaphore.release
        self._handle: int | None = None
        self._deadline = _Deadline()
        self._deadline_at = ctypes.byref(self._deadline)

    @classmethod
    def create(cls, name: str) -> Self:
        """FileExistsError (`posix_ipc.ExistentialError`) or OSError if it cannot be made."""
        return cls(posix_ipc.Semaphore(name, posix_ipc.O_CREX, mode=0o600, initial_value=0))

    @classmethod
    def attach(cls, name: str) -> Self:
        return cls(posix_ipc.Semaphore(name))

    def wait(self, timeout_ns: int) -> bool:
        """Wait until woken or until `timeout_ns` has passed. False: not woken (or interrupted by a signal)."""
        if _clocked_wait is None:
            return self._try(timeout_ns / NS_PER_S)
        if self._handle is None:
            self._handle = self._open()
        deadline = self._deadline
        deadline.seconds, deadline.nanoseconds = divmod(MonotonicClock.now_ns() + timeout_ns, NS_PER_S)
        return _clocked_wait(self._handle, _CLOCK_MONOTONIC, self._deadline_at) == 0

    def try_wait(self) -> bool:
        """Consume one wake-up if there is one; never blocks. Returns whether there was."""
        return self._try(0)

    def _try(self, timeout_s: float) -> bool:
        try:
            self._semaphore.acquire(timeout_s)
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return False
        return True

    def _open(self) -> int:
        """The semaphore's address in this process. sem_open returns the one that `posix_ipc` uses and hides."""
        sem_open = ctypes.CDLL(None, use_errno=True).sem_open
        sem_open.argtypes, sem_open.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        address = sem_open(self._semaphore.name.encode(), 0)
        if not address:
            raise OSError(ctypes.get_errno(), f"{self._semaphore.name} cannot be opened")
        return int(address)

    def close(self) -> None:
        """Close this end. The other process can still use its own."""
        self._semaphore.close()


class Waiting(Protocol):
    """How one worker waits for a number that only grows, its newest job or the newest frame, to be at least `wanted`.

    `newest` reads that number; it is read again after few instructions, as each one adds latency.
    """

    #: Whether the env process posts a wake-up for what it has for this worker.
    is_woken: ClassVar[bool]

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        """Until then, or for a moment: the caller shows that it lives, and waits again."""
        ...

    def for_frame(self, newest: Callable[[], int], wanted: int, usual_ns: int, goes_on: Callable[[], bool]) -> bool:
        """Until then; False if `goes_on`, asked now and then, has said no. `usual_ns`: how long it takes, usually."""
        ...


class Blocking:
    """Asleep until woken: costs no CPU time; each wait takes as long as the kernel needs to wake a process."""

    is_woken: ClassVar[bool] = True

    def __init__(self, wake_ups: WakeUps, spin_ns: int) -> None:
        self._wake_ups = wake_ups
        self._spin_ns = spin_ns

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        self._sleep_until_woken(newest, wanted)

    def for_frame(self, newest: Callable[[], int], wanted: int, usual_ns: int, goes_on: Callable[[], bool]) -> bool:
        while newest() < wanted:
            if not goes_on():
                return False
            self._wake_ups.wait(_IDLE_BEAT_NS)
        return True

    def _sleep_until_woken(self, newest: Callable[[], int], wanted: int) -> bool:
        """Whether it was woken, and not for what was there already."""
        # First take the wake-ups for what was noticed by spinning: later they would wake an idle worker for nothing.
        # Then look for a job, so that the wake-up for a new one is not missed.
        while self._wake_ups.try_wait():
            pass
        return newest() < wanted and self._wake_ups.wait(_IDLE_BEAT_NS)


class Hybrid(Blocking):
    """Asleep until woken, which is ahead of time, then spinning: awake when the tick comes, asleep between ticks."""

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        if self._sleep_until_woken(newest, wanted):
            _spin(newest, wanted, self._spin_ns)

    def for_frame(self, newest: Callable[[], int], wanted: int, usual_ns: int, goes_on: Callable[[], bool]) -> bool:
        # A wait that is usually longer than a spin (the world's step takes long) is not spun.
        if usual_ns < self._spin_ns:
            _spin(newest, wanted, max(self._spin_ns, _LEAST_SPIN_NS))
        return super().for_frame(newest, wanted, usual_ns, goes_on)


class Spinning:
    """Never asleep: the shortest latency, for a CPU of its own. Nobody has to wake it."""

    is_woken: ClassVar[bool] = False

    def __init__(self, wake_ups: WakeUps, spin_ns: int) -> None:
        """Same arguments as the other ways of waiting; none of them is used."""

    def for_job(self, newest: Callable[[], int], wanted: int) -> None:
        _spin(newest, wanted, _SPIN_BEAT_NS)

    def for_frame(self, newest: Callable[[], int], wanted: int, usual_ns: int, goes_on: Callable[[], bool]) -> bool:
        while newest() < wanted:
            if not goes_on():
                return False
            _spin(newest, wanted, _SPIN_BEAT_NS)
        return True


#: By the names that the setting `wait` has for them.
WAITING: dict[str, type[Blocking | Spinning]] = {"hybrid": Hybrid, "block": Blocking, "spin": Spinning}


def make_waiting(wait: str, wake_ups: WakeUps, spin_ns: int, period_ns: int) -> Waiting:
    """`wait`: one of `WAITING`. `spin_ns`: longest spin of `hybrid`."""
    # Never more than an eighth of a tick: at 1 kHz fourteen spinning workers would leave no CPU to anybody.
    return WAITING[wait](wake_ups, min(spin_ns, period_ns // 8))


def _spin(newest: Callable[[], int], wanted: int, for_ns: int) -> None:
    now_ns = MonotonicClock.now_ns
    until_ns = now_ns() + for_ns
    while newest() < wanted and now_ns() < until_ns:
        pass
