"""Jobs (env process to worker) and action slots (worker to env process): one writer per record.

A worker holds at most one job. The env process writes the job, `job_seq` last, while the worker is idle; the
worker writes its answer into one of its two entries, `entry_seq` last. Two entries, so that an answer the env
process is still reading is never the one being written, whatever the booking logic does. Platform: x86-64.
"""

from __future__ import annotations

from rtcore.memory.layout import JOB, SLOT_CONTROL, SLOT_ENTRY, JobRecord, Layout, SlotEntry
from rtcore.memory.ring import Words


class JobBoard:
    """One job record per worker, in the control segment. Written by the env process only."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._buffer = buffer
        self._at = [layout.job_at(worker) for worker in range(layout.max_workers)]
        self._seqs: list[Words] = [buffer[at : at + JOB.num_bytes].cast("q") for at in self._at]
        self._unpack = JOB.struct.unpack_from

    def post(self, worker: int, fields: tuple[int, ...]) -> int:
        """Env process: book a job for an idle worker (`JOB` without its number); returns its number."""
        words = self._seqs[worker]
        job_seq = words[0] + 1
        # Word by word: packing the record would clear its number first, and an idle worker looks at any moment.
        for index, value in enumerate(fields, start=1):
            words[index] = value
        words[0] = job_seq  # (W3) pairs with (R3): the job is complete before it is visible
        return job_seq

    def newest(self, worker: int) -> int:
        """Number of the worker's newest job; 0 before the first."""
        return self._seqs[worker][0]  # (R3)

    def read(self, worker: int) -> JobRecord:
        """Worker: its job. Only while it holds one: the env process does not write then."""
        return JobRecord._make(self._unpack(self._buffer, self._at[worker]))


class ActionSlots:
    """Per worker a publication word and two entries. Written by that worker only, read by the env process."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._buffer = buffer
        self._chunk_bytes = layout.chunk * layout.action_bytes
        workers = range(layout.max_workers)
        self._entry_at = [[layout.slot_entry_at(worker, parity) for parity in (0, 1)] for worker in workers]
        self._done: list[Words] = [
            buffer[at : at + SLOT_CONTROL.num_bytes].cast("q") for at in map(layout.slot_control_at, workers)
        ]

    def write(self, worker: int, fields: tuple[int, ...], actions: bytes | memoryview) -> int:
        """Worker: publish an answer (`SLOT_ENTRY` without its number); returns its number."""
        entry_seq = self._done[worker][0] + 1
        at = self._entry_at[worker][entry_seq & 1]
        self._write_entry(at, entry_seq, fields, actions)
        self._done[worker][0] = entry_seq  # (W4) pairs with (R4): the entry is complete before it is visible
        return entry_seq

    def newest(self, worker: int) -> int:
        """Number of the worker's newest whole entry; 0 before the first."""
        return self._done[worker][0]  # (R4)

    def read(self, worker: int, entry_seq: int) -> tuple[SlotEntry, bytes] | None:
        """Env process: entry `entry_seq` and its actions, or None if the worker has written another since."""
        entry, actions = self._read_entry(self._entry_at[worker][entry_seq & 1])
        # (R5) after the copy: the worker reuses this place for entry_seq + 2, which it only starts once
        # entry_seq + 1 is published. One newer is the last moment at which the copy is certainly whole.
        if self._done[worker][0] > entry_seq or entry.entry_seq != entry_seq:
            return None
        return entry, actions

    def _write_entry(self, at: int, entry_seq: int, fields: tuple[int, ...], actions: bytes | memoryview) -> None:
        SLOT_ENTRY.struct.pack_into(self._buffer, at, entry_seq, *fields)
        at += SLOT_ENTRY.num_bytes
        self._buffer[at : at + self._chunk_bytes] = actions

    def _read_entry(self, at: int) -> tuple[SlotEntry, bytes]:
        entry = SlotEntry._make(SLOT_ENTRY.struct.unpack_from(self._buffer, at))
        at += SLOT_ENTRY.num_bytes
        return entry, bytes(self._buffer[at : at + self._chunk_bytes])
