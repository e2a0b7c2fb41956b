"""The learning curve of a run: what each episode returned, over the ticks, those of the runs before it included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rtcore.errors import ConfigError
from rtcore.files.outside import parse_object, read_bytes
from rtcore.files.whole import whole_file
from rtcore.results.folder import read_table
from rtcore.results.out_folder import EARLIER
from rtcore.results.run_record import Episode

# -- episodes of a run and of those that it goes on from --------------------------------------------------


def learned_episodes(out: Path) -> list[Episode]:
    """The episodes of the run in `out` and of those in it that it goes on from, ticks counted from the first one's on.

    What an earlier run did after the checkpoint that the next one went on from is left out: nothing came of it. Rows
    that cannot be read are left out, too.
    """
    found: list[Episode] = []
    until = None
    for folder in _newest_first(out):
        before = _ticks_before(folder)
        ended = [episode._replace(end_tick=episode.end_tick + before) for episode in _episodes(folder / "actions.csv")]
        found = [episode for episode in ended if until is None or episode.end_tick < until] + found
        until = before
        if not before:
            break
    return found


def _newest_first(out: Path) -> Iterator[Path]:
    yield out
    numbers = [int(path.name) for path in (out / EARLIER).glob("[0-9]*") if path.name.isdigit()]
    for number in sorted(numbers, reverse=True):
        yield out / EARLIER / str(number)


def _ticks_before(folder: Path) -> int:
    """0 of a run that goes on from none."""
    path = folder / "config.json"
    with suppress(ConfigError, ValueError, TypeError, KeyError):
        resumed = parse_object(read_bytes(path, "resume"), path, "resume")["resumed"]
        return max(0, int(resumed["before"]["ticks"])) if resumed else 0
    return 0


_COLUMNS = ("tick", "kind", "source", "terminated", "truncated", "episode_return", "start_ns")


def _episodes(path: Path) -> Iterator[Episode]:
    """From the rows, which are there however the run ended; one after the other, as there may be millions."""
    steps = 0
    with suppress(ConfigError):
        for tick, kind, source, is_over, total in read_table(path, _COLUMNS, _ending_of, [], "episodes"):
            # A world that is held has not moved.
            steps = 0 if kind == "reset" else steps + (source != "held")
            if kind != "reset" and is_over:
                yield Episode(tick, steps, total)


def _ending_of(row: Mapping[str, str]) -> tuple[int, str, str, bool, float]:
    is_over = not {"1", "True"}.isdisjoint((row["terminated"], row["truncated"]))
    return int(row["tick"]), row["kind"], row["source"], is_over, float(row["episode_return"])


# -- the picture ------------------------------------------------------------------------------------------

#: Episodes that the line is the mean of.
_WINDOW_EPISODES = 20


def draw_learning_curve(
    runs: Mapping[str, Sequence[Episode]],
    path: Path,
    *,
    rate_hz: float,
) -> None:
    """One line a run: the mean return of the last 20 episodes; dots are single episodes.

    Over the picture stand the minutes that the ticks take at `rate_hz`.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import

    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for name, episodes in runs.items():
        ticks = np.array([episode.end_tick for episode in episodes])
        returns = np.array([episode.total_reward for episode in episodes], np.float64)
        lines = axes.plot(ticks, running_mean(returns, _WINDOW_EPISODES), label=name, linewidth=2)
        axes.plot(ticks, returns, ".", color=lines[0].get_color(), alpha=0.25, markersize=4)
    axes.set_xlabel("ticks")
    axes.set_ylabel(f"return (dots), mean of {_WINDOW_EPISODES} (line)")
    per_minute = 60 * rate_hz
    scale = (lambda at: np.divide(at, per_minute)), (lambda at: np.multiply(at, per_minute))
    minutes = axes.secondary_xaxis("top", functions=scale)
    minutes.set_xlabel(f"minutes at {rate_hz:.4f} Hz")
    axes.grid(alpha=0.3)
    if len(runs) > 1:
        axes.legend()
    with whole_file(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


def running_mean(values: npt.NDArray[np.float64], window: int) -> npt.NDArray[np.float64]:
    """Mean of the last `window` values up to each one; of fewer at the start."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(0, ends - window)
    means: npt.NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means
