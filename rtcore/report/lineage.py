"""A run that goes on from another one: what both did, as one, out of the folder where they are kept."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rtcore.errors import ConfigError
from rtcore.files.outside import lines_of, parse_object, read_bytes
from rtcore.results.out_folder import EARLIER
from rtcore.results.record import Episode


def learned_episodes(out: Path) -> list[Episode]:
    """The episodes of the run in `out` and of those in it that it goes on from, ticks counted from the first one's on.

    What an earlier run did after the checkpoint that the next one went on from is left out: nothing came of it. Rows
    that cannot be read are left out, too.
    """
    found: list[Episode] = []
    until = None
    for folder in _newest_first(out):
        before = _ticks_before(folder)
        ended = [episode._replace(end_tick=episode.end_tick + before) for episode in _episodes(folder / "actions.csv")]
        found = [episode for episode in ended if until is None or episode.end_tick < until] + found
        until = before
        if not before:
            break
    return found


def _newest_first(out: Path) -> Iterator[Path]:
    yield out
    numbers = [int(path.name) for path in (out / EARLIER).glob("[0-9]*") if path.name.isdigit()]
    for number in sorted(numbers, reverse=True):
        yield out / EARLIER / str(number)


def _ticks_before(folder: Path) -> int:
    """0 of a run that goes on from none."""
    path = folder / "config.json"
    with suppress(ConfigError, ValueError, TypeError, KeyError):
        resumed = parse_object(read_bytes(path, "resume"), path, "resume")["resumed"]
        return max(0, int(resumed["before"]["ticks"])) if resumed else 0
    return 0


def _episodes(path: Path) -> Iterator[Episode]:
    """From the rows, which are there however the run ended; one after the other, as there may be millions."""
    steps = 0
    try:
        for row in csv.DictReader(lines_of(path, "resume")):
            with suppress(ValueError, TypeError, KeyError):
                tick = int(row["tick"])
                # A world that is held has not moved.
                steps = 0 if row["kind"] == "reset" else steps + (row["source"] != "held")
                if row["kind"] == "reset":
                    continue
                if not {"1", "True"}.isdisjoint((row["terminated"], row["truncated"])) and row["start_ns"]:
                    yield Episode(tick, steps, float(row["episode_return"]))
    except (ConfigError, csv.Error):
        return
