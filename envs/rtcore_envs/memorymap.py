"""What may be read where in the machine's memory, and the names that a game's author gave to places in it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from rtcore_envs.errors import SymbolFileError
from rtcore_envs.rom import BANK_BYTES, num_ram_banks

#: What PyBoy's memory is indexed with: an address, or a bank and an address.
Key = int | tuple[int, int]

_MAX_SYMBOL_BYTES = 16 * 1024 * 1024
_SYMBOL = re.compile(r"(?:([0-9a-fA-F]{2,4}):)?([0-9a-fA-F]{4})\s+([A-Za-z_][\w.]*)\s*(?:;.*)?")


class Place(NamedTuple):
    """An address, in a bank if it says one."""

    bank: int | None
    address: int

    def __str__(self) -> str:
        return f"0x{self.address:04X}" if self.bank is None else f"{self.bank}:0x{self.address:04X}"


class MemoryMap:
    """Which places there are, for one cartridge in one machine.

    PyBoy answers for places that are none, or reads those of another bank, without an error: whatever would be read
    wrongly is refused here.
    """

    def __init__(self, rom: bytes, *, colour: bool = False, symbols: Mapping[str, Place] | None = None) -> None:
        self.colour = colour
        self.symbols = symbols or {}
        self._num_rom_banks = len(rom) // BANK_BYTES
        self._num_ram_banks = num_ram_banks(rom)

    def key(self, place: Place) -> Key:
        """How PyBoy reads the byte. Raises ValueError, with what is expected, for a place that cannot be read."""
        bank, address = place
        if not 0 <= address <= 0xFFFF:
            raise ValueError("an address from 0x0000 to 0xFFFF")
        if 0xFEA0 <= address < 0xFF00:
            raise ValueError("another address: there is no memory from 0xFEA0 to 0xFEFF")
        if 0xE000 <= address < 0xFE00:
            raise ValueError(f"0x{address - 0x2000:04X}: 0xE000 to 0xFDFF mirrors the memory there")
        banks = self._banks(address)
        if banks is None:
            if bank not in (None, 0, 1 if 0xD000 <= address < 0xE000 else 0):
                raise ValueError(f"no bank: there is one of it at 0x{address:04X}")
            return address
        if not banks:
            raise ValueError(f"another address: this cartridge has no memory at 0x{address:04X}")
        if bank is None:
            if len(banks) > 1:
                raise ValueError(f"a bank, such as {banks[0]}:0x{address:04X}; there are {banks[0]} to {banks[-1]}")
            bank = banks[0]
        if bank not in banks:
            raise ValueError(f"a bank from {banks[0]} to {banks[-1]} at 0x{address:04X}")
        return bank, address

    def ranges(self) -> list[tuple[int | None, int, int]]:
        """Bank, first address, end of everything that a game writes its variables into."""
        work: list[tuple[int | None, int, int]] = [(None, 0xC000, 0xD000 if self.colour else 0xE000)]
        if self.colour:
            work += [(bank, 0xD000, 0xE000) for bank in range(1, 8)]
        cartridge: list[tuple[int | None, int, int]] = [(bank, 0xA000, 0xC000) for bank in range(self._num_ram_banks)]
        return [*work, (None, 0xFF80, 0xFFFF), *cartridge]

    def _banks(self, address: int) -> range | None:
        """The banks at an address; None where it is always the same memory."""
        if address < 0x4000:
            return range(1)
        if address < 0x8000:
            return range(1, self._num_rom_banks)
        if address < 0xA000:
            return range(2) if self.colour else None
        if address < 0xC000:
            return range(self._num_ram_banks)
        if 0xD000 <= address < 0xE000 and self.colour:
            return range(1, 8)
        return None


def read_symbols(path: Path) -> dict[str, Place]:
    """The names in a symbol file as RGBDS, WLA-DX and no$gmb write it: lines of ``BANK:ADDRESS NAME``.

    Raises:
        SymbolFileError: the file cannot be read, or has no such line.
    """
    content = SymbolFileError.read(path, "a symbol file", _MAX_SYMBOL_BYTES)
    found = {}
    for line in content.decode("latin-1").splitlines():
        match = _SYMBOL.fullmatch(line.strip())
        if match is not None:
            bank, address, name = match.groups()
            found[name] = Place(int(bank or "0", 16), int(address, 16))
    if not found:
        raise SymbolFileError(path, "no line of BANK:ADDRESS NAME", "one, as in a .sym file", "Check the path.")
    return found
