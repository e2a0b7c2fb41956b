"""Ways to get a frame from one process into the private memory of others: what they have in common, and rtcore's own.

All are measured alike: the latency runs from the moment the publisher starts to send to the moment a whole frame
lies in an array (or object) that only the reader has. With several readers every reader gets every frame.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rtcore.clock import NS_PER_US, MonotonicClock
from rtcore.config.resolved import resolve
from rtcore.config.run import make_config
from rtcore.memory.layout import SLOT_ENTRY, FrameHeader, Layout
from rtcore.memory.segments import new_measurement_id, unlink_all
from rtcore.memory.shared import Phase, SharedRun
from rtcore.memory.waiting import WAITING, Sleep, Waker, make_waiting
from rtcore.profile.children import Placement
from rtcore.profile.options import specs_of
from rtcore.scheduling.draft import draft_of
from rtcore.scheduling.jobs import Job

now_ns = MonotonicClock.now_ns
Shape = tuple[int, ...]
Frame = npt.NDArray[np.uint8]
#: Receives `count` frames; returns their latencies [ns]. Lives in a reader process.
Receive = Callable[[int], list[int]]
#: A reader that waits longer than this has lost a frame [s].
PATIENCE_S = 5.0
#: What a ring may take of /dev/shm; as many slots as fit, within reason.
_RING_BYTES = 32 << 20


class Rhythm(NamedTuple):
    """One tick's worth of time: asleep, awake ahead of the deadline, the world's step."""

    gap_ns: int = 4_000_000
    prepare_ns: int = 200_000
    step_ns: int = 300_000


class Opener(NamedTuple):
    """What a reader process calls to open its end: `function(*arguments)`. Pickled to it at its start."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]


class Transport:
    """The publisher's end. Created before the readers start, closed after they are gone."""

    name = ""

    def __init__(self) -> None:
        #: Of every frame of the block, how long after the start of sending all could see it [ns]; where that can be
        #: told apart from waking them.
        self.visible_ns: list[int] = []
        #: What `book` cost for every frame of the block [ns]; empty where there is nothing to book.
        self.booked_ns: list[int] = []

    def place(self, placement: Placement) -> None:
        """Move processes of its own, if it has any, to their CPUs."""

    def opener(self, reader: int) -> Opener | None:
        """How reader process `reader` opens its end; None for `OwnReaders`."""
        return None

    def answerer(self, reader: int) -> Opener | None:
        """The same for answers back to the publisher; None where they are not measured."""
        return None

    def connect(self) -> None:
        """The readers have opened their ends."""

    def prepare(self) -> None:
        """Just before the deadline: what can be done ahead."""

    def book(self) -> None:
        """At the deadline, before the world's step: say who is to get the frame."""

    def send(self, frame: Frame) -> None:
        """Publish to every reader."""
        raise NotImplementedError

    def ask(self) -> list[int]:
        """Have every reader answer once, and take the answers; latencies [ns], write start to read."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back what the transport holds. Also after a failure in the middle."""

    def run_block(self, count: int, frame: Frame, rhythm: Rhythm) -> list[int]:
        """Publish `count` frames, a tick's worth of time each; returns the publisher's costs [ns]."""
        return [self._one_frame(frame, rhythm) for _ in range(count)]

    def _one_frame(self, frame: Frame, rhythm: Rhythm) -> int:
        MonotonicClock().sleep_until_ns(now_ns() + rhythm.gap_ns)
        deadline_ns = now_ns() + rhythm.prepare_ns
        self.prepare()
        spin_until_ns(deadline_ns)
        self.book()
        spin_until_ns(now_ns() + rhythm.step_ns)
        start_ns = now_ns()
        self.send(frame)
        return now_ns() - start_ns


class OwnReaders(Transport):
    """A transport whose readers are programs of its own, not Python's reader processes."""

    def begin(self, count: int) -> None:
        """The readers wait for the next `count` frames from now on."""
        raise NotImplementedError

    def collect(self) -> list[list[int]]:
        """Of each reader the latencies of the block [ns]."""
        raise NotImplementedError


def spin_until_ns(deadline_ns: int) -> None:
    """Awake and busy until then."""
    while now_ns() < deadline_ns:
        pass


