"""The table, the plot and the learning curves of `benchmarks.delays`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from rtcore.files.strict_json import write_json
from rtcore.report.learning_curve import draw_learning_curve
from rtcore.results.run_record import Episode

#: Student's t, two-sided 95%, by degrees of freedom; from ten on the normal distribution is near enough.
_T_95 = (math.nan, 12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_COLORS = {
    "asynchronous": "tab:blue",
    "sequential": "tab:red",
    "random asynchronous": "tab:grey",
    "random sequential": "lightgrey",
    "no-op": "black",
}
#: What each seed came to, by agent and delay.
Table: TypeAlias = dict[tuple[str, int], list[float]]


class Interval(NamedTuple):
    """A mean over seeds and half the width of its 95% confidence interval; NaN of a single seed."""

    mean: float
    half: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        count = len(values)
        if count < 2:
            return cls(values[0] if values else math.nan, math.nan)
        t = _T_95[count - 1] if count - 1 < len(_T_95) else 1.96
        return cls(float(np.mean(values)), float(t * np.std(values, ddof=1) / math.sqrt(count)))

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + ("" if math.isnan(self.half) else f" ± {self.half:.2f}")


def write_report(
    folder: Path,
    results: list[dict[str, Any]],
    recipes: dict[str, dict[str, Any]],
    ticks: int,
    episodes: int,
    conditions: str,
) -> None:
    """delays.json, delays.md, delays.png and curve-d<delay>.png."""
    delays = sorted({result["delay_ticks"] for result in results if result["agent"] == "asynchronous"})
    table, rates = (
        {(agent, delay): _means(results, agent, delay, of) for agent in _COLORS for delay in delays}
        for of in (_return, _rate)
    )
    summary = [
        {
            "agent": agent,
            "delay_ticks": delay,
            "means": means,
            "mean": interval.mean,
            "ci95": _or_none(interval.half),
            "per_1000_ticks": rates[agent, delay],
        }
        for (agent, delay), means in table.items()
        for interval in (Interval.of(means),)
    ]
    write_json(
        folder / "delays.json",
        {"ticks": ticks, "episodes": episodes, "recipes": _plain(recipes), "table": summary, "cells": results},
    )
    seeds = len({result["seed"] for result in results})
    learned = f"{ticks:,} ticks of learning, {seeds} seeds, 95% confidence intervals (Student's t over seeds)"
    parts = (
        f"Mean return of {episodes} episodes after {learned}.",
        _markdown(table, delays),
        "Reward per 1,000 ticks in the same episodes: what the world pays for the time, which does not wait.",
        _markdown(rates, delays),
        _cost(results),
        conditions,
    )
    (folder / "delays.md").write_text("\n\n".join(part for part in parts if part) + "\n")
    _plot({"mean return": table, "reward per 1,000 ticks": rates}, delays, folder / "delays.png")
    for delay in delays:
        _curves(results, table, delay, folder / f"curve-d{delay}.png")


def _return(result: dict[str, Any]) -> float:
    return float(np.mean(result["returns"]))


def _rate(result: dict[str, Any]) -> float:
    return 1000 * sum(result["returns"]) / sum(result["episode_ticks"])


def _means(results: list[dict[str, Any]], agent: str, delay: int, of: Callable[[dict[str, Any]], float]) -> list[float]:
    """`of` each seed, in the order of the seeds. The no-op is the same at every delay."""
    found = [
        result
        for result in results
        if result["agent"] == agent and (agent == "no-op" or result["delay_ticks"] == delay)
    ]
    return [of(result) for result in sorted(found, key=lambda result: result["seed"])]


def _markdown(table: Table, delays: list[int]) -> str:
    lines = [
        "| agent | " + " | ".join(f"delay {delay}" for delay in delays) + " |",
        "|---|" + "---|" * len(delays),
    ]
    for agent in _COLORS:
        lines.append(f"| {agent} | " + " | ".join(str(Interval.of(table[agent, delay])) for delay in delays) + " |")
    differences = []
    for delay in delays:
        pairs = zip(table["asynchronous", delay], table["sequential", delay], strict=True)
        differences.append(str(Interval.of([first - second for first, second in pairs])))
    lines.append(f"| asynchronous - sequential, by seed | {' | '.join(differences)} |")
    return "\n".join(lines)


def _cost(results: list[dict[str, Any]]) -> str:
    cpu_s = [sum(result["cpu_s"].values()) for result in results if "training" in result]
    return f"A cell that learns took {np.mean(cpu_s):.0f} s of one CPU on average." if cpu_s else ""


def _plot(tables: dict[str, Table], delays: list[int], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(tables), 4.5), layout="constrained")
    for axes, (title, table) in zip(figure.subplots(1, len(tables), squeeze=False)[0], tables.items(), strict=True):
        _panel(axes, title, table, delays)
    figure.savefig(path, dpi=110)


def _panel(axes: Any, title: str, table: Table, delays: list[int]) -> None:
    for agent, color in _COLORS.items():
        intervals = [Interval.of(table[agent, delay]) for delay in delays]
        half = [0 if math.isnan(interval.half) else interval.half for interval in intervals]
        style = "-o" if agent in ("asynchronous", "sequential") else "--"
        axes.errorbar(delays, [each.mean for each in intervals], half, fmt=style, color=color, capsize=3, label=agent)
        if style == "-o":
            for delay in delays:
                axes.plot([delay] * len(table[agent, delay]), table[agent, delay], ".", color=color, alpha=0.4)
    axes.set_xticks(delays)
    axes.set_xlabel("delay, ticks")
    axes.set_ylabel(f"{title}, 95% interval over seeds")
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))
    axes.grid(alpha=0.3)
    axes.legend()


def _curves(results: list[dict[str, Any]], table: dict[tuple[str, int], list[float]], delay: int, path: Path) -> None:
    runs = {
        f"{result['agent']}, seed {result['seed']}": [Episode(*episode) for episode in result["training"]["episodes"]]
        for result in results
        if result["delay_ticks"] == delay and "training" in result
    }
    floors = {"random": Interval.of(table["random asynchronous", delay]).mean}
    draw_learning_curve(runs, path, rate_hz=4194304 / 70224, floors=floors)


def _plain(recipes: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {name: {key: str(value) for key, value in recipe.items()} for name, recipe in recipes.items()}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
