"""Making start states: by a script of keys, from a state of PyBoy's, or while playing in a window."""

import io
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rtcore_envs.errors import RomError, StateError
from rtcore_envs.gameboy import FRAME_RATE_HZ, SCREEN_SHAPE, start_emulator
from rtcore_envs.keys import KEYS, NO_KEYS, WINDOW_KEYS, Keys, Step
from rtcore_envs.library import FoundRom
from rtcore_envs.memorymap import MemoryMap
from rtcore_envs.rom import needs_colour
from rtcore_envs.states import (
    SUFFIX,
    is_start_state,
    load_any_state,
    read_state,
    require_rom,
    state_folder,
    write_state,
)
from rtcore_envs.trial import try_rom
from rtcore_envs.window import Window, has_display

#: An emulated frame that takes longer is taken for one that never ends.
HANG_LIMIT_S = 20
#: Ticks of the emulator without coming back to Python; some 20 ms.
_FRAMES_AT_ONCE = 600


class StateMaker:
    """A game being played outside of a world: to make start states of it, to watch its memory. One thread.

    From power-on, or from the state ``source``. The machine is the colour one for a cartridge that needs it, as in the
    worlds. A context: closed at its end.
    """

    def __init__(self, rom: FoundRom, world: str, source: Path | None = None) -> None:
        if source is not None:
            _require_source(source, rom)
        self._rom = rom
        self._world = world
        colour = needs_colour(rom.content)
        self._emulator = start_emulator(rom.path, rom.content, colour=colour)
        #: PyBoy's memory, and which places there are in it.
        self.memory: Any = self._emulator.memory
        self.memory_map = MemoryMap(rom.content, colour=colour)
        if source is not None:
            self.load(source)

    def __enter__(self) -> "StateMaker":
        return self

    def __exit__(self, *_: object) -> None:
        self._emulator.stop(save=False)

    def go_to(self, state: Path) -> None:
        """Go on from there, as `load` does. Raises `StateError` for one that is not of this ROM, or hangs."""
        _require_source(state, self._rom)
        self.load(state)

    def load(self, state: Path) -> None:
        """Go on from a start state, or from a state of PyBoy's own, of this ROM; with all keys up."""
        load_any_state(self._emulator, state)
        for key in KEYS:
            self._emulator.button_release(key)

    def press(self, steps: list[Step], after_frame: Callable[[Keys], None] | None = None) -> None:
        """Run a script of keys, then one frame without any; `after_frame` is called with what was down in each."""
        for step in steps:
            for key in step.keys:
                self._emulator.button_press(key)
            self._run(step.frames, step.keys, after_frame)
            for key in step.keys:
                self._emulator.button_release(key)
        self._run(1, NO_KEYS, after_frame)

    def _run(self, frames: int, keys: Keys, after_frame: Callable[[Keys], None] | None) -> None:
        with HangGuard(self._rom.path) as guard:
            while frames > 0:
                frames_now = 1 if after_frame is not None else min(frames, _FRAMES_AT_ONCE)
                frames -= frames_now
                self._emulator.tick(frames_now, frames == 0, False)  # the last one drawn, for `save_picture`
                guard.alive()
                if after_frame is not None:
                    after_frame(keys)

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

    def save_picture(self, path: Path) -> None:
        """Write the screen as it is now, as PNG. Raises `OSError`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._emulator.screen.image.convert("RGB").save(path, format="PNG")

    def play(
        self,
        prefix: str,
        folder: Path | None,
        show: Callable[[str], None],
        after_frame: Callable[[], None] = lambda: None,
        *,
        scale: int = 3,
    ) -> int:
        """Play in a window, ``scale`` pixels for each of the game's, until it is closed; returns how many states were
        saved.

        Arrows, A and S (the buttons A and B), RETURN (START), BACKSPACE (SELECT), SPACE (as fast as it goes), P
        (pause), ESC (end). Z saves a start state ``prefix-1``, ``prefix-2``, ...; X goes back to the last one saved.
        """
        saved: list[Path] = []
        rows, columns = SCREEN_SHAPE
        title = self._rom.known.name
        with (
            Window(title, columns * scale, rows * scale) as window,
            HangGuard(self._rom.path) as guard,
            _signals_between_frames() as take_signals,
        ):
            is_paused = False
            while not window.is_closed and "escape" not in window.released:
                take_signals()
                window.poll()
                for key, button in WINDOW_KEYS.items():
                    if key in window.pressed:
                        self._emulator.button_press(button)
                    if key in window.released:
                        self._emulator.button_release(button)
                is_paused ^= "p" in window.released
                if not is_paused:
                    self._emulator.tick(1, True, False)
                    after_frame()
                guard.alive()
                window.show(self._emulator.screen.ndarray[..., :3])
                for key in window.released:
                    if key == "z":
                        path = self.free_path(prefix, folder)
                        self.save(path)
                        saved.append(path)
                        show(f"saved {path}")
                    elif key == "x" and saved:
                        self.load(saved[-1])
                        show(f"back to {saved[-1].name}")
                if is_paused or "space" not in window.down:
                    window.wait_for_next(float(FRAME_RATE_HZ))
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


def _require_source(source: Path, rom: FoundRom) -> None:
    if is_start_state(source):
        require_rom(read_state(source), rom.known.sha256, rom.path)
    failure = try_rom(rom.path, state=source)
    if failure is not None:
        advice = "It is damaged, or of another ROM."
        raise StateError(source, f"a state that does not run ({failure})", f"one of {rom.path}", advice)


class HangGuard:
    """Ends this process if the emulator does not come back: in C, neither Ctrl-C nor an exception gets through to it.

    It counts its own turns, not the time: a process that was stopped as a whole has taken none.
    """

    def __init__(self, rom: Path) -> None:
        self._rom, self._limit_s = rom, HANG_LIMIT_S
        self._over = threading.Event()
        self._turns = 0
        self._thread = threading.Thread(target=self._watch, name="hang-guard", daemon=True)

    def alive(self) -> None:
        """A frame has been run."""
        self._turns = 0

    def __enter__(self) -> "HangGuard":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self._turns += 1
            if self._turns >= self._limit_s:
                error = RomError(
                    self._rom,
                    f"no frame within {self._limit_s} s",
                    "a game that runs",
                    "An illegal instruction, of a damaged file or state, stops the emulator for ever.",
                )
                print(f"RomError: {error}", file=sys.stderr, flush=True)
                os._exit(1)


def require_display(rom: Path) -> None:
    """Raises `RomError` where no window can be opened."""
    if not has_display():
        advice = "Log in with a desktop or `ssh -X`, or make the state by script: `rtcore-rom states new --help`."
        raise RomError(rom, "no display to open a window on", "DISPLAY or WAYLAND_DISPLAY", advice)


@contextmanager
def _signals_between_frames() -> Iterator[Callable[[], None]]:
    """Signals wait until the function that it yields is called: PyBoy drops what their handlers raise within it."""
    waiting: list[tuple[int, Any]] = []
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, lambda *what: waiting.append(what)) for number in numbers}

    def take() -> None:
        while waiting:
            number, frame = waiting.pop(0)
            handler = before[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            elif handler == signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
                signal.raise_signal(number)

    try:
        yield take
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
