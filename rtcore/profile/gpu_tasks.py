"""What `rtcore-profile gpu` measures, in child processes: copies, inference with and without a CUDA graph, overlap.

**The CUDA calls in here have not been run on a GPU** (`docs/gpu.md`). All else is run and tested with the CPU executor
in the GPU's place (`--device cpu`). The inference itself is the worker's: `load_policy` and its executor.

Protocol of a child, after `main` was called: it sends `Ready` with what it runs on, gets `Begin`, sends
`Result` and ends. Several children get the same `begin_ns`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from rtcore.channel import Begin, Channel, Ready, Result
from rtcore.clock import MonotonicClock
from rtcore.errors import ConfigError
from rtcore.memory.counters import Histogram
from rtcore.profile.results import Row
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.policies import load_policy
from rtcore_workers.policies.executors import make_executor

_NUM_WARM_UP_RUNS = 5
#: Less is measured of what takes long: a part of a task ends after so long, whatever `samples` says.
_MAX_PART_NS = 2_000_000_000
_DRIVER = Path("/proc/driver/nvidia/version")


class Task(Protocol):
    """Building it prepares everything; `run` measures."""

    def run(self, begin_ns: int) -> Any:
        """What was measured, as JSON."""
        ...


def main(boot: dict[str, Any], channel: Channel) -> None:
    """Process entry. `boot["task"]` is a name in `TASKS`. Exits when it has answered, or with its parent."""
    task = TASKS[boot["task"]](boot)
    channel.send(Ready(describe_device(boot["device"])))
    message = channel.receive()
    if isinstance(message, Begin):
        channel.send(Result(task.run(message.begin_ns)))


def describe_device(device: str) -> dict[str, Any]:
    """What a GPU is. Creates a CUDA context: not for the program itself. Just {"device": "cpu"} on a CPU."""
    if device == "cpu":
        return {"device": "cpu"}
    properties = torch.cuda.get_device_properties(device)
    try:
        driver = _DRIVER.read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        driver = None
    return {
        "device": device,
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": driver,
    }


# -- copies --------------------------------------------------------------------------------------------------


class Copier(Protocol):
    """Copies between two memories, prepared in advance, one at a time."""

    @property
    def directions(self) -> tuple[str, ...]: ...

    @property
    def memories(self) -> tuple[str, ...]: ...

    def prepare(self, direction: str, memory: str, num_bytes: int) -> Callable[[], int]:
        """A call that copies once and returns when the copy is complete: its time by device events [ns], 0 if none."""
        ...


class CpuCopier:
    """From host memory to host memory, in the place of a GPU's copies."""

    directions = ("host-to-host",)
    memories = ("pageable",)

    def prepare(self, direction: str, memory: str, num_bytes: int) -> Callable[[], int]:
        source, target = torch.zeros(num_bytes, dtype=torch.uint8), torch.empty(num_bytes, dtype=torch.uint8)

        def once() -> int:
            target.copy_(source)
            return 0

        return once


class CudaCopier:
    """Copies to and from a GPU, on a stream of their own, as `CudaExecutor` makes them. Not yet run on a GPU."""

    directions = ("host-to-device", "device-to-host")
    memories = ("pinned", "pageable")

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        with torch.cuda.device(self._device):
            self._stream = torch.cuda.Stream(priority=-1)  # type: ignore[no-untyped-call]
            self._begin = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]
            self._end = torch.cuda.Event(enable_timing=True, blocking=True)  # type: ignore[no-untyped-call]

    def prepare(self, direction: str, memory: str, num_bytes: int) -> Callable[[], int]:
        host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=memory == "pinned")
        gpu = torch.zeros(num_bytes, dtype=torch.uint8, device=self._device)
        torch.cuda.synchronize(self._device)
        source, target = (host, gpu) if direction == "host-to-device" else (gpu, host)

        def once() -> int:
            with torch.cuda.device(self._device), torch.cuda.stream(self._stream):
                self._begin.record()
                target.copy_(source, non_blocking=True)
                self._end.record()
            self._end.synchronize()
            return int(self._begin.elapsed_time(self._end) * 1e6)

        return once


