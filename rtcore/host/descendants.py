"""How the fork server's children, and the processes that these start, begin and end. None of them is left over.

A world or a policy may start programs (a game, a simulator, a ROS node). These find what they find elsewhere:

- SIGINT and SIGTERM have their default effect in such a program. So no signal is ignored here, because an ignored one
  stays ignored across exec; where a signal must have no effect, its handler does nothing, and exec removes that.
- A process that ends runs its `atexit` functions, and ends its daemonic children of `multiprocessing`.
- The env process gets SIGTERM where others get SIGKILL, and time to `close()` the world. Also when the fork server is
  killed: the kernel then sends it SIGTERM, and it ends what it has started itself. If whoever started the run is gone,
  too, nobody is left to end a world that does not close: it then ends itself, by SIGALRM.

When the process of a world or a policy has ended, however it ended, the processes that it started are ended, too. For
that the fork server is their "subreaper" (prctl(2)): a process whose parent has ended becomes its child, whatever its
session or process group. `rtcore-run` is one as well, for worlds in its own process (virtual clock, replay) and for the
children of a fork server that was killed.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
from collections.abc import Callable, Collection, Iterator
from types import FrameType, TracebackType
from typing import Any, NoReturn

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import no_descriptor
from rtcore.host.forks import not_in_forks
from rtcore.host.watchdog import Watchdog

#: The child that gets SIGTERM before SIGKILL. Its descendants may be in any process group.
ENV = "env"
#: Has the env process write to stderr where it stands: each thread's Python stack, also while compiled code hangs.
SHOW_STACK = signal.SIGRTMIN + 7
_PR_SET_CHILD_SUBREAPER = 36
#: However long a world may be silent: a day [s].
_LONGEST_GRACE_S = 86_400.0
#: From SIGTERM to SIGKILL for a process whose parent has ended.
_ORPHAN_GRACE_NS = 1_000_000_000
#: How long to wait after SIGKILL. A process that hangs in the kernel is not waited for.
_KILL_GRACE_NS = 2_000_000_000
_POLL_NS = 5_000_000


class TerminationRequested(BaseException):
    """SIGTERM (or SIGHUP) has come: the process stops what it does, closes its world, and ends."""


# -- in the fork server ------------------------------------------------------------------------------------


class Children:
    """The fork server's own children by pid. Makes it the subreaper of all that they start."""

    def __init__(self) -> None:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _do_nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))  # the launcher blocked them
        _become_subreaper(True)
        self._names: dict[int, str] = {}
        self._clock = MonotonicClock()

    def add(self, pid: int, name: str) -> None:
        """A child that was just forked; `name` is `ENV` for the env process."""
        self._names[pid] = name
        if name != ENV:
            with contextlib.suppress(OSError):  # it may have done so itself, and be gone
                os.setpgid(pid, pid)

    def reap(self) -> list[tuple[int, int]]:
        """(pid, exit code) of own children that have ended. What they had started is gone when this returns."""
        ended = []
        while (found := _next_dead()) is not None:
            name = self._names.pop(found, None)
            if name is not None and name != ENV:
                _kill_group(found)  # before its pid can be given to another process
            _, status = os.waitpid(found, 0)
            if name == ENV:
                end_orphans(self._names)
            if name is not None:
                ended.append((found, os.waitstatus_to_exitcode(status)))
        return ended

    def end(self, grace_s: float, spared: Collection[int] = ()) -> int:
        """End all of them but `spared`, and all that they started; returns how many could not be ended. The env process
        has `grace_s` to close its world."""
        for pid in self._names.keys() - spared:
            if self._names[pid] == ENV:
                _send(pid, signal.SIGTERM, signal.SIGCONT)
            else:
                _kill_group(pid)
        self._reap_until_gone(spared, int(min(grace_s, _LONGEST_GRACE_S) * NS_PER_S))
        for pid in self._names.keys() - spared:
            _send(pid, signal.SIGKILL)
        self._reap_until_gone(spared, _KILL_GRACE_NS)
        end_orphans(self._names)
        return len(self._names.keys() - spared)

    def _reap_until_gone(self, spared: Collection[int], limit_ns: int) -> None:
        awake = Watchdog(self._clock)
        while self._names.keys() - spared and awake.now_ns() < limit_ns:
            self.reap()
            _pause()


@contextlib.contextmanager
def ended_with_this_program(spared: Callable[[], Collection[int]]) -> Iterator[None]:
    """End, with the block, what was started in it: by a world in this process, or by a killed fork server. `spared`:
    asked at the end, for processes that go on."""
    before = set(_others(()) or ())
    _become_subreaper(True)
    try:
        yield
    finally:
        end_orphans(before.union(spared()))
        _become_subreaper(False)


