"""A recorded run again: its world and its dispatch, without a policy, compared bit for bit.

The run's own tick loop and dispatcher are fed what the env process fed them: the jobs at the ticks they were booked
at, answers and losses in the order they were taken in, and the recorded actions. No clock, no process. What the loop
makes of it is compared with the record, tick by tick and job by job. The world always follows the record, so that one
difference does not make a thousand.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, NamedTuple, cast

import numpy as np

from rtcore.clock import ManualClock, TickGrid
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, EnvironmentFailed, RtcoreError, key_of
from rtcore.host.seeding import seed_generators, world_entropy
from rtcore.loop.process import build_world, time_steps
from rtcore.loop.tick import Tick
from rtcore.loop.tickloop import TickLoop
from rtcore.loop.world import GymnasiumWorld, StepResult
from rtcore.recording.reader import RecordedTick, Recording
from rtcore.recording.schema import frames_by_column
from rtcore.scheduling.dispatch import Dispatcher, Invariant, Outcome, Source, TickKind
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.scheduling.takeover import Said, TakeOver
from rtcore.spaces import Array, ObservationSpec

#: Of a frame's header; times and weights are not made again.
TICK_FIELDS = (
    "tick",
    "episode",
    "kind",
    "source",
    "worker",
    "obs_tick",
    "due_tick",
    "chunk_index",
    "outcome",
    "booked_jobs",
    "task_version",
    "reward",
    "terminated",
    "truncated",
    "episode_return",
    "episode_ticks",
)
JOB_FIELDS = ("log_seq", "worker", "obs_tick", "booked_tick", "due_tick", "hold", "episode", "outcome", "tick")
_ENUMS: dict[str, type[IntEnum]] = {"kind": TickKind, "source": Source, "outcome": Outcome}
_MOST_SHOWN = 20


class Difference(NamedTuple):
    """Where record and replay disagree. `field` of a job begins with "job "."""

    tick: int
    field: str
    recorded: str
    replayed: str


@dataclass
class Report:
    """What a replay found. `differing` counts ticks (or jobs) by field; `first` are the first differences."""

    ticks: int = 0
    jobs: int = 0
    differing: Counter[str] = field(default_factory=Counter)
    first: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  #: why it ended before the recording does

    @property
    def is_identical(self) -> bool:
        return not self.differing

    def add(self, tick: int, name: str, recorded: object, replayed: object) -> None:
        self.differing[name] += 1
        if len(self.first) < _MOST_SHOWN:
            self.first.append(Difference(tick, name, _shown(name, recorded), _shown(name, replayed)))


def make_world(recording: Recording, config: RuntimeConfig) -> GymnasiumWorld:
    """The recorded world, as new, made as the run made it. ConfigError if it cannot be, or is another one now."""
    entropy = world_entropy(int(recording.about["seed"]))
    seed_generators(entropy)
    try:
        world = build_world(config.world, int(recording.about["seed"]))
    except RtcoreError as error:
        raise ConfigError(
            f"the world of {recording.path} cannot be made here: {error}. Replay it where its world can be imported, "
            "in the folder the run was started in"
        ) from error
    try:
        for what, was, now in (
            ("observations", recording.observation, world.observation),
            ("actions", recording.action, world.action),
        ):
            if was != now:
                raise ConfigError(f"{config.world.env_id} is another world now: its {what} were {was}, they are {now}")
        if config.timing.clock != "virtual":
            # The run timed its world before the first tick and restarted it: so that nothing differs, here too.
            time_steps(world, entropy)
    except BaseException:
        world.close()
        raise
    return world


def replay(
    recording: Recording,
    config: RuntimeConfig,
    world: GymnasiumWorld,
    *,
    max_ticks: int | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> Report:
    """Up to the end of the recording, its first loss, or `max_ticks` rows. `world`: as new, as the run had it.

    `progress` gets the number of ticks done, after each.
    """
    report = Report()
    jobs = _RecordedJobs(recording)
    end = _replayable(recording, jobs, max_ticks, report)
    dispatcher = Dispatcher(
        config.schedule.on_late,
        head=recording.head,
        chunk_ticks=config.agent.chunk,
        chunk_from=config.agent.chunk_from,
        holds=config.world.on_reset == "hold",
        first_log_seq=recording.first_log_seq,
    )
    follower = _FollowingWorld(world)
    workers = _RecordedWorkers(jobs, dispatcher, follower, recording.observation, report)
    grid, clock = TickGrid(0, recording.rate_hz), ManualClock()
    loop = TickLoop(
        world=follower,
        grid=grid,
        clock=clock,
        schedule=_RecordedStarts(jobs),
        dispatcher=dispatcher,
        workers=workers,
        recorder=_JobCheck(jobs, report),
        on_reset=config.world.on_reset,
        task=world.task,
        takeover=TakeOver(follower),
    )
    version = 1
    for row, tick in enumerate(recording.ticks(0, end)):
        follower.now = tick
        if tick.header.task_version > version:
            version = tick.header.task_version
            world.begin_task(version, task := recording.task_at(row))
            loop.begin_task(version, task)
        clock.sleep_until_ns(grid.deadline_ns(tick.header.tick))
        try:
            loop.run_tick()
        except EnvironmentFailed as error:
            report.add(tick.header.tick, "world", "made a step", str(error))
            report.notes.append("the world of the replay failed: nothing after that tick was replayed")
            return report
        report.ticks += 1
        progress(report.ticks)
    # If the recording broke off, the end of the run is not known.
    is_whole = end == recording.num_ticks and recording.is_finished
    if is_whole:
        loop.finish()
    jobs.check_the_rest(loop.tick, report, is_whole=is_whole)
    return report


def _replayable(recording: Recording, jobs: _RecordedJobs, max_ticks: int | None, report: Report) -> int:
    """How many rows can be replayed, and in `report` why not all."""
    end = recording.num_ticks
    if max_ticks is not None:
        end = min(end, max_ticks)
    seqs = recording.column("frame_seq", 0, end)
    lost = np.flatnonzero(seqs != recording.first_frame_seq + np.arange(end))
    if len(lost):
        end = int(lost[0])
        before = f"after tick {recording.column('tick', end - 1, end)[0]}" if end else "before the first tick"
        report.notes.append(f"frames were lost {before}: replayed up to there")
    ticks, booked = recording.column("tick", 0, end), recording.column("booked_jobs", 0, end)
    unknown = np.flatnonzero(jobs.num_booked_at(ticks) < booked)
    if len(unknown):
        end = int(unknown[0])
        why = (
            "its record was lost" if recording.lost_jobs else "it was under way when the run or the recorder broke off"
        )
        report.notes.append(
            f"how a job of tick {ticks[end]} ended is not in the recording ({why}): replayed up to that tick"
        )
    return end


class _RecordedJobs:
    """The job log, in the order in which jobs were booked and in the order in which they were taken in."""

    def __init__(self, recording: Recording) -> None:
        self.rows = rows = recording.jobs(*JOB_FIELDS, "taken_tick", "taken_seq")
        # Of one tick in the order of the log: that of jobs that never came is the order in which they were booked.
        self._by_booking = np.lexsort((rows["log_seq"], rows["booked_tick"]))
        self._booked_ticks = rows["booked_tick"][self._by_booking]
        taken = np.flatnonzero(rows["taken_seq"] >= 0)
        self._by_taking = taken[np.argsort(rows["taken_seq"][taken], kind="stable")]
        self._next_booking = self._next_taking = 0
        self._open: dict[tuple[int, int], int] = {}

    def num_booked_at(self, ticks: Any) -> Any:
        """Of each tick: how many of its jobs there are."""
        return np.searchsorted(self._booked_ticks, ticks, "right") - np.searchsorted(self._booked_ticks, ticks, "left")

    def booked_at(self, tick: int) -> list[Job]:
        jobs = []
        while self._next_booking < len(self._by_booking) and self._booked_ticks[self._next_booking] <= tick:
            row = int(self._by_booking[self._next_booking])
            self._next_booking += 1
            if self._value("booked_tick", row) == tick:
                job = self._job(row)
                self._open[job.worker, tick] = row
                jobs.append(job)
        return jobs

    def taken_until(self, tick: int) -> Iterator[int]:
        """Rows of answers and losses that were taken in before `tick` was decided, in order."""
        rows, by_taking = self.rows["taken_tick"], self._by_taking
        while self._next_taking < len(by_taking) and rows[by_taking[self._next_taking]] <= tick:
            self._next_taking += 1
            yield int(by_taking[self._next_taking - 1])

    def feed(self, row: int, dispatcher: Dispatcher) -> None:
        """The answer of this job, or its loss."""
        job, taken_tick, outcome = self._job(row), self._value("taken_tick", row), self._value("outcome", row)
        if outcome == Outcome.DROPPED_DEAD_WORKER:
            dispatcher.lose(job, taken_tick)
        else:
            answer = Answer(
                obs_tick=self._value("obs_tick", row),
                episode=self._value("episode", row),
                abstained=int(outcome == Outcome.ABSTAINED),
            )
            dispatcher.offer(job, answer, taken_tick)

    def check(self, replayed: JobRow, report: Report) -> None:
        """A job ended."""
        row = self._open.pop((replayed.worker, replayed.booked_tick), None)
        if row is None:
            report.add(replayed.tick, "job booked_tick", "no such job", replayed.booked_tick)
            return
        report.jobs += 1
        for name in JOB_FIELDS:
            was, now = self._value(name, row), int(getattr(replayed, name))
            if was != now:
                report.add(replayed.tick, f"job {name}", was, now)

    def check_the_rest(self, last_tick: int, report: Report, *, is_whole: bool) -> None:
        """Jobs that had ended by `last_tick` in the recording and have not in the replay."""
        for row in self._open.values():
            outcome, tick = self._value("outcome", row), self._value("tick", row)
            if tick < last_tick or (tick == last_tick and (is_whole or outcome != Outcome.UNFINISHED)):
                report.add(tick, "job outcome", outcome, None)

    def _job(self, row: int) -> Job:
        worker, booked, due, hold = (self._value(name, row) for name in ("worker", "booked_tick", "due_tick", "hold"))
        return Job(worker, booked, due, bool(hold))

    def _value(self, name: str, row: int) -> int:
        return int(self.rows[name][row])


class _RecordedStarts:
    """In place of a `Schedule`: books what was booked. Which workers came and went is in the job log."""

    def __init__(self, jobs: _RecordedJobs) -> None:
        self._jobs = jobs

    def book(self, tick: int) -> list[Job]:
        return self._jobs.booked_at(tick)

    def next_worker(self, tick: int) -> None: ...
    def complete(self, worker: int, tau_ns: int) -> None: ...
    def worker_up(self, worker: int) -> None: ...
    def worker_down(self, worker: int) -> None: ...
    def adapt(self) -> None: ...


class _FollowingWorld:
    """The world as recorded: reset, held or stepped with the recorded action, whatever the loop decides; and who
    stepped in, at the ticks at which somebody did."""

    def __init__(self, world: GymnasiumWorld) -> None:
        self._world = world
        self.noop = world.noop
        #: The tick that is being replayed.
        self.now: RecordedTick = cast(RecordedTick, None)

    def reset(self) -> StepResult:
        return self._follow()

    def hold(self) -> StepResult:
        return self._follow()

    def step(self, action: Any, *, is_free: bool = False) -> StepResult:
        return self._follow()

    def stand_in(self) -> tuple[Any, Source]:
        return self._world.stand_in()

    def poll(self) -> Said:
        """Of the ticks at which the safe action acted in a person's place the world says so."""
        header = self.now.header
        is_there = header.intervention and header.source == Source.HUMAN
        return Said(header.tick, self.now.action.tobytes() if is_there else None)

    def encode(self, action: Any) -> bytes:
        return self._world.encode(action)

    def decode(self, payload: bytes, index: int) -> Any:
        """What a policy answered is in the record only."""
        return self._world.action.decode(self.now.requested)

    def _follow(self) -> StepResult:
        header = self.now.header
        if header.kind == TickKind.RESET:
            return self._world.reset()
        if header.source == Source.HELD:
            return self._world.hold()._replace(reward=0.0)
        if header.source == Source.SAFE:
            safe = self._world.safe
            return self._world.step(safe)._replace(applied=self._world.encode(safe), source=Source.SAFE)
        if header.source != Source.HUMAN:  # a limit, and a shield of the world's, do again what they did
            return self._world.step(self._world.action.decode(self.now.requested))
        applied = self._world.action.decode(self.now.action)
        # The person is not here: what that one did is given, of which the world then says nothing.
        return self._world.step(applied, is_free=True)._replace(
            applied=self._world.encode(applied), source=Source.HUMAN
        )


