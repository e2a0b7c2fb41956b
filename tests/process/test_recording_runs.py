"""Recorded runs of real processes: every tick is there, and the run is the same again."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

import rtcore
from rtcore.cli.run import main
from rtcore.errors import RecordError
from rtcore.memory.layout import FrameHeader
from rtcore.memory.segments import files_of
from rtcore.processes.recorder import RecorderProcess
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER
from rtcore.report.log import lines_to
from rtcore.scheduling.dispatch import Source
from tests.support import recorded_worlds
from tests.support.drills import let_ticks_run
from tests.support.recorded_runs import played_again
from tests.support.recorded_worlds import FRAMES, Arm

pytestmark = pytest.mark.process

WRITER = [sys.executable, recorded_worlds.__file__]


def run(out: Path, **fields: Any) -> dict[str, Any]:
    """The summary of a recorded run."""
    said: list[str] = []
    with lines_to(said.append), rtcore.Runtime(out=out, record=True, **fields) as runtime:
        runtime.wait()
    assert files_of(runtime.run_id) == []
    assert sum("recorded  " in line for line in said) == 1
    return runtime.summary()


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_every_tick_of_a_game_is_recorded_and_the_game_is_the_same_again(tmp_path):
    flags = ["--policy", "trained", "--policy-args", "pad_ms=60", "--duration", "5", "--seed", "3"]
    with pytest.raises(SystemExit) as ended:
        main([*flags, "--workers", "4", "--record", "--no-live", "--no-pictures", "--out", str(tmp_path)])
    assert ended.value.code == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    recording, ticks, jobs = summary["recording"], rows_of(tmp_path / "actions.csv"), rows_of(tmp_path / "jobs.csv")
    assert recording["end"] == "complete"
    assert (recording["frames"], recording["jobs"]) == (len(ticks), len(jobs)) == (summary["ticks"]["count"], len(jobs))
    with Recording(tmp_path) as kept:
        headers = [tick.header for tick in kept.ticks()]
        assert [header.tick for header in headers] == [int(row["tick"]) for row in ticks]
        assert [header.reward for header in headers] == [float(row["reward"]) for row in ticks]
        assert [header.start_ns for header in headers] == [int(row["start_ns"]) for row in ticks]
        assert len(np.unique(kept.column("frame"), axis=0)) > 10, "the game went on in what was kept"
    report = played_again(tmp_path)
    assert report.is_identical, report.first
    assert (report.ticks, report.jobs, report.notes) == (len(ticks), len(jobs), [])
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.total_steps == sum(row["kind"] not in ("reset", "lead_in") for row in ticks)
    assert data.spec.env_spec.id == "rtcore/Blocks-v0"
    assert data[0].rewards.sum() == sum(header.reward for header in headers if header.episode == 0)


@pytest.mark.parametrize(
    "stagger",
    [
        "expected-time",
        pytest.param("max-time", marks=pytest.mark.slow),
        pytest.param("free-running", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_skips_ticks_is_the_same_again(tmp_path, stagger, hurried):
    summary = run(
        tmp_path,
        env_id="tests.support.recorded_worlds:Stumbling",
        policy="synthetic",
        policy_args={"latency_ms": 40, "jitter_ms": 15},
        workers=3,
        ticks=240,
        stagger=stagger,
        on_missing="random",
        on_reset="run",
        chunk=2,
    )
    assert hurried == [False], "its time was up: the view is made, however long it takes"
    assert summary["ticks"]["skipped"] > 10
    assert summary["recording"]["frames"] == summary["ticks"]["count"]
    report = played_again(tmp_path)
    assert report.is_identical, report.first
    assert report.jobs == summary["actions"]["jobs"]
    assert report.notes == []


def test_a_slow_dict_world_whose_ticks_are_put_off_is_recorded_filmed_and_the_same_again(tmp_path, capsys):
    world = ["--env-id", "tests.support.recorded_worlds:Arm", "--overrun", "stretch", "--fps", "60", "--duration", "2"]
    policy = ["--policy", "synthetic", "--policy-args", "latency_ms=40", "--workers", "3", "--seed", "5"]
    with pytest.raises(SystemExit) as ended:
        main([*world, *policy, "--record", "--video", "--no-live", "--no-pictures", "--out", str(tmp_path)])
    assert ended.value.code == 0
    assert f"{tmp_path / 'video.mp4'} (120 frames;" in capsys.readouterr().out, "no tick is missing, none is held"
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["recording"]["end"], summary["recording"]["frames"]) == ("complete", 120)
    assert summary["ticks"]["stretched"] >= 3, "each 23rd step takes 70 ms, of a tick of 17"
    with Recording(tmp_path) as kept:
        assert kept.column("tick").tolist() == list(range(120))
        put_off_ms = np.diff(kept.column("deadline_ns")) / 1e6 - 1000 / 60
        assert put_off_ms.sum() == pytest.approx(summary["ticks"]["stretched_ms"], abs=1e-3)
        angles, seen = kept.column("frame/arm/angles"), kept.column("frame/camera")
        assert np.array_equal(seen, Arm.seen(angles))
        assert len(np.unique(angles, axis=0)) > 70
        steps = int((kept.column("source") != Source.HELD).sum())
    with pytest.raises(SystemExit) as ended:
        main(["--replay", str(tmp_path), "--env-id", "tests.support.recorded_worlds:Arm"])
    assert ended.value.code == 0
    assert f"replayed 120 ticks, {summary['actions']['jobs']:,} jobs: identical" in capsys.readouterr().out
    data = minari.MinariDataset(tmp_path / FOLDER)
    assert data.observation_space == Arm.observation_space
    assert data.total_steps == steps > 70
    for episode in data.iterate_episodes():
        parts = episode.observations
        assert {name: list(part) if isinstance(part, dict) else None for name, part in parts.items()} == {
            "arm": ["angles"],
            "camera": None,
        }
        assert len(parts["camera"]) == len(episode.actions) + 1
        assert np.array_equal(parts["camera"], Arm.seen(parts["arm"]["angles"]))


@pytest.fixture
def hurried(monkeypatch):
    """Of each recorder that was seen off: whether somebody waited for the end, so that its view is left out if long."""
    seen, shut_down = [], RecorderProcess.shut_down

    def looked_at(crew, launcher, *, soon=False):
        seen.append(soon)
        shut_down(crew, launcher, soon=soon)

    monkeypatch.setattr(RecorderProcess, "shut_down", looked_at)
    return seen


@pytest.mark.slow
def test_a_run_that_a_program_stops_is_recorded_to_its_last_tick(tmp_path, hurried):
    with rtcore.Runtime(
        env_id="CartPole-v1", policy="synthetic", policy_args={"latency_ms": 20}, workers=2, fps=100, out=tmp_path,
        record=True,
    ) as runtime:  # fmt: skip
        let_ticks_run(runtime, 110)
        runtime.stop()
        runtime.wait()
    summary = runtime.summary()
    assert hurried == [True]
    assert summary["recording"]["end"] == "complete"
    assert summary["recording"]["frames"] == summary["ticks"]["count"] > 100
    report = played_again(tmp_path)
    assert (report.is_identical, report.ticks) == (True, summary["ticks"]["count"])


def test_a_world_that_a_program_steps_is_recorded_but_not_replayed(tmp_path, capsys):
    with rtcore.RealtimeEnv("CartPole-v1", fps=50, record=True, out=tmp_path, pictures=False) as env:
        env.reset(seed=4)
        for _ in range(40):
            _, _, terminated, truncated, _ = env.step(0)
            if terminated or truncated:
                env.reset()
    with Recording(tmp_path) as recording:
        assert recording.end == "complete"
        assert recording.num_ticks >= 40
    with pytest.raises(SystemExit) as ended:
        main(["--replay", str(tmp_path)])
    assert ended.value.code == 2
    assert "a program stepped this world itself" in capsys.readouterr().err


def test_a_recording_that_cannot_be_made_is_an_error_before_tick_0(tmp_path):
    (tmp_path / "recording").write_text("in the way")
    runtime = rtcore.Runtime(
        env_id="CartPole-v1", policy="synthetic", policy_args={"latency_ms": 5}, workers=1, ticks=50, out=tmp_path,
        record=True,
    )  # fmt: skip
    with pytest.raises(RecordError, match="cannot be written"):
        runtime.start()
    assert files_of(runtime.run_id) == []


# -- the file, without a run -------------------------------------------------------------------------------------


def is_whole(folder: Path) -> int:
    """How many rows there are, all of them as they were written."""
    with Recording(folder) as recording:
        count = recording.num_ticks
        assert recording.end == "unfinished"
        for name in FrameHeader._fields:
            if recording.column(name).dtype == np.int64:
                assert recording.column(name).tolist() == list(range(count)), name
        assert np.array_equal(recording.column("frame"), FRAMES[:count])
        assert recording.jobs("tick")["tick"].tolist() == list(range(recording.num_jobs))
        return count


@pytest.mark.parametrize("after", [130, 239])
def test_a_writer_that_is_killed_leaves_all_whole_chunks(tmp_path, after):
    with subprocess.Popen([*WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as program:
        for line in program.stdout:
            if int(line) >= after:
                break
        program.kill()
    assert is_whole(tmp_path) >= after // 60 * 60


@pytest.mark.parametrize("room_bytes", [0, 1500, 9000])
def test_a_writer_that_finds_no_room_leaves_what_was_whole_and_ends_quietly(tmp_path, room_bytes):
    ended = subprocess.run(
        [*WRITER, str(tmp_path), str(room_bytes)], capture_output=True, text=True, timeout=150, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    last = ended.stdout.splitlines()[-1]
    assert "ticks.hdf5 cannot be written: File too large; free some room" in last
    assert is_whole(tmp_path) in (180, 240, 300)
