"""Counters and histograms of a run, from what the tick loop reports: in shared or private memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rtcore.clock import TickClock
from rtcore.loop.tick import Tick
from rtcore.memory.counters import Histogram, Words
from rtcore.memory.layout import ENV_COUNTERS, ENV_HISTOGRAMS, ENV_STATUS
from rtcore.memory.trace import TraceKind, TraceRing
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Invariant, Source, TickKind
from rtcore.scheduling.jobs import Answer, JobRow
from rtcore.scheduling.schedule import Schedule

# Words that each tick writes, looked up once.
_TICK, _HEARTBEAT_NS = (ENV_STATUS.index[name] for name in ("tick", "heartbeat_ns"))
_TICKS, _FIRST_START_NS, _LAST_START_NS, _JOBS = (
    ENV_COUNTERS.index[name] for name in ("ticks", "first_start_ns", "last_start_ns", "jobs")
)
_OF_KIND = [ENV_COUNTERS.index[name] for name in KIND_COUNTERS]
_OF_OUTCOME = [ENV_COUNTERS.index[name] for name in OUTCOME_COUNTERS]
_RESET = int(TickKind.RESET)


#: Ticks of these sources are counted apart: those of the others follow from the kinds of ticks.
_LAST_USUAL_SOURCE = int(Source.HELD)
SOURCE_COUNTERS: dict[int, str] = {
    Source.HUMAN: "human_ticks",
    Source.SHIELD: "shield_ticks",
    Source.SAFE: "starved_ticks",
}


class Books(NamedTuple):
    """The counters, status and histograms that a recorder writes. `append_job` gets each job that ended."""

    counters: Words
    status: Words
    histograms: dict[str, Histogram]
    append_job: Callable[[JobRow], object]

    @classmethod
    def private(cls, append_job: Callable[[JobRow], object]) -> Books:
        """All of them in private memory."""
        histograms = {name: Histogram() for name in ENV_HISTOGRAMS}
        return cls(Words(ENV_COUNTERS), Words(ENV_STATUS), histograms, append_job)


class StatsRecorder:
    """Counts from 0: clears the books that it is given. Implements `tickloop.Recorder`."""

    def __init__(self, books: Books, schedule: Schedule, period_ns: int) -> None:
        self._counters = books.counters
        self._status = books.status
        self._append_job = books.append_job
        self._schedule = schedule
        #: What was written last of it.
        self._spacing: tuple[int, ...] = ()
        self._period_ns = period_ns
        self._starved_tick = -2
        self._intervention = 0
        self._counters.clear()
        for histogram in books.histograms.values():
            histogram.clear()
        self._lateness = books.histograms["lateness_ns"]
        self._step = books.histograms["step_ns"]
        self._reset = books.histograms["reset_ns"]
        self._publish = books.histograms["publish_ns"]
        self._interval = books.histograms["interval_ticks"]
        self._delay = books.histograms["delay_ticks"]
        self._age = books.histograms["observation_age_ns"]
        self._phase_error = books.histograms["phase_error_ns"]
        self._write_to_dispatch = books.histograms["write_to_dispatch_ns"]

    def begin_tick(self, tick: int, now_ns: int) -> None:
        words = self._status.words
        words[_TICK], words[_HEARTBEAT_NS] = tick, now_ns

    def end_tick(self, tick: Tick) -> None:
        counters, plan, header = self._counters, tick.plan, tick.header
        words, offer = counters.words, tick.decision.offer
        ticks = words[_TICKS]
        if ticks == 0:
            words[_FIRST_START_NS] = header.start_ns
        words[_LAST_START_NS] = header.start_ns
        words[_TICKS] = ticks + 1
        words[_OF_KIND[header.kind]] += 1
        if plan.skipped_ticks:
            counters.add("skipped_ticks", plan.skipped_ticks)
        if plan.stretched_ns:
            counters.add("stretched_ticks")
            counters.add("stretched_ns", plan.stretched_ns)
        is_reset = header.kind == _RESET
        if tick.end_ns - plan.deadline_ns > self._period_ns:
            counters.add("reset_overruns" if is_reset else "overruns")
        self._lateness.add(header.start_ns - plan.deadline_ns)
        (self._reset if is_reset else self._step).add(header.step_ns)
        self._publish.add(tick.published_ns - header.publish_ns)
        if header.source > _LAST_USUAL_SOURCE:
            counters.add(SOURCE_COUNTERS[header.source])
            if header.source == Source.SAFE:
                if self._starved_tick != header.tick - 1 - plan.skipped_ticks:
                    counters.add("starvations")
                self._starved_tick = header.tick
        if header.intervention != self._intervention:
            self._status["intervention"] = intervention = header.intervention
            counters.add("take_overs", int(intervention > self._intervention))
            self._intervention = intervention
        schedule = self._schedule
        spacing = (
            schedule.skipped_starts,
            schedule.replans,
            schedule.delay_ticks,
            schedule.stride_ticks,
            schedule.num_up,
        )
        if spacing != self._spacing:
            self._spacing, status = spacing, self._status
            counters["skipped_starts"], counters["replans"] = spacing[:2]
            status["delay_ticks"], status["stride_ticks"], status["num_up"] = spacing[2:]
        if offer is None:
            return
        answer = offer.answer
        if header.features_tick >= 0:
            counters.add("head_actions")
        if tick.interval_ticks >= 0:
            self._interval.add(tick.interval_ticks)
        self._delay.add(header.tick - answer.obs_tick)
        self._age.add(tick.dispatch_ns - answer.frame_publish_ns)
        if tick.decision.first_use:
            ready_ns = max(answer.write_ns, tick.due_deadline_ns)
            self._write_to_dispatch.add(tick.dispatch_ns - ready_ns)

    def garbage_collected(self, start_ns: int, end_ns: int, forced: bool) -> None:
        """Between two ticks."""
        self._counters.add("garbage_collections")
        self._counters.add("garbage_forced", int(forced))
        self._counters.add("garbage_ns", end_ns - start_ns)

    def cycle_taken(self, error_ns: int, lost: int, period_ns: float) -> None:
        """Between two ticks, with the world's clock: see `world_clock.WorldPace`."""
        counters = self._counters
        if counters["cycles"]:  # the first is what the grid is locked to
            self._phase_error.add(abs(error_ns))
        counters.add("cycles")
        counters["cycle_ps"] = round(period_ns * 1000)
        if lost:
            counters.add("lost_cycles", lost)

    def answer_taken(self, answer: Answer) -> None:
        if answer.clipped:
            self._counters.add("clipped_actions", answer.clipped)
        if answer.explored:
            self._counters.add("explored_actions", answer.explored)

    def job_ended(self, row: JobRow) -> None:
        words = self._counters.words
        words[_JOBS] += 1
        words[_OF_OUTCOME[row.outcome]] += 1
        self._append_job(row)

    def episode_ended(self, episode_return: float, episode_ticks: int) -> None:
        self._counters.add("episodes")

    def invariant_broken(self, invariant: Invariant, tick: int) -> None:
        counters = self._counters
        if not counters["broken_invariants"]:
            counters["first_broken"], counters["first_broken_tick"] = int(invariant), tick
        counters["broken_kinds"] |= 1 << invariant
        counters.add("broken_invariants")


