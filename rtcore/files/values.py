"""Values of settings on their way into other processes, JSON and TOML, and back: what arrives is what was given.

JSON has no infinities, tuples, sets, paths or bytes. They become an object of one tag:

    inf             {"$float": "inf"}
    (1, 2)          {"$tuple": [1, 2]}
    {1, 2}          {"$set": [1, 2]}
    Path("a")       {"$path": "a"}
    b"a"            {"$bytes": "YQ=="}
    {3: "a"}        {"$dict": [[3, "a"]]}     keys that are no text, or text that begins with $

NumPy's numbers become Python's. Whatever else a value is (an array, a class, an object) is refused by name.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

_DEEPEST = 32
_LONGEST_INT_BITS = 4096


@runtime_checkable
class _NumPyScalar(Protocol):
    """A number of NumPy's: whoever has one has imported it, which is not done for this."""

    shape: tuple[int, ...]

    def item(self) -> Any: ...


def plain(value: Any, name: str, depth: int = 0) -> Any:
    """`value` as it can be handed on, equal to what was given.

    Args:
        value: What a user said.
        name: What it is called, for the error.
        depth: How far inside a value of the user's it is.

    Raises:
        ValueError: It holds something that another process cannot get.
    """
    if depth > _DEEPEST:
        raise ValueError(f"{name} is nested more than {_DEEPEST} deep")
    if type(value).__module__ == "numpy" and isinstance(value, _NumPyScalar) and value.shape == ():
        value = value.item()
    if isinstance(value, int) and value.bit_length() > _LONGEST_INT_BITS:
        raise ValueError(f"{name} is a number of {value.bit_length()} bits; expected at most {_LONGEST_INT_BITS}")
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, PurePath):
        return Path(value)
    if type(value) in (list, tuple, set, frozenset):
        return type(value)(plain(item, f"{name}[{index}]", depth + 1) for index, item in enumerate(value))
    if isinstance(value, dict):
        return {
            plain(key, f"a key of {name}", depth + 1): plain(item, f"{name}[{key!r}]", depth + 1)
            for key, item in value.items()
        }
    raise ValueError(
        f"{name} is a {type(value).__module__}.{type(value).__qualname__}, which cannot be handed to another process; "
        "expected numbers, text, paths, None, or lists, tuples, sets and dicts of them. Let the factory (module:name) "
        "make it from such"
    )


def to_json(value: Any) -> Any:
    """What `plain` gave, as JSON holds it."""
    match value:
        case float() if not math.isfinite(value):
            return {"$float": str(value)}
        case Path():
            return {"$path": str(value)}
        case bytes():
            return {"$bytes": base64.b64encode(value).decode()}
        case tuple():
            return {"$tuple": [to_json(item) for item in value]}
        case set() | frozenset():
            return {"$set": [to_json(item) for item in value]}
        case list():
            return [to_json(item) for item in value]
        case dict():
            if all(_is_plain_key(key) for key in value):
                return {key: to_json(item) for key, item in value.items()}
            return {"$dict": [[to_json(key), to_json(item)] for key, item in value.items()]}
    return value


def from_json(value: Any) -> Any:
    """Inverse of `to_json`. ValueError for a tag that it does not write."""
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1 and (tag := next(iter(value))).startswith("$"):
        if tag not in _READERS:
            raise ValueError(f"unknown tag {tag!r}; expected one of {', '.join(_READERS)}")
        try:
            return _READERS[tag](value[tag])
        except (TypeError, ValueError) as error:
            raise ValueError(f"{tag} of {value[tag]!r:.80} cannot be read: {error}") from error
    return {key: from_json(item) for key, item in value.items()}


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("expected a list")
    return [from_json(item) for item in value]


_READERS: dict[str, Callable[[Any], Any]] = {
    "$none": lambda _: None,
    "$float": float,
    "$path": Path,
    "$bytes": lambda text: base64.b64decode(text, validate=True),
    "$tuple": lambda items: tuple(_items(items)),
    "$set": lambda items: set(_items(items)),
    "$dict": lambda items: dict(_items(items)),
}


def to_toml(value: Any) -> str:
    """What `plain` gave, as the right side of a line of TOML. `from_json` of what is read back is the value again.

    TOML has infinities, but no null: None within a table is {"$none" = true}.
    """
    match value:
        case float():
            return repr(value)
        case list():
            return f"[{', '.join(to_toml(item) for item in value)}]"
        case dict() if all(_is_plain_key(key) for key in value):
            return _table({key: to_toml(item) for key, item in value.items()})
    return _json_as_toml(to_json(value))


def _json_as_toml(value: Any) -> str:
    match value:
        case None:
            return '{ "$none" = true }'
        case str():
            # JSON escapes what TOML does, but for DEL; its \ud83d\ude00 is none of TOML's.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case list():
            return f"[{', '.join(_json_as_toml(item) for item in value)}]"
        case dict():
            return _table({key: _json_as_toml(item) for key, item in value.items()})
    return json.dumps(value)


def _table(items: dict[str, str]) -> str:
    inner = ", ".join(f"{_json_as_toml(key)} = {item}" for key, item in items.items())
    return f"{{ {inner} }}" if inner else "{}"


def _is_plain_key(key: Any) -> bool:
    return isinstance(key, str) and not key.startswith("$")
