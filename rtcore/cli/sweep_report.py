"""`rtcore-sweep report`: tables and pictures of the cells that sweeps left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rtcore.config.help_text import Parser

_DESCRIPTION = """\
Tables and pictures of the cells of one sweep or several: a line for each agent, a column for each delay, the mean (or
interquartile mean) over the seeds with its 95% bootstrap interval. Written to DIR/report: report.md, report.json, and
pictures as PNG and SVG. Cells that failed or are missing are named. The same cells give the same report, bit for bit,
on whatever machine and in whatever order they ran; a sweep that is still going on is reported as far as it is.

--regret splits what the sequential agent falls short of the best known player into inaction (staggered less sequential
at the same delay), delay (zero delay less staggered) and learning (best known less zero delay). Who plays which role is
said in the sweep file (role = "staggered"), or here.

--scaling shows how many workers an action at every tick takes, over the inference time: of the cells that differ in
their workers only, the fewest with an action at 99% of the ticks.
"""
_EPILOG = """\
examples:
  rtcore-sweep report runs/sweep                       tables on the terminal, all files in runs/sweep/report
  rtcore-sweep report runs/a runs/b --by iqm           two sweeps in one table
  rtcore-sweep report runs/sweep --columns learning_rate
  rtcore-sweep report runs/sweep --regret --best CartPole=500
  rtcore-sweep report runs/workers --scaling
  rtcore-sweep report runs/sweep --json | jq .tables

exit codes: 0 done; 1 the files could not be written; 2 a wrong argument, or a folder without cells
"""


def report(words: Sequence[str]) -> int:
    """What these words behind `rtcore-sweep report` ask for; the exit code."""
    options = _parser().parse_args(words)
    # After the words were understood: a help text needs none of what draws pictures.
    from rtcore.experiments.report import write_report  # noqa: PLC0415

    return write_report(options)


def _parser() -> Parser:
    parser = Parser(prog="rtcore-sweep report", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="folder that rtcore-sweep wrote")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the files go [report in the first DIR]")
    parser.add_argument("--json", action="store_true", help="print report.json in place of the tables")
    parser.add_argument("--no-plots", action="store_true", help="tables only")
    parser.add_argument("--by", choices=("mean", "iqm"), default="mean", help="what seeds come to [mean]")
    parser.add_argument(
        "--metric",
        choices=("return", "per-1000-ticks", "acted"),
        default="return",
        help="mean return of a seed's episodes, reward per 1,000 ticks, or share of ticks with an action [return]",
    )
    parser.add_argument("--columns", metavar="AXIS", help="axis of the columns [delay_ticks, or what varies most]")
    parser.add_argument("--lines", metavar="AXIS", default="agent", help="axis of the lines [agent]")
    regret = parser.add_argument_group("regret")
    regret.add_argument("--regret", action="store_true", help="inaction, delay and learning, by world and delay")
    for role, what in (
        ("staggered", "agent with an action every tick"),
        ("sequential", "agent that acts, then thinks"),
        ("zero-delay", "agent that acts on the newest frame [staggered, at a delay of 1 tick]"),
    ):
        regret.add_argument(f"--{role}", metavar="AGENT", help=what)
    regret.add_argument(
        "--best",
        metavar="[WORLD=]VALUE",
        action="append",
        default=[],
        help="best known return, or the agent that reaches it [said in the sweep file, else the best of the table]",
    )
    workers = parser.add_argument_group("workers over inference time")
    workers.add_argument(
        "--scaling", action="store_true", help="workers that an action at every tick takes, in place of the tables"
    )
    return parser
