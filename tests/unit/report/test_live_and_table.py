"""The live view, the summary table and the run header: what they say of a small made-up run."""

from __future__ import annotations

import io
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from rich.console import Console

from rtcore.clock import NS_PER_S, ManualClock
from rtcore.config.resolved import resolve
from rtcore.config.run import make_config
from rtcore.memory.counters import Histogram
from rtcore.report.live import LiveFrame, LiveView, plain_line
from rtcore.report.table import details, header_lines, headline
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunStats, build_summary
from tests.support.made_up_runs import (
    NUM_TICKS,
    PERIOD_NS,
    POLICY,
    REALTIME,
    header_of,
    made_up_run,
    made_up_run_with_head,
)

pytestmark = pytest.mark.unit


def drawn(stats: RunStats, record: RunRecord, width: int = 100, height: int = 40, booked=None) -> list[str]:
    console = Console(file=io.StringIO(), record=True, width=width, height=height)
    console.print(LiveFrame(stats, record, header_of(stats), booked))
    return console.export_text().splitlines()


def lane_of(lines: list[str], label: str) -> str:
    return next(line[10:] for line in lines if line.startswith(label))


# -- live view ---------------------------------------------------------------------------------------------


def test_live_view_states_the_run_and_its_numbers():
    text = "\n".join(drawn(*made_up_run()))
    for fact in ("Toy-v0", "50.0000 Hz", POLICY, "SYNTHETIC", "max-time, 4 workers on cpu", "acted 100%"):
        assert fact in text
    assert "REFUSED SCHED_FIFO 20 (Operation not permitted)" in text
    assert "interval 1.000 ticks (CV 0.000)" in text
    assert "delay p50 4 p99 4 ticks  (80.0 / 80.0 ms)" in text
    assert "on_time 36" in text
    assert "0.8 of 1.6 s, 0.8 s left" in text


def test_the_newest_task_stands_in_the_live_view_and_in_the_summary():
    stats, record = made_up_run()
    assert "task" not in build_summary(stats)
    stats = replace(stats, task={"version": 3, "values": {"goal": [0.5, -0.25], "say": "go ü"}})
    (line,) = [line for line in drawn(stats, record) if line.startswith("task")]
    assert line.split() == ["task", "version", "3", "goal", "[0.5,", "-0.25]", "say", '"go', 'ü"']
    summary = build_summary(stats)
    assert summary["task"] == stats.task
    console = Console(file=io.StringIO(), record=True, width=100)
    console.print(details(summary | {"startup_s": None}, None))
    assert 'version 3, goal [0.5, -0.25], say "go ü"' in console.export_text()


def test_live_view_of_a_padded_policy_says_padded():
    text = "\n".join(drawn(*made_up_run(policy="mlp, 4.6k parameters, cpu, padded to 70 ms")))
    assert "PADDED" in text
    assert "SYNTHETIC" not in text


def test_outcomes_that_did_not_occur_are_left_out():
    text = "\n".join(drawn(*made_up_run()))
    assert "superseded" not in text
    assert "dropped_dead_worker" not in text


def test_lanes_show_the_stagger_as_a_diagonal():
    lines = drawn(*made_up_run())
    lanes = [lane_of(lines, f"w{worker:02d}") for worker in range(4)]
    first_dots = [lane.index("●") for lane in lanes]
    assert [dot - first_dots[0] for dot in first_dots] == [0, 1, 2, 3]
    assert lanes[0].strip().startswith("▐███●███●")


def test_every_acted_tick_has_one_applied_mark_above_it():
    lines = drawn(*made_up_run())
    lanes = [lane_of(lines, f"w{worker:02d}") for worker in range(4)]
    ticks = lane_of(lines, "tick ")
    assert ticks.count("●") == 36
    for column, glyph in enumerate(ticks):
        marks = sum(lane[column] == "●" for lane in lanes if column < len(lane))
        assert marks == (glyph == "●"), column


def test_an_action_that_waits_for_its_tick_is_light():
    stats, record = made_up_run(workers=4, delay=4)
    job = record.jobs[-1]
    record.jobs[-1] = job._replace(write_ns=job.booked_ns + PERIOD_NS + 1)
    assert lane_of(drawn(stats, record), f"w{job.worker:02d}").rstrip().endswith("●█░░●")


def test_a_job_under_way_reaches_to_the_newest_tick():
    stats, record = made_up_run()
    booked = {0: NUM_TICKS - 4}
    without, with_job = (lane_of(drawn(stats, record, booked=b), "w00").rstrip() for b in (None, booked))
    assert without.endswith("███●")
    assert with_job == without + "███"


