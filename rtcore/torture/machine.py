"""A made-up machine: time that passes event by event, and processes that are what is due to happen to them.

One heap holds all that will happen. Whoever sleeps or computes lets it happen up to a time; so whatever runs elsewhere
meanwhile, within a tick too, happens in the order in which a machine would do it.
"""

from __future__ import annotations

import heapq
import signal
from collections.abc import Callable
from dataclasses import dataclass

from rtcore.memory.layout import SLOT_ENTRY, FrameHeader
from rtcore.memory.ring import ReadStatus
from rtcore.memory.shared import SharedRun
from rtcore.messages import WorkerReady
from rtcore.processes.launcher import Child
from rtcore.scheduling.jobs import Answer, Job

#: How long an idle process sleeps if nobody wakes it (`rtcore.memory.waiting`).
IDLE_BEAT_NS = 200_000_000
#: So much of a freeze counts as time in which nothing happened (`rtcore.host.watchdog`).
NOTICED_NS = 500_000_000
Happens = Callable[[], object]


class Machine:
    """Its time, and what is due. Implements `Clock`, for everybody but the tick loop.

    `stands_until_ns`: the clock that everybody reads stands still meanwhile.
    """

    def __init__(self) -> None:
        self.true_ns = 0
        self.frozen_ns = 0  #: for so long nothing ran, all in all
        self._unnoticed_ns = 0
        self._stands_from_ns = self.stands_until_ns = 0
        self._heap: list[tuple[int, int, bool, Happens]] = []
        self._order = 0

    def now_ns(self) -> int:
        return self._stands_from_ns if self.true_ns < self.stands_until_ns else self.true_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        """Until the clock says so: it may begin to stand still meanwhile."""
        if self.true_ns >= self.stands_until_ns and self._is_quiet_until(deadline_ns):
            self.true_ns = max(self.true_ns, deadline_ns)
            return
        while self.now_ns() < deadline_ns:
            self.pass_until(
                max(deadline_ns, self.stands_until_ns) if self.true_ns < self.stands_until_ns else deadline_ns
            )

    def at(self, when_ns: int, happens: Happens, *, works: bool = False) -> None:
        """`works`: it is the end of a computation, which a frozen machine delays by as long as it is frozen."""
        self._order += 1
        heapq.heappush(self._heap, (max(when_ns, self.true_ns), self._order, works, happens))

    def after(self, delay_ns: int, happens: Happens, *, works: bool = False) -> None:
        self.at(self.true_ns + delay_ns, happens, works=works)

    def _is_quiet_until(self, until_ns: int) -> bool:
        """Nothing happens before that."""
        return not self._heap or self._heap[0][0] > until_ns

    def pass_until(self, until_ns: int) -> None:
        """Everything up to a time happens."""
        heap = self._heap
        while heap and heap[0][0] <= until_ns:
            when_ns, _, _, happens = heapq.heappop(heap)
            self.true_ns = max(self.true_ns, when_ns)
            happens()
        self.true_ns = max(self.true_ns, until_ns)

    def compute(self, took_ns: int) -> None:
        """Somebody computes for so long; while the machine is frozen he does not."""
        end_ns, before_ns = self.true_ns + took_ns, self.frozen_ns
        if self._is_quiet_until(end_ns):
            self.true_ns = end_ns
            return
        while self._heap and self._heap[0][0] <= end_ns + self.frozen_ns - before_ns:
            self.pass_until(self._heap[0][0])
        self.true_ns = max(self.true_ns, end_ns + self.frozen_ns - before_ns)

    def freeze(self, for_ns: int) -> None:
        """Nothing runs for so long, and nobody notices but by the time."""
        end_ns = self.true_ns + for_ns
        self._heap[:] = [
            (when + for_ns if works else max(when, end_ns), order, works, happens)
            for when, order, works, happens in self._heap
        ]
        heapq.heapify(self._heap)
        self.frozen_ns += for_ns
        self._unnoticed_ns += max(0, for_ns - NOTICED_NS)
        self.true_ns = end_ns

    def stop_clock(self, for_ns: int) -> None:
        """It goes on where it would have been."""
        if self.true_ns >= self.stands_until_ns:
            self._stands_from_ns, self.stands_until_ns = self.true_ns, self.true_ns + for_ns

    @property
    def awake_ns(self) -> int:
        """Time for which the machine was not frozen."""
        return self.true_ns - self.frozen_ns

    @property
    def running_ns(self) -> int:
        """The same, as well as it can be told: of a freeze, what looks like time in which nothing happened."""
        return self.true_ns - self._unnoticed_ns


class Process(Child):
    """A worker's process as its supervisor sees it. `on_kill`: a signal was sent to it."""

    on_kill: Callable[[], object]

    def kill(self, signum: int = signal.SIGKILL) -> None:
        if self.exitcode is None:
            self.on_kill()

    def cpu_use(self) -> None:
        """Not known: the kernel's process of this number is another one."""


@dataclass(frozen=True)
class Inference:
    """What a job of a worker comes to."""

    took_ns: int
    actions: bytes
    payload: bytes
    version: int
    checksum: int
    abstained: int


