"""Transports taking turns: one set of reader processes for all of them, in blocks, in one run.

A bad moment of the machine then hits all transports alike, and a reader that spins does so only in its own turn:
outside it, its process waits for the next command.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from rtcore.clock import MonotonicClock
from rtcore.errors import RtcoreError
from rtcore.profile.children import AnsweringProcesses, Placement, put
from rtcore.profile.transports import PATIENCE_S, Frame, Opener, OwnReaders, Receive, Rhythm, Transport
from rtcore.realtime import wake_soon

#: Frames in a row through one transport. The first one, which finds everything as the last transport left it, is
#: not counted.
BLOCK = 25
_ANSWER = "/answer"
#: For the fork server: readers then start with everything imported.
PRELOAD = ("rtcore.profile.session", "rtcore_workers.inference", "rtcore_workers.policies")


@dataclass
class MeasuredTimes:
    """All times in ns. `latencies`: over all readers. `slots`: of answers on their way back.

    `visible`: of the costs, the part until every reader can see the frame; empty where the two cannot be told apart.
    `booked`: what posting the jobs and waking their workers cost before the world's step; empty for others than rtcore.
    `missed`: frames that a reader never saw, because the next one was there first. `preempted`: how often a reader
    was pushed off its CPU while it was its turn; None where it cannot be known.
    """

    latencies: list[int] = field(default_factory=list)
    costs: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    visible: list[int] = field(default_factory=list)
    booked: list[int] = field(default_factory=list)
    missed: int = 0
    preempted: int | None = None


def _serve(commands: Connection, openers: dict[str, Opener], cpus: frozenset[int]) -> None:
    """A reader process: on its CPUs, opens every transport's end, receives what it is told to."""
    put(0, cpus)
    wake_soon()
    receives: dict[str, Receive] = {}
    failures = {}
    for name, opener in openers.items():
        try:
            receives[name] = opener.function(*opener.arguments)
        except Exception as error:  # whatever another library raises: said by name, the others go on
            failures[name] = f"{type(error).__name__}: {error}"
    commands.send((None, failures))
    while (command := commands.recv()) is not None:
        name, count = command
        commands.send((None, "ready"))
        try:
            before = _preemptions()
            times = receives[name](count)
            commands.send((None, (times, _preemptions() - before)))
        except Exception as error:
            commands.send((RtcoreError(f"{name}: a reader failed: {type(error).__name__}: {error}"), None))


def _preemptions() -> int:
    """How often this process lost its CPU while it could have gone on."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


class TransportFailed(Exception):
    """An optional transport gave up in its turn. Where the readers stand is not known: the session is over."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name
        self.why = why


class Session:
    """The transports of one frame size and number of readers. Closes them, also after a failure.

    `optional`: names of those that may fail, with whatever another library raises.
    """

    def __init__(self, readers: int, placement: Placement, optional: Collection[str] = ()) -> None:
        self.transports: list[Transport] = []
        self.samples: dict[str, MeasuredTimes] = {}
        self._num_readers = readers
        self._placement = placement
        self._optional = optional
        self._readers: AnsweringProcesses | None = None
        self._failed = ""

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        if self._readers is not None:
            self._readers.close(grace_s=2.0)
        with ExitStack() as stack:  # all are closed, also where one cannot be
            for transport in self.transports:
                stack.callback(self._close, transport)

    def open(self, makers: Mapping[str, Callable[[], Transport]]) -> dict[str, str]:
        """Make the transports and start the readers; returns why which of the optional ones cannot be used."""
        failures: dict[str, str] = {}
        for name, make in makers.items():
            with self._noting(name, failures):
                transport = make()
                self.transports.append(transport)
                transport.place(self._placement)
        calls = [(self._openers(reader), self._placement.readers) for reader in range(self._num_readers)]
        self._readers = AnsweringProcesses("reader", _serve, calls)
        for failed in self._readers.hear(60.0):
            failures |= {name.removesuffix(_ANSWER): why for name, why in failed.items()}
        for transport in self.transports:
            if transport.name not in failures:
                with self._noting(transport.name, failures):
                    transport.connect()
        for name, why in failures.items():
            if name not in self._optional:
                raise RtcoreError(f"{name}: a reader could not be connected: {why}")
        for transport in [one for one in self.transports if one.name in failures]:
            self.transports.remove(transport)
            transport.close()
        self.samples = {transport.name: MeasuredTimes() for transport in self.transports}
        return failures

    def run(self, blocks: int, frame: Frame, rhythm: Rhythm) -> Iterable[str]:
        """Turns of `BLOCK` frames; yields the name of the transport whose turn is over.

        `TransportFailed` if an optional one does not get through its turn.
        """
        for _ in range(blocks):
            for transport in self.transports:
                failures: dict[str, str] = {}
                with self._noting(transport.name, failures):
                    self._take_turn(transport, frame, rhythm)
                    if transport.answerer(0) is not None:
                        self._take_answers(transport, rhythm)
                for name, why in failures.items():
                    self._failed = name
                    raise TransportFailed(name, why)
                yield transport.name

    @contextmanager
    def _noting(self, name: str, failures: dict[str, str]) -> Iterator[None]:
        """What an optional transport raises is noted."""
        try:
            yield
        except Exception as error:
            if name not in self._optional:
                raise
            failures[name] = f"{type(error).__name__}: {error}"

    def _close(self, transport: Transport) -> None:
        try:
            transport.close()
        except Exception:  # of one that has failed before, and been said to have
            if transport.name != self._failed:
                raise

    def _openers(self, reader: int) -> dict[str, Opener]:
        found = {}
        for transport in self.transports:
            for suffix, opener in (("", transport.opener(reader)), (_ANSWER, transport.answerer(reader))):
                if opener is not None:
                    found[transport.name + suffix] = opener
        return found

    def _take_turn(self, transport: Transport, frame: Frame, rhythm: Rhythm) -> None:
        samples = self.samples[transport.name]
        if isinstance(transport, OwnReaders):
            transport.begin(BLOCK)
            costs = transport.run_block(BLOCK, frame, rhythm)
            received = transport.collect()
        else:
            readers = self._begin(transport.name)
            costs = transport.run_block(BLOCK, frame, rhythm)
            answers = readers.hear((BLOCK + 1) * PATIENCE_S)
            received = [latencies for latencies, _ in answers]
            samples.preempted = (samples.preempted or 0) + sum(preempted for _, preempted in answers)
        samples.costs += costs[1:]
        samples.visible += transport.visible_ns[1:]
        transport.visible_ns.clear()
        samples.booked += transport.booked_ns[1:]
        transport.booked_ns.clear()
        for latencies in received:
            samples.latencies += latencies[1:]
            samples.missed += BLOCK - len(latencies)

    def _take_answers(self, transport: Transport, rhythm: Rhythm) -> None:
        readers, clock = self._begin(transport.name + _ANSWER), MonotonicClock()
        found = []
        for _ in range(BLOCK):
            clock.sleep_until_ns(clock.now_ns() + rhythm.gap_ns)
            found.append(transport.ask())
        readers.hear((BLOCK + 1) * PATIENCE_S)
        for latencies in found[1:]:
            self.samples[transport.name].slots += latencies

    def _begin(self, name: str) -> AnsweringProcesses:
        """Every reader is about to receive the next block through the transport; then it says how that went."""
        if self._readers is None:
            raise RtcoreError("the session's readers are not started; call open() first")
        self._readers.tell((name, BLOCK))
        self._readers.hear(PATIENCE_S)
        return self._readers
