"""Writer and readers in processes of their own, over real shared memory, as fast as they can.

The interleaving tests explore every schedule under sequential consistency; this one lets the machine's own
memory order have its say. Every payload is a function of its number, so a torn copy cannot pass. Bounded by
counts, and by a time where each waits for the other; the pytest timeout is the watchdog.
"""

import multiprocessing
import random
import time
from multiprocessing.connection import wait

import numpy as np
import pytest

from rtcore.memory.layout import FrameHeader, Layout
from rtcore.memory.ring import ReadStatus
from rtcore.memory.segments import files_of, new_run_id, unlink_all
from rtcore.memory.shared import SharedRun
from rtcore.scheduling.jobs import Answer, Job
from rtcore.spaces import ObservationSpec

pytestmark = pytest.mark.process

FRAME_SHAPE = (144, 160)
CHUNK, ACTION_BYTES = 16, 256
LAYOUT = Layout(max_workers=2, ring_slots=4, log_slots=4, frame_bytes=23040, action_bytes=ACTION_BYTES, chunk=CHUNK)
OBSERVATION = ObservationSpec(FRAME_SHAPE, "uint8", (0,), (255,))
NUM_FRAMES = 30_000
NUM_LAPPED = 20
NUM_ANSWERS = 40_000
#: Each waits for the other at every one: where others have the CPUs a job takes two of their turns. Then fewer will do.
NUM_JOBS, FEW_JOBS, ENOUGH_S = 20_000, 200, 15

_context = multiprocessing.get_context("spawn")
#: 251 is prime: neighbouring frames and neighbouring ring rounds differ in every byte.
_RAMP = np.arange(23040, dtype=np.uint32).reshape(FRAME_SHAPE)


def frame_of(seq):
    return ((_RAMP + 7 * seq) % 251).astype(np.uint8)


#: `frame_of` repeats after 251 frames: made once, so that the writer is fast.
def all_frames():
    return [frame_of(seq) for seq in range(251)]


def numbers(seq, fields):
    return {name: seq * 64 + index for index, name in enumerate(fields)}


def header_of(seq):
    return FrameHeader(**numbers(seq, FrameHeader._fields) | {"frame_seq": seq})


def answer_of(seq):
    return Answer(**numbers(seq, Answer._fields) | {"entry_seq": seq, "actions": actions_of(seq), "payload": b""})


def job_of(seq):
    return Job(**numbers(seq, Job._fields) | {"worker": 1, "job_seq": seq, "context": b""})


