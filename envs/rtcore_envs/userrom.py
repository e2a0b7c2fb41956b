"""Worlds of games whose ROM the user owns: the ROM is found by its hash, episodes begin with start states."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from rtcore_envs.errors import SettingError, StateError
from rtcore_envs.gameboy import GameBoyEnv, Observation
from rtcore_envs.library import KNOWN_ROMS, FoundRom, KnownRom, find_rom, identify, user_path
from rtcore_envs.states import SUFFIX, StartState, read_state, require_rom, state_files, state_folder

StateOrder = Literal["cycle", "sample"]

#: What ``info["state"]`` says of an episode that begins from power-on.
POWER_ON = "power-on"


class UserRomEnv(GameBoyEnv):
    """Base of the worlds of known games.

    Args:
        rom: the ROM file. None looks in ``RTCORE_ROM_DIR`` and ``~/.local/share/rtcore/roms``. Either way the
            file is recognised by its SHA-256, and no other revision will do.
        states: a start state, or a folder of them (subfolders included), of which those for this ROM and this
            world are used. What None means is said by the world.
        state_order: ``"cycle"``: one after the other by name, a reset with a seed begins at seed modulo their
            number; ``"sample"``: drawn by the seed.
        reference_quirks: rewards as the paper's reference code pays them, by accident included.
        observation, render_mode: as in `GameBoyEnv`.
        known_roms: ROM files that are taken for the game, in place of `KNOWN_ROMS`. For tests, which have no
            commercial ROM, and for who knows that a patched copy keeps the addresses.

    ``reset(options={"state": NAME})`` begins with that one: a name from the set, or the path of a file.

    Raises:
        RomError: no ROM, or another one; the message names the hash that is expected.
        StateError: a start state is missing, damaged, or of another ROM.
        SettingError: an unknown setting, or options other than ``state``.
    """

    #: What start states are marked with, and the games that will do, by key, in order of preference.
    world: ClassVar[str] = ""
    games: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        *,
        rom: str | Path | None = None,
        states: str | Path | None = None,
        state_order: StateOrder = "cycle",
        reference_quirks: bool = False,
        observation: Observation = "grey84",
        render_mode: str | None = None,
        known_roms: Sequence[KnownRom] | None = None,
    ) -> None:
        if state_order not in get_args(StateOrder):
            raise SettingError(f"got state_order={state_order!r}, expected one of {get_args(StateOrder)}")
        found = self._find(rom, known_roms)
        self.known_rom = found.known
        self._quirks = reference_quirks
        self._state_order = state_order
        self._position = 0
        self._current: StartState | None = None
        self._states: list[StartState] = []
        self._states = self._collect_states(states, found.path)
        super().__init__(rom=found.path, observation=observation, render_mode=render_mode)

    def _find(self, rom: str | Path | None, known_roms: Sequence[KnownRom] | None) -> FoundRom:
        """The ROM file, and which game it is."""
        registry = KNOWN_ROMS if known_roms is None else known_roms
        wanted = sorted(
            (known for known in registry if known.key in self.games), key=lambda known: self.games.index(known.key)
        )
        if not wanted:
            raise SettingError(f"got known_roms={registry!r}, expected at least one of {self.games}")
        return find_rom(rom, wanted)

    def _fits(self, state: StartState) -> bool:
        """Whether a state of a folder is one for this world."""
        return (state.rom_sha256, state.world) == (self.known_rom.sha256, self.world)

    def _collect_states(self, states: str | Path | None, rom: Path) -> list[StartState]:
        """The set of start states, all checked. The default for None: those in `state_folder`, at least one."""
        folder = state_folder() if states is None else user_path(states)
        if folder.is_file() or folder.name.endswith(SUFFIX):
            state = read_state(folder)
            require_rom(state, self.known_rom.sha256, rom)
            return [state]
        every = [read_state(path) for path in state_files(folder)]
        fitting = [state for state in every if self._fits(state)]
        if fitting:
            return fitting
        others = ", ".join(sorted({f"{state.world} of {state.game}" for state in every}))
        raise StateError(
            folder,
            f"no start state ({len(every)} for {others})" if every else "no start state",
            f"at least one for {self.world} of {self.known_rom.key} (ROM sha256 {self.known_rom.sha256})",
            f"Make one: `rtcore-rom play --world {self.world} --rom {rom}`, and press Z at the right moment.",
        )

    # GameBoyEnv ---

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Starts an episode with the next start state, or with ``options={"state": NAME}``."""
        if seed is not None:
            self._position = seed
        return super().reset(seed=seed, options=options)

    def _check_rom(self, content: bytes) -> None:
        # Read again since it was found: what the emulator gets is what is checked.
        identify(self._rom, content, [self.known_rom])

    def _load_start_state(self, options: dict[str, Any] | None) -> None:
        self._in_episode = False  # until `reset` is through
        self._current = self._choose(options)
        self._load_current()

    def _load_current(self) -> None:
        """Loads the start state of this episode; also for a second try."""
        state = self._current
        if state is None:
            self._load_state(self._start_state)
            return
        try:
            self._load_state(state.unpack())
        except Exception as error:
            self._load_state(self._start_state)  # that one is whole; the other is perhaps half loaded
            raise StateError(
                state.path,
                f"{type(error).__name__} from the emulator: {error}",
                f"a state that this PyBoy can load (it was saved by {state.pyboy})",
                "`rtcore-rom states check` finds all such; make it anew.",
            ) from error

    def _choose(self, options: dict[str, Any] | None) -> StartState | None:
        """The start state of the next episode; None for power-on."""
        if options:
            if set(options) != {"state"} or not isinstance(options["state"], str | Path):
                raise SettingError(f"got options={options!r}, expected None or {{'state': NAME}}")
            return self._named(options["state"])
        if not self._states:
            return None
        if self._state_order == "sample":
            return self._states[int(self.np_random.integers(len(self._states)))]
        state = self._states[self._position % len(self._states)]
        self._position += 1
        return state

    def _named(self, name: str | Path) -> StartState | None:
        for state in self._states:
            if state.name == str(name):
                return state
        if name == POWER_ON and not self._states:
            return None
        path = user_path(name)
        if path.name.endswith(SUFFIX) or len(path.parts) > 1:
            state = read_state(path)
            require_rom(state, self.known_rom.sha256, self._rom)
            return state
        names = [state.name for state in self._states] or [POWER_ON]
        close = difflib.get_close_matches(str(name), names, n=3)
        advice = f"Did you mean {' or '.join(close)}?" if close else "A path works too."
        shown = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        raise StateError(path, "no state of that name", f"one of the {len(names)} of this world ({shown})", advice)

    def _info(self) -> dict[str, Any]:
        return {"state": POWER_ON if self._current is None else self._current.name}

    def _signed(self, address: int) -> int:
        """The byte at an address as -128 to 127."""
        byte = int(self._memory[address])
        return byte - 256 if byte > 127 else byte
