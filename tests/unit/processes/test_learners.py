"""Which learners the supervisor takes for hung: those that sleep or compute for ever, not those without a CPU."""

from __future__ import annotations

import os
import subprocess
import time
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest
from gymnasium import spaces

from rtcore.clock import ManualClock
from rtcore.config.run import make_config
from rtcore.host.watchdog import CpuUse, Watchdog
from rtcore.memory.master import MasterState
from rtcore.messages import Ready
from rtcore.processes.launcher import Child, RunParts
from rtcore.processes.learners import LearnerProcesses
from rtcore.spaces import ActionSpec, ObservationSpec

pytestmark = pytest.mark.unit

LIMIT_S = 5
LOOK_NS = 50_000_000
WORLD = SimpleNamespace(
    observation=ObservationSpec.from_space(spaces.Box(-1, 1, (2,))), action=ActionSpec.from_space(spaces.Discrete(2))
)


class SilentLearner(Child):
    """That it was killed is kept; what the kernel says of it is made up."""

    is_runnable = True
    share = 0.0
    cpu_ns = 0.0
    was_killed = False

    def cpu_use(self) -> CpuUse:
        return CpuUse(self.is_runnable, int(self.cpu_ns))

    def kill(self, signum: int = 9) -> None:
        self.was_killed = True


class Bench:
    """A supervisor's learners, of which one shows no sign of life from now on."""

    def __init__(self) -> None:
        self.clock = ManualClock(1)
        config = make_config(policy="mlp", learn="dqn", hang_timeout_s=LIMIT_S)
        shared = SimpleNamespace(layout=SimpleNamespace(ring_slots=4096))
        parts = RunParts(
            cast(Any, SimpleNamespace(config=config)),
            "",
            cast(Any, shared),
            cast(Any, WORLD),
            self.clock,
            Watchdog(self.clock),
        )
        self.child = SilentLearner("learner", 0, 1, pid=2**22 + 1, ready=Ready())
        self.learners = LearnerProcesses(parts, cast(Any, None), None)
        self.learners._master = MasterState.private(4)
        self.learners._master.pace["update_ns"] = 20_000_000
        self.learners.places.put(self.child)

    def looks_for(self, seconds: float) -> None:
        for _ in range(int(seconds * 1_000_000_000 / LOOK_NS)):
            self.clock.advance_ns(LOOK_NS)
            self.child.cpu_ns += LOOK_NS * self.child.share
            self.learners.kill_hung()


def test_a_learner_without_a_cpu_is_left_alone_and_may_go_on() -> None:
    bench = Bench()
    bench.looks_for(600)
    assert not bench.child.was_killed
    # It gets enough for a part of its update at last.
    bench.child.share = 1.0
    bench.looks_for(LIMIT_S - 1)
    assert not bench.child.was_killed


@pytest.mark.parametrize(
    ("is_runnable", "share"), [(False, 0.0), (True, 1.0)], ids=["sleeps for ever", "spins for ever in one update"]
)
def test_a_learner_that_hangs_is_found_within_its_limit(is_runnable: bool, share: float) -> None:
    bench = Bench()
    bench.child.is_runnable, bench.child.share = is_runnable, share
    bench.looks_for(LIMIT_S - 1)
    assert not bench.child.was_killed
    bench.looks_for(2)
    assert bench.child.was_killed


def test_what_the_kernel_says_of_a_process_that_computes_that_sleeps_and_that_is_gone() -> None:
    me = Child("learner", 0, 1, pid=os.getpid())
    before = me.cpu_use()
    assert before is not None
    assert before.is_runnable
    assert 0 < before.cpu_ns <= cast(CpuUse, me.cpu_use()).cpu_ns
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as cat:
        while psutil.Process(cat.pid).status() != psutil.STATUS_SLEEPING:
            time.sleep(0.001)
        asleep = Child("learner", 1, 1, pid=cat.pid).cpu_use()
        assert asleep is not None
        assert not asleep.is_runnable
    assert Child("learner", 2, 1, pid=cat.pid).cpu_use() is None
