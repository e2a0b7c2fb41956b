"""The parameter store: versioned weights in shared memory, one copy for all workers.

Three buffers, laid out by a `ParamManifest`. `newest` names one of them. A worker claims the newest buffer before an
inference and lets it go after it; a publisher writes a buffer that is neither newest nor claimed, then makes it
newest. Workers take no lock and never wait. Publishers take turns under `flock`, which the kernel frees when its
holder dies: one that dies while it writes leaves `newest` as it was, and the buffer is written again by the next.
The claim of a worker that has died is void (`gone`: WORKER_CONTROL.gone_generation).

Claiming needs more than that stores and loads keep their order: the worker stores its claim and
then loads `newest`, the publisher stores `newest` and then loads the claims, and x86-64 may let such a load pass the
store before it (both would then miss each other). `full_fence` forbids that. Which accesses belong together is
lettered below. Large copies may use weakly ordered stores, so a fence also stands on both sides of the writing.

Works over any memory: a segment of a run, or `ParamStore.private` for the virtual clock and tests.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from rtcore.clock import NS_PER_MS, NS_PER_S, Clock, MonotonicClock
from rtcore.errors import PolicyError, SharedMemoryError
from rtcore.memory.counters import Words
from rtcore.memory.futex import full_fence
from rtcore.memory.layout import (
    PARAM_BUFFER,
    PARAM_BUFFER_BITS,
    PARAM_CLAIM,
    PARAM_COUNTS,
    PARAM_NEWEST,
    PARAM_SIZES,
    SEGMENT_HEADER,
    WORKER_CONTROL,
    Layout,
    ParamLayout,
    Record,
)
from rtcore.memory.segments import Segment, attach_segment, create_segment, segment_path
from rtcore.memory.segments import layout_of as layout_of_run
from rtcore.memory.stores import IndexedWords, ordered_words
from rtcore.memory.tensors import ParamManifest, ParamTensor

__all__ = ["NONE", "ParamManifest", "ParamStore", "ParamTensor", "Version"]

_BUFFER_MASK = (1 << PARAM_BUFFER_BITS) - 1
_BEING_WRITTEN = -1
_VERSION, _CHECKSUM, _UPDATES = (PARAM_BUFFER.index[name] for name in ("version", "checksum", "updates"))
_WAITS, _SKIPPED, _PID, _PUBLISHED_NS = (
    PARAM_COUNTS.index[name] for name in ("waits", "skipped", "publisher_pid", "published_ns")
)
#: How often a publisher looks again whether a buffer has become free.
_POLL_NS = NS_PER_MS
#: How long a publisher waits by default.
WAIT_NS = 2 * NS_PER_S
#: The segment of a run's weights.
PARAMS = "params"


class Version(NamedTuple):
    """Published weights: their number, the buffer they are in, its CRC-32, and the learners' updates behind them."""

    version: int
    buffer: int
    checksum: int
    updates: int


#: Nothing published yet.
NONE = Version(0, 0, 0, 0)


def checksum_of(buffer: memoryview) -> int:
    """CRC-32 of a whole buffer: about 1 ns a byte, without the GIL."""
    return zlib.crc32(buffer)


