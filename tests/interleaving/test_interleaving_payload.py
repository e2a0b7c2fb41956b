"""Contexts, payloads and what stays with a tick, under every schedule: with their record they are whole, or neither."""

import numpy as np
import pytest

from rtcore.memory.layout import JOB, FrameHeader, Layout
from rtcore.memory.ring import FrameRing
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.scheduling.jobs import Answer, Job
from rtcore.spaces import Block
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import SteppedBuffer, wait_until
from tests.support.broken_protocols import (
    ContextAfterTheNumber,
    KeptAfterTheFrame,
    KeptReadAfterTheCheck,
    OnePayloadForBothEntries,
    PayloadAfterThePublication,
    PayloadReadAfterTheCheck,
)

pytestmark = pytest.mark.interleaving

LAYOUT = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1)
BLOCK_BYTES = 16
KEPT = Block.of("kept", {"pair": (2, "int64")})
WHOLE, NONE, TORN = "whole", "none", "torn"


class JobsOnly(Layout):
    """The job records alone: the control segment is too large to compare at every step."""

    def job_at(self, worker):
        return worker * JOB.num_bytes


JOBS = JobsOnly(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1)


def block_of(seq):
    return b"".join((1000 * seq + word).to_bytes(8, "little") for word in range(BLOCK_BYTES // 8))


def results_of(exploration, name):
    return {read for _, results in exploration.outcomes for read in results[name]}


# -- an answer's payload -----------------------------------------------------------------------------------------


def answer_of(seq):
    return Answer(entry_seq=seq, job_seq=1000 * seq, actions=bytes(8), payload=block_of(seq))


def answers_and_a_reader(slots_class=ActionSlots, num_answers=3):
    """A worker that answers without waiting for anybody: more than any booking logic lets it."""

    def make():
        memory, payloads = bytearray(LAYOUT.slots_bytes), bytearray(2 * BLOCK_BYTES)
        worker, env = (slots_class(SteppedBuffer(memoryview(memory)), LAYOUT) for _ in range(2))
        for slots in (worker, env):
            slots.carry(SteppedBuffer(memoryview(payloads)), [(0, BLOCK_BYTES)], BLOCK_BYTES)

        def write():
            for seq in range(1, num_answers + 1):
                worker.write(0, answer_of(seq))

        def read():
            reads = []
            for _ in range(2):
                seq = env.newest(0)
                answer = env.read(0, seq) if seq else None
                reads.append((seq, NONE if answer is None else WHOLE if answer == answer_of(seq) else TORN))
            return reads

        return Scenario([memory, payloads], {"worker": write, "env": read})

    return make


def test_a_payload_is_never_torn_and_never_another_answers():
    seen = results_of(explore(answers_and_a_reader()), "env")
    assert seen == {(0, NONE), *((seq, WHOLE) for seq in (1, 2, 3)), *((seq, NONE) for seq in (1, 2))}


@pytest.mark.parametrize(
    "slots_class",
    (PayloadAfterThePublication, PayloadReadAfterTheCheck, OnePayloadForBothEntries),
    ids=lambda slots_class: slots_class.__name__,
)
def test_broken_payloads_are_caught(slots_class):
    exploration = explore(
        answers_and_a_reader(slots_class), until=lambda results: TORN in {what for _, what in results["env"]}
    )
    assert TORN in {what for _, what in results_of(exploration, "env")}


# -- a job's context ---------------------------------------------------------------------------------------------


def job_of(seq):
    numbers = (1000 * seq + index for index in range(len(JOB.fields) - 1))
    return Job(0, *numbers, job_seq=seq, context=block_of(seq))


def jobs_and_a_worker(slots_class=JobSlots, num_jobs=2):
    """The env process books the next job once the last one is answered; an idle worker may look at any moment."""

    def make():
        memory, contexts, done = bytearray(JOB.num_bytes), bytearray(BLOCK_BYTES), []
        env, worker = (slots_class(SteppedBuffer(memoryview(memory)), JOBS) for _ in range(2))
        for slots in (env, worker):
            slots.carry(SteppedBuffer(memoryview(contexts)), [0], BLOCK_BYTES)

        def book():
            for seq in range(1, num_jobs + 1):
                env.post(job_of(seq))
                wait_until(lambda seq=seq: len(done) >= seq)

        def work():
            for _ in range(3):  # at any moment
                worker.newest(0)
            while len(done) < num_jobs:
                wait_until(lambda: worker.newest(0) != len(done))
                if worker.newest(0) == len(done):
                    continue
                done.append(worker.read(0))
            return list(done)

        return Scenario([memory, contexts], {"env": book, "worker": work})

    return make


def is_broken(results):
    return results["worker"] != [job_of(1), job_of(2)]


def test_a_worker_gets_each_context_with_its_job_and_whole():
    exploration = explore(jobs_and_a_worker())
    assert exploration.num_schedules > 10
    assert not any(is_broken(results) for _, results in exploration.outcomes)


def test_a_context_that_follows_its_job_is_caught():
    exploration = explore(jobs_and_a_worker(ContextAfterTheNumber), until=is_broken)
    assert any(is_broken(results) for _, results in exploration.outcomes)


# -- what stays with a tick --------------------------------------------------------------------------------------


def frames_and_a_reader(ring_class=FrameRing, num_frames=4):
    def make():
        memory, kept = bytearray(LAYOUT.ring_bytes), bytearray(LAYOUT.ring_slots * BLOCK_BYTES)
        attach(memory, kept, ring_class).sequence.format()
        writer, reader = (attach(memory, kept, ring_class) for _ in range(2))

        def write():
            for seq in range(num_frames):
                writer.publish(np.array([seq]), FrameHeader(frame_seq=seq), bytes(8), block_of(seq))

        def read():
            """As a batch of transitions is read: the copies first, then which of them were lapped."""
            if reader.sequence.newest() < 0:
                return [NONE]
            seqs = np.array([0])
            found = reader.gather_kept(seqs).tobytes()
            return [NONE if reader.lapped(seqs)[0] else WHOLE if found == block_of(0) else TORN]

        return Scenario([memory, kept], {"writer": write, "reader": read})

    return make


def attach(memory, kept, ring_class):
    ring = ring_class(SteppedBuffer(memoryview(memory)), LAYOUT, (1,), "<i8")
    ring.keep(KEPT, SteppedBuffer(memoryview(kept)), BLOCK_BYTES)
    return ring


def test_what_stays_with_a_tick_is_never_torn():
    assert results_of(explore(frames_and_a_reader()), "reader") == {WHOLE, NONE}


@pytest.mark.parametrize(
    "ring_class", (KeptAfterTheFrame, KeptReadAfterTheCheck), ids=lambda ring_class: ring_class.__name__
)
def test_broken_ways_to_keep_are_caught(ring_class):
    exploration = explore(frames_and_a_reader(ring_class), until=lambda results: TORN in results["reader"])
    assert TORN in results_of(exploration, "reader")
