"""A Dict observation into its frame, every tick, checked part by part."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from gymnasium import spaces

from rtcore.errors import EnvironmentFailed
from rtcore.spaces.arrays import Array
from rtcore.spaces.observation import ObservationSpec, broken_promise, unmasked
from rtcore.spaces.parts import Part

#: Accepted as an array: a part of shape () may also be a NumPy scalar.
_ARRAYS = (np.ndarray, np.generic)


class _Target(NamedTuple):
    """Where a key of the observation goes. `shape`, `dtype`: of `part`, for speed. `target`: its place in the frame."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    target: Array
    part: Part


class _Group(NamedTuple):
    """One Dict: its Boxes, and the Dicts in it. `name`: "" for the outermost."""

    name: str
    num_keys: int
    places: list[_Target]
    groups: list[tuple[str, _Group]]


class FramePacker:
    """Packs the observations of one world into one frame, which is written over each time.

    `frame`: uint8 of shape (num_bytes,), valid until the next `pack`.
    """

    def __init__(self, spec: ObservationSpec, space: spaces.Dict) -> None:
        """`spec`: what `ObservationSpec.from_space` made of `space`."""
        self.frame: Array = np.zeros(spec.shape, spec.np_dtype)
        self._targets: dict[str, Array] = spec.unpack(self.frame)
        self._parts = {part.name: part for part in spec.parts}
        self._root = self._group(space, ())

    def pack(self, observation: object) -> Array:
        """The frame of an observation. EnvironmentFailed, with the part's name, unless it is what the space promises.

        Called every tick: it compares attributes and copies; it allocates nothing that it keeps.
        """
        self._fill(observation, self._root)
        return self.frame

    def _group(self, space: spaces.Dict, path: tuple[str, ...]) -> _Group:
        group = _Group("/".join(path), len(space.spaces), [], [])
        for key, inner in space.spaces.items():
            if isinstance(inner, spaces.Dict):
                group.groups.append((key, self._group(inner, (*path, key))))
            else:
                part = self._parts["/".join((*path, key))]
                group.places.append(_Target(key, part.shape, part.np_dtype, self._targets[part.name], part))
        return group

    def _fill(self, observation: object, group: _Group) -> None:
        if not isinstance(observation, dict) or len(observation) != group.num_keys:
            raise _other_keys(observation, group)
        for key, shape, dtype, target, part in group.places:
            value = observation.get(key)
            if isinstance(value, _ARRAYS) and value.shape == shape and value.dtype == dtype:
                target[...] = (
                    value if type(value) is not np.ma.MaskedArray else unmasked(value, f"as part {part.name!r} ")
                )
            elif key not in observation:
                raise _other_keys(observation, group)
            else:
                raise broken_promise(f"returned, as part {part.name!r},", value, part)
        for key, inner in group.groups:
            if key not in observation:
                raise _other_keys(observation, group)
            self._fill(observation[key], inner)


def _other_keys(got: object, group: _Group) -> EnvironmentFailed:
    """The error for an observation that is no dict, or one with other keys than the space."""
    keys = [place.key for place in group.places] + [key for key, _ in group.groups]
    which = f"as part {group.name!r}, " if group.name else ""
    if isinstance(got, dict):
        differences = {"lacks": [key for key in keys if key not in got], "has": [key for key in got if key not in keys]}
        listed = (f"{does} {', '.join(map(repr, names))}" for does, names in differences.items() if names)
        text = f"a dict that {' and '.join(listed)}"
    else:
        text = f"{type(got).__name__} {got!r:.60}"
    return EnvironmentFailed(
        f"the world returned {which}{text}; its observation space promises a dict of "
        f"{', '.join(map(repr, keys))}. Make the environment (or its last wrapper) return what it declares"
    )
