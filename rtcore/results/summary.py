"""What happened, as numbers: the one place that turns counters and histograms into `summary.json`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from rtcore.config.resolved import ResolvedRun
from rtcore.memory.counters import Distribution
from rtcore.results.contract import ConditionState, judge
from rtcore.results.folder import number_at
from rtcore.results.part_ages import PartAge
from rtcore.results.run_record import Episode, Score
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Invariant
from rtcore.scheduling.planner import Plan


@dataclass(frozen=True)
class RunHeader:
    """What a run consists of, as the views show it. Fixed once the run has started."""

    run_id: str
    world: str
    rate_hz: float
    policy: str
    stagger: str
    workers: int
    device: str
    num_ticks: int
    clock: str = "wall"
    realtime: Mapping[str, str] = field(default_factory=dict)  #: "granted" or "refused: why" by request

    @classmethod
    def of(cls, header: Mapping[str, Any], run: ResolvedRun, plan: Plan) -> RunHeader:
        """From `Runtime.header`, what the run needs and the plan."""
        config, policy = run.config, header.get("policy", {})
        return cls(
            run_id=str(header.get("run_id", "")),
            world=config.world.env_id,
            rate_hz=float(run.rate_hz),
            policy=str(policy.get("policy", config.agent.policy)),
            stagger=plan.stagger,
            workers=plan.workers,
            device=str(policy.get("device", config.agent.device)),
            num_ticks=run.num_ticks if run.ends_by_itself else 0,
            clock=config.timing.clock,
            realtime=dict(header.get("world", {}).get("realtime") or {}),
        )


@dataclass(frozen=True)
class WorkerStats:
    """One worker place over the run, restarts included. `pss_mb` NaN where it is not known."""

    index: int
    pid: int
    device: str
    inferences: int
    inference_ns: Distribution
    publish_to_read_ns: Distribution
    restarts: int
    lapped_frames: int
    pss_mb: float
    policy_errors: int = 0


@dataclass(frozen=True)
class LearnerStats:
    """What the learners of a run have done, all together. Losses and the like are means of the newest updates."""

    algorithm: str
    mode: str
    learners: int
    updates: int
    updates_per_s: float
    version: int  #: of the newest published weights
    loss: float = math.nan
    td_error: float = math.nan  #: mean absolute
    q_mean: float = math.nan
    grad_norm: float = math.nan  #: before it is cut to `max_grad_norm`
    epsilon: float = math.nan
    version_diff: tuple[float, float, float] = (math.nan, math.nan, math.nan)  #: least, mean, most: docs/learning.md
    transitions: int = 0  #: to sample from
    learning_starts: int = 0  #: how many the first update waits for
    lapped_samples: int = 0  #: overwritten while they were read, drawn again
    skipped_publications: int = 0  #: no buffer was free of readers
    yields: int = 0  #: pauses because ticks began to miss
    yielded_s: float = 0.0
    restarts: int = 0
    stopped: str = ""  #: why learning stopped; "" while it goes on
    checkpoints: int = 0  #: written
    failed_checkpoints: int = 0
    lost_checkpoint: str = ""  #: why the last one could not be written; "" where it was, or none is kept
    restart_reasons: dict[str, int] = field(default_factory=dict)
    places: list[dict[str, Any]] = field(default_factory=list)  #: the same of each learner alone, on the wall clock
    best_return: float = math.nan  #: best mean return so far, over the episodes that `best` is judged by

    def to_json(self) -> dict[str, Any]:
        """The content of summary.json's `learner`."""
        least, mean, most = self.version_diff
        return asdict(self) | {"version_diff": {"min": least, "avg": mean, "max": most}}


