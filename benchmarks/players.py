"""How well a scripted player and random keys do in the games that come with the package, by delay and schedule.

    python -m benchmarks.players [--games Catch,Blocks] [--levels 0,9] [--ticks 896] [--seeds 40] [--delays 1,3,7,14]

Straight on the world, one process, no clock: the same numbers on any machine. Asynchronous: an action in every tick, so
many ticks old. Sequential: an action every so many ticks, as old, and none between. A game that is lost begins anew.
Random keys: in every tick one, or each kept down for 4 or 8 ticks; the best of the three counts.
"""

from __future__ import annotations

import argparse
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from rtcore_envs import blocks_bot, catch_bot
from rtcore_envs.blocks import BlocksEnv
from rtcore_envs.catch import CatchEnv
from rtcore_envs.gameboy import GameBoyEnv

Act = Callable[[Sequence[int]], int]
RAM = slice(0xC000, 0xC080)
HELD_TICKS = (1, 4, 8)

GAMES: dict[str, type[BlocksEnv] | type[CatchEnv]] = {"Blocks": BlocksEnv, "Catch": CatchEnv}


def scripted(game: str, delay_ticks: int, sequential: bool) -> Act:
    if game == "Blocks":
        return blocks_bot.GreedyBot().act
    return catch_bot.CatchBot(delay_ticks, every_tick=not sequential).act


def random_keys(num_actions: int, seed: int, held_ticks: int) -> Act:
    drawn = np.random.default_rng(seed).integers(num_actions, size=1_000_000)
    ticks = iter(range(len(drawn)))
    return lambda ram: int(drawn[next(ticks) // held_ticks])


def points(
    env: GameBoyEnv, new_player: Callable[[], Act], seed: int, ticks: int, delay_ticks: int, sequential: bool
) -> float:
    """Points in so many ticks; the player sees the memory of `delay_ticks` before its key is down."""
    env.reset(seed=seed)
    act, total, seen = new_player(), 0.0, deque[list[int]](maxlen=delay_ticks)
    for tick in range(ticks):
        seen.append(env.memory[RAM])
        idle = len(seen) < delay_ticks or (sequential and tick % delay_ticks)
        _, reward, terminated, _, _ = env.step(env.noop_action if idle else act(seen[0]))
        total += float(reward)
        if terminated:
            env.reset()
            act = new_player()
            seen.clear()
    return total


def row(game: str, level: int, delays: list[int], ticks: int, seeds: int) -> str:
    env = GAMES[game](level=level)

    def cell(player: Callable[[int], Callable[[], Act]], delay: int, sequential: bool) -> tuple[float, str]:
        found = [points(env, player(seed), seed, ticks, delay, sequential) for seed in range(seeds)]
        return float(np.mean(found)), f"{np.mean(found):.0f} ({min(found):.0f}..{max(found):.0f})"

    cells = []
    for delay in delays:
        for sequential in (False, True) if delay > 1 else (False,):
            cells.append(cell(lambda seed, d=delay, s=sequential: partial(scripted, game, d, s), delay, sequential)[1])
    num_actions = len(env.action_keys)

    def held(ticks: int) -> Callable[[int], Callable[[], Act]]:
        def player(seed: int) -> Callable[[], Act]:
            act = random_keys(num_actions, seed, ticks)
            return lambda: act

        return player

    cells.append(max(cell(held(ticks), 1, False) for ticks in HELD_TICKS)[1])
    env.close()
    return f"| {game}, level {level} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", default="Catch,Blocks")
    parser.add_argument("--levels", default="0", help="beginnings, with commas between; those that a game has")
    parser.add_argument("--ticks", type=int, default=896, help="of each game: 896 are 15 s")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--delays", default="1,3,7,14", help="ticks, with commas between")
    args = parser.parse_args()
    delays = [int(delay) for delay in args.delays.split(",")]
    heads = [f"{d}, {kind}" for d in delays for kind in (("async", "sequential") if d > 1 else ("either",))]
    print(f"| points in {args.ticks} ticks | {' | '.join(heads)} | random |")
    print("|" + "---|" * (len(heads) + 2))
    for game in args.games.split(","):
        for level in map(int, args.levels.split(",")):
            if level <= GAMES[game].last_level:
                print(row(game, level, delays, args.ticks, args.seeds), flush=True)


if __name__ == "__main__":
    main()
