"""The run in words: what it consists of before tick 0, and what exactly happened after the last one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.report.wording import learner_rows, number, points, policy_notes, realtime_text, share
from rtcore.results.summary import RunStats
from rtcore.scheduling.planner import Plan

#: What became of a job, in a few words.
OUTCOME_MEANING = {
    "on_time": "applied at its due tick",
    "late": "applied after its due tick",
    "superseded": "not applied: one from a newer frame took its place",
    "stale_episode": "not applied: its episode was over",
    "dropped_dead_worker": "never came: its worker died, hung or was stopped",
    "dropped_late": "not applied: came after its due tick (on_late = drop)",
    "unfinished": "still under way when the run ended",
    "abstained": "not applied: the policy gave no action this time",
    "features_used": "not applied itself: the head used its features",
}
TICK_KIND_MEANING = {
    "acted": "a policy action",
    "missed": "one was due and was not there",
    "idle": "none was due",
    "lead_in": "episode start, none could be due yet",
    "reset": "the world was reset",
}


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

    @classmethod
    def of_stats(cls, stats: RunStats) -> RunHeader:
        """As much of it as the numbers alone tell: no world name, no end."""
        return cls(
            run_id="",
            world=str(stats.env.get("env_id", "unnamed world")),
            rate_hz=float(stats.rate_hz),
            policy=stats.policy,
            stagger=stats.plan.stagger,
            workers=stats.plan.workers,
            device=", ".join(sorted({worker.device for worker in stats.workers})),
            num_ticks=0,
            clock=stats.clock,
            realtime=dict(stats.env.get("realtime") or {}),
        )


def troubles(summary: dict[str, Any], out: Path | None) -> list[str]:
    """The rows of `details` that somebody should see even if all the rest is left out.

    Not where actions were lacking: that is what a schedule is compared for.
    """
    sections = [rows for name, rows in _sections(summary, out) if name != "Lacking"]
    return [f"{row.label}: {' '.join(row.text.split())}" for rows in sections for row in rows if row.style]


def header_lines(header: Mapping[str, Any], resolved: ResolvedRun, plan: Plan) -> list[str]:
    """The run header, one fact a line. `header` is `Runtime.header`."""
    config, run = resolved.config, RunHeader.of(header, resolved, plan)
    policy, world = header.get("policy", {}), header.get("world", {})
    lines = [f"run       {run.run_id}"] if run.run_id else []
    lines.append(f"world     {run.world}{_arguments(config.world.args)} at {run.rate_hz:.4f} Hz ({resolved.rate_hz})")
    lines.append(f"          observation {_space(world.get('observation'))}, action {_space(world.get('action'))}")
    lines += [f"          {note}" for note in world.get("notes") or ()]
    lines.append(f"no-op     {_noop(config, world)}; after a reset: {config.world.on_reset}")
    lines.append(f"policy    {run.policy}{_arguments(config.agent.policy_args)}")
    lines += [f"          {note}" for note in policy_notes(run.policy)]
    lines.append(f"          {policy.get('num_parameters', 0):,} parameters, device {run.device}")
    lines += [f"          {note}" for note in policy.get("notes") or ()]
    lines += [f"gpu       {note}" for note in _gpu_notes(header)]
    spin = f" (spin {config.memory.spin_us} us)" if resolved.wait == "hybrid" else ""
    lines.append(f"waiting   {resolved.wait}{spin}, clock {config.timing.clock}, seed {config.world.seed}")
    if config.timing.clock == "wall":
        lines.append(f"realtime  {realtime_text(run.realtime)}")
    lines.append(f"plan      {plan.sentence(run.policy)}")
    return lines


# -- the end summary ---------------------------------------------------------------------------------------


#: Lines about causes; summary.json has that of every tick of the worst stretch.
_MOST_CAUSES = 10


class _Row(NamedTuple):
    label: str
    text: str
    style: str = ""


def headline(summary: dict[str, Any]) -> RenderableType:
    """What matters most of `Runtime.summary()`: to be printed last, so that it does not scroll away."""
    policy = str(summary.get("policy") or "")
    title = Text("What happened", style="bold")
    title.append(f"   {policy or 'policy not named'}, {summary.get('clock')} clock", style="not bold")
    warnings = [Text(f"The policy is {note}.", style="yellow") for note in policy_notes(policy)]
    return Group(title, *warnings, _plan_table(summary))


def details(summary: dict[str, Any], out: Path | None) -> RenderableType:
    """All the rest of `Runtime.summary()`. `out`: the folder that holds the run's files, if there is one."""
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for section, rows in _sections(summary, out):
        facts.add_row()
        for position, row in enumerate(rows):
            name = section if position == 0 else ""
            facts.add_row(name, Text(row.label, style=row.style), Text(row.text, style=row.style))
    return facts


