"""NVIDIA GPUs: driver, PyTorch's build, MPS, persistence mode, NUMA node.

What it says without a GPU, and of a machine described by files and recorded output, is tested; it has not been run on
a machine with a GPU.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from rtcore.doctor.checks import Check, Needs, Verdict, lacks, not_applicable, ok, warn
from rtcore.doctor.machine import Machine, ProbeError, cpu_list, in_words

_NVIDIA = "0x10de"
_NO_GPU = "no NVIDIA GPU was found"
_QUERY = "index,name,driver_version,persistence_mode,pci.bus_id"


class Gpu(NamedTuple):
    """A line of nvidia-smi; `bus_id` as sysfs writes it ("0000:65:00.0")."""

    number: int
    name: str
    driver: str
    persistence: str
    bus_id: str


def bus_ids(machine: Machine) -> list[str]:
    """GPUs on the PCI bus, with or without a driver."""
    return [
        path.split("/")[-2]
        for path in machine.glob("/sys/bus/pci/devices/*/vendor")
        if machine.read(path) == _NVIDIA and machine.read(path.replace("/vendor", "/class")).startswith("0x03")
    ]


def gpus(machine: Machine) -> list[Gpu]:
    """What the driver knows; `ProbeError` if nvidia-smi fails; [] without it."""
    if machine.which("nvidia-smi") is None:
        return []
    found = []
    for line in machine.run("nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader").splitlines():
        number, name, driver, persistence, bus_id = (part.strip() for part in line.split(","))
        domain, _, rest = bus_id.lower().partition(":")
        found.append(Gpu(int(number), name, driver, persistence, f"{domain[-4:]}:{rest}"))
    return found


def _demanded(needs: Needs, answer: Verdict) -> Verdict:
    """A warning is a lack where the settings name a GPU."""
    return lacks(answer.found, answer.fix) if needs.uses_gpu else answer


def driver(machine: Machine, needs: Needs) -> Verdict:
    on_bus = bus_ids(machine)
    fix = "install NVIDIA's driver (Debian: sudo apt install nvidia-driver)"
    if machine.in_container:
        fix = "docker run --gpus all, with the NVIDIA container toolkit on the host"
    if machine.which("nvidia-smi") is None:
        if on_bus:
            return _demanded(needs, warn(f"{len(on_bus)} NVIDIA GPUs ({', '.join(on_bus)}), but no nvidia-smi", fix))
        if needs.uses_gpu:
            return lacks(
                f"{_NO_GPU}, and --device {needs.config.agent.device} asks for one", "--device cpu, or another machine"
            )
        return not_applicable(_NO_GPU)
    try:
        found = gpus(machine)
    except ProbeError as error:
        return _demanded(needs, warn(str(error), fix))
    if not found:
        return _demanded(needs, warn("nvidia-smi lists no GPU", fix))
    return ok(f"driver {found[0].driver}; " + ", ".join(f"{gpu.number}: {gpu.name}" for gpu in found))


def pytorch(machine: Machine, needs: Needs) -> Verdict:
    version = machine.package("torch")
    if version is None:
        return lacks("PyTorch is not installed", "pip install torch")
    if not bus_ids(machine) and not gpus(machine):
        return not_applicable(f"torch {version}; {_NO_GPU}")
    trial = machine.trial("torch")
    if trial["cuda"] is None:
        fix = "pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu130"
        return _demanded(needs, warn(f"torch {trial['version']} is built without CUDA", fix))
    found = f"torch {trial['version']}, built for CUDA {trial['cuda']}; the driver knows CUDA {_driver_cuda(machine)}"
    if trial["error"]:
        fix = f"a driver for CUDA {trial['cuda']}, or the torch build for this one (download.pytorch.org/whl/cuNNN)"
        return _demanded(needs, warn(f"{found}; a computation failed: {trial['error']}", fix))
    return ok(f"{found}; a computation on it worked")


def _driver_cuda(machine: Machine) -> str:
    try:
        match = re.search(r"CUDA Version:\s*([\d.]+)", machine.run("nvidia-smi"))
    except ProbeError:
        match = None
    return f"up to {match[1]}" if match else "(unknown)"


def mps(machine: Machine, needs: Needs) -> Verdict:
    """Asked, not inferred: a pipe that a killed daemon left behind does not answer."""
    if not gpus(machine):
        return not_applicable(_NO_GPU)
    fix = "nvidia-cuda-mps-control -d, as the user who runs rtcore"
    if machine.which("nvidia-cuda-mps-control") is None:
        return warn("no nvidia-cuda-mps-control: workers on one GPU take turns", "install it (part of the driver)")
    try:
        machine.run("nvidia-cuda-mps-control", stdin="get_server_list\nquit_client\n")
    except ProbeError as error:
        return warn(f"not running ({error}): workers on one GPU take turns", fix)
    return ok("running: workers on one GPU may compute at the same time")


def persistence(machine: Machine, needs: Needs) -> Verdict:
    found = gpus(machine)
    if not found:
        return not_applicable(_NO_GPU)
    off = [gpu.number for gpu in found if gpu.persistence.lower() != "enabled"]
    if off:
        return warn(
            f"off on GPU {', '.join(map(str, off))}: the first use after a pause takes seconds",
            "sudo nvidia-smi -pm 1 (or enable nvidia-persistenced)",
        )
    return ok("on")


def numa(machine: Machine, needs: Needs) -> Verdict:
    addresses = [gpu.bus_id for gpu in gpus(machine)] or bus_ids(machine)
    if not addresses:
        return not_applicable(_NO_GPU)
    parts, far = [], []
    for address in addresses:
        node = int(machine.find(f"/sys/bus/pci/devices/{address}/numa_node") or -1)
        parts.append(f"{address} on node {node}" if node >= 0 else f"{address}: one node only, or not told")
        near = cpu_list(machine.find(f"/sys/devices/system/node/node{node}/cpulist") or "") if node >= 0 else set()
        if near and not near & machine.cpus:
            far.append(f"numactl --cpunodebind={node} rtcore-run ... (CPU {in_words(near)})")
    if far:
        return warn(f"{'; '.join(parts)}; CPU {in_words(machine.cpus)} are on another node", far[0])
    return ok("; ".join(parts))


CHECKS = (
    Check("gpu.driver", "NVIDIA driver", driver),
    Check("gpu.pytorch", "PyTorch and driver", pytorch),
    Check("gpu.mps", "MPS", mps),
    Check("gpu.persistence", "persistence mode", persistence),
    Check("gpu.numa", "NUMA node of GPUs", numa),
)
