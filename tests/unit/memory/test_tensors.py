"""Where tensors lie in a buffer of weights, and which weights from outside are refused."""

import numpy as np
import pytest
import torch
from torch import nn

from rtcore.errors import PolicyError
from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore_workers.weights.shared import manifest_of, view_of, write_weights

pytestmark = pytest.mark.unit


class Net(nn.Module):
    """A bit of everything: channels last, tied weights, frozen ones, buffers of both kinds, another dtype."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        self.encoder = nn.Linear(5, 7, bias=False)
        self.decoder = nn.Linear(5, 7, bias=False)
        self.decoder.weight = self.encoder.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        self.short = nn.Parameter(torch.full((2, 3), 0.5, dtype=torch.bfloat16))
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        self.register_buffer("constant", torch.arange(3), persistent=False)


def filled_buffer(module):
    manifest = manifest_of(module)
    buffer = memoryview(bytearray(manifest.buffer_bytes))
    write_weights(module, manifest, buffer)
    return manifest, buffer


def test_trainable_weights_come_first_in_one_region_and_tied_ones_once():
    manifest = manifest_of(Net())
    trainable = [tensor for tensor in manifest.tensors if tensor.trainable]
    assert manifest.tensors[: len(trainable)] == tuple(trainable)
    assert {tensor.name for tensor in trainable} == {
        "norm.weight",
        "norm.bias",
        "conv.weight",
        "conv.bias",
        "encoder.weight",
    }
    assert manifest.by_name["decoder.weight"].names == ("encoder.weight", "decoder.weight")
    rest = [tensor.offset for tensor in manifest.tensors if not tensor.trainable]
    assert min(rest) == manifest.trainable_bytes
    kinds = {tensor.name: tensor.kind for tensor in manifest.tensors}
    assert (kinds["frozen"], kinds["mask"], kinds["constant"]) == ("parameter", "buffer", "private")


def test_every_tensor_begins_on_a_cache_line_and_overlaps_no_other():
    manifest = manifest_of(Net())
    end = 0
    for tensor in sorted(manifest.tensors, key=lambda tensor: tensor.offset):
        assert tensor.offset % 64 == 0
        assert tensor.offset >= end
        end = tensor.offset + tensor.num_bytes
    assert end <= manifest.buffer_bytes


def test_a_buffer_holds_every_tensor_in_its_own_memory_order():
    module = Net()
    manifest, buffer = filled_buffer(module)
    for name, tensor in module.state_dict().items():
        view = view_of(buffer, manifest.by_name[name])
        assert torch.equal(view, tensor)
        assert view.stride() == tensor.stride()
    assert view_of(buffer, manifest.by_name["conv.weight"]).is_contiguous(memory_format=torch.channels_last)
    arrays = manifest.arrays(buffer)
    np.testing.assert_array_equal(arrays["conv.weight"], module.conv.weight.detach().numpy())
    assert "constant" not in arrays


def test_padding_of_the_trainable_region_is_zero():
    module = Net()
    manifest, buffer = filled_buffer(module)
    total = sum(float(view_of(buffer, tensor).abs().sum()) for tensor in manifest.trainable())
    assert float(np.abs(manifest.trainable_array(buffer)).sum()) == pytest.approx(total, rel=1e-5)


def test_a_manifest_survives_its_text():
    manifest = manifest_of(Net())
    assert ParamManifest.from_json(manifest.to_json()) == manifest


def test_published_weights_arrive_as_they_were_tensors_or_arrays():
    torch.manual_seed(1)
    trained, (manifest, buffer) = Net(), filled_buffer(Net())
    manifest.write(buffer, manifest.check(trained.state_dict(), "weights"))
    for name, tensor in trained.state_dict().items():
        assert torch.equal(view_of(buffer, manifest.by_name[name]), tensor)
    arrays = {name: tensor.float().numpy() for name, tensor in trained.state_dict().items()}
    arrays["norm.num_batches_tracked"] = np.array(5)
    manifest.write(buffer, manifest.check(arrays, "weights"))
    assert int(view_of(buffer, manifest.by_name["norm.num_batches_tracked"])) == 5


def changed(**changes):
    weights = {**Net().state_dict(), **changes}
    return {name: tensor for name, tensor in weights.items() if tensor is not None}


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (changed(frozen=None), "lacks 'frozen' and has nothing besides"),
        (changed(other=torch.ones(1)), "lacks nothing and has 'other' besides"),
        (changed(frozen=torch.ones(4)), r"'frozen' has shape \(4,\); expected \(3,\)"),
        (changed(frozen=torch.ones(3, dtype=torch.int64)), "'frozen' is int64; expected float32"),
        (changed(frozen=torch.tensor([1.0, torch.nan, 0.0])), "1 of 3 values that are not finite"),
        (changed(frozen=torch.tensor([1.0, torch.inf, 0.0])), "not finite"),
        (changed(mask=torch.tensor([0.0, torch.nan])), "'mask' has 1 of 2 values that are not finite"),
    ],
)
def test_weights_of_another_network_are_refused_by_name(weights, message):
    with pytest.raises(PolicyError, match=message):
        manifest_of(Net()).check(weights, "the checkpoint")


def test_what_cannot_be_shared_is_said_by_name():
    with pytest.raises(PolicyError, match="'weight' is not initialised yet"):
        manifest_of(nn.LazyLinear(3))
    with pytest.raises(PolicyError, match="'odd' is complex128"):
        ParamManifest.of([ParamTensor(("odd",), (1,), (1,), "complex128", "buffer", trainable=False)])


@pytest.mark.parametrize(
    ("dtype", "given"),
    [
        ("float32", np.array([1e39, 1.0])),
        ("float16", np.array([1e5, 1.0], np.float32)),
        ("bfloat16", np.array([3.4e38, 1.0], np.float32)),
        ("bfloat16", np.array([1e39, 1.0])),
        ("bfloat16", np.array([np.nan, 1.0], np.float32)),
        ("complex64", np.array([1e39, 1.0], np.complex128)),
        ("int8", np.array([300, 1])),
    ],
)
@pytest.mark.parametrize("kind", ("parameter", "buffer"))
def test_what_the_dtype_cannot_hold_is_refused_whatever_it_was_given_as(dtype, given, kind):
    """Checked as it will lie in memory: 1e39 is finite in float64, and infinite in a float32 network."""
    manifest = ParamManifest.of([ParamTensor(("w",), (2,), (1,), dtype, kind, trainable=False)])
    with pytest.raises(PolicyError, match="'w' has 1 of 2 values that are not finite"):
        manifest.check({"w": given}, "the published state_dict")


def test_an_infinity_is_refused_in_a_parameter_also_as_bits_and_kept_in_a_buffer():
    bits = ParamManifest.of([ParamTensor(("w",), (2,), (1,), "bfloat16", "parameter", trainable=False)])
    with pytest.raises(PolicyError, match="'w' has 1 of 2 values that are not finite"):
        bits.check({"w": np.array([0x7F80, 0], np.uint16)}, "weights")
    manifest = ParamManifest.of([ParamTensor(("w",), (2,), (1,), "float16", "buffer", trainable=False)])
    assert manifest.check({"w": np.array([-np.inf, 1.0])}, "weights")["w"].tolist() == [-np.inf, 1.0]
