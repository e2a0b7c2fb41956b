"""The virtual clock: the runtime's own schedule, dispatch and tick loop, without processes or sleeping.

Time passes only where something is said to take time: an inference takes what its latency model says, the
world and the runtime take none. Same seed and same latencies: the same actions, bit for bit.
"""

from __future__ import annotations

import heapq
import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from rtcore.clock import ManualClock, TickGrid
from rtcore.config import RuntimeConfig
from rtcore.dispatch import Dispatcher, Entry
from rtcore.errors import ConfigError
from rtcore.latency import LatencyModel, parse_latency
from rtcore.planner import Plan, Tau, make_plan
from rtcore.recorder import Books, StatsRecorder
from rtcore.report.record import JobRow, RunRecord
from rtcore.report.summary import RunStats, WorkerStats, build_summary
from rtcore.ring import FrameHeader
from rtcore.schedule import Job, Schedule, ScheduleParams
from rtcore.stats import Histogram
from rtcore.tickloop import Answer, TickLoop
from rtcore.world import GymnasiumWorld, World

_PLAN_SAMPLES = 256


class SimPolicy(Protocol):
    """What the simulator needs of a policy: `rtcore_workers.policies.Policy` has it."""

    @property
    def observation(self) -> npt.NDArray[Any]: ...

    def act(self, *, frame_seq: int, out: npt.NDArray[Any]) -> None: ...


class Change(NamedTuple):
    """A worker that goes (`up` False) or comes back at a tick: fault cases for the schedule."""

    tick: int
    worker: int
    up: bool


class SimulatedWorkers:
    """Workers that are a heap of finishing times. Implements `tickloop.Workers`."""

    def __init__(
        self,
        clock: ManualClock,
        latency: Callable[[int, int], int],
        act: Callable[[int], bytes],
        stage: Callable[[Any], None],
        record: RunRecord,
        *,
        num_workers: int,
        chunk: int,
        changes: Sequence[Change] = (),
    ) -> None:
        self.inference = [Histogram() for _ in range(num_workers)]
        self._clock = clock
        self._latency = latency
        self._act = act
        self._stage = stage
        self._record = record
        self._chunk = chunk
        self._changes = sorted(changes)
        self._tick = -1
        self._frame_seq = -1
        self._frame_tick = -1
        self._episode = 0
        self._booked = 0
        self._done: list[tuple[int, int, Entry]] = []
        self._generation = [0] * num_workers
        self.inferences = [0] * num_workers

    def collect(self, tick: int) -> Iterable[Entry]:
        self._tick = tick
        found, now_ns = [], self._clock.now_ns()
        while self._done and self._done[0][0] <= now_ns:
            _, generation, entry = heapq.heappop(self._done)
            if generation // (1 << 32) == self._generation[entry.job.worker]:
                found.append(entry)
        return found

    def membership(self) -> Iterable[tuple[int, bool]]:
        changes = []
        while self._changes and self._changes[0].tick <= self._tick:
            change = self._changes.pop(0)
            if not change.up:
                self._generation[change.worker] += 1
            changes.append((change.worker, change.up))
        return changes

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        """Nothing to wake: `announce` comes at the same virtual instant."""

    def publish(self, frame: Any, header: tuple[Any, ...], action: bytes) -> int:
        self._frame_seq += 1
        row = FrameHeader(self._frame_seq, *header)
        self._frame_tick, self._episode = row.tick, row.episode
        self._record.add_tick(row, action)
        self._stage(frame)
        return self._frame_seq

    def prewake(self, worker: int) -> None:
        """Waking takes no virtual time."""

    def announce(self, jobs: Sequence[Job]) -> None:
        now_ns = self._clock.now_ns()
        for job in jobs:
            actions = self._act(self._frame_seq)
            end_ns = now_ns + self._latency(self._booked, self._frame_seq)
            payload = Answer(actions, job.worker, now_ns, now_ns, now_ns, now_ns, end_ns, end_ns, 0, 0, 0)
            entry = Entry(job, self._frame_tick, self._episode, self._chunk, payload)
            # Ties in time go to the older booking; the generation rides along in the upper half.
            order = (self._generation[job.worker] << 32) + self._booked
            heapq.heappush(self._done, (end_ns, order, entry))
            self.inference[job.worker].add(end_ns - now_ns)
            self.inferences[job.worker] += 1
            self._booked += 1


