"""The run's books: what the tick loop reports, counted in shared memory or (simulated runs) in private memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rtcore.clock import TickClock
from rtcore.loop.tickloop import Answer, TickRecord
from rtcore.memory.counters import Histogram, Words
from rtcore.memory.layout import ENV_COUNTERS, ENV_HISTOGRAMS, ENV_STATUS
from rtcore.memory.trace import TraceKind, TraceRing
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Resolution, TickKind
from rtcore.scheduling.schedule import Schedule


class Books(NamedTuple):
    """Where a recorder writes. `append_job` gets the fields of `layout.LOG_RECORD` without its number."""

    counters: Words
    status: Words
    histograms: dict[str, Histogram]
    append_job: Callable[[tuple[int, ...]], object]

    @classmethod
    def private(cls, append_job: Callable[[tuple[int, ...]], object]) -> Books:
        """Books in private memory."""
        histograms = {name: Histogram() for name in ENV_HISTOGRAMS}
        return cls(Words(ENV_COUNTERS), Words(ENV_STATUS), histograms, append_job)


class StatsRecorder:
    """Starts from nothing: clears the books it is given. Implements `tickloop.Recorder`."""

    def __init__(self, books: Books, schedule: Schedule, period_ns: int, phase_seq: int) -> None:
        self._counters = books.counters
        self._status = books.status
        self._append_job = books.append_job
        self._schedule = schedule
        self._period_ns = period_ns
        self._phase_seq = phase_seq
        self._counters.clear()
        for histogram in books.histograms.values():
            histogram.clear()
        self._histograms = books.histograms
        self._lateness = books.histograms["lateness_ns"]
        self._step = books.histograms["step_ns"]
        self._reset = books.histograms["reset_ns"]
        self._publish = books.histograms["publish_ns"]

    def begin_tick(self, tick: int, now_ns: int) -> None:
        self._status["tick"] = tick
        self._status["heartbeat_ns"] = now_ns

    def end_tick(self, record: TickRecord) -> None:
        counters, plan = self._counters, record.plan
        if counters["ticks"] == 0:
            counters["first_start_ns"] = record.start_ns
        counters["last_start_ns"] = record.start_ns
        counters.add("ticks")
        counters.add(KIND_COUNTERS[record.kind])
        counters.add("skipped_ticks", plan.skipped_ticks)
        if plan.stretched_ns:
            counters.add("stretched_ticks")
            counters.add("stretched_ns", plan.stretched_ns)
        if record.end_ns - plan.deadline_ns > self._period_ns:
            counters.add("reset_overruns" if record.kind is TickKind.RESET else "overruns")
        self._lateness.add(record.start_ns - plan.deadline_ns)
        (self._reset if record.kind is TickKind.RESET else self._step).add(record.step_ns)
        self._publish.add(record.publish_cost_ns)
        schedule, status = self._schedule, self._status
        counters["skipped_starts"] = schedule.skipped_starts
        counters["replans"] = schedule.replans
        status["delay_ticks"] = schedule.delay_ticks
        status["stride_ticks"] = schedule.stride_ticks
        status["num_up"] = schedule.num_up
        if record.entry is not None:
            self._policy_tick(record, record.entry.payload)

    def garbage_collected(self, start_ns: int, end_ns: int, forced: bool) -> None:
        """Between two ticks."""
        self._counters.add("garbage_collections")
        self._counters.add("garbage_forced", int(forced))
        self._counters.add("garbage_ns", end_ns - start_ns)

    def job_ended(self, resolution: Resolution) -> None:
        self._counters.add("jobs")
        self._counters.add(OUTCOME_COUNTERS[resolution.outcome])
        job, entry = resolution.job, resolution.entry
        if entry is None:
            times, obs_tick, episode = (0, 0, 0, 0, 0, 0), -1, -1
        else:
            answer: Answer = entry.payload
            times = (
                answer.booked_ns,
                answer.start_ns,
                answer.read_ns,
                answer.infer_end_ns,
                answer.write_ns,
                answer.cpu_ns,
            )
            obs_tick, episode = entry.obs_tick, entry.episode
            self._counters.add("clipped_actions", answer.clipped)
            self._counters.add("explored_actions", answer.explored)
        self._append_job(
            (
                job.worker,
                obs_tick,
                job.obs_tick,
                job.due_tick,
                int(job.hold),
                episode,
                int(resolution.outcome),
                resolution.tick,
                *times,
                self._phase_seq,
                resolution.taken_tick,
                resolution.taken_seq,
            )
        )

    def episode_ended(self, episode_return: float, episode_ticks: int) -> None:
        self._counters.add("episodes")

    def _policy_tick(self, record: TickRecord, answer: Answer) -> None:
        histograms = self._histograms
        if record.interval_ticks >= 0:
            histograms["interval_ticks"].add(record.interval_ticks)
        histograms["delay_ticks"].add(record.delay_ticks)
        histograms["observation_age_ns"].add(record.dispatch_ns - answer.frame_publish_ns)
        if record.first_use:
            ready_ns = max(answer.write_ns, record.due_deadline_ns)
            histograms["write_to_dispatch_ns"].add(record.dispatch_ns - ready_ns)


class TracingRecorder(StatsRecorder):
    """Also writes what the env process did when into its trace: after the frame is out, from stamps taken anyway."""

    def __init__(
        self, books: Books, schedule: Schedule, period_ns: int, phase_seq: int, trace: TraceRing, clock: TickClock
    ) -> None:
        super().__init__(books, schedule, period_ns, phase_seq)
        self._trace = trace
        self._clock = clock
        self._idle_since_ns = 0

    def end_tick(self, record: TickRecord) -> None:
        super().end_tick(record)
        add, tick, start_ns = self._trace.add, record.plan.tick, record.start_ns
        woke_ns = self._clock.woke_ns
        if self._idle_since_ns and self._idle_since_ns < start_ns:
            if woke_ns > self._idle_since_ns:
                add(TraceKind.SLEEP, self._idle_since_ns, woke_ns)
                add(TraceKind.PREPARE, woke_ns, start_ns, tick)
            else:
                add(TraceKind.PREPARE, self._idle_since_ns, start_ns, tick)
        stepped_ns = record.booked_ns + record.step_ns
        published_ns = stepped_ns + record.publish_cost_ns
        add(TraceKind.TICK, start_ns, record.end_ns, tick, value=record.kind)
        add(TraceKind.COLLECT, start_ns, record.collected_ns, tick)
        worker = booked_tick = -1
        if record.entry is not None:
            worker, booked_tick = record.entry.job.worker, record.entry.job.obs_tick
        add(
            TraceKind.DISPATCH,
            record.collected_ns,
            record.dispatch_ns,
            tick,
            worker,
            booked_tick,
            value=int(record.first_use),
        )
        add(TraceKind.BOOK, record.dispatch_ns, record.booked_ns, tick)
        for job in record.jobs:
            add(
                TraceKind.JOB,
                record.dispatch_ns,
                record.dispatch_ns,
                tick,
                job.worker,
                job.obs_tick,
                record.frame_seq,
                job.due_tick,
            )
        world = TraceKind.RESET if record.kind is TickKind.RESET else TraceKind.STEP
        add(world, record.booked_ns, stepped_ns, tick)
        add(TraceKind.PUBLISH, stepped_ns, published_ns, tick, frame_seq=record.frame_seq)
        self._idle_since_ns = self._clock.now_ns()
        add(TraceKind.ACCOUNT, published_ns, self._idle_since_ns, tick)

    def garbage_collected(self, start_ns: int, end_ns: int, forced: bool) -> None:
        super().garbage_collected(start_ns, end_ns, forced)
        self._trace.add(TraceKind.COLLECT_GARBAGE, start_ns, end_ns)
        self._idle_since_ns = end_ns

    def job_ended(self, resolution: Resolution) -> None:
        super().job_ended(resolution)
        job = resolution.job
        now_ns = self._clock.now_ns()
        self._trace.add(
            TraceKind.OUTCOME,
            now_ns,
            now_ns,
            resolution.tick,
            job.worker,
            job.obs_tick,
            value=resolution.outcome,
        )
