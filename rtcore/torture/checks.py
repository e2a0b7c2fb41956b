"""What rtcore promises of every run, one class for each promise; its name is what a broken one is called.

They look at what the run's own objects say to each other, and keep their own books of it: none of them asks the object
that it judges. `SAFETY` holds at every tick, whatever happens. `LIVENESS` is what has to come back once the faults are
over; it is judged against the same run without faults, which is played where the verdict may depend on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from rtcore.errors import PolicyError, PolicyHung, RtcoreError, WorkerDied
from rtcore.loop.tick import Tick
from rtcore.memory.layout import FrameHeader
from rtcore.results.agreement import check_books
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Decision, Known, Outcome, Source, TickKind
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.spaces.payload import WORD_AT
from rtcore.torture.decisions import oracle
from rtcore.torture.machine import Worker
from rtcore.torture.simulation import ACTION, GAMMA, Check, Row, Simulation, Violation

_ACTED = TickKind.ACTED


class ActionsAreOfTheirEpisode(Check):
    """No action of another episode is applied, and the ticks of the observations never fall within one."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.episode, self.first_tick, self.newest = 0, 0, {False: -1, True: -1}

    def tick(self, tick: Tick, row: Row) -> None:
        header = row.header
        if header.kind == TickKind.RESET:
            self.episode += self.first_tick > 0 or header.frame_seq > 0
            self.first_tick, self.newest = header.tick, {False: -1, True: -1}
        if header.episode != self.episode:
            self.broken(f"the tick is of episode {header.episode}, the world is in {self.episode}")
        if header.kind != _ACTED:
            return
        if not self.first_tick <= header.obs_tick < header.tick:
            self.broken(f"acts on tick {header.obs_tick}; the episode began at {self.first_tick}")
        if 0 <= header.features_tick < self.first_tick:
            self.broken(f"acts on features of tick {header.features_tick}; the episode began at {self.first_tick}")
        of_head = header.worker == self.run.head
        if header.obs_tick < self.newest[of_head]:
            self.broken(f"acts on tick {header.obs_tick}, after {self.newest[of_head]}")
        self.newest[of_head] = header.obs_tick


class OnTimeIsTheDelay(Check):
    """An on-time action under max-time is exactly as old as the delay was when it was booked; due ticks only rise.

    Younger is one whose worker came to read when the ring, shorter than the delay, had lost its frame already.
    """

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.is_max_time = run.scenario.settings["stagger"] == "max-time"
        #: By due tick: the delay, and the number of the frame.
        self.booked_as: dict[int, tuple[int, int]] = {}
        self.frame_of: dict[int, int] = {}
        self.delay, self.last_due = run.schedule.delay_ticks, -1

    def booked(self, job: Job) -> None:
        if not self.is_max_time or job.worker == self.run.head:
            return
        if job.due_tick <= self.last_due:
            self.broken(f"a job is due at {job.due_tick}, as or before the last one ({self.last_due})")
        if job.due_tick - job.obs_tick != self.delay:
            self.broken(f"a job is due {job.due_tick - job.obs_tick} ticks after its frame, the delay is {self.delay}")
        self.last_due, self.booked_as[job.due_tick] = job.due_tick, (self.delay, job.frame_seq)

    def tick(self, tick: Tick, row: Row) -> None:
        header, offer = row.header, tick.decision.offer
        self.frame_of[header.tick] = header.frame_seq
        is_on_time = offer is not None and header.outcome == Outcome.ON_TIME and tick.decision.first_use
        if self.is_max_time and is_on_time and header.worker != self.run.head:
            delay, frame = self.booked_as.pop(header.due_tick, (-1, -1))
            age, frames_on = header.tick - header.obs_tick, self.frame_of[header.obs_tick] - frame
            was_lapped = age < delay and frames_on >= self.run.scenario.settings["ring_slots"] - 1
            if age != delay and not was_lapped:
                self.broken(f"an on-time action is {age} ticks old; its delay was {delay}")
        # `adapt` comes after this: the next tick books with what it says then.

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        self.delay = self.run.schedule.delay_ticks


