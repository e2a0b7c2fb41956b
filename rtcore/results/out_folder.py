"""The folder of a run, for the one run that writes there, and what it says of itself there when it begins.

No other run writes there meanwhile, and no file of an earlier run stays among its files.

An earlier run is removed, as `--out runs/latest` says again and again; one that learned is moved to `earlier/1`,
`earlier/2`, ... with all its rows (ADR 15). Files that rtcore does not write are left alone.
"""

from __future__ import annotations

import fcntl
import importlib.metadata
import logging
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Container, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.files.outside import parse_object, read_bytes
from rtcore.files.strict_json import write_json
from rtcore.host.cpus import cpu_model, usable_cpus
from rtcore.scheduling.schedule import STAGGERS
from rtcore.version import __version__

_log = logging.getLogger(__name__)

EARLIER = "earlier"
LOCK = ".rtcore-lock"
#: What `rtcore-run --compare` leaves beside the folders of its runs.
COMPARE_FILE, COMPARE_PICTURE, COMPARE_VIDEO = "compare.json", "compare.png", "compare.mp4"
#: Names of these folders: the schedules' own, that of one that staggers, and random play.
STAGGERED, RANDOM = "staggered", "random"
_COMPARED = (*STAGGERS, STAGGERED, RANDOM)
#: What a run leaves, beside its checkpoints, which are kept apart.
_FILES = (
    *("config.json", "summary.json", "actions.csv", "jobs.csv", "timeline.png", "learning_curve.png", "video.mp4"),
    *("trace.perfetto-trace", "trace-*.events", "report.html", "*.part"),
    *(COMPARE_FILE, COMPARE_PICTURE, COMPARE_VIDEO),
)
#: Whose versions config.json says.
_PACKAGES = ("torch", "h5py", "numpy", "gymnasium", "pyboy", "posix_ipc", "pydantic")
_EVENTS = "events.out.tfevents.*"
_RECORDING = "recording"
_CHECKPOINTS = "checkpoints"


def compared_in(folder: Path) -> dict[str, Path]:
    """The folders of the runs that a comparison left in `folder`, by name; {} if it left none."""
    try:
        content = parse_object(read_bytes(folder / COMPARE_FILE, "comparison"), folder / COMPARE_FILE, "comparison")
    except ConfigError:
        return {}
    return {name: folder / name for name in content if name in _COMPARED and content[name] and (folder / name).is_dir()}


class OutFolder:
    """`acquire` it, begin the run in it, `release` it after the last file. The process's death releases it, too."""

    def __init__(self, path: Path, command: list[str] | None = None) -> None:
        """`command`: what config.json says the run was started with, by default this program's words."""
        self.path = path
        self.command = command if command is not None else [*sys.argv]
        self._lock: TextIO | None = None

    def acquire(self) -> None:
        """Make the folder and lock it. Nothing in it changes yet.

        Raises:
            ConfigError: It cannot be made or written into, or another run, which is named, has it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"out: cannot make {self.path}: {error.strerror}; give a folder to write into") from error
        try:
            lock = (self.path / LOCK).open("a+")
        except OSError as error:
            raise ConfigError(
                f"out: cannot write into {self.path}: {error.strerror}; give a folder to write into"
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            owner = "".join(character for character in lock.read(20) if character.isdigit()) or "unknown"
            lock.close()
            raise ConfigError(
                f"out: another run (pid {owner}) is writing into {self.path}; wait for its end, or give another folder "
                "with --out"
            ) from None
        except OSError as error:
            _log.warning(f"{self.path} cannot be locked ({error.strerror}): see to it that no other run writes there")
        with suppress(OSError):  # for the message alone
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
        self._lock = lock

    def clear(self, *, goes_on: bool = False, kept: Container[str] = ()) -> str:
        """Make room for a run's files; returns what became of an earlier run's, in words, "" if it is worth none.

        Args:
            goes_on: Whether the run goes on from a checkpoint of this folder: TensorBoard's events go on, too.
            kept: Folders of an earlier comparison that are not to be cleared with it.
        """
        for name, folder in compared_in(self.path).items():
            if name not in kept and not folder.is_symlink():
                OutFolder(folder).clear()
                with suppress(OSError):  # something else is in it
                    (folder / LOCK).unlink(missing_ok=True)
                    folder.rmdir()
        recording = self.path / _RECORDING
        found = [path for pattern in _FILES for path in self.path.glob(pattern)]
        events = list(self.path.glob(_EVENTS))
        # A link is the user's: what is written goes to where it points.
        stale = [path for path in (*found, *([] if goes_on else events)) if path.is_file() and not path.is_symlink()]
        stale += [recording] if recording.is_dir() and not recording.is_symlink() else []
        if any((self.path / _CHECKPOINTS).glob("[0-9]*")):
            return self._move(stale)
        for path in stale:
            if path is recording:
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        return ""

    def _move(self, stale: list[Path]) -> str:
        if not stale:
            return ""
        earlier = self.path / EARLIER
        numbers = [int(path.name) for path in earlier.glob("[0-9]*") if path.name.isdigit()]
        place, draft = earlier / str(max(numbers, default=0) + 1), earlier / "part"
        # One that was interrupted is gone on with: its files are of the same run.
        draft.mkdir(parents=True, exist_ok=True)
        for path in stale:
            path.rename(draft / path.name)
        draft.rename(place)
        return f"the files of the earlier run are now in {place}"

    def release(self) -> None:
        """Others may write there. More than once does no harm."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # also where a forked child has it open
            lock.close()

    def __enter__(self) -> OutFolder:
        return self

    def __exit__(self, *_: Any) -> None:
        self.release()


def begin_folder(
    folder: OutFolder, config: RuntimeConfig, resumed: Mapping[str, Any] | None = None, *, goes_on: bool = False
) -> str:
    """Make room for a run, and write its config.json; returns what became of an earlier run's files, "" if nothing.

    Args:
        folder: It is taken.
        config: As the run has it.
        resumed: What the run goes on from: `SavedState.origin`.
        goes_on: Whether that is of this folder.
    """
    note = folder.clear(goes_on=goes_on)
    write_config(folder.path, config, folder.command, resumed)
    return note


def write_config(
    folder: Path, config: RuntimeConfig, arguments: list[str], resumed: Mapping[str, Any] | None = None
) -> None:
    """config.json: the resolved settings, versions, machine and git revision, and what the run goes on from."""
    packages = {name: _version(name) for name in _PACKAGES}
    versions = {"rtcore": __version__, **packages, "python": platform.python_version()}
    content = {
        "config": config.to_jsonable(),
        "command": arguments,
        "resumed": resumed,
        "versions": versions,
        "git_revision": _git_revision(),
        "machine": {
            "host": platform.node(),
            "kernel": platform.release(),
            "cpus": usable_cpus(),
            "cpu": cpu_model(),
        },
    }
    write_json(folder / "config.json", content)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Of the checkout rtcore was imported from; None if it was installed from a wheel."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
