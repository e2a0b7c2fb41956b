"""Worlds over the probe ROM: a real emulator whose memory a test writes, here or by a script within a run."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import gymnasium

from rtcore_envs import probe
from rtcore_envs.library import KNOWN_ROMS
from rtcore_envs.pokemon import PokemonBattlesEnv, PokemonCatchingEnv
from rtcore_envs.probe import as_known
from rtcore_envs.tetris import TetrisEnv
from rtcore_envs.userrom import UserRomEnv

TITLES = {known.key: known.title for known in KNOWN_ROMS}
WORLDS: dict[str, type[UserRomEnv]] = {
    "tetris": TetrisEnv,
    "battles": PokemonBattlesEnv,
    "catching": PokemonCatchingEnv,
}
NOTHING = 6
#: Where the memory of a Pokemon game lies, from that of Red and Blue.
POKEMON = {"pokemon-red": 0, "pokemon-blue": 0, "pokemon-yellow": -1}


class Probe(probe.Probe):
    def make(self, world: str, **arguments: Any) -> Any:
        given: dict[str, Any] = {"rom": self.path, "known_roms": [self.known]}
        return WORLDS[world](**given | arguments)


class PokemonProbe:
    """A Pokemon world that begins with a memory of its own, whose addresses are said as of Red and Blue."""

    def __init__(self, folder: Path, game: str, world: str, memory: dict[int, int], **arguments: Any) -> None:
        probe = Probe(folder, game)
        self.shift = POKEMON[game]
        probe.save("first", world, {address + self.shift: value for address, value in memory.items()})
        self.env = probe.make(world, states=probe.states, **arguments)

    def write(self, address: int, value: int) -> None:
        self.env.memory[address + self.shift] = value

    def step(self) -> tuple[float, bool]:
        """Reward and end of one frame."""
        _, reward, terminated, truncated, self.info = self.env.step(NOTHING)
        assert not truncated
        return reward, terminated


def poke(env: Any, values: dict[int, int]) -> None:
    for address, value in values.items():
        env.memory[address] = value


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


def battles(rom: str, states: str, known: str) -> PokemonBattlesEnv:
    """The battles over the file `rom`; the ROM that is expected is the file `known`."""
    expected = as_known(Path(known).read_bytes(), "pokemon-red")
    return PokemonBattlesEnv(rom=rom, states=states, known_roms=[expected])


SDCC_VERSION = "4.2.0"


def sdcc_version() -> str | None:
    if shutil.which("sdcc") is None:
        return None
    text = subprocess.run(["sdcc", "--version"], capture_output=True, text=True, check=True).stdout
    return SDCC_VERSION if f" {SDCC_VERSION} " in text else text.splitlines()[0]
