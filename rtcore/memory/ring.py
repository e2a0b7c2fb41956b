"""The frame ring and the job log: one writer, any number of readers, readers never block the writer.

A record is numbered from 0 by `seq` and lives in slot `seq % num_slots` until the writer comes round again. A
reader copies first and asks afterwards whether the writer had begun to overwrite what it copied; being lapped
is a counted outcome, not an exception. Memory order: docs/adr/0025-memory-order.md.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.clock import MonotonicClock
from rtcore.memory.layout import (
    FRAME_HEADER,
    LOG_RECORD,
    RING_BEGUN,
    RING_CONTROL,
    RING_DONE,
    WORD_BYTES,
    FrameHeader,
    Layout,
)
from rtcore.memory.layout.record_type import round_up
from rtcore.memory.stores import IndexedWords, compiled_store, ordered_words
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.jobs import JobRow
from rtcore.spaces import Block, ObservationSpec, Part, unpack
from rtcore.spaces.payload import REQUESTED, stamps_in

NONE_YET = -1
#: Some 30 us of copying.
_QUICK_BYTES = 1 << 18
#: At most: where pages are larger, some are touched more than once.
_PAGE_BYTES = 4096
_KIND = FRAME_HEADER.index["kind"]
#: What of a frame's header only the world's step gives: all else can be staged before it.
AFTER_STEP = (
    *("publish_ns", "step_ns", "source", "reward", "terminated", "truncated", "episode_return", "episode_ticks"),
)


class ReadStatus(IntEnum):
    """What came of a read."""

    OK = 0
    NOT_YET = 1  #: the record does not exist yet
    LAPPED = 2  #: the writer overwrote it before or during the copy; the copy is not to be used


#: By their numbers: calling the class takes longer.
_STATUSES = tuple(ReadStatus)
_OK = ReadStatus.OK


class SequenceRing:
    """The protocol alone: who may touch which slot when. It does not depend on what the slots hold."""

    def __init__(self, control: IndexedWords, num_slots: int) -> None:
        if num_slots < 2:
            raise ValueError(f"num_slots={num_slots} must be at least 2: one is being written while others are read")
        self.control = control
        self.num_slots = num_slots

    @classmethod
    def over(cls, buffer: memoryview, at: int, num_slots: int) -> SequenceRing:
        """The ring whose sequence words (`RING_CONTROL`) begin at byte `at` of a buffer."""
        return cls(ordered_words(buffer[at : at + RING_CONTROL.itemsize]), num_slots)

    def format(self) -> None:
        """Empty the ring. By its creator, before anybody attaches."""
        self.control[RING_BEGUN] = NONE_YET
        self.control[RING_DONE] = NONE_YET

    def begin(self, seq: int) -> int:
        """Writer: claim the slot for `seq`. Returns the slot."""
        self.control[RING_BEGUN] = seq  # (W1) pairs with (R2): readers of the old record learn of the overwrite
        return seq % self.num_slots

    def commit(self, seq: int) -> None:
        """Writer: the record is whole."""
        self.control[RING_DONE] = seq  # (W2) pairs with (R1): the record is complete before it is visible

    def newest(self) -> int:
        """Number of the newest whole record; -1 before the first."""
        return self.control[RING_DONE]  # (R1) before the copy

    def was_lapped(self, seq: int) -> bool:
        """Reader: had the writer begun to overwrite `seq`? Ask after the copy, never before."""
        return self.control[RING_BEGUN] - seq >= self.num_slots  # (R2)

    def pieces(self, first: int, count: int) -> Iterator[tuple[int, int, int]]:
        """How records one after the other lie in memory: in two pieces where the ring wraps, else in one.

        Args:
            first: Number of the first record.
            count: How many, at most `num_slots`.

        Yields:
            For each piece: how many records come before it, its first slot, how many records it has.
        """
        done = 0
        while done < count:
            slot = (first + done) % self.num_slots
            length = min(count - done, self.num_slots - slot)
            yield done, slot, length
            done += length

    def resume_at(self, most_lead: int | None = None) -> int:
        """Reader: the number to go on at after it was lapped, or to begin at in a ring that is in use.

        Not the oldest record: the writer would overwrite that at once, and lap the reader again.

        Args:
            most_lead: The most records to leave out after the oldest one; None: an eighth of the ring.

        Returns:
            The number of a record that is not the next to be overwritten; 0 while the ring is not full.
        """
        lead = max(1, self.num_slots // 8)
        if most_lead is not None:
            lead = min(lead, most_lead)
        return max(0, self.newest() + 1 - self.num_slots + lead)


def copy_bytes(target: memoryview, source: memoryview | bytes) -> None:
    """Copy all of `source` to `target`, of the same size. In half the time of `numpy.copyto`, and with less code."""
    target[:] = source


class _SlotViews:
    """What each slot has in a buffer. Made when it is asked for: a replay memory has a hundred thousand of them."""

    def __init__(self, buffer: memoryview, at: int, stride_bytes: int, num_bytes: int) -> None:
        self._buffer = buffer
        self._at, self._stride_bytes, self._num_bytes = at, stride_bytes, num_bytes

    def __getitem__(self, slot: int) -> memoryview:
        at = self._at + slot * self._stride_bytes
        return self._buffer[at : at + self._num_bytes]

    def gather(self, slots: Iterable[int], target: memoryview) -> None:
        """What these have, one after the other."""
        buffer, first, stride, size, done = self._buffer, self._at, self._stride_bytes, self._num_bytes, 0
        for slot in slots:
            at = first + slot * stride
            target[done : done + size] = buffer[at : at + size]
            done += size


class FrameRing:
    """Frames with what was applied at their tick. Also the run's record and its replay memory.

    One writer (the env process), any number of readers. Frames are copied in as the world made them.

    Args:
        buffer: Memory of `layout.ring_bytes`, formatted by its creator.
        layout: Number of slots, and the sizes of a frame and an action.
        frame_shape: Of each frame.
        frame_dtype: Of each frame.
        parts: Of a Dict observation: what `unpack` finds in a frame.

    Examples:
        Three frames through a ring of two slots: the first is overwritten.

        >>> import numpy as np
        >>> from gymnasium.spaces import Box
        >>> from rtcore import FrameRing
        >>> from rtcore.memory.layout import FrameHeader
        >>> from rtcore.spaces import ObservationSpec
        >>> observation = ObservationSpec.from_space(Box(0, 255, (2, 2), np.uint8))
        >>> ring = FrameRing.private(observation, action_bytes=1, ring_slots=2)
        >>> for tick in range(3):
        ...     frame = np.full((2, 2), tick, np.uint8)
        ...     number = ring.publish(frame, FrameHeader(frame_seq=ring.next_seq, tick=tick), b"a")
        >>> copy = np.empty((2, 2), np.uint8)
        >>> status, header = ring.read_with_header(2, copy)
        >>> status.name, header.tick, copy.tolist()
        ('OK', 2, [[2, 2], [2, 2]])
        >>> ring.read(0, copy).name, ring.read(3, copy).name
        ('LAPPED', 'NOT_YET')
    """

    def __init__(
        self,
        buffer: memoryview,
        layout: Layout,
        frame_shape: tuple[int, ...],
        frame_dtype: str,
        parts: tuple[Part, ...] = (),
    ) -> None:
        control_at = layout.ring_control_at
        #: Does the plain case of what is below, in C.
        self._store = compiled_store(
            FRAME_HEADER,
            buffer,
            at=layout.headers_at,
            stride=layout.header_stride_bytes,
            num_slots=layout.ring_slots,
            done_at=control_at + RING_DONE * WORD_BYTES,
            begun_at=control_at + RING_BEGUN * WORD_BYTES,
            late=AFTER_STEP,
        )
        if self._store is not None:
            self.stage = self._store.stage  # type: ignore[assignment,method-assign]
            action_at = layout.headers_at + FRAME_HEADER.num_bytes
            self._store.add_part(
                buffer, layout.frames_at, layout.frame_stride_bytes, layout.frame_bytes, np.dtype(frame_dtype)
            )
            self._store.add_part(buffer, action_at, layout.header_stride_bytes, layout.action_bytes, None)
        self._kept: _SlotViews | None = None
        self._kept_memory, self._kept_stride = memoryview(b""), 0
        #: What stays with the tick beside frame, header and action: a block of `PolicyNeeds.kept`.
        self.kept = Block()
        self._stamps_in = slice(0)
        self.sequence = SequenceRing.over(buffer, layout.ring_control_at, layout.ring_slots)
        self.lapped_reads = 0
        #: When the frame that was spun for last was there [ns].
        self.seen_ns = 0
        #: When the copy of `read_with_header` was whole [ns].
        self.copied_ns = 0
        self._buffer, self._layout = buffer, layout
        self._pack = FRAME_HEADER.struct_with(layout.action_bytes).pack_into
        self._unpack = FRAME_HEADER.struct.unpack_from
        #: Writer: the number the next frame will get.
        self.next_seq = self.sequence.newest() + 1
        self._frame_bytes = layout.frame_bytes
        self._shape, self._dtype, self._parts = frame_shape, np.dtype(frame_dtype), parts
        stride = layout.header_stride_bytes
        self._header_at = range(layout.headers_at, layout.headers_at + layout.ring_slots * stride, stride)
        self._frames = _SlotViews(buffer, layout.frames_at, layout.frame_stride_bytes, layout.frame_bytes)
        self._header_words = buffer[layout.headers_at : layout.frames_at].cast("q")
        self._words_per_header = layout.header_stride_bytes // WORD_BYTES
        self._no_action = bytes(layout.action_bytes)
        #: What `warm` publishes into; made at its first call, as only the writer warms.
        self._practice_ring: FrameRing | None = None
        self._practice_header: Any = None
        self._target: npt.NDArray[Any] | None = None
        self._target_bytes = memoryview(b"")

    @classmethod
    def private(
        cls, observation: ObservationSpec, action_bytes: int, ring_slots: int, kept: Block | None = None
    ) -> FrameRing:
        """An empty ring in memory of this process, for one that writes and reads it alone (the virtual clock).

        Args:
            observation: What a frame is.
            action_bytes: Of one action.
            ring_slots: At least 2.
            kept: What stays with each tick beside them; None: nothing.

        Returns:
            A ring whose memory is taken as it fills.
        """
        layout = Layout(
            max_workers=1,
            ring_slots=ring_slots,
            log_slots=2,
            frame_bytes=observation.nbytes,
            action_bytes=action_bytes,
            chunk=1,
        )
        ring = cls._private(layout, observation.shape, observation.dtype, observation.parts)
        if kept:
            stride = round_up(kept.nbytes)
            ring.keep(kept, memoryview(mmap.mmap(-1, ring_slots * stride)), stride)
        return ring

    @classmethod
    def _private(
        cls, layout: Layout, frame_shape: tuple[int, ...], frame_dtype: str, parts: tuple[Part, ...] = ()
    ) -> FrameRing:
        # Takes memory as it fills: a replay memory may be far larger than a short run.
        buffer = memoryview(mmap.mmap(-1, layout.ring_bytes))
        SequenceRing.over(buffer, layout.ring_control_at, layout.ring_slots).format()
        return cls(buffer, layout, frame_shape, frame_dtype, parts)

    def keep(self, block: Block, memory: memoryview, stride_bytes: int) -> None:
        """From now on a block stays with each tick.

        Args:
            block: What is in one.
            memory: (slots * stride_bytes,): that of slot i at i * stride_bytes.
            stride_bytes: From one to the next.
        """
        self.kept, self._kept = block, _SlotViews(memory, 0, stride_bytes, block.nbytes)
        self._stamps_in = stamps_in(block)
        self._kept_memory, self._kept_stride = memory, stride_bytes
        if self._store is not None:
            self._store.add_part(memory, 0, stride_bytes, block.nbytes, None)

    def empty_frames(self, count: int) -> npt.NDArray[Any]:
        """Uninitialised private memory for `count` frames: (count, *frame_shape)."""
        return np.empty((count, *self._shape), self._dtype)

    def unpack(self, frames: npt.NDArray[Any]) -> Any:
        """Frames as the world's space has them.

        Args:
            frames: (..., *frame_shape).

        Returns:
            `frames` itself; of a Dict world a dict of views of its parts.
        """
        return unpack(self._parts, frames) if self._parts else frames

    def stage(self, header: Any) -> None:
        """Writer, before the world's step: take in all of the next frame's header but `AFTER_STEP`.

        So less is left to do between the step and the frame. Without the extension nothing is done ahead.

        Args:
            header: A draft of it (`scheduling.draft`), which `publish` is given then.
        """

    def publish(self, frame: npt.NDArray[Any], header: Any, action: bytes, kept: bytes = b"") -> int:
        """Writer: copy a frame and its header into the ring. Keeps nothing it allocates.

        Args:
            frame: (*frame_shape,) of its dtype; another is converted.
            header: A `FrameHeader`, or a draft of one, with `frame_seq` = `next_seq`. Of a draft that was staged
                nothing but `AFTER_STEP` is changed since.
            action: What was applied at its tick, `action_bytes` long.
            kept: What stays with it, `self.kept.nbytes` long.

        Returns:
            The frame's number.

        Raises:
            ValueError: The frame has another size, or its header another number.
        """
        if self._store is not None and self._store.publish(frame, header, action, kept):
            self.next_seq += 1
            return self.next_seq - 1
        seq = self.next_seq
        if header.frame_seq != seq:
            raise ValueError(f"frame_seq={header.frame_seq}; expected {seq}, the ring's next_seq")
        # Not `==`: comparing two dtypes costs 10 us with cold caches, and those of plain numbers are single objects.
        if frame.dtype is not self._dtype:
            frame = np.ascontiguousarray(frame, self._dtype)
        try:
            source = frame.data.cast("B")
        except TypeError:  # a strided view
            frame = np.ascontiguousarray(frame)
            source = frame.data.cast("B")
        if frame.nbytes != self._frame_bytes:
            raise ValueError(f"the frame has {frame.nbytes} bytes, expected {self._frame_bytes}: another shape?")
        slot = self.sequence.begin(seq)
        self._pack(self._buffer, self._header_at[slot], *header, action)
        if self._kept is not None:
            copy_bytes(self._kept[slot], kept)
        copy_bytes(self._frames[slot], source)
        self.sequence.commit(seq)
        self.next_seq = seq + 1
        return seq

    @property
    def is_quick_to_copy(self) -> bool:
        """Whether a frame may be copied just to warm the caches: copying a large one takes the time it should save."""
        return self._frame_bytes <= _QUICK_BYTES

    def warm(self) -> None:
        """Writer: bring the code and the memory that the next `publish` needs into the caches, changing nothing.

        A process that sleeps for most of a tick finds its caches cold: 10 us of publishing then take 80. So the slot
        that comes next is read, and published into a private ring: `publish` itself, as any other code would warm only
        what the two have in common. Of a large frame only the pages are touched (`touch`): the copy would take the
        time that this should save.
        """
        if not self.is_quick_to_copy:
            self.touch(self.next_seq)
            return
        if self._practice_ring is None:
            self._practice_ring = self._private(replace(self._layout, ring_slots=2), self._shape, self._dtype.name)
            self._practice_header = draft_of(FrameHeader)
        slot, practice = self.next_seq % self.sequence.num_slots, self._practice_ring
        self._unpack(self._buffer, self._header_at[slot])
        frame = np.frombuffer(self._frames[slot], self._dtype).reshape(self._shape)
        self._practice_header.frame_seq = practice.next_seq
        practice.stage(self._practice_header)
        practice.publish(frame, self._practice_header, self._no_action)

    def touch(self, seq: int) -> None:
        """Writer or reader, before frame `seq`: read a byte of each page of its slot.

        Where a page lies is looked up anew once the process has slept: on a virtual machine some 0.8 us a page, more
        than half of the time that a large frame takes to copy.
        """
        bytes(self._frames[seq % self.sequence.num_slots][::_PAGE_BYTES])

    def read(self, seq: int, out: npt.NDArray[Any]) -> ReadStatus:
        """Reader: copy a frame.

        Args:
            seq: Its number.
            out: (*frame_shape,) of its dtype, C order.

        Returns:
            Whether `out` is whole: OK, NOT_YET or LAPPED.
        """
        if self._store is not None and (status := self._store.read_into(seq, out)) >= 0:
            return self._counted(status)
        if seq > self.sequence.newest() or seq < 0:
            return ReadStatus.NOT_YET
        copy_bytes(self._bytes_of(out), self._frames[seq % self.sequence.num_slots])
        return self._status(seq)

    def read_header(self, seq: int) -> tuple[ReadStatus, FrameHeader | None]:
        """Reader: the header of a frame.

        Args:
            seq: The frame's number.

        Returns:
            Whether it could be read, and the header; None unless OK.
        """
        if self._store is not None:
            number, header = self._store.read(seq)
            return self._counted(number), header
        if seq > self.sequence.newest() or seq < 0:
            return ReadStatus.NOT_YET, None
        header = FrameHeader._make(self._unpack(self._buffer, self._header_at[seq % self.sequence.num_slots]))
        status = self._status(seq)
        return status, header if status is ReadStatus.OK else None

    def read_with_header(
        self, seq: int, out: npt.NDArray[Any], until_ns: int = 0
    ) -> tuple[ReadStatus, FrameHeader | None]:
        """Reader: `read` and `read_header` in one, both of the same frame or neither, as soon as it is there.

        Args:
            seq: The frame's number.
            out: (*frame_shape,) of its dtype, C order.
            until_ns: How long to spin for it, absolute [ns of CLOCK_MONOTONIC]; `seen_ns` is then when it came.

        Returns:
            Whether both could be read, and the header; None unless OK.
        """
        if self._store is not None:
            number, header, self.seen_ns, self.copied_ns = self._store.read_by(seq, out, until_ns)
            if number == _OK:
                return _OK, header
            if number >= 0:
                return self._counted(number), header
        if until_ns:
            newest, now_ns = self.sequence.newest, MonotonicClock.now_ns
            while newest() < seq and now_ns() < until_ns:
                pass
            self.seen_ns = now_ns()
        if seq > self.sequence.newest() or seq < 0:
            return ReadStatus.NOT_YET, None
        slot = seq % self.sequence.num_slots
        copy_bytes(self._bytes_of(out), self._frames[slot])
        header = FrameHeader._make(self._unpack(self._buffer, self._header_at[slot]))
        status = self._status(seq)
        self.copied_ns = MonotonicClock.now_ns()
        return status, header if status is ReadStatus.OK else None

    def read_action(self, seq: int) -> bytes | None:
        """Reader: what was applied at a frame's tick.

        Args:
            seq: The frame's number.

        Returns:
            The action, `action_bytes` long; None if it is not there yet or was overwritten.
        """
        if seq > self.sequence.newest() or seq < 0:
            return None
        at = self._header_at[seq % self.sequence.num_slots] + FRAME_HEADER.num_bytes
        action = bytes(self._buffer[at : at + self._layout.action_bytes])
        return action if self._status(seq) is ReadStatus.OK else None

    def read_requested(self, seq: int) -> bytes | None:
        """Reader: what was asked for at a frame's tick, where another action may have been applied.

        Args:
            seq: The frame's number.

        Returns:
            The action, `action_bytes` long; None if none is kept, it is not there yet or was overwritten.
        """
        if (at := self.kept.offsets.get(REQUESTED)) is None:
            return None
        return self._read_kept(seq, slice(at, at + self._layout.action_bytes))

    def read_stamps(self, seq: int) -> bytes | None:
        """Reader: when the parts of a frame were measured.

        Args:
            seq: The frame's number.

        Returns:
            One int64 [ns of CLOCK_MONOTONIC] for each part that has a time stamp, in their order; b"" where none has.
            None if they are not there yet or were overwritten.
        """
        return self._read_kept(seq, self._stamps_in) if self._stamps_in.stop else b""

    def _read_kept(self, seq: int, part: slice) -> bytes | None:
        """These bytes of what stays with a frame's tick; None if they are not there yet or were overwritten."""
        if self._kept is None or seq > self.sequence.newest() or seq < 0:
            return None
        found = bytes(self._kept[seq % self.sequence.num_slots][part])
        return found if self._status(seq) is ReadStatus.OK else None

    def gather_kept(self, seqs: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Reader: copies of what stays with many ticks, whole or not: see `gather`.

        Args:
            seqs: Numbers of their frames, any shape. All must exist (0 .. newest).

        Returns:
            (*seqs.shape,) of `kept.dtype`.
        """
        if self._kept is not None:
            slots = (seqs.reshape(-1) % self.sequence.num_slots).tolist()
            whole = bytearray().join([bytes(self._kept[slot]) for slot in slots])
            return np.frombuffer(whole, self.kept.dtype).reshape(seqs.shape)
        return np.empty(seqs.shape, self.kept.dtype)

    def kind_of(self, seq: int) -> int:
        """Reader: the `TickKind` of frame `seq`'s tick; anything if it is not there: ask `is_there` afterwards."""
        return self._header_words[seq % self.sequence.num_slots * self._words_per_header + _KIND]

    def is_there(self, seq: int) -> bool:
        """Reader: whether what was copied of `seq`, and of all newer frames, is whole. Ask after the copies."""
        return self._status(seq) is ReadStatus.OK

    def gather(self, seqs: npt.NDArray[np.int64], out: npt.NDArray[Any] | None = None) -> npt.NDArray[Any]:
        """Reader: copies of many frames at once, whole or not: ask `lapped` afterwards which are not to be used.

        Args:
            seqs: Their numbers, any shape. All must exist (0 .. newest).
            out: Memory to use again, (*seqs.shape, *frame_shape), C order. It saves more time than the copying takes,
                as new memory has to be mapped first. None: new memory.

        Returns:
            (*seqs.shape, *frame_shape).

        Raises:
            ValueError: `out` has another shape or dtype.
        """
        shape = (*seqs.shape, *self._shape)
        if out is None:
            out = np.empty(shape, self._dtype)
        elif out.shape != shape or out.dtype != self._dtype:
            raise ValueError(f"out is {out.shape} of {out.dtype}; expected {shape} of {self._dtype}")
        slots = (seqs.reshape(-1) % self.sequence.num_slots).tolist()
        self._frames.gather(slots, out.reshape(-1).data.cast("B"))
        return out

    def newest_frame(self) -> npt.NDArray[Any] | None:
        """Reader, in any thread: a copy of the newest frame; None if there is none yet, or it was lapped meanwhile."""
        seq = self.sequence.newest()
        if seq < 0:
            return None
        frame: npt.NDArray[Any] = self.gather(np.array([seq]))[0]
        return None if self.sequence.was_lapped(seq) else frame

    def row_dtype(self, action: np.dtype[Any]) -> np.dtype[Any]:
        """The dtype of a row of `copy_rows`: the fields of a header and, as `action`, what was applied.

        Args:
            action: dtype (with shape) of one action.

        Returns:
            A structured dtype.
        """
        return FRAME_HEADER.dtype_with("action", action, self._layout.header_stride_bytes)

    def copy_rows(
        self, first: int, rows: npt.NDArray[Any], frames: npt.NDArray[Any], kept: npt.NDArray[Any] | None = None
    ) -> int:
        """Reader: headers, actions and frames one after the other, in few copies.

        Args:
            first: Number of the first frame. All n must exist.
            rows: (n,) of `row_dtype`, C order.
            frames: (n, *frame_shape), C order.
            kept: (n,) of `kept.dtype`, C order; None: not wanted.

        Returns:
            How many of them, from the first on, had begun to be overwritten: those are not to be used, all others are
            whole.
        """
        count, layout = len(rows), self._layout
        headers = self._stored(self._buffer, layout.headers_at, layout.header_stride_bytes)
        stored_frames = self._stored(self._buffer, layout.frames_at, layout.frame_stride_bytes)[:, : layout.frame_bytes]
        moves = [
            (rows.view(np.uint8).reshape(count, layout.header_stride_bytes), headers),
            (frames.reshape(count, -1).view(np.uint8), stored_frames),
        ]
        if kept is not None and self._kept is not None:
            stored = self._stored(self._kept_memory, 0, self._kept_stride)[:, : self.kept.nbytes]
            moves.append((kept.view(np.uint8).reshape(count, self.kept.nbytes), stored))
        for done, slot, length in self.sequence.pieces(first, count):
            for out, stored in moves:
                out[done : done + length] = stored[slot : slot + length]
        return _num_lapped(self.sequence, first, count)

    def _stored(self, memory: memoryview, at: int, stride: int) -> npt.NDArray[np.uint8]:
        """One row of bytes for each slot."""
        slots = self.sequence.num_slots
        return np.frombuffer(memory, np.uint8, slots * stride, at).reshape(slots, stride)

    def lapped(self, seqs: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Reader: which frames the writer had begun to overwrite. Ask after the copies; the caller counts them.

        Args:
            seqs: Their numbers, any shape.

        Returns:
            A bool for each.
        """
        return self.sequence.control[RING_BEGUN] - seqs >= self.sequence.num_slots

    def _bytes_of(self, out: npt.NDArray[Any]) -> memoryview:
        """The memory of `out`. A worker reads into the same array each time: its view is kept."""
        if out is not self._target:
            self._target, self._target_bytes = out, out.data.cast("B")
        return self._target_bytes

    def _status(self, seq: int) -> ReadStatus:
        return self._counted(ReadStatus.LAPPED if self.sequence.was_lapped(seq) else ReadStatus.OK)

    def _counted(self, number: int) -> ReadStatus:
        status = _STATUSES[number]
        if status is ReadStatus.LAPPED:
            self.lapped_reads += 1
        return status


class JobLog:
    """How every job ended, one fixed record each, in the order of the outcomes. One writer (the env process)."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        control_at = layout.ring_control_at
        self.sequence = SequenceRing.over(buffer, control_at, layout.log_slots)
        self._store = compiled_store(
            LOG_RECORD,
            buffer,
            at=layout.log_records_at,
            stride=LOG_RECORD.num_bytes,
            num_slots=layout.log_slots,
            done_at=control_at + RING_DONE * WORD_BYTES,
            begun_at=control_at + RING_BEGUN * WORD_BYTES,
        )
        self._buffer = buffer
        self._records_at = layout.log_records_at
        self._next_seq = self.sequence.newest() + 1

    @property
    def next_seq(self) -> int:
        return self._next_seq

    def copy_rows(self, first: int, rows: npt.NDArray[Any]) -> int:
        """Reader: records `first`, `first` + 1, ..., all of which must exist. `rows`: (n,) of `LOG_RECORD.dtype`.

        Returns how many of them, from `first` on, had begun to be overwritten: those are not to be used.
        """
        stored = np.frombuffer(self._buffer, LOG_RECORD.dtype, self.sequence.num_slots, self._records_at)
        for done, slot, length in self.sequence.pieces(first, len(rows)):
            rows[done : done + length] = stored[slot : slot + length]
        return _num_lapped(self.sequence, first, len(rows))

    def append(self, row: JobRow) -> None:
        """Writer: add a record. `ValueError` if `row.log_seq` is not `next_seq`."""
        if self._store is not None and self._store.write(row):
            self._next_seq += 1
            return
        seq = self._next_seq
        if row.log_seq != seq:
            raise ValueError(f"log_seq={row.log_seq}; expected {seq}, the log's next_seq")
        slot = self.sequence.begin(seq)
        LOG_RECORD.struct.pack_into(self._buffer, self._records_at + slot * LOG_RECORD.num_bytes, *row)
        self.sequence.commit(seq)
        self._next_seq = seq + 1

    def read(self, seq: int) -> tuple[ReadStatus, JobRow | None]:
        """Reader: record `seq`; None if it is not there yet or was overwritten."""
        if self._store is not None:
            number, found = self._store.read(seq)
            return _STATUSES[number], found
        if seq > self.sequence.newest() or seq < 0:
            return ReadStatus.NOT_YET, None
        at = self._records_at + seq % self.sequence.num_slots * LOG_RECORD.num_bytes
        row = JobRow._make(LOG_RECORD.struct.unpack_from(self._buffer, at))
        if self.sequence.was_lapped(seq):
            return ReadStatus.LAPPED, None
        return ReadStatus.OK, row


def _num_lapped(sequence: SequenceRing, first: int, count: int) -> int:
    """How many of `count` records from `first` on the writer had begun to overwrite. Ask after the copies."""
    oldest_whole = sequence.control[RING_BEGUN] - sequence.num_slots + 1  # (R2)
    return max(0, min(count, oldest_whole - first))
