"""Two copies of the weights on a device, here the CPU: what would be a copy to a GPU is one in memory."""

import pytest
import torch
from torch import nn

from rtcore.memory.weights import ParamStore
from rtcore_workers.weights.on_device import DeviceWeights
from rtcore_workers.weights.shared import connect, manifest_of

pytestmark = pytest.mark.unit


def on_device():
    module = nn.Sequential(nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(3)).eval()
    store = ParamStore.private(manifest_of(module), max_workers=1)
    _, _, shared = connect(lambda: (module, "net"), lambda manifest: store, is_first=True)
    shared.switch()
    weights = DeviceWeights(shared, "cpu")
    shared.release()
    return module, store, weights


def publish(store, value):
    store.publish(lambda buffer: store.manifest().trainable_array(buffer).fill(value))


def test_the_device_has_its_own_copy_in_the_same_memory_order():
    module, store, _ = on_device()
    before = module[0].weight.clone()
    publish(store, 5.0)
    publish(store, 6.0)
    publish(store, 7.0)
    assert torch.equal(module[0].weight, before)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_new_version_is_used_once_its_copy_has_arrived_and_not_before():
    module, store, weights = on_device()
    before = module[0].bias.clone()
    publish(store, 2.0)
    assert weights.switch().version == 1, "the copy begins"
    assert torch.equal(module[0].bias, before)
    assert weights.switch().version == 2
    assert torch.equal(module[0].bias, torch.full((3,), 2.0))
    assert weights.active == 1


def test_the_copies_alternate_and_a_buffer_is_held_only_while_it_is_copied():
    module, store, weights = on_device()
    for version in range(2, 12):
        publish(store, float(version))
        weights.switch()
        used = weights.switch()
        assert used.version == version
        assert weights.active == (version - 1) % 2
        assert torch.equal(module[0].bias, torch.full((3,), float(version)))
    assert store.counts()["waits"] == 0


def test_versions_that_came_while_one_was_copied_are_passed_over():
    _, store, weights = on_device()
    publish(store, 2.0)
    weights.switch()
    publish(store, 3.0)
    publish(store, 4.0)
    assert weights.switch().version == 2
    assert weights.switch().version == 4
