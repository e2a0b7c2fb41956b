"""`rtcore-report`: a run's folder as one HTML page, several side by side, or one tick in words."""

from __future__ import annotations

import argparse
import webbrowser
from contextlib import suppress
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rtcore.cli.exits import end_program
from rtcore.config.help_text import Parser, add_version
from rtcore.errors import ConfigError, RtcoreError
from rtcore.files.whole import whole_file
from rtcore.report.explain import Fact, explain_tick
from rtcore.report.page.build import build_page
from rtcore.report.terminal import Terminal
from rtcore.results.folder import read_run
from rtcore.results.out_folder import RANDOM, compared_in

_DESCRIPTION = """\
Show what happened in a run that was kept with `rtcore-run --out DIR`.

Without --tick it writes one HTML page that needs nothing else (no network, no other file): numbers, a timeline of
workers and ticks to zoom into, distributions, outcomes over time, settings and machine. Several folders stand side
by side, with ratios against the first. With --tick N it says in words what happened at tick N. A run that was
killed, or is still going on, is shown as far as its files go, and what is missing is said.
"""
_EPILOG = """\
examples:
  rtcore-run --policy synthetic --policy-args latency_ms=100 --duration 20 --out runs/a
  rtcore-report runs/a                                    writes runs/a/report.html
  rtcore-report runs/a --open                             ... and opens it in a browser
  rtcore-report runs/latest                               of a comparison (--compare): both schedules side by side
  rtcore-report runs/a runs/b --out compared.html         two runs side by side
  rtcore-report runs/a --tick 312                         why tick 312 went as it did
  scp host:runs/a/report.html .                           over SSH: take the one file home

exit codes: 0 done; 1 the page could not be written; 2 a wrong argument, or a folder that is not a run
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0, 1 for a failure, 2 for wrong arguments or a folder that is not a run."""
    end_program("rtcore-report", lambda: _do(_parser().parse_args(arguments)))


def _do(options: argparse.Namespace) -> int:
    first = options.folders[0]
    options.folders = [folder for given in options.folders for folder in _runs_in(given)]
    if options.tick is not None:
        _explain(options)
    else:
        out = options.out if options.out is not None else first / "report.html"
        _write_page(options, out, Terminal(stderr=True, highlight=False))
    return 0


def _runs_in(folder: Path) -> list[Path]:
    """The folder of a run itself; both schedules' of a comparison."""
    return [half for name, half in compared_in(folder).items() if name != RANDOM] or [folder]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rtcore-report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder that rtcore-run --out wrote")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page [report.html in the first DIR]")
    parser.add_argument("--open", action="store_true", help="open the page in a browser, where there is one")
    parser.add_argument("--tick", type=int, metavar="N", help="explain tick N in words on the terminal; no page")
    add_version(parser)
    return parser


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
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as draft:
            draft.write_text(page, encoding="utf-8")
    except OSError as error:
        raise RtcoreError(f"cannot write {out}: {error.strerror}; give another place with --out") from error


if __name__ == "__main__":
    main()
