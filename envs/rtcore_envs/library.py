"""ROMs that the worlds know, and where a user's copies are found: by SHA-256, never by file name.

No commercial ROM comes with rtcore. A world looks for its ROM in the file given as ``rom=``; without that in the
folder ``RTCORE_ROM_DIR``, then in ``~/.local/share/rtcore/roms``, subfolders included.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rtcore_envs.errors import RomError
from rtcore_envs.rom import BANK_BYTES, MAX_ROM_BYTES, read_rom, rom_title

ROM_DIR_VARIABLE = "RTCORE_ROM_DIR"


class KnownRom(NamedTuple):
    """One exact ROM file. ``key`` names the game in code and on command lines, ``title`` is the header's."""

    key: str
    name: str
    title: str
    sha256: str


#: The files that the paper's addresses were checked with (the reference code's rom.sha).
KNOWN_ROMS: tuple[KnownRom, ...] = (
    KnownRom("tetris", "Tetris", "TETRIS", "0d6535aef23969c7e5af2b077acaddb4a445b3d0df7bf34c8acef07b51b015c3"),
    KnownRom(
        "pokemon-red", "Pokemon Red", "POKEMON RED", "5ca7ba01642a3b27b0cc0b5349b52792795b62d3ed977e98a09390659af96b7b"
    ),
    KnownRom(
        "pokemon-blue",
        "Pokemon Blue",
        "POKEMON BLUE",
        "2a951313c2640e8c2cb21f25d1db019ae6245d9c7121f754fa61afd7bee6452d",
    ),
    KnownRom(
        "pokemon-yellow",
        "Pokemon Yellow",
        "POKEMON YELLOW",
        "8cbaa499397e4f1a679c992ea9382a2dd7942ab398b48c19829c2d9529de47bf",
    ),
)


class FoundRom(NamedTuple):
    """A ROM file and what it is."""

    path: Path
    content: bytes
    known: KnownRom


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def own_folder(name: str) -> Path | None:
    """``~/.local/share/rtcore/NAME``; None for a user without a home, as in a container."""
    try:
        return Path.home() / ".local/share/rtcore" / name
    except RuntimeError:
        return None


def user_path(text: str | Path) -> Path:
    """A path as a user writes it, with ``~``, which stays as it is for a user without a home."""
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path.expanduser raises there


def rom_folders() -> list[Path]:
    """Where ROMs are looked for, in order: ``RTCORE_ROM_DIR`` if it is set, then the user's own, if there is one."""
    given = os.environ.get(ROM_DIR_VARIABLE)
    own = own_folder("roms")
    return ([Path(given)] if given else []) + ([] if own is None else [own])


def roms_by_hash() -> dict[str, Path]:
    """Every file in `rom_folders` that may be a cartridge, by SHA-256. Reads all of them."""
    found: dict[str, Path] = {}
    for folder in rom_folders():
        for path in _candidates(folder):
            found.setdefault(sha256_of(path.read_bytes()), path)
    return found


def files_below(folder: Path) -> Iterator[Path]:
    """Every file in a folder and its subfolders, in the order of their names. Links to folders are not followed.

    Raises:
        OSError: the folder, or one below it, cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise error

    for where, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(where, name) for name in sorted(names))


def may_be_rom(path: Path) -> bool:
    """Whether a file has a size that a cartridge can have. False if it cannot be looked at."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    return 0 < size <= MAX_ROM_BYTES and size % BANK_BYTES == 0 and path.is_file()


def find_rom(rom: str | Path | None, wanted: Sequence[KnownRom]) -> FoundRom:
    """The file ``rom``, which must be one of ``wanted``; or, for None, the first of ``wanted`` in `rom_folders`.

    Raises:
        RomError: the file cannot be read or is none of them (the message names the hashes that would do), or
            no folder holds one.
    """
    if rom is not None:
        path = user_path(rom)
        content = read_rom(path)
        return FoundRom(path, content, identify(path, content, wanted))
    by_hash = {known.sha256: known for known in wanted}
    found: dict[str, FoundRom] = {}
    for folder in rom_folders():
        for path in _candidates(folder):
            content = path.read_bytes()
            known = by_hash.get(sha256_of(content))
            if known is not None:
                found.setdefault(known.key, FoundRom(path, content, known))
            if wanted[0].key in found:
                return found[wanted[0].key]
    for known in wanted:
        if known.key in found:
            return found[known.key]
    looked = [str(folder) for folder in rom_folders()]
    raise RomError(
        Path(looked[0] if looked else ROM_DIR_VARIABLE),
        f"no such ROM in {' and '.join(looked)}" if looked else "neither that variable nor a home folder",
        _hashes(wanted),
        f"Put your own copy there, or give it as rom=FILE, or set {ROM_DIR_VARIABLE}. `rtcore-rom check DIR` says "
        "what your files are.",
    )


def identify(path: Path, content: bytes, wanted: Sequence[KnownRom]) -> KnownRom:
    """Which of ``wanted`` the file is. Raises `RomError` that says what it seems to be instead."""
    digest = sha256_of(content)
    for known in wanted:
        if known.sha256 == digest:
            return known
    title = rom_title(content)
    same_title = [known for known in wanted if known.title == title]
    if same_title:
        advice = "The title fits: this is another revision, a patched copy or a damaged one."
    else:
        others = [known.name for known in KNOWN_ROMS if known.sha256 == digest]
        advice = f"This is {others[0]}, for another world." if others else "This is another game."
    raise RomError(
        path,
        f"sha256 {digest} (title {title!r})",
        _hashes(same_title or wanted),
        f"{advice} Addresses in memory differ between revisions. `rtcore-rom check FILE` says what a file is.",
    )


def _hashes(wanted: Sequence[KnownRom]) -> str:
    return " or ".join(f"{known.sha256} ({known.name})" for known in wanted)


def _candidates(folder: Path) -> list[Path]:
    """Files that may be cartridges; none for a folder that is not there."""
    try:
        return [path for path in files_below(folder) if may_be_rom(path)]
    except FileNotFoundError:
        return []
    except NotADirectoryError as error:
        raise RomError(folder, "a file", "a folder of ROMs", f"Check {ROM_DIR_VARIABLE}.") from error
    except OSError as error:
        raise RomError(folder, str(error), "a readable folder of ROMs", "Check its permissions.") from error
