"""What a person says to a run of `rtcore-run` while it goes on: keys of a terminal, or a task a line on stdin."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rtcore.cli.keys import MOST_BYTES, Key, obeyed, pressing, reading
from rtcore.runtime.runtime import Runtime
from rtcore.spaces.task import task_from_line

_log = logging.getLogger(__name__)


@contextmanager
def attending(runtime: Runtime, *, tasks: int | None, keys: bool) -> Iterator[None]:
    """In the block a person may step in.

    Args:
        runtime: A run whose tick 0 is there.
        tasks: A descriptor whose lines are tasks.
        keys: Keys of the terminal are obeyed, if stdin is one.
    """
    if tasks is not None:
        with reading(tasks, _Lines(lambda line: _set_task(runtime, line)).take):
            yield
    elif keys:
        with pressing(_keys_of(runtime), _log.info):
            yield
    else:
        yield


def _keys_of(runtime: Runtime) -> dict[str, Key]:
    is_paused = threading.Event()

    def pause() -> None:
        if is_paused.is_set():
            is_paused.clear()
            runtime.resume()
            _log.info("resumed")
            return
        runtime.pause()
        is_paused.set()
        _log.info("paused; p goes on")

    return {
        "p": Key("pauses, and goes on", pause),
        "s": Key("stops safely", runtime.safe_stop),
        "q": Key("ends the run", runtime.stop),
    }


def _set_task(runtime: Runtime, line: str) -> None:
    if line.strip():
        obeyed(lambda: runtime.set_task(task_from_line(line)), _log.warning)


class _Lines:
    """Whole lines out of what comes in pieces. One that is too long is left out, and said."""

    def __init__(self, take: Callable[[str], None]) -> None:
        self._take_line, self._rest, self._is_too_long = take, b"", False

    def take(self, piece: bytes) -> None:
        if not piece and self._rest:  # the last line may have no end
            piece = b"\n"
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if not self._is_too_long:
                self._take_line(line.decode(errors="replace"))
            self._is_too_long = False
        if len(self._rest) > MOST_BYTES:
            if not self._is_too_long:
                _log.warning("a line of more than %d bytes on stdin; expected a task as JSON", MOST_BYTES)
            self._rest, self._is_too_long = b"", True
