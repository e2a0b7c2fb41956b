"""Finding where a game keeps a number: of all values in its memory, those that fit what was seen in some moments."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtcore_envs.errors import SettingError
from rtcore_envs.expressions import ValueType
from rtcore_envs.memorymap import MemoryMap, Place

Comparison = Literal["equals", "above", "below", "increased", "decreased", "changed", "same"]

#: What a number may be kept as. The earlier ones are believed first.
ALL_TYPES = (
    *("u8", "u16", "u16be", "bcd1", "bcd2", "bcd2be", "bcd3", "bcd3be", "bcd4", "bcd4be", "u24", "u24be"),
    *(f"digits{length}{order}" for length in range(2, 9) for order in ("be", "")),
)
#: What is looked at as long as nothing is known but rise and fall: every byte once.
BYTES = ("u8",)


class Clue(NamedTuple):
    """What is known of a moment: how the number compares to `number`, or to what it was in the moment before."""

    how: Comparison
    number: int | None = None

    def holds(self, now: NDArray[np.int64], before: NDArray[np.int64] | None) -> NDArray[np.bool_]:
        """For each place. Raises `SettingError` for a comparison with a moment that is not there."""
        if self.number is not None:
            compare = {"equals": np.equal, "above": np.greater, "below": np.less}[self.how]
            against: Any = self.number
        elif before is None:
            raise SettingError(f"--{self.how}: got it for the first moment, expected a moment before to compare with")
        else:
            compare = {
                "increased": np.greater,
                "decreased": np.less,
                "changed": np.not_equal,
                "same": np.equal,
            }[self.how]
            against = before
        fits: NDArray[np.bool_] = compare(now, against)
        return fits


class FittingValue(NamedTuple):
    """A value that fits: as it is written in an expression, and what it was in each moment."""

    expression: str
    values: tuple[int, ...]


class MemorySnapshot:
    """The game's variables in one moment, about 8 kB to 160 kB."""

    def __init__(self, memory: Any, memory_map: MemoryMap) -> None:
        self.areas: dict[tuple[int | None, int], NDArray[np.uint8]] = {}
        for bank, first, end in memory_map.ranges():
            addresses = range(first, end)
            # Byte by byte where there are banks: PyBoy refuses slices up to the end of one.
            content = memory[first:end] if bank is None else [memory[bank, address] for address in addresses]
            self.areas[bank, first] = np.array(content, np.uint8)


def find(moments: Sequence[tuple[MemorySnapshot, Sequence[Clue]]], types: Sequence[str]) -> list[FittingValue]:
    """What fits every moment, by address. A wider type is left out where a narrower one says the same.

    Raises:
        SettingError: an unknown type, or a comparison of the first moment with one before.
    """
    kinds = []
    for name in types:
        kind = ValueType.of(name)
        if kind is None:
            raise SettingError(f"--type: got {name!r}, expected one of {' '.join(ALL_TYPES)}, or another of that form")
        kinds.append(kind)
    found: list[tuple[int, int, FittingValue]] = []
    said: set[tuple[int | None, int, tuple[int, ...]]] = set()
    for kind in kinds:
        for bank, first in moments[0][0].areas:
            values = [_values(kind, snapshot.areas[bank, first]) for snapshot, _ in moments]
            fits = np.ones(len(values[0][0]), np.bool_)
            before: NDArray[np.int64] | None = None
            for (now, valid), (_, clues) in zip(values, moments, strict=True):
                fits &= valid
                for clue in clues:
                    fits &= clue.holds(now, before)
                before = now
            for offset in np.flatnonzero(fits).tolist():
                lowest = offset + kind.num_bytes - 1 if kind.highest_first else offset
                row = tuple(int(now[offset]) for now, _ in values)
                if (bank, first + lowest, row) in said:
                    continue
                said.add((bank, first + lowest, row))
                place = Place(bank, first + offset)
                found.append((-1 if bank is None else bank, place.address, FittingValue(f"{kind.name}[{place}]", row)))
    return [each for *_, each in sorted(found, key=lambda each: each[:2])]


def _values(kind: ValueType, area: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The value at each place of an area, and whether its bytes can be one of this type."""
    count = max(0, len(area) - kind.num_bytes + 1)
    values, valid = np.zeros(count, np.int64), np.ones(count, np.bool_)
    for position in range(kind.num_bytes):
        byte = area[position : position + count].astype(np.int64)
        power = kind.num_bytes - 1 - position if kind.highest_first else position
        if kind.base == 100:
            valid &= (byte >> 4 < 10) & (byte & 15 < 10)
            byte = 10 * (byte >> 4) + (byte & 15)
        elif kind.base == 10:
            valid &= byte < 10
        values += byte * kind.base**power
    if kind.signed:
        span = 1 << 8 * kind.num_bytes
        values = np.where(values >= span // 2, values - span, values)
    return values, valid
