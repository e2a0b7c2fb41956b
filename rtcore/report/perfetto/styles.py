"""How each kind of trace event is drawn: its name, its category, what is noted on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from rtcore.memory.trace import TraceKind
from rtcore.report.perfetto.events import ANNOUNCE, JOB_SPAN
from rtcore.scheduling.dispatch import Outcome, TickKind

#: Place of a field in an event; a ninth, the due tick of its job, is appended to it.
TICK_AT, WORKER_AT, BOOKED_AT, FRAME_AT, VALUE_AT, DUE_AT = 3, 4, 5, 6, 7, 8


class Look(NamedTuple):
    """How events of a kind are drawn. `notes`: annotation by name, from which field of the event."""

    name: str
    category: str
    notes: Mapping[str, int] = {}
    instant: bool = False


_JOB_NOTES = {"booked_tick": BOOKED_AT, "worker": WORKER_AT, "frame_seq": FRAME_AT, "frame_tick": TICK_AT}
LOOKS: dict[int, Look] = {
    TraceKind.SLEEP: Look("sleep", "idle"),
    TraceKind.PREPARE: Look("prepare", "tick", {"tick": TICK_AT}),
    TraceKind.TICK: Look("tick", "tick", {"tick": TICK_AT}),
    TraceKind.COLLECT: Look("collect answers", "dispatch", {"tick": TICK_AT}),
    TraceKind.DISPATCH: Look(
        "dispatch", "dispatch", {"tick": TICK_AT, "worker": WORKER_AT, "booked_tick": BOOKED_AT, "due_tick": DUE_AT}
    ),
    TraceKind.BOOK: Look("book jobs", "dispatch", {"tick": TICK_AT}),
    TraceKind.JOB: Look(
        "booked",
        "job",
        {"tick": TICK_AT, "worker": WORKER_AT, "booked_tick": BOOKED_AT, "frame_seq": FRAME_AT, "due_tick": DUE_AT},
        instant=True,
    ),
    TraceKind.STEP: Look("step world", "world", {"tick": TICK_AT}),
    TraceKind.RESET: Look("reset world", "world", {"tick": TICK_AT}),
    TraceKind.PUBLISH: Look("publish frame", "frame", {"tick": TICK_AT, "frame_seq": FRAME_AT}),
    ANNOUNCE: Look("announce frame", "frame", {"tick": TICK_AT}),
    TraceKind.ACCOUNT: Look("account", "tick", {"tick": TICK_AT}),
    TraceKind.OUTCOME: Look(
        "job",
        "job",
        {"tick": TICK_AT, "worker": WORKER_AT, "booked_tick": BOOKED_AT, "due_tick": DUE_AT},
        instant=True,
    ),
    TraceKind.COLLECT_GARBAGE: Look("collect garbage", "tick"),
    TraceKind.IDLE: Look("no job", "idle"),
    JOB_SPAN: Look("job", "job", {**_JOB_NOTES, "due_tick": DUE_AT}),
    TraceKind.WAIT_FRAME: Look("wait for frame", "frame", _JOB_NOTES),
    TraceKind.READ: Look("read frame", "frame", _JOB_NOTES),
    TraceKind.INFER: Look("inference", "inference", _JOB_NOTES),
    TraceKind.HOST_TO_DEVICE: Look("host to device", "inference", _JOB_NOTES),
    TraceKind.COMPUTE: Look("compute", "inference", _JOB_NOTES),
    TraceKind.DEVICE_TO_HOST: Look("device to host", "inference", _JOB_NOTES),
    TraceKind.WRITE: Look("write answer", "job", _JOB_NOTES),
    TraceKind.DRAIN: Look("read the record", "supervisor"),
    TraceKind.WORKER_DOWN: Look("worker down", "supervisor", {"worker": WORKER_AT, "restarts": VALUE_AT}, instant=True),
    TraceKind.WORKER_UP: Look("worker up", "supervisor", {"worker": WORKER_AT}, instant=True),
}
#: Kinds whose value has a name of its own, which becomes part of the slice's name and so of its colour.
NAMED_VALUES: dict[int, tuple[str, type[TickKind] | type[Outcome]]] = {
    TraceKind.TICK: ("kind", TickKind),
    TraceKind.OUTCOME: ("outcome", Outcome),
}


def event_name(kind: int, variant: int) -> str:
    """Of a slice or a moment: "tick acted", "job on_time", "dispatch nothing"."""
    name = LOOKS[kind].name
    if kind in NAMED_VALUES:
        return f"{name} {NAMED_VALUES[kind][1](variant).name.lower()}"
    if kind == TraceKind.DISPATCH:
        return {1: name, 0: f"{name} next of chunk", -1: f"{name} nothing"}[variant]
    return name


def variants(kind: int) -> list[int]:
    """Values that give events of a kind names of their own; -1: a dispatch that applied nothing."""
    if kind in NAMED_VALUES:
        return [int(member) for member in NAMED_VALUES[kind][1]]
    return [1, 0, -1] if kind == TraceKind.DISPATCH else [0]
