"""`rtcore-sweep`: experiments as a table of independent cells, said by one file; and the report on them."""

from __future__ import annotations

import sys
from pathlib import Path

from rtcore.cli.exits import end_program, find_own_modules, stop_if_told
from rtcore.config.help_text import Parser, add_program_options, at_least_one

_DESCRIPTION = """\
Run experiments: every combination of worlds, agents, delays and seeds that a file names is a cell.

Each cell is a run of its own, in a process of its own, with one thread: it trains if its settings say so, then plays
episodes to judge what was learned. It leaves one small JSON file, OUT/cells/NAME.json. The same command goes on where
an earlier one was stopped or killed; cells of changed settings are played again, and so are those that failed. On the
virtual clock a cell comes to the same numbers on any machine of the same kind, in any order, beside any others. Cells
on the wall clock disturb each other: they are played one at a time unless --jobs says otherwise.
"""
_EPILOG = """\
A file, say delays.toml:

  delays = [1, 5, 8]           # ticks from frame to action
  seeds = 10                   # 0 to 9; or a list
  ticks = 60_000               # of training
  episodes = 20                # played to judge
  [settings]                   # of every cell, named as the options of rtcore-run
  policy = "mlp"
  learn = "dqn"
  [[worlds]]
  name = "pushed cartpole"
  env-id = "rtcore/PushedCartPole-v0"
  [[agents]]
  name = "staggered"
  workers = "delay"            # as many as the delay has ticks
  [[agents]]
  name = "sequential"
  workers = 1
  stagger = "sequential"
  [[agents]]
  name = "random"
  without = ["learn"]
  policy = "random"
  [axes]                       # any other setting
  learning-rate = [1e-3, 3e-4]

docs/experiments.md has every key.

examples:
  rtcore-sweep delays.toml --dry-run                which cells there are, and whether all of them can be played
  rtcore-sweep delays.toml --out runs/delays        play them; the same command goes on with what is left
  rtcore-sweep delays.toml --only '*-s0'            the first seed alone
  rtcore-sweep delays.toml --backend ray            on a Ray of this machine
  rtcore-sweep delays.toml --backend ray --address auto       on the Ray cluster that this machine is part of
  rtcore-sweep report runs/delays                   the table and the plots; rtcore-sweep report --help

exit codes: 0 every cell is done; 1 a cell failed (the others are done); 2 a wrong file or argument, before any cell
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0 if every cell is done, 1 if one failed, 2 for wrong words, 128+n for signal n."""
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-sweep", lambda: _do(words))


def _do(words: list[str]) -> int:
    if words[:1] == ["report"]:
        from rtcore.cli.sweep_report import report  # noqa: PLC0415 - nothing of it is needed to play

        return report(words[1:])
    options = _parser().parse_args(words)
    # After the words were understood: a help text needs a tenth of what playing imports.
    from rtcore.cli.do_sweep import sweep  # noqa: PLC0415

    stop_if_told()
    return sweep(options)


def _parser() -> Parser:
    parser = Parser(prog="rtcore-sweep", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("file", type=Path, metavar="FILE.toml", help="the sweep; or `report`, then the folder of one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for what comes of it [runs/NAME of the file]")
    parser.add_argument("--jobs", type=at_least_one, metavar="N", help="cells at a time [one for each CPU]")
    parser.add_argument(
        "--backend",
        choices=("local", "ray"),
        default="local",
        help="local: processes of this machine. ray: Ray tasks, which need rtcore[ray] [local]",
    )
    parser.add_argument("--address", metavar="A", help="Ray cluster to use [a Ray of the sweep's own, on this machine]")
    parser.add_argument(
        "--only", action="append", default=[], metavar="PATTERN", help="only cells of such names; may be given again"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="check and list the cells, say which are done, and play none"
    )
    add_program_options(parser)
    return parser


if __name__ == "__main__":
    main()
