"""The files of a run folder: config.json, summary.json and timeline.png (actions.csv and jobs.csv stream in)."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from rtcore.config import RuntimeConfig
from rtcore.cpus import usable_cpus
from rtcore.report.perfetto.writer import TRACE_FILE
from rtcore.report.record import RunRecord
from rtcore.report.summary import RunStats
from rtcore.report.video.film import VIDEO_FILE

_PACKAGES = ("rtcore", "torch", "h5py", "numpy", "gymnasium", "pyboy", "posix_ipc", "pydantic")


def write_config(folder: Path, config: RuntimeConfig, arguments: list[str]) -> None:
    """config.json: the resolved settings, versions, machine and git revision. An earlier run's trace and video are
    removed."""
    (folder / TRACE_FILE).unlink(missing_ok=True)
    (folder / VIDEO_FILE).unlink(missing_ok=True)
    versions = {name: _version(name) for name in _PACKAGES} | {"python": platform.python_version()}
    content = {
        "config": config.to_jsonable(),
        "command": arguments,
        "versions": versions,
        "git_revision": _git_revision(),
        "machine": {
            "host": platform.node(),
            "kernel": platform.release(),
            "cpus": usable_cpus(),
            "cpu": _cpu_model(),
        },
    }
    write_json(folder / "config.json", content)


def write_results(folder: Path, summary: dict[str, Any], stats: RunStats, record: RunRecord) -> None:
    """summary.json and timeline.png."""
    from rtcore.report.timeline import draw_timeline  # noqa: PLC0415 - matplotlib takes a second to import

    write_json(folder / "summary.json", summary)
    draw_timeline(record, stats, folder / "timeline.png")


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Whole or not at all: written beside, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    try:
        draft.write_text(json.dumps(content, indent=2) + "\n")
        draft.replace(path)
    except OSError:
        draft.unlink(missing_ok=True)
        raise


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


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return sys.platform