class TracingRecorder(StatsRecorder):
    """Also writes into the trace what the env process did when. After the frame is out, from times taken anyway."""

    def __init__(self, books: Books, schedule: Schedule, period_ns: int, trace: TraceRing, clock: TickClock) -> None:
        super().__init__(books, schedule, period_ns)
        self._trace = trace
        self._clock = clock
        self._idle_since_ns = 0

    def end_tick(self, tick: Tick) -> None:
        super().end_tick(tick)
        add, number, header = self._trace.add, tick.plan.tick, tick.header
        woke_ns = self._clock.woke_ns
        if self._idle_since_ns and self._idle_since_ns < header.start_ns:
            if woke_ns > self._idle_since_ns:
                add(TraceKind.SLEEP, self._idle_since_ns, woke_ns)
                add(TraceKind.PREPARE, woke_ns, header.start_ns, number)
            else:
                add(TraceKind.PREPARE, self._idle_since_ns, header.start_ns, number)
        add(TraceKind.TICK, header.start_ns, tick.end_ns, number, value=header.kind)
        add(TraceKind.COLLECT, header.start_ns, tick.collected_ns, number)
        job = tick.decision.offer.job if tick.decision.offer is not None else None
        add(
            TraceKind.DISPATCH,
            tick.collected_ns,
            tick.dispatch_ns,
            number,
            worker=job.worker if job is not None else -1,
            booked_tick=job.obs_tick if job is not None else -1,
            value=int(tick.decision.first_use),
        )
        if header.features_tick >= 0:
            about = {"worker": header.features_worker, "booked_tick": header.features_tick}
            add(TraceKind.FEATURES, tick.dispatch_ns, tick.dispatch_ns, number, **about)
        if header.intervention:
            add(TraceKind.INTERVENTION, tick.dispatch_ns, tick.dispatch_ns, number, value=header.intervention)
        add(TraceKind.BOOK, tick.dispatch_ns, tick.booked_ns, number)
        for job in tick.jobs:
            add(
                TraceKind.JOB,
                tick.dispatch_ns,
                tick.dispatch_ns,
                number,
                worker=job.worker,
                booked_tick=job.obs_tick,
                frame_seq=header.frame_seq,
                value=job.due_tick,
            )
        world = TraceKind.RESET if header.kind == TickKind.RESET else TraceKind.STEP
        add(world, tick.booked_ns, header.publish_ns, number)
        add(TraceKind.PUBLISH, header.publish_ns, tick.published_ns, number, frame_seq=header.frame_seq)
        self._idle_since_ns = self._clock.now_ns()
        add(TraceKind.ACCOUNT, tick.published_ns, self._idle_since_ns, number)

    def garbage_collected(self, start_ns: int, end_ns: int, forced: bool) -> None:
        super().garbage_collected(start_ns, end_ns, forced)
        self._trace.add(TraceKind.COLLECT_GARBAGE, start_ns, end_ns)
        self._idle_since_ns = end_ns

    def job_ended(self, row: JobRow) -> None:
        super().job_ended(row)
        now_ns = self._clock.now_ns()
        add, worker, booked_tick = self._trace.add, row.worker, row.booked_tick
        add(TraceKind.OUTCOME, now_ns, now_ns, row.tick, worker=worker, booked_tick=booked_tick, value=row.outcome)
