"""One cell, in the process that this is called in: train if it learns, then play, and say what that came to.

Everything random in it is seeded from the cell alone, before each of its runs: the same cell comes to the same numbers
in any process, after any other. Only on the wall clock time decides, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

from rtcore.config.resolved import tick_rate_hz
from rtcore.config.run import RuntimeConfig
from rtcore.errors import RtcoreError
from rtcore.experiments.records import CellResult, Spread
from rtcore.experiments.sweepfile import Cell
from rtcore.host.seeding import entropy_of, seed_generators
from rtcore.learn.checkpoint import BEST, FOLDER, LAST
from rtcore.loop.process import build_world
from rtcore.memory.counters import Distribution
from rtcore.processes.servers import shared_imports
from rtcore.results.run_record import Episode
from rtcore.results.summary import RunStats
from rtcore.runtime.runtime import Runtime
from rtcore.virtual.simulate import Simulation

#: Told how much of the cell is done, from 0 to 1.
Show = Callable[[float], None]
#: Looks at (ticks so far, all episodes so far); True ends the run.
Look = Callable[[int, list[Episode]], bool]

#: Share of a cell that learns that playing the episodes is taken for.
_EVALUATION_SHARE = 0.15
#: Stretches of the training that the curve is cut into, and moments at which "best" looks for better weights.
_CURVE_POINTS, _BEST_OF = 100, 20
#: Ticks between two looks at a run on the virtual clock; seconds, on the wall clock.
_LOOK_TICKS, _LOOK_S = 100, 0.25


def play_cell(cell: Cell, rate_hz: Fraction, scratch: Path, show: Show = lambda share: None) -> CellResult:
    """Train, if the cell learns, and play.

    Args:
        cell: Which one.
        rate_hz: Of its world.
        scratch: An empty folder; what is left there is of no use afterwards.
        show: Told how far it is.

    Raises:
        RtcoreError: The world, the policy or the learning failed; the schedule was not what the cell is about; or
            episodes do not end.
    """
    if not cell.learns:
        return _play(cell, rate_hz, show)
    with shared_imports():  # on the wall clock both runs need the same
        return _train_and_play(cell, rate_hz, scratch, show)


def _train_and_play(cell: Cell, rate_hz: Fraction, scratch: Path, show: Show) -> CellResult:
    updates, curve = _train(cell, rate_hz, scratch, lambda share: show((1 - _EVALUATION_SHARE) * share))
    weights = scratch / FOLDER / (BEST if cell.play == "best" and (scratch / FOLDER / BEST).exists() else LAST)
    judged = _play(
        cell,
        rate_hz,
        lambda share: show(1 - _EVALUATION_SHARE * (1 - share)),
        policy_checkpoint=weights,
    )
    return judged.model_copy(update={"updates": updates, "curve": curve})


def check_cell(cell: Cell) -> Fraction:
    """Everything of the cell but its run: the world is made, and policy and learners for it.

    Returns:
        The world's tick rate [Hz], exact.

    Raises:
        RtcoreError: What the cell would fail with when it begins.
    """
    settings = cell.config(Fraction(60)).world
    world = build_world(settings, settings.seed)
    try:
        rate_hz = tick_rate_hz(settings, world.env.metadata.get("render_fps"))
    finally:
        world.close()
    plain = {"clock": "virtual", "latency": "constant:1.0"} if cell.is_on_wall_clock else {}
    _seed(cell.config(rate_hz))
    simulation = Simulation(cell.config(rate_hz, **plain))
    simulation.close()
    if not plain:
        _check_delay(cell, simulation.schedule.delay_ticks)
    if cell.evaluation and cell.episodes:
        judged = cell.evaluation_config(rate_hz).world
        build_world(judged, judged.seed).close()
    return rate_hz


def _train(cell: Cell, rate_hz: Fraction, scratch: Path, show: Show) -> tuple[int, list[tuple[int, float]]]:
    """Updates, and the learning curve. The weights are in the folder."""
    ticks = cell.settings["ticks"]
    every_s = float(ticks / _BEST_OF / rate_hz) if cell.play == "best" else math.inf
    config = cell.config(rate_hz, out=scratch, live=False, checkpoint_every_s=every_s)
    episodes: list[Episode] = []

    def look(tick: int, ended: list[Episode]) -> bool:
        episodes.extend(ended[len(episodes) :])
        show(tick / ticks)
        return False

    learner = _run(config, look).learner
    if learner is None or learner.stopped or learner.failed_checkpoints:
        why = learner.stopped if learner is not None and learner.stopped else "its weights could not be written"
        raise RtcoreError(f"learning stopped: {why}")
    if not learner.updates:
        raise RtcoreError(
            f"nothing was learned in {ticks:,} ticks: {learner.transitions} transitions came together, and "
            f"learning_starts is {config.learning.learning_starts}; lower it, or raise ticks"
        )
    return learner.updates, curve_of(episodes, ticks)


def _play(cell: Cell, rate_hz: Fraction, show: Show, **weights: Any) -> CellResult:
    """The judged run: so many episodes, or, without them, so many ticks."""
    wanted = cell.episodes
    config = cell.evaluation_config(rate_hz, **weights) if wanted else cell.config(rate_hz)
    ticks = config.timing.ticks or 1
    played: list[Episode] = []

    def look(tick: int, ended: list[Episode]) -> bool:
        played.extend(ended[len(played) :])
        show(len(played) / wanted if wanted else tick / ticks)
        return 0 < wanted <= len(played)

    stats = _run(config, look)
    if wanted > len(played):
        raise RtcoreError(
            f"{len(played)} of {wanted} episodes ended within {ticks:,} ticks; give the world an end "
            "([evaluation] env-args = {max_episode_steps = ...}), or raise most-episode-ticks"
        )
    _check_schedule(cell, config, stats)
    kept = played[:wanted] if wanted else played
    return CellResult(
        returns=[episode.total_reward for episode in kept],
        episode_ticks=[episode.num_ticks for episode in kept],
        ticks=stats.counters["ticks"],
        points=stats.score.points,
        acted_fraction=_number(stats.acted_fraction),
        delay_ticks=_spread(stats.distributions["delay_ticks"]),
        interval_ticks=_spread(stats.distributions["interval_ticks"]),
        workers=stats.plan.workers,
        rate_hz=float(stats.rate_hz),
        tau_ms=stats.plan.tau.mean_ns / 1e6,
    )


def curve_of(episodes: list[Episode], ticks: int) -> list[tuple[int, float]]:
    """(last tick, mean return) of each hundredth of a training in which episodes ended."""
    stretches: dict[int, list[float]] = {}
    for episode in episodes:
        stretches.setdefault(episode.end_tick * _CURVE_POINTS // ticks, []).append(episode.total_reward)
    return [((at + 1) * ticks // _CURVE_POINTS, math.fsum(found) / len(found)) for at, found in stretches.items()]


# -- one run ---------------------------------------------------------------------------------------------------------


def _run(config: RuntimeConfig, look: Look) -> RunStats:
    """What it counted. `look` sees every episode."""
    _seed(config)
    return _run_virtual(config, look) if config.timing.clock == "virtual" else _run_wall(config, look)


def _seed(config: RuntimeConfig) -> None:
    seed_generators(entropy_of(config.world.seed, 0, "virtual", 0, 0))


class _AllEpisodes:
    """All episodes of a run, which itself keeps the newest only."""

    def __init__(self, record: Any) -> None:
        self._record = record
        self.all: list[Episode] = []

    def update(self) -> list[Episode]:
        if self._record is not None and self._record.episodes.count > len(self.all):
            self.all += self._record.episodes.since(len(self.all))
        return self.all


def _run_virtual(config: RuntimeConfig, look: Look) -> RunStats:
    simulation = Simulation(config, writes_rows=False)
    seen = _AllEpisodes(simulation.record)

    def after(tick: int) -> bool:
        before = len(seen.all)
        ended = len(seen.update()) > before
        return look(tick, seen.all) if ended or tick % _LOOK_TICKS == 0 else False

    try:
        simulation.run(after)
    finally:
        simulation.close()
    return simulation.stats()


def _run_wall(config: RuntimeConfig, look: Look) -> RunStats:
    with Runtime(config) as runtime:
        seen = _AllEpisodes(runtime.record)
        while not runtime.wait(_LOOK_S):
            seen.update()
            if look(runtime.stats().counters["ticks"], seen.all):
                runtime.stop()
        look(runtime.stats().counters["ticks"], seen.update())
    return runtime.stats()


def _check_schedule(cell: Cell, config: RuntimeConfig, stats: RunStats) -> None:
    """RtcoreError if actions did not come as the cell says: a table would compare what it does not name.

    On the wall clock what came is in the record. A head has the delay of its own, 1; its trunk has the cell's.
    """
    delay_ticks = cell.delay_ticks
    if delay_ticks is None or config.timing.clock != "virtual":
        return
    found, chunk = stats.distributions["delay_ticks"], config.agent.chunk
    _check_delay(cell, stats.delay_ticks)
    if stats.head is None and found.count and not delay_ticks <= found.min <= found.max < delay_ticks + chunk:
        aged = f"{delay_ticks}" if chunk == 1 else f"{delay_ticks} to {delay_ticks + chunk - 1}"
        raise RtcoreError(f"actions were {found.min} to {found.max} ticks old; expected {aged}")
    apart, usual = stats.distributions["interval_ticks"], _interval_ticks(cell, config, stats)
    if usual and apart.count and not usual == apart.min == apart.max:
        raise RtcoreError(f"actions came {apart.min} to {apart.max} ticks apart; expected {usual}")


def _check_delay(cell: Cell, planned_ticks: int) -> None:
    if cell.delay_ticks is not None and planned_ticks != cell.delay_ticks:
        raise RtcoreError(f"the plan's delay is {planned_ticks} ticks; expected {cell.delay_ticks}")


def _interval_ticks(cell: Cell, config: RuntimeConfig, stats: RunStats) -> int:
    """Ticks between two actions where the cell says it: one worker in turn, or enough of them; 0 where it does not."""
    held = config.world.on_reset == "hold"
    if stats.head is not None or config.agent.chunk > 1 or stats.counters["abstained"] or not held:
        return 0
    if stats.plan.stagger == "sequential" and stats.plan.workers == 1:
        return cell.delay_ticks or 0
    return 1 if config.schedule.workers == cell.delay_ticks else 0


def _spread(shape: Distribution) -> Spread:
    if not shape.count:
        return Spread(min=None, max=None, mean=None)
    return Spread(min=shape.min, max=shape.max, mean=_number(shape.mean))


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
