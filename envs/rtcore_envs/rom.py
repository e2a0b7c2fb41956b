"""What a Game Boy ROM file must look like before an emulator sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rtcore_envs.errors import RomError

BANK_BYTES = 0x4000
HEADER = slice(0x134, 0x14D)
HEADER_CHECKSUM = 0x14D

_GET_GOOD_COPY = "Give the path of an unmodified .gb file."


def header_checksum(rom: bytes) -> int:
    """The checksum that belongs at 0x14D (Pan Docs, "The Cartridge Header")."""
    return (-sum(rom[HEADER]) - len(rom[HEADER])) & 0xFF


def _check_bytes(path: Path) -> None:
    try:
        rom = path.read_bytes()
    except FileNotFoundError:
        raise RomError(path, "no such file", "a Game Boy ROM", "Check the path.") from None
    except IsADirectoryError:
        raise RomError(path, "a folder", "a Game Boy ROM", "Give the file inside it.") from None
    except OSError as error:
        raise RomError(path, str(error), "a readable file", "Check its permissions.") from error
    if not rom:
        raise RomError(path, "an empty file", "a Game Boy ROM", _GET_GOOD_COPY)
    if len(rom) % BANK_BYTES:
        expected = f"a multiple of {BANK_BYTES} bytes"
        raise RomError(path, f"{len(rom)} bytes (cut short, or not a ROM)", expected, _GET_GOOD_COPY)
    if rom[HEADER_CHECKSUM] != header_checksum(rom):
        got = f"header checksum 0x{rom[HEADER_CHECKSUM]:02X}"
        expected = f"0x{header_checksum(rom):02X} (the file is damaged, or not a ROM)"
        raise RomError(path, got, expected, _GET_GOOD_COPY)


@contextmanager
def check_rom_file(path: Path) -> Iterator[None]:
    """Checks the file, then turns whatever the emulator raises while loading it into `RomError`.

    PyBoy raises many types for a bad header (a KeyError for an unknown RAM size), so every Exception is
    caught.
    """
    _check_bytes(path)
    try:
        yield
    except ImportError:
        raise
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
        raise RomError(path, got, "a cartridge that PyBoy can load", _GET_GOOD_COPY) from error
