"""Tetris, from the user's own ROM, as the world ``rtcore/Tetris-v0``."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from rtcore_envs.area import AreaResizer
from rtcore_envs.errors import RomError, StateError
from rtcore_envs.gameboy import SCREEN_SHAPE, SMALL_SHAPE
from rtcore_envs.keys import NO_KEYS
from rtcore_envs.states import StartState
from rtcore_envs.userrom import UserRomEnv

#: Decimal digits, two to a byte, the lowest byte first.
SCORE = 0xC0A0
SCORE_BYTES = 3
LEVEL = 0xFFA9
#: 0 while a game is played.
GAME_STATE = 0xFFE1
#: Where the screen shows the lines: 4 tiles of the background, the digits being tiles 0 to 9.
LINES_TILES = 0x9800 + 32 * 10 + 14
NUM_LINES_TILES = 4

START = frozenset({"start"})
START_AND_A = frozenset({"start", "a"})

#: The paper's random start: so many frames at most before START and A.
MAX_IDLE_FRAMES = 40
#: ... and the picture must have changed by so much in all, over 84x84 grey levels, or it is tried again.
MIN_CHANGE = 10_000
_MAX_TRIES = 3
_MAX_WAIT_FRAMES = 120

#: From power-on to the last menu: a press of START, then so many frames for the game to follow.
_FRAMES_BEFORE_MENU = 900
_FRAMES_PER_PRESS = 60
_MAX_PRESSES = 30
#: A game that has begun goes on for so many frames.
_STEADY_FRAMES = 10


def from_bcd(digits: list[int]) -> int:
    """Decimal digits, two to a byte, the lowest byte first: ``[0x34, 0x12]`` is 1234."""
    return sum((10 * (byte >> 4) + (byte & 15)) * 100**place for place, byte in enumerate(digits))


class TetrisEnv(UserRomEnv):
    """Tetris for the Game Boy, type A.

    Reward: the points gained in this frame. Terminates when the game's state leaves "playing": game over, or
    whatever else ends it. Never truncates by itself.

    Info: ``score``, ``lines``, ``level`` (int), ``state`` (name of the start state).

    ``states=None`` begins every episode with a fresh game from power-on: once, at construction, START is pressed
    until the last menu before a game; each reset then does the paper's random start, 0 to 40 frames by the seed
    before START and A, so that the pieces differ. Start states that show a menu get the same random start; those
    in the middle of a game begin as they are.

    ``reference_quirks=True`` reads four digits of the score only, as the reference code does: at 10,000 points
    the reward is about -10,000. The rest is as in `UserRomEnv`.

    Raises:
        RomError: no game begins from power-on, within bounds. ``reset`` may raise `StateError` for a start state.
    """

    world: ClassVar[str] = "tetris"
    games: ClassVar[tuple[str, ...]] = ("tetris",)

    _score = 0

    # Rewards ---

    def _read_score(self) -> int:
        num_bytes = 2 if self._quirks else SCORE_BYTES
        return from_bcd(self._memory[SCORE : SCORE + num_bytes])

    def _begin_rewards(self, memory: Any) -> None:
        self._score = self._read_score()

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        score = self._read_score()
        reward = score - self._score
        self._score = score
        return float(reward), memory[GAME_STATE] != 0

    def _info(self) -> dict[str, Any]:
        tiles = self._memory[LINES_TILES : LINES_TILES + NUM_LINES_TILES]
        lines = int("".join(str(tile) for tile in tiles if tile < 10) or "0")
        level = from_bcd([self._memory[LEVEL]])
        return super()._info() | {"score": self._read_score(), "lines": lines, "level": level}

    # The way to a game ---

    def _collect_states(self, states: str | Path | None, rom: Path) -> list[StartState]:
        return [] if states is None else super()._collect_states(states, rom)

    def _prepare(self) -> None:
        super()._prepare()
        self._small = AreaResizer(SCREEN_SHAPE, SMALL_SHAPE)
        if not self._states:
            self._load_state(self._find_last_menu())

    def _find_last_menu(self) -> bytes:
        """Presses START until a game begins; returns the state before the press that began it.

        The game says that it is in a menu by a state that is not 0. Raises `RomError` after bounded frames.
        """
        for _ in range(_FRAMES_BEFORE_MENU):
            if self._memory[GAME_STATE] != 0:
                break
            self._run_frame(NO_KEYS, render=False)
        else:
            raise self._no_game(f"no menu within {_FRAMES_BEFORE_MENU} frames from power-on")
        for _ in range(_MAX_PRESSES):
            before = self._saved_state()
            self._run_frame(START, render=False)
            if self._game_begins(_FRAMES_PER_PRESS):
                return before
        raise self._no_game(f"no game after {_MAX_PRESSES} presses of START")

    def _no_game(self, got: str) -> RomError:
        advice = "Start from states of your own: `rtcore-rom play --world tetris`, then states=FOLDER."
        return RomError(self._rom, got, "a game that begins", advice)

    def _game_begins(self, max_frames: int) -> bool:
        """Runs up to so many frames without keys; True once the game has been played for a while."""
        steady = 0
        for _ in range(max_frames):
            self._run_frame(NO_KEYS, render=False)
            steady = steady + 1 if self._memory[GAME_STATE] == 0 else 0
            if steady == _STEADY_FRAMES:
                return True
        return False

    def _begin_episode(self, options: dict[str, Any] | None) -> None:
        """The paper's random start, if the start state shows a menu."""
        if self._memory[GAME_STATE] == 0:
            return
        menu = np.empty(SMALL_SHAPE, np.uint8)
        for attempt in range(_MAX_TRIES):
            if attempt:
                self._load_current()
            for _ in range(int(self.np_random.integers(MAX_IDLE_FRAMES + 1))):
                self._run_frame(NO_KEYS, render=False)
            self._run_frame(NO_KEYS, render=True)  # one more, for the picture
            self._small(self._grey, menu)
            self._run_frame(START_AND_A, render=True)
            if self._picture_changes(menu):
                return
        tries = f"no game after {_MAX_TRIES} times START and A"
        if self._current is None:
            raise self._no_game(tries)
        advice = "Save the state in the last menu before a game, or in a game."
        raise StateError(self._current.path, tries, "a game that begins", advice)

    def _picture_changes(self, menu: NDArray[np.uint8]) -> bool:
        """Waits until a game is played and its picture is there: changed enough, and not all of one grey."""
        now = np.empty_like(menu)
        for _ in range(_MAX_WAIT_FRAMES):
            self._run_frame(NO_KEYS, render=True)
            if self._memory[GAME_STATE] != 0:
                continue
            self._small(self._grey, now)
            change = int(np.abs(now.astype(np.int16) - menu).sum())
            if now.min() != now.max() and change >= MIN_CHANGE:
                return True
        return False
