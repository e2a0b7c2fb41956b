"""The paper's comparison: asynchronous against sequential, at several delays, learned from scratch.

On Blocks, or on the recipe's `env-id`.

    python -m benchmarks.delays --out DIR [--recipe benchmarks/blocks_dqn.toml] [--ticks 100000] [--seeds 3]
                                [--delays 1,5,8] [--jobs 2] [--episodes 50] [--sequential KEY=VALUE ...]

Asynchronous: d workers, an action every tick, each d ticks old. Sequential: one worker, an action every d ticks, each d
ticks old, the no-op in between. Both train on the virtual clock with the same recipe and the same number of learning
updates per tick; the network that remains at the end then plays greedily, without exploring, through the same delay on
episodes it has not seen. Floors: random actions through the same delays, and the no-op.

Each cell (agent, delay, seed) is a process of one thread and leaves a JSON file in DIR/cells: a benchmark that was
interrupted goes on where it stopped. A cell is done anew if the recipe has changed. At the end: DIR/delays.json,
delays.md (95% confidence intervals by Student's t over the seeds), delays.png, and a learning curve for each delay.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import shutil
import signal
import sys
import time
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.delays_report import write_report
from rtcore.cli.exits import Stopped, signals_as_exceptions
from rtcore.config.run import RuntimeConfig, load_toml, make_config
from rtcore.errors import ConfigError
from rtcore.files.strict_json import write_json
from rtcore.host.conditions import HostWatch, conditions_text
from rtcore.virtual.simulate import Simulation

LEARNED = ("asynchronous", "sequential")
FLOORS = ("random asynchronous", "random sequential", "no-op")
#: What the benchmark decides itself: a recipe may hold these for rtcore-run, here they are left out.
_DECIDED_HERE = ("seed", "ticks", "duration", "clock", "latency", "workers", "stagger", "mode", "out", "live", "learn")
#: Evaluation: seeds of their own, and an end for games that do not end by themselves.
_EVALUATION_SEED = 10_000
_MAX_EPISODE_TICKS = 10_000
#: Share of a cell that playing the episodes is taken for, in the progress line.
_EVALUATION_SHARE = 0.15


class Cell(NamedTuple):
    """One number of the table: an agent at a delay with a seed."""

    agent: str
    delay_ticks: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.agent.replace(' ', '-')}-d{self.delay_ticks}-s{self.seed}"

    @property
    def is_sequential(self) -> bool:
        return self.agent.endswith("sequential")


def still(observation_space: Any, action_space: Any, action: int) -> Any:
    """A network that always chooses `action`: the world's no-op."""
    from torch import nn, zeros

    class Still(nn.Module):
        def forward(self, frames: Any) -> Any:
            values = zeros(len(frames), int(action_space.n))
            values[:, action] = 1
            return values

    return Still()


class World(NamedTuple):
    """What a cell needs to know of the world."""

    rate_hz: Fraction
    noop: int


def config_of(cell: Cell, recipe: dict[str, Any], rate_hz: Fraction, **fields: Any) -> RuntimeConfig:
    """A cell's run: half a tick less than its delay, so that it is that many ticks exactly."""
    latency_ms = float((cell.delay_ticks - Fraction(1, 2)) * 1000 / rate_hz)
    schedule = {"workers": 1, "stagger": "sequential"} if cell.is_sequential else {"workers": cell.delay_ticks}
    given = {key: value for key, value in recipe.items() if key not in _DECIDED_HERE}
    settings = {"env_id": "rtcore/Blocks-v0", "tensorboard": False}
    settings |= given | schedule | {"clock": "virtual", "latency": f"constant:{latency_ms}", "seed": cell.seed}
    return make_config(**(settings | fields))


# -- one cell, in a process of its own ---------------------------------------------------------------------------

_progress: Any = None


def _begin(progress: Any) -> None:
    global _progress  # noqa: PLW0603 - one per process of the pool
    _progress = progress
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process


