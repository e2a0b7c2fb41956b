"""One `rtcore-run` as a user starts it: what it says and when, its processes by role, and what it leaves behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from rtcore.clock import NS_PER_S, MonotonicClock, ns_of
from rtcore.torture.world import SIMULATOR

_SHM = Path("/dev/shm")
#: In the environment of a run's processes, and of all that these start: whose they are.
_MARK = "RTCORE_TORTURE_RUN"
#: What the program says when a phase begins.
_SAID = {"making the world": "world", "starting": "workers", "rehearsing with": "rehearsal", "tau p50": "ticks"}
PHASES = ("import", *_SAID.values())
_POLL_NS = 20_000_000


class Program:
    """A run under way. A thread reads what it says.

    Args:
        words: Of `rtcore-run`.
        mark: A name for it that no other run under way has.
        wrapper: What it is started by, and is replaced by it.
        private_shm: The wrapper gives it a /dev/shm of its own.
    """

    def __init__(
        self, words: Sequence[str], mark: str, *, wrapper: Sequence[str] = (), private_shm: bool = False
    ) -> None:
        self.clock = MonotonicClock()
        self.mark = mark
        self.phases = {phase: threading.Event() for phase in PHASES}
        self.phases["import"].set()
        self._ticks_began_ns = 0
        self._lines: list[str] = []
        self._private_shm = private_shm
        self._shm = -1
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-m", "rtcore.cli.run", *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | {_MARK: mark, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"},
            start_new_session=True,
        )
        self.pid = self.process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        if self.process.stdout is None:
            raise AssertionError("started without a pipe")
        for line in self.process.stdout:
            self._lines.append(line)
            for words, phase in _SAID.items():
                if words in line and not self.phases[phase].is_set():
                    if phase == "ticks":
                        self._ticks_began_ns = self.clock.now_ns()
                    self._hold_shm()
                    self.phases[phase].set()
        for event in self.phases.values():
            event.set()

    def _hold_shm(self) -> None:
        """A private /dev/shm ends with the last process in it, unless somebody has it open."""
        if self._private_shm and self._shm < 0:
            with suppress(OSError):
                self._shm = os.open(f"/proc/{self.pid}/root{_SHM}", os.O_RDONLY | os.O_DIRECTORY)

    @property
    def output(self) -> str:
        return "".join(self._lines)

    @property
    def is_over(self) -> bool:
        return self.process.poll() is not None

    def into_ticks_s(self, at_ns: int) -> float:
        """How long its ticks had gone on at that moment; 0: they had not begun."""
        return (at_ns - self._ticks_began_ns) / NS_PER_S if self._ticks_began_ns else 0.0

    def wait_for(self, phase: str, after_s: float) -> bool:
        """Until so long after the phase has begun; False if the program has ended before."""
        while not self.phases[phase].wait(0.1):
            if self.is_over:
                return False
        return self.sleep(after_s)

    def sleep(self, duration_s: float) -> bool:
        """False, at once, when the program has ended."""
        end_ns = self.clock.now_ns() + ns_of(duration_s)
        while (now_ns := self.clock.now_ns()) < end_ns and not self.is_over:
            self.clock.sleep_until_ns(min(end_ns, now_ns + _POLL_NS))
        return not self.is_over

    def wait(self, limit_s: float) -> int | None:
        """The exit code; None if it is not over in that time."""
        try:
            self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        self._reader.join(5)
        return self.process.returncode

    def roles(self) -> dict[str, psutil.Process]:
        """Its processes: parent, forkserver, env, worker0, ..., learner0, holder0, recorder, simulator.

        A child that has just been forked still goes by the name of its parent, which psutil lists before it.
        """
        found: dict[str, psutil.Process] = {}
        with suppress(psutil.Error):
            found["parent"] = psutil.Process(self.pid)
            for child in found["parent"].children(recursive=True):
                with suppress(psutil.Error):
                    name, words = child.name(), child.cmdline()
                    if name.startswith("rt-"):
                        found.setdefault(name.removeprefix("rt-"), child)
                    elif "rtcore.processes.forkserver" in words:
                        found.setdefault("forkserver", child)
                    elif tuple(words) == SIMULATOR:
                        found["simulator"] = child
        return found

    def marked(self) -> list[psutil.Process]:
        """Every living process that was started by it, or by what it started."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def segments(self) -> list[str]:
        """Names in its /dev/shm that are of this run."""
        if self._private_shm:
            return [] if self._shm < 0 else [name for name in os.listdir(self._shm) if "rtcore-" in name]  # noqa: PTH208
        return [path.name for path in _SHM.glob(f"*rtcore-{self.pid}-*")]

    def leftovers(self, grace_s: float) -> tuple[list[str], list[str]]:
        """(processes, names in /dev/shm) that are there so long after its end."""
        end_ns = self.clock.now_ns() + ns_of(grace_s)
        while True:
            processes, names = self.marked(), self.segments()
            if (not processes and not names) or self.clock.now_ns() > end_ns:
                return [_described(process) for process in processes], sorted(names)
            self.clock.sleep_until_ns(self.clock.now_ns() + 5 * _POLL_NS)

    def clean_up(self) -> None:
        """Whatever is left goes."""
        for process in self.marked():
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        self.process.wait()
        self._reader.join(5)
        if self.process.stdout is not None and not self._reader.is_alive():
            self.process.stdout.close()
        if self._shm >= 0:
            os.close(self._shm)
            self._shm = -1
        elif not self._private_shm:
            for name in self.segments():
                (_SHM / name).unlink(missing_ok=True)


def _described(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {process.name()} ({process.status()}): {' '.join(process.cmdline())[:80]}"
    except psutil.Error:
        return f"{process.pid}, gone"
