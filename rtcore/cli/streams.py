"""stdout and stderr of a program that outlives whoever reads them: a closed pipe, a hung-up terminal, a full disk.

A program of rtcore has processes and files to bring to their end; no line that it cannot print may keep it from that.
"""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
import threading
from contextlib import suppress
from typing import Any


class ReaderGone(BaseException):
    """Who read stdout has seen enough (`| head`)."""


class Outlet:
    """A text stream that refuses nothing. What its file refuses is remembered, and nothing more is written to it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        #: Why nothing is written any more; None: it is.
        self.refusal: OSError | None = None
        #: Whether a writer in the main thread is told of a closed pipe, by `ReaderGone`.
        self.raises = False
        with suppress(AttributeError, ValueError):
            # What a world or a file says may hold anything; a stray character is no reason to say nothing.
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._guarded(lambda: self._stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._guarded(self._stream.flush)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def reader_is_gone(self) -> bool:
        """Known without writing: a run that has nothing to say for a while ends all the same."""
        if self.refusal is not None:
            return self.refusal.errno == errno.EPIPE
        with suppress(OSError, ValueError, AttributeError):  # one that is no file, such as a notebook's
            number = self._stream.fileno()
            mode = os.fstat(number).st_mode
            if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
                poll = select.poll()
                poll.register(number, 0)
                return any(event & select.POLLERR for _, event in poll.poll(0))
        return False

    def _guarded(self, step: Any) -> None:
        if self.refusal is None:
            try:
                step()
            except OSError as error:
                self._refuse(error)
        if self.raises and self.reader_is_gone and threading.current_thread() is threading.main_thread():
            self.raises = False  # once
            raise ReaderGone

    def _refuse(self, error: OSError) -> None:
        self.refusal = error
        # What waits in the buffer, and Python's flush at its end, must not be refused once more.
        with suppress(OSError, ValueError, AttributeError):  # one that is no file, such as a notebook's
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


def guard_streams() -> Outlet:
    """Give this program a stdout and a stderr that refuse nothing; returns stdout. For programs, not for libraries."""
    _fill_gaps()
    if not isinstance(sys.stdout, Outlet):
        sys.stdout = Outlet(sys.stdout or open(os.devnull, "w"))  # noqa: SIM115, PTH123 - as long as the program
    if not isinstance(sys.stderr, Outlet):
        sys.stderr = Outlet(sys.stderr or open(os.devnull, "w"))  # noqa: SIM115, PTH123
    return sys.stdout


def refusal_of(outlet: Outlet) -> str:
    """Why part of what was said went nowhere, in words; "" if nobody missed any of it.

    Who closed a pipe wanted no more of it, and at a terminal that is gone nobody sits.
    """
    outlet.flush()
    if outlet.refusal is None or outlet.refusal.errno in (errno.EPIPE, errno.EIO):
        return ""
    return f"stdout cannot be written ({outlet.refusal.strerror}): what was said from then on is lost"


def _fill_gaps() -> None:
    """A standard stream that was closed (`>&-`) must not become the number of a file or socket of the run."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
