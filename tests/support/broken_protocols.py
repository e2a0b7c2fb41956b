"""The protocols of shared memory, each with one deliberate fault: what explores their schedules must find it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.loop.resets import ResetOrders
from rtcore.memory import slots
from rtcore.memory.layout import JOB, RING_BEGUN, FrameHeader
from rtcore.memory.master import Commit, MasterState, Step
from rtcore.memory.ring import FrameRing, JobLog, ReadStatus, SequenceRing
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.memory.weights import ParamStore, Version
from rtcore.recording.ring_reader import RingReader
from rtcore.results.run_record import Drain, RunRecord
from rtcore.runtime.player import Player, Seen
from rtcore.scheduling.jobs import Answer, Job

JOB_SEQ = JOB.index["job_seq"]
_Frame = npt.NDArray[Any]


# -- ring and log ------------------------------------------------------------------------------------------------


class CommitBeforeThePayload(FrameRing):
    """(W2) too early."""

    def publish(self, frame: _Frame, header: FrameHeader, action: bytes, kept: bytes = b"") -> int:
        self.sequence.commit(self.next_seq)
        commit = self.sequence.commit
        self.sequence.commit = lambda seq: None  # type: ignore[method-assign]
        seq = super().publish(frame, header, action, kept)
        self.sequence.commit = commit  # type: ignore[method-assign]
        return seq


class BeginAfterThePayload(FrameRing):
    """(W1) too late."""

    def publish(self, frame: _Frame, header: FrameHeader, action: bytes, kept: bytes = b"") -> int:
        sequence, begin, commit = self.sequence, self.sequence.begin, self.sequence.commit

        def begin_and_commit(seq: int) -> None:
            begin(seq)
            commit(seq)

        sequence.begin = lambda seq: seq % sequence.num_slots  # type: ignore[method-assign]
        sequence.commit = begin_and_commit  # type: ignore[method-assign]
        seq = super().publish(frame, header, action, kept)
        del sequence.begin, sequence.commit
        return seq


class FrameCheckedBeforeTheCopy(FrameRing):
    """(R2) before the copy."""

    def read(self, seq: int, out: _Frame) -> ReadStatus:
        lapped = self._status(seq)
        self._status = lambda seq: lapped  # type: ignore[method-assign]
        status = super().read(seq, out)
        del self._status
        return status


class NoCheckAtAll(FrameRing):
    """No (R2)."""

    def _status(self, seq: int) -> ReadStatus:
        return ReadStatus.OK


class NoLookAtWhatIsDone(FrameRing):
    """(R1) left out: whatever is begun is taken for done."""

    def read(self, seq: int, out: _Frame) -> ReadStatus:
        self.sequence.newest = lambda: self.sequence.control[RING_BEGUN]  # type: ignore[method-assign]
        status = super().read(seq, out)
        del self.sequence.newest
        return status


class OffByOneSequence(SequenceRing):
    """(R2) would let a record pass whose place is being written."""

    def was_lapped(self, seq: int) -> bool:
        return self.control[RING_BEGUN] - seq > self.num_slots


class LappedCheckOffByOne(FrameRing):
    """That of a ring."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sequence = OffByOneSequence(self.sequence.control, self.sequence.num_slots)


