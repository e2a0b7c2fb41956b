"""What `rtcore-profile` does with every subcommand: measure, write the numbers, compare them with earlier ones."""

from __future__ import annotations

import argparse
import os
import sys
from types import ModuleType
from typing import Any

from rich.console import Console

from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.strict_json import dumps
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.profile import gpu, ipc, path, qualify, scale, tick
from rtcore.profile.results import Baseline, Result
from rtcore.report.terminal import Terminal

_MODULES: dict[str, ModuleType] = {
    "ipc": ipc,
    "tick": tick,
    "path": path,
    "gpu": gpu,
    "scale": scale,
    "qualify": qualify,
}
_EXIT_WORSE = 3


def execute(options: argparse.Namespace) -> int:
    """The subcommand that the options name; the exit code."""
    module = _MODULES[options.profile]
    # Wrong conditions and folders are said before minutes of measuring.
    baseline = Baseline(options.baseline, options.fail_if, options.profile)
    _check_writable(options)
    # With the numbers on standard output, everything for people goes to the other one.
    console = Terminal(stderr=options.json is not None and str(options.json) == "-")
    watch = HostWatch()
    result: Result = module.run(options, console)
    machine = watch.conditions()
    console.print(conditions_text(machine), style="dim", highlight=False)
    _write(options, result, machine, module, console)
    return _EXIT_WORSE if baseline.finds_worse(result, machine, console) else 0


def _check_writable(options: argparse.Namespace) -> None:
    if options.plot is not None:
        try:
            options.plot.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"--plot {options.plot}: {error.strerror}; expected a folder to write into") from error
    for flag, file in (("--json", options.json), ("--page", getattr(options, "page", None))):
        if file is None or str(file) == "-":
            continue
        if not file.parent.is_dir():
            raise ConfigError(f"{flag} {file}: there is no folder {file.parent}; make it first")
        if file.is_dir():
            raise ConfigError(f"{flag} {file}: is a folder; expected a file to write, such as {file}/new.json")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            raise ConfigError(f"{flag} {file}: may not be written by this user; give a file that may")


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
    if getattr(options, "page", None):
        qualify.write_page(options.page, result, machine)
        console.print(f"page: {options.page}", highlight=False)
    if options.plot is not None:
        for path in module.plot(result, options.plot):
            console.print(f"picture: {path}", highlight=False)
