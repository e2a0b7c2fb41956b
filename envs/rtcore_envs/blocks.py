"""NARROWS, a falling-rubble game of our own, as the world ``rtcore/Blocks-v0``."""

from typing import Any

from rtcore_envs.blocks_bot import Teacher
from rtcore_envs.packaged import LEVEL, SCORE, PackagedGameEnv

#: Addresses in work RAM; the whole map is in roms/README.md.
LINES = 0xC008
PIECES = 0xC012
FALL_TIMER = 0xC017
LEVEL_DIGITS = 0xC0A9

#: Frames a piece takes to fall a row, by level.
FRAMES_PER_ROW = (24, 22, 20, 18, 16, 14, 12, 11, 10, 9, 8, 7, 6, 5, 4, 4, 3, 2)


class BlocksEnv(PackagedGameEnv):
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

    rom_name = "blocks.gb"
    title = "NARROWS"
    magic = b"NW"
    last_level = len(FRAMES_PER_ROW) - 1

    def _write_level(self, level: int) -> None:
        super()._write_level(level)
        # The first piece hangs already, with the fall time of level 0.
        self._memory[FALL_TIMER] = FRAMES_PER_ROW[level]
        for place, digit in enumerate(f"{level:02d}"):
            self._memory[LEVEL_DIGITS + place] = ord(digit)

    def make_teacher(self, *, delay_ticks: int, every_ticks: int) -> Teacher:
        """The scripted player, whom `learn=imitate` imitates. It plans ahead, so that the delay is the same to it."""
        return Teacher(self.memory, every_ticks)

    def _info(self) -> dict[str, Any]:
        return {
            "score": self._read_16_bits(SCORE),
            "lines": self._read_16_bits(LINES),
            "level": int(self._memory[LEVEL]),
            "pieces": self._read_16_bits(PIECES),
        }
