"""The campaign of real runs: what its seeds plan, what it expects of a run's end, and that its checks find damage."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from rtcore.cli.run import main
from rtcore.cli.torture import _do as do
from rtcore.errors import ConfigError
from rtcore.scheduling import planner
from rtcore.torture import faults, real
from rtcore.torture.aftermath import check_folder, lateness_us
from rtcore.torture.faults import Applied, Fault
from rtcore.torture.real import (
    Case,
    Result,
    code_fingerprint,
    judge_end,
    line_of,
    markdown_of,
    plan_case,
    read_log,
    summary_of,
)
from rtcore.torture.soak import Samples, growth_of

pytestmark = pytest.mark.unit

TICKS = 250
TRACEBACK = "Traceback (most recent call last)\n"


# -- plans -------------------------------------------------------------------------------------------------------------


def test_a_seed_plans_the_same_run_and_the_same_faults_each_time() -> None:
    assert [plan_case(seed) for seed in range(30)] == [plan_case(seed) for seed in range(30)]


def test_three_hundred_seeds_hit_every_role_at_every_phase_with_every_kind_of_fault() -> None:
    planned = [fault for seed in range(300) for fault in plan_case(seed).faults]
    roles = {"worker", "env", "forkserver", "parent", "learner", "recorder", "holder", "simulator", "run"}
    moments = {"import", "world", "workers", "rehearsal", "first tick", "run", "publication", "checkpoint", "shutdown"}
    assert {fault.role for fault in planned} == roles
    assert {fault.moment for fault in planned} == moments
    assert {fault.kind for fault in planned} == {*faults.SIGNALS, *faults.MACHINE, faults.NO_DESCRIPTORS}
    assert any(
        len({fault.after_s for fault in plan_case(seed).faults}) < len(plan_case(seed).faults) for seed in range(300)
    )


# -- ends --------------------------------------------------------------------------------------------------------------


def ended(exitcode: int, output: str, *hits: tuple[str, str], ticking: bool = True, **settings: Any) -> list[str]:
    """What is wrong with such an end."""
    case = replace(plan_case(0), **({"max_restarts": 3, "hang_s": 1.0, "env_s": 2.0} | settings))
    applied = [Applied(Fault(kind, role, 0, "ticks", "run", 0.5, 0.1), role, 0, ticking) for kind, role in hits]
    result = Result(case, exitcode, 1.0, ticking, applied)
    judge_end(result, output)
    return result.violations


@pytest.mark.parametrize(
    ("exitcode", "output", "hits"),
    [
        (0, "", []),
        (0, "", [("KILL", "worker")]),
        (0, "", [("STOP", "env")]),
        (0, "", [("INT", "learner")]),
        (0, "", [("KILL", "holder")]),
        (0, "", [("STOP", "holder")]),
        (0, "", [("freeze", "run")]),
        (1, "rtcore-run: WorkerDied: env 0 (pid 1) died", [("KILL", "env")]),
        (1, "recording stopped: the recorder died", [("SEGV", "recorder")]),
        (1, "rtcore-run: RecordError: the run's files cannot be written: No space left", [("disk", "run")]),
        # Seed 14562: the disk was full until just after the last tick.
        (1, "trace     not written: [Errno 28] No space left on device", [("disk", "run")]),
        (143, "", [("TERM", "parent")]),
        (-9, "", [("KILL", "parent")]),
        # Seed 12036: Python was still starting.
        (-2, f"{TRACEBACK}in <module>\nKeyboardInterrupt", [("INT", "parent")]),
    ],
)
def test_an_end_as_documented_is_no_violation(exitcode: int, output: str, hits: list[tuple[str, str]]) -> None:
    assert ended(exitcode, output, *hits) == []


@pytest.mark.parametrize(
    ("exitcode", "output", "hits", "found"),
    [
        (1, "Error", [], "exit code 1"),
        (1, "worker 2 died: Error", [("KILL", "worker")], "exit code 1"),
        (1, "holder 0 died: Error", [("KILL", "holder")], "exit code 1"),
        (1, "holder 0 died: Error", [("STOP", "holder")], "exit code 1"),
        (0, "", [("KILL", "env")], "exit code 0"),
        (1, "some Error", [("KILL", "env")], "no word"),
        (1, "env 0 went", [("KILL", "env")], "without an error"),
        (0, TRACEBACK, [("KILL", "worker")], "traceback"),
        (-2, f"{TRACEBACK}in end_program\nKeyboardInterrupt", [("INT", "parent")], "traceback"),
        (70, "BROKEN", [("KILL", "worker")], "exit code 70"),
    ],
)
def test_any_other_end_is_one(exitcode: int, output: str, hits: list[tuple[str, str]], found: str) -> None:
    assert any(found in violation for violation in ended(exitcode, output, *hits))


@pytest.mark.parametrize(
    ("seed", "planned", "exitcode"),
    [
        pytest.param(5245, ("HUP", "env", "run"), 1, id="planned for 2 ms before the last tick"),
        pytest.param(7285, ("KILL", "forkserver", "checkpoint"), 1, id="only the last checkpoint is written"),
        pytest.param(12062, ("KILL", "parent", "shutdown"), -9, id="the program has its exit code already"),
    ],
)
def test_what_comes_after_the_last_tick_may_change_nothing(
    seed: int, planned: tuple[str, str, str], exitcode: int
) -> None:
    """`exitcode`: of a program that was hit before."""
    case = plan_case(seed)
    fault = case.faults[0]
    assert (fault.kind, fault.role, fault.moment) == planned
    fault = replace(fault, moment="run")
    for into_ticks_s, violations in ((case.duration_s, []), (1.0, [f"exit code 0, expected one of [{exitcode}]"])):
        result = Result(case, 0, 6.3, True, [Applied(fault, fault.role, 0, True, into_ticks_s=into_ticks_s)])
        judge_end(result, "")
        assert result.violations == violations


def test_a_chunk_that_a_busy_machine_is_too_slow_for_may_be_refused_and_nothing_else() -> None:
    with pytest.raises(ConfigError) as refused:
        planner._require_chunk(3, "frame", 31, 0)
    said = f"rtcore-run: ConfigError: {refused.value}"
    assert ended(2, said, ticking=False) == ended(2, said, ("STOP", "worker"), ticking=False) == []
    assert ended(2, said, ticking=True) and ended(2, "rtcore-run: ConfigError: workers=0", ticking=False)


def test_a_broken_promise_is_one_command_and_stands_in_the_tables() -> None:
    fault = Fault("KILL", "worker", 0, "ticks", "run", 0.5, 0.1)
    good = Result(plan_case(4), 0, 2.0, True, [Applied(fault, "rt-worker0", 0, True)], lateness_us=(8.0, 4.0))
    bad = Result(plan_case(17), 1, 2.0, True, [], ["processes are left: 1"])
    assert "rtcore-torture real --seeds 17..17" in line_of(bad)
    about = summary_of([good.to_json(), bad.to_json()])
    assert about["by_role"] == {"worker": {"run": 1}}
    assert about["violations"] == {"17": ["processes are left: 1"]}
    assert about["lateness_p99_after_over_else"] == {"runs": 1, "median": 2.0}
    assert "| worker | 0 | 0 | 0 | 0 | 0 | 1 | 0 | 0 | 0 | 1 |" in markdown_of(about)


def test_a_campaign_goes_on_where_its_log_ends_and_its_table_is_that_of_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    played: list[int] = []

    def run_case(case: Case, folder: Path) -> Result:
        played.append(case.seed)
        return Result(case, 0, 1.0, True, [Applied(fault, "rt-env", 0, True) for fault in case.faults])

    monkeypatch.setattr(real, "run_case", run_case)
    log = str(tmp_path / "log.jsonl")
    for words, runs in ((["0..4"], 5), (["0..7"], 8), (["0..0"], 8)):
        assert do(["real", "--seeds", *words, "--log", log, "--json", "--jobs", "1"]) == 0
        about = json.loads(capsys.readouterr().out)
        assert about["runs"] == runs
    assert played == [*range(8)]
    assert about["faults"] == sum(len(plan_case(seed).faults) for seed in range(8))


def test_a_log_of_other_code_or_of_something_else_is_refused(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"seed": 3, "code": "0123456789ab"}\n')
    with pytest.raises(ConfigError, match="seed 3 ran with other code"):
        read_log(log, code_fingerprint())
    log.write_text("[1]\n")
    with pytest.raises(ConfigError, match="line 1 is no run"):
        read_log(log, code_fingerprint())


# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on the virtual clock, with a recording."""
    folder = tmp_path_factory.mktemp("torture") / "run"
    words = "--env-id CartPole-v1 --clock virtual --latency lognormal:30,0.3 --policy random --fps 100 --workers 4"
    with pytest.raises(SystemExit) as end:
        main([*words.split(), "--ticks", str(TICKS), "--no-live", "--no-pictures", "--record", "--out", str(folder)])
    assert end.value.code == 0
    return folder


