"""`rtcore-profile gpu`: copies, CUDA graph against eager, and how far k workers overlap on one GPU.

**Has not been run on a GPU** (`docs/gpu.md`). Everything but the CUDA calls themselves (`gpu_tasks.CudaCopier`, the
executor) is run and tested with `--device cpu`, which puts the CPU executor in the GPU's place and says so.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rtcore.errors import ConfigError, PolicyError, RtcoreError, StartupError, WorkerDied
from rtcore.profile.gpu_crew import MPS_DAEMON, Crew, find_mps_daemon, own_mps, read_distribution, without_mps
from rtcore.profile.gpu_views import draw, show
from rtcore.profile.results import Result, Row
from rtcore.profile.synthetic_world import parse_frame

HELP = "GPU: host-device copies, CUDA graph against eager, overlap of k workers as streams and as processes (MPS)"
DESCRIPTION = """\
On one GPU, with the policy and the executor that a worker uses:
  copies     host to device and back, pinned and pageable memory, by the host's clock and by CUDA events
  inference  captured into a CUDA graph against launched eagerly: the whole, its parts by CUDA events, and the rest
             (launching, waiting, waking up)
  overlap    k workers that infer one after the other without a pause: as k streams of one process (a thread each)
             and as k processes. Throughput, latency of one inference, and the share of perfect overlap: 1 is k times
             the throughput of one worker, 1/k is taking turns
Processes on one GPU take turns unless NVIDIA MPS runs. What is found is reported; where an MPS daemon runs, processes
are measured with and without it. --mps starts one for this measurement and ends it again; nothing starts it unasked.

Without a GPU the command says what it looked for and exits with 0; its JSON has "gpu": null. --device cpu runs the
same measuring code on CPUs: it shows what CPUs do, never what a GPU would.

The GPU part of this command has not been run on a GPU yet (docs/gpu.md).
"""
EXAMPLES = """\
examples:
  rtcore-profile gpu                                         the default policy (impala, k=1) on the first GPU
  rtcore-profile gpu --policy-args k=29 --workers 1,2,4,8    a large network
  rtcore-profile gpu --device cuda:1 --policy my_package.nets:make_policy --policy-args width=256
  rtcore-profile gpu --mps --json gpu.json --plot pictures   with an MPS daemon for the measurement
  rtcore-profile gpu --device cpu --workers 1,2              no GPU: the same code on CPUs
