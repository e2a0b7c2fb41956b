"""A traced run as a Perfetto trace: a lane per process, flow arrows from frame to job to action to tick.

The file is a stream of `TracePacket`s, written piece by piece: memory does not grow with the length of the run.
Times are CLOCK_MONOTONIC, and the file says so, so that it can be laid over other traces of the same machine. Names are
written once and referred to by number. docs/trace.md says how to read the picture.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from rtcore.clock import NS_PER_S, MonotonicClock, unix_time_s
from rtcore.errors import ConfigError, RtcoreError, key_of
from rtcore.files.whole import whole_file
from rtcore.host.extras import import_extra
from rtcore.memory.trace import TraceKind
from rtcore.report.log import lines_to, show_on_stderr
from rtcore.report.perfetto.events import ANNOUNCE, JOB_SPAN, Events, JobLinks, map_spool, windows, with_spans
from rtcore.results.folder import ACTIONS, CONFIG, SUMMARY, head_of, number_at, read_json, read_table
from rtcore.results.rows import TICKS
from rtcore.scheduling.dispatch import Outcome, TickKind

# -- how each kind of event is drawn ----------------------------------------------------------------------

#: Place of a field in an event; a ninth, the due tick of its job, is appended to it.
TICK_AT, WORKER_AT, BOOKED_AT, FRAME_AT, VALUE_AT, DUE_AT = 3, 4, 5, 6, 7, 8


class EventStyle(NamedTuple):
    """How events of a kind are drawn. `notes`: annotation by name, from which field of the event."""

    name: str
    category: str
    notes: Mapping[str, int] = {}
    instant: bool = False


_TICK, _DOWN = {"tick": TICK_AT}, {"worker": WORKER_AT, "restarts": VALUE_AT}
_JOB = {"booked_tick": BOOKED_AT, "worker": WORKER_AT, "frame_seq": FRAME_AT, "frame_tick": TICK_AT}
#: Of a job, in the lane of the process that decides about it.
_DUE = {"tick": TICK_AT, "worker": WORKER_AT, "booked_tick": BOOKED_AT, "due_tick": DUE_AT}
EVENT_STYLES: dict[int, EventStyle] = {
    TraceKind.SLEEP: EventStyle("sleep", "idle"),
    TraceKind.PREPARE: EventStyle("prepare", "tick", _TICK),
    TraceKind.TICK: EventStyle("tick", "tick", _TICK),
    TraceKind.COLLECT: EventStyle("collect answers", "dispatch", _TICK),
    TraceKind.DISPATCH: EventStyle("dispatch", "dispatch", _DUE),
    TraceKind.FEATURES: EventStyle("features used", "dispatch", _DUE, instant=True),
    TraceKind.INTERVENTION: EventStyle("a person acts", "dispatch", {**_TICK, "take_over": VALUE_AT}, instant=True),
    TraceKind.BOOK: EventStyle("book jobs", "dispatch", _TICK),
    TraceKind.JOB: EventStyle("booked", "job", {**_DUE, "frame_seq": FRAME_AT}, instant=True),
    TraceKind.STEP: EventStyle("step world", "world", _TICK),
    TraceKind.RESET: EventStyle("reset world", "world", _TICK),
    TraceKind.PUBLISH: EventStyle("publish frame", "frame", {**_TICK, "frame_seq": FRAME_AT}),
    ANNOUNCE: EventStyle("announce frame", "frame", _TICK),
    TraceKind.ACCOUNT: EventStyle("account", "tick", _TICK),
    TraceKind.OUTCOME: EventStyle("job", "job", _DUE, instant=True),
    TraceKind.COLLECT_GARBAGE: EventStyle("collect garbage", "tick"),
    TraceKind.IDLE: EventStyle("no job", "idle"),
    JOB_SPAN: EventStyle("job", "job", {**_JOB, "due_tick": DUE_AT}),
    TraceKind.WAIT_FRAME: EventStyle("wait for frame", "frame", _JOB),
    TraceKind.READ: EventStyle("read frame", "frame", _JOB),
    TraceKind.INFER: EventStyle("inference", "inference", _JOB),
    TraceKind.HOST_TO_DEVICE: EventStyle("host to device", "inference", _JOB),
    TraceKind.COMPUTE: EventStyle("compute", "inference", _JOB),
    TraceKind.DEVICE_TO_HOST: EventStyle("device to host", "inference", _JOB),
    TraceKind.WRITE: EventStyle("write answer", "job", _JOB),
    TraceKind.DRAIN: EventStyle("read the record", "supervisor"),
    TraceKind.WORKER_DOWN: EventStyle("worker down", "supervisor", _DOWN, instant=True),
    TraceKind.WORKER_UP: EventStyle("worker up", "supervisor", {"worker": WORKER_AT}, instant=True),
}
#: Kinds whose value has a name of its own, which becomes part of the slice's name and so of its colour.
NAMED_VALUES: dict[int, tuple[str, type[TickKind] | type[Outcome]]] = {
    TraceKind.TICK: ("kind", TickKind),
    TraceKind.OUTCOME: ("outcome", Outcome),
}


#: A dispatch of the head's action: its value is 1, as of any action's first use.
_OF_HEAD = 2


def event_name(kind: int, variant: int) -> str:
    """Of a slice or a moment: "tick acted", "job on_time", "dispatch nothing"."""
    name = EVENT_STYLES[kind].name
    if kind in NAMED_VALUES:
        return f"{name} {key_of(NAMED_VALUES[kind][1](variant))}"
    if kind == TraceKind.DISPATCH:
        return {_OF_HEAD: f"{name} head", 1: name, 0: f"{name} next of chunk", -1: f"{name} nothing"}[variant]
    return name


def variants(kind: int) -> list[int]:
    """Values that give events of a kind names of their own; -1: a dispatch that applied nothing."""
    if kind in NAMED_VALUES:
        return [int(member) for member in NAMED_VALUES[kind][1]]
    return [_OF_HEAD, 1, 0, -1] if kind == TraceKind.DISPATCH else [0]


# -- the file ---------------------------------------------------------------------------------------------

_log = logging.getLogger(__name__)

TRACE_FILE = "trace.perfetto-trace"

_CLOCK_REALTIME = 1
_CLOCK_MONOTONIC = 3
_STATE_CLEARED, _NEEDS_STATE = 1, 2
_BEGIN, _END, _INSTANT, _COUNTER = 1, 2, 3, 4
_ORDER_EXPLICIT = 3
#: Packets are collected for so many events or ticks, then written.
_BATCH_ROWS = 4096
_CURVE_COLUMNS = ("lateness_us", "delay_ticks", "start_ns")
_INT64_MAX = 2**63 - 1


def require_perfetto() -> Any:
    """The module of Perfetto's protobuf classes; `ConfigError` if the package is not installed."""
    return import_extra("perfetto.protos.perfetto.trace.perfetto_trace_pb2", "a trace", "trace")


