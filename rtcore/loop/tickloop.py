"""One tick after another: collect, dispatch, book, step, publish. The same code on wall clock and virtual clock.

The loop owns the world, the schedule and the dispatcher. Where workers live (processes or a simulation) is
behind `Workers`; where the record goes is behind `Recorder`. In it nothing logs or blocks; what it allocates
is short-lived and freed at once by reference count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from rtcore.clock import Clock, Overrun, TickGrid, TickPace, TickPlan
from rtcore.errors import EnvironmentFailed
from rtcore.loop.world import StepResult, World
from rtcore.scheduling.dispatch import Decision, Dispatcher, Entry, Resolution, Source, TickKind
from rtcore.scheduling.schedule import Job, OnReset, Schedule

#: Shorter ticks than this need no waking ahead: the machine never gets to sleep.
_PREWAKE_PERIOD_NS = 4_000_000


class Workers(Protocol):
    """The workers as the loop sees them."""

    def collect(self, tick: int) -> Iterable[Entry]:
        """Answers that came in since the last call; payloads are `Answer`s."""
        ...

    def membership(self) -> Iterable[tuple[int, bool]]:
        """(worker, up) for every worker that came or went since the last call."""
        ...

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        """Book jobs; called before their frame exists, so that waking up costs no time later."""
        ...

    def publish(self, frame: Any, header: tuple[Any, ...], action: bytes) -> int:
        """Make a frame and its record visible; returns its number."""
        ...

    def announce(self, jobs: Sequence[Job]) -> None:
        """The frame the jobs wait for is published."""
        ...

    def prewake(self, worker: int) -> None:
        """`worker` will probably be booked at the next tick: waking a process takes a while."""
        ...


class Answer(NamedTuple):
    """Payload of a dispatcher entry: the action bytes and where they come from. Times in ns."""

    actions: bytes
    worker: int
    booked_ns: int
    frame_publish_ns: int
    start_ns: int
    read_ns: int
    infer_end_ns: int
    write_ns: int
    cpu_ns: int
    policy_version: int
    clipped: int
    policy_checksum: int = 0
    explored: int = 0


class TickRecord(NamedTuple):
    """What the loop tells the recorder about a tick, beside what is in the frame header."""

    plan: TickPlan
    kind: TickKind
    start_ns: int
    dispatch_ns: int
    step_ns: int
    publish_cost_ns: int
    end_ns: int
    interval_ticks: int
    delay_ticks: int
    entry: Entry | None
    first_use: bool
    due_deadline_ns: int
    collected_ns: int
    booked_ns: int
    frame_seq: int
    jobs: Sequence[Job]


class Recorder(Protocol):
    """Counters and histograms."""

    def begin_tick(self, tick: int, now_ns: int) -> None: ...
    def end_tick(self, record: TickRecord) -> None: ...
    def job_ended(self, resolution: Resolution) -> None: ...
    def episode_ended(self, episode_return: float, episode_ticks: int) -> None: ...


class Resets(Protocol):
    """New episodes that are asked for from outside: by a program that steps the world itself."""

    def take(self) -> bool:
        """Whether a reset was asked for since the last call; the world then knows its seed and options."""
        ...


class TickLoop:
    """The env process's loop over one run, or over one rehearsal.

    `on_reset`: "hold" keeps a new episode on its first frame until the first action for it is due; "run" lets
    the world move on without the agent meanwhile. `overrun`: what follows a tick that took too long (`TickPace`).
    `resets`: an episode begins when it is asked for, not by itself; whoever calls `run_tick` does not while
    `awaits_reset` says that nobody has asked. `num_ticks`: after so many nobody calls it any more; None: not known.
    """

    def __init__(
        self,
        world: World,
        grid: TickGrid,
        clock: Clock,
        schedule: Schedule,
        dispatcher: Dispatcher,
        workers: Workers,
        recorder: Recorder,
        *,
        chunk: int = 1,
        on_reset: OnReset = "hold",
        overrun: Overrun = "skip",
        phase_seq: int = 0,
        resets: Resets | None = None,
        num_ticks: int | None = None,
    ) -> None:
        self.world = world
        self.pace = TickPace(grid, overrun, num_ticks)
        self.clock = clock
        self.schedule = schedule
        self.dispatcher = dispatcher
        self.workers = workers
        self.recorder = recorder
        self.tick = -1
        self._chunk = chunk
        self._hold = on_reset == "hold"
        self._slow_grid = grid.period_ns >= _PREWAKE_PERIOD_NS
        self._phase_seq = phase_seq
        self._started = False
        self._reset_due = True
        self._resets = resets
        self._last_acted_tick = -1
        self._episode_return = 0.0
        self._episode_ticks = 0
        # Of ticks at which nothing acts: the no-op, where the world has one. What stands in elsewhere may be random.
        no_action = getattr(world, "noop", None)
        self._idle_action = world.encode(world.stand_in()[0] if no_action is None else no_action)

    def run_tick(self) -> None:
        """Wait for the next tick's deadline, then do everything that belongs to it."""
        clock = self.clock
        plan = self.pace.next_tick(self.tick, clock.now_ns())
        clock.sleep_until_ns(plan.deadline_ns)
        start_ns = clock.now_ns()
        self.tick = tick = plan.tick
        self.recorder.begin_tick(tick, start_ns)

        self._collect(tick)
        collected_ns = clock.now_ns()
        decision = self._decide(tick)
        dispatch_ns = clock.now_ns()
        jobs = self.schedule.book(tick)
        if jobs:
            for job in jobs:
                self.dispatcher.expect(job, self._chunk)
            self.workers.post(jobs, dispatch_ns)
        booked_ns = clock.now_ns()

        result, action, source = self._advance_world(decision)
        publish_ns = clock.now_ns()
        step_ns = publish_ns - booked_ns
        times_ns = (start_ns, dispatch_ns, publish_ns, step_ns)
        frame_seq = self._publish(plan, decision, len(jobs), result, action, source, times_ns)
        published_ns = clock.now_ns()
        if jobs:
            self.workers.announce(jobs)
        self._account(
            plan, decision, jobs, frame_seq, (start_ns, collected_ns, dispatch_ns, booked_ns, publish_ns, published_ns)
        )
        self.schedule.adapt()

    def prepare_tick(self) -> None:
        """Shortly before a deadline, in time that would be spent waiting: take in what is there, wake who is next.

        What is collected now need not be between the deadline and the world's step, and who is idle is known when
        the next worker is guessed.
        """
        if not self._slow_grid:
            return
        self._collect(self.tick + 1)
        worker = self.schedule.next_worker(self.tick + 1)
        if worker is not None:
            self.workers.prewake(worker)

    @property
    def is_held(self) -> bool:
        """The episode has begun, and no step of it was made: the world stands on its first frame."""
        return self._episode_ticks == 0

    @property
    def awaits_reset(self) -> bool:
        """The episode is over (or none has begun), and a new one has to be asked for."""
        return self._reset_due and self._resets is not None

    def pass_over(self, now_ns: int) -> int:
        """Go on at the first tick after `now_ns`, because the world waited; returns how many were not run."""
        passed_ticks = max(0, self.pace.grid.tick_at(now_ns) - self.tick)
        self.tick += passed_ticks
        return passed_ticks

    def finish(self) -> None:
        """Close the books: jobs under way end as `UNFINISHED`."""
        self.dispatcher.finish(self.tick)
        self._flush_resolutions()

    # -- before the step -----------------------------------------------------------------------------------

    def _collect(self, tick: int) -> None:
        for entry in self.workers.collect(tick):
            tau_ns = self.pace.elapsed_ns(entry.job.obs_tick, entry.payload.write_ns)
            self.schedule.complete(entry.job.worker, tau_ns)
            self.dispatcher.offer(entry, tick)
        for worker, up in self.workers.membership():
            lost = None
            if up:
                self.schedule.worker_up(worker)
            else:
                lost = self.schedule.worker_down(worker)
            if lost is not None:
                self.dispatcher.lose(lost, tick)

    def _decide(self, tick: int) -> Decision:
        if self._resets is not None and self._resets.take():
            self._reset_due = True
        if not self._reset_due:
            return self.dispatcher.decide(tick)
        if self._started:
            self.dispatcher.new_episode(tick)
        self._started = True
        return Decision(TickKind.RESET, None, 0, -1)

    # -- the step ------------------------------------------------------------------------------------------

    def _advance_world(self, decision: Decision) -> tuple[StepResult, bytes, Source]:
        world = self.world
        if decision.kind is TickKind.RESET:
            self._reset_due = False
            self._last_acted_tick = -1
            self._episode_return = 0.0
            self._episode_ticks = 0
            return world.reset(), self._idle_action, Source.HELD
        if decision.kind is TickKind.LEAD_IN and self._hold:
            return world.hold()._replace(reward=0.0), self._idle_action, Source.HELD
        if decision.entry is not None:
            action, source = world.decode(decision.entry.payload.actions, decision.chunk_index), Source.POLICY
        else:
            action, source = world.stand_in()
        applied = world.encode(action)
        result = world.step(action)
        self._episode_return += result.reward
        if not math.isfinite(self._episode_return):
            raise EnvironmentFailed(
                f"the rewards of an episode add up to {self._episode_return} after {self._episode_ticks + 1} ticks "
                f"(the last was {result.reward:g}); expected a finite sum. Scale them (TransformReward)"
            )
        self._episode_ticks += 1
        self._reset_due = result.terminated or result.truncated
        return result, applied, source

    def _publish(
        self,
        plan: TickPlan,
        decision: Decision,
        booked_jobs: int,
        result: StepResult,
        action: bytes,
        source: Source,
        times_ns: tuple[int, int, int, int],
    ) -> int:
        start_ns, dispatch_ns, publish_ns, step_ns = times_ns
        entry = decision.entry
        provenance = (-1, -1, -1, -1, -1, -1, 0)
        if entry is not None:
            provenance = (
                entry.job.worker,
                entry.obs_tick,
                decision.due_tick,
                decision.chunk_index,
                int(decision.outcome),
                entry.payload.policy_version,
                entry.payload.write_ns,
            )
        header = (
            plan.tick,
            self.dispatcher.episode,
            plan.deadline_ns,
            start_ns,
            publish_ns,
            step_ns,
            int(decision.kind),
            int(source),
            result.reward,
            int(result.terminated),
            int(result.truncated),
            self._episode_return,
            self._episode_ticks,
            *provenance,
            plan.skipped_ticks,
            dispatch_ns,
            self._phase_seq,
            entry.payload.policy_checksum if entry is not None else 0,
            booked_jobs,
        )
        return self.workers.publish(result.frame, header, action)

    # -- after the frame is out ----------------------------------------------------------------------------

    def _account(
        self,
        plan: TickPlan,
        decision: Decision,
        jobs: Sequence[Job],
        frame_seq: int,
        times_ns: tuple[int, int, int, int, int, int],
    ) -> None:
        start_ns, collected_ns, dispatch_ns, booked_ns, publish_ns, published_ns = times_ns
        tick, entry = plan.tick, decision.entry
        interval = delay = -1
        due_deadline_ns = 0
        if entry is not None:
            if self._last_acted_tick >= 0:
                interval = tick - self._last_acted_tick
            self._last_acted_tick = tick
            delay = tick - entry.obs_tick
            due_deadline_ns = self.pace.deadline_ns(decision.due_tick)
        self.recorder.end_tick(
            TickRecord(
                plan,
                decision.kind,
                start_ns,
                dispatch_ns,
                publish_ns - booked_ns,
                published_ns - publish_ns,
                self.clock.now_ns(),
                interval,
                delay,
                entry,
                decision.first_use,
                due_deadline_ns,
                collected_ns,
                booked_ns,
                frame_seq,
                jobs,
            )
        )
        if self._reset_due and decision.kind is not TickKind.RESET:
            self.recorder.episode_ended(self._episode_return, self._episode_ticks)
        self._flush_resolutions()

    def _flush_resolutions(self) -> None:
        resolutions = self.dispatcher.resolutions
        if resolutions:
            for resolution in resolutions:
                self.recorder.job_ended(resolution)
            resolutions.clear()
