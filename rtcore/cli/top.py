"""`rtcore-top`: look at a live run of this machine from another terminal, without touching it."""

from __future__ import annotations

import argparse
import os
import signal
import sys

from rtcore.cli.exits import Stopped, end_program, say_error
from rtcore.config.help_text import Parser, add_program_options
from rtcore.errors import RtcoreError

_DESCRIPTION = """\
Look at a live run from another terminal: what it consists of, a lane per worker, the ticks, and the numbers.

Any run of this machine can be watched, whatever program started it (rtcore-run, or rtcore.Runtime inside a program
of your own). A run is visible from the moment its world is made until it is over. Its memory is mapped read-only:
nothing of the run can be changed or held up. You need to be the user who started it, or root.
"""

_EPILOG = """\
examples:
  rtcore-top                        watch the only run there is, until it is over, q or Ctrl-C
  rtcore-top --list                 which runs are there: id, program, world, state
  rtcore-top 8151-6c6dc0            watch that one; a beginning will do: rtcore-top 8151
  rtcore-top --once                 print one view and exit
  rtcore-top --once --json | jq .actions.acted_fraction
  rtcore-top --list --json | jq -r '.[] | select(.state == "running").run_id'
  rtcore-top --rerun spawn          ... and in Rerun's viewer
  rtcore-top --interval 5 > top.log       not a terminal: a line each time, here every 5 s

exit codes: 0 shown to its end, or ended by q or Ctrl-C; 1 the run cannot be shown (none is under way, its program is
dead, another user's, another version of rtcore, broken); 2 wrong use (unknown id, several runs and no id); 143 ended by
SIGTERM
"""

#: After the run's processes, but not after everybody for ever: with 19, `--list` took 100 s on 2 CPUs at load 9.
_NICENESS = 5
_LIVE_INTERVAL_S = 0.5
_PLAIN_INTERVAL_S = 2.0
_MIN_INTERVAL_S = 0.1


def main(arguments: list[str] | None = None) -> None:
    """Program entry; see the help text for exit codes."""
    os.nice(_NICENESS)
    end_program("rtcore-top", lambda: run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """All of it; the exit code."""
    options = _parse(arguments)
    # After the words were understood: NumPy and Rich are most of the CPU time that this takes.
    from rtcore.cli.do_top import show  # noqa: PLC0415

    try:
        show(options)
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
    parser.add_argument(
        "--rerun",
        metavar="WHERE",
        help="while watching: each frame, action, delay and lane in Rerun, too (rtcore[rerun]): spawn (a viewer here), "
        "the address of a viewer (rerun+http://HOST:9876/proxy), or FILE.rrd",
    )
    add_program_options(parser)
    options = parser.parse_args(arguments)
    if options.json and not (options.list or options.once):
        parser.error("--json needs --once (one run) or --list (all runs)")
    if options.list and options.run_id is not None:
        parser.error(f"--list shows all runs: got RUN_ID {options.run_id!r} too. For one run: --once")
    if options.interval is not None and (options.list or options.once):
        parser.error("--interval is for watching: leave it out with --once and --list")
    if options.rerun is not None and (options.list or options.once):
        parser.error("--rerun is for watching: leave it out with --once and --list")
    if options.interval is not None and not _MIN_INTERVAL_S <= options.interval <= 3600:
        parser.error(f"--interval {options.interval:g}: expected {_MIN_INTERVAL_S} to 3600 seconds")
    live_s, plain_s = (options.interval or usual_s for usual_s in (_LIVE_INTERVAL_S, _PLAIN_INTERVAL_S))
    options.intervals_s = live_s, plain_s
    return options


if __name__ == "__main__":
    main()
