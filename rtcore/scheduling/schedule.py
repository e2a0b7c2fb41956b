"""Which worker starts at which tick, and for which tick its action is due. Pure: no process, no clock, no torch.

The paper's two algorithms and two baselines (arXiv 2412.14355, algorithms 1 and 2), in whole ticks: frames
change only at ticks, so starting on a tick loses nothing against free timers, and the grid cannot drift.

`tau` is the time from the deadline of the tick a worker was booked at to its action in the slot: it includes
the world's step, publishing, waking and reading. All times are integer nanoseconds; all results are ticks.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, NamedTuple

from rtcore.scheduling.jobs import Job
from rtcore.scheduling.outlook import acted_shares

Stagger = Literal["max-time", "expected-time", "sequential", "free-running"]
STAGGERS: tuple[Stagger, ...] = ("max-time", "expected-time", "sequential", "free-running")
OnReset = Literal["hold", "run"]
TauEstimate = Literal["quantile", "ratchet"]
OnLate = Literal["apply", "drop"]
#: Which tick the first action of a chunk is for: the one that the answer is due at, or the first after its frame.
ChunkFrom = Literal["due", "frame"]

NS_PER_S = 1_000_000_000
#: The delay is made for one of these quantiles of the inference time: p99, unless that is a hiccup (above 1.5 medians +
#: 2 ms). Longer inferences come late and are counted; the schedule follows lasting changes during the run.
_PLANNED_QUANTILES = (0.99, 0.95, 0.9, 0.75, 0.5)
_HICCUP_FACTOR = 1.5
_HICCUP_NS = 2_000_000
#: Workers whose usual times differ by more than this factor count as unequal devices.
UNEQUAL_FACTOR = 1.5
#: A delay that is longer by one median inference time must bring this share of actions more, to be worth it.
_COST_OF_DELAY = 0.1
#: Value of a late action, where one in time is 1: it acts on an older frame than the delay says.
_WORTH_OF_LATE = 0.5
#: A trimmed mean leaves out 1 / this of the times at each end.
_TRIM = 8
#: Simulated jobs, where the times are known, but not their order.
_PLAYED_JOBS = 4_096


@dataclass(frozen=True)
class ScheduleParams:
    """What a schedule starts from.

    Args:
        stagger: How starts are spaced.
        rate_hz: The exact tick rate [Hz].
        delay_ticks: From a frame's tick to the tick that its action is for: of the planner, or of a user who knows tau.
        tau_mean_ns: The mean inference time [ns].
        guard_ns: Added to the inference time that the delay is made for [ns].
        tau_estimate: Whether the delay follows a quantile of the newest times, or the longest that ever was.
        adapt: Whether the delay follows lasting changes of the inference time.
        on_late: What becomes of an action that comes after its tick.
        chunk: Actions of one inference, one a tick.
        chunk_from: Which tick the first of them is for. From the frame on, the delay is never longer than the chunk.
        replan_every: The least ticks between two starts that are spaced; 0: as few as the workers allow.
    """

    stagger: Stagger
    rate_hz: Fraction
    delay_ticks: int
    tau_mean_ns: int
    guard_ns: int = 0
    tau_estimate: TauEstimate = "quantile"
    adapt: bool = True
    on_late: OnLate = "apply"
    chunk: int = 1
    chunk_from: ChunkFrom = "due"
    replan_every: int = 0


_new_tuple = tuple.__new__
#: What of a job is not a schedule's.
_NOT_POSTED = tuple(Job._field_defaults.values())


class TauWindow:
    """The last `size` inference times, in the order in which they came and sorted."""

    def __init__(self, size: int = 256) -> None:
        self.size = size
        self._recent: deque[int] = deque(maxlen=size)
        self._sorted: list[int] = []
        # Sorted in when they are asked for: that is seldom, and quicker for many than for each.
        self._came: list[int] = []
        self._gone: list[int] = []
        self.max_ns = 0

    def add(self, tau_ns: int) -> None:
        recent = self._recent
        if len(recent) == self.size:
            self._gone.append(recent[0])
        recent.append(tau_ns)
        self._came.append(tau_ns)
        if len(self._came) == self.size:  # nobody asks: they must not become more and more
            self._sort_in()
        if tau_ns > self.max_ns:  # noqa: PLR1730 - a call takes longer than the comparison
            self.max_ns = tau_ns

    def __len__(self) -> int:
        return len(self._recent)

    @property
    def ordered_ns(self) -> Sequence[int]:
        """All of it, ascending: a view, valid until it is asked for again."""
        if self._came:
            self._sort_in()
        return self._sorted

    @property
    def came_ns(self) -> Collection[int]:
        """All of it, in the order in which it came: a view, valid until the next `add`."""
        return self._recent

    def _sort_in(self) -> None:
        ordered = self._sorted
        ordered += self._came
        ordered.sort()
        for tau_ns in self._gone:
            del ordered[bisect_left(ordered, tau_ns)]
        self._came.clear()
        self._gone.clear()


def quantile_ns(ordered_ns: Sequence[int], q: float) -> int:
    """The value that a share `q` of the times, given in ascending order, does not exceed (0 of none)."""
    if not ordered_ns:
        return 0
    return ordered_ns[min(len(ordered_ns) - 1, int(q * len(ordered_ns)))]


def trimmed_mean_ns(ordered_ns: Sequence[int]) -> int:
    """The mean without the lowest and the highest eighth (0 of none): one stall, however long, does not move it."""
    cut = -(-len(ordered_ns) // _TRIM) if len(ordered_ns) > 2 else 0
    kept = ordered_ns[cut : len(ordered_ns) - cut]
    return sum(kept) // len(kept) if kept else 0


def planned_quantile(ordered_ns: Sequence[int]) -> float:
    """The quantile of the inference times that the delay is made for.

    A longer delay must bring enough more actions in time: so a usual tail is waited for, and rare hiccups are not.
    """
    median_ns = max(1, quantile_ns(ordered_ns, 0.5))
    if quantile_ns(ordered_ns, _PLANNED_QUANTILES[0]) <= _HICCUP_FACTOR * median_ns + _HICCUP_NS:
        return _PLANNED_QUANTILES[0]
    return max(_PLANNED_QUANTILES, key=lambda q: q / (1 + _COST_OF_DELAY * quantile_ns(ordered_ns, q) / median_ns))


def delay_for(tau_ns: int, rate_hz: Fraction, guard_ns: int = 0) -> int:
    """D = ceil((tau + guard) / T), at least 1: a frame made in tick k can govern tick k + 1 at the soonest."""
    num, den = NS_PER_S * rate_hz.denominator, rate_hz.numerator
    return max(1, -(-(tau_ns + guard_ns) * den // num))


def stride_for(stagger: Stagger, delay_ticks: int, num_workers: int, tau_mean_ns: int, rate_hz: Fraction) -> int:
    """Ticks between two starts. `num_workers` at least 1.

    max-time: max(1, ceil(D/N)). expected-time: max(1, ceil(mean/(N*T))). sequential: the delay itself, as one
    worker starts again when its action was applied. free-running has no stride: 1.
    """
    if stagger == "max-time":
        return max(1, -(-delay_ticks // num_workers))
    if stagger == "expected-time":
        num, den = NS_PER_S * rate_hz.denominator * num_workers, rate_hz.numerator
        return max(1, -(-tau_mean_ns * den // num))
    return delay_for(tau_mean_ns, rate_hz) if stagger == "sequential" else 1


class Fit(NamedTuple):
    """The schedule that a set of inference times leads to, with a given number of workers."""

    delay_ticks: int
    stride_ticks: int
    on_time_fraction: float  #: share of ticks with an action that arrived by its due tick
    late_fraction: float  #: share of ticks with an action that arrived later

    @property
    def acted_fraction(self) -> float:
        """Expected share of ticks with an action."""
        return self.on_time_fraction + self.late_fraction


class Times:
    """Turns inference times into a delay and a stride. Nothing else does.

    The planner uses it for the times of a rehearsal, the schedule for its window: they cannot disagree.
    """

    def __init__(
        self,
        stagger: Stagger,
        ordered_ns: Sequence[int],
        usual_ns: Collection[int],
        num_workers: int,
        rate_hz: Fraction,
        guard_ns: int = 0,
        on_late: OnLate = "apply",
        mean_ns: int | None = None,
        chunk: int = 1,
        came_ns: Collection[int] = (),
        chunk_from: ChunkFrom = "due",
        replan_every: int = 0,
    ) -> None:
        """Times are in ns.

        Args:
            stagger: How starts are spaced.
            ordered_ns: Inference times, ascending.
            usual_ns: The usual time of each worker, where all of them are known; else ().
            num_workers: At least 1.
            rate_hz: The exact tick rate [Hz].
            guard_ns: Added to the time that the delay is made for.
            on_late: What becomes of an action that comes after its tick.
            mean_ns: In place of the trimmed mean of the times.
            chunk: Actions of an answer.
            came_ns: Such times in the order in which they came, where it is known.
            chunk_from: As in `ScheduleParams`, and so is `replan_every`.
            replan_every: The least ticks between two starts.
        """
        self._stagger = stagger
        self._ordered = ordered_ns
        self._usual_ns = usual_ns
        self._num_workers = num_workers
        self._rate_hz = rate_hz
        #: A tick is `per_tick / rate` ns. Two integers, because arithmetic with Fraction is much slower.
        self._per_tick, self._rate = NS_PER_S * rate_hz.denominator, rate_hz.numerator
        self._guard_ns = guard_ns
        self._on_late = on_late
        self._chunk = chunk
        self._chunk_from = chunk_from
        self._replan_every = replan_every
        self._came_ns = came_ns
        self._played: dict[int, Fit] = {}
        self.mean_ns = trimmed_mean_ns(ordered_ns) if mean_ns is None else mean_ns

    def fit(self) -> Fit:
        """The delay and the stride that these times call for."""
        return self.outlook(self.delay())

    def delay(self) -> int:
        """The delay that these times call for."""
        if self._stagger != "max-time":
            return self._ticks(self.mean_ns)
        workers, longest = self._num_workers, planned_quantile(self._ordered)
        wanted = self._ticks(quantile_ns(self._ordered, longest) + self._guard_ns)
        # With N workers a delay of N ticks allows a start at every tick, N + 1 ticks only at every second one. A few
        # late actions may be the smaller loss.
        enough = [self._ticks(quantile_ns(self._ordered, q)) for q in _PLANNED_QUANTILES if q <= longest]
        strides = {-(-ticks // workers) for ticks in enough} | {max(1, (self._usual_ticks - 1) // workers)}
        delays = sorted({min(wanted, workers * stride) for stride in strides} | {wanted})
        return max(delays, key=self.worth) if len(delays) > 1 else wanted

    def outlook(self, delay_ticks: int) -> Fit:
        """The shares of ticks with an action that these times give with this delay."""
        known = self._played.get(delay_ticks)
        if known is None:
            stride, is_spaced = self.stride(delay_ticks), self._stagger in ("max-time", "expected-time")
            acted = acted_shares(
                self._taus_ticks,
                workers=1 if self._stagger == "sequential" else self._num_workers,
                delay_ticks=delay_ticks,
                stride_ticks=stride if is_spaced else 0,
                hold=self._stagger == "max-time",
                drop_late=self._on_late == "drop",
                chunk=self._chunk,
                from_frame=self._chunk_from == "frame",
            )
            known = self._played[delay_ticks] = Fit(delay_ticks, stride, *acted)
        return known

    def stride(self, delay_ticks: int) -> int:
        """Ticks between two starts, for workers that are equally fast or not."""
        stride = self._stride_of_workers(delay_ticks)
        return max(stride, self._replan_every) if self._stagger in ("max-time", "expected-time") else stride

    def _stride_of_workers(self, delay_ticks: int) -> int:
        usual_ns = self._usual_ns
        if self._stagger == "max-time" and usual_ns and is_unequal(usual_ns):
            # A worker k times as fast does k times the work of the slowest.
            slowest_ns = max(usual_ns)
            share = sum(slowest_ns / max(1, tau_ns) for tau_ns in usual_ns)
            return max(1, -int(-delay_ticks // share))
        return stride_for(self._stagger, delay_ticks, self._num_workers, self.mean_ns, self._rate_hz)

    def worth(self, delay_ticks: int) -> float:
        """The value of this delay: its actions, each worth less the older the frame that it acts on."""
        fit = self.outlook(delay_ticks)
        acted = fit.on_time_fraction + _WORTH_OF_LATE * fit.late_fraction
        return acted / (1 + _COST_OF_DELAY * delay_ticks / self._usual_ticks)

    @cached_property
    def _usual_ticks(self) -> int:
        return self._ticks(quantile_ns(self._ordered, 0.5))

    @cached_property
    def _taus_ticks(self) -> list[int]:
        """Inference times in ticks, job by job: in the order they came; if that is unknown, shuffled."""
        if self._came_ns:
            taus = [self._ticks(tau_ns) for tau_ns in self._came_ns]
            # Of less than two jobs each, hardly any is over before the last one starts.
            return taus if len(taus) >= 2 * self._num_workers else taus * -(-8 * self._num_workers // len(taus))
        taus, rng = [self._ticks(tau_ns) for tau_ns in self._ordered], random.Random(0)
        if taus[0] == taus[-1]:
            return [taus[0]] * (8 * self._num_workers)
        return [tau for _ in range(-(-_PLAYED_JOBS // len(taus))) for tau in rng.sample(taus, len(taus))]

    def _ticks(self, tau_ns: int) -> int:
        return max(1, -(-tau_ns * self._rate // self._per_tick))


def is_unequal(usual_ns: Collection[int]) -> bool:
    """Whether workers with these usual times differ in speed."""
    return max(usual_ns) > UNEQUAL_FACTOR * max(1, min(usual_ns))


class Schedule:
    """Books workers tick by tick. One object per run, driven by the env loop or by the simulator.

    Call order within a tick: `complete` for every result that came in, `worker_down`/`worker_up` for every
    change of membership, then `book` once, and `adapt` when all else is done. A worker holds at most one job; idle
    workers are taken in the order in which they became idle, which is round robin when all are equally fast and gives
    faster ones more jobs.

    Args:
        params: Which stagger, at which rate, with which delay to begin with.
        num_workers: All of them idle and in the rotation; at least 1.

    Raises:
        ValueError: There is no worker.

    Examples:
        Inference takes 3 ticks, three workers: one starts at each tick, and each action is due 3 ticks later.

        >>> from fractions import Fraction
        >>> from rtcore import Schedule
        >>> from rtcore.scheduling.schedule import ScheduleParams
        >>> params = ScheduleParams("max-time", Fraction(50), delay_ticks=3, tau_mean_ns=60_000_000)
        >>> schedule = Schedule(params, num_workers=3)
        >>> for tick in range(5):
        ...     for worker in range(3):
        ...         if tick >= 3 and (tick - 3) % 3 == worker:
        ...             schedule.complete(worker, tau_ns=55_000_000)
        ...     for job in schedule.book(tick):
        ...         print(f"tick {tick}: worker {job.worker}, for tick {job.due_tick}")
        tick 0: worker 0, for tick 3
        tick 1: worker 1, for tick 4
        tick 2: worker 2, for tick 5
        tick 3: worker 0, for tick 6
        tick 4: worker 1, for tick 7
    """

    #: Answers between two evaluations of the window: these, or a quarter of the workers. The window of many is long:
    #: evaluated as often it would cost each tick more, the more of them there are.
    ADAPT_EVERY = 32
    #: Answers of each worker that an evaluation needs: one stall of the machine must not count as the usual time.
    ADAPT_ANSWERS = 8
    #: A new plan is followed once its advantage in worth, summed over the evaluations, is this large: after one
    #: evaluation if it is much better, after several if a little, never if each is below `ADAPT_TOLERANCE`.
    ADAPT_EVIDENCE = 0.25
    ADAPT_TOLERANCE = 0.02
    #: Answers of a worker after which its own usual time is used.
    KNOWN_ANSWERS = 12
    #: By which factor the mean must have grown before fewer starts are booked, where the mean decides.
    ADAPT_RISE = 1.05
    #: A job is overdue after this many delays: its worker is left out of the rotation until the answer comes.
    OVERDUE_DELAYS = 4

    def __init__(self, params: ScheduleParams, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers={num_workers} must be at least 1")
        self.params = params
        self.delay_ticks = params.delay_ticks
        self.window = TauWindow(max(256, self.ADAPT_ANSWERS * num_workers))
        self.skipped_starts = 0
        self.replans = 0
        self._idle: deque[int] = deque(range(num_workers))
        self._busy: dict[int, Job] = {}
        self._up: set[int] = set(range(num_workers))
        #: Workers in the rotation.
        self.num_up = num_workers
        self._overdue: set[int] = set()
        #: Worker and time of the answers since `_take_in`.
        self._untaken: list[tuple[int, int]] = []
        self._usual_ns: dict[int, int] = {}
        self._answers_of: dict[int, int] = {}
        self._next_start_tick: int | None = None
        self._last_start_tick = 0
        self._last_due_tick = -1
        self._answers = 0
        self._adapt_every = max(self.ADAPT_EVERY, num_workers // 4)
        self._next_adaptation = self._adapt_every
        self._tau_mean_ns = params.tau_mean_ns
        #: For a shorter and for a longer delay, each by itself: that one is not worth it says nothing of the other.
        self._evidence = [0.0, 0.0]
        self._caution = 1
        self._rose = False
        self._changed_at = -(10**9)
        self._restride()

    # -- what happened -------------------------------------------------------------------------------------

    def complete(self, worker: int, tau_ns: int) -> None:
        """The result of a worker is in its slot: it is idle again. Nothing if it held no job.

        Args:
            worker: Its index.
            tau_ns: From the deadline of the tick it was booked at to its action in the slot [ns].
        """
        if self._busy.pop(worker, None) is None:
            return
        if worker in self._overdue:
            self._overdue.discard(worker)
            self._up.add(worker)
            self._restride()
        if worker in self._up:
            # Round robin; only the sequential agent is one process, which stays the same.
            if self.params.stagger == "sequential":
                self._idle.appendleft(worker)
            else:
                self._idle.append(worker)
        self._untaken.append((worker, tau_ns))
        self._answers += 1

    def worker_down(self, worker: int) -> Job | None:
        """Take a dead, hung or retired worker out of the rotation.

        Args:
            worker: Its index.

        Returns:
            The job that is lost with it; None if it was idle.
        """
        self._overdue.discard(worker)
        if worker in self._up:
            self._up.discard(worker)
            self._restride()
        if worker in self._idle:
            self._idle.remove(worker)
        return self._busy.pop(worker, None)

    def worker_up(self, worker: int) -> None:
        """A worker is ready (again); it joins the rotation at the next start.

        Args:
            worker: Its index.
        """
        if worker not in self._up:
            self._up.add(worker)
            self._idle.append(worker)
            self._restride()

    # -- what to do ----------------------------------------------------------------------------------------

    def book(self, tick: int) -> list[Job]:
        """The jobs that start on the frame of a tick. Once for each tick that runs, in order.

        Args:
            tick: Its number.

        Returns:
            At most one job for each idle worker; [] where nobody starts.
        """
        stagger = self.params.stagger
        self._set_overdue_aside(tick)
        if stagger == "free-running":
            jobs = [self._start(tick, hold=False) for _ in range(len(self._idle))]
        elif stagger == "sequential":
            out = self._busy.keys() - self._overdue
            jobs = [self._start(tick, hold=False)] if self._idle and not out else []
        else:
            jobs = self._book_on_stride(tick, hold=stagger == "max-time")
        return jobs

    def next_worker(self, tick: int) -> int | None:
        """Who will probably be booked at a tick, so that it can be woken ahead of time.

        Args:
            tick: Its number.

        Returns:
            The worker's index; None if nobody is due.
        """
        if not self._idle or (self._next_start_tick is not None and tick < self._next_start_tick):
            return None
        if self.params.stagger == "sequential" and self._busy.keys() - self._overdue:
            return None
        return self._idle[0]

    def _set_overdue_aside(self, tick: int) -> None:
        """Leave out workers that hang or are far too slow, so that the spacing of the others is kept."""
        limit = self.OVERDUE_DELAYS * self.delay_ticks + 8
        for worker, job in self._busy.items():
            if tick - job.obs_tick <= limit:
                return  # jobs are in booking order: the others began later
            if worker in self._up:
                self._up.discard(worker)
                self._overdue.add(worker)
                self._restride()

    def _book_on_stride(self, tick: int, *, hold: bool) -> list[Job]:
        if self._next_start_tick is not None and tick < self._next_start_tick:
            return []
        if hold and tick + self.delay_ticks <= self._last_due_tick:
            # The delay was lowered: skip the ticks that already have a booked action. Never two actions for one tick.
            return []
        if not self._idle:
            # Every worker is still busy: the start moves to the first tick that has an idle one.
            self.skipped_starts += 1
            return []
        self._next_start_tick = tick + self.stride_ticks
        self._last_due_tick = tick + self.delay_ticks
        return [self._start(tick, hold=hold)]

    def _start(self, tick: int, *, hold: bool) -> Job:
        worker = self._idle.popleft()
        # Not Job(...): calling the class takes more than twice the time.
        booked = worker, tick, tick + self.delay_ticks, hold
        job = _new_tuple(Job, booked + _NOT_POSTED)
        self._busy[worker] = job
        self._last_start_tick = tick
        return job

    # -- the estimate --------------------------------------------------------------------------------------

    def adapt(self) -> None:
        """Follow a lasting change of the inference time, as the planner would. One outlier has no effect.

        With `tau_estimate="ratchet"`, as in the paper, the delay follows the longest time so far, and never falls. Call
        it when the tick's work is done: some calls take a few tenths of a millisecond.
        """
        if self._answers < self._next_adaptation:
            return
        self._next_adaptation = self._answers + self._adapt_every
        self._take_in()
        if not self.params.adapt:
            return
        delay = self._wanted_delay()
        if self.params.chunk_from == "frame":
            delay = min(delay, self.params.chunk)  # an answer that is due later has no action left
        if delay != self.delay_ticks:
            self.replans += 1
            self.delay_ticks = delay
        self._restride()

    def _take_in(self) -> None:
        """The times of the newest answers. Many at once: each for itself takes several times as long within a tick."""
        for worker, tau_ns in self._untaken:
            self.window.add(tau_ns)
            self._note(worker, tau_ns)
        self._untaken.clear()

    def _note(self, worker: int, tau_ns: int) -> None:
        """Follow a worker's usual time in small steps: a stall, however long, counts as one longer time."""
        count = self._answers_of[worker] = self._answers_of.get(worker, 0) + 1
        usual_ns = self._usual_ns.get(worker) or min(tau_ns, 2 * self.params.tau_mean_ns or tau_ns)
        step_ns = usual_ns // 8 or 1
        change_ns = (tau_ns - usual_ns) // (count if count < self.KNOWN_ANSWERS else self.KNOWN_ANSWERS)
        if change_ns > step_ns:
            change_ns = step_ns
        elif change_ns < -step_ns:
            change_ns = -step_ns
        self._usual_ns[worker] = usual_ns + change_ns

    def _wanted_delay(self) -> int:
        params, window = self.params, self.window
        if params.tau_estimate == "ratchet":
            self._tau_mean_ns = trimmed_mean_ns(window.ordered_ns)
            return max(self.delay_ticks, delay_for(window.max_ns, params.rate_hz))
        if len(window) < min(window.size, self.ADAPT_ANSWERS * len(self._up)):
            return self.delay_ticks
        times = self.times()
        if params.stagger == "max-time":
            wanted = times.delay()
            return wanted if self._is_convinced(times, wanted) else self.delay_ticks
        wanted = times.delay()
        falls = wanted < self.delay_ticks or times.stride(wanted) < self.stride_ticks
        if falls or times.mean_ns > self.ADAPT_RISE * self._tau_mean_ns:
            self._tau_mean_ns = times.mean_ns
            return wanted
        return self.delay_ticks

    def _is_convinced(self, times: Times, wanted: int) -> bool:
        """Whether the plan for the window has been better for long enough, and by enough."""
        if wanted == self.delay_ticks:
            self._evidence = [max(0.0, evidence - self.ADAPT_TOLERANCE) for evidence in self._evidence]
            return False
        rises = wanted > self.delay_ticks
        if not rises and len(self.window) < self.window.size:
            return False  # too few samples to conclude that the slow inferences are over
        better = 1 - times.worth(self.delay_ticks) / max(times.worth(wanted), 1e-9)
        self._evidence[rises] = max(0.0, self._evidence[rises] + better - self.ADAPT_TOLERANCE)
        here, there = times.outlook(self.delay_ticks).acted_fraction, times.outlook(wanted).acted_fraction
        if rises and there < (1 - self.ADAPT_TOLERANCE / 4) * here:
            self._evidence[rises] = 0.0  # more in time, but fewer actions: not better
        if self._evidence[rises] < self.ADAPT_EVIDENCE * self._caution:
            return False
        # It would undo the last change. Either both plans are equally good, or the shorter delay did not hold (workers
        # that start more often slow each other down).
        is_back = rises != self._rose and self._answers < self._changed_at + 4 * self.window.size
        self._caution = min(2 * self._caution, 8) if is_back else 1
        self._rose, self._changed_at = rises, self._answers
        self._evidence = [0.0, 0.0]
        return True

    def times(self, mean_ns: int | None = None) -> Times:
        """The newest inference times, as a plan would be made of them."""
        self._take_in()
        up, params = self._up, self.params
        usual_ns = [self._usual_ns[worker] for worker in up if self._answers_of.get(worker, 0) >= self.KNOWN_ANSWERS]
        workers = max(1, len(up))
        return Times(
            stagger=params.stagger,
            ordered_ns=self.window.ordered_ns,
            usual_ns=usual_ns if len(usual_ns) == len(up) else (),
            num_workers=workers,
            rate_hz=params.rate_hz,
            guard_ns=params.guard_ns,
            on_late=params.on_late,
            mean_ns=mean_ns,
            chunk=params.chunk,
            came_ns=self.window.came_ns,
            chunk_from=params.chunk_from,
            replan_every=params.replan_every,
        )

    def _restride(self) -> None:
        """Space the starts evenly over the workers that are up; the next start keeps its distance to the last."""
        self.num_up = len(self._up)
        self.stride_ticks = self.times(self._tau_mean_ns).stride(self.delay_ticks)
        if self._next_start_tick is not None:
            self._next_start_tick = min(self._next_start_tick, self._last_start_tick + self.stride_ticks)