class ParamStore:
    """Buffers of weights with versions. One object per process that uses them.

    Args:
        memory: Of `layout.num_bytes`.
        layout: Where everything is.
        fd: Of the segment, opened by this process alone: publishers lock it, and reserve a buffer's memory before its
            first use. None: private memory, whose publishers are threads of one process.
        gone: Gives the newest generation of a worker whose process is known to have ended.
        clock: What a publisher that waits reads and sleeps by; the machine's by default.
        keep: Segments that are closed with the store.

    Examples:
        A network of four numbers, published twice and claimed by a worker in between.

        >>> import numpy as np
        >>> from rtcore.memory.weights import ParamManifest, ParamStore, ParamTensor
        >>> tensor = ParamTensor(("w",), (4,), (1,), "float32", "parameter", trainable=True)
        >>> store = ParamStore.private(ParamManifest.of([tensor]), max_workers=1)
        >>> def ones(buffer):
        ...     store.manifest().write(buffer, {"w": np.ones(4, np.float32)})
        >>> store.publish(ones).version
        1
        >>> held = store.claim(worker=0, generation=1)
        >>> store.publish(ones, updates=10).version  # into another buffer: that one is in use
        2
        >>> store.manifest().arrays(store.buffer(held.buffer))["w"].tolist(), store.is_intact(held)
        ([1.0, 1.0, 1.0, 1.0], True)
        >>> store.release(worker=0)
        >>> store.newest_version()
        2
        >>> store.close()
    """

    def __init__(
        self,
        memory: memoryview,
        layout: ParamLayout,
        *,
        fd: int | None = None,
        gone: Callable[[int], int] = lambda worker: 0,
        clock: Clock | None = None,
        keep: tuple[Segment, ...] = (),
    ) -> None:
        self._segments = keep
        self.layout = layout
        # A view of its own: threads that read when the segment is closed can go on, and release the memory at last.
        self._memory = memory[:]
        self._is_closed = False
        self._fd = fd
        self._gone = gone
        self._clock = clock or MonotonicClock()

        def words(record: Record[Any], at: int) -> IndexedWords:
            return ordered_words(memory[at : at + record.num_bytes])

        self._newest = words(PARAM_NEWEST, layout.newest_at)
        self._counts = words(PARAM_COUNTS, layout.counts_at)
        self._heads = [words(PARAM_BUFFER, layout.head_at(buffer)) for buffer in range(layout.num_buffers)]
        self._claims = [words(PARAM_CLAIM, layout.claim_at(place)) for place in range(layout.num_claims)]
        self._reserved: set[int] = {0}
        self._turn = threading.Lock()
        self._skips_to_book = 0
        self._manifest: ParamManifest | None = None

    @classmethod
    def private(cls, manifest: ParamManifest, max_workers: int = 1, clock: Clock | None = None) -> ParamStore:
        """A store in memory of this process, with its manifest in it. Buffers take memory from their first use.

        Args:
            manifest: Where each tensor lies in a buffer.
            max_workers: Places for claims.
            clock: What a publisher that waits reads and sleeps by; the machine's by default.

        Returns:
            A store without a version.
        """
        layout = layout_of(manifest, max_workers)
        store = cls(memoryview(mmap.mmap(-1, layout.num_bytes)), layout, clock=clock)
        store.set_manifest(manifest)
        return store

    def close(self) -> None:
        """Waits for a publication of this process that is under way. Nothing is published afterwards."""
        with self._turn:
            self._is_closed = True
            if self._fd is not None:
                os.close(self._fd)
            self._fd = None
        for segment in self._segments:
            segment.close()

    # -- workers -------------------------------------------------------------------------------------------

    def claim(self, worker: int, generation: int) -> Version:
        """Worker or holder: hold the newest weights. Waits for nobody; tries again only if a new version came.

        Args:
            worker: Its index: the place of its claim, which nobody else writes.
            generation: Of its process, from 1: the claim of one that has ended is void.

        Returns:
            What is held until `release`.

        Raises:
            PolicyError: Nothing was ever published.
        """
        newest, claim, stamp = self._newest, self._claims[worker], generation << PARAM_BUFFER_BITS
        while word := newest[0]:  # (R6) before the buffer is read
            buffer = word & _BUFFER_MASK
            claim[0] = stamp | (buffer + 1)  # (W7) pairs with (R7): seen by who looks for a buffer from now on
            full_fence()
            if newest[0] == word:  # (R8) after the claim: had the buffer been replaced before, it might be written
                head = self._heads[buffer]
                return Version(word >> PARAM_BUFFER_BITS, buffer, head[_CHECKSUM], head[_UPDATES])
        raise PolicyError("no weights have been published yet; expected version 1, which worker 0 writes at its start")

    def release(self, worker: int) -> None:
        """Worker: the buffer may be written again."""
        self._claims[worker][0] = 0

    def is_intact(self, claimed: Version) -> bool:
        """Worker, after the inference and before `release`: whether the weights stayed what was claimed."""
        return self._heads[claimed.buffer][_VERSION] == claimed.version  # (R9) after the last read of the weights

    # -- everybody -----------------------------------------------------------------------------------------

    def newest(self) -> Version:
        """The newest version, or `NONE`. Its checksum and updates may be a newer one's, if that comes meanwhile."""
        word = self._newest[0]
        if word == 0:
            return NONE
        head = self._heads[word & _BUFFER_MASK]
        return Version(word >> PARAM_BUFFER_BITS, word & _BUFFER_MASK, head[_CHECKSUM], head[_UPDATES])

    def newest_version(self) -> int:
        """Number of the newest version; 0: none."""
        return self._newest[0] >> PARAM_BUFFER_BITS

    def buffer(self, index: int) -> memoryview:
        """A buffer's bytes (buffer_bytes,): to be read while it is claimed."""
        at = self.layout.buffer_at(index)
        return self._memory[at : at + self.layout.buffer_bytes]

    def counts(self) -> dict[str, int]:
        """What publishers counted: fields of `layout.PARAM_COUNTS`."""
        return {field: self._counts[index] for field, index in PARAM_COUNTS.index.items()}

    def snapshot(self, worker: int, generation: int, use: Callable[[memoryview], Any]) -> Version:
        """Call a function with the newest weights while they are claimed, such as to save them.

        Args:
            worker: Whose place the claim takes.
            generation: Of that worker's process.
            use: Gets the buffer, (buffer_bytes,) uint8.

        Returns:
            The version that it got.
        """
        claimed = self.claim(worker, generation)
        try:
            use(self.buffer(claimed.buffer))
        finally:
            self.release(worker)
        return claimed

    def set_manifest(self, manifest: ParamManifest) -> None:
        """Worker 0, before version 1: say where each tensor is."""
        layout = self.layout
        text = manifest.to_json().encode()
        if (len(text), manifest.buffer_bytes, manifest.trainable_bytes) != (
            layout.manifest_bytes,
            layout.buffer_bytes,
            layout.trainable_bytes,
        ):
            raise PolicyError(
                f"the manifest has {len(text)} bytes for {manifest.buffer_bytes} bytes of weights; expected "
                f"{layout.manifest_bytes} for {layout.buffer_bytes}, as the store was made. This is a fault of rtcore"
            )
        self._memory[layout.manifest_at : layout.manifest_at + len(text)] = text

    def manifest(self) -> ParamManifest:
        """Where each tensor is. Only once version 1 is there."""
        if self._manifest is None:
            at = self.layout.manifest_at
            text = bytes(self._memory[at : at + self.layout.manifest_bytes]).decode()
            self._manifest = ParamManifest.from_json(text)
        return self._manifest

    # -- publishers ----------------------------------------------------------------------------------------

    def publish(
        self, write: Callable[[memoryview], None], *, updates: int = 0, wait_ns: int = WAIT_NS
    ) -> Version | None:
        """Fill a free buffer and make it newest. Any thread, any process of the run.

        Args:
            write: Gets the buffer, (buffer_bytes,) uint8, writable, with everything but the trainable region as in the
                newest version. It fills what is to change, at least the trainable region (what is in it there is
                old). What it raises is passed on; the newest version stays.
            updates: Of the trainer, for the record.
            wait_ns: How long to wait for a buffer that nobody uses [ns].

        Returns:
            The version that it has become. None if no buffer became free, or another publisher did not finish (counted
            as skipped), and None of a store that was closed.

        Raises:
            SharedMemoryError: There is no memory for it.
        """

        def fill(buffer: int, newest: Version) -> Version:
            target, rest = self.buffer(buffer), self.layout.trainable_bytes
            if newest.version and rest < self.layout.buffer_bytes:
                target[rest:] = self.buffer(newest.buffer)[rest:]
            write(target)
            return Version(newest.version + 1, buffer, checksum_of(target), updates)

        return self._publish(fill, wait_ns)

    def take_over(self, bring: Callable[[int], Version], *, wait_ns: int = WAIT_NS) -> Version | None:
        """Publish what is in another store. For buffers that lie elsewhere, in a GPU's memory.

        Args:
            bring: Fills the buffer of that index from the other store and returns the version it has filled in, which
                must be newer than the newest here. It keeps its number and checksum.
            wait_ns: How long to wait for a buffer that nobody uses [ns].

        Returns:
            That version; None as of `publish`.
        """
        return self._publish(lambda buffer, newest: bring(buffer)._replace(buffer=buffer), wait_ns)

    def _publish(self, fill: Callable[[int, Version], Version], wait_ns: int) -> Version | None:
        """`fill(buffer, newest)` fills a buffer that nobody uses; what it returns becomes newest."""
        give_up_ns = self._clock.now_ns() + wait_ns
        with self._my_turn(give_up_ns) as mine:
            if not mine:
                self._skips_to_book += 1  # the count belongs to whose turn it is
                return None
            newest = self.newest()
            buffer = self._find_free(newest, give_up_ns)
            skips, self._skips_to_book = self._skips_to_book + (buffer < 0), 0
            if skips:
                self._counts[_SKIPPED] += skips
            if buffer < 0:
                return None
            self._reserve(buffer)
            return self._fill(buffer, newest, fill)

    def _fill(self, buffer: int, newest: Version, fill: Callable[[int, Version], Version]) -> Version:
        head = self._heads[buffer]
        head[_VERSION] = _BEING_WRITTEN  # (W9) pairs with (R9): a reader of the old weights learns of the overwrite
        full_fence()
        filled = fill(buffer, newest)
        head[_CHECKSUM] = filled.checksum
        head[_UPDATES] = filled.updates
        head[_VERSION] = filled.version
        self._counts[_PID] = os.getpid()
        self._counts[_PUBLISHED_NS] = self._clock.now_ns()
        full_fence()
        # (W6) pairs with (R6): the weights are complete before they are newest; and with (R8): a worker that claimed
        # the buffer that was newest before either is seen at (R7) or learns here that it was too late
        self._newest[0] = filled.version << PARAM_BUFFER_BITS | buffer
        return filled

    def _find_free(self, newest: Version, give_up_ns: int) -> int:
        """A buffer that is neither newest nor in use, or -1. A worker's claim ends with its inference or its life."""
        candidates = [
            buffer for buffer in range(self.layout.num_buffers) if buffer != newest.buffer or not newest.version
        ]
        has_waited = False
        while True:
            full_fence()
            claimed = self._claimed()  # (R7) after `newest` was last stored, by whomever
            free = next((buffer for buffer in candidates if buffer not in claimed), -1)
            if free >= 0 or self._clock.now_ns() >= give_up_ns:
                return free
            if not has_waited:
                self._counts[_WAITS] += 1
                has_waited = True
            self._clock.sleep_until_ns(self._clock.now_ns() + _POLL_NS)

    def _claimed(self) -> set[int]:
        """Buffers in use by workers that are not known to be dead, and by holders (see `HolderProcesses`)."""
        found = set()
        for place, claim in enumerate(self._claims):
            using = claim[0]
            gone = self._gone(place) if place < self.layout.max_workers else 0
            if using and using >> PARAM_BUFFER_BITS > gone:
                found.add((using & _BUFFER_MASK) - 1)
        return found

    def reserve(self) -> None:
        """Memory for every buffer: who is going to publish learns here that there is none. SharedMemoryError."""
        for buffer in range(self.layout.num_buffers):
            self._reserve(buffer)

    def _reserve(self, buffer: int) -> None:
        """Memory for a buffer before its first use: a full /dev/shm is an error here, not SIGBUS."""
        if self._fd is None or buffer in self._reserved:
            return
        size = self.layout.buffer_bytes
        try:
            os.posix_fallocate(self._fd, self.layout.buffer_at(buffer), size)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise SharedMemoryError(
                f"no room in /dev/shm to publish weights: another {size / 1e6:.1f} MB are needed. Nothing was "
                "published; remove stale segments, or enlarge it (mount -o remount,size=2G /dev/shm)"
            ) from error
        self._reserved.add(buffer)

    @contextmanager
    def _my_turn(self, give_up_ns: int) -> Iterator[bool]:
        """One publisher at a time. False if it did not come to that. Nothing here outlives a process that dies."""
        left_ns = give_up_ns - self._clock.now_ns()
        if not self._turn.acquire(timeout=max(0, left_ns) / NS_PER_S):
            yield False
            return
        try:
            mine = not self._is_closed and (self._fd is None or self._lock_file(self._fd, give_up_ns))
            try:
                yield mine
            finally:
                if self._fd is not None and mine:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
        finally:
            self._turn.release()

    def _lock_file(self, fd: int, give_up_ns: int) -> bool:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                if self._clock.now_ns() >= give_up_ns:
                    return False
                self._clock.sleep_until_ns(self._clock.now_ns() + _POLL_NS)