def actions_of(seq):
    return (seq % 2**32).to_bytes(4, "little") * (CHUNK * ACTION_BYTES // 4)


# -- the processes -----------------------------------------------------------------------------------------------


def attach(run_id):
    return SharedRun.attach(run_id, LAYOUT, OBSERVATION)


def publish_frames(run_id, ready, results, readers_done):
    """Goes on until the readers have seen enough, and at least `NUM_FRAMES`."""
    ring, frames = attach(run_id).ring, all_frames()
    ready.wait()
    seq = -1
    while seq < NUM_FRAMES or readers_done.value < 2:
        seq = ring.publish(frames[(seq + 1) % 251], header_of(seq + 1), (seq + 1).to_bytes(4, "little") * 64)
    results.put(("writer", {"published": seq + 1}))


def read_frames(run_id, ready, results, readers_done, seed):
    """The newest frame, and older ones down to such as are about to be overwritten, until enough were lapped."""
    ring, frames, rng = attach(run_id).ring, all_frames(), random.Random(seed)
    out = np.zeros(FRAME_SHAPE, np.uint8)
    counts = dict.fromkeys(("ok", "lapped", "not_yet", "torn", "mismatched", "back"), 0)
    last = -1
    ready.wait()
    while last < NUM_FRAMES or min(counts["ok"], counts["lapped"]) < NUM_LAPPED:
        newest = ring.sequence.newest()
        counts["back"] += newest < last
        last = newest
        seq = newest - rng.choice((0, 0, 1, 2, 3, -1))
        status = ring.read(seq, out)
        counts[status.name.lower()] += 1
        if status is not ReadStatus.OK:
            continue
        if not np.array_equal(out, frames[seq % 251]):
            counts["torn"] += 1
            break
        status, header = ring.read_header(seq)
        if status is ReadStatus.OK:
            counts["mismatched"] += header != header_of(seq)
        status, header = ring.read_with_header(seq, out)
        if status is ReadStatus.OK:
            counts["torn"] += not np.array_equal(out, frames[seq % 251])
            counts["mismatched"] += header != header_of(seq)
        action = ring.read_action(seq)
        counts["mismatched"] += action is not None and action != seq.to_bytes(4, "little") * 64
    with readers_done.get_lock():
        readers_done.value += 1
    results.put((f"reader {seed}", counts))


def write_answers(run_id, ready, results, readers_done):
    """Goes on until the reader has seen enough, and at least `NUM_ANSWERS`."""
    slots = attach(run_id).slots
    ready.wait()
    seq = 0
    while seq < NUM_ANSWERS or not readers_done.value:
        seq += 1
        slots.write(1, answer_of(seq))
    results.put(("writer", {"written": seq}))


def read_answers(run_id, ready, results, readers_done):
    slots = attach(run_id).slots
    counts = dict.fromkeys(("whole", "torn", "overtaken", "back"), 0)
    last = 0
    ready.wait()
    while last < NUM_ANSWERS or min(counts["whole"], counts["overtaken"]) < 1:
        newest = slots.newest(1)
        counts["back"] += newest < last
        last = newest
        answer = slots.read(1, newest) if newest else None
        if answer is None:
            counts["overtaken"] += 1
            continue
        counts["whole" if answer == answer_of(newest) else "torn"] += 1
    readers_done.value = 1
    results.put(("reader", counts))


def book_jobs(run_id, ready, results, over):
    shared = attach(run_id)
    ready.wait()
    seq, enough_s = 0, time.monotonic() + ENOUGH_S
    while seq < FEW_JOBS or (seq < NUM_JOBS and time.monotonic() < enough_s):
        seq += 1
        shared.jobs.post(job_of(seq))
        while shared.slots.newest(1) < seq:
            pass
    over.value = 1
    results.put(("env", {"booked": seq}))


def take_jobs(run_id, ready, results, over):
    """As a worker that is always awake: it looks at the board while the next job is being written."""
    shared = attach(run_id)
    counts = dict.fromkeys(("whole", "torn"), 0)
    seen = 0
    ready.wait()
    while not over.value:
        if shared.jobs.newest(1) == seen:
            continue
        job = shared.jobs.read(1)
        counts["whole" if job == job_of(seen + 1) else "torn"] += 1
        seen = job.job_seq
        shared.slots.write(1, answer_of(seen))
    results.put(("worker", counts))


# -- the tests ---------------------------------------------------------------------------------------------------


@pytest.fixture
def run_id():
    run_id = new_run_id()
    shared = SharedRun.create(run_id, LAYOUT, OBSERVATION)
    try:
        yield run_id
    finally:
        shared.close()
        unlink_all(run_id)
    assert files_of(run_id) == []


def run_together(run_id, *jobs):
    """Start every (function, *extra arguments) in a process of its own; returns what each put into `results`."""
    results, ready = _context.SimpleQueue(), _context.Barrier(len(jobs))
    processes = [_context.Process(target=body, args=(run_id, ready, results, *extra)) for body, *extra in jobs]
    for process in processes:
        process.start()
    try:
        running = {process.sentinel: process for process in processes}
        while running:
            for sentinel in wait(list(running)):
                process = running.pop(sentinel)
                process.join()
                assert process.exitcode == 0, f"{process.name} ended with {process.exitcode}; the others wait for it"
        return dict(results.get() for _ in jobs)
    finally:
        for process in processes:
            process.kill()
        results.close()


def test_no_frame_read_as_ok_is_torn_while_the_writer_laps_its_readers(run_id):
    done = _context.Value("i", 0)
    found = run_together(
        run_id,
        (publish_frames, done),
        (read_frames, done, 1),
        (read_frames, done, 2),
    )
    assert found["writer"]["published"] >= NUM_FRAMES
    for reader in ("reader 1", "reader 2"):
        counts = found[reader]
        assert (counts["torn"], counts["mismatched"], counts["back"]) == (0, 0, 0), counts
        assert min(counts["ok"], counts["lapped"]) >= NUM_LAPPED, counts
        assert counts["not_yet"] > 0, counts


def test_no_slot_entry_is_torn_while_its_worker_writes_on(run_id):
    done = _context.Value("i", 0)
    found = run_together(run_id, (write_answers, done), (read_answers, done))
    counts = found["reader"]
    assert (counts["torn"], counts["back"]) == (0, 0), counts
    assert found["writer"]["written"] >= NUM_ANSWERS


def test_a_worker_that_never_sleeps_takes_every_job_once_and_whole(run_id):
    over = _context.Value("i", 0)
    found = run_together(run_id, (book_jobs, over), (take_jobs, over))
    assert found["worker"] == {"whole": found["env"]["booked"], "torn": 0}
