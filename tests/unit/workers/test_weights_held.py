"""A device's memory, the store of its heads, and a module that is moved there. The device is a stand-in: no GPU."""

import os

import numpy as np
import pytest
import torch
from torch import nn

from rtcore.memory.weights import ParamStore
from rtcore_workers.holder import Holder
from rtcore_workers.weights.device_memory import (
    CUDA_IPC,
    STAND_IN,
    allocate,
    holder_places,
    memory_kind,
    open_memory,
)
from rtcore_workers.weights.on_device import placed
from rtcore_workers.weights.shared import Held, connect, manifest_of

pytestmark = pytest.mark.unit


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last), nn.BatchNorm2d(3)).eval(), "net"


class Holding:
    """A holder in this process."""

    def __init__(self, host, spoil=False):
        self.refused = []
        self.memory = allocate(STAND_IN, "cpu", 3, host.layout.buffer_bytes)
        self.store = ParamStore.private(host.manifest(), max_workers=2)
        self.holder = Holder(host, self.store, self.memory, place=1, generation=1)
        self.holder.fill()
        self._spoil = spoil

    def ask(self, device):
        flats = open_memory(self.memory.exported, device)
        if self._spoil:
            flats[self.store.newest().buffer][5] += 1
        return Held(self.store, flats, STAND_IN)

    def refuse(self, device, why):
        self.refused.append((device, why))


def held_by(make_holding):
    """A module on the weights of a run, held; and its store."""
    host = ParamStore.private(manifest_of(build()[0]), max_workers=2)
    module, _, weights = connect(build, lambda manifest: host, is_first=True)
    weights.holding = make_holding(host)
    weights.switch()
    return host, module, weights


def publish(store, value):
    store.publish(lambda buffer: store.manifest().trainable_array(buffer).fill(value))


def test_a_module_follows_the_holder_s_versions_in_its_own_memory_order():
    host, module, weights = held_by(Holding)
    holding, before = weights.holding, module[0].weight.clone()
    moved, copies, (note,) = placed(weights, "cpu")
    assert moved is copies is weights
    assert note == "weights: one copy on cpu for all its workers, by stand-in"
    assert copies.num_copies == 3
    weights.refuse_changes()
    weights.release()
    for value in range(2, 12):
        publish(host, float(value))
        assert torch.equal(module[0].weight, before), "not while it computes"
        holding.holder.follow()
        assert weights.switch() == holding.store.newest()
        assert weights.version.checksum == host.newest().checksum
        assert copies.active == weights.version.buffer
        assert torch.equal(module[0].bias, torch.full((3,), float(value)))
        assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
        before = module[0].weight.clone()
        weights.release()
    assert holding.refused == []


def test_the_host_s_buffers_are_nobody_s_once_the_weights_are_held():
    host, _, weights = held_by(Holding)
    placed(weights, "cpu")
    for value in range(2, 9):
        publish(host, float(value))
    assert host.counts()["waits"] == 0
    assert weights.version.version == 1


def test_a_module_that_changes_its_weights_on_the_device_is_refused():
    _, module, weights = held_by(Holding)
    placed(weights, "cpu")
    module[1].running_mean.add_(1)
    with pytest.raises(Exception, match="writes to its own weights.*1.running_mean"):
        weights.refuse_changes()


def test_memory_that_holds_something_else_than_it_says_is_not_used():
    host, module, weights = held_by(lambda host: Holding(host, spoil=True))
    before = module[0].weight.clone()
    own, copies, (note,) = placed(weights, "cpu")
    assert (own, copies) == (weights, None)
    ((device, why),) = weights.holding.refused
    assert device == "cpu"
    assert "version 1 has checksum" in why
    assert why in note
    weights.release()
    publish(host, 3.0)
    assert weights.switch().version == 2, "from the host, as before"
    assert not torch.equal(module[0].weight, before)


def test_where_nothing_is_held_a_cpu_s_workers_stay_with_the_host_s_memory():
    _, _, weights = held_by(lambda host: None)
    assert placed(weights, "cpu") == (weights, None, ())


def test_versions_that_are_taken_over_keep_number_checksum_and_updates_and_wait_for_the_claims():
    host, held = (ParamStore.private(manifest_of(build()[0]), max_workers=2) for _ in range(2))
    publish(host, 1.0)
    brought = []

    def bring(buffer):
        brought.append(buffer)
        return host.newest()

    for number in range(1, 4):
        host.publish(lambda buffer: None, updates=10 * number)
        taken = held.take_over(bring)
        assert (taken.version, taken.checksum, taken.updates) == (number + 1, host.newest().checksum, 10 * number)
        assert held.newest() == taken
        assert taken.buffer == brought[-1]
        if number < 3:
            held.claim(number - 1, generation=1)
    host.publish(lambda buffer: None)
    assert held.take_over(bring, wait_ns=0) is None
    assert (held.newest_version(), held.counts()["skipped"]) == (4, 1)


def test_each_buffer_is_its_own_and_what_one_writes_all_see():
    memory = allocate(STAND_IN, "cpu", 3, 1000)
    assert memory.exported.path.startswith(f"/proc/{os.getpid()}/")
    for buffer in range(3):
        memory.write(buffer, memoryview(np.full(1000, buffer + 1, np.uint8)))
    for flats in (open_memory(memory.exported, "cpu"), open_memory(memory.exported, "cpu")):
        assert [set(flat.tolist()) for flat in flats] == [{1}, {2}, {3}]
        assert [len(flat) for flat in flats] == [1000] * 3
        assert [flat.data_ptr() % 512 for flat in flats] == [0] * 3
    memory.close()


@pytest.mark.parametrize(
    ("device", "sharing", "kind"),
    (
        ("cuda:1", "auto", CUDA_IPC),
        ("cuda:1", "private", None),
        ("cpu", "auto", None),
        ("cpu", "private", None),
        ("cpu", "stand-in", STAND_IN),
    ),
)
def test_gpus_share_by_cuda_ipc_and_cpus_only_where_a_test_says_so(device, sharing, kind):
    assert memory_kind(device, sharing) == kind


@pytest.mark.parametrize(
    ("device", "sharing", "has_gpu", "places"),
    (("auto", "auto", True, 16), ("auto", "auto", False, 0), ("cpu", "auto", True, 0), ("cuda", "private", True, 0)),
)
def test_a_run_without_a_gpu_has_no_places_for_holders(monkeypatch, device, sharing, has_gpu, places):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert holder_places(device, sharing) == places
