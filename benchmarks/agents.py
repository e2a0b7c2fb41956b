"""How well each player does in the built-in games, at several delays, staggered and sequential.

    python -m benchmarks.agents [--games blocks,catch] [--players trained,scripted,random] [--delays 1,3,7,14]
                                 [--ticks 6000] [--seeds 1000,1001,1002] [--out FILE.json] [KEY=VALUE ...]

Points per 6,000 ticks (100 s) on the virtual clock, everything that was scored in that time, also in games that were
not finished; the mean over the seeds, which fix the pieces and the rat's ways, and +- the standard error. No learning,
no exploring. Staggered: a decision every tick (or every `chunk` ticks, if the player's own decisions are that far
apart), each the delay old. Sequential: one decision every `delay` ticks, each the delay old, the no-op in between.

`--players trained` is the policy that ships. FOLDER of a run or a checkpoint is a player too, of the game that it was
trained in. KEY=VALUE: settings as for rtcore-run, such as env_args=level=9.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore.config.run import make_config
from rtcore.errors import RtcoreError
from rtcore.files.strict_json import write_json
from rtcore.learn.checkpoint import read_state
from rtcore.virtual.simulate import Simulation
from rtcore_envs import blocks_bot, catch_bot
from rtcore_workers.policies.choice import TRAINED_GAMES, resolve_policy

RATE_HZ = Fraction(4194304, 70224)
GAMES = {game: env_id for env_id, game in TRAINED_GAMES.items()}
PER_TICKS = 6000


class Scripted:
    """The scripted player of a game in the place of a network: it sees the memory that belongs to the frame."""

    def __init__(self, env_id: str, delay_ticks: int, *, sequential: bool) -> None:
        self.observation: npt.NDArray[np.uint8] = np.zeros((84, 84), np.uint8)
        self.memory: Any = None
        if env_id == "rtcore/Blocks-v0":
            self._act, self._ram = blocks_bot.GreedyBot().act, (blocks_bot.RAM_START, blocks_bot.RAM_STOP)
        else:
            self._act = catch_bot.CatchBot(delay_ticks, every_tick=not sequential).act
            self._ram = catch_bot.RAM_START, catch_bot.RAM_STOP

    def act(self, *, frame_seq: int, out: npt.NDArray[Any]) -> None:
        first, last = self._ram
        out[...] = self._act(self.memory[first:last])


def points(
    player: str, env_id: str, delay_ticks: int, seed: int, ticks: int, given: dict[str, Any], **how: str
) -> float:
    """Points per `PER_TICKS` ticks of one run."""
    sequential = how["stagger"] == "sequential"
    latency_ms = float((delay_ticks - Fraction(1, 2)) * 1000 / RATE_HZ)
    fields = {"clock": "virtual", "latency": f"constant:{latency_ms}", "env_id": env_id, "ticks": ticks, "seed": seed}
    whose = {"policy": player} if player in ("trained", "random") else {"policy_checkpoint": Path(player)}
    fields |= how | given | ({"policy": "random"} if player == "scripted" else whose)
    config = resolve_policy(make_config(**fields, workers=1 if sequential else "auto"))
    scripted = Scripted(env_id, delay_ticks, sequential=sequential) if player == "scripted" else None
    simulation = Simulation(config, policy=scripted)
    if scripted is not None and simulation.world is not None:
        scripted.memory = simulation.world.env.unwrapped.memory  # type: ignore[attr-defined]
    try:
        stats = simulation.run().stats()
    finally:
        simulation.close()
    longest = stats.distributions["delay_ticks"].max
    if longest > delay_ticks + config.agent.chunk - 1:
        raise RuntimeError(f"{player}: an action was {longest} ticks old; expected {delay_ticks}")
    return stats.score.points * PER_TICKS / ticks


def game_of(player: str) -> str | None:
    """Which game a folder's weights are of; None: a player of all games."""
    if player in ("trained", "scripted", "random"):
        return None
    return str(TRAINED_GAMES[read_state(Path(player), "agents")["world"]["env_id"]])


def measure(options: argparse.Namespace, given: dict[str, Any]) -> list[dict[str, Any]]:
    """A row for each game, player, delay and schedule."""
    rows = []
    for game in options.games:
        for player in options.players:
            if game_of(player) not in (None, game):
                continue
            for stagger in ("max-time", "sequential"):
                for delay in options.delays:
                    found = [
                        points(player, GAMES[game], delay, seed, options.ticks, given, stagger=stagger)
                        for seed in options.seeds
                    ]
                    error = statistics.stdev(found) / len(found) ** 0.5 if len(found) > 1 else 0.0
                    schedule = "sequential" if stagger == "sequential" else "staggered"
                    row = {"game": game, "player": player, "schedule": schedule, "delay_ticks": delay}
                    rows.append(row | {"points": found, "mean": statistics.mean(found), "standard_error": error})
                    print(f"{game} {player} {schedule} {delay}: {rows[-1]['mean']:.1f} +- {error:.1f}", file=sys.stderr)
    return rows


def table(rows: list[dict[str, Any]], delays: list[int]) -> str:
    """As Markdown."""
    lines = ["| game | player | schedule | " + " | ".join(f"delay {delay}" for delay in delays) + " |"]
    lines.append("|---" * (3 + len(delays)) + "|")
    cells: dict[tuple[str, str, str], list[str]] = {}
    for row in rows:
        key = row["game"], row["player"], row["schedule"]
        cells.setdefault(key, []).append(f"{row['mean']:.0f} +- {row['standard_error']:.0f}")
    return "\n".join([*lines, *("| " + " | ".join([*key, *found]) + " |" for key, found in cells.items())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words, numbers = (lambda text: text.split(",")), (lambda text: [int(each) for each in text.split(",")])
    parser.add_argument("--games", type=words, default=list(GAMES))
    parser.add_argument("--players", type=words, default=["trained", "scripted", "random"])
    parser.add_argument("--delays", type=numbers, default=[1, 3, 7, 14])
    parser.add_argument("--ticks", type=int, default=PER_TICKS)
    parser.add_argument("--seeds", type=numbers, default=[1000, 1001, 1002])
    parser.add_argument("--out", type=Path)
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = parser.parse_args()
    unknown = [game for game in options.games if game not in GAMES]
    if unknown:
        parser.error(f"there is no game {', '.join(unknown)}; expected {', '.join(GAMES)}")
    given = dict(each.split("=", 1) for each in options.settings)
    if "env_args" in given:
        given["env_args"] = {key: int(value) for key, value in (given["env_args"].split("="),)}
    try:
        rows = measure(options, given)
    except RtcoreError as error:
        sys.exit(f"agents: {error}")
    print(table(rows, options.delays))
    if options.out is not None:
        write_json(options.out, rows)


if __name__ == "__main__":
    main()
