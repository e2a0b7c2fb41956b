"""What a subcommand measured, as JSON, and whether it is worse than what was measured before."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from rtcore.errors import ConfigError

Row = dict[str, Any]
#: What is shown beside a baseline where no condition names a metric.
_SHOWN_METRICS = ("p50_us", "p99_us")
_CONDITION = re.compile(
    r"\s*(?P<profile>[a-z]+)\.(?P<metric>\w+)\s*(?:\[(?P<where>[^\]]*)\])?"
    r"\s*(?P<side>>\s*\+?|<\s*-?)\s*(?P<percent>\d+(?:\.\d+)?)\s*%\s*"
)


@dataclass(frozen=True)
class Result:
    """`rows`: flat dictionaries. `keys`: the fields that name a row, for comparing with an older result.

    `watched`: the rows that a `--fail-if` without a row selection looks at (`ipc`: rtcore's own transports; that
    another library got slower is no regression of ours). `extra`: more top-level fields of the JSON. `drawn`: what only
    the pictures need.
    """

    profile: str
    rows: list[Row]
    keys: tuple[str, ...]
    extra: dict[str, Any] = field(default_factory=dict)
    watched: Callable[[Row], bool] = lambda row: True
    drawn: Any = None

    def to_json(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        return {"profile": self.profile, "machine": dict(machine), "rows": self.rows, **self.extra}


def percentiles_us(times_ns: npt.ArrayLike, which: Sequence[float], prefix: str = "") -> Row:
    """Fields of a row: p50_us, p999_us of 99.9, max_us of 100, each after the prefix; None where there are no times."""
    names = [f"{prefix}{'max' if percent == 100 else f'p{percent:g}'.replace('.', '')}_us" for percent in which]
    times_us = np.asarray(times_ns) / 1e3
    if not times_us.size:
        return dict.fromkeys(names)
    return {name: round(float(us), 3) for name, us in zip(names, np.percentile(times_us, which), strict=True)}


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
        pairs = [part.partition("=") for part in ((match and match["where"]) or "").split(",") if part.strip()]
        where = {name.strip(): value.strip() for name, _, value in pairs}
        if match is None or "" in (*where, *where.values()):
            raise ConfigError(
                f"--fail-if {text!r}: expected <profile>.<metric>>+N% (or <-N% where less is worse), rows chosen in "
                "brackets if wanted: 'ipc.p99>+10%', 'ipc.p99[transport=rtcore-hybrid,readers=1]>+10%'"
            )
        more_is_worse = match["side"].startswith(">")
        change_percent = float(match["percent"]) * (1 if more_is_worse else -1)
        return cls(
            text=text,
            profile=match["profile"],
            metric=match["metric"],
            where=where,
            change_percent=change_percent,
            more_is_worse=more_is_worse,
        )

    def rows_of(self, baseline: Mapping[str, Any]) -> tuple[str, list[Row]]:
        """(the field that the metric is, with or without its unit; the rows that are chosen).

        ConfigError if the baseline has not what the condition names.
        """
        if self.profile != baseline["profile"]:
            raise ConfigError(
                f"--fail-if {self.text!r}: the baseline is a result of {baseline['profile']!r}, "
                f"the condition is about {self.profile!r}; both must be the same"
            )
        fields = sorted({field for row in baseline["rows"] for field in row})
        metrics = [name for name in fields if self.metric in (name, name.rpartition("_")[0])]
        for name in self.where.keys() - set(fields) or (set() if metrics else {self.metric}):
            raise ConfigError(f"--fail-if {self.text!r}: no field {name!r}; there are {', '.join(fields)}")
        if len(metrics) > 1 and self.metric not in metrics:
            raise ConfigError(f"--fail-if {self.text!r}: {self.metric!r} may be {' or '.join(metrics)}; name one")
        metric = self.metric if self.metric in metrics else metrics[0]
        rows = [
            row for row in baseline["rows"] if all(str(row.get(name)) == value for name, value in self.where.items())
        ]
        if not rows:
            chosen = ", ".join(f"{name}={value}" for name, value in self.where.items())
            raise ConfigError(f"--fail-if {self.text!r}: no row of the baseline has {chosen}")
        return metric, rows

    def is_worse(self, old: float, new: float) -> bool:
        limit = old + abs(old) * self.change_percent / 100
        return new > limit if self.more_is_worse else new < limit


class MetricChange(NamedTuple):
    """A row's metric then and now, under a condition (None: shown only). `new` None: it has no number any more."""

    condition: Condition | None
    row: Row
    metric: str
    old: float
    new: float | None

    @property
    def is_worse(self) -> bool:
        """What stopped working is no success."""
        return self.condition is not None and (self.new is None or self.condition.is_worse(self.old, self.new))


