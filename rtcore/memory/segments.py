"""POSIX shared memory: create, attach, unlink. Names carry the run id: `/dev/shm/rtcore-<run id>-<part>`, mode 0600."""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import platform
import re
import secrets
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import posix_ipc

from rtcore import _tick
from rtcore.errors import LayoutMismatchError, SharedMemoryError, UnsupportedPlatformError, no_descriptor
from rtcore.memory.counters import Words
from rtcore.memory.layout import LAYOUT_VERSION, MAGIC, SEGMENT_HEADER, Layout

_log = logging.getLogger(__name__)

SHM_DIR = Path("/dev/shm")
PREFIX = "rtcore-"
#: Follows the pid in the id of memory of a measurement, which is no run: cleaned up like one, but not listed.
_MEASUREMENT = "ipc-"
_PROC = Path("/proc")
#: Anybody may make names in /dev/shm: only those that `new_run_id` can make are a run's.
_RUN_ID = rf"\d+-(?:{_MEASUREMENT})?[0-9a-f]{{6}}"
#: What a run of an earlier version left behind is removed, too: `about` is what `description` was called up to layout
#: 6, and up to layout 7 there was a semaphore for each worker, `sem.rtcore-<run id>-w<index>`.
_PARTS = r"control|slots|ring|log|description|about|trace|params|payload|learner|holder\d+"
_NAME = re.compile(rf"{PREFIX}(?P<run>{_RUN_ID})-(?P<part>{_PARTS})|sem\.{PREFIX}(?P<before_8>{_RUN_ID})-w\d+")
_X86_64, _ARM64 = ("x86_64", "AMD64"), ("aarch64", "arm64")
SegmentPart = Literal["control", "slots", "ring", "log", "description", "trace", "params", "payload", "learner"]


def parts_of(layout: Layout) -> tuple[SegmentPart, ...]:
    """The segments a run of this layout has."""
    parts: tuple[SegmentPart, ...] = ("control", "slots", "ring", "log", "description")
    return (*parts, "trace") if layout.trace_slots else parts


def platform_lack(system: str, machine: str, *, is_compiled: bool) -> str | None:
    """What to do so that the protocols find the memory order that they need; None if nothing is lacking.

    x86-64 gives it. On ARM64 it has to be asked for, which CPython cannot do and the C extension does (docs/adr/0025).

    Args:
        system: As `sys.platform`.
        machine: As `platform.machine()`.
        is_compiled: Whether the extension is there, and not switched off.
    """
    if system != "linux" or machine not in (*_X86_64, *_ARM64):
        return (
            "use Linux on x86-64, or on ARM64 with the C extension: the shared-memory protocols rely on the memory "
            "order of these"
        )
    if machine in _ARM64 and not is_compiled:
        return (
            "on ARM64 only the C extension keeps the order of accesses to shared memory. Unset RTCORE_TICK if it says "
            "python; else install a C compiler and Python's headers (sudo apt install gcc libc6-dev python3-dev), then "
            "rtcore again"
        )
    return None


def check_platform() -> None:
    """UnsupportedPlatformError where the protocols cannot have the memory order that they need."""
    if _tick.problem:
        raise UnsupportedPlatformError(_tick.problem)
    machine = platform.machine()
    lack = platform_lack(sys.platform, machine, is_compiled=_tick.compiled is not None)
    if lack:
        raise UnsupportedPlatformError(f"rtcore cannot run on {sys.platform} on {machine}: {lack}")


def new_run_id() -> str:
    """Short and unique: the pid tells a person whose run it is."""
    return f"{os.getpid()}-{secrets.token_hex(3)}"


def new_measurement_id() -> str:
    """A run id for the memory of a measurement, which is no run."""
    return f"{os.getpid()}-{_MEASUREMENT}{secrets.token_hex(3)}"


def is_measurement(run_id: str) -> bool:
    return re.match(rf"\d+-{_MEASUREMENT}", run_id) is not None


def segment_name(run_id: str, part: str) -> str:
    return f"/{PREFIX}{run_id}-{part}"


def segment_path(run_id: str, part: str) -> Path:
    return SHM_DIR / segment_name(run_id, part).removeprefix("/")


def part_bytes(layout: Layout, part: str) -> int:
    """The size of a segment whose size follows from the layout."""
    sizes = {
        "control": layout.control_bytes,
        "slots": layout.slots_bytes,
        "ring": layout.ring_bytes,
        "log": layout.log_bytes,
        "description": layout.description_segment_bytes,
        "trace": layout.trace_bytes,
    }
    return sizes[part]


def process_start_ticks(pid: int, proc: Path = _PROC) -> int:
    """When a process started, in clock ticks since boot; -1 if there is none. Tells a pid from its reuse.

    One that has ended and only waits for its parent to notice (a zombie) is none.
    """
    try:
        stat = (proc / f"{pid}/stat").read_text()
    except OSError:
        return -1
    fields = stat[stat.rindex(")") + 2 :].split()
    return -1 if fields[0] in ("Z", "X") else int(fields[19])


