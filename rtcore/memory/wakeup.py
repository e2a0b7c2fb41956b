"""How a waiting process is woken: a named POSIX semaphore as a counter of wake-ups, waited for by the run's clock.

POSIX's own wait with a limit takes that limit as a date: set back by an hour, it keeps an idle process asleep for an
hour, and its silence is taken for a hang. glibc 2.30 and newer can wait by CLOCK_MONOTONIC; only Python cannot ask it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Self

import posix_ipc

from rtcore.clock import NS_PER_S, MonotonicClock

_CLOCK_MONOTONIC = 1


class _Deadline(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def _find_clocked_wait() -> Callable[..., int] | None:
    """glibc's sem_clockwait; None where there is none, and waits follow the date."""
    try:
        wait = ctypes.CDLL(None).sem_clockwait
    except AttributeError:
        return None
    wait.restype = ctypes.c_int
    wait.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Deadline))
    return wait


_clocked_wait = _find_clocked_wait()
FOLLOWS_THE_DATE = _clocked_wait is None


class WakeUps:
    """One process posts, one waits. What is posted while nobody waits is kept: the next wait returns at once."""

    def __init__(self, semaphore: posix_ipc.Semaphore) -> None:
        self._semaphore = semaphore
        #: Wake whoever waits. Never waits itself, allocates nothing.
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
        """Until woken, or for that long whatever becomes of the date; False: not woken, or by a signal only."""
        if _clocked_wait is None:
            return self._try(timeout_ns / NS_PER_S)
        if self._handle is None:
            self._handle = self._open()
        deadline = self._deadline
        deadline.seconds, deadline.nanoseconds = divmod(MonotonicClock.now_ns() + timeout_ns, NS_PER_S)
        return _clocked_wait(self._handle, _CLOCK_MONOTONIC, self._deadline_at) == 0

    def take(self) -> bool:
        """Whether there was one; never waits."""
        return self._try(0)

    def _try(self, timeout_s: float) -> bool:
        try:
            self._semaphore.acquire(timeout_s)
        except (posix_ipc.BusyError, posix_ipc.SignalError):
            return False
        return True

    def _open(self) -> int:
        """The semaphore's address in this process: the same one that `posix_ipc` has and does not tell."""
        sem_open = ctypes.CDLL(None, use_errno=True).sem_open
        sem_open.argtypes, sem_open.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        address = sem_open(self._semaphore.name.encode(), 0)
        if not address:
            raise OSError(ctypes.get_errno(), f"{self._semaphore.name} cannot be opened")
        return int(address)

    def close(self) -> None:
        """Let it go; the other end keeps it."""
        self._semaphore.close()
