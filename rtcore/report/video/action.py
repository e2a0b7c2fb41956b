"""An action as a lit pad, as cells or as bars: what was applied, seen at a glance. Keeps nothing of what it draws."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import ImageDraw

from rtcore.report.video.picture import DIM, TEXT, UNLIT, cut, font, quantity, shares_of
from rtcore.spaces import ActionSpec

#: Room for an action: width and height.
WIDTH, HEIGHT = 264, 112
_DIRECTIONS = {"UP": (0, -1), "DOWN": (0, 1), "LEFT": (-1, 0), "RIGHT": (1, 0)}
_NAMES = re.compile(r"UP|DOWN|LEFT|RIGHT|FIRE|START|SELECT|A|B")
_MAX_CELLS = 72
_MAX_BARS = WIDTH // 2

Action = npt.NDArray[Any]


class ActionView(Protocol):
    """How actions of one space are drawn at (x, y). `action` None: none was applied; `colour`: of what was."""

    def draw(self, pen: ImageDraw.ImageDraw, x: int, y: int, action: Action | None, colour: str) -> None: ...


def view_of(spec: ActionSpec, meanings: Sequence[str] = ()) -> ActionView:
    """A pad where all actions are named after its buttons; else cells for choices, bars for numbers."""
    buttons = [buttons_of(meaning) for meaning in meanings]
    if buttons and None not in buttons:
        return Pad(spec, [pressed for pressed in buttons if pressed is not None])
    if spec.kind == "multi_binary" or (spec.kind == "discrete" and spec.num_choices[0] <= _MAX_CELLS):
        return Cells(spec)
    return Bars(spec)


def name_of(spec: ActionSpec, action: Action, meanings: Sequence[str] = ()) -> str:
    """The action in a few characters; "" where its numbers are drawn anyway."""
    if spec.kind == "discrete":
        index = int(action) - int(spec.low[0])
        return meanings[index] if len(meanings) == spec.num_choices[0] else f"action {int(action)}"
    if spec.kind == "multi_binary":
        return " ".join(str(int(index)) for index in np.flatnonzero(action)) or "none"
    return ", ".join(quantity(float(value)) for value in action.ravel()) if action.size <= 3 else ""


def buttons_of(meaning: str) -> frozenset[str] | None:
    """The buttons that a name stands for ("UPRIGHTFIRE", "A", "NOOP"); None if it is made of other words."""
    name = re.sub(r"[\s_+-]", "", meaning.upper())
    if name in ("NOOP", "NONE", ""):
        return frozenset()
    return frozenset(_NAMES.findall(name)) if re.fullmatch(f"({_NAMES.pattern})+", name) else None


class Pad:
    """A cross for directions, circles for the other buttons that there are."""

    def __init__(self, spec: ActionSpec, buttons: Sequence[frozenset[str]]) -> None:
        """`buttons`: those of each action."""
        self._first = int(spec.low[0])
        self._buttons = buttons
        every = frozenset[str]().union(*buttons)
        self._round = sorted(every - set(_DIRECTIONS), reverse=True)

    def draw(self, pen: ImageDraw.ImageDraw, x: int, y: int, action: Action | None, colour: str) -> None:
        pressed = self._buttons[int(action) - self._first] if action is not None else frozenset()
        size = HEIGHT // 3 - 4
        centre_x, centre_y = x + HEIGHT // 2, y + HEIGHT // 2
        pen.rectangle(_square(centre_x, centre_y, size), UNLIT)
        for name, (right, down) in _DIRECTIONS.items():
            fill = colour if name in pressed else UNLIT
            pen.rectangle(_square(centre_x + right * size, centre_y + down * size, size), fill)
        for index, name in enumerate(self._round):
            at = x + HEIGHT + 32 + index * (size + 12)
            is_lit = name in pressed
            pen.ellipse(_square(at, centre_y, size + 2), colour if is_lit else UNLIT)
            pen.text((at, centre_y), name[:5], TEXT if is_lit else DIM, font(14 if len(name) < 3 else 10), anchor="mm")


class Cells:
    """A cell for each choice of a discrete action, or each switch of a binary one."""

    def __init__(self, spec: ActionSpec) -> None:
        self._spec = spec
        self._count = min(_MAX_CELLS, spec.num_choices[0] if spec.num_choices else spec.num_elements)
        columns = self._count if self._count <= 9 else math.ceil(math.sqrt(self._count * WIDTH / HEIGHT))
        rows = -(-self._count // columns)
        self._columns, self._pitch = columns, min(28, WIDTH // columns, HEIGHT // rows)

    def draw(self, pen: ImageDraw.ImageDraw, x: int, y: int, action: Action | None, colour: str) -> None:
        lit = self._lit(action)
        for index in range(self._count):
            row, column = divmod(index, self._columns)
            left, top = x + column * self._pitch, y + row * self._pitch
            fill = colour if index in lit else UNLIT
            pen.rectangle((left, top, left + self._pitch - 4, top + self._pitch - 4), fill)

    def _lit(self, action: Action | None) -> set[int]:
        if action is None:
            return set()
        if self._spec.kind == "discrete":
            return {int(action) - int(self._spec.low[0])}
        return set(np.flatnonzero(action).tolist())


class Bars:
    """A column for each element, between its bounds, from 0 where 0 is among them."""

    def __init__(self, spec: ActionSpec) -> None:
        low, high = (bounds.ravel().astype(np.float64)[:_MAX_BARS] for bounds in (spec.low_array, spec.high_array))
        # Where nothing bounds an element, what is drawn ends at 1 and -1; its number does not.
        self._low, self._high = np.where(np.isfinite(low), low, -1.0), np.where(np.isfinite(high), high, 1.0)
        self._pitch = min(40, WIDTH // len(low))
        self._hidden = spec.num_elements - len(low)

    def draw(self, pen: ImageDraw.ImageDraw, x: int, y: int, action: Action | None, colour: str) -> None:
        if self._hidden:
            pen.text((x, y + HEIGHT), cut(f"and {self._hidden} elements more", 31), DIM, font(10), anchor="ls")
        height = HEIGHT - 12
        zero = value = shares_of(np.clip(0.0, self._low, self._high), self._low, self._high)
        if action is not None:
            value = shares_of(action.ravel()[: len(zero)].astype(np.float64), self._low, self._high)
        for index, (start, end) in enumerate(zip(zero.tolist(), value.tolist(), strict=True)):
            left, width = x + index * self._pitch, max(0, self._pitch - 4)
            pen.rectangle((left, y, left + width, y + height), UNLIT)
            if action is not None:
                lower, upper = (y + height - round(at * height) for at in sorted((start, end)))
                pen.rectangle((left, upper, left + width, lower), colour)


def _square(x: int, y: int, size: int) -> tuple[float, float, float, float]:
    """Around a centre."""
    return x - size / 2, y - size / 2, x + size / 2, y + size / 2
