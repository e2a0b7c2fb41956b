"""One made-up run: rtcore's own tick loop, schedule, dispatcher, slots, rings, supervision and replay memory, in plain
memory, on a made-up machine. What is made up: processes, their times, the world, and what goes wrong.
"""

from __future__ import annotations

import random
import struct
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from rtcore.clock import NS_PER_MS, TickGrid
from rtcore.errors import RtcoreError
from rtcore.host.watchdog import Watchdog
from rtcore.learn.replay_memory import TransitionReader
from rtcore.learn.transitions import Transition, TransitionBuilder
from rtcore.loop.counting import Books, StatsRecorder
from rtcore.loop.tick import Tick
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.workers import SharedWorkers
from rtcore.loop.world import StepResult
from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.payload import PayloadMemory, format_payload, layout_of_payload
from rtcore.memory.ring import SequenceRing
from rtcore.memory.segments import Segment, SegmentPart, part_bytes, parts_of
from rtcore.memory.shared import Phase, SharedRun, next_order
from rtcore.memory.waiting import Waker
from rtcore.messages import EnvironmentReady, WorldSpec
from rtcore.processes.environment import EnvironmentProcess
from rtcore.processes.launcher import Child, MakeBoot, RunParts
from rtcore.processes.supervisor import Supervisor
from rtcore.processes.workers import WorkerProcesses
from rtcore.results.run_record import Drain, RunRecord
from rtcore.scheduling.dispatch import Dispatcher, Invariant, Source
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.scheduling.schedule import Schedule
from rtcore.spaces import ActionSpec, Block, ObservationSpec, PolicyNeeds
from rtcore.torture.machine import IDLE_BEAT_NS, Inference, Machine, Process, Worker
from rtcore.torture.scenario import Fault, Scenario

_OBSERVATION = ObservationSpec((), "int64", (0,), (2**62,))
ACTION = ActionSpec((), "int64", (0,), (2**62,), "discrete")
_SUPERVISE_NS, _DRAIN_NS = 50 * NS_PER_MS, 150 * NS_PER_MS
_EPOCH_NS = 20 * NS_PER_MS
_HOOKS = ("tick", "booked", "written", "answers", "membership", "ended", "killed", "failed")
_CRC_OF_VERSION = 0x9E3779B1
GAMMA = 0.97


class Violation(Exception):
    """A promise was broken. `check`: which."""

    def __init__(self, check: str, text: str) -> None:
        super().__init__(f"{check}: {text}")
        self.check = check


class World:
    """Each frame is a number. Episodes end at ticks that the seed says; a step takes time where a fault says so."""

    def __init__(self, machine: Machine, scenario: Scenario) -> None:
        self.noop = 0
        self.on_missing = scenario.settings["on_missing"]
        self.steps = self.resets = 0
        self.tick = -1  #: the one that runs; told by the run
        self.slow_step_ns = self.slow_reset_ns = 0
        self.last_given: Any = 0
        self.last_call = ""
        self._machine, self._scenario = machine, scenario
        self._rng = random.Random(scenario.seed ^ 0x5EED)
        self._end = 1 / scenario.episode_ticks
        self._frame = np.zeros((), np.int64)
        self._last = 0

    def _takes(self, extra_ns: int) -> None:
        self._machine.compute(self._scenario.cost_ns + extra_ns)

    def reset(self) -> StepResult:
        self.last_call, self.resets, self._last = "reset", self.resets + 1, 0
        self._frame = self._frame + 1
        extra_ns, self.slow_reset_ns = self.slow_reset_ns, 0
        self._takes(extra_ns)
        return StepResult(self._frame, 0.0, False, False)

    def hold(self) -> StepResult:
        self.last_call = "hold"
        return StepResult(self._frame, 0.0, False, False)

    def step(self, action: Any, *, is_free: bool = False) -> StepResult:
        self.last_call, self.steps, self.last_given, self._last = "step", self.steps + 1, action, action
        self._frame = self._frame + 1
        extra_ns, self.slow_step_ns = self.slow_step_ns, 0
        self._takes(extra_ns)
        # By the tick, and not by how many numbers were drawn before: so the twin without faults has the same ends.
        self._rng.seed(self._scenario.seed * 1_000_003 + self.tick)
        draw = self._rng.random
        ends, terminates, reward = draw() < self._end, draw() < 0.5, draw()
        return StepResult(self._frame, reward, ends and terminates, ends and not terminates)

    def stand_in(self) -> tuple[Any, Source]:
        return (self._last, Source.REPEAT) if self.on_missing == "repeat" else (self.noop, Source.NOOP)

    def encode(self, action: Any) -> bytes:
        return int(action).to_bytes(8, "little")

    def decode(self, payload: bytes, index: int) -> Any:
        return int.from_bytes(payload[8 * index : 8 * index + 8], "little")


