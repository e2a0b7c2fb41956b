"""What a start says while it lasts, and that its phases sum to the whole."""

from __future__ import annotations

import threading

import pytest

import rtcore
from rtcore.clock import NS_PER_MS, NS_PER_S, ManualClock
from rtcore.errors import StartupError
from rtcore.results.startup import StartUp

pytestmark = pytest.mark.unit


def test_the_phases_of_a_start_sum_to_the_whole_and_one_may_come_twice() -> None:
    clock = ManualClock()
    startup = StartUp(clock)
    for phase, seconds in (("world", 1), ("workers", 2), ("rehearsal", 3), ("workers", 4), ("rehearsal", 5)):
        startup.enter(phase)
        clock.advance_ns(seconds * NS_PER_S)
    startup.enter("")
    clock.advance_ns(NS_PER_S)
    assert startup.times_s == {"world": 1.0, "workers": 6.0, "rehearsal": 8.0}


def test_a_wait_says_once_a_second_what_is_being_done_and_how_far_it_is(said: list[str]) -> None:
    clock = ManualClock()
    startup = StartUp(clock)
    startup.enter("workers", "starting 7 workers")
    for _ in range(30):
        clock.advance_ns(100 * NS_PER_MS)
        startup.waiting(lambda: f"{clock.now_ns() // (500 * NS_PER_MS)} of 7 workers up")
    startup.enter("")
    clock.advance_ns(5 * NS_PER_S)
    startup.waiting(lambda: "not in the run")
    assert said == ["starting 7 workers", *(f"{2 * s} of 7 workers up, {s} s" for s in (1, 2, 3))]


def test_a_thread_that_cannot_be_started_is_a_startup_error_and_the_run_leaves_nothing(monkeypatch, tmp_path):
    """A limit of processes counts threads: the last one may be the program's own."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    runtime = rtcore.Runtime(env_id="CartPole-v1", policy="random", out=tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(StartupError, match=r"can't start new thread\. Raise the limit of processes"):
            runtime.start(wait=False)
    assert runtime.is_over
    assert list(tmp_path.iterdir()) == []
    runtime.close()