class EveryJobHasOneEnd(Check):
    """Each job ends in exactly one outcome; the sums agree with every counter, and with the rows on their way."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.open: dict[tuple[int, int], Job] = {}
        self.outcomes: Counter[int] = Counter()
        self.num_booked = 0

    def booked(self, job: Job) -> None:
        self.open[job.worker, job.obs_tick] = job
        self.num_booked += 1

    def ended(self, row: JobRow) -> None:
        self.outcomes[row.outcome] += 1
        if self.open.pop((row.worker, row.booked_tick), None) is None:
            self.broken(f"the job of worker {row.worker} of tick {row.booked_tick} ends, and is not open")

    def end(self, run: Simulation) -> None:
        counters = run.shared.env_counters.to_dict()
        counted = {outcome: counters[OUTCOME_COUNTERS[outcome]] for outcome in Outcome}
        own = {outcome: self.outcomes[outcome] for outcome in Outcome}
        if (
            self.open
            or counted != own
            or counters["jobs"] != self.num_booked
            or run.dispatcher.outcomes != list(own.values())
        ):
            raise Violation(
                type(self).__name__, f"open {self.open}, counted {counted}, seen {own}, {self.num_booked} booked"
            )
        lost = {"lost_ticks": run.record.lost_ticks, "lost_jobs": run.record.lost_jobs}
        books = check_books(counters, run.record.rows, lost, {}, broke_off=False)
        if books["ticks"]["difference"] or books["jobs"]["difference"] or "without_end" in books["jobs"]:
            raise Violation(type(self).__name__, f"books: {books}")


class EveryTickHasOneKind(Check):
    """Each tick is run once, in order, is of one kind, and the world was asked for what that kind means."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.kinds: Counter[int] = Counter()
        self.last_tick, self.skipped, self.holds = -1, 0, run.scenario.settings["on_reset"] == "hold"
        self.skips = run.scenario.settings["overrun"] == "skip"

    def tick(self, tick: Tick, row: Row) -> None:
        header, world = row.header, self.run.world
        self.kinds[header.kind] += 1
        if header.tick != self.last_tick + 1 + header.skipped_ticks or header.skipped_ticks < 0:
            self.broken(f"tick {header.tick} follows {self.last_tick}, with {header.skipped_ticks} skipped")
        if header.skipped_ticks and not self.skips:
            self.broken("a tick was skipped where the grid moves")
        self.last_tick, self.skipped = header.tick, self.skipped + header.skipped_ticks
        if header.start_ns < header.deadline_ns:
            self.broken("the tick began before its deadline")
        stands = header.kind == TickKind.LEAD_IN and self.holds
        call = "reset" if header.kind == TickKind.RESET else "hold" if stands else "step"
        if world.last_call != call or (header.kind == _ACTED) != (header.source == Source.POLICY):
            self.broken(f"{TickKind(header.kind).name}: the world was asked for {world.last_call}, by {header.source}")
        if (header.kind == _ACTED) != (tick.decision.offer is not None) or (header.kind == _ACTED) != (
            header.worker >= 0
        ):
            self.broken(f"{TickKind(header.kind).name} with worker {header.worker}")
        if call == "step" and row.action != world.encode(world.last_given):
            self.broken(f"the record has {row.action!r}, the world was given {world.last_given}")

    def end(self, run: Simulation) -> None:
        counters = run.shared.env_counters.to_dict()
        counted = {kind: counters[KIND_COUNTERS[kind]] for kind in TickKind}
        own = {kind: self.kinds[kind] for kind in TickKind}
        if counted != own or counters["ticks"] != sum(own.values()) or counters["skipped_ticks"] != self.skipped:
            raise Violation(type(self).__name__, f"counted {counted}, seen {own}, skipped {self.skipped}")


