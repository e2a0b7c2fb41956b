"""What Plotly draws on the page, as plain dictionaries: timelines, histograms, outcomes over time, episode returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise
from typing import Any

import numpy as np

from rtcore.clock import NS_PER_S, NS_PER_US
from rtcore.errors import counted, key_of
from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS, RUN_COLOURS
from rtcore.report.lanes import Bar, bar_of, lane_name, shade_name, shade_of
from rtcore.report.page.data import Floats, OverTime, RunDistributions, quantile, skipped_between
from rtcore.report.wording import number
from rtcore.results.folder import RunFolder
from rtcore.results.rows import InferenceRow, TickRow
from rtcore.scheduling.dispatch import Outcome, TickKind

Figure = dict[str, Any]

_LOG_FLOOR_US = 0.1
_MOST_BINS = 80


#: Title, caption, what of `RunDistributions`, unit, and digits of its numbers.
DISTRIBUTIONS = (
    ("Tick lateness", "Start of a tick after its deadline; below 0.1 us counts as 0.1 us.", "lateness_us", "us", 1),
    ("Action interval", "From one policy action to the next within an episode.", "interval_ticks", "ticks", 0),
    ("Delay", "From the frame an action was computed from to the tick it was applied at.", "delay_ticks", "ticks", 0),
    (
        "Observation age",
        "Age of the frame behind the action when its tick began, derived from the rows: the start of the tick less "
        "the start of the frame's tick and its world step. Exact to some tens of microseconds.",
        "observation_age_ms",
        "ms",
        1,
    ),
)


def histogram(of: str, unit: str, runs: Sequence[tuple[str, RunDistributions]]) -> Figure | None:
    """Of one of the distributions; None where there is nothing to count."""
    values = [(name, getattr(samples, of)) for name, samples in runs]
    return {"us": _lateness, "ticks": _counted, "ms": _spread}[unit](values)


def outcomes_over_time(samples: RunDistributions) -> Figure | None:
    """What became of the inferences, stacked, per stretch of ticks."""
    return _stacked(samples.outcomes_over_time(), OUTCOME_COLOURS, "inferences")


def kinds_over_time(samples: RunDistributions) -> Figure | None:
    """What governed the ticks, stacked, per stretch."""
    return _stacked(samples.kinds_over_time(), KIND_COLOURS, "ticks")


def episode_returns(runs: Sequence[tuple[str, RunDistributions]]) -> Figure | None:
    """The return of every episode that ended, at the tick of its end."""
    traces = []
    for index, (name, samples) in enumerate(runs):
        ended = samples.episodes
        if ended:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": name,
                    "x": [episode.tick for episode in ended],
                    "y": [episode.total for episode in ended],
                    "line": {"color": _colour(index), "width": 1},
                    "marker": {"size": 6},
                    "hovertemplate": f"episode ended at tick %{{x:,}}<br>return %{{y:.6~g}}{_extra(name)}",
                }
            )
    if not traces:
        return None
    return _figure(traces, "tick at which the episode ended", "return", legend=len(runs) > 1)


# -- timelines ---------------------------------------------------------------------------------------------

#: Ticks that went wrong and lie this close together are one place to go to.
_SAME_TROUBLE_TICKS = 3
_TROUBLE = (Outcome.LATE, Outcome.DROPPED_LATE, Outcome.DROPPED_DEAD_WORKER)
#: What a tick's label ends with, whatever governed it: facts 0 to 6.
_ANY_TICK = (
    "<br>began %{customdata[1]:.3~s}s late, world %{customdata[2]:.3~s}s<br>episode %{customdata[3]}, reward "
    "%{customdata[4]:.6~g}, return %{customdata[5]:.6~g}%{customdata[6]}<extra></extra>"
)


#: Of a tick with a policy action: facts 7 to 13.
_ACTED = (
    "action %{customdata[7]} of %{customdata[8]}, %{customdata[9]}<br>frame of tick %{customdata[10]:,d}, "
    "%{customdata[11]} ticks old, due at tick %{customdata[12]:,d}%{customdata[13]}"
)


def timeline(run: RunFolder) -> dict[str, Any]:
    """All inferences and ticks, a group for each outcome and kind; the page's script draws those in view.

    Of a group, lists of one length say where its bars lie (`from`, `to`, ... in ticks) and which facts their labels
    (`text`, a Plotly hover template) name.
    """
    if not run.period_ns or not run.ticks:
        return {"ticks": [], "jobs": [], "lanes": []}
    first, last = run.ticks[0].tick, run.ticks[-1].tick + 1
    jobs = sorted(((bar_of(job, run.axis), job) for job in run.jobs), key=lambda pair: pair[0][:2])
    groups = groupby(sorted(jobs, key=lambda pair: _group_of(pair[0])), lambda pair: _group_of(pair[0]))
    ticks = {shade: [row for row in run.ticks if shade_of(row, run.head) == shade] for shade in KIND_COLOURS}
    return {
        "lanes": [lane_name(place, run.head) for place in run.places],
        "first": first,
        "last": last,
        "start": _first_view(run),
        "trouble": _trouble(run),
        "jobs": [_inferences(run, *key, list(pairs)) for key, pairs in groups],
        "ticks": [*(_ticks(run, shade, rows) for shade, rows in ticks.items() if rows), *_skipped(run.ticks)],
    }


def _group_of(bar: Bar) -> tuple[Outcome, bool]:
    return bar.outcome, bar.answered


def _inferences(
    run: RunFolder, outcome: Outcome, answered: bool, jobs: Sequence[tuple[Bar, InferenceRow]]
) -> dict[str, Any]:
    lane_of = {place: lane for lane, place in enumerate(run.places)}
    due = ", due at tick %{customdata[2]:,d}" if any(job.due_tick >= 0 for _, job in jobs) else ""
    text = f"<b>%{{customdata[3]}}: {_words(outcome.name)}</b><br>booked at tick %{{customdata[0]:,d}}{due}<br>"
    if answered:
        stages = ("booking to start", "to its own copy of the frame", "inference", "writing")
        text += "frame of tick %{customdata[4]:,d}, episode %{customdata[5]}<br>settled at tick %{customdata[1]:,d}"
        text += "".join(f"<br>{stage} %{{customdata[{6 + n}]:.3~s}}s" for n, stage in enumerate(stages))
    else:
        text += "no answer<br>settled at tick %{customdata[1]:,d}"
    return {
        "name": key_of(outcome),
        "answered": answered,
        "lane": [lane_of[bar.worker] for bar, _ in jobs],
        "from": [round(bar.start, 3) for bar, _ in jobs],
        "to": [round(bar.end, 3) for bar, _ in jobs],
        "until": [bar.until for bar, _ in jobs],
        "settled": [bar.settled for bar, _ in jobs],
        "facts": [_facts_of(run, job) for _, job in jobs],
        "text": text + "<extra></extra>",
    }


def _facts_of(run: RunFolder, job: InferenceRow) -> list[Any]:
    facts: list[Any] = [job.booked_tick, job.resolved_tick, job.due_tick, run.who(job.worker)]
    if job.write_ns:
        times_ns = (job.booked_ns, job.start_ns, job.read_ns, job.infer_end_ns, job.write_ns)
        facts += [job.obs_tick, job.episode, *(round((b - a) / NS_PER_S, 7) for a, b in pairwise(times_ns))]
    return facts


def _ticks(run: RunFolder, shade: str, rows: Sequence[TickRow]) -> dict[str, Any]:
    what = _ACTED if rows[0].kind is TickKind.ACTED else "%{customdata[7]}"
    return {
        "name": shade,
        "from": [row.tick for row in rows],
        "facts": [
            [
                row.tick,
                round(row.lateness_us * NS_PER_US / NS_PER_S, 8),
                round(row.step_us * NS_PER_US / NS_PER_S, 8),
                row.episode,
                row.reward,
                row.episode_return,
                _notes_of(row),
                *_applied_at(run, row),
            ]
            for row in rows
        ],
        "text": f"<b>tick %{{customdata[0]:,d}}: {shade_name(shade)}</b><br>{what}{_ANY_TICK}",
    }


def _applied_at(run: RunFolder, row: TickRow) -> list[Any]:
    """Facts from 7 on."""
    if row.kind is TickKind.ACTED:
        outcome = _words(row.outcome.name) if row.outcome is not None else "?"
        who, age, features = run.who(row.worker), row.tick - row.obs_tick, ""
        if row.features_tick >= 0:
            whose = f"worker {row.features_worker}'s features of the frame of tick {row.features_tick:,}"
            features = f"<br>{whose}, {counted(row.tick - row.features_tick, 'tick')} old"
        return [_plain(row.applied_action), who, outcome, row.obs_tick, age, row.due_tick, features]
    return [_plain(f"action {row.applied_action} ({row.source})") if row.applied_action else "world held, no action"]


def _notes_of(row: TickRow) -> str:
    ended = "terminated" if row.terminated else "truncated" if row.truncated else ""
    notes = [f"episode ended: {ended}"] if ended else []
    notes += [f"{row.skipped_ticks} ticks before it were skipped"] if row.skipped_ticks else []
    return "".join(f"<br>{note}" for note in notes)


def _skipped(ticks: Sequence[TickRow]) -> list[dict[str, Any]]:
    gone = skipped_between(ticks)
    text = "<b>tick %{customdata[0]:,d}: skipped</b><br>it did not run<extra></extra>"
    return [{"name": "skipped", "from": gone, "facts": [[tick] for tick in gone], "text": text}] if gone else []


def _trouble(run: RunFolder) -> list[int]:
    """Where something went wrong: the first ticks of stretches that lack a due action, or got one late."""
    wrong = {row.tick for row in run.ticks if row.kind is TickKind.MISSED or row.skipped_ticks}
    wrong |= {job.resolved_tick for job in run.jobs if job.outcome in _TROUBLE}
    places = sorted(wrong)
    return [
        tick for before, tick in pairwise([-_SAME_TROUBLE_TICKS - 1, *places]) if tick > before + _SAME_TROUBLE_TICKS
    ]


def _first_view(run: RunFolder) -> list[int]:
    """The ticks shown first: ten delays, from a little before the first thing that went wrong, if any did."""
    first, last = run.ticks[0].tick, run.ticks[-1].tick
    delays = [job.resolved_tick - job.booked_tick for job in run.jobs]
    width = min(last - first + 1, max(60, min(400, 10 * int(np.median(delays)) if delays else 60)))
    wrong = next((row.tick for row in run.ticks if row.kind is TickKind.MISSED or row.skipped_ticks), first)
    begin = max(first, min(wrong - width // 3, last + 1 - width))
    return [begin, begin + width]


def _words(name: str) -> str:
    return name.lower().replace("_", " ")


# -- histograms --------------------------------------------------------------------------------------------


def _lateness(runs: Sequence[tuple[str, Floats]]) -> Figure | None:
    logs = [(name, np.log10(np.maximum(values, _LOG_FLOOR_US))) for name, values in runs]
    highest = max((values.max() for _, values in logs if len(values)), default=-1.0)
    edges = np.linspace(-1.0, max(0.0, highest) + 0.05, 61)
    figure = _histogram(logs, edges, lambda low, high: f"{_us(10**low)} to {_us(10**high)}", "")
    if figure is not None:
        decades = list(range(-1, math.ceil(max(0.0, highest)) + 1))
        figure["layout"]["xaxis"] |= {"tickvals": decades, "ticktext": [_us(10.0**decade) for decade in decades]}
    return figure


def _counted(runs: Sequence[tuple[str, Floats]]) -> Figure | None:
    """Whole numbers: one bar each, or as few to a bar as keep the bars apart."""
    if (span := _span(runs)) is None:
        return None
    low, high = span
    step = max(1, math.ceil((high - low + 1) / _MOST_BINS))
    edges = np.arange(low - 0.5, high + step + 0.5, step)

    def label(left: float, right: float) -> str:
        first, last = round(left + 0.5), round(right - 0.5)
        return counted(first, "tick") if first == last else f"{first} to {last} ticks"

    figure = _histogram(runs, edges, label, "ticks")
    if figure is not None and high - low <= 12:
        values = list(range(int(low), int(high) + 1))
        figure["layout"]["xaxis"] |= {"tickvals": values, "range": [low - 1, high + 1]}
    return figure


def _spread(runs: Sequence[tuple[str, Floats]]) -> Figure | None:
    if (span := _span(runs)) is None:
        return None
    low, high = span
    edges = np.linspace(low, high if high > low else low + 1, _MOST_BINS + 1)
    return _histogram(runs, edges, lambda left, right: f"{left:.1f} to {right:.1f} ms", "ms")


def _span(runs: Sequence[tuple[str, Floats]]) -> tuple[float, float] | None:
    """Least and most of all; None of nothing."""
    every = np.concatenate([values for _, values in runs])
    return (float(every.min()), float(every.max())) if len(every) else None


def _histogram(
    runs: Sequence[tuple[str, Floats]], edges: Floats, label: Callable[[float, float], str], unit: str
) -> Figure | None:
    """Shares in percent over a logarithmic axis, so that a single outlier shows; overlaid for several runs."""
    traces, smallest = [], 100.0
    labels = [label(left, right) for left, right in pairwise(edges.tolist())]
    for index, (name, values) in enumerate(runs):
        if not len(values):
            continue
        counts, _ = np.histogram(values, edges)
        filled = np.flatnonzero(counts)
        shares = 100 * counts[filled] / len(values)
        smallest = min(smallest, float(shares.min()))
        traces.append(
            {
                "type": "bar",
                "name": name,
                "x": ((edges[:-1] + edges[1:]) / 2)[filled].tolist(),
                "y": shares.tolist(),
                "width": (np.diff(edges) * 0.92)[filled].tolist(),
                "customdata": [[labels[bar], int(counts[bar])] for bar in filled],
                "marker": {"color": _colour(index), "opacity": 0.85 if len(runs) == 1 else 0.55},
                "hovertemplate": f"%{{customdata[0]}}<br>%{{customdata[1]:,}} (%{{y:.3~g}}%){_extra(name)}",
            }
        )
    if not traces:
        return None
    figure = _figure(traces, unit, "share [%]", legend=len(runs) > 1)
    figure["layout"] |= {"barmode": "overlay"}
    figure["layout"]["yaxis"] |= {"type": "log", "range": [math.log10(smallest) - 0.4, 2.05], "dtick": 1}
    return figure


def describe(samples: Floats, unit: str, digits: int) -> str:
    """p50, p99 and the largest, for below a chart's title."""
    if not len(samples):
        return "none"
    p50, p99, longest = (number(quantile(samples, q), digits) for q in (0.5, 0.99, 1.0))
    return f"p50 {p50}, p99 {p99}, max {longest} {unit}"


