"""The world's clock: each tick is one cycle of the world's device, a camera or a robot's controller.

A world offers one of two methods, which its wrappers pass on (`get_wrapper_attr`):

    wait_cycle(timeout_s)   blocks until the next cycle and returns its time stamp; None: there was none within the time
    cycle_stamp_ns()        returns at once the time stamp of the newest cycle; None: there was none yet

A time stamp is in nanoseconds of CLOCK_MONOTONIC (`time.monotonic_ns()`) and grows from cycle to cycle. Both methods
tell of the newest cycle: what was missed meanwhile is not handed in later. `cycle_offset_ns`, an attribute that may be
missing, is how long after its stamp what belongs to a cycle can be read; the tick is due then.

Stamps jitter and their clock drifts. A grid is locked to them (`LockedGrid`): it says which cycle a stamp belongs to,
so that lost ones are counted, and when the next one comes. With `wait_cycle` a tick is due at its stamp; with
`cycle_stamp_ns` it is due on the grid, as evenly as the device is on the whole. Ticks that the device gave no cycle for
are skipped.

Pure but for the two methods and the clock, which is injected. Within a tick nothing here is called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import floor
from operator import index
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np

from rtcore.clock import FUTURE_NS, NS_PER_MS, NS_PER_S, NS_PER_US, Clock, TickPlan, clock_like, rate_from
from rtcore.errors import WARNING_NOTE, ConfigError, EnvironmentFailed, EnvironmentHung, counted
from rtcore.loop.gymapi import raise_named
from rtcore.spaces.action import attribute_of

#: How a world tells of its cycles.
CycleKind = Literal["wait", "stamps"]

#: Longest wait within one call, so that whoever waits sees its orders.
_SLICE_NS = 50 * NS_PER_MS
#: How often a stamp that is late is asked for.
_POLL_NS = 100 * NS_PER_US
#: How much of a phase error is corrected at once, and how much of it goes into the period: critically damped.
_PHASE_GAIN, _PERIOD_GAIN = 1 / 8, 1 / 256
#: Deadlines that are remembered: actions are due, and answers come, fewer ticks after their frame.
_REMEMBERED_TICKS = 4096
#: The device is measured for so long before tick 0, but at least, and at most, for so many cycles.
_MEASURED_NS, _FEWEST_CYCLES, _MOST_CYCLES = NS_PER_S // 2, 9, 200
#: A measured rate that differs from the nominal one by more is warned of.
_SAME_RATE = 0.01


@runtime_checkable
class WaitsForCycles(Protocol):
    """A world whose driver blocks until the device's next cycle."""

    def wait_cycle(self, timeout_s: float) -> int | None:
        """Block until a cycle that was not returned yet.

        Args:
            timeout_s: For so long at most [s].

        Returns:
            Time stamp of the newest such cycle [ns of CLOCK_MONOTONIC]; None: there was none within the time.
        """
        ...


@runtime_checkable
class StampsCycles(Protocol):
    """A world whose driver says when its device's newest cycle was."""

    def cycle_stamp_ns(self) -> int | None:
        """Do not block.

        Returns:
            Time stamp of the newest cycle [ns of CLOCK_MONOTONIC]; None: there was none yet.
        """
        ...


class PacedClock(Clock, Protocol):
    """A clock that can also wake a little before a time: `TickClock`, and for tests `ManualClock`."""

    def prepare_for_ns(self, deadline_ns: int) -> None: ...


