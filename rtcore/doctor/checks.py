"""What a check is, and how all of them are run: a probe that fails is an answer too, never the end of the program."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from rtcore.config.run import RuntimeConfig
from rtcore.doctor.machine import Machine
from rtcore.memory.layout import Layout
from rtcore.memory.segments import part_bytes, parts_of


class Status(StrEnum):
    """What a finding means for a run."""

    OK = "ok"
    WARN = "warn"  #: a run works, but less punctually or with less room than it could
    LACKS = "lacks"  #: a run does not work
    NOT_APPLICABLE = "not_applicable"
    UNKNOWN = "unknown"  #: could not be told; `found` says why


@dataclass(frozen=True)
class Verdict:
    """What a check found. `fix`: the command or setting that changes it; "" where nothing needs to be changed."""

    status: Status
    found: str
    fix: str = ""


def ok(found: str) -> Verdict:
    return Verdict(Status.OK, found)


def warn(found: str, fix: str) -> Verdict:
    return Verdict(Status.WARN, found, fix)


def lacks(found: str, fix: str) -> Verdict:
    return Verdict(Status.LACKS, found, fix)


def not_applicable(found: str) -> Verdict:
    return Verdict(Status.NOT_APPLICABLE, found)


def unknown(found: str) -> Verdict:
    return Verdict(Status.UNKNOWN, f"could not be told: {found}")


@dataclass(frozen=True)
class Needs:
    """What the configured run needs of the machine. `layout` is None if its world could not be made: `why` then."""

    config: RuntimeConfig
    layout: Layout | None = None
    traced: Layout | None = None
    why: str = ""

    @property
    def shm_bytes(self) -> int | None:
        """All segments of the configured run."""
        return _total_bytes(self.layout)

    @property
    def traced_shm_bytes(self) -> int | None:
        """The same with `--trace`."""
        return _total_bytes(self.traced)

    @property
    def uses_gpu(self) -> bool:
        """The settings demand a GPU (`auto` does not)."""
        return self.config.agent.device.startswith("cuda")


def _total_bytes(layout: Layout | None) -> int | None:
    return None if layout is None else sum(part_bytes(layout, part) for part in parts_of(layout))


@dataclass(frozen=True)
class Check:
    """One line. `key` ("cpu.governor") is stable, for scripts; `title` is for people."""

    key: str
    title: str
    ask: Callable[[Machine, Needs], Verdict]


@dataclass(frozen=True)
class Finding:
    """A check with its answer."""

    check: Check
    answer: Verdict

    def to_json(self) -> dict[str, Any]:
        group, _, name = self.check.key.partition(".")
        return {
            "check": self.check.key,
            "group": group,
            "name": name,
            "title": self.check.title,
            "status": str(self.answer.status),
            "found": self.answer.found,
            "fix": self.answer.fix,
        }


def run_checks(checks: Iterable[Check], machine: Machine, needs: Needs) -> Iterator[Finding]:
    """Each check's finding as it comes. Never raises on account of a check."""
    for check in checks:
        try:
            answer = check.ask(machine, needs)
        except Exception as error:  # whatever a strange machine's /proc makes a parser do
            answer = unknown(_one_line(error))
        yield Finding(check, answer)


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    text = " ".join(str(error).split())
    return text if isinstance(error, RuntimeError) and text else f"{type(error).__name__}: {text}"


def size(num_bytes: float) -> str:
    """ "94 MB", for people."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(num_bytes) < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.4g} TB"
