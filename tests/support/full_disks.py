"""A program that makes a recording, its view and its mended copy, each with every room on the disk there may be.

It prints a line of JSON for each kind: the lengths at which it failed in words, and whether a longer one was enough.
What else is printed, or how else it ends, is a fault: of HDF5, which crashes, or of what it is asked to do.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from rtcore.errors import RecordError
from rtcore.recording.mending import mend
from rtcore.recording.minari import write_minari
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Source, TickKind
from tests.support.filmed import film, header

_RESET = {"kind": TickKind.RESET, "source": Source.HELD}


@contextmanager
def files_no_longer_than(num_bytes: int) -> Iterator[None]:
    """Writing more is an error, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def _film(folder: Path, *, is_finished: bool = True) -> Path:
    headers = [header(tick, **(_RESET if tick % 10 == 0 else {})) for tick in range(150)]
    frames = np.random.default_rng(1).integers(0, 256, (150, 20, 31), np.uint8)
    return film(folder, frames, headers, [0] * 150, is_finished=is_finished)


def _view(folder: Path) -> None:
    with Recording(folder, is_known=True) as recording:
        write_minari(recording)


def main(folder: Path) -> None:
    kinds: dict[str, tuple[Callable[[Path], object], Callable[[Path], object]]] = {
        "recording": (lambda folder: None, _film),
        "view": (_film, _view),
        "mended": (lambda folder: _film(folder, is_finished=False), mend),
    }
    longest = 2 * _film(folder / "whole").stat().st_size
    for kind, (prepare, make) in kinds.items():
        failed, enough = [], False
        for num_bytes in [*range(0, longest, longest // 25), 1 << 30]:
            here = folder / kind / str(num_bytes)
            prepare(here)
            try:
                with files_no_longer_than(num_bytes):
                    make(here)
                enough = True
            except (RecordError, OSError):
                failed.append(num_bytes)
        print(json.dumps({"kind": kind, "failed": failed, "enough": enough}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
