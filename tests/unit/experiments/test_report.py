"""`rtcore-sweep report`: what the cells of a sweep come to, as tables, regret, a line over inference time, pictures."""

from __future__ import annotations

import json
import random
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import benchmarks.sweeps
from rtcore.cli.sweep_report import report
from rtcore.errors import ConfigError
from rtcore.experiments.estimates import band, difference, estimate
from rtcore.experiments.plots import styles_of
from rtcore.experiments.records import read_sweep
from rtcore.experiments.table import grids_of
from tests.support.sweeps import made_up, played

pytestmark = pytest.mark.unit


def reported(folder, *words):
    """report.json of it, without pictures."""
    assert report([str(folder), *words, "--no-plots"]) == 0
    return json.loads((folder / "report" / "report.json").read_text())


def rows_of(table):
    return {(row["agent"], row["delay_ticks"]): row for row in table["rows"]}


# -- the sweeps that come with rtcore ------------------------------------------------------------------------------


SWEEPS = sorted(Path(benchmarks.sweeps.__file__).parent.glob("*.toml"))


@pytest.mark.parametrize("file", SWEEPS, ids=lambda file: file.stem)
def test_a_sweep_that_comes_with_rtcore_is_reported_by_the_command_in_its_file(file, tmp_path, monkeypatch):
    command = re.search(r"^#   rtcore-sweep report ((?:.*\\\n)*.*)", file.read_text(), re.MULTILINE)
    monkeypatch.chdir(Path(__file__).parents[3])
    assert report([*shlex.split(command[1].replace("\\\n#", " ")), "--no-plots", "--out", str(tmp_path)]) == 0


# -- intervals -----------------------------------------------------------------------------------------------------


def test_an_interval_is_the_same_bit_for_bit_in_whatever_order_the_seeds_come():
    values = {seed: float(value) for seed, value in enumerate(np.random.default_rng(1).normal(100, 10, 10))}
    shuffled = dict(random.Random(2).sample(sorted(values.items()), len(values)))
    assert estimate(values) == estimate(values) == estimate(shuffled)


def test_an_interval_is_the_bootstraps_of_the_mean():
    values = np.random.default_rng(3).normal(100, 10, 10)
    found = estimate(dict(enumerate(values.tolist())))
    means = np.random.default_rng(4).choice(values, (40_000, 10)).mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(low, abs=0.3)
    assert found.high == pytest.approx(high, abs=0.3)


def test_the_interquartile_mean_leaves_the_lowest_and_the_highest_quarter_out():
    values = dict(enumerate([1.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0, 900.0]))
    assert estimate(values, "iqm").value == 12.5
    assert estimate(values).value == 122.0


def test_a_single_seed_has_no_interval_and_none_has_no_value():
    assert not estimate({4: 3.0}).has_interval
    assert estimate({4: 3.0}).value == 3.0
    assert estimate({}).num_seeds == 0


def test_a_difference_is_taken_seed_by_seed_where_both_have_the_same_seeds():
    luck = np.random.default_rng(5).normal(0, 50, 10).tolist()
    better = {seed: 110 + each for seed, each in enumerate(luck)}
    worse = {seed: 100 + each for seed, each in enumerate(luck)}
    paired, unpaired = difference(better, worse), difference(better, {seed + 1: worse[seed] for seed in worse})
    assert (paired.value, paired.low, paired.high) == pytest.approx((10, 10, 10))
    assert unpaired.value == pytest.approx(10)
    assert unpaired.low < 0
    assert unpaired.high > 20


def test_a_band_has_at_each_point_the_interval_of_that_point():
    curves = np.random.default_rng(6).normal([0, 10, 20], 1, (8, 3))
    values, low, high = band(curves)
    assert values == pytest.approx(curves.mean(axis=0))
    for at in range(3):
        found = estimate(dict(enumerate(curves[:, at].tolist())))
        assert (low[at], high[at]) == pytest.approx((found.low, found.high), abs=0.1)
    assert np.isnan(band(curves[:1])[1]).all()


# -- the table -----------------------------------------------------------------------------------------------------


