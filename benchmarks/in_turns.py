"""What `rtcore-profile` measures, of this checkout and of another one, in turns.

    git worktree add --detach /tmp/before COMMIT
    python -m benchmarks.in_turns --against /tmp/before --rounds 3 ipc --readers 1 --rounds 200
    python -m benchmarks.in_turns --against /tmp/before --metrics lateness_p99_us,acted_fraction scale --rates none

Behind the own options stands a command of rtcore-profile with its options, the same for both checkouts. Round by round
each measures once, in changing order, so that both meet the same machine. Shown is the median of the rounds, with the
least and the most: a difference within these says nothing. What the other checkout has of the tick path in C must have
been compiled there (pip install -e PATH, or a wheel unpacked over it).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

_CHECKOUT = Path(__file__).parents[1]
#: Numbers that name a row, as its texts do.
_NAMING = ("readers", "workers", "rate_hz")
#: (row, metric) -> what each round found.
Found = dict[tuple[str, str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, required=True, metavar="PATH", help="the other checkout")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="measurements of each [3]")
    parser.add_argument("--metrics", default="p50_us,p99_us", metavar="NAME,...", help="columns [p50_us,p99_us]")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what every round found")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="of rtcore-profile")
    options = parser.parse_args()
    if not options.command:
        parser.error("what is to be measured? A command of rtcore-profile, as in the examples above")
    checkouts = {"before": options.against.resolve(), "now": _CHECKOUT}
    for path in checkouts.values():
        if not (path / "rtcore").is_dir():
            parser.error(f"{path} is no checkout of rtcore: it has no folder rtcore")
    results = take_turns(checkouts, options.rounds, options.command)
    if options.json is not None:
        options.json.write_text(json.dumps(results))
    found = {name: _numbers(rounds, options.metrics.split(",")) for name, rounds in results.items()}
    Console().print(_table_of(found, options.rounds, " ".join(options.command)))


def take_turns(checkouts: Mapping[str, Path], rounds: int, command: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The JSON of each round, by checkout."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in checkouts}
    for number in range(rounds):
        for name in sorted(checkouts, reverse=bool(number % 2)):
            print(f"round {number + 1} of {rounds}: {name}", file=sys.stderr, flush=True)
            results[name].append(_measured(checkouts[name], command))
    return results


def _measured(checkout: Path, command: Sequence[str]) -> dict[str, Any]:
    path = os.pathsep.join(str(checkout / folder) for folder in (".", "workers", "envs"))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "result.json")
        # -P, and elsewhere: not the folder of one of the two checkouts.
        program = [sys.executable, "-P", "-m", "rtcore.cli.profile", *command, "--json", str(file)]
        done = subprocess.run(
            program, env=os.environ | {"PYTHONPATH": path}, cwd=folder, stdout=subprocess.DEVNULL, check=False
        )
        if done.returncode:
            sys.exit(f"rtcore-profile of {checkout} ended with {done.returncode}")
        result: dict[str, Any] = json.loads(file.read_text())
        return result


def _numbers(rounds: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> Found:
    found: Found = {}
    for row in (row for result in rounds for row in result["rows"]):
        for metric in metrics:
            if isinstance(row.get(metric), float | int):
                found.setdefault((_name_of(row), metric), []).append(row[metric])
    return found


def _name_of(row: Mapping[str, Any]) -> str:
    named = (value for key, value in row.items() if key != "limit" and (isinstance(value, str) or key in _NAMING))
    return ", ".join(str(value) for value in named)


def _table_of(found: Mapping[str, Found], rounds: int, command: str) -> Table:
    table = Table(title=f"{command}: median (least .. most) of {rounds} rounds in turns")
    for name in ("row", "metric"):
        table.add_column(name)
    for name in (*found, "now / before"):
        table.add_column(name, justify="right")
    for (row, metric), ours in found["now"].items():
        theirs = found["before"].get((row, metric))
        cells = [_spread(values) for values in (theirs, ours)]
        ratio = statistics.median(ours) / statistics.median(theirs) if theirs and any(theirs) else None
        table.add_row(row, metric, *cells, "-" if ratio is None else f"{ratio:.2f}")
    return table


def _spread(values: Sequence[float] | None) -> str:
    if not values:
        return "-"
    return f"{statistics.median(values):.4g} ({min(values):.4g} .. {max(values):.4g})"


if __name__ == "__main__":
    main()
