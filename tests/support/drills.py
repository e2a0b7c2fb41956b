"""Run `rtcore-run` as a user does, and see what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rtcore.runtime.runtime import Runtime

HERE = Path(__file__).parents[2]
SHM = Path("/dev/shm")
COMMAND = [sys.executable, "-m", "rtcore.cli.run"]
#: What is left of a program of which is known that it went to its end.
Run = Callable[..., subprocess.CompletedProcess[str]]
#: A healthy small run that the drills interfere with.
HEALTHY = (
    *("--env-id", "CartPole-v1", "--fps", "60", "--policy", "synthetic", "--policy-args", "latency_ms=50"),
    *("--workers", "4", "--duration", "600", "--no-live", "--no-pictures"),
)


@contextmanager
def started(*command: str, **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """A program under way, what it says in a pipe. At the end of the block it is killed, if it is still there, and
    reaped: where a test fails too, or the next one would find it.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, **pipes | settings) as process:
        try:
            yield process
        finally:
            process.kill()


def run_to_end(*arguments: str, timeout_s: float = 150) -> subprocess.CompletedProcess[str]:
    """The finished program, having checked that it left nothing behind."""
    with started(*COMMAND, *arguments, cwd=HERE, stderr=subprocess.PIPE) as process:
        output, errors = process.communicate(timeout=timeout_s)
    wait_for(lambda: not segments(process.pid), "shared memory to be removed")
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A run under way, killed at the end if it is still there; nothing may be left behind."""
    with started(*COMMAND, *arguments, cwd=HERE) as process:
        yield process
    wait_for(lambda: not segments(process.pid), "shared memory to be removed")


def segments(pid: int) -> list[str]:
    """Names in /dev/shm of the runs of this program: others may run beside it."""
    return [path.name for path in SHM.glob(f"*rtcore-{pid}-*")]


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 150) -> None:
    """A watchdog, generous: it fails a test that would otherwise hang, and measures nothing."""
    give_up = time.monotonic() + timeout_s
    looked_s = time.thread_time()
    while not condition():
        if time.monotonic() > give_up:
            raise AssertionError(f"waited {timeout_s} s for {what}")
        # A look may read a whole file: looking takes a fifth of a CPU at most, the rest is the run's.
        time.sleep(max(0.02, 4 * (time.thread_time() - looked_s)))
        looked_s = time.thread_time()


def wait_for_answers(runtime: Runtime, worker: int, count: int = 4) -> None:
    """Until that worker has answered so many times more."""
    before = runtime.stats().workers[worker].inferences
    wait_for(lambda: runtime.stats().workers[worker].inferences >= before + count, f"worker {worker} to answer")


def children_by_name(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The run's processes by role: rt-env, rt-worker0, ..., and the fork server."""
    found = {}
    try:
        for child in psutil.Process(process.pid).children(recursive=True):
            name = child.name()
            found["forkserver" if not name.startswith("rt-") else name] = child
    except psutil.NoSuchProcess:
        pass
    return found


def wait_until_ticking(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Until the run says that its plan is made and the ticks have begun."""
    if process.stdout is None:
        raise AssertionError("started without a pipe")
    for line in process.stdout:
        if "tau p50" in line:
            return children_by_name(process)
    raise AssertionError("the run ended before it began")


def freeze(run: subprocess.Popen[str]) -> list[psutil.Process]:
    """Stop a run as a whole, as a machine that sleeps does; what ends meanwhile needs no stopping.

    Returns: what was there, the program first, for :func:`thaw`.
    """
    family = [psutil.Process(run.pid), *psutil.Process(run.pid).children(recursive=True)]
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    return family


def thaw(family: Iterable[psutil.Process], apart_s: float = 0.0) -> None:
    """Let them go on in this order; who was ended for standing still is for the test to tell."""
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.resume()
        time.sleep(apart_s)


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