@dataclass(frozen=True)
class RunStats:
    """A snapshot of everything that is counted, of a run under way or over, real or simulated."""

    plan: Plan
    rate_hz: Fraction
    clock: str
    counters: dict[str, int]
    distributions: dict[str, Distribution]
    workers: list[WorkerStats]
    episodes: list[Episode]
    head: WorkerStats | None = None  #: of a policy with two speeds; the others are its trunk's
    dropped_episodes: int = 0  #: before `episodes`, which are the newest
    dropped_return: float = 0.0  #: sum of what these returned
    score: Score = field(default_factory=Score)  #: of all ticks, the unfinished episode included
    policy: str = ""
    #: Seconds by phase, in order; {}: not known.
    startup: dict[str, float] = field(default_factory=dict)
    num_warmups: int = 0  #: inferences of worker 0 before the rehearsal
    delay_ticks: int = 0
    stride_ticks: int = 0
    num_up: int = 0
    restart_reasons: dict[str, int] = field(default_factory=dict)
    lost_record_rows: dict[str, int] = field(default_factory=dict)
    books: dict[str, Any] = field(default_factory=dict)  #: see `check_books`; {} while the run goes on
    env: dict[str, Any] = field(default_factory=dict)
    wait: str = ""
    #: Looked at ("checked"), and of these not in the declared space ("outside", "first": what in the first of them).
    observations: dict[str, Any] = field(default_factory=dict)
    part_ages: dict[str, PartAge] = field(default_factory=dict)  #: by the names of parts that have time stamps
    task: dict[str, Any] = field(default_factory=dict)  #: the newest one: "version", "values"; {} of a run without
    culprits: dict[str, Any] = field(default_factory=dict)  #: see `find_culprits`; {} while the run goes on
    trace: dict[str, int] = field(default_factory=dict)
    recording: dict[str, Any] = field(
        default_factory=dict
    )  #: see `RecorderProcess.summary`; {} of a run that keeps none
    operator: dict[str, Any] = field(default_factory=dict)  #: see `OperatorProcess.summary`; {} of a run without
    learner: LearnerStats | None = None
    weights: dict[str, Any] = field(default_factory=dict)  #: see `WorkerProcesses.weights`; {} without a network
    contract: tuple[ConditionState, ...] = ()  #: of each condition that the run has to keep

    @property
    def acted_fraction(self) -> float:
        """Ticks with a policy action / ticks on which one could be due: each episode counts from its first due tick."""
        counters = self.counters
        possible = counters["acted"] + counters["missed"] + counters["idle"]
        return counters["acted"] / possible if possible else math.nan

    @property
    def places(self) -> list[int]:
        """Indices of the workers, and the head's behind them: a lane of a picture each."""
        return [*range(self.plan.workers), *([self.head.index] if self.head is not None else [])]

    @property
    def base_ticks(self) -> int:
        """Ticks at which the base action of a worker stood in, because the head's was not there; 0 without a head."""
        return self.counters["acted"] - self.counters["head_actions"] if self.head is not None else 0

    @property
    def mean_return(self) -> float:
        """Of all episodes that ended; NaN of none."""
        count = self.dropped_episodes + len(self.episodes)
        total = self.dropped_return + sum(episode.total_reward for episode in self.episodes)
        return total / count if count else math.nan

    @property
    def measured_hz(self) -> float:
        """Ticks that ran per second, first start to last, without what the world waited for a reset."""
        counters = self.counters
        waited_ns = int(counters["waited_ticks"] * 1_000_000_000 / self.rate_hz)
        elapsed_ns = counters["last_start_ns"] - counters["first_start_ns"] - waited_ns
        return hz_between(counters["ticks"], elapsed_ns)


def hz_between(num_ticks: int, elapsed_ns: int) -> float:
    """Ticks per second, of so many that began within `elapsed_ns`, first to last. NaN of fewer than two."""
    return (num_ticks - 1) * 1e9 / elapsed_ns if elapsed_ns > 0 else math.nan


def build_summary(stats: RunStats) -> dict[str, Any]:
    """`summary.json`. Numbers that do not exist (no episode, no sample) are null."""
    summary = {
        "clock": stats.clock,
        "policy": stats.policy,
        "plan": stats.plan.to_json(),
        **{name: part(stats) for name, part in _PARTS.items()},
        "workers": [_worker(worker) for worker in stats.workers],
        **({"head": _head(stats.head, stats)} if stats.head is not None else {}),
        "restart_reasons": stats.restart_reasons,
        "books": stats.books or None,
        "invariants": _invariants(stats.counters),
        "culprits": stats.culprits or None,
        **({"part_ages": _part_ages(stats)} if stats.part_ages else {}),
        **({"task": stats.task} if stats.task else {}),
        **({"trace": stats.trace} if stats.trace else {}),
        **({"recording": stats.recording} if stats.recording else {}),
        **({"operator": stats.operator} if stats.operator else {}),
        **({"learner": stats.learner.to_json()} if stats.learner is not None else {}),
        **({"weights": stats.weights} if stats.weights else {}),
        "environment": stats.env,
        "wait": stats.wait,
        "startup": stats.startup,
        "startup_inferences": {"warmup": stats.num_warmups, "rehearsal": stats.plan.tau.samples},
    }
    cleaned: dict[str, Any] = _without_nan(summary)
    return cleaned | ({"contract": judge(stats.contract, cleaned)} if stats.contract else {})


