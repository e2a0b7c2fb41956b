"""Modules on shared weights: one copy, switched between two inferences."""

import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rtcore.errors import PolicyError
from rtcore.memory.layout import ParamLayout
from rtcore.memory.weights import ParamStore
from rtcore_workers.weights.shared import SharedWeights, connect, manifest_of, write_weights

pytestmark = pytest.mark.unit


class Store:
    """Makes a private store as worker 0 does, and hands it to the others."""

    store = None

    def __call__(self, manifest):
        if manifest is not None:
            self.store = ParamStore.private(manifest, max_workers=4)
        return self.store


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.rnn = nn.GRU(4, 4)
        self.tied = nn.Linear(3, 4)
        self.tied.weight = self.first.weight
        self.register_buffer("scale", torch.tensor(2.0))
        self.register_buffer("table", torch.rand(4), persistent=False)

    def forward(self, x):
        out, _ = self.rnn(self.first(x) + self.tied(x))
        return out * self.scale + self.table


def build():
    return Net().eval(), "net"


def two_workers(factory=build):
    torch.manual_seed(0)
    make_store = Store()
    first, _, first_weights = connect(factory, make_store, is_first=True, worker=0)
    torch.manual_seed(1)
    second, _, second_weights = connect(factory, make_store, is_first=False, worker=1)
    return make_store.store, (first, first_weights), (second, second_weights)


def publish(store, change):
    manifest = store.manifest()
    arrays = {
        name: change(array.copy()) for name, array in manifest.arrays(store.buffer(store.newest().buffer)).items()
    }
    return store.publish(lambda buffer: manifest.write(buffer, arrays))


def infer(module, weights, x):
    version = weights.switch()
    with torch.inference_mode():
        out = module(x)
    weights.release()
    return version.version, out


def test_a_later_worker_has_the_first_one_s_weights_and_no_memory_of_its_own_for_them():
    store, (first, first_weights), (second, second_weights) = two_workers()
    x = torch.rand(1, 3)
    assert torch.equal(infer(first, first_weights, x)[1], infer(second, second_weights, x)[1])
    assert first_weights.is_plain
    assert not second_weights.is_plain
    for name, parameter in second.named_parameters():
        assert parameter.data_ptr() == dict(first.named_parameters())[name].data_ptr(), name
    assert second.tied.weight is second.first.weight
    assert second.table.data_ptr() != first.table.data_ptr(), "not part of the state_dict: each has its own"


def test_a_factory_that_loads_pretrained_weights_gets_no_warning_about_memory_that_it_does_not_see():
    """Warnings are errors here, and would have the module built plainly."""
    state = {name: torch.ones_like(tensor) for name, tensor in Net().state_dict().items()}

    def pretrained():
        net = Net().eval()
        net.load_state_dict(state)
        return net, "net"

    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        _, _, (second, second_weights) = two_workers(pretrained)
    assert [str(warning.message) for warning in heard] == []
    assert not second_weights.is_plain
    assert torch.equal(second.first.weight, torch.ones(4, 3)), "as the first worker has loaded them"


def test_a_new_version_is_used_from_the_next_inference_on_and_by_every_part_of_the_module():
    store, (first, first_weights), (second, second_weights) = two_workers()
    x = torch.rand(1, 3)
    _, before = infer(first, first_weights, x)
    reference = Net().eval()
    reference.table = first.table
    publish(store, lambda array: array + np.float32(0.25) if array.dtype == np.float32 else array)
    published = store.manifest().arrays(store.buffer(store.newest().buffer))
    reference.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in published.items()}, strict=False)
    reference.tied.weight = reference.first.weight
    for module, weights in ((first, first_weights), (second, second_weights)):
        version, out = infer(module, weights, x)
        assert version == 2
        torch.testing.assert_close(out, reference(x))
        assert not torch.equal(out, before)


def test_weights_that_are_held_stay_as_they_are_through_publications():
    store, (first, first_weights), (second, second_weights) = two_workers()
    first_weights.switch()
    held = first.first.bias.clone()
    for _ in range(6):
        publish(store, lambda array: array + 1 if array.dtype == np.float32 else array)
    assert torch.equal(first.first.bias, held)
    first_weights.release()
    assert infer(second, second_weights, torch.rand(1, 3))[0] == 7
    assert first_weights.switch().version == 7
    first_weights.release()
    torch.testing.assert_close(first.first.bias, held + 6)


