"""The env process: build the world, tell the supervisor what it looks like, then tick as told.

Owns: ring, jobs, log, env stats. Reads: slots, run control. Exits: on STOP, or with its parent.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from rtcore.channel import Channel
from rtcore.clock import MonotonicClock, TickClock, TickGrid, ns_of
from rtcore.config.groups import WorldSettings
from rtcore.config.resolved import ResolvedRun, tick_rate_hz
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, EnvironmentFailed, RtcoreError
from rtcore.host.descendants import TerminationRequested, begin_closing, limit_closing, raise_lost_order
from rtcore.host.seeding import seed_generators
from rtcore.host.watchdog import Watchdog
from rtcore.loop.counting import Books, StatsRecorder, TracingRecorder
from rtcore.loop.garbage import SlackCollector
from rtcore.loop.overlap import blend_of, mix_of
from rtcore.loop.resets import ResetOrders
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.workers import SharedWorkers
from rtcore.loop.world import GymnasiumWorld, HeldWorld, World, make_environment, refused_setting
from rtcore.loop.world_clock import Cycles, MeasuredCycles, WorldPace, measure_cycles
from rtcore.memory.layout import TRACE_ENV
from rtcore.memory.operator import OperatorReader
from rtcore.memory.shared import Phase, SharedRun, phase_of
from rtcore.memory.waiting import WAITING, Waker
from rtcore.messages import AtWorld, EnvironmentBoot, EnvironmentReady, Failed, SegmentsMade, WorldSpec
from rtcore.realtime import prepare_env_process
from rtcore.scheduling.dispatch import Dispatcher
from rtcore.scheduling.schedule import Schedule
from rtcore.scheduling.takeover import TakeOver

_IDLE_POLL_NS = 2_000_000
_TIMED_STEPS = 20
_TIMED_STEPS_NS = 500_000_000
_EPOCH_LEAD_NS = 20_000_000


def main(boot: EnvironmentBoot, channel: Channel) -> None:
    """Process entry."""
    settings = boot.config.world
    limit_closing(boot.config.faults.env_timeout_s)
    world = build_world(settings, boot.seed, lambda call: channel.send(AtWorld(call, may_take_a_start=True)))
    try:
        _run_and_close(world, boot, channel)
    finally:
        _close(world)  # if an order to end came on the way into closing; it is raised once


def _run_and_close(world: GymnasiumWorld, boot: EnvironmentBoot, channel: Channel) -> None:
    try:
        _run_world(world, boot, channel)
    except BaseException as error:
        if not isinstance(error, TerminationRequested):
            raise_lost_order()  # of which the world, or what it calls, made an error of its own
            channel.send(Failed.of(error))  # at once: closing may take its time, or never return
        raise
    finally:
        _close(world)


def _close(world: GymnasiumWorld) -> None:
    """Make it safe and close it; nothing interrupts that. Nothing the second time. What it raises is the run's error if
    there is no other one."""
    failure = sys.exception()
    if not begin_closing():
        return
    try:
        world.close()
    except EnvironmentFailed as error:
        if failure is None:
            raise
        print(f"rtcore: {error}", file=sys.stderr)


def _run_world(world: GymnasiumWorld, boot: EnvironmentBoot, channel: Channel) -> None:
    """Say what the world looks like, attach to the memory that is made for it, and tick as told until STOP."""
    config = boot.config
    world.keeps_requests = config.take_over.operator is not None
    # Errors in these two are reported before anything is made.
    blend_of(config.agent.on_overlap, world.action)
    cycles = cycles_of(world, config)
    step_ns = time_steps(world, boot.entropy, lambda call, first: channel.send(AtWorld(call, first)))
    measured = None
    if cycles is not None:
        nominal_hz = tick_rate_hz(config.world, world.env.metadata.get("render_fps"))
        measured = measure_cycles(cycles, nominal_hz, lambda call: channel.send(AtWorld(call)))
        world.limit_actions(config.world.limit, measured.rate_hz)
        channel.send(AtWorld(""))
    channel.send(replace(describe(world, config, measured), step_ns=step_ns))
    made = channel.expect(SegmentsMade, config.faults.startup_timeout_s)
    report = prepare_env_process(config.host.env_cpu) if config.host.realtime == "auto" else {}
    shared = SharedRun.attach(boot.run_id, made.layout, world.observation)
    world.count = shared.env_counters.add
    is_woken = WAITING[made.run.wait].is_woken and not boot.played
    waker = Waker(shared.wake_words()) if is_woken else None
    channel.send(EnvironmentReady(report))
    resets = ResetOrders(shared, channel, world.order_reset, made.run.period_ns) if boot.played else None
    EnvProcess(made.run, world, shared, waker, resets=resets, cycles=cycles).serve()


def _report_nothing(call: str, first: bool = False) -> None:
    """For callers without a supervisor that waits."""


def build_world(
    settings: WorldSettings,
    seed: int,
    before_call: Callable[[str], object] = _report_nothing,
    virtual_now_ns: Callable[[], int] | None = None,
) -> GymnasiumWorld:
    """The world, reset once, so that whatever is wrong with it shows before anything else starts.

    `before_call`: called with what is asked of it next. `virtual_now_ns`: as of a `GymnasiumWorld`.
    """
    before_call("being made")
    try:
        env = make_environment(settings.env_id, settings.args)
    except RtcoreError:
        raise
    except Exception as error:
        refused = refused_setting(error, settings.env_id, settings.args)
        if refused is not None:
            raise ConfigError(refused) from error
        raise EnvironmentFailed(f"{settings.env_id} could not be made: {type(error).__name__}: {error}") from error
    to_close: Any = env
    try:
        to_close = world = GymnasiumWorld(
            env,
            seed=seed,
            on_missing=settings.on_missing,
            noop_action=settings.noop_action,
            safe_action=settings.safe_action,
            info_keys=settings.info_keys,
            task=settings.task,
            virtual_now_ns=virtual_now_ns,
        )
        if settings.limit:
            world.limit_actions(settings.limit, tick_rate_hz(settings, env.metadata.get("render_fps")))
        before_call("in its first reset()")
        world.reset()
        world.inspect()
    except BaseException as error:
        with contextlib.suppress(Exception):  # what came first says more
            to_close.close()
        # Of a start state, say, which is looked at only here.
        refused = refused_setting(error.__cause__, settings.env_id, settings.args)
        if isinstance(error, EnvironmentFailed) and refused is not None:
            raise ConfigError(refused) from error
        raise
    return world


def time_steps(
    world: GymnasiumWorld, entropy: Sequence[int] = (), before_call: Callable[[str, bool], object] = _report_nothing
) -> int:
    """How long a step takes, from a few with the safe or the stand-in action: the 90% quantile [ns]. Then a reset from
    the seed.

    The first step counts only if the episode ends with it: worlds compile in it. `entropy`: what the process's global
    generators begin from again, for worlds that draw from them. `before_call`: called with what is asked of the world
    next, and whether that is the first of its kind.
    """
    clock, times = MonotonicClock(), []
    for number in range(_TIMED_STEPS):
        before_call(f"in step {number + 1} of {_TIMED_STEPS} before tick 0", number == 0)
        start_ns = clock.now_ns()
        result = world.step(world.stand_in()[0] if world.safe is None else world.safe)
        times.append(clock.now_ns() - start_ns)
        world.inspect()
        if result.terminated or result.truncated or sum(times[1:]) > _TIMED_STEPS_NS:
            break
    if entropy:
        seed_generators(entropy)
    before_call("in its second reset()", False)
    world.restart()
    before_call("", False)
    counted = sorted(times[1:] or times)
    return counted[int(0.9 * (len(counted) - 1))]


def cycles_of(world: GymnasiumWorld, config: RuntimeConfig) -> Cycles | None:
    """Of the world's device, where it gives the ticks. ConfigError if the world does not tell of them."""
    if config.timing.clock != "world":
        return None
    return Cycles(world.env, MonotonicClock(), ns_of(config.faults.env_timeout_s))


