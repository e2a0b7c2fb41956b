"""What `rtcore-profile ipc` shows: tables, findings in words, pictures."""

from __future__ import annotations

import os
from pathlib import Path

from rich.table import Table

from rtcore.profile.results import Result, Row
from rtcore.profile.views import Column, new_figure, save, table_of

RTCORE = ("rtcore-hybrid", "rtcore-block", "rtcore-spin")
PEERS = ("pipe", "queue", "manager", "zmq", "iceoryx2", "faster-fifo")
LIMITS = ("c-spin", "c-futex")
TRANSPORTS = (*RTCORE, *PEERS, *LIMITS)
#: The frame that most is said about.
REFERENCE = "144x160"
_COLUMNS = (
    Column("transport", "transport"),
    Column("p50", "p50_us", 1),
    Column("p99", "p99_us", 1),
    Column("book\np50", "book_p50_us", 1),
    Column("publish\np50", "publish_p50_us", 1),
    Column("slot\np50", "slot_p50_us", 1),
    Column("slot\np99", "slot_p99_us", 1),
    Column("p50 /\nlimit", "ratio_to_limit", 2),
    Column("p50 /\nbest\npeer", "ratio_to_best_peer", 2),
    Column("missed", "missed"),
)
#: A reader that loses its CPU more often than this a frame is measured against something else that runs.
_BUSY_PREEMPTIONS = 0.1


def plot(result: Result, folder: Path) -> list[Path]:
    """Latency by frame size for one reader, and by the number of readers where several were measured."""
    if not result.rows:
        return []
    one = [row for row in result.rows if row["readers"] == min(r["readers"] for r in result.rows)]
    paths = [_plot_bars(one, folder)]
    many = [row for row in result.rows if row["frame"] == _most_readers(result.rows)]
    if len({row["readers"] for row in many}) > 1:
        paths.append(_plot_readers(many, folder))
    return paths


# -- words ------------------------------------------------------------------------------------------------


def _find(rows: list[Row], transport: str, readers: int, frame: str = REFERENCE) -> Row | None:
    wanted = (transport, readers, frame)
    return next((row for row in rows if (row["transport"], row["readers"], row["frame"]) == wanted), None)


def findings(rows: list[Row]) -> list[str]:
    """In words: how rtcore-hybrid stands for the reference frame, and what more readers cost the publisher."""
    lines = []
    for readers in sorted({row["readers"] for row in rows}):
        row = _find(rows, "rtcore-hybrid", readers)
        if row is None or row["p50_us"] is None:
            continue
        words = [f"{REFERENCE}, {readers} reader{'s' * (readers > 1)}, rtcore-hybrid: p50 {row['p50_us']:.1f} us"]
        if row["ratio_to_limit"] is not None:
            words.append(f"{row['ratio_to_limit']:.2f} times the limit ({row['limit']})")
        if row["ratio_to_best_peer"] is not None:
            words.append(f"{row['ratio_to_best_peer']:.2f} times the best other transport")
            words.append(f"p99 {row['ratio_to_best_peer_p99']:.2f} times the best other's")
        first = _find(rows, "rtcore-hybrid", 1)
        if first is not None and readers > 1:
            growth = {key: 100 * (row[f"{key}_p50_us"] / first[f"{key}_p50_us"] - 1) for key in ("publish", "visible")}
            if row["book_p50_us"] is not None:
                words.append(f"booking and waking costs {row['book_p50_us']:.1f} us a tick before the world's step")
            words.append(
                f"publishing costs {growth['publish']:+.0f}% against 1 reader ({growth['visible']:+.0f}% until the "
                "frame can be seen, the rest is waking)"
            )
        lines.append("; ".join(words))
    return [*lines, *_disturbances(rows)]


