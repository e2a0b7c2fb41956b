"""Game Boy worlds on the PyBoy emulator: one step is one video frame of 70224 clock cycles.

A world is a subclass of `GameBoyEnv` with a few hooks. PyBoy itself is imported when the first world is
built.

An illegal opcode makes PyBoy's ``tick()`` loop inside C for ever: no Python code, signal handlers
included, runs again in that thread. That cannot be handled here. The runtime sees the missing heartbeat
and kills the process.
"""

import io
import warnings
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, get_args

import gymnasium
import numpy as np
from gymnasium.error import ResetNeeded
from numpy.typing import NDArray

from rtcore_envs.area import AreaResizer
from rtcore_envs.errors import RomError, SettingError
from rtcore_envs.keys import KEYS, NO_KEYS, Keys, meaning
from rtcore_envs.rom import HEADER_CHECKSUM, TITLE, emulator_errors, header_checksum, needs_colour, read_rom

if TYPE_CHECKING:
    from pyboy import PyBoy

#: Frames per second of the machine: 4194304 Hz clock, 70224 cycles a frame (59.7275 Hz).
FRAME_RATE_HZ = Fraction(4194304, 70224)

#: (rows, columns) of the screen.
SCREEN_SHAPE = (144, 160)
#: ... and of the "grey84" observation.
SMALL_SHAPE = (84, 84)

Observation = Literal["grey84", "native", "rgb"]
OBSERVATION_SHAPES: dict[str, tuple[int, ...]] = {
    "grey84": SMALL_SHAPE,
    "native": SCREEN_SHAPE,
    "rgb": (*SCREEN_SHAPE, 3),
}

#: Red, green and blue in a grey (Rec. 601), in 256ths.
_LUMA = np.array([77, 150, 29, 0], np.float32) / np.float32(256)

#: Keys that are down during an action; the numbering is the one of the paper's reference code.
ACTION_KEYS: tuple[Keys, ...] = (
    frozenset({"a"}),
    frozenset({"b"}),
    frozenset({"left"}),
    frozenset({"up"}),
    frozenset({"right"}),
    frozenset({"down"}),
    frozenset(),
)


