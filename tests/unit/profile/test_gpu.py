"""`rtcore-profile gpu` up to the CUDA calls: what is looked for, and what becomes of numbers."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from rtcore.cli.profile import main
from rtcore.errors import ConfigError, PolicyError
from rtcore.profile import gpu
from rtcore.profile.commands import add_options
from rtcore.profile.results import Result

pytestmark = pytest.mark.unit


def options(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    add_options(parser, "gpu")
    return parser.parse_args(arguments)


def task_of(*arguments: str) -> gpu.Task:
    task, _ = gpu.read_options(options("--policy", "mlp", "--frame", "4x4", *arguments))
    return task._replace(device="cpu")


# -- no GPU --------------------------------------------------------------------------------------------------


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cuda", "cuda:3"])
def test_without_a_gpu_one_sentence_says_what_was_looked_for_and_all_is_well(
    no_gpu, tmp_path: Path, capsys, monkeypatch, device: str
):
    monkeypatch.setenv("COLUMNS", "1000")
    file = tmp_path / "gpu.json"
    with pytest.raises(SystemExit) as end:
        main(["gpu", "--device", device, "--json", str(file), "--plot", str(tmp_path)])
    assert end.value.code == 0
    said = capsys.readouterr().out
    for word in ("No GPU found, nothing measured:", torch.__version__, "rtcore-doctor", "--device cpu"):
        assert word in said
    found = json.loads(file.read_text())
    assert found["gpu"] is None
    assert found["rows"] == []
    assert "No GPU found" in found["looked_for"][0]
    assert list(tmp_path.glob("*.png")) == []


def test_what_cuda_complains_about_is_a_reason_and_no_warning(monkeypatch):
    import warnings

    def complain() -> bool:
        warnings.warn("the driver is too old\nmore", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    assert "sees none (the driver is too old)." in gpu._no_gpu()


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--workers", "1,0"), "--workers '1,0'"),
        (("--workers", "two"), "--workers 'two'"),
        (("--sizes", ""), "--sizes ''"),
        (("--seconds", "0"), "--seconds"),
        (("--samples", "1"), "--samples"),
        (("--policy-args", "k"), "--policy-args 'k'.*k=v"),
        (("--frame", "axb"), "frame 'axb'"),
        (("--device", "tpu"), "--device 'tpu'.*expected one device"),
        (("--device", "cuda:0,cuda:1"), "--device.*expected one device"),
    ],
)
def test_wrong_settings_are_refused_with_or_without_a_gpu(no_gpu, arguments, wanted):
    with pytest.raises(ConfigError, match=wanted):
        gpu.run(options(*arguments), Console(quiet=True))


def test_policy_arguments_mean_what_they_mean_to_rtcore_run_and_one_worker_is_always_measured():
    task, counts = gpu.read_options(options("--policy-args", "k=3,wide=true", "--workers", "8,2", "--sizes", "9"))
    assert task.policy_args == {"k": 3, "wide": True}
    assert (task.sizes, counts) == ([9], [1, 2, 8])


# -- overlap -------------------------------------------------------------------------------------------------


def test_workers_together_have_the_sum_of_their_rates_and_the_percentiles_of_all_inferences(monkeypatch):
    found = [np.full(99, 1_000_000), np.full(101, 9_000_000)]
    monkeypatch.setattr(gpu, "run_in_processes", lambda function, calls, **_: found[: len(calls)])
    row = gpu.measure_overlap(task_of(), 2)
    assert row["inferences_per_s"] == pytest.approx(1000.0 + 1000 / 9)
    assert row["p50_us"] == pytest.approx(9000)


@pytest.mark.parametrize(("status", "mps"), [("MPS daemon running", "on"), ("MPS daemon not running", "off")])
def test_perfect_overlap_is_1_and_taking_turns_1_of_k_and_what_fails_is_a_note(status, mps, monkeypatch, capsys):
    def run_in_processes(function, calls, **_: Any) -> list[Any]:
        if function is gpu.measure_parts:
            return [({"name": "a GPU", "driver": None, "cuda": "13.0"}, "impala k=1", [], [])]
        if len(calls) == 3:
            raise PolicyError("out of memory")
        return [np.full(10, 10_000_000 * (1 if mps == "on" else len(calls)))] * len(calls)

    monkeypatch.setattr(gpu, "run_in_processes", run_in_processes)
    monkeypatch.setattr(gpu, "start_fork_server", lambda *_: None)
    monkeypatch.setattr(gpu, "_no_gpu", str)
    monkeypatch.setattr("rtcore_workers.policies.executors.mps_status", lambda: status)
    monkeypatch.setattr("rtcore_workers.policies.executors.resolve_device", lambda device, index: "cuda:0")
    result = gpu.run(options("--workers", "2,3"), Console())
    found = {(row["mps"], row["workers"]): row["of_perfect_fraction"] for row in result.rows}
    assert found == {(mps, 1): 1.0, (mps, 2): pytest.approx(1.0 if mps == "on" else 0.5)}
    assert result.extra["notes"] == ["k=3: not measured: out of memory"]
    said = capsys.readouterr().out
    assert ("nvidia-cuda-mps-control -d" in said) == (mps == "off"), "how to start what is not running"


# -- the measuring code, on a CPU ----------------------------------------------------------------------------


def test_copies_are_timed_for_every_size(monkeypatch):
    monkeypatch.setattr(gpu, "_COPY_S", 0.01)
    rows = gpu.measure_copies(task_of("--sizes", "10,100000"))
    assert [(row["bytes"], row["direction"]) for row in rows] == [(10, "host-to-host"), (100_000, "host-to-host")]
    for row in rows:
        assert row["p50_us"] > 0
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["p50_us"] / 1e3)


def test_an_inference_on_a_cpu_is_eager_and_its_parts_are_within_the_whole(monkeypatch):
    monkeypatch.setattr(gpu, "_COPY_S", 0.01)
    device, policy, notes, rows = gpu.measure_parts(task_of("--samples", "9", "--sizes", "9"))
    assert (device, notes) == (None, [])
    assert "mlp" in policy
    copy, row = rows
    assert (copy["part"], row["mode"], row["samples"]) == ("copy", "eager", 9)
    assert row["h2d_p50_us"] == row["d2h_p50_us"] == 0.0
    assert 0 < row["compute_p50_us"] <= row["p99_us"]
    assert row["overhead_p50_us"] >= 0


class NoBarrier:
    def wait(self, timeout_s: float) -> None: ...


def test_a_worker_infers_at_least_once_and_returns_the_time_of_each():
    times_ns = gpu.infer_without_pause(task_of("--seconds", "1e-9"), 0, NoBarrier())  # type: ignore[arg-type]
    assert len(times_ns) == 1
    assert times_ns[0] > 0


@pytest.mark.parametrize(
    ("policy", "arguments"), [("random", {}), ("synthetic", {"latency_ms": 1}), ("mlp", {"pad_ms": 5})]
)
def test_a_policy_that_computes_nothing_or_only_waits_is_refused(policy, arguments):
    with pytest.raises(ConfigError, match="with a network and without pad_ms"):
        gpu.build_policy(task_of()._replace(policy=policy, policy_args=arguments), 0)


def test_a_module_that_is_kept_eager_computes_the_same():
    module = nn.Linear(3, 2)
    given = torch.ones(1, 3)
    assert torch.equal(gpu.eager_only(module)(given), module(given))


def test_while_a_graph_is_captured_the_eager_module_refuses(monkeypatch):
    class PretendCuda:
        is_cuda = True

    class Never(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            raise AssertionError("must not run while capturing")

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="kept eager"):
        gpu.eager_only(Never()).forward(PretendCuda())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_measured():
    task = task_of("--samples", "20", "--sizes", str(1 << 20), "--seconds", "0.1")._replace(device="cuda:0")
    device, _, notes, rows = gpu.measure_parts(task)
    assert device is not None
    assert device["memory_bytes"] > 0
    assert {(row["direction"], row["memory"]) for row in rows if row["part"] == "copy"} == {
        (direction, memory) for direction in ("host-to-device", "device-to-host") for memory in ("pinned", "pageable")
    }
    assert {row["mode"] for row in rows if row["part"] == "inference"} == {"eager", "graph"}, notes
    assert len(gpu.infer_without_pause(task, 0, NoBarrier())) > 1  # type: ignore[arg-type]


# -- pictures ------------------------------------------------------------------------------------------------


def test_pictures_show_copies_and_overlap(tmp_path: Path):
    rows = [
        {"part": "copy", "direction": "host-to-device", "memory": "pinned", "bytes": n, "p50_us": n} for n in (1, 9)
    ]
    overlap = {"part": "overlap", "mps": "off", "p50_us": 9.0, "p99_us": 9.5}
    rows += [overlap | {"workers": k, "of_perfect_fraction": 1 / k} for k in (1, 2)]
    extra = {"gpu": {"name": "a GPU"}, "policy": "impala k=1"}
    paths = gpu.plot(Result("gpu", rows, gpu.KEYS, extra=extra), tmp_path)
    assert [path.name for path in paths] == ["gpu-copies.png", "gpu-overlap.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
