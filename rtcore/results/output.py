"""The files of a run folder: config.json, summary.json and timeline.png (actions.csv and jobs.csv stream in)."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.files.strict_json import write_json
from rtcore.host.cpus import cpu_model, usable_cpus
from rtcore.results.out_folder import OutFolder

_PACKAGES = ("rtcore", "torch", "h5py", "numpy", "gymnasium", "pyboy", "posix_ipc", "pydantic")


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
    versions = {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()}
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
