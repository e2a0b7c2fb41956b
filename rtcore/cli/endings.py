"""How a program of rtcore ends: exit codes, signals, and errors in words. The same for all of them."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

from rtcore.errors import ConfigError, RtcoreError

if TYPE_CHECKING:
    from rich.console import Console

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
#: By Ctrl-C.
EXIT_INTERRUPTED = 128 + signal.SIGINT


class Stopped(BaseException):
    """A signal asked the program to end: processes and shared memory are cleaned up on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exitcode = 128 + signum


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGINT and SIGTERM become `Stopped` in the main thread, at any moment of the block."""

    def stop(signum: int, frame: FrameType | None) -> None:
        # Once: what follows is cleaning up, which must not be interrupted by an impatient second Ctrl-C.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise Stopped(signum)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def say_stopped(program: str, stop: Stopped) -> int:
    """Tell the user; returns the exit code."""
    _errors().print(f"{program}: stopped by {stop}; everything is cleaned up")
    return stop.exitcode


def say_error(program: str, error: RtcoreError) -> int:
    """Tell the user what went wrong, a child's traceback included; returns the exit code."""
    errors = _errors()
    errors.print(f"[bold red]{program}: {type(error).__name__}:[/] ", end="")
    errors.print(str(error), markup=False, soft_wrap=True)
    for note in getattr(error, "__notes__", ()):
        errors.print(note, markup=False, style="dim", soft_wrap=True)
    return EXIT_BAD_INPUT if isinstance(error, ConfigError) else EXIT_FAILED


def _errors() -> Console:
    from rich.console import Console  # noqa: PLC0415 - a program that says nothing is quicker without

    return Console(stderr=True, highlight=False)
