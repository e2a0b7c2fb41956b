"""How a worker waits: what it sleeps for, when it spins, and that it can always be told to end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from rtcore.memory.waiting import WAITING, Waiting, WakeUps, make_waiting

pytestmark = pytest.mark.unit

PERIOD_NS = 16_000_000


class Semaphore:
    """Wake-ups that come at once, or never; keeps what was asked of it."""

    def __init__(self, *, comes: bool = True, left_over: int = 0) -> None:
        self.sleeps = 0
        self.left_over = left_over
        self._comes = comes

    def wait(self, timeout_ns: int) -> bool:
        self.sleeps += 1
        return self._comes

    def try_wait(self) -> bool:
        self.left_over -= 1
        return self.left_over >= 0


def waiting(wait: str, semaphore: Semaphore) -> Waiting:
    return make_waiting(wait, cast(WakeUps, semaphore), 50_000, PERIOD_NS)


def looks(*numbers: int) -> Callable[[], int]:
    """What is seen at each look; the last one from then on."""
    seen: Iterator[int] = iter(numbers)
    last = numbers[-1]
    return lambda: next(seen, last)


@pytest.mark.parametrize("wait", WAITING)
def test_a_frame_that_comes_is_waited_for_whatever_the_strategy(wait: str) -> None:
    assert waiting(wait, Semaphore()).for_frame(looks(4, 4, 4, 5), 5, 0, lambda: True)


@pytest.mark.parametrize("wait", WAITING)
def test_a_worker_that_is_told_to_end_gives_up_a_frame_that_never_comes(wait: str) -> None:
    answers = iter((True, True, False))
    assert not waiting(wait, Semaphore()).for_frame(looks(4), 5, 0, lambda: next(answers))


@pytest.mark.parametrize("wait", WAITING)
def test_no_wait_for_a_job_lasts_for_ever(wait: str) -> None:
    waiting(wait, Semaphore(comes=False)).for_job(looks(7), 8)


def test_wake_ups_left_over_from_spinning_wake_nobody_later() -> None:
    for wait in ("hybrid", "block"):
        semaphore = Semaphore(left_over=3)
        waiting(wait, semaphore).for_job(looks(7), 8)
        assert (semaphore.left_over, semaphore.sleeps) == (-1, 1)


def test_a_job_that_is_there_already_is_not_slept_over() -> None:
    for wait in ("hybrid", "block"):
        semaphore = Semaphore(left_over=1)
        waiting(wait, semaphore).for_job(looks(8), 8)
        assert semaphore.sleeps == 0


def test_hybrid_spins_before_it_sleeps_and_not_for_what_usually_takes_longer() -> None:
    for usual_ns, sleeps in ((0, 0), (10_000_000, 1)):
        semaphore = Semaphore()
        assert waiting("hybrid", semaphore).for_frame(looks(4, 5), 5, usual_ns, lambda: True)
        assert semaphore.sleeps == sleeps


def test_only_who_spins_needs_nobody_to_wake_it_and_never_sleeps() -> None:
    assert {wait: kind.is_woken for wait, kind in WAITING.items()} == {"hybrid": True, "block": True, "spin": False}
    nobody: Any = None
    assert make_waiting("spin", nobody, 50_000, PERIOD_NS).for_frame(looks(4, 4, 5), 5, 0, lambda: True)
