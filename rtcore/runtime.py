"""`Runtime`: a realtime run inside any program.

Takes nothing of the program that embeds it: no signal handler, no start method, no global state. Several may
run in one process at once. A thread of its own supervises; the caller's thread stays free.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import psutil

from rtcore.clock import MonotonicClock
from rtcore.config import RuntimeConfig, make_config
from rtcore.errors import RtcoreError, StartupError
from rtcore.report.live import booked_ticks
from rtcore.report.record import RunRecord
from rtcore.report.summary import RunStats, WorkerStats, build_summary
from rtcore.shm import files_of
from rtcore.spaces import ActionSpec
from rtcore.supervisor import Supervisor

_WATCH_S = 0.02
_DRAIN_EVERY_NS = 50_000_000
_FLUSH_EVERY_NS = 1_000_000_000


class Runtime:
    """One run: env process, workers, and what they did.

    Use it as a context manager: entering starts everything and returns when tick 0 is about to begin, leaving
    ends every process and removes every segment, whatever happened. `Runtime(config)` or `Runtime(env_id=...)`;
    the constructor does nothing that could block. `progress` gets a line for each step of start-up and for each
    restart, in the supervising thread.
    """

    def __init__(
        self,
        config: RuntimeConfig | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        **fields: Any,
    ) -> None:
        self.config = config if config is not None else make_config(**fields)
        self._supervisor = Supervisor(self.config, progress or (lambda _: None))
        self._clock = MonotonicClock()
        self._over = threading.Event()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._final: RunStats | None = None
        self._startup_s = math.nan
        self.record: RunRecord | None = None

    # -- life ----------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> Self:
        """Start everything; returns at tick 0. Raises what went wrong, after cleaning up."""
        began_ns = self._clock.now_ns()
        try:
            self._supervisor.start()
        except BaseException:
            self._supervisor.close()
            self._over.set()
            raise
        self._startup_s = (self._clock.now_ns() - began_ns) / 1e9
        action = ActionSpec.from_json(self._supervisor.env_info["action"])
        self.record = RunRecord(self.config.out, lambda raw: _decode(action, raw))
        self._thread = threading.Thread(target=self._supervise, name=f"rtcore-{self.run_id}", daemon=True)
        self._thread.start()
        return self

    def wait(self, timeout_s: float | None = None) -> bool:
        """Block until the run is over; False if `timeout_s` passed first. Raises the run's error, if it failed."""
        if self._thread is None:
            raise StartupError("the run has not started: call start() or use it as a context manager")
        ended = self._over.wait(timeout_s)
        if ended and self._error is not None:
            raise self._error
        return ended

    def stop(self) -> None:
        """End the run at its next tick; `wait` returns soon after."""
        self._stop.set()

    def close(self) -> None:
        """End everything now and clean up. Safe to call at any time, more than once."""
        self.stop()
        if self._thread is not None:
            self._thread.join()
        self._supervisor.close()

    # -- what is going on ----------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """Part of the name of every segment in /dev/shm."""
        return self._supervisor.run_id

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    @property
    def header(self) -> dict[str, Any]:
        """What the run consists of: world, policy, devices, what the kernel granted."""
        supervisor = self._supervisor
        return {"run_id": self.run_id, "world": supervisor.env_info, "policy": supervisor.policy_info} | (
            {"mps": supervisor.policy_info["mps"]} if supervisor.policy_info.get("mps") else {}
        )

    @property
    def worker_pids(self) -> dict[int, int]:
        """pid by worker index."""
        return self._supervisor.worker_pids

    @property
    def env_pid(self) -> int:
        return self._supervisor.env_pid

    def booked_ticks(self) -> dict[int, int]:
        """Tick of each worker's newest booking, for showing what is under way. Empty once the run is over."""
        supervisor = self._supervisor
        if self.is_over or supervisor.plan is None:
            return {}
        return booked_ticks(supervisor.shared, supervisor.plan.workers)

    def stats(self) -> RunStats:
        """A snapshot of every counter and histogram, at any time after the start."""
        return self._final if self._final is not None else self._snapshot(with_memory=False)

    def summary(self) -> dict[str, Any]:
        """What happened so far, or in all once the run is over (the content of summary.json)."""
        summary = build_summary(self.stats())
        summary["leftover_shared_memory"] = [path.name for path in files_of(self.run_id)] if self.is_over else None
        return summary

    # -- the supervising thread ----------------------------------------------------------------------------

    def _supervise(self) -> None:
        try:
            self._watch_until_over()
        except BaseException as error:
            self._error = error
        finally:
            with contextlib.suppress(RtcoreError):
                self._drain()
                self._final = self._snapshot(with_memory=self._error is None)
            if self.record is not None:
                self.record.close()
            self._supervisor.close()
            self._over.set()

    def _watch_until_over(self) -> None:
        supervisor, clock = self._supervisor, self._clock
        drain_ns = flush_ns = clock.now_ns()
        while not supervisor.watch(_WATCH_S):
            if self._stop.is_set() and not supervisor.stopping:
                supervisor.request_stop()
            now_ns = clock.now_ns()
            if now_ns - drain_ns >= _DRAIN_EVERY_NS:
                drain_ns = now_ns
                self._drain()
            if self.record is not None and now_ns - flush_ns >= _FLUSH_EVERY_NS:
                flush_ns = now_ns
                self.record.flush()

    def _drain(self) -> None:
        if self.record is not None:
            self._supervisor.run_drain.into(self.record)

    def _snapshot(self, *, with_memory: bool) -> RunStats:
        supervisor, shared = self._supervisor, self._supervisor.shared
        if supervisor.plan is None:
            raise StartupError("the run has no plan yet")
        pids = supervisor.worker_pids
        workers = [
            WorkerStats(
                index=index,
                pid=pids.get(index, -1),
                device=supervisor.device_of(index),
                inferences=shared.worker_status[index]["inferences"],
                inference_ns=shared.worker_histogram(index, "inference_ns").snapshot(),
                publish_to_read_ns=shared.worker_histogram(index, "publish_to_read_ns").snapshot(),
                restarts=supervisor.restarts[index],
                lapped_frames=shared.worker_status[index]["lapped_frames"],
                pss_mb=_pss_mb(pids.get(index)) if with_memory else math.nan,
            )
            for index in range(supervisor.plan.workers)
        ]
        record, status = self.record, shared.env_status
        return RunStats(
            plan=supervisor.plan,
            rate_hz=supervisor.rate_hz,
            clock="wall",
            counters=shared.env_counters.to_dict(),
            distributions={name: shape.snapshot() for name, shape in shared.env_histograms.items()},
            workers=workers,
            episode_returns=list(record.episode_returns) if record is not None else [],
            policy=str(supervisor.policy_info.get("policy", "")),
            startup_s=self._startup_s,
            delay_ticks=status["delay_ticks"],
            stride_ticks=status["stride_ticks"],
            num_up=status["num_up"],
            restart_reasons=dict(supervisor.restart_reasons),
            lost_record_rows=(
                {"lost_ticks": record.lost_ticks, "lost_jobs": record.lost_jobs} if record is not None else {}
            ),
            env=supervisor.env_info,
            wait=self.config.resolved_wait(),
        )


def _decode(action: ActionSpec, raw: bytes) -> Any:
    import numpy as np  # noqa: PLC0415 - only the record needs it here

    return action.decode(np.frombuffer(raw, action.np_dtype).reshape(action.shape))


def _pss_mb(pid: int | None) -> float:
    """Proportional set size [MB]: private memory plus a fair share of what is shared with other processes."""
    if pid is None:
        return math.nan
    try:
        return float(psutil.Process(pid).memory_full_info().pss) / 1e6
    except psutil.Error:
        return math.nan
