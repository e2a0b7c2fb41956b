"""Sleeping on shared memory: by the real system call, in threads and between processes."""

from __future__ import annotations

import ctypes
import errno
import mmap
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.memory import futex, waiting
from rtcore.memory.futex import ALL_BITS, Futex
from rtcore.memory.layout import Layout
from rtcore.memory.segments import new_run_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.memory.waiting import Sleep, Waker
from rtcore.spaces import ObservationSpec

pytestmark = pytest.mark.process

#: A test that sleeps so long has failed.
LONG_NS = 300 * NS_PER_S
LAYOUT = Layout(max_workers=40, ring_slots=2, log_slots=2, frame_bytes=64, action_bytes=8, chunk=1)
OBSERVATION = ObservationSpec((64,), "uint8", (0,), (255,))


def word() -> tuple[Any, Futex]:
    memory = memoryview(mmap.mmap(-1, mmap.PAGESIZE))
    return memory[8:16].cast("q"), Futex(memory, 8)


def in_s(seconds: float) -> int:
    return MonotonicClock.now_ns() + int(seconds * NS_PER_S)


def until(condition: Callable[[], object]) -> None:
    give_up_ns = MonotonicClock.now_ns() + LONG_NS
    while not condition():
        assert MonotonicClock.now_ns() < give_up_ns
        time.sleep(0.001)


@pytest.mark.parametrize("seen", [-1, 0, 5, (1 << 32) - 1, 1 << 32, (7 << 32) + 9])
def test_a_word_that_has_changed_is_not_slept_on_and_one_that_has_not_is(seen: int) -> None:
    number, sleeper = word()
    number[0] = seen
    assert not sleeper.wait(seen + 1, ALL_BITS, in_s(300))
    assert not sleeper.wait(seen, ALL_BITS, in_s(0.001)), "its time is up"


def test_one_call_wakes_those_whose_bit_is_named_and_says_how_many() -> None:
    number, sleeper = word()
    woken: list[int] = []

    def sleep(bit: int) -> None:
        while not Futex(memoryview(number.obj), 8).wait(0, 1 << bit, in_s(300)):
            pass
        woken.append(bit)

    threads = [threading.Thread(target=sleep, args=(bit,)) for bit in (0, 5, 31)]
    for thread in threads:
        thread.start()
    counted = 0

    def wakes() -> bool:
        nonlocal counted
        counted += sleeper.wake(1 << 31 | 1)
        return counted == 2

    until(wakes)
    threads[0].join()
    threads[2].join()
    assert sorted(woken) == [0, 31]
    assert sleeper.wake(1 << 31 | 1) == 0
    until(sleeper.wake)
    threads[1].join()


def test_a_signal_ends_a_sleep_and_is_no_wake_up() -> None:
    sleeper, came = word()[1], []
    before = signal.signal(signal.SIGALRM, lambda *_: came.append(True))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
        while not came:
            assert not sleeper.wait(0, ALL_BITS, in_s(300))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_a_kernel_that_refuses_says_so_instead_of_being_asked_for_ever() -> None:
    with pytest.raises(OSError, match="cannot sleep on shared memory"):
        word()[1].wait(0, 0, in_s(0))  # no bit: nobody could wake it


