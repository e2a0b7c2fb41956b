"""Runs as one HTML page that needs nothing else: no network, no other file. Optional extra `rtcore[report]`.

The page's parts: `page.html`, `page.css` and `page.js` beside this file, the charts (`charts`), the tables
(`tables`) and the rows the timeline is drawn from (`data`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rtcore.errors import counted, key_of
from rtcore.files.strict_json import finite
from rtcore.host.extras import import_extra
from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS, RUN_COLOURS
from rtcore.report.page import charts, tables
from rtcore.report.page.data import RunDistributions
from rtcore.report.wording import HUMAN_MEANING, SKIPPED_MEANING, number, policy_notes, share
from rtcore.results.contract import broken_in
from rtcore.results.folder import RunFolder, number_at
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Outcome, TickKind

_BASE_MEANING = "a worker's base action: the head's was not there"


@dataclass(frozen=True)
class Chart:
    """A figure of the page, or why there is none (`figure` None)."""

    title: str
    caption: str
    figure_id: str
    figure: dict[str, Any] | None
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Card:
    """A number at the top of the page. `tone`: good, bad or nothing."""

    label: str
    value: str
    detail: str
    tone: str = ""


def build_page(runs: Sequence[RunFolder]) -> str:
    """The page for one run, or for several side by side (the first is what the others are compared with)."""
    jinja2, plotly = (import_extra(module, "the page", "report") for module in ("jinja2", "plotly.offline"))
    names = run_names([run.path for run in runs])
    samples = [RunDistributions(run) for run in runs]
    named = list(zip(names, samples, strict=True))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["script_json"] = _script_json
    distributions = [
        Chart(
            title,
            caption,
            f"distribution-{index}",
            charts.histogram(of, unit, named),
            tuple(
                (f"{name}: " if len(named) > 1 else "") + charts.describe(getattr(sample, of), unit, digits)
                for name, sample in named
            ),
        )
        for index, (title, caption, of, unit, digits) in enumerate(charts.DISTRIBUTIONS)
    ]
    over_time = [
        Chart(
            f"Outcomes of the inferences{_of(names, index)}", "", f"outcomes-{index}", charts.outcomes_over_time(sample)
        )
        for index, sample in enumerate(samples)
    ]
    overviews = [charts.kinds_over_time(sample) for sample in samples]
    returns = Chart("Episode returns", "", "returns", charts.episode_returns(named))
    figures = {chart.figure_id: chart.figure for chart in [*distributions, *over_time, returns] if chart.figure}
    text: str = environment.get_template("page.html").render(
        title=_title(runs, names),
        runs=[
            _heading(run, name, index, len(runs) > 1) for index, (run, name) in enumerate(zip(runs, names, strict=True))
        ],
        cards=_cards(runs[0], samples[0]) if len(runs) == 1 else [],
        numbers=tables.numbers(samples),
        legend=_legend(runs, samples),
        distributions=distributions,
        over_time=over_time,
        returns=returns,
        settings=tables.settings(runs),
        machine=tables.machine(runs),
        data={
            "figures": figures,
            "overviews": overviews,
            "timelines": [charts.timeline(run) for run in runs],
            "outcome_colours": OUTCOME_COLOURS,
            "kind_colours": KIND_COLOURS,
        },
        css=(Path(__file__).parent / "page.css").read_text(encoding="utf-8"),
        js=(Path(__file__).parent / "page.js").read_text(encoding="utf-8"),
        plotly_js=plotly.get_plotlyjs(),
    )
    return text


def run_names(paths: Sequence[Path]) -> list[str]:
    """As short as tells them apart: the last folder's name, more of the path where two are alike."""
    parts = [path.resolve().parts for path in paths]
    for depth in range(1, max(len(part) for part in parts) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(path) for path in paths]


