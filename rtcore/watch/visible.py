"""Which runs there are on this machine: those of other users and dead ones included."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from rtcore.clock import unix_time_s
from rtcore.errors import ConfigError, LayoutMismatchError, RtcoreError, SharedMemoryError
from rtcore.memory.layout import LAYOUT_VERSION
from rtcore.memory.owners import run_ids
from rtcore.memory.segments import is_measurement, removal_command
from rtcore.watch.attached import LIVE_STATES, AttachedRun, RunState, owner_of


@dataclass(frozen=True)
class RunRow:
    """One run in a list. None: not known (yet). `age_s`: since tick 0, before that since its memory was made."""

    run_id: str
    pid: int | None
    user: str
    program: str | None
    world: str | None
    policy: str | None
    age_s: float
    ticks: int | None
    acted_fraction: float | None
    state: RunState
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"age_s": round(self.age_s, 3)}


def visible_run_ids() -> list[str]:
    """Of every run that has a control segment, whoever owns it. The rings of `rtcore-profile ipc` are no runs."""
    return [run_id for run_id in run_ids() if not is_measurement(run_id)]


def list_runs() -> list[RunRow]:
    """Every visible run, oldest first. One that ends meanwhile is left out."""
    rows = [row for row in map(_row_or_none, visible_run_ids()) if row is not None]
    return sorted(rows, key=lambda row: -row.age_s)


def find_run(wanted: str | None) -> str:
    """The run id that `wanted` means: the id itself, a unique beginning of it, or None for the only run there is.

    `ConfigError` if it names no run or several, `SharedMemoryError` if no run is under way.
    """
    if wanted is None:
        return _only_run()
    known = visible_run_ids()
    matches = [wanted] if wanted in known else [run_id for run_id in known if run_id.startswith(wanted)]
    if not matches or not wanted:
        there = f"there {'is' if len(known) == 1 else 'are'} {', '.join(known)}" if known else "there is none"
        raise ConfigError(f"no run {wanted!r} on this machine; {there}. A run that is over is gone from memory")
    if len(matches) > 1:
        raise ConfigError(f"{wanted!r} is the beginning of several run ids: {', '.join(matches)}. Give more of it")
    return matches[0]


def _only_run() -> str:
    rows = list_runs()
    live = [row.run_id for row in rows if row.state in LIVE_STATES]
    if len(live) > 1:
        raise ConfigError(f"{len(live)} runs are under way: {', '.join(live)}. Say which, or see rtcore-top --list")
    if not live:
        others = f" ({len(rows)} cannot be attached to: see rtcore-top --list)" if rows else ""
        raise SharedMemoryError(f"no run is under way on this machine{others}. Start one: rtcore-run")
    return live[0]


def _row_or_none(run_id: str) -> RunRow | None:
    """None if it ended while it was looked at."""
    try:
        owner = owner_of(run_id)
        state = owner.state
        about, stats, note = None, None, ""
        if state is RunState.OTHER_LAYOUT:
            note = f"layout version {owner.layout_version}; this rtcore reads {LAYOUT_VERSION}"
        elif state is RunState.NO_PERMISSION:
            note = f"of user {owner.user}"
        elif state is RunState.BROKEN:
            note = f"if no such run is on: {removal_command(run_id)}"
        else:
            with AttachedRun(run_id, owner) as run:
                state = state or run.state()
                about, stats = run.about, run.stats() if run.has_begun else None
    except LayoutMismatchError as error:
        about, stats, state, note = None, None, RunState.OTHER_LAYOUT, str(error)
    except RtcoreError:
        return None
    acted = stats.acted_fraction if stats is not None else math.nan
    return RunRow(
        run_id=run_id,
        pid=owner.pid if owner.pid >= 0 else None,
        user=owner.user,
        program=about.program if about is not None else owner.command,
        world=str(about.run.config.world.env_id) if about is not None else None,
        policy=str(about.policy.get("policy", about.run.config.agent.policy)) if about is not None else None,
        age_s=unix_time_s() - (about.started_unix_s if about is not None else owner.made_unix_s),
        ticks=stats.counters["ticks"] if stats is not None else None,
        acted_fraction=None if math.isnan(acted) else round(acted, 6),
        state=state,
        note=note or ("its pid is of another container" if owner.is_elsewhere else ""),
    )
