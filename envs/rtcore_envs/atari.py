"""Atari 2600 games as the world ``rtcore/Atari-v0``, through the Arcade Learning Environment.

ale-py, with its ROMs, is an extra (``rtcore[atari]``) and GPL-2.0-only: it is imported when a world is made.
"""

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled, ResetNeeded
from numpy.typing import NDArray

from rtcore_envs.area import AreaResizer
from rtcore_envs.errors import SettingError

if TYPE_CHECKING:
    from ale_py import ALEInterface

Observation = Literal["grey84", "grey", "rgb"]

#: (rows, columns) of the "grey84" observation.
SMALL_SHAPE = (84, 84)


class AtariEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """One game, one frame of the console per step (frame-skip 1).

    Action: ``Discrete``, the actions that the game knows (`get_action_meanings`; 18 with ``full_action_space``).
    `noop_action` is NOOP: the two games whose own actions lack it, backgammon and video_checkers, get it as action 0.

    Observation: uint8. ``"grey84"`` (84, 84), the area mean of the grey screen; ``"grey"`` the screen, (210, 160) for
    most games; ``"rgb"`` the same with 3 colours. `reset` and `step` return fresh arrays that the caller may keep. It
    is one frame as it is: what a game draws in every other frame only, to save memory, is there in every other frame.

    Reward: the points gained in this frame, unclipped. Terminates when the game is over. Never truncates by itself.
    Info: ``lives``, ``score`` and ``episode_frame_number`` (since the reset), all int.

    A reset restores the state of 2 frames after the game's own start and runs 1 to ``max_noops`` frames without an
    action, as many as the seed draws. Nothing else is random: the same seed and actions give the same frames and
    rewards.

    Args:
        game: a ROM of ale-py: ``"name_this_game"`` or ``"NameThisGame"``.
        observation: ``"grey84"``, ``"grey"`` or ``"rgb"``.
        full_action_space: all 18 actions of the console.
        repeat_action_probability: how often the action before acts once more in place of the one that is given
            ("sticky actions"), drawn by the seed. ALE's ids, such as ``ALE/Boxing-v5``, have 0.25.
        max_noops: at least 1. With 1 all episodes begin alike.
        mode, difficulty: of the game, as its manual numbers them; None for its own.
        render_mode: None or ``"rgb_array"``, uint8 with 3 colours.

    Raises:
        DependencyNotInstalled: without ale-py.
        SettingError: an unknown game, or an argument that it does not know.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared as an instance variable in gymnasium.Env)
        "render_modes": ["rgb_array"],
        "render_fps": 60,
    }

    def __init__(
        self,
        *,
        game: str = "boxing",
        observation: Observation = "grey84",
        full_action_space: bool = False,
        repeat_action_probability: float = 0.0,
        max_noops: int = 30,
        mode: int | None = None,
        difficulty: int | None = None,
        render_mode: str | None = None,
    ) -> None:
        if observation not in get_args(Observation):
            raise SettingError(f"got observation={observation!r}, expected one of {get_args(Observation)}")
        if not 0 <= repeat_action_probability < 1:
            raise SettingError(
                f"got repeat_action_probability={repeat_action_probability}, expected a number from 0 to below 1"
            )
        if max_noops < 1:
            raise SettingError(
                f"got max_noops={max_noops}, expected at least 1: a reset runs a frame to have its picture"
            )
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise SettingError(f"got render_mode={render_mode!r}, expected None or {self.metadata['render_modes']}")
        self.render_mode = render_mode
        self._ale = ale = _start_console(game, mode, difficulty)
        self._actions = _actions_of(ale, full_action_space)
        self._meanings = [action.name for action in self._actions]
        self.noop_action = self._meanings.index("NOOP")
        self._noop = self._actions[self.noop_action]
        self._sticky = repeat_action_probability
        self._max_noops = max_noops
        screen_shape = ale.getScreenDims()
        self._grey = np.empty(screen_shape, np.uint8)
        self._resize = AreaResizer(screen_shape, SMALL_SHAPE) if observation == "grey84" else None
        self._in_colour = observation == "rgb"
        self._shape = (
            SMALL_SHAPE if observation == "grey84" else (*screen_shape, 3) if self._in_colour else screen_shape
        )
        self.observation_space = gymnasium.spaces.Box(0, 255, self._shape, np.uint8)
        self.action_space = gymnasium.spaces.Discrete(len(self._actions))
        # The game's own start runs up to 300 frames (50 ms); its state is restored in 0.05 ms. ALE's state leaves out
        # whether the picture was whole when the frame ended. It never is, from their first frame on, in qbert and
        # tetris: taken after a frame, their state is that of any later moment.
        ale.reset_game()
        ale.act(self._noop)
        self._start_state = ale.cloneState()
        self._last_action = self._noop
        self._score = self._num_frames = 0
        self._in_episode = False

    def get_action_meanings(self) -> list[str]:
        """Names of the actions, in their order."""
        return list(self._meanings)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode (0.2 to 4 ms: a state is restored, 1 to ``max_noops`` frames run)."""
        super().reset(seed=seed)
        self._begin(int(self.np_random.integers(1, self._max_noops, endpoint=True)))
        self._last_action = self._noop
        self._score = self._num_frames = 0
        self._in_episode = True
        return self._observe(), self._info()

    def step(self, action: int | np.integer[Any]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Runs one frame. Never truncates.

        Raises:
            ValueError: an action that the game does not have.
            ResetNeeded: before the first `reset`.
        """
        if not 0 <= action < len(self._actions):
            raise ValueError(f"got action={action!r}, expected a whole number from 0 to {len(self._actions) - 1}")
        if not self._in_episode:
            raise ResetNeeded("got step() before the first reset(), expected reset() once after construction")
        if not self._sticky or self.np_random.random() >= self._sticky:
            self._last_action = self._actions[action]
        reward = self._ale.act(self._last_action)
        self._score += reward
        self._num_frames += 1
        return self._observe(), float(reward), self._ale.game_over(), False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The screen as (rows, 160, 3) uint8 RGB, a fresh array; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() was called without a render mode; use render_mode="rgb_array".')
            return None
        return self._ale.getScreenRGB()

    # Parts ---

    def _begin(self, num_noops: int) -> None:
        """The start state, and so many frames without an action after it."""
        self._ale.restoreState(self._start_state)
        # The screen is that of the old episode until a frame is run, and a part of it may be for that frame.
        for _ in range(1 + num_noops):
            self._ale.act(self._noop)
        if self._ale.game_over() and num_noops > 1:  # of a game that cannot wait
            self._begin(1)

    def _observe(self) -> NDArray[np.uint8]:
        frame = np.empty(self._shape, np.uint8)
        if self._in_colour:
            self._ale.getScreenRGB(frame)
        elif self._resize is None:
            self._ale.getScreenGrayscale(frame)
        else:
            self._ale.getScreenGrayscale(self._grey)
            self._resize(self._grey, frame)
        return frame

    def _info(self) -> dict[str, Any]:
        return {"lives": self._ale.lives(), "score": self._score, "episode_frame_number": self._num_frames}


def games() -> list[str]:
    """The games that ale-py can run, as it spells them. DependencyNotInstalled without it.

    Of the 108 ROMs in its wheel it has no rules for 4, of which 2 players are needed.
    """
    _require_ale()
    from ale_py import roms  # noqa: PLC0415 - an extra

    return sorted(game for game in roms.get_all_rom_ids() if _rom_of(game) is not None)


def _start_console(game: str, mode: int | None, difficulty: int | None) -> "ALEInterface":
    """The console with the game in it."""
    _require_ale()
    from ale_py import ALEInterface, LoggerMode  # noqa: PLC0415 - an extra

    rom = _find_rom(game)
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)  # drawn here, by the env's seed; ALE's own default is 0.25
    ale.loadROM(rom)
    for name, wanted, known, choose in (
        ("mode", mode, ale.getAvailableModes(), ale.setMode),
        ("difficulty", difficulty, ale.getAvailableDifficulties(), ale.setDifficulty),
    ):
        if wanted is None:
            continue
        if wanted not in known:
            raise SettingError(f"got {name}={wanted!r} for {game}, expected one of {sorted(map(int, known))}")
        choose(wanted)
    return ale


def _actions_of(ale: "ALEInterface", full_action_space: bool) -> list[Any]:
    """ALE's actions of the game, or all of them; NOOP in any case: here a game goes on while nobody acts."""
    from ale_py import Action  # noqa: PLC0415 - an extra

    actions = list(ale.getLegalActionSet() if full_action_space else ale.getMinimalActionSet())
    return actions if Action.NOOP in actions else [Action.NOOP, *actions]


def _require_ale() -> None:
    try:
        import ale_py  # noqa: F401, PLC0415 - an extra, and 50 ms
    except ModuleNotFoundError as error:
        raise DependencyNotInstalled(
            "rtcore/Atari-v0 needs ale-py, which has the games too: pip install 'rtcore[atari]'"
        ) from error


def _find_rom(game: str) -> Path:
    """The ROM of a game in snake_case or CamelCase. SettingError with what was probably meant."""
    from ale_py import roms  # noqa: PLC0415 - an extra

    known = {_plain(name): name for name in roms.get_all_rom_ids()}
    name = known.get(_plain(str(game)))
    rom = None if name is None else _rom_of(name)
    if rom is not None:
        return rom
    if name is not None:
        raise SettingError(
            f"got game={game!r}, expected a game for one player: ale-py has its ROM, but no rules for it"
        )
    close = [known[match] for match in difflib.get_close_matches(_plain(str(game)), list(known), n=3)]
    advice = f"did you mean {' or '.join(close)}?" if close else "rtcore_envs.atari.games() lists them"
    raise SettingError(f"got game={game!r}, expected a game of ale-py, such as boxing or name_this_game; {advice}")


def _rom_of(name: str) -> Path | None:
    """None for a ROM without rules: loading it ends the whole process."""
    from ale_py import ALEInterface, roms  # noqa: PLC0415 - an extra

    rom = roms.get_rom_path(name)
    return rom if rom is not None and ALEInterface.isSupportedROM(rom) is not None else None


def _plain(name: str) -> str:
    return name.replace("_", "").lower()
