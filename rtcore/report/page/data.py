"""A run's rows as samples, and counted again as its summary counts them. Pure; numbers that do not exist are NaN."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rtcore.clock import NS_PER_MS
from rtcore.errors import key_of
from rtcore.report.colours import KIND_COLOURS
from rtcore.report.lanes import shade_of
from rtcore.results.folder import RunFolder
from rtcore.results.rows import TickRow
from rtcore.results.summary import hz_between
from rtcore.scheduling.dispatch import Outcome, TickKind

Floats = NDArray[np.float64]

#: How many bars the charts over time have at most.
_MAX_BINS = 240


class EpisodeEnd(NamedTuple):
    """An episode that ended: at which tick, and with which return."""

    tick: int
    total: float


class OverTime(NamedTuple):
    """Counts per stretch of ticks. `rows[name][i]` belongs to ticks `starts[i]` to `starts[i] + width - 1`."""

    starts: list[int]
    width: int
    rows: dict[str, list[int]]


class RunDistributions:
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
    def episodes(self) -> list[EpisodeEnd]:
        """In the order of their ends."""
        ended = (row for row in self.run.ticks if row.kind is not TickKind.RESET and (row.terminated or row.truncated))
        return [EpisodeEnd(row.tick, row.episode_return) for row in ended]

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many ticks were of each kind."""
        return {key_of(kind): sum(row.kind is kind for row in self.run.ticks) for kind in TickKind}

    @cached_property
    def outcomes(self) -> dict[str, int]:
        """How many inferences ended in each way."""
        return {key_of(outcome): sum(job.outcome is outcome for job in self.run.jobs) for outcome in Outcome}

    @cached_property
    def base_ticks(self) -> int:
        """Ticks at which a base action stood in for the head's."""
        return sum(shade_of(row, self.run.head) == "base" for row in self.run.ticks)

    @property
    def skipped_ticks(self) -> int:
        return sum(row.skipped_ticks for row in self.run.ticks)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """The run's summary.json; of a run without one (killed, still going on), as much of it as the rows tell."""
        return self.run.summary or self._counted_again()

    def _counted_again(self) -> dict[str, Any]:
        ticks, kinds, intervals = self.run.ticks, self.kinds, self.interval_ticks
        possible = kinds["acted"] + kinds["missed"] + kinds["idle"]
        points, returns = sum(row.reward for row in ticks), [episode.total for episode in self.episodes]
        cv = float(intervals.std() / intervals.mean()) if len(intervals) else math.nan
        summary: dict[str, Any] = {
            "actions": {
                "acted_fraction": kinds["acted"] / possible if possible else math.nan,
                "jobs": len(self.run.jobs),
                "outcomes": self.outcomes,
                "interval_ticks": {"mean": _mean(intervals), "cv": cv},
                "delay_ticks": _quantiles(self.delay_ticks),
                "observation_age_ms": _quantiles(self.observation_age_ms),
            },
            "plan": {"workers": self.run.num_workers},
            "workers": [self._worker(place) for place in range(self.run.num_workers)],
            "episodes": {"count": len(returns), "return_mean": _mean(np.array(returns)), "points": points},
        }
        if self.run.head >= 0:
            acted = {"acted_ticks": kinds["acted"] - self.base_ticks, "base_ticks": self.base_ticks}
            summary["head"] = self._worker(self.run.head) | acted
        if ticks:
            elapsed_ns = ticks[-1].start_ns - ticks[0].start_ns
            summary["episodes"]["points_per_1000_ticks"] = 1000 * points / len(ticks)
            summary["ticks"] = {
                "count": len(ticks),
                "kinds": kinds,
                "skipped": self.skipped_ticks,
                "hz": hz_between(len(ticks), elapsed_ns),
                "lateness_us": _quantiles(self.lateness_us),
            }
        return summary if ticks or self.run.jobs else {}

    def _worker(self, place: int) -> dict[str, Any]:
        took = [job.infer_end_ns - job.read_ns for job in self.run.jobs if job.worker == place and job.write_ns]
        return {"inferences": len(took), "inference_ms": _quantiles(np.array(took, dtype=float) / NS_PER_MS)}

    def kinds_over_time(self) -> OverTime:
        """Tick kinds, and "skipped", per stretch."""
        ran = [(shade_of(row, self.run.head), row.tick) for row in self.run.ticks]
        gone = [("skipped", tick) for tick in skipped_between(self.run.ticks)]
        return self._over_time([*KIND_COLOURS], [*ran, *gone])

    def outcomes_over_time(self) -> OverTime:
        """Outcomes per stretch, by the tick at which they were settled."""
        settled = [(key_of(job.outcome), job.resolved_tick) for job in self.run.jobs]
        return self._over_time([*self.outcomes], settled)

    def _over_time(self, names: Sequence[str], events: Sequence[tuple[str, int]]) -> OverTime:
        if not self.run.ticks:
            return OverTime([], 1, {})
        first, last = self.run.ticks[0].tick, self.run.ticks[-1].tick
        width = max(1, math.ceil((last - first + 1) / _MAX_BINS))
        starts = list(range(first, last + 1, width))
        counts = Counter((name, (tick - first) // width) for name, tick in events if first <= tick <= last)
        return OverTime(starts, width, {name: [counts[name, bin] for bin in range(len(starts))] for name in names})


def skipped_between(ticks: Sequence[TickRow]) -> list[int]:
    """The ticks that did not run, from the first that did on."""
    return [gone for row in ticks for gone in range(max(ticks[0].tick, row.tick - row.skipped_ticks), row.tick)]


def quantile(values: Floats, q: float) -> float:
    """The value that a share `q` of the samples does not exceed, as `stats.Distribution.percentile`; NaN of nothing."""
    return float(np.quantile(values, q, method="inverted_cdf")) if len(values) else math.nan


def _quantiles(values: Floats) -> dict[str, float]:
    return {"p50": quantile(values, 0.5), "p99": quantile(values, 0.99), "max": quantile(values, 1.0)}


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else math.nan
