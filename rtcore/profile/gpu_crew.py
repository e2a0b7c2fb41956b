"""Child processes for `rtcore-profile gpu`, and NVIDIA MPS around them. The program itself never touches CUDA.

The MPS part has not been run beside a GPU (`docs/gpu.md`); it is tested with a pretended daemon.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from rtcore.channel import Begin, Result
from rtcore.clock import MonotonicClock
from rtcore.errors import ConfigError, RtcoreError, StartupError, WorkerDied, describe_exit
from rtcore.memory.counters import Distribution
from rtcore.memory.layout import HISTOGRAM_BUCKETS
from rtcore.memory.segments import new_run_id
from rtcore.processes.launcher import Child, Launcher, child_error

ENTRY = "rtcore.profile.gpu_tasks:main"
MPS_DAEMON = "nvidia-cuda-mps-control"
MPS_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_MPS_LOGS = "CUDA_MPS_LOG_DIRECTORY"
#: `multiprocessing` starts its fork server with the current folder first on its path, where any name may be.
SAFE_PATH = {"PYTHONSAFEPATH": "1"}
_PRELOAD = ("numpy", "torch", "rtcore.profile.gpu_tasks")
_LEAD_NS = 50_000_000
_POLL_S = 0.1
_READY_TIMEOUT_S = 180.0
_RESULT_TIMEOUT_S = 180.0
_MPS_TIMEOUT_S = 20.0


class Crew:
    """Starts measuring processes as a run starts its workers: forked from a server that has torch and no CUDA.

    A context manager. `variables` are added to their environment (`CUDA_MPS_PIPE_DIRECTORY`).
    """

    def __init__(self, variables: Mapping[str, str] | None = None) -> None:
        with environment(variables or {}):
            self._launcher = Launcher(new_run_id(), _PRELOAD)
        self._clock = MonotonicClock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._launcher.close()

    def run(self, boots: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Any]]:
        """One process for each boot; when all are ready they begin together. (what it runs on, result) of each.

        Raises what went wrong in one of them; `WorkerDied` if it said nothing, `StartupError` if it takes minutes.
        """
        children = [self._launcher.start("worker", index, 0, ENTRY, boot) for index, boot in enumerate(boots)]
        self._wait(children, lambda child: child.ready is not None, "get ready", _READY_TIMEOUT_S)
        begin_ns = self._clock.now_ns() + _LEAD_NS
        for child in children:
            child.send(Begin(begin_ns))
        self._wait(children, lambda child: bool(child.messages), "answer", _RESULT_TIMEOUT_S)
        results = [message.value for child in children for message in child.messages if isinstance(message, Result)]
        return [(child.ready or {}, result) for child, result in zip(children, results, strict=True)]

    def _wait(self, children: list[Child], is_done: Callable[[Child], bool], what: str, timeout_s: float) -> None:
        give_up_ns = self._clock.now_ns() + round(timeout_s * 1e9)
        while not all(is_done(child) for child in children):
            self._launcher.poll(_POLL_S)
            for child in children:
                who = f"measuring process {child.index}"
                if child.failure is not None:
                    raise child_error(child.failure, who)
                if child.exitcode is not None and not is_done(child):
                    raise WorkerDied("worker", child.index, child.pid, child.exitcode)
            if self._clock.now_ns() > give_up_ns:
                waiting = [child.index for child in children if not is_done(child)]
                raise StartupError(
                    f"measuring processes {waiting} did not {what} within {timeout_s:g} s; expected seconds. "
                    "Try fewer --workers or a smaller policy"
                )


def read_distribution(fields: Mapping[str, Any]) -> Distribution:
    """What `gpu_tasks.histogram_json` wrote."""
    buckets = np.zeros(HISTOGRAM_BUCKETS, np.int64)
    for bucket, count in fields["buckets"]:
        buckets[bucket] = count
    return Distribution(
        count=fields["count"],
        mean=fields["mean"],
        std=fields["std"],
        min=fields["min"],
        max=fields["max"],
        buckets=buckets,
    )


@contextlib.contextmanager
def without_mps() -> Iterator[dict[str, str]]:
    """An environment in which CUDA finds no MPS daemon, though one may run: its pipes are looked for elsewhere."""
    with tempfile.TemporaryDirectory(prefix="rtcore-no-mps-") as folder:
        yield {MPS_PIPES: folder}


@contextlib.contextmanager
def own_mps() -> Iterator[dict[str, str]]:
    """An MPS daemon for as long as this lasts, with pipes and logs of its own; yields the environment of its clients.

    Only for a user who asked for it (`--mps`). ConfigError if there is no daemon to start, RtcoreError if it fails.
    """
    program = find_mps_daemon()
    if program is None:
        raise ConfigError(f"--mps: {MPS_DAEMON} is not on PATH; expected the NVIDIA driver's tools. Leave out --mps")
    with tempfile.TemporaryDirectory(prefix="rtcore-mps-", ignore_cleanup_errors=True) as folder:
        clients = {MPS_PIPES: str(Path(folder, "pipe")), _MPS_LOGS: str(Path(folder, "log"))}
        for path in clients.values():
            Path(path).mkdir()
        _call_mps([program, "-d"], "", clients)
        try:
            yield clients
        finally:
            _call_mps([program], "quit\n", clients)


def find_mps_daemon() -> str | None:
    return shutil.which(MPS_DAEMON)


def _call_mps(command: list[str], text: str, environment: Mapping[str, str]) -> None:
    try:
        # Not captured by a pipe: the daemon would inherit it, and reading it would wait for the daemon's end.
        with tempfile.TemporaryFile("w+") as output:
            done = subprocess.run(
                command,
                input=text,
                env=os.environ | dict(environment),
                stdout=output,
                stderr=output,
                text=True,
                timeout=_MPS_TIMEOUT_S,
                check=False,
            )
            output.seek(0)
            said = output.read().strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RtcoreError(f"{' '.join(command)}: {error}; expected it to return at once") from error
    if done.returncode != 0:
        raise RtcoreError(
            f"{' '.join(command)} ended ({describe_exit(done.returncode)}): {said or 'no message'}. "
            "Leave --mps out to measure without"
        )


@contextlib.contextmanager
def environment(changes: Mapping[str, str]) -> Iterator[None]:
    """Changes to this program's environment while a process is started that inherits it."""
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
