"""What a seed stands for: the settings of a run, how long its inferences take, and what goes wrong when.

All of it is drawn from the seed before the run begins, so that faults can be left out one by one: what is left happens
as before. The run's length is no part of that: a shorter run is the beginning of a longer one without its later faults.
Times are in ticks where they need not be exact, so that each rate sees the same.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any, Literal, NamedTuple

from rtcore.clock import NS_PER_S, whole_period_ns
from rtcore.config.resolved import ResolvedRun, resolve
from rtcore.config.run import make_config
from rtcore.errors import ConfigError
from rtcore.scheduling.planner import Plan, Tau, make_plan
from rtcore.scheduling.schedule import STAGGERS

FaultKind = Literal[
    "death",
    "death while it writes",
    "death at its start",
    "hang",
    "stop",
    "slow worker",
    "lost wake-ups",
    "freeze",
    "clock stands still",
    "late wake-up",
    "slow step",
    "slow reset",
    "supervisor is away",
    "learner is away",
]
#: How often each is drawn.
_WEIGHTS: dict[FaultKind, int] = {
    "death": 6,
    "death while it writes": 2,
    "death at its start": 2,
    "hang": 4,
    "stop": 4,
    "slow worker": 3,
    "lost wake-ups": 2,
    "freeze": 3,
    "clock stands still": 2,
    "late wake-up": 4,
    "slow step": 4,
    "slow reset": 3,
    "supervisor is away": 2,
    "learner is away": 2,
}
#: Faults begin within this share of a run: the rest is for what has to be as before once they are over.
_FAULTY_SHARE = 0.5
#: Faults of one whole run whose length is this many ticks, at most; longer runs have more.
_TICKS_PER_FAULT = 60
#: Random numbers that the times are made of; one is taken for each job, from a place on that the seed says.
_NUM_DRAWS = 1 << 13
_draws = random.Random(0)
_NORMAL = [_draws.gauss(0, 1) for _ in range(_NUM_DRAWS)]
_SAMPLES = 256

TimesKind = Literal[
    "constant", "lognormal", "heavy tail", "drift", "thermal steps", "two kinds of workers", "two kinds of jobs"
]
_TIMES: tuple[TimesKind, ...] = (
    "constant",
    "lognormal",
    "heavy tail",
    "drift",
    "thermal steps",
    "two kinds of workers",
    "two kinds of jobs",
)


Needs = Literal["nothing", "state", "committed", "two speeds"]


class Fault(NamedTuple):
    """One thing that goes wrong. `ticks`: how long it lasts. `size`: how much, where that means something."""

    number: int
    kind: FaultKind
    tick: float
    worker: int
    ticks: float
    size: float

    def __str__(self) -> str:
        who = f" worker {self.worker}" if self.kind in _OF_WORKERS else ""
        return f"{self.number}: {self.kind}{who} at {self.tick:.1f} for {self.ticks:.1f} ticks"


_OF_WORKERS = frozenset(
    ("death", "death while it writes", "death at its start", "hang", "stop", "slow worker", "lost wake-ups")
)


@dataclass(frozen=True)
class Times:
    """How long inferences take: a pure function of the job. `usual_ticks`: of a usual one."""

    kind: TimesKind
    usual_ticks: float
    spread: float
    period_ns: int
    seed: int

    def ns(self, worker: int, tick: int) -> int:
        """Of the job that a worker is given at a tick."""
        return max(1, round(self.usual_ticks * self._factor(worker, tick) * self.period_ns))

    def _factor(self, worker: int, tick: int) -> float:
        draw = _NORMAL[(self.seed + tick * 31 + worker * 1009) % _NUM_DRAWS]
        if self.kind == "lognormal":
            return math.exp(self.spread * draw)
        if self.kind == "heavy tail":
            return 0.8 + 0.2 * min(100.0, math.exp(2 * self.spread * abs(draw) ** 1.5))
        if self.kind == "drift":
            return 1 + self.spread * min(1.0, tick / 400) + 0.02 * draw
        if self.kind == "thermal steps":
            return (1.0, 1 + self.spread, 1 + self.spread / 2, 1.0)[min(3, tick // 150)]
        if self.kind == "two kinds of workers":
            return 1 + 3 * self.spread * (worker % 2) + 0.02 * draw
        if self.kind == "two kinds of jobs":
            return 1 + (4 * self.spread if draw > 1.2 else 0.0)
        return 1.0

    def __str__(self) -> str:
        return f"{self.kind}, usually {self.usual_ticks:.2f} ticks, spread {self.spread:.2f}"


@dataclass(frozen=True)
class Scenario:
    """A run before it begins.

    `settings`: as of `rtcore-run`. `episode_ticks`: mean length. `cost_ns`: what each step within a tick takes.
    `restart_ticks`: from a worker's start to its being ready. `publish_every`: ticks between two versions of the
    weights; 0: there is one. `abstains`: every so many jobs have no action; 0: none. `needs`: what the policy takes.
    """

    seed: int
    num_ticks: int
    settings: dict[str, Any]
    rate_hz: Fraction
    times: Times
    faults: tuple[Fault, ...]
    episode_ticks: float
    cost_ns: int
    restart_ticks: float
    publish_every: int
    abstains: int
    needs: Needs
    log_slots: int
    learner_every: int
    stops_at: int  #: the tick at which somebody ends it; 0: nobody does

    @classmethod
    def of(cls, seed: int, num_ticks: int, only: tuple[int, ...] | None = None) -> Scenario:
        """Args:
        seed: Decides everything.
        num_ticks: Of the run.
        only: Numbers of the faults to keep; None: all.
        """
        rng = random.Random(seed)
        rate_hz = rng.choice([Fraction(10), Fraction(50), Fraction(262144, 4389), Fraction(250), Fraction(1000)])
        period_ns, workers = whole_period_ns(rate_hz), rng.choice([1, 2, 2, 3, 4, 5, 8])
        usual_ticks = rng.choice([0.3, 0.9, 1.5, 2.5, 3.7, 6.2, 11.0])
        times = Times(rng.choice(_TIMES), usual_ticks, rng.choice([0.1, 0.3, 0.6]), period_ns, rng.getrandbits(32))
        needs: Needs = rng.choice(["nothing", "nothing", "nothing", "state", "committed", "two speeds"])
        settings = {
            "policy": "two-speed" if needs == "two speeds" else "random",
            "env_id": "none",
            "workers": workers,
            "fps": str(rate_hz),
            "stagger": rng.choice([*STAGGERS, "max-time", "max-time"]),
            "tau_estimate": rng.choice(["quantile", "quantile", "quantile", "ratchet"]),
            "on_late": rng.choice(["apply", "apply", "drop"]),
            "on_reset": rng.choice(["hold", "run"]),
            "on_missing": rng.choice(["noop", "repeat"]),
            "overrun": rng.choice(["skip", "skip", "stretch"]),
            "chunk": rng.choice([1, 1, 1, 2, 4, 16]),
            "chunk_from": rng.choice(["due", "due", "frame"]),
            # Three runs of four outlive what happens to them: else hardly a long one would be played to its end.
            "max_restarts": max(rng.choice([1, 3, 3, 100]), 100 * bool(seed % 4)),
            "hang_timeout_s": round(max(0.25, rng.choice([20, 60]) * period_ns / NS_PER_S), 3),
            "env_timeout_s": 20.0,
            "ring_slots": max(24, workers + 12, rng.choice([0, 64, 256])),
            "ticks": num_ticks,
            "seed": seed,
        }
        scenario = cls(
            seed=seed,
            num_ticks=num_ticks,
            settings=settings,
            rate_hz=rate_hz,
            times=times,
            faults=(),
            episode_ticks=rng.choice([8, 40, 150, 1e9, 1e9]),
            cost_ns=rng.choice([0, period_ns // 2000, period_ns // 40]),
            restart_ticks=rng.choice([2, 10, 40]),
            publish_every=rng.choice([0, 3, 17]),
            abstains=rng.choice([0, 0, 7]),
            needs=needs,
            log_slots=rng.choice([64, 1024]),
            learner_every=rng.choice([1, 5, 20]),
            stops_at=rng.choice([0] * 9 + [1]) * rng.randrange(10, 400),
        )
        scenario = scenario._with_fitting_chunk()
        # Where they are named, a run may have been made shorter than the one that they were found in.
        until = _FAULTY_SHARE * num_ticks if only is None else num_ticks
        faults = list(
            _faults(random.Random(rng.getrandbits(64)), scenario, rng.choice([0.0, 0.3, 1.0, 1.0, 2.0]), until)
        )
        if only is not None:
            faults = [fault for fault in faults if fault.number in only]
        return scenario._with(tuple(faults))

    def _with(self, faults: tuple[Fault, ...]) -> Scenario:
        """The same run with other faults: what its settings come to is worked out once."""
        other = replace(self, faults=faults)
        vars(other).update(run=self.run, plan=self.plan, period_ns=self.period_ns)
        return other

    def _with_fitting_chunk(self) -> Scenario:
        """Settings that go together: a chunk that is over before it is due is refused."""
        try:
            _ = self.plan
        except ConfigError:
            return replace(self, settings=self.settings | {"chunk": 1, "chunk_from": "due"})
        return self

    @cached_property
    def run(self) -> ResolvedRun:
        """What the settings come to."""
        return resolve(make_config(**self.settings), self.rate_hz, 8)

    @cached_property
    def plan(self) -> Plan:
        """As a rehearsal would make it, of the times of the first ticks."""
        config = self.run.config
        workers = int(self.settings["workers"])
        taus = [self.times.ns(job % workers, job) + 3 * self.cost_ns for job in range(_SAMPLES)]
        return make_plan(
            config.schedule.stagger,
            Tau.of(taus, [0]),
            self.rate_hz,
            workers=workers,
            max_workers=workers,
            guard_ns=self.run.guard_ns,
            device_parallelism=math.inf,
            chunk=config.agent.chunk,
            chunk_from=config.agent.chunk_from,
            on_late=config.schedule.on_late,
        )

    def without_faults(self) -> Scenario:
        """The twin that liveness is judged against."""
        return self._with(())

    @cached_property
    def period_ns(self) -> int:
        return whole_period_ns(self.rate_hz)

    @property
    def command(self) -> str:
        """What shows it again."""
        faults = ",".join(str(fault.number) for fault in self.faults) or "none"
        return f"rtcore-torture sim --seeds {self.seed} --ticks {self.num_ticks} --faults {faults}"

    def __str__(self) -> str:
        lines = [f"seed {self.seed}, {self.num_ticks} ticks at {float(self.rate_hz):.4g} Hz; inference: {self.times}"]
        lines.append("  " + " ".join(f"{key}={value}" for key, value in self.settings.items()))
        names = (
            "episode_ticks",
            "cost_ns",
            "restart_ticks",
            "publish_every",
            "abstains",
            "needs",
            "log_slots",
            "learner_every",
            "stops_at",
        )
        lines.append("  " + " ".join(f"{name}={getattr(self, name)}" for name in names))
        return "\n".join([*lines, *(f"  fault {fault}" for fault in self.faults)])


def _faults(rng: random.Random, scenario: Scenario, density: float, until: float) -> Iterator[Fault]:
    """One after the other from tick 0 on, so that a shorter run has the same first ones."""
    kinds, weights = list(_WEIGHTS), list(_WEIGHTS.values())
    workers = scenario.run.num_places if scenario.needs == "two speeds" else int(scenario.settings["workers"])
    tick, number = 5 + 30 * rng.random(), 0
    hang_ticks = scenario.settings["hang_timeout_s"] * NS_PER_S / scenario.period_ns
    while density and tick < until:
        kind, size = rng.choices(kinds, weights)[0], rng.random()
        if kind == "slow reset" and scenario.episode_ticks > scenario.num_ticks:
            kind = "slow step"
        longest = {
            "stop": rng.choice([3.0, 30.0, 2 * hang_ticks]),
            "late wake-up": rng.choice([0.5, 3.0]),
            "slow step": rng.choice([0.5, 3.0, 20.0]),
            "slow reset": rng.choice([0.5, 5.0, 40.0]),
            "freeze": rng.choice([1.0, 20.0, 3 * hang_ticks]),
            "clock stands still": rng.choice([0.5, 3.0]),
            "slow worker": 60.0,
            "lost wake-ups": 30.0,
            "supervisor is away": rng.choice([20.0, 150.0]),
            "learner is away": rng.choice([20.0, 300.0]),
            "death at its start": 3.0,
        }.get(kind, 0.0)
        yield Fault(
            number=number,
            kind=kind,
            tick=tick,
            worker=rng.randrange(workers),
            ticks=longest * (0.1 + 0.9 * rng.random()),
            size=size,
        )
        number += 1
        # Often several at about the same time.
        tick += rng.choice([0.0, 0.3, 1.0, 2.7]) * _TICKS_PER_FAULT / density * rng.random()
