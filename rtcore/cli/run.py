"""`rtcore-run`: a world in real time (or on a virtual clock), with a live view and a summary of what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from rtcore.cli.endings import EXIT_FAILED, EXIT_INTERRUPTED, Stopped, stop_if_told, stopping_by
from rtcore.cli.entry import main
from rtcore.cli.learned import Events, draw_curve, with_folder
from rtcore.cli.options import Command
from rtcore.cli.replay import run_replay
from rtcore.cli.video import draw_video, run_video, say_left_out
from rtcore.config import RuntimeConfig
from rtcore.descendants import ended_with_this_program
from rtcore.errors import RecordError, RtcoreError
from rtcore.learn.policysource import resolve_policy
from rtcore.randomness import entropy_of, seed_generators
from rtcore.recording.columns import UNFINISHED, require_h5py
from rtcore.report.live import LiveView
from rtcore.report.outfolder import OutFolder
from rtcore.report.output import write_results
from rtcore.report.perfetto.writer import convert_folder, require_perfetto
from rtcore.report.record import writing_to
from rtcore.report.table import RunHeader, header_lines, summary_table
from rtcore.report.video.encoder import require_av
from rtcore.runtime import Runtime
from rtcore.terminal import Terminal
from rtcore.virtual.simulate import Simulation

__all__ = ["execute", "main", "write_trace"]

_REFRESH_S = 0.25
#: Ticks between two looks at a simulated run. One that learns takes seconds for so many.
_VIRTUAL_REFRESH_TICKS = 1000


def execute(command: Command, words: list[str]) -> int:
    """What the command says; the exit code. `words`: it as it was given."""
    if command.replay is not None and command.config.video:
        return run_video(command.replay, command.config.ticks)
    with ended_with_this_program():
        if command.replay is not None:
            return run_replay(command.replay, command.config)
        return _run(command.config, words)


def _run(config: RuntimeConfig, words: list[str]) -> int:
    console = Terminal()
    config = resolve_policy(with_folder(config))
    if config.trace:
        require_perfetto()
    if config.record:
        require_h5py()
    if config.video:
        require_av()
    if config.out is None:
        return _run_in(None, config, console)
    with OutFolder(config.out, ["rtcore-run", *words]) as folder:
        folder.take(lambda note: console.print(note, markup=False, soft_wrap=True))
        return _run_in(folder, config, console)


def _run_in(folder: OutFolder | None, config: RuntimeConfig, console: Console) -> int:
    with LiveView(console, live=config.live) as view:
        run: Runtime | Simulation
        if config.clock == "virtual":
            run, stop, error = _run_virtual(config, view, folder)
        else:
            run, stop, error = _run_wall(config, view, folder)
    summary = run.summary()
    if error is not None:
        summary["error"] = f"{type(error).__name__}: {error}"
    if stop is not None:
        summary["stopped_by"] = str(stop)
    console.print(summary_table(summary, config.out))
    if config.out is not None and run.record is not None:
        try:
            # They take a moment, and the run is worth them: whoever stops the program now waits for them.
            with stopping_by(lambda: None) as stops, writing_to(config.out):
                write_results(config.out, summary, run.stats(), run.record)
                draw_curve(config, run.stats())
        except RecordError as refused:
            # What went wrong in the run is the news; that its files are not whole comes beside it.
            console.print(f"files     {refused}", markup=False, soft_wrap=True)
            error = error or refused
        stop = stop or next(iter(stops), None)
    traced = not config.trace or config.out is None or run.record is None or write_trace(config.out, console)
    drawn = not config.video or config.out is None or _draw_video(config.out, summary, stop, console)
    if error is not None:
        raise error
    if stop is not None:
        raise stop
    # Learning that stopped at a number that is none is a run that failed, however well it played on.
    learned = not (summary.get("learner") or {}).get("stopped")
    # As is one whose recording broke off. Frames that were lost on the way are counted, and no failure.
    recorded = not str((summary.get("recording") or {}).get("end", "")).startswith(UNFINISHED)
    return 0 if traced and drawn and learned and recorded else EXIT_FAILED


def _draw_video(folder: Path, summary: dict[str, Any], stop: Stopped | None, console: Console) -> bool:
    """Also of a run that failed, or that Ctrl-C ended; who is told to terminate has no time for it."""
    if not (summary.get("recording") or {}).get("frames"):
        return True
    if stop is not None and stop.exitcode != EXIT_INTERRUPTED:
        say_left_out(folder, console)
        return True
    return draw_video(folder, console)


def write_trace(folder: Path, console: Console) -> bool:
    """Make the Perfetto trace of a run's events. False, having said why, if that failed: the events are kept then."""
    notes: list[str] = []
    bar = Progress(TextColumn("trace    "), BarColumn(), TimeElapsedColumn(), console=console, transient=True)
    try:
        with bar:
            task = bar.add_task("", total=1.0)
            path = convert_folder(folder, lambda share: bar.update(task, completed=share), say=notes.append)
    except (RtcoreError, OSError) as error:
        console.print(f"trace     not written: {error}", markup=False, soft_wrap=True)
        if any(folder.glob("trace-*.events")):
            again = f"python -m rtcore.report.perfetto {folder}"
            console.print(f"          Its events are kept; {again} tries again", markup=False, soft_wrap=True)
        return False
    for note in notes:
        console.print(f"trace     {note}", markup=False, soft_wrap=True)
    size_mb = path.stat().st_size / 1e6
    text = f"trace     {path} ({size_mb:.1f} MB): open it at https://ui.perfetto.dev"
    console.print(text, markup=False, soft_wrap=True)
    return True