class TheNewestDueActs(Check):
    """At each tick, of all actions due by then, the one with the newest observation acts: a second dispatcher.

    It keeps every answer of the episode, and looks at all of them at every tick. Not for a head, whose own rule is
    another.
    """

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        config = run.scenario.run.config
        self.chunk, self.drops = config.agent.chunk, config.schedule.on_late == "drop"
        self.from_frame, self.holds = config.agent.chunk_from == "frame", config.world.on_reset == "hold"
        self.known: list[
            list[Any]
        ] = []  # [obs_tick, due_tick, order, first_tick, answer, the tick it could act first at]
        self.over_due: list[tuple[int, int]] = []
        self.lead_in_until: int | None = None
        self.first_step = -1
        self.has_acted = False
        self.order = 0
        self.last_tick = -1
        self.pending: list[tuple[Job, Answer]] = []
        self.to_come: list[Job] = []

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        self.pending += found

    def booked(self, job: Job) -> None:
        self.to_come.append(job)

    def _expect(self, job: Job) -> None:
        if self.lead_in_until is None:
            self.lead_in_until = job.due_tick
        if job.hold:
            first = self._first(job, job.obs_tick, job.due_tick)
            self.over_due.append((job.due_tick, first + self.chunk - 1))

    def _first(self, job: Job, obs_tick: int, due_tick: int) -> int:
        if not self.from_frame:
            return due_tick
        if not self.holds:
            return obs_tick + 1
        if self.first_step >= 0:
            return max(obs_tick + 1, self.first_step)
        return min(due_tick, max(obs_tick + 1, self.lead_in_until or 0))

    def tick(self, tick: Tick, row: Row) -> None:
        if self.run.head >= 0:
            return
        self._judge(tick.plan.tick, tick.decision)
        for job in self.to_come:  # after the decision of their tick
            self._expect(job)
        self.to_come = []

    def _judge(self, number: int, decision: Decision) -> None:
        for job, answer in self.pending:
            self._take(job, answer, number)
        self.pending = []
        if decision.kind is TickKind.RESET:
            self.known, self.over_due, self.lead_in_until = [], [], None
            self.first_step, self.has_acted, self.last_tick = -1, False, number
            return
        best = self._best(number)
        expected = None
        if best is not None:
            is_new = best[5] == number
            if number < best[3] + self.chunk or is_new:
                expected = best[4]
        got = decision.offer.answer if decision.offer is not None else None
        if got is not expected:
            self.broken(f"{_name(got)} acts; of those due by now the newest is {_name(expected)}")
        elif (
            best is not None and expected is not None and decision.chunk_index != min(number - best[3], self.chunk - 1)
        ):
            self.broken(f"action {decision.chunk_index} of a chunk that begins at {best[3]}")
        self._check_kind(number, decision.kind, acts=expected is not None)

    def _take(self, job: Job, answer: Answer, number: int) -> None:
        due_tick = job.due_tick if job.hold else number
        if answer.abstained:
            if job.due_tick > self.last_tick:
                self.over_due = [span for span in self.over_due if not job.hold or span[0] != job.due_tick]
        elif answer.episode == self.run.dispatcher.episode:
            self.order += 1
            self.known.append(
                [answer.obs_tick, due_tick, -self.order, self._first(job, answer.obs_tick, due_tick), answer, -1]
            )

    def _best(self, number: int) -> list[Any] | None:
        best: list[Any] | None = None
        for one in self.known:
            if one[1] > number:
                continue
            if one[5] == -1:
                one[5] = number  # from now on it may act
                if self.drops and number >= one[3] + self.chunk:
                    one[5] = -2
            if one[5] >= 0 and (best is None or one[:3] > best[:3]):
                best = one
        if best is not None and best[5] != number and number >= best[3] + self.chunk:
            # Its chunk is over: what comes only now and saw the same frame acts, for once.
            late = [one for one in self.known if one[5] == number and one[0] == best[0]]
            best = max(late, key=lambda one: one[:3], default=best)
        if best is not None and len(self.known) > 8:
            self.known = [one for one in self.known if one[1] > number or one is best]
        return best

    def _check_kind(self, number: int, kind: TickKind, *, acts: bool) -> None:
        if acts:
            expected = _ACTED
        elif not self.has_acted and (self.lead_in_until is None or number < self.lead_in_until):
            expected = TickKind.LEAD_IN
        else:
            covered = any(due <= number <= last for due, last in self.over_due)
            just_due = any(self.last_tick < due <= number for due, _ in self.over_due)
            expected = TickKind.MISSED if covered or just_due else TickKind.IDLE
        if kind is not expected:
            self.broken(f"the tick counts as {kind.name}, not as {expected.name}")
        if expected is not TickKind.LEAD_IN and self.first_step < 0:
            self.first_step = number
        self.has_acted |= acts
        self.last_tick = number
        if len(self.over_due) > 64:
            self.over_due = [span for span in self.over_due if span[1] >= number]


