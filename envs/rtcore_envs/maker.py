"""Making start states: by a script of keys, from a state of PyBoy's, or while playing in a window."""

import ctypes
import io
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtcore_envs.errors import RomError
from rtcore_envs.gameboy import start_emulator
from rtcore_envs.keys import Step
from rtcore_envs.library import FoundRom
from rtcore_envs.states import SUFFIX, load_any_state, state_folder, write_state


class StateMaker:
    """A game being played to make start states of it. One thread."""

    def __init__(self, rom: FoundRom, world: str, *, window: str = "null", scale: int = 3) -> None:
        self._rom = rom
        self._world = world
        self._emulator = start_emulator(rom.path, rom.content, window=window, scale=scale)

    def close(self) -> None:
        self._emulator.stop(save=False)

    def load(self, state: Path) -> None:
        """Go on from a start state, or from a state of PyBoy's own, of this ROM."""
        load_any_state(self._emulator, state)

    def press(self, steps: list[Step]) -> None:
        """Run a script of keys, then one frame without any."""
        for step in steps:
            for key in step.keys:
                self._emulator.button_press(key)
            self._emulator.tick(step.frames, False, False)
            for key in step.keys:
                self._emulator.button_release(key)
        self._emulator.tick(1, False, False)

    def save(self, path: Path) -> None:
        """Write this moment. Raises `FileExistsError` or another `OSError`."""
        state = io.BytesIO()
        self._emulator.save_state(state)
        known = self._rom.known
        write_state(
            path,
            state.getvalue(),
            rom_sha256=known.sha256,
            game=known.key,
            world=self._world,
            pyboy=version("pyboy"),
        )

    def play(self, prefix: str, folder: Path | None, say: Callable[[str], None]) -> int:
        """Play in the window until it is closed; returns how many states were saved.

        Arrows, A and S (the buttons A and B), RETURN (START), BACKSPACE (SELECT), SPACE (as fast as it goes), P
        (pause), ESC (end) are PyBoy's own. Z saves a start state ``prefix-1``, ``prefix-2``, ...; X goes back to
        the last one saved.
        """
        saved: list[Path] = []
        self._emulator.set_emulation_speed(1)
        with _KeyWatch() as watch:
            while self._emulator.tick(1, True, False):
                for key in watch.take():
                    if key == "save":
                        path = self.free_path(prefix, folder)
                        self.save(path)
                        saved.append(path)
                        say(f"saved {path}")
                    elif saved:
                        self.load(saved[-1])
                        say(f"back to {saved[-1].name}")
        return len(saved)

    def free_path(self, prefix: str, folder: Path | None) -> Path:
        """The first of ``prefix-1``, ``prefix-2``, ... that is not there yet."""
        where = self.default_folder() if folder is None else folder
        number = 1
        while (path := where / f"{prefix}-{number}{SUFFIX}").exists():
            number += 1
        return path

    def default_folder(self) -> Path:
        """Where states of this game and world go."""
        return state_folder() / self._rom.known.key / self._world


def require_display(rom: Path) -> None:
    """Raises `RomError` where no window can be opened."""
    if not any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")):
        advice = "Log in with a desktop or `ssh -X`, or make the state by script: `rtcore-rom states new --help`."
        raise RomError(rom, "no display to open a window on", "DISPLAY or WAYLAND_DISPLAY", advice)


class _KeyWatch:
    """Sees Z and X as they come into SDL's queue; PyBoy takes them out of it, for state files of its own."""

    def __init__(self) -> None:
        import sdl2  # noqa: PLC0415 - only who plays in a window needs it

        self._sdl: Any = sdl2
        self._seen: list[str] = []
        self._callback = sdl2.SDL_EventFilter(self._look)  # kept: SDL holds no reference

    def __enter__(self) -> "_KeyWatch":
        self._sdl.SDL_AddEventWatch(self._callback, None)
        return self

    def __exit__(self, *_: object) -> None:
        self._sdl.SDL_DelEventWatch(self._callback, None)

    def take(self) -> list[str]:
        """What was pressed since the last call, in order."""
        seen, self._seen = self._seen, []
        return seen

    def _look(self, _: ctypes.c_void_p, event: Any) -> int:
        if event.contents.type == self._sdl.SDL_KEYUP:
            wanted = {self._sdl.SDLK_z: "save", self._sdl.SDLK_x: "back"}.get(event.contents.key.keysym.sym)
            if wanted is not None:
                self._seen.append(wanted)
        return 1