def run_cell(
    index: int, cell: Cell, recipe: dict[str, Any], ticks: int, episodes: int, folder: Path, world: World
) -> dict[str, Any]:
    """Train, if it is an agent that learns, and evaluate. Writes the cell's file."""

    def show(share: float) -> None:
        if _progress is not None:
            _progress[index] = int(1000 * share)

    began_s = time.process_time()
    result: dict[str, Any] = {"agent": cell.agent, "delay_ticks": cell.delay_ticks, "seed": cell.seed}
    played = {"learn": None, "policy": "random" if cell.agent.startswith("random") else "benchmarks.delays:still"}
    if cell.agent in LEARNED:
        run = folder / "cells" / cell.name
        shutil.rmtree(run, ignore_errors=True)  # of a run that was interrupted
        result["training"] = _train(config_of(cell, recipe, world.rate_hz, learn="dqn", ticks=ticks, out=run), show)
        played = {"learn": None, "policy_checkpoint": run}
    elif cell.agent in FLOORS:
        args = {} if cell.agent.startswith("random") else {"action": world.noop}
        played |= {"policy_args": args, "obs_history": 0, "act_history": 0, "policy_checkpoint": None}
    trained_s = time.process_time()
    env_args = {"max_episode_steps": _MAX_EPISODE_TICKS} | recipe.get("env_args", {})
    evaluation = config_of(
        cell, recipe, world.rate_hz, **played, env_args=env_args, ticks=_MAX_EPISODE_TICKS * episodes
    )
    evaluation = evaluation.replace(seed=_EVALUATION_SEED + cell.seed)
    result |= _evaluate(evaluation, cell, episodes, show)
    ended_s = time.process_time()
    result["cpu_s"] = {"training": trained_s - began_s, "evaluation": ended_s - trained_s}
    return result


def _train(config: RuntimeConfig, show: Any) -> dict[str, Any]:
    simulation = Simulation(config)
    ticks = simulation.resolved.num_ticks

    def report(tick: int) -> None:
        if tick % 500 == 0:
            show((1 - _EVALUATION_SHARE) * tick / ticks)

    simulation.run(report)
    simulation.close()
    if config.output.out is not None:
        for file in ("actions.csv", "jobs.csv"):
            (config.output.out / file).unlink(missing_ok=True)
    stats = simulation.stats()
    return {
        "learner": stats.learner.to_json() if stats.learner is not None else {},
        "episodes": [list(episode) for episode in stats.episodes],
    }


def _evaluate(config: RuntimeConfig, cell: Cell, episodes: int, show: Any) -> dict[str, Any]:
    """Returns of that many episodes, and whether the schedule was what the table says."""
    simulation = Simulation(config)

    def enough(tick: int) -> bool:
        done = simulation.record.episodes.count
        if tick % 500 == 0:
            show(1 - _EVALUATION_SHARE * (1 - done / episodes))
        return done >= episodes

    simulation.run(enough)
    simulation.close()
    stats = simulation.stats()
    delay, interval = stats.distributions["delay_ticks"], stats.distributions["interval_ticks"]
    wanted = cell.delay_ticks if cell.is_sequential else 1
    found = (delay.min, delay.max, interval.min, interval.max)
    if found != (cell.delay_ticks, cell.delay_ticks, wanted, wanted):
        raise RuntimeError(
            f"{cell.name}: actions {interval.min} to {interval.max} ticks apart, {delay.min} to {delay.max} ticks old; "
            f"expected {wanted} and {cell.delay_ticks}"
        )
    played = stats.episodes[:episodes]
    return {
        "returns": [episode.total_reward for episode in played],
        "episode_ticks": [episode.num_ticks for episode in played],
        "acted_fraction": stats.acted_fraction,
    }


# -- all of them -------------------------------------------------------------------------------------------------


def cells_of(delays: list[int], seeds: int) -> list[Cell]:
    """Those that take longest first. The no-op is the same at every delay."""
    learned = [Cell(agent, delay, seed) for seed in range(seeds) for delay in delays for agent in LEARNED]
    floors = [Cell(agent, delay, seed) for seed in range(seeds) for delay in delays for agent in FLOORS[:2]]
    return [*learned, *floors, *(Cell(FLOORS[2], 1, seed) for seed in range(seeds))]


