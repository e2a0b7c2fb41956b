"""Which worker starts at which tick, and for which tick its action is due. Pure: no process, no clock, no torch.

The paper's two algorithms and two baselines (arXiv 2412.14355, algorithms 1 and 2), in whole ticks: frames
change only at ticks, so starting on a tick loses nothing against free timers, and the grid cannot drift.

`tau` is the time from the deadline of the tick a worker was booked at to its action in the slot: it includes
the world's step, publishing, waking and reading. All times are integer nanoseconds; all results are ticks.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

Stagger = Literal["max-time", "expected-time", "sequential", "free-running"]
STAGGERS: tuple[Stagger, ...] = ("max-time", "expected-time", "sequential", "free-running")
OnReset = Literal["hold", "run"]
TauEstimate = Literal["quantile", "ratchet"]

NS_PER_S = 1_000_000_000
#: Inference times up to this quantile decide the stride; the longer ones only the delay.
USUAL_QUANTILE = 0.75


class Job(NamedTuple):
    """Worker `worker`: use the frame of tick `obs_tick`; your action is for tick `due_tick`.

    `hold`: the action waits for its due tick (max-time). Without it the action is applied as soon as it is
    ready, the worker may use a newer frame, and `due_tick` is only when it is expected at the latest.
    """

    worker: int
    obs_tick: int
    due_tick: int
    hold: bool


@dataclass(frozen=True)
class ScheduleParams:
    """What a schedule starts from. `delay_ticks` comes from the planner (or from a user who knows tau)."""

    stagger: Stagger
    rate_hz: Fraction
    delay_ticks: int
    tau_mean_ns: int
    guard_ns: int = 0
    tau_estimate: TauEstimate = "quantile"
    adapt: bool = True


class TauWindow:
    """The last `size` inference times, kept sorted: any quantile in O(1), an update in O(log size)."""

    def __init__(self, size: int = 256) -> None:
        self._recent: deque[int] = deque(maxlen=size)
        self._sorted: list[int] = []
        self._sum_ns = 0
        self.max_ns = 0

    def add(self, tau_ns: int) -> None:
        if len(self._recent) == self._recent.maxlen:
            oldest = self._recent[0]
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum_ns -= oldest
        self._recent.append(tau_ns)
        insort(self._sorted, tau_ns)
        self._sum_ns += tau_ns
        self.max_ns = max(self.max_ns, tau_ns)

    def __len__(self) -> int:
        return len(self._sorted)

    @property
    def is_full(self) -> bool:
        return len(self._recent) == self._recent.maxlen

    def quantile_ns(self, q: float) -> int:
        """The value that a share `q` of the window does not exceed (0 of an empty window)."""
        if not self._sorted:
            return 0
        return self._sorted[min(len(self._sorted) - 1, int(q * len(self._sorted)))]

    def mean_ns(self) -> int:
        return self._sum_ns // len(self._sorted) if self._sorted else 0


def delay_for(tau_ns: int, rate_hz: Fraction, guard_ns: int = 0) -> int:
    """D = ceil((tau + guard) / T), at least 1: a frame made in tick k can govern tick k + 1 at the soonest."""
    num, den = NS_PER_S * rate_hz.denominator, rate_hz.numerator
    return max(1, -(-(tau_ns + guard_ns) * den // num))


def settle_delay(wanted_ticks: int, usual_ticks: int, num_workers: int) -> int:
    """The delay for rare long inferences, as far as the stride of the usual ones has room for it.

    With N workers a delay of up to N ticks costs nothing but delay, and one of N + 1 halves the actions. A few late
    actions are the smaller loss, so the stride follows the usual time and the delay stops at N * stride.
    """
    room_ticks = num_workers * max(1, -(-usual_ticks // num_workers))
    return min(wanted_ticks, room_ticks)


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


class Schedule:
    """Books workers tick by tick. One object per run, driven by the env loop or by the simulator.

    Call order within a tick: `complete` for every result that came in, `worker_down`/`worker_up` for every
    change of membership, then `book` once. A worker holds at most one job; idle workers are taken in the order
    in which they became idle, which is round robin when all are equally fast and gives faster ones more jobs.
    """

    #: Sustained lateness: this share of the window must be on time, else the delay is raised.
    ADAPT_QUANTILE = 0.95
    ADAPT_EVERY = 32
    #: Workers whose mean times differ by more than this factor count as unequal devices.
    UNEQUAL_FACTOR = 1.5
    #: A job out for this many delays is overdue: its worker does not count until the answer comes.
    OVERDUE_DELAYS = 4

    def __init__(self, params: ScheduleParams, num_workers: int) -> None:
        if num_workers < 1:
            raise ValueError(f"num_workers={num_workers} must be at least 1")
        self.params = params
        self.delay_ticks = params.delay_ticks
        self.window = TauWindow()
        self.skipped_starts = 0
        self.replans = 0
        self._idle: deque[int] = deque(range(num_workers))
        self._busy: dict[int, Job] = {}
        self._up: set[int] = set(range(num_workers))
        self._overdue: set[int] = set()
        self._tau_by_worker: dict[int, int] = {}
        self._next_start_tick: int | None = None
        self._last_start_tick = 0
        self._last_due_tick = -1
        self._unseen = 0
        self._tau_mean_ns = params.tau_mean_ns
        self._restride()

    # -- what happened -------------------------------------------------------------------------------------

    def complete(self, worker: int, tau_ns: int) -> None:
        """The result of `worker` is in its slot: it is idle again."""
        if self._busy.pop(worker, None) is None:
            return
        if worker in self._overdue:
            self._overdue.discard(worker)
            self._up.add(worker)
            self._restride()
        if worker in self._up:
            # Round robin, but for the sequential agent: it is one process, and stays the same one.
            (self._idle.appendleft if self.params.stagger == "sequential" else self._idle.append)(worker)
        self.window.add(tau_ns)
        previous = self._tau_by_worker.get(worker)
        self._tau_by_worker[worker] = tau_ns if previous is None else previous + (tau_ns - previous) // 8
        self._unseen += 1
        if self._unseen >= self.ADAPT_EVERY and self.params.adapt:
            self._unseen = 0
            self._adapt()

    def worker_down(self, worker: int) -> Job | None:
        """Take a dead, hung or retired worker out; returns the job that is lost with it."""
        self._overdue.discard(worker)
        if worker in self._up:
            self._up.discard(worker)
            self._restride()
        if worker in self._idle:
            self._idle.remove(worker)
        return self._busy.pop(worker, None)

    def worker_up(self, worker: int) -> None:
        """A worker is ready (again); it joins the rotation at the next start."""
        if worker not in self._up:
            self._up.add(worker)
            self._idle.append(worker)
            self._restride()

    # -- what to do ----------------------------------------------------------------------------------------

    def book(self, tick: int) -> list[Job]:
        """The jobs that start on the frame of `tick`."""
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
        """Who will probably be booked at `tick`, so that it can be woken ahead of time; None if nobody is due."""
        if not self._idle or (self._next_start_tick is not None and tick < self._next_start_tick):
            return None
        if self.params.stagger == "sequential" and self._busy.keys() - self._overdue:
            return None
        return self._idle[0]

    @property
    def num_up(self) -> int:
        """Workers in the rotation."""
        return len(self._up)

    @property
    def num_busy(self) -> int:
        """Jobs out."""
        return len(self._busy)

    def _set_overdue_aside(self, tick: int) -> None:
        """A worker that hangs or has become far too slow does not hold up the spacing of the others."""
        limit = self.OVERDUE_DELAYS * self.delay_ticks + 8
        for worker, job in self._busy.items():
            if tick - job.obs_tick <= limit:
                return  # jobs are in booking order: the rest is younger
            if worker in self._up:
                self._up.discard(worker)
                self._overdue.add(worker)
                self._restride()

    def _book_on_stride(self, tick: int, *, hold: bool) -> list[Job]:
        if self._next_start_tick is not None and tick < self._next_start_tick:
            return []
        if hold and tick + self.delay_ticks <= self._last_due_tick:
            # The delay was lowered: wait out the ticks that are spoken for. No two actions for one tick.
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
        job = Job(worker, tick, tick + self.delay_ticks, hold)
        self._busy[worker] = job
        self._last_start_tick = tick
        return job

    # -- the estimate --------------------------------------------------------------------------------------

    def _adapt(self) -> None:
        """Follow a lasting change of inference time; one outlier changes nothing.

        The delay rises when more than 5% of the window came after their due tick, and falls when the window
        would fit a shorter delay with twice the guard. The paper's ratchet (`tau_estimate="ratchet"`) takes the
        longest time ever seen instead, and never falls.
        """
        params = self.params
        self._tau_mean_ns = self.window.mean_ns()
        if params.tau_estimate == "ratchet":
            wanted = max(self.delay_ticks, delay_for(self.window.max_ns, params.rate_hz))
        else:
            tau_ns = self.window.quantile_ns(self.ADAPT_QUANTILE)
            usual = delay_for(self.window.quantile_ns(USUAL_QUANTILE), params.rate_hz)
            wanted = self.delay_ticks
            if delay_for(tau_ns, params.rate_hz) > self.delay_ticks:
                wanted = delay_for(tau_ns, params.rate_hz, params.guard_ns)
                wanted = max(self.delay_ticks, settle_delay(wanted, usual, max(1, len(self._up))))
            elif self.window.is_full:
                roomy = delay_for(self.window.quantile_ns(0.99), params.rate_hz, 2 * params.guard_ns)
                wanted = min(wanted, roomy)
        if wanted != self.delay_ticks:
            self.replans += 1
            self.delay_ticks = wanted
        self._restride()

    def _restride(self) -> None:
        """New even spacing for the workers that are up; the next start keeps its distance to the last."""
        params, num_up = self.params, max(1, len(self._up))
        stride = stride_for(params.stagger, self.delay_ticks, num_up, self._tau_mean_ns, params.rate_hz)
        times = [tau for worker, tau in self._tau_by_worker.items() if worker in self._up]
        if (
            params.stagger == "max-time"
            and len(times) == num_up
            and max(times) > self.UNEQUAL_FACTOR * max(1, min(times))
        ):
            # Unequal devices: a worker k times as fast does k times the work of the slowest.
            share = sum(max(times) / max(1, tau) for tau in times)
            stride = max(1, -int(-self.delay_ticks // share))
        self.stride_ticks = stride
        if self._next_start_tick is not None:
            self._next_start_tick = min(self._next_start_tick, self._last_start_tick + stride)
