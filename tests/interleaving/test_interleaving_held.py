"""Weights on their way from the run's store to a device's, and to a worker there, under every schedule of the three."""

from functools import partial

import pytest

from rtcore.memory import weights as params
from rtcore.memory.weights import ParamStore
from rtcore.torture.explorer import Scenario, explore
from rtcore.torture.stepped import Killed, SteppedBuffer
from rtcore_workers.holder import Holder
from tests.support.broken_protocols import IgnoresClaims, NoSecondLook
from tests.support.stepped_store import (
    TORN,
    WHOLE,
    WORDS,
    MortalBuffer,
    SmallLayout,
    StillClock,
    fill,
    infer,
    inferences_of,
    is_torn,
    new_memory,
    open_store,
)

pytestmark = pytest.mark.interleaving


@pytest.fixture(autouse=True)
def no_checksum(monkeypatch):
    monkeypatch.setattr(params, "checksum_of", lambda buffer: 0)


HEADS = SmallLayout(max_workers=1, manifest_bytes=0, buffer_bytes=0, trainable_bytes=0)


class Device:
    """Memory that neither store is in."""

    def __init__(self, memory):
        self._memory = SteppedBuffer(memoryview(memory))
        self.notes = []
        self.exported = {}

    def part(self, buffer):
        return slice(buffer * 8 * WORDS, (buffer + 1) * 8 * WORDS)

    def write(self, buffer, source):
        self._memory[self.part(buffer)] = bytes(source)

    def read(self, buffer):
        return bytes(self._memory[self.part(buffer)])

    def close(self):
        pass


class HeadsClock(StillClock):
    def __init__(self, memory):
        super().__init__(memory)
        self._claims = slice(HEADS.claim_at(0), HEADS.claim_at(1))


def holding(publications, follows, inferences, store_class=ParamStore, before=0):
    """The host's claim 0 is the holder's. `before`: publications that the holder has not followed yet."""

    def make():
        host, heads, device = new_memory(), bytearray(HEADS.num_bytes), bytearray(3 * 8 * WORDS)

        def open_heads():
            return store_class(SteppedBuffer(memoryview(heads)), HEADS, clock=HeadsClock(heads))

        def holder():
            return Holder(open_store(host), open_heads(), Device(device), place=0, generation=1)

        holder().fill()
        publisher, follower, worker = open_store(host), holder(), open_heads()
        for number in range(2, 2 + before):
            publisher.publish(fill(number), wait_ns=1)

        def publish():
            numbers = range(2 + before, 2 + before + publications)
            return [publisher.publish(fill(number), wait_ns=1).version for number in numbers]

        def follow():
            return [brought.version if (brought := follower.follow()) else None for _ in range(follows)]

        actors = {
            "publisher": publish,
            "holder": follow,
            "worker": lambda: infer(worker, inferences, Device(device).read),
        }
        return Scenario([host, heads, device], actors)

    return make


@pytest.mark.slow
def test_every_inference_on_a_device_uses_exactly_one_version():
    """One version waits for the holder, another is published meanwhile."""
    exploration = explore(holding(1, 2, 1, before=1))
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in (1, 2, 3)}
    brought = {tuple(results["holder"]) for _, results in exploration.outcomes}
    assert brought == {(2, None), (2, 3), (3, None)}
    assert exploration.num_schedules > 1_000_000


def test_no_inference_on_a_device_uses_an_older_version_than_the_one_before():
    exploration = explore(holding(1, 1, 2))
    order = {tuple(version for version, _, _ in results["worker"]) for _, results in exploration.outcomes}
    assert order == {(1, 1), (1, 2), (2, 2)}


@pytest.mark.parametrize("store_class", (NoSecondLook, IgnoresClaims), ids=lambda store_class: store_class.__name__)
def test_a_broken_store_of_a_holder_is_caught(store_class):
    exploration = explore(holding(3, 3, 1, store_class), until=is_torn)
    torn = {one for one in inferences_of(exploration) if one[1] == TORN}
    assert torn
    assert not any(intact for _, _, intact in torn)


#: Its claim on the host's buffer, set and cleared; heads, weights, counts and `newest` of the device's.
STORES_OF_A_HOLDER = 9 + WORDS


@pytest.mark.parametrize(
    "step", [pytest.param(n, marks=pytest.mark.slow) if n % 2 else n for n in range(STORES_OF_A_HOLDER + 1)]
)
def test_a_holder_killed_at_any_step_leaves_good_weights_there_and_no_buffer_claimed_here(step):
    """The supervisor lets go of its claim."""

    def make():
        host, heads, device = new_memory(), bytearray(HEADS.num_bytes), bytearray(3 * 8 * WORDS)
        open_heads = partial(ParamStore, layout=HEADS, clock=HeadsClock(heads))
        Holder(open_store(host), open_heads(SteppedBuffer(memoryview(heads))), Device(device), 0, 1).fill()
        publisher, worker, lives = open_store(host), open_heads(SteppedBuffer(memoryview(heads))), [step]
        publisher.publish(fill(2), wait_ns=1)
        mortal = Device(device)
        mortal._memory = MortalBuffer(memoryview(device), lives)
        from_host = ParamStore(MortalBuffer(memoryview(host), lives), publisher.layout, clock=StillClock(host))
        follower = Holder(from_host, open_heads(MortalBuffer(memoryview(heads), lives)), mortal, 0, 1)

        def follow():
            try:
                brought = follower.follow().version
            except Killed:
                brought = None
            publisher.release(0)
            return brought, [publisher.publish(fill(version), wait_ns=1).version for version in (3, 4, 5)]

        return Scenario(
            [host, heads, device], {"holder": follow, "worker": lambda: infer(worker, 1, Device(device).read)}
        )

    exploration = explore(make)
    died = step < STORES_OF_A_HOLDER
    assert {str(results["holder"]) for _, results in exploration.outcomes} == {f"({None if died else 2}, [3, 4, 5])"}
    assert inferences_of(exploration) == {(version, WHOLE, True) for version in ((1,) if died else (1, 2))}
