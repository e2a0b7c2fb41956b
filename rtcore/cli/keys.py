"""Keys of the terminal that a program obeys while it shows a run, without Enter.

A thread of its own reads, so that it holds up nothing. The terminal is set back however the program ends, but for
SIGKILL (`stty sane` does it then).
"""

from __future__ import annotations

import os
import select
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from rtcore.errors import RtcoreError
from rtcore.results.startup import start_thread

#: That are read at once.
MOST_BYTES = 1 << 16
#: Between two looks whether the terminal is still this program's.
_LOOK_MS = 500
#: Index of the local modes in what termios gives.
_LOCAL_MODES = 3


class Key(NamedTuple):
    """What a key does, and how that is said; "": not at all."""

    text: str
    do: Callable[[], object]


@contextmanager
def pressing(keys: dict[str, Key], say: Callable[[str], object]) -> Iterator[None]:
    """In the block keys of the terminal do what they say, without Enter, and `?` says what there is; after it the
    terminal is as it was before. Nothing where stdin is no terminal.

    Args:
        keys: By the character that is typed; a letter, small or large.
        say: For lines to the user.
    """
    descriptor = _terminal()
    if descriptor is None:
        yield
        return
    text = ", ".join(f"{key} {what.text}" for key, what in keys.items() if what.text)

    def help_out() -> None:
        say(f"keys      {text}, ? says this")

    def take(typed: bytes) -> None:
        for key in typed.decode(errors="replace"):
            what = keys.get(key.lower())
            if what is not None:
                obeyed(what.do, say)
            elif key == "?":
                help_out()

    before = termios.tcgetattr(descriptor)
    help_out()
    try:
        with reading(descriptor, take, lambda: _single_keys(descriptor)):
            yield
    finally:
        if _is_ours(descriptor):
            with suppress(termios.error):
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


@contextmanager
def reading(
    descriptor: int, take: Callable[[bytes], None], prepare: Callable[[], bool] = lambda: True
) -> Iterator[None]:
    """In the block a thread hands on what can be read, until its end.

    Args:
        descriptor: Of a file, a pipe or a terminal.
        take: Gets each piece; an empty one at the end.
        prepare: Called before each look; whether there may be one.
    """
    ending, end = os.pipe()

    def read() -> None:
        poll = select.poll()
        poll.register(ending, select.POLLIN)
        while True:
            poll.register(descriptor, select.POLLIN if prepare() else 0)
            there = dict(poll.poll(_LOOK_MS))
            if ending in there:
                return
            if descriptor in there:
                try:
                    piece = os.read(descriptor, MOST_BYTES)
                except OSError:  # the terminal was hung up
                    return
                take(piece)
                if not piece:
                    return

    thread = threading.Thread(target=read, name="stdin", daemon=True)
    try:
        start_thread(thread)
        yield
    finally:
        os.close(end)  # which the thread sees as the pipe's end
        if thread.ident is not None:
            thread.join()
        os.close(ending)


def obeyed(do: Callable[[], object], say: Callable[[str], object]) -> None:
    """What does not go is said, and nothing else happens."""
    try:
        do()
    except RtcoreError as error:
        say(str(error))


def stdin_descriptor() -> int | None:
    """Where stdin is read; None: it is closed, or not a file, as in a notebook."""
    try:
        return sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        return None


def _terminal() -> int | None:
    """stdin, if it is a terminal and this program the one that it belongs to; None: it is not."""
    descriptor = stdin_descriptor()
    return descriptor if descriptor is not None and os.isatty(descriptor) and _is_ours(descriptor) else None


def _is_ours(descriptor: int) -> bool:
    """Whether this program is in the foreground: who reads or sets a terminal from behind is stopped by the kernel."""
    with suppress(OSError):
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    return False


def _single_keys(descriptor: int) -> bool:
    """Let keys come without Enter and unseen; signals by Ctrl-C and Ctrl-Z stay. Anew after each Ctrl-Z, when the shell
    has set it back. False while another program has the terminal."""
    if not _is_ours(descriptor):
        return False
    with suppress(termios.error):
        modes = termios.tcgetattr(descriptor)
        if modes[_LOCAL_MODES] & (termios.ICANON | termios.ECHO):
            modes[_LOCAL_MODES] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(descriptor, termios.TCSANOW, modes)
        return True
    return False
