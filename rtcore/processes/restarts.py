"""How often the places of a run may be filled again. Pure."""

from __future__ import annotations

from collections import Counter

#: Work that a process must have done since it was started, for its death to be a new misfortune and not the old one.
_ENOUGH_WORK = 10


class Restarts:
    """The restarts of one role: how many, why, and when it is enough.

    A process that dies again before it has done some work will go on doing so: after `allowed` such deaths in a row
    the run ends with a named error, instead of restarting it for ever and reporting success.
    """

    def __init__(self, allowed: int) -> None:
        self.by_place: Counter[int] = Counter()
        self.reasons: Counter[str] = Counter()
        self._allowed = allowed
        self._in_a_row: Counter[int] = Counter()
        self._work: dict[int, int] = {}

    @property
    def total(self) -> int:
        return self.by_place.total()

    def note(self, place: int, reason: str, work: int) -> bool:
        """A process died. `work`: what was done in this place so far (answers, updates). Whether to start another."""
        done = work - self._work.get(place, 0)
        if done < 0 or done >= _ENOUGH_WORK:  # less than before: the counts were begun anew meanwhile
            self._in_a_row[place] = 0
        self._work[place] = work
        if self._in_a_row[place] >= self._allowed:
            return False
        self._in_a_row[place] += 1
        self.by_place[place] += 1
        self.reasons[reason] += 1
        return True
