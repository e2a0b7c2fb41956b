"""Inference times for the virtual clock: constant, from a distribution, or from a recorded trace."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np

from rtcore.errors import ConfigError

#: Inference time [ns] of job number n (0, 1, ...): a pure function, so that a run can be repeated.
LatencyModel = Callable[[int], int]

_HOW = "expected constant:MS, normal:MEAN,STD, lognormal:MEDIAN,SIGMA or trace:FILE (times in ms)"


def parse_latency(text: str, seed: int) -> LatencyModel:
    """A latency model from its description; `ConfigError` says what is wrong with it."""
    kind, _, rest = text.partition(":")
    if kind == "trace":
        return _trace(Path(rest))
    try:
        numbers = [float(part) for part in rest.split(",")]
    except ValueError as error:
        raise ConfigError(f"latency: got {text!r}; {_HOW}") from error
    wanted = {"constant": 1, "normal": 2, "lognormal": 2}.get(kind)
    if wanted != len(numbers) or any(number < 0 for number in numbers):
        raise ConfigError(f"latency: got {text!r}; {_HOW}")
    if kind == "constant":
        constant_ns = round(numbers[0] * 1e6)
        return lambda job: constant_ns
    centre, spread = numbers

    def draw(job: int) -> int:
        rng = np.random.default_rng(np.random.SeedSequence([seed, 2, job]))
        value = rng.normal(centre, spread) if kind == "normal" else centre * np.exp(rng.normal(0.0, spread))
        return max(0, round(value * 1e6))

    return draw


def _trace(path: Path) -> LatencyModel:
    """One time [ms] per line, or the column inference_ms of a run's jobs.csv; repeated from the start at its end."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.reader(file))
    except OSError as error:
        raise ConfigError(f"latency: trace {path}: {error.strerror}") from error
    column, first = 0, 0
    if rows and "inference_ms" in rows[0]:
        column, first = rows[0].index("inference_ms"), 1
    try:
        times_ns = [round(float(row[column]) * 1e6) for row in rows[first:] if row and row[column]]
    except (ValueError, IndexError) as error:
        raise ConfigError(f"latency: trace {path} is not one number [ms] per line: {error}") from error
    if not times_ns or min(times_ns) < 0:
        raise ConfigError(f"latency: trace {path} holds {len(times_ns)} times; expected at least one, none negative")
    return lambda job: times_ns[job % len(times_ns)]
