"""Cells as Ray tasks: on a cluster, or on a Ray of this machine that is started for the sweep and ends with it.

A task plays its cell as this machine would (`local`): in a process of its own below the Ray worker. So a cell comes to
the same numbers, and one that crashes is a cell that failed, not a worker that died. Where a worker or a node dies, Ray
runs its cells again elsewhere. Results come back as those of the tasks; the program that started the sweep alone writes
files.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil

from rtcore.errors import ConfigError, LauncherDied
from rtcore.experiments.local import Ended, LocalBackend
from rtcore.experiments.records import Cost
from rtcore.experiments.sweepfile import Cell
from rtcore.files.values import from_json, to_json
from rtcore.host.raycluster import connect, import_ray, reach

#: Times that a cell is played again because its worker or node died.
_MOST_RETRIES = 5
#: Memory for Ray's objects on this machine: what a cell comes to has some kilobytes.
_OBJECT_STORE_BYTES = 80 << 20
#: How the folder of a Ray of its own is called: then the pid of its sweep.
_FOLDER = "rtcore-ray-"
_POLL_S = 0.5


class RayBackend:
    """Cells as Ray tasks. Implements `Backend`."""

    def __init__(self, address: str | None, *, cpus: float, gpus: float, jobs: int | None = None) -> None:
        """Connects to a cluster, or starts a Ray on this machine.

        Args:
            address: Of the cluster ("auto": one that runs on this machine); None: a Ray of the sweep's own.
            cpus: That a cell takes.
            gpus: That a cell takes.
            jobs: Cells that are played at once; None: as many as there are CPUs and GPUs for.

        Raises:
            ConfigError: Ray is not installed, the cluster cannot be reached, or a cell takes more than it has.
        """
        reach(address)
        self._ray = ray = import_ray("--backend ray")
        self._folder = _own_folder() if address is None else None
        self._under_way: dict[Any, Cell] = {}
        self._needs = {name: each for name, each in (("CPU", cpus), ("GPU", gpus)) if each}
        self._jobs = jobs
        self._here = os.getcwd()  # noqa: PTH109 - text, for another machine
        try:
            self._connect(address)
            self._play = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_MOST_RETRIES)(play_task)
            if not self.places:
                there = ray.cluster_resources()
                has = " and ".join(f"{there.get(name, 0):g} {name}s" for name in self._needs)
                raise ConfigError(f"a cell takes {self._needs}, and Ray has {has}: lower `cpus` or `gpus` in the file")
        except BaseException:
            self.close()
            raise

    def _connect(self, address: str | None) -> None:
        own: dict[str, Any] = {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
        if address is None and self._jobs is not None:
            own["num_cpus"] = math.ceil(self._needs.get("CPU", 1) * self._jobs)
        if address is None:
            own |= {"_temp_dir": str(self._folder)}
        connect(self._ray, address, **({} if address is not None else own))

    @property
    def places(self) -> int:
        """As of `Backend`: nodes may come and go."""
        there = self._ray.cluster_resources()
        fits: int = math.floor(min(there.get(name, 0) / each for name, each in self._needs.items()))
        return fits if self._jobs is None else min(fits, self._jobs)

    def start(self, cell: Cell, rate_hz: Fraction) -> None:
        """As of `Backend`."""
        scratch = str(self._folder) if self._folder is not None else None
        task = self._play.options(name=cell.name).remote(to_json(asdict(cell)), str(rate_hz), self._here, scratch)
        self._under_way[task] = cell

    def poll(self, timeout_s: float) -> list[Ended]:
        """As of `Backend`."""
        ready, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=timeout_s)
        return [self._ended(task) for task in ready]

    def shares(self) -> dict[str, float]:
        """As of `Backend`: Ray does not say."""
        return {}

    def close(self) -> None:
        """As of `Backend`. A cluster goes on, without the sweep's tasks."""
        if self._ray.is_initialized():
            for task in self._under_way:
                self._ray.cancel(task, force=True)
            self._ray.shutdown()
        self._under_way.clear()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _ended(self, task: Any) -> Ended:
        cell = self._under_way.pop(task)
        try:
            came = self._ray.get(task)
        except self._ray.exceptions.RayError as error:
            return Ended(cell, Cost(cpu_s=None, wall_s=0.0, host=""), error=f"{type(error).__name__}: {error}")
        return Ended(cell, **came | {"cost": Cost.model_validate(came["cost"])})


def _own_folder() -> Path:
    """A new folder for the files of a Ray of its own. Those of sweeps that were killed are removed.

    Not within the sweep's: Ray makes sockets there, whose names must be short.
    """
    place = Path(tempfile.gettempdir())
    for folder in place.glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).partition("-")[0]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{_FOLDER}{os.getpid()}-", dir=place))


# -- in a Ray worker -------------------------------------------------------------------------------------------------

#: Of this Ray worker: one fork server for all its cells, so that each starts in milliseconds. It ends with the worker.
_here: list[LocalBackend] = []


def play_task(cell: dict[str, Any], rate_hz: str, folder: str, scratch: str | None) -> dict[str, Any]:
    """A Ray task: plays the cell. Returns the fields of an `Ended` but the cell.

    `folder`: where the sweep was started. `scratch`: a place for files that may go; None: where the machine has them.
    """
    if not _here:
        # What a cell names (files, own modules) is looked for where the sweep was started.
        if Path(folder).is_dir():
            os.chdir(folder)
        sys.path.append(folder)
        _here.append(LocalBackend(1, Path(scratch or tempfile.gettempdir()) / f"rtcore-cells-{os.getpid()}"))
    backend = _here[0]
    # The GPUs are those of this task, not those of the worker when its fork server began.
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    environment = {"CUDA_VISIBLE_DEVICES": visible} if visible is not None else {}
    backend.start(Cell(**from_json(cell)), Fraction(rate_hz), environment=environment)
    try:
        while not (ended := backend.poll(_POLL_S)):
            pass
    except LauncherDied:
        _here.clear()
        raise
    one = ended[0]
    said = {"result": one.result, "error": one.error, "traceback": one.traceback, "notes": one.notes}
    return said | {"cost": one.cost.model_dump()}
