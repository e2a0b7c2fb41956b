"""Buffers in a device's memory: one process owns them, others compute with them as tensors.

Two kinds. `cuda-ipc`: a GPU's memory; not yet run on a GPU. `stand-in`: memory of the CPU in its place, so that all
that surrounds it runs, with real processes, where there is no GPU. Both end with the process that owns them: after that
no other process can open them.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from rtcore.memory.layout import MAX_HOLDERS
from rtcore.memory.layout.record_type import round_up
from rtcore.messages import DeviceBuffers
from rtcore_workers.weights.cudart import CudaError, Cudart, loaded_cudart

CUDA_IPC = "cuda-ipc"
STAND_IN = "stand-in"
#: Each buffer begins as cudaMalloc would align it, at least.
_ALIGNMENT = 512
#: The CUDA programming guide on IPC: share sizes of a multiple of 2 MiB. Others may be cut out of a larger block, which
#: is then shared as a whole.
_CUDA_BLOCK_BYTES = 2 << 20


class NotShared(Exception):
    """Memory that could not be allocated or opened: the reason, for the run's header."""


class DeviceMemory(Protocol):
    """What the owner has. Used by one thread."""

    #: For `open_memory` in other processes.
    exported: DeviceBuffers
    #: For the user; complete once something was written.
    notes: list[str]

    def write(self, buffer: int, source: memoryview) -> None:
        """Copy `source`, (buffer_bytes,) uint8 of host memory, into a buffer; returns when the device has all of it."""
        ...

    def close(self) -> None:
        """Give the memory back. Only once nobody uses it."""
        ...


def memory_kind(device: str, sharing: str) -> str | None:
    """Which kind a device's weights are shared by; None: not at all. `sharing`: the setting weights_sharing."""
    if sharing == "private":
        return None
    if device != "cpu":
        return CUDA_IPC
    return STAND_IN if sharing == "stand-in" else None


def holder_places(device: str, sharing: str) -> int:
    """Weight holders that a run may need. `device`, `sharing`: the settings device and weights_sharing."""
    on_gpus = device != "cpu" and torch.cuda.is_available() and sharing != "private"
    return MAX_HOLDERS if on_gpus or sharing == "stand-in" else 0


def allocate(kind: str, device: str, num_buffers: int, buffer_bytes: int) -> DeviceMemory:
    """Owner: memory on a device, "cpu" or "cuda:i". NotShared if it cannot be allocated or shared."""
    stride = round_up(max(1, buffer_bytes), _ALIGNMENT)
    sizes = DeviceBuffers(kind, num_buffers, buffer_bytes, stride)
    try:
        return StandInMemory(sizes) if kind == STAND_IN else CudaMemory(loaded_cudart(), device, sizes)
    except (CudaError, OSError) as error:
        raise NotShared(str(error)) from error


def open_memory(exported: DeviceBuffers, device: str) -> list[Tensor]:
    """Another process: each buffer as a tensor (buffer_bytes,) uint8, without a copy. NotShared if that does not go.

    The mapping lasts as long as this process.
    """
    size, stride = exported.buffer_bytes, exported.stride
    try:
        whole = _open_stand_in(exported) if exported.kind == STAND_IN else _open_cuda(exported, device)
    except (CudaError, OSError, RuntimeError) as error:
        raise NotShared(str(error)) from error
    return [whole[at : at + size] for at in range(0, exported.num_buffers * stride, stride)]


class StandInMemory:
    """Memory without a name in any file system, found through its owner's /proc entry."""

    def __init__(self, sizes: DeviceBuffers) -> None:
        num_bytes = sizes.num_buffers * sizes.stride
        self._fd = os.memfd_create("rtcore-stand-in")
        os.posix_fallocate(self._fd, 0, num_bytes)
        self._whole = np.frombuffer(mmap.mmap(self._fd, num_bytes), np.uint8)
        self._stride = sizes.stride
        self.notes: list[str] = []
        self.exported = replace(sizes, path=f"/proc/{os.getpid()}/fd/{self._fd}")

    def write(self, buffer: int, source: memoryview) -> None:
        at = buffer * self._stride
        np.copyto(self._whole[at : at + len(source)], np.frombuffer(source, np.uint8))

    def close(self) -> None:
        os.close(self._fd)


def _open_stand_in(exported: DeviceBuffers) -> Tensor:
    with Path(exported.path).open("r+b") as file:
        return torch.frombuffer(mmap.mmap(file.fileno(), exported.num_buffers * exported.stride), dtype=torch.uint8)


class CudaMemory:
    """One block of a GPU's memory. What it copies from is page-locked, once each, or else copied more slowly."""

    def __init__(self, cudart: Cudart, device: str, sizes: DeviceBuffers) -> None:
        self._cudart = cudart
        self._stride = sizes.stride
        self._sources: set[int] = set()
        self.notes: list[str] = []
        cudart.set_device(int(device.removeprefix("cuda:")))
        cudart.sleep_when_waiting()
        num_bytes = sizes.num_buffers * sizes.stride
        self._base = cudart.malloc(round_up(num_bytes, _CUDA_BLOCK_BYTES))
        self.exported = replace(sizes, handle=cudart.get_handle(self._base).hex())

    def write(self, buffer: int, source: memoryview) -> None:
        address, size = np.frombuffer(source, np.uint8).ctypes.data, len(source)
        if address not in self._sources:
            self._sources.add(address)
            try:
                self._cudart.register(address, size)
            except CudaError as error:
                self.notes.append(f"copies to the GPU are slower: host memory is not page-locked (ulimit -l): {error}")
        self._cudart.copy_in(self._base + buffer * self._stride, address, size)

    def close(self) -> None:
        self._cudart.free(self._base)


class _ForeignMemory:
    """Somebody else's device memory, as torch takes it: the CUDA array interface, version 3."""

    def __init__(self, address: int, num_bytes: int) -> None:
        data = (address, False)
        self.__cuda_array_interface__ = {"shape": (num_bytes,), "typestr": "|u1", "data": data, "version": 3}


def _open_cuda(exported: DeviceBuffers, device: str) -> Tensor:
    cudart = loaded_cudart()
    with torch.cuda.device(device):
        address = cudart.open_handle(bytes.fromhex(exported.handle))
        whole = torch.as_tensor(_ForeignMemory(address, exported.num_buffers * exported.stride), device=device)
    if whole.data_ptr() != address:
        cudart.close_handle(address)
        raise NotShared(f"torch copied the memory of {device} instead of using it in place")
    return whole