class LoopClock:
    """The tick loop's: each look at it takes a little time, in which others go on."""

    def __init__(self, machine: Machine, scenario: Scenario) -> None:
        self.before_spin: Any = None
        self.oversleeps_ns = 0  #: the next time
        self._machine, self._cost_ns = machine, scenario.cost_ns
        self._early_ns = min(2 * NS_PER_MS, scenario.period_ns // 4)

    def now_ns(self) -> int:
        machine = self._machine
        if self._cost_ns:
            machine.compute(self._cost_ns)
        return machine.now_ns()

    def sleep_until_ns(self, deadline_ns: int) -> None:
        machine = self._machine
        if deadline_ns - self._early_ns > machine.now_ns():
            machine.sleep_until_ns(deadline_ns - self._early_ns)
            self.before_spin()
        machine.sleep_until_ns(deadline_ns)
        late_ns, self.oversleeps_ns = self.oversleeps_ns, 0
        if late_ns:
            machine.compute(late_ns)


class Memory(Segment):
    """A segment in plain memory."""

    def __init__(self, name: str, num_bytes: int) -> None:
        self.name = name
        self.buf = memoryview(bytearray(num_bytes))


class PlainRun(SharedRun):
    """The memory of a run, of this process alone."""

    def __init__(self, layout: Layout, needs: PolicyNeeds) -> None:
        segments: dict[SegmentPart, Segment] = {
            part: Memory(part, part_bytes(layout, part)) for part in parts_of(layout)
        }
        for part in ("ring", "log", "description"):
            SequenceRing.over(segments[part].buf, layout.ring_control_at, layout.ring_slots).format()
        super().__init__("made up", segments, layout, _OBSERVATION)
        if needs:
            of_payload = layout_of_payload(needs, ACTION, layout)
            buffer = memoryview(bytearray(of_payload.num_bytes))
            format_payload(buffer, of_payload, needs, ACTION)
            self.payload = PayloadMemory(buffer, of_payload)
            self.payload.join(self.jobs, self.slots, self.ring)
            self.run_control["has_payload"] = 1


class PretendedWaker(Waker):
    """Wakes made-up workers: they look at once."""

    def __init__(self, processes: Mapping[int, Worker]) -> None:
        self._processes = processes

    def ahead(self, workers: Sequence[int]) -> None:
        for index in workers:
            if index in self._processes:
                self._processes[index].wake()

    for_jobs = for_frame = ahead


class PretendedLauncher:
    """`poll` tells of the children that something happened to."""

    importing = ""

    def __init__(self) -> None:
        self.touched: deque[Child] = deque()

    def poll(self, timeout_s: float) -> list[Child]:
        touched = list(dict.fromkeys(self.touched))
        self.touched.clear()
        return touched


class PretendedSupervisor(Supervisor):
    """The supervising loop of a run that is under way, by the machine's time."""

    def __init__(self, simulation: Simulation) -> None:
        scenario = simulation.scenario
        super().__init__(scenario.run.config)
        self._clock = clock = simulation.machine  # type: ignore[assignment]
        self._watchdog = watchdog = Watchdog(clock)
        self._resolved, self._shared, self.plan = scenario.run, simulation.shared, scenario.plan
        self.launcher = PretendedLauncher()
        self._launcher = self.launcher  # type: ignore[assignment]
        world = WorldSpec(
            "made up",
            _OBSERVATION,
            ACTION,
            rate_hz=str(scenario.rate_hz),
            seed=0,
            noop="0",
            noop_value=0,
            noop_source="made up",
            own={},
            notes=[],
            leaves_space="",
        )
        self._parts = RunParts(
            scenario.run, self.run_id, simulation.shared, world=world, clock=clock, watchdog=watchdog
        )
        self._workers = WorkerProcesses(
            self._parts,
            simulation.launch,
            simulation.launch,
            lambda *_: None,
            restarted=lambda: None,
            leaves_space=lambda what: None,
        )
        env = Process("env", 0, 0, pid=1, ready=EnvironmentReady({}))
        env.on_kill = lambda: simulation.broke("NoFalseAlarm", "the env process was killed")
        self._env = EnvironmentProcess(env, scenario.run.config, clock, watchdog)
        self._env.begin_watching(scenario.run, simulation.shared)


class ObservedWorkers(SharedWorkers):
    """Tells the checks; and lets time pass where it does on a machine: losses are noticed after answers are."""

    simulation: Simulation

    def collect(self, tick: int) -> Iterable[tuple[Job, Answer]]:
        found = list(super().collect(tick))
        self.simulation.see_answers(found)
        return found

    def membership(self) -> Iterable[tuple[int, bool]]:
        self.simulation.pass_a_moment()
        changes = list(super().membership())
        for worker, up in changes:
            self.simulation.see_membership(worker, up)
        return changes

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        super().post(jobs, booked_ns)
        for job in jobs:
            self.simulation.see_booked(self._waiting[job.worker])

    @property
    def waiting(self) -> dict[int, Job]:
        return self._waiting


class Recorder(StatsRecorder):
    """Tells the checks of each tick."""

    simulation: Simulation

    def begin_tick(self, tick: int, now_ns: int) -> None:
        super().begin_tick(tick, now_ns)
        self.simulation.world.tick = tick

    def end_tick(self, tick: Tick) -> None:
        super().end_tick(tick)
        self.simulation.see_tick(tick)

    def job_ended(self, row: JobRow) -> None:
        super().job_ended(row)
        self.simulation.see_ended(row)

    def invariant_broken(self, invariant: Invariant, tick: int) -> None:
        super().invariant_broken(invariant, tick)
        self.simulation.broke("RunsFindNothingWrongThemselves", f"tick {tick}: {invariant.name}: {invariant.meaning}")


class KeptTransitions(TransitionBuilder):
    """Keeps what it answers."""

    made: list[Transition]

    def feed(self, header: FrameHeader, action: bytes) -> list[Transition]:
        done = super().feed(header, action)
        self.made += done
        return done


class Row(NamedTuple):
    """One tick as it was published."""

    header: FrameHeader
    action: bytes


class Check:
    """One promise. What it does not override it does not look at."""

    run: Simulation

    def begin(self, run: Simulation) -> None:
        self.run = run

    def tick(self, tick: Tick, row: Row) -> None:
        """A tick is over and published."""

    def booked(self, job: Job) -> None:
        """A job was posted."""

    def written(self, job: Job, answer: Answer) -> None:
        """A worker has put an answer into its slot."""

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        """These were collected."""

    def membership(self, worker: int, up: bool) -> None:
        """The tick loop was told that a worker came or went."""

    def ended(self, row: JobRow) -> None:
        """A job has ended."""

    def killed(self, worker: Worker) -> None:
        """The supervisor kills a worker."""

    def failed(self, error: RtcoreError) -> None:
        """The supervisor ends the run."""

    def end(self, run: Simulation) -> None:
        """The run is over."""

    def broken(self, text: str) -> None:
        """Not an exception here and now: what it would fly through might catch it."""
        self.run.broke(type(self).__name__, text)


class Simulation:
    """One run of a scenario, under checks. `run` does it; a broken promise is a `Violation`."""

    def __init__(self, scenario: Scenario, checks: Sequence[Check] = (), *, parts: Parts | None = None) -> None:
        """`parts`: in place of rtcore's own, of the tests that break them."""
        self.scenario, self.checks, self.parts = scenario, checks, parts or Parts()
        run, config = scenario.run, scenario.run.config
        self.machine = machine = Machine()
        self.needs = _needs_of(scenario)
        layout = Layout(
            max_workers=run.num_places,
            ring_slots=run.ring_slots,
            log_slots=scenario.log_slots,
            frame_bytes=8,
            action_bytes=ACTION.nbytes,
            chunk=config.agent.chunk,
        )
        self.shared = shared = PlainRun(layout, self.needs)
        self.head = run.head_place if self.needs.has_head else -1
        self._payload_words = self.needs.payload.nbytes // 8
        self._chunk = config.agent.chunk
        self._actions = struct.Struct(f"<{self._chunk}q")
        self.num_workers = int(scenario.settings["workers"])
        self.processes: dict[int, Worker] = {}
        self.rows: list[Row] = []
        self.published: dict[int, int] = {0: 0}  #: checksum by version
        self.version = 0
        self.died_ns: dict[int, int] = {}  #: of the machine's time awake: the last death in each place
        self.deaths: dict[int, list[int]] = {}  #: answers of a place between deaths
        self.error: RtcoreError | None = None
        self.states: Counter[tuple[str, str]] = Counter()
        self.injected: Counter[str] = Counter()
        self.active_until_ns = 0
        self.deaths_at_start: Counter[int] = Counter()
        self.unsettled_tick = -1  #: the last one at which something was wrong, or was to come
        self.delays: list[tuple[int, int]] = []  #: delay and stride at each tick
        self.longest_ns: list[int] = []  #: what the answers taken in at each tick took
        self.patience_from_ns = 0  #: of the machine's time awake: before that nobody could restart anything
        self._away_ns = {"supervisor": 0, "learner": 0}
        self._longest_ns = 0
        self._broken: Violation | None = None
        self._seen_states: dict[int, str] = {}
        # Orders are numbered: the run's is the first.
        self.supervisor = PretendedSupervisor(self)
        seq = next_order(0, Phase.RUN)
        self.supervisor.run_phase_seq = self.supervisor.workers.run_phase_seq = seq
        shared.run_control["phase"], shared.run_control["phase_seq"] = Phase.RUN, seq
        for index in [*range(self.num_workers), *([self.head] if self.head >= 0 else [])]:
            self.supervisor.workers.start(index)
            self._be_ready(self.processes[index])
            self.supervisor.workers.set_up(index, True)
        self.supervisor.launcher.touched.clear()
        self.record = RunRecord(None, bytes.hex)
        self.drain = Drain(shared, seq, 0, 0)
        self.world = World(machine, scenario)
        self.clock = LoopClock(machine, scenario)
        params = run.schedule_params(scenario.plan.delay_ticks, scenario.plan.tau.usual_ns)
        self.schedule = self.parts.schedule(params, self.num_workers)
        self.workers = self.parts.workers(shared, PretendedWaker(self.processes), self.num_workers, phase_seq=seq)
        self.workers.simulation = self
        self.dispatcher = self.parts.dispatcher(
            config.schedule.on_late,
            chunk_ticks=config.agent.chunk,
            chunk_from=config.agent.chunk_from,
            holds=config.world.on_reset == "hold",
            head=self.head,
            phase_seq=seq,
        )
        books = Books(shared.env_counters, shared.env_status, shared.env_histograms, shared.log.append)
        recorder = Recorder(books, self.schedule, run.period_ns)
        recorder.simulation = self
        self.loop = TickLoop(
            world=self.world,
            grid=TickGrid(_EPOCH_NS, run.rate_hz),
            clock=self.clock,
            schedule=self.schedule,
            dispatcher=self.dispatcher,
            workers=self.workers,
            recorder=recorder,
            on_reset=config.world.on_reset,
            overrun=config.world.overrun,
            phase_seq=seq,
            num_ticks=scenario.num_ticks,
            needs=self.needs or None,
            action=ACTION,
            seed=scenario.seed,
            head=self.head,
        )
        self.clock.before_spin = self.loop.prepare_tick
        self.builder = self.parts.builder(GAMMA)
        self.builder.made = []
        self.reader = TransitionReader(shared.ring, ACTION, seq, self.builder, since_ticks=self.needs.since_ticks)
        for check in checks:
            check.begin(self)
        self._hooks = {name: [getattr(check, name) for check in checks if _has(check, name)] for name in _HOOKS}
        self._plan_events()

    # -- the run -------------------------------------------------------------------------------------------

    def run(self) -> Simulation:
        """To its end. `Violation` if a promise is broken."""
        scenario, control, loop = self.scenario, self.shared.run_control, self.loop
        words, at, seq = control.words, control.record.index["phase_seq"], control["phase_seq"]
        while words[at] == seq:
            loop.run_tick()
            if self._broken is not None:
                raise self._broken
            if loop.tick + 1 >= scenario.num_ticks:
                break
        loop.finish()
        self.shared.env_status["finished"] = 1
        self._drain(at_end=True)
        self._learn(at_end=True)
        if self._broken is not None:
            raise self._broken
        for check in self.checks:
            check.end(self)
        return self

    def broke(self, check: str, text: str) -> None:
        """A promise was broken, in code that must not be left by an exception."""
        self._broken = self._broken or Violation(check, f"at tick {self.loop.tick}: {text}")

    # -- what the run's own objects tell -------------------------------------------------------------------

    def pass_a_moment(self) -> None:
        self.clock.now_ns()

    @property
    def _is_settled(self) -> bool:
        if self.machine.true_ns < self.active_until_ns:
            return False
        to_come = self.clock.oversleeps_ns or self.world.slow_step_ns or self.world.slow_reset_ns
        return not to_come and self._all_are_well

    @property
    def _all_are_well(self) -> bool:
        control = self.shared.worker_control
        return all(worker.is_well and control[index]["up"] for index, worker in self.processes.items())

    def see_answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        for job, answer in found:
            took_ns = self.loop.pace.elapsed_ns(job.obs_tick, answer.write_ns)
            self._longest_ns = max(self._longest_ns, took_ns)
        for look in self._hooks["answers"]:
            look(found)

    def see_membership(self, worker: int, up: bool) -> None:
        for look in self._hooks["membership"]:
            look(worker, up)

    def see_booked(self, job: Job) -> None:
        for look in self._hooks["booked"]:
            look(job)

    def see_ended(self, row: JobRow) -> None:
        for look in self._hooks["ended"]:
            look(row)

    def see_tick(self, tick: Tick) -> None:
        action = self.shared.ring.read_action(tick.header.frame_seq) or b""
        row = Row(tick.header.record(), action)
        self.rows.append(row)
        for look in self._hooks["tick"]:
            look(tick, row)
        self.delays.append((self.schedule.delay_ticks, self.schedule.stride_ticks))
        self.longest_ns.append(self._longest_ns)
        self._longest_ns = 0
        if not self.checks:
            return  # of a twin nobody asks for what follows
        if not self._is_settled:
            self.unsettled_tick = tick.plan.tick
        for index, worker in self.processes.items():
            state, before = worker.state, self._seen_states.get(index)
            if state != before:
                self._seen_states[index] = state
                if before is not None:
                    self.states[before, state] += 1

    # -- processes -----------------------------------------------------------------------------------------

    def launch(self, index: int, generation: int, entry: str, make_boot: MakeBoot) -> Child:
        """As the fork server would start it; it is ready some time later."""
        process = Process("worker", index, generation, pid=1000 * index + generation + 10)
        worker = Worker(self.machine, self.shared, process, self._infer, self._note_answer)
        process.on_kill = lambda: self._killed(worker)
        self.processes[index] = worker
        if generation > 1:
            ready_ns = round(self.scenario.restart_ticks * self.scenario.period_ns)
            if self.deaths_at_start[index] > 0:
                self.deaths_at_start[index] -= 1
                self.machine.after(ready_ns // 2, lambda: self._dies(worker))
            self.machine.after(ready_ns, lambda: self._gets_ready(worker), works=True)
        return process

    def _be_ready(self, worker: Worker) -> None:
        worker.be_ready(max(1, round(self.scenario.times.usual_ticks * self.scenario.period_ns)))

    def _gets_ready(self, worker: Worker) -> None:
        if worker.is_alive:
            self._be_ready(worker)
            self._tell(worker)

    def _tell(self, worker: Worker) -> None:
        """Its supervisor hears of something."""
        self.supervisor.launcher.touched.append(worker.process)
        self.machine.after(100_000, self._supervise)

    def _dies(self, worker: Worker, exitcode: int = -9) -> None:
        if worker.is_alive:
            worker.end(exitcode)
        if worker.process.exitcode is None:
            worker.process.exitcode = exitcode
            self.died_ns[worker.index] = self.machine.awake_ns
            self.deaths.setdefault(worker.index, []).append(self.shared.worker_status[worker.index]["inferences"])
            self._tell(worker)

    def _killed(self, worker: Worker) -> None:
        for look in self._hooks["killed"]:
            look(worker)
        self.machine.after(1_000_000, lambda: self._dies(worker))

    def _infer(self, index: int, job: Job, header: FrameHeader) -> Inference:
        scenario = self.scenario
        took_ns = scenario.times.ns(index, job.obs_tick)
        if index == self.head:
            took_ns = took_ns // 8
        value = (job.job_seq * 64 + index) * 64
        if index == self.head:
            actions = (value + 1).to_bytes(8, "little").ljust(self._actions.size, b"\0")
        else:
            actions = self._actions.pack(*range(value + 1, value + 1 + self._chunk))
        abstains = scenario.abstains and job.job_seq % scenario.abstains == 0
        payload = (job.job_seq * 64 + index).to_bytes(8, "little") * self._payload_words
        return Inference(
            took_ns,
            actions,
            payload,
            version=self.version,
            checksum=self.published[self.version],
            abstained=int(abstains),
        )

    def _note_answer(self, job: Job, answer: Answer) -> None:
        for look in self._hooks["written"]:
            look(job, answer)
        worker = self.processes[job.worker]
        if worker.dies_while_writing:
            self.machine.after(0, lambda: self._dies(worker))

    # -- who else runs -------------------------------------------------------------------------------------

    def _supervise(self) -> None:
        if self.machine.true_ns < self._away_ns["supervisor"] or self.error is not None:
            return
        try:
            self.supervisor.watch(0)
        except RtcoreError as error:
            self.error = error
            for look in self._hooks["failed"]:
                look(error)
            self.supervisor.request_stop()

    def _drain(self, *, at_end: bool = False) -> None:
        if at_end or self.machine.true_ns >= self._away_ns["supervisor"]:
            self.drain.into(self.record)

    def _learn(self, *, at_end: bool = False) -> None:
        if at_end or self.machine.true_ns >= self._away_ns["learner"]:
            self.reader.update()

    def _plan_events(self) -> None:
        scenario, machine, period_ns = self.scenario, self.machine, self.scenario.period_ns

        def every(between_ns: int, does: Any) -> None:
            def again() -> None:
                does()
                machine.after(between_ns, again)

            machine.after(between_ns, again)

        def beat() -> None:
            for worker in self.processes.values():
                worker.beat()

        def publish() -> None:
            self.version += 1
            self.published[self.version] = self.version * _CRC_OF_VERSION & 0xFFFFFFFF

        every(IDLE_BEAT_NS, beat)
        every(_SUPERVISE_NS, self._supervise)
        every(_DRAIN_NS, self._drain)
        if self.checks:  # a learner changes nothing of a run
            every(scenario.learner_every * period_ns + 7, self._learn)
        if scenario.stops_at:
            machine.at(_EPOCH_NS + scenario.stops_at * period_ns, self.supervisor.request_stop)
        if scenario.publish_every:
            every(scenario.publish_every * period_ns // 3, publish)
        for fault in scenario.faults:
            machine.at(_EPOCH_NS + round(fault.tick * period_ns), lambda fault=fault: self._inject(fault))  # type: ignore[misc]

    def _inject(self, fault: Fault) -> None:
        machine, lasts_ns = self.machine, round(fault.ticks * self.scenario.period_ns)
        worker = self.processes[fault.worker] if fault.worker in self.processes else next(iter(self.processes.values()))
        self.injected[fault.kind] += 1
        until_ns = machine.true_ns + lasts_ns
        self.active_until_ns = max(self.active_until_ns, until_ns)
        match fault.kind:
            case "death":
                self._dies(worker)
            case "death while it writes":
                worker.dies_while_writing = True
            case "death at its start":
                self.deaths_at_start[worker.index] += 1 + round(fault.ticks)
                self._dies(worker)
            case "hang":
                worker.stop()
            case "stop":
                worker.stop()
                machine.at(until_ns, worker.resume)
            case "slow worker":
                worker.slowness = 1 + 5 * fault.size
                machine.at(until_ns, lambda: setattr(worker, "slowness", 1.0))
            case "lost wake-ups":
                worker.is_deaf = True
                machine.at(until_ns, lambda: setattr(worker, "is_deaf", False))
            case "freeze":
                machine.freeze(lasts_ns)
            case "clock stands still":
                machine.stop_clock(lasts_ns)
            case "late wake-up":
                self.clock.oversleeps_ns = lasts_ns
            case "slow step":
                self.world.slow_step_ns = lasts_ns
            case "slow reset":
                self.world.slow_reset_ns = lasts_ns
            case "supervisor is away":
                self._away_ns["supervisor"] = max(self._away_ns["supervisor"], until_ns)
                self.patience_from_ns = max(self.patience_from_ns, machine.awake_ns + lasts_ns)
            case "learner is away":
                self._away_ns["learner"] = max(self._away_ns["learner"], until_ns)


def _has(check: Check, name: str) -> bool:
    """Whether a check looks at that at all."""
    return name in {attribute for kind in type(check).__mro__[:-2] for attribute in vars(kind)}


@dataclass
class Parts:
    """What is rtcore's own. A test that breaks one of them puts another in its place."""

    schedule: type[Schedule] = Schedule
    dispatcher: type[Dispatcher] = Dispatcher
    workers: type[ObservedWorkers] = ObservedWorkers
    builder: type[KeptTransitions] = KeptTransitions


def _needs_of(scenario: Scenario) -> PolicyNeeds:
    word = Block((("h", (), "int64"),))
    if scenario.needs == "state":
        return PolicyNeeds(state=word, extras=word)
    if scenario.needs == "committed":
        return PolicyNeeds(committed_ticks=12)
    if scenario.needs == "two speeds":
        return PolicyNeeds(committed_ticks=12, features=word, has_head=True)
    return PolicyNeeds()
