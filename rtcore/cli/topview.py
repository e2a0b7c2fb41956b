"""What `rtcore-top` does: a list of runs, one view of a run, or a view that follows it to its end."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtcore.cli.exits import Stopped, say_error
from rtcore.clock import MonotonicClock
from rtcore.config.help_text import Parser, add_version
from rtcore.errors import RtcoreError, SharedMemoryError
from rtcore.files.strict_json import dumps
from rtcore.report.live import LiveFrame, LiveView
from rtcore.report.table import header_lines
from rtcore.report.terminal import Terminal
from rtcore.report.wording import number, share
from rtcore.watch.attached import AttachedRun, RunState
from rtcore.watch.visible import RunRow, find_run, list_runs

_DESCRIPTION = """\
Look at a live run from another terminal: what it consists of, a lane per worker, the ticks, and the numbers.

Any run of this machine can be watched, whatever program started it (rtcore-run, or rtcore.Runtime inside a program
of your own). A run is visible from the moment its world is made until it is over. Its memory is mapped read-only:
nothing of the run can be changed or held up. You need to be the user who started it, or root.
"""

_EPILOG = """\
examples:
  rtcore-top                        watch the only run there is, until it is over or Ctrl-C
  rtcore-top --list                 which runs are there: id, program, world, state
  rtcore-top 8151-6c6dc0            watch that one; a beginning will do: rtcore-top 8151
  rtcore-top --once                 print one view and exit
  rtcore-top --once --json | jq .actions.acted_fraction
  rtcore-top --list --json | jq -r '.[] | select(.state == "running").run_id'
  rtcore-top --interval 5 > top.log       not a terminal: a line each time, here every 5 s