def damaged(whole: Path, to: Path, damage: Callable[[Path], None]) -> list[str]:
    """What is found in a copy with a fault in it."""
    folder = shutil.copytree(whole, to / "run")
    damage(folder)
    return check_folder(folder, ticks=TICKS, exitcode=0, env_died=False)


def with_rows(name: str, change: Callable[[list[dict[str, str]]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        with (folder / name).open(newline="") as file:
            rows = list(csv.DictReader(file))
        change(rows)
        with (folder / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)

    return damage


def with_summary(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        summary = json.loads((folder / "summary.json").read_text())
        change(summary)
        (folder / "summary.json").write_text(json.dumps(summary))

    return damage


def swap(rows: list[dict[str, str]]) -> None:
    """An action of an older frame after one of a newer."""
    acted = [row for row in rows if row["kind"] == "acted"]
    pairs = zip(acted, acted[1:], strict=False)
    one, other = next(pair for pair in pairs if pair[0]["episode"] == pair[1]["episode"])
    one["obs_tick"], other["obs_tick"] = other["obs_tick"], one["obs_tick"]


@pytest.mark.parametrize(
    "damage",
    [
        with_rows("actions.csv", lambda rows: rows.pop(100)),
        with_rows("actions.csv", lambda rows: rows.insert(100, rows[99])),
        with_rows("actions.csv", lambda rows: rows[100].update(start_ns="5")),
        with_rows(
            "actions.csv", lambda rows: rows[100].update(kind="idle" if rows[100]["kind"] != "idle" else "missed")
        ),
        with_rows("actions.csv", swap),
        with_rows("jobs.csv", lambda rows: rows.pop()),
        with_rows("jobs.csv", lambda rows: rows[20].update(outcome="dropped_late")),
        with_rows("jobs.csv", lambda rows: rows[20].update(rows[21])),
        with_summary(lambda summary: summary["ticks"].update(count=TICKS + 1)),
        with_summary(lambda summary: summary["actions"]["outcomes"].update(late=7)),
        with_summary(lambda summary: summary["invariants"].update(broken=1)),
        with_summary(lambda summary: summary["recording"].update(frames=3)),
        lambda folder: (folder / "summary.json").write_text("{"),
        lambda folder: (folder / "summary.json.part").write_text("{"),
        lambda folder: (folder / "recording" / "data" / "ticks.hdf5").write_bytes(b"damage"),
    ],
    ids=[
        *("a row too few", "a row twice", "a tick before its time", "another kind", "an older frame"),
        *("a job too few", "another outcome", "a job twice", "a tick too many", "an outcome too many"),
        *("a broken invariant", "other frames", "half a summary", "a draft", "a damaged recording"),
    ],
)
def test_damage_to_a_folder_is_found(damage: Callable[[Path], None], whole: Path, tmp_path: Path) -> None:
    assert damaged(whole, tmp_path, damage)


def unfinish(folder: Path) -> None:
    """As if its recorder had been killed at the end."""
    data = folder / "recording" / "data"
    (data / "SHA256SUMS").unlink()
    with h5py.File(data / "ticks.hdf5", "r+") as file:
        file.attrs.modify("end", np.bytes_(b"unfinished".ljust(64)))


@pytest.mark.parametrize("column", ["frames", "jobs"])
def test_a_summary_that_counts_other_rows_than_a_killed_recorder_left_is_found(
    column: str, whole: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(whole, tmp_path / "run")
    unfinish(folder)
    look = partial(check_folder, folder, ticks=TICKS, exitcode=1, env_died=False)
    assert look() == []
    with_summary(lambda summary: summary["recording"].update({column: summary["recording"][column] - 1}))(folder)
    assert f"{column} recorded and counted" in look()[0]


def test_nothing_is_found_in_a_whole_folder(whole: Path) -> None:
    assert check_folder(whole, ticks=TICKS, exitcode=0, env_died=False) == []
    assert lateness_us(whole, 10_000_000 * 100) == (0.0, 0.0)


# -- the long run ------------------------------------------------------------------------------------------------------


def test_what_grows_after_it_had_settled_is_named_with_how_much() -> None:
    samples = Samples(at_s=[10.0 * number for number in range(200)])
    samples.measures["pss_mb"]["env"] = [
        100.0 + number for number in range(200)
    ]  # whose share of files depends on others
    samples.measures["own_mb"]["env"] = [100 + max(0, number - 60) * 0.05 for number in range(200)]
    samples.measures["descriptors"]["env"] = [20 if number < 60 else 22 for number in range(200)]
    samples.measures["threads"]["worker0"] = [float("nan")] * 5 + [3] * 195
    samples.segments, samples.segment_mb = [7] * 200, [40.0] * 200
    growth = growth_of(samples)
    assert growth == pytest.approx(
        {"own_mb of env": 0.0553, "descriptors of env": 0, "threads of worker0": 0, "segments": 0, "segment_mb": 0},
        abs=1e-3,
    )
