"""What rtcore says while it works, on the screen of its programs.

Modules log to a logger of their own name (`rtcore.processes.workers`); here is the one handler of a program's lines,
and what --verbose, --quiet and RTCORE_LOG say of their levels. A program that embeds rtcore needs none of this: it
configures `logging` as for any other library.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import ClassVar

from rtcore.errors import ConfigError, printable

#: Environment variable: a level, or levels of single loggers, or both, with commas in between.
LOG_VARIABLE = "RTCORE_LOG"
#: Each of our packages has a root of its own in the tree of loggers.
_PACKAGES = ("rtcore", "rtcore_workers", "rtcore_envs")
_ROOT = logging.getLogger("rtcore")
_LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}


class LineHandler(logging.Handler):
    """Hands each record to `show`, as a line. Any thread may log: `show` is called by one at a time.

    What `show` raises goes through to whoever logged: a signal that ends the program must not be swallowed here.
    """

    #: Of the logger "rtcore", before the first that was attached changed it.
    _level_before: ClassVar[int | None] = None

    def __init__(self, show: Callable[[str], None]) -> None:
        super().__init__()
        self._show = show
        self._one_at_a_time = threading.RLock()
        self._plain = logging.Formatter("%(message)s")
        self._named = logging.Formatter("%(name)s: %(message)s")

    def attach(self) -> None:
        """Beside the handlers of the embedding program: shows what is logged at INFO and above, until `detach`."""
        if not _ROOT.isEnabledFor(logging.INFO):
            LineHandler._level_before = _ROOT.level
            _ROOT.setLevel(logging.INFO)
        _ROOT.addHandler(self)

    def detach(self) -> None:
        """The last of several puts back the level that the program had set. More than once does no harm."""
        _ROOT.removeHandler(self)
        level = LineHandler._level_before
        if level is not None and not any(isinstance(handler, LineHandler) for handler in _ROOT.handlers):
            _ROOT.setLevel(level)
            LineHandler._level_before = None

    def handle(self, record: logging.LogRecord) -> bool:
        """As logging's, but by `with`: a signal between its `acquire()` and `try` would leave the lock taken."""
        with self._one_at_a_time:
            self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Lines for the user are shown as they are; those for a developer say which module they are of."""
        self._show((self._named if record.levelno < logging.INFO else self._plain).format(record))


def show_on_stderr(line: str) -> None:
    """Control characters are escaped: a line may hold what a world or a file says."""
    print("\n".join(printable(part) for part in line.splitlines()), file=sys.stderr, flush=True)


def levels_of(text: str) -> dict[str, int]:
    """Level by logger of what RTCORE_LOG says: `debug`, `rtcore.processes=debug,rtcore.learn=error`, or both.

    ConfigError for a level or a logger that there is not.
    """
    levels: dict[str, int] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, equals, word = (part.strip() for part in entry.rpartition("="))
        if word.lower() not in _LEVELS:
            raise ConfigError(
                f"{LOG_VARIABLE}: got {entry!r}, expected one of {', '.join(_LEVELS)}, "
                "or NAME=LEVEL such as rtcore.processes=debug"
            )
        if equals and not _is_ours(name):
            raise ConfigError(
                f"{LOG_VARIABLE}: got {entry!r}, and there is no module {name!r}; expected one of "
                f"{', '.join(_PACKAGES)}, such as rtcore.processes or rtcore.learn.checkpointer"
            )
        levels |= dict.fromkeys([name] if equals else _PACKAGES, _LEVELS[word.lower()])
    return levels


def _is_ours(name: str) -> bool:
    if name.partition(".")[0] not in _PACKAGES:
        return False
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # of a parent that is no package
        return False


@contextmanager
def lines_to(
    show: Callable[[str], None],
    default: int = logging.INFO,
    *,
    chosen: int | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Iterator[None]:
    """In the block every line of rtcore goes to `show`, and nowhere else. One within another is fine.

    Args:
        show: Gets a line without its end; an escaped one if it cannot be trusted is its business.
        default: The level where nobody says one.
        chosen: The level that the program's flags say: before that of RTCORE_LOG, but not before its single loggers.
        environment: Where RTCORE_LOG is.

    Raises:
        ConfigError: RTCORE_LOG is none.
    """
    levels = dict.fromkeys(_PACKAGES, default) | levels_of(environment.get(LOG_VARIABLE, ""))
    if chosen is not None:
        levels |= dict.fromkeys(_PACKAGES, chosen)
    loggers = [logging.getLogger(name) for name in levels]
    before = [(logger, logger.level, logger.propagate, logger.handlers) for logger in loggers]
    handler = LineHandler(show)
    try:
        for logger in loggers:
            logger.setLevel(levels[logger.name])
            if logger.name in _PACKAGES:
                logger.handlers, logger.propagate = [handler], False
        yield
    finally:
        for logger, level, propagate, handlers in before:
            logger.setLevel(level)
            logger.propagate, logger.handlers = propagate, handlers


def is_quiet() -> bool:
    """Whether only warnings are wanted: then nothing is shown of how a run goes, until it is over."""
    return not _ROOT.isEnabledFor(logging.INFO)
