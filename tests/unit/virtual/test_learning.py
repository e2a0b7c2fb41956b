"""Learning on the virtual clock: deterministic, at the times that were said, and able to go on from a checkpoint."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from rtcore.cli.run import main
from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import load_state
from rtcore.report.boards import is_installed
from rtcore.report.table import details
from rtcore.scheduling.dispatch import TickKind
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

PERIOD_NS = 10_000_000
#: What learns the world of signs within 30 virtual seconds.
EASY = {
    "epsilon_ticks": 1500,
    "gamma": 0.8,
    "target_every": 100,
    "learning_rate": 3e-3,
    "updates_per_tick": 0.5,
}


def run(**fields):
    """A finished run of the world of signs, 100 ticks a second, learning after 20 transitions."""
    settings = {
        "env_id": "tests.support.virtual_worlds:Signs",
        "clock": "virtual",
        "learn": "dqn",
        "policy": "mlp",
        "workers": 2,
        "latency": "constant:15",
        "ticks": 400,
        "learning_starts": 20,
        "epsilon_ticks": 200,
        "publish_every": 1,
        "updates_per_tick": 1,
    }
    simulation = Simulation(make_config(**(settings | fields)))
    try:
        return simulation.run()
    finally:
        simulation.close()


@pytest.fixture(scope="module")
def learned(tmp_path_factory):
    """A run that learned the world of signs, and the folder with its checkpoints."""
    folder = tmp_path_factory.mktemp("learned")
    return run(out=folder, ticks=3000, **EASY, seed=1), folder


@pytest.mark.parametrize(("starts", "waits"), [(500, True), (20, False)])
def test_a_run_that_was_too_short_for_a_first_update_says_what_it_waited_for(starts, waits):
    console = Console(record=True, width=200, file=io.StringIO())
    console.print(details(run(ticks=60, learning_starts=starts).summary(), None))
    said = r"first update +waits for 500 transitions \(--learning-starts\), and there are \d\d\b"
    assert bool(re.search(said, console.export_text())) is waits


def returns_of(simulation):
    return [episode.total_reward for episode in simulation.record.episodes.newest()]


def signs_of(simulation):
    """What the world showed at the first 200 ticks, of the episode that the seed gave."""
    return simulation.ring.gather(np.arange(200))


def acted_headers(simulation):
    return [header for header in simulation.record.ticks if header.kind == TickKind.ACTED]


def test_the_same_seed_gives_the_same_returns_and_the_same_weights_and_another_seed_others():
    first, second, other = (run(seed=seed, ticks=230) for seed in (3, 3, 4))
    assert returns_of(first) == returns_of(second) != []
    assert first.learning.store.newest() == second.learning.store.newest()
    assert first.learning.store.newest().version > 150
    assert first.learning.store.newest().checksum != other.learning.store.newest().checksum


def test_it_learns_what_can_be_learned_under_the_delay(learned):
    returns = returns_of(learned[0])
    # At random a third of the ticks pay, 67 of 200; two of eight come too late for an action that saw the sign.
    assert np.mean(returns[:3]) < 90
    assert np.mean(returns[-5:]) > 120


def test_as_many_updates_are_made_as_updates_per_tick_says():
    simulation = run(updates_per_tick=0.25, ticks=400)
    first = 400 - 4 * simulation.stats().learner.updates
    # 20 transitions take 20 acted ticks, the delay of two, and the reset.
    assert 20 <= first <= 28


def test_an_inference_computes_with_the_weights_that_were_published_when_it_began():
    simulation = run(learn_latency_ms=35, ticks=150)
    versions = {header.obs_tick: header.policy_version for header in acted_headers(simulation)}
    began = max(tick for tick, version in versions.items() if version == 1) - 3
    # One learner: an update every 3.5 ticks from tick `began` on, each published when it ends.
    expected = {tick: 1 + max(0, int((tick - began) // 3.5)) for tick in versions}
    assert versions == expected
    assert max(versions.values()) > 30


def test_the_version_that_is_played_is_the_newest_one_however_old_the_action_is_when_applied():
    quick, slow = run(latency="constant:15", seed=2), run(latency="constant:75", workers=8, seed=2)
    assert {header.tick - header.obs_tick for header in acted_headers(slow)} == {8}
    # Both learn an update a tick: at the same frame the same number of updates, plus what the later start took away.
    last_quick, last_slow = acted_headers(quick)[-1], acted_headers(slow)[-1]
    assert last_quick.obs_tick - last_slow.obs_tick == 6
    assert last_quick.policy_version - last_slow.policy_version == 6 + 6


def test_learners_that_take_turns_find_the_updates_of_the_others_in_between():
    alone, both = (run(learn_latency_ms=30, learners=learners).stats().learner for learners in (1, 2))
    assert alone.version_diff[2] == 0
    assert both.version_diff[2] == 1
    assert both.updates > 1.8 * alone.updates


# -- the sequential agents ---------------------------------------------------------------------------------------


def turns(mode, **fields):
    simulation = run(
        mode=mode, workers=1, stagger="sequential", latency="constant:25", learn_latency_ms=40, ticks=300, **fields
    )
    jobs = [job for job in simulation.record.jobs if job.write_ns]
    return simulation, jobs[40:]


def test_infer_then_learn_answers_soon_and_reads_the_newest_frame_when_it_has_learned():
    simulation, jobs = turns("infer-then-learn", learning_starts=1)
    for before, job in pairwise(jobs):
        if before.episode == job.episode:
            assert job.start_ns - before.write_ns == 40_000_000
    assert all(job.write_ns - job.read_ns == 25_000_000 for job in jobs)
    assert all(job.obs_tick == job.start_ns // PERIOD_NS for job in jobs)
    delays = {header.tick - header.obs_tick for header in acted_headers(simulation)[40:]}
    assert delays <= {2, 3}


def test_learn_then_infer_acts_on_a_frame_from_before_it_learned():
    simulation, jobs = turns("learn-then-infer", learning_starts=1)
    assert all(job.write_ns - job.read_ns == 65_000_000 for job in jobs)
    delays = {header.tick - header.obs_tick for header in acted_headers(simulation)[40:]}
    assert delays == {7}


def test_in_turn_there_is_one_update_for_each_action():
    for mode in ("infer-then-learn", "learn-then-infer"):
        simulation, _ = turns(mode, learning_starts=1)
        inferences, updates = simulation.workers.inferences[0], simulation.stats().learner.updates
        assert 0 <= inferences - updates <= 4, mode


# -- checkpoints -------------------------------------------------------------------------------------------------


def test_a_run_that_goes_on_has_the_counters_the_weights_and_the_optimizer_of_the_one_before(tmp_path: Path):
    first = run(out=tmp_path, ticks=500, checkpoint_every_s=2)
    saved = load_state(tmp_path)
    learner = first.stats().learner
    assert (saved.state["updates"], saved.state["ticks"]) == (learner.updates, 500)
    assert learner.checkpoints == 3
    before = first.learning.master.copy()

    config = first.config.replace(resume=tmp_path, ticks=300)
    second = Simulation(config)
    after = second.learning.master.copy()
    for name in ("weights", "exp_avg", "exp_avg_sq", "target"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name), err_msg=name)
    second.run()
    second.close()
    assert not np.array_equal(signs_of(first), signs_of(second)), "the world began with the same episodes again"
    state = json.loads((tmp_path / "checkpoints" / "last" / "state.json").read_text())
    assert (state["ticks"], state["episodes"]) == (800, first.record.episodes.count + second.record.episodes.count)
    assert state["updates"] == second.stats().learner.updates > before.updates
    assert second.stats().learner.epsilon == pytest.approx(0.05)


def test_what_was_learned_plays_without_exploring(learned):
    simulation, folder = learned
    played = run(learn=None, policy_checkpoint=folder, ticks=1000, seed=99)
    assert played.stats().learner is None
    assert {header.policy_checksum for header in acted_headers(played)} == {checksum_of(simulation)}
    assert np.mean(returns_of(played)) > 120


def checksum_of(simulation):
    """Of the weights that the last checkpoint has: those of the last update, which was not published any more."""
    store, master = simulation.learning.store, simulation.learning.master
    newest = np.array(np.frombuffer(store.buffer(store.newest().buffer), np.uint8))
    store.manifest().trainable_array(newest)[:] = master.copy().weights
    return zlib.crc32(newest)


def test_checkpoints_of_another_run_are_moved_away_not_mixed(tmp_path: Path, said: list[str]):
    run(out=tmp_path, ticks=100)
    simulation = Simulation(run(out=None, ticks=50).config.replace(out=tmp_path))
    simulation.run()
    simulation.close()
    assert len(list((tmp_path / "checkpoints").glob("[0-9]*"))) == 1
    assert len(list(tmp_path.glob("checkpoints-1/[0-9]*"))) == 1
    assert any("checkpoints-1" in note for note in said)


# -- what goes wrong ---------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_learning_and_the_last_good_weights_play_on(said: list[str]):
    # Each fits into float32, in which losses are; a batch of them does not.
    config = run(ticks=1).config.replace(env_args={"pay": 3e38}, ticks=300)
    simulation = Simulation(config).run()
    simulation.close()
    learner = simulation.stats().learner
    assert "not finite" in learner.stopped
    assert sum("not finite" in note for note in said) == 1
    assert simulation.stats().counters["ticks"] == 300
    assert np.isfinite(simulation.learning.master.copy().weights).all()
    assert acted_headers(simulation)[-1].policy_version == learner.version


def test_weights_that_diverged_neither_play_nor_are_kept(tmp_path: Path):
    simulation = run(out=tmp_path, ticks=300, learning_rate=3e37)
    assert "not finite" in simulation.stats().learner.stopped
    kept = load_state(tmp_path).weights
    assert max(np.abs(array).max() for array in kept.values()) < 100
    assert np.abs(simulation.learning.master.copy().weights).max() > 1e30
    played = run(learn=None, policy_checkpoint=tmp_path, ticks=100)
    assert acted_headers(played)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"env_args": {"continuous": True}}, "Discrete"),
        ({"latency": None}, "does not know how long"),
        ({"batch_size": 500, "ring_slots": 64}, "ring_slots=64"),
        ({"policy_checkpoint": Path("/nowhere")}, "/nowhere"),
        ({"learn": None, "policy": "random", "policy_checkpoint": "checkpoint"}, "no network"),
    ],
)
def test_what_cannot_be_learned_or_played_is_said_before_anything_runs(tmp_path: Path, fields, words):
    if fields.get("policy_checkpoint") == "checkpoint":
        run(out=tmp_path, ticks=50)
        fields = fields | {"policy_checkpoint": tmp_path}
    with pytest.raises(ConfigError, match=words):
        run(**fields)


# -- rtcore-run --------------------------------------------------------------------------------------------------

WORDS = [
    *("--env-id", "tests.support.virtual_worlds:Signs", "--policy", "mlp", "--learn", "dqn", "--clock", "virtual"),
    *("--latency", "constant:15", "--workers", "2", "--learning-starts", "20", "--ticks", "600"),
]


def rtcore_run(words):
    with pytest.raises(SystemExit) as ended:
        main(words)
    return ended.value.code


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Where `rtcore-run` with WORDS was given, and what it printed."""
    place, printed = tmp_path_factory.mktemp("ran"), io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(printed):
        assert rtcore_run(WORDS) == 0
    return place, printed.getvalue()


