"""Children for the launcher's tests, and what makes the fork server's life hard."""

from __future__ import annotations

import errno
import os
import sys
from typing import Any, NoReturn

from rtcore.channel import Begin, Channel, End, Ready, Result


def waits(boot: dict[str, Any], channel: Channel) -> None:
    """Ready at once; ends when it is told to."""
    channel.send(Ready({"bytes": len(boot.get("pad", ""))}))
    channel.expect(End, 60)


def echoes(boot: dict[str, Any], channel: Channel) -> None:
    """Says what it hears, and its own text."""
    message = channel.expect(Begin, 60)
    channel.send(Result([message.begin_ns, "x" * boot["chars"]]))


def ends(boot: dict[str, Any], channel: Channel) -> None:
    """At once."""


def raises(boot: dict[str, Any], channel: Channel) -> NoReturn:
    raise RuntimeError(boot["text"] * boot["times"])


def talks_nonsense(boot: dict[str, Any], channel: Channel) -> None:
    """As somebody who writes into a descriptor that is not his."""
    os.write(channel.fileno(), b"hello, world; this is no message\n")
    channel.expect(End, 60)


def fail_two_forks() -> None:
    """In the fork server: as if the limit of processes were reached for a moment."""
    _fail_forks(2)


def fail_all_forks() -> None:
    _fail_forks(sys.maxsize)


def _fail_forks(count: int) -> None:
    really, left = os.fork, [count]

    def fork() -> int:
        if left[0]:
            left[0] -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return really()

    os.fork = fork


def cannot_be_called() -> NoReturn:
    raise ImportError("libgl.so.1: no such file")
