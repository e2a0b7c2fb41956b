"""Workers ask the kernel for short turns, and so does an env process that gets no realtime priority."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from rtcore import realtime
from rtcore.config.run import make_config
from rtcore.runtime.runtime import Runtime

SHORT_NS = 500_000
pytestmark = pytest.mark.process


def turn_ns(pid: int = 0) -> int:
    return int(realtime._sched_attr(pid).runtime)


needs_turns = pytest.mark.skipif(turn_ns() == 0, reason="this kernel does not say how long turns are: Linux 6.12")


@needs_turns
@pytest.mark.parametrize("asked", ["auto", "off"])
def test_workers_of_a_run_take_short_turns_unless_they_are_told_not_to(asked: str) -> None:
    config = make_config(policy="synthetic", policy_args={"latency_ms": 20}, workers=2, duration=30, realtime=asked)
    with Runtime(config) as runtime:
        found = {turn_ns(pid) for pid in runtime.worker_pids.values()}
    assert (found == {SHORT_NS}) == (asked == "auto")


@needs_turns
def test_an_env_process_without_realtime_priority_takes_short_turns_and_keeps_its_niceness() -> None:
    program = (
        "import json, os; from rtcore.realtime import _sched_attr, prepare_env_process\n"
        "before = os.nice(5); report = prepare_env_process(None, wants_fifo=False)\n"
        "print(json.dumps([report['turns of 0.5 ms'], _sched_attr(0).runtime, os.nice(0) - before]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["granted", SHORT_NS, 0]


def test_a_processor_whose_system_calls_are_not_known_is_a_refusal_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(realtime, "_SYS_SCHED_ATTR", (-1, -1))
    assert realtime.wake_soon() == "refused: Function not implemented"
