"""Signals in the processes that a world or a policy forks: each has its default effect there, and none is lost.

Python runs a handler between two instructions. Until then the signal is a note, and a fork clears the child's notes
(`PyOS_AfterFork_Child`). So a signal that comes before a child has run at all, as on a busy CPU, would have no effect;
`multiprocessing`, which tells its daemons to end and then waits for them, would wait for ever. Therefore signals with a
handler of rtcore's are blocked during a fork: the kernel keeps them until the child has no such handler any more.
"""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import weakref
from collections.abc import Callable
from types import FrameType

_Handler = Callable[[int, FrameType | None], None]

#: Of glibc's and of musl's sigset_t.
_SIGSET_BYTES = 128
#: What has a handler of rtcore's in a process from which a world or a policy forks.
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_own_handlers: weakref.WeakSet[_Handler] = weakref.WeakSet()


def not_in_forks(handler: _Handler) -> _Handler:
    """`handler`, which a process that is forked from this one does not have: its signal has its default effect."""
    _prepare_forks()
    _own_handlers.add(handler)
    return handler


@functools.cache
def _prepare_forks() -> None:
    # In compiled code: in a function of Python's a signal could raise, and what a hook raises is dropped.
    libc = ctypes.PyDLL(None)
    blocked, before = ctypes.create_string_buffer(_SIGSET_BYTES), ctypes.create_string_buffer(_SIGSET_BYTES)
    libc.sigemptyset(blocked)
    for signum in _SIGNALS:
        libc.sigaddset(blocked, int(signum))
    restore = functools.partial(libc.pthread_sigmask, signal.SIG_SETMASK, before, None)

    def begin_in_child() -> None:
        for signum in _SIGNALS:
            if signal.getsignal(signum) in _own_handlers:
                signal.signal(signum, signal.SIG_DFL)
        restore()

    os.register_at_fork(
        before=functools.partial(libc.pthread_sigmask, signal.SIG_BLOCK, blocked, before),
        after_in_parent=restore,
        after_in_child=begin_in_child,
    )