class _RecordedWorkers:
    """In the place of the workers: answers and losses as they were taken in. Compares what the loop publishes."""

    def __init__(
        self,
        jobs: _RecordedJobs,
        dispatcher: Dispatcher,
        world: _FollowingWorld,
        observation: ObservationSpec,
        report: Report,
    ) -> None:
        self._jobs = jobs
        self._observation = observation
        self._dispatcher = dispatcher
        self._world = world
        self._report = report

    @property
    def next_frame_seq(self) -> int:
        return self._world.now.header.frame_seq

    def collect(self, tick: int) -> Iterable[tuple[Job, Answer]]:
        """Straight to the dispatcher: an answer may have been taken in for a tick that was skipped then."""
        for row in self._jobs.taken_until(tick):
            self._jobs.feed(row, self._dispatcher)
        return ()

    def membership(self) -> Iterable[tuple[int, bool]]:
        return ()

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None: ...
    def announce(self, jobs: Sequence[Job]) -> None: ...
    def prewake(self, worker: int) -> None: ...
    def stage(self, header: Any) -> None: ...

    def publish(self, frame: Any, replayed: Any, action: bytes, kept: bytes = b"") -> None:
        recorded, report = self._world.now, self._report
        tick = recorded.header.tick
        for name in TICK_FIELDS:
            was, now = getattr(recorded.header, name), getattr(replayed, name)
            if was != now or (isinstance(was, float) and struct.pack("d", was) != struct.pack("d", now)):
                report.add(tick, name, was, now)
        if recorded.action.tobytes() != action:
            report.add(tick, "action", recorded.action, np.frombuffer(action, recorded.action.dtype))
        frame = np.ascontiguousarray(frame)
        if frame.tobytes() != recorded.frame.tobytes():
            self._tell_apart(tick, recorded.frame, frame)

    def _tell_apart(self, tick: int, recorded: Array, replayed: Array) -> None:
        """Which parts of a frame differ, how much, and where first."""
        replayed_parts = frames_by_column(self._observation, replayed)
        for name, was in frames_by_column(self._observation, recorded).items():
            now = replayed_parts[name]
            if was.tobytes() == now.tobytes():
                continue
            where = np.argwhere(np.atleast_1d(was != now))
            at = tuple(where[0].tolist()) if len(where) else ()
            text = f"{len(where)} of {was.size} values differ, the first at {at}: {np.atleast_1d(was)[at]}"
            self._report.add(tick, name, text, np.atleast_1d(now)[at])


class _JobCheck:
    """In place of the run's counters: compares how jobs end."""

    def __init__(self, jobs: _RecordedJobs, report: Report) -> None:
        self._jobs = jobs
        self._report = report

    def begin_tick(self, tick: int, now_ns: int) -> None: ...
    def end_tick(self, tick: Tick) -> None: ...
    def answer_taken(self, answer: Answer) -> None: ...
    def episode_ended(self, episode_return: float, episode_ticks: int) -> None: ...
    def invariant_broken(self, invariant: Invariant, tick: int) -> None: ...

    def job_ended(self, row: JobRow) -> None:
        self._jobs.check(row, self._report)


def _shown(name: str, value: object) -> str:
    """A value in words."""
    if value is None:
        return "not ended"
    kind = _ENUMS.get(name.removeprefix("job "))
    if kind is not None and isinstance(value, int):
        return key_of(kind(value)) if value in list(kind) else str(value)
    return repr(value) if isinstance(value, float) else str(value)
