"""How a program of rtcore ends: exit codes, signals, and errors in words. The same for all of them."""

from __future__ import annotations

import logging
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from rtcore.cli.streams import Outlet, ReaderGone, guard_streams, refusal_of
from rtcore.errors import (
    ConfigError,
    ContractBroken,
    RecordError,
    RtcoreError,
    RtcoreWarning,
    no_descriptor,
    shortage_behind,
)
from rtcore.host.forks import not_in_forks
from rtcore.report.log import lines_to, show_on_stderr

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
#: 3 is that of `rtcore-profile`: worse than the baseline.
EXIT_CONTRACT_BROKEN = 4
#: Something did not hold that must hold at every tick: a fault of rtcore itself (EX_SOFTWARE of sysexits.h).
EXIT_BROKEN_INVARIANT = 70
#: By Ctrl-C.
EXIT_INTERRUPTED = 128 + signal.SIGINT
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: Until an exception that was dropped is raised again: where it was, there is something to be done first.
_AGAIN_AFTER_S = 0.02
#: What `signals_as_exceptions` has raised.
_raised: list[Stopped] = []


def find_own_modules() -> None:
    """Own worlds and policies (module:factory) are looked for where the command is given, after everything else."""
    with suppress(FileNotFoundError):  # that folder may have been deleted: then there are none
        sys.path.append(str(Path.cwd()))


class Stopped(BaseException):
    """A signal asked the program to end: processes and shared memory are cleaned up on the way out."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum
        self.exitcode = 128 + signum


def end_program(name: str, body: Callable[[], int], *, goes_on: bool = False) -> NoReturn:
    """The whole life of a program: `body` returns its exit code; whatever it raises becomes words and an exit code.

    0 done, 1 failed, 2 a wrong setting, 4 a contract not kept, 128+n for signal n. A reader of stdout that is gone
    counts as SIGPIPE: it ends the program quietly at the next line, or, where it `goes_on`, when `stop_if_told` looks.
    A stdout that cannot be written otherwise (a full disk) is an error once all is done.
    """
    warnings.simplefilter("ignore", RtcoreWarning)
    outlet = guard_streams()
    outlet.raises = not goes_on
    raise SystemExit(_exitcode(name, body, outlet))


def _exitcode(name: str, body: Callable[[], int], outlet: Outlet) -> Any:
    try:
        # Before anything is done: a wrong RTCORE_LOG is a wrong setting.
        with lines_to(show_on_stderr, logging.WARNING), signals_as_exceptions():
            exitcode: Any = _run(body)
            outlet.raises = False
    except Stopped as stop:
        return say_stopped(name, stop)
    except ReaderGone:
        return 128 + signal.SIGPIPE
    except RtcoreError as error:
        return say_error(name, error)
    except (OSError, ImportError) as error:
        if not no_descriptor(error):
            raise
        return say_error(name, RtcoreError(f"{error}. Raise the limit of open files (ulimit -n)"))
    refusal = refusal_of(outlet)
    return (exitcode or say_error(name, RecordError(refusal))) if refusal else exitcode


def _run(body: Callable[[], int]) -> Any:
    try:
        with as_signals():
            return body()
    except SystemExit as end:  # argparse, after --help or a wrong option
        return end.code


@contextmanager
def as_signals() -> Iterator[None]:
    """An error that compiled code, such as pydantic's, made of a `Stopped` is that again."""
    try:
        yield
        return
    except RtcoreError:  # also one that came after it, while the program cleaned up: that is news
        raise
    except Exception as error:
        behind: BaseException | None = error
        while behind is not None and not isinstance(behind, Stopped):
            behind = behind.__cause__  # not its context: what goes wrong on the way out is a fault, and no signal
        if behind is None:
            raise
    raise behind


def raise_lost_signal() -> None:
    """Raises `Stopped` if a signal came whose exception never arrived.

    Python drops what is raised in a finalizer or a callback, and an import runs many of them.
    """
    if _raised:
        raise _raised[-1]


