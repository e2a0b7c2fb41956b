"""Time: integer nanoseconds of CLOCK_MONOTONIC. The only module that reads the time or sleeps.

CLOCK_MONOTONIC counts from boot, is the same for every process of the machine, and never jumps when
somebody sets the date. Deadlines are absolute: a late wake-up never moves the deadlines after it. A tick that
took too long does, where that is asked for (`TickPace`).
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal, Protocol

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
#: Longer than anything waits: 146 years, which added to any time still fits 64 bits.
FOREVER_NS = 1 << 62
#: What is made up for of a late wake-up of normal priority: with `min_spin_ns` less than a turn (`rtcore.realtime`).
_OVERSLEEP_NS = 100 * NS_PER_US
#: A device's time stamp may lie so far in the future: what was converted from a time of its own is not exact.
FUTURE_NS = NS_PER_MS
#: Tick rates: from one in a quarter of an hour to one in a microsecond.
LOWEST_HZ, HIGHEST_HZ = 0.001, 1_000_000

#: What follows a tick that took too long: ticks that are skipped, or a grid that moves (see `TickPace`).
Overrun = Literal["skip", "stretch"]
#: Moves of a grid that are remembered, to say when a past tick was due.
_REMEMBERED_MOVES = 4096


class Clock(Protocol):
    """What the runtime needs of a clock. Tests and simulations inject their own."""

    def now_ns(self) -> int:
        """Nanoseconds of CLOCK_MONOTONIC (one host, one boot)."""
        ...

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return at `deadline_ns` or as soon after it as the system allows; at once if it has passed."""
        ...


def ns_of(seconds: float) -> int:
    """A setting in seconds, infinite ones included, as nanoseconds: at most `FOREVER_NS`."""
    return int(min(seconds * NS_PER_S, FOREVER_NS))


def cpu_time_ns() -> int:
    """CPU time this process has used, over all its threads [ns]."""
    return time.process_time_ns()


def cpu_time_of_ns(pid: int) -> int:
    """CPU time another process has used, over all its threads [ns]; 0 if it is gone."""
    try:
        # Its CPU clock has this number in Linux: what clock_getcpuclockid of the C library computes.
        return time.clock_gettime_ns(~pid << 3 | 2)
    except OSError:
        return 0


def thread_cpu_time_ns(ident: int) -> int:
    """CPU time a living thread of this process has used [ns], by its `threading.Thread.ident`."""
    return time.clock_gettime_ns(time.pthread_getcpuclockid(ident))


