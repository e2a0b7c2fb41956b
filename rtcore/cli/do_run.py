"""What a command of `rtcore-run` says, done: a run, a comparison, a replay or a video, shown and kept."""

from __future__ import annotations

from functools import partial

from rich.console import Console

from rtcore.cli.attending import attending
from rtcore.cli.keys import stdin_descriptor
from rtcore.cli.learning import with_folder
from rtcore.cli.nextsteps import say_next, steps_of
from rtcore.cli.play import keep, play, require_packages
from rtcore.cli.replay import run_replay
from rtcore.cli.video import run_video
from rtcore.config.flags import Command
from rtcore.errors import ConfigError
from rtcore.host.descendants import ended_with_this_program
from rtcore.processes.servers import waiting_servers
from rtcore.report.live import LiveView
from rtcore.report.log import is_quiet, lines_to
from rtcore.report.table import details, headline
from rtcore.report.terminal import Terminal, print_line
from rtcore.results.out_folder import OutFolder
from rtcore_workers.policies.choice import resolve_policy


def execute(command: Command, words: list[str]) -> int:
    """What the command says; the exit code. `words`: it as it was given."""
    if command.replay is not None and command.config.output.video:
        return run_video(command.replay, command.config.timing.ticks)
    console = Terminal()
    with ended_with_this_program(waiting_servers), lines_to(partial(print_line, console), chosen=command.log_level):
        if command.replay is not None:
            return run_replay(command.replay, command.config, console)
        if command.compare is not None:
            from rtcore.cli.compare import run_comparison  # noqa: PLC0415 - a single run is quicker without

            return run_comparison(command.config, command.compare, words, console)
        return _run(command, words, console)


def _run(command: Command, words: list[str], console: Console) -> int:
    command = command._replace(config=resolve_policy(with_folder(command.config)))
    require_packages(command.config)
    if command.config.output.out is None:
        return _run_in(None, command, console, words)
    with OutFolder(command.config.output.out, ["rtcore-run", *words]) as folder:
        folder.acquire()
        return _run_in(folder, command, console, words)


def _run_in(folder: OutFolder | None, command: Command, console: Console, words: list[str]) -> int:
    config, tasks = command.config, None
    if command.task_stdin and (tasks := stdin_descriptor()) is None:
        raise ConfigError("--task-stdin: stdin is closed, or no file; expected one with a task a line")
    with LiveView(console, live=config.output.live, show_world=config.output.show_world, quiet=is_quiet()) as view:
        over = play(config, view, folder, partial(attending, tasks=tasks, keys=view.is_live))
    console.print(details(over.summary, config.output.out))
    keep(over, console)
    say_next(steps_of(config, over.summary, words), console)
    console.print(headline(over.summary))
    return over.exitcode()
