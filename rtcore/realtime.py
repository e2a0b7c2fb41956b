"""Realtime hygiene: what the kernel can do for punctual ticks. Each is tried, each answer is reported."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
from collections.abc import Callable
from typing import Any

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_FIFO_PRIORITY = 20
#: Numbers of sched_setattr and sched_getattr, of which most C libraries know nothing; elsewhere none, which is refused.
_SYS_SCHED_ATTR = {"x86_64": (314, 315), "aarch64": (274, 275)}.get(platform.machine(), (-1, -1))
#: Of normal priority, whoever wakes goes first if his turns are shorter than those of who has the CPU (1.4 to 2.8 ms
#: where nothing was asked for). Still shorter ones wake no sooner, and cut each inference into more pieces.
_TURN_NS = 500_000
_GRANTED = "granted"


class _SchedAttr(ctypes.Structure):
    """`struct sched_attr`, sched_setattr(2)."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


def prepare_env_process(env_cpu: int | None, *, wants_fifo: bool = True) -> dict[str, str]:
    """For the env process: fine timers, SCHED_FIFO or else short turns, locked memory, a pinned CPU, no collection.

    Returns "granted" or "refused: why" for each. Nothing here is needed to run, only to be punctual.
    """
    report, fifo = {"timer slack 1 ns": _try(_fine_timers)}, ""
    if wants_fifo:
        report[f"SCHED_FIFO {_FIFO_PRIORITY}"] = fifo = _try(_be_realtime)
    if fifo != _GRANTED:
        report[f"turns of {_TURN_NS / 1e6:g} ms"] = _try(_take_short_turns)
    report["mlockall"] = _try(_lock_memory)
    if env_cpu is not None:
        report[f"affinity cpu {env_cpu}"] = _try(lambda: os.sched_setaffinity(0, {env_cpu}))
    gc.collect()
    gc.freeze()
    gc.disable()
    report["gc frozen"] = _GRANTED
    return report


def keep_off(env_cpu: int | None) -> None:
    """For workers: leave the env process's CPU alone, where there is another one."""
    others = os.sched_getaffinity(0) - ({env_cpu} if env_cpu is not None else set())
    if others:
        os.sched_setaffinity(0, others)


def wake_soon() -> str:
    """For workers: be on a CPU soon after they are woken, beside processes that compute all the time.

    Needs no right, but Linux 6.12: before, they wait for milliseconds. Returns "granted" or "refused: why".
    """
    return _try(_take_short_turns)


def _try(request: Callable[[], None]) -> str:
    try:
        request()
    except OSError as error:
        return f"refused: {error.strerror}"
    return _GRANTED


def _fine_timers() -> None:
    _call("prctl", _PR_SET_TIMERSLACK, 1)


def _be_realtime() -> None:
    # Children of a realtime process would be realtime too: the flag resets them to normal.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_FIFO_PRIORITY))


def _take_short_turns() -> None:
    attr = _sched_attr(0)
    if attr.runtime == 0:  # a newer kernel says how long a turn is
        raise OSError(errno.EOPNOTSUPP, "needs Linux 6.12")
    attr.runtime = _TURN_NS
    _call("syscall", _SYS_SCHED_ATTR[0], 0, ctypes.byref(attr), 0)


def _sched_attr(pid: int) -> _SchedAttr:
    """How a process is scheduled; 0: this one."""
    attr = _SchedAttr()
    arguments = (pid, ctypes.byref(attr), ctypes.sizeof(attr), 0)
    _call("syscall", _SYS_SCHED_ATTR[1], *arguments)
    return attr


def _lock_memory() -> None:
    _call("mlockall", _MCL_CURRENT | _MCL_FUTURE)


def _call(function: str, *arguments: Any) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
