"""What comes of a schedule, by going through it job by job: the arithmetic of `Schedule` and `Dispatcher`. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapreplace
from typing import NamedTuple


class Acted(NamedTuple):
    """Shares of ticks with a policy's action."""

    on_time: float  #: one that was there at its due tick
    late: float  #: one that came after it, and was still the newest


def acted_shares(
    taus_ticks: Iterable[int],
    *,
    workers: int,
    delay_ticks: int,
    stride_ticks: int,
    hold: bool = True,
    drop_late: bool = False,
    chunk: int = 1,
) -> Acted:
    """On how many ticks a policy acts, where one inference after another takes `taus_ticks`.

    Args:
        taus_ticks: From a worker's booking to the first tick at which its answer is there, job by job, each at least 1.
            The first ones, in which the workers get into step, are not counted, nor those whose end is not seen.
        workers: At least 1; whoever has been idle for longest takes the next job.
        delay_ticks: From a start to the tick that its action is due at.
        stride_ticks: The least ticks between two starts; 0: every idle worker starts at every tick.
        hold: Whether an action waits for its due tick.
        drop_late: Whether one that comes after that tick is thrown away.
        chunk: Actions of an answer, for so many ticks from the due tick on.
    """
    free = [0] * workers
    jobs: list[tuple[int, int, int]] = []
    start = -stride_ticks
    for tau in taus_ticks:
        start = max(start + stride_ticks, free[0])
        ready = start + tau
        heapreplace(free, ready)
        due = start + delay_ticks if hold else ready
        if ready <= due:
            jobs.append((due, start, due + chunk - 1))
        elif not drop_late or ready < due + chunk:
            jobs.append((ready, start, max(ready, due + chunk - 1)))
    jobs.sort()
    skipped = min(len(jobs) // 4, 2 * workers)
    # What acts before the last start is known. From one action to another: whole strides.
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