exit codes: 0 shown to its end, or ended by Ctrl-C; 1 the run cannot be shown (none is under way, its program is dead,
another user's, another version of rtcore, broken); 2 wrong use (unknown id, several runs and no id); 143 ended by
SIGTERM
"""

_LIVE_INTERVAL_S = 0.5
_PLAIN_INTERVAL_S = 2.0
_MIN_INTERVAL_S = 0.1
#: How often it is checked whether the run has begun, or is over. Each look costs the run a little of its caches.
_POLL_S = 0.5


def run(arguments: list[str]) -> int:
    """All of it; the exit code."""
    try:
        _dispatch(_parse(arguments))
    except RtcoreError as error:
        return say_error("rtcore-top", error)
    except Stopped as stop:
        if stop.signum != signal.SIGINT:
            raise
        # There is no other way to leave a view that follows a run.
    return 0


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = Parser(
        prog="rtcore-top",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("run_id", nargs="?", metavar="RUN_ID", help="a run id or its beginning; default: the only run")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="list all runs of this machine and exit")
    what.add_argument("--once", action="store_true", help="print one view and exit")
    parser.add_argument("--json", action="store_true", help="with --once or --list: as JSON, for scripts")
    parser.add_argument(
        "--interval",
        type=float,
        metavar="S",
        help=f"seconds between two views [{_LIVE_INTERVAL_S} in a terminal, else a line every {_PLAIN_INTERVAL_S}]",
    )
    parser.add_argument(
        "--show-world",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="while watching in a terminal: what the world shows, if that is an image, as half blocks (UTF-8, 60 "
        "columns and 10 lines or more; in five shades where NO_COLOR is set) [yes]",
    )
    add_version(parser)
    options = parser.parse_args(arguments)
    if options.json and not (options.list or options.once):
        parser.error("--json needs --once (one run) or --list (all runs)")
    if options.list and options.run_id is not None:
        parser.error(f"--list shows all runs: got RUN_ID {options.run_id!r} too. For one run: --once")
    if options.interval is not None and (options.list or options.once):
        parser.error("--interval is for watching: leave it out with --once and --list")
    if options.interval is not None and not _MIN_INTERVAL_S <= options.interval <= 3600:
        parser.error(f"--interval {options.interval:g}: expected {_MIN_INTERVAL_S} to 3600 seconds")
    return options


def _dispatch(options: argparse.Namespace) -> None:
    console = Terminal(highlight=False)
    if options.list:
        _show_list(list_runs(), console, as_json=options.json)
    elif options.once:
        with AttachedRun.attach(find_run(options.run_id)) as run:
            _show_once(run, console, as_json=options.json)
    else:
        _watch(find_run(options.run_id), options.interval, console, show_world=options.show_world)


# -- all runs ----------------------------------------------------------------------------------------------

_STATE_STYLES = {
    RunState.RUNNING: "green",
    RunState.STARTING: "cyan",
    RunState.REHEARSING: "cyan",
    RunState.FINISHED: "bright_black",
    RunState.DEAD_OWNER: "red",
    RunState.NO_PERMISSION: "yellow",
    RunState.OTHER_LAYOUT: "yellow",
    RunState.BROKEN: "red",
}
_COLUMNS: tuple[tuple[str, Callable[[RunRow], str], dict[str, Any]], ...] = (
    ("run id", lambda row: row.run_id, {"no_wrap": True}),
    ("pid", lambda row: _pid(row.pid), {"justify": "right", "no_wrap": True}),
    ("state", lambda row: f"{row.state}", {"no_wrap": True}),
    ("age", lambda row: _age(row.age_s), {"justify": "right", "no_wrap": True}),
    ("ticks", lambda row: _text(row.ticks), {"justify": "right", "no_wrap": True}),
    ("acted", lambda row: share(row.acted_fraction), {"justify": "right", "no_wrap": True}),
    ("world", lambda row: _text(row.world), {"overflow": "fold"}),
    ("policy", lambda row: _text(row.policy), {"overflow": "fold"}),
    ("program", lambda row: row.note or _text(row.program), {"overflow": "fold"}),
)


def _show_list(rows: list[RunRow], console: Console, *, as_json: bool) -> None:
    if as_json:
        print(dumps([row.to_json() for row in rows], indent=2))
        return
    if not rows:
        console.print("no runs on this machine")
        return
    table = Table(box=None, pad_edge=False)
    for name, _, options in _COLUMNS:
        table.add_column(name, **options)
    for row in rows:
        # Text of another program is not markup.
        cells = [escape(of(row)) for _, of, _ in _COLUMNS]
        table.add_row(*cells, style=_STATE_STYLES[row.state])
    console.print(table)


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _pid(pid: int | None) -> str:
    return "-" if pid is None or pid < 0 else f"{pid}"


def _age(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if seconds < 120:
        return f"{number(seconds)} s"
    return f"{number(minutes)} min" if minutes < 120 else f"{number(hours)} h"


# -- one run -----------------------------------------------------------------------------------------------


def _show_once(run: AttachedRun, console: Console, *, as_json: bool) -> None:
    if not run.has_begun and (why := run.ending()):
        raise SharedMemoryError(f"run {run.run_id} is over before its first tick: {why}")
    if as_json:
        print(dumps(run.to_json(), indent=2))
    elif not run.has_begun or run.record is None:
        console.print(_not_yet(run))
    else:
        stats = run.stats()
        # On paper there is room for every lane; a screen shows what fits.
        height = console.height if console.is_terminal else 30 + 3 * stats.plan.workers
        console.print(LiveFrame(stats, run.record, run.header, run.booked_ticks()), height=height)


def _not_yet(run: AttachedRun) -> str:
    """Why there is nothing to show."""
    name = f"run {run.run_id} (pid {_pid(run.owner.pid)}) is {run.state()}"
    if run.about is None and run.state() is RunState.RUNNING:
        return f"{name}, but cannot be shown: what it consists of was too long for its shared memory"
    return f"{name}: no tick yet"


def _watch(run_id: str, interval_s: float | None, console: Console, *, show_world: bool) -> None:
    """Until the run is over. Its end is shown with its last numbers."""
    clock = MonotonicClock()
    with AttachedRun.attach(run_id) as run, LiveView(console, clock=clock, show_world=show_world) as view:
        if interval_s is None:
            interval_s = _LIVE_INTERVAL_S if view.is_live else _PLAIN_INTERVAL_S
        why = _await_first_tick(run, view, clock)
        if run.has_begun:
            why = _follow(run, view, clock, int(interval_s * 1e9))
    console.print(f"run over: {why}", markup=False, soft_wrap=True)


def _await_first_tick(run: AttachedRun, view: LiveView, clock: MonotonicClock) -> str | None:
    """Follow a start, a line for each step of it; why it ended, if it did."""
    said = ""
    while True:
        why = run.ending()
        run.refresh()
        if run.has_begun or why is not None:
            return why
        if (line := _not_yet(run)) != said:
            said = line
            view.log(line)
        clock.sleep_until_ns(clock.now_ns() + int(_POLL_S * 1e9))


def _follow(run: AttachedRun, view: LiveView, clock: MonotonicClock, interval_ns: int) -> str:
    """Show a run that ticks until it is over; why it ended."""
    if run.about is not None:
        for line in header_lines(run.about.header, run.about.run, run.about.plan):
            view.log(line)
    view.begin(run.header, run.sight)
    pause_ns = min(int(min(_POLL_S, run.longest_pause_s) * 1e9), interval_ns)
    next_ns = clock.now_ns()
    while True:
        why = run.ending()  # asked first: what is read after it is the last there is
        run.refresh()
        now_ns = clock.now_ns()
        if run.record is not None and (why is not None or now_ns >= next_ns):
            next_ns = now_ns + interval_ns
            view.update(run.stats(), run.record, run.booked_ticks(), force=True)
        if why is not None:
            return why
        clock.sleep_until_ns(min(now_ns + pause_ns, next_ns))