class OneViewOfJobs(Check):
    """Schedule, dispatcher, slots and these books agree on which jobs are out: none is forgotten, none waits on."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.out: dict[int, Job] = {}
        self.up = dict.fromkeys(run.processes, True)

    def booked(self, job: Job) -> None:
        if job.worker in self.out:
            self.broken(f"worker {job.worker} gets a job and has one")
        if not self.up.get(job.worker):
            self.broken(f"worker {job.worker} gets a job and is gone")
        self.out[job.worker] = job

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        for job, answer in found:
            mine = self.out.pop(job.worker, None)
            if mine is None or (mine.job_seq, answer.job_seq) != (job.job_seq, job.job_seq):
                self.broken(f"an answer of worker {job.worker} was taken for {job}; it was given {mine}")

    def membership(self, worker: int, up: bool) -> None:
        self.up[worker] = up
        if not up:
            self.out.pop(worker, None)

    def tick(self, tick: Tick, row: Row) -> None:
        run, out = self.run, self.out.keys()
        trunk = out - {run.head}
        views = (run.workers.waiting.keys(), run.dispatcher._jobs.keys(), run.schedule._busy.keys())
        if views[0] != out or views[1] != out or views[2] != trunk:
            self.broken(f"out are {sorted(out)}; slots, dispatcher, schedule: {[sorted(view) for view in views]}")


class TheSlowAreSetAside(Check):
    """Who is up and not overdue is in the rotation, and nobody else; and nobody idle is left without a job."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.out: dict[int, Job] = {}
        self.up = set(range(run.num_workers))
        self.aside: set[int] = set()
        self.last_start, self.last_due = -1, -1
        self.stride = run.schedule.stride_ticks
        self.stagger = run.scenario.settings["stagger"]

    def booked(self, job: Job) -> None:
        if job.worker != self.run.head:
            self.out[job.worker] = job
            self.last_start, self.last_due = job.obs_tick, job.due_tick

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        for job, _ in found:
            self.out.pop(job.worker, None)
            self.aside.discard(job.worker)

    def membership(self, worker: int, up: bool) -> None:
        if worker == self.run.head:
            return
        self.aside.discard(worker)
        if up:
            self.up.add(worker)
        else:
            self.up.discard(worker)
            self.out.pop(worker, None)

    def tick(self, tick: Tick, row: Row) -> None:
        schedule, number = self.run.schedule, row.header.tick
        limit = 4 * schedule.delay_ticks + 8
        self.aside |= {worker for worker, job in self.out.items() if number - job.obs_tick > limit}
        rotation = self.up - self.aside
        if schedule.num_up != len(rotation):
            self.broken(f"{schedule.num_up} workers are in the rotation; up and not overdue are {sorted(rotation)}")
        idle = rotation - self.out.keys()
        if not idle or self.last_start == number:
            return
        if self.stagger == "free-running":
            self.broken(f"workers {sorted(idle)} are idle")
        elif self.stagger == "sequential":
            if not self.out.keys() - self.aside:
                self.broken(f"workers {sorted(idle)} are idle, nobody computes")
        elif number >= self.last_start + schedule.stride_ticks and number + schedule.delay_ticks > self.last_due:
            self.broken(f"nobody starts; {sorted(idle)} are idle, the last start was at {self.last_start}")