class GameBoyEnv(gymnasium.Env[NDArray[np.uint8], np.int64]):
    """A Game Boy game as a Gymnasium environment, one emulated frame per step.

    Action: ``Discrete(7)`` unless a world says otherwise: 0 A, 1 B, 2 LEFT, 3 UP, 4 RIGHT, 5 DOWN, 6 none
    (`noop_action`). The key is down for exactly this frame. The same action on consecutive steps is one long
    press: no new press edge; the game's own auto-repeat decides what that does.

    Observation: uint8 grey levels, 0 black to 255 white. ``"grey84"`` (84, 84), the area mean of the
    screen; ``"native"`` (144, 160), the screen; ``"rgb"`` (144, 160, 3), the screen in colours. `reset` and
    `step` return fresh arrays that the caller may keep. The screen runs one frame behind the game's memory
    (the hardware shows in frame k+1 what was decided in frame k), so a reward is seen one frame before its
    cause is visible.

    Every episode starts from one emulator state, taken once at construction.

    Args:
        rom: the ROM file.
        observation: ``"grey84"``, ``"native"`` or ``"rgb"``.
        render_mode: None or ``"rgb_array"``, (144, 160, 3) uint8.

    Raises:
        RomError: the ROM file cannot be used.
        SettingError: unknown ``observation`` or ``render_mode``.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  (declared as an instance variable in gymnasium.Env)
        "render_modes": ["rgb_array"],
        "render_fps": float(FRAME_RATE_HZ),
    }
    noop_action = 6

    #: Keys that are down during each action. What a world changes of it and of the next two, it changes in `_check_rom`
    #: or before.
    action_keys: tuple[Keys, ...] = ACTION_KEYS
    #: Frames that an action lasts.
    frame_skip = 1
    #: Whether the machine is a Game Boy Color; the grey machine is the default, also for cartridges for both.
    colour = False

    #: Frames from power-on to the start state. PyBoy's boot animation takes 78.
    boot_frames: ClassVar[int] = 100

    def __init__(
        self,
        *,
        rom: str | Path,
        observation: Observation = "grey84",
        render_mode: str | None = None,
    ) -> None:
        if observation not in get_args(Observation):
            raise SettingError(f"got observation={observation!r}, expected one of {get_args(Observation)}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise SettingError(f"got render_mode={render_mode!r}, expected None or {self.metadata['render_modes']}")
        self.render_mode = render_mode
        shape = OBSERVATION_SHAPES[observation]
        self.observation_space = gymnasium.spaces.Box(0, 255, shape, np.uint8)
        self._shape = shape
        self._resize = AreaResizer(SCREEN_SHAPE, SMALL_SHAPE) if observation == "grey84" else None
        self._held = NO_KEYS
        self._in_episode = False
        self._closed = False
        self._rom = Path(rom)
        content = read_rom(self._rom)
        self._check_rom(content)
        if needs_colour(content) and not self.colour:
            expected = "one for the grey machine, or for both"
            raise RomError(
                self._rom, "a cartridge for the Game Boy Color only", expected, "This world is of the former."
            )
        # gymnasium types Discrete as a space of np.int64; plain ints are members too.
        self.action_space = gymnasium.spaces.Discrete(len(self.action_keys))
        self._emulator = start_emulator(self._rom, content, colour=self.colour)
        #: Live views into the emulator, valid until `close`: (144, 160, 4) RGBA, and its grey channel.
        self._screen: NDArray[np.uint8] = self._emulator.screen.ndarray
        self._grey = self._screen[..., 0]
        if self.colour:
            self._colours = np.empty((*SCREEN_SHAPE, 4), np.float32)
            self._luma = np.empty(SCREEN_SHAPE, np.float32)
            self._grey = np.empty(SCREEN_SHAPE, np.uint8)
        self._memory = self._emulator.memory
        self._prepare()
        # Taken once: saving takes 15 to 44 ms, far more than a frame.
        self._start_state = self._saved_state()

    # Hooks for the worlds ---

    def _check_rom(self, content: bytes) -> None:
        """Called with the bytes of the ROM file before an emulator is built: raise `RomError` to refuse it."""

    def _prepare(self) -> None:
        """Brings the fresh emulator to the start state of all episodes, with all keys up. Called once.

        Raises `RomError` if the ROM turns out to be another game.
        """
        self._emulator.tick(self.boot_frames, False, False)

    def _load_start_state(self, options: dict[str, Any] | None) -> None:
        """Brings the emulator to the start of the episode; the default is the one state of `_prepare`."""
        self._load_state(self._start_state)

    def _begin_episode(self, options: dict[str, Any] | None) -> None:
        """Called by `reset` on the start state, all keys up: write seeds from ``np_random``, press START.

        May run frames with `_run_frame`. `reset` runs one more frame with all keys up, the first one seen.
        """

    def _begin_rewards(self, memory: Any) -> None:
        """Called by `reset` after the first frame: take the values that rewards are counted from."""

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        """Reward of the frame that has just run, and whether it ended the episode.

        ``memory[address]`` is a byte.
        """
        raise NotImplementedError

    def _info(self) -> dict[str, Any]:
        """The info dictionary after a frame; a fresh one each time."""
        return {}

    # Gymnasium ---

    def get_action_meanings(self) -> list[str]:
        """The names of the actions, by number, such as A, LEFT, A+LEFT, NOOP."""
        return [meaning(keys) for keys in self.action_keys]

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode (about 5 ms: one emulator state is loaded, a few frames run)."""
        super().reset(seed=seed)
        self._check_open()
        # Key events wait in the emulator until a frame runs, and loading a state does not drop them:
        # release everything and let one frame of the old episode take it in.
        self._run_frame(NO_KEYS, render=False)
        self._load_start_state(options)
        self._begin_episode(options)
        self._run_frame(NO_KEYS, render=True)
        self._begin_rewards(self._memory)
        self._in_episode = True
        return self._observe(), self._info()

    def step(self, action: int | np.integer[Any]) -> tuple[NDArray[np.uint8], float, bool, bool, dict[str, Any]]:
        """Runs one frame with the action's keys down, or `frame_skip` of them. Never truncates.

        Raises:
            ValueError: an action outside the space.
            ResetNeeded: before the first `reset`.
        """
        if not 0 <= action < len(self.action_keys):
            raise ValueError(f"got action={action!r}, expected a whole number from 0 to {len(self.action_keys) - 1}")
        self._check_open()
        if not self._in_episode:
            raise ResetNeeded("got step() before the first reset(), expected reset() once after construction")
        keys = self.action_keys[action]
        self._run_frame(keys, render=True)
        reward, terminated = self._reward_and_done(self._memory)
        for _ in range(self.frame_skip - 1):
            if terminated:
                break
            self._run_frame(keys, render=True)
            more, terminated = self._reward_and_done(self._memory)
            reward += more
        return self._observe(), reward, terminated, False, self._info()

    def render(self) -> NDArray[np.uint8] | None:
        """The screen as (144, 160, 3) uint8 RGB, a fresh array; None without a render mode."""
        if self.render_mode is None:
            gymnasium.logger.warn('render() was called without a render mode; use render_mode="rgb_array".')
            return None
        self._check_open()
        return self._screen[..., :3].copy()

    def close(self) -> None:
        """Ends the emulator. Nothing is written to disk. May be called twice."""
        if not self._closed:
            self._closed = True
            self._emulator.stop(save=False)

    @property
    def memory(self) -> Any:
        """The machine's memory: ``memory[address]`` is a byte, ``memory[first:last]`` a list; writable.

        Live, and unchecked by PyBoy: an address outside 0..0xFFFF reads junk, a value outside 0..255 raises
        OverflowError.
        """
        return self._memory

    # Parts ---

    def _check_open(self) -> None:
        if self._closed:
            raise ResetNeeded("got a call after close(), expected none: build a new environment")

    def _run_frame(self, keys: frozenset[str], *, render: bool) -> None:
        """Runs one frame with exactly ``keys`` down.

        Only changes are sent: a repeated press means nothing to the emulator, and a release and a press
        before the same frame cancel out.
        """
        if keys is not self._held:
            for key in self._held - keys:
                self._emulator.button_release(key)
            for key in keys - self._held:
                self._emulator.button_press(key)
            self._held = keys
        self._emulator.tick(1, render, False)

    def _saved_state(self) -> bytes:
        """The emulator's whole state, about 150 kB. Takes 15 to 44 ms."""
        state = io.BytesIO()
        self._emulator.save_state(state)
        return state.getvalue()

    def _load_state(self, state: bytes) -> None:
        """About 5 ms. The screen is that of the old state until a frame is rendered; all keys are up."""
        self._emulator.load_state(io.BytesIO(state))
        # Keys are a part of the state: one that was down when it was saved would stay down.
        for key in KEYS:
            self._emulator.button_release(key)
        self._held = NO_KEYS

    def _observe(self) -> NDArray[np.uint8]:
        frame = np.empty(self._shape, np.uint8)
        if len(self._shape) == 3:
            np.copyto(frame, self._screen[..., :3])
            return frame
        if self.colour:
            np.copyto(self._colours, self._screen)
            np.matmul(self._colours, _LUMA, out=self._luma)
            np.copyto(self._grey, self._luma, casting="unsafe")
        if self._resize is None:
            np.copyto(frame, self._grey)
        else:
            self._resize(self._grey, frame)
        return frame


