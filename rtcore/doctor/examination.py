"""All checks of the doctor, one after the other, and what is said of them: lines for people, JSON for scripts."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from rtcore.config.flags import parse_config
from rtcore.config.run import RuntimeConfig
from rtcore.doctor import container, cpu, gpu, kernel, segments, system
from rtcore.doctor.checks import Check, Finding, Needs, Status, run_checks
from rtcore.doctor.machine import Machine, ProbeError
from rtcore.errors import ConfigError
from rtcore.files.strict_json import dumps
from rtcore.learn.resuming import settings_of
from rtcore.memory.layout import Layout
from rtcore.report.terminal import Terminal

GROUPS: dict[str, tuple[Check, ...]] = {
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
_SCHEMA_VERSION = 2


def examine(flags: Sequence[str], *, clean: bool, as_json: bool) -> int:
    """This machine for a run with these flags of rtcore-run; the exit code. `ConfigError` for wrong ones."""
    machine = Machine()
    config, _ = parse_config(list(flags), "rtcore-doctor", settings_of)
    removed = segments.clean(machine) if clean else []
    words = "making the world, to know how much shared memory its run needs"
    with Terminal(stderr=True, highlight=False).status(words) as status:
        needs = find_needs(machine, config)
        findings = []
        for name, checks in GROUPS.items():
            for finding in run_checks(checks, machine, needs):
                findings.append(finding)
                status.update(f"{name}: {finding.check.title}")
    if as_json:
        print(dumps(to_json(needs, findings, removed), indent=2), flush=True)
    else:
        _show(Terminal(highlight=False), needs, findings, removed)
    return 1 if any(finding.answer.status is Status.LACKS for finding in findings) else 0


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


def to_json(needs: Needs, findings: list[Finding], removed: list[segments.RunSegments]) -> dict[str, Any]:
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


def _show(console: Console, needs: Needs, findings: list[Finding], removed: list[segments.RunSegments]) -> None:
    for run in removed:
        console.print(f"removed the shared memory of run {run.run_id}, whose program is dead")
    for name, checks in GROUPS.items():
        console.print(f"\n[bold]{name}[/]")
        # Without a border, and names of a fixed width: lines of different groups stand below each other.
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column(width=5)
        table.add_column(width=22)
        table.add_column(overflow="fold")
        for answer, title in ((one.answer, one.check.title) for one in findings if one.check in checks):
            found = Table.grid()
            found.add_row(escape(answer.found))
            if answer.fix:
                found.add_row(f"[cyan]fix:[/] {escape(answer.fix)}")
            table.add_row(_SHOWN[answer.status], title, found)
        console.print(table)
    counts = Counter(finding.answer.status for finding in findings)
    verdict = "rtcore runs here" if not counts[Status.LACKS] else "[bold red]rtcore does not run here as configured[/]"
    console.print(
        f"\n{verdict}: {counts[Status.LACKS]} lacking, {counts[Status.WARN]} warnings, {counts[Status.OK]} ok, "
        f"{counts[Status.UNKNOWN]} could not be told"
    )
