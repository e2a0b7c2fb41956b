"""NARROWS, a falling-rubble game of our own, as the world ``rtcore/Blocks-v0``."""

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from rtcore_envs.errors import RomError, SettingError
from rtcore_envs.gameboy import GameBoyEnv, Observation

#: Addresses in work RAM; the whole map is in roms/README.md.
MAGIC = 0xC000
STATE = 0xC002
LEVEL = 0xC003
SCORE = 0xC006
LINES = 0xC008
SEED = 0xC00A
PIECES = 0xC012
FALL_TIMER = 0xC017
LEVEL_DIGITS = 0xC0A9

MAGIC_BYTES = b"NW"
STATE_OVER = 2
START = frozenset({"start"})
LAST_LEVEL = 17
#: Frames a piece takes to fall a row, by level.
FRAMES_PER_ROW = (24, 22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 4, 3, 2)


class BlocksEnv(GameBoyEnv):
    """Steer falling rubble into a shaft 6 columns wide and 12 rows high, so that full rows are carried off.

    A piece of 1 to 3 cells is rigid while it falls. Where it touches ground it breaks, and each cell drops
    to the ground of its column. LEFT and RIGHT move, DOWN falls faster, B drops at once, A and UP turn
    clockwise and counterclockwise. A new piece hangs in the mouth for 12 frames, where it can be steered
    but not dropped; then it falls a row every 24 frames at level 0, faster with every 8 lines, down to 4.
    Levels 16 and 17, 3 and 2 frames a row, are only for episodes that begin there: such a piece is on the ground 36
    frames after it came, whatever the player does.

    Reward: the points gained in this frame. The first row a piece completes pays 1, the second 2, the
    third 3, on consecutive frames (so 1, 3 or 6 in all). Nothing else pays, and nothing costs.

    Terminates when a new piece does not fit in the mouth. Never truncates by itself.

    Info: ``score``, ``lines``, ``level``, ``pieces`` (pieces that have landed), all int.

    ``reset(seed=...)`` fixes the order of the pieces. ``level``, 0 to 17, is the level every episode begins at: the
    higher, the less time there is for a piece. The rest is as in `GameBoyEnv`; ``rom`` defaults to the packaged game.
    """

    def __init__(
        self,
        *,
        rom: str | Path | None = None,
        observation: Observation = "grey84",
        render_mode: str | None = None,
        level: int = 0,
    ) -> None:
        if level not in range(LAST_LEVEL + 1):
            raise SettingError(f"got level={level!r}, expected a whole number from 0 to {LAST_LEVEL}")
        self._level = level
        with as_file(files("rtcore_envs") / "roms" / "blocks.gb") as packaged:
            super().__init__(rom=packaged if rom is None else rom, observation=observation, render_mode=render_mode)
        self._score = 0

    def _prepare(self) -> None:
        super()._prepare()
        got = bytes(self._memory[MAGIC : MAGIC + len(MAGIC_BYTES)])
        if got != MAGIC_BYTES:
            expected = f"{MAGIC_BYTES!r} (the game NARROWS)"
            raise RomError(self._rom, f"{got!r} in its memory", expected, "Leave out rom= for the packaged game.")

    def _begin_episode(self, options: dict[str, Any] | None) -> None:
        seed = int(self.np_random.integers(1, 0x10000))
        self._memory[SEED] = seed & 0xFF
        self._memory[SEED + 1] = seed >> 8
        self._run_frame(START, render=False)
        if self._level:
            # The first piece hangs already, with the fall time of level 0.
            self._memory[LEVEL] = self._level
            self._memory[FALL_TIMER] = FRAMES_PER_ROW[self._level]
            for place, digit in enumerate(f"{self._level:02d}"):
                self._memory[LEVEL_DIGITS + place] = ord(digit)
        self._score = 0

    def _word(self, address: int) -> int:
        return int(self._memory[address] | self._memory[address + 1] << 8)

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        score = self._word(SCORE)
        reward = (score - self._score) & 0xFFFF
        self._score = score
        return float(reward), memory[STATE] == STATE_OVER

    def _info(self) -> dict[str, Any]:
        return {
            "score": self._word(SCORE),
            "lines": self._word(LINES),
            "level": int(self._memory[LEVEL]),
            "pieces": self._word(PIECES),
        }
