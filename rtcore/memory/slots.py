"""Jobs (env process to worker) and action slots (worker to env process): one writer per record.

`loop.workers` writes jobs and reads slots; `rtcore_workers.inference` reads jobs and writes slots.

A worker holds at most one job. The env process writes the job, `job_seq` last, while the worker is idle; the
worker writes its answer into one of its two entries, `entry_seq` last. Two entries, so that an answer the env
process is still reading is never the one being written, whatever the booking logic does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rtcore._tick import compiled
from rtcore.memory.layout import JOB, SLOT_CONTROL, SLOT_ENTRY, WORD_BYTES, Layout
from rtcore.memory.stores import IndexedWords, compiled_store, ordered_words
from rtcore.memory.waiting import Waker
from rtcore.scheduling.jobs import Answer, Job

_JOB_SEQ = JOB.index["job_seq"]


class JobSlots:
    """One job record per worker, in the control segment. Written by the env process only."""

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._buffer = buffer
        self._at = [layout.job_at(worker) for worker in range(layout.max_workers)]
        self._words: list[IndexedWords] = [ordered_words(buffer[at : at + JOB.num_bytes]) for at in self._at]
        seq_at = WORD_BYTES * _JOB_SEQ
        stores = [
            compiled_store(JOB, buffer, at=at, stride=0, num_slots=1, done_at=at + seq_at, lead=worker)
            for worker, at in enumerate(self._at)
        ]
        #: Do the plain case of what is below, in C; empty without the extension.
        self._stores = [store for store in stores if store is not None]
        self._unpack = JOB.struct.unpack_from
        self._contexts: Sequence[memoryview] | None = None

    def carry(self, memory: memoryview, places: Sequence[int], context_bytes: int) -> None:
        """From now on each job has a context.

        Args:
            memory: In which they lie.
            places: Of each worker's.
            context_bytes: Of one.
        """
        self._contexts = [memory[place : place + context_bytes] for place in places]
        for store, place in zip(self._stores, places, strict=False):
            store.add_part(memory, place, 0, context_bytes, None)

    def book(
        self,
        jobs: Sequence[Job],
        generations: Mapping[int, int],
        waker: Waker | None,
        *,
        frame_seq: int,
        booked_ns: int,
        phase_seq: int,
    ) -> list[Job]:
        """Env process: book jobs for idle workers, all of them, then wake those workers that sleep.

        Args:
            jobs: One for each worker; of each counts what a schedule says, and its context.
            generations: Of the workers; 0 where none is said.
            waker: Wakes them; None: nobody has to be woken.
            frame_seq: Number of their frame.
            booked_ns: Now.
            phase_seq: Order that they belong to.

        Returns:
            The jobs as their workers see them.
        """
        booked: list[Job] = []
        wakes = waker.compiled if waker is not None else None
        if compiled is not None and self._stores:
            booked = compiled.book(self._stores, jobs, generations, wakes, frame_seq, booked_ns, phase_seq)
            if wakes is not None and len(booked) == len(jobs):
                return booked
        for job in jobs[len(booked) :]:
            worker = job.worker
            booked.append(
                JOB.new(
                    worker=worker,
                    obs_tick=job.obs_tick,
                    due_tick=job.due_tick,
                    hold=job.hold,
                    frame_seq=frame_seq,
                    booked_ns=booked_ns,
                    phase_seq=phase_seq,
                    generation=generations.get(worker, 0),
                    job_seq=self.newest(worker) + 1,
                    context=job.context,
                )
            )
            self.post(booked[-1])
        if waker is not None:
            waker.for_jobs([job.worker for job in jobs])
        return booked

    def post(self, job: Job) -> None:
        """Env process: book a job for an idle worker. `ValueError` if `job.job_seq` is not the worker's next."""
        if self._stores and self._stores[job.worker].write(job):
            return
        words = self._words[job.worker]
        if job.job_seq != words[_JOB_SEQ] + 1:
            raise ValueError(f"job_seq={job.job_seq}; expected {words[_JOB_SEQ] + 1}, the next of worker {job.worker}")
        # Word by word: packing the record would clear its number first, and an idle worker may read it at any moment.
        for index, value in enumerate(job[1:-2]):
            words[index] = value
        if self._contexts is not None:
            self._contexts[job.worker][:] = job.context
        words[_JOB_SEQ] = job.job_seq  # (W3) pairs with (R3): the job is complete before it is visible

    def newest(self, worker: int) -> int:
        """Number of the worker's newest job; 0 before the first."""
        return self._words[worker][_JOB_SEQ]  # (R3)

    def read(self, worker: int) -> Job:
        """Worker: its job. Only while it holds one: the env process does not write then."""
        if self._stores:
            store = self._stores[worker]
            booked: Job = store.read(store.newest())[1]
            return booked
        context = bytes(self._contexts[worker]) if self._contexts is not None else b""
        return Job._make((worker, *self._unpack(self._buffer, self._at[worker]), context))