class ActionsAreWhatWorkersWrote(Check):
    """What is applied is what its worker wrote for that tick, with a version and checksum that were published."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.written_at: dict[tuple[int, int, int], Answer] = {}
        self.most_kept = 4096

    def written(self, job: Job, answer: Answer) -> None:
        self.written_at[job.worker, answer.obs_tick, job.due_tick] = answer

    def tick(self, tick: Tick, row: Row) -> None:
        header, offer = row.header, tick.decision.offer
        if offer is None:
            return
        answer = self.written_at.get((header.worker, header.obs_tick, offer.job.due_tick))
        if answer is None or answer != offer.answer:
            self.broken(f"worker {header.worker} wrote {answer}; {offer.answer} acts")
            return
        at = 8 * header.chunk_index
        if row.action != answer.actions[at : at + 8]:
            self.broken(f"{row.action!r} was applied of {answer.actions!r} at place {header.chunk_index}")
        if self.run.published.get(header.policy_version) != header.policy_checksum:
            self.broken(
                f"version {header.policy_version} with checksum {header.policy_checksum:08x} was never published"
            )
        if answer.write_ns > tick.collected_ns:
            self.broken("it acts before it was written")
        if len(self.written_at) > self.most_kept:
            self.written_at = {key: one for key, one in self.written_at.items() if key[1] > header.tick - 1024}
            self.most_kept = 4096 + len(self.written_at)  # not again at every tick


class ContextsAreTrue(Check):
    """A job is told the state and the features of the newest answer of its episode, and of the coming ticks what comes
    true: what it is told as a fact is applied, and while the world is held none acts.
    """

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.block = run.needs.context(ACTION)
        self.is_max_time = run.scenario.settings["stagger"] == "max-time"
        self.payload, self.newest, self.episode = b"", -1, -1
        self.found: list[tuple[Job, Answer]] = []
        self.to_come: list[Job] = []
        self.told: list[tuple[int, list[int], list[int]]] = []  # frame's tick, actions of the ticks after it, how sure

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        self.found += found

    def booked(self, job: Job) -> None:
        self.to_come.append(job)

    def tick(self, tick: Tick, row: Row) -> None:
        if not self.block:
            return
        header = row.header
        for job, answer in self.found:
            is_of_trunk = job.worker != self.run.head and not answer.abstained and answer.episode == self.episode
            if is_of_trunk and answer.obs_tick > self.newest:
                self.newest, self.payload = answer.obs_tick, answer.payload
        self.found = []
        if header.kind == TickKind.RESET:
            self.newest, self.payload, self.episode, self.told = -1, b"", self.episode + 1, []
        offer = tick.decision.offer
        is_of_lapped = offer is not None and offer.job.hold and offer.answer.obs_tick != offer.job.obs_tick
        if header.skipped_ticks or is_of_lapped:
            self.told = []  # what was said holds as long as neither happens
        self._came_true(header, row.action)
        for job in self.to_come:
            self._look(job)
        self.to_come = []

    def _look(self, job: Job) -> None:
        context = self.block.views(job.context)
        words = context["words"]
        is_first = (words[WORD_AT["tick"]], words[WORD_AT["episode"]]) == (job.obs_tick, self.episode)
        if not is_first or words[WORD_AT["worker"]] != job.worker:
            self.broken(f"the context of {job.worker}'s job of tick {job.obs_tick} begins with {words.tolist()}")
        for name, at in (("state", "state_tick"), ("features", "features_tick")):
            if f"{name}.h" not in context or (name == "features" and job.worker != self.run.head):
                continue
            value = int.from_bytes(self.payload[-8:], "little")
            if words[WORD_AT[at]] != self.newest or context[f"{name}.h"] != value:
                self.broken(
                    f"{name} of tick {words[WORD_AT[at]]} ({context[name + '.h']}); expected {self.newest} ({value})"
                )
        if "committed" in context and self.is_max_time and self.run.head < 0:
            self.told.append((job.obs_tick, context["committed"].tolist(), context["committed_mask"].tolist()))

    def _came_true(self, header: FrameHeader, action: bytes) -> None:
        for base, actions, sure in self.told:
            at = header.tick - base - 1
            known = sure[at] if at < len(sure) else Known.UNKNOWN
            if known == Known.FACT and int.from_bytes(action, "little") != actions[at]:
                self.broken(
                    f"at tick {base} it was a fact that {actions[at]} acts; {int.from_bytes(action, 'little')} did"
                )
            if known == Known.HELD and header.kind != TickKind.LEAD_IN:
                self.broken(f"at tick {base} the tick was to be held; it is {TickKind(header.kind).name}")
        self.told = [one for one in self.told if header.tick - one[0] <= len(one[2])]


class TransitionsAreTheOracles(Check):
    """The transitions of a learner are what a slow oracle makes of the whole run; what it lost it has counted."""

    def end(self, run: Simulation) -> None:
        if not run.rows:
            return
        wanted = {one["tick"]: one for one in oracle(run.rows, GAMMA, True)}
        lapped = run.builder.counts.lost_ticks
        for made in run.builder.made:
            expected, got = wanted.pop(made.tick, None), made._asdict()
            different = ("expected none", got) if expected is None else _differences(expected, got, lapped=bool(lapped))
            if different:
                raise Violation(type(self).__name__, f"at tick {made.tick}: {different}")
        if wanted and not lapped:
            raise Violation(type(self).__name__, f"{len(wanted)} are missing: {list(wanted.values())[:2]}")
        counts = run.builder.counts
        open_ticks = run.builder._open.num_ticks if run.builder._open is not None else 0
        stepped = sum(row.header.kind != TickKind.RESET for row in run.rows)
        owned = sum(made.num_ticks for made in run.builder.made) + counts.unowned_ticks + open_ticks
        if (owned != stepped and not lapped) or counts.transitions != len(run.builder.made):
            raise Violation(type(self).__name__, f"{owned} ticks have an owner or none, of {stepped}: {counts}")


class NoFalseAlarm(Check):
    """Only a worker that really stood still for as long as a hang takes is killed; a run fails only when it may."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.limit_ns = run.scenario.run.config.faults.hang_timeout_s * 1e9

    def killed(self, worker: Worker) -> None:
        silent_ns = self.run.machine.running_ns - worker.since_ns
        # A sign of life that is given while the clock stands still may look like the one before.
        stood_ns = sum(fault.ticks for fault in self.run.scenario.faults if fault.kind == "clock stands still")
        if silent_ns < self.limit_ns - 1e6 - stood_ns * self.run.scenario.period_ns:
            self.broken(f"worker {worker.index} ({worker.state}) is killed after {silent_ns / 1e6:.1f} ms")

    def failed(self, error: RtcoreError) -> None:
        run = self.run
        allowed = run.scenario.run.config.faults.max_restarts
        if isinstance(error, WorkerDied | PolicyHung):
            if max((_deaths_in_a_row(work) for work in run.deaths.values()), default=0) <= allowed:
                self.broken(f"the run fails ({error}); its workers died so: {run.deaths}")
        elif not (isinstance(error, PolicyError) and not run.shared.env_counters["acted"]):
            self.broken(f"the run fails: {type(error).__name__}: {error}")


