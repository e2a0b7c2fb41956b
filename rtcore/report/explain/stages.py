"""The way of an answer: how long each part took, from the tick of its frame to its slot, and which was slow. Pure."""

from __future__ import annotations

from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow, TickRow

#: A part counts as slow from this much over its usual time [ns]: less is the machine's noise.
_SLOW_NS = 50_000


class Part(NamedTuple):
    """A stretch of the way from the tick's deadline to the answer, and what it usually takes (median of the run)."""

    name: str
    took_ns: int
    usual_ns: int

    @property
    def excess_ns(self) -> int:
        return self.took_ns - self.usual_ns


#: What a slow part is called where it is the reason, in the order of the way.
_REASONS = {
    "tick began late": "the frame was late: its tick began late",
    "world's step": "the frame was late: the world's step was slow",
    "wake-up and copy": "the worker started late: it had to wait for a CPU, or was slow to read the frame",
    "inference": "the inference was slow",
    "writing": "writing the answer was slow: the worker had to wait for a CPU",
}


class Ways:
    """The ways of all answers of a run."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def parts(self, job: InferenceRow) -> list[Part]:
        """From the deadline of the frame's tick to the answer, in the order of the way. [] without a frame row."""
        row = self._run.row_of.get(job.frame_tick)
        if row is None or not job.write_ns:
            return []
        return [Part(name, took_ns, round(self.usual[name])) for name, took_ns in _stretches(row, job)]

    @cached_property
    def usual(self) -> dict[str, float]:
        """The median of each part over the run."""
        taken: dict[str, list[int]] = {name: [] for name in _REASONS}
        for job in self._run.jobs:
            row = self._run.row_of.get(job.frame_tick)
            if row is not None and job.write_ns:
                for name, took_ns in _stretches(row, job):
                    taken[name].append(took_ns)
        return {name: median(times) if times else 0.0 for name, times in taken.items()}

    def blame(self, job: InferenceRow, late_ns: float) -> str:
        """Which part of the way made an answer late by `late_ns`."""
        parts = self.parts(job)
        if not parts:
            return f"not known: the row of tick {job.frame_tick}, whose frame it used, is not in the record."
        worst = max(parts, key=lambda part: part.excess_ns)
        # Without a due tick nothing promises an answer by now: slow is only what would have been there otherwise.
        slow_ns = max(_SLOW_NS, late_ns / 4 if job.due_tick >= 0 else late_ns)
        if worst.excess_ns < slow_ns:
            total = sum(part.took_ns for part in parts)
            needs = f"every part took about its usual time, {span(total)} in all"
            if job.due_tick >= 0:
                return (
                    f"{needs}: the delay of {job.due_tick - job.booked_tick} ticks is too short for this policy here."
                )
            return f"{needs}: an inference takes longer than the ticks there were since it was booked."
        text = f"{_REASONS[worst.name]}: {span(worst.took_ns)}, usually {span(worst.usual_ns)}."
        if worst.name == "wake-up and copy":
            text += self._wake_up(job)
        others = [part for part in parts if part is not worst and part.excess_ns >= slow_ns]
        return text + "".join(
            f" Also {part.name}: {span(part.took_ns)}, usually {span(part.usual_ns)}." for part in others
        )

    def _wake_up(self, job: InferenceRow) -> str:
        row = self._run.row_of[job.frame_tick]
        woke_ns = job.start_ns - row.publish_ns
        if woke_ns > _SLOW_NS:
            return f" It woke {span(woke_ns)} after the frame was there."
        return f" It was awake when the frame came, {span(job.read_ns - job.start_ns)} before it had it."

    def in_words(self, job: InferenceRow) -> str:
        parts = self.parts(job)
        if not parts:
            took = span(job.infer_end_ns - job.read_ns)
            return (
                f"Inference took {took}, usually {span(self.usual['inference'])}; of the rest the record has no rows."
            )
        listed = ", ".join(f"{part.name} {span(part.took_ns)} ({span(part.usual_ns)})" for part in parts)
        return f"Its way from the deadline of tick {job.frame_tick}, usual times in brackets: {listed}."


def _stretches(row: TickRow, job: InferenceRow) -> list[tuple[str, int]]:
    """The parts of `job`'s way, `row` being the tick of its frame. They sum up to write - deadline."""
    times_ns = (row.deadline_ns, row.start_ns, row.publish_ns, job.read_ns, job.infer_end_ns, job.write_ns)
    return [(name, after - before) for name, (before, after) in zip(_REASONS, pairwise(times_ns), strict=True)]


def span(ns: float) -> str:
    """A duration for people."""
    if abs(ns) < NS_PER_MS:
        return f"{ns / NS_PER_US:.0f} us"
    return f"{ns / NS_PER_MS:.1f} ms" if abs(ns) < NS_PER_S else f"{ns / NS_PER_S:.2f} s"
