"""Many made-up runs, on every CPU: what happened in them, and a small one for each promise that was broken."""

from __future__ import annotations

import gc
import json
import logging
import multiprocessing
import os
import traceback
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Any, TypeVar

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import RtcoreError
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.torture.checks import LIVENESS, SAFETY
from rtcore.torture.scenario import Scenario
from rtcore.torture.simulation import Parts, Simulation, Violation

#: Runs that one broken promise is made smaller with, at most.
_MOST_TRIES = 80
#: Seeds that a process takes at a time.
_SEEDS_AT_A_TIME = 8
_Portion = TypeVar("_Portion")
_Played = TypeVar("_Played")


@dataclass
class Broken:
    """A promise that a run broke. `command`: shows it again."""

    seed: int
    check: str
    text: str
    command: str
    scenario: str = ""


@dataclass
class Tally:
    """What happened in some runs."""

    runs: int = 0
    ticks: int = 0
    simulated_s: float = 0.0
    ended_early: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    broken: list[Broken] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        self.runs, self.ticks = self.runs + other.runs, self.ticks + other.ticks
        self.simulated_s += other.simulated_s
        for name in ("ended_early", "faults", "outcomes", "kinds"):
            getattr(self, name).update(getattr(other, name))
        self.broken += other.broken

    def to_json(self) -> dict[str, Any]:
        counted = {
            name: dict(sorted(getattr(self, name).items())) for name in ("ended_early", "faults", "outcomes", "kinds")
        }
        broken = [vars(one) for one in self.broken]
        days = self.simulated_s / 86_400
        return {"runs": self.runs, "ticks": self.ticks, "simulated_days": days, **counted, "violations": broken}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.runs:,} runs, {self.ticks:,} ticks, {self.simulated_s / 86_400:.2f} simulated days"
        for title, counter in (
            ("faults", self.faults),
            ("how jobs ended", self.outcomes),
            ("from tick to tick, and from state to state of a worker", self.kinds),
            ("runs that their supervisor ended", self.ended_early),
        ):
            yield f"{title}: " + (", ".join(f"{name} {count:,}" for name, count in counter.most_common()) or "none")
        missing = [outcome.name.lower() for outcome in Outcome if not self.outcomes[outcome.name.lower()]]
        if missing:
            yield f"never seen: {', '.join(missing)}"
        yield f"broken promises: {len(self.broken)}"


def attempt(scenario: Scenario, parts: Parts | None = None, tally: Tally | None = None) -> Violation | None:
    """Play a scenario, and its twin without faults if need be. Returns the promise that was broken; None: none was."""
    try:
        run = Simulation(scenario, [check() for check in SAFETY], parts=parts).run()
        if tally is not None:
            _count(run, tally)
        if run.error is None:
            play_twin = cache(
                lambda: Simulation(scenario.without_faults(), parts=parts).run() if scenario.faults else run
            )
            for judge in LIVENESS:
                judge().judge(run, play_twin)
    except Violation as violation:
        return violation
    except Exception as error:
        where = traceback.format_exception(error)[-3:]
        return Violation(
            "NothingCrashes", f"{type(error).__name__}: {error}; {' '.join(''.join(where).split())[-600:]}"
        )
    return None


def _count(run: Simulation, tally: Tally) -> None:
    tally.ticks += len(run.rows)
    tally.simulated_s += run.machine.true_ns / NS_PER_S
    tally.faults += run.injected
    tally.outcomes.update(
        {one.name.lower(): count for one, count in zip(Outcome, run.dispatcher.outcomes, strict=True) if count}
    )
    kinds = (TickKind(row.header.kind).name.lower() for row in run.rows)
    tally.kinds.update(f"{before} > {after}" for before, after in pairwise(kinds))
    tally.kinds.update({f"{before} > {after}": count for (before, after), count in run.states.items()})
    if run.error is not None:
        tally.ended_early[type(run.error).__name__] += 1