"""

KEYS = ("part", "device", "direction", "memory", "bytes", "mode", "how", "mps", "workers")
_SIZES = "23040,100800,1048576,6220800,67108864"
_NUM_ACTIONS = 6
#: What one step of the measurement must not cost the others: a policy too large for k processes, MPS that refuses.
_ONE_STEP = (PolicyError, WorkerDied, StartupError)


class _Setting(NamedTuple):
    """An environment in which processes are measured. `mps`: "on", "off", or None on a CPU."""

    mps: str | None
    environment: Callable[[], contextlib.AbstractContextManager[dict[str, str]]]


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--device", default="cuda", metavar="DEVICE", help="cuda, cuda:1, auto or cpu [%(default)s]")
    parser.add_argument("--policy", default="impala", metavar="NAME", help="as for rtcore-run [%(default)s]")
    parser.add_argument("--policy-args", default="", metavar="K=V,...", help="arguments of the policy")
    parser.add_argument(
        "--frame", default="84x84x1", metavar="HxW[xC]", help="the uint8 observation it sees [%(default)s]"
    )
    parser.add_argument("--sizes", default=_SIZES, metavar="BYTES,...", help="copies of so many bytes [%(default)s]")
    parser.add_argument(
        "--workers", default="1,2,4,8", metavar="K,...", help="workers that overlap; 1 is always measured [%(default)s]"
    )
    parser.add_argument(
        "--seconds", default=2.0, type=float, metavar="S", help="measured time of each number of workers [%(default)s]"
    )
    parser.add_argument(
        "--samples", default=200, type=int, metavar="N", help="copies and inferences of each kind [%(default)s]"
    )
    parser.add_argument("--mps", action="store_true", help="start NVIDIA MPS for the measurement, and end it after it")


def run(options: Namespace, console: Console) -> Result:
    """Measure, or say that there is no GPU. ConfigError for a wrong setting, whether there is one or not."""
    boot, sizes, counts = read_options(options)
    if options.device != "cpu":
        missing = look_for_gpu()
        if missing and options.device != "auto":
            return _no_gpu(missing, console)
    from rtcore_workers.policies.executors import mps_status, resolve_device  # noqa: PLC0415 - imports torch

    boot["device"] = resolve_device(options.device, 0)
    on_gpu = boot["device"] != "cpu"
    if options.mps and not on_gpu:
        raise ConfigError("--mps: NVIDIA MPS is for a GPU, and this measures on CPUs. Leave it out")
    if options.mps and find_mps_daemon() is None:
        raise ConfigError(f"--mps: {MPS_DAEMON} is not on PATH; expected the NVIDIA driver's tools. Leave --mps out")
    mps = mps_status() if on_gpu else None
    settings = settings_for(mps, start=options.mps)
    notes: list[str] = []
    with _steps(console, 2 + len(counts) * (1 + len(settings))) as step:
        gpu, rows, policy = _measure_parts(boot | {"samples": options.samples}, sizes, step, notes)
        boot |= {"seconds": options.seconds}
        rows += measure_overlap(boot, counts, settings, step, notes)
    rows = [{"device": boot["device"]} | row for row in rows]
    extra = {"gpu": gpu if on_gpu else None, "device": boot["device"], "policy": policy, "mps": mps, "notes": notes}
    result = Result("gpu", rows, KEYS, extra=extra)
    show(result, console)
    return result


def plot(result: Result, folder: Path) -> list[Path]:
    """`gpu-copies.png` and `gpu-overlap.png`; none if nothing was measured."""
    return draw(result, folder)


# -- what there is -------------------------------------------------------------------------------------------


def look_for_gpu() -> list[str]:
    """Empty if torch can use a GPU; else what was looked for and what was found instead."""
    import torch  # noqa: PLC0415 - takes a second

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    if available:
        return []
    kind = "a build without CUDA" if torch.version.cuda is None else f"built for CUDA {torch.version.cuda}"
    found = [f"PyTorch {torch.__version__} is {kind} and sees no device"]
    nodes = sorted(path.name for path in Path("/dev").glob("nvidia[0-9]*"))
    found.append(f"/dev has {', '.join(nodes)}" if nodes else "there is no /dev/nvidia0")
    has_driver = Path("/proc/driver/nvidia/version").exists()
    found.append("the NVIDIA driver is loaded" if has_driver else "no NVIDIA driver is loaded")
    found.append("nvidia-smi is on PATH" if shutil.which("nvidia-smi") else "nvidia-smi is not on PATH")
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        found.append(f"CUDA_VISIBLE_DEVICES is {os.environ['CUDA_VISIBLE_DEVICES']!r}")
    return found + [f"CUDA says: {str(warning.message).splitlines()[0]}" for warning in said]


def settings_for(mps: str | None, *, start: bool) -> list[_Setting]:
    """In which environments processes are measured; the first is the one that was found. `mps`: of `mps_status`."""
    as_found: Callable[[], contextlib.AbstractContextManager[dict[str, str]]] = _as_found
    if mps is None:
        return [_Setting(None, as_found)]
    if mps == "MPS daemon running":
        return [_Setting("on", as_found), _Setting("off", without_mps)]
    return [_Setting("off", as_found), *([_Setting("on", own_mps)] if start else [])]


@contextlib.contextmanager
def _as_found() -> Iterator[dict[str, str]]:
    yield {}


def _no_gpu(missing: list[str], console: Console) -> Result:
    console.print(
        f"No GPU found, nothing measured: {', '.join(missing)} (--device cpu runs the same measurements on CPUs).",
        markup=False,
        highlight=False,
    )
    return Result("gpu", [], KEYS, extra={"gpu": None, "looked_for": missing})


# -- measuring -----------------------------------------------------------------------------------------------


def _measure_parts(
    boot: dict[str, Any], sizes: list[int], step: Callable[[str], None], notes: list[str]
) -> tuple[dict[str, Any], list[Row], str]:
    """Copies and single inferences: (the device, rows, the policy in words). Wrong policies show here."""
    with Crew() as crew:
        step("inference")
        ((gpu, inference),) = crew.run([boot | {"task": "inference"}])
        step("copies")
        ((_, copies),) = crew.run([boot | {"task": "copies", "sizes": sizes}])
    notes += inference["notes"]
    rows = [{"part": "copy"} | row for row in copies]
    rows += [{"part": "inference"} | row for row in inference["rows"]]
    return gpu, rows, inference["policy"]


def measure_overlap(
    boot: dict[str, Any],
    counts: list[int],
    settings: list[_Setting],
    step: Callable[[str], None],
    notes: list[str],
) -> list[Row]:
    """k streams in one process, then k processes in each environment. What fails for k > 1 is a note, not the end."""
    rows: list[Row] = []
    for number, setting in enumerate(settings):
        try:
            with setting.environment() as environment, Crew(environment) as crew:
                for how in ("streams", "processes") if number == 0 else ("processes",):
                    rows += _measure_counts(crew, boot, counts, how, setting.mps, step, notes)
        except RtcoreError as error:
            if number == 0:
                raise
            notes.append(f"with MPS {setting.mps}: not measured: {error}")
    return rows


def _measure_counts(
    crew: Crew,
    boot: dict[str, Any],
    counts: list[int],
    how: str,
    mps: str | None,
    step: Callable[[str], None],
    notes: list[str],
) -> list[Row]:
    rows: list[Row] = []
    alone_per_s = 0.0
    for count in counts:
        step(f"overlap: k={count} as {how}" + (f", MPS {mps}" if mps else ""))
        one = boot | {"task": "overlap", "streams": count if how == "streams" else 1}
        try:
            answers = crew.run([one] * (1 if how == "streams" else count))
        except _ONE_STEP as error:
            if count == 1:
                raise
            notes.append(f"k={count} as {how}: not measured: {error}")
            continue
        row = overlap_row([worker for _, result in answers for worker in result])
        alone_per_s = row["inferences_per_s"] if count == 1 else alone_per_s
        row["of_perfect_fraction"] = row["inferences_per_s"] / (count * alone_per_s)
        rows.append({"part": "overlap", "how": how, "mps": mps, "workers": count} | row)
    return rows


def overlap_row(workers: list[dict[str, Any]]) -> Row:
    """What `gpu_tasks.OverlapTask` found for each worker, together."""
    latency_ns = reduce(lambda one, other: one.merged(other), (read_distribution(w["latency_ns"]) for w in workers))
    return {
        "inferences_per_s": sum(worker["inferences_per_s"] for worker in workers),
        "p50_us": latency_ns.percentile(0.5) / 1e3,
        "p99_us": latency_ns.percentile(0.99) / 1e3,
    }


# -- options and progress ------------------------------------------------------------------------------------


def read_options(options: Namespace) -> tuple[dict[str, Any], list[int], list[int]]:
    """(what every child gets, bytes of the copies, numbers of workers), or the ConfigError."""
    import numpy as np  # noqa: PLC0415 - not for the help text
    from gymnasium import spaces  # noqa: PLC0415

    from rtcore.config.run import from_words  # noqa: PLC0415
    from rtcore.spaces import ActionSpec, ObservationSpec  # noqa: PLC0415

    if not options.seconds > 0:
        raise ConfigError(f"--seconds {options.seconds:g}: expected more than 0")
    if options.samples < 5:
        raise ConfigError(f"--samples {options.samples}: expected at least 5")
    if re.fullmatch(r"auto|cpu|cuda(:\d+)?", options.device) is None:
        raise ConfigError(f"--device {options.device!r}: expected one device: cuda, cuda:<index>, auto or cpu")
    counts = sorted({1, *_whole_numbers("--workers", options.workers)})
    pairs = [part.partition("=") for part in options.policy_args.split(",") if part.strip()]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise ConfigError(f"--policy-args {options.policy_args!r}: expected k=v,... as in k=29")
    # Numbers and words mean the same as for rtcore-run.
    arguments = from_words({name.strip(): value.strip() for name, _, value in pairs})
    frame = spaces.Box(0, 255, parse_frame(options.frame), np.uint8)
    boot = {
        "policy": options.policy,
        "policy_args": arguments,
        "observation": ObservationSpec.from_space(frame).to_json(),
        "action": ActionSpec.from_space(spaces.Discrete(_NUM_ACTIONS)).to_json(),
    }
    return boot, _whole_numbers("--sizes", options.sizes), counts


def _whole_numbers(option: str, text: str) -> list[int]:
    try:
        values = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = []
    if not values or min(values) < 1:
        raise ConfigError(f"{option} {text!r}: expected whole numbers of at least 1, as in 1,2,4")
    return values


@contextlib.contextmanager
def _steps(console: Console, total: int) -> Iterator[Callable[[str], None]]:
    """Yields what to call at the begin of each step. A bar on a terminal; elsewhere a line for each."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=total)
        begun = 0

        def step(text: str) -> None:
            nonlocal begun
            progress.update(bar, completed=begun, description=text)
            begun += 1
            if not console.is_terminal:
                console.print(text, markup=False, highlight=False)

        yield step
