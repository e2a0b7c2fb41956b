"""Which devices the setting `device` names, and whether they exist: without importing torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import re
from pathlib import Path

from rtcore.errors import ConfigError

_CUDA = re.compile(r"cuda(:\d+)?")


def device_names(device: str) -> list[str]:
    """The parts of a list such as "cuda:0,cuda:2". ConfigError for what is none of the names there are."""
    names = [name.strip() for name in device.split(",")]
    for name in names:
        if name not in ("cpu", "auto") and not _CUDA.fullmatch(name):
            which = f" ({name!r} in it)" if len(names) > 1 else ""
            raise ConfigError(
                f"device is {device!r}{which}; expected cpu, cuda, cuda:<index> or auto, or a list of them"
            )
    return names


def check_device(device: str) -> None:
    """ConfigError if a device is named that torch will not find here. What cannot be told without torch passes."""
    wanted = [name for name in device_names(device) if name.startswith("cuda")]
    if not wanted:
        return
    build = _build_of_torch()
    if build == "cpu":
        raise no_gpu(device, "torch is built without CUDA")
    if build == "cuda" and not _has_driver():
        raise no_gpu(device, "no NVIDIA driver is installed")
    count = _count_gpus()
    if count == 0:
        raise no_gpu(device, "the NVIDIA driver lists none")
    for name in wanted:
        index = int(name.partition(":")[2] or 0)
        if count is not None and index >= count:
            raise no_such_gpu(name, count)


def no_gpu(device: str, why: str) -> ConfigError:
    """The error of a device that needs a GPU where there is none."""
    return ConfigError(
        f"device is {device!r}, but torch sees no GPU here ({why}); expected a CUDA device and a CUDA build of torch. "
        "Use --device cpu; rtcore-doctor says what is missing"
    )


def no_such_gpu(device: str, count: int) -> ConfigError:
    """The error of an index beyond the last GPU."""
    found = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
    return ConfigError(
        f"device is {device!r}, but there {'is 1 GPU' if count == 1 else f'are {count} GPUs'} here; expected {found}. "
        "Use --device auto"
    )


def _build_of_torch() -> str:
    """What torch is built for, by its version.py: "cuda", "rocm" or "cpu"; "" if that does not say."""
    spec = importlib.util.find_spec("torch")
    folder = next(iter(spec.submodule_search_locations or []), None) if spec is not None else None
    try:
        text = (Path(folder or "") / "version.py").read_text()
    except OSError:
        return ""
    has_cuda, is_rocm = (re.search(rf"^({name})\b.*= ['\"]", text, re.M) for name in ("cuda", "hip|rocm"))
    if is_rocm or has_cuda:
        return "rocm" if is_rocm else "cuda"
    return "cpu" if "cuda" in text else ""


def _has_driver() -> bool:
    """Whether the library that CUDA goes through can be loaded, which makes no context."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _count_gpus() -> int | None:
    """GPUs that a process of this environment may use, by the driver's management library: it makes no CUDA context,
    which must not be before a fork. None: it does not say.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not re.fullmatch(r"\d+(,\d+)*", visible):
        return 0 if visible in ("", "-1") else None  # UUIDs and MIG instances: torch knows
    count = ctypes.c_uint(0)
    try:
        nvml = ctypes.CDLL("libnvidia-ml.so.1")
        if nvml.nvmlInit_v2() != 0:
            return None
        failed = nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        nvml.nvmlShutdown()
    except (OSError, AttributeError):
        return None
    if failed:
        return None
    return count.value if visible is None else sum(int(number) < count.value for number in visible.split(","))