def test_rtcore_run_keeps_what_it_learned_in_a_folder_of_its_own(ran):
    place, printed = ran
    (folder,) = (place / "runs").iterdir()
    assert re.fullmatch(r"tests\.support\.virtual_worlds\.Signs__dqn__0__\d{8}-\d{6}", folder.name)
    present = {path.name for path in folder.iterdir()}
    assert {"actions.csv", "checkpoints", "config.json", "learning_curve.png", "summary.json"} <= present
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["learner"]["updates"] > 100
    assert len(summary["episodes"]["returns"]) == 2
    assert "Learner" in printed


def test_rtcore_run_goes_on_in_the_same_folder(ran, tmp_path: Path, capsys):
    (first,) = (ran[0] / "runs").iterdir()
    folder = tmp_path / "run"
    shutil.copytree(first, folder, symlinks=True)
    updates = json.loads((folder / "summary.json").read_text())["learner"]["updates"]
    assert rtcore_run([*WORDS, "--no-pictures", "--out", str(folder), "--resume", str(folder)]) == 0
    assert json.loads((folder / "summary.json").read_text())["learner"]["updates"] > updates
    assert rtcore_run([*WORDS, "--resume", str(folder), "--env-args", "continuous=true"]) == 2
    capsys.readouterr()


@pytest.mark.skipif(not is_installed("tensorboard"), reason="the extra tensorboard is not installed")
def test_events_are_written_unless_they_are_not_wanted(ran, tmp_path: Path, capsys):
    assert rtcore_run([*WORDS, "--no-pictures", "--out", str(tmp_path), "--no-tensorboard"]) == 0
    assert len(list((ran[0] / "runs").glob("*/events.out.tfevents*"))) == 1
    assert not list(tmp_path.glob("events.out.tfevents*"))
    assert not list(tmp_path.glob("*.png")), "--no-pictures"
    capsys.readouterr()


