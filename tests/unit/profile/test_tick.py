"""What `rtcore-profile tick` makes of times, options and of cyclictest's words."""

import argparse
from fractions import Fraction

import numpy as np
import pytest
from rich.console import Console

from rtcore.errors import ConfigError
from rtcore.profile import tick
from rtcore.profile.commands import add_options
from rtcore.profile.results import Result
from rtcore.profile.views import Steps

pytestmark = pytest.mark.unit


def plan_of(*words):
    parser = argparse.ArgumentParser()
    add_options(parser, "tick")
    return tick._plan(parser.parse_args(words))


def test_idle_and_loaded_are_measured_under_both_policies():
    rate_hz, cases = plan_of("--load", "3")
    assert rate_hz == Fraction(4194304, 70224)
    assert cases == [("other", 0), ("fifo", 0), ("other", 3), ("fifo", 3)]


def test_no_load_is_idle_only():
    assert plan_of("--load", "0", "--policy", "other")[1] == [("other", 0)]


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "fast"),
        ("--rate", "1/0"),
        ("--rate", "0.5"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--seconds", "1e300"),
        ("--load", "-1"),
    ],
)
def test_a_wrong_option_is_refused(words):
    with pytest.raises(ConfigError, match="expected"):
        plan_of(*words)


def report(histogram, cycles, largest, mean):
    return {"thread": {"0": {"histogram": histogram, "cycles": cycles, "max": largest, "avg": mean}}}


def test_what_overflows_the_histogram_of_cyclictest_counts_as_its_maximum():
    lateness_us, mean_us = tick.parse_cyclictest(report({"10": 97, "12": 1}, 100, 30_000, 610.0))
    assert sorted(lateness_us) == [10.0] * 97 + [12.0, 30_000.0, 30_000.0]
    assert mean_us == 610.0
    assert list(tick.parse_cyclictest(report({}, 1, 7, 7.0))[0]) == [7.0]


def test_turns_are_put_together_as_one_distribution(monkeypatch):
    turns = iter([report({"10": 1}, 1, 10, 10.0), report({"10": 1, "40": 2}, 3, 40, 30.0)])
    monkeypatch.setattr(tick, "measure_cyclictest", lambda *_: tick.parse_cyclictest(next(turns)))
    monkeypatch.setattr(tick, "measure_clock", lambda *_: ([1000, 3000], 1, {"SCHED_FIFO 20": "granted"}))
    steps = Steps(Console(quiet=True), 20.0)
    clock, cyclictest = tick._measure(
        tick.TickCase("other", 0), Fraction(60), 10.0, cyclictest="cyclictest", refused={}, steps=steps
    )
    assert (clock[0], list(clock[1]), *clock[2:]) == ("tick-clock", [1.0, 3.0, 1.0, 3.0], 2.0, 2)
    assert (cyclictest[0], list(cyclictest[1]), *cyclictest[2:]) == ("cyclictest", [10, 10, 40, 40], 25.0, None)


def rows_and_shapes():
    rows, shapes = [], []
    for source, times in (("tick-clock", [4000, 5000, 6000]), ("cyclictest", [50_000, 60_000, 70_000])):
        found = np.array(times) / 1e3
        skipped = 2 if source == "tick-clock" else None
        rows.append(
            tick._row(
                tick.TickCase("other", 0),
                source,
                Fraction(60),
                found,
                mean_us=float(found.mean()),
                skipped_ticks=skipped,
            )
        )
        shapes.append(tick._shape(rows[-1], found))
    tick._add_ratios(rows)
    return rows, shapes


def test_the_tick_clock_is_measured_against_cyclictest_of_the_same_case():
    rows, shapes = rows_and_shapes()
    assert rows[0]["p99_to_cyclictest_mean"] == 0.1
    assert rows[0]["p99_to_cyclictest_p99"] == round(5.98 / 69.8, 3)
    assert rows[1]["p99_to_cyclictest_mean"] is None
    assert [sum(shape["counts"]) for shape in shapes] == [3, 3]


def test_without_cyclictest_there_is_no_ratio():
    rows, _ = rows_and_shapes()
    tick._add_ratios(rows[:1])
    assert rows[0]["p99_to_cyclictest_mean"] is None


def test_skipped_ticks_are_shown_beside_the_lateness_of_the_others():
    rows, _ = rows_and_shapes()
    assert [row["skipped_ticks"] for row in rows] == [2, None]
    skipped = tick._table(rows, Fraction(60)).columns[-1]
    assert (skipped.header, list(skipped.cells)) == ("skipped", ["2", "-"])


def test_the_picture_is_drawn_without_a_display(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    rows, shapes = rows_and_shapes()
    (path,) = tick.plot(Result("tick", rows, ("source", "policy", "load"), {"histograms": shapes}), tmp_path)
    assert path.read_bytes().startswith(b"\x89PNG")
