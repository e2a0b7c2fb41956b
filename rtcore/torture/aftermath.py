"""What a run's folder must look like, whatever happened to the run: every count agrees, every file can be read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rtcore.clock import NS_PER_S
from rtcore.errors import RtcoreError
from rtcore.learn.checkpoint import load_state
from rtcore.recording.reader import Recording
from rtcore.results.run_record import RECENT_EPISODES

#: Exit codes of a run whose last checkpoint was written: to its end, or ended by SIGHUP, SIGINT, SIGTERM.
ORDERLY = (0, 129, 130, 143)
Row = dict[str, str]
#: A worker of the run after its death may have one row less in jobs.csv than was counted.
_JOBS_OF_A_DEAD_ENV = 4


def check_folder(out: Path, *, ticks: int, exitcode: int, env_died: bool) -> list[str]:
    """What does not fit together in the files of a run that began.

    Args:
        out: The folder.
        ticks: The run was to have.
        exitcode: Of its program.
        env_died: The env process was ended in the middle of a tick, whose row and count may differ by one.
    """
    try:
        summary = json.loads((out / "summary.json").read_text())
    except (OSError, ValueError) as error:
        return [f"summary.json: {error}"]
    found = [f"a draft is left: {path.name}" for path in out.rglob("*.part")]
    slack = int(env_died)
    counted, actions, lost = summary["ticks"], summary["actions"], summary["record"]
    if summary["invariants"]["broken"]:
        found.append(f"broken invariants: {summary['invariants']}")
    if not (summary["books"] or {}).get("explained", True):
        found.append(f"books: {summary['books']}")
    if summary.get("leftover_shared_memory"):
        found.append(f"the summary says of shared memory that is left: {summary['leftover_shared_memory']}")
    found += _compare("ticks by kind and in all", sum(counted["kinds"].values()), counted["count"], slack)
    found += _compare("jobs by outcome and in all", sum(actions["outcomes"].values()), actions["jobs"], slack)
    try:
        rows, jobs = _rows(out / "actions.csv"), _rows(out / "jobs.csv")
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        return [*found, f"{error}"]
    job_slack = slack * _JOBS_OF_A_DEAD_ENV
    found += _compare("rows of actions.csv and ticks", len(rows) + lost["lost_ticks"], counted["count"], slack)
    found += _compare("rows of jobs.csv and jobs", len(jobs) + lost["lost_jobs"], actions["jobs"], job_slack)
    if not lost["lost_ticks"]:
        found += _same_counts("kind", rows, counted["kinds"], slack)
        found += _compare("skipped ticks", sum(int(row["skipped_ticks"]) for row in rows), counted["skipped"], slack)
        if not exitcode:
            found += _compare("ticks that were to run", counted["count"] + counted["skipped"], ticks, 0)
            episodes = min(summary["episodes"]["count"], RECENT_EPISODES)
            found += _compare("episodes", len(summary["episodes"]["returns"]), episodes, 0)
    if not lost["lost_jobs"]:
        found += _same_counts("outcome", jobs, actions["outcomes"], job_slack)
    found += _in_order(rows, is_whole=not lost["lost_ticks"])
    found += _actions(rows, has_head="head" in summary)
    twice = [key for key, count in Counter((row["worker"], row["booked_tick"]) for row in jobs).items() if count > 1]
    found += [f"job (worker, tick) {key} ended twice" for key in twice[:3]]
    if not lost["lost_jobs"] and not lost["lost_ticks"] and not env_died:
        acted = {(row["worker"], row["obs_tick"]) for row in rows if row["kind"] == "acted"}
        used = {(row["worker"], row["obs_tick"]) for row in jobs if row["outcome"] in ("on_time", "late")}
        if acted != used:
            found.append(f"answers applied in actions.csv alone or in jobs.csv alone: {sorted(acted ^ used)[:3]}")
    return (
        found + _recording(out, summary, exitcode) + _trace(out, summary, slack) + _checkpoint(out, summary, exitcode)
    )


def lateness_us(out: Path, at_ns: int) -> tuple[float, float] | None:
    """99% of the ticks within a second after a moment, and of all others, began no later than this [us]."""
    after: list[float] = []
    rest: list[float] = []
    for row in _rows(out / "actions.csv"):
        since_ns = int(row["start_ns"]) - at_ns
        (after if 0 <= since_ns < NS_PER_S else rest).append(float(row["lateness_us"]))
    if len(after) < 10 or len(rest) < 10:
        return None
    return _p99(after), _p99(rest)


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))]


def _rows(path: Path) -> list[Row]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _compare(what: str, one: int, other: int, slack: int) -> list[str]:
    return [f"{what}: {one} and {other}"] if abs(one - other) > slack else []


def _same_counts(column: str, rows: Sequence[Row], counts: Mapping[str, int], slack: int) -> list[str]:
    in_rows = Counter(row[column] for row in rows)
    return [
        text for name, count in counts.items() for text in _compare(f"{column} {name}", in_rows[name], count, slack)
    ]


def _in_order(rows: Sequence[Row], *, is_whole: bool) -> list[str]:
    """No tick twice, none missing that was not skipped, each later than the one before."""
    before, start_ns = -1, -1
    for row in rows:
        tick, skipped = int(row["tick"]), int(row["skipped_ticks"])
        if tick <= before or (is_whole and tick != before + 1 + skipped):
            return [f"tick {tick} after {before}, with {skipped} skipped"]
        if int(row["start_ns"]) <= start_ns:
            return [f"tick {tick} began before the one before it"]
        before, start_ns = tick, int(row["start_ns"])
    return []


def _actions(rows: Sequence[Row], *, has_head: bool) -> list[str]:
    """Within an episode frames get newer; without a head none is older than the one before."""
    newest, episode = -1, None
    for row in rows:
        if row["kind"] == "reset" or row["episode"] != episode:
            newest, episode = -1, row["episode"]
        if row["kind"] != "acted":
            continue
        tick, obs_tick = int(row["tick"]), int(row["obs_tick"])
        if obs_tick >= tick or row["source"] != "policy" or (obs_tick < newest and not has_head):
            return [f"tick {tick}: frame {obs_tick} after {newest}, source {row['source']}"]
        newest = obs_tick
    return []


def _recording(out: Path, summary: Mapping[str, Any], exitcode: int) -> list[str]:
    if "recording" not in summary:
        return []
    about = summary["recording"]
    try:
        with Recording(out) as recording:
            frames, jobs = recording.num_ticks, len(recording.jobs("worker")["worker"])
    except (RtcoreError, OSError) as error:
        return [] if exitcode and not about["frames"] else [f"the recording cannot be read: {error}"]
    return _compare("frames recorded and counted", frames, about["frames"], 0) + _compare(
        "jobs recorded and counted", jobs, about["jobs"], 0
    )


def _trace(out: Path, summary: Mapping[str, Any], slack: int) -> list[str]:
    """Of each tick there is a slice, unless events were overwritten."""
    path = out / "trace.perfetto-trace"
    if "trace" not in summary or not path.exists() or summary["trace"]["lost_events"]:
        return []
    from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as proto  # noqa: PLC0415 - of an extra

    trace, ticks = proto.Trace(), Counter[str]()
    trace.ParseFromString(path.read_bytes())
    names: dict[tuple[int, int], str] = {}
    for packet in trace.packet:
        sequence = packet.trusted_packet_sequence_id
        for entry in packet.interned_data.event_names:
            names[sequence, entry.iid] = entry.name
        if packet.track_event.type == proto.TrackEvent.TYPE_SLICE_BEGIN:
            name = packet.track_event.name or names.get((sequence, packet.track_event.name_iid), "")
            if name.startswith("tick "):
                ticks[name.removeprefix("tick ")] += 1
    kinds = summary["ticks"]["kinds"]
    return [text for kind in kinds for text in _compare(f"ticks {kind} in the trace", ticks[kind], kinds[kind], slack)]


def _checkpoint(out: Path, summary: Mapping[str, Any], exitcode: int) -> list[str]:
    """The newest one can be read, and has the updates that the summary counts: after an orderly end all of them."""
    if not (out / "checkpoints" / "last").exists():
        return []
    try:
        saved = load_state(out).state["updates"]
    except (RtcoreError, OSError) as error:
        return [f"the checkpoint cannot be read: {error}"]
    updates = summary["learner"]["updates"]
    fits = saved == updates if exitcode in ORDERLY else saved <= updates
    return [] if fits else [f"the checkpoint has {saved} updates, the summary {updates}"]