def cpu_wait_ns() -> int:
    """How long this thread was ready to run and had no CPU [ns]; 0 where the kernel does not count it."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0


def raw_offset_ns() -> int:
    """By how much CLOCK_MONOTONIC_RAW is ahead of CLOCK_MONOTONIC [ns]: how far time servers have slewed the latter.

    Of a few readings the one that took the shortest, so that an interruption between two clocks does not count.
    """
    readings = []
    for _ in range(16):
        before_ns, raw_ns = time.monotonic_ns(), time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        after_ns = time.monotonic_ns()
        readings.append((after_ns - before_ns, raw_ns - (before_ns + after_ns) // 2))
    return min(readings)[1]


def unix_time_s() -> float:
    """The date, for people: seconds since 1970. Never for measuring."""
    return time.time()


def clock_like(stamp: int) -> str:
    """What a number probably is that is no present time of CLOCK_MONOTONIC in ns, in words; "": nothing is near."""
    now_ns = time.monotonic_ns()
    times = {
        "CLOCK_REALTIME, the date": time.time_ns(),
        "the date in microseconds": time.time_ns() // NS_PER_US,
        "CLOCK_BOOTTIME": time.clock_gettime_ns(time.CLOCK_BOOTTIME),
        "CLOCK_MONOTONIC_RAW": time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW),
        "CLOCK_MONOTONIC in microseconds": now_ns // NS_PER_US,
        "CLOCK_MONOTONIC in milliseconds": now_ns // NS_PER_MS,
    }
    # Clocks that agree are not told apart; another unit is told by the thousandth part.
    others = {name: time_now for name, time_now in times.items() if abs(time_now - now_ns) > 10 * NS_PER_S}
    near = (name for name, time_now in others.items() if abs(stamp - time_now) <= min(10 * NS_PER_S, time_now // 1000))
    return next(near, "")


class MonotonicClock:
    """The machine's clock. Sleeps without spinning: right for workers, too coarse for the tick."""

    now_ns = staticmethod(time.monotonic_ns)

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Sleep to an absolute deadline; signals do not cut it short."""
        while (left_ns := deadline_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)


class TickClock:
    """Sleeps to just before a deadline, then spins the rest: the clock of the env process.

    The margin left for spinning follows the oversleep this machine shows, and how long `before_spin` takes: it grows at
    once to cover a late wake-up and shrinks slowly, within [`min_spin_ns`, `max_spin_ns`]. Allocates nothing that
    outlives a call.

    Args:
        max_spin_ns: The longest time to spin before a deadline [ns].
        min_spin_ns: The shortest [ns].
        before_spin: Called after each sleep, with at least `min_spin_ns` to go: the place to warm caches.
        max_oversleep_ns: Of late wake-ups, so much at most is added to the margin [ns].

    Examples:
        Three ticks at 100 Hz; none begins before its deadline.

        >>> from fractions import Fraction
        >>> from rtcore import TickClock, TickGrid
        >>> clock = TickClock.for_period(period_ns=10_000_000)
        >>> grid = TickGrid(clock.now_ns(), Fraction(100))
        >>> for tick in range(1, 4):
        ...     clock.sleep_until_ns(grid.deadline_ns(tick))
        ...     print(tick, clock.now_ns() >= grid.deadline_ns(tick))
        1 True
        2 True
        3 True
    """

    def __init__(
        self,
        max_spin_ns: int,
        min_spin_ns: int = 60 * NS_PER_US,
        before_spin: Callable[[], None] | None = None,
        max_oversleep_ns: int = FOREVER_NS,
    ) -> None:
        self.before_spin = before_spin
        self._max_oversleep_ns = max_oversleep_ns
        self._max_spin_ns = max(max_spin_ns, min_spin_ns)
        self._min_spin_ns = min_spin_ns
        self.spin_ns = min(4 * min_spin_ns, min_spin_ns + max_oversleep_ns, self._max_spin_ns)
        #: How long `before_spin` usually takes.
        self._prepare_ns = 0
        #: When the last sleep ended; the time from there to the deadline was spent awake.
        self.woke_ns = 0

    @classmethod
    def for_period(cls, period_ns: int) -> TickClock:
        """Make a clock with the margins that the env process uses.

        Waking 200 us early at 60 Hz costs 1.2% of a CPU and buys a warm start and most late wake-ups. Without realtime
        priority a longer spin is taken for a process that computes, which has to give way just when the deadline comes.

        Args:
            period_ns: The tick period [ns].

        Returns:
            A clock that spins for at most 2 ms, and for no more than a quarter of the period; where this process has no
            realtime priority, hardly longer than `before_spin` takes.
        """
        gives_way = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK not in (os.SCHED_FIFO, os.SCHED_RR)
        return cls(
            max_spin_ns=min(2 * NS_PER_MS, period_ns // 4),
            min_spin_ns=min(200 * NS_PER_US, period_ns // 16),
            max_oversleep_ns=_OVERSLEEP_NS if gives_way else FOREVER_NS,
        )

    now_ns = staticmethod(time.monotonic_ns)

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Return within about a microsecond after a deadline, unless the machine is taken away.

        Args:
            deadline_ns: Absolute time of CLOCK_MONOTONIC [ns]. One that has passed returns at once.
        """
        self.prepare_for_ns(deadline_ns)
        now_ns = time.monotonic_ns
        while now_ns() < deadline_ns:
            pass

    def prepare_for_ns(self, deadline_ns: int) -> None:
        """Sleep to just before a deadline, and warm up: for who then waits for something else than the time.

        Args:
            deadline_ns: Absolute time of CLOCK_MONOTONIC [ns].
        """
        now_ns = time.monotonic_ns
        wake_ns = deadline_ns - self.spin_ns
        left_ns = wake_ns - now_ns()
        if left_ns > 0:
            time.sleep(left_ns / NS_PER_S)
            self.woke_ns = woke_ns = now_ns()
            self._learn(woke_ns - wake_ns)
            if self.before_spin is not None and woke_ns < deadline_ns - self._min_spin_ns:
                self.before_spin()
                self._prepare_ns += (now_ns() - woke_ns - self._prepare_ns) >> 3

    def _learn(self, oversleep_ns: int) -> None:
        wanted_ns = min(oversleep_ns + (oversleep_ns >> 1), self._max_oversleep_ns)
        wanted_ns += max(self._min_spin_ns, self._prepare_ns)
        if wanted_ns > self.spin_ns:
            self.spin_ns = min(wanted_ns, self._max_spin_ns)
        else:
            # 1/512 a tick: the margin forgets a bad moment within some ten seconds at 60 Hz.
            self.spin_ns = max(self._min_spin_ns, self.spin_ns - ((self.spin_ns - wanted_ns) >> 9))