def test_a_table_has_a_line_for_each_agent_a_column_for_each_delay_and_names_what_is_not_there(tmp_path, capsys):
    def staggered(delay, seed):
        if delay == 8 and seed == 2:
            return "PolicyError: it fell over"
        return None if delay == 8 and seed == 3 else 100.0 - delay + seed

    folder = made_up(tmp_path, {"sequential": lambda d, s: 10.0 + s, "staggered": staggered}, delays=[1, 8], seeds=4)
    content = reported(folder)
    (table,) = content["tables"]
    rows = rows_of(table)
    assert list(rows) == [("sequential", 1), ("sequential", 8), ("staggered", 1), ("staggered", 8)]
    assert rows["staggered", 1]["value"] == 100.5
    assert rows["staggered", 1]["seeds"] == {"0": 99.0, "1": 100.0, "2": 101.0, "3": 102.0}
    assert (rows["staggered", 8]["value"], rows["staggered", 8]["num_seeds"]) == (92.5, 2)
    failed, missing = content["not_there"]
    assert "failed: PolicyError: it fell over" in failed
    assert "staggered" in missing
    assert missing.endswith("is missing")
    said = capsys.readouterr()
    assert "PolicyError: it fell over" in said.err
    assert "is missing" in said.err
    text = (folder / "report" / "report.md").read_text()
    assert "| agent | delay 1 | delay 8 |" in text
    assert "] (2) |" in text
    assert "## Not there" in text


def test_the_number_of_a_seed_may_be_its_reward_per_1000_ticks_or_the_share_of_ticks_with_an_action(tmp_path):
    folder = made_up(tmp_path, {"a": lambda d, s: 30.0}, delays=[2], seeds=2)
    for metric, expected in (("return", 30.0), ("per-1000-ticks", 300.0), ("acted", 1.0)):
        (table,) = reported(folder, "--metric", metric)["tables"]
        assert rows_of(table)["a", 2]["value"] == expected


def test_any_axis_can_be_lines_or_columns(tmp_path):
    rates = {"file": "[axes]\nobs-history = [0, 2, 4]"}
    folder = made_up(tmp_path, {"a": lambda d, s: float(d)}, delays=[3], seeds=2, keys=rates)
    (table,) = reported(folder)["tables"]
    assert [row["obs_history"] for row in table["rows"]] == [0, 2, 4]
    by_hand = reported(folder, "--columns", "agent", "--lines", "obs_history")["tables"]
    assert [row["obs_history"] for row in by_hand[0]["rows"]] == [0, 2, 4]
    with pytest.raises(ConfigError, match="no axis 'lr'; expected one of agent, delay_ticks, obs_history, seed, world"):
        reported(folder, "--columns", "lr")


def test_two_sweeps_become_one_table_unless_they_say_different_things_of_a_cell(tmp_path):
    first = made_up(tmp_path / "a", {"a": lambda d, s: 1.0}, delays=[1], seeds=2)
    second = made_up(tmp_path / "b", {"b": lambda d, s: 2.0}, delays=[1], seeds=2)
    (table,) = reported(first, str(second))["tables"]
    assert [row["agent"] for row in table["rows"]] == ["a", "b"]
    other = {"a": "obs-history = 2"}
    third = made_up(tmp_path / "c", {"a": lambda d, s: 1.0}, delays=[1], seeds=2, keys=other)
    with pytest.raises(ConfigError, match="in another of these folders, with other settings"):
        reported(first, str(third))


def test_the_same_cells_give_the_same_files_byte_for_byte(tmp_path):
    agents = {
        "sequential": lambda d, s: 50.0 / d + s,
        "staggered": lambda d, s: 50.0 - d + s,
        "no-op": lambda d, s: 1.0,
    }
    roles = {"sequential": 'role = "sequential"', "staggered": 'role = "staggered"', "no-op": 'role = "floor"'}
    folder = made_up(tmp_path, agents, delays=[1, 3], seeds=2, keys=roles)
    files = []
    for name in ("once", "twice"):
        assert report([str(folder), "--regret", "--out", str(tmp_path / name)]) == 0
        files.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert files[0] == files[1]
    names = {f"{name}.{kind}" for name in ("return", "curves-some", "regret") for kind in ("png", "svg")}
    assert files[0].keys() == names | {"report.md", "report.json"}