def convert_folder(folder: Path, progress: Callable[[float], None] = lambda _: None) -> Path:
    """Make `folder/trace.perfetto-trace` of a run's events, then remove those. Returns its path.

    `progress` gets the share that is done, some hundred times. Whatever of the run's other files is missing or
    unreadable is warned of, and the trace is made without it. If anything goes wrong the events stay where they are and
    no half-written trace is left: `ConfigError` without events, with events of another layout version, or without the
    package; OSError if the disk is full.
    """
    proto = require_perfetto()
    processes = map_spool(folder)
    path = folder / TRACE_FILE
    try:
        with whole_file(path) as draft, draft.open("wb") as file:
            notes = _write(proto, file, folder, processes, progress)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{folder}: its trace-*.events are damaged ({type(error).__name__}: {error})") from error
    for events in folder.glob("trace-*.events"):
        events.unlink()
    for note in notes:
        _log.warning(f"trace     {note}")
    return path


def _write(
    proto: Any, file: BinaryIO, folder: Path, processes: Mapping[str, Events], progress: Callable[[float], None]
) -> list[str]:
    """Returns what is not in the trace, in sentences."""
    notes: list[str] = []
    stream = _Stream(proto, file, f"{folder.resolve()} {sum(map(len, processes.values()))}")
    stream.add_clocks()
    summary = read_json(folder / SUMMARY, notes, "how many events were overwritten is not known")
    root = stream.add_root(_title(folder, notes), _description(folder, processes, summary))
    head = _head(folder, summary)
    total = max(1, sum(map(len, processes.values())))
    done = 0
    names = sorted(processes, key=_lane_order)
    lanes = {name: _Lane(stream, root, lane_name(name, head), rank, head) for rank, name in enumerate(names)}
    for window, links in windows(processes):
        for name, lane in lanes.items():
            rows = with_spans(window[name])
            for begin in range(0, len(rows), _BATCH_ROWS):
                lane.draw(rows[begin : begin + _BATCH_ROWS], links)
                stream.flush()
            done += len(window[name])
            progress(done / total)
    for lane in lanes.values():
        lane.close()
    _draw_curves(stream, root, len(processes), folder / ACTIONS, notes)
    stream.flush()
    return notes


