"""Sleeping and waking under every schedule of the env process, its store buffer, and workers: no wake-up is lost.

x86-64 keeps a store back while later loads go on: here each process's stores lie in a buffer that a further actor
empties, at any moment. The kernel looks at the word without a fence of its own. Nobody's sleep ends by itself: a lost
wake-up is a deadlock.
"""

from functools import partial
from types import SimpleNamespace

import pytest
from greenlet import getcurrent

from rtcore.memory import waiting
from rtcore.memory.waiting import Sleep, Waker
from rtcore.torture.explorer import Deadlock, Scenario, explore
from rtcore.torture.stepped import SteppedWords, access, wait_until

pytestmark = pytest.mark.interleaving

POSTED, DONE, NUM_WORDS = 0, 1, 6
JOBS, ASLEEP = (2, 3), (4, 5)


class Killed(Exception):
    """SIGKILL."""


class Process:
    """What one process reads and writes. Its stores wait in its buffer."""

    def __init__(self, memory, *, killed_at=-1, has_buffer=True):
        self.words = SteppedWords(memoryview(memory))
        self.buffer = []
        self.has_ended = False
        self._has_buffer = has_buffer
        self._steps_left = killed_at

    def load(self, index):
        self._live()
        for where, value in reversed(self.buffer):
            if where == index:
                return value
        return self.words[index]

    def store(self, index, value):
        self._live()
        if self._has_buffer:
            self.buffer.append((index, value))
        else:
            self.words[index] = value

    def run(self, body):
        """As an actor: `body`, with this process's fences."""
        getcurrent().process = self
        try:
            return body()
        finally:
            self.has_ended = True

    def drain(self):
        """The store buffer's own actor: oldest first."""
        while True:
            wait_until(lambda: self.buffer or self.has_ended)
            if not self.buffer:
                return
            self.words[self.buffer[0][0]] = self.buffer[0][1]
            del self.buffer[0]

    def _live(self):
        self._steps_left -= 1
        if self._steps_left == 0:
            raise Killed


class Word:
    """One word of a process, whatever the index: a worker's status has only `asleep` here."""

    def __init__(self, process, at):
        self._process, self._at = process, at

    def __getitem__(self, index):
        return self._process.load(self._at)

    def __setitem__(self, index, value):
        self._process.store(self._at, value)


class Kernel:
    """Who sleeps on which word, for which bits."""

    def __init__(self):
        self.sleepers = {}

    def futex(self, process, at):
        return SimpleNamespace(
            wait=lambda seen, bits, deadline_ns: self._wait(process, at, seen, bits),
            wake=lambda bits=waiting.ALL_BITS: access(lambda: self._wake(at, bits)),
        )

    def _wait(self, process, at, seen, bits):
        def sleep_if_unchanged():
            if process.words._words[at] == seen:
                self.sleepers[process] = (at, bits)
            return process in self.sleepers

        process._live()
        if not access(sleep_if_unchanged):
            return False
        if process._steps_left == 1:  # killed in its sleep, at any moment of it: the kernel forgets it
            access(lambda: self.sleepers.pop(process, None))
            raise Killed
        wait_until(lambda: process not in self.sleepers)
        return True

    def _wake(self, at, bits):
        woken = [who for who, (where, own) in self.sleepers.items() if where == at and own & bits]
        for who in woken:
            del self.sleepers[who]
        return len(woken)


def words_of(kernel, process):
    """`WakeWords` over this memory."""
    return SimpleNamespace(
        posted=[Word(process, POSTED)],
        posted_futexes=[kernel.futex(process, POSTED)],
        ring_control=Word(process, DONE),
        frame_futex=kernel.futex(process, DONE),
        status=[Word(process, at) for at in ASLEEP],
        compiled=None,
    )


def new_memory():
    return bytearray(8 * NUM_WORDS)


def full_fence():
    """Of the process that calls it: nothing is left in its buffer."""
    process = getcurrent().process
    wait_until(lambda: not process.buffer)


@pytest.fixture(autouse=True)
def fences(monkeypatch):
    monkeypatch.setattr(waiting, "full_fence", full_fence)


def actors_of(name, process, body):
    """A process and its store buffer."""
    return {name: lambda: process.run(body), f"{name}'s buffer": process.drain}


def wait_for(sleep, process, at, wanted):
    """As `Worker.serve` and `Blocking.for_frame` do."""
    looks = 0
    while process.load(at) < wanted:
        sleep.unless(lambda: process.load(at), wanted)
        looks += 1
    return looks


def a_tick(workers=(0,), waker_class=Waker, sleep_class=Sleep, *, has_frame=True):
    """These workers are booked, and wait for their frame."""

    def make():
        memory, kernel = new_memory(), Kernel()
        env = Process(memory)
        waker = waker_class(words_of(kernel, env))

        def tick():
            for worker in workers:
                env.store(JOBS[worker], 1)
            waker.for_jobs(workers)
            if has_frame:
                env.store(DONE, 1)
                waker.for_frame(workers)

        def work(worker, process):
            words = words_of(kernel, process)
            looks = [wait_for(sleep_class.until_posted(words, worker), process, JOBS[worker], 1)]
            if has_frame:
                looks.append(wait_for(sleep_class.until_frame(words, worker), process, DONE, 1))
            return tuple(looks)

        actors = actors_of("env", env, tick)
        for worker in workers:
            # Two, and their buffers, would take half a minute: the buffers are explored with one.
            own = Process(memory, has_buffer=len(workers) == 1)
            actors |= actors_of(f"worker {worker}", own, partial(work, worker, own))
        return Scenario([memory], actors)

    return make


