"""The parameter store under every schedule of publishers and a worker, and with a publisher killed at any step."""

import pytest

from rtcore.errors import PolicyError
from rtcore.memory import weights as params
from rtcore.memory.layout import ParamLayout
from rtcore.memory.weights import ParamStore, Version
from tests.support.explorer import Scenario, SteppedBuffer, access, explore, wait_until

pytestmark = pytest.mark.interleaving

WORDS = 2
WHOLE, TORN = "whole", "torn"


class SmallLayout(ParamLayout):
    """Without the room up to the next page: memory is compared at every step."""

    def buffer_at(self, buffer):
        return self.manifest_at + buffer * self.buffer_bytes


LAYOUT = SmallLayout(max_workers=1, manifest_bytes=0, buffer_bytes=8 * WORDS, trainable_bytes=8 * WORDS)


@pytest.fixture(autouse=True)
def no_checksum(monkeypatch):
    monkeypatch.setattr(params, "checksum_of", lambda buffer: 0)


class StillClock:
    """No time passes; who sleeps goes on once a claim has changed."""

    def __init__(self, memory):
        self._claims = slice(LAYOUT.claim_at(0), LAYOUT.claim_at(LAYOUT.max_workers))
        self._memory = memory

    def now_ns(self):
        return 0

    def sleep_until_ns(self, deadline_ns):
        del deadline_ns
        before = bytes(self._memory[self._claims])
        wait_until(lambda: bytes(self._memory[self._claims]) != before)


def weights(version):
    return version.to_bytes(8, "little") * WORDS


def fill(version):
    return lambda buffer: buffer.__setitem__(slice(0, 8 * WORDS), weights(version))


def open_store(memory, store_class=ParamStore, **options):
    return store_class(SteppedBuffer(memoryview(memory)), LAYOUT, clock=StillClock(memory), **options)


def new_memory(store_class=ParamStore):
    """With version 1 in buffer 0."""
    memory = bytearray(LAYOUT.num_bytes)
    first = open_store(memory).publish(fill(1), wait_ns=1)
    assert first == Version(1, 0, 0, 0)
    return memory


def infer(store, times):
    """A worker: what each of its inferences computed with."""
    found = []
    for _ in range(times):
        claimed = store.claim(0, generation=1)
        read = bytes(store.buffer(claimed.buffer))
        intact = store.is_intact(claimed)
        store.release(0)
        found.append((claimed.version, WHOLE if read == weights(claimed.version) else TORN, intact))
    return found


def publishing(times, inferences, store_class=ParamStore):
    def make():
        memory = new_memory()
        publisher, worker = (open_store(memory, store_class) for _ in range(2))

        def publish():
            return [publisher.publish(fill(version), wait_ns=1).version for version in range(2, 2 + times)]

        return Scenario([memory], {"publisher": publish, "worker": lambda: infer(worker, inferences)})

    return make


def inferences_of(exploration):
    return {one for _, results in exploration.outcomes for one in results["worker"]}


def is_torn(results):
    return any(what == TORN for _, what, _ in results["worker"])


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


class NoSecondLook(ParamStore):
    """Without (R8)."""

    def claim(self, worker, generation):
        word = self._newest[0]
        self._claims[worker][0] = generation << 3 | (word & 7) + 1
        return Version(word >> 3, word & 7, 0, 0)


class ClaimsAfterTheSecondLook(ParamStore):
    """(W7) after (R8)."""

    def claim(self, worker, generation):
        while True:
            word = self._newest[0]
            if self._newest[0] == word:
                self._claims[worker][0] = generation << 3 | (word & 7) + 1
                return Version(word >> 3, word & 7, 0, 0)


class IgnoresClaims(ParamStore):
    """Without (R7)."""

    def _claimed(self):
        return set()


class LooksBeforeItIsItsTurn(ParamStore):
    """(R7) once, before the buffers of the last publication have changed their roles."""

    def _claimed(self):
        self.seen = getattr(self, "seen", None) or [ParamStore._claimed(self)]
        return self.seen[0]


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


class Killed(BaseException):
    """A process that is no more."""


class FileLock:
    """`flock`: one holder at a time, let go by death."""

    def __init__(self):
        self.held = False

    def take(self):
        taken, self.held = not self.held, True
        return taken


class Publisher(ParamStore):
    """Takes its turn with the others."""

    file_lock = None

    def _my_turn(self, give_up_ns):
        return Turn(self.file_lock)


class Turn:
    def __init__(self, lock):
        self._lock = lock

    def __enter__(self):
        while not access(self._lock.take):
            wait_until(lambda: not self._lock.held)
        return True

    def __exit__(self, *_):
        self._lock.held = False


class MortalBuffer(SteppedBuffer):
    """Who uses it dies when it is about to store for the `lives[0]`th time. Its loads change nothing."""

    def __init__(self, raw, lives):
        super().__init__(raw)
        self._lives = lives

    def cast(self, code):
        return MortalWords(super().cast(code), self._lives)

    def __getitem__(self, part):
        return MortalBuffer(self.raw[part], self._lives)

    def __setitem__(self, part, data):
        for at in range(0, len(data), 8):
            spend(self._lives)
            SteppedBuffer.__setitem__(self, slice(part.start + at, part.start + at + 8), data[at : at + 8])


class MortalWords:
    def __init__(self, words, lives):
        self._words, self._lives = words, lives

    def __getitem__(self, index):
        return self._words[index]

    def __setitem__(self, index, value):
        spend(self._lives)
        self._words[index] = value


def spend(lives):
    lives[0] -= 1
    if lives[0] < 0:
        raise Killed


def make_publishers(memory, *lives):
    lock = FileLock()
    stores = []
    for left in lives:
        stores.append(Publisher(MortalBuffer(memoryview(memory), [left]), LAYOUT, clock=StillClock(memory)))
        stores[-1].file_lock = lock
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
