"""`rtcore-sweep` as a program: killed and gone on with, here and as Ray tasks; what fails, and what ends it."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import psutil
import pytest

from rtcore.cli.sweep import main
from rtcore.errors import ConfigError
from rtcore.experiments.playing import play_cell
from rtcore.experiments.raytasks import RayBackend
from rtcore.experiments.records import CellResult, read_sweep
from rtcore.experiments.sweepfile import cells_of, load_sweep
from tests.support.drills import HERE, Run, segments, started, wait_for
from tests.support.sweeps import RANDOM_PLAY

pytestmark = pytest.mark.process

COMMAND = [sys.executable, "-m", "rtcore.cli.sweep"]
#: 40 cells of some milliseconds.
FORTY = "seeds = 10\ndelays = [1, 3]\nepisodes = 3\n" + RANDOM_PLAY
#: Cells that take longer than any test.
LONG = FORTY.replace("seeds = 10", "seeds = 2").replace("episodes = 3", "episodes = 1_000_000")


def file_of(folder: Path, text: str) -> Path:
    (folder / "some.toml").write_text(text)
    return folder / "some.toml"


def words(file: Path, *more: str) -> tuple[str, ...]:
    return (str(file), "--out", str(file.parent / "out"), *more)


def done(folder: Path) -> int:
    return len(list((folder / "out" / "cells").glob("*.json")))


def undisturbed(file: Path) -> dict[str, CellResult]:
    """What the cells come to one after another in this process, where nothing is killed."""
    return {cell.name: play_cell(cell, Fraction(50), file.parent) for cell in cells_of(load_sweep(file))}


def results(folder: Path) -> dict[str, CellResult | None]:
    return {record.name: record.result for record in read_sweep(folder / "out").cells}


def below(pid: int, named: str) -> list[psutil.Process]:
    """Processes that the program started, and those that they did, whose name or command line has `named` in it."""
    found = []
    with suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                if named in " ".join((process.name(), *process.cmdline())):
                    found.append(process)
    return found


def kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def go_on(file: Path, kills: Sequence[Callable[[subprocess.Popen[str]], Any]], *more: str) -> None:
    """Again and again, each time a few cells further when something is killed; then to the end.

    Between two calls only whole files are there.
    """
    moments = random.Random(15)
    for kill_one in kills:
        with started(*COMMAND, *words(file, *more), cwd=HERE) as program:
            wanted = done(file.parent) + moments.randint(1, 5)

            def is_there(program: subprocess.Popen[str] = program, wanted: int = wanted) -> bool:
                return done(file.parent) >= wanted or program.poll() is not None

            wait_for(is_there, "a few cells")
            time.sleep(moments.random() * 0.1)  # somewhere within the next cells
            kill_one(program)
            program.communicate(timeout=600)
        for path in (file.parent / "out" / "cells").glob("*.json"):
            json.loads(path.read_text())
    with started(*COMMAND, *words(file, *more), cwd=HERE) as program:
        output, _ = program.communicate(timeout=600)
    assert (program.returncode, "all 40 cells are done" in output) == (0, True), output


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_sweep_that_was_killed_five_times_comes_to_the_table_of_one_that_was_not(tmp_path: Path):
    file = file_of(tmp_path, FORTY)

    def cells_and_their_fork_server(program: subprocess.Popen[str]) -> None:
        kill(below(program.pid, "rt-cell") + below(program.pid, "forkserver"))

    itself = subprocess.Popen.kill
    go_on(file, [itself, itself, cells_and_their_fork_server, itself, itself])
    assert results(tmp_path) == undisturbed(file)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"cells", "sweep.json", ".rtcore-lock"}


MANY_ENDS = """
episodes = 2
[settings]
policy = "random"
[[worlds]]
name = "cartpole"
env-id = "rtcore/PushedCartPole-v0"
delays = [2]
[[agents]]
name = "fine"
workers = "delay"
[[agents]]
name = "raises"
workers = "delay"
env-id = "tests.support.bad_worlds:RaisingWorld"
[[agents]]
name = "dies"
workers = "delay"
env-id = "tests.support.bad_worlds:DyingWorld"
[[agents]]
name = "on the wall clock"
workers = "delay"
clock = "wall"
"""


@pytest.fixture
def sweep_here(capfd: pytest.CaptureFixture[str]) -> Run:
    """A sweep without a Python of its own for the program: what it starts is as real, and it says the same."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        output, errors = capfd.readouterr()
        assert isinstance(ended.value.code, int)
        return subprocess.CompletedProcess(arguments, ended.value.code, output, errors)

    return run


