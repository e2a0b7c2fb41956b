"""The events of a traced run as tables: which belong together, which enclose which.

Read from the files that `trace.TraceSpool` leaves. Nothing here depends on what is made of them (a Perfetto trace, a
table of stages). `windows` reads a run of any length in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.trace import TraceKind, read_spool

Events = npt.NDArray[Any]  #: of `TRACE_EVENT.dtype`, in the order in which they were written
Ints = npt.NDArray[np.int64]

#: What no process writes, because it follows from what they do write.
JOB_SPAN = 100  #: a worker's whole job: from taking it up to its answer
ANNOUNCE = 101  #: within a tick: waking the workers whose frame is out

#: The last event that a process writes about one round of its loop: a cut behind it parts nothing.
_LAST_OF_A_ROUND = (TraceKind.ACCOUNT, TraceKind.WRITE, TraceKind.DRAIN)
_WORKER_BITS = 16
#: Events of the busiest process in one window, and what is read of a file at a time.
_WINDOW_EVENTS = 16_384
_PIECE_EVENTS = 4096
#: A file whose rounds never end (damage) is cut anywhere after so many events.
_MOST_OPEN_EVENTS = 4 * _WINDOW_EVENTS


def map_spool(folder: Path) -> dict[str, Events]:
    """Events by process name ("env", "supervisor", "worker0"), mapped read-only.

    `ConfigError` if there are none, or if they are of another layout version. An event that was only half written when
    its writer was killed is left out.
    """
    found = read_spool(folder)
    if not found:
        raise ConfigError(f"{folder} holds no trace-*.events files: expected the folder of a run with --trace")
    return found


def of_kind(events: Events, kind: TraceKind) -> Events:
    chosen: Events = events[events["kind"] == kind]
    return chosen


def job_keys(events: Events) -> Ints:
    """One number for (worker, booked_tick), which names a job; -1 where an event is about none."""
    worker, booked = events["worker"].astype(np.int64), events["booked_tick"].astype(np.int64)
    return np.where((worker < 0) | (booked < 0), -1, (booked << _WORKER_BITS) + worker + 1)


def find(sorted_keys: Ints, wanted: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """(place of each wanted key, whether it is there at all); the places of missing keys mean nothing."""
    if not len(sorted_keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    places = np.minimum(np.searchsorted(sorted_keys, wanted), len(sorted_keys) - 1)
    return places, sorted_keys[places] == wanted


@dataclass(frozen=True)
class JobLinks:
    """Which frame each job read, when it was due, and which jobs can be followed from frame to tick."""

    flow_keys: Ints  #: jobs that left at least two events to draw an arrow between; sorted
    due_keys: Ints  #: jobs whose booking is known; sorted
    due_ticks: Ints
    frames: Ints  #: frame of each job that read one; sorted
    frame_keys: Ints  #: and that job

    @classmethod
    def of(cls, processes: Mapping[str, Events]) -> JobLinks:
        env = processes.get("env", np.empty(0, TRACE_EVENT.dtype))
        workers = [events for name, events in processes.items() if name.startswith("worker")]
        reads = _joined([of_kind(events, TraceKind.READ) for events in workers])
        published = np.isin(reads["frame_seq"], of_kind(env, TraceKind.PUBLISH)["frame_seq"])
        reads = reads[published & (job_keys(reads) >= 0)]
        order = np.argsort(reads["frame_seq"], kind="stable")
        frames, frame_keys = reads["frame_seq"][order].astype(np.int64), job_keys(reads)[order]
        kinds = (TraceKind.READ, TraceKind.INFER, TraceKind.WRITE)
        ends = [job_keys(of_kind(events, kind)) for events in workers for kind in kinds]
        ends += [job_keys(first_uses(env)), job_keys(of_kind(env, TraceKind.FEATURES))]
        keys, counts = np.unique(np.concatenate([frame_keys, *ends]), return_counts=True)
        jobs = of_kind(env, TraceKind.JOB)
        due_keys = job_keys(jobs)
        due_order = np.argsort(due_keys, kind="stable")
        return cls(
            flow_keys=keys[(counts >= 2) & (keys >= 0)],
            due_keys=due_keys[due_order],
            due_ticks=jobs["value"][due_order].astype(np.int64),
            frames=frames,
            frame_keys=frame_keys,
        )

    def due_of(self, events: Events) -> Ints:
        """Due tick of the job each event is about; -1 where it is not known."""
        places, found = find(self.due_keys, job_keys(events))
        return np.where(found, self.due_ticks[places], -1) if len(self.due_ticks) else np.full(len(events), -1)

    def flow_of(self, events: Events) -> Ints:
        """Number of the flow through each event; 0: none."""
        keys = job_keys(events)
        _, found = find(self.flow_keys, keys)
        takes_part = np.isin(events["kind"], (TraceKind.READ, TraceKind.INFER, TraceKind.WRITE, TraceKind.FEATURES))
        takes_part |= (events["kind"] == TraceKind.DISPATCH) & (events["value"] == 1)
        return np.where(found & takes_part, keys, 0)

    def flows_of_frame(self, frame_seq: int) -> list[int]:
        """Numbers of the flows that begin with a frame: of the jobs that read it."""
        first, last = np.searchsorted(self.frames, (frame_seq, frame_seq + 1))
        flows: list[int] = self.frame_keys[first:last].tolist()
        return flows


def first_uses(env: Events) -> Events:
    """DISPATCH events that applied an action for the first time."""
    dispatches = of_kind(env, TraceKind.DISPATCH)
    chosen: Events = dispatches[(dispatches["worker"] >= 0) & (dispatches["value"] == 1)]
    return chosen


def _joined(parts: list[Events]) -> Events:
    return np.concatenate(parts) if parts else np.empty(0, TRACE_EVENT.dtype)


def windows(
    processes: Mapping[str, Events], window_events: int = _WINDOW_EVENTS
) -> Iterator[tuple[dict[str, Events], JobLinks]]:
    """The events of all processes, a stretch of time after another, and the links of the jobs in it.

    Each event comes once, in the order of its process; no tick and no job of a process is parted. Links are made from
    the stretch itself, the one before and the one behind, and the last booking of each worker: a job that takes longer
    than a stretch (seconds at 1 kHz, minutes at 60 Hz) keeps its due tick, and may lose the arrow from its frame.
    """
    longest = max(processes.values(), key=len)
    starts_ns = [_piece(longest, at, 1)["start_ns"][0] for at in range(window_events, len(longest), window_events)]
    limits = [*np.maximum.accumulate(np.array(starts_ns, np.int64)).tolist(), None]
    readers = {name: _Reader(events) for name, events in processes.items()}
    none = dict.fromkeys(processes, np.empty(0, TRACE_EVENT.dtype))
    booked = none["env"] if "env" in none else np.empty(0, TRACE_EVENT.dtype)
    before, now = none, {name: reader.until(limits[0]) for name, reader in readers.items()}
    for limit in (*limits[1:], ...):
        after = none if limit is ... else {name: reader.until(limit) for name, reader in readers.items()}
        around = {name: _joined([before[name], now[name], after[name]]) for name in processes}
        if "env" in around:
            around["env"] = _joined([booked, around["env"]])
            booked = _last_bookings(_joined([booked, before["env"]]))
        yield now, JobLinks.of(around)
        before, now = now, after


class _Reader:
    """Reads the events of one process from their file, piece by piece: what is mapped would count as memory."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._next = 0
        self._open = np.empty(0, TRACE_EVENT.dtype)

    def until(self, limit_ns: int | None) -> Events:
        """Whole rounds, up to the first event that began at `limit_ns` or later; None: all that are left."""
        while self._next < len(self._events) and (
            limit_ns is None or not len(self._open) or self._open["start_ns"][-1] < limit_ns
        ):
            piece = _piece(self._events, self._next, _PIECE_EVENTS)
            self._next += len(piece)
            self._open = _joined([self._open, piece])
        end = len(self._open)
        if limit_ns is not None:
            later = np.flatnonzero(self._open["start_ns"] >= limit_ns)
            end = int(later[0]) if len(later) else end
            ends = np.flatnonzero(np.isin(self._open["kind"][:end], _LAST_OF_A_ROUND))
            end = int(ends[-1]) + 1 if len(ends) else end if len(self._open) > _MOST_OPEN_EVENTS else 0
        taken, self._open = self._open[:end], self._open[end:].copy()
        return taken


