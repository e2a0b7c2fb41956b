"""Predicts the acted fraction of a schedule by simulating it job by job, as `Schedule` and `Dispatcher` would. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapreplace
from typing import NamedTuple


class Acted(NamedTuple):
    """Shares of ticks with a policy's action."""

    on_time: float  #: an action that arrived by its due tick
    late: float  #: an action that arrived later, and was still the newest


def acted_shares(
    taus_ticks: Iterable[int],
    *,
    workers: int,
    delay_ticks: int,
    stride_ticks: int,
    hold: bool = True,
    drop_late: bool = False,
    chunk: int = 1,
    from_frame: bool = False,
) -> Acted:
    """The shares of ticks at which a policy acts, if its inferences take `taus_ticks`, one after another.

    Args:
        taus_ticks: From a worker's booking to the first tick at which its answer is there, job by job, each at least 1.
            The first ones are not counted (the workers are not spaced yet), nor those that end after the last start.
        workers: At least 1; the one that has been idle longest takes the next job.
        delay_ticks: From a start to the tick that its action is due at.
        stride_ticks: The least ticks between two starts; 0: every idle worker starts at every tick.
        hold: Whether an action waits for its due tick.
        drop_late: Whether a late action is dropped.
        chunk: Actions per inference, for consecutive ticks from the due tick on.
        from_frame: The first of them is for the tick after the start, not for the due tick.
    """
    free = [0] * workers
    jobs: list[tuple[int, int, int]] = []
    start = -stride_ticks
    for tau in taus_ticks:
        start = max(start + stride_ticks, free[0])
        ready = start + tau
        heapreplace(free, ready)
        due = start + delay_ticks if hold else ready
        last = (start if from_frame else due - 1) + chunk
        if ready <= due:
            jobs.append((due, start, max(due, last)))
        elif not drop_late or ready <= last:
            jobs.append((ready, start, max(ready, last)))
    jobs.sort()
    skipped = min(len(jobs) // 4, 2 * workers)
    # Only ticks before the last start are decided. Count from one action to another: whole strides.
    known = [job[0] for job in jobs[skipped:] if job[0] < start]
    if len(known) < 2:
        return Acted(0.0, 0.0)
    first, end = known[0], known[-1]
    acted, late, covered, newest = 0, 0, first, -1
    for applied, obs, last in jobs:
        if obs >= newest:  # else a newer one was applied before it
            newest = obs
            beyond = min(last + 1, end)
            if beyond > covered:
                ticks = beyond - max(covered, applied)
                acted, covered = acted + ticks, beyond
                if hold and applied > obs + delay_ticks:
                    late += ticks
    return Acted((acted - late) / (end - first), late / (end - first))
