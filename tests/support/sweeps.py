"""Folders of sweeps for tests: played in this process, or with results that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path

from rtcore.experiments.playing import play_cell
from rtcore.experiments.records import CellResult, Cost, Spread, record_of, write_manifest, write_record
from rtcore.experiments.sweepfile import Cell, cells_of, load_sweep

#: Two agents of a sweep file that learn nothing: cells of some milliseconds.
RANDOM_PLAY = """
[settings]
env-id = "rtcore/PushedCartPole-v0"
policy = "random"
[[agents]]
name = "staggered"
workers = "delay"
[[agents]]
name = "sequential"
workers = 1
stagger = "sequential"
"""
_COST = Cost(cpu_s=0.0, wall_s=0.0, host="test")
#: A world of every cell, where nobody plays.
_SOME = '[[worlds]]\nname = "some"\nenv-id = "rtcore/Blocks-v0"\n'


def played(folder: Path, sweep: str, rate_hz: int) -> Path:
    """The folder of a sweep, whose cells are played here one after another."""

    def play(cell: Cell) -> CellResult:
        return play_cell(cell, Fraction(rate_hz), folder / "scratch")

    return _written(folder, sweep, rate_hz, play)


def made_up(
    folder: Path,
    agents: Mapping[str, Callable[[int, int], float | str | None]],
    *,
    delays: list[int],
    seeds: int,
    keys: Mapping[str, str] | None = None,
) -> Path:
    """The folder of a sweep in which nobody played.

    Args:
        folder: Where it is to be.
        agents: By name: from delay and seed to the return of an episode, the error that the cell ended with, or None
            for a cell that is missing.
        delays: Of every agent.
        seeds: How many.
        keys: More lines of the sweep file, by agent, or by "world" and "file".
    """
    keys = keys or {}
    parts = [f"delays = {delays}", f"seeds = {seeds}", keys.get("file", ""), "[settings]", 'policy = "random"']
    parts += [_SOME, keys.get("world", "")]
    parts += [f'[[agents]]\nname = "{name}"\nworkers = "delay"\n{keys.get(name, "")}' for name in agents]

    def result(cell: Cell) -> CellResult | str | None:
        value = agents[str(cell.axes["agent"])](int(cell.axes["delay_ticks"]), int(cell.axes["seed"]))
        return result_of(value) if isinstance(value, (int, float)) else value

    return _written(folder, "\n".join(parts), 60, result)


def result_of(value: float, *, workers: int = 1, tau_ms: float = 8.0, acted: float = 1.0) -> CellResult:
    """A cell whose two episodes both returned `value`, in 100 ticks each, after a training that went there evenly."""
    one = Spread(min=1, max=1, mean=1.0)
    return CellResult(
        returns=[value, value],
        episode_ticks=[100, 100],
        ticks=200,
        points=2 * value,
        acted_fraction=acted,
        delay_ticks=one,
        interval_ticks=one,
        workers=workers,
        rate_hz=60.0,
        tau_ms=tau_ms,
        curve=[(1000, 0.0), (2000, value / 2), (3000, value)],
    )


def _written(folder: Path, sweep: str, rate_hz: int, result: Callable[[Cell], CellResult | str | None]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "sweep.toml"
    file.write_text(sweep)
    cells = cells_of(load_sweep(file))
    write_manifest(folder, file.name, cells)
    for cell in cells:
        if (outcome := result(cell)) is not None:
            write_record(folder, record_of(cell, Fraction(rate_hz), _COST, outcome, ()))
    return folder
