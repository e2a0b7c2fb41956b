"""Notices a worker that answers with old weights although new ones are published. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from rtcore.clock import NS_PER_S

#: A worker is behind if for so long ...
_LIMIT_NS = 5 * NS_PER_S
#: ... it has answered with the same version, and so many newer ones are out.
_VERSIONS = 3


class WorkerVersion(NamedTuple):
    """What a worker says of itself: the version it used last, and how often it has answered."""

    worker: int
    version: int
    inferences: int


class VersionWatch:
    """Call `look` now and then. `behind`: workers that were ever found to be behind."""

    def __init__(self) -> None:
        self.behind: set[int] = set()
        self._since: dict[int, tuple[int, int, int]] = {}

    def look(self, now_ns: int, newest: int, workers: Iterable[WorkerVersion]) -> list[WorkerVersion]:
        """Workers that are behind and were not before. `newest`: the version that is published."""
        found = []
        for seen in workers:
            version, since_ns, inferences = self._since.get(seen.worker, (-1, 0, 0))
            if seen.version != version or newest - seen.version < _VERSIONS:
                self._since[seen.worker] = (seen.version, now_ns, seen.inferences)
                continue
            # An idle worker has nothing to use new weights for.
            has_answered = seen.inferences != inferences
            if has_answered and now_ns - since_ns >= _LIMIT_NS and seen.worker not in self.behind:
                self.behind.add(seen.worker)
                found.append(seen)
        return found
