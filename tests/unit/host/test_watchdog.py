"""Silence is not death: watchers that stood still themselves, and what a process is known to take."""

from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.clock import ManualClock
from rtcore.errors import PolicyError
from rtcore.host.watchdog import CpuUse, Watchdog
from rtcore.processes.restarts import Restarts
from rtcore.processes.workers import refuse_without_answers
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

SECOND = 1_000_000_000
LOOK = SECOND // 10


def watcher():
    clock = ManualClock()
    return clock, Watchdog(clock)


def watch(clock, patience, seconds, sign, who="env"):
    """Looks every tenth of a second; the longest silence that was seen."""
    longest = 0
    for _ in range(int(seconds * 10)):
        clock.advance_ns(LOOK)
        longest = max(longest, patience.silent_ns(who, sign(clock.now_ns())))
    return longest


def test_one_that_shows_life_is_never_silent_for_long():
    clock, patience = watcher()
    assert watch(clock, patience, 60, sign=lambda now_ns: now_ns // SECOND) <= SECOND


def test_one_that_shows_none_is_silent_for_as_long_as_it_was_watched():
    clock, patience = watcher()
    assert watch(clock, patience, 20, sign=lambda _: 0) >= 19 * SECOND


@pytest.mark.parametrize("stand_still_s", [1, 11, 3600, 86_400])
def test_a_watcher_that_stood_still_waits_another_round(stand_still_s):
    clock, patience = watcher()
    watch(clock, patience, 5, sign=lambda _: 0)
    clock.advance_ns(stand_still_s * SECOND)  # frozen with everybody else: nobody could show life
    assert watch(clock, patience, 1, sign=lambda _: 0) <= 7 * SECOND
    assert watch(clock, patience, 10, sign=lambda _: 0) >= 10 * SECOND, "a real hang is found all the same"


@examples(100)
@given(gaps=st.lists(st.integers(1, 100 * SECOND), min_size=1, max_size=60))
def test_no_gap_between_two_looks_counts_for_more_than_half_a_second(gaps):
    clock, patience = watcher()
    begun_ns = patience.now_ns()
    for gap in gaps:
        clock.advance_ns(gap)
        patience.now_ns()
    assert patience.now_ns() - begun_ns == sum(min(gap, SECOND // 2) for gap in gaps)


def test_what_a_process_is_at_is_known_by_how_long_it_took_before():
    clock, patience = watcher()
    for kind, seconds in (("inference", 2), ("update", 9), ("inference", 3), ("idle", 1)):
        patience.silent_ns("worker", clock.now_ns(), kind)
        for _ in range(seconds * 10):
            clock.advance_ns(LOOK)
            patience.now_ns()
    patience.silent_ns("worker", "new", "idle")
    assert [patience.longest_ns(kind) // SECOND for kind in ("inference", "update", "idle")] == [3, 9, 1]
    assert patience.longest_ns("sleep") == 0


def test_the_last_silence_of_one_that_was_killed_is_not_what_it_is_known_for():
    clock, patience = watcher()
    watch(clock, patience, 30, sign=lambda _: "hung", who="worker")
    patience.forget("worker")
    patience.silent_ns("worker", "a new one")
    assert patience.longest_ns("") == 0


class Uses:
    """A process that shows no life: how much of each look's time it computes, and whether it wants to."""

    def __init__(self, clock, share, is_runnable=True):
        self._clock, self._share, self.is_runnable = clock, share, is_runnable

    def __call__(self):
        return CpuUse(self.is_runnable, int(self._clock.now_ns() * self._share))


def silence_after(clock, patience, seconds, uses):
    silent_ns = 0
    for _ in range(int(seconds * 10)):
        clock.advance_ns(LOOK)
        silent_ns = patience.silent_ns("learner", "the same", "", uses)
    return silent_ns / SECOND


def test_one_that_gets_no_cpu_is_not_silent_however_long_that_lasts():
    clock, patience = watcher()
    assert silence_after(clock, patience, 3600, Uses(clock, share=0)) < 1


@pytest.mark.parametrize(
    ("share", "is_runnable"),
    [(0, False), (1, True), (2, True)],
    ids=["sleeps or is stopped", "spins", "in two threads"],
)
def test_one_that_sleeps_or_spins_for_ever_is_silent_for_as_long_as_it_was_watched(share, is_runnable):
    clock, patience = watcher()
    assert silence_after(clock, patience, 20, Uses(clock, share, is_runnable)) == pytest.approx(20, abs=0.5)


def test_one_that_spins_with_a_tenth_of_a_cpu_is_silent_for_the_tenth():
    clock, patience = watcher()
    assert silence_after(clock, patience, 100, Uses(clock, share=0.1)) == pytest.approx(10, abs=0.5)


def test_one_that_was_starved_and_then_sleeps_for_ever_is_found():
    clock, patience = watcher()
    uses = Uses(clock, share=0)
    starved_s = silence_after(clock, patience, 60, uses)
    uses.is_runnable = False
    assert silence_after(clock, patience, 20, uses) == pytest.approx(starved_s + 20, abs=0.5)


def test_one_whose_use_of_the_cpu_is_not_known_is_silent_for_as_long_as_it_was_watched():
    clock, patience = watcher()
    assert silence_after(clock, patience, 20, lambda: None) >= 19


def test_one_that_may_be_silent_for_long_is_asked_for_its_use_of_the_cpu_ten_times_at_most():
    clock, patience = watcher()
    uses, asked = Uses(clock, share=0), []
    for _ in range(101):
        clock.advance_ns(LOOK)
        silent_ns = patience.silent_ns("worker", "the same", "", lambda: asked.append(1) or uses(), 100 * LOOK)
    assert len(asked) == 10
    assert silent_ns == pytest.approx(100 * LOOK / 10, abs=LOOK), "before it was asked for the first time"


def test_one_that_shows_life_is_never_asked_for_its_use_of_the_cpu():
    clock, patience = watcher()
    for beat in range(100):
        clock.advance_ns(LOOK)
        assert patience.silent_ns("learner", beat, "", pytest.fail) == 0


# -- restarts ----------------------------------------------------------------------------------------------------


def test_a_process_that_dies_again_and_again_without_work_is_given_up():
    restarts = Restarts(allowed=3)
    assert [restarts.note(0, "exit code 1", 0) for _ in range(4)] == [True, True, True, False]
    assert (restarts.total, restarts.by_place[0], restarts.reasons) == (3, 3, {"exit code 1": 3})


def test_one_answer_before_each_death_does_not_go_on_for_ever():
    restarts = Restarts(allowed=3)
    assert [restarts.note(0, "hung", answers) for answers in range(1, 20)].index(False) <= 4


def test_deaths_with_work_in_between_are_misfortunes_each_of_its_own():
    restarts = Restarts(allowed=1)
    assert all(restarts.note(0, "exit code -9", 100 * death) for death in range(1, 50))
    assert restarts.total == 49


def test_each_place_has_a_budget_of_its_own():
    restarts = Restarts(allowed=1)
    assert [restarts.note(place, "exit code 1", 0) for place in (0, 1, 2, 0)] == [True, True, True, False]


def test_counts_that_were_begun_anew_are_no_lack_of_work():
    restarts = Restarts(allowed=1)
    assert restarts.note(0, "exit code 1", 500)
    assert restarts.note(0, "exit code 1", 3)


@pytest.mark.parametrize(
    ("inferences", "raised", "ticks", "says"),
    [
        (0, 0, 600, "no worker answered in 600 ticks; 7 ticks were planned"),
        (90, 90, 600, "90 of 90 inferences raised, in 600 ticks"),
        (90, 46, 600, "46 of 90 inferences raised"),
        (90, 45, 600, ""),
        (1, 0, 600, ""),
        (0, 0, 40, ""),
        (3, 3, 40, ""),
    ],
)
def test_a_run_without_answers_or_of_mostly_failed_ones_is_told_from_one_that_was_too_short(
    inferences, raised, ticks, says
):
    with pytest.raises(PolicyError, match=says) if says else nullcontext():
        refuse_without_answers(inferences, raised, ticks, delay_ticks=7)
