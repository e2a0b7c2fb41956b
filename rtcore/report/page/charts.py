"""The page's charts as Plotly figures in plain dictionaries: histograms, outcomes over time, episode returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from rtcore.report.colours import KIND_COLOURS, OUTCOME_COLOURS, RUN_COLOURS
from rtcore.report.page.data import Floats, OverTime, Samples, quantile
from rtcore.report.wording import number

Figure = dict[str, Any]

_LOG_FLOOR_US = 0.1
_MOST_BINS = 80


def histograms(runs: Sequence[tuple[str, Samples]]) -> list[tuple[str, str, Figure | None]]:
    """(title, caption, figure or None where there is nothing to count) of the four distributions."""
    whole = "Whole ticks."
    return [
        (
            "Tick lateness",
            "Start of a tick after its deadline; below 0.1 us counts as 0.1 us.",
            _lateness([(name, samples.lateness_us) for name, samples in runs]),
        ),
        (
            "Action interval",
            f"From one policy action to the next within an episode. {whole}",
            _counted([(name, samples.interval_ticks) for name, samples in runs]),
        ),
        (
            "Delay",
            f"From the frame an action was computed from to the tick it was applied at. {whole}",
            _counted([(name, samples.delay_ticks) for name, samples in runs]),
        ),
        (
            "Observation age",
            "Age of the frame behind the action when its tick began, derived from the rows: the start of the tick less "
            "the start of the frame's tick and its world step. Exact to some tens of microseconds.",
            _spread([(name, samples.observation_age_ms) for name, samples in runs]),
        ),
    ]


def outcomes_over_time(samples: Samples) -> Figure | None:
    """What became of the inferences, stacked, per stretch of ticks."""
    return _stacked(samples.outcomes_over_time(), OUTCOME_COLOURS, "inferences")


def kinds_over_time(samples: Samples) -> Figure | None:
    """What governed the ticks, stacked, per stretch."""
    return _stacked(samples.kinds_over_time(), KIND_COLOURS, "ticks")


def episode_returns(runs: Sequence[tuple[str, Samples]]) -> Figure | None:
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
                    "hovertemplate": "episode ended at tick %{x:,}<br>return %{y:.6~g}<extra>"
                    + _plain(name)
                    + "</extra>",
                }
            )
    if not traces:
        return None
    return _figure(traces, "tick at which the episode ended", "return", legend=len(runs) > 1)


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
    full = [values for _, values in runs if len(values)]
    if not full:
        return None
    low, high = min(values.min() for values in full), max(values.max() for values in full)
    step = max(1, math.ceil((high - low + 1) / _MOST_BINS))
    edges = np.arange(low - 0.5, high + step + 0.5, step)

    def label(left: float, right: float) -> str:
        first, last = round(left + 0.5), round(right - 0.5)
        return f"{first} tick{'' if first == 1 else 's'}" if first == last else f"{first} to {last} ticks"

    figure = _histogram(runs, edges, label, "ticks")
    if figure is not None and high - low <= 12:
        values = list(range(int(low), int(high) + 1))
        figure["layout"]["xaxis"] |= {"tickvals": values, "range": [low - 1, high + 1]}
    return figure


def _spread(runs: Sequence[tuple[str, Floats]]) -> Figure | None:
    full = [values for _, values in runs if len(values)]
    if not full:
        return None
    low, high = min(values.min() for values in full), max(values.max() for values in full)
    edges = np.linspace(low, high if high > low else low + 1, _MOST_BINS + 1)
    return _histogram(runs, edges, lambda left, right: f"{left:.1f} to {right:.1f} ms", "ms")


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
                "hovertemplate": "%{customdata[0]}<br>%{customdata[1]:,} (%{y:.3~g}%)<extra>"
                + _plain(name)
                + "</extra>",
            }
        )
    if not traces:
        return None
    figure = _figure(traces, unit, "share [%]", legend=len(runs) > 1)
    figure["layout"] |= {"barmode": "overlay"}
    figure["layout"]["yaxis"] |= {"type": "log", "range": [math.log10(smallest) - 0.4, 2.05], "dtick": 1}
    return figure


def describe(samples: Floats, unit: str, scale: float = 1.0, digits: int = 1) -> str:
    """p50, p99 and the largest, for below a chart's title."""
    if not len(samples):
        return "none"
    p50, p99 = (number(quantile(samples, q) * scale, digits) for q in (0.5, 0.99))
    return f"p50 {p50}, p99 {p99}, max {number(float(samples.max()) * scale, digits)} {unit}"


# -- over time ---------------------------------------------------------------------------------------------


def _stacked(counts: OverTime, colours: dict[str, str], what: str) -> Figure | None:
    if not counts.starts:
        return None
    traces = [
        {
            "type": "bar",
            "name": name.replace("_", " "),
            "x": [start + counts.width / 2 for start in counts.starts],
            "y": row,
            "width": counts.width,
            "customdata": [f"{start:,} to {start + counts.width - 1:,}" for start in counts.starts],
            "marker": {"color": colours[name], "line": {"width": 0}},
            "hovertemplate": f"ticks %{{customdata}}<br>%{{y}} {what}<extra>{name.replace('_', ' ')}</extra>",
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


def _plain(name: str) -> str:
    """Plotly reads a hover template as markup: a folder's name is text."""
    return name.replace("<", "&lt;").replace("%{", "% {")


def _us(value: float) -> str:
    if value >= 1e6:
        return f"{value / 1e6:.3g} s"
    return f"{value / 1e3:.3g} ms" if value >= 1e3 else f"{value:.3g} us"
