"""The stores of rings, logs and slots in C: over real memory, where the extension was compiled and is wanted."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

from rtcore._tick import compiled
from rtcore.memory.layout import Record

if TYPE_CHECKING:
    from rtcore._tick._compiled import Store


class IndexedWords(Protocol):
    """Eight-byte integers by index: a cast memoryview, the extension's, or whatever a test puts in its place."""

    def __getitem__(self, index: int, /) -> int: ...
    def __setitem__(self, index: int, value: int, /) -> None: ...


def compiled_store(
    record: Record[Any],
    buffer: Any,
    *,
    at: int,
    stride: int,
    num_slots: int,
    done_at: int,
    begun_at: int = -1,
    lead: int | None = None,
    late: Iterable[str] = (),
) -> Store | None:
    """Numbered records of one writer, as `rt_store` of protocol.h has them.

    Args:
        record: What one is. Its first word is its number; or its last, which is then written last.
        buffer: Memory of the segment.
        at: Place of slot 0 in it.
        stride: From one slot to the next.
        num_slots: How many.
        done_at: Place of the word that says which record is whole.
        begun_at: Of the one that says which is being written; -1: nothing says so.
        lead: What a row begins with that is not in memory.
        late: Fields that a staged draft does not have yet.

    Returns:
        The store; None where Python does it itself: without the extension, or over what only looks like memory.
    """
    if compiled is None or not isinstance(buffer, memoryview):
        return None
    num_words = len(record.fields)
    seq_at = 0 if done_at < at or done_at >= at + record.num_bytes else num_words - 1
    doubles, late_words = (sum(1 << record.index[field] for field in fields) for fields in (record.floats, late))
    store: Store = compiled.Store(
        record.kind, lead, num_words, seq_at, doubles, late_words, buffer, at, stride, num_slots, done_at, begun_at
    )
    return store


def ordered_words(buffer: memoryview) -> IndexedWords:
    """8-byte integers by index, for words that say what other memory holds.

    Each access is ordered as x86-64 orders it: no later load comes before a load, no later store before a store. So the
    protocols hold as their Python text says on other machines, too, with the extension.

    Args:
        buffer: (8 * n,) bytes.

    Returns:
        A `Words` of the extension, or the cast buffer.
    """
    if compiled is None or not isinstance(buffer, memoryview):
        return buffer.cast("q")
    words: IndexedWords = compiled.Words(buffer)
    return words
