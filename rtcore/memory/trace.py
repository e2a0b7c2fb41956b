"""Trace events: what each process was doing when. One fixed-size ring of events per process, in shared memory.

A process writes only its own events, after the work they describe: no lock, no lasting allocation, about a microsecond
per event. The supervisor collects them during the run. An event that is overwritten before it is collected is counted
as lost. `report.perfetto` turns them into a trace file.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.memory.layout import (
    LAYOUT_VERSION,
    TRACE_ENV,
    TRACE_EVENT,
    TRACE_FIRST_WORKER,
    TRACE_SUPERVISOR,
    Layout,
)
from rtcore.memory.ring import SequenceRing

#: Events each process keeps until they are collected: 20 ms of work at 1 kHz are some 250.
TRACE_SLOTS = 8192

SPOOL_MAGIC = b"RTCTRACE"
SPOOL_HEAD = struct.Struct("<8sqq40x")  #: first in every `.events` file: magic, layout version, bytes of an event


#: Since then an event looks as it does now: older files of events can still be read.
_OLDEST_VERSION = 5


class TraceKind(IntEnum):
    """What an event describes, and the meaning of its `value`, where it has one."""

    # -- env process
    SLEEP = 0  #: nothing to do before the next deadline
    PREPARE = 1  #: awake before the deadline: warming caches, waking the next worker, spinning
    TICK = 2  #: the whole tick; value: its `TickKind`
    COLLECT = 3  #: reading answers from the slots, and which workers are up
    DISPATCH = 4  #: the decision; worker and booked_tick of the applied job; value: 1 if this is its first tick
    BOOK = 5  #: jobs booked and their workers woken
    JOB = 6  #: an instant within BOOK: one job (worker, booked_tick); value: its due tick
    STEP = 7  #: the world's step
    RESET = 8  #: the world's reset
    PUBLISH = 9  #: frame `frame_seq` made visible
    ACCOUNT = 10  #: counters, histograms, job log
    OUTCOME = 11  #: an instant: the job (worker, booked_tick) ended; value: its `Outcome`
    FEATURES = 13  #: an instant: the head's action was chosen with the features of the job (worker, booked_tick)
    INTERVENTION = 14  #: an instant: a person acts at this tick; value: number of the take-over
    COLLECT_GARBAGE = 12  #: Python's garbage collector, run where it disturbs least
    # -- workers
    IDLE = 20  #: no job
    WAIT_FRAME = 21  #: has a job; its frame is not there yet
    READ = 22  #: copying frame `frame_seq` out of the ring
    INFER = 23  #: the policy, padding included
    HOST_TO_DEVICE = 24
    COMPUTE = 25
    DEVICE_TO_HOST = 26
    WRITE = 27  #: the answer into the slot
    # -- supervisor
    DRAIN = 40  #: reading ticks and jobs out of shared memory
    WORKER_DOWN = 41  #: worker taken out; value: its new number of restarts
    WORKER_UP = 42  #: worker ready (again)


class TraceRing:
    """One process's events. One writer (that process), one reader (the supervisor)."""

    def __init__(self, buffer: memoryview, layout: Layout, process: int) -> None:
        self.sequence = SequenceRing.over(buffer, layout.trace_control_at(process), layout.trace_slots)
        self._buffer = buffer
        self._events_at = layout.trace_events_at(process)
        self._num_bytes = TRACE_EVENT.num_bytes
        self._pack = TRACE_EVENT.struct.pack_into
        self._next_seq = self.sequence.newest() + 1

    def format(self) -> None:
        """Initialise an empty ring. Called by the creator of the segment, before any process attaches."""
        self.sequence.format()
        self._next_seq = 0

    def add(
        self,
        kind: int,
        start_ns: int,
        end_ns: int,
        tick: int = -1,
        worker: int = -1,
        booked_tick: int = -1,
        frame_seq: int = -1,
        value: int = 0,
    ) -> None:
        """Writer: one event. Allocates nothing that stays."""
        seq = self._next_seq
        slot = self.sequence.begin(seq)
        self._pack(
            self._buffer,
            self._events_at + slot * self._num_bytes,
            kind,
            start_ns,
            end_ns,
            tick,
            worker,
            booked_tick,
            frame_seq,
            value,
        )
        self.sequence.commit(seq)
        self._next_seq = seq + 1

    def events_from(self, seq: int) -> tuple[bytes, int, int]:
        """Reader: (raw events from `seq` on, number of the next one, events overwritten)."""
        sequence, size = self.sequence, self._num_bytes
        end = sequence.newest() + 1
        lost = max(0, end - seq - sequence.num_slots)
        first = seq + lost
        pieces = [(self._events_at + slot * size, length) for _, slot, length in sequence.pieces(first, end - first)]
        raw = b"".join(bytes(self._buffer[at : at + length * size]) for at, length in pieces)
        overtaken = 0
        while overtaken < end - first and sequence.was_lapped(first + overtaken):
            overtaken += 1
        return raw[overtaken * size :], end, lost + overtaken


