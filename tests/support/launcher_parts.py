"""Children for the launcher's tests, and what makes the fork server's life hard."""

from __future__ import annotations

import errno
import importlib
import os
import resource
import signal
import sys
from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel

from rtcore.channel import Channel, Message
from rtcore.config.run import GROUPS, RuntimeConfig
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


def says_whether_settings_can_be_checked(boot: PartBoot, channel: Channel) -> None:
    """Before it has read any."""
    kinds: list[type[BaseModel]] = [RuntimeConfig, *GROUPS.values()]
    channel.send(Say([bool(kind.__pydantic_complete__) for kind in kinds]))


def ends(boot: PartBoot, channel: Channel) -> None:
    """At once."""


def tells(boot: PartBoot, channel: Channel) -> None:
    """What it has of the program that asks for it. `boot.text`: a module of the user's, whose `VALUE` it says."""
    print("printed by", boot.text, flush=True)
    umask = os.umask(0)
    own = importlib.import_module(boot.text).VALUE if boot.text else None
    said = {
        "environment": {name: value for name, value in os.environ.items() if name.startswith(("SHARED_", "PYTEST_"))},
        "folder": os.getcwd(),  # noqa: PTH109
        "umask": umask,
        "limit": resource.getrlimit(resource.RLIMIT_CORE)[0],
        "cpus": sorted(os.sched_getaffinity(0)),
        "blocked": sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        "path": sys.path,
        "modules": sorted({"colorsys"} & sys.modules.keys()),
        "own": own,
    }
    channel.send(Say(said))


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