def test_a_lost_worker_is_named_and_its_lane_marked():
    lines = drawn(*made_up_run(dead=2))
    assert any(line.startswith("w02 down") for line in lines)
    assert "!" in lane_of(lines, "w02")
    assert "missed 9" in "\n".join(lines)
    assert lane_of(lines, "tick ").count("M") == 9


def test_a_worker_without_a_process_is_down_and_a_booked_one_is_not():
    stats, record = made_up_run(dead=2)
    workers = [replace(worker, pid=-1) if worker.index == 3 else worker for worker in stats.workers]
    lines = drawn(replace(stats, workers=workers), record, booked={2: NUM_TICKS - 1})
    assert [line[:8] for line in lines if " down" in line[:9]] == ["w03 down"]


def test_lanes_that_do_not_fit_are_counted():
    stats, record = made_up_run(workers=30, delay=30)
    lines = drawn(stats, record, height=24)
    shown = sum(line[:1] == "w" and line[1:3].isdigit() for line in lines)
    assert 0 < shown < 30
    assert f"… and {30 - shown} more" in lines
    assert len(lines) <= 24


def test_a_head_is_named_and_has_a_lane_next_to_the_ticks_and_base_ticks_are_counted():
    stats, record = made_up_run_with_head()
    lines = drawn(stats, record)
    assert "acted on 29 ticks  base ticks 7" in lane_of(lines, "head ") and "restarts 1" in lane_of(lines, "head ")
    lanes = [line.split()[0] for line in lines if line.startswith(("w0", "head ", "tick "))]
    assert lanes[-6:] == ["w00", "w01", "w02", "w03", "head", "tick"]
    assert lane_of(lines, "tick ").count("b") == 7
    assert "○" in lane_of(lines, "w01")
    assert "w16" not in "\n".join(lines)
    assert "base ticks 7, head restarts 1" in plain_line(stats, 1.0, 2.0)


def test_where_lanes_do_not_fit_the_head_still_has_one():
    lines = drawn(*made_up_run_with_head(), height=10)
    assert any(line.startswith("head ") and "●" in line for line in lines)


def test_a_summary_counts_the_head_apart_from_the_workers():
    stats, _ = made_up_run_with_head()
    summary = build_summary(stats)
    assert len(summary["workers"]) == 4
    assert (summary["head"]["index"], summary["head"]["acted_ticks"], summary["head"]["base_ticks"]) == (16, 29, 7)
    text = printed(summary)
    assert "Head" in text and "a worker's stood in" in text
    assert "head" not in build_summary(made_up_run()[0])


@pytest.mark.parametrize(("width", "height"), [(40, 10), (20, 5), (8, 2), (1, 1)])
def test_tiny_terminals_get_what_fits(width: int, height: int):
    lines = drawn(*made_up_run(), width=width, height=height)
    assert 1 <= len(lines) <= height
    assert all(len(line) <= width for line in lines)


def test_a_terminal_of_40_by_10_keeps_world_policy_actions_and_ticks():
    text = "\n".join(drawn(*made_up_run(), width=40, height=10))
    for fact in ("Toy-v0", "synthetic", "acted 100%", "w00", "●●●"):
        assert fact in text


def test_without_unicode_everything_is_ascii():
    raw = io.BytesIO()
    stats, record = made_up_run(dead=1)
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii"), width=100, height=40)
    console.print(LiveFrame(stats, record, replace(header_of(stats), world="Spiel-ü")))
    console.file.flush()
    text = raw.getvalue().decode("ascii")
    assert "Spiel-?" in text
    assert "[===*===*" in text


def test_before_the_first_tick_the_view_has_facts_but_no_lanes():
    stats, _ = made_up_run()
    text = "\n".join(drawn(stats, RunRecord(None, lambda raw: raw)))
    assert "Toy-v0" in text
    assert "w00" not in text


def test_drawing_in_a_terminal_keeps_log_lines():
    stats, record = made_up_run()
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=40, height=10, _environ={"TERM": "xterm"})
    with LiveView(console, clock=ManualClock()) as view:
        view.log("starting 4 workers")
        view.begin(header_of(stats))
        view.update(stats, record)
        view.log("worker 2 is down [exit]")
        assert view.is_live
    assert "starting 4 workers" in out.getvalue()
    assert "worker 2 is down [exit]" in out.getvalue()
    assert "Toy-v0" in out.getvalue()


