"""Which process owns the shared memory of a run, and whether it lives: only memory of dead owners is removed."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from rtcore.clock import unix_time_s
from rtcore.memory.counters import Words
from rtcore.memory.layout import LAYOUT_VERSION, MAGIC, SEGMENT_HEADER
from rtcore.memory.segments import (
    all_segments,
    files_of,
    pid_namespace,
    process_start_ticks,
    segment_path,
    unlink_all,
)

#: How long a control segment may be without a head. Making one takes milliseconds.
_MAKING_S = 10.0


class Standing(StrEnum):
    """State of a run's owner, by its control segment. Only the memory of `DEAD` ones may be removed."""

    LIVE = "live"
    DEAD = "dead"  #: killed together with its fork server
    OTHER_NAMESPACE = "of another pid namespace"  #: a container that shares /dev/shm: its pids mean nothing here
    OTHER_LAYOUT = "of another layout"  #: made by another version of rtcore: where it keeps its owner is not known
    BEING_MADE = "being made"  #: no head yet
    BROKEN = "broken"  #: no head, and none will come
    UNREADABLE = "unreadable"  #: no right to read it
    GONE = "gone"  #: there is no control segment


class Judgement(NamedTuple):
    """The state of a run's owner. What the head does not say is -1 (`owner_pid`) or 0 (`layout_version`)."""

    standing: Standing
    owner_pid: int = -1
    layout_version: int = 0


def read_head(path: Path) -> Words | None:
    """A copy of a segment's head; None if none has been written. OSError if the segment cannot be read.

    Anybody may have made a file of that name: links are not followed, and a pipe without a writer does not block.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        head = bytearray(os.pread(fd, SEGMENT_HEADER.num_bytes, 0))
    finally:
        os.close(fd)
    words = Words(SEGMENT_HEADER, memoryview(head)) if len(head) == SEGMENT_HEADER.num_bytes else None
    return words if words is not None and words["magic"] == MAGIC else None


def judge_run(run_id: str, root: Path = Path("/")) -> Judgement:
    """Whether a run's owner lives, by the head of its control segment. `root`: of /dev/shm and /proc (tests)."""
    path, proc = root / segment_path(run_id, "control").relative_to("/"), root / "proc"
    try:
        head = read_head(path)
        if head is None:
            return Judgement(_judge_headless(run_id, unix_time_s() - path.lstat().st_mtime, proc))
    except FileNotFoundError:
        return Judgement(Standing.GONE)
    except OSError:
        return Judgement(Standing.UNREADABLE)
    version = head["layout_version"]
    if version != LAYOUT_VERSION:
        return Judgement(Standing.OTHER_LAYOUT, layout_version=version)
    pid = head["owner_pid"]
    if head["owner_pid_namespace"] != pid_namespace(proc):
        return Judgement(Standing.OTHER_NAMESPACE, pid, version)
    alive = process_start_ticks(pid, proc) == head["owner_start_ticks"]
    return Judgement(Standing.LIVE if alive else Standing.DEAD, pid, version)


def _judge_headless(run_id: str, age_s: float, proc: Path) -> Standing:
    """No header yet: judge by the pid in the name."""
    named = re.match(r"(\d+)-", run_id)
    is_gone = named is not None and process_start_ticks(int(named[1]), proc) < 0
    return Standing.BROKEN if is_gone or age_s > _MAKING_S else Standing.BEING_MADE


def run_ids() -> list[str]:
    """Of everything that has a control segment, measurements included."""
    return sorted(run_id for run_id, part in all_segments() if part == "control")


def dead_runs() -> Iterator[str]:
    """Run ids of this user's whose owner certainly no longer exists (killed together with its launcher)."""
    for run_id in run_ids():
        if segment_path(run_id, "control") in files_of(run_id) and judge_run(run_id).standing is Standing.DEAD:
            yield run_id


def reap_dead_runs() -> list[str]:
    """Remove what runs of this user left behind whose owner is dead, and only those."""
    reaped = list(dead_runs())
    for run_id in reaped:
        unlink_all(run_id)
    return reaped
