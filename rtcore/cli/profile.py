"""`rtcore-profile`: measure on this machine, and tell whether it got worse. Subcommands are in `rtcore.profile`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from rich.console import Console
from rich.table import Table

from rtcore.cli.exits import end_program, find_own_modules
from rtcore.config.help_text import Parser, add_version
from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.strict_json import dumps
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.profile import gpu, ipc, path, scale, tick
from rtcore.profile.results import (
    Comparison,
    Condition,
    Result,
    compare,
    differences,
    load_result,
    unmatched,
)
from rtcore.report.terminal import Terminal

#: In the order of the help text. `rtcore.profile` says what a module of a subcommand has.
SUBCOMMANDS: dict[str, ModuleType] = {"ipc": ipc, "tick": tick, "path": path, "gpu": gpu, "scale": scale}

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
_EXIT_WORSE = 3
#: What is shown beside a baseline where no condition names a metric.
_SHOWN_METRICS = ("p50_us", "p99_us")


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exit codes as in the help."""
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-profile", lambda: _run(words))


def make_parser() -> Parser:
    """One subparser per subcommand, each with the common options."""
    parser = Parser(prog="rtcore-profile", description=_DESCRIPTION, epilog=_EPILOG)
    add_version(parser)
    # Only the program itself has examples for all: a subparser shows its own.
    commands = parser.add_subparsers(dest="profile", required=True, metavar="{" + ",".join(SUBCOMMANDS) + "}")
    for name, module in SUBCOMMANDS.items():
        description = getattr(module, "DESCRIPTION", module.HELP)
        one = commands.add_parser(
            name, help=module.HELP, description=description, epilog=getattr(module, "EXAMPLES", None)
        )
        module.add_arguments(one)
        common = one.add_argument_group("result")
        common.add_argument("--json", type=Path, metavar="FILE", help="write the numbers; - for standard output")
        common.add_argument("--plot", type=Path, metavar="DIR", help="write pictures (PNG) into this folder")
        common.add_argument("--baseline", type=Path, metavar="OLD.json", help="an earlier --json to compare with")
        common.add_argument("--fail-if", action="append", default=[], metavar="CONDITION", help=_FAIL_IF_HELP)
    return parser


def _run(words: list[str]) -> int:
    parser = make_parser()
    options, unknown = parser.parse_known_args(words)
    module = SUBCOMMANDS[options.profile]
    if getattr(module, "TAKES_RUN_FLAGS", False):
        options.run_flags = unknown
    elif unknown:
        parser.error(f"unknown option for {options.profile}: {' '.join(unknown)}")
    # Wrong conditions and folders are said before minutes of measuring.
    conditions, baseline = _expectations(options)
    _check_writable(options)
    # With the numbers on standard output, everything for people goes to the other one.
    console = Terminal(stderr=options.json is not None and str(options.json) == "-")
    watch = HostWatch()
    result: Result = module.run(options, console)
    machine = watch.conditions()
    console.print(conditions_text(machine), style="dim", highlight=False)
    _write(options, result, machine, module, console)
    return _judge(result, machine, baseline, conditions, console)


def _expectations(options: argparse.Namespace) -> tuple[list[Condition], dict[str, Any] | None]:
    conditions = [Condition.parse(text) for text in options.fail_if]
    if conditions and options.baseline is None:
        raise ConfigError("--fail-if needs something to compare with: --baseline OLD.json, written by --json earlier")
    baseline = load_result(options.baseline) if options.baseline is not None else None
    if baseline is not None and baseline["profile"] != options.profile:
        raise ConfigError(f"--baseline {options.baseline}: of {baseline['profile']!r}, expected {options.profile!r}")
    if baseline is not None:
        for condition in conditions:
            condition.rows_of(baseline)
    return conditions, baseline


def _check_writable(options: argparse.Namespace) -> None:
    if options.plot is not None:
        try:
            options.plot.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--plot {options.plot}: {error.strerror}; expected a folder to write into") from error
    if options.json is None or str(options.json) == "-":
        return
    if not options.json.parent.is_dir():
        raise ConfigError(f"--json {options.json}: there is no folder {options.json.parent}; make it first")
    if options.json.is_dir():
        raise ConfigError(
            f"--json {options.json}: is a folder; expected a file to write, such as {options.json}/new.json"
        )
    if not os.access(options.json if options.json.exists() else options.json.parent, os.W_OK):
        raise ConfigError(f"--json {options.json}: may not be written by this user; give a file that may")


def _write(
    options: argparse.Namespace, result: Result, machine: dict[str, Any], module: ModuleType, console: Console
) -> None:
    if options.json is not None:
        text = dumps(result.to_json(machine), indent=2) + "\n"
        if str(options.json) == "-":
            sys.stdout.write(text)
        else:
            try:
                options.json.write_text(text)
            except OSError as error:
                raise RtcoreError(f"--json {options.json}: {error.strerror}; the numbers are not kept") from error
            console.print(f"numbers: {options.json}", highlight=False)
    if options.plot is not None and hasattr(module, "plot"):
        for path in module.plot(result, options.plot):
            console.print(f"picture: {path}", highlight=False)


def _judge(
    result: Result,
    machine: dict[str, Any],
    baseline: dict[str, Any] | None,
    conditions: list[Condition],
    console: Console,
) -> int:
    """Compare; returns the exit code."""
    if baseline is None:
        return 0
    then = baseline.get("machine", {})
    differs = [name for name in ("host", "kernel", "cpu_model", "usable_cpus") if then.get(name) != machine.get(name)]
    if differs:
        console.print(f"the baseline is of another machine: {', '.join(differs)} differ", style="yellow")
    new = unmatched(result, baseline)
    if new:
        console.print(f"{new} of {len(result.rows)} rows are not in the baseline and are not compared", style="yellow")
    found = [comparison for condition in conditions for comparison in compare(result, baseline, condition)]
    if not conditions:
        found = differences(result, baseline, _SHOWN_METRICS)
        if not found:
            names = ", ".join(_SHOWN_METRICS)
            console.print(f"nothing is compared: no {names} in common with the baseline; name a metric with --fail-if")
            return 0
    console.print(_comparison_table(result, found))
    if not conditions:
        console.print("shown only: give --fail-if to have a change end in exit code 3", style="dim")
        return 0
    worse = sum(comparison.worse for comparison in found)
    words = (
        f"[bold red]worse than the baseline in {worse} of {len(found)}[/]" if worse else "not worse than the baseline"
    )
    console.print(words)
    return _EXIT_WORSE if worse else 0


def _comparison_table(result: Result, found: list[Comparison]) -> Table:
    table = Table("row", "metric", title="Against the baseline", title_justify="left")
    for name in ("then", "now", "change", "allowed"):
        table.add_column(name, justify="right")
    for one in found:
        change = f"{100 * (one.new / one.old - 1):+.1f}%" if one.old and one.new is not None else "-"
        allowed = f"{one.condition.change_percent:+g}%" if one.condition is not None else "-"
        numbers = (f"{one.old:.4g}", "none" if one.new is None else f"{one.new:.4g}", change, allowed)
        name = ", ".join(f"{key}={one.row.get(key)}" for key in result.keys)
        table.add_row(name, one.metric, *numbers, style="red" if one.worse else "")
    return table


if __name__ == "__main__":
    main()