def test_weights_written_while_they_are_held_are_noticed():
    torn = []
    make_store = Store()
    _, _, weights = connect(build, make_store, is_first=True, on_torn=lambda: torn.append(True))
    claimed = weights.switch()
    make_store.store._heads[claimed.buffer][0] = -1
    with pytest.raises(PolicyError, match="written meanwhile"):
        weights.release()
    assert torn == [True]


def test_initial_weights_are_version_one():
    state = {name: torch.full_like(tensor, 0.5) for name, tensor in Net().state_dict().items()}
    module, _, weights = connect(build, Store(), initial=state, what="checkpoint x", is_first=True)
    assert weights.switch().version == 1
    assert torch.equal(module.first.weight, torch.full((4, 3), 0.5))
    assert torch.equal(module.tied.weight, module.first.weight)
    del state["scale"]
    with pytest.raises(PolicyError, match="checkpoint x is of another network: it lacks 'scale'"):
        connect(build, Store(), initial=state, what="checkpoint x", is_first=True)


class NeedsValues(nn.Module):
    """A factory that looks at values does not run on the meta device."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 4)
        self.bound = float(torch.ones(3).sum())

    def forward(self, x):
        return self.layer(x) * self.bound


class KeepsATensor(NeedsValues):
    """Neither parameter nor buffer."""

    def __init__(self):
        nn.Module.__init__(self)
        self.layer = nn.Linear(3, 4)
        self.bound = torch.full((4,), 3.0)


@pytest.mark.parametrize("kind", (NeedsValues, KeepsATensor))
def test_a_factory_that_does_not_run_without_memory_runs_plainly(kind):
    _, (first, first_weights), (second, second_weights) = two_workers(lambda: (kind(), "net"))
    x = torch.rand(1, 3)
    assert torch.equal(infer(first, first_weights, x)[1], infer(second, second_weights, x)[1])
    assert second_weights.is_plain
    assert second.layer.weight.data_ptr() == first.layer.weight.data_ptr()


def test_a_network_that_differs_between_workers_is_refused():
    sizes = iter((3, 4, 4))
    with pytest.raises(PolicyError, match="in this worker and"):
        two_workers(lambda: (nn.Linear(2, next(sizes)), "net"))


class KeepsAView(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.transposed = self.layer.weight.detach().t()


def test_a_kept_view_of_a_weight_is_refused_as_it_would_not_follow():
    with pytest.raises(PolicyError, match="'transposed', a view of its weight 'layer.weight'"):
        connect(lambda: (KeepsAView(), "net"), Store(), is_first=True)


class Counts(nn.Module):
    def __init__(self, *, persistent):
        super().__init__()
        self.register_buffer("calls", torch.zeros(1), persistent=persistent)

    def forward(self, x):
        self.calls += 1
        return x + self.calls


def test_a_module_that_writes_to_its_shared_buffers_is_refused_and_may_have_private_ones():
    for persistent in (True, False):
        module, _, weights = connect(lambda: (Counts(persistent=persistent), "net"), Store(), is_first=True)  # noqa: B023
        weights.switch()
        with torch.inference_mode():
            module(torch.ones(1))
        if persistent:
            with pytest.raises(PolicyError, match="calls.*persistent=False"):
                weights.refuse_changes()
        else:
            weights.refuse_changes()


class Trains(nn.Module):
    """Begins to write to its weights after a while; `how`: past torch's own count, or not."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 4), nn.BatchNorm1d(4)
        self.how, self.calls = how, 0

    def forward(self, x):
        self.calls += 1
        y = self.layer(x)
        if self.calls > 2 and self.how == "in place":
            self.layer.weight.mul_(1.1)
        elif self.calls > 2 and self.how == "data":
            self.layer.weight.data[0, 0] = self.calls
        elif self.calls > 2 and self.how == "norm":
            self.norm.num_batches_tracked = None
            self.norm.train()
        return self.norm(torch.cat([y, y + 1]))


