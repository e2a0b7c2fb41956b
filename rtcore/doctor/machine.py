"""The machine as the checks see it: files below a root, programs, trials in a child process. Nothing is changed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rtcore import _tick
from rtcore.clock import MonotonicClock
from rtcore.errors import describe_exit

_COMMAND_TIMEOUT_S = 15.0
#: The world's first start may read a large ROM, torch's import a cold disk.
_TRIAL_TIMEOUT_S = 90.0


class ProbeError(RuntimeError):
    """A program or a trial gave no answer; the text says why."""


class Machine:
    """This machine; with another `root`, one described by the files below it (tests). Paths are absolute texts."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self._trials: dict[str, dict[str, Any] | ProbeError] = {}

    def tick_path(self) -> tuple[bool, str, str]:
        """Whether the tick path runs in C, what runs in words, and what to do if it is not compiled."""
        return _tick.compiled is not None, _tick.in_words, _tick.how_to_compile

    # -- files ---------------------------------------------------------------------------------------------

    def path(self, path: str) -> Path:
        """Where a path of the machine really is."""
        return self.root / path.lstrip("/")

    def read(self, path: str) -> str:
        """A file's text without blanks around it; OSError if it cannot be read."""
        return self.path(path).read_text(errors="replace").strip("\0 \n\t")

    def find(self, path: str) -> str | None:
        """The same; None if there is no such file, or the kernel has nothing behind it."""
        try:
            return self.read(path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def exists(self, path: str) -> bool:
        return self.path(path).exists()

    def glob(self, pattern: str) -> list[str]:
        """Paths of the machine, sorted."""
        return sorted(f"/{found.relative_to(self.root)}" for found in self.root.glob(pattern.lstrip("/")))

    def word(self, path: str, name: str) -> str:
        """What follows `name` in its line of a file, up to the next blank: "0-3" of "Cpus_allowed_list:"."""
        for line in self.read(path).splitlines():
            if line.startswith(name):
                return line.removeprefix(name).split()[0]
        raise ProbeError(f"{path} has no {name!r}")

    @property
    def available_bytes(self) -> int:
        """Memory that programs may still take."""
        return 1024 * int(self.word("/proc/meminfo", "MemAvailable:"))

    def room_bytes(self, path: str) -> tuple[int, int]:
        """(size, free) of the file system of a folder."""
        total, _, free = shutil.disk_usage(self.path(path))
        return total, free

    # -- who and what --------------------------------------------------------------------------------------

    @property
    def uid(self) -> int:
        return os.geteuid()

    @property
    def system(self) -> tuple[str, str]:
        """("linux", "x86_64")"""
        return sys.platform, platform.machine()

    @property
    def python(self) -> str:
        return platform.python_version()

    def requirements(self) -> list[str]:
        """What the installed rtcore asks for, as "name>=version"; PackageNotFoundError if it is not installed."""
        return importlib.metadata.requires("rtcore") or []

    def package(self, name: str) -> str | None:
        """Installed version of a Python package."""
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return None

    @property
    def cpus(self) -> set[int]:
        """CPUs this process may use."""
        return cpu_list(self.word("/proc/self/status", "Cpus_allowed_list:"))

    @property
    def in_container(self) -> str:
        """What says so ("/.dockerenv"), or ""."""
        for path in ("/.dockerenv", "/run/.containerenv"):
            if self.exists(path):
                return path
        if self.root == Path("/"):
            for name in ("container", "KUBERNETES_SERVICE_HOST"):  # set by systemd-nspawn and podman, by Kubernetes
                if os.environ.get(name):
                    return f"${name}"
        return ""

    # -- programs and trials -------------------------------------------------------------------------------

    def which(self, program: str) -> str | None:
        return shutil.which(program)

    def run(self, *command: str, stdin: str = "") -> str:
        """What a program prints; `ProbeError` if it fails, hangs or does not exist."""
        return _output_of(command[0], command, stdin, _COMMAND_TIMEOUT_S)

    def trial(self, name: str, **request: Any) -> dict[str, Any]:
        """Try something in a process of its own (see `trials`), so that neither success nor a crash stays.

        Once: who asks for the same again gets the same answer, a `ProbeError` too.
        """
        key = f"{name} {json.dumps(request, sort_keys=True)}"
        if key not in self._trials:
            try:
                self._trials[key] = _try(name, json.dumps(request))
            except ProbeError as error:
                self._trials[key] = error
        answer = self._trials[key]
        if isinstance(answer, ProbeError):
            raise answer
        return answer

    # -- time ----------------------------------------------------------------------------------------------

    def spin(self, duration_ns: int) -> int:
        """Keep a CPU busy for so long; returns the longest pause the loop noticed [ns]."""
        now_ns = MonotonicClock.now_ns
        longest_ns, at_ns = 0, now_ns()
        end_ns = at_ns + duration_ns
        while at_ns < end_ns:
            before_ns, at_ns = at_ns, now_ns()
            longest_ns = max(longest_ns, at_ns - before_ns)
        return longest_ns

    def clock_cost_ns(self, reads: int = 20_000) -> float:
        """What reading the clock costs, the interpreter's share included."""
        now_ns = MonotonicClock.now_ns
        start_ns = now_ns()
        for _ in range(reads):
            now_ns()
        return (now_ns() - start_ns) / reads


def cpu_list(text: str) -> set[int]:
    """ "0-2,5" as the kernel writes sets of CPUs."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


def in_words(cpus: set[int]) -> str:
    """The reverse of `cpu_list`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], cpu]
        else:
            runs.append([cpu])
    return ",".join("-".join(map(str, run)) for run in runs)


def _try(name: str, request: str) -> dict[str, Any]:
    # Into a file of its own: what libraries print, and when, is no part of the answer.
    with os.fdopen(os.memfd_create("answer"), "w+", encoding="utf-8") as file:
        command = [sys.executable, "-P", "-m", "rtcore.doctor.trials", name, str(file.fileno())]
        _output_of(f"the trial {name!r}", command, request, _TRIAL_TIMEOUT_S, pass_fds=[file.fileno()])
        try:
            result: dict[str, Any] = json.load(file)
        except ValueError:
            raise ProbeError(f"the trial {name!r} ended without an answer") from None
    return result


def _output_of(what: str, command: Sequence[str], stdin: str, timeout_s: float, **settings: Any) -> str:
    try:
        ended: subprocess.CompletedProcess[str] = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            **settings,
        )
    except subprocess.TimeoutExpired:
        raise ProbeError(f"{what} did not answer within {timeout_s:.0f} s") from None
    except OSError as error:
        raise ProbeError(f"{what}: {error.strerror}") from error
    if ended.returncode != 0:
        last = (ended.stdout + ended.stderr).strip().rpartition("\n")[2]
        raise ProbeError(f"{what}: {last or describe_exit(ended.returncode)}")
    return ended.stdout.strip()
