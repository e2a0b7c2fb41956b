"""Children for the launcher's tests, and what makes the fork server's life hard."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import Any, NoReturn

from rtcore.channel import Channel, Message
from rtcore.messages import Boot, End, Ready


@dataclass(frozen=True)
class PartBoot(Boot):
    pad: str = ""
    text: str = ""
    times: int = 0
    chars: int = 0


@dataclass
class PartReady(Ready):
    bytes: int


@dataclass
class Ask(Message):
    """To a child: say this number."""

    number: int


@dataclass
class Say(Message):
    """Any value, as JSON has it."""

    value: Any


def part_boot(**fields: Any) -> PartBoot:
    return PartBoot("", [0], **fields)


def waits(boot: PartBoot, channel: Channel) -> None:
    """Ready at once; ends when it is told to."""
    channel.send(PartReady(len(boot.pad)))
    channel.expect(End, 60)


def echoes(boot: PartBoot, channel: Channel) -> None:
    """Says what it hears, and its own text."""
    message = channel.expect(Ask, 60)
    channel.send(Say([message.number, "x" * boot.chars]))


def ends(boot: PartBoot, channel: Channel) -> None:
    """At once."""


def raises(boot: PartBoot, channel: Channel) -> NoReturn:
    raise RuntimeError(boot.text * boot.times)


def talks_nonsense(boot: PartBoot, channel: Channel) -> None:
    """As somebody who writes into a descriptor that is not his."""
    os.write(channel.fileno(), b"hello, world; this is no message\n")
    channel.expect(End, 60)


def fail_forks(count: int) -> None:
    """In the fork server: the next `count` of them."""
    really, left = os.fork, [count]

    def fork() -> int:
        if left[0]:
            left[0] -= 1
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return really()

    os.fork = fork
