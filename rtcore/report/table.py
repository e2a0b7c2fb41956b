"""The run in words: what it consists of before tick 0, and what exactly happened after the last one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtcore import _tick
from rtcore.config.resolved import ResolvedRun
from rtcore.config.run import RuntimeConfig
from rtcore.errors import WARNING_NOTE, counted
from rtcore.files.strict_json import dumps
from rtcore.report.numbers import Row, part_rows, rows_of, with_workers
from rtcore.report.wording import number, points, policy_notes, realtime_text, share, task_facts
from rtcore.results.contract import broken_in
from rtcore.results.folder import number_at
from rtcore.results.summary import RunHeader
from rtcore.scheduling.dispatch import Invariant
from rtcore.scheduling.planner import Plan


def troubles(summary: dict[str, Any], out: Path | None) -> list[str]:
    """The rows of `details` that somebody should see even if all the rest is left out.

    Not where actions were lacking: that is what a schedule is compared for.
    """
    sections = [rows for name, rows in _sections(summary, out) if name != "Lacking"]
    rows = [f"{row.label}: {' '.join(row.text.split())}" for rows in sections for row in rows if row.style]
    return rows + [f"contract broken: {text}" for text in broken_in(summary)]


def header_lines(header: Mapping[str, Any], resolved: ResolvedRun, plan: Plan) -> list[str]:
    """The run header, one fact a line. `header` is `Runtime.header`."""
    config, run = resolved.config, RunHeader.of(header, resolved, plan)
    policy, world = header.get("policy", {}), header.get("world", {})
    lines = [f"run       {run.run_id}"] if run.run_id else []
    lines.append(f"world     {run.world}{_arguments(config.world.args)} at {run.rate_hz:.4f} Hz ({resolved.rate_hz})")
    lines.append(f"          observation {_space(world.get('observation'))}, action {_space(world.get('action'))}")
    lines += [f"          {note}" for note in world.get("notes") or ()]
    lines.append(f"no-op     {_noop(config, world)}; after a reset: {config.world.on_reset}")
    lines += [f"task      {dumps(config.world.task)}"] if config.world.task else []
    lines.append(f"policy    {run.policy}{_arguments(config.agent.policy_args)}")
    lines += [f"          {note}" for note in policy_notes(run.policy)]
    lines.append(f"          {policy.get('num_parameters', 0):,} parameters, device {run.device}")
    lines += [f"          {note}" for note in policy.get("notes") or ()]
    lines += [f"gpu       {note}" for note in _gpu_notes(header)]
    spin = f" (spin {config.memory.spin_us} us)" if resolved.wait == "hybrid" else ""
    lines.append(f"waiting   {resolved.wait}{spin}, clock {config.timing.clock}, seed {config.world.seed}")
    if config.timing.clock != "virtual":
        lines.append(f"realtime  {realtime_text(run.realtime)}")
        lines.append(f"tick path {_tick.in_words}")
    lines.append(f"plan      {plan.sentence(run.policy)}")
    if conditions := config.contract.conditions:
        lines.append(f"contract  {', '.join(condition.text for condition in conditions)}")
        idle = [one.text for one in conditions if one.path.startswith(_OF_TIME)] if run.clock == "virtual" else []
        lines += (
            [f"          {WARNING_NOTE}{', '.join(idle)}: no time passes there on the virtual clock"] if idle else []
        )
    return lines


# -- the end summary ---------------------------------------------------------------------------------------


#: Lines about causes; summary.json has that of every tick of the worst stretch.
_MOST_CAUSES = 10


def headline(summary: dict[str, Any]) -> RenderableType:
    """What matters most of `Runtime.summary()`: to be printed last, so that it does not scroll away."""
    policy = str(summary.get("policy") or "")
    title = Text("What happened", style="bold")
    title.append(f"   {policy or 'policy not named'}, {summary.get('clock')} clock", style="not bold")
    warnings = [Text(f"The policy is {note}.", style="yellow") for note in policy_notes(policy)]
    return Group(title, *warnings, _plan_table(summary), *_contract_lines(summary))


#: What takes no time on the virtual clock: conditions on it say nothing there.
_OF_TIME = ("ticks.lateness_us", "ticks.world_step_us", "ticks.world_reset_ms", "ipc_us")


def _contract_lines(summary: dict[str, Any]) -> list[Text]:
    """What was required, and whether it was kept. Nothing of a run that was to keep nothing."""
    judged = (summary.get("contract") or {}).get("conditions", [])
    kept = [f"{one['require']} ({one['value']:g})" for one in judged if one["kept"]]
    lines = [Text(f"Contract broken: {text}", style="bold red") for text in broken_in(summary)]
    return lines + ([Text(f"Contract kept: {', '.join(kept)}", style="green")] if kept else [])


def details(summary: dict[str, Any], out: Path | None) -> RenderableType:
    """All the rest of `Runtime.summary()`. `out`: the folder that holds the run's files, if there is one."""
    facts = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(no_wrap=True)
    facts.add_column(overflow="fold")
    for section, rows in _sections(summary, out):
        facts.add_row()
        for position, (label, text, style) in enumerate(rows):
            facts.add_row("" if position else section, Text(label, style=style), Text(text, style=style))
    return facts


