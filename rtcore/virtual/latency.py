"""Inference times for the virtual clock: constant, from a distribution, or from a recorded trace."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rtcore.errors import ConfigError
from rtcore.files.outside import lines_of

#: Inference time [ns] of job number n (0, 1, ...): a pure function, so that a run can be repeated.
JobLatency = Callable[[int], int]

#: Ten minutes: of longer ones the virtual clock would only count ticks.
_LONGEST_MS = 600_000.0
_HOW = (
    "expected constant:MS, normal:MEAN,STD, lognormal:MEDIAN,SIGMA or trace:FILE (times in ms, from 0 to "
    f"{_LONGEST_MS:.0f})"
)


def parse_latency(text: str, seed: int) -> JobLatency:
    """A latency model from its description; `ConfigError` says what is wrong with it."""
    kind, _, rest = text.partition(":")
    if kind == "trace":
        return _trace(Path(rest))
    try:
        numbers = [float(part) for part in rest.split(",")]
    except ValueError as error:
        raise ConfigError(f"latency: got {text!r:.200}; {_HOW}") from error
    wanted = {"constant": 1, "normal": 2, "lognormal": 2}.get(kind)
    if wanted != len(numbers) or not all(0 <= number <= _LONGEST_MS for number in numbers):
        raise ConfigError(f"latency: got {text!r:.200}; {_HOW}")
    if kind == "constant":
        constant_ns = round(numbers[0] * 1e6)
        return lambda job: constant_ns
    centre, spread = numbers

    def draw(job: int) -> int:
        rng = np.random.default_rng(np.random.SeedSequence([seed, 2, job]))
        with np.errstate(over="ignore"):
            value = rng.normal(centre, spread) if kind == "normal" else centre * np.exp(rng.normal(0.0, spread))
        return max(0, round(min(value, _LONGEST_MS) * 1e6))

    return draw


def _trace(path: Path) -> JobLatency:
    """One time [ms] per line, or the column inference_ms of a run's jobs.csv; repeated from the start at its end."""
    times_ns: list[int] = []
    columns = ["inference_ms"]
    rows = csv.reader(lines_of(path, "latency"))
    try:
        for row in rows:
            if rows.line_num == 1 and "inference_ms" in row:
                columns = row
            elif row:
                times_ns += _time_ns(row, columns)
    except (ValueError, csv.Error) as error:
        what = "one number [ms] per line, or a run's jobs.csv"
        raise ConfigError(f"latency: trace {path}, line {rows.line_num}: {error}; expected {what}") from error
    if not times_ns:
        raise ConfigError(f"latency: trace {path} holds no time; expected at least one")
    return lambda job: times_ns[job % len(times_ns)]


def _time_ns(row: list[str], columns: list[str]) -> list[int]:
    """Of a job that has no time yet: none."""
    if len(row) != len(columns):
        raise ValueError(f"{len(row)} columns instead of {len(columns)}")
    text = row[columns.index("inference_ms")]
    if not text:
        return []
    ms = float(text)
    if not 0 <= ms <= _LONGEST_MS:
        raise ValueError(f"{text!r:.40} is no time from 0 to {_LONGEST_MS:.0f} ms")
    return [round(ms * 1e6)]