def layout_of(manifest: ParamManifest, max_workers: int, num_holders: int = 0) -> ParamLayout:
    """The store that a network of this manifest needs."""
    manifest_bytes = len(manifest.to_json().encode())
    sizes = (manifest_bytes, manifest.buffer_bytes, manifest.trainable_bytes)
    return ParamLayout(max_workers, *sizes, num_holders=num_holders)


def create_store(run_id: str, layout: Layout, sizes: dict[str, int], part: str = PARAMS) -> None:
    """Supervisor: make the segment of a parameter store. `sizes`: fields of `ParamLayout`, from worker 0.

    `part`: a run has one, and one more per weight holder, whose buffers are not in it.
    Memory is reserved for one buffer; the others take theirs at the first publications. SharedMemoryError if there is
    no room.
    """
    params = ParamLayout(max_workers=layout.max_workers, **sizes)

    def prepare(memory: memoryview) -> None:
        words = Words(PARAM_SIZES, memory, params.sizes_at)
        for field, size in params.sizes.items():
            words[field] = size

    create_segment(
        run_id, part, layout, prepare, num_bytes=params.num_bytes, reserved_bytes=params.buffer_at(1)
    ).close()


def attach_store(run_id: str, part: str = PARAMS, *, readonly: bool = False) -> ParamStore:
    """Anybody in a run, or an onlooker (`readonly`): its parameter store.

    `part`: see `create_store`. Into a weight holder's store that holder alone publishes: it needs no lock.
    LayoutMismatchError if the run has none, or is another rtcore's.
    """
    control = attach_segment(run_id, "control", readonly=readonly)
    layout = layout_of_run(control)
    segment = attach_segment(run_id, part, populate=False, readonly=readonly)
    sizes = Words(PARAM_SIZES, segment.buf, SEGMENT_HEADER.num_bytes).to_dict()
    gone = [Words(WORKER_CONTROL, control.buf, layout.worker_control_at(w)) for w in range(layout.max_workers)]
    is_locked = part == PARAMS and not readonly
    fd = os.open(segment_path(run_id, part), os.O_RDWR | os.O_CLOEXEC) if is_locked else None
    return ParamStore(
        segment.buf,
        ParamLayout(max_workers=layout.max_workers, **sizes),
        fd=fd,
        gone=lambda worker: gone[worker]["gone_generation"],
        keep=(control, segment),
    )
