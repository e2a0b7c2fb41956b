"""One tick after another: collect, dispatch, book, step, publish. The same code on wall clock and virtual clock.

The loop owns the world, the schedule and the dispatcher. Where workers live (processes or a simulation) is
behind `Workers`; where the record goes is behind `Recorder`. In it nothing logs or blocks; what it allocates
is short-lived and freed at once by reference count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from rtcore.clock import Clock, Overrun, Pace, TickGrid, TickPace
from rtcore.errors import EnvironmentFailed
from rtcore.loop.invariants import TickInvariants
from rtcore.loop.job_context import JobContexts
from rtcore.loop.tick import Tick
from rtcore.loop.world import StepResult, World
from rtcore.memory.layout import FrameHeader
from rtcore.scheduling.dispatch import Decision, Dispatcher, Invariant, Source, TickKind
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.head import HeadSchedule, Starts
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.scheduling.on_missing import Starvation
from rtcore.scheduling.schedule import OnReset
from rtcore.scheduling.takeover import TakeOver
from rtcore.spaces import ActionSpec, PolicyNeeds

# Looked up once: in its class it takes ten times as long.
_RESET, _LEAD_IN, _POLICY = TickKind.RESET, TickKind.LEAD_IN, Source.POLICY
#: Shorter ticks than this need no waking ahead: the machine never gets to sleep.
_PREWAKE_PERIOD_NS = 4_000_000


class Workers(Protocol):
    """The workers as the loop sees them."""

    @property
    def next_frame_seq(self) -> int:
        """Number of the frame that is published next."""
        ...

    def collect(self, tick: int) -> Iterable[tuple[Job, Answer]]:
        """Answers that came in since the last call, each with its job."""
        ...

    def membership(self) -> Iterable[tuple[int, bool]]:
        """(worker, up) for every worker that came or went since the last call."""
        ...

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        """Book jobs; called before their frame exists, so that waking up costs no time later."""
        ...

    def stage(self, header: Any) -> None:
        """Before the world's step: take in the draft of the next frame's header, all but `ring.AFTER_STEP`."""
        ...

    def publish(self, frame: Any, header: Any, action: bytes, kept: bytes = b"") -> object:
        """Make a frame and its record visible, and what stays with its tick. `header`: the draft, now whole."""
        ...

    def announce(self, jobs: Sequence[Job]) -> None:
        """The frame the jobs wait for is published."""
        ...

    def prewake(self, worker: int) -> None:
        """`worker` will probably be booked at the next tick: waking a process takes a while."""
        ...


class Recorder(Protocol):
    """Counters and histograms."""

    def begin_tick(self, tick: int, now_ns: int) -> None: ...
    def end_tick(self, tick: Tick) -> None: ...
    def answer_taken(self, answer: Answer) -> None: ...
    def job_ended(self, row: JobRow) -> None: ...
    def episode_ended(self, episode_return: float, episode_ticks: int) -> None: ...
    def invariant_broken(self, invariant: Invariant, tick: int) -> None: ...


class Resets(Protocol):
    """New episodes that are asked for from outside: by a program that steps the world itself."""

    def begin_if_requested(self) -> bool:
        """Whether a reset was requested since the last call; the world then knows its seed and options."""
        ...


class TickLoop:
    """The env process's loop over one run, or over one rehearsal: `run_tick` once for each tick.

    Args:
        world: What is stepped.
        grid: When each tick is due.
        clock: What the loop reads and sleeps by.
        schedule: Which worker starts at which tick.
        dispatcher: Which action acts at which tick.
        workers: Where jobs and frames go, and answers come from.
        recorder: Counts.
        on_reset: "hold" keeps a new episode on its first frame until the first action for it is due; "run" steps the
            world meanwhile, without the agent.
        overrun: What follows a tick that took too long (`TickPace`).
        pace: That of the world's own clock, in the place of the grid's.
        phase_seq: Order that the ticks belong to.
        resets: Episodes begin when a program asks for them, not by themselves; while `awaits_reset` is true the caller
            does not call `run_tick`. None: by themselves.
        num_ticks: Length of the run, where it is known.
        needs: What the policy takes and gives beside frame and action; None: nothing.
        action: The world's action space as bytes; only with `needs`.
        seed: Of the run, for the policy's context.
        head: Index of the worker that is the head; -1: there is none.
        starvation: When the safe action acts; None: never.
        takeover: Who may step in; None: nobody.
        kept_by_world: What the world leaves with a tick, by the action that was asked for; None: nothing.
        task: The world's first task, which it has already; empty: it has none.
    """

    def __init__(
        self,
        world: World,
        grid: TickGrid,
        clock: Clock,
        schedule: Starts,
        dispatcher: Dispatcher,
        workers: Workers,
        recorder: Recorder,
        *,
        on_reset: OnReset = "hold",
        overrun: Overrun = "skip",
        pace: Pace | None = None,
        phase_seq: int = 0,
        resets: Resets | None = None,
        num_ticks: int | None = None,
        needs: PolicyNeeds | None = None,
        action: ActionSpec | None = None,
        seed: int = 0,
        head: int = -1,
        starvation: Starvation | None = None,
        takeover: TakeOver | None = None,
        kept_by_world: Callable[[bytes], bytes] | None = None,
        task: bytes = b"",
    ) -> None:
        self.world = world
        self.pace: Pace = pace or TickPace(grid, overrun, num_ticks)
        self.clock = clock
        self._head_schedule = HeadSchedule(schedule, head) if head >= 0 else None
        self.schedule = self._head_schedule or schedule
        self.dispatcher = dispatcher
        self.workers = workers
        self.recorder = recorder
        self.tick = -1
        self._now = Tick()
        self._hold = on_reset == "hold"
        self._starvation = starvation
        self._takeover = takeover
        # When ticks are due before any stretching.
        due_ns = grid.deadline_ns if pace is None else pace.deadline_ns
        self._invariants = TickInvariants(due_ns, recorder.invariant_broken, holds=self._hold, has_head=head >= 0)
        self._slow_grid = grid.period_ns >= _PREWAKE_PERIOD_NS
        self._now.header = draft_of(FrameHeader)
        self._now.header.phase_seq = phase_seq
        #: What `prepare_tick` practises on.
        self._practice = Tick()
        self._practice.header = draft_of(FrameHeader)
        self._practice.result = StepResult(np.empty(0), 0.0, terminated=False, truncated=False)
        self._practice.source, self._practice.booked_ns = _POLICY, 0
        self._started = False
        self._reset_due = True
        self._resets = resets
        self._last_acted_tick = -1
        self._episode_return = 0.0
        self._episode_ticks = 0
        # Recorded for ticks at which nothing acts: the no-op. Only a world without one is asked for a stand-in.
        no_action = getattr(world, "noop", None)
        self._idle_action = world.encode(world.stand_in()[0] if no_action is None else no_action)
        self._contexts: JobContexts | None = None
        self._kept_by_world = kept_by_world
        if needs and action is not None:
            self._contexts = JobContexts(
                needs,
                action,
                seed=seed,
                idle_action=self._idle_action,
                # Whether the safe action acts instead is not known beforehand: as little as what is random.
                on_missing=getattr(world, "on_missing", "noop") if starvation is None else "random",
                holds=self._hold,
                head=head,
            )
        #: Something stays with each tick beside frame, header and action.
        self._keeps = kept_by_world is not None or (self._contexts is not None and self._contexts.follows_ticks)
        if task:
            self.begin_task(1, task)

    def run_tick(self) -> None:
        """Wait for the next tick's deadline, then do everything that belongs to it."""
        now, last_tick, now_ns = self._now, self.tick, self.clock.now_ns
        now.plan = plan = self.pace.next_tick(last_tick, now_ns())
        self.clock.sleep_until_ns(plan.deadline_ns)
        now.start_ns = now_ns()
        self.tick = tick = plan.tick
        self.recorder.begin_tick(tick, now.start_ns)

        self._collect(tick)
        now.collected_ns = now_ns()
        now.decision = self._decide(tick)
        now.dispatch_ns = now_ns()
        contexts = self._contexts
        if self._head_schedule is not None and contexts is not None:
            self._head_schedule.has_features = contexts.features_tick >= 0
        now.jobs = jobs = self.schedule.book(tick)
        if jobs:
            for job in jobs:
                self.dispatcher.expect(job)
            if contexts is not None and contexts.gives_context:
                person = self._takeover.foreseen if self._takeover is not None else None
                now.jobs = jobs = contexts.with_contexts(jobs, now.decision, self.dispatcher, person)
            self.workers.post(jobs, now.dispatch_ns)
        self._stage_header(now)
        now.booked_ns = now_ns()

        action = self._advance_world(now)
        self._publish(now, action, now_ns())
        now.published_ns = now_ns()
        if jobs:
            self.workers.announce(jobs)
        if contexts is not None and contexts.follows_ticks:
            contexts.note_applied(tick, action, now.decision.kind, stands=now.source is Source.HELD)
        self._account(now, last_tick)
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
        self._complete_header(self._practice, 0)  # so that it is not cold between the world's step and the frame

    @property
    def is_held(self) -> bool:
        """The episode has begun, and no step of it was made: the world stands on its first frame."""
        return self._episode_ticks == 0

    @property
    def awaits_reset(self) -> bool:
        """The episode is over (or none has begun), and a new one has to be asked for."""
        return self._reset_due and self._resets is not None

    def begin_task(self, version: int, task: bytes) -> None:
        """From the next tick on jobs that are booked carry this task, and headers name it. The world is told before.

        Args:
            version: Higher than that of the last one.
            task: A block of the world's `TaskSpec`.
        """
        self._now.header.task_version = version
        if self._contexts is not None:
            self._contexts.begin_task(version, task)

    def pass_over(self, now_ns: int) -> int:
        """The world has waited for a reset, or was paused: go on at the first tick after `now_ns`. Returns how many
        were not run."""
        passed_ticks = max(0, self.pace.grid.tick_at(now_ns) - self.tick)
        self.tick += passed_ticks
        if self._starvation is not None:
            self._starvation.feed(self.pace.grid.deadline_ns(self.tick))
        return passed_ticks

    def finish(self) -> None:
        """The run is over: jobs that are under way end as `UNFINISHED`."""
        self.dispatcher.finish(self.tick)
        self._invariants.after_run(self.dispatcher.ended, self.tick)
        self._report_ended_jobs()

    # -- before the step -----------------------------------------------------------------------------------

    def _collect(self, tick: int) -> None:
        for job, answer in self.workers.collect(tick):
            tau_ns = self.pace.elapsed_ns(job.obs_tick, answer.write_ns)
            self.schedule.complete(job.worker, tau_ns)
            self.dispatcher.offer(job, answer, tick)
            if self._contexts is not None and self._contexts.carries_on:
                self._contexts.carry_on(job, answer, self.dispatcher.episode)
            self.recorder.answer_taken(answer)
        for worker, up in self.workers.membership():
            lost = None
            if up:
                self.schedule.worker_up(worker)
            else:
                lost = self.schedule.worker_down(worker)
            if lost is not None:
                self.dispatcher.lose(lost, tick)

    def _decide(self, tick: int) -> Decision:
        if self._resets is not None and self._resets.begin_if_requested():
            self._reset_due = True
        takeover = self._takeover
        if takeover is not None:
            takeover.begin_tick()
        if not self._reset_due:
            if takeover is not None and takeover.holds and self._hold:
                self.dispatcher.end_lead_in()  # a person waits for no policy
            return self.dispatcher.decide(tick)
        if self._started:
            self.dispatcher.new_episode(tick)
        if self._contexts is not None:
            self._contexts.begin_episode()
        self._started = True
        return Decision(TickKind.RESET)

    def _stage_header(self, now: Tick) -> None:
        """All of the header that is known before the world's step, so that less stands between that and the frame."""
        header = now.header
        plan, decision = now.plan, now.decision
        offer = decision.offer
        header.frame_seq = self.workers.next_frame_seq
        header.tick = plan.tick
        header.deadline_ns = plan.deadline_ns
        header.skipped_ticks = plan.skipped_ticks
        header.episode = self.dispatcher.episode
        header.start_ns = now.start_ns
        header.kind = decision.kind._value_  # not int(kind): a call
        header.dispatch_ns = now.dispatch_ns
        header.booked_jobs = len(now.jobs)
        if self._takeover is not None:
            header.intervention = self._takeover.intervention
        if offer is None:
            header.worker = header.obs_tick = header.due_tick = header.chunk_index = header.outcome = -1
            header.policy_version, header.write_ns, header.policy_checksum = -1, 0, 0
        else:
            answer = offer.answer
            header.worker = offer.job.worker
            header.obs_tick = answer.obs_tick
            header.due_tick = offer.due_tick
            header.chunk_index = decision.chunk_index
            header.outcome = decision.outcome._value_
            header.policy_version = answer.policy_version
            header.write_ns = answer.write_ns
            header.policy_checksum = answer.policy_checksum
        if self._contexts is not None and self._contexts.carries_on:
            header.state_tick, header.features_tick, header.features_worker = self._contexts.origin(offer)
        self.workers.stage(header)

    # -- the step ------------------------------------------------------------------------------------------

    def _advance_world(self, now: Tick) -> bytes:
        """Fills in `result`, `source` and `requested`; returns the action that was applied."""
        world, decision, offer, starvation = self.world, now.decision, now.decision.offer, self._starvation
        takeover = self._takeover
        stands = decision.kind is _RESET or (decision.kind is _LEAD_IN and self._hold)
        is_starved = False
        if starvation is not None:
            is_fresh = takeover.is_fresh if takeover is not None and takeover.holds else offer is not None
            if stands or is_fresh:
                starvation.feed(now.plan.deadline_ns)
            is_starved = starvation.acts(now.plan.deadline_ns)
        if stands:
            now.source, now.requested = Source.HELD, self._idle_action
            if decision.kind is _RESET:
                self._reset_due = False
                self._last_acted_tick = -1
                self._episode_return = 0.0
                self._episode_ticks = 0
                if takeover is not None:
                    takeover.end_blend()
                    takeover.note_applied(b"")
                now.result = world.reset()
            else:
                now.result = world.hold()._replace(reward=0.0)
            return self._idle_action
        if offer is not None:
            action, now.source = world.decode(offer.answer.actions, decision.chunk_index), _POLICY
        elif starvation is not None and is_starved:
            action, now.source = starvation.safe_action, Source.SAFE
        else:
            action, now.source = world.stand_in()
        now.requested = applied = world.encode(action)
        if takeover is not None and takeover.intervention:
            applied = self._step_in(takeover, now, is_starved=is_starved)
        else:
            now.result = world.step(action)
        result = now.result
        if result.applied is not None:  # not what was asked for
            applied = result.applied
            if result.source is not None and now.source is not Source.HUMAN:
                now.source = result.source
        if takeover is not None:
            takeover.note_applied(applied)
        self._episode_return += result.reward
        if not math.isfinite(self._episode_return):
            raise EnvironmentFailed(
                f"the rewards of an episode add up to {self._episode_return} after {self._episode_ticks + 1} ticks "
                f"(the last was {result.reward:g}); expected a finite sum. Scale them (TransformReward)"
            )
        self._episode_ticks += 1
        self._reset_due = result.terminated or result.truncated
        return applied

    def _step_in(self, takeover: TakeOver, now: Tick, *, is_starved: bool) -> bytes:
        """Steps the world with what a person does, or with the safe action if that one is silent. Fills in `source` and
        `result`; returns the action."""
        world, starvation = self.world, self._starvation
        if starvation is not None and is_starved:
            takeover.end_blend()
            now.source, given = Source.SAFE, starvation.safe_action
            applied = world.encode(given)
        else:
            now.source, applied = Source.HUMAN, takeover.action(now.requested)
            given = world.decode(applied, 0)
        now.result = world.step(given, is_free=True)
        return applied

    def _publish(self, now: Tick, action: bytes, publish_ns: int) -> None:
        """The frame, with its header and what its action came with."""
        self._complete_header(now, publish_ns)
        header, frame = now.header, now.result.frame
        if not self._keeps:
            self.workers.publish(frame, header, action)
            return
        kept = self._contexts.kept(now.decision.offer) if self._contexts is not None else b""
        if self._kept_by_world is not None:
            kept += self._kept_by_world(now.requested)
        self.workers.publish(frame, header, action, kept)

    def _complete_header(self, now: Tick, publish_ns: int) -> None:
        """What only the world's step gives (`ring.AFTER_STEP`)."""
        header, result = now.header, now.result
        header.publish_ns = publish_ns
        header.step_ns = publish_ns - now.booked_ns
        header.source = now.source._value_
        header.reward = result.reward
        header.terminated = 1 if result.terminated else 0
        header.truncated = 1 if result.truncated else 0
        header.episode_return = self._episode_return
        header.episode_ticks = self._episode_ticks

    # -- after the frame is out ----------------------------------------------------------------------------

    def _account(self, now: Tick, last_tick: int) -> None:
        tick, offer = now.plan.tick, now.decision.offer
        now.interval_ticks, now.due_deadline_ns = -1, 0
        if offer is not None:
            if self._last_acted_tick >= 0:
                now.interval_ticks = tick - self._last_acted_tick
            self._last_acted_tick = tick
            is_on_time = offer.due_tick == tick
            now.due_deadline_ns = now.plan.deadline_ns if is_on_time else self.pace.deadline_ns(offer.due_tick)
        now.end_ns = self.clock.now_ns()
        self.recorder.end_tick(now)
        if self._reset_due and now.decision.kind is not _RESET:
            self.recorder.episode_ended(self._episode_return, self._episode_ticks)
        self._invariants.after_tick(now, last_tick, self.dispatcher)
        self._report_ended_jobs()

    def _report_ended_jobs(self) -> None:
        ended = self.dispatcher.ended
        if ended:
            for row in ended:
                self.recorder.job_ended(row)
            ended.clear()
