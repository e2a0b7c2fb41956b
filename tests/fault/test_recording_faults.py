"""A recorder that is killed, starved, or refused by the disk: the run goes on, and what is missing is said."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import minari
import numpy as np
import psutil
import pytest

from rtcore.errors import ConfigError
from rtcore.recording.mending import mend
from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, MINARI_FILES, TICKS_FILE, ticks_file
from tests.support.drills import (
    HEALTHY,
    children_by_name,
    kill,
    rows_in,
    run_to_end,
    running,
    wait_for,
    wait_until_ticking,
)
from tests.support.recorded_runs import played_again, wait_for_frames

pytestmark = pytest.mark.fault

#: Ends by itself, once `--duration S` follows.
SHORT = HEALTHY[: HEALTHY.index("--duration")] + HEALTHY[HEALTHY.index("--duration") + 2 :]


def summary_of(out: Path) -> dict[str, object]:
    summary: dict[str, object] = json.loads((out / "summary.json").read_text())
    return summary


def ticks_of(out: Path) -> list[int]:
    """As the supervisor recorded them, which reads the ring on its own."""
    with (out / "actions.csv").open() as file:
        return [int(row["tick"]) for row in csv.DictReader(file)]


def wait_for_rows(out: Path, count: int) -> None:
    """Until the run itself has written so many ticks more."""
    before = rows_in(out / "actions.csv")
    wait_for(lambda: rows_in(out / "actions.csv") >= before + count, "the run to go on")


def recorder_of(program) -> psutil.Process:
    return children_by_name(program)["rt-recorder"]


def said_until(program, words: str) -> str:
    """What it says, up to the line with these words."""
    said = ""
    for line in program.stdout:
        said += line
        if words in said.replace("\n", " "):
            return said
    raise AssertionError(f"it ended without saying {words!r}: {said}")


def end(program) -> tuple[int, str]:
    """Ctrl-C."""
    program.send_signal(signal.SIGINT)
    said, _ = program.communicate(timeout=150)
    return program.returncode, said


def test_a_killed_recorder_leaves_a_readable_file_and_the_run_goes_on(tmp_path):
    # A run that ends when it is told to: on a busy machine one of some seconds would be over before all this.
    with running(*HEALTHY, "--record", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 100)
        kill(recorder_of(program))
        said = said_until(program, "the run goes on")
        wait_for_rows(tmp_path, 100)
        code, _ = end(program)
    assert code == 130
    assert "recording stopped: the recorder (pid" in said
    assert "killed by SIGKILL" in said
    recording = summary_of(tmp_path)["recording"]
    assert recording["end"].startswith("unfinished: the recorder (pid")
    with Recording(tmp_path) as kept:
        assert kept.end == "unfinished"
        assert 100 <= kept.num_ticks < ticks_of(tmp_path)[-1], "the run went on"
        assert kept.column("tick").tolist() == ticks_of(tmp_path)[: kept.num_ticks]
        assert (recording["frames"], recording["jobs"]) == (kept.num_ticks, kept.num_jobs), "what the file holds"
    report = played_again(tmp_path)
    assert report.is_identical, report.first
    assert report.ticks > 50
    assert all("it was under way" in note for note in report.notes)
    # Plain HDF5 and Minari read it once it is mended; nothing of it changes.
    with pytest.raises(OSError, match="already open"):
        h5py.File(tmp_path / FOLDER / TICKS_FILE)
    with Recording(tmp_path) as kept:
        before = list(kept.ticks())
    assert mend(tmp_path)[0] == len(before)
    with Recording(tmp_path) as kept:
        assert [tick.header for tick in kept.ticks()] == [tick.header for tick in before]
        assert all(np.array_equal(now.frame, was.frame) for now, was in zip(kept.ticks(), before, strict=True))
    with h5py.File(tmp_path / FOLDER / TICKS_FILE) as file:
        assert (file.attrs["frames"], bytes(file.attrs["end"]).strip()) == (len(before), b"unfinished")
    assert minari.MinariDataset(tmp_path / FOLDER).total_steps > 50
    assert played_again(tmp_path) == report
    assert sorted(path.name for path in (tmp_path / FOLDER).iterdir()) == sorted(
        [*MINARI_FILES, TICKS_FILE, "SHA256SUMS"]
    )


@pytest.mark.slow
def test_a_recorder_that_does_not_end_is_killed_and_the_run_ends_with_its_summary(tmp_path):
    with running(*SHORT, "--duration", "12", "--record", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 60)
        recorder_of(program).suspend()
        said, _ = program.communicate(timeout=150)
    assert program.returncode == 1
    assert "did nothing for 15 s and was killed" in said
    assert "did nothing" in summary_of(tmp_path)["recording"]["end"]
    assert ticks_of(tmp_path)[-1] >= 700, "it went to its end"
    assert played_again(tmp_path).is_identical


@pytest.mark.slow
def test_a_starved_recorder_counts_exactly_the_frames_it_missed(tmp_path):
    with running(*HEALTHY, "--record", "--ring-slots", "256", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 60)
        recorder = recorder_of(program)
        recorder.suspend()
        wait_for_rows(tmp_path, 320)
        recorder.resume()
        with Recording(tmp_path) as recording:
            before = recording.num_ticks
        wait_for_frames(tmp_path, before + 100)
        code, _ = end(program)
    assert code == 130
    summary, ticks = summary_of(tmp_path), ticks_of(tmp_path)
    recording = summary["recording"]
    assert summary["record"] == {"lost_ticks": 0, "lost_jobs": 0}, "the ticks took no notice"
    with Recording(tmp_path) as kept:
        missing = sorted(set(ticks) - set(kept.column("tick").tolist()))
        assert len(missing) > 50, "in one piece, unless the machine is so busy that it starves once more"
        assert kept.end == recording["end"] == f"{len(missing)} frames lost"
        assert kept.lost_frames == recording["lost_frames"] == len(missing)
    report = played_again(tmp_path)
    assert (report.is_identical, report.ticks) == (True, ticks.index(missing[0]))
    assert report.notes == [f"frames were lost after tick {missing[0] - 1}: replayed up to there"]


@pytest.mark.slow
def test_a_full_disk_ends_the_recording_and_not_the_run(tmp_path):
    with running(*HEALTHY, "--record", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 100)
        # No file of the recorder may grow any more: what it then gets from the system is what a full disk gives.
        limit = (tmp_path / FOLDER / TICKS_FILE).stat().st_size
        resource.prlimit(recorder_of(program).pid, resource.RLIMIT_FSIZE, (limit, limit))
        said = said_until(program, "the run goes on")
        wait_for_rows(tmp_path, 100)
        code, _ = end(program)
    assert code == 130
    assert "cannot be written: File too large; free some room" in said.replace("\n", " ")
    assert "cannot be written: File too large" in summary_of(tmp_path)["recording"]["end"]
    with Recording(tmp_path) as kept:
        assert 100 <= kept.num_ticks < ticks_of(tmp_path)[-1], "the run went on"
        assert kept.column("tick").tolist() == ticks_of(tmp_path)[: kept.num_ticks]
    assert played_again(tmp_path).is_identical


@pytest.mark.timeout(300)
def test_however_much_fits_onto_a_disk_a_recording_fails_in_words(tmp_path):
    """Also while it is begun, mended, or seen by Minari: HDF5 itself crashes, or prints tracebacks (seed 14591)."""
    program = [sys.executable, "-m", "tests.support.full_disks", str(tmp_path)]
    ended = subprocess.run(program, check=False, capture_output=True, text=True, timeout=250)
    assert (ended.returncode, ended.stderr) == (0, "")
    kinds = {line["kind"]: line for line in map(json.loads, ended.stdout.splitlines())}
    assert set(kinds) == {"recording", "view", "mended"}
    for line in kinds.values():
        assert line["enough"] and len(line["failed"]) > 5


@pytest.mark.slow
def test_a_run_whose_world_fails_is_recorded_to_its_last_frame(tmp_path):
    world = ("--env-id", "tests.support.bad_worlds:raising_world", "--env-args", "after=150")
    ended = run_to_end(*SHORT, *world, "--duration", "20", "--record", "--out", str(tmp_path))
    assert ended.returncode == 1
    ticks = ticks_of(tmp_path)
    with Recording(tmp_path) as kept:
        assert (kept.end, kept.column("tick").tolist()) == ("complete", ticks)
    report = played_again(tmp_path)
    assert report.is_identical, report.first
    assert report.ticks > len(ticks) - 10
    assert "it was under way when the run or the recorder broke off" in report.notes[0]


@pytest.mark.slow
def test_a_recording_of_a_program_that_was_killed_can_be_read(tmp_path):
    with running(*HEALTHY, "--record", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 100)
        os.kill(program.pid, signal.SIGKILL)
    with Recording(tmp_path) as kept:
        assert (kept.end, kept.num_ticks >= 100) == ("unfinished", True)
    assert played_again(tmp_path).is_identical


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_tick(run_here, tmp_path):
    (tmp_path / "recording").write_text("in the way")
    ended = run_here(*SHORT, "--duration", "5", "--record", "--out", str(tmp_path))
    assert ended.returncode == 1
    assert "cannot be written" in ended.stderr
    assert not (tmp_path / "actions.csv").exists() or not ticks_of(tmp_path)


def test_without_h5py_a_run_is_refused_before_anything_starts(tmp_path):
    (tmp_path / "h5py.py").write_text("raise ImportError('not here')")
    environment = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{tmp_path}:{environment}"
    try:
        ended = run_to_end(*SHORT, "--duration", "5", "--record", "--out", str(tmp_path / "out"))
    finally:
        os.environ["PYTHONPATH"] = environment
    assert ended.returncode == 2
    assert "pip install 'rtcore[record]'" in ended.stderr.replace("\n", " ")
    with pytest.raises(ConfigError):
        ticks_file(tmp_path / "out")
