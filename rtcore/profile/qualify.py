"""`rtcore-profile qualify`: is this machine fit? The worst of long runs at several rates, under a stated load."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable
from fractions import Fraction
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from rtcore.clock import NS_PER_US
from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.whole import whole_file
from rtcore.host.conditions import conditions_text
from rtcore.host.load import full_load, load_text
from rtcore.memory.counters import Distribution, bucket_bounds
from rtcore.profile.children import run_in_processes, start_fork_server
from rtcore.profile.options import tick_rate
from rtcore.profile.results import Result, Row, percentiles_us
from rtcore.profile.scale import ScaleCase
from rtcore.profile.tick import (
    Lateness,
    Policy,
    busy_processes,
    draw_later,
    find_cyclictest,
    measure_cyclictest,
    measure_timer,
)
from rtcore.profile.views import Steps, TableColumn, new_figure, save, table_of
from rtcore.report.log import lines_to
from rtcore.results.summary import RunStats
from rtcore.runtime.runtime import Runtime

_WORKERS, _FRAME = 8, (144, 160)
_CYCLICTEST, _TIMER = "cyclictest", "timer thread"
_ROWS_A_RATE = 4
_COUNTED = ("acted", "missed", "idle", "skipped_ticks")
#: Of the time: for what is measured beside the runs, in turns of so long at most [s].
_BESIDE, _TURN_S = 0.25, 300.0
_COLUMNS = (
    TableColumn("Hz", "rate_hz", 0),
    TableColumn("what", "what"),
    TableColumn("samples", "samples"),
    *(TableColumn(name, f"{field}_us", 1) for name, field in (("p50", "p50"), ("p99", "p99"), ("p99.9", "p999"))),
    TableColumn("max", "max_us", 1),
    TableColumn("acted\n%", "acted_fraction", 3, 100),
    TableColumn("skipped", "skipped_ticks"),
)


def run(options: Namespace, console: Console) -> Result:
    """Each rate in turn with what is measured beside it."""
    rates = [tick_rate("--rates", text.strip()) for text in options.rates.split(",") if text.strip()]
    if not rates or not all(1 <= rate <= 10_000 for rate in rates):
        raise ConfigError(f"--rates {options.rates!r}: expected 1 to 10000 Hz, as in 60,250,1000")
    if not 0 < options.minutes <= 10_080:
        raise ConfigError(f"--minutes {options.minutes:g}: expected more than 0, at most 10080")
    kinds = full_load() if options.load else []
    each_s, cyclictest = 60 * options.minutes / len(rates), find_cyclictest()
    load = load_text(kinds) if kinds else "none: the machine as it is"
    console.print(f"load: {load}", highlight=False, soft_wrap=True)
    start_fork_server("rtcore.profile.qualify")
    rows: list[Row] = []
    shapes: list[dict[str, Any]] = []
    granted: dict[str, str] = {}
    with Steps(console, 60 * options.minutes) as steps, busy_processes(kinds):
        for rate_hz in rates:
            steps.begin(f"{float(rate_hz):g} Hz, {each_s:.0f} s")
            runs, beside = _measure(rate_hz, each_s, cyclictest, granted, steps)
            about = {"rate_hz": float(rate_hz), "load": "stated" if kinds else "none"}
            named = {
                "tick lateness": _merged(stats.distributions["lateness_ns"] for stats in runs),
                "frame to worker": _merged(one.publish_to_read_ns for stats in runs for one in stats.workers),
                "action to dispatch": _merged(stats.distributions["write_to_dispatch_ns"] for stats in runs),
            }
            acted, *others, skipped = (sum(stats.counters[name] for stats in runs) for name in _COUNTED)
            possible = acted + sum(others)
            rows += [{**about, "what": what} | _numbers(shape) for what, shape in named.items()]
            rows[-3] |= {"acted_fraction": acted / possible if possible else None, "skipped_ticks": skipped}
            shapes += [{**about, "what": what} | _counts(shape) for what, shape in named.items()]
            about["what"] = _CYCLICTEST if cyclictest else _TIMER
            rows.append({**about, "samples": len(beside)} | percentiles_us(1e3 * beside, (50, 99, 99.9, 100)))
            values, counts = np.unique(np.ceil(beside), return_counts=True)
            shapes.append({**about, "values_us": values.tolist(), "counts": counts.tolist()})
    extra = {"load": load, "granted": granted, "cyclictest": cyclictest, "minutes": options.minutes}
    extra |= {"doctor": None if options.no_doctor else _doctor(), "histograms": shapes}
    result = Result("qualify", rows, ("rate_hz", "load", "what"), extra)
    console.print(table_of(rows, _COLUMNS, "Microseconds"))
    for line in ("for docs/machines.md:", *lines_for_machines(result)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    return result


def _measure(
    rate_hz: Fraction, seconds: float, cyclictest: str | None, granted: dict[str, str], steps: Steps
) -> tuple[list[RunStats], Lateness]:
    """Runs and what is measured beside them, in turns."""
    turns = max(1, round(seconds / _TURN_S))
    run_s, beside_s = ((1 - _BESIDE) * seconds / turns, max(1.0, _BESIDE * seconds / turns))
    runs: list[RunStats] = []
    beside: list[Lateness] = []
    for _ in range(turns):
        runs.append(_run_once(rate_hz, run_s, granted, steps))
        steps.advance(run_s, "beside it")
        policy: Policy = "fifo" if granted.get("SCHED_FIFO") == "granted" else "other"
        if cyclictest is not None:
            beside.append(measure_cyclictest(cyclictest, policy, rate_hz, beside_s)[0])
        else:
            calls = [(policy, rate_hz, beside_s)]
            beside += run_in_processes(measure_timer, calls, role=_TIMER, timeout_s=beside_s + 30.0)
        steps.advance(beside_s)
    return runs, np.concatenate(beside)


def _run_once(rate_hz: Fraction, seconds: float, granted: dict[str, str], steps: Steps) -> RunStats:
    """Everything from tick 0 on: nothing is left out."""
    case = ScaleCase(_WORKERS, rate_hz, _FRAME)
    with lines_to(lambda text: steps.advance(0, text)), Runtime(case.config(seconds)) as runtime:
        for name, answer in (runtime.header["world"].get("realtime") or {}).items():
            granted[str(name).split()[0]] = str(answer)
        if runtime.wait(case.lead_in_s + seconds):
            raise RtcoreError("the run ended before it was measured; expected it to go on until it is stopped")
        return runtime.stats()


# -- numbers -----------------------------------------------------------------------------------------------


def _merged(shapes: Iterable[Distribution]) -> Distribution:
    return reduce(Distribution.merged, shapes)


def _numbers(shape: Distribution) -> Row:
    """The percentiles of the run's own histogram, and its maximum; None of no sample."""
    quantiles = {"p50_us": 0.5, "p99_us": 0.99, "p999_us": 0.999, "max_us": 1.0}
    if not shape.count:
        return {"samples": 0, **dict.fromkeys(quantiles)}
    known = {name: round(shape.percentile(q) / NS_PER_US, 3) for name, q in quantiles.items()}
    return {"samples": shape.count, **known, "max_us": round(shape.max / NS_PER_US, 3)}