class LogCheckOffByOne(JobLog):
    """That of a log."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.sequence = OffByOneSequence(self.sequence.control, self.sequence.num_slots)


class KeptAfterTheFrame(FrameRing):
    """The frame is whole, (W2), and what stays with it follows."""

    def publish(self, frame: _Frame, header: FrameHeader, action: bytes, kept: bytes = b"") -> int:
        blocks, self._kept = self._kept, None
        seq = super().publish(frame, header, action)
        self._kept = blocks
        assert blocks is not None
        blocks[seq % self.sequence.num_slots][:] = kept
        return seq


class KeptReadAfterTheCheck(FrameRing):
    """(R2) before the copy."""

    def gather_kept(self, seqs: npt.NDArray[np.int64]) -> _Frame:
        self._told = super().lapped(seqs)
        return super().gather_kept(seqs)

    def lapped(self, seqs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return self._told


class RowsCheckedBeforeTheCopy(FrameRing):
    """(R2) before the copy of many rows at once."""

    def copy_rows(self, first: int, rows: _Frame, frames: _Frame, kept: _Frame | None = None) -> int:
        lapped = self.sequence.control[RING_BEGUN] - self.sequence.num_slots + 1 - first
        super().copy_rows(first, rows, frames, kept)
        return max(0, min(len(rows), lapped))


class KeepsLappedRows(RingReader):
    """Takes what it has copied, whether it was overwritten meanwhile or not."""

    def __init__(self, writer: Any, ring: FrameRing, *rest: Any) -> None:
        super().__init__(writer, ring, *rest)
        copy_rows = ring.copy_rows
        ring.copy_rows = lambda *args: copy_rows(*args) * 0  # type: ignore[method-assign]


class RequestedAfterTheCheck(Drain):
    """A row was found to be whole, and what was asked for is read then: it was so for some hours."""

    def into(self, record: RunRecord) -> None:
        self._ring.is_there = lambda seq: True  # type: ignore[method-assign]
        super().into(record)


# -- slots -------------------------------------------------------------------------------------------------------


class OneEntryOnly(ActionSlots):
    """The next answer is written over the one that may be read."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._entry_at = [[even, even] for even, _ in self._entry_at]


class PublishedBeforeTheEntry(ActionSlots):
    """(W4) too early."""

    def write(self, worker: int, answer: Answer) -> None:
        self._done[worker][0] = answer.entry_seq
        self._pack(self._buffer, self._entry_at[worker][answer.entry_seq & 1], *answer)
        if self._payloads is not None:
            self._payloads[worker][answer.entry_seq & 1][:] = answer.payload


class EntryCheckedBeforeTheCopy(ActionSlots):
    """(R5) before the copy."""

    def read(self, worker: int, entry_seq: int) -> Answer | None:
        if self._done[worker][0] > entry_seq:
            return None
        return self._read_entry(worker, entry_seq)


class CheckOffByOne(ActionSlots):
    """(R5) would let one newer entry pass, when the next may be on its way into the same place."""

    def read(self, worker: int, entry_seq: int) -> Answer | None:
        answer = self._read_entry(worker, entry_seq)
        if self._done[worker][0] > entry_seq + 1 or answer.entry_seq != entry_seq:
            return None
        return answer


class PayloadAfterThePublication(ActionSlots):
    """The entry is published, (W4), and its payload follows."""

    def write(self, worker: int, answer: Answer) -> None:
        payloads, self._payloads = self._payloads, None
        super().write(worker, answer)
        self._payloads = payloads
        assert payloads is not None
        payloads[worker][answer.entry_seq & 1][:] = answer.payload


class PayloadReadAfterTheCheck(ActionSlots):
    """The entry is found to be whole, (R5), and its payload is copied then."""

    def read(self, worker: int, entry_seq: int) -> Answer | None:
        payloads, self._payloads = self._payloads, None
        answer = super().read(worker, entry_seq)
        self._payloads = payloads
        assert payloads is not None
        return answer and answer._replace(payload=bytes(payloads[worker][entry_seq & 1]))


class OnePayloadForBothEntries(ActionSlots):
    """The next answer's payload is written over the one that may be read."""

    def carry(self, memory: memoryview, places: Sequence[tuple[int, int]], payload_bytes: int) -> None:
        super().carry(memory, [(even, even) for even, _ in places], payload_bytes)


class NumberFirst(JobSlots):
    """(W3) before the rest of the job."""

    def post(self, job: Job) -> None:
        words = self._words[job.worker]
        words[JOB_SEQ] = job.job_seq
        for index, value in enumerate(job[1:-2]):
            words[index] = value
        if self._contexts is not None:
            self._contexts[job.worker][:] = job.context


