"""Who is to blame for ticks without a policy action: slow workers, the worst stretch, and why each of its ticks."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from rtcore.report.explain.tick import causes_of
from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.results.summary import RunStats, WorkerStats
from rtcore.results.worst_stretch import Stretch
from rtcore.scheduling.dispatch import TickKind
from rtcore.scheduling.schedule import UNEQUAL_FACTOR

_FEWEST_INFERENCES = 10
_MISSING = (TickKind.MISSED, TickKind.IDLE)


def find_culprits(stats: RunStats, stretch: Stretch | None) -> dict[str, Any]:
    """summary.json's `culprits`. `stretch`: the worst one, None if every tick had its action."""
    found: dict[str, Any] = {"slow_workers": slow_workers(stats.workers), "worst_stretch": None, "ticks": []}
    if stretch is None:
        return found
    run = _as_run(stats, stretch)
    present = {row.tick: row for row in run.ticks}
    first, last = stretch.first_tick, stretch.last_tick
    absent = {tick for row in run.ticks for tick in range(row.tick - row.skipped_ticks, row.tick)}
    missing = [
        tick
        for tick in range(first, last + 1)
        if tick in absent or (tick in present and present[tick].kind in _MISSING)
    ]
    causes = causes_of(run, missing)
    found["worst_stretch"] = {"first_tick": first, "last_tick": last, "without_action": stretch.without_action}
    found["ticks"] = [
        {"tick": tick, "kind": present[tick].kind.name.lower() if tick in present else "skipped", "cause": causes[tick]}
        for tick in missing
    ]
    return found


def slow_workers(workers: list[WorkerStats]) -> list[dict[str, Any]]:
    """Workers whose usual inference takes much longer than that of the others."""
    usual = {
        worker.index: worker.inference_ns.percentile(0.5) / 1e6
        for worker in workers
        if worker.inference_ns.count >= _FEWEST_INFERENCES
    }
    found = []
    for index, took_ms in usual.items():
        others = [other_ms for other, other_ms in usual.items() if other != index]
        if others and took_ms > UNEQUAL_FACTOR * median(others):
            found.append({"worker": index, "inference_ms": took_ms, "others_ms": median(others)})
    return found


def _as_run(stats: RunStats, stretch: Stretch) -> RunFolder:
    """The stretch as `rtcore-report` would read it: one place finds causes."""
    plan = stats.plan
    settings = {"stagger": plan.stagger, "chunk": plan.chunk, "workers": plan.workers}
    summary = {
        "ticks": {"ideal_hz": float(stats.rate_hz)},
        "plan": {"workers": plan.workers, "stride_ticks": stats.stride_ticks or plan.stride_ticks},
    }
    ticks, jobs = [TickRow.of(header) for header in stretch.ticks], [InferenceRow.of(job) for job in stretch.jobs]
    return RunFolder(Path(), {"config": settings}, summary, ticks, jobs)
