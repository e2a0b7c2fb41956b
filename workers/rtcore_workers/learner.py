"""A learner process: sample from the run's frame ring, compute a gradient, apply it to the master, publish.

Owns: its status in the learners' segment. Locks the master and the parameter store, as the other learners do.
Reads: the frame ring, the env process's counters. Exits: at the end of the run, when its generation is over, or with
the fork server. It delays no tick: it has a lower priority than workers, and pauses when ticks are missed.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from typing import Any

from rtcore.channel import Channel
from rtcore.clock import NS_PER_MS, MonotonicClock, cpu_time_ns
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.learn.replay_memory import NothingToSample, TransitionReader
from rtcore.learn.throttle import Throttle, TickWatch
from rtcore.learn.transitions import TransitionBuilder
from rtcore.memory.history import History
from rtcore.memory.master import STOPPED_BY, Floats, LearnerState, MasterState, attach_master
from rtcore.memory.shared import Phase, SharedRun, phase_of
from rtcore.memory.weights import ParamStore, attach_store
from rtcore.messages import LearnerBoot, LearnerReady
from rtcore.realtime import keep_off
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.dqn import DqnLearner, Gradient, Update, copy_untrained
from rtcore_workers.malloc import keep_freed_memory
from rtcore_workers.policies import network_of

#: Longest sleep without a heartbeat.
_BEAT_NS = 100 * NS_PER_MS
#: How often an idle learner polls.
_IDLE_NS = 10 * NS_PER_MS
#: Longest wait of a publication for a free buffer; after it, the publication is skipped.
_PUBLISH_WAIT_NS = 200 * NS_PER_MS
#: A learner below its cap of updates per tick may catch up on so many ticks.
_BURST_TICKS = 30


def main(boot: LearnerBoot, channel: Channel) -> None:
    """Process entry."""
    import torch  # noqa: PLC0415 - the fork server has it

    torch.set_num_threads(1)
    run, config = boot.run, boot.run.config
    # The first learner starts at normal priority, before the ticks begin: at its later one it might never get ready on
    # a busy machine.
    is_first = boot.generation == 1
    if not is_first:
        lower_priority(config)
    shared = SharedRun.attach(boot.run_id, boot.layout, boot.observation)
    learner = make_learner(
        config,
        boot.run_id,
        shared,
        boot.observation,
        boot.action,
        index=boot.index,
        phase_seq=boot.run_phase_seq,
        first_frame=boot.run_first_frame,
    )
    # Only now: by default glibc gives freed memory back, and the networks' first copies have just been freed.
    keep_freed_memory()
    gc.collect()
    gc.freeze()
    if is_first:
        lower_priority(config)
    # Heartbeat first: the supervisor watches it from the moment it reports ready.
    loop = LearnerLoop(run, learner, shared, boot.generation)
    channel.send(LearnerReady(learner.device))
    loop.run()


def lower_priority(config: RuntimeConfig) -> None:
    """Lower this process's priority below the workers'. A preempted lock holder then delays only other learners."""
    os.nice(config.learning.learner_nice)
    if config.learning.learner_nice:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    if config.host.env_cpu is not None:
        keep_off(config.host.env_cpu)


def make_learner(
    config: RuntimeConfig,
    run_id: str,
    shared: SharedRun,
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    index: int,
    phase_seq: int,
    first_frame: int,
) -> Learner:
    """Attach to the master and the parameter store and build the networks. `phase_seq`, `first_frame`: of the run."""
    master, first_updates = attach_master(run_id)
    store = attach_store(run_id)
    history = History.of(config.history)
    builder = TransitionBuilder(config.learning.gamma)
    replay = TransitionReader(
        ring=shared.ring,
        action=action,
        phase_seq=phase_seq,
        builder=builder,
        first_frame=first_frame,
        history=history,
        since_ticks=shared.payload.needs.since_ticks if shared.payload is not None else 0,
    )
    networks = [network_of(config, observation, action) for _ in range(2)]
    for network in networks:
        copy_untrained(network, store)
    device = learner_device(config.agent.device)
    return Learner(
        config=config,
        master=master,
        store=store,
        replay=replay,
        online=networks[0],
        target=networks[1],
        action=action,
        index=index,
        device=device,
        first_updates=first_updates,
    )


def learner_device(device: str) -> str:
    """The device of the learners: the first one named; for "auto" the first GPU, if there is one."""
    from rtcore_workers.policies.executors import resolve_device  # noqa: PLC0415 - imports torch

    return resolve_device(device, 0)


class Learner:
    """One place in the learners' segment: its replay memory, its networks and its status. Updates one at a time.

    Args:
        config: Of the run.
        master: The weights, optimizer and target network that all learners share.
        store: Where new weights are published to the workers.
        replay: Where transitions are sampled from; its reader of the frame ring.
        online: The network that learns; it becomes this object's own.
        target: Another one, for the targets.
        action: The world's.
        index: Of this learner.
        device: Where the networks compute.
        first_updates: Updates before this run; 0 unless it was resumed.

    Raises:
        ConfigError: As `DqnLearner`.
    """

    def __init__(
        self,
        config: RuntimeConfig,
        master: MasterState,
        store: ParamStore,
        replay: TransitionReader,
        online: Any,
        target: Any,
        action: ActionSpec,
        index: int,
        device: str,
        first_updates: int = 0,
    ) -> None:
        self._first_updates = first_updates
        self.master = master
        self.replay = replay
        self.device = device
        self.status = master.status[index]
        self.control = master.control[index]
        self._config = config
        self._store = store
        self._clock = MonotonicClock()
        manifest = store.manifest()
        self._manifest = manifest
        self._step = DqnLearner(
            module=online,
            target_module=target,
            manifest=manifest,
            master=master,
            replay=replay,
            settings=config.learning,
            action=action,
            seed=config.world.seed,
            index=index,
            publish=self._publish,
            waiting=self.beat,
            device=device,
        )
        self._on_gpu = device.startswith("cuda")
        # Counted by the process that had this index before a restart.
        self._lapped_before = self.status["lapped_samples"]

    def beat(self) -> None:
        self.status["heartbeat_ns"] = self._clock.now_ns()

    def collect(self) -> bool:
        """Read the newest ticks; returns whether there are enough transitions to learn from."""
        self.replay.update()
        count = len(self.replay)
        self.status["transitions"] = count
        # A learner that was restarted finds the replay memory in the ring, as far back as it reaches.
        enough = self.replay.counts.transitions >= self._config.learning.learning_starts
        return count > 0 and (enough or self.master.commit.updates > self._first_updates)

    def update(self, inside: Callable[[], None] | None = None) -> bool:
        """One update, if there still are transitions.

        False if its loss or gradient was not finite: then nothing was changed, and learning is over.
        """
        cpu_start_ns = cpu_time_ns()
        with self._stream():
            try:
                gradient = self._step.compute()
            except NothingToSample:
                return True  # all were overwritten since `collect`; the next call reads new ones
            self._note(gradient)
            if gradient.flaw:
                self._stop(gradient)
                return False
            self.beat()
            self._book(self._step.apply(gradient, inside))
        self.status["learning_ns"] += cpu_time_ns() - cpu_start_ns
        return True

    def _stream(self) -> contextlib.AbstractContextManager[Any]:
        """On a GPU a stream below the workers' (priority 0, theirs is -1). Not yet run on a GPU."""
        if not self._on_gpu:
            return contextlib.nullcontext()
        import torch  # noqa: PLC0415 - only where there is a GPU

        if not hasattr(self, "_side"):
            self._side = torch.cuda.Stream(device=self.device, priority=0)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(self._side)

    def _publish(self, weights: Floats, updates: int) -> int | None:
        """Publish to the workers, unless newer weights are already published."""

        def write(buffer: memoryview) -> None:
            if self._store.newest().updates > updates:
                raise _Outdated
            self._manifest.trainable_array(buffer)[:] = weights

        try:
            version = self._store.publish(write, updates=updates, wait_ns=_PUBLISH_WAIT_NS)
        except _Outdated:
            return self._store.newest_version()
        return version.version if version is not None else None

    def _note(self, gradient: Gradient) -> None:
        status = self.status
        for field in ("loss", "td_error", "q_mean", "grad_norm"):
            status.set_float(field, getattr(gradient, field))
        status.set_float("policy_lag", self._store.newest_version() - float(gradient.policy_versions.mean()))
        status["lapped_samples"] = self._lapped_before + self.replay.lapped_samples

    def _book(self, update: Update) -> None:
        status = self.status
        status["version_diff"] = update.version_diff
        status["version_diff_sum"] += update.version_diff
        least = status["version_diff_min"] if status["updates"] else update.version_diff
        status["version_diff_min"] = min(least, update.version_diff)
        status["version_diff_max"] = max(status["version_diff_max"], update.version_diff)
        status["publications"] += update.version is not None
        status["publish_skipped"] += update.publish_skipped
        status["updates"] += 1

    def _stop(self, gradient: Gradient) -> None:
        status = self.status
        status["stopped_by"] = next(code for code, (what, _) in STOPPED_BY.items() if what == gradient.flaw)
        status["stopped_at"] = gradient.commit.updates + 1
        status["state"] = LearnerState.STOPPED