class ActionSlots:
    """Per worker a publication word and two entries. Written by that worker only, read by the env process.

    The place behind the workers' (`Layout.operator_place`) is that of who may step in, whose answers have no payload.

    Args:
        buffer: Memory of `layout.slots_bytes`, zeroed at first.
        layout: Number of workers, and the size of their actions.

    Examples:
        A worker answers twice; the entry that was read may be written again only after the next one.

        >>> from rtcore import ActionSlots
        >>> from rtcore.memory.layout import Layout
        >>> from rtcore.scheduling.jobs import Answer
        >>> layout = Layout(max_workers=2, ring_slots=4, log_slots=4, frame_bytes=8, action_bytes=4, chunk=1)
        >>> slots = ActionSlots(memoryview(bytearray(layout.slots_bytes)), layout)
        >>> slots.newest(worker=1)
        0
        >>> slots.write(1, Answer(entry_seq=1, due_tick=7, actions=b"left"))
        >>> answer = slots.read(1, slots.newest(1))
        >>> answer.due_tick, answer.actions
        (7, b'left')
        >>> slots.write(1, Answer(entry_seq=2, due_tick=9, actions=b"jump"))
        >>> slots.read(1, 1) is None, slots.newest(1)
        (True, 2)
    """

    def __init__(self, buffer: memoryview, layout: Layout) -> None:
        self._buffer = buffer
        self._chunk_bytes = layout.chunk * layout.action_bytes
        # No byte for the payload, which lies in a segment of its own: packed as none, and unpacked as b"".
        whole = SLOT_ENTRY.struct_with(self._chunk_bytes, 0)
        self._pack, self._unpack = whole.pack_into, whole.unpack_from
        workers = range(layout.operator_place + 1)
        self._entry_at = [[layout.slot_entry_at(worker, parity) for parity in (0, 1)] for worker in workers]
        self._done: list[IndexedWords] = [
            ordered_words(buffer[at : at + SLOT_CONTROL.num_bytes]) for at in map(layout.slot_control_at, workers)
        ]
        stores = [
            compiled_store(
                SLOT_ENTRY, buffer, at=first, stride=second - first, num_slots=2, done_at=layout.slot_control_at(worker)
            )
            for worker, (first, second) in enumerate(self._entry_at)
        ]
        #: Do the plain case of what is below, in C; empty without the extension.
        self._stores = [store for store in stores if store is not None]
        for store, (first, second) in zip(self._stores, self._entry_at, strict=False):
            store.add_part(buffer, first + SLOT_ENTRY.num_bytes, second - first, self._chunk_bytes, None)
        self._payloads: Sequence[Sequence[memoryview]] | None = None

    def carry(self, memory: memoryview, places: Sequence[tuple[int, int]], payload_bytes: int) -> None:
        """From now on each answer has a payload.

        Args:
            memory: In which they lie.
            places: For each worker two, one beside each of its entries.
            payload_bytes: Of one.
        """
        self._payloads = [[memory[place : place + payload_bytes] for place in pair] for pair in places]
        for store, (first, second) in zip(self._stores, places, strict=False):
            store.add_part(memory, first, second - first, payload_bytes, None)

    def write(self, worker: int, answer: Answer) -> None:
        """Worker: publish an answer.

        Args:
            worker: Its index.
            answer: With the next `entry_seq`, `newest(worker) + 1`, and `chunk * action_bytes` of actions; once
                answers have a payload, with all of its block.

        Raises:
            ValueError: Another number, or another length.
        """
        if self._stores and self._stores[worker].write(answer):
            return
        entry_seq = self._done[worker][0] + 1
        if answer.entry_seq != entry_seq or len(answer.actions) != self._chunk_bytes:
            raise ValueError(
                f"entry_seq={answer.entry_seq} with {len(answer.actions)} bytes of actions; "
                f"expected {entry_seq}, the next of worker {worker}, with {self._chunk_bytes} bytes"
            )
        # (W5) pairs with (R5): entry_seq - 1 is visible before the place of entry_seq - 2 is touched
        self._pack(self._buffer, self._entry_at[worker][entry_seq & 1], *answer)
        if self._payloads is not None and worker < len(self._payloads):
            self._payloads[worker][entry_seq & 1][:] = answer.payload
        self._done[worker][0] = entry_seq  # (W4) pairs with (R4): the entry is complete before it is visible

    def newest_word(self, worker: int) -> IndexedWords:
        """What `newest` reads, at index 0 (R4): for who looks at one place at every tick."""
        return self._done[worker]

    def newest(self, worker: int) -> int:
        """Number of the worker's newest whole entry; 0 before the first."""
        return self._done[worker][0]  # (R4)

    def read(self, worker: int, entry_seq: int) -> Answer | None:
        """Env process: copy an entry.

        Args:
            worker: Whose.
            entry_seq: Its number.

        Returns:
            The answer; None if the worker has written another since.
        """
        if self._stores:
            found: Answer | None = self._stores[worker].read(entry_seq)[1]
            return found
        answer = self._read_entry(worker, entry_seq)
        # (R5) after the copy: the worker reuses this place for entry_seq + 2, which it only starts once
        # entry_seq + 1 is published. One newer is the last moment at which the copy is certainly whole.
        if self._done[worker][0] > entry_seq or answer.entry_seq != entry_seq:
            return None
        return answer

    def _read_entry(self, worker: int, entry_seq: int) -> Answer:
        words = self._unpack(self._buffer, self._entry_at[worker][entry_seq & 1])
        if self._payloads is not None and worker < len(self._payloads):
            words = (*words[:-1], bytes(self._payloads[worker][entry_seq & 1]))
        return tuple.__new__(Answer, words)  # _make takes twice the time