def describe(world: GymnasiumWorld, config: RuntimeConfig, measured: MeasuredCycles | None = None) -> WorldSpec:
    """What the supervisor and the workers need to know of the world. `measured`: of its clock, if that gives the
    ticks."""
    rate_hz = tick_rate_hz(config.world, world.env.metadata.get("render_fps"))
    return WorldSpec(
        env_id=config.world.env_id,
        observation=world.observation,
        action=world.action,
        rate_hz=str(rate_hz if measured is None else measured.rate_hz),
        seed=world.seed,
        noop=repr(world.noop),
        noop_value=np.asarray(world.noop).tolist(),
        noop_source=world.noop_source,
        safe_action=None if world.safe is None else np.asarray(world.safe).tolist(),
        keeps=world.keeps,
        can_pause=world.can_pause,
        own=getattr(world.env.unwrapped, "rtcore_info", {}),
        notes=world.notes(rate_hz) + ([] if measured is None else measured.notes()),
        cycles=None if measured is None else measured.to_json(),
        leaves_space=world.leaves_space,
        env_spec=_env_spec(world) if config.output.record else None,
        action_meanings=world.action_meanings if config.output.record or config.has_operator_process else None,
    )


def _env_spec(world: GymnasiumWorld) -> str | None:
    """How Gymnasium makes this world again, for Minari; None of one that was not made by id, or with other arguments
    than JSON has."""
    try:
        return world.env.spec.to_json() if world.env.spec is not None else None
    except (TypeError, ValueError):
        return None


