"""Shared memory one access at a time: real protocol code, run by actors that give way before each of them.

An actor is a plain function in a greenlet. Before each access to shared memory it hands control back to whoever drives
it (`explorer`), which then lets any actor go next.

A record is not written at a stroke: `struct.pack_into` clears it, then fills it (CPython does just that), a frame moves
word by word. So the real classes of `rtcore.memory` run unchanged; `stepped_protocols` swaps the record descriptions,
the copying and NumPy's views in their modules for the stepped ones here.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.memory import master, ring, slots, weights

try:
    from greenlet import getcurrent, greenlet
except ModuleNotFoundError as error:
    raise ConfigError("rtcore-torture schedules needs greenlet: pip install 'rtcore[torture]'") from error

WORD_BYTES = 8
#: A record is cleared in one step and then written (or read) in this many.
RECORD_PIECES = 2


class Killed(BaseException):
    """A process that is no more."""


class Actor(greenlet):  # type: ignore[misc]  # it has no types
    """One of the processes.

    Attributes:
        seen: All it knows of shared memory.
        waits_for: What it is blocked by; None: it is not.
        gives_way: It sleeps for a moment, in which others do something.
        lives: It is killed before so many more accesses; below 0: never.
        result: What it returned.
    """

    def __init__(self, body: Callable[[], Any], lives: int = -1) -> None:
        super().__init__(body)
        self.seen: list[Any] = []
        self.waits_for: Callable[[], bool] | None = None
        self.gives_way = False
        self.lives = lives
        self.result: Any = None


def access(action: Callable[[], Any]) -> Any:
    """Do one indivisible access; an actor lets the explorer choose who goes first."""
    me = getcurrent()
    if not isinstance(me, Actor):
        return action()
    me.parent.switch()
    if me.lives == 0:  # nor does what it had still to tidy up
        raise Killed
    me.lives -= 1
    value = action()
    me.seen.append(value)
    return value


def give_way() -> None:
    """Sleep for a moment: whoever else can do something may do it first."""
    me = getcurrent()
    assert isinstance(me, Actor), "only actors sleep"
    me.gives_way = True
    me.parent.switch()
    me.gives_way = False
    me.seen.append("slept")


def live_again() -> None:
    """Who was killed goes on as another process in its place."""
    getcurrent().lives = -1


def wait_until(condition: Callable[[], bool]) -> None:
    """Block the actor until `condition` holds; it may have ceased to hold when the actor goes on."""
    me = getcurrent()
    assert isinstance(me, Actor), "only actors wait"
    me.waits_for = condition
    me.parent.switch()
    me.waits_for = None
    me.seen.append("woke")


class FileLock:
    """`flock`: one holder at a time; its death lets go of it."""

    def __init__(self) -> None:
        self._held = False

    def take(self) -> bool:
        taken, self._held = not self._held, True
        return taken

    def __call__(self, *_: Any) -> FileLock:
        return self

    def __enter__(self) -> bool:
        while not access(self.take):
            wait_until(lambda: not self._held)
        return True

    def __exit__(self, *_: object) -> None:
        self._held = False


class SteppedWords:
    """A `memoryview.cast`: each word is read and written at a stroke, as an aligned 8-byte move is."""

    def __init__(self, raw: memoryview, code: str = "q") -> None:
        self._words: Any = raw.cast(code)  # type: ignore[call-overload]

    def __getitem__(self, index: int) -> int:
        word: int = access(lambda: self._words[index])
        return word

    def __setitem__(self, index: int, value: int) -> None:
        access(lambda: self._words.__setitem__(index, value))


class SteppedBuffer:
    """A memoryview whose slices move word by word."""

    def __init__(self, raw: memoryview) -> None:
        self.raw = raw

    def cast(self, code: str) -> SteppedWords:
        return SteppedWords(self.raw, code)

    def __getitem__(self, part: slice) -> SteppedBuffer:
        return SteppedBuffer(self.raw[part])

    def __setitem__(self, part: slice, data: bytes) -> None:
        target, source = self.raw[part], bytes(data)
        assert len(target) == len(source)
        for at in range(0, len(source), WORD_BYTES):
            store(target, at, source[at : at + WORD_BYTES])

    def __bytes__(self) -> bytes:
        words = range(0, len(self.raw), WORD_BYTES)
        return b"".join([load(self.raw, at, at + WORD_BYTES) for at in words])


def load(source: memoryview, begin: int, end: int) -> bytes:
    data: bytes = access(lambda: bytes(source[begin:end]))
    return data


def store(target: memoryview, at: int, data: bytes) -> None:
    access(lambda: target.__setitem__(slice(at, at + len(data)), data))


class SteppedRecord:
    """A `layout.Record` whose struct clears the record, then moves it in pieces."""

    def __init__(self, record: Any) -> None:
        self.struct = self
        self._record = record
        self._struct = record.struct
        self.size = record.struct.size
        words = record.struct.size // WORD_BYTES
        bounds = [words * piece // RECORD_PIECES * WORD_BYTES for piece in range(RECORD_PIECES + 1)]
        self._pieces = list(pairwise(bounds))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._record, name)

    def struct_with(self, num_bytes: int, *no_bytes: int) -> SteppedStructWithTail:
        return SteppedStructWithTail(self, num_bytes, len(no_bytes))

    def pack_into(self, buffer: SteppedBuffer, at: int, *values: float) -> None:
        store(buffer.raw, at, bytes(self.size))
        self.fill(buffer, at, *values)

    def fill(self, buffer: SteppedBuffer, at: int, *values: float) -> None:
        data = self._struct.pack(*values)
        for begin, end in self._pieces:
            store(buffer.raw, at + begin, data[begin:end])

    def unpack_from(self, buffer: SteppedBuffer, at: int) -> tuple[Any, ...]:
        raw = buffer.raw
        parts = [load(raw, at + begin, at + end) for begin, end in self._pieces]
        values: tuple[Any, ...] = self._struct.unpack(b"".join(parts))
        return values


class SteppedStructWithTail:
    """A record and the bytes behind it: cleared in one step, then moved in the record's pieces and word by word."""

    def __init__(self, record: SteppedRecord, num_bytes: int, num_empty: int) -> None:
        self._record = record
        self._num_empty = num_empty
        self._tail_at = record.num_bytes
        self.size = record.num_bytes + num_bytes

    def pack_into(self, buffer: SteppedBuffer, at: int, *values: Any) -> None:
        *fields, tail = values[: len(values) - self._num_empty]
        store(buffer.raw, at, bytes(self.size))
        self._record.fill(buffer, at, *fields)
        buffer[at + self._tail_at : at + self.size] = tail

    def unpack_from(self, buffer: SteppedBuffer, at: int) -> tuple[Any, ...]:
        tail = bytes(buffer[at + self._tail_at : at + self.size])
        return *self._record.unpack_from(buffer, at), tail, *[b""] * self._num_empty