class Worker:
    """The other end of jobs and slots: what `rtcore_workers.inference` does, event by event.

    `infer(worker, job, header)`: what comes of a job. `on_answer(worker, job, answer)`: it is in the slot.
    """

    def __init__(
        self,
        machine: Machine,
        shared: SharedRun,
        process: Process,
        infer: Callable[[int, Job, FrameHeader], Inference],
        on_answer: Callable[[Job, Answer], object],
    ) -> None:
        self.process, self.index, self.generation = process, process.index, process.generation
        self.is_alive, self.is_ready, self.is_stopped, self.is_deaf = True, False, False, False
        self.slowness = 1.0
        self.dies_while_writing = False
        #: Since when it does what it does, of the machine's running time.
        self.since_ns = machine.running_ns
        self._machine, self._shared = machine, shared
        self._infer, self._on_answer = infer, on_answer
        self._status = shared.worker_status[self.index]
        self._job_seen = shared.jobs.newest(self.index)
        self._waits_for: Job | None = None  # for its frame
        self._start_ns = 0
        self._finish: Happens | None = None
        self._left_ns = self._due_ns = 0
        self._number = 0  # of its computation, so that one that was broken off never ends

    @property
    def is_well(self) -> bool:
        """Nothing is wrong with it, and nothing is to come."""
        wrong = self.is_stopped or self.is_deaf or self.dies_while_writing or self.slowness != 1
        return self.is_alive and self.is_ready and not wrong

    @property
    def state(self) -> str:
        """In a word, for the coverage of states."""
        if not self.is_alive:
            return "dead"
        if not self.is_ready:
            return "starting"
        doing = "computing" if self._finish is not None else "waiting for a frame" if self._waits_for else "idle"
        return f"stopped {doing}" if self.is_stopped else doing

    def be_ready(self, warmup_ns: int) -> None:
        """As `Worker.be_ready` of a real one, and its message."""
        status = self._status
        status["generation"], status["busy_since_ns"], status["learning_since_ns"] = self.generation, 0, 0
        status["heartbeat_ns"] = self._machine.now_ns()
        status["ready"] = self.generation
        self.is_ready, self.since_ns = True, self._machine.running_ns
        self.process.ready = WorkerReady(
            policy="made up",
            synthetic=True,
            pad_ms=None,
            num_parameters=0,
            device="cpu",
            notes=[],
            mps="",
            num_gpus=0,
            warmup_ns=[warmup_ns],
        )

    def wake(self) -> None:
        """The env process wakes it."""
        if not self.is_deaf:
            self.look()

    def beat(self) -> None:
        """It shows that it lives, and looks for what it was not woken for."""
        if self.is_alive and self.is_ready and not self.is_stopped and self._finish is None:
            self._status["heartbeat_ns"] = self._machine.now_ns()
            self.since_ns = self._machine.running_ns
            self.look()

    def look(self) -> None:
        """Take a job that is there, and its frame."""
        if not (self.is_alive and self.is_ready) or self.is_stopped or self._finish is not None:
            return
        shared, job = self._shared, self._waits_for
        if job is None:
            if shared.worker_control[self.index]["generation"] != self.generation:
                return
            if shared.jobs.newest(self.index) == self._job_seen:
                return
            job = shared.jobs.read(self.index)
            self._job_seen, self._start_ns = job.job_seq, self._machine.now_ns()
            if job.generation != self.generation:
                return
        newest = shared.ring.sequence.newest()
        if newest < job.frame_seq:
            self._waits_for = job
            return
        self._waits_for = None
        status, header = shared.ring.read_header(job.frame_seq if job.hold else newest)
        if header is None:
            if status is ReadStatus.LAPPED:
                self._status.add("lapped_frames")
            _, header = shared.ring.read_header(newest)
        if header is not None:
            self._compute(job, header)

    def _compute(self, job: Job, header: FrameHeader) -> None:
        machine, start_ns = self._machine, self._start_ns
        self._status["busy_since_ns"] = read_ns = machine.now_ns()
        self.since_ns = machine.running_ns
        inference = self._infer(self.index, job, header)

        def finish() -> None:
            now_ns, seq = machine.now_ns(), self._shared.slots.newest(self.index) + 1
            answer = SLOT_ENTRY.new(
                entry_seq=seq,
                job_seq=job.job_seq,
                obs_tick=header.tick,
                due_tick=job.due_tick,
                episode=header.episode,
                frame_seq=header.frame_seq,
                generation=self.generation,
                policy_version=inference.version,
                frame_publish_ns=header.publish_ns,
                start_ns=start_ns,
                read_ns=read_ns,
                infer_end_ns=now_ns,
                write_ns=now_ns,
                policy_checksum=inference.checksum,
                abstained=inference.abstained,
                actions=inference.actions,
                payload=inference.payload,
            )
            self._shared.slots.write(self.index, answer)
            self._on_answer(job, answer)
            self._finish = None
            if self.dies_while_writing:
                self.dies_while_writing = False
                self.end(-9)
                return
            self._status.add("inferences")
            self._status["busy_since_ns"] = 0
            self._status["heartbeat_ns"] = now_ns
            self.since_ns = machine.running_ns
            self.look()

        self._finish = finish
        self._go_on(max(1, round(inference.took_ns * self.slowness)))

    def _go_on(self, left_ns: int) -> None:
        self._number += 1
        number, self._due_ns = self._number, self._machine.true_ns + left_ns

        def end() -> None:
            if number == self._number and self.is_alive and self._finish is not None:
                self._finish()

        self._machine.at(self._due_ns, end, works=True)

    def stop(self) -> None:
        """SIGSTOP, or a hang."""
        if self.is_alive and not self.is_stopped:
            self.is_stopped = True
            self._left_ns = max(1, self._due_ns - self._machine.true_ns)
            self._number += 1

    def resume(self) -> None:
        if self.is_alive and self.is_stopped:
            self.is_stopped = False
            if self._finish is not None:
                self._go_on(self._left_ns)
            else:
                self.beat()

    def end(self, exitcode: int) -> None:
        """It is gone; nobody knows yet."""
        self.is_alive, self._finish, self._waits_for = False, None, None
        self._number += 1
        self.exitcode = exitcode
