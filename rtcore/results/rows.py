"""Rows of actions.csv and jobs.csv. A class is a file's columns, in order: how each is written and read, what it means.

What a column means stands beside it; where nothing does, it means what the field of the same name means in shared
memory.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, get_args, get_type_hints

import numpy as np
import numpy.typing as npt

from rtcore.clock import FOREVER_NS, NS_PER_US
from rtcore.config.groups import MOST_WORKERS
from rtcore.errors import key_of
from rtcore.memory.layout import FRAME_HEADER, LOG_RECORD, FrameHeader, Record
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.scheduling.jobs import JobRow

T = TypeVar("T", bound=tuple[Any, ...])


class CsvColumn(NamedTuple):
    """How a value stands in a file. `read` raises ValueError, KeyError or TypeError for damage.

    `dtype`: in a NumPy table, where a name stands as in the file, and NaN for None.
    """

    write: Callable[[Any], object]
    read: Callable[[str], Any]
    dtype: type


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


_Text = Annotated[str, CsvColumn(_same, _same, str)]
_Whole = Annotated[int, CsvColumn(_same, _whole, int)]
#: "" for -1: there is none.
_OrNone = Annotated[int, CsvColumn(lambda number: "" if number < 0 else number, _or_none, int)]
_Worker = Annotated[int, CsvColumn(lambda number: "" if number < 0 else number, _worker, int)]
_Us = Annotated[float, CsvColumn(lambda us: round(us, 1), _us, float)]
_Ms = Annotated[
    float | None, CsvColumn(lambda ms: "" if ms is None else ms, lambda text: _us(text) if text else None, float)
]
_Reward = Annotated[float, CsvColumn(_same, _finite, float)]
_Return = Annotated[float, CsvColumn(lambda total: round(total, 6), _finite, float)]
_Flag = Annotated[bool, CsvColumn(int, lambda text: text in ("1", "True"), bool)]
_Kind = Annotated[TickKind, CsvColumn(_name, lambda text: TickKind[text.upper()], str)]
_Outcome = Annotated[Outcome, CsvColumn(_name, lambda text: Outcome[text.upper()], str)]
_OutcomeOrNone = Annotated[Outcome | None, CsvColumn(_name, lambda text: Outcome[text.upper()] if text else None, str)]


class TickRow(NamedTuple):
    """A row of actions.csv. Without a policy action, what is about one is -1, `outcome` None."""

    tick: Annotated[_Whole, "number of the tick, from 0; one that was skipped has no row"]
    kind: Annotated[_Kind, "what governed the tick"]
    source: Annotated[_Text, "who chose the action"]
    applied_action: Annotated[_Text, "what was applied; empty where nothing was: the world was held, or reset"]
    requested_action: Annotated[_Text, "what the policy asked for; empty where it had no action"]
    obs_tick: _OrNone
    due_tick: _OrNone
    delay_ticks: Annotated[_OrNone, "from the tick of that frame to this one; -1: no action"]
    worker: _Worker
    outcome: Annotated[_OutcomeOrNone, "what became of the job that the action is of; empty: no action"]
    lateness_us: Annotated[_Us, "how long after its deadline the tick began"]
    step_us: Annotated[_Us, "how long the world's step took, or its reset"]
    skipped_ticks: _Whole
    reward: _Reward
    terminated: _Flag
    truncated: _Flag
    episode: _Whole
    episode_return: _Return
    policy_version: _OrNone
    policy_checksum: Annotated[_Text, "CRC-32 of those weights, eight hexadecimal digits; empty: no action, or none"]
    start_ns: Annotated[_Whole, "when the tick began, by CLOCK_MONOTONIC of that boot"]
    chunk_index: _OrNone = -1
    state_tick: _OrNone = -1
    features_tick: _OrNone = -1
    features_worker: _Worker = -1
    intervention: _Whole = 0

    @classmethod
    def of(cls, header: FrameHeader, action: str = "", requested: str | None = None) -> TickRow:
        """`action`: what was applied, as text. `requested`: what was asked for; None: the same."""
        acted, applied = header.kind == TickKind.ACTED, "" if header.source == Source.HELD else action
        return cls(
            tick=header.tick,
            kind=TickKind(header.kind),
            source=_name(Source(header.source)),
            applied_action=applied,
            requested_action=(applied if requested is None else requested) if acted else "",
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
            intervention=header.intervention,
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
    due_tick: Annotated[_OrNone, "tick its action was for; -1: for the next one, whenever it was ready"]
    episode: _OrNone
    outcome: Annotated[_Outcome, "how it ended"]
    resolved_tick: Annotated[_Whole, "tick at which it ended"]
    inference_ms: Annotated[_Ms, "from having the frame to having the answer; empty: no answer came"]
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

    Args:
        kind: The class.
        record: What the rows are made of: says what a column means that has no word of its own.

    Attributes:
        columns: In order: the fields of the class.
        required: Those without a default: a file that lacks one of the others is of an earlier version.
        meanings: What each column means.
    """

    def __init__(self, kind: type[T], record: Record[Any]) -> None:
        fields: Any = kind
        self._kind = kind
        hints = {name: get_args(hint) for name, hint in get_type_hints(kind, include_extras=True).items()}
        self._columns: dict[str, CsvColumn] = {name: column for name, (_, column, *_) in hints.items()}
        self.meanings: dict[str, str] = {
            name: meaning[0] if meaning else record.docs[name] for name, (_, _, *meaning) in hints.items()
        }
        self.columns: tuple[str, ...] = fields._fields
        self.required = tuple(name for name in self.columns if name not in fields._field_defaults)

    def written(self, row: T) -> list[object]:
        """For a csv.writer."""
        return [column.write(value) for column, value in zip(self._columns.values(), row, strict=True)]

    def read(self, texts: dict[str, str]) -> T:
        """From a csv.DictReader. ValueError, KeyError or TypeError: the row is damaged."""
        return self._kind(**{name: column.read(texts[name]) for name, column in self._columns.items() if name in texts})

    def table(self, rows: Sequence[T]) -> npt.NDArray[Any]:
        """The rows as one structured array, (rows,): a field for each column, names as in the file."""
        values = zip(*rows, strict=True) if rows else ((),) * len(self.columns)
        arrays: list[npt.NDArray[Any]] = [
            np.array([column.write(value) for value in of] if column.dtype is str else of, column.dtype)
            for column, of in zip(self._columns.values(), values, strict=True)
        ]
        table = np.empty(len(rows), [(name, array.dtype) for name, array in zip(self.columns, arrays, strict=True)])
        for name, array in zip(self.columns, arrays, strict=True):
            table[name] = array
        return table

    def dtype_name(self, name: str) -> str:
        """Of a column of the table, for people."""
        return self._columns[name].dtype.__name__


TICKS = RowFormat(TickRow, FRAME_HEADER)
INFERENCES = RowFormat(InferenceRow, LOG_RECORD)