def ring_layout(shape: Shape, readers: int) -> Layout:
    observation, action = specs_of(shape)
    slots = max(4, min(64, _RING_BYTES // observation.nbytes))
    return Layout(
        max_workers=readers,
        ring_slots=slots,
        log_slots=slots,
        frame_bytes=observation.nbytes,
        action_bytes=action.nbytes,
        chunk=1,
    )


class Ring:
    """The shared memory of a run that consists of nothing but the measurement. Its creator closes it.

    Its id tells it from a run: `rtcore-top` does not show it. What a killed measurement leaves, the next run removes.
    """

    def __init__(self, shape: Shape, readers: int) -> None:
        self.run_id = new_measurement_id()
        self.layout = ring_layout(shape, readers)
        try:
            self.shared = SharedRun.create(self.run_id, self.layout, specs_of(shape)[0])
        except BaseException:
            unlink_all(self.run_id)
            raise

    def close(self) -> None:
        unlink_all(self.run_id)


# -- rtcore ------------------------------------------------------------------------------------------------


class RtcoreTransport(Transport):
    """The runtime's own ring, job records, slots and wake-ups; the reader is the worker's own code."""

    def __init__(self, wait: str, shape: Shape, readers: int) -> None:
        super().__init__()
        self.name = f"rtcore-{wait}"
        self._wait = wait
        self._shape = shape
        self._readers = range(readers)
        self._ring = Ring(shape, readers)
        shared = self._ring.shared
        self._generations = dict.fromkeys(self._readers, 1)
        for reader in self._readers:
            shared.worker_control[reader]["generation"] = 1
        shared.run_control["phase"] = Phase.RUN
        self._shared = shared
        self._waker = Waker(shared.wake_words()) if WAITING[wait].is_woken else None
        self._action = bytes(self._ring.layout.action_bytes)
        self._header, self._practice_header = draft_of(FrameHeader), draft_of(FrameHeader)
        self._seen_entry = [0] * readers
        self._jobs = [Job(reader, obs_tick=0, due_tick=1, hold=True) for reader in self._readers]

    def opener(self, reader: int) -> Opener:
        return Opener(_open_worker, (self._wait, self._ring.run_id, self._ring.layout, self._shape, reader))

    def answerer(self, reader: int) -> Opener | None:
        if self._wait != "hybrid":
            return None  # the slots are polled by the env process, whatever the worker does to wait for frames
        return Opener(_open_answerer, (self._ring.run_id, self._ring.layout, self._shape, reader))

    def prepare(self) -> None:
        """As TickLoop.prepare_tick and SharedWorkers: wake who will be booked, warm the writer's caches."""
        if self._waker is not None:
            self._waker.ahead(self._readers)
        _complete_header(self._practice_header, 0)
        self._shared.ring.warm()

    def book(self) -> None:
        start_ns = now_ns()
        self._post(self._shared.ring.next_seq)
        self.booked_ns.append(now_ns() - start_ns)
        self._header.frame_seq = self._shared.ring.next_seq
        self._shared.ring.stage(self._header)

    def send(self, frame: Frame) -> None:
        """As TickLoop once the world's step is over: what that gives of the header, then header and frame."""
        start_ns = now_ns()
        _complete_header(self._header, start_ns)
        self._shared.ring.publish(frame, self._header, self._action)
        self.visible_ns.append(now_ns() - start_ns)
        if self._waker is not None:
            self._waker.for_frame(self._readers)

    def ask(self) -> list[int]:
        """The env process looks for answers as SharedWorkers.collect does, only all the time."""
        slots, seen = self._shared.slots, self._seen_entry
        self._post(self._shared.ring.sequence.newest())
        give_up_ns = now_ns() + int(PATIENCE_S * 1e9)
        waiting, found = set(self._readers), []
        while waiting and now_ns() < give_up_ns:
            for reader in tuple(waiting):
                entry_seq = slots.newest(reader)
                if entry_seq == seen[reader]:
                    continue
                seen[reader] = entry_seq
                waiting.remove(reader)
                answer = slots.read(reader, entry_seq)
                if answer is not None:
                    found.append(now_ns() - answer.write_ns)
        return found

    def close(self) -> None:
        self._ring.close()

    def _post(self, frame_seq: int) -> None:
        book = self._shared.jobs.book
        book(self._jobs, self._generations, self._waker, frame_seq=frame_seq, booked_ns=now_ns(), phase_seq=1)


def _complete_header(header: Any, publish_ns: int) -> None:
    """As TickLoop: what only the world's step gives, by name."""
    header.publish_ns = publish_ns
    header.step_ns = 0
    header.source = 0
    header.reward = 0.0
    header.terminated = 0
    header.truncated = 0
    header.episode_return = 0.0
    header.episode_ticks = 0


def _open_worker(wait: str, run_id: str, layout: Layout, shape: Shape, reader: int) -> Receive:
    from rtcore_workers.inference import Worker  # noqa: PLC0415 - for this reader alone
    from rtcore_workers.policies import RandomPolicy  # noqa: PLC0415

    observation, action = specs_of(shape)
    shared = SharedRun.attach(run_id, layout, observation)
    run = resolve(make_config(wait=wait, workers=1), Fraction(60), observation.nbytes)
    policy = RandomPolicy(observation, action, seed=0)
    words, spin_ns = shared.wake_words(), run.config.memory.spin_us * NS_PER_US
    waiting = make_waiting(wait, words, reader, spin_ns, run.period_ns)
    worker = Worker(run=run, index=reader, generation=1, shared=shared, waiting=waiting, policy=policy, action=action)

    def receive(count: int) -> list[int]:
        # Answers were asked for in between, which this worker did not see.
        seen = shared.jobs.newest(reader)
        worker.note_job(seen)
        last = seen + count
        times: list[int] = []
        give_up_ns = now_ns() + count * int(PATIENCE_S * 1e9)
        while seen < last and now_ns() < give_up_ns:
            if shared.jobs.newest(reader) == seen:
                worker.wait_for_job()
                continue
            job = shared.jobs.read(reader)
            seen = job.job_seq
            worker.note_job(seen)
            header = worker.read_frame(job)
            if header is not None:
                times.append(shared.ring.copied_ns - header.publish_ns)
        return times

    return receive


def _open_answerer(run_id: str, layout: Layout, shape: Shape, reader: int) -> Receive:
    shared = SharedRun.attach(run_id, layout, specs_of(shape)[0])
    sleep = Sleep.until_posted(shared.wake_words(), reader)
    action = bytes(layout.action_bytes)

    def answer(count: int) -> list[int]:
        seen = shared.jobs.newest(reader)
        last = seen + count
        give_up_ns = now_ns() + count * int(PATIENCE_S * 1e9)
        while seen < last and now_ns() < give_up_ns:
            if shared.jobs.newest(reader) == seen:
                sleep.unless(partial(shared.jobs.newest, reader), seen + 1)
                continue
            seen += 1
            # Awake for a moment, as after an inference: it is the way back that is measured.
            spin_until_ns(now_ns() + 100_000)
            entry_seq = shared.slots.newest(reader) + 1
            shared.slots.write(reader, SLOT_ENTRY.new(entry_seq=entry_seq, write_ns=now_ns(), actions=action))
        return []

    return answer