class CopyTask:
    """Every size, direction and kind of host memory in turn. `boot`: device, sizes [bytes], samples."""

    def __init__(self, boot: dict[str, Any]) -> None:
        self._boot = boot
        self._copier: Copier = CpuCopier() if boot["device"] == "cpu" else CudaCopier(boot["device"])

    def run(self, begin_ns: int) -> list[Row]:
        rows = []
        for num_bytes in self._boot["sizes"]:
            for direction in self._copier.directions:
                for memory in self._copier.memories:
                    call = self._copier.prepare(direction, memory, num_bytes)
                    times_ns, device_ns = time_calls(call, self._boot["samples"])
                    row = {"direction": direction, "memory": memory, "bytes": num_bytes} | percentiles_us(times_ns)
                    row["gb_per_s"] = num_bytes / float(np.median(times_ns))
                    row["event_p50_us"] = float(np.median(device_ns)) / 1e3 if any(device_ns) else None
                    rows.append(row)
        return rows


# -- inference -----------------------------------------------------------------------------------------------


class EagerOnly(nn.Module):
    """A module that refuses to be captured into a CUDA graph: the executor then runs it eagerly, as it is meant to."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, frames: Tensor) -> Tensor:
        if frames.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError("kept eager, to compare with the CUDA graph")
        return self.inner(frames)  # type: ignore[no-any-return]


class InferenceTask:
    """One worker's inference by CUDA graph and eagerly, in turns. `boot`: as of `build_policy`, and samples."""

    def __init__(self, boot: dict[str, Any]) -> None:
        self._samples = boot["samples"]
        policy = build_policy(boot, 0)
        observation = ObservationSpec.from_json(boot["observation"])
        self._policy_text = policy.info.describe()
        self._notes: list[str] = list(policy.executor.notes)
        self._executors = {"eager": policy.executor}
        if boot["device"] != "cpu":
            self._executors = {"eager": make_executor(EagerOnly(policy.module), observation, boot["device"])}
            if not self._notes:
                self._executors["graph"] = policy.executor

    def run(self, begin_ns: int) -> dict[str, Any]:
        rows = [self._row(mode, executor) for mode, executor in self._executors.items()]
        return {"policy": self._policy_text, "notes": self._notes, "rows": rows}

    def _row(self, mode: str, executor: Any) -> Row:
        """`overhead`: what the host's time is longer than the device's three parts: launching, waiting, waking up."""
        parts: dict[str, list[int]] = {"h2d": [], "compute": [], "d2h": []}

        def once() -> int:
            executor.run()
            timing = executor.timing
            for part, times_ns in parts.items():
                times_ns.append(getattr(timing, f"{part}_ns"))
            return int(timing.h2d_ns + timing.compute_ns + timing.d2h_ns)

        times_ns, device_ns = time_calls(once, self._samples)
        row: Row = {"mode": mode} | percentiles_us(times_ns)
        for part, part_ns in parts.items():
            row[f"{part}_p50_us"] = float(np.median(part_ns[-len(times_ns) :])) / 1e3
        overhead_ns = np.subtract(times_ns, device_ns)
        row["overhead_p50_us"] = float(np.median(overhead_ns)) / 1e3
        return row


# -- overlap -------------------------------------------------------------------------------------------------


