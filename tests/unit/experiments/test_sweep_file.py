"""From a sweep file to its cells: the product, what a cell's settings are made of, and what is refused."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

import benchmarks.sweeps
from rtcore.errors import ConfigError
from rtcore.experiments.records import read_record
from rtcore.experiments.sweepfile import (
    EVALUATION_SEED,
    AgentPart,
    Cell,
    SweepFile,
    WorldPart,
    cells_of,
    load_sweep,
)

pytestmark = pytest.mark.unit

HZ = Fraction(50)
SWEEP = """
seeds = 2
delays = [1, 5]
ticks = 1000
[settings]
policy = "mlp"
policy-args = {width = 64}
learn = "dqn"
act-history = 4
[[worlds]]
name = "cartpole"
env-id = "rtcore/PushedCartPole-v0"
best-known = 500
[[worlds]]
name = "blocks"
env-id = "rtcore/Blocks-v0"
seeds = [7]
[[agents]]
name = "staggered"
workers = "delay"
role = "staggered"
[[agents]]
name = "in chunks"
chunk = "2 * delay - 1"
act-history = "delay + 1"
policy-args = {depth = "delay"}
without = ["learn"]
worlds = ["cartpole"]
[[agents]]
name = "no-op"
policy = "random"
without = ["learn", "policy-args", "act-history"]
delays = [1]
episodes = 3
"""


def cells(tmp_path: Path, text: str = SWEEP) -> dict[str, Cell]:
    file = tmp_path / "sweep.toml"
    file.write_text(text)
    return {cell.name: cell for cell in cells_of(load_sweep(file))}


def changed(old: str, new: str) -> str:
    assert old in SWEEP
    return SWEEP.replace(old, new)


def test_the_cells_are_the_product_and_each_part_narrows_its_own(tmp_path: Path):
    found = cells(tmp_path)
    assert list(found) == [  # first seeds first, and of these first what learns
        "cartpole-staggered-d1-s0",
        "cartpole-staggered-d5-s0",
        "cartpole-in-chunks-d1-s0",
        "cartpole-in-chunks-d5-s0",
        "cartpole-no-op-d1-s0",
        "cartpole-staggered-d1-s1",
        "cartpole-staggered-d5-s1",
        "cartpole-in-chunks-d1-s1",
        "cartpole-in-chunks-d5-s1",
        "cartpole-no-op-d1-s1",
        "blocks-staggered-d1-s7",
        "blocks-staggered-d5-s7",
        "blocks-no-op-d1-s7",
    ]
    cell = found["cartpole-staggered-d5-s1"]
    assert cell.axes == {"world": "cartpole", "agent": "staggered", "delay_ticks": 5, "seed": 1}
    assert (cell.role, cell.best_known, cell.episodes, found["blocks-no-op-d1-s7"].episodes) == (
        "staggered",
        500,
        20,
        3,
    )


def test_settings_are_joined_from_the_file_over_the_world_to_the_agent(tmp_path: Path):
    found = cells(tmp_path)
    staggered = found["cartpole-staggered-d5-s0"].config(HZ)
    assert (staggered.schedule.workers, staggered.learning.learn, staggered.timing.ticks) == (5, "dqn", 1000)
    assert (staggered.world.env_id, staggered.agent.policy_args) == ("rtcore/PushedCartPole-v0", {"width": 64})
    chunks = found["cartpole-in-chunks-d5-s0"].config(HZ)
    assert (chunks.agent.chunk, chunks.history.act_history, chunks.learning.learn) == (9, 6, None)
    assert chunks.agent.policy_args == {"width": 64, "depth": 5}, "arguments are joined one by one"
    noop = found["cartpole-no-op-d1-s0"].config(HZ)
    assert (noop.agent.policy_args, noop.history.act_history) == ({}, 0)


def test_a_delay_is_a_latency_of_half_a_tick_less_in_whatever_world(tmp_path: Path):
    cell = cells(tmp_path)["blocks-staggered-d5-s7"]
    assert cell.config(HZ).timing.latency == "constant:90.0"
    assert cell.config(Fraction(60)).timing.latency == "constant:75.0"
    wall = cells(tmp_path, changed("ticks = 1000", 'ticks = 1000\nclock = "wall"'))["blocks-staggered-d5-s7"].config(HZ)
    assert (wall.timing.latency, wall.agent.policy_args) == (None, {"width": 64, "pad_ms": 90.0})


def test_a_cell_is_judged_without_learning_on_seeds_that_no_training_has(tmp_path: Path):
    found = cells(tmp_path, SWEEP + "[evaluation]\nenv-args = {push_std = 2.0}\n")
    for name in ("cartpole-staggered-d5-s1", "cartpole-no-op-d1-s1"):
        judged = found[name].evaluation_config(HZ)
        assert (judged.learning.learn, judged.explores, judged.world.seed) == (None, False, EVALUATION_SEED + 1)
        assert (judged.world.env_args, found[name].config(HZ).world.env_args) == ({"push_std": 2.0}, {})
    with pytest.raises(ConfigError, match="seeds"):
        cells(tmp_path, changed("seeds = 2", f"seeds = [{EVALUATION_SEED}]"))


def test_any_setting_or_argument_can_be_an_axis(tmp_path: Path):
    found = cells(tmp_path, SWEEP + "[axes]\nlearning-rate = [1e-3, 3e-4]\npolicy-args.width = [8, 16]\n")
    cell = found["cartpole-staggered-d1-learning_rate=0.0003-policy_args.width=16-s0"]
    assert cell.config(HZ).learning.learning_rate == 3e-4
    assert cell.config(HZ).agent.policy_args == {"width": 16}
    assert (cell.axes["learning_rate"], cell.axes["policy_args.width"]) == (3e-4, 16)
    assert len(found) == 4 * len(cells(tmp_path))


def test_latencies_are_numbers_or_models_in_the_place_of_delays(tmp_path: Path):
    few = changed("delays = [1, 5]", "latencies = [58.9, 80]").partition("[[agents]]")[0]
    cell = cells(tmp_path, few)["cartpole-mlp-ms58.9-s0"]
    assert (cell.axes["latency_ms"], cell.config(HZ).timing.latency) == (58.9, "constant:58.9")
    cell = cells(tmp_path, few.replace("[58.9, 80]", '["normal:80,10"]'))["cartpole-mlp-normal-80-10-s0"]
    assert (cell.axes["latency"], cell.config(HZ).timing.latency) == ("normal:80,10", "normal:80,10")


def test_a_fingerprint_is_of_what_the_numbers_depend_on_alone(tmp_path: Path):
    def prints(text: str) -> dict[str, str]:
        return {name: cell.fingerprint for name, cell in cells(tmp_path, text).items()}

    before = prints(SWEEP)
    assert len(set(before.values())) == len(before)
    assert prints(changed("best-known = 500", "best-known = 499")) == before, "of reports"
    assert prints(changed("seeds = 2", "seeds = 3")).items() >= before.items(), "more seeds change no cell"
    now = prints(changed('workers = "delay"', "workers = 3"))
    assert {name for name in before if now[name] != before[name]} == {name for name in before if "staggered" in name}
    for old, new in (
        ("ticks = 1000", "ticks = 1001"),
        ("seeds = 2", "seeds = 2\nepisodes = 4"),
        ("seeds = 2", 'seeds = 2\nplay = "best"'),
    ):
        now = prints(changed(old, new))
        assert all(now[name] != before[name] for name in before if "no-op" not in name)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("delays = [1, 5]", "dellays = [1, 5]", "sweep.toml: unknown key 'dellays'. Did you mean 'delays'?"),
        ('policy = "mlp"', 'polizy = "mlp"', r"\[settings\]: unknown key 'polizy'. Did you mean 'policy'?"),
        ("episodes = 3", "episode = 3", r"\[\[agents\]\] no-op: unknown key 'episode'. Did you mean 'episodes'?"),
        ("best-known = 500", "best-knwon = 500", r"\[\[worlds\]\] cartpole: unknown key .* Did you mean 'best_known'?"),
        (
            '"learn", "policy-args"',
            '"lern", "policy-args"',
            "no-op: without: unknown key 'lern'. Did you mean 'learn'?",
        ),
        ('worlds = ["cartpole"]', 'worlds = ["cartpol"]', "in chunks: worlds: .* Did you mean 'cartpole'?"),
        ("seeds = 2", "seeds = 2\nact-history = 4", "act_history is a setting of the runs; expected it under"),
        ('learn = "dqn"', 'learn = "dqn"\nseed = 3', "seed is decided by the sweep; write `seeds`"),
        ('learn = "dqn"', 'learn = "dqn"\nlatency = "constant:3"', "latency follows from the delays"),
        ("seeds = 2", "seeds = 0", "seeds: expected a number of seeds"),
        ("seeds = 2", "seeds = [1, 1]", "seeds: holds one twice"),
        ("delays = [1, 5]", "delays = [0, 5]", "delays: Input should be greater"),
        ("delays = [1, 5]", "", "'delay' is said of a delay, and the sweep has no delays"),
        ("delays = [1, 5]", "delays = [1]\nlatencies = [5]", "delays and latencies both say"),
        ("ticks = 1000", "", "cell cartpole-staggered-d1-s0: nobody says how long it lasts; give `ticks`"),
        ("ticks = 1000", "ticks = 1000\nepisodes = 0", "cell cartpole-staggered-d1-s0: it learns and is never judged"),
        ('name = "no-op"', 'name = "Staggered"', "two cells are called cartpole-Staggered-d1-s0"),
        ('workers = "delay"', "workers = 0", "cell cartpole-staggered-d1-s0: workers: expected a whole number"),
        ('workers = "delay"', 'workers = "delay - 1"', r"cell cartpole-staggered-d1-s0: workers: .*\(got 0\)"),
        ('name = "no-op"\n', "", r"\[\[agents\]\] number 3: name: Field required"),
    ],
)
def test_what_is_wrong_is_refused_by_name_and_with_what_to_do(tmp_path: Path, old: str, new: str, words: str):
    with pytest.raises(ConfigError, match=words):
        cells(tmp_path, changed(old, new))


def test_a_sweep_needs_no_parts(tmp_path: Path):
    assert list(cells(tmp_path, "ticks = 100\nepisodes = 0\n[settings]\npolicy = 'random'\n")) == [
        "rtcore-Blocks-v0-random-s0"
    ]


def test_the_files_that_help_and_documents_show_are_sweeps(tmp_path: Path):
    from rtcore.cli.sweep import _EPILOG

    page = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    shown = [block.partition("```")[0] for block in page.split("```toml\n")[1:]]
    shown.append(_EPILOG.partition("delays.toml:\n\n")[2].partition("\n\n")[0])
    assert len(shown) == 3
    assert [len(cells(tmp_path, text)) for text in shown] == [90, 3, 180]


def test_the_page_names_every_key(tmp_path: Path):
    page = (Path(__file__).parents[3] / "docs" / "experiments.md").read_text()
    for kind in (SweepFile, WorldPart, AgentPart):
        for key in kind.model_fields:
            shown = key.replace("_", "-")
            assert any(mark in page for mark in (f"`{shown}`", f"`[{shown}]`", f"`[[{shown}]]`")), shown


SWEEPS = Path(benchmarks.sweeps.__file__).parent


@pytest.mark.parametrize("file", sorted(SWEEPS.glob("*.toml")), ids=lambda file: file.stem)
def test_a_sweep_that_comes_with_rtcore_has_cells_and_what_is_kept_of_it_is_small_and_of_them(file: Path):
    names = {cell.name for cell in cells_of(load_sweep(file))}
    for path in sorted((SWEEPS / "results" / file.stem / "cells").glob("*.json")):
        record = read_record(path)
        assert record.name in names
        assert record.result is not None
        assert path.stat().st_size < 6_000
