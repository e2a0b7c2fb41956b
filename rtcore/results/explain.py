"""One tick of a finished run in words: what was due, who was late and why, what was applied instead. Pure.

Everything is told from the rows of actions.csv and jobs.csv; what the rows do not say is called unknown. Times
between processes are good to some tens of microseconds: the record leaves out how long collecting answers took.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from rtcore.errors import ConfigError, counted, key_of
from rtcore.results.folder import ACTIONS, RunFolder, number_at
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.results.summary import RunStats, WorkerStats
from rtcore.results.worst_stretch import Stretch
from rtcore.scheduling.dispatch import Outcome, TickKind
from rtcore.scheduling.schedule import UNEQUAL_FACTOR

#: A stage counts as slow from this much over its usual time [ns]: less is the machine's noise.
_SLOW_NS = 50_000
#: A tick that begins later than this share of the period is worth a word even if others were as late.
_LATE_SHARE = 0.1
#: Deadlines come from lateness in tenths of a microsecond: what is less than this is rounding [ns].
_ROUNDING_NS = 500
_MOST_LISTED = 12
#: Of an idle tick for which an action was due.
_GAVE_NONE = "the policy gave no action for it"
#: The stages of an answer, from the deadline of its frame's tick on, and what each is called where it is the reason.
_REASONS = {
    "tick began late": "the frame was late: its tick began late",
    "world's step": "the frame was late: the world's step was slow",
    "wake-up and copy": "the worker started late: it had to wait for a CPU, or was slow to read the frame",
    "inference": "the inference was slow",
    "writing": "writing the answer was slow: the worker had to wait for a CPU",
}


class Fact(NamedTuple):
    """A labelled sentence. Facts that go on from the one before have no label."""

    label: str
    text: str
    worker: int = -1  #: whose job it tells of


def explain_tick(run: RunFolder, tick: int) -> list[Fact]:
    """The story of `tick`. ConfigError if the record has no ticks at all, or ends before or begins after it."""
    if not run.ticks:
        raise ConfigError(f"{run.path}: {ACTIONS} has no ticks to explain. {' '.join(run.notes)}".strip())
    first, last = run.ticks[0].tick, run.ticks[-1].tick
    if not first <= tick <= last:
        raise ConfigError(f"--tick {tick}: not in this run; its record goes from tick {first} to tick {last}")
    return _Story(run).of(tick)


def causes_of(run: RunFolder, ticks: Iterable[int]) -> dict[int, str]:
    """Why each of `ticks` had no policy action, in a sentence or two; what the rows do not say is called unknown."""
    story, causes = _Story(run), {}
    for tick in ticks:
        try:
            facts = story.of(tick)
        except LookupError:  # at the edge of what is recorded
            facts = []
        causes[tick] = story.cause_in(facts)
    return causes


class _Story:
    """Builds the facts of one tick."""

    def __init__(self, run: RunFolder) -> None:
        self.run = run
        #: In the order in which they were booked: of the workers, and of a head.
        in_order = sorted(run.jobs, key=lambda job: (job.booked_tick, job.worker))
        self.jobs = [job for job in in_order if job.worker != run.head]
        self.of_head = [job for job in in_order if job.worker == run.head]
        self.booked = [job.booked_tick for job in self.jobs]
        self.due_jobs = [job for job in self.jobs if job.due_tick >= 0]
        self.numbers = [row.tick for row in run.ticks]
        self.stagger = str(run.settings.get("stagger", "max-time" if self.due_jobs else "unknown stagger"))
        self.chunk = int(run.settings.get("chunk") or 1)
        self.from_frame = run.settings.get("chunk_from") == "frame"

    def cause_in(self, facts: list[Fact]) -> str:
        """The reason itself, or else what became of the answer; and whose it was, where that is said."""
        due = next((fact for fact in facts if fact.label in ("was due", "next")), Fact("", ""))
        said = [fact.text for label in ("why", "answer") for fact in facts if fact.label == label]
        if not said:
            return due.text or "not known from the record"
        return f"{self.run.who(due.worker)}: {said[0]}" if due.worker >= 0 else said[0]

    def of(self, tick: int) -> list[Fact]:
        row = self.run.row_of.get(tick)
        if row is None:
            return self._of_absent(tick)
        kind = key_of(row.kind)
        gave_none = any(job.due_tick == tick and job.outcome is Outcome.ABSTAINED for job in self.jobs)
        meaning = _GAVE_NONE if row.kind is TickKind.IDLE and gave_none else row.kind.meaning
        facts = [Fact("", f"Tick {tick}: {kind}, {meaning}."), *self._the_tick(row)]
        if row.kind is TickKind.RESET:
            facts += self._reset(row)
        elif row.kind is TickKind.LEAD_IN:
            facts += self._lead_in(row)
        else:  # with max-time actions wait for a due tick
            facts += self._of_the_head(row)
            facts += self._due(row) if self.stagger == "max-time" else self._ready(row)
        return [*facts, self._applied(row)]

    def _of_absent(self, tick: int) -> list[Fact]:
        """A tick without a row."""
        before, after = self._row_before(tick), self.run.ticks[bisect_left(self.numbers, tick)]
        if after.tick - after.skipped_ticks > tick or before is None:
            near = f"neighbours are ticks {before.tick if before else '-'} and {after.tick}."
            return [Fact("", f"Tick {tick}: its row is lost. The recorder was overtaken by the run; {near}")]
        gone = f"{counted(after.skipped_ticks, 'tick')} skipped in a row"
        facts = [
            Fact("", f"Tick {tick}: skipped. The env process did not run it ({gone})."),
            Fact("why", self._why_skipped(before, after)),
            Fact("applied", "nothing: the world did not move, no action was taken and none was booked."),
        ]
        for job in self.jobs:
            if job.due_tick == tick:
                facts += self._told("was due", job, tick)
        return [*facts, Fact("then", f"the next tick that ran is {after.tick} ({key_of(after.kind)}).")]

    def _row_before(self, tick: int) -> TickRow | None:
        """The last that ran before it."""
        index = bisect_left(self.numbers, tick)
        return self.run.ticks[index - 1] if index else None

    def _why_skipped(self, before: TickRow, after: TickRow) -> str:
        step_ns, lateness_ns, period_ns = before.step_us * NS_PER_US, before.lateness_us * NS_PER_US, self.run.period_ns
        if step_ns > period_ns:
            what = "reset" if before.kind is TickKind.RESET else "step"
            took = f"took {span(step_ns)}, longer than a tick ({span(period_ns)})."
            return f"the world's {what} at tick {before.tick} {took}"
        if lateness_ns > _LATE_SHARE * period_ns:
            return f"tick {before.tick} began {span(lateness_ns)} late: the env process did not get the CPU in time."
        if self.run.has_world_clock:
            return (
                f"the world's device gave no cycle for it: tick {before.tick} took {span(step_ns)} and was long over."
            )
        lost = f"then the env process lost the CPU: tick {after.tick} began {span(after.start_ns - before.publish_ns)}"
        return f"tick {before.tick} began on time and its step took {span(step_ns)}, {lost} later."

    # -- the tick itself -----------------------------------------------------------------------------------

    @cached_property
    def _usual_ns(self) -> tuple[float, float]:
        """Lateness and step of a usual tick."""
        columns = zip(*((row.lateness_us, row.step_us) for row in self.run.ticks), strict=True)
        lateness_us, step_us = map(median, columns)
        return lateness_us * NS_PER_US, step_us * NS_PER_US

    def _the_tick(self, row: TickRow) -> Iterator[Fact]:
        run, lateness_ns, (usual_lateness_ns, usual_step_ns) = self.run, row.lateness_us * NS_PER_US, self._usual_ns
        since_s = (row.deadline_ns - run.ticks[0].deadline_ns) / NS_PER_S
        verdict = "late" if run.period_ns and lateness_ns > _LATE_SHARE * run.period_ns else "on time"
        yield Fact(
            "tick",
            f"{since_s:.3f} s into the record, episode {row.episode}; began {verdict}, {span(lateness_ns)} after its "
            f"deadline (usually {span(usual_lateness_ns)}). The world took {span(row.step_us * NS_PER_US)} (usually "
            f"{span(usual_step_ns)}); reward {row.reward:g}, return so far {row.episode_return:g}.",
        )
        before = self._row_before(row.tick)
        if row.skipped_ticks:
            first, last = row.tick - row.skipped_ticks, row.tick - 1
            skipped = f"tick {first}" if first == last else f"ticks {first} to {last}"
            why = (
                self._why_skipped(before, row) if before is not None else "not known: the record begins with this tick."
            )
            yield Fact("skipped", f"{skipped} before it did not run: {why}")
        # With --overrun stretch: whether the tick before put this one off.
        if before is not None and run.stretches and before.tick == row.tick - 1:
            put_off_ns = row.deadline_ns - before.deadline_ns - run.period_ns
            if put_off_ns > _ROUNDING_NS:
                why = self._why_put_off(before, row)
                yield Fact("put off", f"by {span(put_off_ns)}, and all ticks after it: {why}")
        if row.terminated or row.truncated:
            yield Fact("", f"The episode ended with it ({'terminated' if row.terminated else 'truncated'}).")

    def _why_put_off(self, before: TickRow, row: TickRow) -> str:
        step_ns, period_ns = before.step_us * NS_PER_US, self.run.period_ns
        if (1 - _LATE_SHARE) * period_ns < step_ns <= period_ns:
            return f"the world's step at tick {before.tick} took {span(step_ns)} of the {span(period_ns)} of a tick."
        return self._why_skipped(before, row)

    def _reset(self, row: TickRow) -> Iterator[Fact]:
        before = self._row_before(row.tick)
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
        if stale := [job for job in under_way if job.outcome is Outcome.STALE_EPISODE]:
            text = f"{len(stale)} answers under way fit the old episode and are not used ({_since(stale)})."
            yield Fact("lost by it", text)

    def _lead_in(self, row: TickRow) -> Iterator[Fact]:
        reset = self._reset_before(row.tick)
        start = reset if reset >= 0 else self.run.ticks[0].tick
        job = next((job for job in self.jobs[bisect_left(self.booked, start) :]), None)
        text = f"the episode began with the reset at tick {start}"
        if job is None:
            text += "; no inference of it is in the record."
        else:
            text += f". Its first inference was booked at tick {job.booked_tick} (worker {job.worker})"
            if job.due_tick < 0:
                text += ": nothing could be there before it was planned to be ready."
            else:
                text += f" for tick {job.due_tick}: before that nobody could have an action."
                busy, down = self._busy(start), self._down(start)
                if job.booked_tick > start and len({each.worker for each in busy} | down) >= self.run.num_workers:
                    text += f" At the reset no worker was idle{self._who_is_busy(busy, down)}."
        yield Fact("lead-in", text)
        rest = self.run.ticks[bisect_left(self.numbers, row.tick) :]
        if later := next((each for each in rest if each.kind is not TickKind.LEAD_IN), None):
            yield Fact("then", f"the lead-in ended at tick {later.tick} ({key_of(later.kind)}).")

    # -- what was due (max-time) ---------------------------------------------------------------------------

    def _due(self, row: TickRow) -> Iterator[Fact]:
        """The jobs for this tick, for one that was skipped just before it, or whose chunk covers it."""
        since, reset = row.tick - row.skipped_ticks, self._reset_before(row.tick)
        reach = [job for job in self.due_jobs if job.booked_tick >= reset]
        own = [job for job in reach if since <= job.due_tick <= row.tick]
        covering = [job for job in reach if job.due_tick < since and row.tick <= self._last_tick(job)]
        if not own and not covering:
            yield Fact("was due", "nothing.")
            yield Fact("why", self._why_none_booked(row))
        for job in own or covering[-1:]:
            yield from self._told("was due", job, row.tick)
        source = self._source(row)
        if source is not None and source not in own and source not in covering and source.worker != self.run.head:
            yield from self._told("instead", source, row.tick)

    def _of_the_head(self, row: TickRow) -> Iterator[Fact]:
        """What it had for this tick, and why it had nothing where it did not act."""
        head, job = self.run.head, next((job for job in self.of_head if job.due_tick == row.tick), None)
        if head < 0:
            return
        if job is not None:
            yield from self._told("head", job, row.tick)
            return
        before = [job for job in self.of_head if job.booked_tick < row.tick - 1]
        last = before[-1] if before else None
        reset, booking = self._reset_before(row.tick), self.run.row_of.get(row.tick - 1)
        at = f"not booked at tick {row.tick - 1}"
        if booking is None:
            why = f"{at}, which did not run."
        elif last is not None and last.write_ns > booking.start_ns:
            why = f"{at}: its job of tick {last.booked_tick} was still under way."
        elif last is not None and last.outcome is Outcome.DROPPED_DEAD_WORKER:
            why = f"{at}: it had died at work on tick {last.booked_tick}, and was not back."
        elif not any(reset <= job.frame_tick and 0 < job.write_ns < booking.start_ns for job in self.jobs):
            why = f"{at}: no worker had given it features of this episode yet."
        else:
            why = f"{at}: why is not known from the record."
        yield Fact("head", why)

    def _told(self, label: str, job: InferenceRow, tick: int) -> Iterator[Fact]:
        """A job, and what became of it, seen from `tick`."""
        yield Fact(label, self._booking(job), job.worker)
        if not job.write_ns:
            yield from self._unanswered(job)
            return
        at = job.due_tick if job.due_tick >= 0 else tick
        row = self.run.row_of.get(at)
        margin_ns = (row.start_ns if row is not None else self.run.deadline_ns(at)) - job.write_ns
        began = f"tick {at} {'began' if row is not None else 'was to begin (it did not run)'}"
        if job.outcome is Outcome.ABSTAINED:
            yield Fact("why", f"the policy gave no action this time; its answer was there at tick {job.resolved_tick}.")
        elif margin_ns >= 0:
            yield Fact("answer", f"there in time, {span(margin_ns)} before {began}.")
        else:
            yield Fact("answer", f"too late: {span(-margin_ns)} after {began}.")
            yield Fact("why", self._blame(job, -margin_ns))
        yield Fact("", self._in_words(job))
        yield from self._end(job, tick)

    def _booking(self, job: InferenceRow) -> str:
        text = f"an action of {self.run.who(job.worker)}, booked at tick {job.booked_tick}"
        if job.due_tick >= 0:
            last = self._last_tick(job) if job.worker != self.run.head else job.due_tick
            text += f" for ticks {job.due_tick} to {last}" if last > job.due_tick else f" for tick {job.due_tick}"
        if job.obs_tick >= 0 and job.obs_tick != job.booked_tick:
            return f"{text}; it used the newer frame of tick {job.obs_tick}."
        return f"{text} from the frame of tick {job.frame_tick}."

    def _unanswered(self, job: InferenceRow) -> Iterator[Fact]:
        at = job.resolved_tick
        if job.outcome is Outcome.UNFINISHED:
            yield Fact("answer", f"none: it was still under way when the run ended at tick {at}.")
            return
        lost = f"which was noticed at tick {at}; its inference was lost with it."
        who = self.run.who(job.worker)
        yield Fact("answer", f"none: {who} died, hung or was stopped, {lost}")
        later = (each for each in self._of_worker(job.worker) if each.booked_tick >= at and each is not job)
        if again := next(later, None):
            away = counted(again.booked_tick - at, "tick")
            yield Fact("then", f"{who} was restarted and booked again at tick {again.booked_tick}, {away} on.")
        else:
            yield Fact("then", f"{who} does not appear in the record again.")

    def _last_tick(self, job: InferenceRow) -> int:
        """That its chunk has an action for."""
        return (self._first_step_after(job.frame_tick) if self.from_frame else job.due_tick) + self.chunk - 1

    def _first_step_after(self, tick: int) -> int:
        """The tick of the first step after a frame: while the world is held on it, none is made."""
        later = self.run.ticks[bisect_right(self.numbers, tick) :]
        if not later or later[0].kind is not TickKind.LEAD_IN or later[0].source != "held":
            return tick + 1
        return next((row.tick for row in later if row.kind is not TickKind.LEAD_IN), later[-1].tick + 1)

    def _chunk_index(self, row: TickRow) -> int:
        """Files of before have no such column, and chunks that begin at the due tick."""
        return row.chunk_index if row.chunk_index >= 0 else row.tick - row.due_tick

    def _end(self, job: InferenceRow, tick: int) -> Iterator[Fact]:
        """How it ended; nothing of one that was in time."""
        at = job.resolved_tick
        where = f"tick {at}" if at != tick else "this tick"
        after = f"{counted(at - job.due_tick, 'tick')} after it was due."
        if at == tick and job.due_tick not in self.run.row_of:
            after = f"as tick {job.due_tick}, when it was due, did not run."
        text = {
            Outcome.LATE: f"late: applied at {where}, {after}",
            Outcome.STALE_EPISODE: f"stale episode: not used, its episode was over (found at tick {at}).",
            Outcome.DROPPED_LATE: f"dropped at tick {at}: it was late, and on-late is drop.",
            Outcome.UNFINISHED: f"unfinished: the run ended at tick {at} before its tick came.",
        }.get(job.outcome)
        if job.outcome is Outcome.FEATURES_USED:
            text = f"features used: its own action was not applied, but the head used its features{self._used_at(job)}."
        if job.outcome is Outcome.SUPERSEDED:
            text = f"superseded: not used, {self._superseded_by(job)}"
        if text is not None:
            yield Fact("outcome", text)

    def _used_at(self, job: InferenceRow) -> str:
        """At which ticks the head used its features; "" if no row says so."""
        whose = (job.worker, job.frame_tick)
        used = [row.tick for row in self.run.ticks if (row.features_worker, row.features_tick) == whose]
        if len(used) == 1:
            return f" at tick {used[0]}"
        return f" at {len(used)} ticks from {used[0]} to {used[-1]}" if used else ""

    def _superseded_by(self, job: InferenceRow) -> str:
        upto = self.run.ticks[: bisect_right(self.numbers, job.resolved_tick)]
        newer = next((row for row in reversed(upto) if row.obs_tick > job.frame_tick), None)
        if newer is None:
            return "an action from a newer frame took its place."
        return (
            f"as {self.run.who(newer.worker)}'s action from the newer frame of tick {newer.obs_tick} (its own: tick "
            f"{job.frame_tick}) was applied at tick {newer.tick}."
        )

    # -- without due ticks ---------------------------------------------------------------------------------

    def _ready(self, row: TickRow) -> Iterator[Fact]:
        """Other staggers: an action is applied at the first tick after it is ready."""
        yield Fact("was due", f"with {self.stagger}, an action counts from the first tick after it is ready.")
        if row.kind is TickKind.ACTED:
            if (source := self._source(row)) is not None and source.worker != self.run.head:
                yield from self._told("ready", source, row.tick)
            return
        before = self._row_before(row.tick)
        before_ns = before.start_ns if before is not None else 0
        arrived = [job for job in self.jobs if before_ns < job.write_ns <= row.start_ns]
        for job in arrived:
            yield Fact("arrived", self._booking(job))
            yield from self._end(job, row.tick)
        if not arrived:
            since = before.tick if before is not None else row.tick
            yield Fact("ready", f"nothing: no answer came since tick {since}.")
        yield from self._under_way(row)

    def _under_way(self, row: TickRow) -> Iterator[Fact]:
        busy, down = self._busy(row.tick), self._down(row.tick)
        if down:
            who, was = ("worker", "was") if len(down) == 1 else ("workers", "were")
            yield Fact("down", f"{who} {_listed(sorted(down))} had died and {was} not back.")
        if not busy:
            yield Fact("at work", "nobody: no inference was under way.")
            return
        places = "one at a time" if self.stagger == "sequential" else f"{len(busy)} of {self.run.num_workers} workers"
        yield Fact("at work", f"{places}: {_since(busy)}.")
        job = min((job for job in busy if job.write_ns), key=lambda job: job.write_ns, default=None)
        if job is None:
            yield Fact("next", "none of them ever answered.")
            return
        late_ns = job.write_ns - row.start_ns
        text = f"{self._booking(job)} Its answer came {span(late_ns)} after this tick began."
        yield Fact("next", text, job.worker)
        yield Fact("why", self._blame(job, late_ns))
        yield Fact("", self._in_words(job))
        yield from self._end(job, row.tick)

    # -- what was applied ----------------------------------------------------------------------------------

    def _applied(self, row: TickRow) -> Fact:
        action = f"action {row.applied_action}" if row.applied_action else "no action"
        if row.kind is TickKind.ACTED:
            age = counted(row.tick - row.obs_tick, "tick")
            text = f"{action} of {self.run.who(row.worker)}, from the frame of tick {row.obs_tick}, {age} old"
            if row.features_tick >= 0:
                text += f", with worker {row.features_worker}'s features of the frame of tick {row.features_tick}, "
                text += f"{counted(row.tick - row.features_tick, 'tick')} old"
                before = self._row_before(row.tick)
                if before is not None and (before.worker, before.obs_tick) == (row.worker, row.obs_tick):
                    text += ": once more, as its next answer was not there"
            elif self.run.head >= 0:
                text += ": a base action, as the head's was not there"
            if row.state_tick >= 0:
                text += f", with a carried state that had seen the frames up to tick {row.state_tick}"
            if self.chunk > 1 and row.tick > row.due_tick and row.worker != self.run.head:
                text += f" (number {self._chunk_index(row) + 1} of its {self.chunk} actions)"
            return Fact("applied", f"{text}.")
        if row.source == "held":
            return Fact("applied", "nothing: the world was held on its frame, or reset.")
        return Fact("applied", f"{action} of no worker: the stand-in for a missing action (on-missing {row.source}).")

    def _source(self, row: TickRow) -> InferenceRow | None:
        """The job whose action was applied."""
        if row.kind is not TickKind.ACTED:
            return None
        return next((job for job in self._of_worker(row.worker) if job.obs_tick == row.obs_tick), None)

    def _of_worker(self, worker: int) -> list[InferenceRow]:
        return self.of_head if worker == self.run.head else [job for job in self.jobs if job.worker == worker]

    def _reset_before(self, tick: int) -> int:
        """The last reset up to `tick`; -1: none."""
        upto = self.run.ticks[: bisect_right(self.numbers, tick)]
        return next((row.tick for row in reversed(upto) if row.kind is TickKind.RESET), -1)

    # -- the stages of an answer: how long each took, and which was slow -----------------------------------

    def _stages(self, job: InferenceRow) -> dict[str, tuple[int, float]]:
        """(took, usually) by stage, from the deadline of the frame's tick to the answer [ns]."""
        usual = self._usual_of_head if job.worker == self.run.head else self._usual
        return {name: (took_ns, usual[name]) for name, took_ns in _stages_of(self.run, job).items()}

    @cached_property
    def _usual(self) -> dict[str, float]:
        return self._medians(self.jobs)

    @cached_property
    def _usual_of_head(self) -> dict[str, float]:
        return self._medians(self.of_head)

    def _medians(self, jobs: list[InferenceRow]) -> dict[str, float]:
        """The median of each stage over the run."""
        taken = [stages for job in jobs if (stages := _stages_of(self.run, job))]
        return {name: round(median(stages[name] for stages in taken)) if taken else 0.0 for name in _REASONS}

    def _blame(self, job: InferenceRow, late_ns: float) -> str:
        """Which stage made an answer late by `late_ns`."""
        stages = self._stages(job)
        if not stages:
            return f"not known: the row of tick {job.frame_tick}, whose frame it used, is not in the record."
        excess_ns = {name: took_ns - usual_ns for name, (took_ns, usual_ns) in stages.items()}
        worst = max(excess_ns, key=excess_ns.__getitem__)
        # Without a due tick nothing promises an answer by now: slow is only what would have been there otherwise.
        slow_ns = max(_SLOW_NS, late_ns / 4 if job.due_tick >= 0 else late_ns)
        said = {name: f"{span(took_ns)}, usually {span(usual_ns)}." for name, (took_ns, usual_ns) in stages.items()}
        if excess_ns[worst] < slow_ns:
            text = (
                f"every part took about its usual time, {span(sum(took_ns for took_ns, _ in stages.values()))} in all"
            )
            if job.due_tick < 0:
                return f"{text}: an inference takes longer than the ticks there were since it was booked."
            return f"{text}: the delay of {job.due_tick - job.booked_tick} ticks is too short for this policy here."
        text = f"{_REASONS[worst]}: {said[worst]}"
        if worst == "wake-up and copy":
            woke_ns = job.start_ns - self.run.row_of[job.frame_tick].publish_ns
            awake = f" It was awake when the frame came, {span(job.read_ns - job.start_ns)} before it had it."
            text += f" It woke {span(woke_ns)} after the frame was there." if woke_ns > _SLOW_NS else awake
        others = (name for name in stages if name != worst and excess_ns[name] >= slow_ns)
        return text + "".join(f" Also {name}: {said[name]}" for name in others)

    def _in_words(self, job: InferenceRow) -> str:
        stages = self._stages(job)
        if not stages:
            took, usual = span(job.infer_end_ns - job.read_ns), span(self._usual["inference"])
            return f"Inference took {took}, usually {usual}; of the rest the record has no rows."
        parts = ", ".join(f"{name} {span(took_ns)} ({span(usual_ns)})" for name, (took_ns, usual_ns) in stages.items())
        return f"Its way from the deadline of tick {job.frame_tick}, usual times in brackets: {parts}."

    # -- who was booked when -------------------------------------------------------------------------------

    def _why_none_booked(self, row: TickRow) -> str:
        """Nothing was due at `row.tick` (max-time): look at the tick at which it would have been booked."""
        if row.kind is TickKind.MISSED:
            return "not known: the inference that was due has no row in jobs.csv; it is lost, or was never written."
        if not self.due_jobs:
            return "no inference was booked before it in the record."
        nearest = min(self.due_jobs, key=lambda job: abs(job.due_tick - row.tick))
        delay = nearest.due_tick - nearest.booked_tick
        start = row.tick - delay
        if start < self.run.ticks[0].tick:
            return f"its inference would have been booked at tick {start}, before the record begins."
        at = f"its inference would have been booked {counted(delay, 'tick')} before, at tick {start}"
        return f"{at}, which did not run." if start not in self.run.row_of else self._why_idle_at(start, at)

    def _why_idle_at(self, start: int, at: str) -> str:
        index = bisect_left(self.booked, start)
        if index < len(self.jobs) and self.booked[index] == start:
            return f"the delay changed: what was booked at tick {start} was for tick {self.jobs[index].due_tick}."
        busy, down = self._busy(start), self._down(start)
        idle = self.run.num_workers - len({job.worker for job in busy} | down)
        if self.run.num_workers and idle <= 0:
            return f"none booked: {at}, when no worker was idle{self._who_is_busy(busy, down)}."
        before, stride = [job.booked_tick for job in self.jobs[:index] if job.due_tick >= 0], self._stride(start)
        if before and start - before[-1] < stride:
            since = f"{start - before[-1]} after the one at {before[-1]}"
            return f"none planned: inferences start every {stride} ticks, and {at}, {since}."
        near = [job for job in self.jobs[max(0, index - 2) : index + 2] if job.due_tick >= 0]
        delays = sorted({job.due_tick - job.booked_tick for job in near})
        if len(delays) > 1:
            return (
                f"the delay was changed around tick {start} (between {_listed(delays)} ticks): {at} falls in between."
            )
        return f"not known from the record: {at}, when {idle} of {self.run.num_workers} workers seem to have been idle."

    def _who_is_busy(self, busy: list[InferenceRow], down: set[int]) -> str:
        since = ", ".join(f"worker {job.worker} since tick {job.booked_tick}" for job in busy[:3])
        text = f" ({since}{', ...' if len(busy) > 3 else ''})" if busy else ""
        usual_ns = self._usual["inference"]
        took_ns = {job.worker: job.infer_end_ns - job.read_ns for job in busy if job.write_ns}
        slowest = max(took_ns, key=took_ns.__getitem__, default=None)
        if slowest is not None and took_ns[slowest] > usual_ns + self.run.period_ns:
            text += f"; worker {slowest} was slow ({span(took_ns[slowest])}, usually {span(usual_ns)})"
        if down:
            text += f"; down: worker{'s' if len(down) > 1 else ''} {_listed(sorted(down))}"
        return text

    def _busy(self, tick: int) -> list[InferenceRow]:
        """Jobs under way when workers were booked at `tick`: booked before, and their answer not there yet."""
        row = self.run.row_of.get(tick)
        now_ns = row.start_ns if row is not None else self.run.deadline_ns(tick)
        before = self.jobs[: bisect_left(self.booked, tick)]
        return [job for job in before if (job.write_ns > now_ns if job.write_ns else _still_out(job, tick))]

    def _down(self, tick: int) -> set[int]:
        """Workers that had died by `tick` and were not booked again yet."""
        newest = {job.worker: job for job in self.jobs[: bisect_right(self.booked, tick)]}
        dead = Outcome.DROPPED_DEAD_WORKER
        return {worker for worker, job in newest.items() if job.outcome is dead and job.resolved_tick <= tick}

    def _stride(self, tick: int) -> int:
        """Ticks between two starts: as most often near `tick`, else as planned."""
        index = bisect_left(self.booked, tick)
        gaps = sorted(b - a for a, b in pairwise(self.booked[max(0, index - 16) : index + 16]) if b > a)
        return int(gaps[len(gaps) // 2]) if gaps else int(number_at(self.run.summary, "plan", "stride_ticks") or 1)


def _stages_of(run: RunFolder, job: InferenceRow) -> dict[str, int]:
    """How long each stage of an answer took [ns]: they sum up to write - deadline. {} without the frame's row."""
    row = run.row_of.get(job.frame_tick)
    if row is None or not job.write_ns:
        return {}
    times_ns = (row.deadline_ns, row.start_ns, row.publish_ns, job.read_ns, job.infer_end_ns, job.write_ns)
    return {name: after - before for name, (before, after) in zip(_REASONS, pairwise(times_ns), strict=True)}


def _still_out(job: InferenceRow, tick: int) -> bool:
    """Whether a job that was never answered was still waited for at `tick`."""
    return job.resolved_tick > tick or (job.outcome is Outcome.UNFINISHED and job.resolved_tick == tick)


def span(ns: float) -> str:
    """A duration for people."""
    if abs(ns) < NS_PER_MS:
        return f"{ns / NS_PER_US:.0f} us"
    return f"{ns / NS_PER_MS:.1f} ms" if abs(ns) < NS_PER_S else f"{ns / NS_PER_S:.2f} s"


def _listed(values: Iterable[object]) -> str:
    texts = [str(value) for value in values]
    text = ", ".join(texts[:_MOST_LISTED])
    return f"{text} and {len(texts) - _MOST_LISTED} more" if len(texts) > _MOST_LISTED else text


def _since(jobs: list[InferenceRow]) -> str:
    return _listed(f"w{job.worker} since tick {job.booked_tick}" for job in jobs)


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
        {"tick": tick, "kind": key_of(present[tick].kind) if tick in present else "skipped", "cause": causes[tick]}
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
    settings: dict[str, Any] = {"stagger": plan.stagger, "chunk": plan.chunk, "chunk_from": plan.chunk_from}
    settings |= {"workers": plan.workers, "clock": stats.clock}
    summary: dict[str, Any] = {
        "ticks": {"ideal_hz": float(stats.rate_hz)},
        "plan": {"workers": plan.workers, "stride_ticks": stats.stride_ticks or plan.stride_ticks},
    }
    ticks, jobs = [TickRow.of(header) for header in stretch.ticks], [InferenceRow.of(job) for job in stretch.jobs]
    if stats.head is not None:
        summary["head"] = {"index": stats.head.index}
    return RunFolder(Path(), {"config": settings}, summary, ticks, jobs)