class Baseline:
    """An earlier result to compare with, if there is one, and what may not have become worse since."""

    def __init__(self, path: Path | None, conditions: Sequence[str], profile: str) -> None:
        """`ConfigError` for a file that is no result of this profile, and for conditions that it cannot tell about."""
        self._conditions = [Condition.parse(text) for text in conditions]
        if conditions and path is None:
            raise ConfigError(
                "--fail-if needs something to compare with: --baseline OLD.json, written by --json earlier"
            )
        self.content = None if path is None else load_result(path)
        if self.content is not None and self.content["profile"] != profile:
            raise ConfigError(f"--baseline {path}: of {self.content['profile']!r}, expected {profile!r}")
        for condition in self._conditions:
            condition.rows_of(self.content or {})

    def finds_worse(self, result: Result, machine: Mapping[str, Any], console: Console) -> bool:
        """Print both side by side; whether a condition says that the result is worse."""
        if self.content is None:
            return False
        then = self.content.get("machine", {})
        names = ("host", "kernel", "cpu_model", "usable_cpus")
        if differs := [name for name in names if then.get(name) != machine.get(name)]:
            console.print(f"the baseline is of another machine: {', '.join(differs)} differ", style="yellow")
        if new := unmatched(result, self.content):
            words = f"{new} of {len(result.rows)} rows are not in the baseline and are not compared"
            console.print(words, style="yellow")
        if not self._conditions:
            if found := differences(result, self.content):
                console.print(_table_of(result, found))
                console.print("shown only: give --fail-if to have a change end in exit code 3", style="dim")
            else:
                names_shown = ", ".join(_SHOWN_METRICS)
                console.print(
                    f"nothing is compared: no {names_shown} in common with the baseline; name a metric with --fail-if"
                )
            return False
        found = [one for condition in self._conditions for one in compare(result, self.content, condition)]
        console.print(_table_of(result, found))
        worse = sum(one.is_worse for one in found)
        how = f"[bold red]worse than the baseline in {worse} of {len(found)}[/]"
        console.print(how if worse else "not worse than the baseline")
        return worse > 0


def load_result(path: Path) -> dict[str, Any]:
    """A file that `--json` wrote; `ConfigError` if it is something else."""
    try:
        found: Any = json.loads(path.read_text())
    except OSError as error:
        why = error.strerror or str(error)
    except ValueError as error:
        why = f"not JSON ({error})"
    else:
        rows = found.get("rows") if isinstance(found, dict) else None
        if isinstance(rows, list) and "profile" in found:
            parts = [*(("row", row) for row in rows), ("machine", found.get("machine", {}))]
            odd = next((part for part in parts if not isinstance(part[1], dict)), None)
            if odd is None:
                return dict(found)
            why = f"a {odd[0]} that is {odd[1]!r:.40}"
        else:
            why = "no profile and rows in it"
    raise ConfigError(f"--baseline {path}: {why}; expected a file written by --json")


def compare(result: Result, baseline: Mapping[str, Any], condition: Condition) -> list[MetricChange]:
    """Every row of the baseline that the condition selects and that has the number, beside the same row now.

    A row that only the new result has is not compared. `ConfigError` where nothing can be compared: another profile, an
    unknown metric or field, no number in the baseline, no row in common.
    """
    metric, rows = condition.rows_of(baseline)
    found = _compared(result, rows, metric, condition)
    if not found or (result.rows and unmatched(result, baseline) == len(result.rows)):
        raise ConfigError(
            f"--fail-if {condition.text!r}: none of {len(result.rows)} rows can be compared by {metric} with the "
            f"{len(baseline['rows'])} of the baseline. Measure the same {', '.join(result.keys) or 'rows'} as it did"
        )
    return found


def differences(result: Result, baseline: Mapping[str, Any]) -> list[MetricChange]:
    """The watched rows then and now, for reading; nothing is worse, as no condition says what would be."""
    return [one for metric in _SHOWN_METRICS for one in _compared(result, baseline["rows"], metric, None)]


def unmatched(result: Result, baseline: Mapping[str, Any]) -> int:
    """Rows of the result that the baseline does not have."""
    olds = {_key(result, row) for row in baseline["rows"]}
    return sum(_key(result, row) not in olds for row in result.rows)


def _compared(result: Result, rows: list[Row], metric: str, condition: Condition | None) -> list[MetricChange]:
    """Rows without the fields that name a row are of another version of rtcore: they are left out."""
    news = {_key(result, row): _number(row.get(metric)) for row in result.rows}
    is_chosen = condition is not None and bool(condition.where)
    return [
        MetricChange(condition, row, metric, old, news.get(_key(result, row)))
        for row in rows
        if (old := _number(row.get(metric))) is not None
        and all(key in row for key in result.keys)
        and (is_chosen or result.watched(row))
    ]


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return value if is_number else None


def _key(result: Result, row: Row) -> tuple[str, ...]:
    return tuple(str(row.get(key)) for key in result.keys)


def _table_of(result: Result, found: list[MetricChange]) -> Table:
    table = Table("row", "metric", title="Against the baseline", title_justify="left")
    for name in ("then", "now", "change", "allowed"):
        table.add_column(name, justify="right")
    for one in found:
        change = f"{100 * (one.new / one.old - 1):+.1f}%" if one.old and one.new is not None else "-"
        allowed = f"{one.condition.change_percent:+g}%" if one.condition is not None else "-"
        numbers = (f"{one.old:.4g}", "none" if one.new is None else f"{one.new:.4g}", change, allowed)
        name = ", ".join(f"{key}={one.row.get(key)}" for key in result.keys)
        table.add_row(name, one.metric, *numbers, style="red" if one.is_worse else "")
    return table
