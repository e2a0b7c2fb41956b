"""Rows of a trace, made up, and what Perfetto is given for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.trace import TraceKind
from rtcore.scheduling.dispatch import TickKind

K = TraceKind


def events(*rows: tuple[int, ...]) -> Any:
    """(kind, start_ns, end_ns, tick, worker, booked_tick, frame_seq, value); what is left out is -1, the value 0."""
    table = np.zeros(len(rows), TRACE_EVENT.dtype)
    for index, row in enumerate(rows):
        filled = [*row, *(-1,) * (7 - len(row))][:7]
        table[index] = (*filled, row[7] if len(row) > 7 else 0)
    return table


def tick(
    number: int,
    at: int,
    *,
    worker: int = -1,
    booked: int = -1,
    first_use: int = 0,
    frame: int = -1,
    kind: TickKind = TickKind.ACTED,
) -> list[tuple[int, ...]]:
    """A tick of 70 ns as the env process writes it."""
    return [
        (K.TICK, at, at + 60, number, -1, -1, -1, kind),
        (K.COLLECT, at, at + 10, number),
        (K.DISPATCH, at + 10, at + 20, number, worker, booked, -1, first_use),
        (K.BOOK, at + 20, at + 30, number),
        (K.STEP, at + 30, at + 40, number),
        (K.PUBLISH, at + 40, at + 50, number, -1, -1, frame),
        (K.ACCOUNT, at + 50, at + 70, number),
    ]


def job(worker: int, booked: int, frame: int, at: int) -> list[tuple[int, ...]]:
    """A worker's job of 40 ns."""
    about = (booked, worker, booked, frame)
    return [
        (K.WAIT_FRAME, at, at + 5, *about),
        (K.READ, at + 5, at + 10, *about),
        (K.INFER, at + 10, at + 30, *about),
        (K.COMPUTE, at + 10, at + 25, *about),
        (K.WRITE, at + 30, at + 40, *about),
    ]