def _disturbances(rows: list[Row]) -> list[str]:
    """Whether something else ran where a reader should have, although there were CPUs enough for all."""
    enough = [row for row in rows if row["transport"] in RTCORE and row["readers"] < len(os.sched_getaffinity(0))]
    pushed = [row for row in enough if (row["preempted_per_frame"] or 0) > _BUSY_PREEMPTIONS]
    if not pushed:
        return []
    worst = max(pushed, key=lambda row: row["preempted_per_frame"])
    return [
        f"NOT A QUIET MACHINE: in {len(pushed)} of {len(enough)} rows that have CPUs enough a reader lost its CPU more "
        f"than once in ten frames ({worst['transport']}, {worst['frame']}: {worst['preempted_per_frame']:.2f} times a "
        "frame). Those latencies are the scheduler's: measure again with nothing else running"
    ]


# -- tables and pictures ----------------------------------------------------------------------------------


def cell_table(rows: list[Row]) -> Table:
    first = rows[0]
    title = f"{first['frame']} uint8, {first['readers']} reader{'s' * (first['readers'] > 1)}; microseconds"
    return table_of(rows, _COLUMNS, title)


def _most_readers(rows: list[Row]) -> str:
    """The frame that was measured with the most numbers of readers."""
    counts: dict[str, set[int]] = {}
    for row in rows:
        counts.setdefault(row["frame"], set()).add(row["readers"])
    return max(counts, key=lambda frame: len(counts[frame]))


def _color(name: str) -> str:
    """One family of colours each: rtcore, the others, the limit."""
    tones = {
        **dict(zip(RTCORE, ("#1f4e9c", "#3f7fd6", "#8fb6ee"), strict=True)),
        **dict(zip(PEERS, ("#b23a1e", "#d9653b", "#e8926b", "#a6761d", "#c9a227", "#7f5a2b"), strict=True)),
        **dict(zip(LIMITS, ("#333333", "#888888"), strict=True)),
    }
    return tones[name]


def _plot_bars(rows: list[Row], folder: Path) -> Path:
    frames = list(dict.fromkeys(row["frame"] for row in rows))
    names = [name for name in TRANSPORTS if any(row["transport"] == name for row in rows)]
    figure = new_figure(max(8.0, 2.6 * len(frames)), 5.0)
    axes = figure.add_subplot()
    width = 0.84 / len(names)
    for index, name in enumerate(names):
        own = [row for row in rows if row["transport"] == name and row["p50_us"] is not None]
        at = [frames.index(row["frame"]) - 0.42 + (index + 0.5) * width for row in own]
        p50 = [row["p50_us"] for row in own]
        above = [row["p99_us"] - row["p50_us"] for row in own]
        axes.bar(at, p50, width, color=_color(name), label=name)
        axes.errorbar(at, p50, yerr=[[0] * len(at), above], fmt="none", ecolor="#555555", elinewidth=0.8, capsize=2)
    axes.set_yscale("log")
    axes.set_xticks(range(len(frames)), frames)
    axes.set_ylabel("publish start to private copy [us]\nbar: p50, line: up to p99")
    axes.set_title(f"{rows[0]['readers']} reader{'s' * (rows[0]['readers'] > 1)}")
    figure.legend(loc="outside right upper", fontsize=8)
    return save(figure, folder, "ipc-frames")


def _plot_readers(rows: list[Row], folder: Path) -> Path:
    figure = new_figure(11.0, 4.5)
    left, right = figure.subplots(1, 2)
    for axes, key, label in (
        (left, "p50_us", "latency p50 [us]"),
        (right, "publish_p50_us", "cost to publisher p50 [us]"),
    ):
        for name in TRANSPORTS:
            own = sorted(
                (row["readers"], row[key]) for row in rows if row["transport"] == name and row[key] is not None
            )
            if own:
                axes.plot(*zip(*own, strict=True), marker="o", color=_color(name), label=name)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        ticks = sorted({row["readers"] for row in rows})
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlabel(f"readers, {rows[0]['frame']}")
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right upper", fontsize=8)
    return save(figure, folder, "ipc-readers")
