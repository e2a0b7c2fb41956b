"""What learning costs the ticks: learners on against off, in turns within one run.

    python -m benchmarks.learner_cost [--config examples/learn_blocks.toml] [--window 15] [--pairs 8] [--learners 1]

One real run that learns as the file says. Once there is enough to learn from, learners are paused and let go again,
window by window (on off, off on, ...); the first second of a window belongs to neither. Wanted: lateness p99 within
20%, acted fraction within 0.005, ticks per second unchanged. The spread between windows of the same kind stands beside
it: a difference within that says nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import rtcore
from rtcore.config.run import load_toml, make_config
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.memory.counters import Distribution
from rtcore.report.bars import Bar
from rtcore.results.summary import RunStats

_SETTLE_S = 1.0
_MAX_P99_PERCENT = 20.0
_MAX_ACTED = 0.005


@dataclass(frozen=True)
class Window:
    """What happened between two snapshots of a run."""

    learning: bool
    acted: int
    possible: int
    hz: float
    lateness_ns: Distribution
    updates: int

    @classmethod
    def between(cls, before: RunStats, after: RunStats, learning: bool) -> Window:
        def grown(*names: str) -> int:
            return sum(after.counters[name] - before.counters[name] for name in names)

        late, was = after.distributions["lateness_ns"], before.distributions["lateness_ns"]
        elapsed_ns = grown("last_start_ns")
        made = [stats.learner.updates if stats.learner is not None else 0 for stats in (before, after)]
        return cls(
            learning,
            grown("acted"),
            grown("acted", "missed", "idle"),
            grown("ticks") * 1e9 / elapsed_ns if elapsed_ns else float("nan"),
            Distribution(late.count - was.count, late.mean, late.std, late.min, late.max, late.buckets - was.buckets),
            made[1] - made[0],
        )

    @property
    def p99_us(self) -> float:
        return self.lateness_ns.percentile(0.99) / 1e3


def measure(options: argparse.Namespace, bar: Bar) -> list[Window]:
    settings = load_toml(options.config) | {"learners": options.learners, "updates_per_tick": options.updates_per_tick}
    order = [on for pair in range(options.pairs) for on in ((True, False) if pair % 2 == 0 else (False, True))]
    config = make_config(**(settings | {"duration": 36_000, "seed": options.seed}))
    windows = []
    with rtcore.Runtime(config) as runtime:
        task = bar.add_task("collecting", total=len(order))
        while (learner := runtime.stats().learner) is None or learner.updates < 100:
            runtime.wait(0.5)
        for on in order:
            bar.update(task, description="learning" if on else "paused")
            runtime.pause_learning(not on)
            runtime.wait(_SETTLE_S)
            before = runtime.stats()
            runtime.wait(options.window)
            windows.append(Window.between(before, runtime.stats(), on))
            bar.advance(task)
        runtime.stop()
        runtime.wait()
    return windows


def report(windows: list[Window], console: Console) -> None:
    table = Table("learners", "windows", "lateness p50 us", "p99 us", "p99 by window", "acted", "hz", "updates/s")
    totals = {}
    for on in (False, True):
        some = [window for window in windows if window.learning is on]
        shape = some[0].lateness_ns
        for window in some[1:]:
            shape = shape.merged(window.lateness_ns)
        acted = sum(window.acted for window in some) / sum(window.possible for window in some)
        hz = float(np.mean([window.hz for window in some]))
        p99s = [window.p99_us for window in some]
        seconds = sum(window.lateness_ns.count for window in some) / hz
        totals[on] = (shape.percentile(0.99) / 1e3, acted, hz)
        table.add_row(
            "on" if on else "off",
            str(len(some)),
            f"{shape.percentile(0.5) / 1e3:.1f}",
            f"{totals[on][0]:.1f}",
            f"{min(p99s):.1f} to {max(p99s):.1f}",
            f"{acted:.4f}",
            f"{hz:.4f}",
            f"{sum(window.updates for window in some) / seconds:.1f}",
        )
    console.print(table)
    (off_p99, off_acted, off_hz), (on_p99, on_acted, on_hz) = totals[False], totals[True]
    change = 100 * (on_p99 / off_p99 - 1)
    console.print(
        f"lateness p99 {change:+.0f}% ({'held' if change <= _MAX_P99_PERCENT else 'MISSED'}: at most +20%), acted "
        f"{on_acted - off_acted:+.4f} ({'held' if abs(on_acted - off_acted) <= _MAX_ACTED else 'MISSED'}: within "
        f"0.005), hz {on_hz - off_hz:+.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path("examples/learn_blocks.toml"))
    parser.add_argument("--window", type=float, default=15.0, help="seconds")
    parser.add_argument("--pairs", type=int, default=8)
    parser.add_argument("--learners", type=int, default=1)
    parser.add_argument("--updates-per-tick", type=float, default=None, help="at most; default: as many as they manage")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    console, host = Console(), HostWatch()
    with Bar(console=console) as bar:
        windows = measure(options, bar)
    report(windows, console)
    console.print(conditions_text(host.conditions()))


if __name__ == "__main__":
    main()
