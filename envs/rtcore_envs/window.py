"""A window that shows images and tells which keys are down: for playing a game by hand, and for stepping into a run."""

import ctypes
import os
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rtcore_envs.errors import SettingError

_WHERE = "DISPLAY or WAYLAND_DISPLAY: log in with a desktop, or with `ssh -X` (SDL_VIDEODRIVER=dummy shows nothing)"


def has_display() -> bool:
    """Whether a window can be opened, by the environment."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"))


def import_sdl() -> Any:
    """SDL2, as it comes with PyBoy: 30 ms, which only who opens a window or reads a gamepad pays."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pysdl2 announces its binaries as a UserWarning
        import sdl2  # noqa: PLC0415
    return sdl2


class Window:
    """One window of this process, used by one thread. A context: closed at its end.

    Raises:
        SettingError: No window can be opened here.
    """

    def __init__(self, title: str, width: int, height: int) -> None:
        self._sdl = sdl = import_sdl()
        if not has_display() or sdl.SDL_InitSubSystem(sdl.SDL_INIT_VIDEO) != 0:
            why = sdl.SDL_GetError().decode() or "no display"
            raise SettingError(f"window: got no place for one ({why}), expected {_WHERE}")
        flags = sdl.SDL_WINDOW_SHOWN | sdl.SDL_WINDOW_RESIZABLE
        centred = sdl.SDL_WINDOWPOS_CENTERED
        self._window = sdl.SDL_CreateWindow(title.encode(), centred, centred, width, height, flags)
        self._renderer = sdl.SDL_CreateRenderer(self._window, -1, 0)
        if not self._window or not self._renderer:
            raise SettingError(f"window: got none ({sdl.SDL_GetError().decode()}), expected {_WHERE}")
        self._texture: Any = None
        self._due = 0
        self._shape: tuple[int, ...] = ()
        self._title = title
        #: Names of the keys that are down, in lower case: "left", "a", "space".
        self.down: set[str] = set()
        #: Since the last `poll`: keys that were pressed, and released, in order.
        self.pressed: list[str] = []
        self.released: list[str] = []
        #: It was closed by its user.
        self.is_closed = False

    def __enter__(self) -> "Window":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def poll(self) -> None:
        """Take in what its user did since the last call. Returns at once."""
        sdl, event = self._sdl, self._sdl.SDL_Event()
        self.pressed, self.released = [], []
        while sdl.SDL_PollEvent(ctypes.byref(event)):
            if event.type == sdl.SDL_QUIT:
                self.is_closed = True
            elif event.type in (sdl.SDL_KEYDOWN, sdl.SDL_KEYUP):
                key = sdl.SDL_GetKeyName(event.key.keysym.sym).decode().lower()
                if event.type == sdl.SDL_KEYUP:
                    self.down.discard(key)
                    self.released.append(key)
                elif not event.key.repeat:
                    self.down.add(key)
                    self.pressed.append(key)
            elif event.type == sdl.SDL_WINDOWEVENT and event.window.event == sdl.SDL_WINDOWEVENT_FOCUS_LOST:
                self.down.clear()  # their release goes to another window

    def show(self, image: NDArray[np.uint8]) -> None:
        """An image, (height, width, 1 or 3), as large as the window."""
        sdl = self._sdl
        if image.shape[:2] != self._shape:
            if self._texture is not None:
                sdl.SDL_DestroyTexture(self._texture)
            self._shape = image.shape[:2]
            rows, columns = self._shape
            kind, access = sdl.SDL_PIXELFORMAT_RGB24, sdl.SDL_TEXTUREACCESS_STREAMING
            self._texture = sdl.SDL_CreateTexture(self._renderer, kind, access, columns, rows)
        pixels = np.ascontiguousarray(np.broadcast_to(image, (*self._shape, 3)))
        sdl.SDL_UpdateTexture(self._texture, None, pixels.ctypes.data_as(ctypes.c_void_p), 3 * self._shape[1])
        sdl.SDL_RenderCopy(self._renderer, self._texture, None, None)
        sdl.SDL_RenderPresent(self._renderer)

    def wait_for_next(self, rate_hz: float) -> None:
        """Until the next of so many images a second is due; who is late goes on from there."""
        sdl = self._sdl
        now, per_s = sdl.SDL_GetPerformanceCounter(), sdl.SDL_GetPerformanceFrequency()
        self._due = max(self._due + round(per_s / rate_hz), now)
        sdl.SDL_Delay(round(1000 * (self._due - now) / per_s))

    def set_title(self, title: str) -> None:
        if title != self._title:
            self._title = title
            self._sdl.SDL_SetWindowTitle(self._window, title.encode())

    def close(self) -> None:
        """Nothing of it stays. Once."""
        self._sdl.SDL_DestroyRenderer(self._renderer)
        self._sdl.SDL_DestroyWindow(self._window)
        self._sdl.SDL_QuitSubSystem(self._sdl.SDL_INIT_VIDEO)
