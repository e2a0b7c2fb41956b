"""How fast the virtual clock is: ticks per second, times real time, and where the time goes.

    python -m benchmarks.virtual [--ticks 10000] [--env-id rtcore/Blocks-v0] [--workers 7] [--latency-ms 110] [--learn]

Scheduling, world, counters, histograms and record, with a policy that computes nothing, without and with --out. The
shares are of another run under cProfile, whose own cost falls on small functions most. `--learn` adds a run that learns
(policy dqn, 0.25 updates a tick) and what a plain inference costs. Times are of the CPU: another program's work counts
only as far as it slows this one down.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rtcore.config.run import RuntimeConfig, make_config
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.virtual.simulate import Simulation

#: What a function belongs to, by a part of its file's path; the first that fits.
_PARTS = (
    ("world", ("rtcore_envs", "pyboy", "gymnasium", "rtcore/loop/world.py", "rtcore/spaces/")),
    ("policy", ("rtcore_workers/policies", "executors", "torch", "rtcore/memory/history.py")),
    ("learning", ("rtcore_workers/dqn", "rtcore/learn/", "rtcore/memory/weights.py", "rtcore/virtual/learning")),
    ("record and CSV", ("results/run_record.py", "results/rows.py", "csv")),
    ("counters, histograms", ("rtcore/loop/counting.py", "rtcore/memory/counters.py")),
    ("schedule, dispatch", ("rtcore/scheduling/",)),
    ("frame ring", ("rtcore/memory/ring.py",)),
    ("tick loop, clock, workers", ("rtcore/loop/tickloop.py", "rtcore/clock.py", "rtcore/virtual/")),
)


def _config(options: argparse.Namespace, folder: Path | None, policy: str) -> RuntimeConfig:
    learning = {"learn": "dqn", "updates_per_tick": 0.25, "tensorboard": False} if policy == "dqn" else {}
    return make_config(
        env_id=options.env_id,
        policy=policy.split(",", maxsplit=1)[0],
        clock="virtual",
        latency=f"constant:{options.latency_ms}",
        workers=options.workers,
        ticks=options.ticks,
        out=folder,
        **learning,
    )


def _measure(options: argparse.Namespace, policy: str, *, with_out: bool) -> tuple[float, float, Simulation]:
    """(CPU seconds, seconds, the finished run)."""
    with tempfile.TemporaryDirectory(prefix="rtcore-virtual-") as name:
        simulation = Simulation(_config(options, Path(name) if with_out else None, policy))
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        simulation.run()
        found = time.process_time() - began_cpu_s, time.perf_counter() - began_s, simulation
        simulation.close()
    return found


def _shares(options: argparse.Namespace, policy: str) -> dict[str, float]:
    """Seconds in each part's own code, with the built-in functions that it calls."""
    with tempfile.TemporaryDirectory(prefix="rtcore-virtual-") as name:
        simulation = Simulation(_config(options, Path(name), policy))
        profile = cProfile.Profile()
        profile.runcall(simulation.run)
        simulation.close()
    spent = dict.fromkeys([*(part for part, _ in _PARTS), "rest"], 0.0)
    rows: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    for function, (_, _, own_s, _, callers) in rows.items():
        if function[0] != "~":
            spent[_part_of(function[0])] += own_s
            continue
        for caller, (_, _, called_s, _) in callers.items():
            spent[_part_of(caller[0])] += called_s
    return spent


def _part_of(path: str) -> str:
    return next((part for part, pieces in _PARTS if any(piece in path for piece in pieces)), "rest")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ticks", type=int, default=10_000)
    parser.add_argument("--env-id", default="rtcore/Blocks-v0")
    parser.add_argument("--workers", type=int, default=7)
    parser.add_argument("--latency-ms", type=float, default=110.0)
    parser.add_argument("--learn", action="store_true")
    options = parser.parse_args()
    console, watch = Console(), HostWatch()
    policies = ["random"] + (["dqn, not learning", "dqn"] if options.learn else [])
    table = Table("policy", "--out", "ticks/CPU s", "ticks/s", "x real time (CPU)", "acted", "delay", "updates")
    for policy in policies:
        for with_out in (False, True) if policy != "dqn" else (True,):
            cpu_s, wall_s, simulation = _measure(options, policy, with_out=with_out)
            stats, rate_hz = simulation.stats(), float(simulation.resolved.rate_hz)
            table.add_row(
                policy,
                "yes" if with_out else "no",
                f"{options.ticks / cpu_s:,.0f}",
                f"{options.ticks / wall_s:,.0f}",
                f"{options.ticks / cpu_s / rate_hz:.1f}",
                f"{stats.acted_fraction:.3f}",
                str(stats.delay_ticks),
                "" if stats.learner is None else str(stats.learner.updates),
            )
    console.print(table)
    for policy in ["random"] + (["dqn"] if options.learn else []):
        spent = _shares(options, policy)
        total = sum(spent.values())
        shares = [
            f"{part} {100 * own_s / total:.0f}%" for part, own_s in sorted(spent.items(), key=lambda row: -row[1])
        ]
        console.print(f"where the time goes ({policy}, --out, under cProfile): {', '.join(shares)}")
    console.print(conditions_text(watch.conditions()), highlight=False)


if __name__ == "__main__":
    main()