def test_names_are_shown_as_they_are_and_more_agents_than_colours_can_be_told_apart(tmp_path, capsys):
    names = [f"[red]{number}|" for number in range(9)]
    folder = made_up(tmp_path, {name: lambda d, s: float(d) for name in names}, delays=[1, 9], seeds=1)
    reported(folder)
    said = capsys.readouterr().out
    assert all(name in said for name in names)
    assert "| [red]8\\| | 1.00 | 9.00 |" in (folder / "report" / "report.md").read_text()
    styles = styles_of(grids_of(read_sweep(folder).cells))
    assert len({(style.colour, style.marker, style.dashes) for style in styles.values()}) == len(names)


def test_json_goes_to_stdout_in_place_of_the_tables(tmp_path, capsys):
    folder = made_up(tmp_path, {"a": lambda d, s: 1.0}, delays=[1], seeds=2)
    content = reported(folder, "--json")
    assert json.loads(capsys.readouterr().out) == content


def test_a_folder_without_a_result_is_refused_by_what_happened_to_its_cells(tmp_path):
    folder = made_up(tmp_path, {"a": lambda d, s: "RuntimeError: boom"}, delays=[1], seeds=2)
    with pytest.raises(ConfigError, match=r"no cell in .* has a result; .*failed: RuntimeError: boom"):
        reported(folder)


def test_without_scipy_the_report_says_what_to_install(tmp_path, monkeypatch):
    folder = made_up(tmp_path, {"a": lambda d, s: 1.0}, delays=[1], seeds=2)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtcore\[sweep\]'"):
        reported(folder)


# -- regret --------------------------------------------------------------------------------------------------------

_ALTERNATING = """
delays = [1, 3]
seeds = 2
episodes = 2
[settings]
policy = "tests.support.virtual_worlds:name_sign"
[[worlds]]
name = "alternating"
env-id = "tests.support.virtual_worlds:Alternating"
[[agents]]
name = "one every tick"
role = "staggered"
workers = "delay"
[[agents]]
name = "one at a time"
role = "sequential"
workers = 1
stagger = "sequential"
[[agents]]
name = "knows what pays"
role = "best"
delays = [1]
workers = "delay"
policy-args = { pay = 2 }
"""


def test_regret_is_what_is_counted_by_hand_on_a_world_that_holds_no_luck(tmp_path):
    """240 steps, a new sign after every 12. Action 1 or 2 pays 1 for the right one, 3 or 4 would pay 2.

    Zero delay: each step is made on the frame that shows its sign: 240. Staggered, 3 ticks late: the first 2 steps
    after each of 19 changes still name the old sign: 240 - 38 = 202. Sequential: acts at every third step, 80 in all,
    each on the frame that came of the last one; where a change lies between it is wrong, at steps 12, 24, ..., 228:
    80 - 19 = 61. Who knows what pays gets 480.
    """
    folder = played(tmp_path, _ALTERNATING, rate_hz=50)
    (found,) = reported(folder, "--regret")["regret"]
    assert (found["best"]["value"], found["zero_delay"]["value"]) == (480, 240)
    one, three = found["delays"]
    assert (one["sequential"]["value"], one["staggered"]["value"]) == (240, 240)
    assert (three["sequential"]["value"], three["staggered"]["value"]) == (61, 202)
    parts = {part: three[part] for part in ("inaction", "delay", "learning")}
    assert {part: each["value"] for part, each in parts.items()} == {"inaction": 141, "delay": 38, "learning": 240}
    assert three["total"]["value"] == 141 + 38 + 240 == 480 - 61
    assert all(each["low"] == each["value"] == each["high"] for each in parts.values())


def family(folder, **keys):
    """A family of agents with luck of their seeds in common, and a best return that the world names."""
    luck = [0.0, 40.0, -25.0, 10.0, 5.0]
    agents = {
        "sequential": lambda d, s: 400 / d + luck[s],
        "staggered": lambda d, s: 410 - 10 * d + luck[s],
        "informed": lambda d, s: 405 - 5 * d + luck[s],
    }
    return made_up(folder, agents, delays=[1, 5], seeds=5, keys=keys)


