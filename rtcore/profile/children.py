"""Child processes of a measurement: how they start, what becomes of their answers, on which CPUs they run."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import connection, forkserver
from types import FrameType
from typing import Any, NamedTuple

from rtcore.errors import RtcoreError, WorkerDied
from rtcore.realtime import wake_soon

# -- starting --------------------------------------------------------------------------------------------------------


def start_fork_server(*preload: str) -> None:
    """Before the first child: all are then forked from one process that has these modules. Not twice: it stays."""
    mp.set_forkserver_preload(list(preload))
    # multiprocessing puts the current folder first on the server's path, where a file of any name may be.
    before = os.environ.get("PYTHONSAFEPATH")
    os.environ["PYTHONSAFEPATH"] = "1"
    try:
        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONSAFEPATH"]
        else:
            os.environ["PYTHONSAFEPATH"] = before


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off SIGINT and SIGTERM to the end of the block: a process that is half started has nobody yet who ends it.

    Only for what is short. Handlers are exchanged, not the signal mask: the kernel would give the signal to another
    thread (of a progress bar), and Python run its handler in this one all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    came: list[tuple[int, FrameType | None]] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda *signalled: came.append(signalled)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for signum, frame in came[:1]:
            usual = before[signal.Signals(signum)]
            if callable(usual):
                usual(signum, frame)
            elif usual is signal.SIG_DFL:
                signal.raise_signal(signum)


class AnsweringProcesses:
    """Processes that are told things and answer, each over a pipe of its own. None is left after `close`."""

    def __init__(self, role: str, target: Callable[..., None], calls: Sequence[tuple[Any, ...]]) -> None:
        """`target(pipe, *arguments)` for each of `calls`. It answers with (an RtcoreError or None, anything)."""
        self._role = role
        self._ends: list[tuple[mp.process.BaseProcess, connection.Connection]] = []
        context = mp.get_context("forkserver")
        try:
            for arguments in calls:
                ours, theirs = context.Pipe()
                process = context.Process(target=_run_child, args=(target, theirs, *arguments), daemon=True)
                with uninterrupted():
                    process.start()
                    self._ends.append((process, ours))
                theirs.close()
        except BaseException:
            self.close()
            raise

    def tell(self, message: Any) -> None:
        """Send it to all of them."""
        for _, ours in self._ends:
            ours.send(message)

    def hear(self, timeout_s: float) -> list[Any]:
        """One answer of each, in order.

        Raises what the first of them raised; `WorkerDied` for one that ended without a word, `RtcoreError` if none of
        those left answers for `timeout_s`.
        """
        answers: dict[int, Any] = {}
        while len(answers) < len(self._ends):
            waiting = {ours: index for index, (_, ours) in enumerate(self._ends) if index not in answers}
            ready = connection.wait(list(waiting), timeout_s)
            if not ready:
                raise RtcoreError(f"{self._role} {sorted(waiting.values())} did not answer within {timeout_s:g} s")
            for ours, index in waiting.items():
                if ours in ready:
                    answers[index] = self._answer_of(index)
        return [answers[index] for index in range(len(self._ends))]

    def close(self, grace_s: float = 0.0) -> None:
        """End them: within `grace_s` they may do so by themselves, when they are told None."""
        for _, ours in self._ends:
            with suppress(OSError):  # it is gone already
                ours.send(None)
        for process, ours in self._ends:
            process.join(grace_s)
            process.kill()
            process.join()
            ours.close()
        self._ends = []

    def _answer_of(self, index: int) -> Any:
        process, ours = self._ends[index]
        try:
            error, value = ours.recv()
        except (EOFError, ConnectionError):
            process.join(1.0)
            raise WorkerDied(self._role, index, process.pid or 0, process.exitcode) from None
        if error is not None:
            raise error
        return value


def run_in_processes(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, role: str, timeout_s: float
) -> list[Any]:
    """`function(*arguments)` for each of `calls`, at once, each in a process of its own; what they return, in order.

    Raises as `AnsweringProcesses.hear` does. None of the processes is left afterwards.
    """
    children = AnsweringProcesses(role, _call, [(function, arguments) for arguments in calls])
    try:
        return children.hear(timeout_s)
    finally:
        children.close()


def _run_child(target: Callable[..., None], pipe: connection.Connection, *arguments: Any) -> None:
    """Process entry. Ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    with suppress(EOFError, ConnectionError):  # it is gone
        target(pipe, *arguments)


def _call(pipe: connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    try:
        pipe.send((None, function(*arguments)))
    except RtcoreError as error:
        pipe.send((error, None))
    except Exception as error:
        pipe.send((RtcoreError(f"{type(error).__name__}: {error}"), None))


# -- where they run --------------------------------------------------------------------------------------------------


class Placement(NamedTuple):
    """CPUs of the publisher of frames and of its readers. The same set twice: nobody is pinned.

    Left to itself, a kernel may wake a reader on the CPU of the very process that woke it, where it waits until that
    one sleeps: what is measured then is the scheduler's choice, for some transports and not for others. In a run the
    env process has realtime priority and no worker waits behind it; on CPUs of their own none does here.
    """

    publisher: frozenset[int]
    readers: frozenset[int]

    @property
    def is_pinned(self) -> bool:
        return self.publisher != self.readers


def choose(*, pin: bool) -> Placement:
    """The first usable CPU for the publisher, the others for the readers; no pinning where there is only one."""
    usable = frozenset(os.sched_getaffinity(0))
    if not pin or len(usable) < 2:
        return Placement(usable, usable)
    first = frozenset({min(usable)})
    return Placement(first, usable - first)


def put(pid: int, cpus: frozenset[int]) -> None:
    """Move a process; one that has ended meanwhile is not an error here."""
    with suppress(ProcessLookupError):
        os.sched_setaffinity(pid, cpus)


@contextmanager
def as_publisher(placement: Placement) -> Iterator[None]:
    """This process is the publisher: on its CPU within the block, where it was after it. It and what it starts take
    short turns from then on, as env process and workers do."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, placement.publisher)
    wake_soon()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
