"""One tick of a finished run in words: what was due, who was late and why, what was applied instead. Pure.

Everything is told from the rows of actions.csv and jobs.csv; what the rows do not say is called unknown. Times
between processes are good to some tens of microseconds: the record leaves out how long collecting answers took.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from rtcore.errors import ConfigError
from rtcore.report.wording import TICK_KIND_MEANING
from rtcore.results.folder import ACTIONS, RunFolder, number_at
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.results.summary import RunStats, WorkerStats
from rtcore.results.worst_stretch import Stretch
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.scheduling.schedule import UNEQUAL_FACTOR

# -- the stages of an answer: how long each took, and which was slow --------------------------------------

#: A stage counts as slow from this much over its usual time [ns]: less is the machine's noise.
_SLOW_NS = 50_000


class Stage(NamedTuple):
    """A stretch between the tick's deadline to the answer, and what it usually takes (median of the run)."""

    name: str
    took_ns: int
    usual_ns: int

    @property
    def excess_ns(self) -> int:
        return self.took_ns - self.usual_ns


#: What a slow part is called where it is the reason, in their order.
_REASONS = {
    "tick began late": "the frame was late: its tick began late",
    "world's step": "the frame was late: the world's step was slow",
    "wake-up and copy": "the worker started late: it had to wait for a CPU, or was slow to read the frame",
    "inference": "the inference was slow",
    "writing": "writing the answer was slow: the worker had to wait for a CPU",
}


class StageTimes:
    """The stages of all answers of a run."""

    def __init__(self, run: RunFolder) -> None:
        self._run = run

    def stages(self, job: InferenceRow) -> list[Stage]:
        """From the deadline of the frame's tick to the answer, in their order. [] without a frame row."""
        row = self._run.row_of.get(job.frame_tick)
        if row is None or not job.write_ns:
            return []
        return [Stage(name, took_ns, round(self.usual[name])) for name, took_ns in _stretches(row, job)]

    @cached_property
    def usual(self) -> dict[str, float]:
        """The median of each stage over the run."""
        taken: dict[str, list[int]] = {name: [] for name in _REASONS}
        for job in self._run.jobs:
            row = self._run.row_of.get(job.frame_tick)
            if row is not None and job.write_ns:
                for name, took_ns in _stretches(row, job):
                    taken[name].append(took_ns)
        return {name: median(times) if times else 0.0 for name, times in taken.items()}

    def blame(self, job: InferenceRow, late_ns: float) -> str:
        """Which stage made an answer late by `late_ns`."""
        stages = self.stages(job)
        if not stages:
            return f"not known: the row of tick {job.frame_tick}, whose frame it used, is not in the record."
        worst = max(stages, key=lambda stage: stage.excess_ns)
        # Without a due tick nothing promises an answer by now: slow is only what would have been there otherwise.
        slow_ns = max(_SLOW_NS, late_ns / 4 if job.due_tick >= 0 else late_ns)
        if worst.excess_ns < slow_ns:
            total = sum(stage.took_ns for stage in stages)
            needs = f"every part took about its usual time, {span(total)} in all"
            if job.due_tick >= 0:
                return (
                    f"{needs}: the delay of {job.due_tick - job.booked_tick} ticks is too short for this policy here."
                )
            return f"{needs}: an inference takes longer than the ticks there were since it was booked."
        text = f"{_REASONS[worst.name]}: {span(worst.took_ns)}, usually {span(worst.usual_ns)}."
        if worst.name == "wake-up and copy":
            text += self._wake_up(job)
        others = [stage for stage in stages if stage is not worst and stage.excess_ns >= slow_ns]
        return text + "".join(
            f" Also {stage.name}: {span(stage.took_ns)}, usually {span(stage.usual_ns)}." for stage in others
        )

    def _wake_up(self, job: InferenceRow) -> str:
        row = self._run.row_of[job.frame_tick]
        woke_ns = job.start_ns - row.publish_ns
        if woke_ns > _SLOW_NS:
            return f" It woke {span(woke_ns)} after the frame was there."
        return f" It was awake when the frame came, {span(job.read_ns - job.start_ns)} before it had it."

    def in_words(self, job: InferenceRow) -> str:
        stages = self.stages(job)
        if not stages:
            took = span(job.infer_end_ns - job.read_ns)
            return (
                f"Inference took {took}, usually {span(self.usual['inference'])}; of the rest the record has no rows."
            )
        listed = ", ".join(f"{stage.name} {span(stage.took_ns)} ({span(stage.usual_ns)})" for stage in stages)
        return f"Its way from the deadline of tick {job.frame_tick}, usual times in brackets: {listed}."


