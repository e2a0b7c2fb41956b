"""The env process's side of jobs, slots and ring: the `Workers` of a real run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from rtcore.memory.shared import SharedRun
from rtcore.memory.waiting import Waker
from rtcore.scheduling.jobs import Answer, Job

#: Of a job. Not a list comprehension: that is a call as well, of Python.
_worker_of = attrgetter("worker")


class SharedWorkers:
    """Worker processes behind job records and slots. Implements `tickloop.Workers`.

    `waker`: None if nobody has to be woken: workers spin, or there are none (`RealtimeEnv`). `num_workers` processes
    are taken to be up; the first `membership` corrects that.
    """

    def __init__(
        self,
        shared: SharedRun,
        waker: Waker | None,
        num_workers: int,
        *,
        phase_seq: int,
    ) -> None:
        self._shared = shared
        self._slots, self._book = shared.slots, shared.jobs.book
        self._ring = shared.ring
        self.stage, self.publish = shared.ring.stage, shared.ring.publish
        self._waker = waker
        self._phase_seq = phase_seq
        self._waiting: dict[int, Job] = {}
        #: Looked at for each job that is out, at each tick: by their place, not by a call.
        self._newest_words = [shared.slots.newest_word(worker) for worker in range(shared.layout.max_workers)]
        self._seen_entry = [word[0] for word in self._newest_words]
        self._up = {worker: shared.worker_control[worker]["generation"] for worker in range(num_workers)}
        self._membership_seen = -1
        #: Read at each tick: by their place, not by their name.
        control = shared.run_control
        self._run_words, self._membership_at = control.words, control.record.index["membership_seq"]
        self.unknown_entries = 0

    @property
    def next_frame_seq(self) -> int:
        return self._ring.next_seq

    def collect(self, tick: int) -> Iterable[tuple[Job, Answer]]:
        found: list[tuple[Job, Answer]] = []
        newest, seen = self._newest_words, self._seen_entry
        for worker, job in self._waiting.items():
            entry_seq = newest[worker][0]
            if entry_seq == seen[worker]:
                continue
            seen[worker] = entry_seq
            answer = self._slots.read(worker, entry_seq)
            if answer is None or answer.job_seq != job.job_seq:
                self.unknown_entries += 1
                continue
            found.append((job, answer))
        for job, _ in found:
            del self._waiting[job.worker]
        return found

    def membership(self) -> Iterable[tuple[int, bool]]:
        seq = self._run_words[self._membership_at]
        if seq == self._membership_seen:
            return ()
        self._membership_seen = seq
        changes: list[tuple[int, bool]] = []
        for worker, control in enumerate(self._shared.worker_control):
            generation = control["generation"] if control["up"] else None
            known = self._up.get(worker)
            if generation == known:
                continue
            if known is not None:
                # Down, or back already as a new process: either way its job is lost.
                changes.append((worker, False))
                self._waiting.pop(worker, None)
                del self._up[worker]
            if generation is not None:
                changes.append((worker, True))
                self._up[worker] = generation
                self._seen_entry[worker] = self._slots.newest(worker)
        return changes

    def post(self, jobs: Sequence[Job], booked_ns: int) -> None:
        frame_seq, phase_seq, waiting = self._ring.next_seq, self._phase_seq, self._waiting
        for job in self._book(
            jobs, self._up, self._waker, frame_seq=frame_seq, booked_ns=booked_ns, phase_seq=phase_seq
        ):
            waiting[job.worker] = job

    def announce(self, jobs: Sequence[Job]) -> None:
        if self._waker is not None:
            self._waker.for_frame(list(map(_worker_of, jobs)))

    def prewake(self, worker: int) -> None:
        if self._waker is not None:
            self._waker.ahead((worker,))

    @property
    def num_waiting(self) -> int:
        """Jobs that are out."""
        return len(self._waiting)
