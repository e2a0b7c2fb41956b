"""Any Game Boy game as the world ``rtcore/GameBoy-v0``: what it pays and when it ends is said as expressions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from rtcore_envs.errors import SettingError
from rtcore_envs.expressions import Expression, parse_named
from rtcore_envs.gameboy import ACTION_KEYS, FRAME_RATE_HZ, Observation
from rtcore_envs.keys import NO_KEYS, RANDOMIZE, Keys, Step, meaning, parse_actions, parse_script
from rtcore_envs.library import FoundRom, KnownRom, sha256_of, user_path
from rtcore_envs.memorymap import Key, MemoryMap, read_symbols
from rtcore_envs.rom import needs_colour, read_rom, rom_title
from rtcore_envs.states import SUFFIX, StartState
from rtcore_envs.userrom import StateOrder, UserRomEnv

Machine = Literal["auto", "grey", "colour"]

DEFAULT_ACTIONS = ",".join(meaning(keys) for keys in ACTION_KEYS)
#: Past the boot animation.
DEFAULT_START = "wait 100"
MAX_FRAME_SKIP = 60

_HOW_TO_FIND = "`rtcore-rom find --help` says how to find addresses"


def as_own_game(path: Path, content: bytes) -> FoundRom:
    """A ROM of which nothing is known beforehand. Its start states are kept under its title and hash."""
    digest, title = sha256_of(content), rom_title(content)
    letters = "".join(letter if letter.isalnum() else "-" for letter in title.lower()).strip("-")
    return FoundRom(
        path, content, KnownRom(f"{letters or 'untitled'}-{digest[:8]}", title or "untitled", title, digest)
    )


class OwnGameEnv(UserRomEnv):
    """A game whose rewards and end are expressions over its memory, such as ``delta(bcd3[0xC0A0])``.

    docs/worlds.md describes the expressions, and how to find addresses. They are evaluated after every frame.

    Reward: what ``reward`` says. Terminates when ``done`` is not 0. Never truncates by itself: give
    ``max_episode_steps``, Gymnasium's own, for that. Info: ``state`` (the start state's name) and what ``info`` says.

    Every episode begins with ``start`` (or a start state, and then ``start``). Of a script the part before the first
    ``randomize`` or range of frames is run once, at construction; the rest at each reset. The same seed and actions
    give the same frames and rewards.

    Args:
        rom: the ROM file.
        reward: an expression; 0 for none.
        done: an expression; false for an episode that never ends.
        actions: comma-separated, or a list: ``noop`` and combinations of a, b, start, select, left, right, up, down.
        start: a script of keys from power-on, ``"wait 200, start, wait 30-60, a"``; or a start state or a folder of
            them, which is the same as ``states``.
        states: a start state, or a folder of them, of which those of this ROM are used. Then ``start`` is run after
            each is loaded.
        state_order: ``"cycle"`` or ``"sample"``, as in `UserRomEnv`.
        info: what else to show: ``"score: u16[0xC006], lives: u8[0xC010]"``, or a mapping.
        randomize: a value in memory, such as ``u16[0xC00A]``, that a number drawn by the seed is written to at each
            reset, where ``start`` says ``randomize``, else at its end: where the game keeps its random number.
        symbols: a .sym file of the game: its names may stand for addresses.
        frame_skip: frames that each action lasts; rewards are added up. The tick rate is 59.7275 Hz over it.
        machine: ``"grey"``, ``"colour"`` (Game Boy Color), or ``"auto"``: colour for a cartridge that needs it.
        observation, render_mode: as in `GameBoyEnv`.

    Raises:
        RomError, StateError: a file cannot be used.
        SettingError: another argument; an `ExpressionError` shows the place.
    """

    world: ClassVar[str] = "gameboy"

    def __init__(
        self,
        *,
        rom: str | Path | None = None,
        reward: str | float | None = None,
        done: str | float | None = None,
        actions: str | Sequence[str] = DEFAULT_ACTIONS,
        start: str | Path | None = None,
        states: str | Path | None = None,
        state_order: StateOrder = "cycle",
        info: str | Mapping[str, str] = "",
        randomize: str | None = None,
        symbols: str | Path | None = None,
        frame_skip: int = 1,
        machine: Machine = "auto",
        observation: Observation = "grey84",
        render_mode: str | None = None,
    ) -> None:
        if rom is None:
            raise SettingError("rom: not given, expected the ROM file: --rom FILE, or rom= in a program")
        if reward is None:
            example = "delta(u16[0xC0A0]), or 0 for none"
            raise SettingError(f"reward: not given, expected an expression such as {example}; {_HOW_TO_FIND}")
        if done is None:
            example = "u8[0xC0B0] == 1, or false for an episode that never ends"
            raise SettingError(f"done: not given, expected an expression such as {example}; {_HOW_TO_FIND}")
        if machine not in get_args(Machine):
            raise SettingError(f"machine: got {machine!r}, expected one of {get_args(Machine)}")
        if isinstance(frame_skip, bool) or not isinstance(frame_skip, int) or not 1 <= frame_skip <= MAX_FRAME_SKIP:
            raise SettingError(f"frame_skip: got {frame_skip!r}, expected a whole number from 1 to {MAX_FRAME_SKIP}")
        if start is not None and _is_path(str(start)):
            if states is not None:
                raise SettingError(f"start: got the path {start}, and states={states}; expected one of them, or keys")
            states, start = start, ""
        self._machine = machine
        self.frame_skip = frame_skip
        self.metadata = self.metadata | {"render_fps": float(FRAME_RATE_HZ / frame_skip)}
        self.action_keys = parse_actions(actions)
        self.noop_action = self.action_keys.index(NO_KEYS)
        script = ("" if states is not None else DEFAULT_START) if start is None else str(start)
        self._script = parse_script(script, "start")
        self._texts = {"reward": str(reward), "done": str(done)}
        self._info_texts = {name: str(text) for name, text in _named(info).items()}
        self._randomize = randomize
        self._symbols = {} if symbols is None else read_symbols(user_path(symbols))
        super().__init__(
            rom=rom, states=states, state_order=state_order, observation=observation, render_mode=render_mode
        )

    # UserRomEnv ---

    def _find(self, rom: str | Path | None, known_roms: Sequence[KnownRom] | None) -> FoundRom:
        path = user_path(str(rom))
        return as_own_game(path, read_rom(path))

    def _collect_states(self, states: str | Path | None, rom: Path) -> list[StartState]:
        return [] if states is None else super()._collect_states(states, rom)

    def _fits(self, state: StartState) -> bool:
        return state.rom_sha256 == self.known_rom.sha256

    def _check_rom(self, content: bytes) -> None:
        super()._check_rom(content)
        self.colour = self._machine == "colour" or (self._machine == "auto" and needs_colour(content))
        self._map = MemoryMap(content, colour=self.colour, symbols=self._symbols)

    # GameBoyEnv ---

    def _prepare(self) -> None:
        self._reward = self._compile("reward", self._texts["reward"])
        self._done = self._compile("done", self._texts["done"])
        self._shown = {name: self._compile(f"info {name}", text) for name, text in self._info_texts.items()}
        self._expressions = (self._reward, self._done, *self._shown.values())
        self._seed_keys = self._where_to_randomize()
        once, self._each_time = split_script(self._script, self._randomize is not None)
        if self._states:
            super()._prepare()
            self._each_time = [*once, *self._each_time]
            return
        for step in once:
            self._hold(step.keys, step.frames)

    def _begin_episode(self, options: dict[str, Any] | None) -> None:
        for step in self._each_time:
            if step.randomize:
                self._write_seed()
            elif step.most > step.frames:
                self._hold(step.keys, int(self.np_random.integers(step.frames, step.most, endpoint=True)))
            else:
                self._hold(step.keys, step.frames)

    def _begin_rewards(self, memory: Any) -> None:
        for expression in self._expressions:
            expression.begin()

    def _reward_and_done(self, memory: Any) -> tuple[float, bool]:
        for expression in self._expressions:
            expression.sample()
        return float(self._reward.value()), bool(self._done.value())

    def _info(self) -> dict[str, Any]:
        return super()._info() | {name: expression.value() for name, expression in self._shown.items()}

    # Parts ---

    def _compile(self, setting: str, text: str) -> Expression:
        return Expression(setting, text, self._memory, self._map)

    def _hold(self, keys: Keys, frames: int) -> None:
        """Runs so many frames, unseen, with exactly these keys down."""
        if frames > 0:
            self._run_frame(keys, render=False)
        if frames > 1:
            self._emulator.tick(frames - 1, False, False)

    def _where_to_randomize(self) -> list[Key]:
        """The bytes, the lowest first, that the seed goes to."""
        if self._randomize is None:
            if any(step.randomize for step in self._script):
                raise SettingError(f"start: got {RANDOMIZE}, but nothing to write to; expected randomize=u16[ADDRESS]")
            return []
        keys = self._compile("randomize", str(self._randomize)).keys
        writable = self._map.ranges()
        if keys is None or not all(_within(key, writable) for key in keys):
            raise SettingError(
                f"randomize: got {self._randomize}, expected one value in the game's memory, such as u16[0xC00A]"
            )
        return keys

    def _write_seed(self) -> None:
        """Never 0, which the generators of small games do not leave again."""
        number = int(self.np_random.integers(1, 1 << 8 * len(self._seed_keys), dtype=np.int64))
        for key in self._seed_keys:
            self._memory[key] = number & 0xFF
            number >>= 8


def split_script(script: list[Step], randomize: bool) -> tuple[list[Step], list[Step]]:
    """What is run once, and what at each reset: all from the first step that is drawn, and keys held up to there.

    A start state is saved with all keys up, since what is down in it would stay down.
    """
    if randomize and not any(step.randomize for step in script):
        script = [*script, Step(NO_KEYS, 0, 0, randomize=True)]
    split = next((index for index, step in enumerate(script) if step.drawn), len(script))
    while split and script[split - 1].keys:
        split -= 1
    return script[:split], script[split:]


def _is_path(start: str) -> bool:
    return "/" in start or start.endswith((SUFFIX, ".state"))


def _named(info: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(info, Mapping):
        return {str(name): str(text) for name, text in info.items()}
    return parse_named("info", info) if info.strip() else {}


def _within(key: Key, ranges: list[tuple[int | None, int, int]]) -> bool:
    bank, address = (None, key) if isinstance(key, int) else key
    return any(bank == where and first <= address < end for where, first, end in ranges)
