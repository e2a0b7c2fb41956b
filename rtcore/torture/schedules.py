"""`rtcore-torture schedules`: the protocols under schedules that seeds draw, very many of them."""

from __future__ import annotations

import argparse
import json
import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.errors import text_of
from rtcore.torture.campaign import spread
from rtcore.torture.explorer import Priorities, Scheduler, Uniform, play
from rtcore.torture.points import point_of
from rtcore.torture.protocols import PROTOCOLS, Drawn, Parts, Protocol
from rtcore.torture.stepped import Actor, stepped_protocols

#: Seeds that a process takes at a time.
_SEEDS_AT_A_TIME = 500
#: The most often that an order of priorities changes.
_MOST_CHANGES = 5
#: Pairs that people are told of, of those that were not seen.
_MOST_TOLD = 8
#: Two lettered points of different processes, one directly after the other: (role, point, role, point).
Pair = tuple[str, str, str, str]
_BY_NAME = {protocol.name: protocol for protocol in PROTOCOLS}


@dataclass
class Broken:
    """What a schedule broke. `sizes`: that were drawn. `trace`: who went for how long, up to which points."""

    seed: int
    protocol: str
    text: str
    sizes: str
    trace: str

    @property
    def command(self) -> str:
        """What shows it again."""
        return f"rtcore-torture schedules --seeds {self.seed}"

    def __str__(self) -> str:
        return f"{self.protocol}: {self.text}\n  {self.sizes}\n  {self.trace}\n  again: {self.command}"