def test_no_sleep_is_bounded_by_a_date(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set back meanwhile, a date would keep whoever sleeps asleep: the limit is told on another clock."""
    told: list[tuple[int, int]] = []

    def refuse(number: object, address: object, operation: int, expected: object, deadline: Any, *rest: object) -> int:
        at = deadline._obj
        told.append((operation, at.seconds * NS_PER_S + at.nanoseconds))
        ctypes.set_errno(errno.ETIMEDOUT)
        return -1

    monkeypatch.setattr(futex, "compiled", None)
    monkeypatch.setattr(futex, "_sleep", refuse)
    deadline_ns = in_s(1.5)
    assert not word()[1].wait(0, ALL_BITS, deadline_ns)
    by_the_date, private = 256, 128
    assert told == [(told[0][0], deadline_ns)]
    assert not told[0][0] & (by_the_date | private)


# -- a run's words -----------------------------------------------------------------------------------------------


@pytest.fixture
def run_id() -> Iterator[str]:
    run_id = new_run_id()
    yield run_id
    unlink_all(run_id)


def test_a_booking_wakes_its_workers_by_a_call_for_each_group_and_only_if_they_sleep(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    calls: list[tuple[int, int]] = []
    words = shared.wake_words()
    for group, sleeper in enumerate(words.posted_futexes):
        monkeypatch.setattr(sleeper, "wake", lambda bits, group=group: calls.append((group, bits)))
    monkeypatch.setattr(words.frame_futex, "wake", lambda: calls.append((-1, 0)))
    words.compiled = None  # its calls cannot be counted
    waker = Waker(words)
    waker.for_jobs((0, 3, 33))
    waker.for_frame((0, 3, 33))
    assert calls == []
    assert [posted[0] for posted in words.posted] == [1, 1]
    for worker in (3, 5, 31, 33):
        shared.worker_status[worker]["asleep"] = 1
    waker.for_jobs((0, 3, 31))
    assert calls == [(0, 1 << 31 | 1 << 3)]
    waker.for_jobs((33, 3))
    waker.ahead((5,))
    assert calls[1:] == [(1, 1 << 1), (0, 1 << 3), (0, 1 << 5)]
    assert [posted[0] for posted in words.posted] == [3, 2], "waking ahead is no booking"
    calls.clear()
    waker.for_frame((0, 1))
    waker.for_frame((0, 3, 33))
    assert calls == [(-1, 0)]
    shared.close()


def test_a_booking_is_counted_once_in_each_group_and_workers_that_there_are_not_are_refused(run_id: str) -> None:
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    words = shared.wake_words()
    waker = Waker(words)
    for workers in ((0, 40), (0, 1 << 40)):
        with pytest.raises(IndexError):
            waker.for_jobs(workers)
    before = [posted[0] for posted in words.posted]
    waker.for_jobs(range(40))
    waker.for_jobs([5, 5])
    assert [posted[0] - count for posted, count in zip(words.posted, before, strict=True)] == [2, 1]
    shared.close()


def test_what_is_there_already_is_not_slept_over_and_who_slept_is_awake_afterwards(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    words, asleep = shared.wake_words(), []
    sleep = Sleep.until_frame(words, 7)
    monkeypatch.setattr(
        words.frame_futex,
        "wait",
        lambda *told: (asleep.append((*told[:2], shared.worker_status[7]["asleep"])), True)[1],
    )
    assert not sleep.unless(shared.ring.sequence.newest, -1)
    assert asleep == []
    assert sleep.unless(shared.ring.sequence.newest, 0)
    assert asleep == [(-1, ALL_BITS, 1)]
    assert shared.worker_status[7]["asleep"] == 0
    shared.close()


ANSWERS = """
import sys
from rtcore.memory import waiting
from rtcore.memory.shared import SharedRun
from tests.unit.memory.test_futex import LAYOUT, LONG_NS, OBSERVATION, ROUNDS
waiting._IDLE_BEAT_NS = LONG_NS
worker = int(sys.argv[2])
shared = SharedRun.attach(sys.argv[1], LAYOUT, OBSERVATION)
words = shared.wake_words()
job, frame = waiting.Sleep.until_posted(words, worker), waiting.Sleep.until_frame(words, worker)
for number in range(1, ROUNDS + 1):
    while shared.jobs.newest(worker) < number:
        job.unless(lambda: shared.jobs.newest(worker), number)
    while shared.ring.sequence.newest() < number:
        frame.unless(shared.ring.sequence.newest, number)
    shared.worker_status[worker]["inferences"] = number
"""
ROUNDS = 400


def test_no_wake_up_is_lost_between_processes(run_id: str) -> None:
    """A lost one would be slept over for five minutes. Two workers of one group, one of another."""
    shared, workers = SharedRun.create(run_id, LAYOUT, OBSERVATION), (0, 31, 32)
    waker, ring = Waker(shared.wake_words()), shared.ring.sequence
    job_words = [shared.jobs._words[worker] for worker in workers]
    running = [subprocess.Popen([sys.executable, "-c", ANSWERS, run_id, str(worker)]) for worker in workers]
    try:
        for number in range(1, ROUNDS + 1):
            for words in job_words:
                words[7] = number
            waker.for_jobs(workers)
            if number % 2:
                time.sleep(20e-6)
            ring.commit(number)
            waker.for_frame(workers)
            until_all(lambda number=number: all(shared.worker_status[w]["inferences"] == number for w in workers))
        assert [process.wait(150) for process in running] == [0, 0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
        shared.close()


def until_all(condition: Callable[[], object]) -> None:
    give_up_ns = MonotonicClock.now_ns() + LONG_NS // 2
    while not condition():
        time.sleep(20e-6)
        assert MonotonicClock.now_ns() < give_up_ns, "a wake-up was lost"


def test_a_worker_that_is_wanted_no_more_wakes_from_either_sleep(run_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_IDLE_BEAT_NS", LONG_NS)
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    words = shared.wake_words()
    woken: list[bool] = []
    for sleep in (Sleep.until_posted(words, 39), Sleep.until_frame(words, 2)):
        threading.Thread(target=lambda sleep=sleep: woken.append(sleep.unless(lambda: 0, 1))).start()

    def all_woke() -> bool:
        Waker(words).everybody()
        return len(woken) == 2

    until(all_woke)
    assert woken == [True, True]
    shared.close()
