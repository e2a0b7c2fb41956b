"""Before tick 0: the workers run as they will run, are timed, and the plan is made from that.

Nothing here talks to a process: the supervisor lends what it takes (`Crew`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

from rtcore.clock import NS_PER_S, Clock
from rtcore.config import RuntimeConfig
from rtcore.planner import Plan, Tau, make_plan
from rtcore.report.record import Drain
from rtcore.shared import Phase, SharedRun

_MIN_REHEARSAL_NS = 700_000_000
_MAX_REHEARSAL_NS = 12_000_000_000
_REHEARSAL_SAMPLES = 40
_PLAN_ROUNDS = 5


class Crew(Protocol):
    """What rehearsing takes of the supervisor."""

    config: RuntimeConfig
    policy_info: dict[str, Any]
    env_info: dict[str, Any]
    rate_hz: Fraction

    @property
    def shared(self) -> SharedRun: ...
    def start_workers(self, indices: range) -> None: ...
    def retire(self, index: int) -> None: ...
    def set_phase(self, phase: Phase, plan: Plan, num_workers: int) -> int: ...
    def enter(self, phase: str, line: str) -> None: ...
    def wait_until(
        self,
        done: Callable[[], bool],
        what: str | Callable[[], str],
        timeout_s: float,
        doing: Callable[[], str] | None = None,
    ) -> None: ...


class Rehearsal:
    """Finds the plan of a run whose world and first workers are up."""

    def __init__(self, crew: Crew, clock: Clock) -> None:
        self._crew = crew
        self._config = crew.config
        self._clock = clock

    def plan(self, num_workers: int) -> Plan:
        """Rehearse with the workers there are, plan, and with `auto` start more until the plan holds."""
        crew = self._crew
        auto = self._config.workers == "auto"
        warm = (crew.policy_info.get("warmup_ns") or [0])[-1]
        tau = Tau.of([warm], [0])
        if auto:
            guess = self._make_plan(tau, None).workers
            if guess > num_workers:
                crew.start_workers(range(num_workers, guess))
                num_workers = guess
        plan = self._make_plan(tau, num_workers)
        for _ in range(_PLAN_ROUNDS):
            tau = self._rehearse(plan, num_workers)
            plan = self._make_plan(tau, None if auto else num_workers)
            if plan.workers <= num_workers:
                break
            crew.start_workers(range(num_workers, plan.workers))
            num_workers = plan.workers
        for index in range(plan.workers, num_workers):
            crew.retire(index)
        return plan

    def _make_plan(self, tau: Tau, workers: int | None) -> Plan:
        rate_hz = self._crew.rate_hz
        return make_plan(
            self._config.stagger,
            tau,
            rate_hz,
            workers=workers,
            max_workers=self._config.max_workers,
            guard_ns=self._config.guard_ns(rate_hz),
            device_parallelism=self._device_parallelism(),
            chunk=self._config.chunk,
            on_late=self._config.on_late,
        )

    def _device_parallelism(self) -> float:
        info = self._crew.policy_info
        device = str(info.get("device", "cpu"))
        if device.startswith("cuda"):
            named = self._config.device.count("cuda:")
            return float(max(1, named or int(info.get("num_gpus", 1))))
        return float(len(os.sched_getaffinity(0)))

    def _step_ns(self) -> int:
        """The world stood still in the rehearsal: in the run a frame is there one step later.

        On a grid that is stretched a step takes a period at most: what is longer puts the ticks off.
        """
        step_ns = int(self._crew.env_info["step_ns"])
        return min(step_ns, int(NS_PER_S / self._crew.rate_hz)) if self._config.overrun == "stretch" else step_ns

    def _rehearse(self, plan: Plan, num_workers: int) -> Tau:
        """Run the workers as planned on the world's first frame; returns the inference times seen."""
        crew, startup_s = self._crew, self._config.startup_timeout_s
        crew.enter("rehearsal", f"rehearsing with {num_workers} worker{'s' if num_workers != 1 else ''}")
        phase_seq = crew.set_phase(Phase.REHEARSE, plan, num_workers)
        drain = Drain(crew.shared, phase_seq)
        taus: dict[int, list[int]] = {}
        costs: list[int] = []
        start_ns = self._clock.now_ns()
        wanted = max(_REHEARSAL_SAMPLES, 2 * num_workers)
        rounds_ns = 3 * plan.tau.p50_ns + _MIN_REHEARSAL_NS

        def enough() -> bool:
            for row in drain.jobs():
                if row.write_ns:
                    taus.append(row.write_ns - row.booked_ns + self._step_ns())
                    costs.append(row.cpu_ns)
            elapsed_ns = self._clock.now_ns() - start_ns
            return bool(taus) and (
                (elapsed_ns > rounds_ns and len(taus) >= wanted) or elapsed_ns > max(_MAX_REHEARSAL_NS, 4 * taus[0])
            )

        def doing() -> str:
            return f"rehearsing: {min(len(taus), wanted)} of {wanted} inferences"

        crew.wait_until(enough, "the rehearsal: no worker delivered an action", startup_s, doing)
        phase_seq = crew.set_phase(Phase.IDLE, plan, num_workers)
        crew.wait_until(lambda: crew.shared.env_status["phase_seen"] == phase_seq, "the world", startup_s)
        return Tau.of(taus, costs)