class EnvProcess:
    """Follows the supervisor's phases: rehearse, run, idle, stop."""

    def __init__(
        self,
        run: ResolvedRun,
        world: GymnasiumWorld,
        shared: SharedRun,
        waker: Waker | None,
        resets: ResetOrders | None = None,
        cycles: Cycles | None = None,
    ) -> None:
        """`waker`: as of `SharedWorkers`. `resets`: another program plays, and says when an episode begins. `cycles`:
        of the world's device, which gives the ticks of the run."""
        self._run = run
        self._world = world
        self._shared = shared
        self._waker = waker
        self._resets = resets
        self._cycles = cycles
        self._blend = blend_of(run.config.agent.on_overlap, world.action)
        self._trace = shared.trace_ring(TRACE_ENV)
        shared.env_status["pid"] = os.getpid()

    def serve(self) -> None:
        """Until STOP, or until nobody has asked for anything since the end of the run for as long as a world may be
        silent: whoever started it stands still."""
        try:
            self._follow_orders()
        finally:
            # Whatever ended it: one more sign of life, so that the supervisor waits while the world is closed.
            self._shared.env_status["heartbeat_ns"] = MonotonicClock.now_ns()

    def _follow_orders(self) -> None:
        control, status, clock = self._shared.run_control, self._shared.env_status, MonotonicClock()
        ended_ns, patience_ns = 0, ns_of(self._run.config.faults.env_timeout_s)
        while True:
            raise_lost_order()
            status["heartbeat_ns"] = now_ns = clock.now_ns()
            phase_seq = control["phase_seq"]
            phase = phase_of(phase_seq)
            if phase is Phase.STOP or (ended_ns and now_ns - ended_ns > patience_ns):
                return
            if phase_seq == status["phase_seen"]:
                clock.sleep_until_ns(clock.now_ns() + _IDLE_POLL_NS)
                continue
            if phase in (Phase.REHEARSE, Phase.RUN):
                self._tick_through(phase, phase_seq)
                ended_ns = clock.now_ns() if phase is Phase.RUN else 0
            status["phase_seen"] = phase_seq

    def _tick_through(self, phase: Phase, phase_seq: int) -> None:
        """One rehearsal or the run, from a fresh schedule, a fresh epoch and clean statistics."""
        control, status = self._shared.run_control, self._shared.env_status
        if control["has_payload"]:
            self._shared.attach_payload()
        num_ticks = self._run.num_ticks if phase is Phase.RUN else None
        loop, workers, clock, garbage = self._make_loop(phase, phase_seq, num_ticks)
        world_pace = loop.pace if isinstance(loop.pace, WorldPace) else None
        status["epoch_ns"] = loop.pace.grid.epoch_ns
        status["first_frame_seq"] = self._shared.ring.next_seq
        status["first_log_seq"] = self._shared.log.next_seq
        seq_index = control.record.index["phase_seq"]
        words = control.words
        pauses_index = control.record.index["pauses"]
        tasks = self._shared.tasks if phase is Phase.RUN else None
        while words[seq_index] == phase_seq:
            raise_lost_order()
            if tasks is not None and tasks.has_news:
                version, task = tasks.take()
                self._world.begin_task(version, task)
                loop.begin_task(version, task)
            if words[pauses_index] and phase is Phase.RUN:
                self._stand_still(loop, phase_seq, garbage)
                if num_ticks is not None and num_ticks <= loop.tick + 1:
                    break
                continue
            if self._resets is not None and self._resets.hold_back(loop):
                garbage.while_waiting()
                continue
            if world_pace is not None and not world_pace.await_cycle(loop.tick):
                status["heartbeat_ns"] = clock.now_ns()
                continue
            loop.run_tick()
            next_ns = loop.pace.grid.deadline_ns(loop.tick + 1) - clock.spin_ns
            garbage.after_tick(next_ns, world_stands=loop.is_held)
            if num_ticks is not None and num_ticks <= loop.tick + 1:
                break
        if phase is Phase.RUN:
            self._world.make_safe()  # before all that is still done of the run, which may take long
        loop.finish()
        self._shared.env_counters["unknown_entries"] = workers.unknown_entries
        if phase is Phase.RUN:
            status["finished"] = 1
        else:
            self._drain(workers)

    def _stand_still(self, loop: TickLoop, phase_seq: int, garbage: SlackCollector) -> None:
        """Between two ticks: the world waits, as long as somebody wants it to and the run is not ended. The ticks that
        go by meanwhile are counted in `waited_ticks`."""
        control, status, clock = self._shared.run_control, self._shared.env_status, MonotonicClock()
        self._world.pause(True)
        status["is_paused"] = 1
        while control["pauses"] and control["phase_seq"] == phase_seq:
            status["heartbeat_ns"] = now_ns = clock.now_ns()
            garbage.while_waiting()
            clock.sleep_until_ns(now_ns + _IDLE_POLL_NS)
        self._world.pause(False)
        status["is_paused"] = 0
        waited_ticks = loop.pass_over(clock.now_ns())
        if self._shared.env_counters["ticks"]:  # before the first tick there is no run that waits
            self._shared.env_counters.add("waited_ticks", waited_ticks)

    def _make_loop(
        self, phase: Phase, phase_seq: int, num_ticks: int | None
    ) -> tuple[TickLoop, SharedWorkers, TickClock, SlackCollector]:
        run, control, shared = self._run, self._shared.run_control, self._shared
        config, period_ns = run.config, run.period_ns
        params = run.schedule_params(control["delay_ticks"], control["tau_mean_ns"], adapt=self._resets is None)
        schedule = Schedule(params, control["num_workers"])
        workers = SharedWorkers(
            shared,
            self._waker,
            control["num_workers"],
            phase_seq=phase_seq,
        )
        clock = TickClock.for_period(period_ns)
        grid = TickGrid(clock.now_ns() + _EPOCH_LEAD_NS, run.rate_hz)
        pace: WorldPace | None = None
        books = Books(shared.env_counters, shared.env_status, shared.env_histograms, shared.log.append)
        world: World = self._world if phase is Phase.RUN else HeldWorld(self._world)
        recorder = StatsRecorder(books, schedule, period_ns)
        if self._trace is not None and phase is Phase.RUN:
            recorder = TracingRecorder(books, schedule, period_ns, self._trace, clock)
        if self._cycles is not None and phase is Phase.RUN:  # a rehearsal steps no world
            pace = WorldPace(
                self._cycles,
                clock,
                run.rate_hz,
                grid.epoch_ns,
                num_ticks=num_ticks,
                on_cycle=recorder.cycle_taken,
            )
        needs = shared.payload.needs if shared.payload is not None else None
        head = run.head_place if needs is not None and needs.has_head else -1
        dispatcher = Dispatcher(
            config.schedule.on_late,
            chunk_ticks=config.agent.chunk,
            chunk_from=config.agent.chunk_from,
            holds=config.world.on_reset == "hold",
            blend=self._blend,
            head=head,
            phase_seq=phase_seq,
            first_log_seq=shared.log.next_seq,
        )
        takeover = None
        if phase is Phase.RUN:
            takeover = TakeOver(OperatorReader(shared), config.take_over.blend_ticks, mix_of(self._world.action))
        loop = TickLoop(
            world=world,
            grid=grid,
            clock=clock,
            schedule=schedule,
            dispatcher=dispatcher,
            workers=workers,
            recorder=recorder,
            on_reset=config.world.on_reset,
            overrun=config.world.overrun,
            pace=pace,
            phase_seq=phase_seq,
            resets=self._resets,
            num_ticks=num_ticks,
            needs=needs,
            action=self._world.action,
            seed=config.world.seed,
            head=head,
            starvation=self._world.starvation(config.world.starve_ms) if phase is Phase.RUN else None,
            takeover=takeover,
            kept_by_world=self._world.kept_with if self._world.keeps else None,
            task=self._world.task,
        )

        def before_spin() -> None:
            loop.prepare_tick()
            shared.ring.warm()

        clock.before_spin = before_spin
        return loop, workers, clock, SlackCollector(clock, recorder.garbage_collected)

    def _drain(self, workers: SharedWorkers) -> None:
        """Let the jobs that are out come back, so that the next phase starts with every worker idle."""
        control, status, clock = self._shared.run_control, self._shared.env_status, MonotonicClock()
        # One that hangs is killed by the supervisor, which knows how long an inference may take.
        watchdog, limit_ns = Watchdog(clock), ns_of(self._run.config.faults.startup_timeout_s)
        while workers.num_waiting and watchdog.now_ns() < limit_ns and control["phase"] != Phase.STOP:
            now_ns = clock.now_ns()
            status["heartbeat_ns"] = now_ns
            list(workers.collect(0))
            list(workers.membership())
            clock.sleep_until_ns(now_ns + _IDLE_POLL_NS)
