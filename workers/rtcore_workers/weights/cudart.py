"""NVIDIA's runtime API, as far as one process needs it to own a GPU's memory and others to compute with it.

By ctypes on the library that torch has loaded: torch has its own way between processes, but that one is private
(`UntypedStorage._share_cuda_`), counts references in files of its own and lives and dies with torch's allocator.
What each call promises is quoted from the CUDA Runtime API reference ("Memory Management", "Device Management"):
https://docs.nvidia.com/cuda/cuda-runtime-api/. NOT YET RUN ON A GPU: tests/process/test_cudart.py calls it on a
stand-in library with the same signatures.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, byref, c_char, c_char_p, c_int, c_size_t, c_uint, c_void_p
from pathlib import Path

#: driver_types.h: CUDA_IPC_HANDLE_SIZE, cudaIpcMemLazyEnablePeerAccess, cudaMemcpyHostToDevice,
#: cudaHostRegisterDefault, cudaDeviceScheduleBlockingSync.
HANDLE_BYTES = 64
_LAZY_ENABLE_PEER_ACCESS = 1
_HOST_TO_DEVICE = 1
_REGISTER_DEFAULT = 0
_SCHEDULE_BLOCKING_SYNC = 4


class CudaError(Exception):
    """A call failed: its name, and the runtime's name for what went wrong."""


class _Handle(ctypes.Structure):
    """cudaIpcMemHandle_t: passed by value."""

    _fields_ = [("reserved", c_char * HANDLE_BYTES)]


class Cudart:
    """One method per call; addresses are integers. CudaError if a call fails. Used by one thread."""

    def __init__(self, path: str) -> None:
        self._lib = lib = ctypes.CDLL(path)
        for name, arguments in {
            "cudaGetLastError": [],
            "cudaSetDevice": [c_int],
            "cudaSetDeviceFlags": [c_uint],
            "cudaDeviceSynchronize": [],
            "cudaMalloc": [POINTER(c_void_p), c_size_t],
            "cudaFree": [c_void_p],
            "cudaMemcpy": [c_void_p, c_void_p, c_size_t, c_int],
            "cudaHostRegister": [c_void_p, c_size_t, c_uint],
            "cudaIpcGetMemHandle": [POINTER(_Handle), c_void_p],
            "cudaIpcOpenMemHandle": [POINTER(c_void_p), _Handle, c_uint],
            "cudaIpcCloseMemHandle": [c_void_p],
        }.items():
            function = getattr(lib, name)
            function.argtypes, function.restype = arguments, c_int
        lib.cudaGetErrorName.argtypes, lib.cudaGetErrorName.restype = [c_int], c_char_p

    def set_device(self, index: int) -> None:
        """ "Sets device as the current device for the calling host thread." """
        self._call("cudaSetDevice", index)

    def sleep_when_waiting(self) -> None:
        """ "Block the CPU thread on a synchronization primitive when waiting for the device": not to spin on a CPU."""
        self._call("cudaSetDeviceFlags", _SCHEDULE_BLOCKING_SYNC)

    def malloc(self, num_bytes: int) -> int:
        """ "Allocates size bytes of linear memory on the device", aligned for any type. Not cleared."""
        address = c_void_p()
        self._call("cudaMalloc", byref(address), num_bytes)
        return address.value or 0

    def free(self, address: int) -> None:
        """Only once nobody has it open: else "undefined behavior"."""
        self._call("cudaFree", address)

    def get_handle(self, address: int) -> bytes:
        """HANDLE_BYTES for other processes. "Takes a pointer to the base of an existing device memory allocation
        created with cudaMalloc and exports it for use in another process."
        """
        handle = _Handle()
        self._call("cudaIpcGetMemHandle", byref(handle), address)
        return bytes(handle)

    def open_handle(self, handle: bytes) -> int:
        """ "Maps memory exported from another process with cudaIpcGetMemHandle into the current device address space."
        Not in the process that exports it. "Memory returned from cudaIpcOpenMemHandle must be freed with
        cudaIpcCloseMemHandle." The flag "must be specified as cudaIpcMemLazyEnablePeerAccess".
        """
        address = c_void_p()
        opened = _Handle.from_buffer_copy(handle)
        self._call("cudaIpcOpenMemHandle", byref(address), opened, _LAZY_ENABLE_PEER_ACCESS)
        return address.value or 0

    def close_handle(self, address: int) -> None:
        """ "Unmaps memory returned by cudaIpcOpenMemHandle." The owner's stays."""
        self._call("cudaIpcCloseMemHandle", address)

    def register(self, address: int, num_bytes: int) -> None:
        """ "Page-locks the memory range", so that the GPU reads it without a copy on the way."""
        self._call("cudaHostRegister", address, num_bytes, _REGISTER_DEFAULT)

    def copy_in(self, to: int, source: int, num_bytes: int) -> None:
        """From host memory; returns when all of it is there. cudaMemcpy may return before that ("API synchronization
        behavior": memory that is not page-locked); cudaDeviceSynchronize "blocks until the device has completed all
        preceding requested tasks".
        """
        self._call("cudaMemcpy", to, source, num_bytes, _HOST_TO_DEVICE)
        self._call("cudaDeviceSynchronize")

    def _call(self, name: str, *arguments: object) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code:
            # Which "resets it to cudaSuccess": torch would take it for an error of its next kernel.
            self._lib.cudaGetLastError()
            raise CudaError(f"{name} failed: {(self._lib.cudaGetErrorName(code) or b'?').decode()} ({code})")


def loaded_cudart(maps: Path = Path("/proc/self/maps")) -> Cudart:
    """The runtime that torch has loaded into this process. CudaError if there is none to be found."""
    paths = [line.split(maxsplit=5)[-1] for line in maps.read_text().splitlines() if "/libcudart" in line]
    if not paths:
        raise CudaError("torch has loaded no libcudart.so into this process")
    return Cudart(paths[0])
