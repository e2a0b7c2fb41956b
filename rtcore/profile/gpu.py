"""`rtcore-profile gpu`: copies, CUDA graph against eager, and how far k worker processes overlap on one GPU.

**Has not been run on a GPU** (`docs/gpu.md`). With `--device cpu` the same code runs, and is tested, with the CPU
executor in the GPU's place, and says so. The program itself never touches CUDA: what does runs in child processes.
"""

from __future__ import annotations

import multiprocessing as mp
import re
import warnings
from argparse import Namespace
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console

from rtcore.clock import MonotonicClock
from rtcore.config.run import from_words
from rtcore.errors import ConfigError, RtcoreError
from rtcore.profile.children import run_in_processes, start_fork_server
from rtcore.profile.options import parse_frame, specs_of, whole_numbers
from rtcore.profile.results import Result, Row, percentiles_us
from rtcore.profile.views import Steps, TableColumn, draw_lines, new_figure, save, table_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rtcore_workers.policies.executors import Executor
    from rtcore_workers.policies.network import NetworkPolicy


KEYS = ("part", "device", "direction", "memory", "bytes", "mode", "mps", "workers")
_NUM_ACTIONS = 6
_NUM_WARM_UP_RUNS = 5
#: Of copies of each kind [s].
_COPY_S = 0.2
#: An inference that takes long is measured less often than `--samples` says, at least five times.
_MAX_INFERENCES_NS = 2_000_000_000
_CHILD_TIMEOUT_S = 180.0
_MPS_ADVICE = (
    "MPS daemon not running: processes take turns on the GPU. As the user who runs rtcore, "
    "`nvidia-cuda-mps-control -d` starts it and `echo quit | nvidia-cuda-mps-control` ends it"
)
_ON_CPU = "CPUs in the place of a GPU: the same measuring code, and not a number about any GPU."
_COPIES = (
    TableColumn("direction", "direction"),
    TableColumn("memory", "memory"),
    TableColumn("bytes", "bytes"),
    TableColumn("p50 us", "p50_us", 1),
    TableColumn("GB/s", "gb_per_s", 2),
)
_TIMES = (TableColumn("p50 us", "p50_us", 0), TableColumn("p99 us", "p99_us", 0))
_INFERENCE = (
    TableColumn("mode", "mode"),
    *_TIMES,
    TableColumn("copy in p50", "h2d_p50_us", 1),
    TableColumn("compute p50", "compute_p50_us", 0),
    TableColumn("copy out p50", "d2h_p50_us", 1),
    TableColumn("the rest p50", "overhead_p50_us", 1),
)
_OVERLAP = (
    TableColumn("MPS", "mps"),
    TableColumn("k", "workers"),
    TableColumn("inferences/s", "inferences_per_s", 1),
    *_TIMES,
    TableColumn("of perfect", "of_perfect_fraction", 3),
)


class Task(NamedTuple):
    """What a child measures. `device`: one, not "auto"."""

    policy: str
    policy_args: dict[str, Any]
    frame: tuple[int, ...]
    device: str
    sizes: list[int]
    samples: int
    seconds: float