@pytest.mark.parametrize(("terminal", "live"), [(False, True), (True, False)])
def test_without_a_live_area_a_plain_line_comes_every_2_s_while_ticks_go_on(terminal: bool, live: bool):
    stats, record = made_up_run()
    out, clock = io.StringIO(), ManualClock()
    with LiveView(Console(file=out, force_terminal=terminal, width=40), live=live, clock=clock) as view:
        view.begin(header_of(stats))
        for second in range(5):
            record.ticks.append(record.ticks[-1]._replace(tick=50 * second + 39))
            view.update(stats, record)
            clock.sleep_until_ns(clock.now_ns() + NS_PER_S)
        for force in (False, True):
            clock.sleep_until_ns(clock.now_ns() + 3 * NS_PER_S)
            view.update(stats, record, force=force)
    lines = out.getvalue().splitlines()
    assert [line.split("/")[0] for line in lines] == ["0.8", "2.8", "4.8"]
    assert lines[0].startswith("0.8/1.6 s, 50.00 Hz, acted 100%")


def test_plain_line_before_the_first_action_says_so():
    stats, _ = made_up_run()
    none = replace(stats, distributions=stats.distributions | {"interval_ticks": Histogram().snapshot()})
    assert "no two actions yet" in plain_line(none, 0.1, 2.0)
    assert "no two actions yet" not in plain_line(stats, 0.1, 2.0)


def test_plain_line_names_faults_only_if_there_were_any():
    whole, broken = (plain_line(made_up_run(dead=dead)[0], 1.0, 2.0) for dead in (None, 1))
    assert "missed" not in whole
    assert "missed 9" in broken
    assert "acted 75.00%" in broken


# -- summary -----------------------------------------------------------------------------------------------


def printed(summary: dict) -> str:
    console = Console(file=io.StringIO(), record=True, width=110)
    console.print(details(summary, Path("runs/[a]")), headline(summary))
    return console.export_text()


def test_summary_says_what_was_planned_and_what_came_true():
    text = printed(build_summary(made_up_run(dead=1)[0]))
    assert "The policy is synthetic" in text
    row = next(line for line in text.splitlines() if "acted, of possible ticks" in line)
    assert "100%" in row
    assert "75.00%" in row
    assert "dropped_dead_worker" in text
    assert "its worker died, hung or was stopped" in text
    assert "superseded" not in text


@pytest.mark.parametrize(
    ("left", "said"),
    [
        ([], "nothing left in /dev/shm"),
        (["rtcore-1-ring"], "LEFT BEHIND in /dev/shm: rtcore-1-ring"),
        (None, "not known"),
    ],
)
def test_summary_says_what_was_left_in_shared_memory(left: list[str] | None, said: str):
    assert said in printed(build_summary(made_up_run()[0]) | {"leftover_shared_memory": left})


def test_summary_of_a_run_without_a_single_number():
    stats, _ = made_up_run()
    nothing = {name: Histogram().snapshot() for name in stats.distributions}
    workers = [replace(worker, inference_ns=Histogram().snapshot()) for worker in stats.workers]
    empty = replace(stats, counters=dict.fromkeys(stats.counters, 0), distributions=nothing, workers=workers)
    text = printed(build_summary(empty))
    assert "no sample" in text
    assert "nan" not in text
    assert "None" not in text


def test_summary_of_many_workers_is_a_spread_not_a_row_each():
    stats, _ = made_up_run(workers=74, delay=30)
    workers = [replace(worker, restarts=int(worker.index == 3), pss_mb=20.0 + worker.index) for worker in stats.workers]
    text = printed(build_summary(replace(stats, workers=workers, restart_reasons={"killed by SIGKILL": 1})))
    assert "min 20.0  median 56.5  max 93.0" in text
    assert "1 (killed by SIGKILL: 1)" in text
    assert len(text.splitlines()) < 60


def test_square_brackets_are_text_not_markup():
    stats, _ = made_up_run(policy="own [bold] net, cpu")
    summary = build_summary(replace(stats, plan=replace(stats.plan, limit="Too slow [see docs].")))
    text = printed(summary)
    assert "own [bold] net" in text
    assert "Too slow [see docs]." in text
    assert "runs/[a]" in text


def test_header_lines_state_the_guessed_no_op_the_policy_and_the_refusals():
    stats, _ = made_up_run()
    header = {
        "run_id": "run-1",
        "world": {
            "noop": "0",
            "noop_source": "Toy-v0 has no no-op: action 0 stands in",
            "realtime": REALTIME,
        },
        "policy": {"policy": POLICY, "device": "cuda:0", "notes": ["graph captured"]},
        "mps": "off: processes take turns on the GPU",
    }
    config = make_config(env_id="Toy-v0", policy="synthetic", policy_args={"latency_ms": 70}, fps=50)
    text = "\n".join(header_lines(header, resolve(config, Fraction(50), 4), stats.plan))
    for fact in (
        "Toy-v0 at 50.0000 Hz",
        "WARNING: Toy-v0 has no no-op",
        "latency_ms=70",
        "cuda:0",
        "graph captured",
    ):
        assert fact in text
    assert "mps: off" in text
    assert "REFUSED SCHED_FIFO 20" in text
    assert stats.plan.sentence(POLICY) in text