def _without_wrapper(content: bytes) -> bytes:
    """The cartridge with a title that PyBoy takes for no game that it knows.

    It watches such games at every tick, and that of "2048" fails at each for want of a file that it expects beside
    the ROM. Nothing in the machine looks at the title. The first bit of its first letter is changed.
    """
    rom = bytearray(content)
    rom[TITLE.start] |= 0x80
    rom[HEADER_CHECKSUM] = header_checksum(bytes(rom))
    return bytes(rom)


def start_emulator(rom: Path, content: bytes, *, colour: bool = False) -> "PyBoy":
    """Starts the cartridge ``content``, without sound or pacing. Raises `RomError`, which names the file ``rom``.

    The emulator is given the bytes, not the path, so that it neither reads nor writes files beside the ROM (saved
    games, states). It is the grey machine unless ``colour``: a cartridge for both, such as Pokemon Yellow, has colours
    only on the later one.
    """
    with emulator_errors(rom), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pysdl2 announces its binaries as a UserWarning
        from pyboy import PyBoy  # noqa: PLC0415  (0.3 s and 30 MB: only processes that run a game pay)

        emulator = PyBoy(
            io.BytesIO(_without_wrapper(content)),
            window="null",
            sound_emulated=False,
            cgb=colour,
            log_level="CRITICAL",
        )
    emulator.set_emulation_speed(0)  # the runtime keeps the pace
    return cast("PyBoy", emulator)
