"""`rtcore-profile path`: a real run, and where each of its actions spent its time, from the frame to the tick.

The boundaries are the events of the run's trace (`rtcore.memory.trace`), written by the processes that did the work.
They are contiguous: the end of a stage is the begin of the next one: the stages of an action add up to its whole.
That whole is also counted by the env process (the histogram `observation_age_ns`), apart from the trace: the two are
compared. The two copies to and from a device have not been run on a GPU; on a CPU nothing is copied and they are 0.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from rtcore.config.flags import parse_config, to_toml
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError, RtcoreError
from rtcore.learn.resuming import settings_of
from rtcore.memory.layout import TRACE_EVENT
from rtcore.memory.trace import TraceKind
from rtcore.profile.results import Result, percentiles_us
from rtcore.profile.views import Steps, TableColumn, new_figure, save, table_of
from rtcore.report.finished import write_results, write_trace
from rtcore.report.log import lines_to
from rtcore.report.perfetto.events import Events, Ints, find, job_keys, map_spool, of_kind
from rtcore.report.perfetto.writer import require_perfetto
from rtcore.results.out_folder import OutFolder
from rtcore.runtime.runtime import Runtime

STAGES = (
    "publish",
    "wake",
    "read",
    "host-to-device",
    "inference",
    "device-to-host",
    "write",
    "wait-for-due",
    "dispatch",
)
#: How far the sum of the stages may be from the whole as the env process counted it.
TOLERANCE_PERCENT = 5.0
_DEFAULT_DURATION_S = 10.0
_REFRESH_S = 0.2
#: So many actions in the picture at most: of a longer run every second, third, ... one.
_PLOT_COLUMNS = 500
_SHARE = TableColumn("share %", "share_percent", 2)


@dataclass(frozen=True)
class Actions:
    """Every tick that applied an action: stages in ns, one row each, in the order of the ticks."""

    stages_ns: Ints  #: (ticks, stages)
    ticks: Ints
    first_use: npt.NDArray[np.bool_]  #: False: the tick applied a later action of a chunk, or an old one again
    incomplete: int  #: ticks whose action has left no complete path: events were overwritten before they were collected

    @property
    def applied_ns(self) -> Ints:
        """Stages of the actions, each where it was first applied."""
        chosen: Ints = self.stages_ns[self.first_use]
        return chosen


def run(options: Namespace, console: Console) -> Result:
    """Measure and print; `ConfigError` for flags that make no real run, `RtcoreError` if no action was applied."""
    config, print_only = parse_config(list(options.run_flags), make=settings_of)
    if print_only:
        print(to_toml(_own_defaults(config)), flush=True)
        raise SystemExit(0)
    if config.timing.clock == "virtual":
        raise ConfigError("path: --clock virtual has no processes whose time could be taken; use the wall clock")
    config = _own_defaults(config)
    if config.output.out is not None:
        result = _measure_and_keep(config, list(options.run_flags), console)
    else:
        with tempfile.TemporaryDirectory(prefix="rtcore-path-") as folder:
            _, result = _measure(config.replace(trace=True, out=Path(folder)), console)
    _print(result, console)
    return result


def plot(result: Result, folder: Path) -> list[Path]:
    """path.png: the stages of action after action, one on top of the other, and the distribution of each."""
    return [save(_picture(result, result.drawn), folder, "path")]


def _own_defaults(config: RuntimeConfig) -> RuntimeConfig:
    if config.timing.ticks is not None or config.timing.duration is not None:
        return config
    return config.replace(duration=_DEFAULT_DURATION_S)


# -- the run -------------------------------------------------------------------------------------------------------


def _measure(config: RuntimeConfig, console: Console, folder: OutFolder | None = None) -> tuple[Runtime, Result]:
    """A traced run into `config.output.out`, and what came of it."""
    runtime = _run(config, console, folder)
    return runtime, _result(map_spool(config.output.out or Path()), runtime)


def _measure_and_keep(config: RuntimeConfig, flags: list[str], console: Console) -> Result:
    """The same, leaving what `rtcore-run --trace --out DIR` leaves."""
    require_perfetto()
    config = config.replace(trace=True)
    folder = config.output.out or Path()
    with OutFolder(folder, ["rtcore-profile", "path", *flags]) as taken:
        taken.acquire()
        runtime, result = _measure(config, console, taken)
        if runtime.record is not None:
            pictures = config.output.pictures
            write_results(folder, runtime.summary(), runtime.stats(), runtime.record, pictures=pictures)
        write_trace(folder, console)
    return result


def _run(config: RuntimeConfig, console: Console, folder: OutFolder | None) -> Runtime:
    """The run, to its end, with a progress bar; errors of the run are raised."""
    with lines_to(partial(console.print, markup=False, style="dim")), Runtime(config, folder=folder) as runtime:
        plan = runtime.stats().plan
        console.print(f"plan: {plan.sentence(runtime.stats().policy)}", markup=False, soft_wrap=True)
        with Steps(console, runtime.resolved.num_ticks) as steps:
            steps.begin("running")
            done = 0
            while not runtime.wait(_REFRESH_S):
                done, before = runtime.stats().counters["ticks"], done
                steps.advance(done - before)
    return runtime


# -- the stages ----------------------------------------------------------------------------------------------------


def split(events: Mapping[str, Events]) -> Actions:
    """The path of every action that a tick applied, from a run's events by process (as `trace.read_spool` gives)."""
    env = events.get("env", np.empty(0, TRACE_EVENT.dtype))
    workers = [rows for name, rows in events.items() if name.startswith("worker")]
    dispatches = of_kind(env, TraceKind.DISPATCH)
    dispatches = dispatches[dispatches["worker"] >= 0]
    jobs = job_keys(dispatches)

    reads, read_found = _matching(workers, TraceKind.READ, jobs)
    infers, infer_found = _matching(workers, TraceKind.INFER, jobs)
    writes, write_found = _matching(workers, TraceKind.WRITE, jobs)
    to_device, to_found = _matching(workers, TraceKind.HOST_TO_DEVICE, jobs)
    from_device, from_found = _matching(workers, TraceKind.DEVICE_TO_HOST, jobs)
    publishes, publish_found = _rows_at(of_kind(env, TraceKind.PUBLISH), "frame_seq", reads["frame_seq"])
    ticks, tick_found = _rows_at(of_kind(env, TraceKind.TICK), "tick", dispatches["tick"])

    to_ns = np.where(to_found, to_device["end_ns"] - to_device["start_ns"], 0)
    from_ns = np.where(from_found, from_device["end_ns"] - from_device["start_ns"], 0)
    boundaries = np.stack(
        [
            publishes["start_ns"],
            np.minimum(publishes["end_ns"], reads["start_ns"]),  # a spinning reader sees it before that stamp is taken
            reads["start_ns"],
            reads["end_ns"],
            reads["end_ns"] + to_ns,
            infers["end_ns"] - from_ns,
            infers["end_ns"],
            writes["end_ns"],
            np.maximum(writes["end_ns"], ticks["start_ns"]),  # an answer that comes late is dispatched at once
            dispatches["end_ns"],
        ],
        axis=1,
    ).astype(np.int64)
    # The answer is visible a moment before its writer stamps the end of writing: no boundary lies past the decision.
    boundaries = np.maximum.accumulate(np.minimum(boundaries, boundaries[:, -1:]), axis=1)
    whole = read_found & infer_found & write_found & publish_found & tick_found
    return Actions(
        stages_ns=np.diff(boundaries, axis=1)[whole],
        ticks=dispatches["tick"][whole].astype(np.int64),
        first_use=dispatches["value"][whole] == 1,
        incomplete=int((~whole).sum()),
    )


