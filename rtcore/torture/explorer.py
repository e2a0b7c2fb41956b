"""Runs real protocol code under every schedule of its actors, or under one that a seed draws.

Greenlets cannot be copied, so a branch is reached by running its choices again from the start. An actor is a
deterministic function of what it has read, hence memory plus what each actor has seen *is* the state: a state met
before is not entered again, and the number of schedules is counted as the number of paths through the graph of states.
Exhaustive, under sequential consistency.

What is too large for that is drawn (`play`): at each step one of the actors that can go on, at random, or by priorities
that change a few times (PCT: Burckhardt, Kothari, Musuvathi, Nagarakatte: "A randomized scheduler with probabilistic
guarantees of finding bugs", ASPLOS 2010). Of a fault that needs d steps in a certain order, of n actors and k steps, a
schedule by priorities with d - 1 changes has a chance of at least 1 / (n * k ** (d - 1)).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from rtcore.torture.stepped import Actor

#: A drawn schedule of more steps is one that does not end.
_MOST_STEPS = 50_000


@dataclass
class Scenario:
    """Fresh shared memory and the actors on it. Objects are per actor: processes share nothing else.

    `lives`: who is killed, and before which of its accesses.
    """

    memories: list[bytearray]
    actors: dict[str, Callable[[], Any]]
    lives: dict[str, int] = field(default_factory=dict)


@dataclass
class Exploration:
    """What all schedules together did: one outcome per distinct final state."""

    outcomes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    num_states: int = 0
    num_runs: int = 0
    num_schedules: int = 0


class Deadlock(AssertionError):
    """Every actor that is not done waits."""


class NoEnd(AssertionError):
    """It goes on and on."""


class Run:
    """One execution, driven choice by choice."""

    def __init__(self, scenario: Scenario) -> None:
        self.memories = scenario.memories
        self.actors: dict[str, Actor] = {}
        self.choices: list[str] = []
        for name, body in scenario.actors.items():
            actor = Actor(body, scenario.lives.get(name, -1))
            self.actors[name] = actor
            self._go(actor)

    def step(self, name: str) -> None:
        self.choices.append(name)
        self._go(self.actors[name])

    def _go(self, actor: Actor) -> None:
        try:
            result = actor.switch()
        except Exception as error:
            error.add_note(f"schedule: {self.schedule}")
            raise
        if actor.dead:
            actor.result = result

    def close(self) -> None:
        """End the actors that are under way: a suspended greenlet holds itself, and no garbage collector finds it."""
        for actor in self.actors.values():
            while not actor.dead:  # what it tidies up are accesses, too
                actor.throw()

    @property
    def schedule(self) -> str:
        return " ".join(self.choices)

    def runnable(self) -> list[str]:
        alive = [(name, actor) for name, actor in self.actors.items() if not actor.dead]
        ready = [name for name, actor in alive if actor.waits_for is None or actor.waits_for()]
        if alive and not ready:
            raise Deadlock(f"{[name for name, _ in alive]} wait for ever after: {self.schedule}")
        return ready

    def state(self) -> tuple[Any, ...]:
        seen = tuple((actor.dead, *actor.seen) for actor in self.actors.values())
        return (*(bytes(memory) for memory in self.memories), seen)


def explore(
    make_scenario: Callable[[], Scenario], *, until: Callable[[dict[str, Any]], bool] | None = None
) -> Exploration:
    """Every schedule of the scenario's actors; or, for a broken variant, only until the first such results."""
    found = Exploration()
    ids: dict[tuple[Any, ...], int] = {}
    children: list[list[int]] = []
    depths: list[int] = []
    branches: list[tuple[str, ...]] = [()]
    while branches:
        run = Run(make_scenario())
        found.num_runs += 1
        branch = branches.pop()
        parent = -1
        for name in branch[:-1]:
            run.step(name)
        if branch:
            parent = ids[run.state()]
            run.step(branch[-1])
        while True:
            state = run.state()
            known = ids.get(state)
            me = ids.setdefault(state, len(ids))
            if parent >= 0:
                children[parent].append(me)
            if known is not None:
                break
            children.append([])
            depths.append(len(run.choices))
            ready = run.runnable()
            if not ready:
                results = {name: actor.result for name, actor in run.actors.items()}
                found.outcomes.append((run.schedule, results))
                if until is not None and until(results):
                    branches.clear()
                break
            branches.extend((*run.choices, other) for other in ready[1:])
            parent = me
            run.step(ready[0])
        run.close()
    found.num_states = len(ids)
    found.num_schedules = _count_paths(children, depths)
    return found


def _count_paths(children: list[list[int]], depths: list[int]) -> int:
    paths = [0] * len(children)
    for state in sorted(range(len(children)), key=depths.__getitem__, reverse=True):
        paths[state] = sum(paths[child] for child in children[state]) if children[state] else 1
    return paths[0]


class Scheduler(Protocol):
    """Who goes next."""

    name: str

    def choose(self, run: Run, ready: Sequence[str]) -> str: ...


class Uniform:
    """Anybody who can, at each step."""

    name = "uniform"

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def choose(self, run: Run, ready: Sequence[str]) -> str:
        return self._rng.choice(ready)


class Priorities:
    """Always the first in an order that is drawn; at some steps, drawn too, who runs becomes the last.

    Args:
        rng: What draws.
        num_steps: How many steps such a run usually has.
        num_changes: How often the order changes: a bound on preemptions.
    """

    def __init__(self, rng: random.Random, num_steps: int, num_changes: int) -> None:
        self.name = f"priorities, {num_changes} changes"
        self._rng = rng
        self._changes = {rng.randrange(1, max(2, num_steps)) for _ in range(num_changes)}
        self._order: list[str] = []
        self._step = 0
        self._running = ""

    def choose(self, run: Run, ready: Sequence[str]) -> str:
        if not self._order:
            self._order = self._rng.sample(list(run.actors), len(run.actors))
        if self._running and (self._step in self._changes or run.actors[self._running].gives_way):
            self._order.remove(self._running)
            self._order.append(self._running)
        self._step += 1
        self._running = next(name for name in self._order if name in ready)
        return self._running


def play(scenario: Scenario, scheduler: Scheduler, watch: Callable[[str, Actor], object] = lambda *_: None) -> Run:
    """One schedule of a scenario's actors.

    Args:
        scenario: They, and their memory.
        scheduler: Draws who goes next.
        watch: Called with who that is before each step.

    Returns:
        The run that is over; its actors have the results.

    Raises:
        Deadlock: Everybody waits.
        NoEnd: It has more steps than any run that ends.
    """
    run = Run(scenario)
    while ready := run.runnable():
        name = scheduler.choose(run, ready)
        watch(name, run.actors[name])
        run.step(name)
        if len(run.choices) > _MOST_STEPS:
            raise NoEnd(f"{ready} go on after {_MOST_STEPS} steps")
    return run
