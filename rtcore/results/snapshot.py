"""Everything a run counts at this moment, from its shared memory: for its summary, and for rtcore-top."""

from __future__ import annotations

import math
from typing import Any

import psutil

from rtcore.memory.shared import SharedRun
from rtcore.results.description import RunDescription
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunStats, WorkerStats
from rtcore.spaces.task import TaskSpec


def snapshot(shared: SharedRun, about: RunDescription, record: RunRecord | None, *, with_memory: bool) -> RunStats:
    """Reads only. `record` brings what is not counted in shared memory: episode returns and lost rows.

    `with_memory`: also the workers' memory, which takes the kernel some milliseconds each.
    """
    status, head = shared.env_status, head_of(about)
    return RunStats(
        plan=about.plan,
        rate_hz=about.run.rate_hz,
        clock=about.run.config.timing.clock,
        counters=shared.env_counters.to_dict(),
        distributions={name: shape.snapshot() for name, shape in shared.env_histograms.items()},
        workers=[_worker(shared, about, index, with_memory) for index in range(about.plan.workers)],
        observations={
            "checked": sum(place["checked_frames"] for place in shared.worker_status),
            "outside": sum(place["frames_outside"] for place in shared.worker_status),
            "first": about.world.get("leaves_space", ""),
        },
        head=_worker(shared, about, head, with_memory) if head >= 0 else None,
        **fields_of_record(record),
        policy=str(about.policy.get("policy", "")),
        startup=about.startup,
        num_warmups=len(about.policy.get("warmup_ns") or ()),
        delay_ticks=status["delay_ticks"],
        stride_ticks=status["stride_ticks"],
        num_up=status["num_up"],
        restart_reasons=dict(about.restart_reasons),
        lost_record_rows=(
            {"lost_ticks": record.lost_ticks, "lost_jobs": record.lost_jobs} if record is not None else {}
        ),
        env=about.world,
        wait=about.run.wait,
        task=_task(shared, about),
    )


def _task(shared: SharedRun, about: RunDescription) -> dict[str, Any]:
    """The newest one, and its version; {} of a run without."""
    if not (first := about.run.config.world.task):
        return {}
    spec, tasks = TaskSpec(first), shared.tasks
    version, raw = (tasks.newest() if tasks is not None else None) or (1, spec.first)
    return {"version": version, "values": spec.unpack(raw)}


def head_of(about: RunDescription) -> int:
    """Index of the worker that is the head of a policy with two speeds; -1: there is none."""
    return int(about.policy.get("head", -1))


def booked_ticks(shared: SharedRun, about: RunDescription) -> dict[int, int]:
    """The tick of each worker's newest booking in the present phase: shows which jobs are under way."""
    head = head_of(about)
    places = [*range(about.plan.workers), *([head] if head >= 0 else [])]
    phase_seq = shared.run_control["phase_seq"]
    jobs = ((worker, shared.jobs.read(worker)) for worker in places)
    return {worker: job.obs_tick for worker, job in jobs if job.phase_seq == phase_seq}


def fields_of_record(record: RunRecord | None) -> dict[str, Any]:
    """Fields of `RunStats`."""
    if record is None:
        return {"episodes": []}
    kept = record.episodes
    return {
        "dropped_episodes": kept.dropped,
        "dropped_return": kept.dropped_return,
        "episodes": kept.newest(),
        "score": record.score,
        "part_ages": record.part_ages.found(),
    }


def _worker(shared: SharedRun, about: RunDescription, index: int, with_memory: bool) -> WorkerStats:
    status, control = shared.worker_status[index], shared.worker_control[index]
    shapes = shared.worker_histograms(index)
    # A worker that is being restarted has no process: its place still names the one before.
    pid = status["pid"] if control["up"] and status["generation"] == control["generation"] else -1
    return WorkerStats(
        index=index,
        pid=pid,
        device=about.devices[index] if index < len(about.devices) else about.run.device_of(index),
        inferences=status["inferences"],
        inference_ns=shapes["inference_ns"].snapshot(),
        publish_to_read_ns=shapes["publish_to_read_ns"].snapshot(),
        restarts=control["restarts"],
        lapped_frames=status["lapped_frames"],
        policy_errors=status["policy_errors"],
        pss_mb=pss_mb(pid) if with_memory else math.nan,
    )


def pss_mb(pid: int) -> float:
    """Proportional set size [MB]: private memory plus a fair share of what is shared. NaN if it cannot be read.

    The kernel walks the process's page tables for it, which stops the process for milliseconds.
    """
    if pid < 0:
        return math.nan
    try:
        return float(psutil.Process(pid).memory_full_info().pss) / 1e6
    except psutil.Error:
        return math.nan
