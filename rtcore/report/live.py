"""The terminal while a run is under way: facts, a lane per worker that shows the stagger, and the ticks.

Drawn from what is counted and recorded anyway; nothing is asked of the env process or of a worker. It lays
out its own lines, as many as fit: it shares the CPUs with the env process and has to be cheap.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice, zip_longest
from operator import itemgetter
from typing import Self, TypeAlias, TypeVar

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock, MonotonicClock
from rtcore.errors import counted
from rtcore.report.colours import KIND_COLOURS
from rtcore.report.halfblocks import Line, half_blocks
from rtcore.report.lanes import (
    ASCII,
    BAR_STYLE,
    UNICODE,
    Columns,
    Glyphs,
    LaneCell,
    lane_name,
    shade_name,
    tick_lane,
    worker_lanes,
)
from rtcore.report.numbers import FINE
from rtcore.report.terminal import LABEL_CELLS, Terminal, encodable, print_line
from rtcore.report.wording import (
    HUMAN_MEANING,
    contract_facts,
    learner_facts,
    number,
    points,
    policy_notes,
    realtime_text,
    share,
    task_facts,
)
from rtcore.results.axis import TickAxis
from rtcore.results.run_record import RunRecord
from rtcore.results.summary import RunHeader, RunStats, WorkerStats
from rtcore.scheduling.dispatch import KIND_COUNTERS, OUTCOME_COUNTERS, Outcome
from rtcore.spaces.image import Image

#: What the world looks like at this moment; None: not known.
Sight: TypeAlias = Callable[[], Image | None]
_Row = TypeVar("_Row")

_REDRAW_NS = 200 * NS_PER_MS
_PLAIN_EVERY_NS = 2 * NS_PER_S
_MIN_WINDOW_TICKS = 80
_MAX_JOBS_DRAWN = 4096
#: Of the world's picture: smallest side, largest part of the terminal's width, and where there is no room for it.
_SMALLEST_IMAGE_CELLS = 16
_IMAGE_SHARE = 0.4
_LEAST_WIDTH_WITH_IMAGE = 60
#: Facts up to this rank are shown in part where there is no room for all of them.
_CORE_RANK = 2


def draw_image(image: Image | None, console: Console, options: ConsoleOptions, columns: int, rows: int) -> list[Line]:
    """`image` as lines of at most `columns` cells; none where it would be too small, or cannot be drawn."""
    if image is None or options.ascii_only or columns < _SMALLEST_IMAGE_CELLS or 2 * rows < _SMALLEST_IMAGE_CELLS:
        return []
    return half_blocks(image, columns, rows, colours=not console.no_color and console.color_system is not None)


def print_lines(
    lines: Iterable[Line], others: Sequence[Line], width: int, encoding: str, gap: int = 2
) -> Iterator[Segment]:
    """For Rich: `lines`, and `others` to the right of them; of either at most `width` cells are shown."""
    for line, other in zip_longest(lines, others, fillvalue=()):
        left, right = (
            [Segment(encodable(text, encoding), Style.parse(style)) for text, style in part] for part in (line, other)
        )
        yield from Segment.adjust_line_length(left, width, pad=bool(others))
        if other:
            yield from (Segment(" " * gap), *Segment.adjust_line_length(right, width, pad=False))
        yield Segment.line()


def progress_bar(done: int, total: int, rate_hz: float, width: int, glyphs: Glyphs, more: str = "") -> Line:
    """How far a run is, in ticks and in at most `width` cells; `total` 0: its end is not known."""
    if not total:
        return [(f"{done / rate_hz:.1f} s", "")]
    text = f" {done / rate_hz:.1f} of {total / rate_hz:.1f} s{more}"
    cells = max(0, min(50, width - len(text)))
    full = min(cells, cells * done // total)
    return [(glyphs.full * full, "blue"), (glyphs.empty * (cells - full), "blue"), (text, "")]


def plain_line(stats: RunStats, elapsed_s: float, total_s: float) -> str:
    """The same in one line, for logs. `total_s` 0 if the end is not known."""
    counters, shapes = stats.counters, stats.distributions
    interval, delay = shapes["interval_ticks"], shapes["delay_ticks"]
    p50, p99 = (number(delay.percentile(q), 0) for q in (0.5, 0.99))
    every = f"every {number(interval.mean, 3)} ticks (CV {number(interval.cv, 3)})"
    parts = [
        f"{elapsed_s:.1f}/{total_s:.1f} s" if total_s else f"{elapsed_s:.1f} s",
        f"{number(stats.measured_hz, 2)} Hz",
        f"acted {share(stats.acted_fraction)}",
        f"{every}, delay p50 {p50} p99 {p99} ticks" if interval.count else "no two actions yet",
        f"late p99 {number(shapes['lateness_ns'].percentile(0.99) / NS_PER_US)} us",
        f"points {points(stats.score.points)} ({number(stats.score.per_1000_ticks)} per 1,000 ticks)",
    ]
    if stats.contract:
        parts.append(f"contract: {'; '.join(text for text, _ in contract_facts(stats.contract))}")
    if stats.learner is not None:
        parts += [text for text, _ in learner_facts(stats.learner)]
    names = ("missed", "overruns", "reset_overruns", "skipped_ticks", "stretched_ticks", "episodes")
    named = {name.replace("_", " "): counters[name] for name in names}
    named["restarts"] = sum(worker.restarts for worker in stats.workers)
    named["take-overs"] = counters["take_overs"]
    if stats.head is not None:
        named |= {"base ticks": stats.base_ticks, "head restarts": stats.head.restarts}
    return ", ".join(parts + [text for text, _ in _warnings(named)])


class LiveFrame:
    """A run at this moment; lays itself out for whatever terminal prints it. Owns copies of what it shows.

    `booked`: from `booked_ticks`; without it the lanes end with finished jobs. `image`: what the world looks like,
    drawn where the terminal has room and characters for it.
    """

    def __init__(
        self,
        stats: RunStats,
        record: RunRecord,
        run: RunHeader,
        booked: Mapping[int, int] | None = None,
        image: Image | None = None,
    ) -> None:
        self._stats = stats
        self._image = image
        self._run = run
        self._booked = booked or {}
        self._delay_ticks = stats.delay_ticks or stats.plan.delay_ticks
        self._window = max(_MIN_WINDOW_TICKS, 2 * self._delay_ticks)
        self._ticks = _newest(record.ticks, self._window)
        self._jobs = _newest(record.jobs, _MAX_JOBS_DRAWN)
        self._returns = [episode.total_reward for episode in record.episodes.newest(10)]
        self._lost = (record.lost_ticks, record.lost_jobs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        width, height = options.max_width, max(1, (options.height or options.max_height or 25) - 1)
        columns = int(width * _IMAGE_SHARE) if width >= _LEAST_WIDTH_WITH_IMAGE else 0
        picture = draw_image(self._image, console, options, columns, height)
        left = width - sum(cell_len(text) for text, _ in picture[0]) - 2 if picture else width
        yield from print_lines(self.lines(left, height, glyphs), picture, left, options.encoding)

    def lines(self, width: int, height: int, glyphs: Glyphs) -> list[Line]:
        """At most `height` lines. What matters least is left out first."""
        bottom = [self._tick_lane(width, glyphs), self._progress(width, glyphs)]
        lanes_wanted = min(len(self._stats.places), max(2, height // 3))
        room = height - len(bottom) - lanes_wanted
        kept: dict[int, list[Line]] = {}
        for position, rank, fact in sorted(self._facts(glyphs), key=lambda fact: fact[1]):
            block = _flow(*fact, width)
            if len(block) <= room or (room > 0 and rank <= _CORE_RANK):
                kept[position] = block[:room]
                room -= len(kept[position])
        top = [line for position in sorted(kept) if position >= 0 for line in kept[position]]
        legend = kept.get(-1, [])
        space = height - len(top) - len(legend) - len(bottom)
        lines = [*top, *self._lanes(width, space, glyphs), bottom[0], *legend, bottom[1]]
        return lines[-height:]

    # -- facts ---------------------------------------------------------------------------------------------

    def _facts(self, glyphs: Glyphs) -> Iterator[tuple[int, int, tuple[str, Line]]]:
        """(place from the top, or -1: below the lanes; rank: 0 is dropped last; label and items)"""
        facts: list[tuple[int, str, Line]] = [
            (0, "world", self._world()),
            (1, "policy", self._policy()),
            *([(2, "task", task_facts(self._stats.task))] if self._stats.task else []),
            (4, "stagger", self._stagger()),
            *([(6, "realtime", [(realtime_text(self._run.realtime), "")])] if self._run.clock != "virtual" else []),
            (2, "ticks", self._tick_facts()),
            (7, "kinds", self._counts(KIND_COUNTERS)),
            (1, "actions", self._action_facts()),
            (3, "outcomes", self._counts(OUTCOME_COUNTERS)),
            (4, "workers", self._worker_facts()),
            *([(2, "head", self._head_facts(self._stats.head))] if self._stats.head is not None else []),
            (2, "score", self._score_facts()),
            *([(1, "contract", contract_facts(self._stats.contract))] if self._stats.contract else []),
            *([(2, "learner", learner_facts(self._stats.learner))] if self._stats.learner is not None else []),
        ]
        yield from ((place, rank, (label, items)) for place, (rank, label, items) in enumerate(facts))
        yield -1, 8, ("", self._legend(glyphs))

    def _world(self) -> Line:
        return [(self._run.world, "bold"), (f"{self._run.rate_hz:.4f} Hz, {self._run.clock} clock", "")]

    def _policy(self) -> Line:
        notes = policy_notes(self._run.policy)
        warnings = [(note.split(":")[0].upper(), "bold yellow") for note in notes]
        return [(self._run.policy, "yellow" if notes else ""), *warnings]

    def _stagger(self) -> Line:
        run, stats = self._run, self._stats
        return [
            (f"{run.stagger}, {counted(run.workers, 'worker')} on {run.device}", "bold"),
            (f"delay {self._delay_ticks}, stride {stats.stride_ticks or stats.plan.stride_ticks} ticks", ""),
            *([(f"run {run.run_id}", "bright_black")] if run.run_id else []),
        ]

    def _tick_facts(self) -> Line:
        stats, counters, late = self._stats, self._stats.counters, self._stats.distributions["lateness_ns"]
        p50, p99 = (number(late.percentile(q) / NS_PER_US) for q in (0.5, 0.99))
        return [
            (f"{number(stats.measured_hz, 3)} of {float(stats.rate_hz):.4f} Hz", ""),
            (f"late p50 {p50} p99 {p99} max {number(late.max / NS_PER_US)} us", ""),
            *(_warning(name, counters[name + ending]) for name, ending in (("overruns", ""), ("skipped", "_ticks"))),
            *_warnings({"reset overruns": counters["reset_overruns"], "stretched": counters["stretched_ticks"]}),
        ]

    def _action_facts(self) -> Line:
        stats, period_ms = self._stats, float(1000 / self._stats.rate_hz)
        interval, delay = stats.distributions["interval_ticks"], stats.distributions["delay_ticks"]
        p50, p99 = delay.percentile(0.5), delay.percentile(0.99)
        style = "bold green" if stats.acted_fraction >= 0.99 else "bold yellow"
        return [
            (f"acted {share(stats.acted_fraction)}", style),
            (f"interval {number(interval.mean, 3)} ticks (CV {number(interval.cv, 3)})", ""),
            (f"delay p50 {number(p50, 0)} p99 {number(p99, 0)} ticks", ""),
            (f"({number(p50 * period_ms)} / {number(p99 * period_ms)} ms)", ""),
            *self._person(),
        ]

    def _person(self) -> Line:
        """Who has stepped in, or had."""
        if self._ticks and self._ticks[0].intervention:
            return [(HUMAN_MEANING.upper(), "bold magenta")]
        return [(f"take-overs {count}", "")] if (count := self._stats.counters["take_overs"]) else []

    def _counts(self, names: Iterable[str]) -> Line:
        counters = self._stats.counters
        found = [(f"{name} {counters[name]}", "" if name in FINE else "yellow") for name in names if counters[name]]
        return found or [("none yet", "")]

    def _worker_facts(self) -> Line:
        stats, run, (lost_ticks, lost_jobs) = self._stats, self._run, self._lost
        up = (f"{stats.num_up} of {run.workers} up", "bold red" if stats.num_up < run.workers else "")
        lapped = sum(worker.lapped_frames for worker in stats.workers)
        return [
            *([up] if stats.num_up else []),
            _warning("restarts", sum(worker.restarts for worker in stats.workers)),
            *_warnings({"lapped frames": lapped, "lost tick rows": lost_ticks, "lost job rows": lost_jobs}),
        ]

    def _head_facts(self, head: WorkerStats) -> Line:
        """Of a policy with two speeds."""
        took = head.inference_ns.percentile(0.99) / NS_PER_MS
        return [
            (f"acted on {self._stats.counters['head_actions']:,} ticks", ""),
            _warning("base ticks", self._stats.base_ticks),
            (f"inference p99 {number(took, 2)} ms", ""),
            _warning("restarts", head.restarts),
        ]

    def _score_facts(self) -> Line:
        score, returns = self._stats.score, self._returns
        facts = [(f"{points(score.points)} points", "bold"), (f"{number(score.per_1000_ticks)} per 1,000 ticks", "")]
        if score.unfinished is not None:
            facts.append((f"this episode {points(score.unfinished.total_reward)}", ""))
        if returns:
            mean = f"mean of the last {len(returns)} returns {number(sum(returns) / len(returns), 2)}"
            facts.append((f"{self._stats.counters['episodes']:,} ended, {mean}", ""))
        return facts

    def _legend(self, glyphs: Glyphs) -> Line:
        has_head = self._stats.head is not None
        has_person = self._stats.counters["take_overs"] > 0
        ticks = [*KIND_COUNTERS, *(["base"] if has_head else []), *(["human"] if has_person else [])]
        return [
            (f"{glyphs.start} booked", BAR_STYLE[Outcome.ON_TIME]),
            (f"{glyphs.computing} computing", BAR_STYLE[Outcome.ON_TIME]),
            (f"{glyphs.waiting} waiting for its tick", BAR_STYLE[Outcome.ON_TIME]),
            (f"{glyphs.applied} applied", BAR_STYLE[Outcome.ON_TIME]),
            (f"{glyphs.late} applied late", BAR_STYLE[Outcome.LATE]),
            (f"{glyphs.unused} not used", BAR_STYLE[Outcome.SUPERSEDED]),
            *([(f"{glyphs.features} features used", BAR_STYLE[Outcome.FEATURES_USED])] if has_head else []),
            (f"{glyphs.lost} lost", BAR_STYLE[Outcome.DROPPED_DEAD_WORKER]),
            *((f"{glyphs.ticks[name]} {shade_name(name)}", KIND_COLOURS[name]) for name in ticks if name != "acted"),
        ]

    def _progress(self, width: int, glyphs: Glyphs) -> Line:
        rate, total = self._run.rate_hz, self._run.num_ticks
        done = self._ticks[0].tick + 1 if self._ticks else 0
        left = f", {max(0, total - done) / rate:.1f} s left"
        return [("time      ", "bold"), *progress_bar(done, total, rate, width - LABEL_CELLS, glyphs, more=left)]

    # -- lanes ---------------------------------------------------------------------------------------------

    def _columns(self, width: int) -> Columns:
        """As many ticks as fit; the newest is the last column."""
        count = max(1, min(self._window, width - LABEL_CELLS))
        axis = TickAxis(reversed(self._ticks[:count]), float(NS_PER_S / self._stats.rate_hz))
        return Columns(self._ticks[0].tick - count + 1, count, axis)

    def _lanes(self, width: int, space: int, glyphs: Glyphs) -> list[Line]:
        places, head = self._stats.places, self._head
        hidden = 0 if len(places) <= space else len(places) - max(0, space - 1)
        if space <= 0 or not self._ticks:
            return []
        if hidden:  # the head's lane, which is the last, says most
            end = len(places) - (head >= 0)
            places = [*places[: max(0, end - hidden)], *places[end:]][: max(0, space - 1)]
        lanes = worker_lanes(self._jobs, self._booked, places, self._columns(width), glyphs)
        lines: list[Line] = []
        down = self._down()
        for place, lane in lanes.items():
            name = lane_name(place, head)
            label, style = (f"{name} down", "bold red") if place in down else (name, "bold")
            lines.append([(f"{label:<{LABEL_CELLS}}", style), *_runs(lane)])
        if hidden:
            lines.append([(f"{glyphs.more} and {hidden} more", "bright_black")])
        return lines

    @property
    def _head(self) -> int:
        return self._stats.head.index if self._stats.head is not None else -1

    def _down(self) -> set[int]:
        """Workers whose newest job was lost with them, or that have no process."""
        stats, last = self._stats, {job.worker: job for job in reversed(self._jobs)}
        down = {
            worker
            for worker, job in last.items()
            if job.outcome == Outcome.DROPPED_DEAD_WORKER and self._booked.get(worker, -1) <= job.booked_tick
        }
        everyone = [*stats.workers, *([stats.head] if stats.head is not None else [])]
        gone = {worker.index for worker in everyone if worker.pid < 0} if stats.clock != "virtual" else set()
        return down | gone

    def _tick_lane(self, width: int, glyphs: Glyphs) -> Line:
        cells = tick_lane(self._ticks, self._columns(width), glyphs, self._head) if self._ticks else []
        return [("tick      ", "bold"), *_runs(cells)]


def _warning(name: str, count: int) -> tuple[str, str]:
    return f"{name} {count}", "yellow" if count else ""


def _warnings(counts: Mapping[str, int]) -> Line:
    """Of those that there are."""
    return [_warning(name, count) for name, count in counts.items() if count]


def _runs(cells: list[LaneCell]) -> Line:
    """Neighbours of one style as one piece."""
    pieces = groupby(cells, key=itemgetter(1))
    return [("".join(glyph for glyph, _ in piece), style) for style, piece in pieces]


def _flow(label: str, items: Line, width: int) -> list[Line]:
    """`items` one after another behind a label, on as many lines as they need."""
    margin = LABEL_CELLS if label else 0
    room = max(8, width - margin)
    lines: list[Line] = []
    used = room + 1
    for text, style in items:
        for part in textwrap.wrap(text, room) or [""]:
            if used + 2 + len(part) > room:
                lines.append([(f"{label if not lines else '':<{margin}}", "bold")])
                used = -2
            lines[-1] += [("  " if used >= 0 else "", ""), (part, style)]
            used = max(used, 0) + len(part) + (2 if used >= 0 else 0)
    return lines


def _newest(rows: deque[_Row], count: int) -> list[_Row]:
    """The newest `count` rows, newest first, while another thread may be appending."""
    while True:
        try:
            return list(islice(reversed(rows), count))
        except RuntimeError:  # it grew under the iterator
            continue


class LiveView:
    """The view of one run. In a terminal a live area; elsewhere, or with `live=False`, plain lines.

    A context manager: leaving it gives the terminal back, whatever happened. Call `begin` once, when the run
    has started; `update` as often as you like (it draws 5 times a second at most, or a line every 2 s).
    """

    def __init__(
        self,
        console: Console | None = None,
        live: bool = True,
        clock: Clock | None = None,
        *,
        show_world: bool = True,
        quiet: bool = False,
    ) -> None:
        """`quiet`: nothing is shown of how the run goes; `log` prints its lines all the same."""
        self._console = console if console is not None else Terminal(highlight=False)
        self._clock = clock if clock is not None else MonotonicClock()
        self._quiet = quiet
        self.is_live = live and not quiet and self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._run: RunHeader | None = None
        self._see: Sight = lambda: None
        self.shows_world = self.is_live and show_world
        self._drawn_ns: int | None = None
        self._said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def begin(self, run: RunHeader, see: Sight = lambda: None) -> None:
        """Tick 0 is about to begin. `see`: asked whenever the world is to be drawn."""
        self._run = run
        self._see = see

    def log(self, message: str) -> None:
        """A line that stays, above the live area."""
        print_line(self._console, message)

    def update(
        self,
        stats: RunStats,
        record: RunRecord,
        booked: Mapping[int, int] | None = None,
        *,
        force: bool = False,
    ) -> None:
        """Show this state, unless one was shown a moment ago. `force`: show it anyway (the last one)."""
        if not self.is_due(force=force):
            return
        run = self._run
        if run is None:
            raise ValueError("update before begin: the view does not know yet what it shows")
        if not self.is_live:
            done = record.ticks[-1].tick + 1 if record.ticks else 0
            line = plain_line(stats, done / run.rate_hz, run.num_ticks / run.rate_hz)
            # At its end a run stands still for some seconds: its files are written.
            if line != self._said:
                self.log(line)
                self._said = line
            return
        self.show(LiveFrame(stats, record, run, booked, self._see() if self.shows_world else None))

    def is_due(self, *, force: bool) -> bool:
        """Whether it is time to draw; it counts as done then."""
        if self._quiet:
            return False
        now_ns = self._clock.now_ns()
        every_ns = _REDRAW_NS if self.is_live else _PLAIN_EVERY_NS
        if not force and self._drawn_ns is not None and now_ns - self._drawn_ns < every_ns:
            return False
        self._drawn_ns = now_ns
        return True

    def show(self, frame: RenderableType) -> None:
        """Put this into the live area."""
        if self._live is None:
            self._live = Live(frame, console=self._console, auto_refresh=False, vertical_overflow="crop")
            self._live.start(refresh=True)
        else:
            self._live.update(frame, refresh=True)
