"""The text of docs/tables.md: what each column of a run's tables means, as `rtcore/results/rows.py` says it."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from rtcore.errors import key_of
from rtcore.results.rows import INFERENCES, TICKS, RowFormat
from rtcore.scheduling.dispatch import Outcome, Source, TickKind


def tables_document() -> str:
    """All of it."""
    values = (_values(kind, column) for kind, column in ((TickKind, "kind"), (Source, "source"), (Outcome, "outcome")))
    return _TEXT.format(ticks=_columns(TICKS), jobs=_columns(INFERENCES), values="".join(values))


def _columns(rows: RowFormat[Any]) -> str:
    lines = (f"| `{name}` | {rows.dtype_name(name)} | {meaning} |" for name, meaning in rows.meanings.items())
    return "\n".join(["| column | type | meaning |", "|---|---|---|", *lines])


def _values(kind: type[IntEnum], column: str) -> str:
    lines = (f"| `{key_of(member)}` | {getattr(member, 'meaning', '')} |" for member in kind)
    return "\n".join(["", f"| `{column}` | means |", "|---|---|", *lines, ""])


_TEXT = """\
# A run as tables

<!-- Made from rtcore/results/rows.py by `make docs` (tools/tabledoc.py). Do not edit: a test compares. -->

    import rtcore
    run = rtcore.load_run("runs/a")        # what rtcore-run --out runs/a, or Runtime(..., out="runs/a"), wrote
    ticks = run.to_numpy("ticks")          # a structured array: a row for each tick that ran
    late = ticks["lateness_us"][ticks["kind"] == "acted"]
    jobs = run.to_pandas("jobs")           # a DataFrame: a row for each inference; needs pandas
    jobs.groupby("worker")["inference_ms"].median()
    run.columns("jobs")["inference_ms"]    # what a column means: the text below
    run.summary["actions"]["acted_fraction"], run.settings["env_id"], run.notes

In a notebook a run shows itself: the numbers that matter most, and a typical stretch of its workers over its ticks. So
does a `Runtime`, under way or over. `examples/tutorial.ipynb` is such a notebook (`pip install 'rtcore[notebook]'`).

A run that was killed, or goes on, has its rows as far as they go, and no `summary`; `notes` says what is missing. Rows
that cannot be read are left out and counted there. Of a comparison (`rtcore-run --compare`) each schedule has a folder
of its own within the folder.

Where there is nothing to say, the file has an empty cell; in a table that is -1 of an int, NaN of a float, "" of a str.
Times in `_ns` are of CLOCK_MONOTONIC of the machine's last start, or begin at 0 on the virtual clock.

## ticks: actions.csv

{ticks}

## jobs: jobs.csv

{jobs}

## Names
{values}"""
