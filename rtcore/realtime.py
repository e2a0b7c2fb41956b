"""Realtime hygiene: what the kernel can do for punctual ticks. Each is tried, each answer is reported."""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

_PR_SET_TIMERSLACK = 29
_MCL_CURRENT = 1
_MCL_FUTURE = 2
_FIFO_PRIORITY = 20


def prepare_env_process(env_cpu: int | None) -> dict[str, str]:
    """For the env process: fine timers, SCHED_FIFO, locked memory, a pinned CPU, no garbage collection.

    Returns "granted" or "refused: why" for each. Nothing here is needed to run, only to be punctual.
    """
    report = {
        "timer slack 1 ns": _try(_fine_timers),
        f"SCHED_FIFO {_FIFO_PRIORITY}": _try(_be_realtime),
        "mlockall": _try(_lock_memory),
    }
    if env_cpu is not None:
        report[f"affinity cpu {env_cpu}"] = _try(lambda: os.sched_setaffinity(0, {env_cpu}))
    gc.collect()
    gc.freeze()
    gc.disable()
    report["gc frozen"] = "granted"
    return report


def keep_off(env_cpu: int | None) -> None:
    """For workers: leave the env process's CPU alone, where there is another one."""
    others = os.sched_getaffinity(0) - ({env_cpu} if env_cpu is not None else set())
    if others:
        os.sched_setaffinity(0, others)


def _try(request: Callable[[], None]) -> str:
    try:
        request()
    except OSError as error:
        return f"refused: {error.strerror}"
    return "granted"


def _fine_timers() -> None:
    _call("prctl", _PR_SET_TIMERSLACK, 1)


def _be_realtime() -> None:
    # Children of a realtime process would be realtime too: the flag resets them to normal.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(_FIFO_PRIORITY))


def _lock_memory() -> None:
    _call("mlockall", _MCL_CURRENT | _MCL_FUTURE)


def _call(function: str, *arguments: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