class ManualClock:
    """A clock that stands still until told otherwise. For tests and the virtual-clock simulator."""

    def __init__(self, now_ns: int = 0) -> None:
        self._now_ns = now_ns

    def now_ns(self) -> int:
        return self._now_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Jump to the deadline; never backwards."""
        self._now_ns = max(self._now_ns, deadline_ns)

    def prepare_for_ns(self, deadline_ns: int) -> None:
        """Nothing has to be warm."""

    def advance_ns(self, delta_ns: int) -> None:
        self._now_ns += delta_ns


@dataclass(frozen=True)
class TickGrid:
    """Absolute deadlines at an exact rational rate, such as the Game Boy's 4194304/70224 Hz.

    Tick k is due at `epoch_ns + floor(k * period)`: the period need not be a whole number of nanoseconds and
    the rounding never adds up (a tick is at most 1 ns early, after a year as after a second).

    Args:
        epoch_ns: When tick 0 is due [ns of the clock that sleeps until the deadlines].
        rate_hz: The exact rate [ticks a second].

    Raises:
        ValueError: The rate is not positive.

    Examples:
        >>> from fractions import Fraction
        >>> from rtcore import TickGrid
        >>> grid = TickGrid(epoch_ns=1_000, rate_hz=Fraction(4194304, 70224))
        >>> [grid.deadline_ns(tick) for tick in (0, 1, 60)]
        [1000, 16743706, 1004563377]
        >>> grid.tick_at(16_743_705)
        0
    """

    epoch_ns: int
    rate_hz: Fraction

    def __post_init__(self) -> None:
        if self.rate_hz <= 0:
            raise ValueError(f"rate_hz={self.rate_hz} must be positive")
        object.__setattr__(self, "_num", NS_PER_S * self.rate_hz.denominator)
        object.__setattr__(self, "_den", self.rate_hz.numerator)

    _num: int = 0
    _den: int = 1

    @property
    def period_ns(self) -> Fraction:
        """The exact tick period [ns]."""
        return Fraction(self._num, self._den)

    def deadline_ns(self, tick: int) -> int:
        """When a tick is due.

        Args:
            tick: Its number; ticks before the epoch are negative.

        Returns:
            Absolute time [ns of the clock the epoch was read from].
        """
        return self.epoch_ns + tick * self._num // self._den

    def tick_at(self, now_ns: int) -> int:
        """The last tick whose deadline is not after `now_ns`.

        Args:
            now_ns: Absolute time [ns of the clock the epoch was read from].

        Returns:
            Its number; negative before the epoch.
        """
        return ((now_ns - self.epoch_ns + 1) * self._den - 1) // self._num

    def later(self, move_ns: int) -> TickGrid:
        """The same grid, every deadline later.

        Args:
            move_ns: By how much [ns].

        Returns:
            Another grid; this one stays.
        """
        return TickGrid(self.epoch_ns + move_ns, self.rate_hz)


_new_object = object.__new__


@dataclass(slots=True)
class TickPlan:
    """The next tick to run: its number and its absolute deadline.

    `skipped_ticks` were passed over just before it; `stretched_ns` is how much later than on the grid it is due, and
    with it all ticks after it. One of the two is always 0.
    """

    tick: int
    deadline_ns: int
    skipped_ticks: int
    stretched_ns: int = 0


def plan_next_tick(grid: TickGrid, last_tick: int, now_ns: int, num_ticks: int | None = None) -> TickPlan:
    """The tick after `last_tick`; ticks whose whole period has gone by already are skipped, and counted.

    A tick that is merely late still runs, and the grid does not move: after an overrun the next deadline is
    where it always was. A run of `num_ticks` ends with its last tick, however late that has become.
    """
    tick = next_tick = last_tick + 1
    deadline_ns = grid.deadline_ns(tick)
    if deadline_ns <= now_ns and (newest := grid.tick_at(now_ns)) > next_tick:
        tick = newest if num_ticks is None or next_tick >= num_ticks else min(newest, num_ticks - 1)
        deadline_ns = grid.deadline_ns(tick)
    plan = _new_object(TickPlan)  # not TickPlan(...): calling a class takes more than twice the time
    plan.tick = tick
    plan.deadline_ns = deadline_ns
    plan.skipped_ticks = tick - next_tick
    plan.stretched_ns = 0
    return plan


def plan_every_tick(grid: TickGrid, last_tick: int, now_ns: int) -> TickPlan:
    """The tick after `last_tick`, and never a later one: if its deadline has gone by already, it is due now."""
    tick = last_tick + 1
    deadline_ns = grid.deadline_ns(tick)
    stretched_ns = max(0, now_ns - deadline_ns)
    return TickPlan(tick, deadline_ns + stretched_ns, 0, stretched_ns)


class Grid(Protocol):
    """When ticks are due, past ones and those to come."""

    @property
    def epoch_ns(self) -> int: ...
    def deadline_ns(self, tick: int) -> int: ...
    def tick_at(self, now_ns: int) -> int: ...


class Pace(Protocol):
    """What a tick loop follows: this machine's clock (`TickPace`), or the world's (`loop.world_clock.WorldPace`)."""

    @property
    def grid(self) -> Grid: ...
    def next_tick(self, last_tick: int, now_ns: int) -> TickPlan: ...
    def deadline_ns(self, tick: int) -> int: ...
    def elapsed_ns(self, tick: int, at_ns: int) -> int: ...


class TickPace:
    """Which tick comes next and when, and when those before it were due.

    After a tick that was not over at the next deadline (an overrun):

    "skip"     Ticks whose whole period has gone by are skipped. The grid never moves: time goes on as it does.
    "stretch"  No tick is skipped. The next one is due at once, and the grid moves: time stands still meanwhile.

    A late wake-up moves nothing: the deadline was settled before. Allocates only where the grid moves. `num_ticks`: of
    the run, None if it has no end; the last of them is not skipped.
    """

    def __init__(self, grid: TickGrid, overrun: Overrun = "skip", num_ticks: int | None = None) -> None:
        #: Of the ticks to come.
        self.grid = grid
        self._num_ticks = num_ticks
        self._stretches = overrun == "stretch"
        self._moves: deque[tuple[int, TickGrid]] = deque(maxlen=_REMEMBERED_MOVES)

    def next_tick(self, last_tick: int, now_ns: int) -> TickPlan:
        """The tick to run after `last_tick`; moves the grid if that is what follows from the time."""
        if not self._stretches:
            return plan_next_tick(self.grid, last_tick, now_ns, self._num_ticks)
        plan = plan_every_tick(self.grid, last_tick, now_ns)
        if plan.stretched_ns:
            self._moves.append((plan.tick, self.grid))
            self.grid = self.grid.later(plan.stretched_ns)
        return plan

    def deadline_ns(self, tick: int) -> int:
        """When a past tick was due, or when one to come will be if nothing overruns.

        Of a tick before the last 4096 moves: when it would have been due on the oldest grid that is remembered.
        """
        grid = self.grid
        for first_tick_after, grid_before in reversed(self._moves):
            if tick >= first_tick_after:
                break
            grid = grid_before
        return grid.deadline_ns(tick)

    def elapsed_ns(self, tick: int, at_ns: int) -> int:
        """From when `tick` was due to `at_ns`, without the time that the grid stood still."""
        grid, stood_still_ns = self.grid, 0
        if not self._moves:  # as nearly always, and this is within a tick
            return at_ns - grid.deadline_ns(tick)
        for first_tick_after, grid_before in reversed(self._moves):
            if tick >= first_tick_after:
                break
            from_ns, to_ns = grid_before.deadline_ns(first_tick_after), grid.deadline_ns(first_tick_after)
            stood_still_ns += max(0, min(at_ns, to_ns) - from_ns)
            grid = grid_before
        return at_ns - grid.deadline_ns(tick) - stood_still_ns


def whole_period_ns(rate_hz: Fraction) -> int:
    """A tick's period, rounded down to whole nanoseconds: for limits and shares of a tick.

    Never for deadlines: those of a `TickGrid` keep the exact rate.
    """
    return NS_PER_S * rate_hz.denominator // rate_hz.numerator


def rate_from(fps: float | str | Fraction) -> Fraction:
    """An exact rate from "59.7275", "4194304/70224" or a float such as a world's `render_fps`.

    A float stands for the simplest fraction near it (denominator at most 1e6), which for the Game Boy's rate
    as a float gives back 262144/4389 exactly.

    Args:
        fps: Ticks a second.

    Returns:
        The exact rate [Hz].

    Raises:
        ValueError: It is no number, or not within the rates that rtcore can keep.
    """
    if isinstance(fps, str) and "/" not in fps and not LOWEST_HZ <= float(fps) <= HIGHEST_HZ:
        rate = Fraction(0)  # not made exact: of 1e999999 that would take for ever
    else:
        rate = Fraction(fps) if isinstance(fps, (str, Fraction)) else Fraction(fps).limit_denominator(1_000_000)
    if not LOWEST_HZ <= rate <= HIGHEST_HZ:
        raise ValueError(f"fps={fps} is out of range: expected {LOWEST_HZ:g} to {HIGHEST_HZ:,} Hz")
    return rate
