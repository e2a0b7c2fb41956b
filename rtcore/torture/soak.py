"""`rtcore-torture soak`: one long run, looked at from outside: does anything grow, does the tick grid drift.

A learner, a recorder and an onlooker (`rtcore-top`); a worker or the learner is killed now and then. Each process of
the run is a line by its role: whoever takes a dead one's place goes on with its line.
"""

from __future__ import annotations

import argparse
import html
import io
import math
import os
import random
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from rtcore.clock import NS_PER_S, MonotonicClock, raw_offset_ns
from rtcore.files.strict_json import write_json
from rtcore.memory.owners import run_ids
from rtcore.memory.shared import SharedRun
from rtcore.results.description import RunDescription
from rtcore.torture.aftermath import check_folder
from rtcore.torture.program import Program
from rtcore.torture.world import CLOSED, MADE, notes

#: What comes before counts as warming up; of a short soak its first half.
_SETTLED_S = 600.0
#: How much a median may change, from the first fifth after that to the last.
_FLAT = 0.01
_HZ, _WORKERS = 60, 4
#: After so many looks what was seen so far is on the disk.
_KEPT_EVERY = 6
#: How long the end may take: on a busy machine the recorder has a whole ring to write [s].
_END_S = 1800.0
_OTHERS = ("onlooker", "simulator")
#: Shown only: the share of a file's page rises when any other program on the machine, which has it as well, ends.
_NOT_JUDGED = "pss_mb"
_WORDS = (
    *("--no-live", "--env-id", "rtcore.torture.world:make", "--fps", str(_HZ), "--policy", "mlp"),
    *("--policy-args", "pad_ms=40", "--workers", str(_WORKERS), "--learn", "dqn", "--learning-starts", "500"),
    *("--updates-per-tick", "1", "--checkpoint-every-s", "60", "--ring-slots", "16384", "--record", "--no-tensorboard"),
    *("--max-restarts", "1000", "--startup-timeout-s", "600", "--env-timeout-s", "60"),
)


@dataclass
class Samples:
    """What was seen, by when [s since tick 0]."""

    at_s: list[float] = field(default_factory=list)
    #: By measure, then role; NaN where a role had no process. "own_mb": of the PSS what is in no file.
    measures: dict[str, dict[str, list[float]]] = field(
        default_factory=lambda: {name: defaultdict(list) for name in ("own_mb", _NOT_JUDGED, "descriptors", "threads")}
    )
    segments: list[int] = field(default_factory=list)
    segment_mb: list[float] = field(default_factory=list)
    ticks: list[int] = field(default_factory=list)
    lateness_us: list[float] = field(default_factory=list)
    #: Deadline of the newest tick less where the exact rate puts it from tick 0 [ns]: by CLOCK_MONOTONIC, and by
    #: CLOCK_MONOTONIC_RAW.
    grid_ns: list[int] = field(default_factory=list)
    raw_drift_ns: list[int] = field(default_factory=list)
    kills: list[tuple[float, str]] = field(default_factory=list)


