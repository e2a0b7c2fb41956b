"""Starts a run's processes, rehearses and plans, watches them, restarts workers, removes everything.

It talks to the env process through shared memory only: nothing it does, or fails to do, can delay a tick.
"""

from __future__ import annotations

import contextlib
import json
import math
import sys
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import posix_ipc

from rtcore.about import About
from rtcore.checkpoint import SavedState
from rtcore.clock import MonotonicClock, unix_time_s
from rtcore.config import RuntimeConfig
from rtcore.errors import EnvironmentHung, PolicyError, RtcoreError, StartupError, WorkerDied
from rtcore.launcher import PRELOAD, PRELOAD_ENV, Child, Launcher, child_error
from rtcore.layout import TRACE_SUPERVISOR, Layout
from rtcore.learners import LearnerCrew, check_can_learn, check_same_world
from rtcore.params import ParamStore, attach_store, create_store
from rtcore.planner import Plan
from rtcore.player import plan_of_player
from rtcore.rehearsal import Rehearsal
from rtcore.report.record import Drain
from rtcore.resets import reset_message
from rtcore.shared import Phase, SharedRun, next_order
from rtcore.shm import check_platform, create_semaphore, new_run_id, reap_dead_runs, unlink_all
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore.trace import TRACE_SLOTS, TraceKind, TraceRing
from rtcore.versionwatch import VersionWatch, WorkerVersion

ENV_ENTRY = "rtcore_workers.environment:main"
WORKER_ENTRY = "rtcore_workers.inference:main"
_LOG_SLOTS = 16384
_LOOK_AT_VERSIONS_NS = 500_000_000
#: Room for what a run says of itself, beside its world's spaces.
_ABOUT_BYTES = 65536
_PROGRAM_CHARS = 2000
_GRACE_NS = 2_000_000_000

Progress = Callable[[str], None]


def layout_for(config: RuntimeConfig, env_info: dict[str, Any]) -> Layout:
    """How large a run's segments are. `env_info`: what the env process says of its world."""
    observation = ObservationSpec.from_json(env_info["observation"])
    return Layout(
        max_workers=config.worker_places,
        ring_slots=config.resolved_ring_slots(observation.nbytes),
        log_slots=_LOG_SLOTS,
        frame_bytes=observation.nbytes,
        action_bytes=ActionSpec.from_json(env_info["action"]).nbytes,
        chunk=config.chunk,
        about_bytes=_ABOUT_BYTES + 2 * len(json.dumps(env_info)),
        trace_slots=TRACE_SLOTS if config.trace else 0,
    )