def run_all(options: argparse.Namespace, recipes: dict[str, dict[str, Any]], console: Console) -> list[dict[str, Any]]:
    """Every cell's result; those that a file has already are not done again."""
    cells = cells_of(options.delays, options.seeds)
    keys = {cell: _key(options, recipes[_recipe_of(cell)]) for cell in cells}
    results = {cell: found for cell in cells if (found := _read(options.out, cell, keys[cell])) is not None}
    left = [cell for cell in cells if cell not in results]
    console.print(f"{len(cells)} cells, {len(results)} of them done before; {options.jobs} at a time")
    context = multiprocessing.get_context("spawn")
    progress = context.Array("q", max(1, len(left)), lock=False)
    pool = ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_begin, initargs=(progress,))
    world = _world_of(recipes["asynchronous"])
    try:
        futures: dict[Future[dict[str, Any]], Cell] = {}
        for index, cell in enumerate(left):
            recipe = recipes[_recipe_of(cell)]
            arguments = (index, cell, recipe, options.ticks, options.episodes, options.out, world)
            futures[pool.submit(run_cell, *arguments)] = cell
        for cell, result in _finished(futures, progress, _weights(left), console):
            result["key"] = keys[cell]
            write_json(_file(options.out, cell), result)
            results[cell] = result
    except BaseException:
        _end(pool)
        raise
    pool.shutdown()
    return [results[cell] for cell in cells]


def _finished(futures: dict[Future[dict[str, Any]], Cell], progress: Any, weights: list[int], console: Console) -> Any:
    """(cell, result) as they come, under a line that says how far it is and how long it will take."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(True))
    bar = Progress(TextColumn("{task.description}"), *columns, console=console, speed_estimate_period=600)
    with bar:
        task = bar.add_task("ticks and episodes, in thousandths of a cell", total=1000 * sum(weights))
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, timeout=2, return_when=FIRST_COMPLETED)
            for future in done:
                cell, result = futures[future], future.result()
                progress[list(futures).index(future)] = 1000
                mean = sum(result["returns"]) / len(result["returns"])
                cpu_s = sum(result["cpu_s"].values())
                bar.console.print(f"{cell.name}: mean return {mean:.2f}, {cpu_s:.0f} CPU s", highlight=False)
                yield cell, result
            bar.update(task, completed=sum(share * weight for share, weight in zip(progress, weights, strict=False)))


def _weights(cells: list[Cell]) -> list[int]:
    """How long cells take, roughly: those that learn ten times as long."""
    return [10 if cell.agent in LEARNED else 1 for cell in cells]


def _end(pool: ProcessPoolExecutor) -> None:
    """Now: what is not finished will be done anew."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()


def _recipe_of(cell: Cell) -> str:
    return "sequential" if cell.is_sequential else "asynchronous"


def _world_of(recipe: dict[str, Any]) -> World:
    """The world at hand."""
    simulation = Simulation(
        config_of(Cell("random", 1, 0), recipe, Fraction(60), policy="random", policy_args={}, policy_checkpoint=None)
    )
    simulation.close()
    return World(simulation.resolved.rate_hz, int(simulation.world.stand_in()[0]))


def _key(options: argparse.Namespace, recipe: dict[str, Any]) -> dict[str, Any]:
    """What a result depends on."""
    key: dict[str, Any] = json.loads(
        json.dumps({"recipe": recipe, "ticks": options.ticks, "episodes": options.episodes}, default=str)
    )
    return key


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def _read(folder: Path, cell: Cell, key: dict[str, Any]) -> dict[str, Any] | None:
    file = _file(folder, cell)
    if not file.exists():
        return None
    result: dict[str, Any] = json.loads(file.read_text())
    return result if result.get("key") == key else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/delays"))
    parser.add_argument("--recipe", type=Path, default=Path("benchmarks/blocks_dqn.toml"))
    parser.add_argument("--ticks", type=int, default=100_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--delays", type=lambda text: [int(each) for each in text.split(",")], default=[1, 5, 8])
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument(
        "--sequential", nargs="*", default=[], metavar="KEY=VALUE", help="settings of the sequential agent alone"
    )
    options = parser.parse_args()
    console, watch = Console(), HostWatch()
    try:
        recipe = load_toml(options.recipe)
        for key, value in recipe.items():
            if isinstance(value, dict) and key not in ("env_args", "policy_args"):
                raise ConfigError(f"{options.recipe}: [{key}] is a table; expected settings as for rtcore-run --config")
        changed = dict(each.split("=", 1) for each in options.sequential)
        recipes = {"asynchronous": recipe, "sequential": recipe | changed}
        with signals_as_exceptions():
            results = run_all(options, recipes, console)
    except ConfigError as error:
        sys.exit(f"delays: {error}")
    except Stopped as stop:
        sys.exit(f"stopped by {stop}; the cells that are done are kept, the same command goes on with the others")
    conditions = conditions_text(watch.conditions())
    write_report(options.out, results, recipes, options.ticks, options.episodes, conditions)
    console.print((options.out / "delays.md").read_text(), markup=False, highlight=False)


if __name__ == "__main__":
    main()
