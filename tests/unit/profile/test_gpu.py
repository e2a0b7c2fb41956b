"""`rtcore-profile gpu` up to the CUDA calls: what is looked for, in which environments, and what becomes of numbers."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn

from rtcore.cli.profile import main
from rtcore.clock import MonotonicClock
from rtcore.errors import ConfigError, PolicyError, RtcoreError
from rtcore.memory.counters import Histogram
from rtcore.profile import gpu, gpu_crew, gpu_tasks, gpu_views
from rtcore.profile.results import Result

pytestmark = pytest.mark.unit

RUNNING, NOT_RUNNING = "MPS daemon running", "MPS daemon not running"


def options(*arguments: str) -> Namespace:
    parser = ArgumentParser()
    gpu.add_arguments(parser)
    return parser.parse_args(arguments)


def boot_of(*arguments: str) -> dict[str, Any]:
    boot, _, _ = gpu.read_options(options("--policy", "mlp", "--frame", "4x4", *arguments))
    return boot | {"device": "cpu"}


def worker(rate: float, *latencies_ns: int) -> dict[str, Any]:
    histogram = Histogram()
    for latency_ns in latencies_ns:
        histogram.add(latency_ns)
    return {"inferences_per_s": rate, "latency_ns": gpu_tasks.histogram_json(histogram)}


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
    for word in ("No GPU found, nothing measured:", torch.__version__, "driver", "nvidia-smi", "--device cpu"):
        assert word in said
    found = json.loads(file.read_text())
    assert found["gpu"] is None
    assert found["rows"] == []
    assert len(found["looked_for"]) >= 4
    assert list(tmp_path.glob("*.png")) == []


def test_hidden_gpus_are_named_as_a_reason(no_gpu, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert "CUDA_VISIBLE_DEVICES is ''" in gpu.look_for_gpu()


def test_what_cuda_complains_about_is_a_reason_and_no_warning(monkeypatch):
    import warnings

    def complain() -> bool:
        warnings.warn("the driver is too old\nmore", UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", complain)
    assert gpu.look_for_gpu()[-1] == "CUDA says: the driver is too old"


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
        (("--device", "cpu", "--mps"), "--mps.*for a GPU"),
    ],
)
def test_wrong_settings_are_refused_with_or_without_a_gpu(no_gpu, arguments, wanted):
    with pytest.raises(ConfigError, match=wanted):
        gpu.run(options(*arguments), Console(quiet=True))


def test_policy_arguments_mean_what_they_mean_to_rtcore_run_and_one_worker_is_always_measured():
    boot, sizes, counts = gpu.read_options(
        options("--policy-args", "k=3,wide=true", "--workers", "8,2", "--sizes", "9")
    )
    assert boot["policy_args"] == {"k": 3, "wide": True}
    assert (sizes, counts) == ([9], [1, 2, 8])


# -- MPS -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "start", "wanted"),
    [
        (None, True, [None]),
        (NOT_RUNNING, False, ["off"]),
        (NOT_RUNNING, True, ["off", "on"]),
        (RUNNING, False, ["on", "off"]),
        (RUNNING, True, ["on", "off"]),
    ],
)
def test_a_daemon_is_started_only_when_asked_for_and_a_running_one_is_compared_with_none(found, start, wanted):
    settings = gpu.settings_for(found, start=start)
    assert [setting.mps for setting in settings] == wanted
    assert [setting.environment is gpu_crew.own_mps for setting in settings].count(True) == (
        found == NOT_RUNNING and start
    )
    with settings[0].environment() as environment:
        assert environment == {}, "the first is the one that was found"


def test_without_mps_its_pipes_are_looked_for_where_no_daemon_is():
    with gpu_crew.without_mps() as environment:
        folder = Path(environment["CUDA_MPS_PIPE_DIRECTORY"])
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_the_advice_says_how_to_start_what_is_not_running_and_how_to_end_what_is():
    assert "nvidia-cuda-mps-control -d" in gpu_views.mps_advice(NOT_RUNNING)
    assert "echo quit | nvidia-cuda-mps-control" in gpu_views.mps_advice(RUNNING)
    assert gpu_views.mps_advice(None) == ""


# -- overlap -------------------------------------------------------------------------------------------------


def test_workers_together_have_the_sum_of_their_rates_and_the_percentiles_of_all_inferences():
    row = gpu.overlap_row([worker(100.0, *[1_000_000] * 99), worker(50.0, *[9_000_000] * 101)])
    assert row["inferences_per_s"] == 150.0
    assert row["p50_us"] == pytest.approx(9000, rel=0.01)
    alone = gpu.overlap_row([worker(100.0, *[1_000_000] * 99, 9_000_000)])
    assert alone["p50_us"] == pytest.approx(1000, rel=0.01)


class PretendCrew:
    """Answers as processes would: k streams overlap perfectly, k processes take turns; three of them do not fit."""

    def __init__(self, environment: Any) -> None:
        if environment:
            raise RtcoreError("the daemon would not have it")

    def __enter__(self) -> PretendCrew:
        return self

    def __exit__(self, *_: object) -> None: ...

    def run(self, boots: list[dict[str, Any]]) -> list[tuple[dict[str, Any], Any]]:
        if len(boots) == 3:
            raise PolicyError("out of memory")
        return [({}, [worker(100.0 / len(boots), 10_000_000)] * boot["streams"]) for boot in boots]


def test_perfect_overlap_is_1_and_taking_turns_1_of_k_and_what_fails_is_a_note(monkeypatch):
    monkeypatch.setattr(gpu, "Crew", PretendCrew)
    notes: list[str] = []
    settings = gpu.settings_for(RUNNING, start=False)
    rows = gpu.measure_overlap({"device": "cuda:0"}, [1, 2, 3], settings, lambda text: None, notes)
    found = {(row["how"], row["mps"], row["workers"]): row["of_perfect_fraction"] for row in rows}
    assert found == {
        ("streams", "on", 1): 1.0,
        ("streams", "on", 2): 1.0,
        ("streams", "on", 3): 1.0,
        ("processes", "on", 1): 1.0,
        ("processes", "on", 2): 0.5,
    }
    assert notes == [
        "k=3 as processes: not measured: out of memory",
        "with MPS off: not measured: the daemon would not have it",
    ]


# -- the measuring code, on a CPU ----------------------------------------------------------------------------


def test_copies_are_timed_for_every_size():
    task = gpu_tasks.CopyTask({"device": "cpu", "sizes": [10, 100_000], "samples": 7})
    rows = task.run(0)
    assert [(row["bytes"], row["direction"], row["samples"]) for row in rows] == [
        (10, "host-to-host", 7),
        (100_000, "host-to-host", 7),
    ]
    for row in rows:
        assert 0 < row["p50_us"] <= row["p99_us"]
        assert row["gb_per_s"] == pytest.approx(row["bytes"] / row["p50_us"] / 1e3)
        assert row["event_p50_us"] is None, "there are no device events on a CPU"


def test_an_inference_on_a_cpu_is_eager_and_its_parts_are_within_the_whole():
    found = gpu_tasks.InferenceTask(boot_of() | {"samples": 9}).run(0)
    (row,) = found["rows"]
    assert (row["mode"], row["samples"]) == ("eager", 9)
    assert row["h2d_p50_us"] == row["d2h_p50_us"] == 0.0
    assert 0 < row["compute_p50_us"] <= row["p99_us"]
    assert row["overhead_p50_us"] >= 0
    assert "mlp" in found["policy"]


def test_streams_begin_together_and_each_has_at_least_one_inference():
    task = gpu_tasks.OverlapTask(boot_of() | {"streams": 2, "seconds": 0.02})
    begin_ns = MonotonicClock.now_ns() + 5_000_000
    workers = task.run(begin_ns)
    assert MonotonicClock.now_ns() >= begin_ns + 20_000_000
    assert len(workers) == 2
    for found in workers:
        shape = gpu_crew.read_distribution(found["latency_ns"])
        assert shape.count >= 1
        assert found["inferences_per_s"] == pytest.approx(1e9 / shape.mean, rel=0.01)


def test_a_stream_that_raises_is_the_whole_tasks_error():
    task = gpu_tasks.OverlapTask(boot_of() | {"streams": 2, "seconds": 0.01})
    task._policies[1] = object()
    with pytest.raises(AttributeError, match="act"):
        task.run(0)


@pytest.mark.parametrize(
    ("policy", "arguments"), [("random", {}), ("synthetic", {"latency_ms": 1}), ("mlp", {"pad_ms": 5})]
)
def test_a_policy_that_computes_nothing_or_only_waits_is_refused(policy, arguments):
    with pytest.raises(ConfigError, match="with a network and without pad_ms"):
        gpu_tasks.build_policy(boot_of() | {"policy": policy, "policy_args": arguments}, 0)


def test_a_module_that_is_kept_eager_computes_the_same():
    module = nn.Linear(3, 2)
    given = torch.ones(1, 3)
    assert torch.equal(gpu_tasks.EagerOnly(module)(given), module(given))


def test_while_a_graph_is_captured_the_eager_module_refuses(monkeypatch):
    class PretendCuda:
        is_cuda = True

    class Never(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            raise AssertionError("must not run while capturing")

    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(RuntimeError, match="kept eager"):
        gpu_tasks.EagerOnly(Never()).forward(PretendCuda())  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_part_is_measured():
    boot = boot_of() | {"device": "cuda:0", "samples": 20, "sizes": [1 << 20], "streams": 2, "seconds": 0.1}
    assert gpu_tasks.describe_device("cuda:0")["memory_bytes"] > 0
    copies = gpu_tasks.CopyTask(boot).run(0)
    assert {(row["direction"], row["memory"]) for row in copies} == {
        (direction, memory) for direction in ("host-to-device", "device-to-host") for memory in ("pinned", "pageable")
    }
    assert all(0 < row["event_p50_us"] <= row["p99_us"] for row in copies)
    assert {row["mode"] for row in gpu_tasks.InferenceTask(boot).run(0)["rows"]} == {"eager", "graph"}
    assert len(gpu_tasks.OverlapTask(boot).run(0)) == 2


# -- pictures ------------------------------------------------------------------------------------------------


def test_pictures_show_copies_and_overlap(tmp_path: Path):
    rows = [
        {"part": "copy", "direction": "host-to-device", "memory": "pinned", "bytes": n, "p50_us": n} for n in (1, 9)
    ]
    rows += [
        {
            "part": "overlap",
            "how": how,
            "mps": mps,
            "workers": k,
            "of_perfect_fraction": 1 / k,
            "p50_us": 9.0,
            "p99_us": 9.5,
        }
        for how, mps in (("streams", "off"), ("processes", "off"), ("processes", "on"))
        for k in (1, 2)
    ]
    extra = {"gpu": {"name": "a GPU"}, "policy": "impala k=1"}
    paths = gpu.plot(Result("gpu", rows, gpu.KEYS, extra=extra), tmp_path)
    assert [path.name for path in paths] == ["gpu-copies.png", "gpu-overlap.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
