"""What an observation looks like in memory: a frame, which is one array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from rtcore.errors import ConfigError, EnvironmentFailed
from rtcore.spaces.arrays import Array, ArraySpec, JsonDict, fields_from_json, packed_bounds, require_plain_numbers
from rtcore.spaces.parts import Part, frame_bytes, parts_from_json, parts_of, unpack


@dataclass(frozen=True)
class ObservationSpec(ArraySpec):
    """One observation of a Gymnasium Box, or of a Dict of Boxes, as a frame.

    The frame of a Box is the Box's own array. That of a Dict is uint8 of shape (num_bytes,), in which each part has
    its place: `parts` says where, and is empty for a Box. A Dict within a Dict is taken apart: its parts are named
    "outer/inner".
    """

    parts: tuple[Part, ...] = ()

    @classmethod
    def from_space(cls, space: object) -> ObservationSpec:
        """Describe a Gymnasium observation space.

        Args:
            space: A Box of plain numbers, or a Dict of such, also nested.

        Returns:
            What its frames look like in memory.

        Raises:
            ConfigError: It is another space.
        """
        if isinstance(space, spaces.Dict):
            parts = parts_of(space)
            return cls((frame_bytes(parts),), "uint8", (0,), (255,), parts)
        if not isinstance(space, spaces.Box):
            raise ConfigError(
                f"observation space is {space!r}; expected a Box or a Dict of Boxes, as a frame is plain numbers in "
                f"shared memory. Wrap the environment in gymnasium.wrappers.FlattenObservation or an ObservationWrapper"
            )
        require_plain_numbers("observation space", space)
        return cls(space.shape, space.dtype.name, packed_bounds(space.low), packed_bounds(space.high))

    @cached_property
    def stamped(self) -> tuple[Part, ...]:
        """The parts of which the world says when they were measured."""
        return tuple(part for part in self.parts if part.has_stamp)

    def with_stamps(self, rates_hz: Mapping[str, float | None]) -> ObservationSpec:
        """The same, where some parts have time stamps.

        Args:
            rates_hz: By the names of these parts, how often each is measured; None: that is not known.

        Returns:
            The observation.
        """
        return replace(
            self,
            parts=tuple(
                replace(part, has_stamp=True, rate_hz=rates_hz[part.name]) if part.name in rates_hz else part
                for part in self.parts
            ),
        )

    def check(self, observation: object) -> Array:
        """Check a Box's observation. Observations of a Dict are checked where they are packed (`FramePacker`).

        Called every tick: it compares attributes, reads no element, and keeps nothing allocated.

        Args:
            observation: What the world returned.

        Returns:
            The same array.

        Raises:
            EnvironmentFailed: It is no ndarray of this shape and dtype.
        """
        if (
            isinstance(observation, np.ndarray)
            and observation.shape == self.shape
            and observation.dtype == self.np_dtype
        ):
            return observation if type(observation) is np.ndarray else unmasked(observation)
        raise broken_promise("returned", observation, self)

    def unpack(self, frames: Any) -> Any:
        """Frames as the world's space has them, with any axes in front.

        Args:
            frames: An array or a torch tensor, (..., *shape).

        Returns:
            `frames` itself; of a Dict a dict of views of it, each part (..., *part_shape) of its dtype.
        """
        return unpack(self.parts, frames) if self.parts else frames

    def draw(self, rng: np.random.Generator) -> Array:
        """Draw a random frame of the space.

        Args:
            rng: All that it depends on.

        Returns:
            (*shape,) of this dtype.
        """
        if not self.parts:
            return super().draw(rng)
        frame = np.zeros(self.shape, self.np_dtype)
        views = self.unpack(frame)
        for part in self.parts:
            views[part.name][...] = part.draw(rng)
        return frame

    def to_space(self) -> spaces.Box | spaces.Dict:
        """The Gymnasium space this was made from; one Dict for a Dict within a Dict."""
        if self.parts:
            lead = self.shape[:-1]
            return spaces.Dict([(part.name, part.to_space(lead)) for part in self.parts])
        return spaces.Box(self.low_array, self.high_array, self.shape, dtype=self.np_dtype)

    def to_json(self) -> JsonDict:
        """As of every array; for a Dict also `parts`: the name, the offset and the array of each."""
        parts = {"parts": [part.to_json() for part in self.parts]} if self.parts else {}
        return {**super().to_json(), **parts}

    @classmethod
    def _of_json(cls, data: Mapping[str, object]) -> ObservationSpec:
        rest = {key: value for key, value in data.items() if key != "parts"}
        fields = fields_from_json("observation", rest)
        if "parts" not in data:
            return cls(*fields)
        parts = parts_from_json(data["parts"])
        shape, dtype = fields[:2]
        if dtype != "uint8" or shape[-1:] != (frame_bytes(parts),):
            raise ConfigError(
                f"observation spec has shape {shape} and dtype {dtype}; expected uint8 and {frame_bytes(parts)} bytes, "
                f"as its parts take"
            )
        return cls(*fields, parts)


def unmasked(got: Array, where: str = "") -> Array:
    """An array of a subclass of NumPy's as a plain one; EnvironmentFailed if elements of it are masked."""
    if np.ma.is_masked(got):
        masked = np.count_nonzero(np.ma.getmaskarray(got))
        raise EnvironmentFailed(
            f"the world returned {where}an array in which {masked} of {got.size} elements are masked; "
            f"expected numbers everywhere, as a frame has no mask. Put numbers in their place: observation.filled(0)"
        )
    return np.asarray(got)


def broken_promise(did: str, got: object, promised: ArraySpec) -> EnvironmentFailed:
    """The error for a world that `did` something with `got`, where its space promises another array."""
    text = f"{type(got).__name__} {got!r:.60}"
    what_to_do = "Make the world (or its last wrapper) return what it declares"
    if isinstance(got, np.ndarray):
        text = f"an array of shape {got.shape} and dtype {got.dtype}"
        if got.shape == promised.shape:
            what_to_do += f"; gymnasium.wrappers.DtypeObservation(world, np.{promised.dtype}) casts it"
    return EnvironmentFailed(
        f"the world {did} {text}; its observation space promises an array of shape {promised.shape} and dtype "
        f"{promised.dtype}. {what_to_do}"
    )
