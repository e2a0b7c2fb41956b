"""Device settings that cannot be had are refused before anything is started."""

from __future__ import annotations

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

import rtcore
from rtcore.errors import ConfigError
from rtcore.host import devices
from rtcore.memory.segments import files_of

pytestmark = pytest.mark.unit


@pytest.fixture
def torch_built_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A torch whose version file says so."""

    def build(*lines: str) -> None:
        (tmp_path / "version.py").write_text("\n".join(lines) + "\n")
        spec = importlib.machinery.ModuleSpec("torch", None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path)]
        monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)

    return build


@pytest.mark.parametrize("device", ("gpu", "cuda:", "cuda:x", "cuda:-1", "cpu,cuda:x", ""))
def test_a_device_that_is_none_is_refused_with_what_there_is(device: str) -> None:
    with pytest.raises(ConfigError, match="expected cpu, cuda, cuda:<index> or auto"):
        devices.device_names(device)


def test_a_torch_without_cuda_is_found_out_without_importing_it(torch_built_with) -> None:
    torch_built_with("cuda: Optional[str] = None", "hip: Optional[str] = None")
    for device in ("cuda", "cuda:9", "cpu,cuda:0"):
        with pytest.raises(ConfigError, match="built without CUDA"):
            devices.check_device(device)
    devices.check_device("auto")
    devices.check_device("cpu")


def test_an_index_beyond_the_last_gpu_is_refused_with_how_many_there_are(torch_built_with, monkeypatch) -> None:
    torch_built_with("cuda: Optional[str] = '13.0'", "hip: Optional[str] = None")
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    monkeypatch.setattr(devices, "_count_gpus", lambda: 2)
    devices.check_device("cuda:0,cuda:1,cpu")
    with pytest.raises(ConfigError, match="'cuda:2', but there are 2 GPUs here; expected cuda:0 to cuda:1"):
        devices.check_device("cuda:0,cuda:2")
    monkeypatch.setattr(devices, "_count_gpus", lambda: None)
    devices.check_device("cuda:2")


def test_hidden_gpus_are_none(torch_built_with, monkeypatch) -> None:
    torch_built_with("cuda: Optional[str] = '13.0'")
    monkeypatch.setattr(devices, "_has_driver", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigError, match="the NVIDIA driver lists none"):
        devices.check_device("cuda")


def test_a_machine_without_a_driver_has_no_gpu_whatever_torch_is_built_for(torch_built_with, monkeypatch) -> None:
    torch_built_with("cuda: Optional[str] = '13.0'", "hip: Optional[str] = None")
    monkeypatch.setattr(devices.ctypes, "CDLL", lambda _: (_ for _ in ()).throw(OSError))
    with pytest.raises(ConfigError, match="no NVIDIA driver is installed"):
        devices.check_device("cuda:1")


def test_rocm_calls_its_gpus_cuda(torch_built_with, monkeypatch) -> None:
    torch_built_with("cuda: Optional[str] = None", "hip: Optional[str] = '6.4'")
    monkeypatch.setattr(devices, "_count_gpus", lambda: None)
    devices.check_device("cuda")


def test_a_run_does_not_begin_to_start_for_a_device_that_is_not_there(said: list[str]) -> None:
    runtime = rtcore.Runtime(device="cuda:99")
    with pytest.raises(ConfigError, match="device is 'cuda:99'"):
        runtime.start()
    assert said == []
    assert files_of(runtime.run_id) == []