def shrink(scenario: Scenario, found: Violation, parts: Parts | None = None) -> tuple[Scenario, Violation]:
    """A run with fewer faults and ticks that breaks the same promise."""
    tries = 0

    def still(smaller: Scenario) -> bool:
        nonlocal tries, scenario, found
        tries += 1
        violation = attempt(smaller, parts) if tries <= _MOST_TRIES else None
        if violation is None or violation.check != found.check:
            return False
        scenario, found = smaller, violation
        return True

    def of(num_ticks: int, numbers: Sequence[int]) -> Scenario:
        return Scenario.of(scenario.seed, num_ticks, tuple(numbers))

    def shorten() -> None:
        for share in (0.1, 0.3, 0.5, 0.7, 0.85, 0.95):
            numbers = [fault.number for fault in scenario.faults]
            if still(of(max(2, int(scenario.num_ticks * share)), numbers)):
                return shorten()

    numbers = [fault.number for fault in scenario.faults]
    still(of(scenario.num_ticks, numbers))
    shorten()
    size = max(1, len(scenario.faults) // 2)
    while size:
        numbers, at = [fault.number for fault in scenario.faults], 0
        while at < len(numbers):
            fewer = numbers[:at] + numbers[at + size :]
            if still(of(scenario.num_ticks, fewer)):
                numbers = fewer
            else:
                at += size
        size //= 2
    shorten()
    return scenario, found


def play(seed: int, num_ticks: int, only: tuple[int, ...] | None = None, parts: Parts | None = None) -> Tally:
    """One seed, and a small run of what it broke."""
    scenario, tally = Scenario.of(seed, num_ticks, only), Tally(runs=1)
    violation = attempt(scenario, parts, tally)
    if violation is not None:
        if only is None:
            scenario, violation = shrink(scenario, violation, parts)
        tally.broken.append(Broken(seed, violation.check, str(violation), scenario.command, str(scenario)))
    return tally


def _play_some(work: tuple[Sequence[int], int, tuple[int, ...] | None]) -> Tally:
    """In a process of the campaign, or in the program's own."""
    seeds, num_ticks, only = work
    tally = Tally()
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # restarts are warnings, and there are thousands
    try:
        for seed in seeds:
            tally.add(play(seed, num_ticks, only))
    finally:
        logging.disable(before)
    return tally


def spread(play_some: Callable[[_Portion], _Played], portions: Iterable[_Portion], jobs: int) -> Iterator[_Played]:
    """What many processes find.

    Args:
        play_some: Plays a portion, in a process of its own.
        portions: All there is to do.
        jobs: How many at a time.

    Yields:
        What each portion came to, as it is done.

    Raises:
        RtcoreError: A process died. (`multiprocessing.Pool` would wait for it for ever.)
    """
    pool = ProcessPoolExecutor(
        jobs, mp_context=multiprocessing.get_context("forkserver"), initializer=_look_for_garbage_less_often
    )
    try:
        for done in as_completed([pool.submit(play_some, portion) for portion in portions]):
            yield done.result()
    except BrokenProcessPool as error:
        raise RtcoreError(
            "a process of the campaign died: killed, or out of memory? Try again with fewer --jobs"
        ) from error
    except BaseException:
        # Whoever ends the campaign does not wait for what is being played: the pool would.
        for child in multiprocessing.active_children():
            child.kill()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _look_for_garbage_less_often() -> None:
    """Nearly all objects that are made live until the end of a run, and what is imported for ever: looking for garbage
    among them took a twentieth of the time."""
    gc.freeze()
    gc.set_threshold(20_000, 5, 2)


def campaign(
    seeds: Iterable[int], num_ticks: int, jobs: int, only: tuple[int, ...] | None, told: Callable[[Broken], object]
) -> Tally:
    """Play all seeds, `jobs` at a time; `told` of each broken promise as it is found."""
    whole = Tally()
    for tally in spread(_play_some, _portions(seeds, num_ticks, only), jobs):
        whole.add(tally)
        for broken in tally.broken:
            told(broken)
    return whole


def _portions(
    seeds: Iterable[int], num_ticks: int, only: tuple[int, ...] | None
) -> Iterator[tuple[list[int], int, tuple[int, ...] | None]]:
    some: list[int] = []
    for seed in seeds:
        some.append(seed)
        if len(some) == _SEEDS_AT_A_TIME:
            yield some, num_ticks, only
            some = []
    if some:
        yield some, num_ticks, only


def simulate(options: Namespace) -> int:
    """`rtcore-torture sim`. Returns its exit code."""
    if options.show:
        for seed in options.seeds:
            print(Scenario.of(seed, options.ticks, options.faults))

    def tell(broken: Broken) -> None:
        if not options.json:
            print(f"{broken.text}\n{broken.scenario}\n  again: {broken.command}", flush=True)

    if len(options.seeds) == 1 and not options.minutes:
        tally = _play_some((options.seeds, options.ticks, options.faults))
        for broken in tally.broken:
            tell(broken)
    else:
        tally = _for_minutes(options, tell) if options.minutes else _all(options, tell)
    print(json.dumps(tally.to_json(), indent=2) if options.json else "\n".join(tally.lines()))
    return 1 if tally.broken else 0


def _all(options: Namespace, tell: Callable[[Broken], object]) -> Tally:
    return campaign(options.seeds, options.ticks, _jobs(options), options.faults, tell)


def _for_minutes(options: Namespace, tell: Callable[[Broken], object]) -> Tally:
    clock, tally, first = MonotonicClock(), Tally(), options.seeds[0]
    until_ns = clock.now_ns() + int(options.minutes * 60 * NS_PER_S)
    jobs = _jobs(options)
    size = jobs * _SEEDS_AT_A_TIME * 8
    while clock.now_ns() < until_ns:
        tally.add(campaign(range(first, first + size), options.ticks, jobs, None, tell))
        first += size
    return tally


def _jobs(options: Namespace) -> int:
    return options.jobs or len(os.sched_getaffinity(0))