def _head(folder: Path, summary: Mapping[str, Any]) -> int:
    """Index of the worker that is the head, also of a run that was killed, which has no summary; -1: there is none."""
    try:
        # What cannot be read of the rows is said where the curves are drawn of them.
        rows = () if summary else read_table(folder / ACTIONS, TICKS.required, TICKS.read, [], "ticks")
        return head_of(summary, rows)
    except ConfigError:
        return -1


def _lane_order(name: str) -> tuple[int, int]:
    """The env process first, then the workers by number, the supervisor last."""
    if name.startswith("worker"):
        return 1, int(name.removeprefix("worker"))
    return (0, 0) if name == "env" else (2, 0)


def lane_name(process: str, head: int) -> str:
    """As people write it: "worker 3", "head"."""
    number = process.removeprefix("worker")
    if number == f"{head}":
        return "head"
    return f"worker {number}" if number != process else process


class _Stream:
    """Packets on their way into the file. A sequence of packets has state (names by number) and one track."""

    def __init__(self, proto: Any, file: BinaryIO, seed: str) -> None:
        self.proto = proto
        self._file = file
        self._begin_batch()
        # Numbers that another trace, laid over this one, does not have as well.
        self._seed = int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8], "little")
        self._sequences = 0

    def _begin_batch(self) -> None:
        # A message of its own for each batch: one that is emptied keeps the memory of all that was ever in it.
        self._batch = self.proto.Trace()
        #: Put a copy of a packet into the batch; another function after each `flush`.
        self.add = self._batch.packet.append

    def flush(self) -> None:
        self._file.write(self._batch.SerializeToString())
        self._begin_batch()

    def add_clocks(self) -> None:
        """The trace's clock is CLOCK_MONOTONIC; and what the date is, within a few microseconds."""
        packet = self._batch.packet.add()
        packet.trusted_packet_sequence_id = self._sequence_id()
        before_ns = MonotonicClock.now_ns()
        unix_ns = int(unix_time_s() * NS_PER_S)
        now_ns = (before_ns + MonotonicClock.now_ns()) // 2
        packet.clock_snapshot.primary_trace_clock = _CLOCK_MONOTONIC
        for clock_id, time_ns in ((_CLOCK_MONOTONIC, now_ns), (_CLOCK_REALTIME, unix_ns)):
            packet.clock_snapshot.clocks.add(clock_id=clock_id, timestamp=time_ns)

    def add_root(self, name: str, description: str) -> int:
        """The track that all others are in, in the order of their rank; returns its uuid."""
        packet = self._batch.packet.add()
        packet.trusted_packet_sequence_id = self._sequence_id()
        root = packet.track_descriptor
        root.uuid = self._uuid(self._sequences)
        root.name, root.description = name, description
        root.child_ordering = _ORDER_EXPLICIT
        return int(root.uuid)

    def begin_sequence(self, root: int, name: str, rank: int, unit: str | None = None) -> tuple[int, Any]:
        """A track under the root (a counter, if it has a unit) with a sequence of its own.

        Returns (sequence id, interned data to fill in before anything else is added).
        """
        sequence_id = self._sequence_id()
        uuid = self._uuid(self._sequences)
        packet = self._batch.packet.add()
        packet.trusted_packet_sequence_id = sequence_id
        track = packet.track_descriptor
        track.uuid, track.parent_uuid, track.name, track.sibling_order_rank = uuid, root, name, rank
        if unit is not None:
            track.counter.unit_name = unit
        packet = self._batch.packet.add()
        packet.trusted_packet_sequence_id = sequence_id
        packet.sequence_flags = _STATE_CLEARED
        packet.trace_packet_defaults.timestamp_clock_id = _CLOCK_MONOTONIC
        packet.trace_packet_defaults.track_event_defaults.track_uuid = uuid
        return sequence_id, packet.interned_data

    def packet(self, sequence_id: int, event_type: int) -> Any:
        """A packet to fill in and to `add`, again and again."""
        packet = self.proto.TracePacket()
        packet.trusted_packet_sequence_id = sequence_id
        packet.sequence_flags = _NEEDS_STATE
        packet.track_event.type = event_type
        return packet

    def _sequence_id(self) -> int:
        self._sequences += 1
        return (self._seed + self._sequences) % 0x7FFF_0000 + 1

    def _uuid(self, number: int) -> int:
        return (self._seed + (number << 32)) % (1 << 63) + 1


