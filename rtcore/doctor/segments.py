"""/dev/shm: room for the configured run, and what earlier and other runs have there."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass, field
from enum import StrEnum

from rtcore.doctor.checks import Answer, Check, Needs, lacks, ok, size, unknown, warn
from rtcore.doctor.machine import Machine, ProbeError
from rtcore.errors import SharedMemoryError
from rtcore.memory.owners import Standing, judge_run
from rtcore.memory.segments import PREFIX, is_own_file, removal_command, run_of

_SHM = "/dev/shm"


class Owner(StrEnum):
    """Whose a run is. Only `DEAD` ones may be removed."""

    LIVE = "live"
    DEAD = "dead"
    OTHER_USER = "of another user"
    OTHER_NAMESPACE = "of another pid namespace (a container that shares /dev/shm)"
    OTHER_VERSION = "of another version of rtcore"
    BEING_MADE = "being made"
    UNREADABLE = "without a readable header (broken)"


@dataclass
class Found:
    """What of one run is in /dev/shm."""

    run_id: str
    owner: Owner
    pid: int = -1
    version: int = 0
    files: list[str] = field(default_factory=list)
    num_bytes: int = 0


def find_runs(machine: Machine) -> list[Found]:
    """Every run that has files in /dev/shm, judged by its control segment."""
    files: dict[str, list[str]] = defaultdict(list)
    for path in machine.glob(f"{_SHM}/*{PREFIX}*"):
        if run_id := run_of(path.rpartition("/")[2]):
            files[run_id].append(path)
    return [_judge(machine, run_id, paths) for run_id, paths in sorted(files.items())]


def strange_names(machine: Machine) -> list[str]:
    """Names that look like a run's and are none that rtcore makes: somebody else's, never touched."""
    names = (path.rpartition("/")[2] for path in machine.glob(f"{_SHM}/*{PREFIX}*"))
    return [name for name in names if run_of(name) is None]


_OWNERS = {
    Standing.LIVE: Owner.LIVE,
    Standing.DEAD: Owner.DEAD,
    Standing.OTHER_NAMESPACE: Owner.OTHER_NAMESPACE,
    Standing.OTHER_LAYOUT: Owner.OTHER_VERSION,
    Standing.BEING_MADE: Owner.BEING_MADE,
}


def _judge(machine: Machine, run_id: str, paths: list[str]) -> Found:
    standing, pid, version = judge_run(run_id, machine.root)
    found = Found(run_id, _OWNERS.get(standing, Owner.UNREADABLE), pid, version, paths)
    with contextlib.suppress(FileNotFoundError):  # a run that ends meanwhile
        control = machine.path(f"{_SHM}/{PREFIX}{run_id}-control").lstat()
        if control.st_uid != machine.uid:
            found.owner = Owner.OTHER_USER
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            found.num_bytes += machine.path(path).lstat().st_size
    return found


def clean(machine: Machine) -> list[Found]:
    """Remove what runs of this user left whose owner is dead, and only those. Returns them.

    `SharedMemoryError` if the system does not let go of one.
    """
    removed = []
    for run in find_runs(machine):
        if run.owner is not Owner.DEAD:
            continue
        # The control segment last: an interrupted cleaning can be judged, and ended, the next time.
        own = [path for path in run.files if is_own_file(machine.path(path))]
        for path in sorted(own, key=lambda path: path.endswith("-control")):
            try:
                machine.path(path).unlink(missing_ok=True)
            except OSError as error:
                raise SharedMemoryError(f"{path} cannot be removed: {error.strerror}") from error
        removed.append(run)
    return removed


# -- checks ------------------------------------------------------------------------------------------------------


def _mount(machine: Machine) -> tuple[str, str] | None:
    """(file system type, options) of what is mounted last on /dev/shm."""
    found = None
    for line in machine.read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if fields[4] == _SHM:
            kind, _, rest = right.partition(" ")
            found = kind, f"{fields[5]},{rest.rpartition(' ')[2]}"
    return found


def mount(machine: Machine, needs: Needs) -> Answer:
    if not machine.exists(_SHM):
        return lacks("there is no /dev/shm", "sudo mkdir -p /dev/shm && sudo mount -t tmpfs -o size=2G tmpfs /dev/shm")
    try:
        with tempfile.TemporaryFile(dir=machine.path(_SHM)) as file:
            os.posix_fallocate(file.fileno(), 0, 4096)
    except OSError as error:
        return lacks(
            f"a file cannot be made there: {error.strerror}", "sudo mount -o remount,rw,mode=1777,size=2G /dev/shm"
        )
    mounted = _mount(machine)
    if mounted is None:
        return warn("a plain folder, no memory", "sudo mount -t tmpfs -o size=2G tmpfs /dev/shm")
    kind, options = mounted
    if kind != "tmpfs":
        return warn(f"{kind} ({options}), not tmpfs: writes may reach a disk", "sudo mount -t tmpfs tmpfs /dev/shm")
    return ok(f"tmpfs ({options})")


def room(machine: Machine, needs: Needs) -> Answer:
    """Against the configured run; with `--trace` too."""
    space = machine.room(_SHM)
    found = f"{size(space.free_bytes)} of {size(space.total_bytes)} free"
    if needs.shm_bytes is None or needs.traced_shm_bytes is None or needs.layout is None:
        return unknown(f"{found}; the run's need follows from its world, and that failed: {needs.why}")
    config = needs.config
    found += (
        f"; {config.world.env_id} with {needs.layout.ring_slots} frames and {needs.layout.max_workers} worker places "
        f"needs {size(needs.shm_bytes)}, traced {size(needs.traced_shm_bytes)}"
    )
    # What is used stays used; a tenth to spare.
    used_bytes = space.total_bytes - space.free_bytes
    wanted = math.ceil((used_bytes + 1.1 * max(needs.traced_shm_bytes, needs.shm_bytes)) / 1e9)
    grow = f"sudo mount -o remount,size={wanted}G /dev/shm"
    if machine.in_container:
        grow = f"docker run --shm-size={wanted}g (compose: shm_size)"
    if space.free_bytes < needs.shm_bytes:
        return lacks(found, f"{grow}, or a smaller --ring-slots or --max-workers")
    memory = _available_bytes(machine)
    if memory < needs.shm_bytes:
        return lacks(f"{found}; but only {size(memory)} of memory are free", "free memory, or a smaller --ring-slots")
    if space.free_bytes < needs.traced_shm_bytes:
        return warn(f"{found}: too small for --trace", grow)
    return ok(found)


def _available_bytes(machine: Machine) -> int:
    for line in machine.read("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            return 1024 * int(line.split()[1])
    raise ProbeError("/proc/meminfo has no MemAvailable")


def stale(machine: Machine, needs: Needs) -> Answer:
    runs = [run for run in find_runs(machine) if run.owner is not Owner.LIVE]
    dead = [run for run in runs if run.owner is Owner.DEAD]
    alone = [f"{run.run_id} {run.owner}, left alone" for run in runs if run.owner is not Owner.DEAD]
    if strange := strange_names(machine):
        alone.append(f"{len(strange)} names that no run has, left alone: {', '.join(strange[:5])}")
    left = "; ".join(alone)
    if dead:
        names = ", ".join(run.run_id for run in dead)
        total = size(sum(run.num_bytes for run in dead))
        return warn(
            f"{total} of {len(dead)} runs whose program is dead: {names}" + (f"; {left}" if left else ""),
            "rtcore-doctor --clean",
        )
    broken = [run for run in runs if run.owner in (Owner.UNREADABLE, Owner.OTHER_VERSION)]
    if broken:
        return warn(left, "if no such run is on: " + "; ".join(removal_command(run.run_id) for run in broken))
    return ok(left or "nothing left behind")


def live(machine: Machine, needs: Needs) -> Answer:
    runs = [run for run in find_runs(machine) if run.owner is Owner.LIVE]
    if not runs:
        return ok("none")
    names = ", ".join(f"{run.run_id} ({_program(machine, run.pid)})" for run in runs)
    return warn(f"{len(runs)}: {names}; sharing the CPUs with yours", "let it end first, or give each its own CPUs")


def _program(machine: Machine, pid: int) -> str:
    return machine.find(f"/proc/{pid}/comm") or f"pid {pid}"


CHECKS = (
    Check("shm.mount", "/dev/shm", mount),
    Check("shm.room", "room for the ring", room),
    Check("shm.stale", "stale segments", stale),
    Check("shm.live", "other runs", live),
)
