"""A recorded run again: identical, whatever happened in it; and found out, wherever the record was changed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.cli.run import main
from rtcore.recording.reader import Recording
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
from rtcore.scheduling.schedule import STAGGERS
from rtcore.virtual.simulate import Change
from tests.support.drawn import examples
from tests.support.recorded_runs import SETTINGS, recorded, replayed, tampering

pytestmark = pytest.mark.unit

MS = 1_000_000
TICK_NS = 10 * MS


@pytest.fixture(scope="module")
def made_once(tmp_path_factory):
    out = tmp_path_factory.mktemp("usual")
    recorded(out)
    return out


@pytest.fixture
def usual_run(made_once, tmp_path):
    """A recorded run of the usual settings, to be tampered with."""
    return shutil.copytree(made_once, tmp_path, dirs_exist_ok=True)


def change(out, table, name, row, value):
    """Tamper with a recording."""
    with tampering(out) as file:
        file[table][name][row] = value


def drop(out, table, rows):
    """As if the ring had lapped the recorder."""
    with tampering(out) as file:
        for dataset in file[table].values():
            kept = np.delete(dataset[()], rows, axis=0)
            dataset.resize(len(kept), axis=0)
            dataset[()] = kept


def row_where(out, **values):
    with Recording(out) as recording:
        fits = np.all([recording.column(name) == value for name, value in values.items()], axis=0)
        return int(np.flatnonzero(fits)[-1])


@examples(30)
@given(
    stagger=st.sampled_from(STAGGERS),
    chunk=st.integers(1, 3),
    on_late=st.sampled_from(["apply", "drop"]),
    on_reset=st.sampled_from(["hold", "run"]),
    overrun=st.sampled_from(["skip", "stretch"]),
    on_missing=st.sampled_from(["noop", "repeat", "random"]),
    workers=st.integers(1, 5),
    continuous=st.booleans(),
    taus_ms=st.lists(st.integers(1, 90), min_size=1, max_size=12),
    losses=st.lists(st.tuples(st.integers(1, 100), st.integers(0, 4), st.integers(1, 20)), max_size=4),
    stalls=st.dictionaries(st.integers(1, 110), st.integers(1, 45), max_size=6),
    early=st.sets(st.integers(1, 110), max_size=40),
)
def test_a_run_with_losses_late_answers_and_skipped_or_stretched_ticks_is_the_same_again(
    tmp_path_factory, chunk, workers, continuous, taus_ms, losses, stalls, early, **fields
):
    out = tmp_path_factory.mktemp("run")
    changes = {}
    for tick, worker, ticks in losses:
        if worker < workers:
            changes[tick, worker], changes[tick + ticks, worker] = False, True

    def on_tick(simulation, tick):
        if tick in early:
            simulation.loop.prepare_tick()
        if tick in stalls:
            simulation._clock.advance_ns(stalls[tick] * MS)

    simulation = recorded(
        out,
        latency=lambda number: taus_ms[number % len(taus_ms)] * MS,
        changes=[Change(tick, worker, up) for (tick, worker), up in changes.items()],
        on_tick=on_tick,
        chunk=chunk,
        workers=workers,
        env_args={"episode_ticks": 17, "continuous": continuous},
        **fields,
    )
    report = replayed(out)
    assert report.is_identical, (report.differing, report.first)
    assert (report.ticks, report.notes) == (120, [])
    assert report.jobs == simulation.stats().counters["jobs"]


def hiccups(job):
    return (15 + 50 * (job % 11 == 5)) * MS


def test_the_runs_that_are_replayed_had_everything_in_them(tmp_path):
    """Of each kind of tick, source and outcome: else the property above would say little."""
    kinds, sources, outcomes = set(), set(), set()
    for number, (stagger, fields) in enumerate(
        [
            # One inference in eleven is a hiccup, that no delay is made for.
            ("max-time", {"on_late": "drop", "on_missing": "random", "latency": hiccups}),
            ("max-time", {"workers": 1, "latency": lambda job: (15 + 25 * (job == 20)) * MS}),
            ("free-running", {"on_reset": "run", "on_missing": "repeat"}),
            ("sequential", {}),
        ]
    ):
        recorded(
            tmp_path / str(number),
            changes=[Change(tick, 0, up) for tick, up in ((40, False), (50, True), (71, False), (74, True))],
            on_tick=lambda simulation, tick: simulation._clock.advance_ns(35 * MS) if tick == 60 else None,
            stagger=stagger,
            **({"latency": lambda job: (15 + 40 * (job % 5 == 0)) * MS} | fields),
        )
        assert replayed(tmp_path / str(number)).is_identical
        with Recording(tmp_path / str(number)) as recording:
            kinds |= set(recording.column("kind").tolist())
            sources |= set(recording.column("source").tolist())
            outcomes |= set(recording.jobs("outcome")["outcome"].tolist())
            assert recording.column("skipped_ticks").any()
    assert kinds == set(TickKind)
    # Nobody steps in, and nothing is limited or starved: other tests have that.
    assert sources == set(Source) - {Source.HUMAN, Source.SHIELD, Source.SAFE}
    # Their policies answer each time, and have no head.
    assert outcomes == set(Outcome) - {Outcome.ABSTAINED, Outcome.FEATURES_USED}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("kind", TickKind.MISSED, ("missed", "acted")),
        ("source", Source.NOOP, ("noop", "policy")),
        ("worker", 7, ("7", "0")),
        ("obs_tick", 3, ("3", None)),
        ("due_tick", 3, ("3", None)),
        ("chunk_index", 2, ("2", "0")),
        ("outcome", Outcome.LATE, ("late", "on_time")),
        ("episode", 77, ("77", None)),
        ("reward", -0.0, ("-0.0", None)),
        ("terminated", True, ("1", "0")),
        ("truncated", True, ("1", "0")),
        ("episode_return", 1e9, ("1000000000.0", None)),
        ("episode_ticks", 99, ("99", None)),
        ("booked_jobs", 0, ("0", "1")),
    ],
)
def test_a_changed_tick_is_found_and_named(usual_run, name, value, shown):
    row = row_where(usual_run, kind=TickKind.ACTED, worker=0)
    change(usual_run, "ticks", name, row, value)
    report = replayed(usual_run)
    assert dict(report.differing) == {name: 1}
    (difference,) = report.first
    with Recording(usual_run) as recording:
        tick = int(recording.column("tick")[row])
    assert (difference.tick, difference.field, difference.recorded) == (tick, name, shown[0])
    assert shown[1] is None or difference.replayed == shown[1]


def test_a_changed_frame_is_found_with_the_place_of_the_first_value(usual_run):
    change(usual_run, "ticks", "frame", (30, 1), 0.25)
    (difference,) = replayed(usual_run).first
    assert (difference.field, difference.replayed) == ("frame", "1.0") or difference.replayed == "-1.0"
    assert difference.recorded == "1 of 2 values differ, the first at (1,): 0.25"


def test_a_changed_action_makes_another_world_and_the_replay_goes_on(tmp_path):
    # An action of CartPole changes every frame after it, up to the end of its episode.
    recorded(tmp_path, env_id="CartPole-v1", env_args={}, fps=100)
    row = row_where(tmp_path, kind=TickKind.ACTED, terminated=0, episode=1)
    with Recording(tmp_path) as recording:
        action = int(recording.column("action")[row])
        tick = int(recording.column("tick")[row])
    change(tmp_path, "ticks", "action", row, 1 - action)
    report = replayed(tmp_path)
    assert report.ticks == 120
    assert report.first[0].tick == tick
    assert report.differing["frame"] >= 1
    assert set(report.differing) <= {"frame", "reward", "terminated", "kind", "source", "episode", "episode_return",
                                     "episode_ticks", "worker", "obs_tick", "due_tick", "chunk_index", "outcome",
                                     "action", "job outcome", "job tick", "job log_seq"}  # fmt: skip


def test_a_changed_stand_in_is_found(tmp_path):
    recorded(tmp_path, on_missing="random", on_reset="run")
    row = row_where(tmp_path, source=Source.RANDOM)
    with Recording(tmp_path) as recording:
        action = int(recording.column("action")[row])
    change(tmp_path, "ticks", "action", row, (action + 1) % 3)
    report = replayed(tmp_path)
    assert report.differing["action"] == 1
    (found,) = (difference for difference in report.first if difference.field == "action")
    assert found.replayed == f"[{action}]"


@pytest.mark.parametrize(
    ("name", "value", "fields"),
    [
        ("outcome", Outcome.SUPERSEDED, {"job outcome"}),
        ("tick", 2, {"job tick"}),
        ("log_seq", 9999, {"job log_seq"}),
        ("episode", 55, None),
        ("obs_tick", 0, None),
        ("due_tick", 90, None),
        ("taken_tick", 90, None),
    ],
)
def test_a_changed_job_is_found_and_named(usual_run, name, value, fields):
    with Recording(usual_run) as recording:
        jobs = recording.jobs()
        row = int(np.flatnonzero((jobs["outcome"] == Outcome.ON_TIME) & (jobs["booked_tick"] > 40))[0])
    change(usual_run, "jobs", name, row, value)
    differing = set(replayed(usual_run).differing)
    assert differing == fields if fields is not None else differing


def test_lost_frames_end_the_replay_where_they_begin(usual_run):
    drop(usual_run, "ticks", [50, 51, 52])
    report = replayed(usual_run)
    assert (report.is_identical, report.ticks) == (True, 50)
    assert report.notes == ["frames were lost after tick 49: replayed up to there"]


def test_a_recording_whose_first_frames_are_lost_has_nothing_to_replay(usual_run):
    drop(usual_run, "ticks", [0, 1])
    report = replayed(usual_run)
    assert (report.is_identical, report.ticks) == (True, 0)
    assert report.notes == ["frames were lost before the first tick: replayed up to there"]


def test_a_lost_job_record_ends_the_replay_at_the_tick_that_booked_it(usual_run):
    with Recording(usual_run) as recording:
        booked = recording.jobs("booked_tick")["booked_tick"]
    row = int(np.flatnonzero(booked == 60)[0])
    drop(usual_run, "jobs", [row])
    report = replayed(usual_run)
    assert (report.is_identical, report.ticks) == (True, 60)
    assert "how a job of tick 60 ended is not in the recording (its record was lost)" in report.notes[0]


def test_ticks_limits_the_replay(usual_run):
    report = replayed(usual_run, max_ticks=30)
    assert (report.is_identical, report.ticks, report.notes) == (True, 30, [])


def replay_with_the_program(path, capsys, *more, env_id=SETTINGS["env_id"]):
    named = ["--env-id", env_id] if env_id is not None else []
    with pytest.raises(SystemExit) as ended:
        main(["--replay", str(path), *named, *more])
    said = capsys.readouterr()
    return ended.value.code, said.out + said.err


def test_the_program_says_identical_and_exits_0(tmp_path, capsys):
    simulation = recorded(tmp_path)
    code, said = replay_with_the_program(tmp_path, capsys)
    assert code == 0
    assert f"replayed 120 ticks, {simulation.stats().counters['jobs']} jobs: identical" in said


@pytest.mark.parametrize("place", [".", "recording", "recording/data", "recording/data/ticks.hdf5",
                                   "recording/data/main_data.hdf5"])  # fmt: skip
def test_a_recording_is_found_by_its_run_its_folder_or_its_files(usual_run, capsys, place):
    assert replay_with_the_program(usual_run / place, capsys, "--ticks", "5")[0] == 0


def test_the_program_shows_the_differences_and_exits_1(usual_run, capsys):
    change(usual_run, "ticks", "reward", 40, 123.5)
    code, said = replay_with_the_program(usual_run, capsys)
    assert code == 1
    assert "DIFFERENT" in said
    assert "reward  123.5" in " ".join(said.split()).replace("reward 123.5", "reward  123.5")
    assert "1 ticks" in said


def world_of(env_id, /, **env_args):
    return {"config": json.dumps({"env_id": env_id, "env_args": env_args, "clock": "virtual"})}


@pytest.mark.parametrize(
    ("about", "given", "expected"),
    [
        ({"played": True}, None, "a program stepped this world itself"),
        ({"config": json.dumps({"no_such": 1})}, None, "settings unknown here"),
        (world_of("no_such_module:World"), "no_such_module:World", "cannot be made here"),
        (world_of("CartPole-v1"), None, "is another world now"),
        (world_of("CartPole-v1"), "tests.support.virtual_worlds:Signs", "its env-id is 'CartPole-v1', the given one"),
        (world_of("os:system", command="touch ran"), None, "say so: --env-id os:system (in a program"),
        (world_of("os:system", command="touch ran"), "tests.support.virtual_worlds:Signs", "its env-id is 'os:system'"),
        (world_of("antigravity:No-v0"), None, "A file does not choose what runs here"),
        (world_of("GymV26Environment-v0", env_id="antigravity:No-v0"), None, "asks for code"),
        (world_of("rtcore/Tetris-v0", rom="own.gb"), None, "asks for a ROM: rom 'own.gb'"),
        ({"format_version": 99}, None, "version 99"),
    ],
)
def test_what_cannot_be_replayed_is_refused_with_the_reason(usual_run, capsys, monkeypatch, about, given, expected):
    monkeypatch.chdir(usual_run)
    with tampering(usual_run) as file:
        for name, value in about.items():
            file.attrs[name] = value
    code, said = replay_with_the_program(usual_run, capsys, env_id=given)
    assert code == 2
    assert expected in " ".join(said.split())
    assert not (usual_run / "ran").exists()


def test_other_options_beside_replay_are_refused(tmp_path, capsys):
    code, said = replay_with_the_program(tmp_path, capsys, "--fps", "30", "--policy", "mlp")
    assert code == 2
    assert "leave out --fps, --policy" in said


def test_a_file_that_is_no_recording_is_refused(tmp_path, capsys):
    (tmp_path / "ticks.hdf5").write_bytes(b"no HDF5")
    code, said = replay_with_the_program(tmp_path, capsys)
    assert code == 2
    assert "cannot be read as a recording" in said