def test_a_run_whose_learning_stopped_is_said_to_have_failed(tmp_path: Path, capsys):
    assert rtcore_run([*WORDS, "--no-pictures", "--out", str(tmp_path), "--env-args", "pay=3e38"]) == 1
    assert "not finite" in capsys.readouterr().out


class GlancesAndThinks(nn.Module):
    """Two speeds for the world of signs: the head sees the newest sign, the trunk an old one."""

    def __init__(self, observation_space, action_space):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 16), nn.Tanh())
        self.base = nn.Linear(16, 3)
        self.head = nn.Sequential(nn.Linear(2 + 16 + 1, 32), nn.Tanh(), nn.Linear(32, 3))

    def think(self, observation):
        features = self.trunk(observation)
        return features, self.base(features)

    def act(self, observation, features, age_ticks, past_actions):
        age = age_ticks.float().unsqueeze(1) / 10
        return self.head(torch.cat([observation, features, age], dim=1))


@pytest.mark.slow
def test_both_parts_of_a_policy_with_two_speeds_are_learned_and_go_on_from_a_checkpoint(tmp_path):
    late = EASY | {"latency": "constant:55", "workers": 6, "ticks": 1400, "epsilon_ticks": 700, "seed": 1}
    alone = run(policy="mlp", **late)
    both = run(policy=f"{__name__}:GlancesAndThinks", out=tmp_path, **late)
    assert np.mean(returns_of(both)[-3:]) > 1.2 * np.mean(returns_of(alone)[-3:])
    of_head = [header for header in both.record.ticks if header.features_tick >= 0]
    assert len(of_head) > 0.9 * len(acted_headers(both))
    drawn, saved = GlancesAndThinks(None, None).state_dict(), load_state(tmp_path)
    assert saved.weights.keys() == drawn.keys()
    further = run(policy=f"{__name__}:GlancesAndThinks", out=tmp_path, resume=tmp_path, **(late | {"ticks": 250}))
    assert np.mean(returns_of(further)) > np.mean(returns_of(alone)[-3:])
