"""The terminal while a run is under way: facts, a lane per worker that shows the stagger, the ticks themselves.

Drawn from what is counted and recorded anyway; nothing is asked of the env process or of a worker. It draws its
own lines, as many as fit, because general terminal layout would cost the env process's CPUs 10 times as much.
"""

from __future__ import annotations

import textwrap
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import groupby, islice
from types import TracebackType
from typing import NamedTuple, Self, TypeAlias, TypeVar

from rich.cells import cell_len, set_cell_size
from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.segment import Segment
from rich.style import Style

from rtcore.clock import NS_PER_MS, NS_PER_S, NS_PER_US, Clock, MonotonicClock
from rtcore.dispatch import Outcome, TickKind
from rtcore.report.record import JobRow, RunRecord
from rtcore.report.summary import OUTCOMES, TICK_KINDS, RunStats
from rtcore.report.table import RunHeader, number, policy_notes, realtime_text, share
from rtcore.shared import SharedRun

Line: TypeAlias = list[tuple[str, str]]  #: (text, style) from left to right
_Row = TypeVar("_Row")

_REDRAW_NS = 200 * NS_PER_MS
_PLAIN_EVERY_NS = 2 * NS_PER_S
_MIN_WINDOW_TICKS = 80
_MAX_JOBS_DRAWN = 4096
_LABEL_CELLS = 10
#: Style of a job's bar, by outcome.
_BAR_STYLE = {
    Outcome.ON_TIME: "green",
    Outcome.LATE: "yellow",
    Outcome.SUPERSEDED: "magenta",
    Outcome.STALE_EPISODE: "bright_black",
    Outcome.DROPPED_DEAD_WORKER: "red",
    Outcome.DROPPED_LATE: "yellow",
    Outcome.UNFINISHED: "cyan",
}
_KIND_STYLE = {
    TickKind.ACTED: "green",
    TickKind.MISSED: "bold red",
    TickKind.IDLE: "yellow",
    TickKind.LEAD_IN: "bright_black",
    TickKind.RESET: "bold blue",
}


class Glyphs(NamedTuple):
    """The characters of the lanes. Every state has its own, so that they read without colour."""

    start: str
    computing: str
    waiting: str
    applied: str
    late: str
    unused: str
    lost: str
    down: str
    kinds: str  #: by TickKind
    skipped: str
    full: str
    empty: str
    more: str


UNICODE = Glyphs("▐", "█", "░", "●", "◐", "×", "!", "╌", "●x·-R", "s", "█", "░", "…")
ASCII = Glyphs("[", "=", ".", "*", "L", "x", "!", "-", "*x.-R", "s", "#", ".", "...")


def booked_ticks(shared: SharedRun, num_workers: int) -> dict[int, int]:
    """The tick of each worker's newest booking in the present phase: shows which jobs are under way."""
    phase_seq = shared.run_control["phase_seq"]
    jobs = ((worker, shared.jobs.read(worker)) for worker in range(num_workers))
    return {worker: job.obs_tick for worker, job in jobs if job.phase_seq == phase_seq}


def render(
    stats: RunStats, record: RunRecord, run: RunHeader, booked: Mapping[int, int] | None = None
) -> LiveFrame:
    """The view at this moment. `booked`: see `booked_ticks`; without it only finished jobs are in the lanes."""
    return LiveFrame(stats, record, run, booked or {})