class Watcher:
    """Notes who passes which point, and which point of another directly followed."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.points: set[tuple[str, str]] = set()
        self.pairs: set[Pair] = set()
        self._last = ("", "")

    def __call__(self, name: str, actor: Actor) -> None:
        point = point_of(actor)
        self.steps.append((name, point))
        if not point:
            return
        who, before = self._last
        if who and who != name:
            self.pairs.add((_role(who), before, _role(name), point))
        self.points.add((_role(name), point))
        self._last = (name, point)

    @property
    def trace(self) -> str:
        """Whose turn it was, for how many steps, with the points in them."""
        parts = []
        for name, turn in groupby(self.steps, key=lambda step: step[0]):
            points = [point for _, point in turn]
            letters = " ".join(point for point, _ in groupby(points) if point)
            parts.append(f"{name} {len(points)}" + (f" ({letters})" if letters else ""))
        return ", ".join(parts)


def _role(name: str) -> str:
    return name.rstrip("0123456789 ")


@dataclass
class Tally:
    """What happened under some schedules."""

    schedules: Counter[str] = field(default_factory=Counter)  #: by protocol
    schedulers: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    points: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    pairs: dict[str, set[Pair]] = field(default_factory=lambda: defaultdict(set))
    crowds: set[tuple[str, str]] = field(default_factory=set)  #: roles that several processes have at a time
    broken: list[Broken] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("schedules", "schedulers", "outcomes"):
            getattr(self, name).update(getattr(other, name))
        for protocol, points in other.points.items():
            self.points[protocol] |= points
        for protocol, pairs in other.pairs.items():
            self.pairs[protocol] |= pairs
        self.steps += other.steps
        self.crowds |= other.crowds
        self.broken += other.broken

    def possible(self, protocol: str) -> set[Pair]:
        """Every pair of points of two processes, but those that a lock keeps apart."""
        points = self.points[protocol]
        pairs = {
            (one, before, other, after)
            for one, before in points
            for other, after in points
            if one != other or (protocol, one) in self.crowds
        }
        return pairs - _BY_NAME[protocol].never

    def unreached(self) -> list[str]:
        """Outcomes that a protocol has, and that never came."""
        return [
            f"{protocol.name}: {outcome}"
            for protocol in PROTOCOLS
            for outcome in sorted(protocol.outcomes)
            if self.schedules[protocol.name] and not self.outcomes[protocol.name, outcome]
        ]

    def to_json(self) -> dict[str, Any]:
        pairs = {
            name: {
                "seen": len(self.pairs[name]),
                "possible": len(self.possible(name)),
                "unseen": [pair_text(pair) for pair in sorted(self.possible(name) - self.pairs[name])],
            }
            for name in self.schedules
        }
        return {
            "schedules": sum(self.schedules.values()),
            "steps": self.steps,
            "by_protocol": dict(self.schedules),
            "by_scheduler": dict(sorted(self.schedulers.items())),
            "outcomes": {f"{protocol}: {what}": count for (protocol, what), count in sorted(self.outcomes.items())},
            "unreached_outcomes": self.unreached(),
            "pairs": pairs,
            "violations": [vars(one) | {"command": one.command} for one in self.broken],
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{sum(self.schedules.values()):,} schedules, {self.steps:,} steps"
        yield "drawn: " + ", ".join(f"{name} {count:,}" for name, count in sorted(self.schedulers.items()))
        for name, count in sorted(self.schedules.items()):
            seen, possible = self.pairs[name], self.possible(name)
            pairs = f"{len(seen)} of {len(possible)}"
            yield f"{name}: {count:,} schedules; pairs of lettered points: {pairs} seen"
            what = [(outcome, number) for (of, outcome), number in self.outcomes.most_common() if of == name]
            yield "  " + ", ".join(f"{outcome} {number:,}" for outcome, number in what)
            if unseen := sorted(possible - seen):
                more = f", and {len(unseen) - _MOST_TOLD} more" if len(unseen) > _MOST_TOLD else ""
                yield f"  not seen: {', '.join(map(pair_text, unseen[:_MOST_TOLD]))}{more}"
        if unreached := self.unreached():
            yield f"outcomes that never came: {', '.join(unreached)}"
        yield f"broken promises: {len(self.broken)}"


def pair_text(pair: Pair) -> str:
    """As people read it: who passed which point, and who passed which one directly after."""
    return "{} {} > {} {}".format(*pair)


def draw(seed: int, parts: Parts | None = None, protocol: Protocol | None = None) -> tuple[Protocol, Drawn, Scheduler]:
    """What a seed stands for: a protocol, its sizes and programs, and who draws the order.

    Args:
        seed: Decides all of it.
        parts: In place of rtcore's own, of the tests that break them.
        protocol: That one, whatever the seed says.

    Returns:
        The protocol, fresh memory with its actors, and the scheduler.
    """
    rng, parts = random.Random(seed), parts or Parts()
    protocol = protocol or PROTOCOLS[seed % len(PROTOCOLS)]
    sizes = {name: rng.choice(among) for name, among in protocol.sizes.items()}
    drawn = protocol.make(rng, parts, **sizes)
    drawn.sizes = sizes
    changes = rng.randrange(_MOST_CHANGES + 2)
    scheduler: Scheduler = Uniform(rng)
    if changes <= _MOST_CHANGES:
        scheduler = Priorities(rng, _usual_steps(protocol, tuple(sizes.items())), changes)
    return protocol, drawn, scheduler


@cache
def _usual_steps(protocol: Protocol, sizes: tuple[tuple[str, int], ...]) -> int:
    """Of a run of these sizes: one is made, always the same."""
    rng = random.Random(0)
    return len(play(protocol.make(rng, Parts(), **dict(sizes)), Uniform(rng)).choices)


def play_seed(seed: int, tally: Tally, parts: Parts | None = None, protocol: Protocol | None = None) -> Broken | None:
    """One schedule. Within `stepped_protocols`.

    Args:
        seed: Of the schedule.
        tally: What happened is added to it.
        parts: As of `draw`, and so is the next one.
        protocol: None: the seed's.

    Returns:
        What it broke; None: nothing.
    """
    protocol, drawn, scheduler = draw(seed, parts, protocol)
    watcher, found = Watcher(), ""
    try:
        play(drawn, scheduler, watcher)
        drawn.at_end()
    except Exception as error:  # whatever it is: a schedule of what is right raises nothing
        found = text_of(error)
    name = protocol.name
    tally.schedules[name] += 1
    tally.schedulers[scheduler.name] += 1
    tally.steps += len(watcher.steps)
    tally.outcomes.update((name, what) for what in drawn.seen)
    tally.points[name] |= watcher.points
    tally.pairs[name] |= watcher.pairs
    roles = Counter(map(_role, drawn.actors))
    tally.crowds |= {(name, role) for role, count in roles.items() if count > 1}
    wrong = [*drawn.wrong, *([found] if found else [])]
    wrong += [f"{pair_text(pair)}, against the lock" for pair in watcher.pairs & protocol.never]
    if not wrong:
        return None
    sizes = ", ".join(f"{size} {what}" for what, size in drawn.sizes.items())
    broken = Broken(seed, name, wrong[0], sizes=f"{sizes}; {scheduler.name}", trace=watcher.trace)
    tally.broken.append(broken)
    return broken


def _play_some(seeds: Sequence[int]) -> Tally:
    """In a process of the campaign, or in the program's own."""
    tally = Tally()
    with stepped_protocols():
        for seed in seeds:
            play_seed(seed, tally)
    return tally


def _played(seeds: Sequence[int], jobs: int) -> Iterator[Tally]:
    """All of them, in as many processes."""
    if len(seeds) == 1:
        yield _play_some(seeds)
        return
    portions = (seeds[at : at + _SEEDS_AT_A_TIME] for at in range(0, len(seeds), _SEEDS_AT_A_TIME))
    yield from spread(_play_some, portions, jobs)


def explore_seeds(options: argparse.Namespace) -> int:
    """`rtcore-torture schedules`. Returns its exit code."""
    clock, whole = MonotonicClock(), Tally()
    start_ns = clock.now_ns()
    for tally in _played(options.seeds, options.jobs or len(os.sched_getaffinity(0))):
        whole.add(tally)
        for broken in tally.broken if not options.json else ():
            print(broken, flush=True)
    took_s = (clock.now_ns() - start_ns) / NS_PER_S
    if options.json:
        print(json.dumps(whole.to_json() | {"took_s": round(took_s, 1)}, indent=2))
    else:
        print(*whole.lines(), f"{len(options.seeds) / took_s:,.0f} schedules a second", sep="\n")
    return 1 if whole.broken else 0
