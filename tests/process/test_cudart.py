"""The calls to NVIDIA's runtime, on a stand-in library with the same signatures. IT IS NOT A GPU.

What it can show: argument types, sizes, the handle's way to another process, and what becomes of errors.
"""

from __future__ import annotations

import ctypes
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtcore.memory.tensors import ParamManifest, ParamTensor
from rtcore.memory.weights import ParamStore
from rtcore.messages import DeviceBuffers
from rtcore_workers.holder import Holder
from rtcore_workers.weights.cudart import HANDLE_BYTES, CudaError, Cudart, loaded_cudart
from rtcore_workers.weights.device_memory import CUDA_IPC, CudaMemory, NotShared, allocate
from tests import support

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler: it makes the library that is called"),
]

SIZE = 5000
MANIFEST = ParamManifest.of([ParamTensor(("w",), (SIZE // 4,), (1,), "float32", "parameter", trainable=True)])
SIZES = DeviceBuffers(CUDA_IPC, num_buffers=3, buffer_bytes=SIZE, stride=5120)
#: Opens a handle and prints what is at each of the offsets, each time that it is told to.
READER = """
import ctypes, json, sys
from rtcore_workers.weights.cudart import Cudart
cudart = Cudart(sys.argv[1])
address = cudart.open_handle(bytes.fromhex(sys.argv[2]))
for line in sys.stdin:
    at, size = json.loads(line)
    print(json.dumps(sorted(set(ctypes.string_at(address + at, size)))), flush=True)
cudart.close_handle(address)
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    source, built = (
        Path(support.__file__).with_name("cudart_stand_in.c"),
        tmp_path_factory.mktemp("lib") / "cudart_stand_in.so",
    )
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run(["cc", *flags, "-o", str(built), str(source)], check=True)
    return str(built)


@pytest.fixture
def cudart(library: str) -> Cudart:
    return Cudart(library)


class Reader:
    """Another process that has opened a handle."""

    def __init__(self, library: str, handle: str) -> None:
        command = [sys.executable, "-c", READER, library, handle]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def values(self, at: int, size: int) -> list[int]:
        """The different bytes that are there."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(f"{json.dumps([at, size])}\n")
        stdin.flush()
        return json.loads(stdout.readline())  # type: ignore[no-any-return]

    def end(self) -> int:
        """Its exit code: 0 if it could close what it had opened."""
        self._process.communicate(timeout=150)
        return self._process.returncode


def last_error(cudart: Cudart) -> int:
    return int(cudart._lib.cudaGetLastError())


def test_memory_goes_to_another_process_by_its_handle_and_stays_the_owner_s(cudart: Cudart, library: str) -> None:
    cudart.set_device(0)
    base = cudart.malloc(4 * SIZE)
    handle = cudart.get_handle(base)
    assert len(handle) == HANDLE_BYTES == 64
    reader = Reader(library, handle.hex())
    source = ctypes.create_string_buffer(b"\x07" * SIZE, SIZE)
    cudart.register(ctypes.addressof(source), SIZE)
    cudart.copy_in(base + SIZE, ctypes.addressof(source), SIZE)
    assert reader.values(SIZE, SIZE) == [7]
    assert reader.values(0, SIZE) == [0xA5], "and nothing beside it"
    assert reader.end() == 0
    assert set(ctypes.string_at(base + SIZE, SIZE)) == {7}
    cudart.free(base)


def test_what_the_runtime_refuses_is_named_and_is_not_left_for_torch_to_find(cudart: Cudart) -> None:
    base = cudart.malloc(100)
    refusals = {
        "cudaSetDevice failed: cudaErrorInvalidDevice (101)": lambda: cudart.set_device(7),
        "cudaMalloc failed: cudaErrorMemoryAllocation (2)": lambda: cudart.malloc(1 << 40),
        "cudaFree failed: cudaErrorInvalidValue (1)": lambda: cudart.free(base + 1),
        "cudaIpcGetMemHandle failed: cudaErrorInvalidValue (1)": lambda: cudart.get_handle(base + 8),
        "cudaIpcOpenMemHandle failed: cudaErrorDeviceUninitialized (201)": lambda: cudart.open_handle(
            cudart.get_handle(base)
        ),
        "cudaIpcCloseMemHandle failed: cudaErrorInvalidValue (1)": lambda: cudart.close_handle(base),
        "cudaHostRegister failed: cudaErrorInvalidValue (1)": lambda: cudart.register(base, 0),
        "cudaMemcpy failed: cudaErrorInvalidValue (1)": lambda: cudart.copy_in(base + 90, base, 20),
    }
    for message, call in refusals.items():
        with pytest.raises(CudaError) as caught:
            call()
        assert str(caught.value) == message
        assert last_error(cudart) == 0, message
    cudart.free(base)


def test_a_handle_whose_owner_has_gone_is_refused(cudart: Cudart, library: str) -> None:
    code = (
        "import sys; from rtcore_workers.weights.cudart import Cudart; cudart = Cudart(sys.argv[1]); "
        "print(cudart.get_handle(cudart.malloc(4096)).hex())"
    )
    done = subprocess.run([sys.executable, "-c", code, library], capture_output=True, text=True, check=True)
    with pytest.raises(CudaError, match=r"cudaIpcOpenMemHandle failed: cudaErrorInvalidResourceHandle \(400\)"):
        cudart.open_handle(bytes.fromhex(done.stdout))


def test_a_holder_announces_a_version_once_the_device_has_all_of_it(cudart: Cudart, library: str) -> None:
    """The stand-in copies only when it is synchronised: weights that were announced before would be rubbish."""
    host, held = (ParamStore.private(MANIFEST, max_workers=2) for _ in range(2))
    memory = CudaMemory(cudart, "cuda:0", SIZES)
    assert int(memory.exported.handle, 16)
    holder = Holder(host, held, memory, place=1, generation=1)

    def publish(value: int) -> None:
        host.publish(lambda buffer: buffer.__setitem__(slice(None), bytes([value]) * len(buffer)))

    publish(1)
    holder.fill()
    reader = Reader(library, memory.exported.handle)
    assert [reader.values(buffer * 5120, SIZE) for buffer in range(3)] == [[1]] * 3, "no buffer is left as it was"
    assert holder.follow() is None
    for version in range(2, 9):
        publish(version)
        brought = holder.follow()
        assert brought is not None
        assert (brought.version, brought.checksum) == (version, host.newest().checksum)
        assert reader.values(brought.buffer * 5120, SIZE) == [version]
        assert held.newest() == brought
    claimed = held.claim(0, generation=1)
    for version in range(9, 20):
        publish(version)
        holder.follow()
    assert reader.values(claimed.buffer * 5120, SIZE) == [claimed.version], "not while a worker claims it"
    assert reader.end() == 0
    assert memory.notes == []
    memory.close()


def test_memory_that_cannot_be_page_locked_is_copied_all_the_same_and_said(cudart: Cudart) -> None:
    memory = CudaMemory(cudart, "cuda:0", replace(SIZES, buffer_bytes=8))
    source = ctypes.create_string_buffer(b"weights!", 8)
    cudart.register(ctypes.addressof(source), 8)  # a second time is refused
    memory.write(1, memoryview(source).cast("B"))
    assert ctypes.string_at(memory._base + 5120, 8) == b"weights!"
    (note,) = memory.notes
    assert "not page-locked (ulimit -l): cudaHostRegister failed: cudaErrorHostMemoryAlreadyRegistered (712)" in note
    memory.close()


def test_without_a_runtime_library_weights_are_not_shared(tmp_path: Path) -> None:
    (tmp_path / "maps").write_text("7f00-7f01 r-xp 00000000 08:01 42    /usr/lib/libc.so.6\n")
    with pytest.raises(CudaError, match=r"torch has loaded no libcudart\.so"):
        loaded_cudart(tmp_path / "maps")


def test_the_library_that_is_loaded_is_the_one_that_is_called(tmp_path: Path, library: str) -> None:
    name = tmp_path / "libcudart.so.13"
    name.symlink_to(library)
    (tmp_path / "maps").write_text(f"7f00-7f01 r-xp 00000000 08:01 42                         {name}\n")
    found = loaded_cudart(tmp_path / "maps")
    found.set_device(0)
    assert found._lib._name == str(name)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_is_said_why_nothing_is_shared() -> None:
    # Some builds of torch bring the runtime library along, and load it when it suits them.
    with pytest.raises(NotShared, match="loaded no libcudart|cudaSetDevice failed"):
        allocate(CUDA_IPC, "cuda:0", 3, SIZE)
