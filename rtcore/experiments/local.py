"""Cells on this machine: each in a process of its own, forked from one server that has everything imported.

It is the fork server of a run (`rtcore.processes`): whoever is killed, the sweep, the server or a cell, nobody that it
has started is left over. A cell's process computes with one thread.
"""

from __future__ import annotations

import logging
import os
import platform
import resource
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

from rtcore.channel import Channel, Message
from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import describe_exit, printable
from rtcore.experiments.records import Cost
from rtcore.experiments.sweepfile import Cell
from rtcore.files.values import from_json, to_json
from rtcore.host.seeding import entropy_of
from rtcore.learn.policy import WITHOUT_NETWORK
from rtcore.messages import Boot
from rtcore.processes.launcher import PRELOAD, PRELOAD_NETWORK, Child, Launcher
from rtcore.report.log import lines_to

#: What is done with a cell, by the name of the process's entry: all of it, or everything but the run.
PLAY = "rtcore.experiments.local:main"
CHECK = "rtcore.experiments.local:check"
#: What a cell's process prints goes here, and its end into the error if that process dies without a word.
_OUTPUT = "output.txt"
_LAST_WORDS_CHARS = 500
#: Distinct warnings of a cell that are kept.
_MOST_NOTES = 10


@dataclass(frozen=True)
class Ended:
    """A cell that is over. `result`: what it came to (`CellResult`, or of a check {"rate_hz": ...}); else `error`."""

    cell: Cell
    cost: Cost
    result: dict[str, Any] | None = None
    error: str = ""
    traceback: str = ""
    notes: tuple[str, ...] = ()


class Backend(Protocol):
    """Where cells are played."""

    @property
    def places(self) -> int:
        """How many are played at once."""
        ...

    def start(self, cell: Cell, rate_hz: Fraction) -> None:
        """Have it played in a world of that tick rate; returns at once."""
        ...

    def poll(self, timeout_s: float) -> list[Ended]:
        """Those that have ended since, after waiting for one at most so long."""
        ...

    def shares(self) -> Mapping[str, float]:
        """How much is done of each that is being played, as far as that is known; by name."""
        ...

    def close(self) -> None:
        """End what is under way, now. More than once does no harm."""
        ...


# -- in the cell's process -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellBoot(Boot):
    """What a cell's process is started with. `cell`: its fields. `environment`: variables that are its own."""

    cell: dict[str, Any]
    rate_hz: str
    scratch: str
    environment: dict[str, str]


@dataclass
class Done(Message):
    """From the cell's process: how much is done, from 0 to 1."""

    share: float


@dataclass
class Came(Message):
    """From the cell's process, last: what it came to. `notes`: what was warned of."""

    result: dict[str, Any]
    cpu_s: float
    notes: list[str]


def main(boot: CellBoot, channel: Channel) -> None:
    """Process entry."""
    from rtcore.experiments.playing import play_cell  # noqa: PLC0415 - the fork server has it; this program needs it not

    shown = 0.0

    def show(share: float) -> None:
        nonlocal shown
        if share >= shown + 0.01:
            shown = share
            channel.send(Done(share))

    def play() -> dict[str, Any]:
        result = play_cell(_cell_of(boot), Fraction(boot.rate_hz), Path(boot.scratch), show)
        return result.model_dump(mode="json")

    _serve(boot, channel, play)


def check(boot: CellBoot, channel: Channel) -> None:
    """Process entry."""
    from rtcore.experiments.playing import check_cell  # noqa: PLC0415 - as above

    _serve(boot, channel, lambda: {"rate_hz": str(check_cell(_cell_of(boot)))})


