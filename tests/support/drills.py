"""Run `rtcore-run` as a user does, and see what is left of it afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from rtcore.clock import NS_PER_MS, MonotonicClock
from rtcore.results.folder import read_run
from rtcore.runtime.runtime import Runtime
from rtcore.scheduling.dispatch import TickKind

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


def run_id_of(process: subprocess.Popen[str]) -> str:
    """Run ids begin with the pid of the program."""
    (control,) = SHM.glob(f"rtcore-{process.pid}-*-control")
    return control.name.removeprefix("rtcore-").removesuffix("-control")


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


def wait_until_applied(folder: Path, version: int) -> None:
    """Until an action of that version has acted, while the run goes on: what answers next may have begun before it."""
    wait_for(
        lambda: any(row.policy_version == version for row in read_run(folder).ticks if row.kind == TickKind.ACTED),
        f"an action of version {version}",
    )


def let_ticks_run(runtime: Runtime, count: int) -> None:
    """Do nothing until so many more have run. A time would not do: the world may be kept from a CPU for all of it."""
    before = runtime.stats().counters["ticks"]
    wait_for(lambda: runtime.stats().counters["ticks"] >= before + count, f"{count} ticks")


def children_by_name(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """The run's processes by role: rt-env, rt-worker0, ..., and the fork server. Less those that end meanwhile."""
    found: dict[str, psutil.Process] = {}
    with suppress(psutil.NoSuchProcess):
        # The fork server comes first; a process that has no name yet is another's.
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                name = child.name()
                found.setdefault(name if name.startswith("rt-") else "forkserver", child)
    return found


def rows_in(file: Path) -> int:
    """How many whole rows a run has written into it so far, below the names of the columns."""
    return max(0, file.read_bytes().count(b"\n") - 1) if file.exists() else 0


def wait_until_ticking(process: subprocess.Popen[str]) -> dict[str, psutil.Process]:
    """Until the run says that its plan is made and the ticks have begun."""
    if process.stdout is None:
        raise AssertionError("started without a pipe")
    for line in process.stdout:
        if "tau p50" in line:
            return children_by_name(process)
    raise AssertionError("the run ended before it began")


def stop(pid: int) -> None:
    """SIGSTOP, and wait until it stands, or has ended: the signal is heard when the process has a CPU."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        process.suspend()
        wait_for(lambda: process.status() in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE), f"{pid} to stop")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It stands still within the block."""
    stop(pid)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def kill_within_an_inference(runtime: Runtime, worker: int, lasting_ms: float) -> None:
    """It is stopped first, so that it cannot get on with its job between the look at it and the kill.

    `lasting_ms`: an inference; in its first half it has not come to its answer.
    """
    pid, status = runtime.worker_pids[worker], runtime._supervisor.shared.worker_status[worker]

    def is_killed() -> bool:
        stop(pid)
        since_ns = status["busy_since_ns"]
        is_within = bool(since_ns) and MonotonicClock.now_ns() - since_ns < lasting_ms / 2 * NS_PER_MS
        os.kill(pid, signal.SIGKILL if is_within else signal.SIGCONT)
        return is_within

    wait_for(is_killed, f"worker {worker} to be within an inference")


def signal_children(run: subprocess.Popen[str], signum: signal.Signals) -> None:
    """With one call, as they are a process group of their own: this test may be kept from a CPU between two."""
    for server in psutil.Process(run.pid).children():
        os.killpg(server.pid, signum)


def freeze(run: subprocess.Popen[str]) -> None:
    """Stop a run as a whole, as a machine that sleeps does: nobody sees another stand still."""
    stop(run.pid)
    signal_children(run, signal.SIGSTOP)


def thaw(run: subprocess.Popen[str], first: str) -> None:
    """Let it go on. `first`: "the program", which then sees the others stand still for a moment, or "its children"."""
    if first == "the program":
        os.kill(run.pid, signal.SIGCONT)
        time.sleep(0.05)
    signal_children(run, signal.SIGCONT)
    os.kill(run.pid, signal.SIGCONT)


def kill_all(run: subprocess.Popen[str]) -> None:
    """Nobody has the time to clean up after another."""
    freeze(run)
    signal_children(run, signal.SIGKILL)
    run.kill()
    run.wait()


def kill(process: psutil.Process) -> None:
    os.kill(process.pid, signal.SIGKILL)
