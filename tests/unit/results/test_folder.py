"""Reading run folders back: whole, half written and damaged; and the page of each."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rtcore.errors import ConfigError
from rtcore.memory.counters import Distribution
from rtcore.memory.layout import HISTOGRAM_BUCKETS
from rtcore.report.page.data import RunDistributions, quantile
from rtcore.results.folder import read_run
from tests.support.report_pages import Visible, call, simulated

pytest.importorskip("plotly", reason="the page needs plotly: pip install 'rtcore[report]'")
pytestmark = pytest.mark.unit


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulated(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def copied(whole: Path, tmp_path: Path) -> Path:
    """The run again, to be damaged."""
    return shutil.copytree(whole, tmp_path / "copy")


def test_a_whole_run_is_read_back_without_a_note(whole: Path) -> None:
    run = read_run(whole)
    assert run.notes == []
    assert [row.tick for row in run.ticks] == list(range(400))
    assert len(run.jobs) == run.summary["actions"]["jobs"]
    assert 1e9 / run.period_ns == pytest.approx(run.summary["ticks"]["ideal_hz"], rel=1e-6)


def test_what_is_derived_from_the_rows_is_what_the_run_counted(whole: Path) -> None:
    run = read_run(whole)
    samples, actions, ticks = RunDistributions(run), run.summary["actions"], run.summary["ticks"]
    assert samples.kinds == ticks["kinds"]
    assert samples.outcomes == actions["outcomes"]
    assert samples.skipped_ticks == ticks["skipped"]
    again = RunDistributions(replace(run, summary={})).summary
    assert again["actions"]["acted_fraction"] == pytest.approx(actions["acted_fraction"], abs=1e-6)
    assert again["ticks"]["hz"] == pytest.approx(ticks["hz"], abs=1e-6)
    assert samples.interval_ticks.mean() == pytest.approx(actions["interval_ticks"]["mean"], abs=1e-6)
    assert samples.interval_ticks.std() / samples.interval_ticks.mean() == pytest.approx(
        actions["interval_ticks"]["cv"], abs=1e-6
    )
    assert samples.delay_ticks.max() == actions["delay_ticks"]["max"]
    # The summary's percentiles come from buckets of under 1% each.
    assert quantile(samples.observation_age_ms, 0.5) == pytest.approx(actions["observation_age_ms"]["p50"], rel=0.01)
    assert len(samples.episodes) == run.summary["episodes"]["count"]


@pytest.mark.parametrize(
    ("make", "phrase"),
    [
        (lambda path: None, "no such folder"),
        (lambda path: path.write_text("x"), "is a file"),
        (lambda path: path.mkdir(), "not a run: it holds none of config.json"),
    ],
)
def test_what_is_not_a_run_is_refused_with_the_command_that_makes_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, phrase: str
) -> None:
    make(tmp_path / "x")
    assert call(tmp_path / "x") == 2
    error = capsys.readouterr().err
    assert phrase in error
    assert "rtcore-run --out" in error


def test_a_killed_run_is_shown_from_its_rows_and_says_so(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (copied / "summary.json").unlink()
    text = (copied / "actions.csv").read_text()
    (copied / "actions.csv").write_text(text[: len(text) // 2])
    assert call(copied) == 0
    assert "summary.json is missing" in capsys.readouterr().err
    seen = Visible((copied / "report.html").read_text()).text
    assert "summary.json is missing: the run was killed, is still going on, or never began" in seen
    assert "actions.csv ends in the middle of a row, which is left out" in seen
    assert "acted, of possible ticks" in seen


def test_a_last_row_without_its_end_is_left_out_even_where_it_looks_whole(copied: Path) -> None:
    text = (copied / "actions.csv").read_text()
    (copied / "actions.csv").write_text(text[:-3])
    run = read_run(copied)
    assert run.ticks[-1].tick == 398
    assert "ends in the middle of a row" in " ".join(run.notes)


def test_unreadable_rows_are_left_out_and_counted(copied: Path) -> None:
    lines = (copied / "jobs.csv").read_text().splitlines()
    lines[3] = lines[3].replace("on_time", "on_t")
    lines[7] = "1,2"
    (copied / "jobs.csv").write_text("\n".join(lines) + "\n")
    run = read_run(copied)
    assert len(run.jobs) == len(lines) - 3
    assert "jobs.csv: 2 unreadable rows are left out, the first on line 4." in run.notes


@pytest.mark.parametrize("content", ["", "half"])
def test_an_empty_table_gives_a_page_that_says_so(copied: Path, content: str) -> None:
    (copied / "actions.csv").write_text((copied / "actions.csv").read_text()[:40] if content else "")
    (copied / "summary.json").unlink()
    assert call(copied) == 0
    seen = Visible((copied / "report.html").read_text()).text
    assert "actions.csv is empty: no ticks to show" in seen
    assert "No timeline: no tick is recorded" in seen


def test_a_table_with_a_header_only_says_that_it_has_no_rows(copied: Path) -> None:
    header = (copied / "jobs.csv").read_text().splitlines()[0]
    (copied / "jobs.csv").write_text(header + "\n")
    assert "jobs.csv has no rows: no inferences to show." in read_run(copied).notes
    assert call(copied) == 0


def test_a_run_that_failed_before_its_first_tick_still_shows_its_settings(copied: Path) -> None:
    for name in ("summary.json", "actions.csv", "jobs.csv"):
        (copied / name).unlink()
    assert call(copied) == 0
    seen = Visible((copied / "report.html").read_text()).text
    assert "actions.csv is missing" in seen
    assert "policy-args" in seen


def test_a_table_of_another_version_is_refused(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (copied / "actions.csv").read_text()
    (copied / "actions.csv").write_text(text.replace("lateness_us", "late_us", 1))
    assert call(copied) == 2
    assert "no column lateness_us" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["config.json", "summary.json"])
@pytest.mark.parametrize("content", ['{"config": {', "[1, 2]", "\xff\xfe"])
def test_broken_json_is_said_and_the_rest_is_shown(copied: Path, name: str, content: str) -> None:
    (copied / name).write_bytes(content.encode("latin-1"))
    assert call(copied) == 0
    seen = Visible((copied / "report.html").read_text()).text
    assert f"{name} cannot be read" in seen or f"{name} holds a list" in seen
    assert "acted, of possible ticks" in seen


@pytest.mark.parametrize(("name", "what"), [("actions.csv", "ticks"), ("jobs.csv", "inferences")])
def test_a_table_that_the_system_does_not_let_us_read_is_said_and_the_rest_is_shown(
    copied: Path, capsys: pytest.CaptureFixture[str], name: str, what: str
) -> None:
    (copied / name).unlink()
    (copied / name).symlink_to("/proc/self/mem")  # a file that can be opened, and not be read at its beginning
    assert call(copied) == 0
    assert f"{name} cannot be read beyond line 0: Input/output error: no {what} to show." in capsys.readouterr().err


def test_a_table_is_shown_as_far_as_it_is_a_table(copied: Path) -> None:
    lines = (copied / "actions.csv").read_text().splitlines(keepends=True)
    (copied / "actions.csv").write_text("".join([*lines[:51], "x" * 200_000 + "\n", *lines[51:]]))
    run = read_run(copied)
    assert [row.tick for row in run.ticks] == list(range(50))
    assert any("actions.csv cannot be read beyond line 5" in note for note in run.notes)
    (copied / "actions.csv").write_text("x" * 200_000 + "\n")
    with pytest.raises(ConfigError, match=r"actions\.csv: no column tick"):
        read_run(copied)


def test_a_folder_that_cannot_be_looked_into_is_an_error_with_its_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(tmp_path / ("x" * 300), "--tick", "3") == 2
    assert "cannot be looked at: File name too long" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("count", [1, 2, 3, 10, 99, 100, 101])
def test_percentiles_of_rows_are_those_that_the_run_itself_counts(count: int) -> None:
    values = np.random.default_rng(count).integers(0, 200, count)  # below 256 a histogram is exact
    counts = np.bincount(values, minlength=HISTOGRAM_BUCKETS)
    counted = Distribution(count, 0.0, 0.0, int(values.min()), int(values.max()), counts)
    for q in (0.5, 0.9, 0.99, 1.0):
        assert quantile(values.astype(float), q) == pytest.approx(counted.percentile(q), abs=0)


def test_how_a_run_ended_early_is_a_note(copied: Path) -> None:
    summary = json.loads((copied / "summary.json").read_text())
    summary |= {"error": "WorkerDied: worker 1", "record": {"lost_ticks": 4, "lost_jobs": 0}}
    (copied / "summary.json").write_text(json.dumps(summary))
    notes = " ".join(read_run(copied).notes)
    assert "The run failed: WorkerDied: worker 1" in notes
    assert "4 rows of ticks are missing" in notes


def test_one_tick_of_unknown_rate_has_no_timeline_but_a_page(copied: Path) -> None:
    lines = (copied / "actions.csv").read_text().splitlines()
    (copied / "actions.csv").write_text("\n".join(lines[:2]) + "\n")
    (copied / "summary.json").unlink()
    assert "The tick rate is not known" in " ".join(read_run(copied).notes)
    assert call(copied) == 0