def number_of(stats: RunStats, path: str) -> float | None:
    """One number of the summary, without the work for all the others; None where it does not exist.

    Args:
        stats: Of a run under way or over.
        path: Its keys, with dots between.
    """
    first, *_ = keys = path.split(".")
    part = {first: _PARTS[first](stats)} if first in _PARTS else build_summary(replace(stats, contract=()))
    return number_at(_without_nan(part), *keys)


def _ticks(stats: RunStats) -> dict[str, Any]:
    counters, shapes = stats.counters, stats.distributions
    return {
        "count": counters["ticks"],
        "hz": stats.measured_hz,
        "ideal_hz": float(stats.rate_hz),
        "overruns": counters["overruns"],
        "reset_overruns": counters["reset_overruns"],
        "skipped": counters["skipped_ticks"],
        "stretched": counters["stretched_ticks"],
        "stretched_ms": counters["stretched_ns"] / 1e6,
        "waited": counters["waited_ticks"],
        "garbage": {
            "collections": counters["garbage_collections"],
            "forced": counters["garbage_forced"],
            "ms": counters["garbage_ns"] / 1e6,
        },
        "kinds": {kind: counters[kind] for kind in KIND_COUNTERS},
        "starved": counters["starved_ticks"],
        "starvations": counters["starvations"],
        "lateness_us": _percentiles(shapes["lateness_ns"], 1e3, (0.5, 0.9, *_TAIL), with_max=True),
        "world_step_us": _percentiles(shapes["step_ns"], 1e3, (0.5, 0.99), with_max=True),
        "world_reset_ms": _percentiles(shapes["reset_ns"], 1e6, (0.5,), with_max=True),
    }


def _actions(stats: RunStats) -> dict[str, Any]:
    counters, shapes = stats.counters, stats.distributions
    return {
        "acted_fraction": stats.acted_fraction,
        "acted_fraction_of_all_ticks": counters["acted"] / counters["ticks"] if counters["ticks"] else math.nan,
        "jobs": counters["jobs"],
        "outcomes": {outcome: counters[outcome] for outcome in OUTCOME_COUNTERS},
        "interval_ticks": {"mean": shapes["interval_ticks"].mean, "cv": shapes["interval_ticks"].cv},
        "delay_ticks": {"mean": shapes["delay_ticks"].mean}
        | _percentiles(shapes["delay_ticks"], 1, (0.5, 0.99), with_max=True)
        | {"min": shapes["delay_ticks"].min},
        "observation_age_ms": _percentiles(shapes["observation_age_ns"], 1e6, (0.5, 0.99)),
        "clipped": counters["clipped_actions"],
        "altered": counters["altered_actions"],
        "human": counters["human_ticks"],
        "take_overs": counters["take_overs"],
        "shield": counters["shield_ticks"],
        "limited": counters["limited_actions"],
        "lost_requests": counters["lost_requests"],
        "explored": counters["explored_actions"],
        "skipped_starts": counters["skipped_starts"],
        "delay_changes": counters["replans"],
        "unknown_entries": counters["unknown_entries"],
    }


def _ipc_us(stats: RunStats) -> dict[str, Any]:
    shapes, read = stats.distributions, _merge([worker.publish_to_read_ns for worker in stats.workers])
    return {
        "publish": _percentiles(shapes["publish_ns"], 1e3, (0.5, *_TAIL), with_max=True),
        "publish_to_read": _percentiles(read, 1e3, (0.5, *_TAIL), with_max=True),
        "write_to_dispatch": _percentiles(shapes["write_to_dispatch_ns"], 1e3, (0.5, *_TAIL), with_max=True),
    }