def _counts(shape: Distribution) -> dict[str, list[float]]:
    used = np.flatnonzero(shape.buckets)
    highest = [min(bucket_bounds(int(bucket))[1], shape.max) / NS_PER_US for bucket in used]
    return {"values_us": highest, "counts": shape.buckets[used].tolist()}


def lines_for_machines(result: Result) -> list[str]:
    """One line a rate, as docs/machines.md has them behind the machine's own columns."""
    lines = []
    for first in range(0, len(result.rows), _ROWS_A_RATE):
        late, *others = times = result.rows[first : first + _ROWS_A_RATE]
        cells = [f"{row['p999_us']:,.0f} / **{row['max_us']:,.0f}**" if row["samples"] else "-" for row in times]
        acted = "-" if late["acted_fraction"] is None else f"{late['acted_fraction']:.5f}"
        facts = [f"{late['rate_hz']:g}", late["load"], f"{late['samples']:,}", acted, f"{late['skipped_ticks']:,}"]
        lines.append(f"| {' | '.join([*facts, *cells])} ({others[-1]['what']}) |")
    return lines


def _doctor() -> dict[str, Any] | None:
    """What `rtcore-doctor --json` says of the machine, in a process of its own; None if it says nothing."""
    words = [sys.executable, "-m", "rtcore.cli.doctor", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    found: dict[str, Any] | None = json.loads(done.stdout) if done.stdout.startswith("{") else None
    return found


# -- pictures and the page ---------------------------------------------------------------------------------


def plot(result: Result, folder: Path) -> list[Path]:
    """A panel a rate: the share that took longer than x, both axes logarithmic."""
    rates = list(dict.fromkeys(shape["rate_hz"] for shape in result.extra["histograms"]))
    figure = new_figure(5.5 * len(rates), 4.2)
    for axes, rate_hz in zip(figure.subplots(1, len(rates), squeeze=False, sharey=True)[0], rates, strict=True):
        for shape in (one for one in result.extra["histograms"] if one["rate_hz"] == rate_hz and one["counts"]):
            draw_later(axes, shape, shape["what"])
        axes.set(title=f"{rate_hz:g} Hz", xlabel="x [us]", ylabel="share that took longer than x")
    return [save(figure, folder, "qualify")]


def write_page(path: Path, result: Result, machine: dict[str, Any]) -> None:
    """Everything in one HTML file that needs no other. RtcoreError if it cannot be written."""
    extra, console = result.extra, Console(record=True, width=140, file=io.StringIO(), highlight=False, markup=False)
    beside = extra["cyclictest"] or "a timer thread of rtcore's own, as cyclictest is not installed"
    console.print(f"rtcore-profile qualify: {machine['host']}\n", style="bold")
    console.print(f"{conditions_text(machine)}\nload: {extra['load']}\nbeside the runs: {beside}")
    console.print(f"{extra['minutes']:g} minutes in all; every tick counts from the first one on\n")
    console.print(table_of(result.rows, _COLUMNS, "Microseconds"))
    for name, answer in extra["granted"].items():
        console.print(f"{name}: {answer}")
    checks = (extra["doctor"] or {}).get("checks", [])
    fields = ("status", "title", "found", "fix")
    console.print(
        table_of(checks, [TableColumn(field, field) for field in fields], "\nrtcore-doctor") if checks else ""
    )
    console.print("\n".join(("\nFor docs/machines.md:", *lines_for_machines(result))), soft_wrap=True)
    with tempfile.TemporaryDirectory(prefix="rtcore-profile-") as folder:
        picture = base64.b64encode(plot(result, Path(folder))[0].read_bytes()).decode()
    text = console.export_html(inline_styles=True).replace(
        "</body>", f'<img alt="shares that took longer" src="data:image/png;base64,{picture}"></body>'
    )
    try:
        with whole_file(path) as draft:
            draft.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RtcoreError(f"--page {path}: {error.strerror}; the page is not kept") from error