def run(options: Namespace, console: Console) -> Result:
    """Measure, or say that there is no GPU. ConfigError for a wrong setting, whether there is one or not."""
    task, counts = read_options(options)
    if options.device not in ("cpu", "auto") and (missing := _no_gpu()):
        console.print(missing, markup=False, highlight=False)
        return Result("gpu", [], KEYS, extra={"gpu": None, "looked_for": [missing]})
    from rtcore_workers.policies.executors import mps_status, resolve_device  # noqa: PLC0415 - imports torch

    task = task._replace(device=resolve_device(options.device, 0))
    mps = mps_status() if task.device != "cpu" else None
    start_fork_server("numpy", "torch", "rtcore.profile.gpu", "rtcore_workers.policies.network")
    with Steps(console, 1 + len(counts)) as steps:
        steps.begin("copies, inference")
        ((gpu, policy, notes, rows),) = run_in_processes(
            measure_parts, [(task,)], role="measuring process", timeout_s=_CHILD_TIMEOUT_S
        )
        alone_per_s = 0.0
        for count in counts:
            steps.advance()
            steps.begin(f"overlap: k={count}")
            try:
                row = measure_overlap(task, count)
            except RtcoreError as error:  # such as a policy too large for so many: the smaller numbers stand
                if count == 1:
                    raise
                notes.append(f"k={count}: not measured: {error}")
                continue
            alone_per_s = row["inferences_per_s"] if count == 1 else alone_per_s
            row["of_perfect_fraction"] = row["inferences_per_s"] / (count * alone_per_s)
            rows.append(row | {"mps": None if mps is None else "on" if mps == "MPS daemon running" else "off"})
    rows = [{"device": task.device} | row for row in rows]
    result = Result(
        "gpu", rows, KEYS, extra={"gpu": gpu, "device": task.device, "policy": policy, "mps": mps, "notes": notes}
    )
    _show(result, console)
    return result


def _no_gpu() -> str:
    """Empty if torch can use a GPU."""
    import torch  # noqa: PLC0415 - takes a second

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if torch.cuda.is_available():
            return ""
    words = "".join(f" ({str(warning.message).splitlines()[0]})" for warning in said)
    return (
        f"No GPU found, nothing measured: PyTorch {torch.__version__} sees none{words}. rtcore-doctor says what is "
        "lacking; --device cpu runs the same measurements on CPUs"
    )


def read_options(options: Namespace) -> tuple[Task, list[int]]:
    """(what every child gets, numbers of workers), or the ConfigError."""
    if not options.seconds > 0:
        raise ConfigError(f"--seconds {options.seconds:g}: expected more than 0")
    if options.samples < 5:
        raise ConfigError(f"--samples {options.samples}: expected at least 5")
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device) is None:
        raise ConfigError(f"--device {options.device!r}: expected one device: cuda, cuda:<index>, auto or cpu")
    pairs = [part.partition("=") for part in options.policy_args.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"--policy-args {options.policy_args!r}: expected k=v,... as in k=29")
    # Numbers and words mean the same as for rtcore-run.
    arguments = from_words({name.strip(): value.strip() for name, _, value in pairs})
    sizes, counts = (whole_numbers(f"--{name}", getattr(options, name)) for name in ("sizes", "workers"))
    frame = parse_frame(options.frame)
    task = Task(
        policy=options.policy,
        policy_args=arguments,
        frame=frame,
        device=options.device,
        sizes=sizes,
        samples=options.samples,
        seconds=options.seconds,
    )
    return task, sorted({1, *counts})


# -- in child processes ----------------------------------------------------------------------------------------------


def measure_parts(task: Task) -> tuple[dict[str, Any] | None, str, list[str], list[Row]]:
    """(the GPU, the policy in words, notes, rows of copies and of inferences)."""
    from rtcore_workers.policies.executors import make_executor  # noqa: PLC0415 - imports torch

    copies = [{"part": "copy"} | row for row in measure_copies(task)]
    policy, (observation, _) = build_policy(task, 0), specs_of(task.frame, _NUM_ACTIONS)
    notes = list(policy.executor.notes)
    executors = {"eager": policy.executor}
    if task.device != "cpu":
        executors = {"eager": make_executor(eager_only(policy.module), observation, task.device)}
        if not notes:
            executors["graph"] = policy.executor
    inferences = [
        {"part": "inference", "mode": mode} | time_inferences(executor, task.samples)
        for mode, executor in executors.items()
    ]
    return _describe_gpu(task.device), policy.info.describe(), notes, copies + inferences


