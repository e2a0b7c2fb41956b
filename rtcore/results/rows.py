"""Rows of actions.csv and jobs.csv. A class is a file's columns, in order, each with how it is written and read."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

from rtcore.clock import FOREVER_NS, NS_PER_US
from rtcore.config.groups import MOST_WORKERS
from rtcore.errors import key_of
from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.scheduling.jobs import JobRow

T = TypeVar("T", bound=tuple[Any, ...])


class CsvColumn(NamedTuple):
    """How a value stands in a file. `read` raises ValueError, KeyError or TypeError for damage."""

    write: Callable[[Any], object]
    read: Callable[[str], Any]


def _same(value: object) -> object:
    return value


def _whole(text: str) -> int:
    """A number that fits into shared memory; ValueError for another, which is damage."""
    number = int(text)
    if not -1 <= number < 1 << 62:
        raise ValueError(text)
    return number


def _or_none(text: str) -> int:
    return _whole(text) if text else -1


def _worker(text: str) -> int:
    number = _or_none(text)
    if number >= MOST_WORKERS:
        raise ValueError(text)
    return number


def _us(text: str) -> float:
    number = float(text)
    if not abs(number) < FOREVER_NS / NS_PER_US:
        raise ValueError(text)
    return number


def _finite(text: str) -> float:
    """A reward. Sums of large ones may have become infinite, which no picture and no JSON has."""
    number = float(text)
    if math.isnan(number):
        raise ValueError(text)
    return max(-sys.float_info.max, min(number, sys.float_info.max))


def _name(value: IntEnum | None) -> str:
    return key_of(value) if value is not None else ""


_Text = Annotated[str, CsvColumn(_same, _same)]
_Whole = Annotated[int, CsvColumn(_same, _whole)]
#: "" for -1: there is none.
_OrNone = Annotated[int, CsvColumn(lambda number: "" if number < 0 else number, _or_none)]
_Worker = Annotated[int, CsvColumn(lambda number: "" if number < 0 else number, _worker)]
_Us = Annotated[float, CsvColumn(lambda us: round(us, 1), _us)]
_Ms = Annotated[float | None, CsvColumn(lambda ms: "" if ms is None else ms, lambda text: _us(text) if text else None)]
_Reward = Annotated[float, CsvColumn(_same, _finite)]
_Return = Annotated[float, CsvColumn(lambda total: round(total, 6), _finite)]
_Flag = Annotated[bool, CsvColumn(int, lambda text: text in ("1", "True"))]
_Kind = Annotated[TickKind, CsvColumn(_name, lambda text: TickKind[text.upper()])]
_Outcome = Annotated[Outcome, CsvColumn(_name, lambda text: Outcome[text.upper()])]
_OutcomeOrNone = Annotated[Outcome | None, CsvColumn(_name, lambda text: Outcome[text.upper()] if text else None)]


class TickRow(NamedTuple):
    """A row of actions.csv. Without a policy action, what is about one is -1, `outcome` None."""

    tick: _Whole
    kind: _Kind
    source: _Text
    applied_action: _Text  #: "" where no action was applied
    requested_action: _Text  #: the same, of a policy only
    obs_tick: _OrNone
    due_tick: _OrNone
    delay_ticks: _OrNone
    worker: _Worker
    outcome: _OutcomeOrNone
    lateness_us: _Us
    step_us: _Us
    skipped_ticks: _Whole
    reward: _Reward
    terminated: _Flag
    truncated: _Flag
    episode: _Whole
    episode_return: _Return
    policy_version: _OrNone
    policy_checksum: _Text  #: eight hexadecimal digits
    start_ns: _Whole
    chunk_index: _OrNone = -1  #: which action of its chunk was applied
    state_tick: _OrNone = -1  #: the carried state that it was chosen with had seen the frames up to this tick's
    features_tick: _OrNone = -1  #: of a head's action: tick of the frame that its features came from
    features_worker: _Worker = -1  #: and whose they were

    @classmethod
    def of(cls, header: FrameHeader, action: str = "") -> TickRow:
        """`action`: what was applied, as text."""
        acted, applied = header.kind == TickKind.ACTED, "" if header.source == Source.HELD else action
        return cls(
            tick=header.tick,
            kind=TickKind(header.kind),
            source=_name(Source(header.source)),
            applied_action=applied,
            requested_action=applied if acted else "",
            obs_tick=header.obs_tick if acted else -1,
            due_tick=header.due_tick if acted else -1,
            delay_ticks=header.tick - header.obs_tick if acted else -1,
            worker=header.worker if acted else -1,
            outcome=Outcome(header.outcome) if acted else None,
            lateness_us=(header.start_ns - header.deadline_ns) / NS_PER_US,
            step_us=header.step_ns / NS_PER_US,
            skipped_ticks=header.skipped_ticks,
            reward=header.reward,
            terminated=bool(header.terminated),
            truncated=bool(header.truncated),
            episode=header.episode,
            episode_return=header.episode_return,
            policy_version=header.policy_version if acted else -1,
            policy_checksum=f"{header.policy_checksum:08x}" if acted and header.policy_checksum else "",
            start_ns=header.start_ns,
            chunk_index=header.chunk_index if acted else -1,
            state_tick=header.state_tick if acted else -1,
            features_tick=header.features_tick if acted else -1,
            features_worker=header.features_worker if acted else -1,
        )

    @property
    def deadline_ns(self) -> int:
        """When the tick was due."""
        return self.start_ns - round(self.lateness_us * NS_PER_US)

    @property
    def publish_ns(self) -> int:
        """About when its frame was there: the time of collecting answers (tens of us) is not in the record."""
        return self.start_ns + round(self.step_us * NS_PER_US)


class InferenceRow(NamedTuple):
    """A row of jobs.csv: a `JobRow` for people. -1: no due tick, no answer (`obs_tick`, `episode`); times 0: none."""

    worker: _Worker
    obs_tick: _OrNone
    booked_tick: _Whole
    due_tick: _OrNone
    episode: _OrNone
    outcome: _Outcome
    resolved_tick: _Whole
    inference_ms: _Ms  #: None: no answer came
    booked_ns: _Whole
    start_ns: _Whole
    read_ns: _Whole
    infer_end_ns: _Whole
    write_ns: _Whole

    @classmethod
    def of(cls, job: JobRow) -> InferenceRow:
        return cls(
            worker=job.worker,
            obs_tick=job.obs_tick,
            booked_tick=job.booked_tick,
            due_tick=job.due_tick if job.hold else -1,
            episode=job.episode,
            outcome=Outcome(job.outcome),
            resolved_tick=job.tick,
            inference_ms=round((job.infer_end_ns - job.read_ns) / 1e6, 3) if job.read_ns else None,
            booked_ns=job.booked_ns,
            start_ns=job.start_ns,
            read_ns=job.read_ns,
            infer_end_ns=job.infer_end_ns,
            write_ns=job.write_ns,
        )

    @property
    def frame_tick(self) -> int:
        """The tick of the frame it used, or was booked to use."""
        return self.obs_tick if self.obs_tick >= 0 else self.booked_tick


class RowFormat(Generic[T]):
    """How rows of one class stand in a CSV file.

    Attributes:
        columns: In order: the fields of the class.
        required: Those without a default: a file that lacks one of the others is of an earlier version.
    """

    def __init__(self, kind: type[T]) -> None:
        fields: Any = kind
        self._kind = kind
        self._columns: dict[str, CsvColumn] = {
            name: get_args(hint)[1] for name, hint in get_type_hints(kind, include_extras=True).items()
        }
        self.columns: tuple[str, ...] = fields._fields
        self.required = tuple(name for name in self.columns if name not in fields._field_defaults)

    def written(self, row: T) -> list[object]:
        """For a csv.writer."""
        return [column.write(value) for column, value in zip(self._columns.values(), row, strict=True)]

    def read(self, texts: dict[str, str]) -> T:
        """From a csv.DictReader. ValueError, KeyError or TypeError: the row is damaged."""
        return self._kind(**{name: column.read(texts[name]) for name, column in self._columns.items() if name in texts})


TICKS = RowFormat(TickRow)
INFERENCES = RowFormat(InferenceRow)
