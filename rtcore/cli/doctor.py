"""`rtcore-doctor`: what this machine grants and lacks for realtime work, each line with its fix."""

from __future__ import annotations

import argparse
import sys

from rtcore.cli.exits import end_program
from rtcore.config.help_text import Parser, add_program_options

_DESCRIPTION = """\
Say what this machine grants and lacks for realtime work, and how to change it.

Rights are tried in a child process, not looked up; the configured world is made once, to know how much shared memory
its run needs. Nothing is changed, except by --clean.
"""
_EPILOG = """\
what a line says:
  ok       as it should be
  warn     a run works, but its ticks are less punctual, or something is in its way
  LACKS    a run does not work
  -        does not apply to this machine
  ?        could not be told, and why

exit codes:
  0  nothing is lacking that rtcore needs; there may be warnings
  1  something is
  2  a wrong option or setting

examples:
  rtcore-doctor                                    this machine, for rtcore-run without options
  rtcore-doctor --env-id CartPole-v1 --ring-slots 100000      for such a run; any option of rtcore-run
  rtcore-doctor --config my.toml --env-cpu 3       for the run of a settings file
  rtcore-doctor --clean                            first remove shared memory of runs whose program is dead
  rtcore-doctor --json | jq '.checks[] | select(.status == "warn") | .fix'
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0 if nothing is lacking that rtcore needs, 1 if something is, 2 for a wrong setting."""
    end_program("rtcore-doctor", lambda: _do(sys.argv[1:] if arguments is None else arguments))


def _do(words: list[str]) -> int:
    options, flags = _parser().parse_known_args(words)
    # After the words were understood: a help text needs a tenth of what looking imports.
    from rtcore.doctor.examination import examine  # noqa: PLC0415

    return examine(flags, clean=options.clean, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rtcore-doctor",
        usage="rtcore-doctor [-h] [--json] [--clean] [option of rtcore-run ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON (docs/doctor.md describes it)")
    parser.add_argument(
        "--clean",
        action="store_true",
        help="remove shared memory that your runs left behind when their program was killed; that of live runs, of "
        "other users and of other pid namespaces stays",
    )
    add_program_options(parser)
    return parser


if __name__ == "__main__":
    main()