def _piece(events: Events, first: int, count: int) -> Events:
    """Events `first` to `first + count - 1`, as far as there are any: read from their file, not mapped."""
    count = min(count, len(events) - first)
    if not isinstance(events, np.memmap) or events.filename is None:
        return events[first : first + count]
    return np.fromfile(events.filename, events.dtype, count, offset=events.offset + first * events.itemsize)


def _last_bookings(env: Events) -> Events:
    """The newest JOB event of each worker."""
    jobs = of_kind(env, TraceKind.JOB)[::-1]
    _, newest = np.unique(jobs["worker"], return_index=True)
    return jobs[newest]


def with_spans(block: Events) -> Events:
    """The block with what follows from it: JOB_SPAN around a job's events, ANNOUNCE within a tick, and each TICK
    lasting until its ACCOUNT, which is written after the tick's own end was stamped.
    """
    block = block.copy()
    tick_at, account_at = _pairs(block, TraceKind.TICK, TraceKind.ACCOUNT, "tick")
    announces = block[account_at].copy()
    announces["kind"] = ANNOUNCE
    announces["end_ns"] = block["end_ns"][tick_at]
    block["start_ns"][account_at] = np.maximum(block["start_ns"][account_at], block["end_ns"][tick_at])
    block["end_ns"][tick_at] = np.maximum(block["end_ns"][tick_at], block["end_ns"][account_at])
    took_up_at, write_at = _pairs(block, TraceKind.WAIT_FRAME, TraceKind.WRITE, "booked_tick")
    jobs = block[took_up_at].copy()
    jobs["kind"] = JOB_SPAN
    jobs["end_ns"] = block["end_ns"][write_at]
    places = np.concatenate([account_at, took_up_at])
    return np.insert(block, places, np.concatenate([announces, jobs]))


def _pairs(block: Events, opening: TraceKind, closing: TraceKind, field: str) -> tuple[Ints, Ints]:
    """Positions of each `opening` event and of the `closing` one of the same round; those that have both."""
    (openings,) = np.nonzero(block["kind"] == opening)
    (closings,) = np.nonzero(block["kind"] == closing)
    following = np.searchsorted(closings, openings)
    openings, following = openings[following < len(closings)], following[following < len(closings)]
    closings = closings[following]
    same = block[field][openings] == block[field][closings]
    return openings[same], closings[same]
