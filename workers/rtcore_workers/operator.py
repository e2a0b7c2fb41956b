"""The operator process: reads what a person does, and writes that into a slot that the env process looks at each tick.

Owns: the operator's slot. Reads: the ring, for who wants to see. Whoever may step in is asked once a tick, at most
`_MOST_HZ` times a second, and answers with an action, or with None: hands off. Exits: on STOP, or with the fork server.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from rtcore.channel import Channel
from rtcore.clock import NS_PER_S, MonotonicClock
from rtcore.config.factories import import_factory_module
from rtcore.errors import ConfigError, OperatorError, PolicyError
from rtcore.memory.operator import OperatorWriter
from rtcore.memory.shared import Phase, SharedRun
from rtcore.messages import OperatorBoot, Ready
from rtcore.realtime import keep_off
from rtcore.spaces.image import ImageOf, image_in
from rtcore_workers.hands import AXIS_KEYS, HandMap, buttons_down

#: Gets the newest observation, None before the first; returns an action, or None: hands off.
Operate = Callable[[Any], Any]
#: No hand is quicker.
_MOST_HZ = 125
_WINDOW_PIXELS = 480
_STICK_PLAY = 0.12


def main(boot: OperatorBoot, channel: Channel) -> None:
    """Process entry."""
    shared = SharedRun.attach(boot.run_id, boot.layout, boot.observation)
    if boot.run.config.host.env_cpu is not None:
        keep_off(boot.run.config.host.env_cpu)
    operate = make_operator(boot)
    writer = OperatorWriter(shared, boot.number)
    channel.send(Ready())
    every_ns = max(boot.run.period_ns, NS_PER_S // _MOST_HZ)
    ask_until_stopped(boot, shared, operate, writer, every_ns)


def ask_until_stopped(
    boot: OperatorBoot, shared: SharedRun, operate: Operate, writer: OperatorWriter, every_ns: int
) -> None:
    """Ask and write, again and again: what is written anew is also the sign of life."""
    clock, control = MonotonicClock(), shared.run_control
    raw = np.empty(boot.action.shape, boot.action.np_dtype)
    due_ns = clock.now_ns()
    while control["phase"] != Phase.STOP:
        frame = shared.ring.newest_frame()
        action = operate(None if frame is None else boot.observation.unpack(frame))
        if action is not None:
            try:
                boot.action.encode(action, raw)
            except PolicyError as error:
                raise OperatorError(f"operator={boot.run.config.take_over.operator}: {error}, or None") from error
        writer.write(None if action is None else raw.tobytes())
        due_ns = max(due_ns + every_ns, clock.now_ns())
        clock.sleep_until_ns(due_ns)


def make_operator(boot: OperatorBoot) -> Operate:
    """Who is named by the setting. OperatorError, or ConfigError for one that cannot work in this world."""
    name = boot.run.config.take_over.operator or ""
    if name == "keyboard":
        return Keyboard(boot)
    if name == "gamepad":
        return Gamepad(boot)
    module_name, _, attribute = name.partition(":")
    expected = (
        "expected module:function of the action space (or a class), returning what is called with each observation"
    )
    try:
        factory = getattr(import_factory_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"operator={name}: {error}; {expected}") from error
    operate = factory(boot.action.to_space())
    if not callable(operate):
        raise ConfigError(f"operator={name} returned {operate!r:.80}; {expected}")
    made: Operate = operate
    return made


class Keyboard:
    """A window that shows the world, where that can be drawn. TAB takes the controls and gives them back; ESC, and
    closing the window, give them back."""

    def __init__(self, boot: OperatorBoot) -> None:
        self._map = HandMap(boot.action, boot.noop, boot.action_meanings, "keyboard", len(AXIS_KEYS))
        self._view = View(boot)
        self._has_controls = False

    def __call__(self, observation: Any) -> Any:
        window = self._view.window
        window.poll()
        if "tab" in window.pressed:
            self._has_controls = not self._has_controls
        if "escape" in window.pressed or window.is_closed:
            self._has_controls = False
        self._view.show(observation, has_controls=self._has_controls, key="TAB")
        return self._map.of_keys(window.down) if self._has_controls else None


class Gamepad:
    """The first gamepad that SDL knows. START takes the controls and gives them back. A window shows the world, where
    one can be opened."""

    def __init__(self, boot: OperatorBoot) -> None:
        from rtcore_envs.window import has_display, import_sdl  # noqa: PLC0415 - only who steps in needs SDL

        self._sdl = sdl = import_sdl()
        sdl.SDL_SetHint(sdl.SDL_HINT_JOYSTICK_ALLOW_BACKGROUND_EVENTS, b"1")
        self._map = HandMap(boot.action, boot.noop, boot.action_meanings, "gamepad", 5)
        sdl.SDL_InitSubSystem(sdl.SDL_INIT_GAMECONTROLLER)
        found = [index for index in range(sdl.SDL_NumJoysticks()) if sdl.SDL_IsGameController(index)]
        if not found:
            raise OperatorError(
                "operator=gamepad: found none; expected one that SDL knows, which this user may read (/dev/input). "
                "Plug it in before the run, or use --operator keyboard"
            )
        self._pad = sdl.SDL_GameControllerOpen(found[0])
        self._view = View(boot) if has_display() else None
        self._has_controls = self._start_was_down = False

    def __call__(self, observation: Any) -> Any:
        sdl, pad = self._sdl, self._pad
        if self._view is not None:
            self._view.window.poll()
        sdl.SDL_GameControllerUpdate()
        if not sdl.SDL_GameControllerGetAttached(pad):
            raise OperatorError("operator=gamepad: it was unplugged")
        is_down = self._is_down("START")
        if is_down and not self._start_was_down:
            self._has_controls = not self._has_controls
        self._start_was_down = is_down
        if self._view is not None:
            self._view.show(observation, has_controls=self._has_controls, key="START")
        if not self._has_controls:
            return None
        if self._map.uses_axes:
            x, y, x2, y2, left, right = (self._axis(number) for number in range(6))
            return self._map.of_axes([x, -y, x2, -y2, right - left])
        names = {"UP": "DPAD_UP", "DOWN": "DPAD_DOWN", "LEFT": "DPAD_LEFT", "RIGHT": "DPAD_RIGHT"}
        words = {word: self._is_down(names.get(word, word)) for word in (*names, "A", "B")}
        return self._map.of_words(buttons_down(words | {"SELECT": self._is_down("BACK")}))

    def _is_down(self, button: str) -> bool:
        number = getattr(self._sdl, f"SDL_CONTROLLER_BUTTON_{button}")
        return bool(self._sdl.SDL_GameControllerGetButton(self._pad, number))

    def _axis(self, number: int) -> float:
        """From -1 to 1; a stick that is let go is not quite in its middle."""
        value = float(self._sdl.SDL_GameControllerGetAxis(self._pad, number)) / 32767
        return 0.0 if abs(value) < _STICK_PLAY else max(-1.0, value)


class View:
    """What the world shows, in a window; an empty one of a world whose observations are no images."""

    def __init__(self, boot: OperatorBoot) -> None:
        from rtcore_envs.errors import SettingError  # noqa: PLC0415 - as above
        from rtcore_envs.window import Window  # noqa: PLC0415

        self._observation = boot.observation
        self._image: ImageOf | None = image_in(boot.observation)
        height, width = (self._image.height, self._image.width) if self._image is not None else (3, 4)
        scale = max(1, _WINDOW_PIXELS // height)
        self._title = boot.run.config.world.env_id
        try:
            self.window = Window(self._title, width * scale, height * scale)
        except SettingError as error:
            raise OperatorError(
                f"operator={boot.run.config.take_over.operator}: {error}. Without a display use --operator "
                "module:function, or Runtime.take_over()"
            ) from error

    def show(self, observation: Any, *, has_controls: bool, key: str) -> None:
        """The newest observation, and whose the controls are."""
        who = f"YOU have the controls, {key} gives them back" if has_controls else f"{key} takes the controls"
        self.window.set_title(f"{self._title}: {who}")
        if self._image is not None and observation is not None:
            part = observation[self._image.name] if isinstance(observation, dict) else observation
            self.window.show(self._image.of_part(part))
