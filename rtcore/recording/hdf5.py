"""HDF5 files on a disk that may be full.

HDF5 (2.0) may crash once a write of its index has failed: when it is next asked for anything, when the file is closed,
or at the process's end. So it never sees one fail. A new file is written through an object that keeps the error and
goes on. Of a file that grows under readers, which needs HDF5's own way of writing, the rest goes into /dev/null.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rtcore.recording.schema import require_h5py

#: Of HDF5's cache of where its chunks and datasets are: by itself it grows to 32 MiB a file, as that list does.
_INDEX_BYTES = 1 << 18


@contextmanager
def new_file(path: Path) -> Iterator[Any]:
    """A new HDF5 file, as an h5py file; it is whole on the disk after the block.

    Args:
        path: There must be nothing.

    Raises:
        OSError: Not all of it could be written. What is there has to be removed.
    """
    with path.open("x+b", buffering=0) as file_on_disk:
        sink = _Sink(file_on_disk)
        try:
            with require_h5py().File(sink, "w", libver="latest") as file:
                bound_index(file)
                yield file
        finally:
            if sink.error is not None:
                raise sink.error


class _Sink(io.RawIOBase):
    """A file whose writes and reads never fail: the first error is kept, and what is written after it goes nowhere."""

    def __init__(self, file: io.FileIO) -> None:
        self.error: OSError | None = None
        self._file = file

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        room = memoryview(buffer).cast("B")
        count = 0
        with self._keeping_the_error():
            count = self._file.readinto(room) or 0
        room[count:] = bytes(len(room) - count)  # what went nowhere
        return len(room)

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        with self._keeping_the_error():
            while rest and self.error is None:
                rest = rest[self._file.write(rest) or 0 :]
        return memoryview(data).nbytes

    def truncate(self, size: int | None = None) -> int:
        with self._keeping_the_error():
            self._file.truncate(size)
        return size or 0

    @contextmanager
    def _keeping_the_error(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.error = self.error or error


def bound_index(file: Any) -> None:
    """Keep little of an h5py file's index in memory, however long the file grows."""
    config = file.id.get_mdc_config()
    config.set_initial_size = True
    config.initial_size = config.min_size = config.max_size = _INDEX_BYTES
    config.incr_mode = config.decr_mode = config.flash_incr_mode = 0
    file.id.set_mdc_config(config)


def let_go_of(file: Any) -> None:
    """Close an h5py file in single-writer mode that could not be written to, as it is on the disk; if it is open."""
    if not file.id.valid:
        return
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, file.id.get_vfd_handle(), inheritable=False)
    os.close(nowhere)
    with suppress(OSError, RuntimeError, ValueError):
        file.close()
