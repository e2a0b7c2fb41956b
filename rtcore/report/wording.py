"""How facts of a run are put into words, wherever they are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rtcore.results.summary import LearnerStats

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


def learner_rows(learner: dict[str, Any]) -> list[tuple[str, str, str]]:
    """How learning went: (label, text, style) for the summary, from its `learner`."""
    diff = learner["version_diff"]
    rows = [
        _row(
            "updates", f"{learner['updates']:,} by {learner['learners']}, {number(learner['updates_per_s'])} a second"
        ),
        _row("weights", f"version {learner['version']:,}, best mean return {number(learner['best_return'], 2)}"),
        _row(
            "newest",
            f"loss {number(learner['loss'], 4)}, mean Q {number(learner['q_mean'], 3)}, gradient "
            f"{number(learner['grad_norm'], 3)}, epsilon {number(learner['epsilon'], 3)}",
        ),
        _row(
            "updates behind", f"min {number(diff['min'], 0)}  mean {number(diff['avg'])}  max {number(diff['max'], 0)}"
        ),
        _row("checkpoints", f"{learner['checkpoints']}"),
    ]
    for key, meaning in (
        ("failed_checkpoints", "could not be written"),
        ("yields", f"pauses for the ticks' sake, {number(learner['yielded_s'])} s in all"),
        ("lapped_samples", "overwritten while they were read, drawn again"),
        ("skipped_publications", "put off: every buffer was in use"),
        ("restarts", "of learners"),
    ):
        if learner[key]:
            rows.append(_row(key.replace("_", " "), f"{learner[key]:>9,}  {meaning}", "yellow"))
    if learner["stopped"]:
        rows.append(_row("stopped", learner["stopped"], "red"))
    return rows


def _row(label: str, text: str, style: str = "") -> tuple[str, str, str]:
    return label, text, style