def _deaths_in_a_row(work: list[int]) -> int:
    longest = row = before = 0
    for done in work:
        row = 1 if done - before >= 10 else row + 1
        longest, before = max(longest, row), done
    return longest


class WhoDiesComesBack(Check):
    """A worker that died or hung is replaced, and is in the rotation again, within the time that this takes."""

    def begin(self, run: Simulation) -> None:
        super().begin(run)
        self.gone: dict[int, int] = {}
        self.looked_ns = 0

    def answers(self, found: Sequence[tuple[Job, Answer]]) -> None:
        self.looked_ns = self.run.machine.awake_ns  # who came and went is asked next; a step may take long then

    def membership(self, worker: int, up: bool) -> None:
        if up:
            self.gone.pop(worker, None)
        else:
            self.gone[worker] = self.run.machine.awake_ns

    def tick(self, tick: Tick, row: Row) -> None:
        run = self.run
        if not self.gone or run.error is not None:
            return
        settings, now_ns = run.scenario, self.looked_ns
        # From its last death on, or since a supervisor that was away is back.
        patience = 2 * (settings.restart_ticks + 2) * settings.period_ns + 400_000_000
        for worker, gone_ns in self.gone.items():
            since_ns = max(gone_ns, run.patience_from_ns, run.died_ns.get(worker, 0))
            if now_ns - since_ns > patience:
                self.broken(f"worker {worker} is gone since {(now_ns - since_ns) / 1e6:.0f} ms")


