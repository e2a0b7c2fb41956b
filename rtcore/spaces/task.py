"""The task of a run: a few named values that a person or a program may change while it runs.

The first task, which the run begins with, says which names there are and of which kind each is; every later one has the
same. So it is one block of bytes of a size that does not change, at a fixed place in all that it travels with. Pure: no
process, no shared memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np

from rtcore.errors import ConfigError
from rtcore.spaces.arrays import Array
from rtcore.spaces.payload import Block

#: A text is its UTF-8, filled up with 0; a list is so long at most; a task has so many values at most.
TEXT_BYTES, MOST_NUMBERS, MOST_VALUES = 256, 64, 32
#: Of a run that was started without one.
NO_TASK = (
    'task: the run has none; expected one when it starts, as in task={"goal": [0.0, 0.0]} or --task goal=[0,0]: that '
    "one says which values there are"
)
_EXPECTED = (
    f"expected true or false, a number, a text of up to {TEXT_BYTES} bytes, or a list of 1 to {MOST_NUMBERS} numbers"
)
_WHOLE = np.iinfo(np.int64)
_LARGEST = float(np.finfo(np.float32).max)


class TaskSpec:
    """Which values a run's tasks have: true or false, int64, float32, text, or a list of float32.

    Args:
        first: The task that the run begins with.

    Attributes:
        block: The values as arrays: bool, int64 and float32 of shape (), float32 (n,), text uint8 (TEXT_BYTES,).
        first: That task as a block.

    Raises:
        ConfigError: It has other values than a task may have.
    """

    def __init__(self, first: Mapping[str, Any]) -> None:
        if len(first) > MOST_VALUES:
            raise ConfigError(f"task: {len(first)} values; expected {MOST_VALUES} at most")
        self.block = Block.of("task", {name: _kind_of(name, _of_json(value)) for name, value in first.items()})
        self.first = self.pack(first)

    def pack(self, task: Mapping[str, Any]) -> bytes:
        """A task as a block.

        Args:
            task: A value for each name of the first one, of its kind. A whole number may stand for any number.

        Returns:
            The block.

        Raises:
            ConfigError: A name or a kind is another one, or a number too large.
        """
        names = self.block.names
        if not isinstance(task, Mapping):
            raise ConfigError(f"task: got {_short(task)}; expected an object with {', '.join(names)}")
        if unknown := [str(name) for name in task if name not in names]:
            close = get_close_matches(unknown[0], names, n=1)
            meant = f" (did you mean {close[0]!r}?)" if close else ""
            raise ConfigError(
                f"task: the run's has no {unknown[0]!r}{meant}; expected {', '.join(names)}, as in the task that it "
                "began with"
            )
        if missing := [name for name in names if name not in task]:
            raise ConfigError(f"task: {', '.join(missing)} missing; expected a value for each of {', '.join(names)}")
        raw = bytearray(self.block.nbytes)
        for name, array in self.block.views(raw).items():
            _put(name, array, _of_json(task[name]))
        return bytes(raw)

    def unpack(self, raw: bytes) -> dict[str, Any]:
        """The values of a block, as JSON has them; numbers are those of the block, rounded to float32."""
        return {name: plain(array) for name, array in self.block.views(raw).items()}


def task_from_line(line: str) -> Any:
    """What a line of text says as JSON. ConfigError if it is none."""
    try:
        return json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f'task: {_short(line.strip())} is no JSON ({error}); expected an object, as in {{"goal": [0.5, 0.2]}}'
        ) from error


def is_text(array: Array) -> bool:
    """Whether an array of a block is a text: nothing else in it is uint8."""
    return array.dtype == np.uint8


def plain(array: Array) -> Any:
    """One value of a block, as JSON has it."""
    return text_in(array) if is_text(array) else array.tolist()


def text_in(array: Array) -> str:
    """The text of an array of a block."""
    return array.tobytes().rstrip(b"\0").decode(errors="replace")


def as_json(task: Mapping[str, Any]) -> dict[str, Any]:
    """The same with lists and numbers of Python's for those of NumPy."""
    return {name: _of_json(value) for name, value in task.items()}


def _of_json(value: Any) -> Any:
    return value.tolist() if isinstance(value, (np.ndarray, np.generic)) else value


def _kind_of(name: object, value: Any) -> tuple[tuple[int, ...], str]:
    """Shape and dtype. What a value of that kind may be is found when it is packed."""
    if isinstance(value, bool):
        return (), "bool"
    if isinstance(value, int):
        return (), "int64"
    if isinstance(value, float):
        return (), "float32"
    if isinstance(value, str):
        return (TEXT_BYTES,), "uint8"
    if isinstance(value, (list, tuple)) and 1 <= len(value) <= MOST_NUMBERS:
        return (len(value),), "float32"
    raise ConfigError(f"task: {name} is {_short(value)}; {_EXPECTED}")


def _put(name: str, array: Array, value: Any) -> None:
    kind, shape = array.dtype.kind, array.shape
    if is_text(array):
        array[...] = np.frombuffer(_bytes_of(name, value).ljust(TEXT_BYTES, b"\0"), np.uint8)
    elif shape:
        if not isinstance(value, (list, tuple)) or len(value) != shape[0] or not all(map(_is_number, value)):
            raise ConfigError(f"task: {name} is {_short(value)}; expected a list of {shape[0]} numbers")
        array[...] = value
    elif kind == "b":
        if not isinstance(value, bool):
            raise ConfigError(f"task: {name} is {_short(value)}; expected true or false")
        array[...] = value
    elif kind == "i":
        if isinstance(value, bool) or not isinstance(value, int) or not _WHOLE.min <= value <= _WHOLE.max:
            raise ConfigError(f"task: {name} is {_short(value)}; expected a whole number of 64 bits")
        array[...] = value
    else:
        if not _is_number(value):
            raise ConfigError(f"task: {name} is {_short(value)}; expected a number")
        array[...] = value


def _bytes_of(name: str, value: Any) -> bytes:
    try:
        raw = value.encode() if isinstance(value, str) else None
    except UnicodeEncodeError:
        raw = None
    if raw is None or len(raw) > TEXT_BYTES or b"\0" in raw:
        raise ConfigError(f"task: {name} is {_short(value)}; expected a text of up to {TEXT_BYTES} bytes, without 0")
    return raw


def _is_number(value: Any) -> bool:
    """That float32 holds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return -_LARGEST <= value <= _LARGEST and math.isfinite(value)


def _short(value: Any) -> str:
    return f"{value!r:.80}"


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")
