"""Two runs side by side in the terminal, while the first or the second of them, or both, go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from rich.console import Console, ConsoleOptions, RenderResult

from rtcore.clock import Clock
from rtcore.report.halfblocks import Image, Line
from rtcore.report.lanes import ASCII, UNICODE
from rtcore.report.live import LiveView, Sight, beside, crop, draw_image, plain_line, segments_of
from rtcore.report.table import RunHeader
from rtcore.report.wording import number, points, share
from rtcore.results.record import RunRecord
from rtcore.results.summary import RunStats

_GAP = 2
#: Lines of a side beside its picture: what it is, and what it has done.
_WORDS = 6


class Side:
    """What is known of one run at this moment. `CompareView` draws it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "to come"
        self.run: RunHeader | None = None
        self.stats: RunStats | None = None
        self.newest_tick = -1
        self.image: Image | None = None

    def words(self) -> list[Line]:
        """`_WORDS` lines."""
        run, stats = self.run, self.stats
        who = f"{run.workers} worker{'s' if run.workers != 1 else ''}" if run is not None else ""
        lines: list[Line] = [[(self.name, "bold"), (f"  {who}  ", ""), (self.state, "bright_black")]]
        if run is None or stats is None:
            return lines
        counters, score = stats.counters, stats.score
        count, acted = counters["ticks"], counters["acted"]
        per_s = stats.measured_hz * acted / count if count else None
        lines += [
            [
                (f"{points(score.points)} points", "bold green"),
                (f"  {number(score.per_1000_ticks)} per 1,000 ticks", ""),
            ],
            [(f"{number(per_s)} actions a second", "")],
            [(f"{count - acted:,} ticks without an action", ""), (f" ({share(1 - acted / max(1, count))})", "")],
        ]
        if counters["episodes"]:
            count = counters["episodes"]
            mean = f"mean return {number(stats.mean_return, 2)}"
            lines.append([(f"{count:,} episode{'s' if count != 1 else ''} ended, {mean}", "")])
        return lines

    def progress(self, width: int, full: str, empty: str) -> Line:
        """How far it is."""
        if self.run is None:
            return []
        done, total = self.newest_tick + 1, self.run.num_ticks
        text = f" {done / self.run.rate_hz:.1f} of {total / self.run.rate_hz:.1f} s" if total else ""
        cells = max(0, min(40, width - len(text)))
        filled = min(cells, cells * done // total) if total else 0
        return [(full * filled, "blue"), (empty * (cells - filled), "blue"), (text, "")]


class CompareFrame:
    """One picture of both; lays itself out for whatever terminal prints it."""

    def __init__(self, sides: Sequence[Side]) -> None:
        self._sides = sides

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        glyphs = ASCII if options.ascii_only else UNICODE
        height = max(1, (options.height or options.max_height or 25) - 1)
        width = max(1, (options.max_width - _GAP) // 2)
        blocks = []
        for side in self._sides:
            picture = draw_image(side.image, console, options, width, height - _WORDS)
            words = side.words()
            padding: list[Line] = [[]] * (_WORDS - 1 - len(words))
            blocks.append([*words[:1], *picture, *words[1:], *padding, side.progress(width, glyphs.full, glyphs.empty)])
        lines = beside(*_level(blocks), width, _GAP)
        yield from segments_of([crop(line, options.max_width) for line in lines[:height]], options.encoding)


class CompareView(LiveView):
    """A context manager; `side` gives what `play` shows one of the runs with."""

    def __init__(
        self,
        console: Console | None,
        names: Sequence[str],
        live: bool = True,
        clock: Clock | None = None,
        *,
        show_world: bool = True,
        quiet: bool = False,
    ) -> None:
        super().__init__(console, live, clock, show_world=show_world, quiet=quiet)
        self._sides = {name: Side(name) for name in names}

    def side(self, name: str, about_to_begin: Callable[[], object] = lambda: None) -> SideView:
        """`about_to_begin`: called when its tick 0 is."""
        return SideView(self, self._sides[name], about_to_begin)

    def image(self, name: str) -> Image | None:
        """What that side's world showed last."""
        return self._sides[name].image

    def changed(self, side: Side, line: Callable[[], str], look: Callable[[], None], *, force: bool = False) -> None:
        """Draw, unless that was done a moment ago. `look`: get the newest picture of the world first."""
        if not self.is_due(force=force):
            return
        if not self.is_live:
            self.log(f"{side.name}: {line()}")
            return
        if self.shows_world:
            look()
        self.show(self.frame())

    def frame(self) -> CompareFrame:
        """Both, at this moment."""
        return CompareFrame([*self._sides.values()])


class SideView:
    """The view of one of two runs: see `LiveView`."""

    def __init__(self, view: CompareView, side: Side, about_to_begin: Callable[[], object]) -> None:
        self._view = view
        self._side = side
        self._about_to_begin = about_to_begin
        self._see: Sight = lambda: None
        side.state = "starting"

    def begin(self, run: RunHeader, see: Sight) -> None:
        self._about_to_begin()
        self._side.run, self._see = run, see
        self._side.state = "under way"

    def update(
        self, stats: RunStats, record: RunRecord, booked: Mapping[int, int] | None = None, *, force: bool = False
    ) -> None:
        run, side = self._side.run or RunHeader.of_stats(stats), self._side
        self.take(stats, record)
        elapsed_s, total_s = (side.newest_tick + 1) / run.rate_hz, run.num_ticks / run.rate_hz
        self._view.changed(side, lambda: plain_line(stats, elapsed_s, total_s), self.look, force=force)

    def take(self, stats: RunStats, record: RunRecord) -> None:
        """What the side has done so far."""
        self._side.stats = stats
        self._side.newest_tick = record.ticks[-1].tick if record.ticks else -1

    def look(self) -> None:
        """Take the newest picture of the world."""
        self._side.image = self._see()

    def end(self) -> None:
        """The run is over: its last picture stays, its memory is let go."""
        self.look()
        self._see = lambda: self._side.image
        self._side.state = "over"


def _level(blocks: list[list[Line]]) -> tuple[list[Line], list[Line]]:
    """Both as long as the longer one, so that their last lines are on one line."""
    left, right = blocks
    count = max(len(left), len(right))
    for block in (left, right):
        block[1:1] = [[]] * (count - len(block))
    return left, right