def _plan_table(summary: dict[str, Any]) -> Table:
    plan, actions, ticks = summary["plan"], summary["actions"], summary["ticks"]
    tau, interval, delay = plan["tau_ms"], actions["interval_ticks"], actions["delay_ticks"]
    took = [worker["inference_ms"] for worker in summary["workers"]]
    table = Table(pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("planned", justify="right")
    table.add_column("came true", justify="right")
    table.add_row("acted, of possible ticks", share(plan["acted_fraction"]), share(actions["acted_fraction"]))
    table.add_row(
        "action every .. ticks",
        number(_planned_interval(plan), 2),
        f"{number(interval['mean'], 3)} (CV {number(interval['cv'], 3)})",
    )
    table.add_row(
        "delay, ticks",
        f"{plan['delay_ticks']}",
        f"{number(delay['mean'], 2)} (p50 {number(delay['p50'], 0)}, p99 {number(delay['p99'], 0)}, "
        f"max {number(delay['max'], 0)})",
    )
    table.add_row(
        "inference, ms",
        f"{number(tau['p50'])} (p99 {number(tau['p99'])})*",
        f"{number(_middle(took, 'p50'))} (p99 {number(_middle(took, 'p99'))})",
    )
    table.add_row("ticks per second", number(ticks["ideal_hz"], 4), number(ticks["hz"], 4))
    table.add_row("points", "", _points(summary["episodes"]))
    virtual = summary.get("clock") == "virtual"
    note = "* as the latency model draws them" if virtual else "* tick to action in the slot, in the rehearsal"
    if tau.get("samples", 0) < tau.get("wanted_samples", 0):
        note += (
            f", whose time was up after {tau['samples']} of {tau['wanted_samples']} inferences: p99 is their longest"
        )
    table.caption = Text(f"{note}. {plan['limit']}" if plan["limit"] else note, justify="left")
    table.caption_justify = "left"
    return table


def _planned_interval(plan: dict[str, Any]) -> float | None:
    fraction = plan["acted_fraction"]
    return 1 / fraction if fraction else None


def _sections(summary: dict[str, Any], out: Path | None) -> list[tuple[str, list[_Row]]]:
    virtual = summary.get("clock") == "virtual"
    slow = (summary.get("culprits") or {}).get("slow_workers", [])
    return [
        ("Ticks", _tick_rows(summary["ticks"]) + _observation_rows(summary.get("observations") or {})),
        ("Actions", _action_rows(summary["actions"])),
        *([] if virtual else [("IPC, us", _ipc_rows(summary["ipc_us"]))]),
        *(
            [("Lacking", _culprit_rows(summary["culprits"], out))]
            if (summary.get("culprits") or {}).get("ticks")
            else []
        ),
        ("Workers", _worker_rows(summary["workers"], summary["restart_reasons"], slow)),
        ("Episodes", _episode_rows(summary["episodes"])),
        *([("Learner", [_Row(*row) for row in learner_rows(summary["learner"])])] if "learner" in summary else []),
        ("Run", _run_rows(summary, out)),
    ]


def _tick_rows(ticks: dict[str, Any]) -> list[_Row]:
    late, step, reset = ticks["lateness_us"], ticks["world_step_us"], ticks["world_reset_ms"]
    rows = [_Row("ran", f"{ticks['count']:,}")]
    rows += [
        _Row(kind, f"{count:>9,}  {TICK_KIND_MEANING[kind]}", "yellow" if kind == "missed" else "")
        for kind, count in ticks["kinds"].items()
        if count
    ]
    overran = ticks["overruns"] or ticks["reset_overruns"] or ticks["skipped"]
    rows.append(
        _Row(
            "overruns, skipped",
            f"{ticks['overruns']:,} ticks took longer than a period, {ticks['reset_overruns']:,} resets did; "
            f"{ticks['skipped']:,} ticks were skipped to stay on the grid",
            "yellow" if overran else "",
        )
    )
    if ticks["stretched"]:
        text = f"{ticks['stretched']:,} ticks were put off, by {number(ticks['stretched_ms'])} ms in all"
        rows.append(_Row("stretched", text, "yellow"))
    rows.append(_Row("lateness, us", _quantiles(late, ("p50", "p90", "p99", "p999", "max"))))
    rows.append(_Row("world step, us", _quantiles(step, ("p50", "p99", "max"))))
    rows.append(_Row("world reset, ms", _quantiles(reset, ("p50", "max"), digits=2)))
    garbage = ticks.get("garbage") or {}
    if garbage.get("collections"):
        text = f"collected {garbage['collections']:,} times in {number(garbage['ms'])} ms, between ticks"
        text += f"; {garbage['forced']:,} times in more time than there was" if garbage["forced"] else ""
        rows.append(_Row("garbage", text))
    return rows


def _observation_rows(observations: dict[str, Any]) -> list[_Row]:
    if not observations.get("outside"):
        return []
    text = f"{observations['outside']:,} of {observations['checked']:,} observations looked at: {observations['first']}"
    return [_Row("not in its space", text, "yellow")]


def _action_rows(actions: dict[str, Any]) -> list[_Row]:
    rows = [_Row("jobs booked", f"{actions['jobs']:,}")]
    good = ("on_time", "unfinished")
    rows += [
        _Row(name, f"{count:>9,}  {OUTCOME_MEANING[name]}", "" if name in good else "yellow")
        for name, count in actions["outcomes"].items()
        if count
    ]
    if actions["explored"]:
        rows.append(_Row("explored", f"{actions['explored']:>9,}  drawn at random, to explore"))
    rows.append(_Row("acted, of all ticks", share(actions["acted_fraction_of_all_ticks"])))
    rows.append(_Row("frame age, ms", _quantiles(actions["observation_age_ms"], ("p50", "p99"))))
    for key, meaning in (
        ("clipped", "policy actions outside the action space, clipped into it"),
        ("altered", "steps in which the world wrote to its action: it acted on other numbers than recorded"),
        ("skipped_starts", "starts put off: no worker was idle"),
        ("delay_changes", "times the delay was planned anew"),
        ("unknown_entries", "answers to no known job, ignored"),
    ):
        if count := actions.get(key):
            rows.append(_Row(key.replace("_", " "), f"{count:>9,}  {meaning}", "yellow"))
    return rows


def _ipc_rows(ipc: dict[str, Any]) -> list[_Row]:
    return [
        _Row(label, _quantiles(ipc[key], ("p50", "p99")))
        for key, label in (
            ("publish", "publish a frame"),
            ("publish_to_read", "frame to worker"),
            ("write_to_dispatch", "action to dispatch"),
        )
    ]


def _culprit_rows(culprits: dict[str, Any], out: Path | None) -> list[_Row]:
    """Where actions were lacking most, and why."""
    worst = culprits["worst_stretch"]
    size = worst["last_tick"] - worst["first_tick"] + 1
    where = f"ticks {worst['first_tick']} to {worst['last_tick']}"
    text = f"{where}: {worst['without_action']} of {size} without a policy action"
    rows = [_Row("worst stretch", text, "yellow")]
    spans = _spans(culprits["ticks"])
    # A tick that was due and missed says more than one for which nothing was due.
    shown = sorted(spans, key=lambda span: span[0]["kind"] == "idle")[:_MOST_CAUSES]
    for span in sorted(shown, key=lambda span: span[0]["tick"]):
        first, last, count = span[0], span[-1]["tick"], len(span)
        ticks = f"tick {last}" if count == 1 else f"ticks {first['tick']} to {last}"
        rows.append(_Row(f"{ticks} {first['kind']}", f"{first['cause']}{f' ({count} ticks)' if count > 1 else ''}"))
    if len(spans) > len(shown):
        rows.append(_Row("more causes", f"{len(spans) - len(shown)}: see culprits in summary.json"))
    if out is not None:
        rows.append(_Row("any other", f"rtcore-report {out} --tick N"))
    return rows


def _spans(ticks: Sequence[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Ticks that follow each other and lack their action for one and the same cause, together."""
    spans: list[list[dict[str, Any]]] = []
    for tick in ticks:
        last = spans[-1][-1] if spans else {}
        if last == tick | {"tick": tick["tick"] - 1}:
            spans[-1].append(tick)
        else:
            spans.append([tick])
    return spans


def _worker_rows(
    workers: Sequence[dict[str, Any]], reasons: Mapping[str, int], slow_workers: Sequence[dict[str, Any]] = ()
) -> list[_Row]:
    rows = [
        _Row(
            "processes",
            f"{len(workers)} on {', '.join(sorted({str(worker['device']) for worker in workers}))}",
        )
    ]
    spread: tuple[tuple[str, Callable[[dict[str, Any]], float | None], int], ...] = (
        ("inferences", lambda worker: worker["inferences"], 0),
        ("inference p50, ms", lambda worker: worker["inference_ms"]["p50"], 1),
        ("inference p99, ms", lambda worker: worker["inference_ms"]["p99"], 1),
        ("memory PSS, MB", lambda worker: worker["pss_mb"], 1),
    )
    for label, of, digits in spread:
        values = [value for value in map(of, workers) if value is not None]
        rows.append(_Row(label, _spread(values, digits, len(workers))))
    rows += [
        _Row(
            f"worker {slow['worker']} slow",
            f"{number(slow['inference_ms'])} ms, the others {number(slow['others_ms'])}",
            "yellow",
        )
        for slow in slow_workers
    ]
    restarts = sum(worker["restarts"] for worker in workers)
    lapped = sum(worker["lapped_frames"] for worker in workers)
    why = "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
    rows.append(_Row("restarts", f"{restarts}{f' ({why})' if why else ''}", "yellow" if restarts else ""))
    if lapped:
        rows.append(_Row("lapped frames", f"{lapped:,}  overwritten before the worker had read them", "yellow"))
    return rows


def _episode_rows(episodes: dict[str, Any]) -> list[_Row]:
    rows = [_Row("ended", f"{episodes['count']:,}"), _Row("mean return", number(episodes["return_mean"], 3))]
    if episodes["unfinished_return"] is not None:
        under_way = f"{points(episodes['unfinished_return'])} in {episodes['unfinished_ticks']:,} ticks"
        rows.append(_Row("unfinished", under_way))
    rows.append(_Row("points", _points(episodes)))
    return rows


def _points(episodes: Mapping[str, Any]) -> str:
    """Of all ticks, whether their episode ended or not."""
    return f"{points(episodes['points'])} ({number(episodes['points_per_1000_ticks'])} per 1,000 ticks)"


def _run_rows(summary: dict[str, Any], out: Path | None) -> list[_Row]:
    record, left = summary["record"], summary.get("leftover_shared_memory")
    rows = [] if summary["startup_s"] is None else [_Row("start-up", _startup_text(summary))]
    lost = record["lost_ticks"] + record["lost_jobs"]
    reasons = (summary.get("books") or {}).get("reasons", [])
    text = f"{record['lost_ticks']:,} ticks and {record['lost_jobs']:,} jobs missing" if lost else "complete"
    rows.append(_Row("record", "; ".join(reasons) or text, "yellow" if lost or reasons else ""))
    if "recording" in summary:
        rows.append(_recording_row(summary["recording"]))
    if left is None:
        rows.append(_Row("shared memory", "not known: the run was not over, or used none"))
    elif left:
        rows.append(_Row("shared memory", f"LEFT BEHIND in /dev/shm: {', '.join(left)}", "red"))
    else:
        rows.append(_Row("shared memory", "nothing left in /dev/shm"))
    if out is not None:
        rows.append(_Row("files", str(out)))
    return rows


def _startup_text(summary: dict[str, Any]) -> str:
    """How long each part of it took, and how many inferences were made meanwhile."""
    inferences = summary.get("startup_inferences") or {}
    work = {
        "workers": f" ({_count(inferences.get('warmup', 0), 'warm-up inference')})",
        "rehearsal": f" (planned from {_count(inferences.get('rehearsal', 0), 'inference')})",
    }
    phases = (
        f"{phase} {number(took_s, 2)}{work.get(phase, '') if inferences else ''}"
        for phase, took_s in summary.get("startup", {}).items()
    )
    return ": ".join(filter(None, (f"{number(summary['startup_s'], 2)} s", ", ".join(phases))))


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _recording_row(recording: dict[str, Any]) -> _Row:
    text = f"{recording['end']}: {recording['frames']:,} frames, {recording['jobs']:,} jobs, {recording['path']}"
    return _Row("recording", text, "" if recording["end"] == "complete" else "yellow")


def _quantiles(shape: Mapping[str, Any], names: Sequence[str], digits: int = 1) -> str:
    if all(shape[name] is None for name in names):
        return "no sample"
    title = {"p999": "p99.9"}
    return "  ".join(f"{title.get(name, name)} {number(shape[name], digits)}" for name in names)


def _spread(values: Sequence[float], digits: int, num_workers: int) -> str:
    if not values:
        return "no sample"
    low, high = number(min(values), digits), number(max(values), digits)
    if num_workers == 1:
        return low
    return f"min {low}  median {number(median(values), digits)}  max {high}  over workers"


def _middle(rows: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [row[key] for row in rows if row[key] is not None]
    return median(values) if values else None


# -- details of the header ---------------------------------------------------------------------------------


def _arguments(arguments: Mapping[str, Any]) -> str:
    return f" ({', '.join(f'{key}={value}' for key, value in arguments.items())})" if arguments else ""


def _space(spec: Mapping[str, Any] | None) -> str:
    if not spec:
        return "unknown"
    if spec.get("parts"):
        return f"Dict({', '.join(' '.join((part['name'], _space(part))) for part in spec['parts'])})"
    shape = "x".join(map(str, spec["shape"])) or "scalar"
    return " ".join(filter(None, (str(spec.get("kind", "")), shape, str(spec["dtype"]))))


def _noop(config: RuntimeConfig, world: Mapping[str, Any]) -> str:
    """What acts without a policy action, and where the no-op comes from (a warning where it is a guess)."""
    if config.world.on_missing != "noop":
        return f"not used: a missing action is replaced by {config.world.on_missing}"
    source = str(world.get("noop_source", "unknown source"))
    warning = "WARNING: " if "has no no-op" in source else ""
    noop = str(world.get("noop", "?")).removeprefix("array(").split(", dtype")[0]
    return f"action {noop} when an action is missing ({warning}{source})"


def _gpu_notes(header: Mapping[str, Any]) -> list[str]:
    notes: list[str] = []
    for key in ("gpu", "mps"):
        value = header.get(key)
        if value:
            notes += [f"{key}: {value}"] if isinstance(value, str) else [f"{key}: {note}" for note in value]
    return notes
