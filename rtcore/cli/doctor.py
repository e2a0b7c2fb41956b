"""`rtcore-doctor`: what this machine grants and lacks for realtime work, each line with its fix."""

from __future__ import annotations

import argparse
import platform
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtcore.cli.exits import end_program
from rtcore.config.flags import parse_config
from rtcore.config.help_text import Parser, add_version
from rtcore.config.run import RuntimeConfig
from rtcore.doctor import container, cpu, gpu, kernel, segments, system
from rtcore.doctor.checks import Check, Finding, Needs, Status, run_checks
from rtcore.doctor.machine import Machine, ProbeError
from rtcore.errors import ConfigError
from rtcore.files.strict_json import dumps
from rtcore.learn.resuming import settings_of
from rtcore.memory.layout import Layout
from rtcore.report.terminal import Terminal

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
_GROUPS: dict[str, tuple[Check, ...]] = {
    "System": system.CHECKS,
    "CPUs": cpu.CHECKS,
    "Kernel and rights": kernel.CHECKS,
    "Shared memory": segments.CHECKS,
    "GPUs": gpu.CHECKS,
    "Container": container.CHECKS,
}
_SHOWN = {
    Status.OK: "[green]ok[/]",
    Status.WARN: "[yellow]warn[/]",
    Status.LACKS: "[bold red]LACKS[/]",
    Status.NOT_APPLICABLE: "[dim]-[/]",
    Status.UNKNOWN: "[magenta]?[/]",
}
#: Of what `--json` prints. Grows when a key changes its meaning or goes, not when one is added.
_SCHEMA_VERSION = 1


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0 if nothing is lacking that rtcore needs, 1 if something is, 2 for a wrong setting."""
    end_program("rtcore-doctor", lambda: _do(sys.argv[1:] if arguments is None else arguments))


def _do(words: list[str]) -> int:
    options, rest = _parser().parse_known_args(words)
    errors = Terminal(stderr=True, highlight=False)
    machine = Machine()
    config, _ = parse_config(rest, "rtcore-doctor", settings_of)
    removed = segments.clean(machine) if options.clean else []
    with errors.status("making the world, to know how much shared memory its run needs") as status:
        needs = find_needs(machine, config)
        findings = []
        for name, found in _examine(machine, needs):
            findings.append(found)
            status.update(f"{name}: {found.check.title}")
    if options.json:
        print(dumps(to_json(needs, findings, removed), indent=2), flush=True)
    else:
        _show(Terminal(highlight=False), needs, findings, removed)
    return 1 if any(finding.answer.status is Status.LACKS for finding in findings) else 0


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
    add_version(parser)
    return parser


def find_needs(machine: Machine, config: RuntimeConfig) -> Needs:
    """Makes the configured world, in a child process. Where that fails, the rest of the doctor still works.

    `ConfigError` if there is no such world.
    """
    try:
        answer = machine.trial("world", config=config.to_jsonable())
    except (ProbeError, OSError, ValueError) as error:
        return Needs(config, why=str(error))
    if "wrong_setting" in answer:
        raise ConfigError(answer["wrong_setting"])
    return Needs(config, Layout.from_json(answer["layout"]), Layout.from_json(answer["traced"]))


def _examine(machine: Machine, needs: Needs) -> Iterator[tuple[str, Finding]]:
    for name, checks in _GROUPS.items():
        for finding in run_checks(checks, machine, needs):
            yield name, finding


def to_json(needs: Needs, findings: list[Finding], removed: list[segments.Found]) -> dict[str, Any]:
    """What `--json` prints; described in docs/doctor.md."""
    counts = Counter(finding.answer.status for finding in findings)
    return {
        "schema_version": _SCHEMA_VERSION,
        "host": platform.node(),
        "kernel": platform.release(),
        "ok": counts[Status.LACKS] == 0,
        "counts": {str(status): counts[status] for status in Status},
        "needs": {
            "env_id": needs.config.world.env_id,
            "shm_bytes": needs.shm_bytes,
            "traced_shm_bytes": needs.traced_shm_bytes,
            "layout": needs.layout.to_json() if needs.layout is not None else None,
            "why_not": needs.why,
        },
        "removed": [{"run_id": run.run_id, "bytes": run.num_bytes} for run in removed],
        "checks": [finding.to_json() for finding in findings],
    }


def _show(console: Console, needs: Needs, findings: list[Finding], removed: list[segments.Found]) -> None:
    by_key = {finding.check.key: finding for finding in findings}
    for run in removed:
        console.print(f"removed the shared memory of run {run.run_id}, whose program is dead")
    for name, checks in _GROUPS.items():
        console.print(f"\n[bold]{name}[/]")
        # Without a border, and names of a fixed width: lines of different groups stand below each other.
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=5)
        table.add_column(width=22)
        table.add_column(overflow="fold")
        for check in checks:
            answer = by_key[check.key].answer
            found = Table.grid()
            found.add_row(escape(answer.found))
            if answer.fix:
                found.add_row(f"[cyan]fix:[/] {escape(answer.fix)}")
            table.add_row(_SHOWN[answer.status], check.title, found)
        console.print(table)
    counts = Counter(finding.answer.status for finding in findings)
    verdict = "rtcore runs here" if not counts[Status.LACKS] else "[bold red]rtcore does not run here as configured[/]"
    console.print(
        f"\n{verdict}: {counts[Status.LACKS]} lacking, {counts[Status.WARN]} warnings, {counts[Status.OK]} ok, "
        f"{counts[Status.UNKNOWN]} could not be told"
    )


if __name__ == "__main__":
    main()