def _matching(workers: list[Events], kind: TraceKind, jobs: Ints) -> tuple[Events, npt.NDArray[np.bool_]]:
    """(the workers' event of a kind for each job, whether there is one)."""
    rows = np.concatenate([of_kind(events, kind) for events in workers]) if workers else np.empty(0, TRACE_EVENT.dtype)
    return _rows(rows, job_keys(rows), jobs)


def _rows_at(rows: Events, field: str, wanted: Any) -> tuple[Events, npt.NDArray[np.bool_]]:
    return _rows(rows, rows[field].astype(np.int64), np.asarray(wanted, np.int64))


def _rows(rows: Events, keys: Ints, wanted: Ints) -> tuple[Events, npt.NDArray[np.bool_]]:
    if not len(rows):
        return np.zeros(len(wanted), TRACE_EVENT.dtype), np.zeros(len(wanted), np.bool_)
    order = np.argsort(keys, kind="stable")
    places, found = find(keys[order], wanted)
    return rows[order[places]], found


# -- the result ----------------------------------------------------------------------------------------------------


def _result(events: Mapping[str, Events], runtime: Runtime) -> Result:
    actions = split(events)
    applied = actions.applied_ns
    if not len(applied):
        raise RtcoreError(
            "path: no action was applied in this run, so there is no path to measure. Let it run longer (--duration), "
            "or look at why with rtcore-run and the same flags"
        )
    whole = applied.sum(axis=1)
    mean_ns = float(whole.mean())
    rows = [_row(stage, applied[:, at], mean_ns) for at, stage in enumerate(STAGES)]
    rows.append(_row("whole", whole, mean_ns))
    stats = runtime.stats()
    extra = {
        "actions": len(applied),
        "incomplete": actions.incomplete,
        "lost_events": stats.trace.get("lost_events", 0),
        "check": _check(actions, stats.distributions["observation_age_ns"].mean),
        "inference_notes": inference_notes(runtime.header["policy"]),
        "run": {
            "env_id": runtime.config.world.env_id,
            "policy": stats.policy,
            "stagger": runtime.config.schedule.stagger,
            "workers": stats.plan.workers,
            "delay_ticks": stats.delay_ticks,
            "period_us": 1e6 / float(stats.rate_hz),
            "acted_fraction": round(stats.acted_fraction, 6),
        },
    }
    return Result("path", rows, ("stage",), extra, drawn=actions)


