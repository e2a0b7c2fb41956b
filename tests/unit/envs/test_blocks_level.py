"""`rtcore/Blocks-v0` begins at any level."""

from __future__ import annotations

import pytest

from rtcore_envs.blocks import FRAMES_PER_ROW, LEVEL, LEVEL_DIGITS, BlocksEnv

pytestmark = pytest.mark.unit
NOTHING = 6
HANG_FRAMES = 12
POSITION = 0xC010
ROW = 8


def frames_to_fall(env: BlocksEnv, rows: int) -> list[int]:
    """At which frame after the reset the first piece reached each row."""
    found: list[int] = []
    for frame in range(1, 2000):
        env.step(NOTHING)
        if env.memory[POSITION] // ROW > len(found):
            found.append(frame)
            if len(found) == rows:
                break
    return found


@pytest.mark.parametrize("level", [0, 7, 15, 17])
def test_a_piece_falls_as_fast_as_the_level_says(level: int) -> None:
    env = BlocksEnv(level=level)
    env.reset(seed=3)
    first, *later = frames_to_fall(env, 4)
    assert first >= HANG_FRAMES
    assert [after - before for before, after in zip([first, *later], later, strict=False)] == [
        FRAMES_PER_ROW[level]
    ] * 3
    assert env.memory[LEVEL] == level
    assert bytes(env.memory[LEVEL_DIGITS : LEVEL_DIGITS + 2]) == f"{level:02d}".encode()
    env.close()


def test_the_first_row_takes_no_longer_than_the_others() -> None:
    env = BlocksEnv(level=15)
    env.reset(seed=3)
    assert frames_to_fall(env, 1)[0] <= HANG_FRAMES + FRAMES_PER_ROW[15]
    env.close()


@pytest.mark.parametrize("level", [-1, 18, 1.5, True])
def test_a_level_that_the_game_does_not_have_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="from 0 to 17"):
        BlocksEnv(level=level)  # type: ignore[arg-type]
