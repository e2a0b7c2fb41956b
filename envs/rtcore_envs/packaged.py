"""What the games that come with the package share: how an episode begins, and what a frame pays."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, ClassVar

from rtcore_envs.errors import RomError, SettingError
from rtcore_envs.gameboy import GameBoyEnv, Observation

#: Addresses in work RAM that all of them share; the whole maps are in roms/README.md.
MAGIC = 0xC000
STATE = 0xC002
LEVEL = 0xC003
SCORE = 0xC006
SEED = 0xC00A

STATE_OVER = 2
START = frozenset({"start"})


class PackagedGameEnv(GameBoyEnv):
    """A game of ours. A reward is the points gained in the frame; an episode ends when the game is over.

    Args:
        rom: another build of the same game; the packaged one by default.
        level: the level every episode begins at.
        observation, render_mode: as in `GameBoyEnv`.

    Raises:
        RomError: ``rom`` is another game.
        SettingError: a level that the game does not have.
    """

    rom_name: ClassVar[str]
    title: ClassVar[str]
    magic: ClassVar[bytes]
    last_level: ClassVar[int]

    def __init__(
        self,
        *,
        rom: str | Path | None = None,
        observation: Observation = "grey84",
        render_mode: str | None = None,
        level: int = 0,
    ) -> None:
        if isinstance(level, bool) or level not in range(self.last_level + 1):
            raise SettingError(f"got level={level!r}, expected a whole number from 0 to {self.last_level}")
        self._level = int(level)
        with as_file(files("rtcore_envs") / "roms" / self.rom_name) as packaged:
            super().__init__(rom=packaged if rom is None else rom, observation=observation, render_mode=render_mode)
        self._score = 0

    def _write_level(self, level: int) -> None:
        """Called on the first frame of the game, which begins at level 0: makes it begin at ``level``."""
        self._memory[LEVEL] = level

    def _prepare(self) -> None:
        super()._prepare()
        got = bytes(self._memory[MAGIC : MAGIC + len(self.magic)])
        if got != self.magic:
            expected = f"{self.magic!r} (the game {self.title})"
            raise RomError(self._rom, f"{got!r} in its memory", expected, "Leave out rom= for the packaged game.")

    def _begin_episode(self, options: dict[str, Any] | None) -> None:
        seed = int(self.np_random.integers(1, 0x10000))
        self._memory[SEED] = seed & 0xFF
        self._memory[SEED + 1] = seed >> 8
        self._run_frame(START, render=False)
        if self._level:
            self._write_level(self._level)
        self._score = 0

    def _read_16_bits(self, address: int) -> int:
        return int(self._memory[address] | self._memory[address + 1] << 8)

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        score = self._read_16_bits(SCORE)
        reward = (score - self._score) & 0xFFFF
        self._score = score
        return float(reward), memory[STATE] == STATE_OVER
