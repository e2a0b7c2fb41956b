"""`rtcore-profile`: measure on this machine, and tell whether it got worse. Subcommands are in `rtcore.profile`."""

from __future__ import annotations

import sys
from pathlib import Path

from rtcore.cli.exits import end_program, find_own_modules
from rtcore.config.help_text import Parser, add_program_options
from rtcore.profile.commands import COMMANDS, add_options

_DESCRIPTION = """\
Where the microseconds go, on this machine: how close shared memory is to what the hardware allows and to other
transports, whether ticks are on time, which stage of frame -> action costs what.

Every run says what the machine was doing meanwhile. A number from a busy machine is a number about a busy machine.
"""
_EPILOG = """\
examples:
  rtcore-profile ipc                                   transports beside each other, about two minutes
  rtcore-profile tick --load 2                         lateness of ticks, idle and with two busy processes
  rtcore-profile ipc --json new.json --plot pictures   numbers for programs, pictures for people
  rtcore-profile ipc --baseline old.json --fail-if 'ipc.p99>+10%'
                                                       exit code 3 if a p99 is more than a tenth above the old one
  rtcore-profile ipc --help                            what is measured, and how

exit codes: 0 done, 1 failed, 2 a wrong setting, 3 worse than the baseline, 128+n stopped by signal n
"""
_FAIL_IF_HELP = (
    "with --baseline: exit with 3 if the metric grew by more than N%% in any row of rtcore's own, or a row of the "
    "baseline has no number for it any more; rows can be chosen: "
    "'ipc.p99[transport=rtcore-hybrid,readers=1]>+10%%'; '<-N%%' where less is worse. May be given several times"
)


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exit codes as in the help."""
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-profile", lambda: _run(words))


def make_parser() -> Parser:
    """One subparser per subcommand, each with the common options."""
    parser = Parser(prog="rtcore-profile", description=_DESCRIPTION, epilog=_EPILOG)
    add_program_options(parser)
    # Only the program itself has examples for all: a subparser shows its own.
    commands = parser.add_subparsers(dest="profile", required=True, metavar="{" + ",".join(COMMANDS) + "}")
    for name, command in COMMANDS.items():
        one = commands.add_parser(name, help=command.help, description=command.description, epilog=command.examples)
        add_options(one, name)
        common = one.add_argument_group("result")
        common.add_argument("--json", type=Path, metavar="FILE", help="write the numbers; - for standard output")
        common.add_argument("--plot", type=Path, metavar="DIR", help="write pictures (PNG) into this folder")
        common.add_argument("--baseline", type=Path, metavar="OLD.json", help="an earlier --json to compare with")
        common.add_argument("--fail-if", action="append", default=[], metavar="CONDITION", help=_FAIL_IF_HELP)
    return parser


def _run(words: list[str]) -> int:
    parser = make_parser()
    options, unknown = parser.parse_known_args(words)
    options.run_flags = unknown
    if unknown and not COMMANDS[options.profile].takes_run_flags:
        parser.error(f"unknown option for {options.profile}: {' '.join(unknown)}")
    # After the words were understood: a help text needs a tenth of what measuring imports.
    from rtcore.profile.execution import execute  # noqa: PLC0415

    return execute(options)


if __name__ == "__main__":
    main()
