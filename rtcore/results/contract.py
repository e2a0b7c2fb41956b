"""Whether a run keeps what is required of it, since when it does not, and how much of what is allowed is used up.

A condition is judged by the run's summary: at the end its numbers decide, exactly as they stand in summary.json.
While the run goes on, what the rows tell is followed tick by tick; the other numbers are looked at now and then.

The contract breaks while the run goes on once a condition cannot be kept any more, whatever comes: 4 ticks missed of at
most 3; or so many, in a run of 10,000 ticks that has to act on 99.9% of them, that it would not do even if it missed
none of the others. So it needs no warm-up: a first tick that is missed is one of those that are allowed. A run without
an end is taken for one of as many ticks as it has had, and at least as many as allow one to be missed: 1,000 for 99.9%.

Nothing of this happens in the env process.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US
from rtcore.config.contract import Condition, Nature
from rtcore.config.resolved import ResolvedRun
from rtcore.errors import ConfigError, ContractBroken
from rtcore.memory.layout import FrameHeader
from rtcore.results.folder import number_at
from rtcore.scheduling.dispatch import KIND_COUNTERS, TickKind
from rtcore.spaces.parts import Part

_log = logging.getLogger(__name__)

#: What a tick adds to a distribution, in its own unit, and how many of these are one of the summary's.
_SAMPLES: dict[str, tuple[Callable[[FrameHeader], int | None], int]] = {
    "ticks.lateness_us": (lambda row: row.start_ns - row.deadline_ns, NS_PER_US),
    "ticks.world_step_us": (lambda row: None if row.kind == TickKind.RESET else row.step_ns, NS_PER_US),
    "ticks.world_reset_ms": (lambda row: row.step_ns if row.kind == TickKind.RESET else None, NS_PER_MS),
    "actions.delay_ticks": (lambda row: row.tick - row.obs_tick if row.kind == TickKind.ACTED else None, 1),
}
_POSSIBLE = (TickKind.ACTED, TickKind.MISSED, TickKind.IDLE)
#: Whether a tick is good; None: it does not count.
_GOOD: dict[str, Callable[[FrameHeader], bool | None]] = {
    "actions.acted_fraction": lambda row: row.kind == TickKind.ACTED if row.kind in _POSSIBLE else None,
    "actions.acted_fraction_of_all_ticks": lambda row: row.kind == TickKind.ACTED,
}


def _ticks_of(kind: TickKind) -> Callable[[FrameHeader], int]:
    return lambda row: int(row.kind == kind)


#: What a tick adds to a count.
_COUNTED: dict[str, Callable[[FrameHeader], int]] = {
    "ticks.skipped": lambda row: row.skipped_ticks,
    **{f"ticks.kinds.{name}": _ticks_of(TickKind[name.upper()]) for name in KIND_COUNTERS},
}
_QUANTILES = {"p50": Fraction(1, 2), "p90": Fraction(9, 10), "p99": Fraction(99, 100), "p999": Fraction(999, 1000)}


class Since(NamedTuple):
    """A tick, and how long after the start of the first one it began [s]."""

    tick: int
    elapsed_s: float


class ConditionState(NamedTuple):
    """How a condition stands at a moment of the run."""

    condition: Condition
    #: Of what it allows over the whole run, so much is used up: 1 is all. NaN where that says nothing.
    used: float = math.nan
    since: Since | None = (
        None  #: the numbers up to each tick from there on do not keep it; None: they do, or nobody knows
    )
    is_exact: bool = False  #: that tick is known from the rows: else it is the first at which somebody looked
    is_lost: bool = False  #: whatever comes, it cannot be kept any more


class _Watch:
    """One condition. `see`: each tick, in order. `look`: now and then, the number itself."""

    follows_rows = False

    def __init__(self, condition: Condition, num_ticks: int) -> None:
        """`num_ticks`: of the whole run; 0: it has no end."""
        self.condition = condition
        self._num_ticks = num_ticks
        self._since: Since | None = None
        self._is_lost = False
        self._used = math.nan

    def see(self, row: FrameHeader, elapsed_s: float) -> None:
        """Nothing, where the rows do not tell."""

    def look(self, value: float | None, now: Since) -> None:
        if value is None:
            return
        condition, bound = self.condition, float(self.condition.bound)
        holds = condition.holds(value)
        self._since = None if holds else self._since or now
        never_falls = condition.nature is Nature.COUNT or condition.path.endswith(".max")
        if never_falls and condition.sign not in (">=", ">"):
            self._used = value / bound if bound else math.inf if value else 0.0
            self._is_lost = not holds and value >= bound

    def end(self, num_ticks: int) -> None:
        """The run is over, after so many ticks."""
        self._num_ticks = num_ticks

    def state(self) -> ConditionState:
        """How it stands."""
        return ConditionState(self.condition, self._used, self._since, self.follows_rows, self._is_lost)

    def _note(self, holds: bool, row: FrameHeader, elapsed_s: float) -> None:
        if holds:
            self._since = None
        elif self._since is None:
            self._since = Since(row.tick, elapsed_s)


class _ShareWatch(_Watch):
    """So many of all have to be good: acted, of the ticks that could; within a bound, of the samples."""

    follows_rows = True

    def __init__(
        self,
        condition: Condition,
        num_ticks: int,
        good: Callable[[FrameHeader], bool | None],
        share: Fraction,
        or_more: bool,
    ) -> None:
        super().__init__(condition, num_ticks)
        self._is_good = good
        self._or_more = or_more
        self._share = share
        # Whole numbers: no rounding may decide, and they are quick.
        self._numerator, self._denominator = share.numerator, share.denominator
        self._good = self._all = self._tick = 0

    def see(self, row: FrameHeader, elapsed_s: float) -> None:
        good = self._is_good(row)
        self._tick = row.tick
        if good is None:
            return
        self._good += good
        self._all += 1
        if not good or self._since is not None:
            self._note(self._holds(0), row, elapsed_s)

    def _holds(self, more_good: int) -> bool:
        good, needed = (self._good + more_good) * self._denominator, (self._all + more_good) * self._numerator
        return good >= needed if self._or_more else good > needed

    def state(self) -> ConditionState:
        to_come = self._num_ticks - self._tick - 1
        if not self._num_ticks:
            least = math.ceil(1 / (1 - self._share)) if self._share < 1 else 1
            to_come = max(0, least - self._all)
        self._is_lost = self._since is not None and not self._holds(max(0, to_come))
        bad, allowed = self._all - self._good, float((1 - self._share) * (self._all + max(0, to_come)))
        self._used = bad / allowed if allowed else math.inf if bad else 0.0
        return super().state()


class _CountWatch(_Watch):
    """At most so many."""

    follows_rows = True

    def __init__(self, condition: Condition, num_ticks: int, counted: Callable[[FrameHeader], int]) -> None:
        super().__init__(condition, num_ticks)
        self._counted = counted
        self._count = 0

    def see(self, row: FrameHeader, elapsed_s: float) -> None:
        if more := self._counted(row):
            self._count += more
            self._note(self.condition.holds(self._count), row, elapsed_s)

    def state(self) -> ConditionState:
        self._is_lost, bound = self._since is not None, float(self.condition.bound)
        self._used = self._count / bound if bound > 0 else math.inf if self._count else 0.0
        return super().state()


def _watch_of(condition: Condition, num_ticks: int, *, rows: bool) -> _Watch:
    """By the rows, where they tell."""
    place, _, last = condition.path.rpartition(".")
    is_ceiling = condition.is_ceiling or (condition.sign == "==" and not condition.bound)
    if rows and condition.nature is Nature.COUNT and is_ceiling and condition.path in _COUNTED:
        return _CountWatch(condition, num_ticks, _COUNTED[condition.path])
    if rows and condition.nature is Nature.SHARE and condition.sign in (">=", ">"):
        good, or_more = _GOOD[condition.path], condition.sign == ">="
        return _ShareWatch(condition, num_ticks, good, condition.bound, or_more)
    if rows and condition.nature is Nature.QUANTILE and condition.is_ceiling and place in _SAMPLES:
        return _ShareWatch(condition, num_ticks, _within(condition, place), _QUANTILES.get(last, Fraction(1)), True)
    return _Watch(condition, num_ticks)


def _within(condition: Condition, place: str) -> Callable[[FrameHeader], bool | None]:
    sample, unit = _SAMPLES[place]
    ceiling, or_equal = float(condition.bound * unit), condition.sign == "<="

    def good(row: FrameHeader) -> bool | None:
        value = sample(row)
        if value is None:
            return None
        return value <= ceiling if or_equal else value < ceiling

    return good


class Contract:
    """What a run has to keep, while it goes on and at its end. One thread feeds it; any may ask for `states`."""

    def __init__(
        self,
        conditions: Sequence[Condition],
        num_ticks: int,
        on_broken: Callable[[ContractBroken], None] | None = None,
        *,
        rows: bool = True,
    ) -> None:
        """
        Args:
            conditions: All of them have to be kept.
            num_ticks: Of the whole run; 0: it has no end.
            on_broken: Told once that it is broken; what it raises is raised by `follow` and `finish`.
            rows: `see` gets every tick from the first one on. False: only `look` is called.
        """
        self._watches = [_watch_of(condition, num_ticks, rows=rows) for condition in conditions]
        self._by_row = [watch for watch in self._watches if watch.follows_rows]
        self._by_look = [watch for watch in self._watches if not watch.follows_rows]
        self._on_broken = on_broken
        self._is_told = False
        self._first_start_ns = -1
        self._now = Since(0, 0.0)

    def see(self, row: FrameHeader) -> None:
        """A tick, in order."""
        if self._first_start_ns < 0:
            self._first_start_ns = row.start_ns
        self._now = now = Since(row.tick, (row.start_ns - self._first_start_ns) / NS_PER_S)
        for watch in self._by_row:
            watch.see(row, now.elapsed_s)

    @property
    def needs_looks(self) -> bool:
        """Whether some of it is not told by the rows."""
        return bool(self._by_look)

    def look(self, number: Callable[[str], float | None]) -> None:
        """Ask for the numbers that the rows do not tell, by their paths in the summary."""
        for watch in self._by_look:
            watch.look(number(watch.condition.path), self._now)

    def states(self) -> tuple[ConditionState, ...]:
        """How each condition stands."""
        return tuple(watch.state() for watch in self._watches)

    def follow(self) -> None:
        """Say so, once, if something cannot be kept any more."""
        if not self._is_told and (lost := [state for state in self.states() if state.is_lost]):
            self._tell([f"{one.condition.text}: cannot be kept any more{_since_text(one)}" for one in lost])

    def end(self) -> None:
        """No tick comes any more: what is allowed is that of the ticks that were."""
        for watch in self._watches:
            watch.end(self._now.tick + 1)

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Judge the run that is over by its summary. ContractBroken, if there is nobody to be told."""
        if not (broken := broken_in(summary)):
            return
        if not self._is_told:
            self._tell(broken)
        if self._on_broken is None:
            raise ContractBroken(broken)

    def _tell(self, conditions: list[str]) -> None:
        self._is_told = True
        broken = ContractBroken(conditions)
        _log.warning(str(broken))
        if self._on_broken is not None:
            self._on_broken(broken)