def _run_wall(
    config: RuntimeConfig, view: LiveView, folder: OutFolder | None
) -> tuple[Runtime, Stopped | None, RtcoreError | None]:
    """Real processes. What happened up to a signal or an error is kept, and summed up."""
    stop: Stopped | None = None
    failure: RtcoreError | None = None
    runtime = Runtime(config, progress=view.log, folder=folder)
    events = Events(config, view.log)
    with runtime:
        try:
            plan = runtime.stats().plan
            for line in header_lines(runtime.header, config, plan):
                view.log(line)
            view.begin(RunHeader.of(runtime.header, config, plan))
            while not runtime.wait(_REFRESH_S):
                _update(view, runtime)
                events.update(runtime.stats)
                stop_if_told()
            _update(view, runtime, force=True)
        except Stopped as signalled:
            stop = signalled
            runtime.close()
            try:
                runtime.wait()
            except RtcoreError as error:
                failure = error
        except RtcoreError as error:
            failure = error
        events.close(runtime.stats())
    return runtime, stop, failure


def _update(view: LiveView, runtime: Runtime, *, force: bool = False) -> None:
    if runtime.record is not None:
        view.update(runtime.stats(), runtime.record, runtime.booked_ticks(), force=force)


def _run_virtual(
    config: RuntimeConfig, view: LiveView, folder: OutFolder | None
) -> tuple[Simulation, Stopped | None, RtcoreError | None]:
    """No processes: as fast as the machine goes."""
    # Of this program: policies and worlds may draw from them, and a simulation has no process of its own.
    seed_generators(entropy_of(config.seed, 0, "virtual", 0, 0))
    simulation = Simulation(config, say=view.log, folder=folder)
    for line in header_lines(simulation.header, config, simulation.plan):
        view.log(line)
    events = Events(config, view.log)
    every = max(1, min(config.num_ticks(simulation.rate_hz) // 50, _VIRTUAL_REFRESH_TICKS))

    def show(tick: int) -> None:
        if tick % every == 0:
            view.update(simulation.stats(), simulation.record)
            events.update(simulation.stats)
            stop_if_told()

    view.begin(RunHeader.of(simulation.header, config, simulation.plan))
    stop: Stopped | None = None
    failure: RtcoreError | None = None
    try:
        with stopping_by(simulation.stop) as stops, writing_to(config.out):
            simulation.run(show)
        view.update(simulation.stats(), simulation.record, force=True)
        stop = next(iter(stops), None)
    except Stopped as signalled:
        stop = signalled
    except RtcoreError as error:
        failure = error
    try:
        simulation.close()
    except RtcoreError as error:
        failure = failure or error
    events.close(simulation.stats())
    return simulation, stop, failure


if __name__ == "__main__":
    main()
