"""One run of `rtcore-run`, from its settings to its files: by real processes, or on the virtual clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from rich.console import Console

from rtcore.cli.exits import (
    EXIT_BROKEN_INVARIANT,
    EXIT_CONTRACT_BROKEN,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    Stopped,
    as_signals,
    stop_if_told,
    stopping_by,
)
from rtcore.cli.learning import Boards, draw_curve, places_of
from rtcore.cli.video import draw_video, say_left_out
from rtcore.config.run import RuntimeConfig
from rtcore.errors import WARNING_NOTE, RecordError, RtcoreError
from rtcore.host.seeding import entropy_of, seed_generators
from rtcore.recording.schema import UNFINISHED, require_h5py
from rtcore.report.boards import require_installed
from rtcore.report.finished import write_results, write_trace
from rtcore.report.live import Sight
from rtcore.report.perfetto.writer import require_perfetto
from rtcore.report.table import header_lines
from rtcore.report.video.encoder import require_av
from rtcore.results.contract import broken_in
from rtcore.results.out_folder import OutFolder
from rtcore.results.run_record import RunRecord, writing_to
from rtcore.results.summary import RunHeader, RunStats
from rtcore.runtime.runtime import Runtime
from rtcore.scheduling.planner import Plan
from rtcore.spaces import ObservationSpec
from rtcore.spaces.image import WorldImage
from rtcore.virtual.simulate import Simulation

_log = logging.getLogger(__name__)

_REFRESH_S = 0.25
#: Ticks between two looks at a simulated run. One that learns takes seconds for so many.
_VIRTUAL_REFRESH_TICKS = 1000


class RunView(Protocol):
    """Where a run is shown while it goes on: see `LiveView`."""

    def begin(self, run: RunHeader, see: Sight) -> None: ...
    def update(
        self, stats: RunStats, record: RunRecord, booked: dict[int, int] | None = None, *, force: bool = False
    ) -> None: ...


@dataclass
class Played:
    """A run that is over, and how it ended."""

    config: RuntimeConfig
    run: Runtime | Simulation
    summary: dict[str, Any]
    stops: list[Stopped]
    error: RtcoreError | None
    #: Until it is closed, by `keep`, a signal does not end the program: it is added to `stops`.
    held: ExitStack = field(default_factory=ExitStack)
    files_are_whole: bool = True

    @property
    def stop(self) -> Stopped | None:
        """The signal that ended it."""
        return next(iter(self.stops), None)

    @contextmanager
    def noting_error(self) -> Iterator[None]:
        """What goes wrong in the block is kept: the first of all is the news."""
        try:
            with as_signals():
                yield
        except RtcoreError as error:
            self.error = self.error or error

    def exitcode(self) -> int:
        """Raises what ended the run before its time."""
        if self.error is not None:
            raise self.error
        if self.summary["invariants"]["broken"]:
            return EXIT_BROKEN_INVARIANT
        if self.stop is not None:
            raise self.stop
        # A run failed whose learning stopped at a number that is none, however well it played on, or whose last weights
        # are nowhere.
        learner = self.summary.get("learner") or {}
        learned = not (learner.get("stopped") or learner.get("lost_checkpoint"))
        # As is one whose recording broke off. Frames that were lost on the way are counted, and no failure.
        recorded = not str((self.summary.get("recording") or {}).get("end", "")).startswith(UNFINISHED)
        if not (self.files_are_whole and learned and recorded):
            return EXIT_FAILED
        return EXIT_CONTRACT_BROKEN if broken_in(self.summary) else 0


def require_packages(config: RuntimeConfig) -> None:
    """ConfigError for a package that the run will need in the end, and that is missing."""
    if config.output.trace:
        require_perfetto()
    if config.output.record:
        require_h5py()
    if config.output.video:
        require_av()
    for place in places_of(config):
        require_installed(place)


#: While a run of real processes goes on, a person may step in: see `attending`.
Attend: TypeAlias = Callable[[Runtime], AbstractContextManager[None]]


def play(
    config: RuntimeConfig, view: RunView, folder: OutFolder | None, attend: Attend = lambda runtime: nullcontext()
) -> Played:
    """The run itself. What ends it before its time is in the result; what keeps it from starting is raised."""
    if config.timing.clock == "virtual":
        over = _play_virtual(config, view, folder)
    else:
        over = _play_wall(config, view, folder, attend)
    over.summary = over.run.summary()
    if over.error is not None:
        over.summary["error"] = f"{type(over.error).__name__}: {over.error}"
    if over.stop is not None:
        over.summary["stopped_by"] = str(over.stop)
    return over


def keep(over: Played, console: Console) -> None:
    """The files that are made once a run is over; what could not be written is said, and remembered in `over`."""
    out, record = over.config.output.out, over.run.record
    if out is None:
        over.held.close()
        return
    if record is not None:
        try:
            # They take a moment, and the run is worth them: whoever stops the program now waits for them.
            with stopping_by(lambda: None) as stops, writing_to(out):
                pictures = over.config.output.pictures
                write_results(out, over.summary, over.run.stats(), record, pictures=pictures)
                if pictures:
                    draw_curve(over.config, over.run.stats())
        except RecordError as refused:
            # What went wrong in the run is the news; that its files are not whole comes beside it.
            console.print(f"files     {refused}", markup=False, soft_wrap=True)
            over.error = over.error or refused
        over.stops += stops
    over.held.close()
    traced = not over.config.output.trace or record is None or write_trace(out, console)
    drawn = not over.config.output.video or _draw_video(out, over, console)
    over.files_are_whole = traced and drawn


def _draw_video(folder: Path, over: Played, console: Console) -> bool:
    """Also of a run that failed, or that Ctrl-C ended; who is told to terminate has no time for it."""
    if not (over.summary.get("recording") or {}).get("frames"):
        return True
    if over.stop is not None and over.stop.exitcode != EXIT_INTERRUPTED:
        say_left_out(folder, console)
        return True
    return draw_video(folder, console)


def _play_wall(config: RuntimeConfig, view: RunView, folder: OutFolder | None, attend: Attend) -> Played:
    """Real processes. What happened up to a signal or an error is kept, and summed up."""
    # A broken contract is logged and shown; the summary and the exit code judge it at the end.
    runtime = Runtime(config, folder=folder, on_contract_broken=lambda broken: None)
    over = Played(config, runtime, {}, [], None)
    boards = Boards(config)
    with runtime:
        try:
            with over.noting_error():
                _begin(runtime, runtime.stats().plan, view)
                with attend(runtime):
                    while not runtime.wait(_REFRESH_S):
                        _update(view, runtime)
                        boards.update(runtime.stats)
                        stop_if_told()
                _update(view, runtime, force=True)
            # From here on there is something to keep.
            over.stops = over.held.enter_context(stopping_by(lambda: None))
        except Stopped as stop:
            over.stops.append(stop)
            runtime.close()
            with over.noting_error():
                runtime.wait()
        boards.close(runtime.stats())
    return over


def _begin(run: Runtime | Simulation, plan: Plan, view: RunView) -> None:
    """Log what the run consists of, a line for each fact, and show it."""
    for line in header_lines(run.header, run.resolved, plan):
        _log.log(logging.WARNING if WARNING_NOTE in line else logging.INFO, line)
    image = WorldImage(ObservationSpec.from_json(run.header["world"]["observation"]), run.newest_frame)
    view.begin(RunHeader.of(run.header, run.resolved, plan), image)


def _update(view: RunView, runtime: Runtime, *, force: bool = False) -> None:
    if runtime.record is not None:
        view.update(runtime.stats(), runtime.record, runtime.booked_ticks(), force=force)


def _play_virtual(config: RuntimeConfig, view: RunView, folder: OutFolder | None) -> Played:
    """No processes: as fast as the machine goes."""
    # Of this program: policies and worlds may draw from them, and a simulation has no process of its own.
    seed_generators(entropy_of(config.world.seed, 0, "virtual", 0, 0))
    simulation = Simulation(config, folder=folder, on_contract_broken=lambda broken: None)
    over = Played(config, simulation, {}, [], None)
    boards = Boards(config)
    every = max(1, min(simulation.resolved.num_ticks // 50, _VIRTUAL_REFRESH_TICKS))

    def show(tick: int) -> None:
        if tick % every == 0:
            view.update(simulation.stats(), simulation.record)
            boards.update(simulation.stats)
            stop_if_told()

    _begin(simulation, simulation.plan, view)
    try:
        over.stops = over.held.enter_context(stopping_by(simulation.stop))
        with over.noting_error():
            with writing_to(config.output.out):
                simulation.run(show)
            view.update(simulation.stats(), simulation.record, force=True)
    except Stopped as stop:
        over.stops.append(stop)
    with over.noting_error():
        simulation.close()
    boards.close(simulation.stats())
    return over