def measure_copies(task: Task) -> list[Row]:
    """Every size, kind of host memory and direction. Medians: torch times blocks of copies."""
    import torch  # noqa: PLC0415
    from torch.utils.benchmark import Timer  # noqa: PLC0415

    rows = []
    for num_bytes in task.sizes:
        for memory in ("pageable",) if task.device == "cpu" else ("pinned", "pageable"):
            host = torch.zeros(num_bytes, dtype=torch.uint8, pin_memory=memory == "pinned")
            other = torch.zeros(num_bytes, dtype=torch.uint8, device=task.device)
            directions = {"host-to-device": (other, host), "device-to-host": (host, other)}
            if task.device == "cpu":
                directions = {"host-to-host": (other, host)}
            for direction, (target, source) in directions.items():
                timer = Timer("target.copy_(source)", globals={"target": target, "source": source})
                found = timer.blocked_autorange(min_run_time=_COPY_S)
                row: Row = {"direction": direction, "memory": memory, "bytes": num_bytes}
                rows.append(row | {"p50_us": found.median * 1e6, "gb_per_s": num_bytes / found.median / 1e9})
    return rows


def time_inferences(executor: Executor, samples: int) -> Row:
    """`overhead`: what the host's time is longer than the device's three parts: launching, waiting, waking up."""
    clock, timing = MonotonicClock(), executor.timing
    for _ in range(_NUM_WARM_UP_RUNS):
        executor.run()
    times_ns: list[tuple[int, int, int, int]] = []
    begin_ns = clock.now_ns()
    while len(times_ns) < samples and (len(times_ns) < 5 or clock.now_ns() - begin_ns < _MAX_INFERENCES_NS):
        start_ns = clock.now_ns()
        executor.run()
        times_ns.append((clock.now_ns() - start_ns, timing.h2d_ns, timing.compute_ns, timing.d2h_ns))
    whole_us, *parts_us = np.array(times_ns).T / 1e3
    row: Row = {"samples": len(times_ns)} | percentiles_us(whole_us * 1e3, (50, 99))
    row |= {
        f"{part}_p50_us": float(np.median(us)) for part, us in zip(("h2d", "compute", "d2h"), parts_us, strict=True)
    }
    return row | {"overhead_p50_us": float(np.median(whole_us - sum(parts_us)))}


def measure_overlap(task: Task, count: int) -> Row:
    """`count` processes that begin together."""
    barrier = mp.get_context("forkserver").Barrier(count)
    calls = [(task, index, barrier) for index in range(count)]
    found = run_in_processes(
        infer_without_pause, calls, role="measuring process", timeout_s=task.seconds + _CHILD_TIMEOUT_S
    )
    per_s = [1e9 * len(times_ns) / times_ns.sum() for times_ns in found]
    row: Row = {"part": "overlap", "workers": count, "inferences_per_s": float(sum(per_s))}
    return row | percentiles_us(np.concatenate(found), (50, 99))


def infer_without_pause(task: Task, index: int, barrier: Barrier) -> npt.NDArray[np.int64]:
    """A worker's inferences, for as long as the task says but at least one, from when all are ready: times of each."""
    policy, (_, action) = build_policy(task, index), specs_of(task.frame, _NUM_ACTIONS)
    out = np.zeros((1, *action.shape), action.dtype)
    for number in range(_NUM_WARM_UP_RUNS):
        policy.act(frame_seq=number, out=out)
    clock = MonotonicClock()
    times_ns: list[int] = []
    barrier.wait(_CHILD_TIMEOUT_S)
    start_ns = clock.now_ns()
    end_ns = start_ns + round(task.seconds * 1e9)
    while start_ns < end_ns or not times_ns:
        policy.act(frame_seq=len(times_ns), out=out)
        done_ns = clock.now_ns()
        times_ns.append(done_ns - start_ns)
        start_ns = done_ns
    return np.array(times_ns, np.int64)


def build_policy(task: Task, worker_index: int) -> NetworkPolicy:
    """As a worker builds it. ConfigError for one that computes nothing, or only waits."""
    from rtcore_workers.policies import load_policy  # noqa: PLC0415 - imports torch
    from rtcore_workers.policies.network import NetworkPolicy  # noqa: PLC0415

    policy = load_policy(
        task.policy,
        dict(task.policy_args),
        *specs_of(task.frame, _NUM_ACTIONS),
        seed=0,
        worker_index=worker_index,
        device=task.device,
    )
    if not isinstance(policy, NetworkPolicy):
        raise ConfigError(
            f"policy {task.policy!r}: expected one with a network and without pad_ms; others compute nothing"
        )
    policy.observation[...] = np.random.default_rng(0).integers(0, 256, policy.observation.shape)
    return policy