class OverlapTask:
    """`streams` workers in this process, a thread and a policy (and so a stream) each, from `begin_ns` for `seconds`.

    `boot`: as of `build_policy`, streams, seconds.
    """

    def __init__(self, boot: dict[str, Any]) -> None:
        self._seconds = boot["seconds"]
        action = ActionSpec.from_json(boot["action"])
        self._policies = [build_policy(boot, index) for index in range(boot["streams"])]
        self._outs = [np.zeros((1, *action.shape), action.dtype) for _ in self._policies]
        for policy, out in zip(self._policies, self._outs, strict=True):
            for number in range(_NUM_WARM_UP_RUNS):
                policy.act(frame_seq=number, out=out)

    def run(self, begin_ns: int) -> list[dict[str, Any]]:
        """{"inferences_per_s": .., "latency_ns": a histogram's content} of each worker."""
        results: list[dict[str, Any] | BaseException | None] = [None] * len(self._policies)
        end_ns = begin_ns + round(self._seconds * 1e9)

        def work(index: int) -> None:
            try:
                results[index] = infer_until(self._policies[index], self._outs[index], begin_ns, end_ns)
            except BaseException as error:
                results[index] = error

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(self._policies))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return [result for result in results if isinstance(result, dict)]


def infer_until(policy: Any, out: Any, begin_ns: int, end_ns: int) -> dict[str, Any]:
    """One inference after the other, at least one, until `end_ns`."""
    clock, latency_ns, count = MonotonicClock(), Histogram(), 0
    clock.sleep_until_ns(begin_ns)
    start_ns = first_ns = clock.now_ns()
    while start_ns < end_ns or count == 0:
        policy.act(frame_seq=count, out=out)
        done_ns = clock.now_ns()
        latency_ns.add(done_ns - start_ns)
        start_ns = done_ns
        count += 1
    return {"inferences_per_s": count * 1e9 / (start_ns - first_ns), "latency_ns": histogram_json(latency_ns)}


# -- shared --------------------------------------------------------------------------------------------------


def build_policy(boot: dict[str, Any], worker_index: int) -> Any:
    """The policy as a worker builds it. `boot`: policy, policy_args, observation, action, device (one, not "auto")."""
    policy = load_policy(
        boot["policy"],
        dict(boot["policy_args"]),
        ObservationSpec.from_json(boot["observation"]),
        ActionSpec.from_json(boot["action"]),
        seed=0,
        worker_index=worker_index,
        device=boot["device"],
    )
    if not hasattr(policy, "executor"):
        raise ConfigError(
            f"policy {boot['policy']!r}: expected one with a network and without pad_ms; others compute nothing"
        )
    policy.observation[...] = np.random.default_rng(0).integers(0, 256, policy.observation.shape)
    return policy


def time_calls(call: Callable[[], int], samples: int) -> tuple[list[int], list[int]]:
    """(time of each call by the host's clock, what it returned) [ns]. Ends early after two seconds, with 5 samples."""
    clock = MonotonicClock()
    for _ in range(_NUM_WARM_UP_RUNS):
        call()
    begin_ns = clock.now_ns()
    times_ns: list[int] = []
    returned_ns: list[int] = []
    while len(times_ns) < samples:
        start_ns = clock.now_ns()
        returned_ns.append(call())
        end_ns = clock.now_ns()
        times_ns.append(end_ns - start_ns)
        if end_ns - begin_ns > _MAX_PART_NS and len(times_ns) >= 5:
            break
    return times_ns, returned_ns


def percentiles_us(times_ns: list[int]) -> Row:
    p50_us, p99_us = np.percentile(times_ns, [50, 99]) / 1e3
    return {"samples": len(times_ns), "p50_us": float(p50_us), "p99_us": float(p99_us)}


def histogram_json(histogram: Histogram) -> dict[str, Any]:
    """A histogram's content, small enough for one message: [[bucket, count], ...] and what goes with it."""
    shape = histogram.snapshot()
    (used,) = np.nonzero(shape.buckets)
    return {
        "count": shape.count,
        "mean": shape.mean,
        "std": shape.std,
        "min": shape.min,
        "max": shape.max,
        "buckets": [[int(bucket), int(shape.buckets[bucket])] for bucket in used],
    }


TASKS: dict[str, Callable[[dict[str, Any]], Task]] = {
    "copies": CopyTask,
    "inference": InferenceTask,
    "overlap": OverlapTask,
}
