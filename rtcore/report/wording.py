"""How facts of a run are put into words, wherever they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from json import dumps
from typing import Any

from rtcore.results.contract import ConditionState
from rtcore.results.summary import LearnerStats

#: Of a skipped tick.
SKIPPED_MEANING = "did not run: the tick before took too long, or the world's own clock lost it"
#: Of a tick at which somebody had stepped in.
HUMAN_MEANING = "a person has the controls"
_SYNTHETIC = "synthetic: only waits, computes no action; the numbers are the runtime's, not a network's"
_PADDED = "padded: waits after each inference, as a larger network would compute"


def realtime_text(realtime: Mapping[str, str]) -> str:
    """What was granted, then what was refused and why."""
    if not realtime:
        return "nothing asked for"
    granted = [name for name, answer in realtime.items() if answer == "granted"]
    refused = [
        f"{name} ({answer.removeprefix('refused: ')})" for name, answer in realtime.items() if answer != "granted"
    ]
    parts = [f"granted {', '.join(granted)}"] if granted else []
    parts += [f"REFUSED {', '.join(refused)}"] if refused else []
    return "; ".join(parts)


def policy_notes(policy: str) -> list[str]:
    """What a reader of the numbers must know about the policy."""
    return [note for word, note in (("synthetic", _SYNTHETIC), ("padded", _PADDED)) if word in policy.lower()]


def number(value: float | None, digits: int = 1) -> str:
    """A number for people; "-" where there is none."""
    if value is None or math.isnan(value):
        return "-"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{digits}f}"


def points(value: float | None) -> str:
    """A sum of rewards: whole ones, as games pay, without decimals."""
    return number(value, 0 if value is not None and float(value).is_integer() else 2)


def share(value: float | None) -> str:
    """A fraction as a percentage that says 100% only of all."""
    if value is None or math.isnan(value):
        return "-"
    return f"{min(value * 100, 99.99):.2f}%" if value < 1 else "100%"


def contract_facts(states: Sequence[ConditionState]) -> list[tuple[str, str]]:
    """How much of what each condition allows over the run is used up, and whether it is broken."""
    facts = []
    for state in states:
        text = state.condition.text + ("" if math.isnan(state.used) else f" {100 * min(state.used, 9.99):.0f}% used")
        word, style = ("BROKEN", "bold red") if state.is_lost else ("not kept", "yellow")
        since = state.since
        facts.append((text, "green") if since is None else (f"{text} {word} since tick {since.tick:,}", style))
    return facts


def task_facts(task: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A run's newest task (`RunStats.task`): its version and values."""
    values = [(f"{name} {dumps(value, ensure_ascii=False)}", "") for name, value in task["values"].items()]
    return [(f"version {task['version']:,}", ""), *values]


def learner_facts(learner: LearnerStats) -> list[tuple[str, str]]:
    """How learning goes, in a few words each."""
    facts = [
        (f"update {learner.updates:,} ({number(learner.updates_per_s)}/s)", ""),
        (f"weights {learner.version}", ""),
        (f"loss {number(learner.loss, 4)}", ""),
        (f"epsilon {number(learner.epsilon, 2)}", ""),
    ]
    for name, count in (("yields", learner.yields), ("learner restarts", learner.restarts)):
        if count:
            facts.append((f"{name} {count}", "yellow"))
    if learner.stopped:
        facts.append((f"STOPPED: {learner.stopped}", "bold red"))
    return facts
