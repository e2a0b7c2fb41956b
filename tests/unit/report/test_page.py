"""The report page of simulated runs, one or several, and the command that writes it."""

from __future__ import annotations

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtcore.report.numbers import rows_of, with_workers
from rtcore.report.page import charts as page_charts
from rtcore.report.page import tables as page_tables
from rtcore.report.page.build import build_page, run_names
from rtcore.report.page.data import RunDistributions
from rtcore.results.folder import RunFolder, read_run
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.results.summary import build_summary
from rtcore.scheduling.dispatch import Outcome, TickKind
from tests.support.made_up_runs import made_up_run_with_head
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


def data_of(page: str) -> dict[str, Any]:
    """What the page's script is given."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    content: dict[str, Any] = json.loads(found.group(1))
    return content


# -- the page ----------------------------------------------------------------------------------------------


def test_the_page_refers_to_nothing_outside_itself(whole: Path) -> None:
    page = build_page([read_run(whole)])
    seen = Visible(page)
    assert [address for address in seen.addresses if not address.startswith(("#", "data:"))] == []
    assert "link" in seen.tags  # the empty icon: without it a browser asks for one
    assert "default-src 'none'" in page


def test_every_tick_and_every_inference_is_in_the_timeline(whole: Path) -> None:
    run = read_run(whole)
    timeline = data_of(build_page([run]))["timelines"][0]
    assert sorted(tick for group in timeline["ticks"] for tick in group["from"]) == [row.tick for row in run.ticks]
    booked = [facts[0] for group in timeline["jobs"] for facts in group["facts"]]
    assert sorted(booked) == sorted(job.booked_tick for job in run.jobs)
    kinds = {group["name"]: len(group["from"]) for group in timeline["ticks"]}
    assert kinds == {name: count for name, count in run.summary["ticks"]["kinds"].items() if count}
    for group in timeline["jobs"]:
        assert all(start <= end for start, end in zip(group["from"], group["to"], strict=True))
        assert {len(group[key]) for key in ("lane", "from", "to", "until", "settled", "facts")} == {len(group["from"])}


def test_the_first_view_shows_the_first_missed_tick(whole: Path) -> None:
    run = read_run(whole)
    low, high = page_charts.timeline(run)["start"]
    missed = next(row.tick for row in run.ticks if row.kind is TickKind.MISSED)
    assert low <= missed < high <= 400


def test_every_chart_is_a_figure_that_plotly_accepts(whole: Path) -> None:
    from plotly.graph_objects import Figure

    data = data_of(build_page([read_run(whole)]))
    figures = [*data["figures"].values(), *data["overviews"]]
    assert len(figures) >= 6
    for figure in figures:
        Figure(figure)


def test_histograms_count_every_sample(whole: Path) -> None:
    samples = RunDistributions(read_run(whole))
    expected = [samples.lateness_us, samples.interval_ticks, samples.delay_ticks, samples.observation_age_ms]
    for values, (title, _, of, unit, _) in zip(expected, page_charts.DISTRIBUTIONS, strict=True):
        figure = page_charts.histogram(of, unit, [("a", samples)])
        assert figure is not None
        assert sum(bar[1] for bar in figure["data"][0]["customdata"]) == len(values), title
        assert sum(figure["data"][0]["y"]) == pytest.approx(100)


def test_charts_over_time_count_every_tick_skipped_ones_too(whole: Path) -> None:
    run = read_run(whole)
    gone = [
        row._replace(skipped_ticks=2) if row.tick == 102 else row for row in run.ticks if row.tick not in (100, 101)
    ]
    counts = RunDistributions(replace(run, ticks=gone)).kinds_over_time()
    assert sum(map(sum, counts.rows.values())) == 400
    assert sum(counts.rows["skipped"]) == 2
    outcomes = RunDistributions(run).outcomes_over_time()
    assert sum(map(sum, outcomes.rows.values())) == len(run.jobs)


def test_text_from_a_run_cannot_become_markup_or_script(copied: Path) -> None:
    evil = "</script><script>alert(1)</script><img src=//x.example>"
    config = json.loads((copied / "config.json").read_text())
    config["config"]["policy"] = config["config"]["env_id"] = config["machine"]["host"] = evil
    (copied / "config.json").write_text(json.dumps(config))
    lines = (copied / "actions.csv").read_text().splitlines()
    (copied / "actions.csv").write_text("\n".join(line.replace(",noop,6", f",noop,{evil}") for line in lines) + "\n")
    page = build_page([read_run(copied)])
    plain = Visible(page)
    labels = [str(facts[7]) for group in data_of(page)["timelines"][0]["ticks"] for facts in group["facts"]]
    assert any("&lt;/script>&lt;script>alert(1)" in label for label in labels)  # what Plotly reads as markup
    assert "img" not in plain.tags
    assert plain.tags.count("script") == 3
    assert evil in " ".join(plain.words)


def test_a_setting_that_is_not_the_default_is_marked_and_one_that_follows_from_it_is_not(tmp_path: Path) -> None:
    run = read_run(simulated(tmp_path / "many", workers=200, ticks=40))
    lines = {line.name: line for line in page_tables.settings([run])}
    assert lines["workers"].changed == (True,)
    assert lines["max-workers"].values == ("200",)
    assert lines["max-workers"].changed == (False,)
    assert lines["on-missing"].changed == (False,)
    assert lines["workers"].default == "auto"


def test_numbers_come_from_the_summary_and_without_one_from_the_rows(whole: Path) -> None:
    run = read_run(whole)

    def shown(of: RunFolder) -> dict[str, str]:
        return {line.label: line.cells[0].text for line in page_tables.numbers([RunDistributions(of)]) if line.cells}

    counted, derived = shown(run), shown(replace(run, summary={}))
    for label in ("acted, of possible ticks", "missed", "superseded", "delay, p50 [ticks]", "interval, CV", "episodes"):
        assert counted[label] == derived[label]
    assert "publish, p50 [us]" in counted
    assert "publish, p50 [us]" not in derived


def test_what_the_terminal_says_of_a_run_stands_on_the_page_under_the_same_names(whole: Path) -> None:
    run = read_run(whole)
    page = {line.label.partition(",")[0].partition(" [")[0] for line in page_tables.numbers([RunDistributions(run)])}
    for section in ("Ticks", "Actions", "Workers", "Episodes"):
        rows = [row for row in rows_of(section, with_workers(run.summary)) if row.text not in ("no sample", "-")]
        assert len(rows) >= 3
        assert {row.label.partition(",")[0].replace("_", " ") for row in rows} <= page


def test_the_page_shows_the_summarys_rate_where_the_world_waited(whole: Path) -> None:
    """A RealtimeEnv waits for resets: its summary leaves that out of the rate, which the rows alone cannot."""
    run = read_run(whole)
    waited = replace(run, summary=run.summary | {"ticks": run.summary["ticks"] | {"hz": 61.25}})
    page = Visible(build_page([waited])).text
    assert "61.250 per second" in page  # the card
    lines = {line.label: line for line in page_tables.numbers([RunDistributions(waited)])}
    assert lines["per second"].cells[0].text == "61.2500"


# -- several runs ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    lone = simulated(tmp_path_factory.mktemp("runs") / "lone", stagger="sequential", ticks=300)
    return [read_run(whole), read_run(lone)]


def test_runs_side_by_side_have_ratios_against_the_first(pair: list[RunFolder]) -> None:
    lines = {line.label: line for line in page_tables.numbers([RunDistributions(run) for run in pair]) if line.cells}
    first, second = (run.summary["actions"]["acted_fraction"] for run in pair)
    ratio = lines["acted, of possible ticks"].cells[1].ratio
    assert float(ratio[1:]) == pytest.approx(second / first, rel=0.01)
    assert lines["dropped late"].cells[1].ratio == "-"  # 0 against 0 has none


def test_runs_side_by_side_share_the_bins_of_their_histograms(pair: list[RunFolder]) -> None:
    named = [(run.path.name, RunDistributions(run)) for run in pair]
    for title, _, of, unit, _ in page_charts.DISTRIBUTIONS:
        figure = page_charts.histogram(of, unit, named)
        assert figure is not None
        names = [trace["name"] for trace in figure["data"]]
        assert names == ["whole", "lone"], title
        labels = [{bar[0]: x for bar, x in zip(t["customdata"], t["x"], strict=True)} for t in figure["data"]]
        for label in labels[0].keys() & labels[1].keys():
            assert labels[0][label] == labels[1][label]


def test_settings_that_differ_between_runs_are_marked(pair: list[RunFolder]) -> None:
    differing = {line.name for line in page_tables.settings(pair) if line.differs}
    assert {"stagger", "ticks", "out"} <= differing
    assert "seed" not in differing
    page = Visible(build_page(pair)).text
    assert "2 runs: whole, lone" in page
    assert "Ratios are against whole" in page


def test_a_whole_and_a_damaged_run_stand_side_by_side(pair: list[RunFolder]) -> None:
    nothing = replace(pair[1], ticks=[], jobs=[], summary={}, about={}, notes=["everything is missing"])
    page = build_page([pair[0], nothing])
    assert "everything is missing" in page
    assert data_of(page)["timelines"][1]["ticks"] == []


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    assert run_names([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert run_names([Path("/x/a"), Path("/y/a")]) == ["x/a", "y/a"]
    assert run_names([Path("/x/a"), Path("/x/a")]) == ["a", "a"]


# -- the command -------------------------------------------------------------------------------------------


def test_the_page_is_written_where_out_says_and_named(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "page.html"
    assert call(whole, "--out", out) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert f"wrote {out}" in capsys.readouterr().out
    assert not list(out.parent.glob("*.part"))


def test_an_out_that_cannot_be_written_is_a_failure_with_its_reason(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert call(whole, "--out", tmp_path / "file" / "page.html") == 1
    assert "cannot write" in capsys.readouterr().err
    assert call(whole, "--out", tmp_path) == 2
    assert "is a folder" in capsys.readouterr().err


def test_a_tick_is_explained_on_the_terminal(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missed = next(row.tick for row in read_run(whole).ticks if row.kind is TickKind.MISSED)
    assert call(whole, "--tick", missed) == 0
    text = capsys.readouterr().out
    assert f"Tick {missed}: missed" in text
    assert "the inference was slow" in " ".join(text.split())


@pytest.mark.parametrize(
    ("more", "phrase"),
    [
        (["--tick", "100000"], "not in this run; its record goes from tick 0 to tick 399"),
        (["--tick", "5", "--open"], "leave out --out and --open"),
        (["--tick", "x"], "invalid int value"),
        (["--tock", "5"], "unrecognized arguments: --tock"),
    ],
)
def test_wrong_arguments_exit_with_2_and_say_what_to_do(
    whole: Path, capsys: pytest.CaptureFixture[str], more: list[str], phrase: str
) -> None:
    assert call(whole, *more) == 2
    assert phrase in " ".join(capsys.readouterr().err.split())


def test_one_tick_of_two_runs_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(whole, whole, "--tick", "5") == 2
    assert "got 2 folders" in capsys.readouterr().err


def test_help_teaches_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--help") == 0
    text = capsys.readouterr().out
    assert "examples:" in text
    assert "--tick 312" in text


def test_without_plotly_the_error_names_what_to_install(
    whole: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    assert call(whole) == 2
    assert "pip install 'rtcore[report]'" in capsys.readouterr().err
    assert call(whole, "--tick", "5") == 0  # words need no plotly


def test_ratios_and_numbers_that_do_not_exist_are_dashes(pair: list[RunFolder]) -> None:
    broken = replace(pair[1], summary={"actions": {"acted_fraction": None}}, ticks=[], jobs=[])
    lines = {line.label: line for line in page_tables.numbers([RunDistributions(run) for run in (pair[0], broken)])}
    cell = lines["acted, of possible ticks"].cells[1]
    assert (cell.text, cell.ratio) == ("-", "-")
    assert math.isnan(
        RunDistributions(replace(broken, summary={}, jobs=pair[1].jobs)).summary["actions"]["acted_fraction"]
    )
    assert RunDistributions(broken).outcomes == {outcome.name.lower(): 0 for outcome in Outcome}


def test_the_head_of_a_policy_with_two_speeds_has_a_lane_and_base_ticks_a_colour_of_their_own() -> None:
    stats, record = made_up_run_with_head()
    ticks, jobs = [TickRow.of(header, "1") for header in record.ticks], [InferenceRow.of(job) for job in record.jobs]
    run = RunFolder(Path(), {}, build_summary(stats), ticks, jobs)
    timeline = page_charts.timeline(run)
    assert timeline["lanes"] == ["w00", "w01", "w02", "w03", "head"]
    shown = {group["name"]: group for group in timeline["ticks"]}
    assert len(shown["base"]["from"]) == 7 and len(shown["acted"]["from"]) == 29
    assert shown["acted"]["facts"][0][8] == "the head"
    assert shown["acted"]["facts"][0][13].endswith("features of the frame of tick 0, 4 ticks old")
    lanes = {lane for group in timeline["jobs"] if group["name"] == "on_time" for lane in group["lane"]}
    assert 4 in lanes
    assert RunDistributions(RunFolder(Path(), {}, {}, ticks, jobs)).summary["head"]["base_ticks"] == 7
