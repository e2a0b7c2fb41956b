"""Two schedules side by side: what is compared, what a ratio says, what is left in the folder, how it looks."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from rtcore.cli.compare import halves_of, random_play
from rtcore.cli.report import main as report
from rtcore.cli.run import main
from rtcore.clock import ManualClock
from rtcore.config.flags import parse_command
from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.recording.reader import Recording
from rtcore.report.compare import CompareView, comparison, comparison_table, figures_of, points_over_time, ratio
from rtcore.report.video.film import write_video
from rtcore.results.out_folder import OutFolder, compared_in
from rtcore.results.run_record import Score
from rtcore.results.summary import build_summary
from tests.support.filmed import film, header
from tests.support.made_up_runs import header_of, made_up_run

pytestmark = pytest.mark.unit

FIGURES = {
    *("stagger", "folder", "points", "points_per_1000_ticks", "ticks", "acted_fraction", "actions_per_s"),
    *(
        "ticks_without_action",
        "skipped_ticks",
        "episodes",
        "return_mean",
        "unfinished_return",
        "delay_ticks",
        "workers",
    ),
}


# -- figures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reference", "expected"),
    [
        (12.0, 3.0, 4.0),
        (1.0, 3.0, 0.333333),
        (0.0, 3.0, 0.0),
        (3.0, 0.0, math.inf),
        (0.0, 0.0, None),
        (-3.0, -12.0, None),
        (3.0, -1.0, None),
        (None, 3.0, None),
        (3.0, None, None),
    ],
)
def test_a_ratio_is_told_only_where_it_says_something(value, reference, expected):
    assert ratio(value, reference) == expected


def side(points: float, ticks: int = 40, **fields: Any) -> dict[str, Any]:
    stats, _ = made_up_run()
    stats = replace(stats, score=Score(points, ticks))
    return figures_of(build_summary(stats), "max-time", Path("runs/x")) | fields


ABOUT = {"world": "Toy-v0", "policy": "mlp, padded to 70 ms", "seed": 3, "rate_hz": 50.0}


def test_figures_are_those_of_the_summary_and_count_every_tick():
    figures = side(20.0)
    assert set(figures) == FIGURES
    assert (figures["points"], figures["points_per_1000_ticks"]) == (20.0, 500.0)
    assert (figures["ticks"], figures["ticks_without_action"]) == (40, 4)
    assert figures["actions_per_s"] == pytest.approx(45.0)


def test_a_half_that_was_not_played_is_null_and_so_are_its_ratios():
    content = comparison(ABOUT, {"sequential": side(2.0), "staggered": None, "random": None})
    assert content["staggered"] is None
    assert {value for ratios in content["ratios"].values() for value in ratios.values()} == {None}
    json.dumps(content, allow_nan=False)


def printed(content: dict[str, Any], sides: tuple[str, str] = ("sequential", "staggered"), width: int = 80) -> str:
    console = Console(file=io.StringIO(), record=True, width=width)
    console.print(comparison_table(content, sides))
    return console.export_text()


def row_of(text: str, label: str) -> list[str]:
    return next(line for line in text.splitlines() if line.strip("│ ").startswith(label)).strip("│").split("│")[1:]


def test_the_table_puts_both_side_by_side_with_the_ratio_and_random_play():
    sides = {"sequential": side(3.0), "staggered": side(12.0), "random": side(4.0)}
    text = printed(comparison(ABOUT, sides))
    assert [cell.strip() for cell in row_of(text, "points ")] == ["3", "12", "4.0 x", "4"]
    assert [cell.strip() for cell in row_of(text, "times random's points")] == ["0.8 x", "3.0 x", "", ""]
    assert [cell.strip() for cell in row_of(text, "ticks without an action")][:2] == ["4 (10.00%)"] * 2
    assert "padded: waits after each inference" in text
    assert max(map(len, text.splitlines())) <= 80


def test_what_there_is_no_ratio_of_is_a_dash():
    sides = {"sequential": side(0.0), "staggered": side(12.0), "random": None}
    text = printed(comparison(ABOUT, sides))
    assert [cell.strip() for cell in row_of(text, "points ")] == ["0", "12", "-", "-"]
    assert "nan" not in text
    assert "inf " not in text


# -- what is compared --------------------------------------------------------------------------------------


def test_both_halves_are_the_same_run_but_for_their_schedule_and_folder():
    config = make_config(policy="trained", policy_args={"pad_ms": 100}, seed=5, duration=15, out="o")
    compared, own = halves_of(config, "sequential").values()
    differing = {name for name, value in compared.settings.items() if value != own.settings[name]}
    assert differing == {"stagger", "out"}
    assert (compared.schedule.stagger, own.schedule.stagger) == ("sequential", "max-time")
    assert (str(compared.output.out), str(own.output.out)) == ("o/sequential", "o/staggered")


@pytest.mark.parametrize(
    ("own", "compared", "names"),
    [
        ("max-time", "free-running", ["free-running", "staggered"]),
        ("max-time", "expected-time", ["expected-time", "staggered"]),
        ("sequential", "max-time", ["max-time", "sequential"]),
    ],
)
def test_a_half_is_called_by_its_schedule_and_one_that_staggers_for_itself_staggered(own, compared, names):
    assert [*halves_of(make_config(stagger=own), compared)] == names


def test_a_sequential_half_has_one_worker_whatever_the_other_has():
    compared, own = halves_of(make_config(workers=7), "sequential").values()
    assert (compared.schedule.workers, own.schedule.workers) == (1, 7)


def test_with_a_video_both_are_recorded_and_drawn_once():
    for half in halves_of(make_config(video=True), "sequential").values():
        assert (half.output.record, half.output.video) == (True, False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"stagger": "sequential"}, "the run's own stagger is sequential, too"),
        ({"learn": "dqn", "policy": "dqn"}, "a run that learns changes it"),
        ({"duration": math.inf}, "plays to its end"),
    ],
)
def test_what_cannot_be_compared_is_refused(fields, said):
    with pytest.raises(ConfigError, match=said):
        halves_of(make_config(**fields), "sequential")


def test_random_play_is_of_the_same_world_and_seed_for_as_many_ticks_and_sees_nothing():
    config = make_config(policy="trained", policy_args={"pad_ms": 100}, env_args={"level": 3}, seed=5, obs_history=2)
    played = random_play(config, 896, Path("o"))
    assert (played.world.env_args, played.world.seed, played.agent.policy, played.timing.clock) == (
        {"level": 3},
        5,
        "random",
        "virtual",
    )
    assert (played.timing.ticks, played.timing.duration, played.agent.policy_args, played.history.obs_history) == (
        896,
        None,
        {},
        0,
    )


@pytest.mark.parametrize(
    "words", [["--compare", "sequential", "--print-config"], ["--replay", "x", "--compare", "sequential"]]
)
def test_compare_goes_with_a_run_alone(words):
    with pytest.raises(ConfigError, match="compare"):
        parse_command(words)


# -- what it leaves ----------------------------------------------------------------------------------------

WORDS = (
    "--clock",
    "virtual",
    "--env-id",
    "CartPole-v1",
    "--fps",
    "50",
    "--policy",
    "random",
    "--latency",
    "constant:100",
)


def run(*words: str) -> None:
    with pytest.raises(SystemExit) as end:
        main([*WORDS, "--ticks", "150", *words])
    assert not end.value.code


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.name[0] != "."}


def test_each_half_is_a_whole_run_and_the_next_comparison_or_run_takes_their_place(tmp_path, capsys):
    run("--compare", "sequential", "--out", str(tmp_path))
    assert files_in(tmp_path) == {"compare.json", "compare.png", "sequential", "staggered", "random"}
    content = json.loads((tmp_path / "compare.json").read_text())
    for name in ("sequential", "staggered", "random"):
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        assert set(content[name]) == FIGURES
        assert content[name]["points"] == summary["episodes"]["points"] > 0
        assert content[name]["acted_fraction"] == summary["actions"]["acted_fraction"]
        assert len((tmp_path / name / "actions.csv").read_text().splitlines()) == 151
    assert content["staggered"]["acted_fraction"] > 4 * content["sequential"]["acted_fraction"]
    said = capsys.readouterr().out
    assert f"rtcore-report {tmp_path}" in said
    assert said.rstrip().splitlines()[-1].startswith("└"), "the table comes last"
    ticks, points = points_over_time(tmp_path / "staggered")
    assert (ticks[-1], points[-1]) == (149, content["staggered"]["points"])
    for words, code in (([str(tmp_path)], 0), ([str(tmp_path), "--tick", "3"], 2)):
        with pytest.raises(SystemExit) as end:
            report(words)
        assert end.value.code == code
    page = (tmp_path / "report.html").read_text()
    assert all(name in page for name in ("sequential", "staggered"))
    (tmp_path / "staggered" / "mine.txt").touch()
    run("--compare", "free-running", "--workers", "5", "--no-pictures", "--out", str(tmp_path))
    assert files_in(tmp_path) == {"compare.json", "free-running", "staggered", "random"}
    assert not list(tmp_path.rglob("*.png"))
    assert [*compared_in(tmp_path)] == ["free-running", "staggered", "random"]
    run("--out", str(tmp_path))
    assert files_in(tmp_path) == {"config.json", "summary.json", "actions.csv", "jobs.csv", "timeline.png", "staggered"}
    assert files_in(tmp_path / "staggered") == {"mine.txt"}


@pytest.mark.parametrize("text", ["", "[]", '{"sequential": {}, "../..": {"points": 1}}', '{"staggered": null}'])
def test_only_folders_that_a_comparison_names_by_a_schedule_are_cleared(tmp_path, text):
    out = tmp_path / "out"
    for name in ("sequential", "staggered"):
        (out / name).mkdir(parents=True)
        (out / name / "actions.csv").touch()
    (out / "compare.json").write_text(text)
    with OutFolder(out) as folder:
        folder.acquire()
        folder.clear()
    assert all((out / name / "actions.csv").exists() for name in ("sequential", "staggered"))


# -- how it looks ------------------------------------------------------------------------------------------


def looks(width: int, height: int, image: Any, encoding: str = "utf-8", *, both: bool = True) -> list[str]:
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    settings = {"no_color": True, "_environ": {"TERM": "xterm"}, "highlight": False}
    console = Console(file=out, force_terminal=True, width=width, height=height, record=True, **settings)
    stats, record = made_up_run()
    view = CompareView(console, ["sequential", "staggered"], quiet=True)
    for name in ("sequential", "staggered")[: 2 if both else 1]:
        shown = view.sides[name]
        shown.begin(header_of(stats), lambda: image)
        shown.update(stats, record)
        shown.end()
    console.print(view)
    return console.export_text().splitlines()


WHITE = np.full((84, 84, 1), 255, np.uint8)


def test_both_worlds_stand_side_by_side_with_score_actions_and_what_was_missing():
    text = "\n".join(looks(80, 24, WHITE))
    assert "█" * 34 + " " * 7 + "█" * 34 in text
    assert text.count("0 points") >= 2
    assert "45.0 actions a second" in text
    assert "4 ticks without an action" in text
    assert "0.8 of 1.6 s" in text


def test_before_the_second_begins_it_is_said_to_come():
    assert any("sequential" in line and "to come" in line for line in looks(80, 24, WHITE, both=False))


@pytest.mark.parametrize(("width", "height"), [(80, 24), (60, 10), (20, 5), (200, 60), (8, 2)])
def test_nothing_is_wider_than_the_terminal(width, height):
    lines = looks(width, height, WHITE)
    assert lines
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(("image", "encoding"), [(None, "utf-8"), (WHITE, "ascii")], ids=["no image", "no UTF-8"])
def test_where_no_world_can_be_drawn_there_are_the_numbers(image, encoding):
    text = "\n".join(looks(80, 24, image, encoding))
    assert "4 ticks without an action" in text
    assert "█" * 34 not in text


def test_in_a_pipe_a_line_says_whose_it_is():
    stats, record = made_up_run()
    out = io.StringIO()
    with CompareView(Console(file=out, width=200), ["sequential", "staggered"], clock=ManualClock()) as view:
        shown = view.sides["sequential"]
        shown.begin(header_of(stats), lambda: WHITE)
        shown.update(stats, record)
        shown.end()
        assert shown.image is WHITE, "for the picture at the end"
    assert out.getvalue().startswith("sequential: 0.8/1.6 s, 50.00 Hz, acted 100%")
    assert "█" not in out.getvalue()


def test_two_recordings_are_drawn_side_by_side_and_the_shorter_one_stays(tmp_path):
    frames = [np.full((20, 31), value, np.uint8) for value in (0, 120, 250)]
    first = film(tmp_path / "a", frames, [header(tick) for tick in range(3)], [1, 2, 3])
    second = film(tmp_path / "b", frames[:2], [header(tick) for tick in range(2)], [1, 2])
    with Recording(first) as long, Recording(second) as short:
        one = write_video({"": long}, tmp_path / "one.mp4")
        both = write_video({"sequential": short, "staggered": long}, tmp_path / "both.mp4")
    assert (both.frames, both.width, both.height) == (3, 2 * one.width, one.height)
    assert both.held == 0
