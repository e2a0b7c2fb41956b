"""What a run needs: worked out once from what its settings and its world say, and handed to everybody who takes part.

A `RuntimeConfig` may leave things open ("auto", "the world's own rate", "as many as fit"). A `ResolvedRun` leaves
nothing open: whoever holds one asks no setting for a rate, a period, a number of ticks or a size again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Literal

from rtcore.clock import FOREVER_NS, NS_PER_S, ns_of, rate_from, whole_period_ns
from rtcore.config.groups import MemorySettings, TimingSettings, WorldSettings
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.host.cpus import usable_cpus
from rtcore.host.devices import device_names
from rtcore.scheduling.schedule import ScheduleParams

ResolvedWait = Literal["hybrid", "block", "spin"]

#: Between two looks of the program that keeps the books there are fewer ticks than this, unless they are short.
_FEWEST_RING_SLOTS = 16
#: Frames of the ring beyond those that workers may still read.
_SPARE_RING_SLOTS = 8
#: How long a run lasts for which nobody said it [s].
_DEFAULT_DURATION_S = 30.0


@dataclass(frozen=True)
class ResolvedRun:
    """Everything that a run's settings leave open, decided. Made by `resolve`; travels to other processes as JSON."""

    #: The settings, in which nothing that is decided here is open any more.
    config: RuntimeConfig
    rate_hz: Fraction  #: exact
    period_ns: int  #: of a tick, rounded down: for limits and shares. Deadlines come from the exact rate (`TickGrid`)
    num_ticks: int  #: after which the run is over
    ends_by_itself: bool  #: whether anybody waits for that end
    guard_ns: int  #: slack for the plan
    ring_slots: int  #: frames that the ring keeps
    worker_places: int  #: workers that the shared memory has room for, beside a head
    wait: ResolvedWait  #: how a worker waits for its frame
    devices: tuple[str, ...]  #: as named by the user, dealt out to the workers in turn
    notes: tuple[str, ...] = ()  #: what the user has to know of these decisions

    @property
    def head_place(self) -> int:
        """Index of the place that is kept for a head, behind the workers'; -1: the policy cannot have two speeds."""
        return self.worker_places if self.config.may_have_head else -1

    @property
    def num_places(self) -> int:
        """Places for workers and a head in shared memory."""
        return self.worker_places + (self.head_place >= 0)

    def address_of(self, worker_index: int) -> str | None:
        """Where a worker's inferences are made, if that is on another host: the first workers' are."""
        elsewhere = self.config.remote.workers_at
        return elsewhere[worker_index] if worker_index < len(elsewhere) else None

    def device_of(self, worker_index: int) -> str:
        """Which of the named devices that worker computes on; "auto" and "cuda" are left to torch, in its process."""
        return self.devices[worker_index % len(self.devices)]

    def schedule_params(self, delay_ticks: int, tau_mean_ns: int, *, adapt: bool = True) -> ScheduleParams:
        """What a `Schedule` of this run starts from. `delay_ticks`, `tau_mean_ns`: of the plan."""
        config = self.config
        return ScheduleParams(
            stagger=config.schedule.stagger,
            rate_hz=self.rate_hz,
            delay_ticks=delay_ticks,
            tau_mean_ns=tau_mean_ns,
            guard_ns=self.guard_ns,
            tau_estimate=config.schedule.tau_estimate,
            on_late=config.schedule.on_late,
            chunk=config.agent.chunk,
            chunk_from=config.agent.chunk_from,
            replan_every=config.schedule.replan_every or 0,
            adapt=adapt,
        )

    def to_jsonable(self) -> dict[str, Any]:
        """For other processes: `from_jsonable` of that is this run again."""
        plain = {field.name: getattr(self, field.name) for field in fields(self)}
        return plain | {"config": self.config.to_jsonable(), "rate_hz": str(self.rate_hz)}

    @classmethod
    def from_jsonable(cls, plain: Mapping[str, Any]) -> ResolvedRun:
        """Inverse of `to_jsonable`. ConfigError or TypeError for what that does not write."""
        made = {
            "config": RuntimeConfig.from_jsonable(plain["config"]),
            "rate_hz": Fraction(plain["rate_hz"]),
            "devices": tuple(plain["devices"]),
            "notes": tuple(plain["notes"]),
        }
        return cls(**{**plain, **made})


def tick_rate_hz(world: WorldSettings, world_fps: float | Fraction | None) -> Fraction:
    """The exact tick rate: `fps`, else the world's own. ConfigError if neither is one."""
    if world.fps is not None:
        return rate_from(float(world.fps) if "/" not in world.fps else world.fps)
    if world_fps is None:
        raise ConfigError(f"{world.env_id} states no render_fps in its metadata; give the tick rate with --fps")
    try:
        return rate_from(world_fps)
    except (ValueError, OverflowError, TypeError, ZeroDivisionError) as error:
        raise ConfigError(
            f"{world.env_id} states render_fps={world_fps!r}, which is no tick rate ({error}); give one with --fps"
        ) from error