class Cycles:
    """The cycles of a world's device, each stamp checked.

    Args:
        env: The world.
        clock: That it waits by where the world itself does not wait: one that does not spin.
        patience_ns: How long a device may be silent, and how old its first stamp may be.

    Raises:
        ConfigError: The world has neither of the two methods, or its `cycle_offset_ns` is no time.
    """

    def __init__(self, env: Any, clock: Clock, patience_ns: int) -> None:
        waits, tells = attribute_of(env, "wait_cycle"), attribute_of(env, "cycle_stamp_ns")
        if not callable(waits) and not callable(tells):
            raise ConfigError(
                f"clock=world: {_name_of(env)} has neither wait_cycle(timeout_s), which blocks until the device's next "
                "cycle, nor cycle_stamp_ns(), which tells when the newest one was; expected one of the two methods "
                "(docs/robots.md), or --clock wall"
            )
        self.name = _name_of(env)
        self.kind: CycleKind = "wait" if callable(waits) else "stamps"
        self._waits, self._tells = waits, tells
        self.offset_ns = _offset_of(env, self.name)
        self.patience_ns = patience_ns
        self.clock = clock
        #: The newest stamp that was returned.
        self._last_ns: int | None = None

    @property
    def method(self) -> str:
        """The one that is called, in words."""
        return "wait_cycle()" if self.kind == "wait" else "cycle_stamp_ns()"

    def next_ns(self, timeout_ns: int) -> int | None:
        """The stamp of a cycle that was not returned yet; None: there was none within the time.

        Raises:
            EnvironmentFailed: The world raised, or returned what is no time stamp of CLOCK_MONOTONIC.
        """
        now_ns = self.clock.now_ns()
        give_up_ns = now_ns + timeout_ns
        while True:
            try:
                found = self._waits((give_up_ns - now_ns) / NS_PER_S) if self.kind == "wait" else self._tells()
            except BaseException as error:
                raise_named(self.method, error)
            now_ns = self.clock.now_ns()
            if found is not None and (stamp_ns := self._checked(found, now_ns)) != self._last_ns:
                self._last_ns = stamp_ns
                return stamp_ns
            if now_ns >= give_up_ns:
                return None
            now_ns = min(now_ns + _POLL_NS, give_up_ns)
            self.clock.sleep_until_ns(now_ns)

    def _checked(self, found: object, now_ns: int) -> int:
        try:
            stamp_ns = index(found)  # type: ignore[arg-type]
        except TypeError:
            stamp_ns = -1
        if stamp_ns < 0 or isinstance(found, bool):
            raise self._refused(f"{found!r:.60} ({type(found).__name__})", "")
        last_ns = self._last_ns
        if stamp_ns == last_ns:
            return stamp_ns
        age_ns = now_ns - stamp_ns
        # Another clock shows at once. Later an old stamp comes from a queue, such as one that a pause has filled.
        if (last_ns is None and age_ns > self.patience_ns) or age_ns < -FUTURE_NS:
            where = f"{age_ns / NS_PER_S:.3f} s ago" if age_ns > 0 else f"{-age_ns / NS_PER_S:.3f} s in the future"
            raise self._refused(f"{stamp_ns}, which is {where}", clock_like(stamp_ns))
        if last_ns is not None and stamp_ns < last_ns:
            raise self._refused(f"{stamp_ns}, which is {last_ns - stamp_ns} ns before the stamp before it", "")
        return stamp_ns

    def _refused(self, got: str, looks_like: str) -> EnvironmentFailed:
        hint = f" That looks like {looks_like}." if looks_like else ""
        return EnvironmentFailed(
            f"the world's clock: {self.name}.{self.method} returned {got}.{hint} Expected the time of a cycle in whole "
            "nanoseconds of CLOCK_MONOTONIC, as time.monotonic_ns() gives, which never falls; convert the device's own "
            "time in the driver"
        )


def _name_of(env: Any) -> str:
    return type(getattr(env, "unwrapped", env)).__name__


def _offset_of(env: Any, name: str) -> int:
    given = attribute_of(env, "cycle_offset_ns")
    if given is None:
        return 0
    try:
        offset_ns = index(given)
    except TypeError:
        offset_ns = -1
    if offset_ns < 0:
        raise ConfigError(
            f"clock=world: {name}.cycle_offset_ns is {given!r:.60}; expected whole nanoseconds, 0 or more, from a "
            "cycle's stamp to when what belongs to it can be read"
        )
    return offset_ns


