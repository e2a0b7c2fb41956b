"""What is possible, before the run: how many workers, which delay, which stride, or why not. Pure.

Fed with what a rehearsal measured: inference times with all workers running, and the CPU (or GPU) time each
inference really uses, since workers share the device.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from rtcore.schedule import Stagger, delay_for, settle_delay, stride_for

#: The share of the device that inference may fill: the rest is the world's, the system's, and luck.
_USABLE_SHARE = 0.85
#: The longest inference planned for: the highest of these quantiles that is no hiccup's, that is, not above
#: 1.5 medians and 2 ms. Rarer times come late and are counted; lasting ones are adapted to during the run.
_TAU_QUANTILES = (0.99, 0.95, 0.9, 0.75)
_HICCUP_FACTOR = 1.5
_HICCUP_NS = 2_000_000


@dataclass(frozen=True)
class Tau:
    """Inference time, from the deadline of the tick a worker was booked at to its action in the slot."""

    mean_ns: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    cost_ns: int  #: device time one inference uses (median)
    samples: int
    usual_ns: int = 0  #: 75% quantile; 0: as the median

    @classmethod
    def of(cls, taus_ns: Sequence[int], costs_ns: Sequence[int]) -> Tau:
        """From a rehearsal's samples (at least one)."""
        ordered = sorted(taus_ns)
        last = len(ordered) - 1
        p50_ns = ordered[last // 2]
        usual_ns = int(_HICCUP_FACTOR * p50_ns) + _HICCUP_NS
        quantiles = [ordered[min(last, math.ceil(q * len(ordered)))] for q in _TAU_QUANTILES]
        high = next((value for value in quantiles if value <= usual_ns), quantiles[-1])
        costs = sorted(costs_ns) or [0]
        return cls(
            mean_ns=sum(ordered) // len(ordered),
            p50_ns=p50_ns,
            p99_ns=high,
            max_ns=ordered[-1],
            usual_ns=quantiles[-1],
            cost_ns=costs[len(costs) // 2],
            samples=len(ordered),
        )


@dataclass(frozen=True)
class Plan:
    """How a run will go if inference takes what it took in the rehearsal."""

    stagger: Stagger
    workers: int
    min_workers_every_tick: int
    delay_ticks: int
    stride_ticks: int
    acted_fraction: float
    tau: Tau
    rate_hz: Fraction
    device_parallelism: float
    limit: str  #: why not every tick; "" if every tick

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
                "device_time": self.tau.cost_ns / 1e6,
                "samples": self.tau.samples,
            },
            "limit": self.limit,
        }

    def to_text(self) -> dict[str, Any]:
        """All of it as plain values; `from_text` gives the plan back."""
        return asdict(self) | {"rate_hz": str(self.rate_hz)}

    @classmethod
    def from_text(cls, fields: dict[str, Any]) -> Plan:
        return cls(**fields | {"rate_hz": Fraction(fields["rate_hz"]), "tau": Tau(**fields["tau"])})

    def sentence(self, policy: str) -> str:
        """The plan in words."""
        tau = self.tau
        period_ms = float(1000 / self.rate_hz)
        every = "every tick" if self.stride_ticks == 1 else f"every {self.stride_ticks} ticks"
        if self.stagger == "free-running":
            every = f"from each every {self.delay_ticks} ticks, all at once"
        workers = f"{self.workers} worker{'s' if self.workers != 1 else ''}"
        text = (
            f"{policy}: tau p50 {tau.p50_ns / 1e6:.1f} / p99 {tau.p99_ns / 1e6:.1f} ms; {workers}, {self.stagger}: "
            f"an action {every}, delay {self.delay_ticks} ticks ({self.delay_ticks * period_ms:.0f} ms)"
        )
        return f"{text}. {self.limit}" if self.limit else text


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
) -> Plan:
    """The plan for `workers` processes, or (None) for as many as give an action every tick.

    `device_parallelism`: how many inferences the device runs at full speed at once (CPUs, or 1 per GPU). An
    inference that uses the device for `cost_ns` can start every cost/(parallelism*T) ticks at best: more
    workers than that only make each other slower, and are not planned.
    """
    delay = delay_for(tau.p99_ns, rate_hz, guard_ns)
    period_ns = 1e9 / float(rate_hz)
    device_stride = max(1, math.ceil(tau.cost_ns / (_USABLE_SHARE * device_parallelism * period_ns)))
    limit = ""
    if workers is None:
        workers, limit = _choose_workers(stagger, delay, device_stride, max_workers, tau)
    delay_every_tick, delay = delay, settle_delay(delay, delay_for(tau.usual_ns or tau.p50_ns, rate_hz), workers)
    mean_delay = delay_for(tau.mean_ns, rate_hz)
    stride = stride_for(stagger, delay, workers, tau.mean_ns, rate_hz)
    if workers < delay and not limit and stride > 1 and stagger in ("max-time", "expected-time"):
        limit = f"An action every tick takes {delay_every_tick} workers."
    return Plan(
        stagger=stagger,
        workers=workers,
        min_workers_every_tick=delay_every_tick if stride > 1 else min(delay_every_tick, delay),
        delay_ticks=delay if stagger == "max-time" else mean_delay,
        stride_ticks=stride,
        acted_fraction=_acted_fraction(stagger, stride, mean_delay, chunk),
        tau=tau,
        rate_hz=rate_hz,
        device_parallelism=device_parallelism,
        limit=limit,
    )


def _choose_workers(stagger: Stagger, delay: int, device_stride: int, max_workers: int, tau: Tau) -> tuple[int, str]:
    if stagger == "sequential":
        return 1, ""
    wanted = math.ceil(delay / device_stride)
    if wanted > max_workers:
        every = "tick" if device_stride == 1 else f"{device_stride} ticks"
        return max_workers, f"An action every {every} takes {wanted} workers, --max-workers allows {max_workers}."
    if device_stride > 1:
        return wanted, (
            f"Every tick is out of reach: one inference uses the device for {tau.cost_ns / 1e6:.1f} ms, so it can "
            f"start one every {device_stride} ticks. A smaller policy or more devices would help."
        )
    return wanted, ""


def _acted_fraction(stagger: Stagger, stride: int, mean_delay: int, chunk: int) -> float:
    """Theory, for constant inference times: one action (chunk) a stride; all at once every delay if unstaggered."""
    interval = mean_delay if stagger == "free-running" else stride
    return min(1.0, chunk / interval)
