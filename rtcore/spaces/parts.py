"""The parts of a Dict observation, and where each lies in the frame: one array of bytes.

A frame stays one array in the ring. Each part begins at a multiple of 8 bytes, in the order of the space; the bytes
between two parts, and after the last up to a multiple of 8, are 0. So a part is a view of any frame, also in a batch.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from gymnasium import spaces

from rtcore.errors import ConfigError
from rtcore.spaces.arrays import ArraySpec, JsonDict, fields_from_json, packed_bounds, require_plain_numbers

#: Every part begins at a multiple of this, and a frame has a multiple of it: the size of the largest number.
ALIGN_BYTES = 8
#: What a part says in JSON beside what every array does.
_OF_A_PART = ("name", "offset", "has_stamp", "rate_hz")


@dataclass(frozen=True)
class Part(ArraySpec):
    """One Box of a Dict observation.

    `name`: its key; of a Dict within a Dict the keys from the outside in, joined by "/". `offset`: of its first
    byte in the frame. `has_stamp`: the world says when it was measured. `rate_hz`: how often it is, as the world
    declares; None: it does not.
    """

    name: str
    offset: int
    has_stamp: bool = False
    rate_hz: float | None = None

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.offset + self.nbytes

    def to_space(self, lead: tuple[int, ...] = ()) -> spaces.Box:
        """The Gymnasium space this was made from, with axes of these lengths in front."""
        shape = (*lead, *self.shape)
        low, high = (np.broadcast_to(bounds, shape) for bounds in (self.low_array, self.high_array))
        return spaces.Box(low, high, shape, dtype=self.np_dtype)

    def to_json(self) -> JsonDict:
        stamp = {"has_stamp": True, "rate_hz": self.rate_hz} if self.has_stamp else {}
        return {"name": self.name, "offset": self.offset, **super().to_json(), **stamp}


def frame_bytes(parts: Sequence[Part]) -> int:
    """Size of a frame of these parts."""
    return aligned(parts[-1].end)


def aligned(num_bytes: int) -> int:
    """Rounded up to where a part may begin."""
    return -(-num_bytes // ALIGN_BYTES) * ALIGN_BYTES


def boxes_of(space: spaces.Dict, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], spaces.Box]]:
    """The Boxes of a Dict and of the Dicts in it, with their keys from the outside in. ConfigError for other spaces."""
    where = f"observation part {'/'.join(path)!r}" if path else "observation space"
    if not space.spaces:
        raise ConfigError(f"{where} is a Dict that holds nothing; expected at least one Box in it")
    for key, part in space.spaces.items():
        if not isinstance(key, str):
            raise ConfigError(f"{where} has the key {key!r}; expected names, as a policy gets its parts by name")
        here = (*path, key)
        if isinstance(part, spaces.Dict):
            yield from boxes_of(part, here)
        elif isinstance(part, spaces.Box):
            require_plain_numbers(f"observation part {'/'.join(here)!r}", part)
            yield here, part
        else:
            raise ConfigError(
                f"observation part {'/'.join(here)!r} is {part!r}; expected a Box (or a Dict of Boxes), as a frame is "
                f"plain numbers in shared memory. Wrap the environment in gymnasium.wrappers.FlattenObservation, which "
                f"makes one Box of everything, or in an ObservationWrapper that gives this part as a Box"
            )


def parts_of(space: spaces.Dict) -> tuple[Part, ...]:
    """Each Box of a Dict with its place in the frame. ConfigError for a space with anything but Boxes in it."""
    parts: dict[str, Part] = {}
    at = 0
    for path, box in boxes_of(space):
        name = "/".join(path)
        if name in parts:
            raise ConfigError(
                f"two parts of the observation space are called {name!r}: keys of a Dict within a Dict are joined "
                f"by '/'. Rename one"
            )
        bounds = packed_bounds(box.low), packed_bounds(box.high)
        parts[name] = part = Part(box.shape, box.dtype.name, *bounds, name, at)
        at = aligned(part.end)
    return tuple(parts.values())


def parts_from_json(data: object) -> tuple[Part, ...]:
    """Inverse of `Part.to_json`, for all parts; ConfigError on anything else, or if they do not lie one behind the
    other."""
    if not isinstance(data, list) or not data or not all(isinstance(entry, Mapping) for entry in data):
        raise ConfigError(f"observation parts are {data!r:.80}; expected a list of what to_json wrote")
    parts: list[Part] = []
    for entry in cast(list[Mapping[str, object]], data):
        name, offset, rate_hz = entry.get("name"), entry.get("offset"), entry.get("rate_hz")
        rest = {key: value for key, value in entry.items() if key not in _OF_A_PART}
        expected = aligned(parts[-1].end) if parts else 0
        if not isinstance(name, str) or offset != expected:
            raise ConfigError(f"observation part {name!r} is at byte {offset!r}; expected a name, and byte {expected}")
        if rate_hz is not None and (type(rate_hz) not in (int, float) or not 0 < cast(float, rate_hz) < math.inf):
            raise ConfigError(f"observation part {name!r} has rate_hz {rate_hz!r}; expected a number above 0")
        fields = fields_from_json(f"observation part {name!r}", rest)
        stamp = entry.get("has_stamp") is True, None if rate_hz is None else float(cast(float, rate_hz))
        parts.append(Part(*fields, name, expected, *stamp))
    return tuple(parts)


def unpack(parts: Sequence[Part], frames: Any) -> dict[str, Any]:
    """The parts of frames, each under its name: views of `frames`, an array or a torch tensor of uint8.

    `frames` is (..., frame_bytes) with any axes in front, each part (..., *part_shape) of its own dtype. ValueError
    for frames of another size.
    """
    if frames.shape[-1:] != (frame_bytes(parts),):
        raise ValueError(f"frames are of shape {tuple(frames.shape)}; expected (..., {frame_bytes(parts)})")
    lead = tuple(frames.shape[:-1])
    dtypes: Any = np if isinstance(frames, np.ndarray) else importlib.import_module("torch")
    return {
        part.name: frames[..., part.offset : part.end]
        .view(np.dtype(part.dtype) if dtypes is np else getattr(dtypes, part.dtype))
        .reshape((*lead, *part.shape))
        for part in parts
    }
