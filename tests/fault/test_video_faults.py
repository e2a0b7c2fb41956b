"""A video that is broken off leaves nothing of itself, and the recording as it was; a run that was has its video."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
from pathlib import Path

import av
import pytest

from rtcore.recording.reader import Recording
from rtcore.recording.schema import FOLDER, TICKS_FILE
from tests.support.drills import HEALTHY, run_to_end, running, wait_for, wait_until_ticking
from tests.support.recorded_runs import wait_for_frames

pytestmark = pytest.mark.fault

#: Long enough to be broken off while it is drawn.
LONG = ("--clock", "virtual", "--env-id", "CartPole-v1", "--fps", "60", "--policy", "random", "--ticks", "4000")
VIDEO, DRAFT = "video.mp4", "video.mp4.part"


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int, str]:
    """A run that went to its end, and Ctrl-C while its video was drawn: folder, exit code, what it said."""
    out = tmp_path_factory.mktemp("run")
    with running(
        *LONG, "--latency", "constant:30", "--no-live", "--no-pictures", "--video", "--out", str(out)
    ) as program:
        wait_for((out / DRAFT).exists, "the video to be begun")
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=150)
    return out, program.returncode, said


@pytest.fixture
def recorded(broken_off: tuple[Path, int, str]) -> Path:
    return broken_off[0]


def assert_no_video(out: Path) -> None:
    assert not {VIDEO, DRAFT} & {path.name for path in out.iterdir()}


def digest(out: Path) -> str:
    return hashlib.sha256((out / FOLDER / TICKS_FILE).read_bytes()).hexdigest()


def num_frames(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def drawing(out: Path):
    """The program, once it writes the video of `out`."""
    program = running("--replay", str(out), "--video")
    return program, lambda: wait_for((out / DRAFT).exists, "the video to be begun")


@pytest.mark.slow
def test_ctrl_c_after_a_run_leaves_its_video_out_and_says_how_to_have_it(broken_off):
    out, code, said = broken_off
    assert code == 130, said
    assert f"left out; `rtcore-run --replay {out} --video` draws it" in said.replace("\n", " ")
    assert_no_video(out)
    with Recording(out) as recording:
        assert (recording.end, recording.num_ticks) == ("complete", 4000)


def test_ctrl_c_while_a_video_is_drawn_leaves_nothing_of_it(recorded):
    before = digest(recorded)
    program, wait_until_begun = drawing(recorded)
    with program as process:
        wait_until_begun()
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=150)
    assert process.returncode == 130, said
    assert_no_video(recorded)
    assert digest(recorded) == before


@pytest.mark.slow
def test_a_full_disk_is_told_and_leaves_the_recording_as_it_was(recorded):
    before = digest(recorded)
    program, wait_until_begun = drawing(recorded)
    with program as process:
        wait_until_begun()
        # No file may grow beyond this: what the program then gets from the system is what a full disk gives.
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
        said, _ = process.communicate(timeout=150)
    assert process.returncode == 1, said
    assert "cannot be written: File too large; free some room" in said.replace("\n", " ")
    assert "Traceback" not in said
    assert_no_video(recorded)
    assert digest(recorded) == before


def test_a_run_that_ctrl_c_ends_has_its_video(tmp_path):
    with running(*HEALTHY, "--video", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 1)
        program.send_signal(signal.SIGINT)
        said, _ = program.communicate(timeout=150)
    assert program.returncode == 130, said
    with Recording(tmp_path) as recording:
        ticks = recording.column("tick")
    assert num_frames(tmp_path / VIDEO) == ticks[-1] - ticks[0] + 1 > 0


@pytest.mark.slow
def test_a_run_that_is_told_to_terminate_does_not_stay_for_its_video(tmp_path):
    with running(*HEALTHY, "--video", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 1)
        program.send_signal(signal.SIGTERM)
        said, _ = program.communicate(timeout=150)
    assert program.returncode == 143, said
    assert f"left out; `rtcore-run --replay {tmp_path} --video` draws it" in said
    assert not (tmp_path / VIDEO).exists()
    ended = run_to_end("--replay", str(tmp_path), "--video")
    assert ended.returncode == 0, ended.stderr
    assert num_frames(tmp_path / VIDEO) > 0


@pytest.mark.slow
def test_the_video_of_a_run_that_was_killed_says_that_its_end_is_missing(tmp_path):
    with running(*HEALTHY, "--video", "--out", str(tmp_path)) as program:
        wait_until_ticking(program)
        wait_for_frames(tmp_path, 60)
        os.kill(program.pid, signal.SIGKILL)
    ended = run_to_end("--replay", str(tmp_path), "--video")
    assert ended.returncode == 0, ended.stderr
    assert "recording unfinished: end is missing" in ended.stdout
    with Recording(tmp_path) as recording:
        assert num_frames(tmp_path / VIDEO) >= recording.num_ticks


def test_a_file_that_is_no_recording_is_refused_by_name(run_here, tmp_path):
    ended = run_here("--replay", str(tmp_path / "nowhere.hdf5"), "--video")
    assert ended.returncode == 2
    assert "nowhere.hdf5: no recording; expected ticks.hdf5" in ended.stderr
