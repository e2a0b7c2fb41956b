"""The parameter store in a real segment: memory, turns of publishers, skipped publications."""

import fcntl
import os

import numpy as np
import pytest

from rtcore.errors import LayoutMismatchError
from rtcore.memory.counters import Words
from rtcore.memory.layout import WORKER_CONTROL, Layout
from rtcore.memory.segments import attach_segment, create_segment, new_run_id, segment_path, unlink_all
from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore.memory.weights import NONE, attach_store, checksum_of, create_store, layout_of

pytestmark = pytest.mark.unit

LAYOUT = Layout(max_workers=2, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1)
NUM = 1 << 20
MANIFEST = ParamManifest.of(
    [
        ParamTensor(("scale",), (3,), (1,), "float32", "buffer", trainable=False),
        ParamTensor(("weight",), (NUM,), (1,), "float32", "parameter", trainable=True),
    ]
)


@pytest.fixture
def run_id():
    run_id = new_run_id()
    create_segment(run_id, "control", LAYOUT).close()
    sizes = layout_of(MANIFEST, LAYOUT.max_workers)
    fields = ("num_buffers", "manifest_bytes", "buffer_bytes", "trainable_bytes")
    create_store(run_id, LAYOUT, {field: getattr(sizes, field) for field in fields})
    yield run_id
    unlink_all(run_id)


@pytest.fixture
def store(run_id):
    store = attach_store(run_id)
    store.set_manifest(MANIFEST)
    yield store
    store.close()


def fill(value):
    return lambda buffer: MANIFEST.trainable_array(buffer).fill(value)


def memory_mb(run_id):
    return os.stat(segment_path(run_id, "params")).st_blocks * 512 / 1e6  # noqa: PTH116 - as `du` counts


def test_a_buffer_takes_memory_only_once_it_is_needed(run_id, store):
    size_mb = MANIFEST.buffer_bytes / 1e6
    assert size_mb < memory_mb(run_id) < 1.1 * size_mb
    for buffers in (1, 2, 2):
        store.publish(fill(buffers))
        assert buffers * size_mb < memory_mb(run_id) < (buffers + 0.1) * size_mb
    store.claim(0, generation=1)
    for buffers in (2, 3, 3):
        store.publish(fill(buffers))
        assert buffers * size_mb < memory_mb(run_id) < (buffers + 0.1) * size_mb


def test_who_is_going_to_publish_can_have_all_the_memory_at_once(run_id, store):
    store.reserve()
    assert memory_mb(run_id) > 3 * MANIFEST.buffer_bytes / 1e6


def test_another_process_s_store_sees_manifest_version_and_weights(run_id, store):
    assert store.newest() == NONE
    published = store.publish(fill(2.5), updates=17)
    other = attach_store(run_id)
    assert other.manifest() == MANIFEST
    assert other.newest() == published
    assert (published.version, published.updates) == (1, 17)
    assert published.checksum == checksum_of(other.buffer(published.buffer))
    assert set(MANIFEST.trainable_array(other.buffer(published.buffer))) == {np.float32(2.5)}
    other.close()


def test_what_is_not_trained_is_carried_on_from_version_to_version(store):
    store.publish(lambda buffer: MANIFEST.write(buffer, {"scale": np.arange(3), "weight": np.zeros(NUM)}))
    for value in range(1, 5):
        newest = store.publish(fill(value))
        assert MANIFEST.arrays(store.buffer(newest.buffer))["scale"].tolist() == [0, 1, 2]


def test_a_publication_that_raises_leaves_the_newest_weights(store):
    first = store.publish(fill(1))

    def fail(buffer):
        MANIFEST.trainable_array(buffer).fill(np.nan)
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        store.publish(fail)
    assert store.newest() == first
    assert store.publish(fill(2)).version == 2


def test_while_another_process_publishes_a_publication_is_given_up_and_counted(run_id, store):
    store.publish(fill(1))
    fd = os.open(segment_path(run_id, "params"), os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert store.publish(fill(2), wait_ns=0) is None
    os.close(fd)
    assert store.publish(fill(2)).version == 2, "the lock goes with its holder"
    assert store.counts()["skipped"] == 1


def test_with_every_buffer_in_use_a_publication_waits_and_is_given_up(store):
    store.publish(fill(1))
    store.claim(0, generation=1)
    store.publish(fill(2))
    claimed = store.claim(1, generation=1)
    store.publish(fill(3))
    assert store.publish(fill(4), wait_ns=3_000_000) is None
    assert (store.counts()["waits"], store.counts()["skipped"]) == (1, 1)
    assert store.is_intact(claimed)
    store.release(1)
    assert store.publish(fill(4), wait_ns=0).buffer == claimed.buffer
    assert not store.is_intact(claimed)


def test_the_supervisor_s_word_makes_the_claim_of_a_dead_worker_void(run_id, store):
    store.publish(fill(1))
    for worker in range(2):
        store.claim(worker, generation=3)
        store.publish(fill(2))
    control = attach_segment(run_id, "control")
    gone = Words(WORKER_CONTROL, control.buf, LAYOUT.worker_control_at(1))
    gone["gone_generation"] = 2
    assert store.publish(fill(3), wait_ns=0) is None, "an earlier process of that place"
    gone["gone_generation"] = 3
    assert store.publish(fill(3), wait_ns=0).version == 4


def test_a_run_without_a_network_has_no_store():
    run_id = new_run_id()
    create_segment(run_id, "control", LAYOUT).close()
    with pytest.raises(LayoutMismatchError, match="params"):
        attach_store(run_id)
    unlink_all(run_id)


def test_a_store_that_is_closed_publishes_nothing_and_can_still_be_read(store):
    """A trainer's thread may be in the middle of it when its run ends."""
    assert store.publish(fill(1)).version == 1
    store.close()
    assert store.publish(fill(2)) is None
    assert store.newest().version == 1
    assert len(store.buffer(0)) == store.layout.buffer_bytes
    assert store.manifest() == MANIFEST
    assert store.counts()["skipped"] == 0
    store.close()