def stop_if_told() -> None:
    """`raise_lost_signal`, and `Stopped` if nobody reads stdout any more. For loops that have not been stopped yet."""
    raise_lost_signal()
    if isinstance(sys.stdout, Outlet) and sys.stdout.reader_is_gone:
        raise Stopped(signal.SIGPIPE)


@contextmanager
def signals_as_exceptions() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP become `Stopped` in the main thread, at any moment of the block."""
    _raised.clear()

    def stop(signum: int, frame: FrameType | None) -> None:
        # Once: what follows is cleaning up, which must not be interrupted by an impatient second Ctrl-C.
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        _raised.append(Stopped(signum))
        raise _raised[-1]

    with _handling(stop) as before, _raising_again():
        yield


@contextmanager
def _raising_again() -> Iterator[None]:
    """Raises a `Stopped` again that Python dropped: where a finalizer, a callback or compiled code that cannot raise,
    such as an emulator's, was interrupted. Soon after, until it arrives."""
    report = sys.unraisablehook

    def again(signum: int, frame: FrameType | None) -> None:
        raise_lost_signal()

    def dropped(what: sys.UnraisableHookArgs) -> None:
        if isinstance(what.exc_value, Stopped):
            signal.signal(signal.SIGALRM, again)
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_AFTER_S)
        else:
            report(what)

    sys.unraisablehook = dropped
    try:
        yield
    finally:
        sys.unraisablehook = report
        if signal.getsignal(signal.SIGALRM) is again:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


@contextmanager
def stopping_by(stop: Callable[[], None]) -> Iterator[list[Stopped]]:
    """In the block a signal calls `stop` instead, so that what is under way comes to its end; which one is in the list.

    A second one does not wait for that: it becomes `Stopped`. Within `signals_as_exceptions`.
    """
    stopped: list[Stopped] = []

    def ask(signum: int, frame: FrameType | None) -> None:
        stopped.append(Stopped(signum))
        if len(stopped) > 1:
            raise stopped[-1]
        stop()

    with _handling(ask):
        yield stopped


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[dict[signal.Signals, Any]]:
    """`handler` for every signal that ends a program. Under nohup SIGHUP is ignored, and stays so."""
    before: dict[signal.Signals, Any] = {}
    for number in _SIGNALS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, not_in_forks(handler))
    try:
        yield before
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def say_stopped(program: str, stop: Stopped) -> int:
    """Tell the user; returns the exit code."""
    why = "nobody reads its output any more" if stop.signum == signal.SIGPIPE else f"stopped by {stop}"
    _tell("", f"{program}: {why}; everything is cleaned up")
    return stop.exitcode


def say_error(program: str, error: Exception) -> int:
    """Tell the user what went wrong, a child's traceback included; returns the exit code."""
    _tell(f"{program}: {type(error).__name__}: ", str(error), getattr(error, "__notes__", ()))
    own = {ConfigError: EXIT_BAD_INPUT, ContractBroken: EXIT_CONTRACT_BROKEN}
    if shortage_behind(error):
        return EXIT_FAILED
    return next((code for kind, code in own.items() if isinstance(error, kind)), EXIT_FAILED)


def _tell(head: str, text: str, notes: Iterable[str] = ()) -> None:
    """On stderr; without colours where no file descriptor is left to read Rich with."""
    try:
        from rtcore.report.terminal import Terminal  # noqa: PLC0415 - a program that says nothing is quicker without

        errors = Terminal(stderr=True, highlight=False)
        errors.print(head, end="", markup=False, style="bold red")
        errors.print(text, markup=False, soft_wrap=True)
        for note in notes:
            errors.print(note, markup=False, style="dim", soft_wrap=True)
    except (OSError, ImportError) as lack:
        if not no_descriptor(lack):
            raise
        for line in (head + text, *notes):
            show_on_stderr(line)