@pytest.mark.parametrize(
    ("how", "named"),
    (("in place", "version 1: layer.weight"), ("data", "is not known.*norm"), ("norm", "is not known.*norm")),
)
def test_a_module_that_begins_to_write_to_its_weights_in_the_run_is_refused(how, named):
    module, _, weights = connect(lambda: (Trains(how), "net"), Store(), is_first=True)
    module.eval()

    def infer():
        weights.switch()
        try:
            with torch.inference_mode():
                module(torch.ones(1, 3))
        finally:
            weights.release(budget_ns=100)  # parts of the 256 bytes: a few calls see all

    infer()
    infer()
    with pytest.raises(PolicyError, match=f"writes to its own weights.*{named}"):
        for _ in range(10):
            infer()


def test_weights_that_stay_pass_the_look_over_many_versions():
    module, _, weights = connect(build, Store(), is_first=True)
    for version in range(2, 9):
        weights.store.publish(lambda buffer: write_weights(module, weights.manifest, buffer))
        for _ in range(version):
            assert weights.switch().version == version
            weights.release(budget_ns=100)


def test_the_store_of_a_manifest_has_room_for_it():
    manifest = manifest_of(Net())
    store = ParamStore.private(manifest, max_workers=2)
    assert isinstance(store.layout, ParamLayout)
    assert store.manifest() == manifest
    assert len(store.buffer(2)) == manifest.buffer_bytes
    store.publish(lambda buffer: None)
    assert SharedWeights(Net(), manifest, store).switch().version == 1


@pytest.mark.slow
def test_built_in_networks_and_usual_layers_compute_nothing_on_the_meta_device_and_nobody_needs_the_compiler():
    """For either torch would import 800 modules, in each worker that is started."""
    program = textwrap.dedent(
        """
        import sys, torch
        import numpy as np
        from gymnasium.spaces import Box, Discrete, MultiDiscrete
        from rtcore.spaces import ActionSpec, ObservationSpec
        from rtcore.memory.history import History
        from rtcore_workers.policies import NETWORKS, network
        from rtcore_workers.policies.probing import Operations
        from rtcore_workers.weights.building import BuildWatch, WithoutDraws

        images, vectors, history = Box(0, 255, (84, 84), np.uint8), Box(-1, 1, (5,)), History(2, 3)
        for name in NETWORKS.keys() - {"trained"}:
            observation = history.stacked(ObservationSpec.from_space(vectors if name == "mlp" else images))
            for space in (Discrete(7), MultiDiscrete([2, 3]), Box(-2, 2, (3,)))[: 1 if name in ("dqn", "tiles") else 3]:
                past = 0 if name == "two-speed" else 3  # its head is told what was applied in any case
                given = name, NETWORKS[name], {}, observation, ActionSpec.from_space(space)
                options = {"seed": 0, "chunk": 1, "act_history": past}
                with torch.device("meta"), WithoutDraws():
                    network.build_module(*given, **options)
                with BuildWatch() as seen:
                    network.build_module(*given, **options)
                if seen.has_computed:
                    sys.exit(f"{name} computes something")

        from torch import nn

        def build():
            linear, parameters = nn.Linear(3, 4), (nn.Parameter(torch.zeros(3)), nn.Parameter(torch.empty(3).normal_()))
            layers = nn.Conv2d(3, 4, 3), nn.LayerNorm(4), nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.PReLU()
            more = nn.LSTM(3, 4), nn.GRU(3, 4), nn.Embedding(3, 4), nn.MultiheadAttention(8, 2), nn.RMSNorm(4)
            nn.init.normal_(tensor=linear.weight, std=0.1), nn.init.kaiming_normal_(linear.weight)
            linear.load_state_dict(nn.Linear(3, 4).state_dict())
            nn.init.xavier_uniform_(linear.weight), nn.init.zeros_(linear.bias), nn.init.constant_(linear.bias, 2.0)
            return linear, layers, more, parameters

        with torch.device("meta"), WithoutDraws():
            build()
        with BuildWatch() as seen:
            build()
        with BuildWatch() as computing:
            torch.arange(4).sin()
        with Operations() as operations:
            nn.Tanh()(torch.zeros(1))
        assert operations.range_of_output() == (-1, 1)
        sys.exit("torch._dynamo" in sys.modules or seen.has_computed or not computing.has_computed)
        """
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
