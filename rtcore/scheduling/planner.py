"""Plans a run before tick 0: number of workers, delay, stride, and why not an action at every tick. Pure.

Input: what the rehearsal measured. That is inference times with all workers running, and the CPU (or GPU) time of each
inference, since workers share the device.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any

from rtcore.clock import whole_period_ns
from rtcore.errors import ConfigError, counted
from rtcore.scheduling.schedule import (
    UNEQUAL_FACTOR,
    ChunkFrom,
    OnLate,
    Stagger,
    Times,
    delay_for,
    planned_quantile,
    quantile_ns,
    trimmed_mean_ns,
)

#: Share of the device that inference may use: the rest is for the world and the system.
_USABLE_SHARE = 0.85
#: Number of times that a plan keeps: evenly spaced quantiles of the measured ones.
_KEPT_TIMES = 101


@dataclass(frozen=True)
class Tau:
    """Inference times, each from the deadline of the tick at which the worker was booked to its action in the slot."""

    mean_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    cost_ns: int  #: device time one inference uses (median)
    samples: int
    times_ns: tuple[int, ...] = ()  #: those measured, ascending, thinned to about a hundred
    workers_ns: tuple[int, ...] = ()  #: the median of each worker, where each was measured; else none
    wanted_samples: int = 0  #: that the rehearsal aimed at; `samples` is less if its time was up

    @classmethod
    def of(
        cls, taus_ns: Sequence[int], costs_ns: Sequence[int], by_worker: Mapping[int, Sequence[int]] | None = None
    ) -> Tau:
        """From a rehearsal's samples (at least one). `by_worker`: the same times, of each worker from 0 on."""
        ordered = sorted(taus_ns)
        last = len(ordered) - 1
        costs = sorted(costs_ns) or [0]
        kept = min(len(ordered), _KEPT_TIMES)
        all_known = by_worker is not None and by_worker.keys() == set(range(len(by_worker)))
        workers = [sorted(by_worker[index]) for index in range(len(by_worker))] if by_worker and all_known else []
        return cls(
            mean_ns=sum(ordered) // len(ordered),
            p50_ns=ordered[last // 2],
            p99_ns=quantile_ns(ordered, 0.99),
            max_ns=ordered[-1],
            cost_ns=costs[len(costs) // 2],
            samples=len(ordered),
            times_ns=tuple(ordered[index * last // max(1, kept - 1)] for index in range(kept)),
            workers_ns=tuple(times[(len(times) - 1) // 2] for times in workers),
        )

    @property
    def ordered_ns(self) -> tuple[int, ...]:
        """The times, ascending; made up of median, p99 and maximum where no others are known."""
        return self.times_ns or (self.p50_ns,) * 98 + (self.p99_ns, self.max_ns)

    @property
    def usual_ns(self) -> int:
        """The mean without hiccups, which the schedule uses."""
        return trimmed_mean_ns(self.ordered_ns)

    @property
    def planned_quantile(self) -> float:
        """The quantile that the delay is made for: 0.99, or less where the longest times are hiccups."""
        return planned_quantile(self.ordered_ns)

    @property
    def planned_ns(self) -> int:
        """The time at `planned_quantile`, which the delay is made for; longer ones come late, and are counted."""
        return quantile_ns(self.ordered_ns, self.planned_quantile)

    @property
    def slow_workers(self) -> tuple[int, ...]:
        """Workers that take much longer than half of them do."""
        times = sorted(self.workers_ns)
        limit_ns = UNEQUAL_FACTOR * times[(len(times) - 1) // 2] if times else 0
        return tuple(index for index, tau_ns in enumerate(self.workers_ns) if tau_ns > limit_ns)


@dataclass(frozen=True)
class Plan:
    """How the run will go, if inference takes as long as in the rehearsal."""

    stagger: Stagger
    workers: int
    min_workers_every_tick: int
    delay_ticks: int
    stride_ticks: int
    acted_fraction: float  #: expected share of ticks with an action; late ones and slow workers are counted in
    tau: Tau
    rate_hz: Fraction
    device_parallelism: float
    limit: str  #: why there is not an action at every tick; "" if there is
    chunk: int = 1  #: actions of one inference
    chunk_from: ChunkFrom = "due"  #: which tick the first of them is for

    @property
    def usable_chunk(self) -> int:
        """Actions of one inference that are not past when it is due."""
        return usable_chunk(self.chunk, self.chunk_from, self.delay_ticks)

    @property
    def slow_workers(self) -> tuple[int, ...]:
        """Workers that took much longer in the rehearsal than half of them did."""
        return self.tau.slow_workers

    def to_json(self) -> dict[str, object]:
        return {
            "workers": self.workers,
            "min_workers_every_tick": self.min_workers_every_tick,
            "delay_ticks": self.delay_ticks,
            "stride_ticks": self.stride_ticks,
            "acted_fraction": round(self.acted_fraction, 4),
            "tau_ms": {
                "mean": self.tau.mean_ns / 1e6,
                "p50": self.tau.p50_ns / 1e6,
                "p99": self.tau.p99_ns / 1e6,
                "max": self.tau.max_ns / 1e6,
                "planned_for": self.tau.planned_ns / 1e6,
                "planned_quantile": self.tau.planned_quantile,
                "device_time": self.tau.cost_ns / 1e6,
                "samples": self.tau.samples,
                "wanted_samples": self.tau.wanted_samples,
            },
            "tau_by_worker_ms": [tau_ns / 1e6 for tau_ns in self.tau.workers_ns],
            "slow_workers": list(self.slow_workers),
            "limit": self.limit,
        }

    def to_text(self) -> dict[str, Any]:
        """All of it as plain values. Inverse of `from_text`."""
        return asdict(self) | {"rate_hz": str(self.rate_hz)}

    @classmethod
    def from_text(cls, fields: dict[str, Any]) -> Plan:
        tau = fields["tau"] | {name: tuple(fields["tau"][name]) for name in ("times_ns", "workers_ns")}
        return cls(**fields | {"rate_hz": Fraction(fields["rate_hz"]), "tau": Tau(**tau)})

    def sentence(self, policy: str) -> str:
        """The plan in one sentence, with remarks."""
        tau = self.tau
        period_ms = float(1000 / self.rate_hz)
        what = "an action" if self.chunk == 1 else f"a chunk of {self.chunk} actions"
        every = "every tick" if self.stride_ticks == 1 else f"every {self.stride_ticks} ticks"
        if self.stagger == "free-running":
            every = f"from each every {self.delay_ticks} ticks, all at once"
        workers = counted(self.workers, "worker")
        text = (
            f"{policy}: tau p50 {tau.p50_ns / 1e6:.1f} / p99 {tau.p99_ns / 1e6:.1f} ms; {workers}, {self.stagger}: "
            f"{what} {every}, delay {self.delay_ticks} ticks ({self.delay_ticks * period_ms:.0f} ms)"
        )
        return ". ".join([text, *self.remarks()])

    def remarks(self) -> list[str]:
        """Sentences on what the numbers of the plan do not show."""
        tau, remarks = self.tau, []
        if tau.samples < tau.wanted_samples:
            remarks.append(
                f"The rehearsal's time was up after {tau.samples} of {tau.wanted_samples} inferences: its p99 is the "
                f"longest of {tau.samples}, and slower ones may come late"
            )
        if self.stagger == "max-time" and tau.planned_quantile < 0.99:
            remarks.append(
                f"The delay is made for p{100 * tau.planned_quantile:.0f} ({tau.planned_ns / 1e6:.1f} ms); slower "
                "ones come late"
            )
        if self.slow_workers:
            names = ", ".join(f"{index} ({tau.workers_ns[index] / 1e6:.1f} ms)" for index in self.slow_workers)
            remarks.append(f"Slow: worker{'s' if len(self.slow_workers) > 1 else ''} {names}")
        if self.acted_fraction < 0.995 * min(1.0, self.usable_chunk / self.stride_ticks):
            remarks.append(f"An action on {100 * self.acted_fraction:.0f}% of the ticks is expected")
        past = self.chunk - self.usable_chunk
        if self.chunk > 1 and self.chunk_from == "due":
            remarks.append(
                f"Action 0 of a chunk is for the tick it is due at, {self.delay_ticks} ticks after its frame: for a "
                "policy whose chunks begin at the frame (ACT, SmolVLA, pi0) give --chunk-from frame"
            )
        elif past:
            remarks.append(
                f"A chunk begins at its frame: its first {past} of {self.chunk} actions are past when it is due"
            )
        if self.usable_chunk > self.stride_ticks and self.stagger != "sequential":
            unused = self.usable_chunk - self.stride_ticks
            remarks.append(f"{unused} of {self.chunk} actions of a chunk are replaced by newer ones before their tick")
        if self.limit:
            remarks.append(self.limit)
        return remarks


def make_plan(
    stagger: Stagger,
    tau: Tau,
    rate_hz: Fraction,
    *,
    workers: int | None,
    max_workers: int,
    guard_ns: int,
    device_parallelism: float,
    chunk: int = 1,
    chunk_from: ChunkFrom = "due",
    replan_every: int = 0,
    on_late: OnLate = "apply",
    came_ns: Collection[int] = (),
) -> Plan:
    """How a run will go: number of workers, delay, stride, and why there is not an action at every tick.

    Args:
        stagger: How starts are spaced.
        tau: Measured inference times.
        rate_hz: The exact tick rate [Hz].
        workers: Number of processes; None: as many as an action at every tick takes.
        max_workers: The most that None may come to.
        guard_ns: Added to the inference time that the delay is made for [ns].
        device_parallelism: How many inferences the device runs at full speed at once (CPUs, or 1 per GPU). An inference
            that uses the device for `tau.cost_ns` can start every cost / (parallelism * period) ticks at best: more
            workers than that only slow each other down, and are not planned.
        chunk: Actions of one inference.
        chunk_from: Which tick the first of them is for.
        replan_every: The least ticks between two starts; 0: as long as a chunk lasts.
        on_late: What becomes of an action that comes after its tick.
        came_ns: Inference times in the order in which they will come [ns], where that is known beforehand.

    Returns:
        The plan.

    Raises:
        ConfigError: A chunk ends before it is due, or before the next one comes.
    """
    delay_every_tick = delay_for(tau.planned_ns, rate_hz, guard_ns)
    period_ns = whole_period_ns(rate_hz)
    device_stride = max(1, math.ceil(tau.cost_ns / (_USABLE_SHARE * device_parallelism * period_ns)))
    limit, usable = "", usable_chunk(chunk, chunk_from, delay_every_tick)
    if workers is None:
        workers, limit = _choose_workers(
            stagger,
            delay_every_tick,
            device_stride,
            max_workers=max_workers,
            tau=tau,
            usable=usable,
            replan_every=replan_every or usable,
        )
    tau = replace(tau, workers_ns=tau.workers_ns[:workers])
    usual_ns = tau.workers_ns if len(tau.workers_ns) == workers else ()
    fit = Times(
        stagger=stagger,
        ordered_ns=tau.ordered_ns,
        usual_ns=usual_ns,
        num_workers=workers,
        rate_hz=rate_hz,
        guard_ns=guard_ns,
        on_late=on_late,
        mean_ns=tau.usual_ns,
        chunk=chunk,
        came_ns=came_ns,
        chunk_from=chunk_from,
        replan_every=replan_every,
    ).fit()
    stride = fit.stride_ticks
    _require_chunk(chunk, chunk_from, fit.delay_ticks, replan_every)
    chunk_left = usable_chunk(chunk, chunk_from, fit.delay_ticks)
    enough = -(-delay_every_tick // usable)
    if workers < enough and not limit and stride > chunk_left and stagger in ("max-time", "expected-time"):
        limit = f"An action every tick takes {enough} workers."
    return Plan(
        stagger=stagger,
        workers=workers,
        min_workers_every_tick=enough if stride > chunk_left else min(enough, -(-fit.delay_ticks // chunk_left)),
        delay_ticks=fit.delay_ticks,
        stride_ticks=stride,
        acted_fraction=fit.acted_fraction,
        tau=tau,
        rate_hz=rate_hz,
        device_parallelism=device_parallelism,
        limit=limit,
        chunk=chunk,
        chunk_from=chunk_from,
    )


def usable_chunk(chunk: int, chunk_from: ChunkFrom, delay_ticks: int) -> int:
    """Actions of a chunk that are not past at its due tick; at least 1, as the last one is applied if it comes late."""
    return max(1, chunk - delay_ticks + 1) if chunk_from == "frame" else chunk


def _require_chunk(chunk: int, chunk_from: ChunkFrom, delay_ticks: int, replan_every: int) -> None:
    """ConfigError for a chunk that ends before it is due, or before the next one comes."""
    if chunk_from == "frame" and chunk < delay_ticks:
        raise ConfigError(
            f"chunk={chunk} with chunk_from=frame: an answer is due {delay_ticks} ticks after its frame, and its "
            f"{chunk} actions are past by then; expected a chunk of at least {delay_ticks}. Give a longer --chunk, a "
            "faster policy, or --chunk-from due"
        )
    left = usable_chunk(chunk, chunk_from, delay_ticks)
    if replan_every > left:
        raise ConfigError(
            f"replan_every={replan_every}: only {left} of the {chunk} actions of a chunk are left when it is due, "
            f"{delay_ticks} ticks after its frame; expected {left} at most, or there are ticks without an action"
        )


def _choose_workers(
    stagger: Stagger, delay: int, device_stride: int, *, max_workers: int, tau: Tau, usable: int, replan_every: int
) -> tuple[int, str]:
    if stagger == "sequential":
        return 1, ""
    # A chunk covers the ticks up to the next chunk: with more starts, actions would be thrown away.
    wanted = math.ceil(delay / max(device_stride, replan_every))
    if wanted > max_workers:
        every = "tick" if device_stride == 1 else f"{device_stride} ticks"
        return max_workers, f"An action every {every} takes {wanted} workers, --max-workers allows {max_workers}."
    if device_stride > usable:
        return wanted, (
            f"Every tick is out of reach: one inference uses the device for {tau.cost_ns / 1e6:.1f} ms, so it can "
            f"start one every {device_stride} ticks. A smaller policy or more devices would help."
        )
    return wanted, ""


def plan_of_player(delay_ticks: int, rate_hz: Fraction) -> Plan:
    """The plan of a `RealtimeEnv`. With as many places as the delay has ticks, a job can be booked at every tick."""
    return Plan(
        stagger="max-time",
        workers=delay_ticks,
        min_workers_every_tick=delay_ticks,
        delay_ticks=delay_ticks,
        stride_ticks=1,
        acted_fraction=1.0,
        tau=Tau.of([0], [0]),
        rate_hz=rate_hz,
        device_parallelism=1.0,
        limit="",
    )
