"""Before tick 0: the workers run as they will run, are timed, and the plan is made from that.

Nothing here talks to a process: the supervisor does that (`RehearsedRun`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

from rtcore.clock import NS_PER_MS, NS_PER_S, Clock
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import counted
from rtcore.host.cpus import usable_cpus
from rtcore.memory.shared import Phase, SharedRun
from rtcore.messages import WorldSpec
from rtcore.results.run_record import Drain
from rtcore.results.startup import Text
from rtcore.scheduling.planner import Plan, Tau, make_plan

_log = logging.getLogger(__name__)

_MIN_ROUND_NS = 700_000_000
#: Where inferences are slow it lasts as long as three of them, but no longer than this for their sake: each worker has
#: answered twice.
_MAX_SETTLING_NS = 1_500_000_000
#: A round ends after so long, unless the inferences themselves take longer.
_MAX_ROUND_NS = 4_000_000_000
#: With one worker, whose inferences come one after the other: they are in nobody's way, and differ less. The run
#: measures on and plans anew, and whoever starts it waits for this.
_MAX_ROUND_ALONE_NS = 1_000_000_000
_ROUND_SAMPLES = 40
#: No further workers are tried when planning has taken so long.
_MAX_PLANNING_NS = 10_000_000_000
#: Additional workers must bring at least this share of the answers that they would bring on an idle machine.
_LEAST_GAIN = 0.5


class Round(NamedTuple):
    """What a rehearsal with so many workers came to."""

    workers: int
    tau: Tau
    answers_per_s: float


class Growth:
    """How many workers to try next, for `--workers auto`, where at most `rate_hz` jobs are booked a second. Pure.

    Where the CPUs are full, each worker slows all others down, so that the times of any number of workers seem to call
    for more workers. So their number is at most doubled at a time, and workers that bring no more answers are retired.
    """

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        #: Why it ended before there were as many workers as the plan wants; "" if it did not.
        self.why = ""
        self._before: Round | None = None

    def after(self, tried: Round, wanted: int, *, elapsed_ns: int) -> Round | int:
        """The number of workers to go on to, or the round to keep. `wanted`: workers, by what `tried` has measured."""
        before, self._before = self._before, tried
        if before is not None:
            # One job is booked a tick: who answers all of them cannot answer more.
            ideal = min(before.answers_per_s * tried.workers / before.workers, self._rate_hz) - before.answers_per_s
            gain = tried.answers_per_s - before.answers_per_s
            if ideal > 0 and gain < _LEAST_GAIN * ideal:
                self.why = (
                    f"{tried.workers} workers answer {tried.answers_per_s:.1f} times a second and {before.workers} "
                    f"{before.answers_per_s:.1f} times: the CPUs are full, more workers would not act more often"
                )
                return before
        if wanted <= tried.workers:
            return tried
        if elapsed_ns > _MAX_PLANNING_NS:
            self.why = f"planned after {elapsed_ns / 1e9:.0f} s with what was started; {wanted} workers might act more"
            return tried
        return min(wanted, 2 * tried.workers)


class RehearsedRun(Protocol):
    """What a rehearsal needs of the supervisor."""

    policy_info: dict[str, Any]
    world: WorldSpec

    @property
    def resolved(self) -> ResolvedRun: ...
    @property
    def shared(self) -> SharedRun: ...
    def start_workers(self, indices: range) -> None: ...
    def retire(self, index: int) -> None: ...
    def set_phase(self, phase: Phase, plan: Plan, num_workers: int) -> int: ...
    def enter(self, phase: str, line: str) -> None: ...
    def wait_until(self, done: Callable[[], bool], what: Text, limit_s: float, doing: Text | None = None) -> None: ...


class Rehearsal:
    """Finds the plan of a run whose world and first workers are up."""

    def __init__(self, run: RehearsedRun, clock: Clock) -> None:
        self._run = run
        self._resolved = run.resolved
        self._config = run.resolved.config
        self._clock = clock
        #: From each booking of a head to its answer, in the last round [ns].
        self._head_ns: list[int] = []

    def plan(self, num_workers: int) -> Plan:
        """Rehearse with the workers there are, plan, and with `auto` start more while that helps."""
        tau = Tau.of([min(self._run.policy_info.get("warmup_ns") or [0])], [0])
        if self._config.schedule.workers == "auto":
            plan = self._grow(tau, num_workers)
        else:
            tried = self._rehearse(self._make_plan(tau, num_workers), num_workers)
            plan = self._make_plan(tried.tau, num_workers)
        if self._config.learning.learn is not None and self._config.learning.mode != "async":
            updates = "Each inference has an update beside it, whose time is not in this plan."
            plan = replace(plan, limit=f"{plan.limit} {updates}".strip())
        if self._head_ns:
            plan = replace(plan, limit=f"{plan.limit} {self._about_head(self._head_ns)}".strip())
        return plan

    def _about_head(self, times_ns: list[int]) -> str:
        """Whether the head answers within a tick, as it must."""
        usual_ns, period_ns = sorted(times_ns)[len(times_ns) * 9 // 10], self._resolved.period_ns
        times = (
            f"it takes {usual_ns / NS_PER_MS:.1f} ms (90% of the time at most), a tick is {period_ns / NS_PER_MS:.1f}"
        )
        if usual_ns <= period_ns:
            return f"The head fits a tick: {times}."
        return f"The head does not fit a tick: {times}; where it is late, its last action goes on."

    def _grow(self, tau: Tau, num_workers: int) -> Plan:
        run, growth, begun_ns = self._run, Growth(float(self._resolved.rate_hz)), self._clock.now_ns()
        goal: Round | int = max(num_workers, self._make_plan(tau, None).workers)
        while isinstance(goal, int):
            if goal > num_workers:
                run.start_workers(range(num_workers, goal))
            num_workers = goal
            tried = self._rehearse(self._make_plan(tau, num_workers), num_workers)
            tau, wanted = tried.tau, self._make_plan(tried.tau, None).workers
            goal = growth.after(tried, wanted, elapsed_ns=self._clock.now_ns() - begun_ns)
        if growth.why:
            _log.info(growth.why)
        free = self._make_plan(goal.tau, None)
        # Not fewer than half of those that were tried: what was measured was measured with all of them.
        kept = max(min(goal.workers, free.workers), -(-num_workers // 2))
        for index in range(kept, num_workers):
            run.retire(index)
        plan = free if kept == free.workers else self._make_plan(goal.tau, kept)
        return replace(plan, limit=f"{growth.why}.") if growth.why else plan

    def _make_plan(self, tau: Tau, workers: int | None) -> Plan:
        return make_plan(
            self._config.schedule.stagger,
            tau,
            self._resolved.rate_hz,
            workers=workers,
            max_workers=self._config.schedule.max_workers,
            guard_ns=self._resolved.guard_ns,
            device_parallelism=self._device_parallelism(),
            chunk=self._config.agent.chunk,
            chunk_from=self._config.agent.chunk_from,
            replan_every=self._config.schedule.replan_every or 0,
            on_late=self._config.schedule.on_late,
        )

    def _device_parallelism(self) -> float:
        info = self._run.policy_info
        device = str(info.get("device", "cpu"))
        if device.startswith("cuda"):
            named = sum(name.startswith("cuda:") for name in self._resolved.devices)
            return float(max(1, named or int(info.get("num_gpus", 1))))
        return usable_cpus()

    def _step_ns(self) -> int:
        """The world stood still in the rehearsal: in the run a frame is there one step later.

        On a grid that is stretched a step takes a period at most: what is longer puts the ticks off.
        """
        step_ns = self._run.world.step_ns or 0
        return min(step_ns, self._resolved.period_ns) if self._config.world.overrun == "stretch" else step_ns

    def _rehearse(self, plan: Plan, num_workers: int) -> Round:
        """Run the workers as planned on the world's first frame; returns what was measured."""
        run, startup_s = self._run, self._config.faults.startup_timeout_s
        run.enter("rehearsal", f"rehearsing with {counted(num_workers, 'worker')}")
        phase_seq = run.set_phase(Phase.REHEARSE, plan, num_workers)
        drain = Drain(run.shared, phase_seq)
        taus: dict[int, list[int]] = {}
        costs: list[int] = []
        self._head_ns = head_ns = []
        answered_ns: list[int] = []
        start_ns = self._clock.now_ns()
        wanted = max(_ROUND_SAMPLES, 2 * num_workers)

        def enough() -> bool:
            for row in drain.jobs():
                if row.write_ns and row.worker == self._resolved.head_place:
                    head_ns.append(row.write_ns - row.booked_ns + self._step_ns())
                elif row.write_ns:
                    taus.setdefault(row.worker, []).append(row.write_ns - row.booked_ns + self._step_ns())
                    costs.append(row.cpu_ns)
                    answered_ns.append(row.write_ns)
            if not costs:
                return False
            elapsed_ns = self._clock.now_ns() - start_ns
            first_ns = min(times[0] for times in taus.values())
            if len(costs) >= wanted and len(taus) == num_workers:
                return elapsed_ns > _MIN_ROUND_NS + min(3 * first_ns, _MAX_SETTLING_NS)
            return elapsed_ns > max(_MAX_ROUND_NS if num_workers > 1 else _MAX_ROUND_ALONE_NS, 4 * first_ns)

        def doing() -> str:
            return f"rehearsing: {min(len(costs), wanted)} of {wanted} inferences"

        run.wait_until(enough, "the rehearsal: no worker delivered an action", startup_s, doing)
        phase_seq = run.set_phase(Phase.IDLE, plan, num_workers)
        run.wait_until(lambda: run.shared.env_status["phase_seen"] == phase_seq, "the world", startup_s)
        if silent := sorted(set(range(num_workers)) - taus.keys()):
            names = ", ".join(map(str, silent))
            _log.warning(f"the rehearsal's time was up before these workers had answered: {names}")
        tau = Tau.of([tau_ns for times in taus.values() for tau_ns in times], costs, taus)
        return Round(num_workers, replace(tau, wanted_samples=wanted), _per_second(answered_ns))


def _per_second(answered_ns: list[int]) -> float:
    first_ns, last_ns = min(answered_ns), max(answered_ns)
    return (len(answered_ns) - 1) * NS_PER_S / max(1, last_ns - first_ns)
