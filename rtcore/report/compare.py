"""Two schedules compared: compare.json, the table, the picture at the end, and both side by side in the terminal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from rtcore.errors import counted
from rtcore.files.whole import whole_file
from rtcore.report.colours import RUN_COLOURS
from rtcore.report.halfblocks import Line
from rtcore.report.lanes import ASCII, UNICODE, Glyphs
from rtcore.report.live import LiveView, Sight, draw_image, plain_line, print_lines, progress_bar
from rtcore.report.wording import number, points, policy_notes, share
from rtcore.results.folder import read_table
from rtcore.results.out_folder import RANDOM
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunHeader, RunStats
from rtcore.spaces.image import Image

# -- numbers ----------------------------------------------------------------------------------------------

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


# -- compare.png ------------------------------------------------------------------------------------------

_RANDOM_COLOUR = "#8A9099"
#: Most points of a line; more would not be seen.
_MOST_DRAWN = 4000


def draw_comparison(content: Mapping[str, Any], images: Mapping[str, Image | None], path: Path) -> None:
    """Draw a comparison as a picture, whole or not at all.

    Args:
        content: Of compare.json. Rows come from actions.csv in the folders that it names.
        images: What the world of each half showed last, by name; None: it shows no image.
        path: The file to be (PNG).
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
    with whole_file(path) as draft:
        figure.savefig(draft, format="png", dpi=110)


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


def _paid_at(row: Mapping[str, str]) -> tuple[int, float]:
    return int(row["tick"]), float(row["reward"])


def points_over_time(folder: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Tick and sum of rewards up to it, of the rows in a run's actions.csv, thinned out where there are very many."""
    rows = list(read_table(folder / "actions.csv", ("tick", "reward"), _paid_at, [], "points"))
    ticks, rewards = zip(*rows, strict=True) if rows else ((), ())
    kept = np.unique(np.linspace(0, max(0, len(ticks) - 1), min(len(ticks), _MOST_DRAWN)).astype(np.int64))
    return np.array(ticks, np.int64)[kept], np.cumsum(rewards)[kept]


def _colour(name: str, names: list[str]) -> str:
    if name == RANDOM:
        return _RANDOM_COLOUR
    #: The compared schedule, and the run's own.
    return (RUN_COLOURS[4], RUN_COLOURS[0])[names.index(name)]


# -- in the terminal, while they go on --------------------------------------------------------------------

_GAP = 2
#: Lines of a side beside its picture: what it is, and what it has done.
_WORDS = 6


class Side:
    """One of two runs, as `CompareView` draws it; for `play` the view of that run."""

    def __init__(self, name: str, view: CompareView) -> None:
        self.name = name
        self.image: Image | None = None  #: what its world showed last
        self._about_to_begin: Callable[[], object] = lambda: None
        self._view = view
        self._state = "to come"
        self._see: Sight = lambda: None
        self._run: RunHeader | None = None
        self._stats: RunStats | None = None
        self._num_ticks = 0  #: so far

    def start(self, about_to_begin: Callable[[], object]) -> None:
        """It is played from now on. `about_to_begin`: called when its tick 0 is."""
        self._about_to_begin, self._state = about_to_begin, "starting"

    def begin(self, run: RunHeader, see: Sight) -> None:
        self._about_to_begin()
        self._run, self._see, self._state = run, see, "under way"

    def update(
        self, stats: RunStats, record: RunRecord, booked: Mapping[int, int] | None = None, *, force: bool = False
    ) -> None:
        self._stats, self._num_ticks = stats, record.ticks[-1].tick + 1 if record.ticks else 0
        self._view.changed(self, force=force)

    def look(self) -> None:
        """Take the newest picture of the world."""
        self.image = self._see()

    def end(self) -> None:
        """The run is over: its last picture stays, its memory is let go."""
        self.look()
        self._see, self._state = lambda: self.image, "over"

    def line(self) -> str:
        """For a pipe."""
        if self._run is None or self._stats is None:
            return f"{self.name}: {self._state}"
        elapsed_s, total_s = (ticks / self._run.rate_hz for ticks in (self._num_ticks, self._run.num_ticks))
        return f"{self.name}: {plain_line(self._stats, elapsed_s, total_s)}"

    def lines(self, picture: list[Line], width: int, glyphs: Glyphs) -> list[Line]:
        """Its picture, `_WORDS` lines around it, and a bar of at most `width` cells."""
        run, stats = self._run, self._stats
        who = f"  {counted(run.workers, 'worker')}  " if run is not None else "    "
        title: Line = [(self.name, "bold"), (who, ""), (self._state, "bright_black")]
        words: list[Line] = []
        if run is not None and stats is not None:
            count, acted, episodes = (stats.counters[name] for name in ("ticks", "acted", "episodes"))
            per_s = stats.measured_hz * acted / count if count else None
            score, ended = stats.score, f"{counted(episodes, 'episode')} ended"
            per_ticks = f"  {number(score.per_1000_ticks)} per 1,000 ticks"
            lacking = f" ({share(1 - acted / max(1, count))})"
            words += [
                [(f"{points(score.points)} points", "bold green"), (per_ticks, "")],
                [(f"{number(per_s)} actions a second", "")],
                [(f"{count - acted:,} ticks without an action", ""), (lacking, "")],
                *([[(f"{ended}, mean return {number(stats.mean_return, 2)}", "")]] if episodes else []),
            ]
        words += [[]] * (_WORDS - 2 - len(words))
        bar = progress_bar(self._num_ticks, run.num_ticks, run.rate_hz, width, glyphs) if run is not None else []
        return [title, *picture, *words, bar]


class CompareView(LiveView):
    """Both runs at this moment; a context manager. Lays itself out for whatever terminal prints it."""

    def __init__(self, console: Console | None, names: Sequence[str], **settings: Any) -> None:
        """`settings`: of `LiveView`."""
        super().__init__(console, **settings)
        self.sides = {name: Side(name, self) for name in names}

    def changed(self, side: Side, *, force: bool = False) -> None:
        """Draw, unless that was done a moment ago."""
        if not self.is_due(force=force):
            return
        if not self.is_live:
            self.log(side.line())
            return
        if self.shows_world:
            side.look()
        self.show(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        height = max(1, (options.height or options.max_height or 25) - 1)
        width = max(1, (options.max_width - _GAP) // 2)
        pictures = [draw_image(side.image, console, options, width, height - _WORDS) for side in self.sides.values()]
        highest = max(map(len, pictures))
        # Their last lines are to be on one line.
        padded: list[list[Line]] = [[[]] * (highest - len(picture)) + picture for picture in pictures]
        left, right = (
            side.lines(picture, width, glyphs) for side, picture in zip(self.sides.values(), padded, strict=True)
        )
        yield from print_lines(left[:height], right[:height], width, options.encoding, _GAP)
