"""The books of a run: counters, rows on disk and recording agree, or it is said by how much not and why."""

from __future__ import annotations

import csv
import re

import gymnasium
import numpy as np
import pytest

from rtcore.config.run import make_config
from rtcore.errors import RtcoreError
from rtcore.results.agreement import RowCounts, check_books
from rtcore.virtual.simulate import Simulation

pytestmark = pytest.mark.unit

COUNTED = {"ticks": 100, "jobs": 98}
WHOLE = RowCounts(ticks=100, jobs=98, booked_jobs=98, ticks_on_disk=100, jobs_on_disk=98)
NONE_LOST = {"lost_ticks": 0, "lost_jobs": 0}
RECORDED = {"frames": 100, "lost_frames": 0, "jobs": 98, "lost_jobs": 0, "end": "complete"}


class BreaksInItsStep(gymnasium.Env):
    metadata = {"render_fps": 100}  # noqa: RUF012
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, at):
        self.left = at

    def reset(self, *, seed=None, options=None):
        return np.zeros(2, np.float32), {}

    def step(self, action):
        self.left -= 1
        if self.left < 0:
            raise ValueError("broken")
        return np.zeros(2, np.float32), 0.0, False, False, {}


def test_books_that_agree_say_so_and_give_no_reason():
    books = check_books(COUNTED, WHOLE, NONE_LOST, RECORDED, broke_off=False)
    assert books["agree"]
    assert books["reasons"] == []
    assert books["ticks"] == {
        "counted": 100, "rows": 100, "lost": 0, "difference": 0, "on_disk": 100, "recorded": 100, "lost_recorded": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "lost", "recorded", "broke_off", "reason"),
    [
        (WHOLE._replace(ticks=97, ticks_on_disk=97), {}, {}, False, "3 ticks were counted and have no row: not known"),
        (
            WHOLE._replace(ticks=101, ticks_on_disk=101),
            {},
            {},
            True,
            "1 ticks have a row and were not counted: the run",
        ),
        (WHOLE._replace(ticks=97, ticks_on_disk=97), {"lost_ticks": 3}, {}, False, "3 rows of ticks were overwritten"),
        (WHOLE._replace(jobs_on_disk=90), {}, {}, False, "8 rows of jobs did not reach the disk"),
        (WHOLE._replace(booked_jobs=103), {}, {}, True, "5 jobs that were booked have no row: the run broke off"),
        (WHOLE, {}, {"frames": 60, "end": "unfinished: full"}, False, r"holds 60 of 100 ticks \(unfinished: full\)"),
        (WHOLE, {}, {"lost_jobs": 8, "jobs": 90, "end": "8 jobs lost"}, False, "holds 90 of 98 jobs"),
    ],
)
def test_whatever_is_missing_is_said_with_its_number_and_why(rows, lost, recorded, broke_off, reason):
    recording = RECORDED | recorded if recorded else {}
    books = check_books(COUNTED, rows, NONE_LOST | lost, recording, broke_off=broke_off)
    assert not books["agree"]
    assert len(books["reasons"]) == 1
    assert re.search(reason, books["reasons"][0]), books["reasons"]
    assert books["explained"] == ("not known" not in reason)


def virtual(tmp_path, **fields):
    settings = {
        "env_id": "tests.support.virtual_worlds:Signs",
        "clock": "virtual",
        "latency": "constant:25",
        "workers": 3,
    }
    settings |= {"fps": 100, "ticks": 300, "policy": "random", "out": tmp_path} | fields
    return Simulation(make_config(**settings))


def rows_of(path):
    with path.open() as file:
        return len(list(csv.DictReader(file)))


def test_a_simulated_run_has_whole_books(tmp_path):
    simulation = virtual(tmp_path).run()
    simulation.close()
    books = simulation.summary()["books"]
    assert books["reasons"] == []
    assert books["ticks"]["counted"] == rows_of(tmp_path / "actions.csv") == 300
    assert books["jobs"]["counted"] == rows_of(tmp_path / "jobs.csv") > 0


def test_a_simulated_run_that_is_stopped_ends_with_a_whole_tick_and_every_job_resolved(tmp_path):
    simulation = virtual(tmp_path)
    simulation.run(lambda tick: simulation.stop() if tick == 122 else None)
    simulation.close()
    books = simulation.summary()["books"]
    assert books["reasons"] == []
    assert books["ticks"]["on_disk"] == 123


def test_a_simulated_run_whose_world_breaks_says_what_broke_off(tmp_path):
    simulation = virtual(tmp_path, env_id="tests.unit.results.test_agreement:BreaksInItsStep", env_args={"at": 150})
    with pytest.raises(RtcoreError):
        simulation.run()
    simulation.close()
    books = simulation.summary()["books"]
    assert books["ticks"]["counted"] == books["ticks"]["on_disk"] == rows_of(tmp_path / "actions.csv")
    assert all("broke off" in reason for reason in books["reasons"])


def test_rows_that_a_file_has_lost_are_counted_there(tmp_path):
    simulation = virtual(tmp_path).run()
    simulation.close()
    path = tmp_path / "jobs.csv"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-4]) + lines[-1][:5])
    assert simulation.summary()["books"]["reasons"] == ["4 rows of jobs did not reach the disk"]
