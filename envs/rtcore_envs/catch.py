"""CELLAR, a game of our own of drops and a bucket, as the world ``rtcore/Catch-v0``."""

from typing import Any

from rtcore_envs.keys import NO_KEYS
from rtcore_envs.packaged import LEVEL, SCORE, PackagedGameEnv

#: Addresses in work RAM; the whole map is in roms/README.md.
CAUGHT = 0xC008
PAY = 0xC00E
WATER = 0xC00F
MISSED = 0xC01A
LEVEL_DIGIT = 0xC093

#: By level: frames from a drop to the next, and how far the rat runs in a frame, in quarters of a pixel.
FRAMES_PER_DROP = (18, 17, 16, 15, 14, 13, 12, 11, 10, 9)
RAT_SPEED = (6, 6, 6, 6, 7, 7, 7, 7, 7, 7)


class CatchEnv(PackagedGameEnv):
    """Move a bucket under the drops that a rat lets fall from a leaking pipe. It never waits for its player.

    The rat runs to and fro along the pipe, 1.5 pixels a frame at level 0, and turns at random. A drop falls under it
    every 18 frames and reaches the bucket 44 frames later. The bucket moves 2 pixels in every frame in which LEFT or
    RIGHT is down. It catches what comes down at most 12 pixels from its middle.

    Action: ``Discrete(3)``: 0 LEFT, 1 RIGHT, 2 none (`noop_action`).

    Reward: the points gained in this frame. A drop caught pays 1 more than the one before it, from 1 up to 5. A drop
    that is missed pays nothing, lowers what the next one pays by 2, and raises the water under the floor by 1; a drop
    caught at 5 points lowers the water by 1.

    Terminates when the water reaches the floor, at 32, or when 256 drops have come down, after about a minute. Never
    truncates by itself.

    Info: ``score``, ``caught``, ``missed``, ``pay`` (the points of the last drop, less what was missed since),
    ``water``, ``level``, all int.

    ``reset(seed=...)`` fixes the way of the rat. ``level``, 0 to 9, is the level every episode begins at: the higher,
    the faster the rat, and the more drops. It rises with every 32 drops caught. The rest is as in `GameBoyEnv`; ``rom``
    defaults to the packaged game.
    """

    rom_name = "catch.gb"
    title = "CELLAR"
    magic = b"CL"
    last_level = len(FRAMES_PER_DROP) - 1
    action_keys = (frozenset({"left"}), frozenset({"right"}), NO_KEYS)
    noop_action = 2

    def _write_level(self, level: int) -> None:
        super()._write_level(level)
        self._memory[LEVEL_DIGIT] = ord(f"{level}")

    def _info(self) -> dict[str, Any]:
        return {
            "score": self._read_16_bits(SCORE),
            "caught": self._read_16_bits(CAUGHT),
            "missed": self._read_16_bits(MISSED),
            "pay": int(self._memory[PAY]),
            "water": int(self._memory[WATER]),
            "level": int(self._memory[LEVEL]),
        }
