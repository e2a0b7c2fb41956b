"""Workers ask the kernel for short turns, and so does an env process that gets no realtime priority."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from rtcore.config.run import make_config
from rtcore.realtime import turn_ns
from rtcore.runtime.runtime import Runtime

SHORT_NS = 500_000
pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(turn_ns(os.getpid()) == 0, reason="this kernel does not say how long turns are: Linux 6.12"),
]


@pytest.mark.parametrize("realtime", ["auto", "off"])
def test_workers_of_a_run_take_short_turns_unless_they_are_told_not_to(realtime: str) -> None:
    config = make_config(policy="synthetic", policy_args={"latency_ms": 20}, workers=2, duration=30, realtime=realtime)
    with Runtime(config) as runtime:
        found = {turn_ns(pid) for pid in runtime.worker_pids.values()}
    assert (found == {SHORT_NS}) == (realtime == "auto")


def test_an_env_process_without_realtime_priority_takes_short_turns_and_keeps_its_niceness() -> None:
    program = (
        "import json, os; from rtcore.realtime import prepare_env_process, turn_ns\n"
        "before = os.nice(5); report = prepare_env_process(None, wants_fifo=False)\n"
        "print(json.dumps([report, turn_ns(0), os.nice(0) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    report, turn, lower = json.loads(done.stdout)
    assert report["turns of 0.5 ms"] == "granted"
    assert (turn, lower) == (SHORT_NS, 0)
