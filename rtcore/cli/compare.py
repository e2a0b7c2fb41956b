"""`rtcore-run --compare STAGGER`: two schedules play the same, and random play beside them; then both side by side."""

from __future__ import annotations

import logging
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from rtcore.cli.exits import Stopped, stopping_by
from rtcore.cli.nextsteps import comparison_steps, say_next
from rtcore.cli.play import Played, keep, play, require_packages
from rtcore.cli.video import draw_videos
from rtcore.config.run import RuntimeConfig, make_config
from rtcore.errors import ConfigError, RecordError, RtcoreError
from rtcore.files.strict_json import write_json
from rtcore.processes.servers import shared_imports
from rtcore.report.compare import CompareView, Figures, comparison, comparison_table, draw_comparison, figures_of
from rtcore.report.log import is_quiet, lines_to
from rtcore.report.table import troubles
from rtcore.results.out_folder import COMPARE_FILE, COMPARE_PICTURE, COMPARE_VIDEO, RANDOM, STAGGERED, OutFolder
from rtcore.results.run_record import writing_to
from rtcore.scheduling.schedule import Stagger
from rtcore_workers.policies.choice import resolve_policy

_log = logging.getLogger(__name__)

_THAT_STAGGER = ("max-time", "expected-time")
_DEFAULT_OUT = Path("runs/latest")


def run_comparison(config: RuntimeConfig, compared: Stagger, words: list[str], console: Console) -> int:
    """All of it; the exit code. The compared schedule plays first, then the config's own, then random play."""
    both = halves_of(resolve_policy(config), compared)
    for half in both.values():
        require_packages(half)
    out = config.output.out or _DEFAULT_OUT
    with OutFolder(out, ["rtcore-run", *words]) as folder, shared_imports():
        folder.acquire()
        return _ComparedRuns(both, folder, console, draws_video=config.output.video).run()


def halves_of(config: RuntimeConfig, compared: Stagger) -> dict[str, RuntimeConfig]:
    """The compared schedule's settings, and the run's own, by the names that their folders and figures have.

    ConfigError for a run of which two schedules cannot play the same, or that has no end.
    """
    if config.learning.learn is not None or config.weights.resume is not None:
        raise ConfigError(
            "compare: both schedules play with the same policy, and a run that learns changes it; leave out --learn "
            "and --resume, and play what was learned with --policy-checkpoint"
        )
    if config.schedule.stagger == compared:
        raise ConfigError(
            f"compare: the run's own stagger is {compared}, too; give another one with --stagger or --compare"
        )
    if config.timing.ticks is None and config.timing.duration == math.inf:
        raise ConfigError("compare: each schedule plays to its end, which --duration inf never has; give a number")
    own = STAGGERED if config.schedule.stagger in _THAT_STAGGER else config.schedule.stagger
    out = config.output.out or _DEFAULT_OUT
    halves = {}
    for name, stagger in ((str(compared), compared), (own, config.schedule.stagger)):
        changed: dict[str, Any] = {"stagger": stagger, "out": out / name, "video": False}
        if stagger == compared:
            changed["require"] = ()  # what is required is required of the run, not of what it is compared with
        if stagger == "sequential" and config.schedule.workers != "auto":
            changed["workers"] = 1  # more of them would do nothing
        if config.output.video:
            changed["record"] = True
        halves[name] = _changed(config, **changed)
    return halves


def random_play(config: RuntimeConfig, num_ticks: int, out: Path) -> RuntimeConfig:
    """What plays the same world without looking at it, on the virtual clock, for as many ticks."""
    return make_config(world=config.world, policy="random", workers=1, clock="virtual", ticks=num_ticks, out=out)


def _changed(config: RuntimeConfig, **fields: Any) -> RuntimeConfig:
    """With other settings; the rest as it was given or resolved."""
    return make_config(**(config.given | fields))


class _Silent:
    """The view of a run that nobody needs to see."""

    def begin(self, *_: Any) -> None: ...
    def update(self, *_: Any, **__: Any) -> None: ...


