"""Who was booked when: who was busy or gone at a tick, and why no inference was booked for one. Pure."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from itertools import pairwise

from rtcore.report.explain.stages import Ways, span
from rtcore.results.folder import RunFolder, number_at
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind

MOST_LISTED = 12


class Bookings:
    """The bookings of a run. `jobs`: in the order in which they were booked."""

    def __init__(self, run: RunFolder, ways: Ways) -> None:
        self._run = run
        self._ways = ways
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
        usual = self._ways.usual["inference"]
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
