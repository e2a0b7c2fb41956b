"""One tick while it runs: what the loop fills in, and what counters, trace and invariants are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rtcore.clock import TickPlan
from rtcore.loop.world import StepResult
from rtcore.scheduling.dispatch import Decision, Source
from rtcore.scheduling.jobs import Job


@dataclass(slots=True, init=False)
class Tick:
    """The tick that runs: filled in from top to bottom. One object for all ticks: what is to be kept is copied."""

    plan: TickPlan
    start_ns: int
    collected_ns: int  #: answers and losses were taken in
    decision: Decision
    dispatch_ns: int  #: it was decided what to apply
    jobs: Sequence[Job]
    booked_ns: int  #: these were booked
    result: StepResult
    source: Source
    requested: bytes  #: the action asked for, where another one may have been applied
    header: Any  #: a draft of its frame's `FrameHeader`
    published_ns: int
    end_ns: int  #: idle workers know of their frame
    interval_ticks: int  #: since an action was applied; -1: none is applied, or it is the episode's first
    due_deadline_ns: int  #: of the tick that the action is for; 0: none is applied
