"""`rtcore-torture`: faults as a campaign. What its commands do is in `rtcore.torture`."""

from __future__ import annotations

import argparse
import sys

from rtcore.cli.exits import end_program, find_own_modules
from rtcore.config.help_text import Parser, add_program_options, at_least_one

_DESCRIPTION = """\
Break rtcore on purpose, as often as the time allows, and see whether it keeps its promises.

A seed decides all that happens. What breaks a promise is printed as one command that shows it again.
"""
_EPILOG = """\
examples:
  rtcore-torture sim --seeds 0..999                 a thousand runs on the virtual clock, each with faults of its own
  rtcore-torture sim --seeds 7 --show               what run 7 is made of, and what becomes of it
  rtcore-torture sim --minutes 10                   new seeds for ten minutes, on every CPU
  rtcore-torture real --seeds 0..299 --jobs 2       three hundred runs by real processes, with kills and a full disk
  rtcore-torture real --seeds 17..17 --show         run 17 once more
  rtcore-torture schedules --seeds 0..999999        a million orders of the accesses to shared memory: a night's work
  rtcore-torture soak --hours 2 --out runs/soak     a long run: does anything grow, does the tick grid drift

exit codes: 0 every promise was kept; 1 one was broken; 2 a wrong argument; 128+n stopped by signal n
"""
_SIM = """\
Runs that are made up from their seed, on the virtual clock: settings, inference times, and faults worse than life
(workers that die, hang, stop for a while and come back; a frozen machine, a clock that stands still, late wake-ups,
slow steps and resets, lapped readers). Tick loop, schedule, dispatcher, planner, slots, rings, worker supervision
and replay memory are rtcore's own; only processes and time are made up. Named checks look at every tick; once the
faults are over, the run has to do as well as the same one without faults. A run that breaks a promise is made smaller,
as long as it still does, and printed as a command.
"""
_REAL = """\
Runs of rtcore-run by real processes, of random worlds and settings, with random faults: signals (KILL, STOP and CONT,
TERM, INT, HUP, SEGV) to any process at any phase of the run, a frozen run, too little CPU time, refused forks, a full
disk, a full /dev/shm, no free file descriptor. Some need root, and are left out without. After each run: exit code and
words as documented; no process, segment or draft left; files that can be read, counts that agree; the world closed.
"""
_SCHEDULES = """\
The protocols of shared memory (ring, recording, slots with contexts and payloads, parameter store, held weights, master
weights, reset orders), by rtcore's own code, one access at a time: a seed draws how many processes there are, what they
do, who is killed when, and who goes next: anybody, or the first by priorities that change up to five times (PCT). What
is read must be whole and each other's; every record once, in order, or counted as lost. Printed: which lettered point
of one process directly followed which one of another, of all pairs. Needs rtcore[torture].
"""
_SOAK = """\
One long run with a learner, a recorder and an onlooker, whose workers and learner are killed now and then. Memory
(PSS), descriptors and threads of each process, segments, and how far the tick grid drifts from CLOCK_MONOTONIC_RAW,
over time: in OUT/soak.json, and as curves in OUT/soak.html. After ten minutes all of it must stay within 1%; of memory
what is in no file, as the share of a file depends on what else runs on the machine.
"""


def main(arguments: list[str] | None = None) -> None:
    """Program entry; exits 0 if every promise was kept, 1 if one was broken, 2 for wrong words."""
    words = sys.argv[1:] if arguments is None else arguments
    find_own_modules()
    end_program("rtcore-torture", lambda: _do(words))


def _do(words: list[str]) -> int:
    options = _parser().parse_args(words)
    # After the words were understood: a help text needs a tenth of what a campaign imports.
    if options.command == "real":
        from rtcore.torture.real import torture  # noqa: PLC0415

        return torture(options)
    if options.command == "soak":
        from rtcore.torture.soak import soak  # noqa: PLC0415

        return soak(options)
    if options.command == "schedules":
        from rtcore.torture.schedules import explore_seeds  # noqa: PLC0415

        return explore_seeds(options)
    from rtcore.torture.campaign import simulate  # noqa: PLC0415

    return simulate(options)


def _parser() -> Parser:
    parser = Parser(prog="rtcore-torture", description=_DESCRIPTION, epilog=_EPILOG)
    add_program_options(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="{sim,schedules,real,soak}")
    sim = commands.add_parser("sim", help="simulated runs, thousands of them", description=_SIM, epilog=_EPILOG)
    sim.add_argument("--seeds", type=_seeds, default=range(1000), metavar="A..B", help="from A to B, or one [0..999]")
    sim.add_argument("--ticks", type=at_least_one, default=1000, metavar="N", help="of each run [1000]")
    sim.add_argument("--minutes", type=float, metavar="M", help="go on for so long, with seeds from A on; else until B")
    sim.add_argument("--jobs", type=at_least_one, metavar="N", help="runs at a time [one for each CPU]")
    sim.add_argument(
        "--faults",
        type=_numbers,
        metavar="I,J,...",
        help="keep only these faults of a run, by number; 'none': no fault",
    )
    sim.add_argument("--show", action="store_true", help="print the settings and the faults of each run")
    sim.add_argument("--json", action="store_true", help="print the result as JSON")
    orders = commands.add_parser(
        "schedules", help="orders of the accesses to shared memory", description=_SCHEDULES, epilog=_EPILOG
    )
    orders.add_argument("--seeds", type=_seeds, default=range(10_000), metavar="A..B", help="[0..9999]")
    orders.add_argument("--jobs", type=at_least_one, metavar="N", help="processes [one for each CPU]")
    orders.add_argument("--json", action="store_true", help="print the result as JSON")
    real = commands.add_parser("real", help="runs by real processes, with kills", description=_REAL, epilog=_EPILOG)
    real.add_argument("--seeds", type=_seeds, default=range(100), metavar="A..B", help="from A to B, or one [0..99]")
    real.add_argument("--minutes", type=float, metavar="M", help="begin no run later than that")
    real.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="runs at a time [1]")
    real.add_argument(
        "--out", metavar="FOLDER", help="keep there what runs that broke a promise left [a temporary one]"
    )
    real.add_argument(
        "--log",
        metavar="FILE",
        help="append a line of JSON for each run; seeds that are in it are not run again, and the table is that of all",
    )
    real.add_argument("--show", action="store_true", help="print the settings and the faults of each run")
    real.add_argument("--json", action="store_true", help="print the result as JSON; else as tables in Markdown")
    long = commands.add_parser("soak", help="one long run: does anything grow", description=_SOAK, epilog=_EPILOG)
    long.add_argument("--hours", type=float, default=2.0, metavar="H", help="how long [2]")
    long.add_argument(
        "--kill-every-s", type=float, default=120.0, metavar="S", help="a worker or learner; 0: none [120]"
    )
    long.add_argument("--sample-every-s", type=float, default=10.0, metavar="S", help="look at everything [10]")
    long.add_argument("--out", default="runs/soak", metavar="FOLDER", help="[runs/soak]")
    return parser


def _seeds(text: str) -> range:
    first, dots, last = text.partition("..")
    try:
        seeds = range(int(first), int(last if dots else first) + 1)
    except ValueError:
        seeds = range(0)
    if not seeds or seeds[0] < 0:
        raise argparse.ArgumentTypeError(f"got {text}, expected A..B with 0 <= A <= B, such as 0..999, or one seed")
    return seeds


def _numbers(text: str) -> tuple[int, ...]:
    return () if text == "none" else tuple(int(number) for number in text.split(","))


if __name__ == "__main__":
    main()
