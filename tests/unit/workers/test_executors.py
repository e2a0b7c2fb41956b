"""Executors: fixed buffers, one interface on CPU and GPU, and which device a worker gets."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from rtcore.errors import ConfigError, PolicyError
from rtcore.spaces import ObservationSpec
from rtcore_workers.policies.executors import CpuExecutor, make_executor, mps_status, resolve_device

pytestmark = pytest.mark.unit

OBSERVATION = ObservationSpec.from_space(spaces.Box(0, 255, (2, 3), np.uint8))
DEVICES = [
    "cpu",
    pytest.param(
        "cuda:0",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
        ],
    ),
]


class Doubled(nn.Module):
    """Twice the observation, flattened, times a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))
        self.modes: list[bool] = []

    def forward(self, frames: Tensor) -> Tensor:
        self.modes.append(torch.is_inference_mode_enabled())
        return frames.flatten(1).float() * self.factor


class GrowsWithThePixels(nn.Module):
    """Output as long as the first pixel says: cannot be captured, nor run twice with other pixels."""

    def forward(self, frames: Tensor) -> Tensor:
        return torch.zeros((1, int(frames[0, 0, 0]) + 1), device=frames.device)


class StepClock:
    """Advances 7 ns at each look."""

    time_ns = 0

    def now_ns(self) -> int:
        self.time_ns += 7
        return self.time_ns

    def sleep_until_ns(self, deadline_ns: int) -> None:
        raise AssertionError("an executor never sleeps on the clock")


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_reads_the_staging_buffer_and_refills_the_same_output(device: str):
    executor = make_executor(Doubled(), OBSERVATION, device)
    staging, output = executor.observation, executor.output
    assert (staging.shape, staging.dtype) == ((2, 3), np.uint8)
    for first in (1, 50):
        staging[...] = np.arange(first, first + 6).reshape(2, 3)
        result = executor.run()
        assert result is output
        assert result.tolist() == [[2.0 * value for value in range(first, first + 6)]]
    assert executor.observation is staging
    assert executor.device == device


@pytest.mark.parametrize("device", DEVICES)
def test_weights_changed_in_place_count_from_the_next_run(device: str):
    module = Doubled()
    executor = make_executor(module, OBSERVATION, device)
    executor.observation[...] = 1
    with torch.no_grad():
        module.factor.fill_(-3.0)
    assert executor.run().tolist() == [[-3.0] * 6]


@pytest.mark.parametrize("device", DEVICES)
def test_a_changed_output_shape_is_refused(device: str):
    executor = make_executor(GrowsWithThePixels(), OBSERVATION, device)
    executor.observation[...] = 2
    with pytest.raises(PolicyError, match=r"shape \(1, 3\); expected \(1, 1\)"):
        executor.run()


@pytest.mark.parametrize("device", DEVICES)
def test_timing_is_one_object_of_whole_nanoseconds(device: str):
    executor = make_executor(Doubled(), OBSERVATION, device)
    timing = executor.timing
    executor.run()
    assert executor.timing is timing
    assert all(type(part) is int for part in (timing.h2d_ns, timing.compute_ns, timing.d2h_ns))
    assert timing.compute_ns > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_cannot_be_captured_runs_eagerly_with_a_note():
    executor = make_executor(GrowsWithThePixels(), OBSERVATION, "cuda:0")
    assert any("eagerly" in note for note in executor.notes)
    assert make_executor(Doubled(), OBSERVATION, "cuda:0").notes == ()


def test_cpu_inference_runs_in_inference_mode_on_one_thread_timed_by_the_given_clock():
    module = Doubled()
    executor = CpuExecutor(module, OBSERVATION, StepClock())
    executor.run()
    assert module.modes == [True, True]
    assert torch.get_num_threads() == 1
    assert executor.timing.compute_ns == 7


@pytest.mark.parametrize("device", ["tpu", "cuda:", "cuda:x", "cuda0", "", "cpu:1", "auto:1", "mps"])
def test_an_unknown_device_is_refused_with_the_known_ones(device: str):
    with pytest.raises(ConfigError, match="expected cpu, cuda, cuda:<index> or auto"):
        resolve_device(device, 0)


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, num_gpus: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: num_gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: num_gpus)


def test_without_a_gpu_auto_is_the_cpu_and_cuda_is_refused(monkeypatch: pytest.MonkeyPatch):
    pretend_gpus(monkeypatch, 0)
    assert resolve_device("auto", 3) == resolve_device("cpu", 3) == "cpu"
    for device in ("cuda", "cuda:0"):
        with pytest.raises(ConfigError, match="--device cpu"):
            resolve_device(device, 0)


def test_workers_are_dealt_out_over_the_gpus_unless_one_is_named(monkeypatch: pytest.MonkeyPatch):
    pretend_gpus(monkeypatch, 2)
    assert [resolve_device("auto", worker) for worker in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert resolve_device("cuda", 1) == resolve_device("cuda:1", 0) == "cuda:1"
    assert [resolve_device("cuda:1,cuda:0", worker) for worker in range(3)] == ["cuda:1", "cuda:0", "cuda:1"]
    with pytest.raises(ConfigError, match="cuda:0 to cuda:1"):
        resolve_device("cuda:2", 0)


def test_mps_is_judged_by_its_control_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    pretend_gpus(monkeypatch, 0)
    assert mps_status() == "no GPU"
    pretend_gpus(monkeypatch, 1)
    assert mps_status() == "MPS daemon not running"
    (tmp_path / "control").touch()
    assert mps_status() == "MPS daemon running"


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda: torch.ones(1, 3).to_sparse(), "torch.sparse_coo"),
        (lambda: torch.nested.as_nested_tensor([torch.ones(3)], layout=torch.jagged), "nested"),
    ],
    ids=["sparse", "nested"],
)
def test_a_tensor_that_is_no_plain_array_is_refused_by_its_kind(make: Callable[[], Tensor], kind: str):
    class Returns(nn.Module):
        def forward(self, _: Tensor) -> Tensor:
            return make()

    with pytest.raises(PolicyError, match=rf"no plain array \({kind}\); expected a dense one"):
        make_executor(Returns(), OBSERVATION, "cpu")


@pytest.mark.parametrize("result", [None, (torch.zeros(1),), np.zeros(1), {"q": torch.zeros(1)}])
def test_a_module_must_return_one_tensor(result: Any):
    class Returns(nn.Module):
        def forward(self, _: Tensor) -> Any:
            return result

    with pytest.raises(PolicyError, match="expected one tensor"):
        make_executor(Returns(), OBSERVATION, "cpu")
