"""The four ways to spread starts over N = 1..8 workers: theory, virtual clock and wall clock side by side.

    python -m benchmarks.staggers [--latency-ms 100] [--ticks 240] [--markdown FILE]

A synthetic policy of a constant time plays Blocks. Theory: max-time acts every ceil(D/N) ticks with delay D,
expected-time every ceil(mean/(N*T)), sequential every D whatever N is, free-running N actions at once every D.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from rtcore.config.run import RuntimeConfig, make_config
from rtcore.runtime.runtime import Runtime
from rtcore.scheduling.schedule import STAGGERS
from rtcore.virtual.simulate import Simulation

_COLUMNS = ("stagger", "N", "theory", "virtual acted", "CV", "delay", "wall acted", "CV", "delay")


def _config(stagger: str, workers: int, latency_ms: float, ticks: int, clock: str) -> RuntimeConfig:
    return make_config(
        env_id="rtcore/Blocks-v0",
        policy="synthetic",
        policy_args={"latency_ms": latency_ms},
        stagger=stagger,
        workers=workers,
        ticks=ticks,
        clock=clock,
    )


def _row(stagger: str, workers: int, latency_ms: float, ticks: int) -> list[str]:
    simulation = Simulation(_config(stagger, workers, latency_ms, ticks, "virtual")).run()
    simulation.close()
    with Runtime(_config(stagger, workers, latency_ms, ticks, "wall")) as runtime:
        runtime.wait()
    theory = simulation.plan.acted_fraction
    return [stagger, str(workers), f"{theory:.3f}", *_numbers(simulation.summary()), *_numbers(runtime.summary())]


def _numbers(summary: dict[str, Any]) -> list[str]:
    actions = summary["actions"]
    values = (actions["acted_fraction"], actions["interval_ticks"]["cv"], actions["delay_ticks"]["mean"])
    return ["-" if value is None else f"{value:.{digits}f}" for value, digits in zip(values, (3, 2, 1), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency-ms", type=float, default=100)
    parser.add_argument("--ticks", type=int, default=240)
    parser.add_argument("--markdown", type=Path, help="write the table here too")
    options = parser.parse_args()
    cases = [(stagger, workers) for stagger in STAGGERS for workers in range(1, 9)]
    rows = [_row(*case, options.latency_ms, options.ticks) for case in track(cases, "runs")]
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|" + "---|" * len(_COLUMNS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    title = f"{options.latency_ms:g} ms at 59.7275 Hz, {options.ticks} ticks each, {len(os.sched_getaffinity(0))} CPUs"
    text = f"{title}\n\n" + "\n".join(lines) + "\n"
    Console().print(text, markup=False)
    if options.markdown:
        options.markdown.write_text(text)


if __name__ == "__main__":
    main()