def eager_only(inner: nn.Module) -> nn.Module:
    """A module that refuses to be captured into a CUDA graph: the executor then runs it eagerly, as it is meant to."""
    import torch  # noqa: PLC0415

    class EagerOnly(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, frames: Tensor) -> Any:
            if frames.is_cuda and torch.cuda.is_current_stream_capturing():
                raise RuntimeError("kept eager, to compare with the CUDA graph")
            return self.inner(frames)

    return EagerOnly()


def _describe_gpu(device: str) -> dict[str, Any] | None:
    """Creates a CUDA context: not for the program itself. None on a CPU."""
    import torch  # noqa: PLC0415

    if device == "cpu":
        return None
    properties = torch.cuda.get_device_properties(device)
    driver = Path("/proc/driver/nvidia/version")
    return {
        "device": device,
        "name": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "memory_bytes": properties.total_memory,
        "multiprocessors": properties.multi_processor_count,
        "cuda": torch.version.cuda,
        "driver": driver.read_text().splitlines()[0].strip() if driver.exists() else None,
    }


# -- tables and pictures ---------------------------------------------------------------------------------------------


def _show(result: Result, console: Console) -> None:
    gpu = result.extra["gpu"]
    device = _ON_CPU if gpu is None else f"{gpu['name']}, {gpu['driver'] or 'driver not known'}, CUDA {gpu['cuda']}"
    console.print(f"{device}\npolicy: {result.extra['policy']}", markup=False, highlight=False)
    for part, columns, title in (
        ("copy", _COPIES, "Copies"),
        ("inference", _INFERENCE, "One inference (us)"),
        ("overlap", _OVERLAP, "Workers side by side, without a pause"),
    ):
        console.print(table_of([row for row in result.rows if row["part"] == part], columns, title))
    if result.extra["mps"] == "MPS daemon not running":
        console.print(_MPS_ADVICE, markup=False, highlight=False, soft_wrap=True)
    for note in result.extra["notes"]:
        console.print(f"note: {note}", markup=False, soft_wrap=True)


def plot(result: Result, folder: Path) -> list[Path]:
    """`gpu-copies.png` and `gpu-overlap.png`; none if nothing was measured."""
    if not result.rows:
        return []
    where = "CPUs in the place of a GPU" if result.extra["gpu"] is None else str(result.extra["gpu"]["name"])
    copies = new_figure()
    axis = copies.add_subplot()
    rows = [row for row in result.rows if row["part"] == "copy"]
    for kind in dict.fromkeys((row["direction"], row["memory"]) for row in rows):
        own = [row for row in rows if (row["direction"], row["memory"]) == kind]
        draw_lines(axis, own, "bytes", {"p50_us": ", ".join(kind)})
    axis.set(xscale="log", yscale="log", xlabel="bytes", ylabel="us", title=f"Copies: {where}")

    overlap = new_figure(11.0, 5.0)
    speed, latency = overlap.subplots(1, 2)
    rows = [row | {"times": row["of_perfect_fraction"] * row["workers"]} for row in result.rows if "workers" in row]
    draw_lines(
        speed,
        [row | {"turns": 1} for row in rows],
        "workers",
        {"times": "processes", "workers": "perfect overlap", "turns": "taking turns"},
        xlabel="workers",
        ylabel="throughput, times that of one",
        title=f"Overlap: {where}",
    )
    latency.set(title=result.extra["policy"], xlabel="workers", ylabel="us, one inference", ylim=(0, None))
    draw_lines(latency, rows, "workers", {"p50_us": "p50", "p99_us": "p99"})
    return [save(copies, folder, "gpu-copies"), save(overlap, folder, "gpu-overlap")]
