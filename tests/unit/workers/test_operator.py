"""What a person's keys mean in a world, and the window in which they are pressed."""

import ctypes
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest

from rtcore.errors import ConfigError, OperatorError
from rtcore.spaces import ActionSpec, ObservationSpec
from rtcore_workers.hands import HandMap, buttons_down
from rtcore_workers.operator import Keyboard, make_operator

pytestmark = pytest.mark.unit
BOX = ActionSpec.from_space(gymnasium.spaces.Box(np.float32([-2, 0, -np.inf]), np.float32([2, 1, np.inf])))


def discrete(count: int, start: int = 0) -> ActionSpec:
    return ActionSpec.from_space(gymnasium.spaces.Discrete(count, start=start))


@pytest.mark.parametrize(
    ("down", "action"),
    [
        ({"a"}, 0),
        ({"left"}, 2),
        ({"left", "a"}, 3),
        ({"a", "up", "left"}, 3),
        (set(), 5),
        ({"up"}, 5),
        ({"4"}, 4),
    ],
)
def test_keys_are_the_action_that_most_of_them_mean(down: set[str], action: int) -> None:
    keys = HandMap(discrete(6), 5, ["A", "B", "LEFT", "A+LEFT", "DOWN", "NOOP"], "keyboard", 8)
    assert keys.of_keys(down) == action


def test_atari_names_and_two_sides() -> None:
    keys = HandMap(discrete(4), 0, ["NOOP", "FIRE", "UPRIGHT", "UPRIGHTFIRE"], "gamepad", 5)
    assert keys.of_words({"UP", "RIGHT"}) == 2
    assert keys.of_words(buttons_down({"A": True, "UP": True, "RIGHT": True, "LEFT": False})) == 3
    sides = HandMap(discrete(2, start=5), 5, [], "keyboard", 8)
    assert [sides.of_keys({"left"}), sides.of_keys({"right"}), sides.of_keys({"1"})] == [5, 6, 6]


def test_axes_go_from_the_no_op_to_the_bounds() -> None:
    keys = HandMap(BOX, [0.0, 0.5, 0.0], [], "keyboard", 8)
    assert keys.of_keys(set()).tolist() == [0.0, 0.5, 0.0]
    assert keys.of_keys({"right", "down", "d"}).tolist() == [2.0, 0.0, 1.0]
    assert keys.of_keys({"left", "right"}).tolist() == [0.0, 0.5, 0.0]
    assert keys.of_axes([-0.5, 0.5, -0.25]).tolist() == [-1.0, 0.75, -0.25]
    assert HandMap(BOX, [0.0, 0.5, 0.0], [], "gamepad", 1).of_axes([1.0, 1.0]).tolist() == [2.0, 0.5, 0.0]


def test_switches_are_digits() -> None:
    switches = HandMap(ActionSpec.from_space(gymnasium.spaces.MultiBinary(3)), [0, 0, 0], [], "keyboard", 8)
    assert switches.of_keys({"0", "2"}).tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("spec", "device"),
    [
        (discrete(11), "keyboard"),
        (discrete(3), "gamepad"),
        (ActionSpec.from_space(gymnasium.spaces.MultiDiscrete([2, 3])), "keyboard"),
        (ActionSpec.from_space(gymnasium.spaces.MultiBinary(2)), "gamepad"),
    ],
)
def test_actions_that_no_key_stands_for_are_refused_with_what_to_do(spec: ActionSpec, device: str) -> None:
    with pytest.raises(ConfigError, match=f"operator={device}: .* give module:function"):
        HandMap(spec, spec.low_array, [], device, 8)


def boot(operator: str, **fields: Any) -> Any:
    config = SimpleNamespace(
        take_over=SimpleNamespace(operator=operator), world=SimpleNamespace(env_id="rtcore/Catch-v0")
    )
    observation = ObservationSpec.from_space(gymnasium.spaces.Box(0, 255, (84, 84), np.uint8))
    plain = {"action": discrete(2), "noop": 0, "action_meanings": [], "observation": observation}
    return SimpleNamespace(run=SimpleNamespace(config=config), **plain | fields)


def test_tab_takes_the_controls_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    person, image = Keyboard(boot("keyboard")), np.zeros((84, 84), np.uint8)
    sdl = person._view.window._sdl

    def press(key: int, kind: int) -> Any:
        event = sdl.SDL_Event()
        event.type, event.key.keysym.sym = kind, key
        sdl.SDL_PushEvent(ctypes.byref(event))
        return person(image)

    try:
        assert person(None) is None
        assert press(sdl.SDLK_RIGHT, sdl.SDL_KEYDOWN) is None
        assert press(sdl.SDLK_TAB, sdl.SDL_KEYDOWN) == 1
        assert press(sdl.SDLK_TAB, sdl.SDL_KEYUP) == 1
        assert press(sdl.SDLK_RIGHT, sdl.SDL_KEYUP) == 0
        assert person._view.window._title.endswith("YOU have the controls, TAB gives them back")
        assert press(sdl.SDLK_ESCAPE, sdl.SDL_KEYDOWN) is None
    finally:
        person._view.window.close()


def test_a_machine_without_a_gamepad_and_a_name_that_is_none_say_what_is_expected() -> None:
    with pytest.raises(OperatorError, match="gamepad: found none; expected one that SDL knows"):
        make_operator(boot("gamepad", action_meanings=["LEFT", "RIGHT"]))
    with pytest.raises(ConfigError, match="operator=nowhere:x: No module named 'nowhere'; expected module:function"):
        make_operator(boot("nowhere:x"))
    with pytest.raises(ConfigError, match="returned .*; expected module:function"):
        make_operator(boot("builtins:str"))
