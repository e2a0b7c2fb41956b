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


def run_in_processes(
    function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], *, role: str, timeout_s: float
) -> list[Any]:
    """`function(*arguments)` for each of `calls`, at once, each in a process of its own; what they return, in order.

    Raises what the first of them raised; `WorkerDied` (as `role`) for one that ended without a word, `RtcoreError` if
    none of those left answers for `timeout_s`. None of the processes is left afterwards.
    """
    context = mp.get_context("forkserver")
    started: list[tuple[mp.process.BaseProcess, connection.Connection]] = []
    try:
        for arguments in calls:
            ours, theirs = context.Pipe(duplex=False)
            process: mp.process.BaseProcess = context.Process(
                target=_answer, args=(theirs, function, arguments), daemon=True
            )
            with uninterrupted():
                process.start()
                started.append((process, ours))
            theirs.close()
        answers: dict[int, Any] = {}
        while len(answers) < len(started):
            waiting = {ours: index for index, (_, ours) in enumerate(started) if index not in answers}
            ready = connection.wait(list(waiting), timeout_s)
            if not ready:
                raise RtcoreError(f"{role} {sorted(waiting.values())} did not answer within {timeout_s:g} s")
            for ours, index in waiting.items():
                if ours in ready:
                    answers[index] = _answer_of(started[index], role, index)
        return [answers[index] for index in range(len(started))]
    finally:
        for process, ours in started:
            process.kill()
            process.join()
            ours.close()


def _answer_of(started: tuple[mp.process.BaseProcess, connection.Connection], role: str, index: int) -> Any:
    process, ours = started
    try:
        error, value = ours.recv()
    except EOFError:
        process.join(1.0)
        raise WorkerDied(role, index, process.pid or 0, process.exitcode) from None
    if error is not None:
        raise error
    return value


def _answer(theirs: connection.Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    """Process entry."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    try:
        theirs.send((None, function(*arguments)))
    except RtcoreError as error:
        theirs.send((error, None))
    except Exception as error:
        theirs.send((RtcoreError(f"{type(error).__name__}: {error}"), None))


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
    """This process is the publisher: on its CPU within the block, where it was after it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, placement.publisher)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
