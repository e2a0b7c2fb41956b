"""Rows of a record as lanes of workers over ticks: the one place that says where the bar of an inference lies.

Drawn as characters (the live view), by matplotlib (timeline.png) and by Plotly (the page). Pure.
"""

from __future__ import annotations

from typing import NamedTuple

from rtcore.results.axis import TickAxis
from rtcore.results.folder import InferenceRow
from rtcore.scheduling.dispatch import Outcome


class Bar(NamedTuple):
    """One inference in its worker's lane. All in ticks."""

    worker: int
    outcome: Outcome
    booked: int  #: booked at this tick
    start: float  #: computing from here
    end: float  #: to here: the answer was there, or was given up
    until: int  #: an answer waits up to this tick
    settled: int  #: the tick that applied the answer, or found that it is not to be applied
    answered: bool


def bar_of(job: InferenceRow, axis: TickAxis) -> Bar:
    """`axis`: of the ticks around it."""
    answered, given_up = bool(job.write_ns), max(job.resolved_tick, job.booked_tick)
    return Bar(
        worker=job.worker,
        outcome=job.outcome,
        booked=job.booked_tick,
        start=axis.of_ns(job.start_ns) if answered else float(job.booked_tick),
        end=axis.of_ns(job.write_ns) if answered else float(given_up),
        until=max(job.due_tick, job.resolved_tick) if answered else given_up,
        settled=job.resolved_tick,
        answered=answered,
    )
