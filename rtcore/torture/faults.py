"""What happens to a real run: signals to its processes, and what is taken from it, for a while or for good."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil

from rtcore.torture.program import Program

SIGNALS = ("KILL", "STOP", "TERM", "INT", "HUP", "SEGV")
#: Of the whole run, frozen or short of CPU time for a while; of the whole run, until it ends; of one process.
FREEZE, QUOTA, NO_FORKS, FULL_DISK, FULL_SHM, NO_DESCRIPTORS = "freeze", "quota", "forks", "disk", "shm", "descriptors"
MACHINE = (FREEZE, QUOTA, NO_FORKS, FULL_DISK, FULL_SHM)
#: What ends a process at once, whatever it would rather do.
DEADLY = ("KILL", "SEGV")

_CGROUPS = Path("/sys/fs/cgroup")
#: Of each controller: version 1's file and values, version 2's file and values.
_FREEZER = (("freezer.state", "FROZEN", "THAWED"), ("cgroup.freeze", "1", "0"))
_CPU = (("cpu.cfs_quota_us", "{quota}", "-1"), ("cpu.max", "{quota} 100000", "max 100000"))
_PIDS = (("pids.max", "{count}", "max"), ("pids.max", "{count}", "max"))


@dataclass(frozen=True)
class Fault:
    """One of them, as a seed plans it.

    `phase`, `after_s`: when, counted from the phase's begin. `hold_s`: how long a stopped process, a frozen or slowed
    run stays so.
    """

    kind: str
    role: str
    index: int
    phase: str
    moment: str  #: the phase, or what of the running program: "publication", "checkpoint", "shutdown"
    after_s: float
    hold_s: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.role} {self.moment}"


@dataclass
class Applied:
    """A fault that happened. `was_ticking`: the run had begun its ticks, `into_ticks_s` before."""

    fault: Fault
    target: str
    at_ns: int
    was_ticking: bool
    notes: list[str] = field(default_factory=list)
    into_ticks_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self.fault) | {"target": self.target, "was_ticking": self.was_ticking, "notes": self.notes}


def apply(fault: Fault, program: Program, out: Path | None) -> Applied | None:
    """Wait for the fault's moment, and let it happen; None if the program, or the process that it is for, is not there.

    Args:
        fault: What, to whom and when.
        program: The run.
        out: Its folder; where it is, the disk gets full.
    """
    if not program.wait_for(fault.phase, fault.after_s):
        return None
    if fault.moment == "checkpoint" and out is not None:
        _wait_for_writing(program, out)
    was_ticking, at_ns = program.phases["ticks"].is_set(), program.clock.now_ns()
    if fault.kind in MACHINE:
        done = _MACHINE[fault.kind](program, fault, out)
        return Applied(fault, "the run", at_ns, was_ticking, [done] if done else [])
    target = _find(program, fault)
    try:
        if target is None:
            return None
        name = target.name()
        applied = Applied(fault, name if name.startswith("rt-") else fault.role, program.clock.now_ns(), was_ticking)
        if fault.kind == NO_DESCRIPTORS:
            _take_descriptors(target.pid)
        else:
            target.send_signal(getattr(signal, f"SIG{fault.kind}"))
    except (psutil.Error, OSError):
        return None
    if fault.kind == "STOP":
        program.sleep(fault.hold_s)
        with suppress(psutil.Error):
            target.send_signal(signal.SIGCONT)
    return applied


def _find(program: Program, fault: Fault) -> psutil.Process | None:
    """It may take a moment until there is one."""
    for _ in range(20):
        roles = program.roles()
        named = sorted(name for name in roles if name.rstrip("0123456789") == fault.role)
        if named:
            # A policy of two speeds has its head in the last place.
            return roles[named[fault.index % len(named)]]
        if not program.sleep(0.05):
            return None
    return None


def _wait_for_writing(program: Program, out: Path) -> None:
    """Until a checkpoint is being written, for three seconds at most."""
    for _ in range(1500):
        if any(out.glob("checkpoints/.writing-*")) or not program.sleep(0.002):
            return


def _take_descriptors(pid: int) -> None:
    """No file, socket or pipe can be opened from now on: the limit is the first number that is free."""
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    free = next(number for number in range(len(used) + 1) if number not in used)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]))


# -- the machine -------------------------------------------------------------------------------------------


class _ControlGroup:
    """All processes of a run in a control group of their own, of either version. OSError where that is not allowed."""

    def __init__(self, program: Program, controller: str, files: Sequence[tuple[str, str, str]]) -> None:
        second = (_CGROUPS / "cgroup.controllers").exists()
        root = _CGROUPS if second else _CGROUPS / controller
        self.folder = root / f"rtcore-torture-{program.mark}-{controller}"
        self._file, self._on, self._off = files[second]
        self.folder.mkdir()
        for process in program.marked():
            with suppress(OSError):  # it has ended meanwhile
                (self.folder / "cgroup.procs").write_text(f"{process.pid}\n")

    def set(self, **values: int) -> None:
        (self.folder / self._file).write_text(self._on.format(**values))

    def lift(self) -> None:
        """As before; the group goes with its processes."""
        with suppress(OSError):
            (self.folder / self._file).write_text(self._off)
            parent = self.folder.parent / "cgroup.procs"
            for pid in (self.folder / "cgroup.procs").read_text().split():
                with suppress(OSError):
                    parent.write_text(pid)
            self.folder.rmdir()


def _freeze(program: Program, fault: Fault, out: Path | None) -> str:
    return _for_a_while(program, fault, "freezer", _FREEZER, {})


def _slow_down(program: Program, fault: Fault, out: Path | None) -> str:
    """A twentieth to half of a CPU."""
    return _for_a_while(program, fault, "cpu", _CPU, {"quota": 5_000 + 9_000 * (fault.index % 6)})


def _for_a_while(
    program: Program, fault: Fault, controller: str, files: Sequence[tuple[str, str, str]], values: dict[str, int]
) -> str:
    try:
        group = _ControlGroup(program, controller, files)
    except OSError as error:
        return f"not possible here: {error}"
    try:
        group.set(**values)
        program.sleep(fault.hold_s)
    except OSError as error:
        return f"not possible here: {error}"
    finally:
        group.lift()
    return ""


def _refuse_forks(program: Program, fault: Fault, out: Path | None) -> str:
    """To its end, no further process or thread. By a group, as root knows no limit of its own processes."""
    try:
        group = _ControlGroup(program, "pids", _PIDS)
        group.set(count=sum(process.num_threads() for process in program.marked()))
    except (OSError, psutil.Error) as error:
        if os.getuid() == 0:
            return f"not possible here: {error}"
        for process in program.marked():
            with suppress(OSError):
                resource.prlimit(process.pid, resource.RLIMIT_NPROC, (1, resource.RLIM_INFINITY))
        return ""
    program.process.wait()
    group.lift()
    return ""


def _fill_disk(program: Program, fault: Fault, out: Path | None) -> str:
    """Where the folder is a file system of its own: that gets no larger. Elsewhere: no file of the program does."""
    if out is not None and out.parent.is_mount():
        return _no_more_room(["mount", "-o"], out.parent)
    hard = resource.prlimit(program.pid, resource.RLIMIT_FSIZE)[1]
    for process in program.marked():
        with suppress(OSError):
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (8192, hard))
    return ""


def _fill_shm(program: Program, fault: Fault, out: Path | None) -> str:
    inside = Path(f"/proc/{program.pid}/root/dev/shm")
    return _no_more_room(["nsenter", "-t", str(program.pid), "-m", "mount", "-o"], inside, "/dev/shm")


def _no_more_room(command: list[str], folder: Path, mounted: str | None = None) -> str:
    """A tmpfs shrinks to what is in it. It may grow meanwhile: then once more."""
    for _ in range(20):
        try:
            room = os.statvfs(folder)
        except OSError as error:
            return f"not possible here: {error}"
        used = max((room.f_blocks - room.f_bfree) * room.f_frsize, room.f_frsize)
        words = [*command, f"remount,size={used}", mounted or str(folder)]
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return ""
    return "not possible here: a tmpfs that cannot be made smaller"


_MACHINE: dict[str, Callable[[Program, Fault, Path | None], str]] = {
    FREEZE: _freeze,
    QUOTA: _slow_down,
    NO_FORKS: _refuse_forks,
    FULL_DISK: _fill_disk,
    FULL_SHM: _fill_shm,
}