def _serve(boot: CellBoot, channel: Channel, do: Callable[[], dict[str, Any]]) -> None:
    os.environ.update(boot.environment)
    # Worlds and libraries print what they like: not between the lines of the sweep.
    output = os.open(Path(boot.scratch) / _OUTPUT, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    notes: dict[str, None] = {}
    # Whatever RTCORE_LOG says: what is kept of a cell is the same everywhere.
    with lines_to(lambda line: notes.update({line: None}), logging.WARNING, environment={}):
        result = do()
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    channel.send(Came(result, sum(one.ru_utime + one.ru_stime for one in used), [*notes][:_MOST_NOTES]))


def _cell_of(boot: CellBoot) -> Cell:
    return Cell(**from_json(boot.cell))


# -- in the program --------------------------------------------------------------------------------------------------


class LocalBackend:
    """So many cells at once, each in a process of its own. Implements `Backend`."""

    def __init__(self, places: int, scratch: Path) -> None:
        """Returns at once. StartupError if no process can be started.

        Args:
            places: Cells that are played at once; `start` takes more all the same.
            scratch: A folder for what cells need while they are played. It is there only as long as one is.
        """
        self._places = places
        self._scratch = scratch
        self._clock = MonotonicClock()
        self._under_way: dict[Child, _UnderWay] = {}
        self._number = 0
        self._run_id = f"sweep{os.getpid()}"
        self._launcher = Launcher(self._run_id, (*PRELOAD, "rtcore.experiments.playing"))

    @property
    def places(self) -> int:
        """As of `Backend`."""
        return self._places

    def start(
        self, cell: Cell, rate_hz: Fraction, entry: str = PLAY, environment: Mapping[str, str] | None = None
    ) -> None:
        """As of `Backend`. With CHECK the rate is not looked at. `environment`: variables of the cell's process."""
        self._number += 1
        self._scratch.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f"{self._number}-", dir=self._scratch))
        boot = CellBoot(
            run_id=self._run_id,
            entropy=entropy_of(cell.settings["seed"], 0, "virtual", 0, 0),
            cell=to_json(asdict(cell)),
            rate_hz=str(rate_hz),
            scratch=str(scratch.resolve()),
            environment=dict(environment or {}),
        )
        if cell.settings.get("policy") not in WITHOUT_NETWORK:
            self._launcher.preload("what networks need", (*PRELOAD_NETWORK, "rtcore_workers.dqn"))
        child = self._launcher.start("cell", self._number, 0, entry, boot)
        self._under_way[child] = _UnderWay(cell, scratch, self._clock.now_ns())

    def poll(self, timeout_s: float) -> list[Ended]:
        """As of `Backend`. LauncherDied if the fork server has died, and every cell under way with it."""
        ended = []
        for child in self._launcher.poll(timeout_s):
            under_way = self._under_way[child]
            while child.messages:
                message = child.messages.popleft()
                if isinstance(message, Done):
                    under_way.share = message.share
                elif isinstance(message, Came):
                    under_way.came = message
            if child.exitcode is not None:
                del self._under_way[child]
                ended.append(self._ended(child, under_way))
                shutil.rmtree(under_way.scratch, ignore_errors=True)
                with suppress(OSError):  # others are being played
                    self._scratch.rmdir()
        return ended

    def shares(self) -> dict[str, float]:
        """As of `Backend`."""
        return {one.cell.name: one.share for one in self._under_way.values()}

    def close(self) -> None:
        """As of `Backend`."""
        self._launcher.close()
        self._under_way.clear()
        shutil.rmtree(self._scratch, ignore_errors=True)

    def _ended(self, child: Child, under_way: _UnderWay) -> Ended:
        cell, came, failure = under_way.cell, under_way.came, child.failure
        wall_s = (self._clock.now_ns() - under_way.began_ns) / NS_PER_S
        cost = Cost(cpu_s=came.cpu_s if came is not None else None, wall_s=wall_s, host=platform.node())
        if failure is not None:
            return Ended(cell, cost, error=f"{failure.kind}: {failure.text}", traceback=failure.traceback)
        if came is not None:
            return Ended(cell, cost, came.result, notes=tuple(came.notes))
        return Ended(cell, cost, error=f"its process died: {describe_exit(child.exitcode)}{_last_words(under_way)}")


@dataclass
class _UnderWay:
    cell: Cell
    scratch: Path
    began_ns: int
    share: float = 0.0
    came: Came | None = None


def _last_words(under_way: _UnderWay) -> str:
    with suppress(OSError):
        said = (under_way.scratch / _OUTPUT).read_text(errors="replace").strip()[-_LAST_WORDS_CHARS:]
        if said:
            return f"; the last that it printed: {printable(said)}"
    return "; out of memory? see dmesg"
