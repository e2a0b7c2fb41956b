"""The learning curve of a run as a picture: what each episode returned, over the ticks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtcore.results.record import Episode

#: Episodes that the line is the mean of.
WINDOW_EPISODES = 20


def draw_learning_curve(
    runs: Mapping[str, Sequence[Episode]],
    path: Path,
    *,
    rate_hz: float,
    floors: Mapping[str, float] | None = None,
    window_episodes: int = WINDOW_EPISODES,
) -> None:
    """One line a run: the mean return of the last `window_episodes` episodes; dots are single episodes.

    `floors`: mean returns to compare with, such as the random policy's, by name. Below the ticks, minutes at
    `rate_hz`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, episodes in runs.items():
        ticks = np.array([episode.end_tick for episode in episodes])
        returns = np.array([episode.total_reward for episode in episodes], np.float64)
        lines = axes.plot(ticks, running_mean(returns, window_episodes), label=name, linewidth=2)
        axes.plot(ticks, returns, ".", color=lines[0].get_color(), alpha=0.25, markersize=4)
    for name, value in (floors or {}).items():
        axes.axhline(value, color="grey", linestyle="--", linewidth=1)
        axes.text(1.0, value, f" {name} {value:.2f}", transform=axes.get_yaxis_transform(), va="center", fontsize=8)
    axes.set_xlabel("ticks")
    axes.set_ylabel(f"return (dots), mean of {window_episodes} (line)")
    per_minute = 60 * rate_hz
    scale = (lambda at: np.divide(at, per_minute)), (lambda at: np.multiply(at, per_minute))
    minutes = axes.secondary_xaxis("top", functions=scale)
    minutes.set_xlabel(f"minutes at {rate_hz:.4f} Hz")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend()
    draft = path.with_name(path.name + ".part")
    figure.savefig(draft, format="png", dpi=110)
    draft.replace(path)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean of the last `window` values up to each one; of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: npt.NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means