@dataclass(frozen=True)
class MeasuredCycles:
    """What a device was measured to do before tick 0."""

    kind: CycleKind
    rate_hz: Fraction
    nominal_hz: Fraction  #: as of --fps, or the world's own
    jitter_us: float  #: largest distance of a stamp from an even grid
    known_after_us: float  #: from a stamp to when it was known, at least
    offset_us: float  #: from a stamp to its tick

    def to_json(self) -> dict[str, Any]:
        return {**vars(self), "rate_hz": float(self.rate_hz), "nominal_hz": float(self.nominal_hz)}

    def notes(self) -> list[str]:
        """What a run's header says of it."""
        rate, nominal = float(self.rate_hz), float(self.nominal_hz)
        how = "waits for each" if self.kind == "wait" else "a grid is locked to their stamps"
        notes = [
            f"ticks are the device's cycles ({how}): {rate:.4f} Hz measured, {nominal:.4f} nominal; jitter "
            f"{self.jitter_us:.0f} us, known {self.known_after_us:.0f} us after their stamp, due {self.offset_us:.0f} "
            "us after it"
        ]
        if abs(rate / nominal - 1) > _SAME_RATE:
            notes.append(
                f"{WARNING_NOTE}the device gives {rate:.4g} cycles a second, and {nominal:.4g} were expected "
                f"({100 * (rate / nominal - 1):+.1f}%): the plan is made for what it gives. Is it set up for another "
                "rate? Say so with --fps"
            )
        return notes


def measure_cycles(cycles: Cycles, nominal_hz: Fraction, before_call: Callable[[str], object]) -> MeasuredCycles:
    """Find out at which rate the device really runs.

    Args:
        cycles: The device's.
        nominal_hz: What it is said to run at.
        before_call: Called with what is asked of the world next.

    Returns:
        What was measured.

    Raises:
        EnvironmentHung: It is silent.
        EnvironmentFailed: It gives what are no time stamps.
    """
    clock = cycles.clock
    stamps: list[int] = []
    known_ns: list[int] = []
    while len(stamps) < _FEWEST_CYCLES or (stamps[-1] - stamps[0] < _MEASURED_NS and len(stamps) < _MOST_CYCLES):
        before_call(f"at cycle {len(stamps) + 1} of its clock, before tick 0")
        begun_ns = clock.now_ns()
        while (stamp_ns := cycles.next_ns(_SLICE_NS)) is None:
            if clock.now_ns() - begun_ns > cycles.patience_ns:
                raise _silence(cycles, f"after {counted(len(stamps), 'cycle')} before tick 0")
        stamps.append(stamp_ns)
        known_ns.append(clock.now_ns() - stamp_ns)
    period_ns, jitter_ns = even_grid(stamps)
    return MeasuredCycles(
        kind=cycles.kind,
        rate_hz=rate_from(NS_PER_S / period_ns),
        nominal_hz=nominal_hz,
        jitter_us=jitter_ns / NS_PER_US,
        known_after_us=min(known_ns) / NS_PER_US,
        offset_us=cycles.offset_ns / NS_PER_US,
    )


def even_grid(stamps_ns: Sequence[int]) -> tuple[float, float]:
    """The period of stamps, some of which may be missing, and how far they lie from an even grid at most [ns each]."""
    times = np.asarray(stamps_ns, np.int64) - stamps_ns[0]
    numbers = np.concatenate([[0], np.cumsum(np.maximum(1, np.rint(np.diff(times) / np.median(np.diff(times)))))])
    period_ns, first_ns = np.polyfit(numbers, times, 1)
    return float(period_ns), float(np.abs(times - numbers * period_ns - first_ns).max())