def _world_clock(stats: RunStats) -> dict[str, Any]:
    """How the world's own clock went, where that gave the ticks. Drift: how much longer than nominal a cycle took,
    against CLOCK_MONOTONIC."""
    if stats.clock != "world":
        return {}
    counters, nominal_hz = stats.counters, (stats.env.get("cycles") or {}).get("nominal_hz", math.nan)
    cycle_s = counters["cycle_ps"] / 1e12 or math.nan
    return {
        "cycles": counters["cycles"],
        "lost_cycles": counters["lost_cycles"],
        "cycle_hz": 1 / cycle_s,
        "nominal_hz": nominal_hz,
        "drift_ppm": (cycle_s * nominal_hz - 1) * 1e6,
        "phase_error_us": _percentiles(stats.distributions["phase_error_ns"], 1e3, (0.5, 0.99), with_max=True),
    }


def _part_ages(stats: RunStats) -> dict[str, Any]:
    """How old the parts of the observations were, and how often each was measured anew."""
    return {
        name: {
            "age_ms": _percentiles(part.age_ns, 1e6, (0.5, 0.99), with_max=True),
            "hz": part.hz,
            "nominal_hz": part.nominal_hz,
            "stale_ticks": part.stale_ticks,
        }
        for name, part in stats.part_ages.items()
    }


def _episodes(stats: RunStats) -> dict[str, Any]:
    unfinished = stats.score.unfinished
    return {
        "count": stats.counters["episodes"],
        "return_mean": stats.mean_return,
        "unfinished_return": unfinished.total_reward if unfinished is not None else None,
        "unfinished_ticks": unfinished.num_ticks if unfinished is not None else None,
        "points": stats.score.points,
        "points_ticks": stats.score.ticks,
        "points_per_1000_ticks": stats.score.per_1000_ticks,
        "first_listed": stats.dropped_episodes,
        "returns": [episode.total_reward for episode in stats.episodes],
        "num_ticks": [episode.num_ticks for episode in stats.episodes],
        "end_ticks": [episode.end_tick for episode in stats.episodes],
    }


_TAIL = (0.99, 0.999)
#: Parts that can be asked for alone.
_PARTS: dict[str, Callable[[RunStats], Any]] = {
    "ticks": _ticks,
    "actions": _actions,
    "observations": lambda stats: stats.observations,
    "ipc_us": _ipc_us,
    "world_clock": _world_clock,
    "inference_ms": lambda stats: _percentiles(
        _merge([worker.inference_ns for worker in stats.workers]), 1e6, (0.5, 0.99), with_max=True
    ),
    "restarts": lambda stats: sum(worker.restarts for worker in stats.workers),
    "episodes": _episodes,
    "record": lambda stats: {"lost_ticks": 0, "lost_jobs": 0} | stats.lost_record_rows,
    "startup_s": lambda stats: sum(stats.startup.values()) if stats.startup else math.nan,
}


def _invariants(counters: Mapping[str, int]) -> dict[str, Any]:
    """How often something did not hold that must hold at every tick, what, and the first of it with its tick."""
    broken, bits, first = (counters[name] for name in ("broken_invariants", "broken_kinds", "first_broken"))
    return {
        "broken": broken,
        "names": [invariant.name.lower() for invariant in Invariant if bits >> invariant & 1],
        "first": {"name": Invariant(first).name.lower(), "tick": counters["first_broken_tick"]} if broken else None,
    }


def _worker(worker: WorkerStats) -> dict[str, Any]:
    return {
        "index": worker.index,
        "pid": worker.pid,
        "device": worker.device,
        "inferences": worker.inferences,
        "inference_ms": _percentiles(worker.inference_ns, 1e6, (0.5, 0.99), with_max=True),
        "restarts": worker.restarts,
        "lapped_frames": worker.lapped_frames,
        "policy_errors": worker.policy_errors,
        "pss_mb": worker.pss_mb,
    }


def _head(head: WorkerStats, stats: RunStats) -> dict[str, Any]:
    return _worker(head) | {"acted_ticks": stats.counters["head_actions"], "base_ticks": stats.base_ticks}


def _percentiles(
    shape: Distribution, unit: float, quantiles: tuple[float, ...], *, with_max: bool = False
) -> dict[str, float]:
    values = {f"p{f'{100 * q:g}'.replace('.', '')}": shape.percentile(q) / unit for q in quantiles}
    if with_max:
        values["max"] = shape.max / unit if shape.count else math.nan
    return values


def _merge(shapes: list[Distribution]) -> Distribution:
    merged = shapes[0]
    for shape in shapes[1:]:
        merged = merged.merged(shape)
    return merged


def _mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    if isinstance(value, float):
        return None if math.isnan(value) else round(value, 6)
    return value
