"""Reads a Perfetto trace back with the package's own protobuf classes, and refuses what its UI would draw wrongly."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto

CLOCK_MONOTONIC = 3
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4
#: A flow passes through these, in this order; it may begin later or end earlier.
FLOW_ORDER = ("publish frame", "read frame", "inference", "write answer", "features used", "dispatch", "dispatch head")


class Slice(NamedTuple):
    lane: str
    name: str
    category: str
    start_ns: int
    end_ns: int
    depth: int
    notes: dict[str, Any]


class FlowEnd(NamedTuple):
    at_ns: int
    lane: str
    name: str
    notes: dict[str, Any]


@dataclass
class Sequence:
    """Packets of one sequence id: its names by number, its track, its open slices."""

    track: int = 0
    clock: int = 0
    names: dict[int, str] = field(default_factory=dict)
    categories: dict[int, str] = field(default_factory=dict)
    note_names: dict[int, str] = field(default_factory=dict)
    note_values: dict[int, str] = field(default_factory=dict)
    open: list[tuple[str, str, int, dict[str, Any]]] = field(default_factory=list)
    now_ns: int = 0


@dataclass
class Parsed:
    lanes: list[str] = field(default_factory=list)  #: in the order of their rank
    root: str = ""
    slices: list[Slice] = field(default_factory=list)
    instants: list[Slice] = field(default_factory=list)
    counters: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: defaultdict(list))
    flows: dict[int, list[FlowEnd]] = field(default_factory=lambda: defaultdict(list))
    clocks: dict[int, int] = field(default_factory=dict)
    primary_clock: int = 0

    def named(self, name: str) -> list[Slice]:
        return [one for one in (*self.slices, *self.instants) if one.name == name]

    def counts(self, prefix: str) -> Counter[str]:
        """How many events are named `prefix` and a word, by that word."""
        names = [one.name for one in (*self.slices, *self.instants)]
        return Counter(name.removeprefix(prefix + " ") for name in names if name.startswith(prefix + " "))


def parse(path: Path, *, flows_in_order: bool = True) -> Parsed:
    """Everything in the file, after checking that it is well formed."""
    trace = proto.Trace()
    trace.ParseFromString(path.read_bytes())
    parsed = Parsed()
    sequences: defaultdict[int, Sequence] = defaultdict(Sequence)
    tracks, ranks = {}, {}
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id > 0
        sequence = sequences[packet.trusted_packet_sequence_id]
        if packet.HasField("clock_snapshot"):
            parsed.primary_clock = packet.clock_snapshot.primary_trace_clock
            parsed.clocks = {clock.clock_id: clock.timestamp for clock in packet.clock_snapshot.clocks}
        elif packet.HasField("track_descriptor"):
            track = packet.track_descriptor
            assert track.uuid not in tracks and track.name
            tracks[track.uuid] = track.name
            if track.parent_uuid:
                assert track.parent_uuid in tracks
                ranks[track.uuid] = track.sibling_order_rank
            else:
                parsed.root = track.name
        elif packet.HasField("trace_packet_defaults"):
            _learn(sequence, packet)
            assert sequence.track in tracks
        else:
            _event(parsed, sequence, packet, tracks[sequence.track])
    assert not any(sequence.open for sequence in sequences.values()), "a slice has no end"
    parsed.lanes = [tracks[uuid] for uuid in sorted(ranks, key=ranks.__getitem__)]
    assert len(set(ranks.values())) == len(ranks)
    if flows_in_order:
        _check_flows(parsed)
    return parsed


def _learn(sequence: Sequence, packet: Any) -> None:
    assert packet.sequence_flags & proto.TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
    defaults, data = packet.trace_packet_defaults, packet.interned_data
    sequence.track, sequence.clock = defaults.track_event_defaults.track_uuid, defaults.timestamp_clock_id
    for target, entries in (
        (sequence.names, data.event_names),
        (sequence.categories, data.event_categories),
        (sequence.note_names, data.debug_annotation_names),
    ):
        target.update((entry.iid, entry.name) for entry in entries)
        assert len(target) == len(entries)
    sequence.note_values.update((entry.iid, entry.str.decode()) for entry in data.debug_annotation_string_values)


def _event(parsed: Parsed, sequence: Sequence, packet: Any, lane: str) -> None:
    event = packet.track_event
    assert packet.sequence_flags & proto.TracePacket.SEQ_NEEDS_INCREMENTAL_STATE
    assert sequence.clock == CLOCK_MONOTONIC
    assert packet.timestamp >= sequence.now_ns, f"{lane}: time goes back"
    sequence.now_ns = packet.timestamp
    if event.type == COUNTER:
        is_float = event.HasField("double_counter_value")
        value = event.double_counter_value if is_float else float(event.counter_value)
        parsed.counters[lane].append((packet.timestamp, value))
        return
    if event.type == END:
        name, category, start_ns, notes = sequence.open.pop()
        parsed.slices.append(Slice(lane, name, category, start_ns, packet.timestamp, len(sequence.open), notes))
        return
    name, category = sequence.names[event.name_iid], sequence.categories[event.category_iids[0]]
    notes = {sequence.note_names[note.name_iid]: _value(sequence, note) for note in event.debug_annotations}
    for flow in (*event.flow_ids, *event.terminating_flow_ids):
        parsed.flows[flow].append(FlowEnd(packet.timestamp, lane, name, notes))
    if event.type == BEGIN:
        sequence.open.append((name, category, packet.timestamp, notes))
    else:
        assert event.type == INSTANT
        parsed.instants.append(Slice(lane, name, category, packet.timestamp, packet.timestamp, 0, notes))


def _value(sequence: Sequence, note: Any) -> Any:
    return sequence.note_values[note.string_value_iid] if note.string_value_iid else note.int_value


def _check_flows(parsed: Parsed) -> None:
    for number, ends in parsed.flows.items():
        ends.sort(key=lambda end: (end.at_ns, FLOW_ORDER.index(end.name)))
        assert len(ends) >= 2, f"flow {number} leads nowhere"
        names = [end.name for end in ends]
        first_used = names.index("features used") if "features used" in names else len(names)
        assert "write answer" not in names[first_used:], f"flow {number} uses features before they are there: {ends}"
        # A head may use features again and again, before and after the action that came with them is applied.
        places = [FLOW_ORDER.index(name) for name in names if name != "features used"]
        assert places == sorted(set(places)), f"flow {number} is out of order: {ends}"