def soak(options: argparse.Namespace) -> int:
    """What the words of `rtcore-torture soak` ask for; the exit code."""
    out = Path(options.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    note, ticks = out / "world.txt", int(options.hours * 3600 * _HZ)
    note.unlink(missing_ok=True)
    words = [
        *_WORDS,
        "--env-args",
        f"env_id=CartPole-v1,simulator=true,note={note}",
        "--ticks",
        str(ticks),
        "--out",
        str(out / "run"),
    ]
    program = Program(words, f"soak-{os.getpid()}")
    try:
        samples = _look(program, options.sample_every_s, options.kill_every_s, out / "soak.json")
        exitcode = program.wait(_END_S)
        processes, names = program.leftovers(60)
    finally:
        program.clean_up()
        (out / "said.txt").write_text(program.output)
    violations = [f"exit code {exitcode}, expected 0"] if exitcode else []
    violations += [f"left behind: {name}" for name in (*processes, *names)]
    written = notes(note)
    if written.count(CLOSED) != written.count(MADE):
        violations.append(f"the world was made and closed: {written}")
    violations += check_folder(out / "run", ticks=ticks, exitcode=exitcode or 0, env_died=False)
    growth = growth_of(samples)
    violations += [f"{name} grew by {share:.2%}" for name, share in growth.items() if share > _FLAT]
    if any(samples.grid_ns):
        violations.append(f"the grid is not where the rate puts it: up to {max(map(abs, samples.grid_ns))} ns")
    about = _about(samples, growth, violations)
    write_json(out / "soak.json", about | {"samples": vars(samples)})
    (out / "soak.svg").write_text(svg := _curves(samples))
    (out / "soak.html").write_text(_page(about, svg))
    print("\n".join(f"{name}: {value}" for name, value in about.items()))
    return int(bool(violations))


def _look(program: Program, every_s: float, kill_every_s: float, path: Path) -> Samples:
    """Samples and kills, until the run is over. `path`: gets what was seen so far, should this be ended before."""
    samples, clock, draw = Samples(), MonotonicClock(), random.Random(0)
    if not program.wait_for("ticks", 1.0):
        return samples
    run_id = next(name for name in run_ids() if name.startswith(f"{program.pid}-"))
    onlooker = subprocess.Popen(
        [sys.executable, "-m", "rtcore.cli.top", run_id, "--interval", "2"], stdout=subprocess.DEVNULL
    )
    shared = SharedRun.watch(run_id)
    text = shared.description.read()
    if text is None:
        raise AssertionError("a run that ticks has a description")
    period_ns = 1 / RunDescription.from_text(text).run.rate_hz * NS_PER_S
    first_offset_ns, next_ns = raw_offset_ns(), clock.now_ns()
    next_kill_s = kill_every_s or float("inf")
    try:
        while not shared.env_status["finished"] and program.sleep((next_ns - clock.now_ns()) / NS_PER_S):
            next_ns += int(every_s * NS_PER_S)
            _, header = shared.ring.read_header(shared.ring.sequence.newest())
            if header is None or header.phase_seq != shared.run_control["phase_seq"]:
                continue
            epoch_ns = shared.env_status["epoch_ns"]
            at_s = (clock.now_ns() - epoch_ns) / NS_PER_S
            samples.at_s.append(round(at_s, 2))
            samples.ticks.append(header.tick)
            samples.lateness_us.append((header.start_ns - header.deadline_ns) / 1e3)
            samples.grid_ns.append(header.deadline_ns - epoch_ns - int(header.tick * period_ns))
            samples.raw_drift_ns.append(raw_offset_ns() - first_offset_ns)
            _look_at_memory(program, onlooker.pid, samples)
            if len(samples.at_s) % _KEPT_EVERY == 0:
                write_json(path, {"samples": vars(samples)})
            if at_s > next_kill_s:
                next_kill_s += kill_every_s
                _kill(program, draw, samples, at_s)
    finally:
        shared.close()
        onlooker.send_signal(signal.SIGTERM)
        onlooker.wait()
    return samples


def _look_at_memory(program: Program, onlooker: int, samples: Samples) -> None:
    found = program.roles()
    with suppress(psutil.Error):
        found["onlooker"] = psutil.Process(onlooker)
    for role, process in found.items():
        with suppress(psutil.Error, OSError):
            own_mb, pss_mb = _memory_mb(process.pid)
            values = {
                "own_mb": own_mb,
                _NOT_JUDGED: pss_mb,
                "descriptors": process.num_fds(),
                "threads": process.num_threads(),
            }
            for name, value in values.items():
                line = samples.measures[name][role]
                line += [float("nan")] * (len(samples.at_s) - 1 - len(line)) + [value]
    sizes = []
    for name in program.segments():
        with suppress(OSError):
            sizes.append((Path("/dev/shm") / name).stat().st_blocks * 512)
    samples.segments.append(len(sizes))
    samples.segment_mb.append(sum(sizes) / 1e6)


def _memory_mb(pid: int) -> tuple[float, float]:
    """Of a process's PSS what is in no file, and all of it. (psutil has no parts of the PSS.)"""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    kib = {name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines)}
    return (kib["Pss_Anon"] + kib["Pss_Shmem"]) * 1024 / 1e6, kib["Pss"] * 1024 / 1e6


