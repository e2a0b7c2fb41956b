"""When the env process collects its garbage."""

import pytest

from rtcore.clock import ManualClock
from rtcore.loop.garbage import _CHECK_MEMORY_EVERY_TICKS, SlackCollector

MS = 1_000_000


class Heap:
    """Objects as Python's collector counts them; a collection takes `ns_per_object` of each it looks at."""

    def __init__(self, ns_per_object=100, garbage=1.0):
        self.clock = ManualClock()
        self.young = self.old = 0
        self.rss = 0
        self.automatic = False
        self.garbage = garbage
        self.ns_per_object = ns_per_object
        self.told = []
        self.collector = SlackCollector(
            self.clock,
            lambda start_ns, end_ns, forced: self.told.append((end_ns - start_ns, forced)),
            collect=self.collect,
            num_young=lambda: self.young,
            is_automatic=lambda: self.automatic,
            memory_bytes=lambda: self.rss,
        )
        self.levels = []

    def collect(self, level):
        self.levels.append(level)
        looked_at = self.young + (self.old if level == 2 else 0)
        self.clock.advance_ns(looked_at * self.ns_per_object)
        # In a small collection what was alive a moment ago survives; a full one finds all of the garbage.
        found = 0 if level == 1 else int(looked_at * self.garbage)
        self.old = looked_at - found + (self.old if level == 1 else 0)
        self.young = 0
        return found

    def tick(self, made, slack_ns, **how):
        self.young += made
        how = {"world_stands": False} | how
        self.collector.after_tick(self.clock.now_ns() + slack_ns, **how)


def test_few_objects_are_not_worth_a_collection():
    heap = Heap()
    for _ in range(100):
        heap.tick(made=10, slack_ns=100 * MS)
    assert heap.levels == []


def test_young_objects_are_collected_in_the_slack_and_old_ones_after_enough_of_them():
    heap = Heap()
    for _ in range(50):
        heap.tick(made=2_000, slack_ns=100 * MS)
    assert set(heap.levels) == {1, 2}
    assert not any(forced for _, forced in heap.told)
    assert heap.old + heap.young < 20_000, "what is made in cycles does not pile up"


def test_a_collection_that_does_not_fit_the_slack_is_not_begun():
    heap = Heap()
    for _ in range(20):
        heap.tick(made=2_000, slack_ns=1 * MS // 10)
    assert heap.levels == []


def test_what_did_not_fit_is_collected_where_the_world_stands_still_and_counted_as_forced():
    heap = Heap()
    heap.tick(made=5_000, slack_ns=1)
    heap.tick(made=0, slack_ns=1, world_stands=True)
    assert heap.levels == [1]
    assert [forced for _, forced in heap.told] == [True]


def test_too_many_objects_are_collected_although_a_tick_waits_for_it():
    heap = Heap()
    ticks = 0
    while not heap.levels:
        heap.tick(made=10_000, slack_ns=1)
        ticks += 1
    assert ticks == 20
    assert [forced for _, forced in heap.told] == [True]


@pytest.mark.parametrize(("grown_mb", "levels"), [(32, []), (100, [2])])
def test_few_objects_that_hold_much_memory_are_collected_too(grown_mb, levels):
    heap = Heap()
    heap.rss = grown_mb << 20
    for _ in range(_CHECK_MEMORY_EVERY_TICKS):
        heap.tick(made=1, slack_ns=100 * MS)
    assert heap.levels == levels


def test_memory_beyond_all_bounds_is_collected_without_any_slack():
    heap = Heap()
    heap.rss = 300 << 20
    for _ in range(_CHECK_MEMORY_EVERY_TICKS):
        heap.tick(made=1, slack_ns=0)
    assert heap.levels == [2]
    assert heap.told[0][1]


def test_a_slow_collection_is_remembered():
    heap = Heap(ns_per_object=10_000)  # 20 ms for 2,000
    heap.tick(made=2_000, slack_ns=5 * MS)
    assert heap.levels == [1]
    heap.tick(made=2_000, slack_ns=5 * MS)
    assert heap.levels == [1], "it would have been late again"


def test_while_nobody_waits_for_a_tick_all_that_is_due_is_collected():
    heap = Heap()
    heap.young = 50_000
    heap.collector.while_waiting()
    assert heap.levels == [2]
    assert heap.told[0][1] is False
    heap.collector.while_waiting()
    assert heap.levels == [2]


def test_where_pythons_own_collector_is_on_there_is_nothing_to_do():
    heap = Heap()
    heap.automatic = True
    for _ in range(300):
        heap.tick(made=100_000, slack_ns=100 * MS, world_stands=True)
    heap.collector.while_waiting()
    assert heap.levels == []
