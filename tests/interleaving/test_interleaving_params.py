"""The parameter store under every schedule of publishers and a worker, and with a publisher killed at any step."""

import pytest

from rtcore.errors import PolicyError
from rtcore.memory import weights as params
from rtcore.memory.weights import ParamStore
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import FileLock, Killed
from tests.support.broken_protocols import ClaimsAfterTheSecondLook, IgnoresClaims, LooksBeforeItIsItsTurn, NoSecondLook
from tests.support.stepped_store import (
    LAYOUT,
    TORN,
    WHOLE,
    WORDS,
    MortalBuffer,
    StillClock,
    fill,
    infer,
    inferences_of,
    is_torn,
    new_memory,
    open_store,
    weights,
)

pytestmark = pytest.mark.interleaving


@pytest.fixture(autouse=True)
def no_checksum(monkeypatch):
    monkeypatch.setattr(params, "checksum_of", lambda buffer: 0)


def publishing(times, inferences, store_class=ParamStore):
    def make():
        memory = new_memory()
        publisher, worker = (open_store(memory, store_class) for _ in range(2))

        def publish():
            return [publisher.publish(fill(version), wait_ns=1).version for version in range(2, 2 + times)]

        return Scenario([memory], {"publisher": publish, "worker": lambda: infer(worker, inferences)})

    return make


def test_every_inference_uses_exactly_one_version():
    exploration = explore(publishing(2, 2))
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in (1, 2, 3)}
    assert all(results["publisher"] == [2, 3] for _, results in exploration.outcomes)
    order = [[version for version, _, _ in results["worker"]] for _, results in exploration.outcomes]
    assert all(versions == sorted(versions) for versions in order)
    assert exploration.num_schedules > 1_000_000


def test_a_worker_that_is_slow_to_claim_never_holds_a_buffer_that_is_written():
    """Two publications later the buffer it looked at has come round."""
    exploration = explore(publishing(3, 1))
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in (1, 2, 3, 4)}


@pytest.mark.parametrize(
    "store_class",
    (NoSecondLook, ClaimsAfterTheSecondLook, IgnoresClaims, LooksBeforeItIsItsTurn),
    ids=lambda store_class: store_class.__name__,
)
def test_broken_stores_are_caught(store_class):
    """And a torn inference is always noticed by (R9)."""
    exploration = explore(publishing(3, 1, store_class), until=is_torn)
    torn = {one for one in inferences_of(exploration) if one[1] == TORN}
    assert torn
    assert not any(intact for _, _, intact in torn)


# -- several publishers, and their death -------------------------------------------------------------------------


def make_publishers(memory, *lives):
    lock = FileLock()
    stores = []
    for left in lives:
        stores.append(ParamStore(MortalBuffer(memoryview(memory), [left]), LAYOUT, clock=StillClock(memory)))
        stores[-1]._my_turn = lock
    return stores


def publish_next(store):
    """One publication, filled with its number; None if the publisher died at it."""

    def write(buffer):
        newest = store.newest()
        buffer[0 : 8 * WORDS] = weights(newest.version + 1)

    try:
        return store.publish(write, wait_ns=1).version
    except Killed:
        return None


def with_a_worker(memory, **publishers):
    worker = open_store(memory)
    return Scenario([memory], {**publishers, "worker": lambda: infer(worker, 1)})


def test_two_publishers_take_turns_and_no_version_is_lost_or_given_twice():
    def make():
        memory = new_memory()
        first, second = make_publishers(memory, 1000, 1000)
        return with_a_worker(memory, first=lambda: publish_next(first), second=lambda: publish_next(second))

    exploration = explore(make)
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in (1, 2, 3)}
    assert {(results["first"], results["second"]) for _, results in exploration.outcomes} == {(2, 3), (3, 2)}


#: Heads, weights, counts and `newest`.
STORES_OF_A_PUBLICATION = 7 + WORDS


@pytest.mark.parametrize("step", range(STORES_OF_A_PUBLICATION + 1))
def test_a_publisher_killed_at_any_step_leaves_good_weights_and_the_next_one_publishes(step):
    """The kernel lets go of its lock."""

    def make():
        memory = new_memory()
        first, second = make_publishers(memory, step, 1000)
        return with_a_worker(memory, publishers=lambda: (publish_next(first), publish_next(second)))

    exploration = explore(make)
    died = step < STORES_OF_A_PUBLICATION
    assert {results["publishers"] for _, results in exploration.outcomes} == {(None, 2) if died else (2, 3)}
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in ((1, 2) if died else (1, 2, 3))}


# -- claims of the dead ------------------------------------------------------------------------------------------


def test_the_claim_of_a_dead_worker_is_void_and_that_of_its_successor_holds():
    memory = new_memory()
    gone = [0]
    store = open_store(memory, gone=lambda worker: gone[0])
    store.claim(0, generation=4)
    publish = [store.publish(fill(version), wait_ns=1) for version in (2, 3, 4)]
    assert 0 not in [version.buffer for version in publish]
    gone[0] = 4
    assert store.publish(fill(5), wait_ns=1).buffer == 0
    store.claim(0, generation=5)
    assert all(store.publish(fill(version), wait_ns=1).buffer != 0 for version in (6, 7, 8))


def test_a_store_without_a_version_cannot_be_claimed():
    with pytest.raises(PolicyError, match="no weights have been published"):
        open_store(bytearray(LAYOUT.num_bytes)).claim(0, 1)
