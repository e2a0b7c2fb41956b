"""Action slots and job records under every schedule of the env process and a worker."""

import pytest

from rtcore.memory.layout import JOB, SLOT_ENTRY, Layout
from rtcore.memory.slots import ActionSlots, JobSlots
from rtcore.scheduling.jobs import Answer, Job
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import SteppedBuffer, wait_until
from tests.support.broken_protocols import (
    CheckOffByOne,
    EntryCheckedBeforeTheCopy,
    NumberFirst,
    NumberPackedWithTheRest,
    OneEntryOnly,
    PublishedBeforeTheEntry,
)

pytestmark = pytest.mark.interleaving

SLOTS = Layout(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=2)
WHOLE, NONE, TORN = "whole", "none", "torn"


class JobsOnly(Layout):
    """The job records alone: the control segment is too large to compare at every step."""

    def job_at(self, worker):
        return worker * JOB.num_bytes


JOBS = JobsOnly(max_workers=1, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=2)


def answer_of(seq):
    numbers = (1000 * seq + index for index in range(len(SLOT_ENTRY.fields) - 1))
    return Answer(seq, *numbers, actions=actions_of(seq))


def actions_of(seq):
    return b"".join((1000 * seq + 500 + index).to_bytes(8, "little") for index in range(SLOTS.chunk))


def job_of(seq):
    return Job(0, *(1000 * seq + index for index in range(len(JOB.fields) - 1)), job_seq=seq)


def read_entry(env, seq):
    """What came of reading entry `seq`."""
    found = env.read(0, seq)
    if found is None:
        return NONE
    return WHOLE if found == answer_of(seq) else TORN


def answers_and_a_reader(reader, num_answers, slots_class=ActionSlots):
    """A worker that answers without waiting for anybody: more than any booking logic lets it."""

    def make():
        memory = bytearray(SLOTS.slots_bytes)
        worker, env = (slots_class(SteppedBuffer(memoryview(memory)), SLOTS) for _ in range(2))

        def write():
            for seq in range(1, num_answers + 1):
                worker.write(0, answer_of(seq))

        return Scenario([memory], {"worker": write, "env": lambda: reader(env)})

    return make


def read_newest(env):
    seq = env.newest(0)
    return [(seq, read_entry(env, seq) if seq else NONE)]


def results_of(exploration):
    return {read for _, results in exploration.outcomes for read in results["env"]}


# -- action slots ------------------------------------------------------------------------------------------------


def test_slot_entries_are_never_torn():
    exploration = explore(answers_and_a_reader(lambda env: read_newest(env) + read_newest(env), 3))
    seen = results_of(exploration)
    assert seen == {(0, NONE), *((seq, WHOLE) for seq in (1, 2, 3)), *((seq, NONE) for seq in (1, 2))}
    order = [tuple(seq for seq, _ in results["env"]) for _, results in exploration.outcomes]
    assert all(first <= second for first, second in order)
    assert exploration.num_schedules > 1_000_000


def test_the_last_entry_can_always_be_read():
    """Nobody writes any more: the answer of a worker that went idle is not lost."""

    def make():
        scenario = answers_and_a_reader(read_newest, 3)()
        done = []
        write, read = scenario.actors["worker"], scenario.actors["env"]
        scenario.actors["worker"] = lambda: (write(), done.append(True))
        scenario.actors["env"] = lambda: (wait_until(lambda: bool(done)), read())[1]
        return scenario

    assert results_of(explore(make)) == {(3, WHOLE)}


@pytest.mark.parametrize(
    "slots_class",
    (OneEntryOnly, PublishedBeforeTheEntry, EntryCheckedBeforeTheCopy, CheckOffByOne),
    ids=lambda slots_class: slots_class.__name__,
)
def test_broken_slots_are_caught(slots_class):
    exploration = explore(answers_and_a_reader(read_newest, 3, slots_class))
    assert TORN in {what for _, what in results_of(exploration)}


# -- job records -------------------------------------------------------------------------------------------------


def jobs_and_answers(num_jobs, board_class=JobSlots, *, wait_for_the_answer=True):
    """The env process books, the worker takes and answers. An idle worker may look at any moment."""

    def make():
        job_memory, slot_memory = bytearray(JOB.num_bytes), bytearray(SLOTS.slots_bytes)
        env_board, board = (board_class(SteppedBuffer(memoryview(job_memory)), JOBS) for _ in range(2))
        env_slots, own_slots = (ActionSlots(SteppedBuffer(memoryview(slot_memory)), SLOTS) for _ in range(2))

        def book():
            answers = []
            for seq in range(1, num_jobs + 1):
                env_board.post(job_of(seq))
                if wait_for_the_answer:
                    wait_until(lambda seq=seq: env_slots.newest(0) >= seq)
                    answers.append(read_entry(env_slots, seq))
            return answers

        def work():
            """`Worker.serve`, less what it does with the job."""
            seen, jobs = 0, []
            while seen < num_jobs:
                wait_until(lambda seen=seen: board.newest(0) != seen)
                if board.newest(0) == seen:
                    continue
                job = board.read(0)
                seen = job.job_seq
                jobs.append(job)
                own_slots.write(0, answer_of(seen)._replace(entry_seq=len(jobs)))
            return jobs

        return Scenario([job_memory, slot_memory], {"env": book, "worker": work})

    return make


def jobs_taken(exploration):
    return {tuple(results["worker"]) for _, results in exploration.outcomes}


def not_whole(results):
    return tuple(results["worker"]) != whole_jobs(2)


def whole_jobs(num_jobs):
    return tuple(job_of(seq) for seq in range(1, num_jobs + 1))


def test_a_worker_takes_every_job_once_and_whole_and_its_answers_arrive():
    exploration = explore(jobs_and_answers(3))
    assert jobs_taken(exploration) == {whole_jobs(3)}
    assert {tuple(results["env"]) for _, results in exploration.outcomes} == {(WHOLE,) * 3}


@pytest.mark.parametrize(
    "board_class", (NumberFirst, NumberPackedWithTheRest), ids=lambda board_class: board_class.__name__
)
def test_broken_job_boards_are_caught(board_class):
    exploration = explore(jobs_and_answers(2, board_class), until=not_whole)
    assert jobs_taken(exploration) - {whole_jobs(2)}


def test_booking_a_worker_that_still_holds_a_job_is_caught():
    """Why a worker never holds two jobs: the record is not protected against its own writer."""
    exploration = explore(jobs_and_answers(2, wait_for_the_answer=False), until=not_whole)
    assert jobs_taken(exploration) - {whole_jobs(2)}