def _stretches(row: TickRow, job: InferenceRow) -> list[tuple[str, int]]:
    """The stages of `job`, `row` being the tick of its frame. They sum up to write - deadline."""
    times_ns = (row.deadline_ns, row.start_ns, row.publish_ns, job.read_ns, job.infer_end_ns, job.write_ns)
    return [(name, after - before) for name, (before, after) in zip(_REASONS, pairwise(times_ns), strict=True)]


def span(ns: float) -> str:
    """A duration for people."""
    if abs(ns) < NS_PER_MS:
        return f"{ns / NS_PER_US:.0f} us"
    return f"{ns / NS_PER_MS:.1f} ms" if abs(ns) < NS_PER_S else f"{ns / NS_PER_S:.2f} s"


# -- who was booked when ----------------------------------------------------------------------------------

MOST_LISTED = 12


class Bookings:
    """The bookings of a run. `jobs`: in the order in which they were booked."""

    def __init__(self, run: RunFolder, stages: StageTimes) -> None:
        self._run = run
        self._stages = stages
        self.jobs = sorted(run.jobs, key=lambda job: (job.booked_tick, job.worker))
        self.booked = [job.booked_tick for job in self.jobs]

    def why_none_booked(self, row: TickRow) -> str:
        """Nothing was due at `row.tick` (max-time): look at the tick at which it would have been booked."""
        if row.kind is TickKind.MISSED:
            return "not known: the inference that was due has no row in jobs.csv; it is lost, or was never written."
        delay = self._delay_before(row.tick)
        if delay is None:
            return "no inference was booked before it in the record."
        start = row.tick - delay
        if start < self._run.ticks[0].tick:
            return f"its inference would have been booked at tick {start}, before the record begins."
        if start not in self._run.row_of:
            return f"its inference would have been booked {in_ticks(delay)} before, at tick {start}, which did not run."
        return self._why_idle_at(start, delay)

    def _why_idle_at(self, start: int, delay: int) -> str:
        there = [job for job in self.jobs if job.booked_tick == start]
        at = f"its inference would have been booked {in_ticks(delay)} before, at tick {start}"
        if there:
            return f"the delay changed: what was booked at tick {start} was for tick {there[0].due_tick}."
        before = [job for job in self.jobs[: bisect_left(self.booked, start)] if job.due_tick >= 0]
        busy, down = self.busy(start), self.down(start)
        if self._run.num_workers and len({job.worker for job in busy} | down) >= self._run.num_workers:
            return f"none booked: {at}, when no worker was idle{self.who_is_busy(busy, down)}."
        stride = self._stride(start)
        if before and start - before[-1].booked_tick < stride:
            last = before[-1].booked_tick
            since = f"{start - last} after the one at {last}"
            return f"none planned: inferences start every {stride} ticks, and {at}, {since}."
        delays = sorted({job.due_tick - job.booked_tick for job in self._around(start)})
        if len(delays) > 1:
            return f"the delay was changed around tick {start} (between {listed(delays)} ticks): {at} falls in between."
        idle = self._run.num_workers - len({job.worker for job in busy} | down)
        return (
            f"not known from the record: {at}, when {idle} of {self._run.num_workers} workers seem to have been idle."
        )

    def who_is_busy(self, busy: list[InferenceRow], down: set[int]) -> str:
        oldest = busy[:3]
        since = ", ".join(f"worker {job.worker} since tick {job.booked_tick}" for job in oldest)
        text = f" ({since}{', ...' if len(busy) > len(oldest) else ''})" if oldest else ""
        usual = self._stages.usual["inference"]
        slow = [job for job in busy if job.write_ns and job.infer_end_ns - job.read_ns > usual + self._run.period_ns]
        if slow:
            slowest = max(slow, key=lambda job: job.infer_end_ns - job.read_ns)
            took = span(slowest.infer_end_ns - slowest.read_ns)
            text += f"; worker {slowest.worker} was slow ({took}, usually {span(usual)})"
        if down:
            text += f"; down: worker{'s' if len(down) > 1 else ''} {listed(sorted(down))}"
        return text

    def busy(self, tick: int) -> list[InferenceRow]:
        """Jobs under way when workers were booked at `tick`: booked before, and their answer not there yet."""
        row = self._run.row_of.get(tick)
        now_ns = row.start_ns if row is not None else self._run.deadline_ns(tick)
        before = self.jobs[: bisect_left(self.booked, tick)]
        return [job for job in before if (job.write_ns > now_ns if job.write_ns else _still_out(job, tick))]

    def down(self, tick: int) -> set[int]:
        """Workers that had died by `tick` and were not booked again yet."""
        newest: dict[int, InferenceRow] = {}
        for job in self.jobs[: bisect_right(self.booked, tick)]:
            newest[job.worker] = job
        dead = Outcome.DROPPED_DEAD_WORKER
        return {worker for worker, job in newest.items() if job.outcome is dead and job.resolved_tick <= tick}

    def _around(self, tick: int) -> list[InferenceRow]:
        index = bisect_left(self.booked, tick)
        return [job for job in self.jobs[max(0, index - 2) : index + 2] if job.due_tick >= 0]

    def _delay_before(self, tick: int) -> int | None:
        """The delay of the booking that is nearest to the one that is missing."""
        held = [job for job in self.jobs if job.due_tick >= 0]
        if not held:
            return None
        nearest = min(held, key=lambda job: abs(job.due_tick - tick))
        return nearest.due_tick - nearest.booked_tick

    def _stride(self, tick: int) -> int:
        """Ticks between two starts: as most often near `tick`, else as planned."""
        index = bisect_left(self.booked, tick)
        near = self.booked[max(0, index - 16) : index + 16]
        gaps = sorted(b - a for a, b in pairwise(near) if b > a)
        return int(gaps[len(gaps) // 2]) if gaps else int(number_at(self._run.summary, "plan", "stride_ticks") or 1)


def _still_out(job: InferenceRow, tick: int) -> bool:
    """Whether a job that was never answered was still waited for at `tick`."""
    return job.resolved_tick > tick or (job.outcome is Outcome.UNFINISHED and job.resolved_tick == tick)


def in_ticks(count: int) -> str:
    return f"{count} tick{'' if count == 1 else 's'}"


def listed(values: Iterable[int]) -> str:
    numbers = list(values)
    text = ", ".join(str(number) for number in numbers[:MOST_LISTED])
    return f"{text} and {len(numbers) - MOST_LISTED} more" if len(numbers) > MOST_LISTED else text


# -- the tick ---------------------------------------------------------------------------------------------

#: A tick that begins later than this share of the period is worth a word even if others were as late.
_LATE_SHARE = 0.1
#: Deadlines come from lateness in tenths of a microsecond: what is less than this is rounding [ns].
_ROUNDING_NS = 500


class Fact(NamedTuple):
    """A labelled sentence. Facts that go on from the one before have no label."""

    label: str
    text: str


def explain_tick(run: RunFolder, tick: int) -> list[Fact]:
    """The story of `tick`. ConfigError if the record has no ticks at all, or ends before or begins after it."""
    if not run.ticks:
        raise ConfigError(f"{run.path}: {ACTIONS} has no ticks to explain. {' '.join(run.notes)}".strip())
    first, last = run.ticks[0].tick, run.ticks[-1].tick
    if not first <= tick <= last:
        raise ConfigError(f"--tick {tick}: not in this run; its record goes from tick {first} to tick {last}")
    story = _Story(run)
    row = run.row_of.get(tick)
    return story.of_absent(tick) if row is None else story.of(row)


def causes_of(run: RunFolder, ticks: Iterable[int]) -> dict[int, str]:
    """Why each of `ticks` had no policy action, in a sentence or two; what the rows do not say is called unknown."""
    story, causes = _Story(run), {}
    for tick in ticks:
        row = run.row_of.get(tick)
        try:
            facts = story.of_absent(tick) if row is None else story.of(row)
        except LookupError:  # at the edge of what is recorded
            facts = []
        causes[tick] = _cause_in(facts)
    return causes


def _cause_in(facts: list[Fact]) -> str:
    """The reason itself, or else what became of the answer; and whose it was, where that is said."""
    due = next((fact.text for fact in facts if fact.label in ("was due", "next")), "")
    said = [fact.text for label in ("why", "answer") for fact in facts if fact.label == label]
    if not said:
        return due or "not known from the record"
    worker = re.search(r"of (worker \d+)", due)
    return f"{worker.group(1)}: {said[0]}" if worker else said[0]


class _Story:
    """Builds the facts of one tick."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        self.stagger = str(run.settings.get("stagger", "max-time" if self._any_due else "unknown stagger"))
        self.chunk = int(run.settings.get("chunk") or 1)
        self.stages = StageTimes(run)
        self.bookings = Bookings(run, self.stages)
        self.jobs, self.booked = self.bookings.jobs, self.bookings.booked
        self.numbers = [row.tick for row in run.ticks]

    @property
    def _any_due(self) -> bool:
        return any(job.due_tick >= 0 for job in self.run.jobs)

    @cached_property
    def holds(self) -> bool:
        """Whether actions wait for a due tick (max-time)."""
        return self.stagger == "max-time"

    # -- the whole -----------------------------------------------------------------------------------------

    def of(self, row: TickRow) -> list[Fact]:
        facts = [Fact("", f"Tick {row.tick}: {row.kind.name.lower()}, {TICK_KIND_MEANING[row.kind.name.lower()]}.")]
        facts += self._the_tick(row)
        if row.kind is TickKind.RESET:
            facts += self._reset(row)
        elif row.kind is TickKind.LEAD_IN:
            facts += self._lead_in(row)
        else:
            facts += self._due(row) if self.holds else self._ready(row)
        facts += self._applied(row)
        return facts

    def of_absent(self, tick: int) -> list[Fact]:
        """A tick without a row."""
        after = self.run.ticks[bisect_left(self.numbers, tick)]
        before = self.run.ticks[bisect_left(self.numbers, tick) - 1]
        if after.tick - after.skipped_ticks > tick:
            text = f"Tick {tick}: its row is lost. The recorder was overtaken by the run; neighbours are ticks "
            return [Fact("", f"{text}{before.tick} and {after.tick}.")]
        reason = self._why_skipped(before, after)
        gone = f"{after.skipped_ticks} tick{'s' if after.skipped_ticks > 1 else ''} skipped in a row"
        facts = [
            Fact("", f"Tick {tick}: skipped. The env process did not run it ({gone})."),
            Fact("why", reason),
            Fact("applied", "nothing: the world did not move, no action was taken and none was booked."),
        ]
        due = [job for job in self.jobs if job.due_tick == tick]
        for job in due:
            facts += [Fact("was due", self._booking(job)), *self._fate(job, tick)]
        return [*facts, Fact("then", f"the next tick that ran is {after.tick} ({after.kind.name.lower()}).")]

    def _why_skipped(self, before: TickRow, after: TickRow) -> str:
        period_ns = self.run.period_ns
        if before.step_us * NS_PER_US > period_ns:
            what = "reset" if before.kind is TickKind.RESET else "step"
            return (
                f"the world's {what} at tick {before.tick} took {span(before.step_us * NS_PER_US)}, longer than a tick "
                f"({span(period_ns)})."
            )
        if before.lateness_us * NS_PER_US > _LATE_SHARE * period_ns:
            return (
                f"tick {before.tick} began {span(before.lateness_us * NS_PER_US)} late: the env process did not get "
                "the CPU in time."
            )
        return (
            f"tick {before.tick} began on time and its step took {span(before.step_us * NS_PER_US)}, then the env "
            f"process lost the CPU: tick {after.tick} began {span(after.start_ns - before.publish_ns)} later."
        )

    # -- the tick itself -----------------------------------------------------------------------------------

    @cached_property
    def _usual_lateness_us(self) -> float:
        return median(row.lateness_us for row in self.run.ticks)

    @cached_property
    def _usual_step_us(self) -> float:
        return median(row.step_us for row in self.run.ticks)

    def _the_tick(self, row: TickRow) -> Iterable[Fact]:
        run = self.run
        lateness_ns = row.lateness_us * NS_PER_US
        since_s = (row.deadline_ns - run.ticks[0].deadline_ns) / NS_PER_S
        verdict = "on time"
        if run.period_ns and lateness_ns > _LATE_SHARE * run.period_ns:
            verdict = "late"
        yield Fact(
            "tick",
            f"{since_s:.3f} s into the record, episode {row.episode}; began {verdict}, {span(lateness_ns)} after its "
            f"deadline (usually {span(self._usual_lateness_us * NS_PER_US)}). The world took "
            f"{span(row.step_us * NS_PER_US)} (usually {span(self._usual_step_us * NS_PER_US)}); reward "
            f"{row.reward:g}, return so far {row.episode_return:g}.",
        )
        if row.skipped_ticks:
            skipped = _range(row.tick - row.skipped_ticks, row.tick - 1)
            before = run.ticks[bisect_left(self.numbers, row.tick) - 1]
            yield Fact("skipped", f"{skipped} before it did not run: {self._why_skipped(before, row)}")
        yield from self._stretched(row)
        if row.terminated or row.truncated:
            yield Fact("", f"The episode ended with it ({'terminated' if row.terminated else 'truncated'}).")

    def _stretched(self, row: TickRow) -> Iterable[Fact]:
        """With --overrun stretch: whether the tick before put this one off."""
        index = bisect_left(self.numbers, row.tick)
        before = self.run.ticks[index - 1] if index else None
        if before is None or not self.run.stretches or before.tick != row.tick - 1:
            return
        put_off_ns = row.deadline_ns - before.deadline_ns - self.run.period_ns
        if put_off_ns > _ROUNDING_NS:
            yield Fact("put off", f"by {span(put_off_ns)}, and all ticks after it: {self._why_put_off(before, row)}")

    def _why_put_off(self, before: TickRow, row: TickRow) -> str:
        step_ns, period_ns = before.step_us * NS_PER_US, self.run.period_ns
        if (1 - _LATE_SHARE) * period_ns < step_ns <= period_ns:
            return f"the world's step at tick {before.tick} took {span(step_ns)} of the {span(period_ns)} of a tick."
        return self._why_skipped(before, row)

    def _reset(self, row: TickRow) -> Iterable[Fact]:
        index = bisect_left(self.numbers, row.tick)
        before = self.run.ticks[index - 1] if index else None
        if before is None:
            yield Fact("reset", "the start of the run: nothing could be due.")
            return
        end = "terminated" if before.terminated else "truncated" if before.truncated else "ended"
        yield Fact(
            "reset",
            f"episode {before.episode} {end} at tick {before.tick} with return {before.episode_return:g}; the world "
            "was reset, and no action is applied at a reset.",
        )
        under_way = [job for job in self.jobs if job.booked_tick < row.tick <= job.resolved_tick]
        stale = [job for job in under_way if job.outcome is Outcome.STALE_EPISODE]
        if stale:
            workers = _workers(stale)
            yield Fact(
                "lost by it", f"{len(stale)} answers under way fit the old episode and are not used ({workers})."
            )

    def _lead_in(self, row: TickRow) -> Iterable[Fact]:
        index = bisect_left(self.numbers, row.tick)
        start = next((r.tick for r in reversed(self.run.ticks[:index]) if r.kind is TickKind.RESET), None)
        if start is None:
            start = self.run.ticks[0].tick
        later = next((r for r in self.run.ticks[index:] if r.kind is not TickKind.LEAD_IN), None)
        job = next((j for j in self.jobs[bisect_left(self.booked, start) :]), None)
        text = f"the episode began with the reset at tick {start}"
        if job is None:
            text += "; no inference of it is in the record."
        elif job.due_tick >= 0:
            text += (
                f". Its first inference was booked at tick {job.booked_tick} (worker {job.worker}) for tick "
                f"{job.due_tick}: before that nobody could have an action."
            )
            busy, down = self.bookings.busy(start), self.bookings.down(start)
            if job.booked_tick > start and len({j.worker for j in busy} | down) >= self.run.num_workers:
                text += f" At the reset no worker was idle{self.bookings.who_is_busy(busy, down)}."
        else:
            text += (
                f". Its first inference was booked at tick {job.booked_tick} (worker {job.worker}): nothing could be "
                "there before it was planned to be ready."
            )
        yield Fact("lead-in", text)
        if later is not None:
            yield Fact("then", f"the lead-in ended at tick {later.tick} ({later.kind.name.lower()}).")

    # -- what was due (max-time) ---------------------------------------------------------------------------

    def _due(self, row: TickRow) -> Iterable[Fact]:
        """The jobs for this tick, for one that was skipped just before it, or whose chunk covers it."""
        since = row.tick - row.skipped_ticks
        reset = self._reset_before(row.tick)
        reach = [job for job in self.jobs if job.due_tick >= 0 and job.booked_tick >= reset]
        own = [job for job in reach if since <= job.due_tick <= row.tick]
        covering = [job for job in reach if job.due_tick < since and row.tick < job.due_tick + self.chunk]
        if not own and not covering:
            yield Fact("was due", "nothing.")
            yield Fact("why", self.bookings.why_none_booked(row))
        for job in own or covering[-1:]:
            yield Fact("was due", self._booking(job))
            yield from self._fate(job, row.tick)
        source = self._source(row)
        if row.kind is TickKind.ACTED and source is not None and source not in own and source not in covering:
            yield Fact("instead", self._booking(source))
            yield from self._fate(source, row.tick)

    def _booking(self, job: InferenceRow) -> str:
        text = f"an action of worker {job.worker}, booked at tick {job.booked_tick}"
        if job.due_tick >= 0:
            span = (
                f"ticks {job.due_tick} to {job.due_tick + self.chunk - 1}" if self.chunk > 1 else f"tick {job.due_tick}"
            )
            text += f" for {span}"
        if job.obs_tick >= 0 and job.obs_tick != job.booked_tick:
            return f"{text}; it used the newer frame of tick {job.obs_tick}."
        return f"{text} from the frame of tick {job.frame_tick}."

    def _fate(self, job: InferenceRow, tick: int) -> Iterable[Fact]:
        """What became of a job, seen from `tick`."""
        if not job.write_ns:
            yield from self._unanswered(job)
            return
        row = self.run.row_of.get(job.due_tick if job.due_tick >= 0 else tick)
        looked_ns = (
            row.start_ns if row is not None else self.run.deadline_ns(job.due_tick if job.due_tick >= 0 else tick)
        )
        margin_ns = looked_ns - job.write_ns
        which = f"tick {job.due_tick if job.due_tick >= 0 else tick}"
        if margin_ns >= 0:
            yield Fact("answer", f"there in time, {span(margin_ns)} before {which} {_began(row)}.")
        else:
            yield Fact("answer", f"too late: {span(-margin_ns)} after {which} {_began(row)}.")
            yield Fact("why", self.stages.blame(job, -margin_ns))
        yield Fact("", self.stages.in_words(job))
        yield from self._end(job, tick)

    def _unanswered(self, job: InferenceRow) -> Iterable[Fact]:
        if job.outcome is Outcome.UNFINISHED:
            yield Fact("answer", f"none: it was still under way when the run ended at tick {job.resolved_tick}.")
            return
        yield Fact(
            "answer",
            f"none: worker {job.worker} died, hung or was stopped, which was noticed at tick {job.resolved_tick}; its "
            "inference was lost with it.",
        )
        again = next(
            (j for j in self._of_worker(job.worker) if j.booked_tick >= job.resolved_tick and j is not job), None
        )
        if again is None:
            yield Fact("worker", f"{job.worker} does not appear in the record again.")
        else:
            away = again.booked_tick - job.resolved_tick
            yield Fact(
                "worker",
                f"{job.worker} was restarted and booked again at tick {again.booked_tick}, {in_ticks(away)} on.",
            )

    def _end(self, job: InferenceRow, tick: int) -> Iterable[Fact]:
        at = job.resolved_tick
        if job.outcome is Outcome.LATE and at != tick:
            yield Fact("outcome", f"late: applied at tick {at}, {in_ticks(at - job.due_tick)} after it was due.")
        elif job.outcome is Outcome.LATE and self.run.row_of.get(job.due_tick) is None:
            yield Fact("outcome", f"late: applied at this tick, as tick {job.due_tick}, when it was due, did not run.")
        elif job.outcome is Outcome.LATE:
            yield Fact("outcome", f"late: applied at this tick, {in_ticks(at - job.due_tick)} after it was due.")
        elif job.outcome is Outcome.SUPERSEDED:
            yield Fact("outcome", f"superseded: not used, {self._superseded_by(job)}")
        elif job.outcome is Outcome.STALE_EPISODE:
            yield Fact("outcome", f"stale episode: not used, its episode was over (found at tick {at}).")
        elif job.outcome is Outcome.DROPPED_LATE:
            yield Fact("outcome", f"dropped at tick {at}: it was late, and on-late is drop.")
        elif job.outcome is Outcome.UNFINISHED:
            yield Fact("outcome", f"unfinished: the run ended at tick {at} before its tick came.")
        elif job.outcome is Outcome.ABSTAINED:
            yield Fact("outcome", f"abstained: the policy gave no action this time (found at tick {at}).")
        elif job.outcome is Outcome.FEATURES_USED:
            yield Fact("outcome", "features used: its own action was not applied, but the head used its features.")

    def _superseded_by(self, job: InferenceRow) -> str:
        upto = self.run.ticks[: bisect_right(self.numbers, job.resolved_tick)]
        newer = next((row for row in reversed(upto) if row.obs_tick > job.frame_tick), None)
        if newer is None:
            return "an action from a newer frame took its place."
        return (
            f"as worker {newer.worker}'s action from the newer frame of tick {newer.obs_tick} (its own: tick "
            f"{job.frame_tick}) was applied at tick {newer.tick}."
        )

    # -- without due ticks ---------------------------------------------------------------------------------

    def _ready(self, row: TickRow) -> Iterable[Fact]:
        """Other staggers: an action is applied at the first tick after it is ready."""
        yield Fact("was due", f"with {self.stagger}, an action counts from the first tick after it is ready.")
        source = self._source(row)
        if row.kind is TickKind.ACTED:
            if source is not None:
                yield Fact("ready", self._booking(source))
                yield from self._fate(source, row.tick)
            return
        index = bisect_left(self.numbers, row.tick)
        before_ns = self.run.ticks[index - 1].start_ns if index else 0
        arrived = [job for job in self.jobs if before_ns < job.write_ns <= row.start_ns]
        for job in arrived:
            yield Fact("arrived", self._booking(job))
            yield from self._end(job, row.tick)
        if not arrived:
            yield Fact("ready", f"nothing: no answer came since tick {self.run.ticks[index - 1].tick}.")
        yield from self._under_way(row)

    def _under_way(self, row: TickRow) -> Iterable[Fact]:
        busy = self.bookings.busy(row.tick)
        down = self.bookings.down(row.tick)
        if down:
            who, was = ("worker", "was") if len(down) == 1 else ("workers", "were")
            yield Fact("down", f"{who} {listed(sorted(down))} had died and {was} not back.")
        if not busy:
            yield Fact("at work", "nobody: no inference was under way.")
            return
        places = "one at a time" if self.stagger == "sequential" else f"{len(busy)} of {self.run.num_workers} workers"
        yield Fact("at work", f"{places}: {_workers(busy)}.")
        answered = [job for job in busy if job.write_ns]
        if not answered:
            yield Fact("next", "none of them ever answered.")
            return
        job = min(answered, key=lambda job: job.write_ns)
        late_ns = job.write_ns - row.start_ns
        yield Fact("next", f"{self._booking(job)} Its answer came {span(late_ns)} after this tick began.")
        yield Fact("why", self.stages.blame(job, late_ns))
        yield Fact("", self.stages.in_words(job))
        yield from self._end(job, row.tick)

    # -- what was applied ----------------------------------------------------------------------------------

    def _applied(self, row: TickRow) -> Iterable[Fact]:
        action = f"action {row.applied_action}" if row.applied_action else "no action"
        if row.kind is TickKind.ACTED:
            age = in_ticks(row.tick - row.obs_tick)
            text = f"{action} of worker {row.worker}, from the frame of tick {row.obs_tick}, {age} old"
            if self.chunk > 1 and row.tick > row.due_tick:
                text += f" (number {row.tick - row.due_tick + 1} of its {self.chunk} actions)"
            yield Fact("applied", f"{text}.")
        elif row.source == "held":
            yield Fact("applied", "nothing: the world was held on its frame, or reset.")
        else:
            yield Fact(
                "applied", f"{action} of no worker: the stand-in for a missing action (on-missing {row.source})."
            )

    def _source(self, row: TickRow) -> InferenceRow | None:
        """The job whose action was applied."""
        if row.kind is not TickKind.ACTED:
            return None
        return next((job for job in self._of_worker(row.worker) if job.obs_tick == row.obs_tick), None)

    def _of_worker(self, worker: int) -> list[InferenceRow]:
        return [job for job in self.jobs if job.worker == worker]

    def _reset_before(self, tick: int) -> int:
        upto = self.run.ticks[: bisect_right(self.numbers, tick)]
        return next((row.tick for row in reversed(upto) if row.kind is TickKind.RESET), -1)


def _began(row: TickRow | None) -> str:
    return "began" if row is not None else "was to begin (it did not run)"


def _range(first: int, last: int) -> str:
    return f"tick {first}" if first == last else f"ticks {first} to {last}"


def _workers(jobs: list[InferenceRow]) -> str:
    shown = ", ".join(f"w{job.worker} since tick {job.booked_tick}" for job in jobs[:MOST_LISTED])
    return f"{shown} and {len(jobs) - MOST_LISTED} more" if len(jobs) > MOST_LISTED else shown


# -- where actions were lacking most ----------------------------------------------------------------------

_FEWEST_INFERENCES = 10
_MISSING = (TickKind.MISSED, TickKind.IDLE)


def find_culprits(stats: RunStats, stretch: Stretch | None) -> dict[str, Any]:
    """summary.json's `culprits`. `stretch`: the worst one, None if every tick had its action."""
    found: dict[str, Any] = {"slow_workers": slow_workers(stats.workers), "worst_stretch": None, "ticks": []}
    if stretch is None:
        return found
    run = _as_run(stats, stretch)
    present = {row.tick: row for row in run.ticks}
    first, last = stretch.first_tick, stretch.last_tick
    absent = {tick for row in run.ticks for tick in range(row.tick - row.skipped_ticks, row.tick)}
    missing = [
        tick
        for tick in range(first, last + 1)
        if tick in absent or (tick in present and present[tick].kind in _MISSING)
    ]
    causes = causes_of(run, missing)
    found["worst_stretch"] = {"first_tick": first, "last_tick": last, "without_action": stretch.without_action}
    found["ticks"] = [
        {"tick": tick, "kind": present[tick].kind.name.lower() if tick in present else "skipped", "cause": causes[tick]}
        for tick in missing
    ]
    return found


def slow_workers(workers: list[WorkerStats]) -> list[dict[str, Any]]:
    """Workers whose usual inference takes much longer than that of the others."""
    usual = {
        worker.index: worker.inference_ns.percentile(0.5) / 1e6
        for worker in workers
        if worker.inference_ns.count >= _FEWEST_INFERENCES
    }
    found = []
    for index, took_ms in usual.items():
        others = [other_ms for other, other_ms in usual.items() if other != index]
        if others and took_ms > UNEQUAL_FACTOR * median(others):
            found.append({"worker": index, "inference_ms": took_ms, "others_ms": median(others)})
    return found


def _as_run(stats: RunStats, stretch: Stretch) -> RunFolder:
    """The stretch as `rtcore-report` would read it: one place finds causes."""
    plan = stats.plan
    settings = {"stagger": plan.stagger, "chunk": plan.chunk, "workers": plan.workers}
    summary = {
        "ticks": {"ideal_hz": float(stats.rate_hz)},
        "plan": {"workers": plan.workers, "stride_ticks": stats.stride_ticks or plan.stride_ticks},
    }
    ticks, jobs = [TickRow.of(header) for header in stretch.ticks], [InferenceRow.of(job) for job in stretch.jobs]
    return RunFolder(Path(), {"config": settings}, summary, ticks, jobs)
