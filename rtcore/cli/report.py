"""`rtcore-report`: a run's folder as one HTML page, several side by side, or one tick in words."""

from __future__ import annotations

from pathlib import Path

from rtcore.cli.exits import end_program
from rtcore.config.help_text import Parser, add_program_options

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
  rtcore-report runs/a --rerun a.rrd                      ... for Rerun: then `rerun a.rrd`
  rtcore-report runs/a --lerobot data/a                   its episodes as a LeRobot data set
  scp host:runs/a/report.html .                           over SSH: take the one file home

exit codes: 0 done; 1 the page could not be written; 2 a wrong argument, or a folder that is not a run
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0, 1 for a failure, 2 for wrong arguments or a folder that is not a run."""
    end_program("rtcore-report", lambda: _do(arguments))


def _do(arguments: list[str] | None) -> int:
    options = _parser().parse_args(arguments)
    # After the words were understood: a help text needs a tenth of what reading a run imports.
    from rtcore.cli.do_report import report  # noqa: PLC0415

    return report(options)


def _parser() -> Parser:
    parser = Parser(
        prog="rtcore-report",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder that rtcore-run --out wrote")
    parser.add_argument("--out", type=Path, metavar="FILE.html", help="the page [report.html in the first DIR]")
    parser.add_argument("--open", action="store_true", help="open the page in a browser, where there is one")
    parser.add_argument(
        "--rerun",
        type=Path,
        metavar="FILE.rrd",
        help="of one DIR: frames, actions, delays and lanes as a file for Rerun (rtcore[rerun]); no page",
    )
    parser.add_argument(
        "--lerobot",
        type=Path,
        metavar="NEW_DIR",
        help="of one recorded DIR: its episodes as a LeRobot data set, version 3.0 (rtcore[lerobot]); no page",
    )
    parser.add_argument("--tick", type=int, metavar="N", help="explain tick N in words on the terminal; no page")
    add_program_options(parser)
    return parser


if __name__ == "__main__":
    main()
