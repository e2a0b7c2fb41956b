"""Finds processes that hang: how long each has shown no sign of life, as seen by a process that checks now and then.

The time for which the checking process itself stood still (`docker pause`, SIGSTOP, a suspended or overloaded machine)
must not count: the others may have stood still, too. So its clock runs only while it checks.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from rtcore.clock import Clock

#: Of the time between two checks at most this counts. For the rest of a longer one the checking process stood still.
_LONGEST_STEP_NS = 500_000_000


@dataclass
class _Silence:
    kind: str
    sign: object
    since_ns: int


class Watchdog:
    """The clock of the process that checks, and the silence of each other. Call it several times in each limit."""

    def __init__(self, clock: Clock, longest_step_ns: int = _LONGEST_STEP_NS) -> None:
        self._clock = clock
        self._longest_step_ns = longest_step_ns
        self._looked_ns = clock.now_ns()
        self._awake_ns = 0
        self._silences: dict[Hashable, _Silence] = {}
        self._longest_ns: dict[str, int] = {}

    def now_ns(self) -> int:
        """Time for which the checking process ran. Each call is a check."""
        now_ns = self._clock.now_ns()
        self._awake_ns += max(0, min(now_ns - self._looked_ns, self._longest_step_ns))
        self._looked_ns = now_ns
        return self._awake_ns

    def silent_ns(self, process: Hashable, sign: object, kind: str = "") -> int:
        """How long `process` has shown the same sign of life (a heartbeat, a count). `kind`: what it is doing."""
        now_ns = self.now_ns()
        silence = self._silences.get(process)
        if silence is None or (silence.kind, silence.sign) != (kind, sign):
            if silence is not None:
                took_ns = now_ns - silence.since_ns
                self._longest_ns[silence.kind] = max(self._longest_ns.get(silence.kind, 0), took_ns)
            self._silences[process] = _Silence(kind, sign, now_ns)
            return 0
        return now_ns - silence.since_ns

    def longest_ns(self, kind: str) -> int:
        """The longest silence of this kind after which a sign of life came; 0: there was none."""
        return self._longest_ns.get(kind, 0)

    def forget(self, process: Hashable) -> None:
        """It was killed or replaced: its last silence does not count for `longest_ns`."""
        self._silences.pop(process, None)
