"""Learners that are killed at any moment: what is in the master is always that of whole updates, in a row."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rtcore.memory.layout import Layout, MasterLayout
from rtcore.memory.master import MasterState, attach_master
from rtcore.memory.segments import create_segment, new_run_id, unlink_all
from tests.support.drills import stop

pytestmark = [pytest.mark.process, pytest.mark.slow]

COUNT = 50_000
TARGET_EVERY = 3
KILLS = 20

#: Applies updates as fast as it can: the numbers of an update are a function of its number and of the ones before.
LEARNER = """
import sys
import numpy as np
from rtcore.memory.master import attach_master

def step(present, coming, number):
    for place, (source, target) in enumerate(zip(present, coming)):
        target[:] = source * np.float32(0.5) + np.float32(number % 97 + place)

master, _ = attach_master(sys.argv[1])
print("up", flush=True)
while True:
    with master.locked():
        master.apply(step, int(sys.argv[2]))
"""


@pytest.fixture
def run_id() -> Iterator[str]:
    name = new_run_id()
    layout = MasterLayout(2, COUNT * 4)
    from rtcore.memory.counters import Words
    from rtcore.memory.layout import LEARNER_SIZES

    def prepare(memory: memoryview) -> None:
        sizes = Words(LEARNER_SIZES, memory, layout.sizes_at)
        sizes["num_learners"], sizes["trainable_bytes"] = layout.num_learners, layout.trainable_bytes

    create_segment(name, "learner", Layout(1, 64, 64, 64, 8, 1), prepare, num_bytes=layout.num_bytes).close()
    yield name
    unlink_all(name)


def replay(updates: int) -> tuple[list[float], float]:
    """All elements of an array are alike: the three of the slot and the target after so many updates, in a row."""
    values = [np.float32(0)] * 3
    target = np.float32(0)
    for number in range(1, updates + 1):
        values = [value * np.float32(0.5) + np.float32(number % 97 + place) for place, value in enumerate(values)]
        if number % TARGET_EVERY == 0:
            target = values[0]
    return [float(value) for value in values], float(target)


def check(master: MasterState) -> int:
    copy = master.copy()
    expected, target = replay(copy.updates)
    for array, value in zip((*copy[1:4], copy.target), (*expected, target), strict=True):
        assert (array == np.float32(value)).all(), f"after {copy.updates} updates"
    return copy.updates


def start(run_id: str) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", LEARNER, run_id, str(TARGET_EVERY)]
    learner = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    assert learner.stdout is not None
    assert learner.stdout.readline() == "up\n"
    return learner


def test_a_learner_killed_at_any_moment_leaves_whole_updates_and_no_lock(run_id: str) -> None:
    master, _ = attach_master(run_id)
    chance = random.Random(0)
    other = start(run_id)
    seen = [check(master)]
    try:
        for _ in range(KILLS):
            victim = start(run_id)
            time.sleep(chance.uniform(0.0, 0.02))
            os.kill(victim.pid, signal.SIGKILL)
            victim.wait()
            victim.stdout.close()  # type: ignore[union-attr]
            seen.append(check(master))
    finally:
        other.kill()
        other.wait()
        other.stdout.close()  # type: ignore[union-attr]
    check(master)
    assert seen[-1] > KILLS, "the other one went on all the time"
    assert sorted(seen) == seen
    master.close()


def test_one_that_is_stopped_while_it_holds_the_master_holds_up_the_others_until_it_is_killed(run_id: str) -> None:
    master, _ = attach_master(run_id)
    holder = start(run_id)
    try:
        while True:  # until it is stopped within an update
            stop(holder.pid)
            before = master.commit.updates
            waited = 0

            def count() -> None:
                nonlocal waited
                waited += 1
                if waited > 20:
                    raise TimeoutError

            try:
                with master.locked(count):
                    pass
            except TimeoutError:
                break
            os.kill(holder.pid, signal.SIGCONT)
            time.sleep(0.001)
        assert master.commit.updates == before
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()  # type: ignore[union-attr]
    assert check(master) == before
    master.close()
