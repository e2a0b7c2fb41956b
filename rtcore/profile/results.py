"""What a subcommand measured, as JSON, and whether it is worse than what was measured before."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from rtcore.errors import ConfigError

Row = dict[str, Any]
_UNITS = ("_us", "_ms", "_ns", "_s", "_bytes", "_mb", "_hz", "_percent", "_ticks", "_fraction")
_CONDITION = re.compile(
    r"\s*(?P<profile>[a-z]+)\.(?P<metric>\w+)\s*(?:\[(?P<where>[^\]]*)\])?"
    r"\s*(?P<side>>\s*\+?|<\s*-?)\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*"
)


@dataclass(frozen=True)
class Result:
    """`rows`: flat dictionaries. `keys`: the fields that name a row, for comparing with an older result.

    `watched`: the rows that a `--fail-if` without a row selection looks at (`ipc`: rtcore's own transports; that
    another library got slower is no regression of ours). `extra`: more top-level fields of the JSON.
    """

    profile: str
    rows: list[Row]
    keys: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    watched: Callable[[Row], bool] = lambda row: True

    def to_json(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        return {"profile": self.profile, "machine": dict(machine), "rows": self.rows, **self.extra}


class Condition(NamedTuple):
    """One `--fail-if`: `ipc.p99>+10%`, `ipc.p99[transport=rtcore-hybrid,readers=1]>+10%`, `scale.acted<-2%`.

    `change_percent` is signed: +10 fails what grew by more than 10%, -2 what shrank by more than 2%.
    """

    text: str
    profile: str
    metric: str
    where: dict[str, str]
    change_percent: float
    more_is_worse: bool

    @classmethod
    def parse(cls, text: str) -> Condition:
        match = _CONDITION.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--fail-if {text!r}: expected <profile>.<metric>>+N% (or <-N% where less is worse), rows chosen in "
                "brackets if wanted: 'ipc.p99>+10%', 'ipc.p99[transport=rtcore-hybrid,readers=1]>+10%'"
            )
        where = {}
        for part in filter(None, map(str.strip, (match["where"] or "").split(","))):
            name, equals, value = part.partition("=")
            if not (name.strip() and equals and value.strip()):
                raise ConfigError(f"--fail-if {text!r}: got [{part}], expected [field=value,...]")
            where[name.strip()] = value.strip()
        more_is_worse = match["side"].startswith(">")
        change_percent = float(match["percent"]) * (1 if more_is_worse else -1)
        return cls(text, match["profile"], match["metric"], where, change_percent, more_is_worse)

    def selects(self, row: Row) -> bool:
        return all(str(row.get(name)) == value for name, value in self.where.items())

    def is_worse(self, old: float, new: float) -> bool:
        limit = old + abs(old) * self.change_percent / 100
        return new > limit if self.more_is_worse else new < limit


class Comparison(NamedTuple):
    """A row's metric then and now, under a condition (None: shown only). `new` None: it has no number any more."""

    condition: Condition | None
    row: Row
    metric: str
    old: float
    new: float | None
    worse: bool


def load_result(path: Path) -> dict[str, Any]:
    """A file that `--json` wrote; `ConfigError` if it is something else."""
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--baseline {path}: {error.strerror or error}; expected a file written by --json") from error
    except ValueError as error:
        raise ConfigError(f"--baseline {path}: not JSON ({error}); expected a file written by --json") from error
    if not isinstance(found, dict) or not isinstance(found.get("rows"), list) or "profile" not in found:
        raise ConfigError(f"--baseline {path}: no profile and rows in it; expected a file written by --json")
    odd = next((row for row in found["rows"] if not isinstance(row, dict)), None)
    if odd is not None or not isinstance(found.get("machine", {}), dict):
        what = f"a row that is {odd!r:.40}" if odd is not None else "a machine that has no fields"
        raise ConfigError(f"--baseline {path}: {what}; expected a file written by --json")
    return found


def check_condition(condition: Condition, baseline: Mapping[str, Any]) -> None:
    """`ConfigError` if the baseline has not what the condition names: better before minutes of measuring than after."""
    if condition.profile != baseline["profile"]:
        raise ConfigError(
            f"--fail-if {condition.text!r}: the baseline is a result of {baseline['profile']!r}, "
            f"the condition is about {condition.profile!r}; both must be the same"
        )
    _field(condition, baseline["rows"])
    for name in condition.where:
        _known(condition, name, {key for row in baseline["rows"] for key in row})
    if not any(map(condition.selects, baseline["rows"])):
        chosen = ", ".join(f"{name}={value}" for name, value in condition.where.items())
        raise ConfigError(f"--fail-if {condition.text!r}: no row of the baseline has {chosen}")


