"""Finds processes that hang: how long each has shown no sign of life, as seen by a process that checks now and then.

The time for which the checking process itself stood still (`docker pause`, SIGSTOP, a suspended or overloaded machine)
must not count: the others may have stood still, too. So its clock runs only while it checks.

Nor must the time for which a process wanted a CPU and got none, if the caller says how to ask for it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple

from rtcore.clock import Clock

#: Of the time between two checks at most this counts. For the rest of a longer one the checking process stood still.
_LONGEST_STEP_NS = 500_000_000
#: How often a silent process's use of the CPU is asked for, at most.
_ASK_EVERY_NS = 100_000_000
#: How often it is asked for within the time that it may be silent. One that shows life more often costs nothing.
_ASKS = 10


class CpuUse(NamedTuple):
    """What the kernel says of a process at one moment."""

    is_runnable: bool  #: it computes, or waits for a CPU: it does not sleep, and is not stopped
    cpu_ns: int  #: CPU time that it got so far


@dataclass
class _Silence:
    kind: str
    sign: object
    since_ns: int
    asked_ns: int
    cpu: CpuUse | None = None
    starved_ns: int = 0

    def ask(self, now_ns: int, cpu: CpuUse | None) -> None:
        """Add what it was starved for since it was asked last: runnable then and now, less the CPU time it got."""
        if cpu is not None and self.cpu is not None and cpu.is_runnable and self.cpu.is_runnable:
            got_ns = cpu.cpu_ns - self.cpu.cpu_ns
            self.starved_ns = max(0, self.starved_ns + now_ns - self.asked_ns - got_ns)
        self.asked_ns, self.cpu = now_ns, cpu


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

    def silent_ns(
        self,
        process: Hashable,
        sign: object,
        kind: str = "",
        cpu_use: Callable[[], CpuUse | None] | None = None,
        limit_ns: int = 0,
    ) -> int:
        """How long `process` has shown the same sign of life (a heartbeat, a count). `kind`: what it is doing.

        `cpu_use`: of the process, asked for now and then; None: not known. Time for which it waited for a CPU does not
        count then: it may be slow, and is found to hang once it has slept or computed for so long. `limit_ns`: how long
        it may be silent, of which a tenth may pass before it is asked for.
        """
        now_ns = self.now_ns()
        silence = self._silences.get(process)
        if silence is None or (silence.kind, silence.sign) != (kind, sign):
            if silence is not None:
                took_ns = now_ns - silence.since_ns
                self._longest_ns[silence.kind] = max(self._longest_ns.get(silence.kind, 0), took_ns)
            self._silences[process] = _Silence(kind, sign, now_ns, asked_ns=now_ns)
            return 0
        if cpu_use is not None and now_ns - silence.asked_ns >= max(_ASK_EVERY_NS, limit_ns // _ASKS):
            silence.ask(now_ns, cpu_use())
        return now_ns - silence.since_ns - silence.starved_ns

    def longest_ns(self, kind: str) -> int:
        """The longest silence of this kind after which a sign of life came; 0: there was none."""
        return self._longest_ns.get(kind, 0)

    def forget(self, process: Hashable) -> None:
        """It was killed or replaced: its last silence does not count for `longest_ns`."""
        self._silences.pop(process, None)