def _row(stage: str, times_ns: Ints, whole_mean_ns: float) -> dict[str, Any]:
    mean_ns = float(times_ns.mean())
    return {
        "stage": stage,
        **percentiles_us(times_ns, (50, 90, 99, 100)),
        "mean_us": round(mean_ns / 1e3, 3),
        "share_percent": round(100 * mean_ns / whole_mean_ns, 3),
    }


def _check(actions: Actions, counted_mean_ns: float) -> dict[str, Any]:
    """The stages' sum against the frame's age at the decision, which the env process counts at every acted tick.

    Both means are over acted ticks, so that actions of a chunk count in both as often as they are applied.
    """
    sum_ns = float(actions.stages_ns.sum(axis=1).mean())
    difference = 100 * (sum_ns / counted_mean_ns - 1)
    return {
        "sum_of_stages_us": round(sum_ns / 1e3, 3),
        "counted_whole_us": round(counted_mean_ns / 1e3, 3),
        "difference_percent": round(difference, 4),
        "agrees": bool(abs(difference) <= TOLERANCE_PERCENT),
    }


def inference_notes(policy: Mapping[str, Any]) -> list[str]:
    """What of the stage "inference" is not computing."""
    notes = []
    if policy.get("synthetic"):
        notes.append("the policy is synthetic: its inference is waiting, not computing")
    if policy.get("pad_ms"):
        notes.append(f"inferences are padded to at least {policy['pad_ms']:g} ms: part of the stage is waiting")
    return notes


def _print(result: Result, console: Console) -> None:
    run_of, check = result.extra["run"], result.extra["check"]
    title = f"From frame to tick, {result.extra['actions']} actions, us"
    columns = (*(TableColumn(name, f"{name}_us", 1) for name in ("p50", "p90", "p99", "max", "mean")), _SHARE)
    console.print(table_of(result.rows, (TableColumn("stage", "stage"), *columns), title))
    console.print(
        f"{run_of['delay_ticks']} ticks of {run_of['period_us']:,.0f} us from frame to action. Means add up; "
        "percentiles do not, as no action is slow in every stage.",
        soft_wrap=True,
    )
    for note in result.extra["inference_notes"]:
        console.print(f"inference: {note}", style="yellow", soft_wrap=True)
    console.print(
        f"check: the stages add up to {check['sum_of_stages_us']:,.1f} us an acted tick, the env process counted "
        f"{check['counted_whole_us']:,.1f} us ({check['difference_percent']:+.3f}%)",
        style="" if check["agrees"] else "bold red",
        soft_wrap=True,
    )
    if not check["agrees"]:
        console.print("They should agree within 5%: do not rely on these stages", style="bold red")
    if result.extra["incomplete"]:
        console.print(
            f"{result.extra['incomplete']} acted ticks are left out: part of their events was overwritten before it "
            f"was collected ({result.extra['lost_events']} events lost)",
            style="yellow",
            soft_wrap=True,
        )


# -- the picture ---------------------------------------------------------------------------------------------------

_COLOURS = ("#4e79a7", "#a0cbe8", "#59a14f", "#8cd17d", "#f28e2b", "#ffbe7d", "#b6992d", "#d7d7d7", "#e15759")


def _picture(result: Result, actions: Actions) -> Any:
    figure = new_figure(12.0, 5.5)
    stacked, spread = figure.subplots(1, 2, width_ratios=(3, 2))
    every = 1 + len(actions.applied_ns) // _PLOT_COLUMNS
    ticks, stages_ms = actions.ticks[actions.first_use][::every], actions.applied_ns[::every].T / 1e6
    stacked.stackplot(ticks, stages_ms, labels=STAGES, colors=_COLOURS, step="mid")
    stacked.set(xlabel="tick that applied the action", ylabel="ms since the frame was published", ylim=(0, None))
    stacked.margins(x=0)
    run_of = result.extra["run"]
    stacked.set_title(
        f"{run_of['policy']}, {run_of['workers']} workers, {run_of['stagger']}", fontsize=10, loc="left", wrap=True
    )
    places = np.arange(len(STAGES))
    rows = result.rows[: len(STAGES)]
    for metric, height in (("p50_us", 0.8), ("p99_us", 0.3)):
        # A stage that takes no time (no device) has no place on a logarithmic axis: no bar.
        values = [row[metric] or np.nan for row in rows]
        spread.barh(places, values, height, color=_COLOURS, alpha=0.6 if height > 0.5 else 1.0, edgecolor="#444444")
    spread.set(xscale="log", xlabel="us; broad: p50, narrow: p99", yticks=places, yticklabels=STAGES)
    spread.invert_yaxis()
    handles, labels = stacked.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(STAGES), fontsize=8)
    for note in result.extra["inference_notes"]:
        figure.suptitle(note, fontsize=9)
    return figure
