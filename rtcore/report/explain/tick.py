"""One tick of a finished run in words: what was due, who was late and why, what was applied instead. Pure.

Everything is told from the rows of actions.csv and jobs.csv; what the rows do not say is called unknown. Times
between processes are good to some tens of microseconds: the record leaves out how long collecting answers took.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from functools import cached_property
from statistics import median
from typing import NamedTuple

from rtcore.clock import NS_PER_S, NS_PER_US
from rtcore.errors import ConfigError
from rtcore.report.explain.bookings import MOST_LISTED, Bookings, in_ticks, listed
from rtcore.report.explain.stages import Ways, span
from rtcore.report.table import TICK_KIND_MEANING
from rtcore.results.folder import ACTIONS, InferenceRow, RunFolder, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind

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
        self.ways = Ways(run)
        self.bookings = Bookings(run, self.ways)
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
            yield Fact("why", self.ways.blame(job, -margin_ns))
        yield Fact("", self.ways.in_words(job))
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
        yield Fact("why", self.ways.blame(job, late_ns))
        yield Fact("", self.ways.in_words(job))
        yield from self._end(job, row.tick)

    # -- what was applied ----------------------------------------------------------------------------------

    def _applied(self, row: TickRow) -> Iterable[Fact]:
        action = f"action {row.action}" if row.action else "no action"
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