class _Outdated(Exception):
    """Another learner has already published newer weights."""


class LearnerLoop:
    """When to learn: once there is data, in turn with the other learners, no more often than allowed, and with pauses
    while ticks are missed or late."""

    def __init__(self, run: ResolvedRun, learner: Learner, shared: SharedRun, generation: int) -> None:
        self._learner = learner
        self._status = learner.status
        self._generation = generation
        self._run_control = shared.run_control
        self._env_status = shared.env_status
        self._clock = MonotonicClock()
        self._throttle = Throttle(run.period_ns)
        self._watch = TickWatch(shared.env_counters, shared.env_histograms["lateness_ns"], run.period_ns)
        self._period_ns = run.period_ns
        self._checked_ns = 0
        self._num_learners = len(learner.master.status)
        per_tick = run.config.learning.updates_per_tick
        self._per_tick = per_tick / self._num_learners if per_tick is not None else None
        self._credit = 0.0
        self._credited_tick = -1
        self._start_ns = 0
        status = self._status
        status["pid"] = os.getpid()
        status["generation"] = generation
        learner.beat()

    def run(self) -> None:
        """Learn until the end of the run."""
        learner = self._learner
        while not self._is_over():
            if any(status["stopped_at"] for status in learner.master.status):
                self._sleep(_BEAT_NS, LearnerState.STOPPED)
            elif not learner.collect():
                self._sleep(_IDLE_NS, LearnerState.COLLECTING)
            elif learner.control["paused"]:
                self._sleep(_IDLE_NS, LearnerState.PAUSED)
            elif not self._may_spend():
                self._sleep(min(self._period_ns, _IDLE_NS), LearnerState.CAPPED)
            else:
                self._await_turn()
                self._status["state"] = LearnerState.LEARNING
                learner.update(self._book_next_start)
                self._pause_for_ticks()

    def _is_over(self) -> bool:
        if self._learner.control["generation"] != self._generation or self._run_control["phase"] == Phase.STOP:
            return True
        return bool(self._env_status["finished"])

    def _may_spend(self) -> bool:
        """Whether the ticks so far allow another update; if so it is counted as used."""
        if self._per_tick is None:
            return True
        tick = self._env_status["tick"]
        if self._credited_tick < 0:
            self._credited_tick = tick
        self._credit += (tick - self._credited_tick) * self._per_tick
        self._credit = min(self._credit, max(1.0, _BURST_TICKS * self._per_tick))
        self._credited_tick = tick
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _await_turn(self) -> None:
        """Wait for this learner's start: N learners start a share of an update apart, so that they finish in turn."""
        now_ns = self._clock.now_ns()
        if self._start_ns > now_ns:
            self._sleep(self._start_ns - now_ns, LearnerState.LEARNING)
        self._start_ns = self._clock.now_ns()

    def _book_next_start(self) -> None:
        """With the master locked: this learner's next start, a share of an update after everybody's last one."""
        pace, now_ns = self._learner.master.pace, self._clock.now_ns()
        took_ns = max(1, now_ns - self._start_ns)
        mean_ns = pace["update_ns"] or took_ns
        pace["update_ns"] = mean_ns = mean_ns + (took_ns - mean_ns) // 8
        if self._num_learners > 1:
            self._start_ns = max(now_ns, pace["next_start_ns"])
            pace["next_start_ns"] = self._start_ns + mean_ns // self._num_learners

    def _pause_for_ticks(self) -> None:
        """Pause while ticks are missed or late. Evaluated at most once per tick."""
        now_ns = self._clock.now_ns()
        if now_ns - self._checked_ns < self._period_ns:
            return
        self._checked_ns = now_ns
        pause_ns = self._throttle.after_learning(*self._watch.poll())
        if not pause_ns:
            return
        self._status["yields"] += 1
        self._sleep(pause_ns, LearnerState.YIELDING)
        self._checked_ns = self._clock.now_ns()
        self._status["yielded_ns"] += self._checked_ns - now_ns
        self._throttle.after_pause(*self._watch.poll())

    def _sleep(self, length_ns: int, state: LearnerState) -> None:
        """Sleep in short pieces, with heartbeats; at most to the end of the run."""
        self._status["state"] = state
        until_ns = self._clock.now_ns() + length_ns
        while (now_ns := self._clock.now_ns()) < until_ns and not self._is_over():
            self._learner.beat()
            self._clock.sleep_until_ns(min(until_ns, now_ns + _BEAT_NS))
        self._learner.beat()


class LearningTurn:
    """One update between two inferences of a worker: the sequential modes, the paper's baselines."""

    def __init__(
        self, config: RuntimeConfig, run_id: str, shared: SharedRun, observation: ObservationSpec, action: ActionSpec
    ) -> None:
        self._parts = (config, run_id, shared, observation, action)
        self._ring = shared.ring
        self._learner: Learner | None = None

    def take(self, phase_seq: int) -> None:
        """One update, if there are enough transitions. `phase_seq`: of the job; none in the rehearsal."""
        if phase_of(phase_seq) is not Phase.RUN:
            return
        if self._learner is None:
            first_frame = self._ring.sequence.resume_at()
            self._learner = make_learner(*self._parts, index=0, phase_seq=phase_seq, first_frame=first_frame)
            self._learner.status["pid"] = os.getpid()
        learner = self._learner
        learner.beat()
        if learner.status["stopped_at"] or learner.control["generation"] < 0:  # the last checkpoint is being written
            return
        if not learner.collect():
            learner.status["state"] = LearnerState.COLLECTING
        elif learner.control["paused"]:
            learner.status["state"] = LearnerState.PAUSED
        else:
            learner.status["state"] = LearnerState.LEARNING
            learner.update()