def test_parts_of_regret_add_up_and_their_intervals_do_not_hold_the_luck_that_seeds_have_in_common(tmp_path):
    (found,) = reported(family(tmp_path, world="best-known = 500"), "--regret")["regret"]
    five = found["delays"][1]
    assert (five["inaction"]["value"], five["delay"]["value"]) == (280, 40)
    assert (five["inaction"]["low"], five["inaction"]["high"]) == (280, 280)
    assert five["learning"]["value"] == pytest.approx(500 - 406)
    assert five["learning"]["high"] - five["learning"]["low"] > 20
    assert five["inaction"]["value"] + five["delay"]["value"] + five["learning"]["value"] == pytest.approx(
        five["total"]["value"]
    )


def test_who_plays_which_role_can_be_said_and_so_can_the_best_known(tmp_path):
    folder = family(tmp_path)
    words = ("--regret", "--staggered", "informed", "--zero-delay", "staggered", "--best", "some=450")
    (found,) = reported(folder, *words)["regret"]
    assert found["agents"] == {"staggered": "informed", "sequential": "sequential", "zero-delay": "staggered"}
    assert found["best"]["value"] == 450
    assert found["delays"][1]["delay"]["value"] == 400 - 380
    (found,) = reported(folder, "--regret", "--best", "informed")["regret"]
    assert found["best_from"] == "informed at delay 1"
    (found,) = reported(folder, "--regret")["regret"]
    assert found["best_from"].startswith("the best of the table: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--regret", "--staggered", "nobody"],
            "--staggered nobody: some has the agents sequential, staggered, informed",
        ),
        (["--regret", "--best", "moon=3"], "there is no world 'moon'; expected one of some"),
        (["--regret", "--columns", "agent", "--lines", "delay_ticks"], "regret is over delays"),
    ],
)
def test_what_regret_cannot_be_made_of_is_said(tmp_path, words, said):
    with pytest.raises(ConfigError, match=said):
        reported(family(tmp_path), *words)


def test_regret_without_a_delay_of_one_tick_says_what_is_lacking(tmp_path):
    agents = {"sequential": lambda d, s: 1.0, "staggered": lambda d, s: 2.0}
    with pytest.raises(ConfigError, match="no result at a delay of 1 tick, which is zero delay"):
        reported(made_up(tmp_path, agents, delays=[2, 5], seeds=2), "--regret")


def test_two_agents_of_one_role_have_to_be_told_apart(tmp_path):
    roles = dict.fromkeys(("staggered", "informed"), 'role = "staggered"')
    with pytest.raises(
        ConfigError, match="staggered, informed all have the role staggered; choose one with --staggered"
    ):
        reported(family(tmp_path, **roles), "--regret")


# -- workers over inference time -----------------------------------------------------------------------------------

_WORKERS = """
delays = [2, 10, 100]
seeds = 1
episodes = 0
ticks = 1000
[settings]
policy = "random"
[[worlds]]
name = "signs"
env-id = "tests.support.virtual_worlds:Signs"
env-args = { episode_ticks = 100000 }
[[agents]]
name = "enough"
workers = "delay"
[[agents]]
name = "one too few"
workers = "delay - 1"
"""


def test_workers_for_an_action_every_tick_lie_on_a_straight_line_over_the_inference_time(tmp_path, capsys):
    scaling = reported(played(tmp_path, _WORKERS, rate_hz=100), "--scaling")["scaling"]
    assert [point["num_workers"] for point in scaling["points"]] == [2, 10, 100]
    assert [point["too_few"] for point in scaling["points"]] == [1, 9, 99]
    assert [point["tau_ticks"] for point in scaling["points"]] == [1.5, 9.5, 99.5]
    assert all(point["acted_fraction"] == 1 and point["acted_with_too_few"] < 0.6 for point in scaling["points"])
    assert scaling["lines"]["virtual"]["slope"] == pytest.approx(1, abs=1e-9)
    assert "1.0000 workers for each tick of inference time" in capsys.readouterr().out.replace("\n", " ")
