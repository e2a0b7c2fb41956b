"""Workers on the virtual clock: a heap of finishing times in the place of processes."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

from rtcore.clock import ManualClock
from rtcore.memory.counters import Histogram
from rtcore.memory.layout import FrameHeader
from rtcore.memory.ring import FrameRing
from rtcore.results.run_record import RunRecord
from rtcore.scheduling.jobs import Answer, Job


class Change(NamedTuple):
    """A worker that goes (`up` False) or comes back at a tick: a simulated fault."""

    tick: int
    worker: int
    up: bool


class Inference(NamedTuple):
    """What came of one inference: the action's bytes, how long it took, the weights' version and CRC-32."""

    actions: bytes
    tau_ns: int
    payload: bytes = b""
    abstained: int = 0
    version: int = 0
    checksum: int = 0
    clipped: int = 0
    explored: int = 0


class Cycle(Protocol):
    """Learning that is part of a worker's turn: the paper's two sequential agents. Virtual time it takes [ns]."""

    def before_inference(self, now_ns: int) -> int:
        """Between reading a frame and inferring (learn-then-infer)."""
        ...

    def after_answer(self, now_ns: int) -> int:
        """After the answer, before the next frame is read (infer-then-learn)."""
        ...


class SimulatedWorkers:
    """Implements `tickloop.Workers`. `infer(number, frame_seq, job)` does job `number` on a frame that is published.

    A job starts when its frame is published, or, where its worker is still learning then, when that is over: it uses
    the newest frame of that time. `ring`: where frames go; None where nothing reads them.
    """

    def __init__(
        self,
        clock: ManualClock,
        infer: Callable[[int, int, Job], Inference],
        record: RunRecord,
        *,
        num_workers: int,
        changes: Sequence[Change] = (),
        ring: FrameRing | None = None,
        cycle: Cycle | None = None,
        head: int = -1,
    ) -> None:
        """`head`: index of the worker that is the head, which learns nothing; -1: there is none."""
        self._head = head
        num_workers = max(num_workers, head + 1)
        self.inference = [Histogram() for _ in range(num_workers)]
        self.inferences = [0] * num_workers
        self._clock = clock
        self._infer = infer
        self._record = record
        self._ring = ring
        self._cycle = cycle
        self._changes = sorted(changes)
        self._head_is_known = False
        self._tick = -1
        self._frame_seq = -1
        self._frame_tick = -1
        self._frame_ns = 0
        self._episode = 0
        self._booked = 0
        self._done: list[tuple[int, int, Job, Answer]] = []
        self._generation = [0] * num_workers
        #: Jobs whose worker is still learning: (when that is over, generation, job, when it was booked).
        self._waiting: list[tuple[int, int, Job, int]] = []
        self._free_ns = [0] * num_workers

    @property
    def next_frame_seq(self) -> int:
        return self._frame_seq + 1

    def collect(self, tick: int) -> Iterable[tuple[Job, Answer]]:
        self._tick = tick
        found, now_ns = [], self._clock.now_ns()
        if self._waiting:
            self._start_waiting(before_ns=now_ns)
        while self._done and self._done[0][0] <= now_ns:
            end_ns, order, job, answer = heapq.heappop(self._done)
            worker = job.worker
            if order >> 32 == self._generation[worker]:
                found.append((job, answer))
                if self._cycle is not None and worker != self._head:
                    self._free_ns[worker] = end_ns + self._cycle.after_answer(end_ns)
        return found

    def membership(self) -> Iterable[tuple[int, bool]]:
        changes = []
        if self._head >= 0 and not self._head_is_known:
            self._head_is_known = True
            changes.append((self._head, True))
        while self._changes and self._changes[0].tick <= self._tick:
            change = self._changes.pop(0)
            if not change.up:
                self._generation[change.worker] += 1
                self._free_ns[change.worker] = 0
            changes.append((change.worker, change.up))
        return changes

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        """Nothing to wake: `announce` comes at the same virtual instant."""

    def stage(self, header: Any) -> None:
        """Nothing to do ahead."""

    def publish(self, frame: Any, draft: Any, action: bytes, kept: bytes = b"") -> None:
        header: FrameHeader = draft.record()
        self._frame_seq = header.frame_seq
        self._frame_tick, self._frame_ns, self._episode = header.tick, header.publish_ns, header.episode
        requested = stamps = None
        if self._ring is not None:
            self._ring.publish(frame, header, action, kept)
            requested, stamps = self._ring.read_requested(seq := header.frame_seq), self._ring.read_stamps(seq)
        self._record.add_tick(header, action, requested, stamps)

    def prewake(self, worker: int) -> None:
        """Waking takes no virtual time."""

    def announce(self, jobs: Sequence[Job]) -> None:
        now_ns = self._clock.now_ns()
        if self._waiting:
            self._start_waiting(before_ns=now_ns + 1)
        for job in jobs:
            free_ns = self._free_ns[job.worker]
            if free_ns > now_ns:
                self._waiting.append((free_ns, self._generation[job.worker], job, now_ns))
            else:
                self._start(job, now_ns, now_ns)

    def _start_waiting(self, before_ns: int) -> None:
        """Start the jobs whose worker has finished learning by now. They use the newest frame of that time."""
        waiting, self._waiting = self._waiting, []
        for free_ns, generation, job, booked_ns in waiting:
            if generation != self._generation[job.worker]:
                continue
            if free_ns < before_ns:
                self._start(job, booked_ns, free_ns)
            else:
                self._waiting.append((free_ns, generation, job, booked_ns))

    def _start(self, job: Job, booked_ns: int, start_ns: int) -> None:
        worker = job.worker
        began_ns = start_ns
        if self._cycle is not None and worker != self._head:
            began_ns += self._cycle.before_inference(start_ns)
        done = self._infer(self._booked, self._frame_seq, job)
        end_ns = began_ns + done.tau_ns
        answer = Answer(
            obs_tick=self._frame_tick,
            due_tick=job.due_tick,
            episode=self._episode,
            frame_seq=self._frame_seq,
            frame_publish_ns=self._frame_ns,
            start_ns=start_ns,
            read_ns=start_ns,
            infer_end_ns=end_ns,
            write_ns=end_ns,
            policy_version=done.version,
            policy_checksum=done.checksum,
            clipped=done.clipped,
            explored=done.explored,
            abstained=done.abstained,
            actions=done.actions,
            payload=done.payload,
        )
        # Of two that end at the same time the older booking comes first. The upper half is the generation.
        order = (self._generation[worker] << 32) + self._booked
        heapq.heappush(self._done, (end_ns, order, job._replace(booked_ns=booked_ns), answer))
        self.inference[worker].add(done.tau_ns)
        self.inferences[worker] += 1
        self._booked += 1
