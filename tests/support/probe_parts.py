"""Worlds over the probe ROM, for runs that are given bad ROMs and bad start states."""

from __future__ import annotations

from pathlib import Path

from rtcore_envs.pokemon import PokemonBattlesEnv
from rtcore_envs.probe import as_known


def battles(rom: str, states: str, known: str) -> PokemonBattlesEnv:
    """The battles over the file `rom`; the ROM that is expected is the file `known`."""
    expected = as_known(Path(known).read_bytes(), "pokemon-red")
    return PokemonBattlesEnv(rom=rom, states=states, known_roms=[expected])
