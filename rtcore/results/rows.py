"""Rows of a run's record that are kept in memory."""

from __future__ import annotations

from typing import NamedTuple


class JobRow(NamedTuple):
    """How a job ended. Fields as in `layout.LOG_RECORD`; times in ns, 0 where no answer came."""

    log_seq: int
    worker: int
    obs_tick: int
    booked_tick: int
    due_tick: int
    hold: int
    episode: int
    outcome: int
    tick: int
    booked_ns: int
    start_ns: int
    read_ns: int
    infer_end_ns: int
    write_ns: int
    cpu_ns: int
    phase_seq: int
    taken_tick: int = -1
    taken_seq: int = -1