class Simulation:
    """A run on the virtual clock. `run` does it; then `stats`, `summary` and `record` say what happened.

    By default the world and the policy are built from the config, as in a real run. `world`, `policy` and
    `latency` (inference time [ns] of job n) take their place where a study needs others; `changes` are workers
    that go and come. Deterministic for a seed: no clock is read, no process started.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        *,
        world: World | None = None,
        policy: SimPolicy | None = None,
        latency: LatencyModel | None = None,
        rate_hz: Any = None,
        changes: Sequence[Change] = (),
    ) -> None:
        self.config = config
        self._own_world: GymnasiumWorld | None = None
        if world is None:
            self._own_world = _build_world(config)
            world = self._own_world
            rate_hz = rate_hz or self._own_world.env.metadata.get("render_fps")
        self.world = world
        self.rate_hz = config.rate_hz(rate_hz)
        self._clock = ManualClock()
        self._policy_clock = ManualClock()
        self._policy_name = "none"
        self._policy = policy
        if policy is None and self._own_world is not None:
            self._policy, self._policy_name = _build_policy(config, self._own_world, self._policy_clock)
        self._chosen_latency = latency or (parse_latency(config.latency, config.seed) if config.latency else None)
        self._last_policy_ns = 0
        self._actions = self._make_action_buffer()
        self.plan = self._make_plan()
        spec = self._own_world.action if self._own_world is not None else None
        self.record = RunRecord(config.out, lambda raw: _decode(spec, raw))
        self._books = Books.private(self._append_job)
        self._num_jobs = 0
        self.workers = SimulatedWorkers(
            self._clock,
            self._latency_ns,
            self._act,
            self._stage,
            self.record,
            num_workers=self.plan.workers,
            chunk=config.chunk,
            changes=changes,
        )
        self.schedule = self._make_schedule()
        self.loop = TickLoop(
            world,
            TickGrid(0, self.rate_hz),
            self._clock,
            self.schedule,
            Dispatcher(config.on_late),
            self.workers,
            StatsRecorder(self._books, self.schedule, int(1e9 / self.rate_hz), 0),
            chunk=config.chunk,
            on_reset=config.on_reset,
        )

    def run(self, on_tick: Callable[[int], None] | None = None) -> Simulation:
        """All ticks of the config; `on_tick` is called after each."""
        for _ in range(self.config.num_ticks(self.rate_hz)):
            self.loop.run_tick()
            if on_tick is not None:
                on_tick(self.loop.tick)
        self.loop.finish()
        self.record.close()
        return self

    def stats(self) -> RunStats:
        """As of a real run; times are virtual."""
        none = Histogram().snapshot()
        workers = [
            WorkerStats(index, -1, "virtual", self.workers.inferences[index], shape.snapshot(), none, 0, 0, math.nan)
            for index, shape in enumerate(self.workers.inference)
        ]
        return RunStats(
            plan=self.plan,
            rate_hz=self.rate_hz,
            clock="virtual",
            counters=self._books.counters.to_dict(),
            distributions={name: shape.snapshot() for name, shape in self._books.histograms.items()},
            workers=workers,
            episode_returns=list(self.record.episode_returns),
            policy=self._policy_name,
            delay_ticks=self.schedule.delay_ticks,
            stride_ticks=self.schedule.stride_ticks,
            num_up=self.schedule.num_up,
            env={"env_id": self.config.env_id},
        )

    def summary(self) -> dict[str, Any]:
        """The content of summary.json."""
        return build_summary(self.stats()) | {"leftover_shared_memory": []}

    def close(self) -> None:
        self.record.close()
        if self._own_world is not None:
            self._own_world.close()

    # -- the parts -----------------------------------------------------------------------------------------

    def _make_action_buffer(self) -> npt.NDArray[Any]:
        if self._own_world is None:
            return np.frombuffer(bytearray(self.world.encode(self.world.stand_in()[0])), np.uint8)
        spec = self._own_world.action
        return np.zeros((self.config.chunk, *spec.shape), spec.np_dtype)

    def _stage(self, frame: Any) -> None:
        if self._policy is not None:
            np.copyto(self._policy.observation, frame)

    def _act(self, frame_seq: int) -> bytes:
        if self._policy is not None:
            before_ns = self._policy_clock.now_ns()
            self._policy.act(frame_seq=frame_seq, out=self._actions)
            self._last_policy_ns = self._policy_clock.now_ns() - before_ns
        return self._actions.tobytes()

    def _latency_ns(self, job: int, frame_seq: int) -> int:
        """The chosen model's time, else what the policy just said it takes (synthetic, or padded)."""
        return self._chosen_latency(job) if self._chosen_latency is not None else self._last_policy_ns

    def _make_plan(self) -> Plan:
        taus = []
        for number in range(_PLAN_SAMPLES if self._chosen_latency is not None else 32):
            if self._chosen_latency is None:
                self._act(number)
            taus.append(self._latency_ns(number, number))
        if self._chosen_latency is None and max(taus) == 0 and self.config.policy != "random":
            raise ConfigError(
                f"the virtual clock does not know how long {self.config.policy!r} takes: give --latency constant:58.9 "
                "(or normal:, lognormal:, trace:), or the policy's pad_ms"
            )
        return make_plan(
            self.config.stagger,
            Tau.of(taus, [0]),
            self.rate_hz,
            workers=None if self.config.workers == "auto" else self.config.workers,
            max_workers=self.config.max_workers,
            guard_ns=int((self.config.guard_ms or 0) * 1e6),
            device_parallelism=math.inf,
            chunk=self.config.chunk,
        )

    def _make_schedule(self) -> Schedule:
        params = ScheduleParams(
            stagger=self.config.stagger,
            rate_hz=self.rate_hz,
            delay_ticks=self.plan.delay_ticks,
            tau_mean_ns=self.plan.tau.mean_ns,
            guard_ns=int((self.config.guard_ms or 0) * 1e6),
            tau_estimate=self.config.tau_estimate,
        )
        return Schedule(params, self.plan.workers)

    def _append_job(self, fields: tuple[int, ...]) -> None:
        self.record.add_job(JobRow(self._num_jobs, *fields))
        self._num_jobs += 1


def _decode(spec: Any, raw: bytes) -> Any:
    if spec is None:
        return raw.hex()
    return spec.decode(np.frombuffer(raw, spec.np_dtype).reshape(spec.shape))


def _build_world(config: RuntimeConfig) -> GymnasiumWorld:
    world: GymnasiumWorld = _entry("rtcore_workers.environment", "build_world")(config)
    return world


def _build_policy(config: RuntimeConfig, world: GymnasiumWorld, clock: ManualClock) -> tuple[SimPolicy, str]:
    policy = _entry("rtcore_workers.policies", "load_policy")(
        config.policy,
        dict(config.policy_args),
        world.observation,
        world.action,
        seed=config.seed,
        worker_index=0,
        device=config.device,
        chunk=config.chunk,
        clock=clock,
    )
    return policy, policy.info.describe()


def _entry(module: str, name: str) -> Any:
    """rtcore names what lives in rtcore_workers by import string: imports run the other way."""
    return getattr(importlib.import_module(module), name)
