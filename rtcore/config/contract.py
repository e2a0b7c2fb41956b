"""What a run is required to keep, as a user says it: `acted>=0.999`, by the numbers of summary.json.

A condition is a key, a comparison and a number. Keys are the paths of summary.json, with dots between, and a short name
for each. Which they are is listed here, so that an unknown one is refused before anything starts; a test holds the list
against what a summary has. Whether a run keeps them is found in `rtcore.results.contract`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from fractions import Fraction
from functools import cache
from typing import Any, NamedTuple

from rtcore.errors import nearest
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS


class Nature(Enum):
    """How a number of the summary comes about, which says when a condition on it cannot be kept any more."""

    SHARE = "share"  #: good ones of all
    QUANTILE = "quantile"  #: such a share of all is not above it
    COUNT = "count"  #: never falls
    FIGURE = "figure"  #: any other: it may go either way up to the last tick


_QUANTILES = {
    "ticks.lateness_us": "p50 p90 p99 p999 max",
    "ticks.world_step_us": "p50 p99 max",
    "ticks.world_reset_ms": "p50 max",
    "actions.delay_ticks": "p50 p99 max",
    "actions.observation_age_ms": "p50 p99",
    "ipc_us.publish": "p50 p99 p999 max",
    "ipc_us.publish_to_read": "p50 p99 p999 max",
    "ipc_us.write_to_dispatch": "p50 p99 p999 max",
    "inference_ms": "p50 p99 max",
    "world_clock.phase_error_us": "p50 p99 max",
}
_COUNTS = {
    "ticks": "count overruns reset_overruns skipped stretched stretched_ms waited starved starvations",
    "ticks.garbage": "collections forced ms",
    "ticks.kinds": " ".join(KIND_COUNTERS),
    "actions": "jobs clipped altered human take_overs shield limited lost_requests explored skipped_starts "
    "delay_changes unknown_entries",
    "actions.outcomes": " ".join(OUTCOME_COUNTERS),
    "observations": "outside",
    "invariants": "broken",
    "world_clock": "cycles lost_cycles",
    "episodes": "count",
    "record": "lost_ticks lost_jobs",
    "": "restarts",
    "head": "inferences restarts policy_errors acted_ticks base_ticks",
    "learner": "updates checkpoints failed_checkpoints restarts yields yielded_s lapped_samples skipped_publications",
}
_FIGURES = {
    "ticks": "hz",
    "actions.interval_ticks": "mean cv",
    "actions.delay_ticks": "mean min",
    "episodes": "return_mean points points_per_1000_ticks",
    "": "startup_s",
    "world_clock": "cycle_hz drift_ppm",
    "learner": "updates_per_s loss td_error q_mean grad_norm epsilon best_return",
}
_SHARES = {"actions": "acted_fraction acted_fraction_of_all_ticks"}


def _paths(listed: Mapping[str, str]) -> Iterator[str]:
    for place, names in listed.items():
        yield from (f"{place}.{name}".removeprefix(".") for name in names.split())


#: Every key that a condition may name.
KEYS: dict[str, Nature] = {
    path: nature
    for nature, listed in (
        (Nature.SHARE, _SHARES),
        (Nature.QUANTILE, _QUANTILES),
        (Nature.COUNT, _COUNTS),
        (Nature.FIGURE, _FIGURES),
    )
    for path in _paths(listed)
}
#: And of each part of the observation that has time stamps, as `part_ages.NAME`, by the world's names.
PART_KEYS: dict[str, Nature] = {
    "age_ms.p50": Nature.QUANTILE,
    "age_ms.p99": Nature.QUANTILE,
    "age_ms.max": Nature.QUANTILE,
    "stale_ticks": Nature.COUNT,
    "hz": Nature.FIGURE,
}
_PART_AGES = "part_ages"
_OF_PART = re.compile(rf"{_PART_AGES}\.(?P<part>[^.]+)\.(?P<key>{'|'.join(map(re.escape, PART_KEYS))})")
_OF_A_DISTRIBUTION = ("p50", "p90", "p99", "p999", "max", "min", "mean")


def short_name(path: str) -> str:
    """ "ticks.lateness_us.p99" is lateness_p99_us, "ticks.kinds.missed" is missed."""
    *places, last = path.split(".")
    if path == "actions.acted_fraction":
        return "acted"
    if path == "ticks.kinds.acted":
        return "acted_ticks"
    if last == "cv":
        return "interval_cv"
    if last in _OF_A_DISTRIBUTION:
        name, _, unit = f"{places[-1]}_us".rpartition("_") if places[0] == "ipc_us" else places[-1].rpartition("_")
        return f"{name}_{last}_{unit}"
    if last == "count":
        return places[-1]
    return (
        f"{places[-1]}_{last}"
        if places and places[-1] in ("garbage", "observations", "invariants", "head", "learner")
        else last
    )


@cache
def short_names() -> dict[str, str]:
    """Paths by their short names."""
    return {short_name(path): path for path in KEYS}


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    ">": operator.gt,
    "<": operator.lt,
}
_NUMBER = r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONDITION = re.compile(rf"\s*(?P<key>[\w./-]+?)\s*(?P<sign>>=|<=|==|>|<)\s*(?P<number>{_NUMBER})\s*(?P<percent>%?)\s*")
#: Paths that a name may mean so that they are listed.
_MOST_MEANT = 4
_EXPECTED = "expected KEY>=NUMBER, or <=, >, <, ==, such as acted>=0.999 or lateness_p99_us<=50"


class Condition(NamedTuple):
    """A number of the summary, and what it must be."""

    text: str  #: as it was given, without spaces
    path: str  #: in summary.json
    sign: str
    bound: Fraction  #: exactly as it was written

    @property
    def nature(self) -> Nature:
        return _nature_of(self.path)

    @property
    def part(self) -> str:
        """The part of the observation that it is about; "": none."""
        found = _OF_PART.fullmatch(self.path)
        return found["part"] if found is not None else ""

    @property
    def is_ceiling(self) -> bool:
        """Less is better."""
        return self.sign in ("<=", "<")

    def holds(self, value: float | None) -> bool:
        """Whether the summary's number keeps it; what was not measured does not."""
        return value is not None and _COMPARISONS[self.sign](value, float(self.bound))

    @classmethod
    def parse(cls, text: str) -> Condition:
        """ValueError for what is none."""
        found = _CONDITION.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r}: {_EXPECTED}")
        path = _path_of(found["key"])
        bound = Fraction(found["number"].replace("_", "")) / (100 if found["percent"] else 1)
        is_share = _nature_of(path) is Nature.SHARE
        if found["percent"] and not is_share:
            raise ValueError(f"{text!r}: {found['key']} is no share; expected a number without %")
        if is_share and not 0 <= bound <= 1:
            raise ValueError(f"{text!r}: {found['key']} is a share of ticks; expected 0 to 1, or 0% to 100%")
        key = path if _OF_PART.fullmatch(path) else found["key"].replace("-", "_").lower()
        plain = f"{key}{found['sign']}{found['number']}{found['percent']}"
        return cls(plain, path, found["sign"], bound)


