"""What a person's keys and sticks mean in a world: from what is down to an action. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from rtcore.errors import ConfigError
from rtcore.spaces import ActionSpec

#: Keys of a keyboard by what worlds call them: those of `rtcore-rom play`, and SPACE for FIRE.
KEYS = {
    "left": "LEFT",
    "right": "RIGHT",
    "up": "UP",
    "down": "DOWN",
    "a": "A",
    "s": "B",
    "return": "START",
    "backspace": "SELECT",
    "space": "FIRE",
}
#: Of a Box with a keyboard: the keys that move its elements up and down, in order.
AXIS_KEYS = (("right", "left"), ("up", "down"), ("d", "a"), ("w", "s"), ("e", "q"), ("r", "f"), ("t", "g"), ("y", "h"))
_WORDS = re.compile(r"RIGHT|LEFT|UP|DOWN|FIRE|START|SELECT|A|B")
_OTHERWISE = "give module:function, which makes an action of whatever you have"


class HandMap:
    """The actions of one world, by hand.

    Args:
        action: Of the world.
        noop: What acts where nothing is down, as JSON.
        meanings: What the world calls its actions, by number; []: it does not say.
        device: For messages.
        num_axes: Of the device: so many elements of a Box it moves, the others stay at the no-op's.

    Raises:
        ConfigError: The device has too few keys for such actions.
    """

    def __init__(self, action: ActionSpec, noop: Any, meanings: Sequence[str], device: str, num_axes: int) -> None:
        self._spec = action
        self._noop = np.asarray(noop, action.np_dtype)
        self._num_axes = min(num_axes, action.num_elements)
        self._by_words: dict[frozenset[str], int] = {}
        first, count = (int(action.low[0]), action.num_choices[0]) if action.kind == "discrete" else (0, 0)
        if action.kind == "discrete":
            names = list(meanings) if len(meanings) == count else []
            if not names and count == 2:
                names = ["LEFT", "RIGHT"]
            for number, name in enumerate(names):
                if words := frozenset(_WORDS.findall(name.upper())):
                    self._by_words.setdefault(words, first + number)
            if not self._by_words and (count > 10 or device != "keyboard"):
                raise ConfigError(
                    f"operator={device}: the world does not say what its {count} actions mean "
                    f"(get_action_meanings), so that no key stands for one; {_OTHERWISE}"
                )
        elif action.kind == "multi_discrete" or (action.kind == "multi_binary" and device != "keyboard"):
            raise ConfigError(f"operator={device}: no key stands for an action of {action.to_space()}; {_OTHERWISE}")
        self._digits = range(count if count <= 10 else 0)
        self._first = first

    def of_keys(self, down: Collection[str]) -> Any:
        """Of a keyboard.

        Args:
            down: Names of the keys that are down.

        Returns:
            An action, as the world gets it.
        """
        if self._spec.kind == "box":
            return self.of_axes([(up in down) - (below in down) for up, below in AXIS_KEYS])
        if self._spec.kind == "multi_binary":
            flat = np.zeros(self._spec.num_elements, self._spec.np_dtype)
            for number in range(min(10, len(flat))):
                flat[number] = str(number) in down
            return self._spec.decode(flat.reshape(self._spec.shape))
        digits = [number for number in self._digits if str(number) in down]
        return self._first + digits[0] if digits else self.of_words({KEYS[key] for key in down if key in KEYS})

    def of_words(self, words: Collection[str]) -> Any:
        """Of a discrete world: the action that most of these words mean, and no other.

        Args:
            words: As "LEFT" and "A".

        Returns:
            An action; the no-op if none is meant.
        """
        best = max((named for named in self._by_words if named <= set(words)), key=len, default=None)
        return self._spec.decode(self._noop) if best is None else self._by_words[best]

    def of_axes(self, deflections: Sequence[float]) -> Any:
        """Of a Box.

        Args:
            deflections: From -1 to 1, of its first elements: 0 is the no-op, 1 the largest value.

        Returns:
            An action, (*action_shape,).
        """
        flat = self._noop.ravel().astype(np.float64)
        low, high = (np.broadcast_to(bound, self._spec.shape).ravel() for bound in self._bounds)
        for number, share in enumerate(deflections[: self._num_axes]):
            end = float(high[number] if share > 0 else low[number])
            end = end if math.isfinite(end) else math.copysign(1.0, share)
            flat[number] += abs(share) * (end - flat[number])
        if self._spec.np_dtype.kind in "iu":
            flat = np.rint(flat)
        return self._spec.decode(flat.astype(self._spec.np_dtype).reshape(self._spec.shape))

    @property
    def _bounds(self) -> tuple[Any, Any]:
        return self._spec.low_array, self._spec.high_array

    @property
    def uses_axes(self) -> bool:
        """Its actions are a Box's."""
        return self._spec.kind == "box"


def buttons_down(pressed: Mapping[str, bool]) -> set[str]:
    """The words of a gamepad's buttons that are down: its A is also FIRE."""
    down = {word for word, is_down in pressed.items() if is_down}
    return down | ({"FIRE"} if "A" in down else set())