class TraceSpool:
    """Collects every process's events into files of a folder: `trace-<process>.events`, a head and `TRACE_EVENT`s."""

    def __init__(self, folder: Path, rings: list[TraceRing]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for stale in folder.glob("trace-*.events"):
            stale.unlink()
        self._rings = rings
        self._paths = [folder / f"trace-{process_name(process)}.events" for process in range(len(rings))]
        self._files: list[BinaryIO | None] = [None] * len(rings)
        # From event 0: the run may have begun before this object was made.
        self._next = [0] * len(rings)
        self.num_events = 0
        self.lost_events = 0

    def collect(self) -> None:
        """Append all new events to the files."""
        for process, ring in enumerate(self._rings):
            if ring.sequence.newest() < self._next[process]:
                continue
            raw, self._next[process], lost = ring.events_from(self._next[process])
            file = self._files[process]
            if file is None:
                file = self._files[process] = self._paths[process].open("wb")
                file.write(spool_head())
            file.write(raw)
            self.num_events += len(raw) // TRACE_EVENT.num_bytes
            self.lost_events += lost

    def close(self) -> None:
        files, self._files = self._files, [None] * len(self._files)
        with ExitStack() as stack:
            for file in files:
                if file is not None:
                    stack.callback(file.close)


def process_name(process: int) -> str:
    """ "env", "supervisor" or "worker3"; the index of a trace ring in words."""
    names = {TRACE_ENV: "env", TRACE_SUPERVISOR: "supervisor"}
    return names.get(process) or f"worker{process - TRACE_FIRST_WORKER}"


def read_spool(folder: Path) -> dict[str, npt.NDArray[Any]]:
    """Events by process name, each an array of `TRACE_EVENT.dtype` in the order in which they were written.

    Files are mapped read-only, not loaded. `ConfigError`: one is of another layout version, or no such file at all.
    """
    return {path.stem.removeprefix("trace-"): _map_events(path) for path in sorted(folder.glob("trace-*.events"))}


def spool_head() -> bytes:
    """The head of a file of events: the layout of the events, so that no other version of rtcore misreads them."""
    return SPOOL_HEAD.pack(SPOOL_MAGIC, LAYOUT_VERSION, TRACE_EVENT.num_bytes)


def _map_events(path: Path) -> npt.NDArray[Any]:
    """The events of one file. A last event that is cut off (its writer was killed) is left out."""
    num_bytes = path.stat().st_size
    if num_bytes == 0:  # its writer was killed before anything reached the file
        return np.empty(0, TRACE_EVENT.dtype)
    with path.open("rb") as file:
        _check_head(path, file.read(SPOOL_HEAD.size))
    count = (num_bytes - SPOOL_HEAD.size) // TRACE_EVENT.num_bytes
    if count == 0:
        return np.empty(0, TRACE_EVENT.dtype)
    return np.memmap(path, TRACE_EVENT.dtype, "r", offset=SPOOL_HEAD.size, shape=(count,))


def _check_head(path: Path, head: bytes) -> None:
    expected = f"layout version {LAYOUT_VERSION} with events of {TRACE_EVENT.num_bytes} bytes"
    if len(head) < SPOOL_HEAD.size:
        raise ConfigError(
            f"{path}: holds {len(head)} bytes, expected a head of {SPOOL_HEAD.size} ({expected}); "
            "nothing can be read from it: remove it"
        )
    magic, version, event_bytes = SPOOL_HEAD.unpack(head)
    if magic != SPOOL_MAGIC:
        raise ConfigError(
            f"{path}: begins with {magic!r}, expected {SPOOL_MAGIC!r} ({expected}); it is no file of events, or of an "
            "rtcore that wrote no head yet: convert it with the rtcore that wrote it (config.json, versions)"
        )
    if not _OLDEST_VERSION <= version <= LAYOUT_VERSION or event_bytes != TRACE_EVENT.num_bytes:
        raise ConfigError(
            f"{path}: layout version {version} with events of {event_bytes} bytes, expected {expected}; "
            "convert it with the rtcore that wrote it (config.json, versions)"
        )
