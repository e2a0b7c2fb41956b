"""Traced runs of real processes: record, trace and summary say the same; restarts, interruption, failures."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rtcore
from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.segments import files_of
from rtcore.memory.trace import TraceKind, read_spool, spool_head
from rtcore.report.perfetto.writer import TRACE_FILE, convert_folder
from tests.support.drills import Run, kill_within_an_inference, running, started, wait_for
from tests.support.tracecheck import Parsed, parse

pytestmark = pytest.mark.process

FLAGS = ["--env-id", "CartPole-v1", "--fps", "60", "--policy", "synthetic", "--policy-args", "latency_ms=40"]
_PROCESSOR = shutil.which("trace_processor_shell") or shutil.which("trace_processor")


def run(*flags: str, before: str = "") -> tuple[int, str]:
    """Exit code and output of rtcore-run; `before` is run in its process first."""
    code = f"import sys\n{before}\nfrom rtcore.cli.run import main\nmain(sys.argv[1:])"
    with started(sys.executable, "-c", code, *FLAGS, "--no-live", "--no-pictures", *flags) as program:
        said, _ = program.communicate(timeout=150)
    return program.returncode, said


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def counted(values: Any) -> dict[str, int]:
    return {name: count for name, count in Counter(values).items() if count}


def everything_agrees(folder: Path, parsed: Parsed, summary: dict[str, Any]) -> None:
    """The tick-by-tick record, the job log, the trace and the summary, on every count."""
    ticks, jobs = rows_of(folder / "actions.csv"), rows_of(folder / "jobs.csv")
    assert summary["record"] == {"lost_ticks": 0, "lost_jobs": 0}
    assert summary["trace"]["lost_events"] == 0
    kinds = {name: count for name, count in summary["ticks"]["kinds"].items() if count}
    assert kinds == counted(row["kind"] for row in ticks) == counted(parsed.counts("tick"))
    assert summary["ticks"]["count"] == len(ticks) == sum(kinds.values())
    outcomes = {name: count for name, count in summary["actions"]["outcomes"].items() if count}
    assert outcomes == counted(row["outcome"] for row in jobs) == counted(parsed.counts("job"))
    assert summary["actions"]["jobs"] == len(jobs) == len(parsed.named("booked"))
    assert summary["actions"]["skipped_starts"] >= 0
    restarts = {worker["index"]: worker["restarts"] for worker in summary["workers"] if worker["restarts"]}
    assert restarts == counted(one.notes["worker"] for one in parsed.named("worker down"))
    each_tick_agrees(ticks, parsed)
    each_job_agrees(jobs, parsed)
    assert len(parsed.counters["lateness"]) == len(ticks)
    assert len(parsed.counters["delay"]) == kinds.get("acted", 0)


def each_tick_agrees(ticks: list[dict[str, str]], parsed: Parsed) -> None:
    drawn = {
        one.notes["tick"]: (one.notes["kind"], one.start_ns) for one in parsed.slices if one.name.startswith("tick ")
    }
    assert drawn == {int(row["tick"]): (row["kind"], int(row["start_ns"])) for row in ticks}
    applied = {one.notes["tick"]: one.notes["worker"] for one in parsed.named("dispatch")}
    assert applied == {int(row["tick"]): int(row["worker"]) for row in ticks if row["kind"] == "acted"}


def each_job_agrees(jobs: list[dict[str, str]], parsed: Parsed) -> None:
    """Every inference is drawn with the times that the answer brought along.

    But for answers to the very last tick: a worker that sees the end of the run after it has answered writes no events.
    """
    last_tick = max(one.notes["tick"] for one in parsed.slices if one.name.startswith("tick "))
    before = [row for row in jobs if int(row["resolved_tick"]) < last_tick]
    drawn = {
        (one.notes["worker"], one.notes["booked_tick"]): (one.start_ns, one.end_ns) for one in parsed.named("inference")
    }
    answered = {
        (int(row["worker"]), int(row["booked_tick"])): (int(row["read_ns"]), int(row["infer_end_ns"]))
        for row in before
        if int(row["read_ns"])
    }
    assert answered
    assert answered.items() <= drawn.items()
    applied = [row for row in before if row["outcome"] in ("on_time", "late")]
    ended = [
        ends for ends in parsed.flows.values() if ends[-1].name == "dispatch" and ends[-1].notes["tick"] < last_tick
    ]
    assert len(ended) == len(applied)
    assert {len(ends) for ends in ended} == {5}


def test_record_trace_and_summary_agree_on_every_count(run_here: Run, tmp_path: Path) -> None:
    done = run_here(*FLAGS, "--no-live", "--no-pictures", "--duration", "3", "--trace", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert TRACE_FILE in said and "ui.perfetto.dev" in said
    assert list(tmp_path.glob("*.events")) == []
    parsed = parse(tmp_path / TRACE_FILE)
    summary = json.loads((tmp_path / "summary.json").read_text())
    workers = len(summary["workers"])
    assert parsed.lanes == ["env", *(f"worker {n}" for n in range(workers)), "supervisor", "lateness", "delay"]
    assert summary["ticks"]["kinds"]["acted"] > 0
    everything_agrees(tmp_path, parsed, summary)


@pytest.mark.slow
@pytest.mark.parametrize("fields", [{"stagger": "expected-time"}, {"chunk": 3}], ids=str)
def test_they_agree_where_actions_are_used_at_once_or_several_times(tmp_path: Path, fields: dict[str, Any]) -> None:
    with rtcore.Runtime(
        env_id="rtcore/Blocks-v0",
        policy="random",
        policy_args={"pad_ms": 40},
        workers=3,
        ticks=150,
        trace=True,
        out=tmp_path,
        **fields,
    ) as runtime:
        runtime.wait()
    summary = runtime.summary()
    assert sum(map(len, read_spool(tmp_path).values())) == summary["trace"]["events"]
    parsed = parse(convert_folder(tmp_path))
    ticks = counted(row["kind"] for row in rows_of(tmp_path / "actions.csv"))
    assert ticks == counted(parsed.counts("tick"))
    outcomes = counted(row["outcome"] for row in rows_of(tmp_path / "jobs.csv"))
    assert outcomes == counted(parsed.counts("job"))
    first = outcomes.get("on_time", 0) + outcomes.get("late", 0)
    assert len(parsed.named("dispatch")) == first
    assert len(parsed.named("dispatch")) + len(parsed.named("dispatch next of chunk")) == ticks["acted"]


def test_they_agree_when_a_worker_is_killed_and_restarted(tmp_path: Path) -> None:
    with rtcore.Runtime(
        env_id="CartPole-v1",
        fps=60,
        policy="synthetic",
        policy_args={"latency_ms": 40},
        workers=4,
        duration=600,
        trace=True,
        out=tmp_path,
    ) as runtime:
        stats = runtime.stats
        wait_for(lambda: stats().workers[1].inferences > 3, "answers")
        # Not between an answer and its events.
        kill_within_an_inference(runtime, 1, lasting_ms=40)
        wait_for(lambda: stats().workers[1].restarts == 1 and stats().num_up == 4, "the worker to come back")
        answered = stats().workers[1].inferences
        wait_for(lambda: stats().workers[1].inferences > answered + 3, "it to work again")
        runtime.stop()
        assert runtime.wait(150)
    summary = runtime.summary()
    parsed = parse(convert_folder(tmp_path))
    everything_agrees(tmp_path, parsed, summary)
    (down,), (up,) = parsed.named("worker down"), parsed.named("worker up")
    assert down.notes == {"worker": 1, "restarts": 1}
    assert up.notes == {"worker": 1}
    assert down.start_ns < up.start_ns
    assert files_of(runtime.run_id) == []


def test_a_run_that_is_interrupted_still_leaves_its_trace(tmp_path: Path) -> None:
    events = tmp_path / "trace-env.events"
    with running(
        *FLAGS, "--no-live", "--no-pictures", "--duration", "600", "--trace", "--out", str(tmp_path)
    ) as program:
        wait_for(lambda: events.exists() and events.stat().st_size > 10_000, "events")
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=150)
    assert program.returncode == 128 + signal.SIGINT, said
    everything_agrees(tmp_path, parse(tmp_path / TRACE_FILE), json.loads((tmp_path / "summary.json").read_text()))


def test_a_missing_package_is_said_before_anything_starts(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    exitcode, said = run("--trace", "--out", str(folder), before="sys.modules['perfetto'] = None")
    assert exitcode == 2
    assert "pip install 'rtcore[trace]'" in said
    assert not folder.exists()


@pytest.mark.slow
def test_events_are_kept_and_named_if_the_trace_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / (TRACE_FILE + ".part")).mkdir()  # in the way of the file that is written first
    exitcode, said = run("--ticks", "60", "--trace", "--out", str(tmp_path))
    assert exitcode == 1
    assert "not written" in said and f"rtcore.report.perfetto {tmp_path}" in " ".join(said.split())
    assert (tmp_path / "trace-env.events").exists()
    (tmp_path / (TRACE_FILE + ".part")).rmdir()
    everything_agrees(tmp_path, parse(convert_folder(tmp_path)), json.loads((tmp_path / "summary.json").read_text()))


@pytest.mark.slow
def test_an_earlier_trace_does_not_stay_beside_a_later_run(tmp_path: Path) -> None:
    (tmp_path / TRACE_FILE).write_bytes(b"of an earlier run")
    exitcode, said = run("--ticks", "30", "--out", str(tmp_path))
    assert exitcode == 0, said
    assert not (tmp_path / TRACE_FILE).exists()


@pytest.mark.skipif(_PROCESSOR is None, reason="Perfetto's trace_processor_shell is not on the PATH")
def test_perfettos_own_trace_processor_finds_nothing_wrong(tmp_path: Path) -> None:
    """Where its binary is; it has not been at hand where this was written."""
    from perfetto.trace_processor import TraceProcessor, TraceProcessorConfig

    exitcode, said = run("--ticks", "120", "--trace", "--out", str(tmp_path))
    assert exitcode == 0, said
    parsed = parse(tmp_path / TRACE_FILE)
    config = TraceProcessorConfig(bin_path=_PROCESSOR)
    with TraceProcessor(trace=str(tmp_path / TRACE_FILE), config=config) as processor:

        def only(query: str) -> int:
            return int(next(iter(processor.query(query))).n)

        assert only("select count(*) as n from stats where severity = 'error' and value > 0") == 0
        assert only("select count(*) as n from slice where dur < 0") == 0
        assert only("select count(*) as n from slice where name glob 'tick *'") == sum(parsed.counts("tick").values())
        arrows = sum(len(ends) - 1 for ends in parsed.flows.values())
        assert only("select count(*) as n from flow") == arrows


_CONVERT = """
import resource, sys
from pathlib import Path
from rtcore.report.perfetto.writer import convert_folder, require_perfetto
require_perfetto()
folders = [Path(name) for name in sys.argv[1:]]
for folder in folders:
    convert_folder(folder)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def test_memory_does_not_grow_with_the_length_of_the_run(tmp_path: Path) -> None:
    """200,000 events as packets are a quarter of a gigabyte; on their way into the file they need hardly any."""
    folders = []
    for name, count in (("short", 8_000), ("long", 200_000)):
        events = np.zeros(count, TRACE_EVENT.dtype)
        events["kind"] = TraceKind.COLLECT
        events["start_ns"] = events["end_ns"] = np.arange(1, count + 1)
        folders.append(tmp_path / name)
        folders[-1].mkdir()
        (folders[-1] / "trace-env.events").write_bytes(spool_head() + events.tobytes())
    command = [sys.executable, "-c", _CONVERT, *map(str, folders)]
    short_mb, long_mb = map(int, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert (folders[1] / TRACE_FILE).stat().st_size > 4e6
    assert long_mb - short_mb < 100
