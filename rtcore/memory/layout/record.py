"""What every struct in shared memory is made of: 8-byte words, each field at an offset of its own."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

CACHE_LINE_BYTES = 64
WORD_BYTES = 8
#: First eight bytes of every segment.
MAGIC = int.from_bytes(b"RTCORE\x00\x01", "little")
LAYOUT_VERSION = 5


def round_up(num_bytes: int, multiple: int = CACHE_LINE_BYTES) -> int:
    return -(-num_bytes // multiple) * multiple


class Record:
    """Named 8-byte fields in the order given: `i8` unless the name is listed in `floats`.

    `writer` says which process writes it, `docs[name]` what a field means (docs/layout.md and the C header are made
    from both). `index[name]` is the field's word (8 bytes) within the record, `struct` packs all fields at once,
    `dtype` is the NumPy description (documentation, bulk reads). `num_bytes` is a multiple of the cache line.
    """

    def __init__(self, name: str, writer: str, docs: dict[str, str], floats: frozenset[str] = frozenset()) -> None:
        self.name = name
        self.writer = writer
        self.docs = docs
        self.floats = floats
        self.fields = fields = tuple(docs)
        self.index = {field: position for position, field in enumerate(fields)}
        self.struct = struct.Struct("<" + "".join("d" if field in floats else "q" for field in fields))
        self.num_bytes = round_up(WORD_BYTES * len(fields))
        self.dtype = np.dtype(
            {
                "names": list(fields),
                "formats": ["<f8" if field in floats else "<i8" for field in fields],
                "offsets": [WORD_BYTES * position for position in range(len(fields))],
                "itemsize": self.num_bytes,
            }
        )

    def dtype_with(self, name: str, extra: np.dtype[Any], itemsize: int) -> np.dtype[Any]:
        """All fields and, behind them, one of dtype `extra`; `itemsize` bytes from one row to the next."""
        fields = list(self.fields)
        formats: list[Any] = ["<f8" if field in self.floats else "<i8" for field in fields]
        offsets = [WORD_BYTES * position for position in range(len(fields))]
        return np.dtype(
            {
                "names": [*fields, name],
                "formats": [*formats, extra],
                "offsets": [*offsets, self.num_bytes],
                "itemsize": itemsize,
            }
        )

    def struct_with(self, num_bytes: int) -> struct.Struct:
        """All fields and, behind them, so many bytes: packed at once."""
        padding = self.num_bytes - self.struct.size
        return struct.Struct(f"{self.struct.format}{padding}x{num_bytes}s")