def contract_of(
    run: ResolvedRun, on_broken: Callable[[ContractBroken], None] | None, stamped: Sequence[Part] = ()
) -> Contract | None:
    """What this run has to keep; None: nothing was required.

    Args:
        run: With its settings.
        on_broken: See `Contract`.
        stamped: The parts of the observation that have time stamps.

    Raises:
        ConfigError: A condition is about another part than these.
    """
    conditions, parts = run.config.contract.conditions, [part.name for part in stamped]
    for condition in conditions:
        if condition.part not in ("", *parts):
            raise ConfigError(
                f"require: {condition.text}: of {condition.part!r} no age is known; the world gives time stamps of "
                f"{', '.join(parts) or 'no part'}"
            )
    return Contract(conditions, run.num_ticks if run.ends_by_itself else 0, on_broken) if conditions else None


def judge(states: Sequence[ConditionState], summary: Mapping[str, Any]) -> dict[str, Any]:
    """The content of summary.json's `contract`, by the numbers of that summary.

    Args:
        states: Of all conditions, at the same moment.
        summary: All the rest of it.
    """
    judged = [_judged(state, number_at(summary, *state.condition.path.split("."))) for state in states]
    return {"kept": all(one["kept"] for one in judged), "conditions": judged}


def _judged(state: ConditionState, value: float | None) -> dict[str, Any]:
    kept = state.condition.holds(value)
    since, text = None if kept else state.since, state.condition.text
    shown = "" if kept else _since_text(state)
    came_to = "there is no such number, nothing was measured" if value is None else f"{value:g}"
    return {
        "require": text,
        "key": state.condition.path,
        "value": value,
        "kept": kept,
        "broken": None if kept else f"{text}: {came_to}{shown}",
        "used": round(state.used, 6) if math.isfinite(state.used) else None,
        "since_tick": since.tick if since is not None else None,
        "since_s": round(since.elapsed_s, 6) if since is not None else None,
        "since_is_exact": state.is_exact if since is not None else None,
    }


def broken_in(summary: Mapping[str, Any]) -> list[str]:
    """A sentence for each condition that the run of this summary, which may come from a file, does not keep."""
    contract = summary.get("contract")
    judged = contract.get("conditions") if isinstance(contract, Mapping) else None
    return [str(one["broken"]) for one in judged or () if isinstance(one, Mapping) and one.get("broken")]


def _since_text(state: ConditionState) -> str:
    if state.since is None:
        return ""
    when = f"tick {state.since.tick:,} ({state.since.elapsed_s:.1f} s)"
    return f", since {when}" if state.is_exact else f", seen at {when} first"