def end_orphans(spared: Collection[int]) -> None:
    """End all children of this process but `spared`: SIGTERM, then SIGKILL. Their own children are orphans next.
    A process without a file descriptor left waits for one, no longer than for them, and leaves them."""
    awake = Watchdog(MonotonicClock())
    asked: set[int] = set()
    while (orphans := _others(spared)) is None or orphans:
        waited_ns = awake.now_ns()
        if waited_ns > _ORPHAN_GRACE_NS + _KILL_GRACE_NS:
            return
        for pid in orphans or ():
            if waited_ns > _ORPHAN_GRACE_NS:
                _send(pid, signal.SIGKILL)
            elif pid not in asked:
                _send(pid, signal.SIGTERM, signal.SIGCONT)
                asked.add(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        _pause()


def _pause() -> None:
    MonotonicClock().sleep_until_ns(MonotonicClock.now_ns() + _POLL_NS)


def _become_subreaper(on: bool) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, int(on))


def _next_dead() -> int | None:
    """pid of a child that has ended and still has its pid."""
    with contextlib.suppress(ChildProcessError):
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found.si_pid if found is not None else None
    return None


def _others(spared: Collection[int]) -> list[int] | None:
    """The children of this process but `spared`; None: it has no file descriptor left to look with, now."""
    try:
        import psutil  # noqa: PLC0415 - once, at the end

        return [child.pid for child in psutil.Process().children() if child.pid not in spared]
    except (OSError, ImportError) as error:
        if not no_descriptor(error):
            raise
        return None


def _kill_group(pid: int) -> None:
    _send(pid, signal.SIGKILL)
    with contextlib.suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def _send(pid: int, *signums: int) -> None:
    for signum in signums:
        with contextlib.suppress(OSError):
            os.kill(pid, signum)


# -- in a child --------------------------------------------------------------------------------------------


def begin_child(name: str) -> None:
    """Right after the fork: remove the fork server's signal handlers and exit functions from the child."""
    if name == ENV:
        for signum in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(signum, not_in_forks(_raise_termination_requested(os.getppid())))
        sys.excepthook, sys.unraisablehook = _show, _show_unraisable
        if sys.stderr is not None:
            faulthandler.register(SHOW_STACK, file=2)
        else:  # closed by the program: 2 may be another file by now, and without a handler the signal would end it
            signal.signal(SHOW_STACK, _do_nothing)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            os.setpgid(0, 0)
    atexit._clear()
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        # As `multiprocessing` does in its own children: the finalizers of the parent must not run in the child.
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)


def raise_lost_order() -> None:
    """Raises `TerminationRequested` if an order to end came whose exception never arrived.

    Python drops what is raised in a finalizer, a callback, or compiled code that cannot raise, such as an emulator's.
    Other compiled code, such as pydantic's, raises an error of its own instead.
    """
    if _termination_requested and not _ending:
        raise TerminationRequested


def limit_closing(limit_s: float) -> None:
    """How long it may take to end after the order to, if nobody is left who would end it [s]."""
    _closing_limit_s[:] = [min(limit_s, _LONGEST_GRACE_S)]


def begin_closing() -> bool:
    """From now on an order to end is noted, and interrupts nothing. False if that had been said before."""
    is_first = not _ending
    _ending.append(True)
    return is_first


def end_child(exitcode: int, *, was_orphaned: bool = False) -> NoReturn:
    """End as Python does (exit functions run), but without waiting for threads. By the signal that had come, if one
    had. `was_orphaned`: nobody else is left who would end the processes that this one has started."""
    _ending.append(True)
    if was_orphaned:
        _become_subreaper(True)  # of the children of its children
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    if was_orphaned:
        end_orphans(())
    if _termination_requested:
        signal.signal(_termination_requested[0], signal.SIG_DFL)
        os.kill(os.getpid(), _termination_requested[0])
    os._exit(exitcode)


#: The signal by which the process is to end; empty: none has come.
_termination_requested: list[int] = []
#: Not empty: the world is being closed, or exit functions run. An exception would interrupt that.
_ending: list[bool] = []
_closing_limit_s: list[float] = [_LONGEST_GRACE_S]


def _raise_termination_requested(parent: int) -> Any:
    def stop(signum: int, frame: FrameType | None) -> None:
        if os.getppid() != parent:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.setitimer(signal.ITIMER_REAL, _closing_limit_s[0])
        if not _termination_requested:  # once: closing is not interrupted
            _termination_requested.append(signum)
            if not _ending:
                raise TerminationRequested

    return stop


def _show(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """As Python shows what nobody handles; but an order to end that was dropped is raised again, and no fault."""
    if kind is not TerminationRequested:
        sys.__excepthook__(kind, error, traceback)


def _show_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    if unraisable.exc_type is not TerminationRequested:
        sys.__unraisablehook__(unraisable)


def _do_nothing(signum: int, frame: FrameType | None) -> None:
    """A handler and not SIG_IGN, which the programs of worlds and policies would inherit."""