class MeanPeriod:
    """How long a cycle takes, by all stamps up to now: the slope of a straight line, whatever each of them jitters."""

    def __init__(self, nominal_ns: float) -> None:
        self._nominal_ns = nominal_ns
        self._first: tuple[int, int] | None = None
        self._count = self._mean_cycle = self._mean_ns = self._squares = self._products = 0.0

    def take(self, cycle: int, stamp_ns: int) -> float:
        """Take in a stamp; returns the period [ns]."""
        first_cycle, first_ns = self._first = self._first or (cycle, stamp_ns)
        number = cycle - first_cycle
        # Only what differs from the nominal: so small a number keeps its digits over days.
        late_ns = stamp_ns - first_ns - number * self._nominal_ns
        self._count += 1
        before = number - self._mean_cycle
        self._mean_cycle += before / self._count
        self._mean_ns += (late_ns - self._mean_ns) / self._count
        self._squares += before * (number - self._mean_cycle)
        self._products += before * (late_ns - self._mean_ns)
        return self._nominal_ns + (self._products / self._squares if self._squares else 0.0)


class LockedGrid:
    """A grid that follows time stamps. What a `TickGrid` says, it says of the device's cycles, as far as it knows them.

    Args:
        start_ns: When cycle 0 will probably be.
        period_ns: From one cycle to the next, as far as that is known.
        offset_ns: From a cycle to its tick.
    """

    def __init__(self, start_ns: int, period_ns: float, offset_ns: int = 0) -> None:
        self.period_ns = period_ns
        self._offset_ns = offset_ns
        #: A cycle, and when it was by the filtered stamps.
        self._cycle, self._at_ns = 0, start_ns
        self.is_locked = False

    @property
    def epoch_ns(self) -> int:
        """When tick 0 was due."""
        return self.deadline_ns(0)

    def deadline_ns(self, tick: int) -> int:
        """When a tick was or will be due."""
        return self._at_ns + self._offset_ns + round((tick - self._cycle) * self.period_ns)

    def tick_at(self, now_ns: int) -> int:
        """The last tick whose deadline is not after `now_ns`."""
        return self._cycle + floor((now_ns - self._at_ns - self._offset_ns + 0.5) / self.period_ns)

    def cycle_of(self, stamp_ns: int) -> int:
        """The cycle that a stamp is nearest to."""
        return self._cycle + round((stamp_ns - self._at_ns) / self.period_ns)

    def follow(self, cycle: int, stamp_ns: int) -> int:
        """Take in a stamp. Returns by how much it was later than expected [ns]; 0 for the first, which is not compared.

        A filter of second order: jitter moves the grid by an eighth, a device that drifts is followed without error.
        """
        if not self.is_locked:
            self._cycle, self._at_ns, self.is_locked = cycle, stamp_ns, True
            return 0
        passed = cycle - self._cycle
        expected_ns = self._at_ns + round(passed * self.period_ns)
        error_ns = stamp_ns - expected_ns
        self._cycle, self._at_ns = cycle, expected_ns + round(_PHASE_GAIN * error_ns)
        self.period_ns += _PERIOD_GAIN * error_ns / passed
        return error_ns