def test_a_cell_that_fails_is_named_ends_no_other_and_is_tried_again(tmp_path: Path, sweep_here: Run):
    file = file_of(tmp_path, MANY_ENDS)
    first = sweep_here(*words(file))
    assert first.returncode == 1, first.stderr
    assert "2 of 4 cells failed" in first.stdout
    assert "one at a time: on the wall clock they disturb each other" in first.stdout
    found = read_sweep(tmp_path / "out")
    raised, died = found.failed
    assert "the pole fell through the floor" in str(raised.error)
    assert "Traceback" in str(raised.error), "whole in the file, a line on the screen"
    assert died.error == "its process died: killed by SIGKILL; the last that it printed: I go"
    assert all(f"{record.name}: FAILED: {str(record.error).splitlines()[0]}" in first.stdout for record in found.failed)
    fine, wall = (record.result for record in found.cells)
    assert fine is not None
    assert wall is not None
    assert (fine.delay_ticks.max, len(fine.returns), len(wall.returns)) == (2, 2, 2)
    assert (wall.workers, wall.rate_hz, wall.ticks > 0) == (2, 50.0, True)
    wait_for(lambda: not segments(os.getpid()), "shared memory to be removed")
    again = sweep_here(*words(file))
    assert again.returncode == 1
    assert "4 cells, 2 of them done before, 2 that failed are played again" in again.stdout


def test_what_is_wrong_with_any_cell_is_found_before_the_first_one_starts(tmp_path: Path, sweep_here: Run):
    bad = FORTY + '[[agents]]\nname = "mistyped"\nworkers = 1\nstagger = "sequential"\npolicy-args = {k = 1}\n'
    refused = sweep_here(*words(file_of(tmp_path, bad)))
    assert refused.returncode == 2
    assert "cell rtcore-PushedCartPole-v0-mistyped-d3-s0: PolicyConfigError" in refused.stderr
    assert done(tmp_path) == 0


def test_one_folder_has_one_sweep_and_ctrl_c_keeps_what_is_done(tmp_path: Path, sweep_here: Run):
    quick = FORTY.replace("seeds = 10", "seeds = 1") + '[[agents]]\nname = "long"\nepisodes = 1_000_000\n'
    file = file_of(tmp_path, quick)
    with started(*COMMAND, *words(file, "--jobs", "2"), cwd=HERE) as program:
        wait_for(lambda: done(tmp_path) >= 4 or program.poll() is not None, "the quick cells")
        other = sweep_here(*words(file))
        assert (other.returncode, f"another run (pid {program.pid})" in other.stderr) == (2, True), other.stderr
        cells = below(program.pid, "rt-cell")
        program.send_signal(signal.SIGINT)
        output, _ = program.communicate(timeout=150)
    assert program.returncode == 130, output
    assert "the cells that are done are kept; the same command goes on with the others" in output
    wait_for(lambda: not any(cell.is_running() for cell in cells), "the cells to be gone")
    assert len(read_sweep(tmp_path / "out").cells) == done(tmp_path) == 4
    assert sweep_here(*words(file, "--only", "*d1-s0", "--only", "*d3-s0", "--dry-run")).returncode == 0


# -- Ray -------------------------------------------------------------------------------------------------------------


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'rtcore\[ray\]'"):
        RayBackend(None, cpus=1, gpus=0)


def test_a_cluster_that_nobody_listens_for_is_named_at_once():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(ConfigError, match=f"no Ray cluster can be reached at 127.0.0.1:{port}: Connection refused"):
        RayBackend(f"127.0.0.1:{port}", cpus=1, gpus=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ray_tasks_come_to_the_same_table_whatever_is_killed(tmp_path: Path):
    """The sweep itself, five times; a Ray worker with its cell in the middle."""
    pytest.importorskip("ray")
    file = file_of(tmp_path, FORTY)

    def worker(program: subprocess.Popen[str]) -> None:
        """Whatever it was playing is played again, and nobody is told."""
        kill(below(program.pid, "ray::play_task")[:1])

    # The last one goes on to the end by itself.
    go_on(file, [*[subprocess.Popen.kill] * 5, worker], "--backend", "ray")
    assert results(tmp_path) == undisturbed(file)