def _plan_table(summary: dict[str, Any]) -> Table:
    plan, actions, ticks = summary["plan"], summary["actions"], summary["ticks"]
    tau, interval, delay = plan["tau_ms"], actions["interval_ticks"], actions["delay_ticks"]
    took, fraction, episodes = with_workers(summary)["all_workers"], plan["acted_fraction"], summary["episodes"]
    p50, p99, longest = (number(delay[key], 0) for key in ("p50", "p99", "max"))
    table = Table(pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    table.add_column("planned", justify="right")
    table.add_column("came true", justify="right")
    for row in (
        ("acted, of possible ticks", share(fraction), share(actions["acted_fraction"])),
        (
            "action every .. ticks",
            number(1 / fraction if fraction else None, 2),
            f"{number(interval['mean'], 3)} (CV {number(interval['cv'], 3)})",
        ),
        (
            "delay, ticks",
            f"{plan['delay_ticks']}",
            f"{number(delay['mean'], 2)} (p50 {p50}, p99 {p99}, max {longest})",
        ),
        (
            "inference, ms",
            f"{number(tau['p50'])} (p99 {number(tau['p99'])})*",
            "{} (p99 {})".format(*(number(number_at(took, key, "median")) for key in ("p50", "p99"))),
        ),
        ("ticks per second", number(ticks["ideal_hz"], 4), number(ticks["hz"], 4)),
        (
            "points",
            "",
            f"{points(episodes['points'])} ({number(episodes['points_per_1000_ticks'])} per 1,000 ticks)",
        ),
    ):
        table.add_row(*row)
    virtual = summary.get("clock") == "virtual"
    note = "* as the latency model draws them" if virtual else "* tick to action in the slot, in the rehearsal"
    if tau.get("samples", 0) < tau.get("wanted_samples", 0):
        note += (
            f", whose time was up after {tau['samples']} of {tau['wanted_samples']} inferences: p99 is their longest"
        )
    table.caption = Text(f"{note}. {plan['limit']}" if plan["limit"] else note, justify="left")
    table.caption_justify = "left"
    return table


def _sections(summary: dict[str, Any], out: Path | None) -> list[tuple[str, list[Row]]]:
    """The numbers that have rows of their own, and beside them what takes a sentence."""
    virtual, culprits = summary.get("clock") == "virtual", summary.get("culprits") or {}
    summary = with_workers(summary)
    sections = {
        "Ticks": rows_of("Ticks", summary) + _observation_rows(summary.get("observations") or {}),
        "World's clock": rows_of("World's clock", summary) if summary.get("world_clock") else [],
        "Parts' ages": part_rows(summary),
        "Actions": rows_of("Actions", summary),
        "Shared memory": [] if virtual else rows_of("Shared memory", summary),
        "Lacking": _culprit_rows(culprits, out) if culprits.get("ticks") else [],
        "Workers": _worker_rows(summary, culprits.get("slow_workers", [])),
        "Head": rows_of("Head", summary) if "head" in summary else [],
        "Episodes": rows_of("Episodes", summary) + _unfinished_rows(summary["episodes"]),
        "Learner": _learner_rows(summary) if "learner" in summary else [],
        "Run": _run_rows(summary, out),
    }
    return [(name, rows) for name, rows in sections.items() if rows]


def _observation_rows(observations: dict[str, Any]) -> list[Row]:
    if not observations.get("outside"):
        return []
    text = f"{observations['outside']:,} of {observations['checked']:,} observations looked at: {observations['first']}"
    return [Row("not in its space", text, "yellow")]


def _culprit_rows(culprits: dict[str, Any], out: Path | None) -> list[Row]:
    """Where actions were lacking most, and why."""
    worst = culprits["worst_stretch"]
    size = worst["last_tick"] - worst["first_tick"] + 1
    where = f"ticks {worst['first_tick']} to {worst['last_tick']}"
    text = f"{where}: {worst['without_action']} of {size} without a policy action"
    rows = [Row("worst stretch", text, "yellow")]
    # Ticks that follow each other and lack their action for one and the same cause, together.
    numbered = groupby(enumerate(culprits["ticks"]), lambda pair: {**pair[1], "tick": pair[1]["tick"] - pair[0]})
    spans = [[tick for _, tick in span] for _, span in numbered]
    # A tick that was due and missed says more than one for which nothing was due.
    shown = sorted(spans, key=lambda span: span[0]["kind"] == "idle")[:_MOST_CAUSES]
    for span in sorted(shown, key=lambda span: span[0]["tick"]):
        first, last, count = span[0], span[-1]["tick"], len(span)
        ticks = f"tick {last}" if count == 1 else f"ticks {first['tick']} to {last}"
        rows.append(Row(f"{ticks} {first['kind']}", f"{first['cause']}{f' ({count} ticks)' if count > 1 else ''}"))
    if len(spans) > len(shown):
        rows.append(Row("more causes", f"{len(spans) - len(shown)}: see culprits in summary.json"))
    if out is not None:
        rows.append(Row("any other", f"rtcore-report {out} --tick N"))
    return rows


def _worker_rows(summary: Mapping[str, Any], slow_workers: Sequence[Mapping[str, Any]]) -> list[Row]:
    workers, reasons = summary["workers"], summary["restart_reasons"]
    devices = ", ".join(sorted({str(worker["device"]) for worker in workers}))
    rows = [Row("processes", f"{len(workers)} on {devices}"), *rows_of("Workers", summary)]
    for slow in slow_workers:
        text = f"{number(slow['inference_ms'])} ms, the others {number(slow['others_ms'])}"
        rows.append(Row(f"worker {slow['worker']} slow", text, "yellow"))
    restarts = sum(worker["restarts"] for worker in workers)
    why = "; ".join(f"{reason}: {count}" for reason, count in reasons.items())
    rows.append(Row("restarts", f"{restarts}{f' ({why})' if why else ''}", "yellow" if restarts else ""))
    return rows


def _unfinished_rows(episodes: dict[str, Any]) -> list[Row]:
    if episodes["unfinished_return"] is None:
        return []
    return [Row("unfinished", f"{points(episodes['unfinished_return'])} in {episodes['unfinished_ticks']:,} ticks")]


def _learner_rows(summary: dict[str, Any]) -> list[Row]:
    learner, rows = summary["learner"], rows_of("Learner", summary)
    if learner.get("lost_checkpoint"):
        rows.append(Row("last checkpoint", f"not written: {learner['lost_checkpoint']}", "red"))
    if learner["stopped"]:
        return [*rows, Row("stopped", learner["stopped"], "red")]
    there, wanted = learner["transitions"], learner.get("learning_starts", 0)
    if learner["updates"] or there >= wanted:
        return rows
    waits = f"waits for {wanted:,} transitions (--learning-starts), and there are {there:,}"
    return [*rows, Row("first update", waits, "yellow")]


def _run_rows(summary: dict[str, Any], out: Path | None) -> list[Row]:
    record, left = summary["record"], summary.get("leftover_shared_memory")
    rows = [] if summary["startup_s"] is None else [Row("start-up", _startup_text(summary))]
    lost = record["lost_ticks"] + record["lost_jobs"]
    reasons = (summary.get("books") or {}).get("reasons", [])
    text = f"{record['lost_ticks']:,} ticks and {record['lost_jobs']:,} jobs missing" if lost else "complete"
    rows.append(Row("record", "; ".join(reasons) or text, "yellow" if lost or reasons else ""))
    rows += _broken_rows(summary.get("invariants") or {})
    if "task" in summary:
        rows.append(Row("task", ", ".join(text for text, _ in task_facts(summary["task"]))))
    if "recording" in summary:
        rows.append(_recording_row(summary["recording"]))
    if left is None:
        rows.append(Row("shared memory", "not known: the run was not over, used none, or could not look"))
    elif left:
        rows.append(Row("shared memory", f"LEFT BEHIND in /dev/shm: {', '.join(left)}", "red"))
    else:
        rows.append(Row("shared memory", "nothing left in /dev/shm"))
    if out is not None:
        rows.append(Row("files", str(out)))
    return rows


def _broken_rows(invariants: Mapping[str, Any]) -> list[Row]:
    if not invariants.get("broken"):
        return []
    first = invariants["first"]
    meaning = Invariant[first["name"].upper()].meaning
    text = f"{counted(invariants['broken'], 'time')}, a fault of rtcore, so trust none of the numbers; "
    return [Row("BROKEN", f"{text}first {first['name']} at tick {first['tick']} (expected: {meaning})", "red")]


def _startup_text(summary: dict[str, Any]) -> str:
    """How long each part of it took, and how many inferences were made meanwhile."""
    inferences = summary.get("startup_inferences") or {}
    work = {
        "workers": f" ({counted(inferences.get('warmup', 0), 'warm-up inference')})",
        "rehearsal": f" (planned from {counted(inferences.get('rehearsal', 0), 'inference')})",
    }
    phases = (
        f"{phase} {number(took_s, 2)}{work.get(phase, '') if inferences else ''}"
        for phase, took_s in summary.get("startup", {}).items()
    )
    return ": ".join(filter(None, (f"{number(summary['startup_s'], 2)} s", ", ".join(phases))))


def _recording_row(recording: dict[str, Any]) -> Row:
    text = f"{recording['end']}: {recording['frames']:,} frames, {recording['jobs']:,} jobs, {recording['path']}"
    return Row("recording", text, "" if recording["end"] == "complete" else "yellow")


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