# -- over time ---------------------------------------------------------------------------------------------


def _stacked(counts: OverTime, colours: dict[str, str], what: str) -> Figure | None:
    if not counts.starts:
        return None
    traces = [
        {
            "type": "bar",
            "name": _words(name),
            "x": [start + counts.width / 2 for start in counts.starts],
            "y": row,
            "width": counts.width,
            "customdata": [f"{start:,} to {start + counts.width - 1:,}" for start in counts.starts],
            "marker": {"color": colours[name], "line": {"width": 0}},
            "hovertemplate": f"ticks %{{customdata}}<br>%{{y}} {what}<extra>{_words(name)}</extra>",
        }
        for name, row in counts.rows.items()
        if any(row)
    ]
    figure = _figure(traces, "tick", f"{what} per {counts.width} ticks" if counts.width > 1 else what, legend=True)
    figure["layout"] |= {"barmode": "stack", "bargap": 0}
    return figure


def _figure(traces: list[dict[str, Any]], x_title: str, y_title: str, *, legend: bool) -> Figure:
    """Colours of text and grid are the page's business: they follow the reader's light or dark."""
    return {
        "data": traces,
        "layout": {
            "xaxis": {"title": {"text": x_title}},
            "yaxis": {"title": {"text": y_title}},
            "showlegend": legend,
        },
    }


def _colour(index: int) -> str:
    return RUN_COLOURS[index % len(RUN_COLOURS)]


def _extra(name: str) -> str:
    return f"<extra>{_plain(name)}</extra>"


def _plain(name: str) -> str:
    """Plotly reads a hover template as markup: a folder's name is text."""
    return name.replace("<", "&lt;").replace("%{", "% {")


def _us(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} s"
    return f"{value / 1e3:.3g} ms" if value >= 1e3 else f"{value:.3g} us"
