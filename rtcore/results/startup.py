"""What a start is doing, as log lines while it lasts, and how long each part of it took, for the summary."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from rtcore.clock import NS_PER_S, Clock
from rtcore.errors import StartupError

_log = logging.getLogger(__name__)

#: For people: a text, or what makes it at the moment it is shown.
Text = str | Callable[[], str]
#: How often a line is logged while a start waits.
_LOG_EVERY_NS = NS_PER_S


def text_of(words: Text) -> str:
    return words if isinstance(words, str) else words()


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. StartupError if the limit of processes, which counts threads as well, is reached."""
    try:
        thread.start()
    except RuntimeError as error:
        raise StartupError(
            f"the thread {thread.name} could not be started: {error}. Raise the limit of processes (ulimit -u; "
            "pids.max of the container or service): it counts threads as well"
        ) from error


class StartUp:
    """One start, from its first step to tick 0. One phase follows another, so that their times sum to the whole."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._phase = ""
        self._since_ns = self._logged_ns = 0
        self._times_ns: dict[str, int] = {}

    def enter(self, phase: str, line: str = "") -> None:
        """From now on time is that phase's, one that was there before or a new one. `line`: logged at once.

        "": the start is over.
        """
        now_ns = self._clock.now_ns()
        if self._phase:
            self._times_ns[self._phase] = self._times_ns.get(self._phase, 0) + now_ns - self._since_ns
        self._phase, self._since_ns = phase, now_ns
        if line:
            self._log_line(line, now_ns)

    def waiting(self, doing: Text) -> None:
        """Called again and again in a wait: logs what is being done, once a second while nothing else is logged."""
        now_ns = self._clock.now_ns()
        if self._phase and now_ns - self._logged_ns >= _LOG_EVERY_NS:
            self._log_line(f"{text_of(doing)}, {(now_ns - self._since_ns) // NS_PER_S} s", now_ns)

    @property
    def times_s(self) -> dict[str, float]:
        """Seconds by phase, in order."""
        return {phase: took_ns / NS_PER_S for phase, took_ns in self._times_ns.items()}

    def _log_line(self, line: str, now_ns: int) -> None:
        self._logged_ns = now_ns
        _log.info(line)
