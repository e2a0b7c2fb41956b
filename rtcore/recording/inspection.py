"""Checks a recording before this process opens it: HDF5's library may hang or crash on a damaged file.

A finished recording has a checksum, which finds out every flipped bit and every cut. One without (of a run that was
killed, that goes on, or of an older rtcore) is read once from end to end by a process of its own, whose time and memory
are limited.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from rtcore.errors import ConfigError, describe_exit, printable
from rtcore.files.outside import SUMS, check_file, has_sums, open_regular

#: For reading a file once: fixed, and for each byte of it.
_LEAST_S, _BYTES_PER_S = 20.0, 10_000_000
#: Address space of the process that reads it: Python and its packages reserve some GB, and use little of it.
_ADDRESS_SPACE_BYTES = 8 << 30
#: Numbers may take so many times the size of their file: deflate itself shrinks no better.
MOST_TIMES = 1100
_SMALL_BYTES = 1 << 20
#: H5Z_FILTER_DEFLATE, _SHUFFLE, _FLETCHER32: built into HDF5. Others are libraries, to be loaded.
_FILTERS = (1, 2, 3)
_DAMAGED = "it is damaged, or no recording. Use another copy"


def inspect(path: Path, limit_s: float | None = None) -> None:
    """ConfigError if the recording `path` is damaged. `limit_s`: see `Recording`."""
    if has_sums(path):
        check_file(path, "recording")
        return
    with open_regular(path, "recording") as file:
        default_s = _LEAST_S + os.fstat(file.fileno()).st_size / _BYTES_PER_S
    limit_s = default_s if limit_s is None else limit_s
    command = [sys.executable, "-P", "-m", "rtcore.recording.inspection", str(path.absolute())]
    try:
        ended = subprocess.run(command, capture_output=True, timeout=limit_s, check=False, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{path}: HDF5 did not come to an end with it within {limit_s:.0f} s: {_DAMAGED}") from error
    said = printable(ended.stdout.decode(errors="replace").strip())
    if ended.returncode < 0:
        raise ConfigError(f"{path}: HDF5 broke down over it ({describe_exit(ended.returncode)}): {_DAMAGED}")
    if ended.returncode:
        raise ConfigError(said or f"{path}: cannot be read as a recording: {_DAMAGED}")


def note_of(path: Path) -> str:
    """What to tell the user of a recording whose damage might not be noticed; "" where there is a checksum."""
    return "" if has_sums(path) else f"{path.name} has no {SUMS} beside it: damage might not be noticed"


def check_datasets(path: Path, group: Any, names: dict[str, tuple[Any, tuple[int, ...]]]) -> dict[str, Any]:
    """The datasets of an h5py group; ConfigError unless they lie in this file, as the recorder writes them.

    Args:
        path: The file, for the error.
        group: The h5py group.
        names: dtype and shape of a row of each dataset.

    Returns:
        By name.
    """
    size, file, found, own = path.stat().st_size, group.file, {}, set[str]()
    for name, (dtype, row) in names.items():
        _refuse_links_out(path, group, name, own)
        dataset = found[name] = group[name]
        plist = dataset.id.get_create_plist()
        filters = [plist.get_filter(index)[0] for index in range(plist.get_nfilters())]
        if dataset.is_virtual or dataset.external or not set(filters) <= set(_FILTERS) or dataset.file != file:
            raise ConfigError(f"{path}: {name} does not lie in the file as rtcore writes it: {_DAMAGED}")
        if dataset.dtype != dtype or dataset.shape[1:] != row:
            raise ConfigError(
                f"{path}: {name} is {dataset.dtype} of shape {dataset.shape}; expected {dtype}, {row} a row: {_DAMAGED}"
            )
        # Rows that were never written are read as zeros, so a small file may claim any number of rows.
        if dataset.size * dtype.itemsize > MOST_TIMES * size + _SMALL_BYTES:
            raise ConfigError(
                f"{path}: {name} is said to have {len(dataset):,} rows, more than {size:,} bytes can hold: {_DAMAGED}"
            )
    return found


def _refuse_links_out(path: Path, group: Any, name: str, own: set[str]) -> None:
    """A link is refused unread: it may lead to any file of this machine. `own`: places that are known to be none."""
    place = ""
    for part in name.split("/"):
        place = f"{place}/{part}" if place else part
        if place in own:
            continue
        link = group.get(place, getlink=True)
        if type(link).__name__ != "HardLink":
            raise ConfigError(f"{path}: {place} does not lie in the file as rtcore writes it: {_DAMAGED}")
        own.add(place)


def _read_once(path: Path) -> None:
    """Everything, a block at a time."""
    from rtcore.recording.reader import Recording  # noqa: PLC0415 - which looks into files with the help of this

    with Recording(path, is_known=True) as recording:
        for _ in recording.ticks():
            pass
        recording.jobs()


def main() -> None:
    """Entry of the process: exits 0, or says on stdout what is wrong and exits 1."""
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE_BYTES, _ADDRESS_SPACE_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _read_once(Path(sys.argv[1]))
    except ConfigError as error:
        print(error)
        raise SystemExit(1) from None
    except Exception as error:
        print(f"{sys.argv[1]}: cannot be read ({type(error).__name__}: {error}): {_DAMAGED}")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
