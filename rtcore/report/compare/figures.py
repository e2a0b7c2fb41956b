"""Two schedules in numbers: compare.json, and the table at the end. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rtcore.report.wording import number, points, policy_notes, share
from rtcore.results.out_folder import RANDOM

#: Figures whose ratio says something.
_RATIOS = ("points", "points_per_1000_ticks", "acted_fraction", "actions_per_s")

Figures = dict[str, Any]


def figures_of(summary: Mapping[str, Any], stagger: str, folder: Path) -> Figures:
    """One side of compare.json, from its run's summary. Numbers that do not exist are None."""
    ticks, actions, episodes = summary["ticks"], summary["actions"], summary["episodes"]
    count, acted = ticks["count"], ticks["kinds"]["acted"]
    return {
        "stagger": stagger,
        "folder": str(folder),
        "points": episodes["points"],
        "points_per_1000_ticks": episodes["points_per_1000_ticks"],
        "ticks": count,
        "acted_fraction": actions["acted_fraction"],
        "actions_per_s": round(ticks["hz"] * acted / count, 6) if count and ticks["hz"] else None,
        "ticks_without_action": count - acted,
        "skipped_ticks": ticks["skipped"],
        "episodes": episodes["count"],
        "return_mean": episodes["return_mean"],
        "unfinished_return": episodes["unfinished_return"],
        "delay_ticks": actions["delay_ticks"]["mean"],
        "workers": len(summary["workers"]),
        **{key: summary[key] for key in ("stopped_by", "error") if key in summary},
    }


def ratio(value: float | None, reference: float | None) -> float | None:
    """How many times `reference`; None where that says nothing: below 0, or of nothing."""
    if value is None or reference is None or value < 0 or reference < 0 or (value == reference == 0):
        return None
    return round(value / reference, 6) if reference else math.inf


def comparison(about: Mapping[str, Any], sides: Mapping[str, Figures | None]) -> dict[str, Any]:
    """The content of compare.json.

    Args:
        about: What both have in common.
        sides: The compared schedule, the run's own, and random play, in this order; None: it was not played.
    """
    compared, own, random = sides
    pairs = ((own, compared), (own, random), (compared, random))
    return {**about, **sides, "ratios": {f"{a}/{b}": _ratios(sides[a], sides[b]) for a, b in pairs}}


def _ratios(side: Figures | None, reference: Figures | None) -> dict[str, float | None]:
    if side is None or reference is None:
        return dict.fromkeys(_RATIOS)
    return {key: ratio(side[key], reference[key]) for key in _RATIOS}


def comparison_table(content: Mapping[str, Any], sides: Sequence[str]) -> RenderableType:
    """`comparison` for people. `sides`: names of the compared schedule and of the run's own."""
    compared, own = sides
    columns = {name: content[name] for name in (compared, own, RANDOM)}
    title = Text(f"{own} and {compared}", style="bold")
    title.append(f"   {content['world']}, {content['policy']}, seed {content['seed']}", style="not bold")
    warnings = [Text(f"The policy is {note}.", style="yellow") for note in policy_notes(str(content["policy"]))]
    table = Table(show_edge=True, pad_edge=False)
    table.add_column("", style="bold", no_wrap=True)
    for name in (compared, own):
        table.add_column(name, justify="right")
    table.add_column("times", justify="right", style="bold green")
    table.add_column(RANDOM, justify="right")
    times = content["ratios"][f"{own}/{compared}"]
    for label, key, text in (
        ("points", "points", points),
        ("points per 1,000 ticks", "points_per_1000_ticks", number),
        ("actions a second", "actions_per_s", number),
        ("ticks without an action", "", _without_action),
        ("acted, of possible ticks", "acted_fraction", share),
        ("delay, ticks", "delay_ticks", number),
        ("workers", "workers", lambda count: number(count, 0)),
        ("ticks", "ticks", lambda count: number(count, 0)),
    ):
        shown = [_cell(side, key, text) for side in columns.values()]
        if label not in ("points", "points per 1,000 ticks", "ticks"):
            shown[-1] = ""
        table.add_row(label, *shown[:2], _times(times.get(key)) if key in times else "", shown[2])
    over_random = [content["ratios"][f"{name}/{RANDOM}"]["points_per_1000_ticks"] for name in (compared, own)]
    table.add_row("times random's points", *map(_times, over_random), "", "")
    return Group(title, *warnings, table)


def _cell(side: Figures | None, key: str, text: Any) -> str:
    if side is None:
        return "-"
    return str(text(side[key] if key else side))


def _without_action(side: Figures) -> str:
    count = side["ticks_without_action"]
    return f"{count:,} ({share(count / side['ticks'])})" if side["ticks"] else "-"


def _times(value: float | None) -> str:
    """Of nothing there is no multiple that a reader could use."""
    return "-" if value is None or math.isinf(value) else f"{value:.1f} x"