SAFETY: tuple[type[Check], ...] = (
    ActionsAreOfTheirEpisode,
    OnTimeIsTheDelay,
    EveryJobHasOneEnd,
    EveryTickHasOneKind,
    TheNewestDueActs,
    OneViewOfJobs,
    TheSlowAreSetAside,
    ActionsAreWhatWorkersWrote,
    ContextsAreTrue,
    TransitionsAreTheOracles,
    NoFalseAlarm,
    WhoDiesComesBack,
)


class ActsAgain:
    """Once the faults are over, actions come as they do in the same run without faults.

    An action on every tick within the delay, a stride and one inference; and on as large a share of the ticks.
    """

    def judge(self, run: Simulation, play_twin: Callable[[], Simulation]) -> None:
        stagger = run.scenario.settings["stagger"]
        if stagger == "sequential" and run.scenario.times.kind == "two kinds of workers":
            return  # who takes over from the one that died stays, and may be too slow for the chunk
        first, took = run.unsettled_tick + 1, _longest_ticks(run, run.unsettled_tick + 1)
        delay, stride = (max(pair[at] for pair in run.delays[-1 - len(run.rows) // 2 :]) for at in (0, 1))
        least = delay + stride + took
        if _longest_gap(run, first + least + 2) <= least and _lowest_share(run, first + least + 2) >= 0.9:
            return  # whatever the twin does: slower answers of it only allow more, and its share is 1 at most
        twin = play_twin()
        took = max(took, _longest_ticks(twin, first))
        first += delay + stride + took + 2
        first = _long_enough_since(run, first, twin.delays[-1][0])
        # A worker that has no action this time is followed by the next one, a stride later, which may have none either.
        starts = 1 + run.scenario.settings["workers"] * (run.scenario.abstains > 0)
        allowed = max(_longest_gap(twin, first), delay + starts * stride) + took
        gap = _longest_gap(run, first)
        if gap > allowed:
            raise Violation(type(self).__name__, f"no action for {gap} ticks after {first}, {allowed} are allowed")
        if stagger == "free-running":
            return  # nothing spaces its starts: after a fault all may start together, and act on fewer ticks
        # With another delay or stride, which a new worker's times call for until they are known, the share is another.
        first = max(first, _same_since(run), _same_since(twin))
        for one in (run, twin):
            if len(one.rows) < 200 + first or one.delays[-1] != twin.delays[-1]:
                return
        share, wanted = _share(run, first), _share(twin, first)
        # Workers that abstain in some turns may do so at once or one after the other: the share is lower or higher.
        abstain = run.scenario.abstains
        if share < wanted - 0.1 - (1 / abstain if abstain else 0):
            raise Violation(
                type(self).__name__, f"acts at {share:.3f} of the ticks after {first}, the twin at {wanted:.3f}"
            )


class TheDelayIsRegained:
    """Once the window of inference times holds none of the faults, the delay is what it would be without them, or what
    the planner would plan from the same times, or about as good: of such two either may stay.
    """

    def judge(self, run: Simulation, play_twin: Callable[[], Simulation]) -> None:
        first, window = run.unsettled_tick + 1, run.schedule.window.size
        answers = sum(took > 0 for row, took in zip(run.rows, run.longest_ns, strict=True) if row.header.tick >= first)
        if run.scenario.settings["tau_estimate"] != "quantile" or answers < 6 * window:
            return
        delay, times = run.delays[-1][0], run.schedule.times()
        planned = times.delay()
        if delay <= 2 or delay <= _about(planned):
            return  # one tick is the least that a twin has, and one more is allowed
        if times.worth(delay) >= (1 - 2 * run.schedule.ADAPT_TOLERANCE) * times.worth(planned):
            return
        twin = play_twin()
        without_faults = max(ticks for ticks, _ in twin.delays[len(twin.delays) // 2 :])
        if delay > _about(without_faults):
            raise Violation(
                type(self).__name__,
                f"the delay is {delay} ticks after {answers} answers; {without_faults} without faults, and the planner "
                f"would plan {planned}",
            )


class AStoppedRunEnds:
    """After the order to end there is one more tick at most, and each reset and step of the world is in the record."""

    def judge(self, run: Simulation, play_twin: Callable[[], Simulation]) -> None:
        scenario = run.scenario
        if scenario.stops_at and len(run.rows) > scenario.stops_at + 1:
            raise Violation(type(self).__name__, f"{len(run.rows)} ticks; it was stopped at {scenario.stops_at}")
        kinds = Counter(row.header.kind for row in run.rows)
        if kinds[TickKind.RESET] != run.world.resets or not run.rows:
            raise Violation(type(self).__name__, f"{run.world.resets} resets, {kinds[TickKind.RESET]} recorded")


LIVENESS = (ActsAgain, TheDelayIsRegained, AStoppedRunEnds)


def _about(delay_ticks: int) -> int:
    """The longest delay that counts as the same."""
    return delay_ticks + max(1, delay_ticks // 6)


def _longest_ticks(run: Simulation, first: int) -> int:
    """What an answer took at most, in ticks."""
    took = [ns for row, ns in zip(run.rows, run.longest_ns, strict=True) if row.header.tick >= first]
    return -(-max(took, default=0) // run.scenario.period_ns)


def _long_enough_since(run: Simulation, first: int, delay_ticks: int) -> int:
    """The tick since which the delay is not shorter than this; `first`, if that is later.

    One that is shorter has a window of answers, of which many are late, to become longer.
    """
    ticks = [row.header.tick for row in run.rows]
    short = [tick for tick, (delay, _) in zip(ticks, run.delays, strict=True) if tick >= first and delay < delay_ticks]
    if not short:
        return first
    answers = [tick for tick, ns in zip(ticks, run.longest_ns, strict=True) if tick >= first and ns]
    return min([short[-1] + 1, *answers[run.schedule.window.size :][:1]])


def _longest_gap(run: Simulation, first: int) -> int:
    """Ticks without an action in a row, from `first` on; a new episode begins anew."""
    longest = gap = 0
    for header, _ in run.rows:
        if header.tick < first:
            continue
        gap = 0 if header.kind in (_ACTED, TickKind.RESET) else gap + 1
        longest = max(longest, gap)
    return longest


def _share(run: Simulation, first: int) -> float:
    kinds = [header.kind for header, _ in run.rows if header.tick >= first]
    return kinds.count(_ACTED) / max(1, len(kinds) - kinds.count(TickKind.RESET))


def _same_since(run: Simulation) -> int:
    """The tick since which delay and stride are what they are at the end."""
    since = run.rows[-1].header.tick
    for row, delays in zip(reversed(run.rows), reversed(run.delays), strict=True):
        if delays != run.delays[-1]:
            break
        since = row.header.tick
    return since


def _lowest_share(run: Simulation, first: int) -> float:
    """The lowest of those from any tick on that is not before `first` and has 199 after it; 1 if there is none."""
    lowest, acted, counted = 1.0, 0, 0
    for place in range(len(run.rows) - 1, -1, -1):
        header = run.rows[place].header
        if header.tick < first:
            break
        acted, counted = acted + (header.kind == _ACTED), counted + (header.kind != TickKind.RESET)
        if place <= len(run.rows) - 200:
            lowest = min(lowest, acted / max(1, counted))
    return lowest


def _name(answer: Answer | None) -> str:
    return "nothing" if answer is None else f"the answer to tick {answer.obs_tick} for {answer.due_tick}"


def _differences(expected: dict[str, Any], got: dict[str, Any], *, lapped: bool) -> dict[str, Any]:
    """`lapped`: then the numbers of decisions, and the oldest frame, are known only from there on."""
    ignored = {"decision", "first_seq"} if lapped else set()
    if lapped and got["truncated"]:
        ignored |= {"next_obs_seq", "next_features_seq"}
    return {
        name: (value, got[name])
        for name, value in expected.items()
        if name not in ignored and (abs(value - got[name]) > 1e-9 if isinstance(value, float) else value != got[name])
    }
