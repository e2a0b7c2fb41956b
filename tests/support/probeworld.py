"""Worlds over the probe ROM: a real emulator whose memory a test writes."""

from __future__ import annotations

from typing import Any

from rtcore_envs import probe
from rtcore_envs.library import KNOWN_ROMS
from rtcore_envs.pokemon import PokemonBattlesEnv, PokemonCatchingEnv
from rtcore_envs.tetris import TetrisEnv

TITLES = {known.key: known.title for known in KNOWN_ROMS}
WORLDS = {"tetris": TetrisEnv, "battles": PokemonBattlesEnv, "catching": PokemonCatchingEnv}
NOTHING = 6


class Probe(probe.Probe):
    def make(self, world: str, **arguments: Any) -> Any:
        given: dict[str, Any] = {"rom": self.path, "known_roms": [self.known]}
        return WORLDS[world](**given | arguments)


def poke(env: Any, values: dict[int, int]) -> None:
    for address, value in values.items():
        env.memory[address] = value