def _nature_of(path: str) -> Nature:
    found = _OF_PART.fullmatch(path)
    return KEYS[path] if found is None else PART_KEYS[found["key"]]


def _path_of(key: str) -> str:
    """The path that a key means: itself, a short name, or the end of one path alone."""
    if _OF_PART.fullmatch(key):
        return key
    if key.startswith(f"{_PART_AGES}."):
        raise ValueError(
            f"{key!r}: expected {_PART_AGES}.NAME.KEY, NAME the world's name of the part, KEY one of "
            f"{', '.join(PART_KEYS)}"
        )
    name = key.replace("-", "_").lower()
    if name in KEYS:
        return name
    if name in short_names():
        return short_names()[name]
    ends = [path for path in KEYS if path.endswith(f".{name}")]
    if len(ends) == 1:
        return ends[0]
    if 1 < len(ends) <= _MOST_MEANT:
        raise ValueError(f"{key!r} may be {' or '.join(ends)}: name one")
    guess = nearest(name, [*short_names(), *KEYS], "It has none of a similar name.")
    raise ValueError(
        f"there is no number {key!r} in a run's summary. {guess} There are {', '.join(short_names())}; and the paths "
        "of summary.json, such as ticks.lateness_us.p99"
    )


def parse_conditions(given: Any) -> tuple[str, ...]:
    """What a user says, as texts of one condition each: a text, a list of them, or a table of `key = ">=number"`.

    Raises:
        ValueError: One of them is no condition.
    """
    return tuple(Condition.parse(text).text for text in _texts(given))


def _texts(given: Any, place: str = "") -> Iterator[str]:
    if isinstance(given, Mapping):
        for key, value in given.items():
            yield from _texts(value, f"{place}.{key}".removeprefix("."))
    elif isinstance(given, (list, tuple)):
        for value in given:
            yield from _texts(value, place)
    elif isinstance(given, str):
        yield f"{place}{given}"
    else:
        what = f"{place} = {given!r}" if place else repr(given)
        raise ValueError(
            f'{what}: expected a comparison in quotes, such as "<={given!r}". In a file, what stands below [require] '
            "belongs to it: put that table last"
        )
