"""Whether a long run is a short one many times: memory, descriptors and files of every process, over its ticks.

    python -m benchmarks.long_run --minutes 10 --fps 1000 --record

Prints a line a process and interval: private memory (USS), open descriptors, threads; and the growth from the second
interval to the last but one, per million ticks. Valid on any machine, however busy: nothing here is a duration.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import psutil

import rtcore


class Use(NamedTuple):
    """Of a process, at a tick."""

    tick: int
    private_mb: float
    descriptors: int
    threads: int


def use_of(pid: int, tick: int) -> Use:
    """Raises psutil.Error if there is no such process."""
    process = psutil.Process(pid)
    return Use(tick, process.memory_full_info().uss / 1e6, process.num_fds(), process.num_threads())


def processes() -> dict[str, int]:
    """pid by role, this program included."""
    named = {"program": os.getpid()}
    for child in psutil.Process().children(recursive=True):
        name = child.name()
        named[name if name.startswith("rt-") else f"other {child.pid}"] = child.pid
    return named


def measure(fields: dict[str, Any], minutes: float, every_s: float) -> dict[str, list[Use]]:
    """Every process over the run."""
    found: dict[str, list[Use]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        with rtcore.Runtime(**fields, out=out, duration=60 * minutes) as runtime:
            while not runtime.wait(every_s):
                tick = runtime.stats().counters["ticks"]
                for name, pid in processes().items():
                    try:
                        found.setdefault(name, []).append(use_of(pid, tick))
                    except psutil.Error:
                        continue
                    print(name, *found[name][-1], flush=True)
        print("books", runtime.summary()["books"]["reasons"], "files", len(list(out.rglob("*"))))
    return found


def main() -> None:
    """Program entry."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=15, help="seconds between two looks [15]")
    parser.add_argument("--fps", type=int, default=1000)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("--learn", action="store_true")
    options = parser.parse_args()
    fields: dict[str, Any] = {"env_id": "CartPole-v1", "fps": options.fps, "workers": 2, "policy": "mlp"}
    fields |= {"record": options.record, "trace": options.trace, "on_missing": "repeat"}
    fields |= {"learn": "dqn", "checkpoint_every_s": 20} if options.learn else {}
    for name, uses in measure(fields, options.minutes, options.every).items():
        if len(uses) > 3:
            # The first look is at a run that fills its buffers, the last one at a run that ends.
            first, last = uses[1], uses[-2]
            per_million = 1e6 / max(1, last.tick - first.tick)
            growth = (last.private_mb - first.private_mb) * per_million
            print(f"{name:16} {growth:8.2f} MB, {last.descriptors - first.descriptors} descriptors per 1e6 ticks")


if __name__ == "__main__":
    main()
