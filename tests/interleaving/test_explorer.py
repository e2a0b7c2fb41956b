"""The explorer itself: it counts schedules rightly, and finds what it is there to find."""

import math
import weakref

import pytest

from rtcore.memory.layout import JOB
from rtcore.torture.explorer import Deadlock, Scenario, explore
from rtcore.torture.stepped import SteppedBuffer, SteppedRecord, wait_until

pytestmark = pytest.mark.interleaving


def counters(*indices, steps_each):
    """Scenario: one actor per entry of `indices`, each adding to that word without any protection."""
    memory = bytearray(16)
    words = SteppedBuffer(memoryview(memory)).cast("q")
    done = []

    def count(index):
        for _ in range(steps_each):
            words[index] = words[index] + 1
        done.append(index)

    def total():
        wait_until(lambda: len(done) == len(indices))
        return words[0]

    actors = {f"actor {number}": lambda index=index: count(index) for number, index in enumerate(indices)}
    return Scenario([memory], actors | {"total": total})


def test_every_schedule_of_independent_actors_is_counted():
    """Two actors of 6 accesses each; the reader of the total can only go last."""
    exploration = explore(lambda: counters(0, 1, steps_each=3))
    assert exploration.num_schedules == math.comb(12, 6)
    assert [results["total"] for _, results in exploration.outcomes] == [3]


def test_unsynchronised_increments_lose_updates_down_to_two():
    exploration = explore(lambda: counters(0, 0, steps_each=3))
    assert exploration.num_schedules == math.comb(12, 6)
    assert {results["total"] for _, results in exploration.outcomes} == {2, 3, 4, 5, 6}


def test_no_actor_outlives_the_exploration_though_most_are_left_in_the_middle_and_tidy_up_by_accesses():
    memories = []

    class Memory(bytearray):
        """Bytes that can be referred to weakly."""

    def make():
        memory = Memory(8)
        memories.append(weakref.ref(memory))
        words = SteppedBuffer(memoryview(memory)).cast("q")

        def count():
            try:
                words[0] = words[0] + 1
            finally:
                words[0] = words[0] - 1

        return Scenario([memory], {"a": count, "b": count})

    assert explore(make).num_runs == len(memories) > 1
    assert [memory for memory in memories if memory() is not None] == []


def test_actors_that_wait_for_each_other_are_a_deadlock():
    def make():
        memory = bytearray(16)
        words = SteppedBuffer(memoryview(memory)).cast("q")

        def wait_then_set(mine, other):
            wait_until(lambda: words[other] == 1)
            words[mine] = 1

        return Scenario([memory], {"a": lambda: wait_then_set(0, 1), "b": lambda: wait_then_set(1, 0)})

    with pytest.raises(Deadlock, match="wait for ever"):
        explore(make)


def test_an_error_in_an_actor_names_the_schedule_that_led_to_it():
    def make():
        memory = bytearray(8)
        words = SteppedBuffer(memoryview(memory)).cast("q")

        def divide():
            return 1 // words[0]

        return Scenario([memory], {"writer": lambda: words.__setitem__(0, 1), "reader": divide})

    with pytest.raises(ZeroDivisionError) as caught:
        explore(make)
    assert caught.value.__notes__ == ["schedule: reader"]


def test_struct_really_clears_a_record_before_it_fills_it():
    """Why the explorer models packing so: a value that cannot be packed leaves zeros behind, not the old record."""
    memory = bytearray(b"\xff" * JOB.num_bytes)
    with pytest.raises(Exception, match="required argument is not an integer|int"):
        JOB.struct.pack_into(memory, 0, -1, "not a number", *range(6))
    assert memory[8 : JOB.struct.size] == bytes(JOB.struct.size - 8)


def test_a_stepped_record_packs_and_unpacks_what_the_real_one_does():
    memory, real = bytearray(JOB.num_bytes), bytearray(JOB.num_bytes)
    stepped = SteppedRecord(JOB)
    fields = tuple(range(1, 9))
    stepped.pack_into(SteppedBuffer(memoryview(memory)), 0, *fields)
    JOB.struct.pack_into(real, 0, *fields)
    assert memory == real
    assert stepped.unpack_from(SteppedBuffer(memoryview(memory)), 0) == fields