def plain_line(stats: RunStats, elapsed_s: float, total_s: float) -> str:
    """The same in one line, for logs. `total_s` 0 if the end is not known."""
    counters, shapes = stats.counters, stats.distributions
    interval, delay = shapes["interval_ticks"], shapes["delay_ticks"]
    parts = [
        f"{elapsed_s:.1f}/{total_s:.1f} s" if total_s else f"{elapsed_s:.1f} s",
        f"{number(stats.measured_hz, 2)} Hz",
        f"acted {share(stats.acted_fraction)}",
        f"every {number(interval.mean, 3)} ticks (CV {number(interval.cv, 3)})",
        f"delay p50 {number(delay.percentile(0.5), 0)} p99 {number(delay.percentile(0.99), 0)} ticks",
        f"late p99 {number(shapes['lateness_ns'].percentile(0.99) / NS_PER_US)} us",
    ]
    restarts = sum(worker.restarts for worker in stats.workers)
    named = {name: counters[name] for name in ("missed", "overruns", "skipped_ticks", "episodes")}
    named |= {"restarts": restarts}
    parts += [f"{name.replace('_', ' ')} {count}" for name, count in named.items() if count]
    return ", ".join(parts)


class LiveFrame:
    """One picture of a run; lays itself out for whatever terminal prints it. Owns copies of what it shows."""

    def __init__(self, stats: RunStats, record: RunRecord, run: RunHeader, booked: Mapping[int, int]) -> None:
        self._stats = stats
        self._run = run
        self._booked = booked
        self._delay_ticks = stats.delay_ticks or stats.plan.delay_ticks
        self._window = max(_MIN_WINDOW_TICKS, 2 * self._delay_ticks)
        self._ticks = _newest(record.ticks, self._window)
        self._jobs = _newest(record.jobs, _MAX_JOBS_DRAWN)
        self._returns = record.episode_returns[-10:]
        self._lost = (record.lost_ticks, record.lost_jobs)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        width, height = options.max_width, (options.height or options.max_height or 25) - 1
        for line in self.lines(width, max(1, height), glyphs):
            for text, style in line:
                yield Segment(_printable(text, options.encoding), Style.parse(style))
            yield Segment.line()

    def lines(self, width: int, height: int, glyphs: Glyphs) -> list[Line]:
        """At most `height` lines of at most `width` cells. What matters least is left out first."""
        bottom = [self._tick_lane(width, glyphs), self._progress(width, glyphs)]
        lanes_wanted = min(self._stats.plan.workers, 4 if height >= 18 else 2)
        room = height - len(bottom) - lanes_wanted
        kept: dict[int, list[Line]] = {}
        for position, _, fact in sorted(self._facts(glyphs), key=lambda fact: fact[1]):
            block = _flow(*fact, width)
            if len(block) <= room:
                kept[position] = block
                room -= len(block)
        top = [line for position in sorted(kept) if position >= 0 for line in kept[position]]
        legend = kept.get(-1, [])
        space = height - len(top) - len(legend) - len(bottom)
        lines = [*top, *self._lanes(width, space, glyphs), bottom[0], *legend, bottom[1]]
        return [_crop(line, width) for line in lines[-height:]]

    # -- facts ---------------------------------------------------------------------------------------------

    def _facts(self, glyphs: Glyphs) -> Iterable[tuple[int, int, tuple[str, list[tuple[str, str]]]]]:
        """(place from the top, or -1: below the lanes; rank: 0 is dropped last; label and items)"""
        facts = [
            (0, ("world", self._world())),
            (1, ("policy", self._policy())),
            (6, ("realtime", [(realtime_text(self._run.realtime), "")])),
            (2, ("ticks", self._tick_facts())),
            (7, ("kinds", self._counts(TICK_KINDS, ("acted", "lead_in", "reset")))),
            (1, ("actions", self._action_facts())),
            (3, ("outcomes", self._counts(OUTCOMES, ("on_time", "unfinished")))),
            (4, ("workers", self._worker_facts())),
            (5, ("episodes", self._episode_facts())),
        ]
        if self._run.clock != "wall":
            del facts[2]
        yield from ((place, rank, fact) for place, (rank, fact) in enumerate(facts))
        yield -1, 8, ("", self._legend(glyphs))

    def _world(self) -> Line:
        run, stats = self._run, self._stats
        return [
            (f"{run.world} at {run.rate_hz:.4f} Hz", "bold"),
            (f"{run.stagger}, {run.workers} worker{'s' if run.workers != 1 else ''} on {run.device}", "bold"),
            (f"delay {self._delay_ticks}, stride {stats.stride_ticks or stats.plan.stride_ticks} ticks", ""),
            (f"run {run.run_id}" if run.run_id else f"{run.clock} clock", "bright_black"),
        ]

    def _policy(self) -> Line:
        notes = policy_notes(self._run.policy)
        return [
            (self._run.policy, "yellow" if notes else ""),
            *((note.split(":")[0].upper(), "bold yellow") for note in notes),
        ]

    def _tick_facts(self) -> Line:
        stats, late = self._stats, self._stats.distributions["lateness_ns"]
        counters = stats.counters
        us = [number(late.percentile(q) / NS_PER_US) for q in (0.5, 0.99)]
        return [
            (f"{number(stats.measured_hz, 3)} of {float(stats.rate_hz):.4f} Hz", ""),
            (f"late p50 {us[0]} p99 {us[1]} max {number(late.max / NS_PER_US)} us", ""),
            (f"overruns {counters['overruns']}", "yellow" if counters["overruns"] else ""),
            (f"skipped {counters['skipped_ticks']}", "yellow" if counters["skipped_ticks"] else ""),
        ]

    def _action_facts(self) -> Line:
        stats = self._stats
        interval, delay = stats.distributions["interval_ticks"], stats.distributions["delay_ticks"]
        period_ms = float(1000 / stats.rate_hz)
        p50, p99 = delay.percentile(0.5), delay.percentile(0.99)
        return [
            (
                f"acted {share(stats.acted_fraction)}",
                "bold green" if stats.acted_fraction >= 0.99 else "bold yellow",
            ),
            (f"interval {number(interval.mean, 3)} ticks (CV {number(interval.cv, 3)})", ""),
            (f"delay p50 {number(p50, 0)} p99 {number(p99, 0)} ticks", ""),
            (f"({number(p50 * period_ms)} / {number(p99 * period_ms)} ms)", ""),
        ]

    def _counts(self, names: Iterable[str], good: tuple[str, ...]) -> Line:
        counters = self._stats.counters
        found = [
            (f"{name} {counters[name]}", "" if name in good else "yellow") for name in names if counters[name]
        ]
        return found or [("none yet", "")]

    def _worker_facts(self) -> Line:
        stats, run = self._stats, self._run
        restarts = sum(worker.restarts for worker in stats.workers)
        lapped = sum(worker.lapped_frames for worker in stats.workers)
        facts = [(f"restarts {restarts}", "yellow" if restarts else "")]
        if stats.num_up:
            facts.insert(
                0, (f"{stats.num_up} of {run.workers} up", "bold red" if stats.num_up < run.workers else "")
            )
        for name, count in (
            ("lapped frames", lapped),
            ("lost tick rows", self._lost[0]),
            ("lost job rows", self._lost[1]),
        ):
            if count:
                facts.append((f"{name} {count}", "yellow"))
        return facts

    def _episode_facts(self) -> Line:
        facts = [(f"{self._stats.counters['episodes']}", "")]
        if self._returns:
            mean = sum(self._returns) / len(self._returns)
            facts.append((f"mean of the last {len(self._returns)} returns {number(mean, 2)}", ""))
        return facts

    def _legend(self, glyphs: Glyphs) -> Line:
        kinds = zip(glyphs.kinds, TICK_KINDS, TickKind, strict=True)
        return [
            (f"{glyphs.start} booked", "green"),
            (f"{glyphs.computing} computing", "green"),
            (f"{glyphs.waiting} waiting for its tick", "green"),
            (f"{glyphs.applied} applied", "green"),
            (f"{glyphs.late} applied late", "yellow"),
            (f"{glyphs.unused} not used", "magenta"),
            (f"{glyphs.lost} lost", "red"),
            *(
                (f"{glyph} {name}", _KIND_STYLE[kind])
                for glyph, name, kind in kinds
                if kind != TickKind.ACTED
            ),
        ]

    def _progress(self, width: int, glyphs: Glyphs) -> Line:
        rate, total = self._run.rate_hz, self._run.num_ticks
        done = self._ticks[0].tick + 1 if self._ticks else 0
        if not total:
            return [("time      ", "bold"), (f"{done / rate:.1f} s", "")]
        text = f" {done / rate:.1f} of {total / rate:.1f} s, {max(0, total - done) / rate:.1f} s left"
        cells = max(0, min(50, width - _LABEL_CELLS - len(text)))
        full = min(cells, cells * done // total)
        return [
            ("time      ", "bold"),
            (glyphs.full * full, "blue"),
            (glyphs.empty * (cells - full), "blue"),
            (text, ""),
        ]

    # -- lanes ---------------------------------------------------------------------------------------------

    def _columns(self, width: int) -> tuple[int, int]:
        """(first tick, how many) that the lanes show; the newest tick is the last column."""
        columns = max(1, min(self._window, width - _LABEL_CELLS))
        newest = self._ticks[0].tick if self._ticks else 0
        return newest - columns + 1, columns

    def _lanes(self, width: int, space: int, glyphs: Glyphs) -> list[Line]:
        workers = self._stats.plan.workers
        shown = workers if workers <= space else max(0, space - 1)
        if space <= 0 or not self._ticks:
            return []
        lanes = self._paint(shown, *self._columns(width), glyphs)
        lines: list[Line] = []
        for worker, lane in enumerate(lanes):
            down = self._is_down(worker)
            label = f"w{worker:02d} down" if down else f"w{worker:02d}"
            lines.append([(f"{label:<{_LABEL_CELLS}}", "bold red" if down else "bold"), *_runs(lane)])
        if shown < workers:
            lines.append([(f"{glyphs.more} and {workers - shown} more", "bright_black")])
        return lines

    def _is_down(self, worker: int) -> bool:
        last = next((job for job in self._jobs if job.worker == worker), None)
        if last is not None and last.outcome == Outcome.DROPPED_DEAD_WORKER:
            return self._booked.get(worker, -1) <= last.booked_tick
        return self._stats.clock == "wall" and any(
            w.index == worker and w.pid < 0 for w in self._stats.workers
        )

    def _paint(self, shown: int, first: int, columns: int, glyphs: Glyphs) -> list[list[tuple[str, str]]]:
        """One cell per tick: what each worker did in it."""
        lanes = [[(" ", "")] * columns for _ in range(shown)]
        last_booked = [-1] * shown
        newest, period_ns = self._ticks[0], float(NS_PER_S / self._stats.rate_hz)
        for job in reversed(self._jobs):
            if job.worker >= shown or job.tick < first:
                continue
            last_booked[job.worker] = job.booked_tick
            end = written = job.tick - first
            if job.write_ns:
                written = newest.tick + int((job.write_ns - newest.deadline_ns) // period_ns) - first
            _paint_job(lanes[job.worker], job, job.booked_tick - first, written, end, glyphs)
        for worker, booked in self._booked.items():
            if worker < shown and booked > last_booked[worker] and booked - first < columns:
                lane, start = lanes[worker], max(0, booked - first)
                lane[start:] = _bar(lane[start], glyphs, "cyan", columns - start, marked=booked >= first)
        return lanes

    def _tick_lane(self, width: int, glyphs: Glyphs) -> Line:
        first, columns = self._columns(width)
        cells = [(" ", "")] * columns
        for header in self._ticks:
            column = header.tick - first
            if column < 0:
                break
            kind = TickKind(header.kind)
            cells[column] = (glyphs.kinds[kind], _KIND_STYLE[kind])
            for skipped in range(max(0, column - header.skipped_ticks), column):
                cells[skipped] = (glyphs.skipped, "bold red")
        return [("tick      ", "bold"), *_runs(cells)]


def _paint_job(
    lane: list[tuple[str, str]], job: JobRow, start: int, written: int, end: int, glyphs: Glyphs
) -> None:
    """One job into its worker's lane. A cell where one job ended and the next began shows the end."""
    outcome, columns = Outcome(job.outcome), len(lane)
    style = _BAR_STYLE[outcome]
    begin, end = max(0, start), min(end, columns - 1)
    computed = max(begin, min(written + 1, end))
    if begin < end:
        bar = _bar(lane[begin], glyphs, style, computed - begin, marked=start >= 0)
        lane[begin:end] = bar + [(glyphs.waiting, style)] * (end - begin - len(bar))
    if outcome is Outcome.UNFINISHED:
        return
    mark = {
        Outcome.ON_TIME: glyphs.applied,
        Outcome.LATE: glyphs.late,
        Outcome.DROPPED_DEAD_WORKER: glyphs.lost,
    }
    lane[end] = (mark.get(outcome, glyphs.unused), style)
    if outcome is Outcome.DROPPED_DEAD_WORKER:
        lane[end + 1 :] = [(glyphs.down, "red")] * (columns - end - 1)


def _bar(
    before: tuple[str, str], glyphs: Glyphs, style: str, cells: int, *, marked: bool
) -> list[tuple[str, str]]:
    """Computing: its first cell shows the start, or what was there: the end of the job before."""
    bar = [(glyphs.computing, style)] * cells
    if bar and marked:
        bar[0] = (glyphs.start, style) if before[0] in (" ", glyphs.down) else before
    return bar


def _runs(cells: Iterable[tuple[str, str]]) -> Line:
    """Neighbours of one style as one piece."""
    return [
        ("".join(glyph for glyph, _ in run), style) for style, run in groupby(cells, key=lambda cell: cell[1])
    ]


def _flow(label: str, items: Line, width: int) -> list[Line]:
    """`items` one after another behind a label, on as many lines as they need."""
    margin = _LABEL_CELLS if label else 0
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


def _crop(line: Line, width: int) -> Line:
    """At most `width` cells."""
    left, cropped = width, []
    for text, style in line:
        cells = cell_len(text)
        cropped.append((text if cells <= left else set_cell_size(text, max(0, left)), style))
        left -= cells
    return cropped


def _printable(text: str, encoding: str) -> str:
    return text if text.isascii() else text.encode(encoding, "replace").decode(encoding)


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

    def __init__(self, console: Console | None = None, live: bool = True, clock: Clock | None = None) -> None:
        self._console = console if console is not None else Console(highlight=False)
        self._clock = clock if clock is not None else MonotonicClock()
        self.is_live = live and self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._run: RunHeader | None = None
        self._drawn_ns: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def begin(self, run: RunHeader) -> None:
        """Tick 0 is about to begin."""
        self._run = run

    def log(self, message: str) -> None:
        """A line that stays, above the live area."""
        text = _printable(message, self._console.encoding)
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def update(
        self,
        stats: RunStats,
        record: RunRecord,
        booked: Mapping[int, int] | None = None,
        *,
        force: bool = False,
    ) -> None:
        """Show this state, unless the last one was shown a moment ago. `force`: show it anyway (the last one)."""
        now_ns = self._clock.now_ns()
        every_ns = _REDRAW_NS if self.is_live else _PLAIN_EVERY_NS
        if not force and self._drawn_ns is not None and now_ns - self._drawn_ns < every_ns:
            return
        self._drawn_ns = now_ns
        run = self._run if self._run is not None else RunHeader.of_stats(stats)
        if not self.is_live:
            done = record.ticks[-1].tick + 1 if record.ticks else 0
            self.log(plain_line(stats, done / run.rate_hz, run.num_ticks / run.rate_hz))
            return
        frame = render(stats, record, run, booked)
        if self._live is None:
            self._live = Live(frame, console=self._console, auto_refresh=False, vertical_overflow="crop")
            self._live.start(refresh=True)
        else:
            self._live.update(frame, refresh=True)
