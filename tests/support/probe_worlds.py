"""Worlds over the probe ROM whose memory follows a script, for runs of the real runtime."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium

from rtcore_envs.pokemon import PokemonBattlesEnv, PokemonCatchingEnv
from rtcore_envs.probe import as_known
from rtcore_envs.tetris import TetrisEnv
from rtcore_envs.userrom import UserRomEnv

WORLDS: dict[str, type[UserRomEnv]] = {
    "tetris": TetrisEnv,
    "battles": PokemonBattlesEnv,
    "catching": PokemonCatchingEnv,
}


class Scripted(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Before step n of an episode (1 is the first) the memory is written as `script[n]` says: {address: value}."""

    def __init__(self, env: UserRomEnv, script: dict[int, dict[int, int]]) -> None:
        super().__init__(env)
        self._emulated, self._script = env, script
        self._step = 0

    def reset(self, **arguments: Any) -> Any:
        self._step = 0
        return self.env.reset(**arguments)

    def step(self, action: Any) -> Any:
        self._step += 1
        for address, value in self._script.get(self._step, {}).items():
            self._emulated.memory[address] = value
        return self.env.step(action)


def make(world: str, rom: str, game: str, look_up: bool = False, **arguments: Any) -> UserRomEnv:
    """A world over a probe in the file `rom`; with `look_up` the world finds it by itself."""
    known = as_known(Path(rom).read_bytes(), game)
    return WORLDS[world](rom=None if look_up else rom, known_roms=[known], **arguments)


def scripted(script: str, **arguments: Any) -> gymnasium.Env[Any, Any]:
    """`script` is a file of JSON: {step: {address: value}}."""
    steps = json.loads(Path(script).read_text())
    plan = {int(step): {int(place): value for place, value in pokes.items()} for step, pokes in steps.items()}
    return Scripted(make(**arguments), plan)
