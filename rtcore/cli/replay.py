"""`rtcore-run --replay FILE`: a recorded run again, without its policy; says where it differs from the record."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from rtcore.cli.exits import EXIT_FAILED
from rtcore.config.run import RuntimeConfig
from rtcore.errors import ConfigError
from rtcore.files.trust import refuse_code
from rtcore.recording.inspection import note_of
from rtcore.recording.reader import Recording, fitting_together
from rtcore.report.bars import Bar
from rtcore.virtual.replay import Report, make_world, replay

_REFRESH_TICKS = 256


def run_replay(path: Path, given: RuntimeConfig, console: Console) -> int:
    """All of it; the exit code: 0 identical, 1 not. ConfigError if the file or its world cannot be had.

    `given`: what the user said beside it: `ticks`, at most so many; `env_id` and `rom`, which a recording cannot choose
    alone where they are code.
    """
    max_ticks = given.timing.ticks
    with Recording(path) as recording, fitting_together(recording):
        config = _config_of(recording, given)
        rate, num_ticks = f"{float(recording.rate_hz):.4f} Hz", recording.num_ticks
        _say(console, f"recording {recording.path}: {recording.end}")
        _say(console, f"          {config.world.env_id} at {rate}, {num_ticks:,} ticks, {recording.num_jobs:,} jobs")
        if note := note_of(recording.path):
            _say(console, f"          {note}")
        world = make_world(recording, config)
        columns = (TextColumn("replay   "), BarColumn(), TimeElapsedColumn())
        bar = Bar(*columns, console=console)
        try:
            with bar:
                task = bar.add_task("", total=min(num_ticks, max_ticks or num_ticks))

                def show(done: int) -> None:
                    if done % _REFRESH_TICKS == 0:
                        bar.update(task, completed=done)

                report = replay(recording, config, world, max_ticks=max_ticks, progress=show)
        finally:
            world.close()
    _show(console, report)
    return 0 if report.is_identical else EXIT_FAILED


def _config_of(recording: Recording, given: RuntimeConfig) -> RuntimeConfig:
    if bool(recording.about["played"]):
        raise ConfigError(
            f"{recording.path}: a program stepped this world itself (RealtimeEnv, Player) and ordered its resets, with "
            "seeds that are not in the recording; only runs with a policy can be replayed"
        )
    try:
        config = RuntimeConfig.from_jsonable(recording.config)
    except ConfigError as error:
        version = recording.about["rtcore_version"]
        raise ConfigError(f"{recording.path} is of rtcore {version}, with settings unknown here: {error}") from error
    said = given.given
    # Of actions the recording has those that were applied: no policy is run, no blend of chunks, and nobody steps in.
    unused = ("policy", "on_overlap", "operator")
    ran = {name: value for name, value in config.settings.items() if name not in unused}
    refuse_code(ran, said, str(recording.path))
    if given.world.rom is None:
        return config
    arguments = {name: value for name, value in config.world.env_args.items() if name != "rom"}
    return config.replace(rom=given.world.rom, env_args=arguments)


def _show(console: Console, report: Report) -> None:
    for note in report.notes:
        _say(console, f"          {note}")
    found = "identical" if report.is_identical else "DIFFERENT"
    _say(console, f"replayed {report.ticks:,} ticks, {report.jobs:,} jobs: {found}")
    if report.is_identical:
        return
    counts = Table(box=None, pad_edge=False)
    counts.add_column("field", style="bold")
    counts.add_column("differs in", justify="right")
    for name, count in report.differing.most_common():
        counts.add_row(name, f"{count:,} {'jobs' if name.startswith('job ') else 'ticks'}")
    console.print(counts)
    table = Table(box=None, pad_edge=False, title="the first differences", title_justify="left")
    for name in ("tick", "field", "recorded", "replayed"):
        table.add_column(name, justify="right" if name == "tick" else "left", overflow="fold")
    for difference in report.first:
        table.add_row(str(difference.tick), difference.field, difference.recorded, difference.replayed)
    console.print(table)


def _say(console: Console, text: str) -> None:
    console.print(text, markup=False, soft_wrap=True, highlight=False)