def _script_json(value: Any) -> str:
    """JSON that cannot end its script element, whatever text is in it. Numbers that do not exist are null."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _of(names: Sequence[str], index: int) -> str:
    return f": {names[index]}" if len(names) > 1 else ""


def _title(runs: Sequence[RunFolder], names: Sequence[str]) -> str:
    if len(runs) > 1:
        return f"{len(runs)} runs: " + ", ".join(names)
    return str(runs[0].settings.get("env_id") or names[0])


def _heading(run: RunFolder, name: str, index: int, several: bool) -> dict[str, Any]:
    """What the run is, and what is missing of it."""
    config = run.settings
    policy = str(run.summary.get("policy") or config.get("policy") or "policy not known")
    rate = f"{1e9 / run.period_ns:.4f} Hz" if run.period_ns else "rate not known"
    delay = number_at(run.summary, "plan", "delay_ticks")
    facts = [rate, str(config.get("stagger") or ""), counted(run.num_workers, "worker")]
    facts += ["a head"] if run.head >= 0 else []
    if several:  # of one run, the title names it
        facts.insert(0, str(config.get("env_id") or "world not known"))
    if delay is not None:
        facts.append(f"planned delay {delay:.0f} ticks ({delay * run.period_ns / 1e6:.0f} ms)")
    facts.append(f"{run.summary.get('clock') or config.get('clock') or 'unknown'} clock")
    limit = run.summary.get("plan", {}).get("limit") if isinstance(run.summary.get("plan"), dict) else ""
    return {
        "name": name,
        "path": str(run.path),
        "colour": RUN_COLOURS[index % len(RUN_COLOURS)],
        "facts": [fact for fact in facts if fact],
        "policy": policy,
        "policy_notes": policy_notes(policy),
        "limit": str(limit or ""),
        "notes": run.notes + [f"The contract was broken: {text}." for text in broken_in(run.summary)],
        "num_ticks": len(run.ticks) if run.period_ns else 0,
        "num_jobs": len(run.jobs),
    }


def _cards(run: RunFolder, samples: RunDistributions) -> list[Card]:
    if not run.ticks:
        return []
    summary, period_ms = samples.summary, run.period_ns / 1e6

    def at(*keys: str) -> float:
        value = number_at(summary, *keys)
        return value if value is not None else math.nan

    acted, wanted = at("actions", "acted_fraction"), at("plan", "acted_fraction")
    tone = "" if math.isnan(acted) or math.isnan(wanted) else "good" if acted >= 0.98 * wanted else "bad"
    delay, mean = at("actions", "delay_ticks", "p50"), at("actions", "interval_ticks", "mean")
    p50, p99, longest = (number(at("ticks", "lateness_us", q)) for q in ("p50", "p99", "max"))
    skipped, missed, idle = at("ticks", "skipped"), at("ticks", "kinds", "missed"), at("ticks", "kinds", "idle")
    rate = f"{number(at('ticks', 'hz'), 3)} per second, {number(skipped, 0)} skipped"
    return [
        Card("acted", share(acted), "of possible ticks" if math.isnan(wanted) else f"planned {share(wanted)}", tone),
        Card("delay", f"{number(delay, 0)} ticks", f"{number(delay * period_ms)} ms, p50"),
        Card("action every", f"{number(mean, 3)} ticks", f"{number(mean * period_ms)} ms on average"),
        Card("tick lateness", f"{p99} us", f"p99; p50 {p50}, max {longest} us"),
        Card("ticks", number(at("ticks", "count"), 0), rate, "bad" if skipped else ""),
        Card("missed", number(missed, 0), f"idle {number(idle, 0)}", "bad" if missed else "good"),
    ]


def _legend(runs: Sequence[RunFolder], samples: Sequence[RunDistributions]) -> dict[str, list[tuple[str, str, str]]]:
    """(name, colour, meaning) of what occurs in the timelines."""
    outcomes = [name for name in OUTCOME_COUNTERS if any(sample.outcomes[name] for sample in samples)]
    kinds = [name for name in KIND_COUNTERS if any(sample.kinds[name] for sample in samples)]
    meanings = {
        **{key_of(kind): kind.meaning for kind in TickKind},
        "skipped": SKIPPED_MEANING,
        "base": _BASE_MEANING,
        "human": HUMAN_MEANING,
    }
    if any(sample.base_ticks for sample in samples):
        kinds.insert(1, "base")
    if any(row.intervention for run in runs for row in run.ticks):
        kinds.append("human")
    if any(sample.skipped_ticks for sample in samples):
        kinds.append("skipped")
    return {
        "Inference": [
            (name.replace("_", " "), OUTCOME_COLOURS[name], Outcome[name.upper()].meaning) for name in outcomes
        ],
        "Tick": [(name.replace("_", "-"), KIND_COLOURS[name], meanings[name]) for name in kinds],
    }
