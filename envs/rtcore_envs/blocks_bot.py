"""The rules of NARROWS in Python, and a scripted player: a yardstick for learned policies, delayed or not.

Written from roms/README.md, not from the C source, so that tests can hold one against the other.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

WIDTH = 6
HEIGHT = 12
SPAWN_COLUMN = 2

#: The part of work RAM that `GreedyBot.act` wants: ``env.memory[RAM_START:RAM_STOP]``.
RAM_START = 0xC000
RAM_STOP = 0xC080

A, B, LEFT, UP, RIGHT, DOWN, NOTHING = range(7)

Cells = tuple[tuple[int, int], ...]
Board = NDArray[np.uint8]

#: (row, column) of the cells of each piece, for each quarter turn.
SHAPES: tuple[tuple[Cells, Cells, Cells, Cells], ...] = (
    (((0, 0),), ((0, 0),), ((0, 0),), ((0, 0),)),  # grain
    (((0, 0), (0, 1)), ((0, 0), (1, 0)), ((0, 0), (0, 1)), ((0, 0), (1, 0))),  # pair
    (
        ((0, 0), (0, 1), (0, 2)),
        ((0, 0), (1, 0), (2, 0)),
        ((0, 0), (0, 1), (0, 2)),
        ((0, 0), (1, 0), (2, 0)),
    ),  # bar
    (
        ((0, 0), (1, 0), (1, 1)),
        ((0, 0), (0, 1), (1, 0)),
        ((0, 0), (0, 1), (1, 1)),
        ((0, 1), (1, 0), (1, 1)),
    ),  # corner
    (((0, 0), (1, 1)), ((0, 1), (1, 0)), ((0, 0), (1, 1)), ((0, 1), (1, 0))),  # slant
    (((0, 0), (0, 2)), ((0, 0), (2, 0)), ((0, 0), (0, 2)), ((0, 0), (2, 0))),  # gate
)


class Landing(NamedTuple):
    """What a piece leaves behind: the board after full rows were carried off, their number, the points."""

    board: Board
    lines: int
    points: int


def board_of(ram: Sequence[int]) -> Board:
    """(12, 6) uint8, 1 where there is ground; ``ram`` starts at `RAM_START`."""
    rows = np.array(ram[0x20:0x80], np.uint8).reshape(HEIGHT, 8)
    return rows[:, :WIDTH].copy()


def fits(board: Board, cells: Cells, row: int, column: int) -> bool:
    """Whether all cells are inside the well and free."""
    return all(0 <= row + r < HEIGHT and 0 <= column + c < WIDTH and not board[row + r, column + c] for r, c in cells)


def land(board: Board, cells: Cells, row: int, column: int) -> Landing:
    """Drops the rigid piece from (row, column), breaks it, and carries off full rows, on a copy."""
    after = board.copy()
    while fits(after, cells, row + 1, column):
        row += 1
    for r, c in sorted(cells, reverse=True):
        bottom = row + r
        while bottom + 1 < HEIGHT and not after[bottom + 1, column + c]:
            bottom += 1
        after[bottom, column + c] = 1
    left = after[~after.all(axis=1)]
    lines = HEIGHT - len(left)
    after = np.concatenate([np.zeros((lines, WIDTH), np.uint8), left])
    return Landing(after, lines, lines * (lines + 1) // 2)


class GreedyBot:
    """Plays every piece to the flattest landing, through the buttons alone.

    It plans all presses once, when it first sees a piece, so old frames do not confuse it: give ``act`` the
    memory of any fixed number of ticks ago. One bot per episode.
    """

    def __init__(self) -> None:
        self._seen_pieces = -1
        self._plan: list[int] = []

    def act(self, ram: Sequence[int]) -> int:
        """The action after seeing ``ram``, work RAM from `RAM_START` to `RAM_STOP`."""
        pieces = ram[0x12] | ram[0x13] << 8
        falling = ram[0x02] == 1 and ram[0x11] == 0
        if falling and pieces != self._seen_pieces:
            self._seen_pieces = pieces
            keys = presses(board_of(ram), SHAPES[ram[0x0E]])
            # In reverse order, with a release between any two, since the game acts on new presses.
            self._plan = [step for key in keys for step in (NOTHING, key)][::-1]
        if not self._plan:
            # A piece that still hangs ignores B, so press until the next piece is seen.
            self._plan = [NOTHING, B]
        return self._plan.pop()


class Teacher:
    """The same player for learners to imitate (`learn=imitate`): asked at every frame, its answer is what follows from
    that frame and how long ago the piece came. It presses a key in every `every_ticks` ticks, two at least. A frame
    shows the memory as it was a tick before, and so does the answer to it.
    """

    def __init__(self, memory: Any, every_ticks: int) -> None:
        self._memory = memory
        self._every_ticks = every_ticks
        self._seen_pieces = -1
        self._age_ticks = 0
        self._keys: list[int] = []
        self._answer = self._answer_to_memory()

    def __call__(self) -> int:
        """The answer to the frame on the screen. To be asked once a tick."""
        answer, self._answer = self._answer, self._answer_to_memory()
        return answer

    def _answer_to_memory(self) -> int:
        ram = self._memory[RAM_START:RAM_STOP]
        pieces = ram[0x12] | ram[0x13] << 8
        self._age_ticks += 1
        if ram[0x02] == 1 and ram[0x11] == 0 and pieces != self._seen_pieces:
            self._seen_pieces, self._age_ticks = pieces, 0
            self._keys = presses(board_of(ram), SHAPES[ram[0x0E]])
        place, late = divmod(self._age_ticks, max(2, self._every_ticks))
        if late and self._every_ticks == 1:
            return NOTHING  # let go: the game acts on new presses
        return self._keys[place] if place < len(self._keys) else B


def presses(board: Board, turns: tuple[Cells, Cells, Cells, Cells]) -> list[int]:
    """The keys that bring a new piece to where it lands flattest."""
    place = flattest(board, turns)
    if place is None:
        return []
    turn, column = place
    side = LEFT if column < SPAWN_COLUMN else RIGHT
    return [A] * turn + [side] * abs(column - SPAWN_COLUMN)


def flattest(board: Board, turns: tuple[Cells, Cells, Cells, Cells]) -> tuple[int, int] | None:
    """(quarter turns, column) of the flattest landing from the top row; None where nothing fits."""
    options = [
        (_roughness(land(board, cells, 0, column)), turn, column)
        for turn, cells in enumerate(turns)
        for column in range(WIDTH)
        if fits(board, cells, 0, column)
    ]
    return min(options)[1:] if options else None


def _roughness(landing: Landing) -> int:
    """Low is good: few cells, low, and even; a row less is worth more than any of that."""
    depth = np.where(landing.board.any(axis=0), HEIGHT - landing.board.argmax(axis=0), 0).astype(int)
    return int((depth**2).sum()) - 40 * landing.points