def pid_namespace(proc: Path = _PROC) -> int:
    """Number of the namespace in which this process's pids mean something; 0 if that is not known."""
    try:
        return (proc / "self/ns/pid").stat().st_ino
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
    run_id: str,
    part: str,
    layout: Layout,
    prepare: Callable[[memoryview], None] | None = None,
    *,
    num_bytes: int | None = None,
    reserved_bytes: int | None = None,
) -> Segment:
    """Create, reserve every page (a full /dev/shm is an error here, not SIGBUS later) and stamp the header.

    `prepare` gets the new memory before the header says that it is ours: nobody attaches to a half-made segment.
    `num_bytes`: of a part whose size does not follow from the layout. `reserved_bytes`: reserve only so much of it,
    and map no page before its first use; who writes to the rest reserves it first.
    """
    size = part_bytes(layout, part) if num_bytes is None else num_bytes
    reserved = size if reserved_bytes is None else reserved_bytes
    name = segment_name(run_id, part)
    _check_room(part, reserved)
    try:
        memory = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600)
    except (OSError, posix_ipc.Error) as error:
        raise _not_made(part, error) from error
    try:
        try:
            os.ftruncate(memory.fd, size)
            os.posix_fallocate(memory.fd, 0, reserved)
            mapping = _map(memory.fd, size, populate=reserved == size)
        except OSError as error:
            raise (_no_room(part, reserved) if error.errno == errno.ENOSPC else _not_made(part, error)) from error
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


def _map(fd: int, size: int, *, populate: bool = True) -> mmap.mmap:
    """For the run's own processes: every page mapped at once, unless memory must not be taken up yet.

    Else each one faults at its first use, a ring's in the middle of reading a frame (microseconds each, more on a
    virtual machine), until the ring has come round once.
    """
    flags = mmap.MAP_SHARED | (mmap.MAP_POPULATE if populate else 0)
    return mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)


def attach_segment(
    run_id: str,
    part: str,
    layout: Layout | None = None,
    *,
    readonly: bool = False,
    num_bytes: int | None = None,
    populate: bool = True,
) -> Segment:
    """Map an existing segment after checking magic, layout version and size against what is expected.

    `num_bytes`: of a part whose size does not follow from the layout. `populate`: map every page now.
    """
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
        if readonly:
            mapping = mmap.mmap(memory.fd, size, access=mmap.ACCESS_READ)
        else:
            mapping = _map(memory.fd, size, populate=populate)
    finally:
        memory.close_fd()
    segment = Segment(name, mapping)
    header = Words(SEGMENT_HEADER, segment.buf)
    got = (header["magic"], header["layout_version"], header["size_bytes"])
    if layout is not None and num_bytes is None:
        num_bytes = part_bytes(layout, part)
    if got != (MAGIC, LAYOUT_VERSION, size) or num_bytes not in (None, size):
        raise LayoutMismatchError(
            f"{name}: got magic {got[0]:#x}, layout version {got[1]}, {got[2]} bytes in a file of {size}; expected "
            f"magic {MAGIC:#x}, version {LAYOUT_VERSION}. Use the rtcore that started this run"
        )
    return segment


def layout_of(control: Segment) -> Layout:
    """The layout a running run was created with, from its control segment's header."""
    header = Words(SEGMENT_HEADER, control.buf)
    return Layout(**{field: header[field] for field in Layout.__dataclass_fields__})


def run_of(name: str) -> str | None:
    """The run id in a name in /dev/shm; None if no run of rtcore has such a name."""
    match = _NAME.fullmatch(name)
    return (match["run"] or match["before_8"]) if match else None


def files_of(run_id: str, root: Path = Path("/")) -> list[Path]:
    """What of a run is in /dev/shm and is this user's. A link, a pipe or a file of another user's is no part of it.

    `root`: where /dev/shm is (tests).
    """
    folder = root / SHM_DIR.relative_to("/")
    return sorted(path for path in folder.iterdir() if run_of(path.name) == run_id and is_own_file(path))


def left_of(run_id: str) -> list[str] | None:
    """Names of what is left of a run in /dev/shm. None: not known, as no file descriptor is left to look with."""
    try:
        return [path.name for path in files_of(run_id)]
    except OSError as error:
        if not no_descriptor(error):
            raise
        return None


def all_segments() -> list[tuple[str, str]]:
    """(run id, part) of every segment in /dev/shm, of any user."""
    matches = (_NAME.fullmatch(path.name) for path in SHM_DIR.iterdir())
    return [(match["run"], match["part"]) for match in matches if match and match["run"]]


def is_own_file(path: Path) -> bool:
    """A regular file of this user's."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def unlink_all(run_id: str, root: Path = Path("/")) -> None:
    """Remove every name of a run. Processes that have them mapped keep their memory until they exit.

    Where no file descriptor is left to look for them with, that is said: another process of the run removes them, or
    the next run does.
    """
    try:
        found = files_of(run_id, root)
    except OSError as error:
        if not no_descriptor(error):
            raise
        _log.warning("what is left of the run in /dev/shm cannot be looked for: %s", error)
        return
    # The control segment last: a dead run is known by it, should this be interrupted.
    for path in sorted(found, key=lambda path: path.name.endswith("-control")):
        path.unlink(missing_ok=True)


def removal_command(run_id: str) -> str:
    """For a shell: removes every name of a run that nobody else will remove."""
    return f"rm /dev/shm/*{PREFIX}{run_id}-*"


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


def _not_made(part: str, error: Exception) -> SharedMemoryError:
    code = no_descriptor(error) or getattr(error, "errno", None)
    what_to_do = {
        errno.EFBIG: "Raise the limit of file sizes (ulimit -f unlimited)",
        errno.EMFILE: "Raise the limit of open files (ulimit -n)",
        errno.ENFILE: "The machine has no open file left (fs.file-max)",
        errno.ENOMEM: "Free memory, or raise the limits of address space (ulimit -v) and of the container",
        errno.ENOSPC: "Remove stale segments (rtcore-doctor --clean), or enlarge /dev/shm",
        errno.EACCES: "rtcore-doctor says what /dev/shm lacks",
    }.get(code or 0, "rtcore-doctor looks at /dev/shm")
    return SharedMemoryError(f"the {part} could not be made in /dev/shm: {error}. {what_to_do}")