class _Lane:
    """One process's track: slices in order and properly nested, whatever the stamps say.

    An event that began before its predecessor had ended (an unlucky moment between two readings of the clock) is
    drawn from there on; one that outlasts the slice it is in is cut off with it.
    """

    def __init__(self, stream: _Stream, root: int, name: str, rank: int, head: int) -> None:
        self._stream, self._head = stream, head
        self._sequence_id, interned = stream.begin_sequence(root, name, rank)
        self._ids = _intern(interned)
        self._end = stream.packet(self._sequence_id, _END)
        self._templates: dict[tuple[int, int, bool], tuple[Any, Any, list[tuple[Any, int]], bool]] = {}
        self._ends_ns: list[int] = []
        self._cursor_ns = 0

    def draw(self, events: Events, links: JobLinks) -> None:
        """Events of one stretch of time (see `events.with_spans`)."""
        due, flows = links.due_of(events).tolist(), links.flow_of(events).tolist()
        publish, dispatch = TraceKind.PUBLISH, TraceKind.DISPATCH
        add = self._stream.add
        for row, due_tick, flow in zip(events.tolist(), due, flows, strict=True):
            kind, fields = row[0], (*row, due_tick)
            packet, event, notes, instant = self._template(kind, fields)
            start_ns = self._begin(row[1])
            packet.timestamp = start_ns
            for note, place in notes:
                note.int_value = fields[place]
            if kind == publish:
                event.flow_ids[:] = links.flows_of_frame(row[FRAME_AT])
            elif (
                kind == dispatch and self._head < 0
            ):  # with a head, features may be used after the action they came with
                event.terminating_flow_ids[:] = [flow] if flow else []
            elif flow:
                event.flow_ids[:] = [flow]
            elif event.flow_ids:
                del event.flow_ids[:]
            add(packet)
            if not instant:
                end_ns = max(row[2], start_ns)
                self._ends_ns.append(min(end_ns, self._ends_ns[-1]) if self._ends_ns else end_ns)

    def close(self) -> None:
        """End what is open."""
        while self._ends_ns:
            self._pop()

    def _begin(self, start_ns: int) -> int:
        """Close what is over by `start_ns`; returns when the next event can begin."""
        while self._ends_ns and self._ends_ns[-1] <= start_ns:
            self._pop()
        self._cursor_ns = max(self._cursor_ns, start_ns)
        return self._cursor_ns

    def _pop(self) -> None:
        self._end.timestamp = self._cursor_ns = max(self._cursor_ns, self._ends_ns.pop())
        self._stream.add(self._end)

    def _template(self, kind: int, fields: tuple[int, ...]) -> tuple[Any, Any, list[tuple[Any, int]], bool]:
        """(packet, its event, annotations and where their values come from, is it a moment) for such an event."""
        variant = fields[VALUE_AT] if kind in NAMED_VALUES or kind == TraceKind.DISPATCH else 0
        if kind == TraceKind.DISPATCH and fields[WORKER_AT] < 0:
            variant = -1
        elif kind == TraceKind.DISPATCH and fields[WORKER_AT] == self._head:
            variant = _OF_HEAD
        key = (kind, variant, fields[DUE_AT] >= 0)
        if key not in self._templates:
            self._templates[key] = self._new_template(*key)
        return self._templates[key]

    def _new_template(self, kind: int, variant: int, has_due: bool) -> tuple[Any, Any, list[tuple[Any, int]], bool]:
        style = EVENT_STYLES.get(kind) or EventStyle(f"kind {kind}", "unknown")
        packet = self._stream.packet(self._sequence_id, _INSTANT if style.instant else _BEGIN)
        event = packet.track_event
        event.name_iid = self._ids[event_name(kind, variant)] if kind in EVENT_STYLES else self._ids["unknown"]
        event.category_iids.append(self._ids[style.category])
        notes = []
        for name, place in style.notes.items():
            if (place == DUE_AT and not has_due) or (variant < 0 and place != TICK_AT):
                continue
            note = event.debug_annotations.add()
            note.name_iid = self._ids[name]
            notes.append((note, place))
        if kind in NAMED_VALUES:
            label, names = NAMED_VALUES[kind]
            note = event.debug_annotations.add()
            note.name_iid = self._ids[label]
            note.string_value_iid = self._ids[key_of(names(variant))]
        return packet, event, notes, style.instant


