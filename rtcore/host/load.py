"""What keeps a machine busy, for measuring beside it: processes that compute, move memory or write to the disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

_NUMBERS, _MEMORY_BYTES, _FILE_BYTES = 1 << 18, 64 << 20, 4 << 20


def full_load() -> list[str]:
    """One process a CPU that computes, one that moves memory, one that writes: for `be_busy`, one kind each."""
    return [*["compute"] * len(os.sched_getaffinity(0)), "memory", "disk"]


def load_text(kinds: list[str]) -> str:
    """What processes of these kinds do, exactly, and where."""
    folder = Path(tempfile.gettempdir()).resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if folder.is_relative_to(part.mountpoint)]
    kind = max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown file system"
    does = {
        "compute": "compute and touch 2 MB",
        "memory": f"copy {_MEMORY_BYTES >> 20} MB back and forth",
        "disk": f"write files of {_FILE_BYTES >> 20} MB with fsync in {folder} ({kind})",
    }
    return ", ".join(f"{kinds.count(name)} to {text}" for name, text in does.items() if name in kinds)


def be_busy(kind: str, begun: Callable[[], None], is_over: Callable[[], bool]) -> None:
    """In a process of its own.

    Args:
        kind: One of `full_load`.
        begun: Called once everything is at hand.
        is_over: Asked some hundred times a second, where the disk lets it.
    """
    if kind == "compute":
        numbers = np.arange(_NUMBERS, dtype=np.float64)  # 2 MB: more than the nearest caches hold
        begun()
        while not is_over():
            for _ in range(50):
                numbers = np.sqrt(numbers * 1.0001 + 1.0)
    elif kind == "memory":
        there, back = (np.zeros(_MEMORY_BYTES, np.uint8) for _ in range(2))
        begun()
        while not is_over():
            np.copyto(there, back)
            np.copyto(back, there)
    else:
        content = os.urandom(_FILE_BYTES)
        with tempfile.TemporaryDirectory(prefix="rtcore-load-") as folder:
            begun()
            while not is_over():
                with (Path(folder) / "written").open("wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