def _kill(program: Program, draw: random.Random, samples: Samples, at_s: float) -> None:
    """A worker, or the learner."""
    roles = program.roles()
    named = sorted(name for name in roles if name.startswith(("worker", "learner")))
    if named:
        role = draw.choice(named)
        with suppress(psutil.Error):
            roles[role].kill()
            samples.kills.append((round(at_s, 2), role))


def growth_of(samples: Samples) -> dict[str, float]:
    """By how much each line is higher at the end than when it had settled, as a share: medians of a fifth each.

    The onlooker and the process that the world started are shown and not judged: they are no part of the run.
    """
    if not samples.at_s:
        return {}
    settled_s = min(_SETTLED_S, samples.at_s[-1] / 2)
    lines: dict[str, Sequence[float]] = {"segments": samples.segments, "segment_mb": samples.segment_mb}
    for name, roles in samples.measures.items():
        if name == _NOT_JUDGED:
            continue
        lines |= {f"{name} of {role}": line for role, line in roles.items() if role not in _OTHERS}
    growth = {}
    for name, line in lines.items():
        seen = zip(samples.at_s, line, strict=False)
        values = [value for at_s, value in seen if at_s >= settled_s and not math.isnan(value)]
        part = max(1, len(values) // 5)
        if values and median(values[:part]):
            growth[name] = median(values[-part:]) / median(values[:part]) - 1
    return growth


def _about(samples: Samples, growth: Mapping[str, float], violations: Sequence[str]) -> dict[str, Any]:
    hours = samples.at_s[-1] / 3600 if samples.at_s else 0.0
    drift_ns = samples.raw_drift_ns[-1] if samples.raw_drift_ns else 0
    return {
        "hours": round(hours, 3),
        "ticks": samples.ticks[-1] + 1 if samples.ticks else 0,
        "kills": len(samples.kills),
        "grid_error_ns": max(map(abs, samples.grid_ns), default=0),
        "drift_against_raw_us": drift_ns / 1e3,
        "drift_against_raw_ppm": round(drift_ns / hours / 3.6e6, 4) if hours else 0.0,
        "growth": {name: round(share, 5) for name, share in sorted(growth.items())},
        "violations": list(violations),
    }


def _curves(samples: Samples) -> str:
    """All of it over time, as SVG."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second

    figure = Figure(figsize=(11, 19), layout="constrained")
    panels = figure.subplots(7, 1, sharex=True)
    minutes = [at / 60 for at in samples.at_s]
    for axes, (name, roles) in zip(panels, samples.measures.items(), strict=False):
        for role, line in sorted(roles.items()):
            axes.plot(minutes[: len(line)], line, label=role, linewidth=1)
        axes.set_ylabel(name)
        if roles:
            axes.legend(fontsize=7, ncols=4)
        for at_s, _ in samples.kills:
            axes.axvline(at_s / 60, color="#bbbbbb", linewidth=0.5, zorder=0)
    panels[4].plot(minutes, samples.segment_mb)
    panels[4].set_ylabel("segments [MB]")
    panels[5].plot(minutes, [drift / 1e3 for drift in samples.raw_drift_ns])
    panels[5].set_ylabel("grid against RAW [us]")
    panels[6].plot(minutes, samples.lateness_us, ".", markersize=2)
    panels[6].set(ylabel="lateness [us]", xlabel="minutes since tick 0 (grey: a kill)", yscale="log")
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None})
    return drawn.getvalue()


def _page(about: Mapping[str, Any], svg: str) -> str:
    """One page that needs nothing else: the numbers, and the curves."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(str(value))}</td></tr>" for name, value in about.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>A long run</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:70em}td{vertical-align:top;padding:.2em 1em}</style>"
        f"<h1>A long run</h1><table>{rows}</table>{svg[svg.index('<svg') :]}</html>\n"
    )