def _intern(interned: Any) -> dict[str, int]:
    """Every text a lane may need, once, by number; returns the numbers. Perfetto counts each field for itself."""
    texts: dict[str, int] = {}

    def put(field: Any, values: list[str], attribute: str = "name") -> None:
        for value in dict.fromkeys(values):
            iid = texts.setdefault(value, len(texts) + 1)
            setattr(field.add(iid=iid), attribute, value.encode() if attribute == "str" else value)

    put(
        interned.event_names,
        ["unknown", *(event_name(kind, value) for kind in EVENT_STYLES for value in variants(kind))],
    )
    put(interned.event_categories, ["unknown", *(style.category for style in EVENT_STYLES.values())])
    labels = [label for label, _ in NAMED_VALUES.values()]
    put(interned.debug_annotation_names, [*(note for style in EVENT_STYLES.values() for note in style.notes), *labels])
    names = [key_of(member) for _, members in NAMED_VALUES.values() for member in members]
    put(interned.debug_annotation_string_values, names, "str")
    return texts


class _CurvePoint(NamedTuple):
    """One tick. `delay_ticks`: None where no action of the policy was applied."""

    start_ns: int
    lateness_us: float
    delay_ticks: int | None

    @classmethod
    def of(cls, row: Mapping[str, str]) -> _CurvePoint:
        """ValueError: numbers that a trace cannot hold."""
        start_ns, delay_ticks = int(row["start_ns"]), int(row["delay_ticks"]) if row["delay_ticks"] else None
        if not 0 < start_ns <= _INT64_MAX or abs(delay_ticks or 0) > _INT64_MAX:
            raise ValueError(row)
        return cls(start_ns, float(row["lateness_us"]), delay_ticks)


def _draw_curves(stream: _Stream, root: int, rank: int, path: Path, notes: list[str]) -> None:
    """Lateness of every tick and delay of every action, as far as actions.csv can be read."""
    packets: list[Any] = []
    try:
        rows = read_table(path, _CURVE_COLUMNS, _CurvePoint.of, notes, "curves of lateness and delay")
        for number, point in enumerate(rows):
            if not packets:
                for place, (name, unit) in enumerate((("lateness", "us"), ("delay", "ticks"))):
                    sequence_id, _ = stream.begin_sequence(root, name, rank + place, unit)
                    packets.append(stream.packet(sequence_id, _COUNTER))
            lateness, delay = packets
            lateness.timestamp = delay.timestamp = point.start_ns
            lateness.track_event.double_counter_value = point.lateness_us
            stream.add(lateness)
            if point.delay_ticks is not None:
                delay.track_event.counter_value = point.delay_ticks
                stream.add(delay)
            if number % _BATCH_ROWS == 0:
                stream.flush()
    except ConfigError as error:  # of another version
        notes.append(f"{error}: no curves of lateness and delay to show.")


def _title(folder: Path, notes: list[str]) -> str:
    settings = read_json(folder / CONFIG, notes, "the heading names neither world nor policy").get("config")
    if not isinstance(settings, dict):
        settings = {}
    what = [str(settings[name]) for name in ("env_id", "policy") if name in settings]
    return " ".join(["rtcore", *what])


def _description(folder: Path, processes: Mapping[str, Events], summary: Mapping[str, Any]) -> str:
    lost = number_at(summary, "trace", "lost_events")
    said = "" if lost is None else f", {lost:.0f} overwritten before they were collected"
    return f"{folder}: {sum(map(len, processes.values()))} events of {len(processes)} processes{said}"


def main(arguments: list[str] | None = None) -> None:
    """`python -m rtcore.report.perfetto DIR`: for a run whose trace was not written at its end."""
    parser = argparse.ArgumentParser(
        prog="python -m rtcore.report.perfetto",
        description="Make trace.perfetto-trace of the trace-*.events files that a traced run has left.",
        epilog="example:\n  python -m rtcore.report.perfetto runs/latest",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="the run's folder")
    try:
        folder = parser.parse_args(arguments).folder
        with lines_to(show_on_stderr, logging.WARNING):
            print(convert_folder(folder))
    except (RtcoreError, OSError) as error:
        print(f"{parser.prog}: {type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2 if isinstance(error, ConfigError) else 1) from error
