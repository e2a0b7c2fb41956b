"""compare.png: points over time of both schedules and of random play; and both worlds, as they were at the end."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.report.colours import RUN_COLOURS
from rtcore.report.halfblocks import Image
from rtcore.report.wording import points, share
from rtcore.results.out_folder import RANDOM

_RANDOM_COLOUR = "#8A9099"
#: Most points of a line; more would not be seen.
_MOST_DRAWN = 4000


def draw_comparison(content: Mapping[str, Any], images: Mapping[str, Image | None], path: Path) -> None:
    """Whole or not at all.

    Args:
        content: Of compare.json. Rows come from actions.csv in the folders that it names.
        images: What the world of each half showed last, by name; None: it shows no image.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second to import

    shown = {name: image for name, image in images.items() if image is not None}
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    areas = figure.subplots(1, 1 + len(shown), width_ratios=[2.2, *[1.0] * len(shown)], squeeze=False)[0]
    _draw_points(areas[0], content, [*images, RANDOM])
    for axes, (name, image) in zip(areas[1:], shown.items(), strict=True):
        side = content[name]
        axes.imshow(np.broadcast_to(image, (*image.shape[:2], 3)), interpolation="nearest")
        axes.set_axis_off()
        acted = share(1 - side["ticks_without_action"] / side["ticks"]) if side["ticks"] else "-"
        title = f"{name}\n{points(side['points'])} points\nacts on {acted} of the ticks"
        axes.set_title(title, fontsize=9, color=_colour(name, [*images]))
    figure.suptitle(f"{content['world']}, {content['policy']}, seed {content['seed']}", fontsize=10)
    draft = path.with_name(path.name + ".part")
    figure.savefig(draft, format="png", dpi=110)
    draft.replace(path)


def _draw_points(axes: Any, content: Mapping[str, Any], names: list[str]) -> None:
    for name in names:
        side = content[name]
        if side is None:
            continue
        ticks, sums = points_over_time(Path(side["folder"]))
        if not len(ticks):
            continue
        seconds, colour = ticks / content["rate_hz"], _colour(name, names)
        style = "--" if name == RANDOM else "-"
        label = f"{name}: {points(float(sums[-1]))} points"
        axes.step(seconds, sums, where="post", label=label, color=colour, linestyle=style, linewidth=2)
    axes.margins(x=0)
    axes.set_xlabel("seconds")
    axes.set_ylabel("points")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", frameon=False)


def points_over_time(folder: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tick and sum of rewards up to it, of the rows in a run's actions.csv, thinned out where there are very many."""
    ticks, rewards = [], []
    with (folder / "actions.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            ticks.append(int(row["tick"]))
            rewards.append(float(row["reward"]))
    kept = np.unique(np.linspace(0, max(0, len(ticks) - 1), min(len(ticks), _MOST_DRAWN)).astype(np.int64))
    return np.array(ticks, np.int64)[kept], np.cumsum(rewards)[kept]


def _colour(name: str, names: list[str]) -> str:
    if name == RANDOM:
        return _RANDOM_COLOUR
    #: The compared schedule, and the run's own.
    return (RUN_COLOURS[4], RUN_COLOURS[0])[names.index(name)]
