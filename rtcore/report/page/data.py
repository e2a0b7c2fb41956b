"""A run's rows as columns and samples: what the page draws. Pure; numbers that do not exist are left out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtcore.clock import NS_PER_MS, NS_PER_US
from rtcore.results.folder import RunFolder
from rtcore.scheduling.dispatch import Outcome, TickKind

Floats = NDArray[np.float64]

#: How many bars the charts over time have at most.
_MAX_BINS = 240


class Episode(NamedTuple):
    """An episode that ended: at which tick, and with which return."""

    tick: int
    total: float


class OverTime(NamedTuple):
    """Counts per stretch of ticks. `rows[name][i]` belongs to ticks `starts[i]` to `starts[i] + width - 1`."""

    starts: list[int]
    width: int
    rows: dict[str, list[int]]


class Samples:
    """The distributions of one run, from its rows."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run

    @cached_property
    def lateness_us(self) -> Floats:
        """Start of each tick after its deadline."""
        return np.array([row.lateness_us for row in self.run.ticks], dtype=float)

    @cached_property
    def delay_ticks(self) -> Floats:
        """Frame to action, for every tick with a policy action."""
        acted = [row.tick - row.obs_tick for row in self.run.ticks if row.kind is TickKind.ACTED]
        return np.array(acted, dtype=float)

    @cached_property
    def interval_ticks(self) -> Floats:
        """From one policy action to the next, within an episode: as the run itself counts it."""
        intervals, last = [], -1
        for row in self.run.ticks:
            if row.kind is TickKind.RESET:
                last = -1
            elif row.kind is TickKind.ACTED:
                if last >= 0:
                    intervals.append(row.tick - last)
                last = row.tick
        return np.array(intervals, dtype=float)

    @cached_property
    def observation_age_ms(self) -> Floats:
        """Start of the tick less the moment its action's frame was there (start of that tick + its world step).

        The run itself measures from publishing to dispatching; both ends here leave out how long collecting the
        answers took, some tens of microseconds that cancel out on average.
        """
        row_of, ages = self.run.row_of, []
        for row in self.run.ticks:
            frame = row_of.get(row.obs_tick)
            if row.kind is TickKind.ACTED and frame is not None:
                ages.append((row.start_ns - frame.publish_ns) / NS_PER_MS)
        return np.array(ages, dtype=float)

    @cached_property
    def inference_ms(self) -> Floats:
        """How long each answered inference took."""
        took = [job.infer_end_ns - job.read_ns for job in self.run.jobs if job.write_ns]
        return np.array(took, dtype=float) / NS_PER_MS

    @cached_property
    def episodes(self) -> list[Episode]:
        """In the order of their ends."""
        ended = (row for row in self.run.ticks if row.kind is not TickKind.RESET and (row.terminated or row.truncated))
        return [Episode(row.tick, row.episode_return) for row in ended]

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many ticks were of each kind."""
        return {kind.name.lower(): sum(row.kind is kind for row in self.run.ticks) for kind in TickKind}

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many inferences ended in each way."""
        return {outcome.name.lower(): sum(job.outcome is outcome for job in self.run.jobs) for outcome in Outcome}

    @property
    def skipped_ticks(self) -> int:
        return sum(row.skipped_ticks for row in self.run.ticks)

    @property
    def acted_fraction(self) -> float:
        """As in the summary: acted / (acted + missed + idle)."""
        kinds = self.kinds
        possible = kinds["acted"] + kinds["missed"] + kinds["idle"]
        return kinds["acted"] / possible if possible else math.nan

    @property
    def measured_hz(self) -> float:
        """Ticks that ran per second, first start to last."""
        ticks = self.run.ticks
        elapsed_ns = ticks[-1].start_ns - ticks[0].start_ns if ticks else 0
        return (len(ticks) - 1) * 1e9 / elapsed_ns if elapsed_ns > 0 else math.nan

    def kinds_over_time(self) -> OverTime:
        """Tick kinds, and "skipped", per stretch."""
        starts, width = self._bins()
        rows = {name: [0] * len(starts) for name in [*self.kinds, "skipped"]}
        for row in self.run.ticks:
            rows[row.kind.name.lower()][(row.tick - starts[0]) // width] += 1
            for tick in range(max(starts[0], row.tick - row.skipped_ticks), row.tick):
                rows["skipped"][(tick - starts[0]) // width] += 1
        return OverTime(starts, width, rows)

    def outcomes_over_time(self) -> OverTime:
        """Outcomes per stretch, by the tick at which they were settled."""
        starts, width = self._bins()
        rows = {name: [0] * len(starts) for name in self.outcomes}
        for job in self.run.jobs:
            index = (job.resolved_tick - starts[0]) // width if starts else -1
            if 0 <= index < len(starts):
                rows[job.outcome.name.lower()][index] += 1
        return OverTime(starts, width, rows)

    def _bins(self) -> tuple[list[int], int]:
        ticks = self.run.ticks
        if not ticks:
            return [], 1
        first, last = ticks[0].tick, ticks[-1].tick
        width = max(1, math.ceil((last - first + 1) / _MAX_BINS))
        return list(range(first, last + 1, width)), width


def quantile(values: Floats, q: float) -> float:
    """The value that a share `q` of the samples does not exceed, as `stats.Distribution.percentile`; NaN of nothing."""
    return float(np.quantile(values, q, method="inverted_cdf")) if len(values) else math.nan


def timeline_columns(run: RunFolder) -> dict[str, Any]:
    """All ticks and inferences for the timeline, column by column: compact, and quick to search."""
    if not run.period_ns:
        return {"ticks": {"tick": []}, "jobs": {"worker": []}, "workers": run.num_workers, "start": [0, 1]}
    actions = _Words()
    sources = _Words()
    ticks = {
        "tick": [row.tick for row in run.ticks],
        "kind": [int(row.kind) for row in run.ticks],
        "source": [sources.number(row.source) for row in run.ticks],
        "action": [actions.number(row.action) for row in run.ticks],
        "obs": [row.obs_tick for row in run.ticks],
        "due": [row.due_tick for row in run.ticks],
        "worker": [row.worker for row in run.ticks],
        "outcome": [-1 if row.outcome is None else int(row.outcome) for row in run.ticks],
        "late": [row.lateness_us for row in run.ticks],
        "step": [row.step_us for row in run.ticks],
        "skipped": [row.skipped_ticks for row in run.ticks],
        "reward": [row.reward for row in run.ticks],
        "end": [2 * row.truncated + row.terminated for row in run.ticks],
        "episode": [row.episode for row in run.ticks],
        "total": [row.episode_return for row in run.ticks],
    }
    return {
        "ticks": ticks,
        "jobs": _job_columns(run),
        "sources": sources.words,
        "actions": actions.words,
        "workers": run.num_workers,
        "period_ms": run.period_ns / NS_PER_MS,
        "start": _first_view(run),
    }


def _job_columns(run: RunFolder) -> dict[str, list[Any]]:
    """`from` and `to` in ticks; the stretches in us, -1 where no answer came."""
    jobs = sorted(run.jobs, key=lambda job: (job.booked_tick, job.worker))
    done = [bool(job.write_ns) for job in jobs]
    return {
        "worker": [job.worker for job in jobs],
        "obs": [job.obs_tick for job in jobs],
        "booked": [job.booked_tick for job in jobs],
        "due": [job.due_tick for job in jobs],
        "episode": [job.episode for job in jobs],
        "outcome": [int(job.outcome) for job in jobs],
        "resolved": [job.resolved_tick for job in jobs],
        "from": [round(run.in_ticks(job.start_ns), 3) if job.write_ns else job.booked_tick for job in jobs],
        "to": [
            round(run.in_ticks(job.write_ns), 3) if job.write_ns else max(job.resolved_tick, job.booked_tick)
            for job in jobs
        ],
        "wake": _stretch_us([job.start_ns - job.booked_ns for job in jobs], done),
        "read": _stretch_us([job.read_ns - job.start_ns for job in jobs], done),
        "infer": _stretch_us([job.infer_end_ns - job.read_ns for job in jobs], done),
        "write": _stretch_us([job.write_ns - job.infer_end_ns for job in jobs], done),
    }


def _stretch_us(took_ns: Sequence[int], done: Sequence[bool]) -> list[float]:
    return [round(ns / NS_PER_US, 1) if there else -1 for ns, there in zip(took_ns, done, strict=True)]


def _first_view(run: RunFolder) -> list[int]:
    """The ticks shown first: ten delays, from a little before the first thing that went wrong, if any did."""
    if not run.ticks:
        return [0, 1]
    first, last = run.ticks[0].tick, run.ticks[-1].tick
    delays = [job.resolved_tick - job.booked_tick for job in run.jobs]
    width = min(last - first + 1, max(60, min(400, 10 * int(np.median(delays)) if delays else 60)))
    wrong = next((row.tick for row in run.ticks if row.kind is TickKind.MISSED or row.skipped_ticks), first)
    begin = max(first, min(wrong - width // 3, last + 1 - width))
    return [begin, begin + width]


class _Words:
    """Texts that repeat, as numbers."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self._number: dict[str, int] = {}

    def number(self, word: str) -> int:
        if word not in self._number:
            self._number[word] = len(self.words)
            self.words.append(word)
        return self._number[word]
