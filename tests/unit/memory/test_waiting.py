"""How a worker waits: what it sleeps for, when it spins, and that it can always be told to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rtcore.memory import waiting as module
from rtcore.memory.waiting import WAITING, Waiting

pytestmark = pytest.mark.unit


class FakeSleep:
    """Wakes at once, or never; counts how often somebody slept."""

    def __init__(self, *, comes: bool = True) -> None:
        self.sleeps = 0
        self._comes = comes

    def unless(self, newest: Callable[[], int], wanted: int) -> bool:
        if newest() >= wanted:
            return False
        self.sleeps += 1
        return self._comes


def waiting(wait: str, sleep: FakeSleep) -> Waiting:
    asleep: Any = sleep
    return WAITING[wait](asleep, asleep, 50_000)


def looks(*numbers: int) -> Callable[[], int]:
    """What is seen at each look; the last one from then on."""
    seen: Iterator[int] = iter(numbers)
    last = numbers[-1]
    return lambda: next(seen, last)


@pytest.mark.parametrize("wait", WAITING)
def test_a_frame_that_comes_is_waited_for_whatever_the_strategy(wait: str) -> None:
    assert waiting(wait, FakeSleep()).for_frame(looks(4, 4, 4, 5), 5, lambda: True)


@pytest.mark.parametrize("wait", WAITING)
def test_a_worker_that_is_told_to_end_gives_up_a_frame_that_never_comes(wait: str) -> None:
    answers = iter((True, True, False))
    assert not waiting(wait, FakeSleep()).for_frame(looks(4), 5, lambda: next(answers))


@pytest.mark.parametrize("wait", WAITING)
def test_no_wait_for_a_job_lasts_for_ever(wait: str) -> None:
    waiting(wait, FakeSleep(comes=False)).for_job(looks(7), 8)


def test_hybrid_spins_only_after_it_was_woken(monkeypatch: pytest.MonkeyPatch) -> None:
    spins: list[int] = []
    monkeypatch.setattr(module, "_spin", lambda newest, wanted, for_ns: spins.append(for_ns))
    for comes, number in ((True, 7), (False, 7), (True, 8)):
        waiting("hybrid", FakeSleep(comes=comes)).for_job(looks(number), 8)
    assert spins == [50_000], "not after a sleep that nobody ended, and not for a job that is there"


def test_hybrid_spins_for_a_frame_before_it_sleeps_and_not_for_what_usually_takes_longer() -> None:
    sleep = FakeSleep()
    hybrid = waiting("hybrid", sleep)
    assert (hybrid.spin_ns(usual_ns=0), hybrid.spin_ns(usual_ns=10_000_000)) == (50_000, 0)
    assert hybrid.for_frame(looks(4, 4, 5), 5, lambda: True)
    assert sleep.sleeps == 1


def test_only_who_spins_needs_nobody_to_wake_it_and_never_sleeps() -> None:
    assert {wait: kind.is_woken for wait, kind in WAITING.items()} == {"hybrid": True, "block": True, "spin": False}
    nobody: Any = None
    assert WAITING["spin"](nobody, nobody, 50_000).for_frame(looks(4, 4, 5), 5, lambda: True)
