"""Files from outside are data: their kind and size are checked before they are read, their checksums before they are
used.

A folder's checksums are in its file SHA256SUMS, as `sha256sum` writes it: `sha256sum -c SHA256SUMS` checks them too.
A checksum finds damage, not malice: who forges a file can forge its checksum.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rtcore.errors import ConfigError
from rtcore.files.whole import whole_file

SUMS = "SHA256SUMS"
#: Largest settings file, state or summary [bytes]. Those that rtcore writes have some kilobytes.
MOST_TEXT_BYTES = 16 << 20
#: Longest line of a table [bytes]: an action of a thousand numbers has some 20,000.
LONGEST_LINE_BYTES = 1 << 20
_BLOCK_BYTES = 1 << 22


def is_there(path: Path, what: str) -> bool:
    """Whether there is such a file or folder; `what` it is for stands first in errors.

    ConfigError if that cannot be seen: no right to look there, a name that is too long. (`Path.exists` raises then, and
    says no since Python 3.14.)
    """
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError):  # that last one: no file can be called so
        return False
    except OSError as error:
        raise ConfigError(f"{what}: {str(path)[:100]} cannot be looked at: {error.strerror}") from error
    return True


def open_regular(path: Path, what: str) -> BinaryIO:
    """An ordinary file, open for reading; `what` it is for stands first in errors.

    ConfigError for one that cannot be opened, and for pipes, devices and folders: reading those may never end.
    """
    try:
        # A pipe without a writer would hold up an ordinary open.
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except IsADirectoryError as error:
        raise ConfigError(f"{what}: {path} is a folder; expected a file") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{what}: {path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ConfigError(f"{what}: {path} is no ordinary file (a pipe or a device); write it to a file first")
    return file


def read_bytes(path: Path, what: str, most_bytes: int = MOST_TEXT_BYTES) -> bytes:
    """All of an ordinary file; ConfigError as `open_regular`, and for one of more than `most_bytes`."""
    with open_regular(path, what) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most_bytes:
            raise ConfigError(f"{what}: {path} has {size:,} bytes; expected at most {most_bytes:,}")
        try:
            return file.read(most_bytes)
        except OSError as error:
            raise ConfigError(f"{what}: {path} cannot be read: {error.strerror}") from error


def parse_object(raw: bytes, path: Path, what: str) -> dict[str, Any]:
    """The object that a JSON file holds; ConfigError for anything else, nested without end included."""
    try:
        content = json.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{what}: {path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{what}: {path} holds a {type(content).__name__}; expected an object that rtcore wrote")
    return content


def lines_of(path: Path, what: str) -> Iterator[str]:
    """The lines of a text file, one after another, with their ends. Memory does not grow with the file.

    ConfigError as `open_regular`, and for a line of more than `LONGEST_LINE_BYTES`. Bytes that are no UTF-8 become
    replacement characters.
    """
    with open_regular(path, what) as file:
        number = 0
        try:
            while line := file.readline(LONGEST_LINE_BYTES + 1):
                number += 1
                if len(line) > LONGEST_LINE_BYTES:
                    raise ConfigError(f"{what}: {path} has more than {LONGEST_LINE_BYTES:,} bytes on line {number}")
                yield line.decode(errors="replace")
        except OSError as error:
            raise ConfigError(f"{what}: {path} cannot be read beyond line {number}: {error.strerror}") from error


# -- checksums -----------------------------------------------------------------------------------------------------


def write_sums(folder: Path, names: Iterable[str], progress: Callable[[int], None] = lambda done: None) -> None:
    """SHA256SUMS of these files of `folder`, whole or not at all. `progress` gets bytes done. May raise OSError."""
    lines = []
    for name in names:
        with (folder / name).open("rb") as file:
            lines.append(f"{_digest(file, progress)}  {name}\n")
    with whole_file(folder / SUMS) as draft:
        draft.write_text("".join(lines))


def has_sums(path: Path) -> bool:
    """Whether there are checksums beside the file `path`."""
    return (path.parent / SUMS).exists()


def check_bytes(raw: bytes, path: Path, what: str) -> None:
    """ConfigError if `raw` is not what was written to the file `path`; nothing where it has no checksums beside it."""
    if has_sums(path):
        _compare(hashlib.sha256(raw).hexdigest(), path, what)


def check_file(path: Path, what: str) -> None:
    """As `check_bytes`, for a file of any length: read in blocks."""
    if has_sums(path):
        with open_regular(path, what) as file:
            try:
                found = _digest(file)
            except OSError as error:
                raise ConfigError(f"{what}: {path} cannot be read: {error.strerror}") from error
        _compare(found, path, what)


def _compare(found: str, path: Path, what: str) -> None:
    expected = _sum_of(path, what)
    if found != expected:
        raise ConfigError(
            f"{what}: {path} is damaged: its SHA-256 is {found[:12]}..., {SUMS} beside it says {expected[:12]}... Use "
            f"another copy; if the change was meant, `sha256sum` writes {SUMS} anew"
        )


def _sum_of(path: Path, what: str) -> str:
    sums = path.parent / SUMS
    for line in read_bytes(sums, what).decode(errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        if len(digest) != hashlib.sha256().digest_size * 2 or not name:
            raise ConfigError(f"{what}: {sums} is damaged: {line[:80]!r} is no checksum and name. Use another copy")
        if name == path.name:
            return digest
    raise ConfigError(f"{what}: {sums} has no checksum of {path.name}: it was cut off, or is of other files")


def _digest(file: BinaryIO, progress: Callable[[int], None] = lambda done: None) -> str:
    digest, done = hashlib.sha256(), 0
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
        done += len(block)
        progress(done)
    return digest.hexdigest()
