"""The protocols of shared memory under drawn schedules: who writes and reads what, and what must hold in any order.

Each `Protocol` draws its sizes from a seed and makes real objects of rtcore over stepped memory, with actors that do
with them what a run's processes do, or worse. Where it says so one of them is killed before one of its accesses, and
another one takes its place. What may not happen is an error in words, as `judge` says; what came of it else is one of
`outcomes`, so that a campaign tells which were never reached.

Under sequential consistency: what ARM64 may reorder is modelled elsewhere (docs/adr/0025-memory-order.md).
"""

from __future__ import annotations

import random
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import cycle
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from rtcore.loop.resets import ResetOrders, reset_order
from rtcore.memory.counters import Words
from rtcore.memory.layout import (
    ENV_COUNTERS,
    ENV_STATUS,
    JOB,
    LOG_RECORD,
    RUN_CONTROL,
    WORKER_STATUS,
    FrameHeader,
    Layout,
    MasterLayout,
    ParamLayout,
)
from rtcore.memory.master import MasterCopy, MasterState, Slot
from rtcore.memory.ring import FrameRing, JobLog, ReadStatus, SequenceRing
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.memory.weights import ParamStore, Version
from rtcore.recording.ring_reader import RingReader
from rtcore.results.run_record import Drain
from rtcore.runtime.player import Player
from rtcore.scheduling.dispatch import TickKind
from rtcore.scheduling.jobs import Answer, Job, JobRow
from rtcore.spaces import Block
from rtcore.spaces.payload import REQUESTED
from rtcore.torture.explorer import Scenario
from rtcore.torture.stepped import FileLock, Killed, SteppedBuffer, give_way, live_again, wait_until
from rtcore_workers.holder import Holder

OK, NOT_YET, LAPPED = ReadStatus
_WORD = 8


@dataclass(frozen=True)
class Parts:
    """What is rtcore's own. A test that breaks one of them puts another in its place."""

    ring: type[FrameRing] = FrameRing
    log: type[JobLog] = JobLog
    jobs: type[JobSlots] = JobSlots
    slots: type[ActionSlots] = ActionSlots
    store: type[ParamStore] = ParamStore
    master: type[MasterState] = MasterState
    reader: type[RingReader] = RingReader
    drain: type[Drain] = Drain
    orders: type[ResetOrders] = ResetOrders
    player: type[Player] = Player


@dataclass
class Drawn(Scenario):
    """A scenario, and what has to hold of it.

    Attributes:
        wrong: What actors found to be wrong, as they went.
        seen: Which of the protocol's outcomes there were.
        at_end: Looks at the memory once all actors are done, and adds to both.
        sizes: Of this one.
    """

    wrong: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    at_end: Callable[[], object] = lambda: None
    sizes: Mapping[str, int] = field(default_factory=dict)

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self.wrong.append(otherwise)


class Protocol:
    """One of them.

    Attributes:
        name: In words.
        sizes: From what each is drawn.
        outcomes: What comes of it, at times.
        never: Points of two processes, (role, point, role, point), of which a lock lets none follow the other directly.
    """

    name: ClassVar[str]
    sizes: ClassVar[Mapping[str, Sequence[int]]]
    outcomes: ClassVar[frozenset[str]]
    never: ClassVar[frozenset[tuple[str, str, str, str]]] = frozenset()

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """Fresh memory, and actors whose programs `rng` draws."""
        raise NotImplementedError


def words_of(first: int, count: int) -> bytes:
    """Different words, each of which says whose it is."""
    return b"".join((first + word).to_bytes(_WORD, "little", signed=True) for word in range(count))


def buffer_of(memory: bytearray) -> Any:
    """A view whose accesses are steps."""
    return SteppedBuffer(memoryview(memory))


def frame_of(seq: int, words: int) -> list[int]:
    """Frame `seq`."""
    return [1000 * seq + 1 + word for word in range(words)]


def header_of(seq: int) -> FrameHeader:
    """Its header, whose words are different."""
    header = FrameHeader(seq, *(1000 * seq + 100 + index for index in range(len(FrameHeader._fields) - 1)))
    return header._replace(phase_seq=_PHASE)


def action_of(seq: int) -> bytes:
    """What was applied at its tick."""
    return words_of(1000 * seq + 500, 1)