class _ComparedRuns:
    """Two runs, random play, and what is made of them. `run` is called once."""

    def __init__(
        self, halves: dict[str, RuntimeConfig], folder: OutFolder, console: Console, *, draws_video: bool
    ) -> None:
        self._halves = halves
        self._folder = folder
        self._console = console
        self._draws_video = draws_video
        self._played: dict[str, Played] = {}
        self._folders = ExitStack()
        self._cleared = False
        #: What ended it before its time, other than in a run that had begun.
        self._end: BaseException | None = None

    def run(self) -> int:
        with self._folders:
            first = next(iter(self._halves.values()))
            sides, quiet = [*self._halves], is_quiet()
            with CompareView(
                self._console, sides, live=first.output.live, show_world=first.output.show_world, quiet=quiet
            ) as view:
                late: list[Stopped] = []
                try:
                    self._play(view)
                    late = self._folders.enter_context(stopping_by(lambda: None))
                except Stopped as stop:  # between two halves
                    self._end = stop
                images = {name: side.image for name, side in view.sides.items()}
            if not self._played and self._end is not None:
                raise self._end
            return self._sum_up(images, late)

    def _play(self, view: CompareView) -> None:
        """Up to the first half that does not go to its end."""
        for name, config in self._halves.items():
            side = view.sides[name]
            side.start(self._clear)
            _log.info(f"--- {name} plays")
            went_to_its_end = self._play_one(name, config, side)
            side.end()
            if not went_to_its_end:
                return
        ticks = self._played[next(reversed(self._halves))].summary["ticks"]["count"]
        _log.info(f"--- {RANDOM} plays {ticks:,} ticks on the virtual clock")
        config = next(reversed(self._halves.values()))
        with lines_to(lambda line: None):
            self._play_one(RANDOM, random_play(config, ticks, self._folder.path / RANDOM), _Silent())

    def _play_one(self, name: str, config: RuntimeConfig, view: Any) -> bool:
        """Whether it went to its end."""
        try:
            folder = self._folders.enter_context(OutFolder(config.output.out or _DEFAULT_OUT, self._folder.command))
            folder.acquire()
            over = self._played[name] = play(config, view, folder)
            over.held.close()
        except (RtcoreError, Stopped) as end:  # before its first tick
            self._end = end
            return False
        return over.stop is None and over.error is None

    def _clear(self) -> None:
        """Once: the first half is about to begin, so that what an earlier run left beside it can go."""
        if not self._cleared:
            self._cleared = True
            if note := self._folder.clear(kept=self._halves):
                _log.info(note)

    # -- afterwards ----------------------------------------------------------------------------------------

    def _sum_up(self, images: dict[str, Any], stops: list[Stopped]) -> int:
        console, out = self._console, self._folder.path
        for name, over in self._played.items():
            for line in troubles(over.summary, out / name):
                console.print(f"{name:<12}{line}", markup=False, soft_wrap=True, style="yellow")
            if name != RANDOM:
                keep(over, console)
        content = self._content()
        try:
            with writing_to(out):
                if (random := self._played.get(RANDOM)) is not None:
                    write_json(out / RANDOM / "summary.json", random.summary)
                write_json(out / COMPARE_FILE, content)
                if next(iter(self._halves.values())).output.pictures:
                    draw_comparison(content, images, out / COMPARE_PICTURE)
        except RecordError as refused:
            console.print(f"files     {refused}", markup=False, soft_wrap=True)
            self._end = self._end or refused
        self._end = self._end or next(iter(stops), None)
        is_drawn = self._draw_video()
        say_next(comparison_steps(out, content, [*self._halves]), console)
        console.print(comparison_table(content, [*self._halves]))
        codes = [over.exitcode() for over in self._played.values()]  # raises what ended one of them
        if self._end is not None:
            raise self._end
        return next((code for code in codes if code), 0 if is_drawn else 1)

    def _content(self) -> dict[str, Any]:
        config, over = next(iter(self._halves.values())), next(iter(self._played.values()))
        about = {
            "world": config.world.env_id,
            "world_args": config.to_jsonable()["env_args"],
            "policy": over.summary["policy"],
            "seed": config.world.seed,
            "clock": config.timing.clock,
            "rate_hz": over.summary["ticks"]["ideal_hz"],
        }
        return comparison(about, {name: self._figures(name) for name in (*self._halves, RANDOM)})

    def _figures(self, name: str) -> Figures | None:
        over = self._played.get(name)
        if over is None or over.config.output.out is None:
            return None
        return figures_of(over.summary, over.config.schedule.stagger, over.config.output.out)

    def _draw_video(self) -> bool:
        """Of both, if both were recorded. False if that failed."""
        folders = {name: self._folder.path / name for name in self._halves}
        recorded = [(over.summary.get("recording") or {}).get("frames") for over in self._played.values()]
        if not self._draws_video or not all(recorded[: len(folders)]) or len(recorded) < len(folders):
            return True
        again = f"rtcore-run --replay {self._folder.path} --video"
        return draw_videos(folders, self._folder.path / COMPARE_VIDEO, self._console, again)