class Supervisor:
    """One run's processes. Not thread-safe: after `start`, one thread calls `watch` until it answers True."""

    def __init__(self, config: RuntimeConfig, progress: Progress, *, played_delay_ticks: int | None = None) -> None:
        """`played_delay_ticks`: this program answers the jobs itself (`Player`), as many ticks after their frame; no
        worker is started, watched or restarted, and an episode begins when the program says so.
        """
        # Once, here: a process with fewer CPUs would find another answer.
        self.config = config.model_copy(update={"wait": config.resolved_wait()})
        self.run_id = new_run_id()
        self.plan: Plan | None = None
        self._played_delay_ticks = played_delay_ticks
        self._abandoned = False
        self.policy_info: dict[str, Any] = {}
        self.env_info: dict[str, Any] = {}
        self.restarts: Counter[int] = Counter()
        self.restart_reasons: Counter[str] = Counter()
        self.restarts_in_a_row: Counter[int] = Counter()
        self.stopping = False
        self.progress = progress
        self._clock = MonotonicClock()
        self._launcher: Launcher | None = None
        self._env: Child | None = None
        self._workers: dict[int, Child] = {}
        self._semaphores: list[posix_ipc.Semaphore] = []
        self._reasons: dict[int, str] = {}
        self._answered: dict[int, int] = {}
        self._shared: SharedRun | None = None
        self._booted_ns: dict[int, int] = {}
        self._trace: TraceRing | None = None
        self._stop_seq = 0
        #: What learning goes on from, and who learns; None: nobody does.
        self.saved: SavedState | None = None
        self.learners: LearnerCrew | None = None
        #: The weights of the policy's network; None: not made yet, or it has none.
        self.params: ParamStore | None = None
        self._version_watch = VersionWatch()
        self._versions_looked_ns = 0
        self.run_phase_seq = -1
        self.run_first_frame = 0
        self._began_ns = 0
        self._started_unix_s = 0.0
        self.startup_s = math.nan

    # -- start ---------------------------------------------------------------------------------------------

    @property
    def shared(self) -> SharedRun:
        if self._shared is None:
            raise StartupError("the run has not started: call start() or use it as a context manager")
        return self._shared

    def start(self) -> None:
        """Everything up to tick 0: processes, warm-up, rehearsal, plan. Raises what went wrong."""
        check_platform()
        self._began_ns = self._clock.now_ns()
        for run_id in reap_dead_runs():
            self.progress(f"removed the shared memory that run {run_id} left behind when it was killed")
        self._launcher = Launcher(self.run_id, PRELOAD if self._played_delay_ticks is None else PRELOAD_ENV)
        self._start_env()
        self.plan = plan = self._make_policy_ready()
        self.startup_s = (self._clock.now_ns() - self._began_ns) / 1e9
        self._started_unix_s = unix_time_s()
        self._tell_onlookers()
        self._begin_run(plan)

    def _make_policy_ready(self) -> Plan:
        """Workers, rehearsed, or places for the program that plays; and how it will go."""
        delay_ticks = self._played_delay_ticks
        if delay_ticks is None:
            first = 1 if self.config.workers == "auto" else self.config.workers
            self._check_learning()
            self.start_workers(range(first))
            self._prepare_learning()
            plan = Rehearsal(self, self._clock).plan(first)
            self._start_learners()
            return plan
        self.policy_info = {"policy": "the program itself", "synthetic": False, "device": "cpu"}
        for index in range(delay_ticks):
            self.shared.worker_control[index]["generation"] = 1
            self._set_up(index, True)
        return plan_of_player(delay_ticks, self.rate_hz)

    def _check_learning(self) -> None:
        """Before any worker is started: whether this world can be learned, and goes on from what was saved."""
        if self.config.learn is None:
            return
        check_can_learn(self.config, self.action, self.shared.layout.ring_slots)
        if self.saved is not None:
            check_same_world(self.config, self.env_info, self.saved)
        self.learners = LearnerCrew(
            self.config, self.run_id, self.shared.layout, self.saved, self._launch_learner, self.progress, self._clock
        )

    def _prepare_learning(self) -> None:
        if self.learners is not None:
            if self.params is None:
                raise PolicyError(
                    f"policy {self.config.policy!r} has no network to learn with; try --policy dqn, nature or mlp"
                )
            self.learners.prepare(self.params)

    def _start_learners(self) -> None:
        """After the rehearsal, so that they are in nobody's way, and before tick 0."""
        learners, count = self.learners, self.config.learner_processes
        if learners is None or not count:
            return
        self.progress(f"starting {count} learner{'s' if count != 1 else ''}")
        learners.start(
            {
                "layout": self.shared.layout.to_json(),
                "observation": self.env_info["observation"],
                "action": self.env_info["action"],
                "period_ns": int(1_000_000_000 / self.rate_hz),
                "run_phase_seq": next_order(self.shared.run_control["phase_seq"], Phase.RUN),
                "run_first_frame": self.shared.ring.sequence.newest() + 1,
            }
        )
        self.wait_until(learners.is_ready, "a learner", self.config.startup_timeout_s)

    def _launch_learner(self, index: int, generation: int, entry: str, boot: dict[str, Any]) -> Child:
        return self._launch("learner", index, generation, entry, boot)

    def end_learning(self) -> None:
        """Let the learners finish the update they are at. Once the run is over, however it ended."""
        learners, launcher = self.learners, self._launcher
        if learners is None:
            return
        # One that hangs with the master locked would keep the last checkpoint from being written for ever.
        for end in (learners.end, learners.kill):
            end()
            give_up_ns = self._clock.now_ns() + _GRACE_NS
            while launcher is not None and not learners.has_ended and self._clock.now_ns() < give_up_ns:
                try:
                    launcher.poll(0.02)
                except RtcoreError:
                    return

    def _start_env(self) -> None:
        self.progress(f"making the world {self.config.env_id}")
        self._env = self._launch("env", 0, 0, ENV_ENTRY, {"played": self._played_delay_ticks is not None})
        self.wait_until(lambda: bool(self._child_env.messages), "the world", self.config.startup_timeout_s)
        self.env_info = self._child_env.messages[0]["spec"]
        self.observation = ObservationSpec.from_json(self.env_info["observation"])
        self.action = ActionSpec.from_json(self.env_info["action"])
        self.rate_hz = Fraction(self.env_info["rate_hz"])
        layout = layout_for(self.config, self.env_info)
        self._shared = SharedRun.create(self.run_id, layout, self.observation)
        self._semaphores = [create_semaphore(self.run_id, worker) for worker in range(layout.max_workers)]
        self._trace = self._shared.trace_ring(TRACE_SUPERVISOR)
        self._child_env.send({"layout": layout.to_json()})
        self.wait_until(lambda: self._child_env.ready is not None, "the world", self.config.startup_timeout_s)
        self.env_info |= self._child_env.ready or {}

    def start_workers(self, indices: range) -> None:
        self.progress(f"starting {len(indices)} worker{'s' if len(indices) != 1 else ''}")
        first = indices[0]
        for index in indices:
            self._start_worker(index)
            if index == first and not self._workers[0].ready:
                # The first worker of a run makes the weights that all use.
                self.wait_until(self._has_weights, "worker 0", self.config.startup_timeout_s)
        self.wait_until(
            lambda: all(self._workers[index].ready is not None for index in indices),
            lambda: f"worker {next(i for i in indices if self._workers[i].ready is None)}",
            self.config.startup_timeout_s,
        )
        self.policy_info = self._workers[0].ready or {}
        for index in indices:
            self._set_up(index, True)

    def _start_worker(self, index: int) -> None:
        generation = self.shared.worker_control[index]["generation"] + 1
        self.shared.worker_control[index]["generation"] = generation
        boot = {
            "index": index,
            "generation": generation,
            "layout": self.shared.layout.to_json(),
            "observation": self.env_info["observation"],
            "action": self.env_info["action"],
            "period_ns": int(1_000_000_000 / self.rate_hz),
            # One that is started again in the run goes on with the counts of its place.
            "run_phase_seq": self.run_phase_seq,
            "has_weights": self.params is not None,
            "ticks_before": self.ticks_before,
        }
        self._booted_ns[index] = self._clock.now_ns()
        self._workers[index] = self._launch("worker", index, generation, WORKER_ENTRY, boot)

    def _launch(self, role: Any, index: int, generation: int, entry: str, boot: dict[str, Any]) -> Child:
        if self._launcher is None:
            raise StartupError("the run is over")
        common = {"run_id": self.run_id, "config": self.config.model_dump(mode="json")}
        return self._launcher.start(role, index, generation, entry, common | boot)

    # -- orders to the env process --------------------------------------------------------------------------

    def set_phase(self, phase: Phase, plan: Plan, num_workers: int) -> int:
        control = self.shared.run_control
        control["num_workers"] = num_workers
        control["delay_ticks"] = plan.delay_ticks
        control["tau_mean_ns"] = plan.tau.mean_ns
        control["guard_ns"] = self.config.guard_ns(self.rate_hz)
        control["num_ticks"] = self.config.num_ticks(self.rate_hz)
        return self._order(phase)

    def _order(self, phase: Phase) -> int:
        """Tell the env process (and with STOP the workers); returns the order's number."""
        control = self.shared.run_control
        control["phase"] = phase
        control["phase_seq"] = seq = next_order(control["phase_seq"], phase)
        return seq

    def _begin_run(self, plan: Plan) -> None:
        self.run_phase_seq = next_order(self.shared.run_control["phase_seq"], Phase.RUN)
        self.run_first_frame = self.shared.ring.sequence.newest() + 1
        self.run_drain = Drain(self.shared, self.run_phase_seq)
        status = self.shared.env_status
        rehearsed_ns = status["epoch_ns"]
        self.set_phase(Phase.RUN, plan, plan.workers)
        # From here on what is counted is the run's: the env process has cleared the rehearsal's books.
        self.wait_until(lambda: status["epoch_ns"] != rehearsed_ns, "the world", self.config.startup_timeout_s)

    # -- watch ---------------------------------------------------------------------------------------------

    def watch(self, timeout_s: float) -> bool:
        """Wait for events, act on them; True when the run is over. Raises if it failed."""
        self._pump(timeout_s)
        self._check_versions()
        status = self.shared.env_status
        # An env process that hears of the stop before it has begun to run never does.
        return bool(status["finished"]) or (self.stopping and status["phase_seen"] >= self._stop_seq)

    def request_stop(self) -> None:
        """End the run at the next tick, as if its time were up."""
        self.stopping = True
        if self._shared is not None:
            self._stop_seq = self._order(Phase.IDLE)

    def ask_reset(self, seed: int | None, options: dict[str, Any] | None) -> int:
        """Ask for a new episode, for `Player`; returns the number of the wish. ConfigError if it cannot be sent."""
        reset_seq = self.shared.run_control["reset_seq"] + 1
        message = reset_message(reset_seq, seed, options)
        with contextlib.suppress(OSError):  # an env process that is gone is reported as such
            self._child_env.channel.send(message)
        self.shared.run_control["reset_seq"] = reset_seq
        return reset_seq

    @property
    def worker_pids(self) -> dict[int, int]:
        """pid of each worker that is alive."""
        return {index: child.pid for index, child in self._workers.items() if child.exitcode is None}

    @property
    def learner_pids(self) -> dict[int, int]:
        """pid of each learner that is alive."""
        return self.learners.pids if self.learners is not None else {}

    @property
    def ticks_before(self) -> int:
        """Ticks of the runs that this one goes on from: exploration counts them too."""
        return int(self.saved.state["ticks"]) if self.saved is not None else 0

    @property
    def about(self) -> About:
        """What the run consists of. Only once there is a plan."""
        if self.plan is None:
            raise StartupError("the run has no plan yet")
        return About(
            run_id=self.run_id,
            program=(" ".join(sys.argv) or sys.executable)[:_PROGRAM_CHARS],
            config=self.config.model_dump(mode="json"),
            world=self.env_info,
            policy=self.policy_info,
            plan=self.plan,
            startup_s=self.startup_s,
            started_unix_s=self._started_unix_s,
            devices=[self.device_of(index) for index in range(self.plan.workers)],
            restart_reasons=dict(self.restart_reasons),
        )

    def trace(self, kind: TraceKind, start_ns: int, worker: int = -1, value: int = 0) -> None:
        """What this process did from `start_ns` to now, if the run is traced."""
        if self._trace is not None:
            self._trace.add(kind, start_ns, self._clock.now_ns(), worker=worker, value=value)

    def _tell_onlookers(self) -> None:
        self.shared.about.write(self.about)

    def device_of(self, index: int) -> str:
        """Where a worker computes, as it said when it was ready."""
        child = self._workers.get(index)
        return str((child.ready if child is not None and child.ready else self.policy_info).get("device", "cpu"))

    @property
    def env_pid(self) -> int:
        return self._child_env.pid

    def _pump(self, timeout_s: float) -> None:
        if self._launcher is None:
            raise StartupError("the run is over")
        for child in self._launcher.poll(timeout_s):
            if child.role == "worker" and child.exitcode is not None:
                # From now on, and not before, its claim on weights is void.
                self.shared.worker_control[child.index]["gone_generation"] = child.generation
            if child is self._env:
                self._check_env(child)
            elif self.learners is not None and self.learners.knows(child):
                self.learners.check(child)
            elif self._workers.get(child.index) is child:
                self._check_worker(child)
        self._check_heartbeats()
        if self.learners is not None:
            self.learners.look()

    def _check_env(self, child: Child) -> None:
        if child.failure is not None:
            raise child_error(child.failure, "the env process")
        if child.exitcode is not None:
            raise WorkerDied("env", 0, child.pid, child.exitcode)

    def _has_weights(self) -> bool:
        """Version 1 is out, or worker 0 has no network."""
        return self._workers[0].ready is not None or (self.params is not None and self.params.newest_version() > 0)

    def _make_params(self, child: Child) -> None:
        """Worker 0 has said how large its network is."""
        sizes = child.messages.pop()["weights"]
        create_store(self.run_id, self.shared.layout, sizes)
        self.params = attach_store(self.run_id)
        child.send({"weights": sizes})

    def _check_worker(self, child: Child) -> None:
        index = child.index
        if child.messages:
            self._make_params(child)
        if child.failure is not None:
            # Not a matter of luck: the same policy would raise again.
            raise child_error(child.failure, f"worker {index}")
        if child.exitcode is not None:
            self._worker_died(child)
        elif child.ready is not None and self.shared.run_control["phase"] == Phase.RUN:
            self._set_up(index, True)
            self.trace(TraceKind.WORKER_UP, self._clock.now_ns(), worker=index)

    def _worker_died(self, child: Child) -> None:
        index = child.index
        if self.shared.worker_control[index]["generation"] != child.generation or self.stopping:
            return
        self._set_up(index, False)
        reason = self._reasons.pop(index, None) or f"exit code {child.exitcode}"
        in_run = self.shared.run_control["phase"] == Phase.RUN
        inferences = self.shared.worker_status[index]["inferences"]
        if inferences > self._answered.get(index, 0):
            # It has worked since it was last restarted: this is a new misfortune, not the same one again.
            self.restarts_in_a_row[index] = 0
        self._answered[index] = inferences
        if not in_run or self.restarts_in_a_row[index] >= self.config.max_restarts:
            if "hung" in reason:
                raise PolicyError(
                    f"worker {index} {reason} (--hang-timeout-s {self.config.hang_timeout_s:g}), "
                    f"restarted {self.restarts[index]} times: does the policy ever return?"
                )
            raise WorkerDied("worker", index, child.pid, child.exitcode)
        self.restarts[index] += 1
        self.restarts_in_a_row[index] += 1
        self.restart_reasons[reason] += 1
        self.shared.worker_control[index]["restarts"] = self.restarts[index]
        self._tell_onlookers()
        self.trace(TraceKind.WORKER_DOWN, self._clock.now_ns(), worker=index, value=self.restarts[index])
        self.progress(f"worker {index} (pid {child.pid}) is down: {reason}; restarting it")
        self._start_worker(index)

    def _check_heartbeats(self) -> None:
        if self._shared is None or self._env is None or self._env.ready is None:
            return
        now_ns = self._clock.now_ns()
        heartbeat_ns = self._shared.env_status["heartbeat_ns"]
        if heartbeat_ns and now_ns - heartbeat_ns > self.config.env_timeout_s * 1e9:
            self._env.kill()
            raise EnvironmentHung(
                f"the env process (pid {self._env.pid}) was silent for {self.config.env_timeout_s:g} s in tick "
                f"{self._shared.env_status['tick']} and was killed. Does {self.config.env_id} return from step() "
                "and reset()? (A Game Boy program that executes an illegal opcode never does.) "
                "Raise --env-timeout-s if it is only slow"
            )
        tau_ns = self.plan.tau.p99_ns if self.plan is not None else 0
        limit_ns = max(int(self.config.hang_timeout_s * 1e9), 10 * tau_ns)
        for index, child in self._workers.items():
            status = self._shared.worker_status[index]
            if child.exitcode is not None or child.ready is None or index in self._reasons:
                continue
            since_ns = status["busy_since_ns"] or status["heartbeat_ns"]
            if status["ready"] == child.generation and since_ns and now_ns - since_ns > limit_ns:
                self._reasons[index] = f"hung: silent for {(now_ns - since_ns) / 1e9:.1f} s"
                self._set_up(index, False)
                child.kill()
        self._check_restarting(now_ns)

    def _check_restarting(self, now_ns: int) -> None:
        for index, child in self._workers.items():
            late_ns = now_ns - self._booted_ns.get(index, now_ns) - int(self.config.startup_timeout_s * 1e9)
            if child.ready is None and child.exitcode is None and late_ns > 0 and self.plan is not None:
                raise StartupError(
                    f"worker {index} was not ready {self.config.startup_timeout_s:g} s after its restart"
                )

    def _check_versions(self) -> None:
        """Say which worker does not move on to new weights."""
        now_ns = self._clock.now_ns()
        if self.params is None or now_ns - self._versions_looked_ns < _LOOK_AT_VERSIONS_NS:
            return
        self._versions_looked_ns = now_ns
        status = self.shared.worker_status
        seen = [
            WorkerVersion(index, status[index]["policy_version"], status[index]["inferences"])
            for index in self._workers
            if self.shared.worker_control[index]["up"]
        ]
        newest = self.params.newest_version()
        for late in self._version_watch.look(now_ns, newest, seen):
            self.progress(f"worker {late.worker} stays with version {late.version} of the weights; {newest} is out")

    def weights(self) -> dict[str, Any]:
        """What became of the policy's weights: the content of summary.json's `weights`. {} without a network."""
        if self.params is None:
            return {}
        newest, counts = self.params.newest(), self.params.counts()
        return {
            "version": newest.version,
            "checksum": f"{newest.checksum:08x}",
            "updates": newest.updates,
            "publications": newest.version,
            "waits": counts["waits"],
            "skipped": counts["skipped"],
            "torn": sum(status["torn_weights"] for status in self.shared.worker_status),
            "workers_behind": sorted(self._version_watch.behind),
        }

    def _set_up(self, index: int, up: bool) -> None:
        control, run = self.shared.worker_control[index], self.shared.run_control
        control["up"] = int(up)
        run["membership_seq"] = run["membership_seq"] + 1

    def retire(self, index: int) -> None:
        """Let a worker that the plan does not need go."""
        self._set_up(index, False)
        self.shared.worker_control[index]["generation"] = -1
        self._semaphores[index].release()
        self._workers.pop(index)

    def wait_until(self, done: Callable[[], bool], what: str | Callable[[], str], timeout_s: float) -> None:
        """Serve events until `done`; a named error if it takes too long."""
        give_up_ns = self._clock.now_ns() + int(timeout_s * 1e9)
        while not done():
            if self._abandoned:
                raise StartupError("the run was closed while it was starting")
            self._pump(0.01)
            if self._clock.now_ns() > give_up_ns:
                name = what if isinstance(what, str) else what()
                raise StartupError(
                    f"{name} was not ready within {timeout_s:g} s and was killed; --startup-timeout-s allows more"
                )

    # -- stop ----------------------------------------------------------------------------------------------

    def abandon_start(self) -> None:
        """A start that is under way in another thread is to fail soon. Nothing once the run has begun."""
        self._abandoned = True

    def close(self) -> None:
        """End every process and remove every name. Safe to call at any time, more than once."""
        launcher, self._launcher = self._launcher, None
        try:
            if self._shared is not None and launcher is not None:
                self._order(Phase.STOP)
                for semaphore in self._semaphores:
                    semaphore.release()
            if launcher is not None:
                self._await_exits(launcher)
        finally:
            if launcher is not None:
                launcher.close()
            if self.learners is not None:
                self.learners.close()
            for semaphore in self._semaphores:
                semaphore.close()
            self._semaphores = []
            if self.params is not None:
                self.params.close()
                self.params = None
            unlink_all(self.run_id)

    def _await_exits(self, launcher: Launcher) -> None:
        """A moment for the children to end by themselves (the world's close() may save something)."""
        children = [child for child in (self._env, *self._workers.values()) if child is not None]
        if self._shared is None or self._env is None or self._env.ready is None:
            return
        give_up_ns = self._clock.now_ns() + _GRACE_NS
        while any(child.exitcode is None for child in children) and self._clock.now_ns() < give_up_ns:
            try:
                launcher.poll(0.02)
            except RtcoreError:
                return

    @property
    def _child_env(self) -> Child:
        if self._env is None:
            raise StartupError("the env process has not been started")
        return self._env
