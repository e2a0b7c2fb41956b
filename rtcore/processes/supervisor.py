"""Starts a run's processes, rehearses and plans, watches them, removes everything.

`WorkerProcesses`, `LearnerProcesses` and `RecorderProcess` know what they start, count and restart. It talks to the env
process through shared memory only: nothing it does, or fails to do, can delay a tick.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from typing import Any

from rtcore.clock import MonotonicClock, ns_of, unix_time_s
from rtcore.config.resolved import ResolvedRun, resolve
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, RtcoreError, RtcoreWarning, StartupError, counted
from rtcore.host.devices import check_device, device_names
from rtcore.host.seeding import entropy_of, world_entropy
from rtcore.host.watchdog import Watchdog
from rtcore.learn.checkpoint import SavedState
from rtcore.learn.policy import fitting_policy, has_network
from rtcore.loop.resets import reset_order
from rtcore.loop.world import leaves_space_text, world_seed
from rtcore.memory.layout import TRACE_SUPERVISOR
from rtcore.memory.owners import reap_dead_runs
from rtcore.memory.segments import check_platform, new_run_id, unlink_all
from rtcore.memory.shared import Phase, SharedRun, next_order
from rtcore.memory.trace import TraceKind, TraceRing
from rtcore.memory.weights import ParamStore
from rtcore.messages import EnvironmentBoot, SegmentsMade, WorldSpec
from rtcore.processes.environment import ENV_ENTRY, EnvironmentProcess
from rtcore.processes.launcher import (
    PRELOAD_LINKS,
    PRELOAD_META,
    PRELOAD_NETWORK,
    PRELOAD_WORKERS,
    Child,
    Launcher,
    MakeBoot,
    RunParts,
)
from rtcore.processes.learners import LearnerProcesses
from rtcore.processes.operator import OperatorProcess
from rtcore.processes.recorder import RecorderProcess
from rtcore.processes.rehearsal import Rehearsal
from rtcore.processes.sizing import layout_for
from rtcore.processes.workers import WorkerProcesses
from rtcore.recording.writer import describe_run
from rtcore.results.description import RunDescription
from rtcore.results.run_record import Drain
from rtcore.results.startup import StartUp, Text, text_of
from rtcore.scheduling.planner import Plan, plan_of_player
from rtcore.spaces import PolicyNeeds
from rtcore.spaces.task import NO_TASK, TaskSpec

_log = logging.getLogger(__name__)

_NOT_STARTED = "the run has not started: call start() or use it as a context manager"
_PROGRAM_CHARS = 2000
_GRACE_NS = 2_000_000_000


class Supervisor:
    """One run's processes. Not thread-safe: after `start`, one thread calls `watch` until it answers True."""

    def __init__(self, config: RuntimeConfig, *, played_delay_ticks: int | None = None) -> None:
        """`played_delay_ticks`: this program answers the jobs itself (`Player`), as many ticks after their frame; no
        worker is started, watched or restarted, and an episode begins when the program says so.
        """
        #: What its user says; once the world is known, `resolved` says what that comes to.
        self.config = config
        self._resolved: ResolvedRun | None = None
        self.run_id = new_run_id()
        self.plan: Plan | None = None
        self._played_delay_ticks = played_delay_ticks
        self._abandoned = False
        self.policy_info: dict[str, Any] = {}
        #: What the env process says of its world, and the same as JSON, to which the start adds.
        self.world: WorldSpec
        self.env_info: dict[str, Any] = {}
        self.stopping = self._stop_was_requested = False
        #: Held while an order is given: another thread may end the run.
        self._ordering = threading.Lock()
        #: Called when the plan is made and nothing of the run is written yet.
        self.about_to_run: Callable[[], None] = lambda: None
        self._clock = MonotonicClock()
        self._launcher: Launcher | None = None
        self._failed_forks: Counter[str] = Counter()
        self._too_long_was_logged = False
        self._env: EnvironmentProcess | None = None
        self._shared: SharedRun | None = None
        self._parts: RunParts
        self._workers: WorkerProcesses | None = None
        self._trace: TraceRing | None = None
        self._stop_seq = 0
        #: What went wrong while the world was closed. The run's results are whole.
        self.close_failure: RtcoreError | None = None
        #: What learning goes on from, and who learns; None: nobody does.
        self.saved: SavedState | None = None
        self.learners: LearnerProcesses | None = None
        #: Who keeps what was seen and applied; None: nobody does.
        self.recording: RecorderProcess | None = None
        #: Who may step in, in a process of its own; None: nobody.
        self.operator: OperatorProcess | None = None
        self.run_phase_seq = -1
        self.run_first_frame = 0
        self._started_unix_s = 0.0
        self._startup = StartUp(self._clock)
        self._watchdog = Watchdog(self._clock)

    # -- start ---------------------------------------------------------------------------------------------

    @property
    def resolved(self) -> ResolvedRun:
        """What the settings come to in this world."""
        if self._resolved is None:
            raise StartupError(_NOT_STARTED)
        return self._resolved

    @property
    def shared(self) -> SharedRun:
        if self._shared is None:
            raise StartupError(_NOT_STARTED)
        return self._shared

    @property
    def workers(self) -> WorkerProcesses:
        if self._workers is None:
            raise StartupError(_NOT_STARTED)
        return self._workers

    @property
    def params(self) -> ParamStore | None:
        """The weights of the policy's network; None: not made yet, or it has none."""
        return self._workers.params if self._workers is not None else None

    def start(self) -> None:
        """Everything up to tick 0: processes, warm-up, rehearsal, plan. Raises the error that stopped it."""
        check_platform()
        device_names(self.config.agent.device)
        plays = self._played_delay_ticks is None and self.config.computes_here
        if plays and has_network(self.config.agent.policy):
            check_device(self.config.agent.device)
        self._startup.enter("world")
        for run_id in reap_dead_runs():
            _log.info(f"removed the shared memory that run {run_id} left behind when it was killed")
        self._launcher = Launcher(self.run_id, grace_s=self.config.faults.env_timeout_s)
        self._failed_forks = self._launcher.failed_forks
        self._start_env()
        self.plan = plan = self._make_policy_ready()
        if self.shared.payload is not None:
            memory = self.shared.payload
            self.policy_info["notes"] += memory.needs.notes(plan.delay_ticks, memory.action)
        self._start_operator()
        self.about_to_run()
        self._start_recording()
        self._startup.enter("")
        self._started_unix_s = unix_time_s()
        self._publish_description()
        self._begin_run(plan)

    def _make_policy_ready(self) -> Plan:
        """Start and rehearse the workers, or make places for the program that plays; returns the plan."""
        delay_ticks = self._played_delay_ticks
        if delay_ticks is None:
            workers, elsewhere = self.config.schedule.workers, len(self.config.remote.workers_at)
            first = max(1, elsewhere) if workers == "auto" else workers
            self._check_learning()
            self._startup.enter("imports")
            limit_s, importing = (
                self.config.faults.startup_timeout_s,
                lambda: f"importing {self._launcher_now.importing}",
            )
            self.wait_until(lambda: not self._launcher_now.importing, importing, limit_s, importing)
            self.start_workers(range(first))
            self.start_head()
            if self.learners is not None:
                self.learners.prepare(self.params)
            plan = Rehearsal(self, self._clock).plan(first)
            self._start_learners()
            return plan
        self.policy_info = {"policy": "the program itself", "synthetic": False, "device": "cpu", "notes": []}
        self.workers.make_payload(PolicyNeeds())
        for index in range(delay_ticks):
            self.workers.play(index)
        return plan_of_player(delay_ticks, self.resolved.rate_hz)

    def _check_learning(self) -> None:
        """Before any worker is started: whether this world can be learned, and goes on from what was saved."""
        if self.config.learning.learn is not None:
            self.learners = LearnerProcesses(self._parts, partial(self._launch, "learner"), self.saved)

    def _start_learners(self) -> None:
        """After the rehearsal, which they would slow down, and before tick 0."""
        if self.learners is not None and self.config.learning.learner_processes:
            self._startup.enter("learners")
            self.learners.start()
            self.wait_until(self.learners.is_ready, "a learner", self.config.faults.startup_timeout_s)

    def end_learning(self) -> None:
        """Let the learners finish the update they are at. Once the run is over, however it ended."""
        if self.learners is not None and self._launcher is not None:
            self.learners.shut_down(self._launcher)

    def _start_operator(self) -> None:
        """Before tick 0: who cannot be there is an error in time."""
        if self.config.has_operator_process:
            self._startup.enter("operator")
            self.operator = OperatorProcess(self._parts, partial(self._launch, "operator"), self.next_operator)
            self.operator.start()
            self.wait_until(self.operator.is_ready, "the operator", self.config.faults.startup_timeout_s)

    def _start_recording(self) -> None:
        """Between the rehearsal and tick 0: nothing ticks, so that the next frame is the run's first."""
        if self.config.output.record:
            self._startup.enter("recorder")
            launch, played = partial(self._launch, "recorder", 0, 0), self._played_delay_ticks is not None
            self.recording = RecorderProcess(self._parts, launch)
            about = describe_run(self.config, self.env_info, self.policy_info, self.resolved.rate_hz, played=played)
            self.recording.start(about)
            self.wait_until(self.recording.is_ready, "the recorder", self.config.faults.startup_timeout_s)

    def end_recording(self) -> None:
        """Let the recorder write what is left. Once the run is over, however it ended."""
        if self.recording is not None and self._launcher is not None:
            soon = self._stop_was_requested or not self.shared.env_status["finished"]
            self.recording.shut_down(self._launcher, soon=soon)

    def _start_env(self) -> None:
        making = f"making the world {self.config.world.env_id}"
        self._startup.enter("world", making)
        played, seed = self._played_delay_ticks is not None, world_seed(self.config.world.seed, self.ticks_before)
        boot = EnvironmentBoot(self.run_id, world_entropy(seed), self.config, seed, played)
        child = self._launcher_now.start("env", 0, 0, ENV_ENTRY, boot)
        self._env = env = EnvironmentProcess(child, self.config, self._clock, self._watchdog)
        # While the world is being made, and not before its process is forked: that one needs none of it.
        if not played:
            is_linked = self.config.remote.workers_at and importlib.util.find_spec("zmq") is not None
            self._launcher_now.preload("the workers", PRELOAD_WORKERS + (PRELOAD_LINKS if is_linked else ()))
        if not played and has_network(self.config.agent.policy) and self.config.computes_here:
            self._launcher_now.preload("torch", PRELOAD_NETWORK, apart=True)

        def doing() -> str:
            return env.doing

        self.wait_until(self._has_world, doing, self.config.faults.startup_timeout_s, doing)
        world = self.world
        if self._played_delay_ticks is None:
            self.config = fitting_policy(self.config, world.observation)
        self._resolved = run = resolve(self.config, Fraction(world.rate_hz), world.observation.nbytes)
        self.config = run.config
        self.env_info["notes"] += run.notes
        layout = layout_for(run, world.observation, world.action, self.env_info)
        self._shared = shared = SharedRun.create(self.run_id, layout, world.observation)
        self._trace = shared.trace_ring(TRACE_SUPERVISOR)
        self._parts = RunParts(run, self.run_id, shared=shared, world=world, clock=self._clock, watchdog=self._watchdog)
        self._workers = WorkerProcesses(
            self._parts,
            launch=lambda *place: self._launch("worker", *place),
            launch_holder=lambda *place: self._launch("holder", *place),
            trace=self.trace,
            restarted=self._publish_description,
            leaves_space=self._warn_leaves_space,
            ticks_before=self.ticks_before,
        )
        env.begin_watching(run, shared)
        child.send(SegmentsMade(layout, run))
        self.wait_until(lambda: child.ready is not None, "the world", self.config.faults.startup_timeout_s)
        self.env_info |= vars(child.ready)

    def _has_world(self) -> bool:
        """What the world looks like is known."""
        spec = self._env_now.poll_spec()
        if spec is not None:
            self.world, self.env_info = spec, spec.to_header()
        return spec is not None

    def start_workers(self, indices: range) -> None:
        self._startup.enter("workers", f"starting {counted(len(indices), 'worker')}")
        workers, first, limit_s = self.workers, indices[0], self.config.faults.startup_timeout_s
        self._launcher_now.make_room(len(indices))

        def doing() -> str:
            importing = self._launcher_now.importing
            up = f"{indices.stop - len(workers.places.waiting(indices))} of {indices.stop} workers up"
            return f"{up}, importing {importing}" if importing else up

        for index in indices:
            workers.start(index)
            if index == first and workers.places.waiting((0,)):
                # The first worker of a run makes the weights that all use.
                self.wait_until(workers.has_weights, "worker 0", limit_s, lambda: "worker 0 is making the weights")
        waiting = partial(workers.places.waiting, indices)
        self.wait_until(lambda: not waiting(), lambda: f"worker {waiting()[0]}", limit_s, doing)
        self.policy_info |= workers.info(0) or {}
        for index in indices:
            workers.set_up(index, True)

    def start_head(self) -> None:
        """The fast part of a policy with two speeds, once a worker has said that it has one; else nothing."""
        workers, place = self.workers, self.resolved.head_place
        if not workers.has_head:
            return
        self._startup.enter("workers", "starting the head")
        self._launcher_now.make_room(1)
        workers.start(place)
        self.wait_until(lambda: not workers.places.waiting((place,)), "the head", self.config.faults.startup_timeout_s)
        workers.set_up(place, True)
        self.policy_info["head"] = place
        notes = self.policy_info.setdefault("notes", [])
        notes += [note for note in (workers.info(place) or {}).get("notes", ()) if note not in notes]

    def retire(self, index: int) -> None:
        """Let a worker that the plan does not need go."""
        self.workers.retire(index)

    def _launch(self, role: Any, index: int, generation: int, entry: str, make_boot: MakeBoot) -> Child:
        if role == "worker" and self.workers.network_computes:
            # All but the first. Does nothing if it has been done.
            self._launcher_now.preload("torch's meta device", PRELOAD_META)
        entropy = entropy_of(self.config.world.seed, self.ticks_before, role, index, generation)
        boot = make_boot(run_id=self.run_id, entropy=entropy, run=self.resolved)
        return self._launcher_now.start(role, index, generation, entry, boot)

    # -- orders to the env process --------------------------------------------------------------------------

    def set_phase(self, phase: Phase, plan: Plan, num_workers: int) -> int:
        control = self.shared.run_control
        control["num_workers"] = num_workers
        control["delay_ticks"] = plan.delay_ticks
        control["tau_mean_ns"] = plan.tau.usual_ns
        _log.debug("%s begins with %d workers, delay %d ticks", phase.name, num_workers, plan.delay_ticks)
        return self._order(phase)

    def _order(self, phase: Phase) -> int:
        """Tell the env process (and with STOP the workers); returns the order's number."""
        control = self.shared.run_control
        with self._ordering:
            control["phase"] = phase
            control["phase_seq"] = seq = next_order(control["phase_seq"], phase)
        return seq

    def _begin_run(self, plan: Plan) -> None:
        self.run_phase_seq = next_order(self.shared.run_control["phase_seq"], Phase.RUN)
        self.workers.run_phase_seq = self.run_phase_seq
        self.run_first_frame = self.shared.ring.sequence.newest() + 1
        self.run_drain = Drain(self.shared, self.run_phase_seq)
        status = self.shared.env_status
        rehearsed_ns = status["epoch_ns"]
        self.set_phase(Phase.RUN, plan, plan.workers)
        # From here on what is counted is the run's: the env process has cleared the rehearsal's books.
        self.wait_until(lambda: status["epoch_ns"] != rehearsed_ns, "the world", self.config.faults.startup_timeout_s)

    # -- watch ---------------------------------------------------------------------------------------------

    def watch(self, timeout_s: float) -> bool:
        """Wait for events, act on them; True when the run is over. Raises if it failed."""
        self._serve_events(timeout_s)
        self.workers.report_late_versions()
        if self.ticks_are_over and self.plan is not None:
            self.workers.check_answered(self.shared.env_counters["ticks"], self.plan)
        return self.ticks_are_over

    def request_stop(self) -> None:
        """End the run at the next tick, as if its time were up. Any thread may."""
        self._stop_was_requested = True
        _log.debug("the run is told to end at its next tick")
        self._stop()

    def _stop(self) -> None:
        if self._workers is not None:
            self._workers.stopping = True
        if self._shared is not None:
            self._stop_seq = self._order(Phase.IDLE)
        self.stopping = True  # last: whoever asks `ticks_are_over` needs the order's number

    def request_pause(self, paused: bool) -> None:
        """One more wants the world to stand still, or one less. Any thread may. ConfigError if the world cannot."""
        if paused and not self.world.can_pause:
            raise ConfigError(
                f"pause: {self.config.world.env_id} says that it cannot be paused (can_pause = False): leave it running"
            )
        with self._ordering:
            control = self.shared.run_control
            control["pauses"] = max(0, control["pauses"] + (1 if paused else -1))

    def set_task(self, task: Mapping[str, Any]) -> int:
        """Another task for world and policy; returns its version. Any thread may. ConfigError if it does not fit."""
        if (tasks := self.shared.tasks) is None:
            raise ConfigError(NO_TASK)
        raw = TaskSpec(self.config.world.task).pack(task)
        with self._ordering:
            return tasks.put(raw)

    def next_operator(self) -> int:
        """Another one may step in from now on, under this number: what was said before is void. Any thread may."""
        with self._ordering:
            control = self.shared.run_control
            control["operator_seq"] += 1
            return control["operator_seq"]

    def request_reset(self, seed: int | None, options: dict[str, Any] | None) -> int:
        """Ask for a new episode, for `Player`; returns the number of the wish. ConfigError if it cannot be sent."""
        reset_seq = self.shared.run_control["reset_seq"] + 1
        self._env_now.child.send(reset_order(reset_seq, seed, options))
        self.shared.run_control["reset_seq"] = reset_seq
        return reset_seq

    @property
    def worker_pids(self) -> dict[int, int]:
        """pid of each worker that is alive."""
        return self._workers.places.pids if self._workers is not None else {}

    @property
    def learner_pids(self) -> dict[int, int]:
        """pid of each learner that is alive."""
        return self.learners.places.pids if self.learners is not None else {}

    @property
    def ticks_before(self) -> int:
        """Ticks of the runs that this one goes on from: exploration counts them too."""
        return int(self.saved.state["ticks"]) if self.saved is not None else 0

    @property
    def description(self) -> RunDescription:
        """What the run consists of. Only once there is a plan."""
        if self.plan is None:
            raise StartupError("the run has no plan yet")
        return RunDescription(
            run_id=self.run_id,
            program=(" ".join(sys.argv) or sys.executable)[:_PROGRAM_CHARS],
            run=self.resolved,
            world=self.env_info,
            policy=self.policy_info,
            plan=self.plan,
            startup=self._startup.times_s,
            started_unix_s=self._started_unix_s,
            devices=self.workers.devices(self.plan.workers, self.policy_info),
            restart_reasons=dict(self.workers.places.restarts.reasons)
            | {f"no process at once, tried again: {why}": count for why, count in self._failed_forks.items()},
            ticks_before=self.ticks_before,
        )

    def trace(self, kind: TraceKind, start_ns: int, worker: int = -1, value: int = 0) -> None:
        """Write into the trace what this process did from `start_ns` to now, if the run is traced."""
        if self._trace is not None:
            self._trace.add(kind, start_ns, self._clock.now_ns(), worker=worker, value=value)

    def note_leaves_space(self, what: str) -> bool:
        """Keep what is wrong in the world's observations for the summary; False if something was known already."""
        is_news = not self.env_info["leaves_space"]
        self.env_info["leaves_space"] = self.env_info["leaves_space"] or what
        return is_news

    def _warn_leaves_space(self, what: str) -> None:
        if self.note_leaves_space(what):
            _log.info(leaves_space_text(what))  # the warning is for the program that embeds rtcore
            with contextlib.suppress(RtcoreWarning):  # where warnings are errors, this one must not end the run
                warnings.warn(leaves_space_text(what), RtcoreWarning, stacklevel=2)

    def _publish_description(self) -> None:
        buffer = self.shared.description
        if not buffer.write(self.description.to_text(buffer.num_bytes)) and not self._too_long_was_logged:
            self._too_long_was_logged = True
            _log.warning("what this run consists of is too long for its place in memory: rtcore-top cannot show it")

    @property
    def env_pid(self) -> int:
        return self._env_now.child.pid

    def _serve_events(self, timeout_s: float) -> None:
        children = self._launcher_now.poll(timeout_s)
        if self._env is not None:
            self._env.check()
        for child in children:
            if child.role == "learner" and self.learners is not None:
                self.learners.check(child)
            elif child.role == "recorder" and self.recording is not None:
                self.recording.check(child)
            elif child.role == "operator" and self.operator is not None:
                self.operator.check(child)
            elif child.role in ("worker", "holder"):
                self.workers.check(child)
        if self._workers is not None:
            self._workers.kill_hung(self.plan)
        if self.learners is not None:
            self.learners.kill_hung()
        if self.operator is not None and not self.stopping:
            self.operator.kill_hung()

    def enter(self, phase: str, line: str) -> None:
        """What the start does from now on: see `StartUp.enter`."""
        self._startup.enter(phase, line)

    def wait_until(self, done: Callable[[], bool], what: Text, limit_s: float, doing: Text | None = None) -> None:
        """Serve events until `done`; a named error if it takes too long. `doing`: for the screen, once a second."""
        give_up_ns = self._watchdog.now_ns() + ns_of(limit_s)
        while not done():
            if self._abandoned:
                raise StartupError("the run was closed while it was starting")
            self._serve_events(0.01)
            self._startup.waiting(doing or (lambda: f"waiting for {text_of(what)}"))
            if self._watchdog.now_ns() > give_up_ns:
                late = f"{text_of(what)} was not ready within {limit_s:g} s and was killed"
                raise StartupError(f"{late}; --startup-timeout-s allows more")

    # -- stop ----------------------------------------------------------------------------------------------

    def halt(self) -> None:
        """Returns once no tick can run any more, however the run ended: what is counted from here on stays so.

        The env process gets as long as it may be silent, to finish its tick; one that takes longer is ended.
        """
        launcher, env = self._launcher, self._env
        if launcher is None or env is None or self._shared is None:
            return
        if not self.stopping:
            self._stop()
        launcher.poll_until(lambda: self.ticks_are_over or not env.child.is_alive, env.grace_ns)
        if not self.ticks_are_over and env.child.is_alive:
            env.end(launcher)

    @property
    def ticks_are_over(self) -> bool:
        """The env process has seen the run to its end, or the order to stop: it ticks and counts no more."""
        status = self.shared.env_status
        # If the stop comes before the env process has begun to run, it never runs, and `finished` stays 0.
        return bool(status["finished"]) or (self.stopping and status["phase_seen"] >= self._stop_seq)

    def abandon_start(self) -> None:
        """A start that is under way in another thread is to fail soon. Nothing once the run has begun."""
        self._abandoned = True

    def close(self) -> None:
        """End every process and remove every name. Safe to call at any time, more than once."""
        launcher, self._launcher = self._launcher, None
        try:
            if self._shared is not None and launcher is not None:
                _log.debug("every process is told to end")
                self._order(Phase.STOP)
                if self._workers is not None:
                    self._workers.wake_all()
            if launcher is not None:
                self._await_exits(launcher)
        finally:
            with contextlib.ExitStack() as last_first:  # each of them, also if a signal interrupts one
                last_first.callback(unlink_all, self.run_id)
                if self._workers is not None:
                    last_first.callback(self._workers.close)
                if self.learners is not None:
                    last_first.callback(self.learners.close)
                if launcher is not None:
                    last_first.callback(launcher.close)

    def _await_exits(self, launcher: Launcher) -> None:
        """Time for the children to end by themselves: the env process gets `env_timeout_s`, as for a step."""
        if self._env is not None and launcher.is_lost:
            self._env.await_closing(launcher)
        if self._workers is None or self._env is None or self._env.child.ready is None:
            return
        self.close_failure = self._env.await_exit(launcher)
        workers = self._workers.places.all
        launcher.poll_until(lambda: all(child.exitcode is not None for child in workers), _GRACE_NS)
        self._workers.end_holders(lambda ended: launcher.poll_until(ended, _GRACE_NS))

    @property
    def _launcher_now(self) -> Launcher:
        if self._launcher is None:
            raise StartupError("the run is over")
        return self._launcher

    @property
    def _env_now(self) -> EnvironmentProcess:
        if self._env is None:
            raise StartupError("the env process has not been started")
        return self._env
