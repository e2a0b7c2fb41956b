"""Who holds the weights on which device, and what becomes of a device whose holder does not come up or dies."""

import pytest

from rtcore.errors import WorkerDied
from rtcore.memory.layout import Layout
from rtcore.memory.segments import create_segment, new_run_id, unlink_all
from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore.memory.weights import attach_store, create_store, layout_of
from rtcore.messages import DeviceBuffers, Failed, HolderReady, WeightsHeld, WeightsWanted
from rtcore.processes.holders import HolderProcesses
from rtcore.processes.launcher import Child

pytestmark = pytest.mark.unit

LAYOUT = Layout(max_workers=4, ring_slots=2, log_slots=2, frame_bytes=8, action_bytes=8, chunk=1)
MANIFEST = ParamManifest.of([ParamTensor(("w",), (8,), (1,), "float32", "parameter", trainable=True)])
MEMORY = DeviceBuffers("stand-in", num_buffers=3, buffer_bytes=100, stride=512)


class Channel:
    """Keeps what it is sent."""

    def __init__(self):
        self.sent = []

    def post(self, message):
        self.sent.append(message)


class Run:
    """A run whose processes are played by the test."""

    def __init__(self, run_id):
        self.run_id = run_id
        create_segment(run_id, "control", LAYOUT).close()
        create_store(run_id, LAYOUT, layout_of(MANIFEST, LAYOUT.max_workers, num_holders=2).sizes)
        self.params = attach_store(run_id)
        self.params.set_manifest(MANIFEST)
        self.params.publish(lambda buffer: None)
        self.workers, self.holders, self.killed = {}, [], []
        self.processes = HolderProcesses(
            run_id,
            LAYOUT,
            self._launch,
            lambda worker: self.killed.append(worker.index),
        )

    def _launch(self, index, generation, entry, make_boot):
        boot = make_boot(run_id=self.run_id, entropy=[], run=None)
        child = self._child("holder", index, generation)
        assert boot.claim == LAYOUT.max_workers + index
        attach_store(self.run_id, boot.part).close()
        self.holders.append(child)
        return child

    def _child(self, role, index, generation=1):
        return Child(role, index, generation, Channel(), pid=1000 + index)

    def ask(self, index, device="cuda:0"):
        """A new worker; the channel to it."""
        worker = self._child("worker", index)
        self.processes.request(worker, WeightsWanted(device, "cuda-ipc"), self.params)
        self.workers[index] = worker
        return worker.channel

    def check(self, holder, *, in_run=True):
        self.processes.check(holder, self.params, in_run=in_run)

    def be_ready(self, holder):
        holder.ready = HolderReady(MEMORY, [])
        self.check(holder)

    def die(self, holder, *, in_run=True):
        holder.exitcode = -9
        self.check(holder, in_run=in_run)


@pytest.fixture
def run():
    run_id = new_run_id()
    run = Run(run_id)
    yield run
    run.processes.close()
    run.params.close()
    unlink_all(run_id)


def answer(channel):
    """The oldest one that it was sent, if any."""
    return channel.sent.pop(0) if channel.sent else None


def test_the_workers_of_a_device_share_a_holder_and_are_answered_once_it_is_ready(run):
    first, second, other = run.ask(0), run.ask(1), run.ask(2, "cuda:1")
    assert [holder.index for holder in run.holders] == [0, 1]
    assert answer(first) is None
    run.be_ready(run.holders[0])
    assert answer(first) == answer(second) == WeightsHeld("holder0", MEMORY)
    assert answer(other) is None
    assert answer(run.ask(3)) == WeightsHeld("holder0", MEMORY)
    assert len(run.holders) == 2


def test_a_device_for_which_there_is_no_place_is_not_shared(run):
    for index, device in enumerate(("cuda:0", "cuda:1")):
        run.ask(index, device)
    assert answer(run.ask(2, "cuda:2")) == WeightsHeld(refused="there are places for 2 weight holders")
    assert len(run.holders) == 2


def test_a_holder_that_does_not_come_up_leaves_its_device_unshared_for_good(run, said):
    channel = run.ask(0)
    run.holders[0].failure = Failed("PolicyError", "cudaMalloc failed")
    run.die(run.holders[0], in_run=False)
    assert answer(channel) == answer(run.ask(1)) == WeightsHeld(refused="cudaMalloc failed")
    assert said == ["the weights on cuda:0 are not shared: cudaMalloc failed"]
    assert len(run.holders) == 1
    (stats,) = run.processes.stats()
    assert (stats["device"], stats["refused"], stats["restarts"]) == ("cuda:0", "cudaMalloc failed", 0)


def test_a_holder_that_dies_in_the_run_takes_its_workers_along_and_the_next_one_is_new(run):
    for index in range(2):
        run.ask(index)
    other = run.ask(2, "cuda:1")
    for holder in run.holders:
        run.be_ready(holder)
    answer(other)
    run.params.claim(LAYOUT.max_workers, generation=1)  # it was copying
    run.die(run.holders[0])
    assert run.killed == [0, 1]
    assert run.params._claims[LAYOUT.max_workers][0] == 0, "and that buffer is free again"
    assert list(run.processes.pids) == ["cuda:1"]
    again = run.ask(0)
    assert answer(again) is None, "not the dead one's memory"
    assert (run.holders[-1].index, run.holders[-1].generation) == (0, 2)
    run.check(run.holders[0])
    run.be_ready(run.holders[-1])
    assert answer(again) == WeightsHeld("holder0", MEMORY)
    assert run.processes.stats()[0]["restarts"] == 1


def test_a_holder_that_dies_before_the_run_ends_it_and_one_at_its_end_does_not(run):
    run.ask(0)
    run.be_ready(run.holders[0])
    with pytest.raises(WorkerDied, match=r"holder 0 \(pid 1000\) died: killed by SIGKILL"):
        run.die(run.holders[0], in_run=False)
    run.ask(1)
    run.be_ready(run.holders[1])
    run.processes.end()
    run.die(run.holders[1])
    assert run.killed == []
    assert run.processes.has_ended


def test_a_worker_that_does_without_is_counted_and_does_not_go_down_with_the_holder(run, said):
    for index in range(2):
        run.ask(index)
    run.be_ready(run.holders[0])
    run.processes.note_private(run.workers[0], "cuda:0", "cannot be opened")
    assert said == ["worker 0 does not share the weights on cuda:0: cannot be opened"]
    assert run.processes.stats()[0]["private_workers"] == [0]
    run.die(run.holders[0])
    assert run.killed == [1]
