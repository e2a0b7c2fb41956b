"""What a Game Boy ROM file must look like before an emulator sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtcore_envs.errors import RomError

BANK_BYTES = 0x4000
HEADER = slice(0x134, 0x14D)
HEADER_CHECKSUM = 0x14D
COLOUR_FLAG = 0x143
COLOUR_ONLY = 0xC0
TITLE = slice(0x134, 0x143)
CARTRIDGE_TYPE = 0x147
#: The types whose memory is in the bank controller (MBC2).
RAM_INSIDE = {5, 6}
RAM_SIZE = 0x149
#: Banks of 8 KiB on the cartridge, by the byte at `RAM_SIZE`.
RAM_BANKS = {1: 1, 2: 1, 3: 4, 4: 16, 5: 8}
#: The largest cartridge of the machine; nothing larger is read.
MAX_ROM_BYTES = 8 * 1024 * 1024

_GET_GOOD_COPY = "Give the path of an unmodified .gb file."


def header_checksum(rom: bytes) -> int:
    """The checksum that belongs at 0x14D (Pan Docs, "The Cartridge Header")."""
    return (-sum(rom[HEADER]) - len(rom[HEADER])) & 0xFF


def rom_title(rom: bytes) -> str:
    """The title in the header, such as ``POKEMON RED``; what is not printable ASCII ends it."""
    text = rom[TITLE].split(b"\0")[0].decode("latin-1")
    return "".join(letter if " " <= letter <= "~" else "\n" for letter in text).split("\n")[0].strip()


def read_rom(path: Path) -> bytes:
    """The bytes of a file that is a cartridge by size and header. Raises `RomError` otherwise."""
    rom = RomError.read(path, "a Game Boy ROM", MAX_ROM_BYTES)
    if not rom:
        raise RomError(path, "an empty file", "a Game Boy ROM", _GET_GOOD_COPY)
    if len(rom) % BANK_BYTES:
        expected = f"a multiple of {BANK_BYTES} bytes"
        raise RomError(path, f"{len(rom)} bytes (cut short, or not a ROM)", expected, _GET_GOOD_COPY)
    if rom[HEADER_CHECKSUM] != header_checksum(rom):
        got = f"header checksum 0x{rom[HEADER_CHECKSUM]:02X}"
        expected = f"0x{header_checksum(rom):02X} (the file is damaged, or not a ROM)"
        raise RomError(path, got, expected, _GET_GOOD_COPY)
    return rom


def needs_colour(rom: bytes) -> bool:
    """Whether the cartridge runs on the Game Boy Color only."""
    return rom[COLOUR_FLAG] & COLOUR_ONLY == COLOUR_ONLY


def num_ram_banks(rom: bytes) -> int:
    """Banks of memory on the cartridge."""
    return 1 if rom[CARTRIDGE_TYPE] in RAM_INSIDE else RAM_BANKS.get(rom[RAM_SIZE], 0)


@contextmanager
def emulator_errors(path: Path) -> Iterator[None]:
    """Turns whatever the emulator raises while loading the ROM of `path` into `RomError`.

    PyBoy raises many types for a bad header (a KeyError for an unknown RAM size), so every Exception is
    caught but those of the machine: the ROM has been read before, and what starts no process, or finds no room
    or file descriptor, says nothing about it.
    """
    try:
        yield
    except (ImportError, OSError, MemoryError):
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise RomError(path, got, "a cartridge that PyBoy can load", _GET_GOOD_COPY) from error
