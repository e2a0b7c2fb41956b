"""The timeline picture of a small made-up run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

from rtcore.memory.counters import Histogram
from rtcore.report.colours import OUTCOME_COLOURS
from rtcore.report.timeline import (
    BAR_STYLE,
    TICKS_AXES,
    WORKERS_AXES,
    WORST,
    build_figure,
    choose_window,
    draw_timeline,
)
from rtcore.results.run_record import RunRecord
from rtcore.scheduling.dispatch import Outcome
from tests.support.made_up_runs import PERIOD_NS, POLICY, made_up_job, made_up_run

pytestmark = pytest.mark.unit


def bars_of(figure) -> int:
    axes = next(axes for axes in figure.axes if axes.get_label() == WORKERS_AXES)
    return sum(len(container.patches) for container in axes.containers)


def test_timeline_has_a_bar_for_every_job_in_its_window():
    stats, record = made_up_run()
    window = choose_window(record.ticks, stats.delay_ticks, PERIOD_NS)
    assert (window.first_tick, window.last_tick) == (4, 35)
    record.add_job(made_up_job(99, 0, 37, 39, Outcome.UNFINISHED))
    in_window = [job for job in record.jobs if job.booked_tick <= 35 and job.tick >= 4]
    assert bars_of(build_figure(record, stats)) == len(in_window)


def test_timeline_title_names_the_run():
    stats, record = made_up_run()
    title = build_figure(record, stats).get_suptitle()
    for fact in (
        "Toy-v0",
        POLICY,
        "max-time, 4 workers",
        "delay 4 ticks (80 ms)",
        "wall clock",
        "all 40 ticks",
    ):
        assert fact in title


def test_timeline_shows_missed_ticks_and_lost_jobs():
    stats, record = made_up_run(dead=2)
    figure = build_figure(record, stats)
    labels = {text.get_text() for axes in figure.axes if axes.get_legend() for text in axes.get_legend().get_texts()}
    assert {"inference, dropped dead worker", "tick: missed", "tick: acted"} <= labels
    assert any(axes.get_label() == TICKS_AXES for axes in figure.axes)


@pytest.mark.parametrize("workers", [1, 74])
def test_timeline_is_written(tmp_path: Path, workers: int):
    stats, record = made_up_run(workers=workers, delay=3)
    draw_timeline(record, stats, tmp_path / "new" / "timeline.png")
    assert (tmp_path / "new" / "timeline.png").read_bytes().startswith(b"\x89PNG")


def test_timeline_of_nothing_says_so(tmp_path: Path):
    stats, _ = made_up_run()
    nothing = {name: Histogram().snapshot() for name in stats.distributions}
    empty = replace(stats, counters=dict.fromkeys(stats.counters, 0), distributions=nothing)
    record = RunRecord(None, lambda raw: raw)
    figure = build_figure(record, empty)
    texts = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"no policy action", "no tick"} <= texts
    draw_timeline(record, empty, tmp_path / "timeline.png")


def names_of(figure) -> dict[str, str]:
    return {axes.get_label(): axes.get_legend().get_title().get_text() for axes in figure.axes if axes.get_legend()}


def test_the_worst_stretch_stands_beside_a_typical_one_and_both_say_which_they_are():
    stats, record = made_up_run(dead=2)
    worst = record.worst.found()
    assert worst is not None
    names = names_of(build_figure(record, stats))
    assert names[WORKERS_AXES].startswith("a typical stretch: ticks ")
    expected = f"the worst stretch, {worst.without_action} ticks without a policy action: ticks {worst.first_tick} to "
    assert names[WORST + WORKERS_AXES].startswith(expected)


def test_a_run_without_a_lacking_action_has_no_worst_stretch():
    stats, record = made_up_run()
    assert record.worst.found() is None
    assert list(names_of(build_figure(record, stats))) == [WORKERS_AXES]


def test_an_outcome_has_the_same_colour_in_the_picture_and_in_the_terminal():
    stats, record = made_up_run(dead=2)
    axes = next(axes for axes in build_figure(record, stats).axes if axes.get_label() == WORKERS_AXES)
    drawn = {container.get_label(): to_hex(container.patches[0].get_facecolor()) for container in axes.containers}
    for outcome in (Outcome.ON_TIME, Outcome.DROPPED_DEAD_WORKER):
        name = outcome.name.lower()
        assert drawn[f"inference, {name.replace('_', ' ')}"] == OUTCOME_COLOURS[name].lower()
        assert BAR_STYLE[outcome] == OUTCOME_COLOURS[name]