def compare(result: Result, baseline: Mapping[str, Any], condition: Condition) -> list[Comparison]:
    """Every row of the baseline that the condition selects and that has the number, beside the same row now.

    A row that has no number now, or is not there at all, is worse: what stopped working is no success. A row that
    only the new result has is not compared. `ConfigError` where nothing can be compared: another profile, an unknown
    metric or field, no number in the baseline, no row in common.
    """
    if result.profile != baseline["profile"]:
        raise ConfigError(f"this is a result of {result.profile!r}, the baseline one of {baseline['profile']!r}")
    check_condition(condition, baseline)
    metric = _field(condition, baseline["rows"])
    rows = [row for row in _named(baseline["rows"], result.keys) if not condition.where or condition.selects(row)]
    if not condition.where:
        rows = [row for row in rows if result.watched(row)]
    pairs = list(_pairs(result, rows, metric))
    if result.rows and unmatched(result, baseline) == len(result.rows):
        pairs = []  # not one row in common: it is not that something stopped working, something else was measured
    if not pairs:
        olds = {_key(row, result.keys): row for row in baseline["rows"]}
        raise ConfigError(
            f"--fail-if {condition.text!r}: none of {len(result.rows)} rows can be compared by {metric} with those of "
            f"the baseline (its {len(olds)} rows: {_some(olds)}). Measure the same "
            f"{', '.join(result.keys) or 'rows'} as the baseline did"
        )
    return [
        Comparison(condition, row, metric, old, new, new is None or condition.is_worse(old, new))
        for row, old, new in pairs
    ]


def differences(result: Result, baseline: Mapping[str, Any], metrics: tuple[str, ...]) -> list[Comparison]:
    """The watched rows then and now, for reading; nothing is worse, as no condition says what would be."""
    rows = [row for row in _named(baseline["rows"], result.keys) if result.watched(row)]
    found = [(pair, metric) for metric in metrics for pair in _pairs(result, rows, metric)]
    return [Comparison(None, row, metric, old, new, False) for (row, old, new), metric in found]


def unmatched(result: Result, baseline: Mapping[str, Any]) -> int:
    """Rows of the result that the baseline does not have."""
    olds = {_key(row, result.keys) for row in baseline["rows"]}
    return sum(_key(row, result.keys) not in olds for row in result.rows)


def row_name(row: Row, keys: tuple[str, ...]) -> str:
    return ", ".join(f"{key}={row.get(key)}" for key in keys)


def _pairs(result: Result, olds: list[Row], metric: str) -> Iterator[tuple[Row, float, float | None]]:
    """Rows of a baseline that have the number, with it and with what the same row has now."""
    news = {_key(row, result.keys): row for row in result.rows}
    for row in olds:
        old = _number(row.get(metric))
        if old is not None:
            yield row, old, _number(news.get(_key(row, result.keys), {}).get(metric))


def _named(rows: list[Row], keys: tuple[str, ...]) -> list[Row]:
    """Without rows of another version of rtcore that named them by other fields."""
    return [row for row in rows if all(key in row for key in keys)]


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _key(row: Row, keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(str(row.get(key)) for key in keys)


def _field(condition: Condition, rows: list[Row]) -> str:
    """The field a metric means: its name, with or without its unit."""
    numbers = {key for row in rows for key, value in row.items() if isinstance(value, (int, float, type(None)))}
    for name in (condition.metric, *(condition.metric + unit for unit in _UNITS)):
        if name in numbers:
            return name
    _known(condition, condition.metric, numbers)
    raise AssertionError("unreachable")


def _known(condition: Condition, name: str, names: set[str]) -> None:
    if name not in names:
        raise ConfigError(f"--fail-if {condition.text!r}: no field {name!r}; there are {', '.join(sorted(names))}")


def _some(olds: Mapping[tuple[str, ...], Row]) -> str:
    names = ["/".join(key) for key in list(olds)[:3]]
    return "; ".join(names) + (" ..." if len(olds) > 3 else "")
