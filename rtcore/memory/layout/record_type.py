"""What every struct in shared memory is made of: 8-byte words, each field at an offset of its own."""

from __future__ import annotations

import re
import struct
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

CACHE_LINE_BYTES = 64
WORD_BYTES = 8
#: First eight bytes of every segment.
MAGIC = int.from_bytes(b"RTCORE\x00\x01", "little")
LAYOUT_VERSION = 10

T = TypeVar("T", bound=tuple[Any, ...])

#: A field's name ends in its unit. Without one it is a number, a pid or a value of an enum.
_UNITS = {"ns": "ns", "ticks": "ticks", "bytes": "bytes"}


def round_up(num_bytes: int, multiple: int = CACHE_LINE_BYTES) -> int:
    return -(-num_bytes // multiple) * multiple


class Record(Generic[T]):
    """How a class of named values lies in shared memory. The class is the only description there is of it.

    `kind` is a `NamedTuple`. Its fields `Annotated[int, "what it means"]` (or float) are 8-byte words, in their order;
    fields without a text are not in shared memory. The struct, the NumPy dtype, docs/layout.md and the C header are
    made from it. Filled by keyword (`new`), read by name.

    Attributes:
        kind: The class. Its docstring says what the record is.
        writer: Which process writes it: one.
        name: In words; by default the class's own.
        fields: Names of the words.
        docs: What each of them means.
        floats: Names of those that are IEEE doubles.
        index: The word (8 bytes) within the record.
        num_bytes: Size; a multiple of the cache line.
        struct: Packs all words at once.
        dtype: The NumPy description, for bulk reads.
        new: Makes a `kind`; all by keyword.
    """

    def __init__(self, kind: type[T], *, writer: str, name: str = "") -> None:
        self.kind = kind
        self.writer = writer
        self.name = name or re.sub(r"(?<!^)(?=[A-Z])", " ", kind.__name__).lower()
        hints = get_type_hints(kind, include_extras=True)
        words = {field: get_args(hint) for field, hint in hints.items() if get_origin(hint) is Annotated}
        self.docs: dict[str, str] = {field: meaning for field, (_, meaning) in words.items()}
        self.floats = frozenset(field for field, (type_, _) in words.items() if type_ is float)
        self.fields = fields = tuple(words)
        self.index = {field: position for position, field in enumerate(fields)}
        self.struct = struct.Struct("<" + "".join("d" if field in self.floats else "q" for field in fields))
        self.num_bytes = round_up(WORD_BYTES * len(fields))
        self.dtype = self._dtype({}, self.num_bytes)
        self.new: type[T] = _keyword_constructor(kind)

    def unit(self, field: str) -> str:
        """Of a field, by the end of its name; "" where it has none."""
        return _UNITS.get(field.rpartition("_")[2], "")

    def dtype_with(self, name: str, extra: np.dtype[Any], itemsize: int) -> np.dtype[Any]:
        """All fields and, behind them, one of dtype `extra`; `itemsize` bytes from one row to the next."""
        return self._dtype({name: extra}, itemsize)

    def struct_with(self, *num_bytes: int) -> struct.Struct:
        """All fields and, behind them, strings of so many bytes: packed at once."""
        padding, behind = self.num_bytes - self.struct.size, "".join(f"{length}s" for length in num_bytes)
        return struct.Struct(f"{self.struct.format}{padding}x{behind}")

    def _dtype(self, behind: dict[str, Any], itemsize: int) -> np.dtype[Any]:
        formats: list[Any] = ["<f8" if field in self.floats else "<i8" for field in self.fields]
        return np.dtype(
            {
                "names": [*self.fields, *behind],
                "formats": [*formats, *behind.values()],
                "offsets": [
                    *(WORD_BYTES * position for position in range(len(formats))),
                    *(self.num_bytes for _ in behind),
                ],
                "itemsize": itemsize,
            }
        )


def _keyword_constructor(kind: type[Any]) -> Any:
    """`kind(...)` by keyword in half the time: calling a class puts the keywords into a dict first."""
    fields, defaults = kind._fields, kind._field_defaults
    parameters = ", ".join(f"{field}=_defaults[{field!r}]" if field in defaults else field for field in fields)
    values = "".join(f"{field}, " for field in fields)
    # A field of a NamedTuple never begins with an underscore.
    names = {"_new": tuple.__new__, "_kind": kind, "_defaults": defaults}
    return eval(f"lambda *, {parameters}: _new(_kind, ({values}))", names)
