"""A run's folder: one run writes there at a time, nothing of another stays among its files, nothing learned is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.learn.resuming import settings_of, with_resumed
from rtcore.report.learning_curve import learned_episodes
from rtcore.results.out_folder import OutFolder
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit


def test_a_folder_that_a_run_has_taken_is_refused_to_others_by_its_pid_until_it_is_released(tmp_path):
    first, second = OutFolder(tmp_path / "run"), OutFolder(tmp_path / "run")
    first.acquire()
    with pytest.raises(ConfigError, match=rf"out: another run \(pid {os.getpid()}\) is writing into .*run; wait"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_the_death_of_a_program_releases_its_folder(tmp_path):
    code = "import pathlib, os, sys; from rtcore.results.out_folder import OutFolder; "
    code += "f = OutFolder(pathlib.Path(sys.argv[1])); f.acquire(); os._exit(9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False, timeout=150)
    with OutFolder(tmp_path) as folder:
        folder.acquire()


def test_taking_a_folder_changes_nothing_in_it_but_the_lock(tmp_path):
    (tmp_path / "actions.csv").write_text("rows")
    with OutFolder(tmp_path) as folder:
        folder.acquire()
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.name[0] != "."} == {
        "actions.csv": "rows"
    }


def earlier_run(folder):
    for name in ("config.json", "summary.json", "actions.csv", "jobs.csv", "timeline.png", "trace-env.events"):
        (folder / name).write_text(f"old {name}")
    (folder / "recording" / "data").mkdir(parents=True)
    (folder / "recording" / "data" / "ticks.hdf5").write_text("old")
    (folder / "events.out.tfevents.1.host").write_text("old")
    (folder / "notes.txt").write_text("the user's")


def test_a_run_without_anything_learned_is_removed_whole_and_what_is_the_users_stays(tmp_path):
    earlier_run(tmp_path)
    (tmp_path / "video.mp4").symlink_to("elsewhere")
    with OutFolder(tmp_path) as folder:
        folder.acquire()
        assert folder.clear() == ""
    assert {path.name for path in tmp_path.iterdir()} == {".rtcore-lock", "notes.txt", "video.mp4"}


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_run_that_learned_is_moved_whole_again_and_again(tmp_path, goes_on):
    (tmp_path / "checkpoints" / "000100").mkdir(parents=True)
    with OutFolder(tmp_path) as folder:
        folder.acquire()
        for number in (1, 2):
            earlier_run(tmp_path) if number == 1 else (tmp_path / "actions.csv").write_text("second")
            assert (
                folder.clear(goes_on=goes_on) == f"the files of the earlier run are now in {tmp_path}/earlier/{number}"
            )
        assert folder.clear(goes_on=goes_on) == ""
    first = {path.name for path in (tmp_path / "earlier" / "1").iterdir()}
    assert {"config.json", "summary.json", "actions.csv", "jobs.csv", "timeline.png", "recording"} < first
    # TensorBoard's curve goes on in the folder of the run that goes on.
    assert ("events.out.tfevents.1.host" in first) is not goes_on
    assert (tmp_path / "earlier" / "2" / "actions.csv").read_text() == "second"
    assert (tmp_path / "checkpoints" / "000100").is_dir()
    assert (tmp_path / "notes.txt").exists()


def test_a_move_that_was_interrupted_is_finished_by_the_next_one(tmp_path):
    (tmp_path / "checkpoints" / "000100").mkdir(parents=True)
    (tmp_path / "earlier" / "part").mkdir(parents=True)
    (tmp_path / "earlier" / "part" / "config.json").write_text("moved before")
    (tmp_path / "actions.csv").write_text("left behind")
    OutFolder(tmp_path).clear()
    assert sorted(path.name for path in (tmp_path / "earlier" / "1").iterdir()) == ["actions.csv", "config.json"]


# -- resuming --------------------------------------------------------------------------------------------


def learned(out, **fields):
    settings = {
        "env_id": "tests.support.virtual_worlds:Signs",
        "clock": "virtual",
        "latency": "constant:25",
        "workers": 3,
        "ticks": 300,
    }
    settings |= {"policy": "mlp", "policy_args": {"hidden": 8}, "learn": "dqn", "seed": 7, "learning_starts": 50}
    settings |= {"batch_size": 8, "tensorboard": False, "out": out, "learn_latency_ms": 5, "gamma": 0.9}
    return settings | fields


def run(config):
    simulation = Simulation(config).run()
    simulation.close()
    return simulation


AGAIN = {"env_id": "tests.support.virtual_worlds:Signs"}


@pytest.fixture(scope="module")
def before(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "signs"
    run(make_config(**learned(out)))
    return out


def test_a_resumed_run_has_seed_folder_and_settings_of_the_run_unless_they_are_given(before):
    config = settings_of({"resume": before, **AGAIN})
    assert (config.world.seed, config.learning.gamma, config.output.out, config.timing.ticks) == (
        7,
        0.9,
        before.resolve(),
        300,
    )
    assert (config.learning.learn, config.timing.clock, config.schedule.workers, config.timing.latency) == (
        "dqn",
        "virtual",
        3,
        "constant:25",
    )
    other = settings_of({"resume": before, "seed": 8, "out": before / "x", "gamma": 0.5, "duration": 2.0, **AGAIN})
    assert (other.world.seed, other.output.out, other.learning.gamma) == (8, before / "x", 0.5)
    assert (other.timing.ticks, other.timing.duration) == (None, 2.0), (
        "the run before says nothing of how long this one is"
    )


def test_a_checkpoint_that_was_copied_elsewhere_names_no_folder_to_write_into(before, tmp_path):
    copy = tmp_path / "copy"
    copy.mkdir()
    last = before / "checkpoints" / "last"
    for path in last.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert "out" not in with_resumed({"resume": copy, **AGAIN})


def test_a_checkpoint_chooses_no_code_when_it_is_resumed(before):
    with pytest.raises(ConfigError, match="--env-id tests.support.virtual_worlds:Signs"):
        settings_of({"resume": before})


def test_a_folder_with_nothing_to_resume_is_named_before_any_other_setting_is_judged(tmp_path):
    with pytest.raises(ConfigError, match=r"resume: there is no .*/none; expected a checkpoint, or a run's folder"):
        settings_of({"resume": tmp_path / "none"})


def test_another_world_takes_no_arguments_of_the_first_one(before):
    taken = with_resumed({"resume": before, "env_id": "CartPole-v1"})
    assert not {"env_args", "fps", "rom", "noop_action"} & taken.keys()


def test_what_went_before_stays_whole_when_a_run_goes_on(before):
    rows = (before / "actions.csv").read_bytes()
    simulation = run(settings_of({"resume": before, **AGAIN}))
    assert (before / "earlier" / "1" / "actions.csv").read_bytes() == rows
    about = json.loads((before / "config.json").read_text())
    assert about["config"]["seed"] == 7
    assert about["resumed"]["before"]["ticks"] == 300
    assert simulation.summary()["books"]["reasons"] == []
    state = json.loads((before / "checkpoints" / "last" / "state.json").read_text())
    assert state["ticks"] == 600
    # The second run, and before it the first: as one.
    second = [episode._replace(end_tick=episode.end_tick + 300) for episode in simulation.record.episodes.newest()]
    learned_so_far = learned_episodes(before)
    assert [(one.end_tick, one.num_ticks, one.total_reward) for one in learned_so_far[-len(second) :]] == [
        (one.end_tick, one.num_ticks, pytest.approx(one.total_reward)) for one in second
    ]
    assert [one.end_tick for one in learned_so_far] == sorted(one.end_tick for one in learned_so_far)
    assert learned_so_far[0].end_tick < 300 < learned_so_far[-1].end_tick


def test_what_was_done_after_the_checkpoint_that_a_run_goes_on_from_is_not_in_its_curve(tmp_path):
    rows = "tick,kind,source,terminated,truncated,episode_return,start_ns\n"
    ended = "{0},acted,policy,1,0,{0}.0,1\n"
    first = tmp_path / "earlier" / "1"
    first.mkdir(parents=True)
    (first / "actions.csv").write_text(rows + ended.format(50) + ended.format(150) + "160,acted,policy,1")
    (tmp_path / "actions.csv").write_text(rows + ended.format(20))
    (tmp_path / "config.json").write_text(json.dumps({"resumed": {"before": {"ticks": 100}}}))
    assert [(one.end_tick, one.total_reward) for one in learned_episodes(tmp_path)] == [(50, 50), (120, 20)]


def test_a_run_that_goes_on_from_none_has_a_curve_of_its_own(tmp_path):
    rows = "tick,kind,source,terminated,truncated,episode_return,start_ns\n{},acted,policy,1,0,1.0,1\n"
    (tmp_path / "earlier" / "1").mkdir(parents=True)
    (tmp_path / "earlier" / "1" / "actions.csv").write_text(rows.format(5))
    (tmp_path / "actions.csv").write_text(rows.format(7))
    assert [one.end_tick for one in learned_episodes(tmp_path)] == [7]