class NumberPackedWithTheRest(JobSlots):
    """Packing clears the record first: for a moment the publication word is 0, which is not what was seen."""

    def post(self, job: Job) -> None:
        record: Any = vars(slots)["JOB"]  # the stepped one, meanwhile
        record.struct.pack_into(self._buffer, self._at[job.worker], *job[1:-2], job.job_seq - 1)
        if self._contexts is not None:
            self._contexts[job.worker][:] = job.context
        self._words[job.worker][JOB_SEQ] = job.job_seq


class ContextAfterTheNumber(JobSlots):
    """The job is visible, (W3), and its context follows."""

    def post(self, job: Job) -> None:
        contexts, self._contexts = self._contexts, None
        super().post(job)
        self._contexts = contexts
        assert contexts is not None
        contexts[job.worker][:] = job.context


# -- weights -----------------------------------------------------------------------------------------------------


class NoSecondLook(ParamStore):
    """Without (R8)."""

    def claim(self, worker: int, generation: int) -> Version:
        found = self.newest()
        self._claims[worker][0] = generation << 3 | found.buffer + 1
        return found


class ClaimsAfterTheSecondLook(ParamStore):
    """(W7) after (R8)."""

    def claim(self, worker: int, generation: int) -> Version:
        while True:
            found = self.newest()
            if self.newest_version() == found.version:
                self._claims[worker][0] = generation << 3 | found.buffer + 1
                return found


class IgnoresClaims(ParamStore):
    """Without (R7)."""

    def _claimed(self) -> set[int]:
        return set()


class LooksBeforeItIsItsTurn(ParamStore):
    """(R7) once, before the buffers of the last publication have changed their roles."""

    def _claimed(self) -> set[int]:
        self.seen: list[set[int]] = getattr(self, "seen", None) or [ParamStore._claimed(self)]
        return self.seen[0]


class CommitBeforeTheSlot(MasterState):
    """(W10) before what it says is written."""

    def apply(self, step: Step, target_every: int) -> Commit:
        before = self.commit
        after = Commit(before.updates + 1, 1 - before.slot, before.target)
        self._commit["commit"] = after.word
        step(self.slots[before.slot], self.slots[after.slot], after.updates)
        if after.updates % target_every == 0:
            after = after._replace(target=1 - before.target)
            self.targets[after.target][:] = self.slots[after.slot].weights
            self._commit["commit"] = after.word
        return after


class UpdatesInPlace(MasterState):
    """Writes the slot that is present."""

    def apply(self, step: Step, target_every: int) -> Commit:
        before = self.commit
        after = before._replace(updates=before.updates + 1)
        step(self.slots[before.slot], self.slots[before.slot], after.updates)
        if after.updates % target_every == 0:
            self.targets[after.target][:] = self.slots[after.slot].weights
        self._commit["commit"] = after.word
        return after


# -- reset orders ------------------------------------------------------------------------------------------------


class SaysSoTooEarly(ResetOrders):
    """`reset_seen` before `reset_frame_seq`."""

    def begin_if_requested(self) -> bool:
        if not self.is_requested or (order := self._order) is None:
            return False
        self._order = None
        self._order_reset(order.seed, {})
        self._status["reset_seen"] = order.reset_seq
        self._status["reset_frame_seq"] = self._ring.next_seq
        return True


class LooksAtTheWordFirst(Player):
    """Lists the jobs after it has read how far the env process is: one of the new episode may be among them."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Seen:
        self._discard_before(None)
        order_seq = self._request_reset(seed, options)
        while True:
            done = self._status["reset_seen"] == order_seq
            outstanding = self._outstanding()
            if done:
                break
            self._discard(outstanding)
            self._pause()
        first_seq = self._status["reset_frame_seq"]
        while not self._has_job_since(first_seq):
            newest = self._ring.sequence.newest()
            if newest >= first_seq and self._is_last(newest) and not self._has_job_since(first_seq):
                return self._read_frame(first_seq, fresh=True)
            self._discard_before(first_seq)
            self._pause()
        return self._read_frame(min(seq for _, _, seq in self._outstanding() if seq >= first_seq), fresh=True)
