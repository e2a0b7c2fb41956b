"""What one copy of the weights per GPU saves and costs, against two copies in each worker.

    python -m benchmarks.weights_on_gpu [--device cuda:0] [--policy-args k=29] [--workers 8] [--every-ms 100]

Two runs, held and private. In each: memory with all workers up; then windows without and with publications, in turns.
Said are memory (on a GPU by nvidia-smi, per process and of the whole GPU; else proportional set size), the time from a
publication until its version is on the device (held only) and until every worker has answered with it or a newer one,
and the time of an inference with and without publications: what more it is with them is what they cost.

NOT YET RUN ON A GPU. With --device cpu "held" is the stand-in: shared memory in the place of a GPU's, so that this
program is tried where there is none; its numbers say nothing about a GPU.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import rtcore
from rtcore.clock import NS_PER_MS, MonotonicClock
from rtcore.config.run import from_words
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.memory.counters import Distribution
from rtcore.memory.shared import SharedRun
from rtcore.memory.weights import ParamStore, attach_store
from rtcore.results.snapshot import pss_mb

_LOOK_NS = NS_PER_MS // 2
_GIVE_UP_NS = 5_000 * NS_PER_MS


@dataclass
class Found:
    """Of one run."""

    notes: list[str]
    memory: dict[str, float]
    megabytes: float
    inference_ns: dict[bool, Distribution | None] = field(default_factory=lambda: {False: None, True: None})
    on_device_ns: list[int] = field(default_factory=list)
    used_by_all_ns: list[int] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)


def gpu_memory_mb(pids: list[int]) -> dict[str, float]:
    """Of the GPU and of each of these processes. nvidia-smi does not know the processes from inside a container."""

    def ask(*query: str) -> list[list[str]]:
        command = ["nvidia-smi", *query, "--format=csv,noheader,nounits"]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return [[cell.strip() for cell in line.split(",")] for line in lines]

    found = {"GPU": sum(float(used) for (used,) in ask("--query-gpu=memory.used"))}
    for pid, used in ask("--query-compute-apps=pid,used_memory"):
        if int(pid) in pids:
            found[f"pid {pid}"] = float(used)
    return found


def inferences(runtime: rtcore.Runtime) -> Distribution:
    shapes = [worker.inference_ns for worker in runtime.stats().workers]
    merged = shapes[0]
    for shape in shapes[1:]:
        merged = merged.merged(shape)
    return merged


def between(before: Distribution, after: Distribution) -> Distribution:
    count = after.count - before.count
    mean = (after.count * after.mean - before.count * before.mean) / max(1, count)
    return Distribution(count, mean, float("nan"), after.min, after.max, after.buckets - before.buckets)


def publish(store: ParamStore, held: ParamStore | None, shared: SharedRun, workers: int, found: Found) -> None:
    """The same weights again, as a new version; waits until all use it."""
    clock, newest = MonotonicClock(), store.newest()
    trainable = store.manifest().trainable_array(store.buffer(newest.buffer)).copy()
    published = store.publish(
        lambda buffer: store.manifest().trainable_array(buffer).__setitem__(slice(None), trainable)
    )
    if published is None:
        return  # counted
    start_ns, brought = store.counts()["published_ns"], held is None
    while (now_ns := clock.now_ns()) < start_ns + _GIVE_UP_NS:
        if held is not None and not brought and held.newest_version() >= published.version:
            brought = True
            found.on_device_ns.append(held.counts()["published_ns"] - start_ns)
        if all(shared.worker_status[worker]["policy_version"] >= published.version for worker in range(workers)):
            found.used_by_all_ns.append(now_ns - start_ns)
            return
        clock.sleep_until_ns(now_ns + _LOOK_NS)


def measure(options: argparse.Namespace, sharing: str) -> Found:
    on_gpu = options.device != "cpu"
    settings = {"policy": options.policy, "policy_args": options.policy_args, "device": options.device}
    run = settings | {"workers": options.workers, "weights_sharing": sharing, "duration": 36_000}
    clock = MonotonicClock()
    with rtcore.Runtime(**run) as runtime:
        holders = list(runtime._supervisor.workers.holders.pids.values())
        pids = [*runtime.worker_pids.values(), *holders]
        runtime.wait(1)
        memory = gpu_memory_mb(pids) if on_gpu else {"all": sum(map(pss_mb, pids))}
        store, shared = attach_store(runtime.run_id), SharedRun.watch(runtime.run_id)
        found = Found(runtime.header["policy"]["notes"], memory, store.layout.buffer_bytes / 1e6)
        held = attach_store(runtime.run_id, "holder0") if holders else None
        for number in range(2 * options.windows):
            publishes = number % 2 == 1
            before, end_ns = inferences(runtime), clock.now_ns() + int(options.window * 1e9)
            while clock.now_ns() < end_ns:
                next_ns = clock.now_ns() + options.every_ms * NS_PER_MS
                if publishes:
                    publish(store, held, shared, options.workers, found)
                clock.sleep_until_ns(min(end_ns, next_ns))
            window, so_far = between(before, inferences(runtime)), found.inference_ns[publishes]
            found.inference_ns[publishes] = window if so_far is None else so_far.merged(window)
        runtime.stop()
        runtime.wait()
    found.weights = runtime.summary()["weights"]
    return found


def report(name: str, found: Found, console: Console) -> None:
    console.print(
        f"[bold]{name}[/bold]: {'; '.join(found.notes) or 'in host memory'}; {found.megabytes:.1f} MB of weights"
    )
    console.print("  memory, MB: " + ", ".join(f"{what} {used:.0f}" for what, used in found.memory.items()))
    table = Table("ms", "n", "p50", "p99", "max")
    for what, times in (("on the device after", found.on_device_ns), ("used by all after", found.used_by_all_ns)):
        if times:
            cells = (np.percentile(times, 50), np.percentile(times, 99), max(times))
            table.add_row(what, str(len(times)), *(f"{cell / 1e6:.2f}" for cell in cells))
    for publishes, shape in found.inference_ns.items():
        if shape is not None and shape.count:
            cells = (shape.percentile(0.5), shape.percentile(0.99), shape.percentile(1))
            what = f"inference, {'with' if publishes else 'without'} publications"
            table.add_row(what, str(shape.count), *(f"{cell / 1e6:.2f}" for cell in cells))
    console.print(table)
    skipped = [found.weights["skipped"], *(holder["skipped"] for holder in found.weights["holders"])]
    console.print(f"  publications skipped: {skipped[0]}, by holders {sum(skipped[1:])}; torn {found.weights['torn']}")


def figures_of(found: Found) -> dict[str, float]:
    """For programs: memory in all, and medians."""
    figures = {"memory [MB]": found.memory.get("GPU", sum(found.memory.values())), "torn": found.weights["torn"]}
    for what, times in (("on the device after", found.on_device_ns), ("used by all after", found.used_by_all_ns)):
        if times:
            figures[f"{what} [ms]"] = float(np.percentile(times, 50)) / 1e6
    for publishes, shape in found.inference_ns.items():
        if shape is not None and shape.count:
            what = f"inference p50 {'with' if publishes else 'without'} publications [ms]"
            figures[what] = shape.percentile(0.5) / 1e6
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--policy", default="impala")
    parser.add_argument("--policy-args", default="k=29", help="k=v,...")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--every-ms", type=int, default=100, help="one publication so often, in windows with them")
    parser.add_argument("--window", type=float, default=5.0, help="seconds")
    parser.add_argument("--windows", type=int, default=4, help="of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="medians, for programs")
    options = parser.parse_args()
    pairs = dict(pair.split("=", 1) for pair in options.policy_args.split(",") if pair)
    # Numbers mean the same as for rtcore-run.
    options.policy_args = from_words(pairs)
    console, host = Console(), HostWatch()
    held = "auto" if options.device != "cpu" else "stand-in"
    figures = {}
    for name, sharing in (("held", held), ("private", "private")):
        found = measure(options, sharing)
        report(name, found, console)
        figures[name] = figures_of(found)
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    console.print(conditions_text(host.conditions()))


if __name__ == "__main__":
    main()