def resolve(config: RuntimeConfig, rate_hz: Fraction, frame_bytes: int) -> ResolvedRun:
    """Decide what the settings leave open, by the world's tick rate and the size of its frames.

    Called in the program that starts the run, never in a child: one that is pinned to fewer CPUs would decide
    otherwise.
    """
    config, ring_slots, notes = _fitted(config, frame_bytes)
    wait = _wait(config.memory)
    num_ticks, most_ticks = _num_ticks(config.timing, rate_hz), _most_ticks(rate_hz)
    return ResolvedRun(
        # On the virtual clock nobody waits: what is written of such a run is the same on every machine.
        config=config.replace(wait=wait) if config.timing.clock != "virtual" else config,
        rate_hz=rate_hz,
        period_ns=whole_period_ns(rate_hz),
        num_ticks=num_ticks,
        ends_by_itself=num_ticks < most_ticks,
        guard_ns=_guard_ns(config, rate_hz),
        ring_slots=ring_slots,
        worker_places=config.schedule.max_workers if config.schedule.workers == "auto" else config.schedule.workers,
        wait=wait,
        devices=tuple(device_names(config.agent.device)),
        notes=notes,
    )


def _wait(memory: MemorySettings) -> ResolvedWait:
    """`auto` spins only where another CPU can publish meanwhile."""
    if memory.wait != "auto":
        return memory.wait
    return "hybrid" if usable_cpus() > 1 else "block"


def _guard_ns(config: RuntimeConfig, rate_hz: Fraction) -> int:
    """On the virtual clock nothing but an inference takes time: it needs no slack."""
    if config.schedule.guard_ms is not None:
        return int(config.schedule.guard_ms * 1e6)
    return 0 if config.timing.clock == "virtual" else int(NS_PER_S / rate_hz / 8)


def _most_ticks(rate_hz: Fraction) -> int:
    """Deadlines, in 64 bits of nanoseconds, reach so far."""
    return int(FOREVER_NS * rate_hz / NS_PER_S)


def _num_ticks(timing: TimingSettings, rate_hz: Fraction) -> int:
    """The smaller of `ticks` and `duration`."""
    unlimited = timing.duration is None and timing.ticks is None
    duration_s = _DEFAULT_DURATION_S if unlimited else timing.duration
    limits = [timing.ticks] if timing.ticks is not None else []
    if duration_s is not None:
        limits.append(max(1, int(ns_of(duration_s) * rate_hz / NS_PER_S)))
    return min(*limits, _most_ticks(rate_hz))


def _fitted(config: RuntimeConfig, frame_bytes: int) -> tuple[RuntimeConfig, int, tuple[str, ...]]:
    """The settings with no more workers for `auto` than the ring is long enough for, its frames, and notes on both."""
    budget_bytes = 1 << 30 if config.explores or config.output.record else 1 << 28
    slots = config.memory.ring_slots or max(
        _fewest_ring_slots(config), min(100_000 if config.explores else 4096, budget_bytes // max(1, frame_bytes))
    )
    notes = []
    each_mb, all_mb = frame_bytes / 1e6, slots * frame_bytes / 1e6
    if config.memory.ring_slots is None and slots * frame_bytes > budget_bytes:
        notes.append(
            f"WARNING: the frame ring takes {all_mb:.0f} MB of shared memory: {slots} frames of {each_mb:.1f} MB are "
            f"the fewest for this run (by default it is at most {budget_bytes >> 20} MiB)"
        )
    most_workers = max(1, slots - _SPARE_RING_SLOTS)
    # On the virtual clock a frame is read the moment that it is published: no worker needs the ring to be long.
    if (
        config.timing.clock != "virtual"
        and config.schedule.workers == "auto"
        and config.schedule.max_workers > most_workers
    ):
        config = config.replace(max_workers=most_workers)
        notes.append(
            f"the frame ring keeps {slots} frames of {each_mb:.1f} MB: enough for {most_workers} workers, and auto "
            "starts no more; --ring-slots N keeps more"
        )
    return config, slots, tuple(notes)


def _fewest_ring_slots(config: RuntimeConfig) -> int:
    """Frames that workers still read while newer ones are written; with `auto`, that a few of them do."""
    workers = 0 if config.schedule.workers == "auto" else config.schedule.workers
    history = max(config.history.obs_history * config.history.obs_every, config.history.act_history)
    return max(_FEWEST_RING_SLOTS, workers + history + _SPARE_RING_SLOTS)
