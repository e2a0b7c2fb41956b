"""What `rtcore-top` does: a list of runs, one view of a run, or a view that follows it to its end."""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable
from contextlib import ExitStack, closing, nullcontext
from typing import TYPE_CHECKING, Any, NoReturn

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtcore.cli.keys import Key, pressing
from rtcore.clock import MonotonicClock
from rtcore.errors import RtcoreError, SharedMemoryError
from rtcore.files.strict_json import dumps
from rtcore.report.live import LiveFrame, LiveView
from rtcore.report.table import header_lines
from rtcore.report.terminal import Terminal
from rtcore.report.wording import number, share
from rtcore.watch.attached import AttachedRun, RunState
from rtcore.watch.visible import RunRow, find_run, list_runs

if TYPE_CHECKING:
    from rtcore.report.rerun import LiveRerun

#: How often it is checked whether the run has begun, or is over. Each look costs the run a little of its caches.
_POLL_S = 0.5
_LEFT = "left: the run goes on"


def show(options: argparse.Namespace) -> None:
    """What the words of `rtcore.cli.top` ask for. `Stopped` by a signal."""
    console = Terminal(highlight=False)
    if options.list:
        _show_list(list_runs(), console, as_json=options.json)
    elif options.once:
        with AttachedRun.attach(find_run(options.run_id)) as run:
            _show_once(run, console, as_json=options.json)
    else:
        if options.rerun is not None:
            from rtcore.report.rerun import require_rerun  # noqa: PLC0415 - a view without it begins sooner

            require_rerun()
        _watch(find_run(options.run_id), options, console)


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
        height = console.height if console.is_terminal else 30 + 3 * len(stats.places)
        console.print(LiveFrame(stats, run.record, run.header, run.booked_ticks()), height=height)


def _not_yet(run: AttachedRun) -> str:
    """Why there is nothing to show."""
    name = f"run {run.run_id} (pid {_pid(run.owner.pid)}) is {run.state()}"
    if run.about is None and run.state() is RunState.RUNNING:
        return f"{name}, but cannot be shown: what it consists of was too long for its shared memory"
    return f"{name}: no tick yet"


def _watch(run_id: str, options: argparse.Namespace, console: Console) -> None:
    """Until the run is over, with a look so often on a screen, and so often elsewhere; its last numbers at the end."""
    clock, left = MonotonicClock(), threading.Event()
    with (
        AttachedRun.attach(run_id) as run,
        LiveView(console, clock=clock, show_world=options.show_world) as view,
        pressing(_keys(left), view.log) if view.is_live else nullcontext(),
    ):
        why = _await_first_tick(run, view, clock, left)
        if run.has_begun and not left.is_set():
            with ExitStack() as stack:
                told = None
                if options.rerun is not None:
                    told = stack.enter_context(closing(run.tell_rerun(options.rerun)))
                interval_ns = int(options.intervals_s[not view.is_live] * 1e9)
                why = _follow(run, view, clock, interval_ns=interval_ns, told=told, left=left)
    console.print(_LEFT if why == _LEFT else f"run over: {why}", markup=False, soft_wrap=True)


def _keys(left: threading.Event) -> dict[str, Key]:
    def only_looks() -> NoReturn:
        raise RtcoreError("rtcore-top only looks: press that key where rtcore-run shows the run")

    return {
        "q": Key("leaves, and the run goes on", left.set),
        "p": Key("", only_looks),
        "s": Key("", only_looks),
    }


def _await_first_tick(run: AttachedRun, view: LiveView, clock: MonotonicClock, left: threading.Event) -> str | None:
    """Follow a start, a line for each step of it; why it ended, if it did."""
    said = ""
    while True:
        why = run.ending() or (_LEFT if left.is_set() else None)
        run.refresh()
        if run.has_begun or why is not None:
            return why
        if (line := _not_yet(run)) != said:
            said = line
            view.log(line)
        clock.sleep_until_ns(clock.now_ns() + int(_POLL_S * 1e9))


def _follow(
    run: AttachedRun,
    view: LiveView,
    clock: MonotonicClock,
    *,
    interval_ns: int,
    told: LiveRerun | None,
    left: threading.Event,
) -> str:
    """Show a run that ticks until it is over, or its onlooker has `left`; why it ended."""
    if run.about is not None:
        for line in header_lines(run.about.header, run.about.run, run.about.plan):
            view.log(line)
    view.begin(run.header, run.sight)
    pause_ns = min(int(min(_POLL_S, run.longest_pause_s) * 1e9), interval_ns)
    next_ns = clock.now_ns()
    while True:
        # Asked first: what is read after it is the last there is.
        why = run.ending() or (_LEFT if left.is_set() else None)
        run.refresh()
        if told is not None and run.record is not None:
            told.update(run.record)
        now_ns = clock.now_ns()
        if run.record is not None and (why is not None or now_ns >= next_ns):
            next_ns = now_ns + interval_ns
            view.update(run.stats(), run.record, run.booked_ticks(), force=True)
        if why is not None:
            return why
        clock.sleep_until_ns(min(now_ns + pause_ns, next_ns))