def test_a_job_and_its_frame_are_never_slept_over():
    exploration = explore(a_tick())
    looks = {results["worker 0"] for _, results in exploration.outcomes}
    assert looks == {(0, 0), (0, 1), (1, 0), (1, 1)}, "asleep for the job, for the frame, for both, for none"
    assert exploration.num_schedules > 1_000


def test_one_call_wakes_both_workers_of_a_tick():
    exploration = explore(a_tick(workers=(0, 1), has_frame=False))
    slept = {tuple(results[f"worker {w}"][0] > 0 for w in (0, 1)) for _, results in exploration.outcomes}
    assert slept == {(False, False), (False, True), (True, False), (True, True)}


class LooksBeforeTheWord(Waker):
    """(R12) before (W11)."""

    def for_jobs(self, workers):
        self.ahead(workers)
        self._posted[0][0] += 1


class WakesOneOfThem(Waker):
    """The bit of the first worker only."""

    def ahead(self, workers):
        super().ahead(workers[:1])


class CountsNothing(Waker):
    """No (W11): a worker that is about to sleep compares with what it has seen already."""

    def for_jobs(self, workers):
        waiting.full_fence()
        self.ahead(workers)


class SeesTheWordTooLate(Sleep):
    """(R11) after the look at the number that it waits for."""

    def unless(self, newest, wanted):
        if newest() >= wanted:
            return False
        seen = self._word[0]
        self._status[0] = 1
        woken = self._futex.wait(seen, self._bits, 0)
        self._status[0] = 0
        return woken


class SaysSoTooLate(Sleep):
    """(W12) after (R13)."""

    def unless(self, newest, wanted):
        seen = self._word[0]
        if newest() >= wanted:
            return False
        return self._futex.wait(seen, self._bits, 0)


@pytest.mark.parametrize(
    "broken",
    (
        {"waker_class": LooksBeforeTheWord},
        {"waker_class": CountsNothing},
        {"waker_class": WakesOneOfThem, "workers": (0, 1), "has_frame": False},
        {"sleep_class": SeesTheWordTooLate},
        {"sleep_class": SaysSoTooLate},
    ),
    ids=lambda broken: next(iter(broken.values())).__name__,
)
def test_broken_ways_to_wake_are_caught(broken):
    with pytest.raises(Deadlock, match="worker"):
        explore(a_tick(**broken))


@pytest.mark.parametrize("whose", ["env", "worker 0"])
def test_without_either_fence_a_wake_up_is_lost(monkeypatch, whose):
    """The store waits in its buffer while the other side's word is read: neither sees the other."""
    without = []

    def fence_of_the_other():
        if getcurrent().process is not without[-1]:
            full_fence()

    def make():
        scenario = a_tick()()
        without.append(scenario.actors[f"{whose}'s buffer"].__self__)
        return scenario

    monkeypatch.setattr(waiting, "full_fence", fence_of_the_other)
    with pytest.raises(Deadlock, match="worker"):
        explore(make)


def test_waking_ahead_of_a_job_is_no_job_and_costs_none():
    """A worker that is woken for nothing looks again, and sleeps again; the job that follows finds it all the same."""

    def make():
        memory, kernel = new_memory(), Kernel()
        env, worker = Process(memory), Process(memory)
        waker = Waker(words_of(kernel, env))

        def wake_and_post():
            waker.ahead((0,))
            env.store(JOBS[0], 1)
            waker.for_jobs((0,))

        sleep = Sleep.until_posted(words_of(kernel, worker), 0)
        wait = partial(wait_for, sleep, worker, JOBS[0], 1)
        return Scenario([memory], actors_of("env", env, wake_and_post) | actors_of("worker", worker, wait))

    assert {results["worker"] for _, results in explore(make).outcomes} == {0, 1, 2}


@pytest.mark.parametrize("killed_at", [5, 6, 7], ids=["about to sleep", "asleep", "just woken"])
def test_a_worker_killed_in_its_sleep_takes_no_wake_up_with_it(killed_at):
    """Another stands in its place, says that it is awake, and gets the next job; `asleep` may have stood at 1."""

    def make():
        memory, kernel, is_ready = new_memory(), Kernel(), []
        env = Process(memory)
        waker = Waker(words_of(kernel, env))

        def post():
            env.store(JOBS[0], 1)
            waker.for_jobs((0,))
            wait_until(lambda: bool(is_ready))
            env.store(JOBS[0], 2)
            waker.for_jobs((0,))

        def work():
            first, second = processes
            was_killed = False
            try:
                wait_for(Sleep.until_posted(words_of(kernel, first), 0), first, JOBS[0], 1)
            except Killed:
                was_killed = True
            getcurrent().process = second
            second.store(ASLEEP[0], 0)
            is_ready.append(True)
            wait_for(Sleep.until_posted(words_of(kernel, second), 0), second, JOBS[0], 2)
            return was_killed

        # Without their buffers, which would take minutes.
        processes = [Process(memory, killed_at=at, has_buffer=False) for at in (killed_at, -1)]
        actors = actors_of("env", env, post) | actors_of("worker", processes[0], work)
        return Scenario([memory], actors)

    assert True in {results["worker"] for _, results in explore(make).outcomes}
