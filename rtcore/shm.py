"""POSIX shared memory and semaphores: create, attach, unlink. Names carry the run id, mode 0600.

`/dev/shm/rtcore-<run id>-<part>` for segments, `/dev/shm/sem.rtcore-<run id>-w<index>` for semaphores.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import platform
import secrets
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import posix_ipc

from rtcore.errors import LayoutMismatchError, SharedMemoryError, UnsupportedPlatformError
from rtcore.layout import LAYOUT_VERSION, MAGIC, SEGMENT_HEADER, Layout
from rtcore.stats import Words

SHM_DIR = Path("/dev/shm")
PREFIX = "rtcore-"
Part = Literal["control", "slots", "ring", "log", "about", "trace"]


def parts_of(layout: Layout) -> tuple[Part, ...]:
    """The segments a run of this layout has."""
    parts: tuple[Part, ...] = ("control", "slots", "ring", "log", "about")
    return (*parts, "trace") if layout.trace_slots else parts


def check_platform() -> None:
    """The protocols need store-store and load-load order, which x86-64 gives and CPython cannot ask for."""
    machine = platform.machine()
    if sys.platform != "linux" or machine not in ("x86_64", "AMD64"):
        raise UnsupportedPlatformError(
            f"rtcore needs Linux on x86-64, got {sys.platform} on {machine}: its shared-memory protocols rely on "
            "that machine's memory order"
        )


def new_run_id() -> str:
    """Short and unique: the pid tells a person whose run it is."""
    return f"{os.getpid()}-{secrets.token_hex(3)}"


def segment_name(run_id: str, part: str) -> str:
    return f"/{PREFIX}{run_id}-{part}"


def part_bytes(layout: Layout, part: Part) -> int:
    """The size of a segment."""
    sizes = {
        "control": layout.control_bytes,
        "slots": layout.slots_bytes,
        "ring": layout.ring_bytes,
        "log": layout.log_bytes,
        "about": layout.about_segment_bytes,
        "trace": layout.trace_bytes,
    }
    return sizes[part]


def process_start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 if there is none. Tells a pid from its reuse.

    One that has ended and only waits for its parent to notice (a zombie) is none.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return -1
    fields = stat[stat.rindex(")") + 2 :].split()
    return -1 if fields[0] in ("Z", "X") else int(fields[19])


def pid_namespace() -> int:
    """Number of the namespace in which this process's pids mean something; 0 if it cannot be told."""
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


class Segment:
    """One mapped segment. `buf` is a view into shared memory; valid until `close`."""

    def __init__(self, name: str, mapping: mmap.mmap) -> None:
        self.name = name
        self._mapping = mapping
        self.buf = memoryview(mapping)

    def close(self) -> None:
        """Unmap if nothing points into it any more; else the mapping goes with its last user."""
        with contextlib.suppress(BufferError):
            self.buf.release()
            self._mapping.close()


