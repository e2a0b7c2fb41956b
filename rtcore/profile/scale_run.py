"""One run of synthetic workers on a synthetic world, and what it cost: what `rtcore-profile scale` measures."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import psutil

from rtcore.clock import MonotonicClock
from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import RtcoreError
from rtcore.profile import usage
from rtcore.profile.host import HostWatch
from rtcore.profile.results import Row
from rtcore.profile.synthetic_world import SYNTHETIC_WORLD, frame_text
from rtcore.runtime.runtime import Runtime

#: Time that waking, reading and writing get before the due tick; half a tick where that is more.
_SLACK_MS = 2.0
#: A run goes on for so long beyond what is measured: it is stopped, never left to end by itself.
_SPARE_S = 600.0


@dataclass(frozen=True)
class Case:
    """What is run. Synthetic workers, all of them needed for an action every tick."""

    workers: int
    rate_hz: Fraction
    frame: tuple[int, ...]

    @property
    def frame_bytes(self) -> int:
        return prod(self.frame)

    @property
    def latency_ms(self) -> float:
        """Inference time for which `workers` give one action a tick: their ticks together, less half a tick.

        At high rates half a tick is less than a wake-up may take: then 2 ms less, though never below a quarter of all.
        """
        period_ms = 1000 / float(self.rate_hz)
        whole_ms = self.workers * period_ms
        return round(max(whole_ms / 4, whole_ms - max(period_ms / 2, _SLACK_MS)), 3)

    @property
    def lead_in_s(self) -> float:
        """From tick 0 until every worker has answered once."""
        return (self.workers + 1) / float(self.rate_hz)

    def config(self, seconds: float) -> RuntimeConfig:
        """The ring holds a second of frames: with the default size, memory would say nothing about frames."""
        return make_config(
            env_id=SYNTHETIC_WORLD,
            env_args={"frame": frame_text(self.frame)},
            fps=str(self.rate_hz),
            policy="synthetic",
            policy_args={"latency_ms": self.latency_ms},
            workers=self.workers,
            warmup=1,
            duration=self.lead_in_s + seconds + _SPARE_S,
            ring_slots=max(2 * self.workers + 8, math.ceil(self.rate_hz)),
        )

    def about_s(self, seconds: float) -> float:
        """Roughly how long `measure` takes: start, warm-up, rehearsal (two answers each), lead-in, measurement."""
        return 3.5 + 0.03 * self.workers + 5 * self.lead_in_s + seconds


@dataclass(frozen=True)
class _Spent:
    """CPU time used up to a moment, by role [ns]; and what had been done with it."""

    at_ns: int
    env_ns: int
    workers_ns: int
    supervisor_ns: int | None
    ticks: int
    inferences: int

    @classmethod
    def of(cls, runtime: Runtime) -> _Spent:
        stats = runtime.stats()
        name = f"rtcore-{runtime.run_id}"
        ids = [thread.native_id for thread in threading.enumerate() if thread.name == name and thread.native_id]
        return cls(
            at_ns=MonotonicClock.now_ns(),
            env_ns=usage.cpu_ns(runtime.env_pid),
            workers_ns=sum(usage.cpu_ns(pid) for pid in runtime.worker_pids.values()),
            supervisor_ns=usage.thread_cpu_ns(ids[0]) if ids else None,
            ticks=stats.counters["ticks"],
            inferences=sum(worker.inferences for worker in stats.workers),
        )


def measure(case: Case, seconds: float, on_step: Callable[[str], None] = lambda text: None) -> Row:
    """Run it; the numbers of `seconds` of it, as a row. Raises what went wrong with the run."""
    with Runtime(case.config(seconds), progress=on_step) as runtime:
        on_step("first answers")
        _go_on(runtime, case.lead_in_s)
        watch, before = HostWatch(), _Spent.of(runtime)
        on_step("measuring")
        _go_on(runtime, seconds)
        after, busy = _Spent.of(runtime), watch.conditions()["busy_percent"]
        summary = runtime.summary()
        # Last: it holds the processes up.
        memory = _memory(runtime, case)
    return (
        describe(case)
        | {"error": None}
        | _quality(summary)
        | _cpu(before, after)
        | memory
        | {"machine_busy_percent": busy}
    )


def describe(case: Case) -> Row:
    """The fields that name a case."""
    return {
        "workers": case.workers,
        "rate_hz": float(case.rate_hz),
        "frame": frame_text(case.frame),
        "frame_bytes": case.frame_bytes,
        "latency_ms": case.latency_ms,
    }


def _go_on(runtime: Runtime, seconds: float) -> None:
    if runtime.wait(seconds):
        raise RtcoreError("the run ended before it was measured; expected it to go on until it is stopped")


def _quality(summary: dict[str, Any]) -> Row:
    ticks, actions, ipc = summary["ticks"], summary["actions"], summary["ipc_us"]
    return {
        "acted_fraction": actions["acted_fraction"],
        "interval_cv": actions["interval_ticks"]["cv"],
        "lateness_p50_us": ticks["lateness_us"]["p50"],
        "lateness_p99_us": ticks["lateness_us"]["p99"],
        "skipped_ticks": ticks["skipped"],
        "delay_p50_ticks": actions["delay_ticks"]["p50"],
        "planned_stride_ticks": summary["plan"]["stride_ticks"],
        "skipped_starts": actions["skipped_starts"],
        "delay_changes": actions["delay_changes"],
        "publish_p50_us": ipc["publish"]["p50"],
        "publish_p99_us": ipc["publish"]["p99"],
        "publish_to_read_p50_us": ipc["publish_to_read"]["p50"],
        "publish_to_read_p99_us": ipc["publish_to_read"]["p99"],
        "step_p50_us": ticks["world_step_us"]["p50"],
    }


def _cpu(before: _Spent, after: _Spent) -> Row:
    """Shares are of one CPU: 100% is one CPU all the time."""
    elapsed_ns = max(1, after.at_ns - before.at_ns)
    env_ns, workers_ns = after.env_ns - before.env_ns, after.workers_ns - before.workers_ns
    ticks, inferences = after.ticks - before.ticks, after.inferences - before.inferences
    supervisor = None
    if before.supervisor_ns is not None and after.supervisor_ns is not None:
        supervisor = 100 * (after.supervisor_ns - before.supervisor_ns) / elapsed_ns
    return {
        "cpu_env_percent": 100 * env_ns / elapsed_ns,
        "cpu_workers_percent": 100 * workers_ns / elapsed_ns,
        "cpu_supervisor_percent": supervisor,
        "env_cpu_per_tick_us": env_ns / ticks / 1e3 if ticks else None,
        "worker_cpu_per_inference_us": workers_ns / inferences / 1e3 if inferences else None,
        "measured_s": elapsed_ns / 1e9,
    }


def _memory(runtime: Runtime, case: Case) -> Row:
    """Of the run's own processes: env, workers and fork server; not of the program that started it."""
    workers = runtime.worker_pids
    processes = [runtime.env_pid, *workers.values()]
    with contextlib.suppress(psutil.Error):
        processes.append(psutil.Process(runtime.env_pid).ppid())
    return {
        "last_worker_pss_mb": _mb(usage.pss_bytes(workers.get(case.workers - 1, -1))),
        "env_pss_mb": _mb(usage.pss_bytes(runtime.env_pid)),
        "total_pss_mb": _mb(usage.total_pss_bytes(processes)),
    }


def _mb(num_bytes: float) -> float | None:
    return None if math.isnan(num_bytes) else num_bytes / 1e6
