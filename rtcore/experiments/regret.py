"""Realtime regret of a family of agents, split as the paper does, in the world's own units.

    inaction   staggered less sequential at the same delay: the world moves on while the agent computes
    delay      zero delay less staggered: the action fits an older frame
    learning   best known less zero delay: what the agent has not learned

They add up to what the sequential agent falls short of the best that is known. Zero delay is the staggered agent at a
delay of one tick, which acts on the newest frame there is, unless an agent has that role.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from rtcore.errors import ConfigError
from rtcore.experiments.estimates import By, Estimate, Values, difference, estimate
from rtcore.experiments.table import DELAY, METRICS, Estimates, Grid, digits_of, estimate_text

INACTION, DELAY_PART, LEARNING = "inaction", "delay", "learning"
PARTS = (INACTION, DELAY_PART, LEARNING)
STAGGERED, SEQUENTIAL, ZERO_DELAY, BEST = "staggered", "sequential", "zero-delay", "best"
ROLES = (STAGGERED, SEQUENTIAL, ZERO_DELAY, BEST)
_NEWEST_FRAME_TICKS = 1


class Split(NamedTuple):
    """The regret at one delay."""

    delay_ticks: int
    sequential: Estimate
    staggered: Estimate
    parts: dict[str, Estimate]
    total: Estimate


class Regret(NamedTuple):
    """The regret of one world."""

    grid: Grid
    agents: dict[str, str]  #: who plays which role
    zero_delay: Estimate
    best: Estimate
    best_from: str  #: where the best known comes from, in words
    splits: list[Split]

    @property
    def most_seeds(self) -> int:
        return max((split.staggered.num_seeds for split in self.splits), default=0)


def regret_of(grid: Grid, chosen: Mapping[str, str], best_known: float | None = None, by: By = "mean") -> Regret:
    """Split the regret of one world.

    Args:
        grid: Agents are lines, delays are columns.
        chosen: Names of the agents, by role, that were chosen; others play the role that their cells say, or that they
            are called by.
        best_known: Return that the world's best known player reaches; None: an agent of that role, what the cells say,
            or the best of the table.
        by: What seeds are brought together by.
    """
    if grid.column_axis != DELAY:
        raise ConfigError(f"regret is over delays; {grid.title} has columns by {grid.column_axis}")
    agents = {role: agent for role in ROLES if (agent := _agent_of(grid, role, chosen.get(role))) is not None}
    for role in (STAGGERED, SEQUENTIAL):
        if role not in agents:
            raise ConfigError(
                f"regret of {grid.title}: no agent has the role {role}; name one with --{role} (agents: "
                f"{', '.join(map(str, grid.lines))})"
            )
    zero = _zero_delay_values(grid, agents)
    best, best_from = _best_known(grid, agents, best_known, by)
    splits = []
    for delay in grid.columns:
        staggered, sequential = (_values(grid, agents[role], delay) for role in (STAGGERED, SEQUENTIAL))
        if not staggered or not sequential:
            continue
        parts = {
            INACTION: difference(staggered, sequential, by),
            DELAY_PART: difference(zero, staggered, by),
            LEARNING: _shortfall(best, zero, by),
        }
        splits.append(
            Split(
                delay,
                sequential=estimate(sequential, by),
                staggered=estimate(staggered, by),
                parts=parts,
                total=_shortfall(best, sequential, by),
            )
        )
    if not splits:
        raise ConfigError(
            f"regret of {grid.title}: {agents[STAGGERED]} and {agents[SEQUENTIAL]} have no delay in common at which "
            "both have a result"
        )
    return Regret(
        grid,
        agents,
        zero_delay=estimate(zero, by),
        best=_as_estimate(best, by),
        best_from=best_from,
        splits=splits,
    )


def _agent_of(grid: Grid, role: str, chosen: str | None) -> Any:
    if chosen is not None:
        if chosen not in grid.lines:
            raise ConfigError(f"--{role} {chosen}: {grid.title} has the agents {', '.join(map(str, grid.lines))}")
        return chosen
    having = [
        line
        for line in grid.lines
        if any(cell.role == role for column in grid.columns_of(line) for cell in grid.cells[line, column])
    ]
    if len(having) > 1:
        raise ConfigError(
            f"regret of {grid.title}: {', '.join(map(str, having))} all have the role {role}; choose one with --{role}"
        )
    return having[0] if having else role if role in grid.lines else None


def _values(grid: Grid, agent: str, delay: Any) -> dict[int, float]:
    return grid.values(agent, delay, METRICS["return"])


def _zero_delay_values(grid: Grid, agents: Mapping[str, str]) -> dict[int, float]:
    agent = agents.get(ZERO_DELAY)
    if agent is not None:
        delay = min(grid.columns_of(agent))
    else:
        agent, delay = agents[STAGGERED], _NEWEST_FRAME_TICKS
    if not (found := _values(grid, agent, delay)):
        raise ConfigError(
            f"regret of {grid.title}: {agent} has no result at a delay of {delay} tick, which is zero delay: the "
            f"action fits the newest frame. Add that delay to the sweep, or name another agent with --{ZERO_DELAY}"
        )
    return found


def _best_known(
    grid: Grid, agents: Mapping[str, str], given: float | None, by: By
) -> tuple[float | dict[int, float], str]:
    """A number, or what each seed of the best player came to; and where that is from."""
    if given is not None:
        return given, "given"
    if (agent := agents.get(BEST)) is not None:
        return _values(grid, agent, min(grid.columns_of(agent))), f"{agent} at delay {min(grid.columns_of(agent))}"
    said = {cell.best_known for cells in grid.cells.values() for cell in cells} - {None}
    if len(said) > 1:
        raise ConfigError(f"regret of {grid.title}: its cells name {len(said)} best returns; give one with --best")
    if said:
        return float(said.pop() or 0.0), "as the sweep says"
    table = Estimates(grid, METRICS["return"], by)
    line, column = max(
        (place for place in grid.cells if table.at(*place).num_seeds), key=lambda place: table.at(*place).value
    )
    return _values(grid, line, column), f"the best of the table: {line} at delay {column}"


def _shortfall(best: float | dict[int, float], values: Values, by: By) -> Estimate:
    if isinstance(best, dict):
        return difference(best, values, by)
    return estimate({seed: best - value for seed, value in values.items()}, by)


def _as_estimate(best: float | dict[int, float], by: By) -> Estimate:
    return estimate(best, by) if isinstance(best, dict) else Estimate(best, best, best, 0)


# -- as text -------------------------------------------------------------------------------------------------------


def rows_of(regret: Regret) -> tuple[list[str], list[list[str]]]:
    """The heading and a line for each delay."""
    heading = ["delay [ticks]", "sequential", *(f"+ {part}" for part in PARTS), "= best known"]
    found = [each for split in regret.splits for each in (split.sequential, *split.parts.values(), split.total)]
    digits = digits_of([*(each.value for each in found), regret.best.value])
    most, best = regret.most_seeds, f"{regret.best.value:,.{digits}f}"
    return heading, [
        [
            str(split.delay_ticks),
            estimate_text(split.sequential, digits, most),
            *(estimate_text(split.parts[part], digits, most) for part in PARTS),
            best,
        ]
        for split in regret.splits
    ]


def caption_of(regret: Regret) -> str:
    """What the numbers are."""
    agents = regret.agents
    zero = agents.get(ZERO_DELAY, f"{agents[STAGGERED]} at delay {_NEWEST_FRAME_TICKS}")
    return (
        f"Return, and what is missing of the best known ({regret.best_from}). Inaction: {agents[STAGGERED]} less "
        f"{agents[SEQUENTIAL]} at the same delay. Delay: zero delay ({zero}) less {agents[STAGGERED]}. Learning: best "
        f"known less zero delay. {regret.most_seeds} seeds, 95% bootstrap intervals, seed by seed where both have the "
        "same seeds."
    )


def to_json(regret: Regret) -> dict[str, Any]:
    """Every number."""
    return {
        "where": regret.grid.where,
        "agents": regret.agents,
        "best_from": regret.best_from,
        "best": regret.best._asdict(),
        "zero_delay": regret.zero_delay._asdict(),
        "delays": [
            {
                "delay_ticks": split.delay_ticks,
                "sequential": split.sequential._asdict(),
                "staggered": split.staggered._asdict(),
                **{part: found._asdict() for part, found in split.parts.items()},
                "total": split.total._asdict(),
            }
            for split in regret.splits
        ],
    }