def kept_of(seq: int) -> bytes:
    """What stays with it."""
    return words_of(1000 * seq + 700, _KEPT.nbytes // _WORD)


def row_of(seq: int) -> JobRow:
    """Record `seq` of the job log."""
    return JobRow(seq, *(1000 * seq + index for index in range(len(JobRow._fields) - 1)))._replace(phase_seq=_PHASE)


_KEPT = Block(((REQUESTED, (1,), "int64"), ("pair", (2,), "int64")))
_FRAME_WORDS = 3
#: The order that all ticks belong to.
_PHASE = 3


# -- frames ------------------------------------------------------------------------------------------------------


class Frames:
    """A ring with what stays with each tick, and the log of jobs: one writer's memory."""

    def __init__(self, slots: int, parts: Parts) -> None:
        self.layout = Layout(
            max_workers=1,
            ring_slots=slots,
            log_slots=slots,
            frame_bytes=_WORD * _FRAME_WORDS,
            action_bytes=_WORD,
            chunk=1,
        )
        self.parts = parts
        self.ring_memory, self.log_memory = bytearray(self.layout.ring_bytes), bytearray(self.layout.log_bytes)
        self.kept_memory = bytearray(slots * _KEPT.nbytes)
        for memory in (self.ring_memory, self.log_memory):
            SequenceRing.over(buffer_of(memory), self.layout.ring_control_at, slots).format()

    @property
    def memories(self) -> list[bytearray]:
        return [self.ring_memory, self.log_memory, self.kept_memory]

    def ring(self) -> FrameRing:
        """As a process attaches to it."""
        ring = self.parts.ring(buffer_of(self.ring_memory), self.layout, (_FRAME_WORDS,), "<i8")
        ring.keep(_KEPT, buffer_of(self.kept_memory), _KEPT.nbytes)
        return ring

    def log(self) -> JobLog:
        return self.parts.log(buffer_of(self.log_memory), self.layout)


def publish(ring: FrameRing, seq: int) -> None:
    """Frame `seq`, with all that belongs to it."""
    ring.publish(np.array(frame_of(seq, _FRAME_WORDS)), header_of(seq), action_of(seq), kept_of(seq))


class RingProtocol(Protocol):
    """One writer, many readers: what is OK is whole, what is newest never goes back."""

    name = "ring"
    sizes: ClassVar = {"slots": (2, 2, 3, 4), "frames": (3, 5, 9), "readers": (1, 2, 3), "reads": (2, 4)}
    outcomes = frozenset(("OK", "NOT_YET", "LAPPED"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """A writer and its readers."""
        frames = Frames(sizes["slots"], parts)
        drawn = Drawn(frames.memories, {})
        writer = frames.ring()

        def write() -> None:
            for seq in range(sizes["frames"]):
                publish(writer, seq)

        drawn.actors["writer"] = write
        for index in range(sizes["readers"]):
            program = [
                (rng.choice(list(_READS)), rng.choice(["newest", "oldest", "any"]), rng.randrange(sizes["frames"]))
                for _ in range(sizes["reads"])
            ]
            drawn.actors[f"reader {index}"] = partial(self._read, drawn, frames.ring(), program, sizes["slots"])

        def at_end() -> None:
            ring, last = frames.ring(), sizes["frames"] - 1
            status, whole = _READS["frame and header"](ring, last)
            drawn.expect(ring.sequence.newest() == last and status is OK and whole, "the last frame is not there")

        drawn.at_end = at_end
        return drawn

    def _read(self, drawn: Drawn, ring: FrameRing, program: Sequence[tuple[str, str, int]], slots: int) -> None:
        before = -1
        for what, which, number in program:
            seq = number
            if which != "any":
                newest = ring.sequence.newest()
                drawn.expect(newest >= before, f"the newest frame was {before}, then {newest}")
                before = newest
                seq = newest if which == "newest" else max(0, newest - slots + 1)
            status, whole = _READS[what](ring, seq)
            drawn.seen.add(status.name)
            drawn.expect(status is not OK or whole, f"a torn {what}: frame {seq} is said to be OK")


def _read_frame(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    out = np.zeros(_FRAME_WORDS, "<i8")
    return ring.read(seq, out), out.tolist() == frame_of(seq, _FRAME_WORDS)


def _read_header(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    status, header = ring.read_header(seq)
    return status, header == header_of(seq)


def _read_both(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    out = np.zeros(_FRAME_WORDS, "<i8")
    status, header = ring.read_with_header(seq, out)
    return status, (out.tolist(), header) == (frame_of(seq, _FRAME_WORDS), header_of(seq))


def _read_action(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    action = ring.read_action(seq)
    return OK if action is not None else LAPPED, action == action_of(seq)


def _read_requested(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    requested = ring.read_requested(seq)
    return OK if requested is not None else LAPPED, requested == kept_of(seq)[:_WORD]


def _read_kept(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    """As a batch of transitions is read: the copies first, then which of them were lapped."""
    if ring.sequence.newest() < seq or seq < 0:
        return NOT_YET, False
    seqs = np.array([seq])
    found = ring.gather_kept(seqs).tobytes()
    return LAPPED if ring.lapped(seqs)[0] else OK, found == kept_of(seq)


def _read_rows(ring: FrameRing, seq: int) -> tuple[ReadStatus, bool]:
    """As a recording is written: all that is there from one frame on."""
    count = min(ring.sequence.newest() - seq + 1, ring.sequence.num_slots)
    if count <= 0 or seq < 0:
        return NOT_YET, False
    rows, frames, kept = _empty_rows(ring, count)
    lapped = ring.copy_rows(seq, rows, frames, kept)
    whole = [is_whole(*one, seq + at) for at, one in enumerate(zip(rows, frames, kept, strict=True))]
    return LAPPED if lapped == count else OK, all(whole[lapped:])


def _empty_rows(ring: FrameRing, count: int) -> tuple[Any, Any, Any]:
    dtype = ring.row_dtype(np.dtype(("u1", (_WORD,))))
    return np.zeros(count, dtype), np.zeros((count, _FRAME_WORDS), "<i8"), np.zeros(count, _KEPT.dtype)


def is_whole(row: Any, frame: Any, kept: Any, seq: int) -> bool:
    """Whether a row of `FrameRing.copy_rows` is that of frame `seq`."""
    return (
        [row[name].item() for name in FrameHeader._fields] == list(header_of(seq))
        and row["action"].tobytes() == action_of(seq)
        and frame.tolist() == frame_of(seq, _FRAME_WORDS)
        and kept.tobytes() == kept_of(seq)
    )


_READS: dict[str, Callable[[FrameRing, int], tuple[ReadStatus, bool]]] = {
    "frame": _read_frame,
    "header": _read_header,
    "frame and header": _read_both,
    "action": _read_action,
    "requested action": _read_requested,
    "kept block": _read_kept,
    "batch of rows": _read_rows,
}


# -- the recording ---------------------------------------------------------------------------------------------


class Rows:
    """What a `RecordingWriter` is to a `RingReader`: room for rows, and counts. On no disk."""

    def __init__(self, ring: FrameRing, room: int) -> None:
        rows, self.frames, self.kept = _empty_rows(ring, room)
        self.ticks, self.jobs = (
            SimpleNamespace(rows=rows, room=(0, room)),
            SimpleNamespace(rows=np.zeros(room, LOG_RECORD.dtype), room=(0, room)),
        )
        self.lost_frames = self.lost_jobs = 0
        self.taken: list[tuple[Any, Any, Any]] = []
        self.taken_jobs: list[Any] = []

    def took_ticks(self, count: int) -> None:
        copies = self.ticks.rows.copy(), self.frames.copy(), self.kept.copy()
        self.taken += [(copies[0][at], copies[1][at], copies[2][at]) for at in range(count)]

    def took_jobs(self, count: int) -> None:
        self.taken_jobs += self.jobs.rows[:count].copy().tolist()


class RecordingProtocol(Protocol):
    """Recorder and drain read both rings while they grow: each row once, in order, whole, or counted as lost."""

    name = "recording"
    sizes: ClassVar = {"slots": (2, 3, 5), "frames": (4, 7, 11), "collects": (1, 3), "room": (2, 3, 8)}
    outcomes = frozenset(("whole", "lost", "drained", "not drained"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """The env process, a recorder, and the program that writes actions.csv."""
        frames, count = Frames(sizes["slots"], parts), sizes["frames"]
        drawn, over = Drawn(frames.memories, {}), []
        ring, log = frames.ring(), frames.log()

        def write() -> None:
            for seq in range(count):
                log.append(row_of(seq))
                publish(ring, seq)
            over.append(True)

        rows = Rows(frames.ring(), sizes["room"])
        reader = parts.reader(rows, frames.ring(), frames.log(), 0, 0)  # type: ignore[arg-type]
        record: Any = SimpleNamespace(lost_ticks=0, lost_jobs=0, ticks=[], jobs=[])
        record.add_tick = lambda *tick: record.ticks.append(tick)
        record.add_job = record.jobs.append
        of_drain = frames.ring(), frames.log()
        drain = parts.drain(SimpleNamespace(ring=of_drain[0], log=of_drain[1]), _PHASE, 0, 0)  # type: ignore[arg-type]

        def until_over(collect: Callable[[], None]) -> None:
            for _ in range(sizes["collects"]):
                collect()
                give_way()
            wait_until(lambda: bool(over))
            collect()

        drawn.actors = {
            "env": write,
            "recorder": lambda: until_over(reader.collect),
            "drain": lambda: until_over(lambda: drain.into(record)),
        }

        def at_end() -> None:
            seqs = [int(row["frame_seq"]) for row, _, _ in rows.taken]
            whole = [is_whole(*one, seq) for one, seq in zip(rows.taken, seqs, strict=True)]
            drawn.expect(all(whole) and seqs == sorted(set(seqs)), f"recorded ticks {seqs}, whole: {whole}")
            drawn.expect(len(seqs) + rows.lost_frames == count, f"{len(seqs)} ticks and {rows.lost_frames} lost")
            jobs = [tuple(job) for job in rows.taken_jobs]
            right = all(job == tuple(row_of(job[0])) for job in jobs)
            drawn.expect(right and jobs == sorted(set(jobs)), f"recorded jobs {jobs}")
            drawn.expect(len(jobs) + rows.lost_jobs == count, f"{len(jobs)} jobs and {rows.lost_jobs} lost")
            ticks = [header.frame_seq for header, *_ in record.ticks]
            right = record.ticks == [(header_of(seq), action_of(seq), kept_of(seq)[:_WORD], b"") for seq in ticks]
            drawn.expect(right and ticks == sorted(set(ticks)), f"drained ticks {ticks}, whole: {right}")
            drawn.expect(len(ticks) + record.lost_ticks == count, f"{len(ticks)} drained, {record.lost_ticks} lost")
            right = all(job == row_of(job.log_seq) for job in record.jobs)
            drawn.expect(right and len(record.jobs) + record.lost_jobs == count, f"drained jobs {record.jobs}")
            drawn.seen.add("lost" if rows.lost_frames or rows.lost_jobs else "whole")
            drawn.seen.add("not drained" if record.lost_ticks or record.lost_jobs else "drained")

        drawn.at_end = at_end
        return drawn


# -- jobs and answers ------------------------------------------------------------------------------------------

#: Of a context, and of a payload.
_BLOCK_WORDS = 2
_BLOCK_BYTES = _WORD * _BLOCK_WORDS


def job_of(worker: int, seq: int, generation: int) -> Job:
    """Job `seq` of a worker, all of whose words are different."""
    first = 100_000 * worker + 1000 * seq
    numbers: Any = range(first, first + 6)
    return Job._make((worker, *numbers, generation, seq, words_of(first + 50, _BLOCK_WORDS)))


def answer_of(job: Job, entry_seq: int) -> Answer:
    """Its answer, with actions and a payload that are of no other one."""
    first = 100_000 * job.worker + 1000 * job.job_seq + 100
    numbers = range(first, first + len(Answer._fields) - 4)
    blocks = words_of(first + 100, 2), words_of(first + 200, _BLOCK_WORDS)
    return Answer._make((entry_seq, job.job_seq, *numbers, *blocks))


class Places:
    """Jobs, answers, contexts and payloads of some workers, and which process stands in which place."""

    def __init__(self, workers: int, parts: Parts) -> None:
        self.layout = Layout(max_workers=workers, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=_WORD, chunk=2)
        self.parts, self.workers = parts, range(workers)
        self.jobs_memory, self.slots_memory = bytearray(self.layout.control_bytes), bytearray(self.layout.slots_bytes)
        self.contexts, self.payloads = bytearray(workers * _BLOCK_BYTES), bytearray(2 * workers * _BLOCK_BYTES)
        self._job_words = memoryview(self.jobs_memory).cast("q")
        self._slot_words = memoryview(self.slots_memory).cast("q")
        self.generations, self.ready, self.ended = [1] * workers, [0] * workers, [0] * workers
        self.is_over = False

    def posted(self, worker: int) -> int:
        """Number of its newest job; no step: for what an actor waits for."""
        return self._job_words[self.layout.job_at(worker) // _WORD + JOB.index["job_seq"]]

    def written(self, worker: int) -> int:
        """Number of its newest answer; no step."""
        return self._slot_words[self.layout.slot_control_at(worker) // _WORD]

    def attach(self) -> tuple[JobSlots, ActionSlots]:
        """As a process does."""
        jobs = self.parts.jobs(buffer_of(self.jobs_memory), self.layout)
        slots = self.parts.slots(buffer_of(self.slots_memory), self.layout)
        jobs.carry(buffer_of(self.contexts), [worker * _BLOCK_BYTES for worker in self.workers], _BLOCK_BYTES)
        places = [(2 * worker * _BLOCK_BYTES, (2 * worker + 1) * _BLOCK_BYTES) for worker in self.workers]
        slots.carry(buffer_of(self.payloads), places, _BLOCK_BYTES)
        return jobs, slots


class SlotsProtocol(Protocol):
    """Jobs with contexts, answers with payloads: each once, whole, its own; also of workers that are killed."""

    name = "slots"
    sizes: ClassVar = {"workers": (1, 1, 2, 3), "jobs": (2, 3, 5), "looks": (0, 4, 9), "killed": (0, 0, 1, 2)}
    outcomes = frozenset(("answered", "killed before its answer", "looked at", "overwritten meanwhile"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """The env process, its workers, and an onlooker."""
        places = Places(sizes["workers"], parts)
        drawn = Drawn([places.jobs_memory, places.slots_memory, places.contexts, places.payloads], {})
        attached = [places.attach() for _ in range(sizes["workers"] + 2)]
        looks = [rng.choice(places.workers) for _ in range(sizes["looks"])]
        drawn.actors["env"] = lambda: self._book(drawn, places, *attached[-1], sizes["jobs"])
        drawn.actors["onlooker"] = lambda: self._look(drawn, places, attached[-2][1], looks)
        for worker in places.workers:
            drawn.actors[f"worker {worker}"] = partial(self._work, drawn, places, worker, *attached[worker])
        for _ in range(sizes["killed"]):
            drawn.lives[f"worker {rng.choice(places.workers)}"] = rng.randrange(1, 60)
        return drawn

    def _book(self, drawn: Drawn, places: Places, jobs: JobSlots, slots: ActionSlots, total: int) -> None:
        """As `SharedWorkers`: who is idle gets a job, until each has had so many; the job of who has died is over."""
        out: dict[int, Job] = {}
        booked, taken = [0 for _ in places.workers], [0 for _ in places.workers]

        def has_news(worker: int) -> bool:
            if (job := out.get(worker)) is not None:
                return places.written(worker) > taken[worker] or places.ended[worker] >= job.generation
            return booked[worker] < total and places.ready[worker] > places.ended[worker]

        def is_done() -> bool:
            return not out and min(booked) == total

        while not is_done():
            for worker in places.workers:
                job = out.get(worker)
                has_died = job is not None and places.ended[worker] >= job.generation
                if job is not None and (newest := slots.newest(worker)) > taken[worker]:
                    taken[worker] = newest
                    answer = slots.read(worker, newest)
                    right = answer is not None and answer == answer_of(job, newest)
                    drawn.expect(right, f"the answer to job {job.job_seq} of worker {worker} is {answer}")
                    drawn.seen.add("answered")
                    del out[worker]
                elif has_died:
                    drawn.seen.add("killed before its answer")
                    del out[worker]
                if worker not in out and booked[worker] < total and places.ready[worker] > places.ended[worker]:
                    booked[worker] += 1
                    out[worker] = job_of(worker, booked[worker], places.ready[worker])
                    jobs.post(out[worker])
            wait_until(
                lambda: (all(count == total for count in booked) and not out) or any(map(has_news, places.workers))
            )
        places.is_over = True

    def _work(self, drawn: Drawn, places: Places, worker: int, jobs: JobSlots, slots: ActionSlots) -> None:
        """One process after the other stands in this place."""
        while True:
            try:
                self._serve(drawn, places, worker, jobs, slots)
                return
            except Killed:
                places.ended[worker] = places.generations[worker]
                places.generations[worker] += 1
                live_again()

    def _serve(self, drawn: Drawn, places: Places, worker: int, jobs: JobSlots, slots: ActionSlots) -> None:
        """As `rtcore_workers.inference` does."""
        generation, seen = places.generations[worker], jobs.newest(worker)
        places.ready[worker] = generation
        while not places.is_over:
            wait_until(lambda seen=seen: places.is_over or places.posted(worker) != seen)  # type: ignore[misc]
            if jobs.newest(worker) == seen:
                continue
            job = jobs.read(worker)
            drawn.expect(
                job == job_of(worker, seen + 1, job.generation), f"after job {seen} worker {worker} gets {job}"
            )
            seen = job.job_seq
            if job.generation == generation:
                entry_seq = slots.newest(worker) + 1
                slots.write(worker, answer_of(job, entry_seq))

    def _look(self, drawn: Drawn, places: Places, slots: ActionSlots, looks: Sequence[int]) -> None:
        """At each new answer, or many, which may be overwritten at any moment."""
        before = dict.fromkeys(places.workers, 0)
        for worker in looks:
            wait_until(lambda worker=worker: places.is_over or places.written(worker) > before[worker])  # type: ignore[misc]
            if (seq := slots.newest(worker)) == before[worker]:
                return
            before[worker] = seq
            answer = slots.read(worker, seq)
            drawn.seen.add("looked at" if answer is not None else "overwritten meanwhile")
            if answer is not None:
                expected = answer_of(job_of(worker, answer.job_seq, 0), seq)
                drawn.expect(answer == expected, f"an onlooker sees a torn answer {seq} of worker {worker}: {answer}")


# -- weights ---------------------------------------------------------------------------------------------------

_WEIGHT_WORDS, _REST = 2, words_of(77, 1)


def weights_of(version: int) -> bytes:
    """Version `version`, with what is not trained behind it."""
    return version.to_bytes(_WORD, "little") * _WEIGHT_WORDS + _REST


class SleepingClock:
    """No time passes; who sleeps lets others go first."""

    def now_ns(self) -> int:
        return 0

    def sleep_until_ns(self, deadline_ns: int) -> None:
        del deadline_ns
        give_way()


class Store:
    """The memory of a parameter store with version 1 in it, and who has died."""

    def __init__(self, workers: int, parts: Parts) -> None:
        self.layout = ParamLayout(workers, 0, _WORD * (_WEIGHT_WORDS + 1), _WORD * _WEIGHT_WORDS)
        self.parts, self.memory = parts, bytearray(self.layout.num_bytes)
        self.gone, self.lock = [0] * workers, FileLock()
        self.attach().publish(lambda buffer: buffer.__setitem__(slice(None), weights_of(1)), wait_ns=1)

    def attach(self) -> ParamStore:
        """As a process does."""
        store = self.parts.store(buffer_of(self.memory), self.layout, gone=self.gone.__getitem__, clock=SleepingClock())
        store._my_turn = self.lock  # type: ignore[assignment]
        return store


def publish_next(store: ParamStore) -> int:
    """What is trained is filled in; the rest is as it was. Returns the number of the version."""

    def write(buffer: Any) -> None:
        buffer[0 : _WORD * _WEIGHT_WORDS] = weights_of(store.newest().version + 1)[: _WORD * _WEIGHT_WORDS]

    published = store.publish(write, wait_ns=1)
    assert published is not None
    return published.version


def infer(drawn: Drawn, store: ParamStore, place: int, generation: int, read: Callable[[int], bytes]) -> Version:
    """With what is claimed; it has to be whole, and to stay so."""
    claimed = store.claim(place, generation)
    used = read(claimed.buffer)
    intact = store.is_intact(claimed)
    store.release(place)
    drawn.expect(intact and used == weights_of(claimed.version), f"{claimed} was {used!r}, intact: {intact}")
    drawn.expect(claimed.checksum == zlib.crc32(used), f"{claimed} has another checksum")
    return claimed


def infer_often(drawn: Drawn, store: ParamStore, gone: list[int], place: int, times: int, read: Any = None) -> None:
    """A worker, and who takes its place when it is killed: each version is as new as the one before, or newer."""
    generation, before, left = 1, 0, times
    read = read or (lambda buffer: bytes(store.buffer(buffer)))
    while left:
        try:
            version = infer(drawn, store, place, generation, read).version
            drawn.expect(version >= before, f"version {version} after {before}")
            drawn.seen.add("first version" if version == 1 else "newer version")
            before, left = version, left - 1
        except Killed:
            gone[place] = generation
            drawn.seen.add("a worker was killed")
            generation += 1
            live_again()


class StoreProtocol(Protocol):
    """Publishers take turns, workers claim: every inference uses one whole version, whoever is killed."""

    name = "parameter store"
    sizes: ClassVar = {
        "publishers": (1, 2),
        "publications": (1, 2, 4),
        "workers": (1, 2, 3),
        "inferences": (1, 3),
        "killed": (0, 0, 1, 2),
    }
    outcomes = frozenset(("first version", "newer version", "a worker was killed", "a publisher was killed"))
    # Who has its turn begins with (R7).
    never = frozenset(("publisher", one, "publisher", other) for one in ("R7", "W9", "W6") for other in ("W9", "W6"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """Publishers, as learners and programs are, and workers."""
        memory = Store(sizes["workers"], parts)
        drawn, published = Drawn([memory.memory], {}), []

        def publish(store: ParamStore) -> None:
            for _ in range(sizes["publications"]):
                try:
                    published.append(publish_next(store))
                except Killed:
                    drawn.seen.add("a publisher was killed")
                    live_again()

        for index in range(sizes["publishers"]):
            drawn.actors[f"publisher {index}"] = partial(publish, memory.attach())
        for index in range(sizes["workers"]):
            drawn.actors[f"worker {index}"] = partial(
                infer_often, drawn, memory.attach(), memory.gone, place=index, times=sizes["inferences"]
            )
        for _ in range(sizes["killed"]):
            drawn.lives[rng.choice(list(drawn.actors))] = rng.randrange(1, 50)

        def at_end() -> None:
            newest = memory.attach().newest().version
            drawn.expect(sorted(published) == list(range(2, newest + 1)), f"published {published}, newest {newest}")

        drawn.at_end = at_end
        return drawn


class Device:
    """Memory of a device, which neither store is in."""

    def __init__(self, memory: bytearray) -> None:
        self._memory = buffer_of(memory)
        self.notes: list[str] = []
        self.exported: Any = {}

    def _part(self, buffer: int) -> slice:
        size = _WORD * (_WEIGHT_WORDS + 1)
        return slice(buffer * size, (buffer + 1) * size)

    def write(self, buffer: int, source: Any) -> None:
        self._memory[self._part(buffer)] = bytes(source)

    def read(self, buffer: int) -> bytes:
        return bytes(self._memory[self._part(buffer)])

    def close(self) -> None:
        """Nothing to let go of."""


class HeldProtocol(Protocol):
    """A weight holder brings versions to a device, where workers claim them; it may be killed while it does."""

    name = "held weights"
    sizes: ClassVar = {"publications": (1, 3, 5), "workers": (1, 2), "inferences": (1, 3), "killed": (0, 0, 1)}
    outcomes = frozenset(("first version", "newer version", "a version was passed over", "the holder was killed"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """A publisher, the holder, and workers of the device."""
        host, memory = Store(1, parts), bytearray(3 * _WORD * (_WEIGHT_WORDS + 1))
        layout = ParamLayout.heads_only(sizes["workers"])
        heads, gone = bytearray(layout.num_bytes), [0] * sizes["workers"]
        drawn, brought, state = Drawn([host.memory, heads, memory], {}), [1], SimpleNamespace(published=1, killed=False)

        def open_heads() -> ParamStore:
            return parts.store(buffer_of(heads), layout, gone=gone.__getitem__, clock=SleepingClock())

        def holder() -> Holder:
            return Holder(host.attach(), open_heads(), Device(memory), place=0, generation=1)

        holder().fill()
        follower, supervisor = holder(), host.attach()

        def follow() -> None:
            try:
                while state.published <= sizes["publications"] or brought[-1] < state.published:
                    if (version := follower.follow()) is not None:
                        drawn.seen |= {"a version was passed over"} if version.version > brought[-1] + 1 else set()
                        drawn.expect(version.version > brought[-1], f"{version} was brought after {brought}")
                        brought.append(version.version)
                    wait_until(lambda: state.published > brought[-1] or state.published > sizes["publications"])
            except Killed:
                state.killed = True
                drawn.seen.add("the holder was killed")
                live_again()
                supervisor.release(0)

        def publish(store: ParamStore) -> None:
            for _ in range(sizes["publications"]):
                state.published = publish_next(store)

        drawn.actors = {"publisher": partial(publish, host.attach()), "holder": follow}
        for index in range(sizes["workers"]):
            drawn.actors[f"worker {index}"] = partial(
                infer_often, drawn, open_heads(), gone, place=index, times=sizes["inferences"], read=Device(memory).read
            )
        if sizes["killed"]:
            drawn.lives["holder"] = rng.randrange(1, 60)

        def at_end() -> None:
            newest = host.attach().newest().version
            drawn.expect(newest == 1 + sizes["publications"], f"version {newest} is the newest of the run's")
            drawn.expect(state.killed or brought[-1] == newest, f"brought {brought}, the newest is {newest}")

        drawn.at_end = at_end
        return drawn


# -- master weights --------------------------------------------------------------------------------------------

_FLOATS = 6


class MasterProtocol(Protocol):
    """Learners take turns; whoever reads under the lock gets one whole update, whoever was killed before."""

    name = "master weights"
    sizes: ClassVar = {"learners": (1, 2, 3), "updates": (1, 2, 4), "target_every": (1, 2, 3), "killed": (0, 1, 2)}
    outcomes = frozenset(("updated", "a learner was killed", "target is old", "target is new"))
    # Who has its turn begins with (R10).
    never = frozenset(("learner", one, "learner", "W10") for one in ("R10", "W10"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """Learners, and one who writes checkpoints."""
        layout, lock = MasterLayout(sizes["learners"], 4 * _FLOATS), FileLock()
        memory, made = bytearray(layout.num_bytes), [0]
        looks = [rng.choice(("copy", "weights", "target", "number")) for _ in range(3)]
        drawn = Drawn([memory], {})

        def attach() -> MasterState:
            state = parts.master(buffer_of(memory), layout)
            state.locked = lock  # type: ignore[method-assign, assignment]
            return state

        attach().begin(np.zeros(_FLOATS, np.float32))

        def learn(state: MasterState) -> None:
            for _ in range(sizes["updates"]):
                try:
                    with state.locked():
                        number = state.apply(_one_update, sizes["target_every"]).updates
                    made[0] += 1
                    drawn.expect(number == made[0], f"update {number} is the {made[0]}th")
                    drawn.seen.add("updated")
                except Killed:
                    drawn.seen.add("a learner was killed")
                    live_again()

        def look(state: MasterState) -> None:
            before = -1
            for what in looks:
                if what == "copy":
                    before = self._judge(drawn, state.copy(), sizes["target_every"], before)
                elif what == "weights":
                    out = np.zeros(_FLOATS, np.float32)
                    before = state.read_weights(out).updates
                    drawn.expect((out == before).all(), f"the weights after {before} updates are {out}")
                elif what == "target":
                    out = np.zeros(_FLOATS, np.float32)
                    state.read_target(out)
                    drawn.expect(len(set(out)) == 1, f"the target is {out}")
                else:
                    number = state.commit.updates
                    drawn.expect(number >= before, f"{number} updates after {before}")
                    before = number

        for index in range(sizes["learners"]):
            drawn.actors[f"learner {index}"] = partial(learn, attach())
        for _ in range(sizes["killed"]):
            drawn.lives[rng.choice(list(drawn.actors))] = rng.randrange(1, 40)
        drawn.actors["checkpoints"] = partial(look, attach())

        def at_end() -> None:
            copy = attach().copy()
            self._judge(drawn, copy, sizes["target_every"], -1)
            drawn.expect(copy.updates == made[0], f"{copy.updates} updates are there, {made[0]} were made")

        drawn.at_end = at_end
        return drawn

    def _judge(self, drawn: Drawn, copy: MasterCopy, target_every: int, before: int) -> int:
        number = copy.updates
        followed = number // target_every * target_every
        values = (copy.weights, copy.exp_avg, copy.exp_avg_sq, copy.target)
        expected = (number, 2 * number, 3 * number, followed)
        right = all((array == value).all() for array, value in zip(values, expected, strict=True))
        drawn.expect(right and number >= before, f"after {number} updates (before: {before}): {values}")
        drawn.seen.add("target is new" if followed == number else "target is old")
        return number


def _one_update(present: Slot, coming: Slot, number: int) -> None:
    del number
    for of, to, step in zip(present, coming, (1, 2, 3), strict=True):
        to[:] = np.asarray(of) + np.float32(step)


# -- reset orders ----------------------------------------------------------------------------------------------


@dataclass
class Session:
    """What the two sides of an episode know beside shared memory.

    Attributes:
        parts: Of rtcore.
        sizes: That were drawn.
        lengths: Of the episodes.
        sleeps: Whether the env process sleeps after a tick: one that is late is followed by the next one at once.
        outbox: Messages on their way to the env process.
        first_of: By episode its first frame.
        is_over: The program is done.
    """

    parts: Parts
    sizes: Mapping[str, int]
    lengths: Sequence[int]
    sleeps: Iterator[bool]
    outbox: deque[Any] = field(default_factory=deque)
    first_of: dict[int, int] = field(default_factory=dict)
    is_over: bool = False


class ResetsProtocol(Protocol):
    """A program asks for episodes and plays them: each begins with a frame of its own, none of its jobs is lost."""

    name = "reset orders"
    sizes: ClassVar = {
        "places": (1, 2),
        "episodes": (1, 2, 3),
        "steps": (0, 1, 3),
        "length": (1, 2, 4, 50),
        "slots": (4, 16),
    }
    outcomes = frozenset(("played", "ended", "job thrown away", "began late"))

    def make(self, rng: random.Random, parts: Parts, **sizes: int) -> Drawn:
        """The env process, and the program's own thread."""
        places = range(sizes["places"])
        layout = Layout(
            max_workers=len(places),
            ring_slots=sizes["slots"],
            log_slots=2,
            frame_bytes=_WORD,
            action_bytes=_WORD,
            chunk=1,
        )
        sizes_of = {"control": layout.control_bytes, "ring": layout.ring_bytes, "slots": layout.slots_bytes}
        memory = {name: bytearray(num_bytes) for name, num_bytes in sizes_of.items()}
        small = {record.name: bytearray(record.num_bytes) for record in (RUN_CONTROL, ENV_STATUS, ENV_COUNTERS)}
        statuses = [bytearray(WORKER_STATUS.num_bytes) for _ in places]
        SequenceRing.over(buffer_of(memory["ring"]), layout.ring_control_at, sizes["slots"]).format()

        def attach() -> Any:
            return SimpleNamespace(
                ring=parts.ring(buffer_of(memory["ring"]), layout, (1,), "<i8"),
                jobs=parts.jobs(buffer_of(memory["control"]), layout),
                slots=parts.slots(buffer_of(memory["slots"]), layout),
                run_control=Words(RUN_CONTROL, buffer_of(small[RUN_CONTROL.name])),
                env_status=Words(ENV_STATUS, buffer_of(small[ENV_STATUS.name])),
                env_counters=Words(ENV_COUNTERS, buffer_of(small[ENV_COUNTERS.name])),
                worker_status=[Words(WORKER_STATUS, buffer_of(one)) for one in statuses],
                layout=layout,
            )

        drawn = Drawn([*memory.values(), *small.values(), *statuses], {})
        lengths = [max(1, rng.randint(sizes["length"] // 2, sizes["length"])) for _ in range(sizes["episodes"])]
        sleeps = cycle([True, *(rng.random() < 0.5 for _ in range(16))])
        session = Session(parts, sizes, lengths, sleeps)
        drawn.actors = {
            "env": partial(self._run, drawn, session, attach()),
            "player": partial(self._play, drawn, session, attach()),
        }
        return drawn

    def _run(self, drawn: Drawn, session: Session, shared: Any) -> None:
        """`TickLoop.run_tick`, as far as jobs and resets go."""
        asked: list[int] = []
        outbox, lengths, first_of = session.outbox, session.lengths, session.first_of
        channel: Any = SimpleNamespace(next=lambda: outbox.popleft() if outbox else None)
        orders = session.parts.orders(shared, channel, lambda seed, options: asked.append(int(seed or 0)), 1)
        ring, jobs, slots = shared.ring, shared.jobs, shared.slots
        out: dict[int, Job] = {}
        booked, taken = [0] * shared.layout.max_workers, [0] * shared.layout.max_workers
        left, tick = 0, 0
        while not session.is_over:
            for place, job in list(out.items()):
                if (newest := slots.newest(place)) > taken[place]:
                    taken[place] = newest
                    answer = slots.read(place, newest)
                    drawn.expect(answer is not None and answer.job_seq == job.job_seq, f"{answer} to {job}")
                    del out[place]
            if not left and not orders.is_requested:
                give_way()
                continue
            seq = ring.next_seq
            if orders.begin_if_requested():
                first_of[asked[-1]], left = seq, lengths[asked[-1]]
            left -= 1
            for place in range(shared.layout.max_workers):
                if place not in out and left:
                    booked[place] += 1
                    out[place] = Job(place, tick, tick + 1, True, frame_seq=seq, generation=1, job_seq=booked[place])
                    jobs.post(out[place])
            kind = TickKind.RESET if seq == first_of[asked[-1]] else TickKind.ACTED
            header = FrameHeader(
                frame_seq=seq, tick=tick, episode=asked[-1], kind=kind, reward=1.0, terminated=int(not left)
            )
            ring.publish(np.array([seq]), header, words_of(seq, 1))
            tick += 1
            if next(session.sleeps):
                give_way()

    def _play(self, drawn: Drawn, session: Session, shared: Any) -> None:
        """`RealtimeEnv`: an episode, some steps of it, and the next one, whether it is over or not."""

        sizes, first_of = session.sizes, session.first_of

        def ask(seed: int | None, options: dict[str, Any] | None) -> int:
            session.outbox.append(reset_order(int(seed or 0) + 1, seed, options))
            shared.run_control["reset_seq"] = int(seed or 0) + 1
            return int(seed or 0) + 1

        player = session.parts.player(shared, 1, ask, lambda: None)
        player._clock = SleepingClock()  # type: ignore[assignment]
        thrown_away: list[int] = []
        write = player._write

        def note_and_write(place: int, answer: Answer) -> None:
            if answer.episode == -1:  # of nobody's frame
                thrown_away.append(answer.frame_seq)
            write(place, answer)

        player._write = note_and_write  # type: ignore[method-assign]
        for episode in range(sizes["episodes"]):
            thrown_away.clear()
            seen = player.reset(episode, {})
            of_this = [seq for seq in thrown_away if seq >= first_of[episode]]
            drawn.expect(not of_this, f"the jobs of frames {of_this} were thrown away; {first_of} are the first ones")
            drawn.seen |= {"job thrown away"} if thrown_away else set()
            header, first = seen.header, first_of.get(episode, -1)
            right = header.episode == episode and 0 <= first <= header.frame_seq
            drawn.expect(
                right, f"episode {episode} begins with frame {header.frame_seq} of {header.episode}; {first_of}"
            )
            if header.frame_seq > first:
                drawn.seen.add("began late")
            for _ in range(sizes["steps"]):
                if seen.is_last:
                    drawn.seen.add("ended")
                    break
                before = seen.header.frame_seq
                seen = player.step(words_of(1, 1))
                right = seen.header.episode == episode and seen.header.frame_seq > before
                drawn.expect(right, f"frame {seen.header.frame_seq} of {seen.header.episode} after frame {before}")
                drawn.expect(seen.frame.tolist() == [seen.header.frame_seq], "another frame than its header says")
                drawn.seen.add("played")
        session.is_over = True


PROTOCOLS: tuple[Protocol, ...] = (
    RingProtocol(),
    RecordingProtocol(),
    SlotsProtocol(),
    StoreProtocol(),
    HeldProtocol(),
    MasterProtocol(),
    ResetsProtocol(),
)
