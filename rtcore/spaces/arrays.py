"""Arrays of fixed shape and dtype between bounds, in and out of JSON: what observations and actions have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self, TypeAlias, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rtcore.errors import ConfigError

Array: TypeAlias = NDArray[Any]
#: Inclusive bounds in C order; a single number stands for all elements.
Bounds: TypeAlias = tuple[int | float, ...]
JsonDict: TypeAlias = dict[str, object]


#: Largest array that a description may be of [bytes]: no frame ring holds larger ones.
_MOST_BYTES = 1 << 32


@dataclass(frozen=True)
class ArraySpec:
    """An array of fixed shape and dtype between inclusive bounds."""

    shape: tuple[int, ...]
    dtype: str
    low: Bounds
    high: Bounds

    @cached_property
    def np_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype)

    @cached_property
    def num_elements(self) -> int:
        return math.prod(self.shape)

    @cached_property
    def nbytes(self) -> int:
        """Size of one array [bytes]."""
        return self.num_elements * self.np_dtype.itemsize

    @cached_property
    def low_array(self) -> Array:
        """Inclusive lower bounds, of this shape and dtype. Shared: do not write to it."""
        return _unpacked_bounds(self.low, self.shape, self.np_dtype)

    @cached_property
    def high_array(self) -> Array:
        """Inclusive upper bounds, of this shape and dtype. Shared: do not write to it."""
        return _unpacked_bounds(self.high, self.shape, self.np_dtype)

    def draw(self, rng: np.random.Generator) -> Array:
        """A random array within the bounds that depends on `rng` alone.

        Uniform where bounded; standard normal (exponential, if one side is bounded) from the bound where not.
        """
        low, high = self.low_array, self.high_array
        if self.np_dtype.kind in "iub":
            return np.asarray(rng.integers(low, high, dtype=self.np_dtype.type, endpoint=True), self.np_dtype)
        below, above = np.isfinite(low), np.isfinite(high)
        floor = np.where(below, low, 0.0).astype(np.float64)
        ceiling = np.where(above, high, 0.0).astype(np.float64)
        part = rng.random(self.shape)
        tail = rng.exponential(size=self.shape)
        value = np.where(below & above, floor * (1 - part) + ceiling * part, rng.standard_normal(self.shape))
        value = np.where(below & ~above, floor + tail, value)
        value = np.where(above & ~below, ceiling - tail, value)
        drawn: Array = np.clip(value.astype(self.np_dtype), low, high)
        return drawn

    def to_json(self) -> JsonDict:
        """A plain dict of strings, numbers and lists; infinities are the strings "inf" and "-inf"."""
        bounds = {"low": _bounds_to_json(self.low), "high": _bounds_to_json(self.high)}
        return {"shape": list(self.shape), "dtype": self.dtype, **bounds}

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Self:
        """Inverse of `to_json`.

        Args:
            data: What `to_json` gave, also after JSON.

        Returns:
            An equal spec.

        Raises:
            ConfigError: It is anything else.
        """
        return cls._of_json(data)

    @classmethod
    def _of_json(cls, data: Mapping[str, object]) -> Self:
        raise NotImplementedError


def require_plain_numbers(what: str, space: spaces.Box) -> None:
    """ConfigError, which begins with `what`, unless the elements of the Box can lie in shared memory as they are."""
    dtype = space.dtype
    if dtype.kind not in "biuf" or dtype.itemsize > 8 or not dtype.isnative:
        raise ConfigError(
            f"{what} has dtype {dtype}; expected a native bool, integer or float of at most 8 bytes. Cast it in a "
            f"wrapper"
        )
    if 0 in space.shape:
        raise ConfigError(f"{what} has shape {space.shape} and holds nothing; expected no axis of length 0")


def packed_bounds(values: Array) -> Bounds:
    """All elements in C order, or the one number that they all are."""
    flat = values.ravel().tolist()
    return (flat[0],) if len(set(flat)) == 1 else tuple(flat)


def fields_from_json(what: str, data: Mapping[str, object]) -> tuple[tuple[int, ...], str, Bounds, Bounds]:
    """shape, dtype, low and high of what `ArraySpec.to_json` wrote; ConfigError on anything else."""
    expected = {"shape", "dtype", "low", "high"}
    if set(data) != expected:
        raise ConfigError(f"{what} spec has keys {sorted(data)}; expected {sorted(expected)}")
    try:
        shape = tuple(int(length) for length in cast(list[int], data["shape"]))
        dtype = np.dtype(str(data["dtype"]))
        low, high = (
            tuple(float(bound) if isinstance(bound, str) else bound for bound in cast(list[Any], data[key]))
            for key in ("low", "high")
        )
        for bounds in (low, high):
            # Checked without the array: what a file says of its size may be anything.
            if min(shape, default=1) < 1 or len(bounds) not in (1, math.prod(shape)):
                raise ValueError(f"{len(bounds)} bounds for shape {shape}")
            np.array(bounds, dtype)
        if dtype.kind not in "biuf" or math.prod(shape) * dtype.itemsize > _MOST_BYTES:
            raise ValueError(f"{math.prod(shape)} elements of {dtype}")
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(
            f"{what} spec {dict(data)!r:.200} cannot be read: {error}; expected what to_json wrote"
        ) from error
    return shape, dtype.name, low, high


def _unpacked_bounds(bounds: Bounds, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if len(bounds) == 1:
        return np.full(shape, bounds[0], dtype)
    return np.array(bounds, dtype).reshape(shape)


def _bounds_to_json(bounds: Bounds) -> list[int | float | str]:
    return [str(bound) if math.isinf(bound) else bound for bound in bounds]
