"""What `rtcore-report` does: writes a page of one run or several, or tells one tick in words."""

from __future__ import annotations

import argparse
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtcore.errors import ConfigError, RtcoreError, counted
from rtcore.files.whole import whole_file
from rtcore.recording.reader import Recording
from rtcore.report.page.build import build_page
from rtcore.report.terminal import Terminal
from rtcore.results.explain import Fact, explain_tick
from rtcore.results.folder import read_run
from rtcore.results.out_folder import RANDOM, compared_in


def report(options: argparse.Namespace) -> int:
    """What the words of `rtcore.cli.report` ask for; the exit code."""
    first = options.folders[0]
    options.folders = [folder for given in options.folders for folder in _runs_in(given)]
    if options.rerun is not None or options.lerobot is not None:
        _export(options)
    elif options.tick is not None:
        _explain(options)
    else:
        out = options.out if options.out is not None else first / "report.html"
        _write_page(options, out, Terminal(stderr=True, highlight=False))
    return 0


def _runs_in(folder: Path) -> list[Path]:
    """The folder of a run itself; both schedules' of a comparison."""
    return [half for name, half in compared_in(folder).items() if name != RANDOM] or [folder]


def _export(options: argparse.Namespace) -> None:
    others = (options.out, options.tick, options.rerun if options.lerobot is not None else None)
    if len(options.folders) > 1 or options.open or any(other is not None for other in others):
        raise ConfigError("--rerun and --lerobot are of one run, each alone; leave out --out, --open and --tick")
    console, folder = Terminal(highlight=False), options.folders[0]
    with _writing(options.lerobot or options.rerun):
        if options.lerobot is not None:
            from rtcore.recording.lerobot import write_lerobot  # noqa: PLC0415 - a page needs nothing of it

            with Recording(folder) as recording:
                count = write_lerobot(recording, options.lerobot)
            console.print(f"wrote {options.lerobot}: {counted(count, 'episode')}", markup=False, soft_wrap=True)
            return
        from rtcore.report.rerun import write_rrd  # noqa: PLC0415

        run = read_run(folder)
        path = write_rrd(run, options.rerun)
    console.print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB): rerun {path}", markup=False, soft_wrap=True)
    for note in run.notes:
        console.print(f"Note: {note}", style="yellow", markup=False)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise RtcoreError(f"cannot write {out}: {error.strerror}; give another place") from error


def _explain(options: argparse.Namespace) -> None:
    if len(options.folders) > 1:
        folders = ", ".join(map(str, options.folders))
        raise ConfigError(f"--tick explains a tick of one run; got {len(options.folders)} folders: {folders}. Name one")
    if options.out is not None or options.open:
        raise ConfigError("--tick writes to the terminal, no page; leave out --out and --open")
    run = read_run(options.folders[0])
    facts = explain_tick(run, options.tick)
    console = Terminal(highlight=False)
    console.print(facts[0].text, style="bold", markup=False)
    console.print(_as_table(facts[1:]))
    for note in run.notes:
        console.print(f"Note: {note}", style="yellow", markup=False)


def _as_table(facts: list[Fact]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for fact in facts:
        table.add_row(fact.label, Text(fact.text))
    return table


def _write_page(options: argparse.Namespace, out: Path, errors: Console) -> None:
    with suppress(PermissionError):  # a folder that may not be looked into is named by who reads it
        if out.is_dir():
            raise ConfigError(f"--out {out}: is a folder; expected a file name such as {out / 'report.html'}")
    with errors.status("reading") as status:
        runs = []
        for folder in options.folders:
            status.update(f"reading {folder}")
            runs.append(read_run(folder))
        status.update("building the page")
        page = build_page(runs)
    _write(out, page)
    for run in runs:
        for note in run.notes:
            errors.print(f"{run.path}: {note}", style="yellow", markup=False, soft_wrap=True)
    size_mb = len(page.encode()) / 1e6
    Terminal(highlight=False).print(f"wrote {out} ({size_mb:.1f} MB)", markup=False, soft_wrap=True)
    if options.open and not webbrowser.open(out.resolve().as_uri()):
        errors.print(f"no browser found here: copy {out} to where there is one", markup=False, soft_wrap=True)


def _write(out: Path, page: str) -> None:
    with _writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as draft:
            draft.write_text(page, encoding="utf-8")