def stepped_copy(target: memoryview | SteppedBuffer, source: memoryview | SteppedBuffer) -> None:
    """Stands in for `rtcore.memory.ring.copy_bytes`: word by word, whichever side is shared."""
    if isinstance(source, SteppedBuffer):
        for at in range(0, len(source.raw), WORD_BYTES):
            target[at : at + WORD_BYTES] = load(source.raw, at, at + WORD_BYTES)
    else:
        target[:] = source  # type: ignore[assignment]  # a buffer, as bytes are


#: The most steps that a row of an array is copied in.
_ROW_PIECES = 3


class SteppedArray:
    """A NumPy array over shared memory: what is copied out of it or into it moves piece by piece."""

    def __init__(self, array: npt.NDArray[Any]) -> None:
        self._array = array

    def reshape(self, *shape: int) -> SteppedArray:
        return SteppedArray(self._array.reshape(*shape))

    def __getitem__(self, part: Any) -> SteppedArray:
        return SteppedArray(self._array[part])

    def __setitem__(self, part: Any, values: Any) -> None:
        target = self._array[part]
        source = np.empty_like(target)
        source[...] = values
        for to, of in zip(_pieces(target), _pieces(source), strict=True):
            access(partial(_copy, to, of))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        copied = np.empty_like(self._array)
        for to, of in zip(_pieces(copied), _pieces(self._array), strict=True):
            access(partial(_copy, to, of))
        return copied if dtype is None else copied.astype(dtype)

    def copy(self) -> npt.NDArray[Any]:
        return self.__array__()


def _copy(to: npt.NDArray[np.uint8], of: npt.NDArray[np.uint8]) -> bytes:
    """Returns what was copied: of what was read it is what the actor knows."""
    to[...] = of
    return of.tobytes()


def _pieces(array: npt.NDArray[Any]) -> list[npt.NDArray[np.uint8]]:
    """Views of its bytes, row by row, each at a word's begin."""
    rows = array.view(np.uint8).reshape(len(array), -1) if array.ndim > 1 or array.itemsize > WORD_BYTES else array
    found = []
    for row in rows if rows.ndim > 1 else [rows.view(np.uint8)]:
        words = -(-len(row) // WORD_BYTES)
        count = min(_ROW_PIECES, words)
        bounds = [words * piece // count * WORD_BYTES for piece in range(count)] + [len(row)]
        found += [row[begin:end] for begin, end in pairwise(bounds)]
    return found


class _SteppedNumpy:
    """NumPy, whose views of shared memory are stepped."""

    def __getattr__(self, name: str) -> Any:
        return getattr(np, name)

    def frombuffer(self, buffer: Any, *where: Any) -> Any:
        if isinstance(buffer, SteppedBuffer):
            return SteppedArray(np.frombuffer(buffer.raw, *where))
        return np.frombuffer(buffer, *where)


#: What the protocols' modules take from elsewhere, and get from here meanwhile.
_SWAPPED: tuple[tuple[Any, str, Callable[[Any], Any]], ...] = (
    *((module, name, SteppedRecord) for module, name in ((ring, "FRAME_HEADER"), (ring, "LOG_RECORD"))),
    *((slots, name, SteppedRecord) for name in ("JOB", "SLOT_ENTRY")),
    (ring, "copy_bytes", lambda real: stepped_copy),
    (ring, "np", lambda real: _SteppedNumpy()),
    (master, "np", lambda real: _SteppedNumpy()),
    (weights, "checksum_of", lambda real: lambda buffer: zlib.crc32(bytes(buffer))),
)


@contextmanager
def stepped_protocols() -> Iterator[None]:
    """Meanwhile each access to a `SteppedBuffer` is a step, also those of records and arrays over it."""
    before = [(module, name, getattr(module, name)) for module, name, _ in _SWAPPED]
    for module, name, stepped in _SWAPPED:
        setattr(module, name, stepped(getattr(module, name)))
    try:
        yield
    finally:
        for module, name, value in before:
            setattr(module, name, value)