class WorldPace:
    """Which tick comes next and when, by the cycles of a device: takes the place of `clock.TickPace`.

    Args:
        cycles: The device's.
        clock: That the loop sleeps by.
        rate_hz: Of the device, as measured.
        start_ns: Cycles before it are not the run's.
        num_ticks: Of the run, None if it has no end; the last of them is not skipped.
        on_cycle: Called for each cycle that a tick is made of: how much later than expected it was [ns], how many
            before it the device lost, how long its cycles take up to now [ns].
    """

    def __init__(
        self,
        cycles: Cycles,
        clock: PacedClock,
        rate_hz: Fraction,
        start_ns: int,
        *,
        num_ticks: int | None = None,
        on_cycle: Callable[[int, int, float], object] = lambda error_ns, lost, period_ns: None,
    ) -> None:
        self._cycles, self._clock, self._start_ns = cycles, clock, start_ns
        self.grid = LockedGrid(start_ns, float(NS_PER_S / rate_hz), cycles.offset_ns)
        self._mean_period = MeanPeriod(self.grid.period_ns)
        self._num_ticks, self._on_cycle = num_ticks, on_cycle
        self._newest = -1  # cycle that was heard of
        self._due = (-1, 0)  # tick of the cycle that is there, and its deadline
        self._ready_ns = 0  # since when the next cycle has been waited for
        self._silent_ns = 0
        self._deadlines = [(-1, 0)] * _REMEMBERED_TICKS

    def await_cycle(self, last_tick: int) -> bool:
        """Wait for the cycle of the next tick, for a moment beyond the time when it should come. Between two ticks.

        Args:
            last_tick: That was run, or passed over.

        Returns:
            Whether it is there; else its caller looks for orders and calls again.

        Raises:
            EnvironmentHung: The device is silent for too long.
            EnvironmentFailed: It gives what is no time stamp of CLOCK_MONOTONIC.
        """
        clock, grid, cycles = self._clock, self.grid, self._cycles
        begun_ns = clock.now_ns()
        self._ready_ns = self._ready_ns or begun_ns
        due_ns = grid.deadline_ns(last_tick + 1)
        if cycles.kind == "wait":
            clock.prepare_for_ns(due_ns - cycles.offset_ns)
        else:
            clock.sleep_until_ns(due_ns)
        stamp_ns = cycles.next_ns(_SLICE_NS)
        if stamp_ns is None or stamp_ns < self._start_ns:
            self._silent_ns += max(0, clock.now_ns() - max(begun_ns, due_ns))
            if self._silent_ns > cycles.patience_ns:
                raise _silence(cycles, f"after tick {last_tick}" if grid.is_locked else "at the run's first tick")
            return False
        self._silent_ns = 0
        cycle = max(grid.cycle_of(stamp_ns), self._newest + 1) if grid.is_locked else last_tick + 1
        is_new, first = cycle > last_tick, max(last_tick + 1, grid.tick_at(self._ready_ns))
        lost = max(0, cycle - first) if grid.is_locked else 0
        # The grid as it was before this stamp, which is still to be filtered.
        on_grid = cycles.kind == "stamps" and grid.is_locked
        deadline_ns = grid.deadline_ns(cycle) if on_grid else stamp_ns + cycles.offset_ns
        error_ns = grid.follow(cycle, stamp_ns)
        self._newest = cycle
        if not is_new:  # the world was paused, and this cycle has been passed over
            return False
        tick = cycle
        if self._num_ticks is not None and last_tick + 1 < self._num_ticks:
            tick = min(cycle, self._num_ticks - 1)
        self._ready_ns = 0
        self._due = tick, deadline_ns
        self._deadlines[tick % _REMEMBERED_TICKS] = self._due
        self._on_cycle(error_ns, lost, self._mean_period.take(cycle, stamp_ns))
        return True

    def next_tick(self, last_tick: int, now_ns: int) -> TickPlan:
        """The tick of the cycle that `await_cycle` has found; waits for one if there is none."""
        while self._due[0] <= last_tick:
            self.await_cycle(last_tick)
        tick, deadline_ns = self._due
        return TickPlan(tick, deadline_ns, tick - last_tick - 1)

    def deadline_ns(self, tick: int) -> int:
        """When a past tick was due; of one that was skipped, is forgotten, or is to come, by the grid as it is now."""
        remembered, deadline_ns = self._deadlines[tick % _REMEMBERED_TICKS]
        return deadline_ns if remembered == tick else self.grid.deadline_ns(tick)

    def elapsed_ns(self, tick: int, at_ns: int) -> int:
        """From when `tick` was due to `at_ns`: a device's time does not stand still."""
        return at_ns - self.deadline_ns(tick)


def _silence(cycles: Cycles, when: str) -> EnvironmentHung:
    return EnvironmentHung(
        f"the world's clock is silent: {cycles.name}.{cycles.method} gave no cycle for "
        f"{cycles.patience_ns / NS_PER_S:g} s, {when}. Is the device on? Raise --env-timeout-s if it may be "
        "silent for longer"
    )
