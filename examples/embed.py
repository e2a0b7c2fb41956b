"""rtcore inside a program of one's own: watch a run while it goes, then two runs at once.

    python examples/embed.py --duration 5

`Runtime` takes nothing of the program that embeds it: no signal handler, no start method, no global. A thread of its
own supervises the processes; this one stays free.
"""

from __future__ import annotations

import argparse
import logging
from typing import Any

import rtcore
from rtcore.errors import RtcoreError

#: A small network that takes as long as a large one: 100 ms are 5 ticks of this 50 Hz world.
FIELDS: dict[str, Any] = {
    "env_id": "own_world:make_world",
    "policy": "own_policy:make_policy",
    "policy_args": {"pad_ms": 100},
}


def watch_a_run(duration_s: float) -> None:
    """Entering starts everything and returns at tick 0; leaving ends every process and removes every segment."""
    with rtcore.Runtime(**FIELDS, workers="auto", duration=duration_s) as runtime:
        while not runtime.wait(0.5):
            stats = runtime.stats()
            print(f"tick {stats.counters['ticks']}: acted on {stats.acted_fraction:.1%}, {stats.measured_hz:.2f} Hz")
    show("staggered", runtime.summary())


def two_runs_at_once(duration_s: float) -> None:
    """The paper's comparison, side by side: staggered workers against one that acts, then thinks.

    Both share the CPUs here, so compare runs one after another where numbers matter.
    """
    staggered = rtcore.Runtime(**FIELDS, workers="auto", duration=duration_s)
    sequential = rtcore.Runtime(**FIELDS, workers=1, stagger="sequential", duration=duration_s)
    with staggered, sequential:
        staggered.wait()
        sequential.wait()
    show("staggered", staggered.summary())
    show("sequential", sequential.summary())


def show(name: str, summary: dict[str, Any]) -> None:
    """A few of the numbers of `summary.json`."""
    actions, ticks, mean_return = summary["actions"], summary["ticks"], summary["episodes"]["return_mean"]
    outcome = "no episode ended" if mean_return is None else f"mean return {mean_return:.1f}"
    print(
        f"{name}: {ticks['count']} ticks, acted on {actions['acted_fraction']:.1%} of the ticks that could have an "
        f"action, delay {actions['delay_ticks']['mean']:.1f} ticks, {outcome}"
    )


def main() -> None:
    # What a run is doing is logged, as by any library: start-up at INFO, what goes wrong at WARNING.
    logging.basicConfig(format="%(message)s")
    logging.getLogger("rtcore").setLevel(logging.INFO)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--duration", type=float, default=5.0, metavar="S", help="length of each run [s] (default 5)")
    duration_s = parser.parse_args().duration
    try:
        with rtcore.shared_imports():  # torch is imported for the first run, and not for each
            watch_a_run(duration_s)
            two_runs_at_once(duration_s)
    except RtcoreError as error:
        raise SystemExit(f"{type(error).__name__}: {error}") from error


if __name__ == "__main__":
    main()