def create_segment(
    run_id: str, part: Part, layout: Layout, prepare: Callable[[memoryview], None] | None = None
) -> Segment:
    """Create, reserve every page (a full /dev/shm is an error here, not SIGBUS later) and stamp the header.

    `prepare` gets the new memory before the header says that it is ours: nobody attaches to a half-made segment.
    """
    size = part_bytes(layout, part)
    name = segment_name(run_id, part)
    _check_room(part, size)
    memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    try:
        try:
            os.posix_fallocate(memory.fd, 0, size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise _no_room(part, size) from error
        mapping = _map(memory.fd, size)
    except BaseException:
        memory.unlink()
        raise
    finally:
        memory.close_fd()
    segment = Segment(name, mapping)
    if prepare is not None:
        prepare(segment.buf)
    header = Words(SEGMENT_HEADER, segment.buf)
    for field, value in layout.to_json().items():
        header[field] = value
    header["size_bytes"] = size
    header["owner_pid"] = os.getpid()
    header["owner_start_ticks"] = process_start_ticks(os.getpid())
    header["owner_pid_namespace"] = pid_namespace()
    header["layout_version"] = LAYOUT_VERSION
    header["magic"] = MAGIC
    return segment


def _map(fd: int, size: int) -> mmap.mmap:
    """For the run's own processes: every page mapped at once.

    Else each one faults at its first use, a ring's in the middle of reading a frame (microseconds each, more on a
    virtual machine), until the ring has come round once.
    """
    return mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def attach_segment(run_id: str, part: Part, layout: Layout | None = None, *, readonly: bool = False) -> Segment:
    """Map an existing segment after checking magic, layout version and size against what is expected."""
    name = segment_name(run_id, part)
    try:
        memory = posix_ipc.SharedMemory(name, read_only=readonly)
    except posix_ipc.ExistentialError as error:
        raise LayoutMismatchError(f"no shared memory {name}: run {run_id!r} is over or never was") from error
    try:
        size = os.fstat(memory.fd).st_size
        if size < SEGMENT_HEADER.num_bytes:
            raise LayoutMismatchError(
                f"{name} has {size} bytes; expected a header of {SEGMENT_HEADER.num_bytes} at least"
            )
        mapping = mmap.mmap(memory.fd, size, access=mmap.ACCESS_READ) if readonly else _map(memory.fd, size)
    finally:
        memory.close_fd()
    segment = Segment(name, mapping)
    header = Words(SEGMENT_HEADER, segment.buf)
    got = (header["magic"], header["layout_version"], header["size_bytes"])
    if got != (MAGIC, LAYOUT_VERSION, size) or (layout is not None and size != part_bytes(layout, part)):
        raise LayoutMismatchError(
            f"{name}: got magic {got[0]:#x}, layout version {got[1]}, {got[2]} bytes in a file of {size}; expected "
            f"magic {MAGIC:#x}, version {LAYOUT_VERSION}. Use the rtcore that started this run"
        )
    return segment


def layout_of(control: Segment) -> Layout:
    """The layout a running run was created with, from its control segment's header."""
    header = Words(SEGMENT_HEADER, control.buf)
    return Layout(**{field: header[field] for field in Layout.__dataclass_fields__})


def semaphore_name(run_id: str, worker: int) -> str:
    return f"/{PREFIX}{run_id}-w{worker}"


def create_semaphore(run_id: str, worker: int) -> posix_ipc.Semaphore:
    return posix_ipc.Semaphore(semaphore_name(run_id, worker), posix_ipc.O_CREX, mode=0o600, initial_value=0)


def attach_semaphore(run_id: str, worker: int) -> posix_ipc.Semaphore:
    return posix_ipc.Semaphore(semaphore_name(run_id, worker))


def files_of(run_id: str) -> list[Path]:
    """What of a run is in /dev/shm."""
    return sorted(
        path for pattern in (f"{PREFIX}{run_id}-*", f"sem.{PREFIX}{run_id}-*") for path in SHM_DIR.glob(pattern)
    )


def unlink_all(run_id: str) -> None:
    """Remove every name of a run. Processes that have them mapped keep their memory until they exit."""
    # The control segment last: a dead run is known by it, should this be interrupted.
    for path in sorted(files_of(run_id), key=lambda path: path.name.endswith("-control")):
        path.unlink(missing_ok=True)


def dead_runs() -> Iterator[str]:
    """Run ids whose owner no longer exists (killed together with its launcher).

    A run of another pid namespace (a container that shares /dev/shm) is not judged: its pids mean nothing here.
    """
    for path in SHM_DIR.glob(f"{PREFIX}*-control"):
        run_id = path.name.removeprefix(PREFIX).removesuffix("-control")
        try:
            with path.open("rb") as file:
                head = bytearray(file.read(SEGMENT_HEADER.num_bytes))
        except OSError:
            continue
        if len(head) < SEGMENT_HEADER.num_bytes:
            continue
        header = Words(SEGMENT_HEADER, memoryview(head))
        if header["layout_version"] == LAYOUT_VERSION and header["owner_pid_namespace"] != pid_namespace():
            continue
        owner_pid, started = header["owner_pid"], header["owner_start_ticks"]
        if header["magic"] == MAGIC and process_start_ticks(owner_pid) != started:
            yield run_id


def reap_dead_runs() -> list[str]:
    """Remove what runs left behind whose owner is dead, and only those."""
    reaped = list(dead_runs())
    for run_id in reaped:
        unlink_all(run_id)
    return reaped


def free_bytes() -> int:
    """Room in /dev/shm."""
    status = os.statvfs(SHM_DIR)
    return status.f_bavail * status.f_frsize


def _check_room(part: str, size: int) -> None:
    if size > free_bytes():
        raise _no_room(part, size)


def _no_room(part: str, size: int) -> SharedMemoryError:
    return SharedMemoryError(
        f"no room in /dev/shm for the {part} segment: needs {size / 1e6:.1f} MB, {free_bytes() / 1e6:.1f} MB are free. "
        f"Lower {'--max-workers' if part == 'trace' else '--ring-slots'}, remove stale segments, or enlarge it (docker "
        "run --shm-size=1g; "
        "mount -o remount,size=2G /dev/shm)"
    )
