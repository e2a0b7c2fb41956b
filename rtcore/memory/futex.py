"""Sleeping on a word of shared memory until another process says that it has changed: Linux's futex, and the fence.

A futex is the low half of an 8-byte word. Who sleeps gives the value that it has seen there: the kernel compares before
it puts the process to sleep, so that a change in between is never slept over. One system call wakes all that sleep on a
word, or those of them whose bit is named. The
extension calls it, else ctypes: CPython has none. Nobody has to be alive for it, and
nothing is left behind by who dies in his sleep.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading

from rtcore._tick import compiled
from rtcore.clock import NS_PER_S

#: Wakes whoever sleeps, whatever its bit.
ALL_BITS = (1 << 32) - 1
_LOW_HALF = (1 << 32) - 1
#: Not the private kinds: other processes sleep on the word. The deadline is one of CLOCK_MONOTONIC.
_WAIT_BITSET, _WAKE_BITSET = 9, 10
_EVERYBODY = ctypes.c_int(2**31 - 1)
_SYSCALL = ctypes.c_long(98 if platform.machine() == "aarch64" else 202)
_NOBODY_CAME = (errno.EAGAIN, errno.ETIMEDOUT, errno.EINTR)

#: Sleeps without the GIL, and says why it failed; waking never blocks, and takes half the time without both.
_sleep = ctypes.CDLL(None, use_errno=True).syscall
_wake = ctypes.PyDLL(None).syscall
_fence_lock = threading.Lock()


def full_fence() -> None:
    """No load after this is done before every store in front of it is visible to all.

    The extension has one. CPython has none; taking a free lock executes an atomic read-modify-write, which on x86-64 is
    one: a lock is a POSIX semaphore up to 3.13 (sem_trywait and sem_post: `lock cmpxchg`), and a PyMutex from 3.14 on
    (compare and exchange of its byte). One lock of this process: should another thread hold it, waiting for it is a
    fence too.
    """
    with _fence_lock:
        pass


if compiled is not None:
    full_fence = compiled.fence


class _Deadline(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("nanoseconds", ctypes.c_int64))


class Futex:
    """The low half of an 8-byte word that processes sleep on.

    Args:
        memory: Shared, writable.
        at: Where the word begins, a multiple of 8.
    """

    def __init__(self, memory: memoryview, at: int) -> None:
        self._compiled = compiled.Words(memory[at : at + 8]) if compiled is not None else None
        # Keeps the memory mapped: an address in ctypes does not.
        self._word = ctypes.c_char.from_buffer(memory, at)
        self._address = ctypes.c_void_p(ctypes.addressof(self._word))
        self._deadline = _Deadline()
        self._deadline_at = ctypes.byref(self._deadline)

    def wait(self, seen: int, bits: int, deadline_ns: int) -> bool:
        """Sleep until woken, unless the word is no longer what was seen.

        Args:
            seen: The whole word, as it was read.
            bits: For whom this process can be woken, not 0.
            deadline_ns: Of CLOCK_MONOTONIC: it sleeps no longer.

        Returns:
            Whether it was woken; False: the word had changed, the time is up, or a signal came.

        Raises:
            OSError: The kernel has no futex for this memory.
        """
        if self._compiled is not None:
            error = self._compiled.wait(0, seen, bits, deadline_ns)
        else:
            deadline = self._deadline
            deadline.seconds, deadline.nanoseconds = divmod(deadline_ns, NS_PER_S)
            expected = ctypes.c_uint32(seen & _LOW_HALF)
            args = (self._address, _WAIT_BITSET, expected, self._deadline_at, None, bits)
            error = ctypes.get_errno() if _sleep(_SYSCALL, *args) else 0
        if error and error not in _NOBODY_CAME:
            raise OSError(error, f"a worker cannot sleep on shared memory (futex): {os.strerror(error)}")
        return not error

    def wake(self, bits: int = ALL_BITS) -> int:
        """Wake all that sleep on the word for one of these bits: one system call. Never blocks.

        Args:
            bits: For whom, not 0.

        Returns:
            How many were woken.
        """
        if self._compiled is not None:
            number: int = self._compiled.wake(0, bits)
            return number
        woken: int = _wake(_SYSCALL, self._address, _WAKE_BITSET, _EVERYBODY, None, None, bits)
        return woken
