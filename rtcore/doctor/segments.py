"""/dev/shm: room for the configured run, and what earlier and other runs have there."""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections import defaultdict
from dataclasses import dataclass

from rtcore.doctor.checks import Check, Needs, Verdict, lacks, ok, size, unknown, warn
from rtcore.doctor.machine import Machine
from rtcore.errors import SharedMemoryError
from rtcore.memory.owners import Standing, judge_run
from rtcore.memory.segments import PREFIX, removal_command, run_of, unlink_all

_SHM = "/dev/shm"


#: What is said of a run that is not removed, by how it stands; of the others that their header cannot be read.
_WORDS = {
    Standing.OTHER_NAMESPACE: "of another pid namespace (a container that shares /dev/shm)",
    Standing.OTHER_LAYOUT: "of another version of rtcore",
    Standing.BEING_MADE: "being made",
}


@dataclass(frozen=True)
class RunSegments:
    """What of one run is in /dev/shm."""

    run_id: str
    standing: Standing
    is_ours: bool  #: of this user; nobody else's is ever removed
    pid: int
    files: list[str]
    num_bytes: int

    @property
    def is_stale(self) -> bool:
        """Its program is dead, and it may be removed."""
        return self.is_ours and self.standing is Standing.DEAD

    @property
    def is_broken(self) -> bool:
        """Neither rtcore nor this version of it can tell whose it is: somebody has to look."""
        known = (Standing.LIVE, Standing.DEAD, Standing.OTHER_NAMESPACE, Standing.BEING_MADE)
        return self.is_ours and self.standing not in known

    def in_words(self) -> str:
        words = _WORDS.get(self.standing, "without a readable header (broken)")
        return f"{self.run_id} {words if self.is_ours else 'of another user'}, left alone"


def find_runs(machine: Machine) -> tuple[list[RunSegments], list[str]]:
    """Every run that has files in /dev/shm, judged by its control segment; and names that look like a run's and are
    none that rtcore makes: somebody else's, never touched."""
    files: dict[str, list[str]] = defaultdict(list)
    strange = []
    for path in machine.glob(f"{_SHM}/*{PREFIX}*"):
        name = path.rpartition("/")[2]
        if run_id := run_of(name):
            files[run_id].append(path)
        else:
            strange.append(name)
    return [_judge(machine, run_id, paths) for run_id, paths in sorted(files.items())], strange


def _judge(machine: Machine, run_id: str, paths: list[str]) -> RunSegments:
    standing, pid, _ = judge_run(run_id, machine.root)
    sizes, owners = {}, {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):  # a run that ends meanwhile
            status = machine.path(path).lstat()
            sizes[path], owners[path] = status.st_size, status.st_uid
    is_ours = owners.get(f"{_SHM}/{PREFIX}{run_id}-control", machine.uid) == machine.uid
    return RunSegments(run_id, standing, is_ours, pid, files=paths, num_bytes=sum(sizes.values()))


def clean(machine: Machine) -> list[RunSegments]:
    """Remove what runs of this user left whose owner is dead, and only those. Returns them.

    `SharedMemoryError` if the system does not let go of one.
    """
    removed = [run for run in find_runs(machine)[0] if run.is_stale]
    for run in removed:
        try:
            unlink_all(run.run_id, machine.root)
        except OSError as error:
            raise SharedMemoryError(f"{error.filename} cannot be removed: {error.strerror}") from error
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


def mount(machine: Machine, needs: Needs) -> Verdict:
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


def room(machine: Machine, needs: Needs) -> Verdict:
    """Against the configured run; with `--trace` too."""
    total_bytes, free_bytes = machine.room_bytes(_SHM)
    found = f"{size(free_bytes)} of {size(total_bytes)} free"
    if needs.shm_bytes is None or needs.traced_shm_bytes is None or needs.layout is None:
        return unknown(f"{found}; the run's need follows from its world, and that failed: {needs.why}")
    config = needs.config
    found += (
        f"; {config.world.env_id} with {needs.layout.ring_slots} frames and {needs.layout.max_workers} worker places "
        f"needs {size(needs.shm_bytes)}, traced {size(needs.traced_shm_bytes)}"
    )
    # What is used stays used; a tenth to spare.
    wanted = math.ceil((total_bytes - free_bytes + 1.1 * max(needs.traced_shm_bytes, needs.shm_bytes)) / 1e9)
    grow = f"sudo mount -o remount,size={wanted}G /dev/shm"
    if machine.in_container:
        grow = f"docker run --shm-size={wanted}g (compose: shm_size)"
    if free_bytes < needs.shm_bytes:
        return lacks(found, f"{grow}, or a smaller --ring-slots or --max-workers")
    memory = machine.available_bytes
    if memory < needs.shm_bytes:
        return lacks(f"{found}; but only {size(memory)} of memory are free", "free memory, or a smaller --ring-slots")
    if free_bytes < needs.traced_shm_bytes:
        return warn(f"{found}: too small for --trace", grow)
    return ok(found)


def stale(machine: Machine, needs: Needs) -> Verdict:
    runs, strange = find_runs(machine)
    dead = [run for run in runs if run.is_stale]
    alone = [run.in_words() for run in runs if not run.is_stale and not (run.is_ours and run.standing is Standing.LIVE)]
    if strange:
        alone.append(f"{len(strange)} names that no run has, left alone: {', '.join(strange[:5])}")
    if dead:
        total = size(sum(run.num_bytes for run in dead))
        names = ", ".join(run.run_id for run in dead)
        found = "; ".join([f"{total} of {len(dead)} runs whose program is dead: {names}", *alone])
        return warn(found, "rtcore-doctor --clean")
    if broken := [run for run in runs if run.is_broken]:
        removals = "; ".join(removal_command(run.run_id) for run in broken)
        return warn("; ".join(alone), f"if no such run is on: {removals}")
    return ok("; ".join(alone) or "nothing left behind")


def live(machine: Machine, needs: Needs) -> Verdict:
    runs = [run for run in find_runs(machine)[0] if run.is_ours and run.standing is Standing.LIVE]
    if not runs:
        return ok("none")
    names = ", ".join(f"{run.run_id} ({machine.find(f'/proc/{run.pid}/comm') or f'pid {run.pid}'})" for run in runs)
    return warn(f"{len(runs)}: {names}; sharing the CPUs with yours", "let it end first, or give each its own CPUs")


CHECKS = (
    Check("shm.mount", "/dev/shm", mount),
    Check("shm.room", "room for the ring", room),
    Check("shm.stale", "stale segments", stale),
    Check("shm.live", "other runs", live),
)
