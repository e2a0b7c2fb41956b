"""Who is to blame for ticks without a policy action: slow workers, the worst stretch, and why each of its ticks."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from rtcore.clock import NS_PER_US
from rtcore.memory.layout import FrameHeader, JobRow
from rtcore.report.explain.tick import causes_of
from rtcore.results.folder import InferenceRow, RunFolder, TickRow
from rtcore.results.summary import RunStats, WorkerStats
from rtcore.results.worst_stretch import Stretch
from rtcore.scheduling.dispatch import Outcome, Source, TickKind
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
    ticks, jobs = [_tick_row(header) for header in stretch.ticks], [_inference_row(job) for job in stretch.jobs]
    return RunFolder(Path(), {"config": settings}, summary, ticks, jobs)


def _tick_row(header: FrameHeader) -> TickRow:
    acted = header.kind == TickKind.ACTED
    return TickRow(
        tick=header.tick,
        kind=TickKind(header.kind),
        source=Source(header.source).name.lower(),
        action="",
        obs_tick=header.obs_tick if acted else -1,
        due_tick=header.due_tick if acted else -1,
        worker=header.worker if acted else -1,
        outcome=Outcome(header.outcome) if acted else None,
        lateness_us=(header.start_ns - header.deadline_ns) / NS_PER_US,
        step_us=header.step_ns / NS_PER_US,
        skipped_ticks=header.skipped_ticks,
        reward=header.reward,
        terminated=bool(header.terminated),
        truncated=bool(header.truncated),
        episode=header.episode,
        episode_return=header.episode_return,
        start_ns=header.start_ns,
    )


def _inference_row(job: JobRow) -> InferenceRow:
    return InferenceRow(
        worker=job.worker,
        obs_tick=job.obs_tick,
        booked_tick=job.booked_tick,
        due_tick=job.due_tick if job.hold else -1,
        episode=job.episode,
        outcome=Outcome(job.outcome),
        resolved_tick=job.tick,
        booked_ns=job.booked_ns,
        start_ns=job.start_ns,
        read_ns=job.read_ns,
        infer_end_ns=job.infer_end_ns,
        write_ns=job.write_ns,
    )
