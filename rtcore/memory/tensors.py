"""Where each tensor of a network lies in a buffer of weights. Pure: no torch, no shared memory.

A buffer holds, from byte 0: every trainable parameter (float32) as one region without a gap but padding, of
`trainable_bytes`; then everything else (frozen parameters, buffers, other dtypes). Each tensor begins on a cache
line and keeps its own memory order (`strides`), so that a channels-last network stays one. Padding is zero.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from rtcore.errors import PolicyError
from rtcore.memory.layout import CACHE_LINE_BYTES

Array: TypeAlias = npt.NDArray[Any]
#: The dtypes a network may keep its weights in, and how numpy sees their memory. It has no bfloat16: bits are seen.
NUMPY_DTYPES = {
    **{
        name: name
        for name in ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "complex64")
    },
    "bfloat16": "uint16",
}


@dataclass(frozen=True)
class ParamTensor:
    """One tensor. `names`: all it goes by in the network (tied weights have several); the first one is its own.

    `offset` [bytes] from the buffer's start, `strides` [elements]; `kind` is "parameter", "buffer" or "private" (a
    buffer that is no part of the state_dict: each worker keeps a copy of version 1's).
    """

    names: tuple[str, ...]
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    kind: str
    trainable: bool
    offset: int = 0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def num_elements(self) -> int:
        return prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_elements * np.dtype(NUMPY_DTYPES[self.dtype]).itemsize


@dataclass(frozen=True)
class ParamManifest:
    """Every tensor of a network, in the order of its buffer. Make it with `ParamManifest.of`."""

    tensors: tuple[ParamTensor, ...]
    trainable_bytes: int
    buffer_bytes: int

    @classmethod
    def of(cls, tensors: Iterable[ParamTensor]) -> ParamManifest:
        """Lay the tensors out: the trainable ones first, each on a cache line. PolicyError for an unknown dtype."""
        listed = list(tensors)
        for tensor in listed:
            if tensor.dtype not in NUMPY_DTYPES:
                raise PolicyError(
                    f"the policy's tensor {tensor.name!r} is {tensor.dtype}; expected one of "
                    f"{', '.join(NUMPY_DTYPES)}. Convert it, or make it part of the code"
                )
        placed, at, trainable_bytes = [], 0, 0
        for tensor in sorted(listed, key=lambda tensor: not tensor.trainable):
            placed.append(ParamTensor(**{**vars(tensor), "offset": at}))
            at = -(-(at + tensor.num_bytes) // CACHE_LINE_BYTES) * CACHE_LINE_BYTES
            if tensor.trainable:
                trainable_bytes = at
        return cls(tuple(placed), trainable_bytes, max(at, CACHE_LINE_BYTES))

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ParamManifest:
        fields = json.loads(text)
        tensors = tuple(
            ParamTensor(
                names=tuple(one["names"]),
                shape=tuple(one["shape"]),
                strides=tuple(one["strides"]),
                dtype=one["dtype"],
                kind=one["kind"],
                trainable=one["trainable"],
                offset=one["offset"],
            )
            for one in fields["tensors"]
        )
        return cls(tensors, fields["trainable_bytes"], fields["buffer_bytes"])

    @cached_property
    def by_name(self) -> dict[str, ParamTensor]:
        """Every name, tied ones included."""
        return {name: tensor for tensor in self.tensors for name in tensor.names}

    def trainable(self) -> Iterator[ParamTensor]:
        return (tensor for tensor in self.tensors if tensor.trainable)

    # -- a buffer as arrays --------------------------------------------------------------------------------

    def array(self, buffer: memoryview | Array, tensor: ParamTensor) -> Array:
        """A tensor of a buffer as an array of its shape: a view, bfloat16 as its bits (uint16)."""
        dtype = np.dtype(NUMPY_DTYPES[tensor.dtype])
        flat = np.frombuffer(buffer, dtype, tensor.num_elements, tensor.offset)
        strides = tuple(stride * dtype.itemsize for stride in tensor.strides)
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, strides, writeable=flat.flags.writeable)

    def arrays(self, buffer: memoryview | Array) -> dict[str, Array]:
        """Every tensor of the state_dict under its first name: views, bfloat16 as bits."""
        return {tensor.name: self.array(buffer, tensor) for tensor in self.tensors if tensor.kind != "private"}

    def trainable_array(self, buffer: memoryview | Array) -> npt.NDArray[np.float32]:
        """All that is trained, as one flat float32 view; padding is 0 and must stay so."""
        return np.frombuffer(buffer, np.float32, self.trainable_bytes // 4)

    # -- weights from outside ------------------------------------------------------------------------------

    def check(self, weights: Mapping[str, Any], what: str) -> dict[str, Array]:
        """`weights` (arrays, or tensors: whatever has detach().cpu().numpy()) as arrays ready for `write`.

        PolicyError says which name is missing or unknown, which shape or dtype is another, and where a value is not
        finite, or would not be in the network's dtype (buffers may hold infinities, such as masks). Tied weights may
        be given under any of their names.
        """
        self._check_names(weights, what)
        arrays: dict[str, Array] = {}
        for tensor in self.tensors:
            given = next((name for name in tensor.names if name in weights), None)
            if given is not None:
                arrays[tensor.name] = _checked(tensor, weights[given], f"{what}: {given!r}")
        return arrays

    def write(self, buffer: memoryview, arrays: Mapping[str, Array]) -> None:
        """Copy arrays that `check` has passed into a buffer. What is not among them stays."""
        for tensor in self.tensors:
            if tensor.name in arrays:
                self.array(buffer, tensor)[...] = arrays[tensor.name]

    def _check_names(self, weights: Mapping[str, Any], what: str) -> None:
        known = self.by_name
        unknown = [name for name in weights if name not in known]
        missing = [
            tensor.name
            for tensor in self.tensors
            if tensor.kind != "private" and not any(name in weights for name in tensor.names)
        ]
        if unknown or missing:
            raise PolicyError(
                f"{what} is of another network: it lacks {_listed(missing)} and has {_listed(unknown)} besides; "
                f"expected the state_dict of this run's policy, {len(known)} tensors such as {_listed(list(known))}. "
                "Use the same --policy and arguments as when it was trained"
            )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more if names else "nothing"


def _checked(tensor: ParamTensor, value: Any, what: str) -> Array:
    array = _as_array(value)
    dtype = "uint16" if tensor.dtype == "bfloat16" and array.dtype == np.uint16 else tensor.dtype
    if array.shape != tensor.shape:
        raise PolicyError(f"{what} has shape {array.shape}; expected {tensor.shape}, as in this run's policy")
    kinds = (array.dtype.kind, np.dtype(NUMPY_DTYPES[tensor.dtype]).kind)
    is_bfloat16 = tensor.dtype == "bfloat16" and (array.dtype.kind == "f" or dtype == "uint16")
    if not is_bfloat16 and kinds[0] != kinds[1]:
        raise PolicyError(f"{what} is {array.dtype}; expected {tensor.dtype}, as in this run's policy. Convert it")
    given = array
    # As it will lie in memory: a number may be finite, and too large for the network's dtype.
    with np.errstate(over="ignore", invalid="ignore"):
        if not is_bfloat16:
            array = given.astype(tensor.dtype, copy=False)
        elif dtype != "uint16":
            array = _bfloat16_bits(given)
    num_bad = int(_flaws(tensor, given, array).sum())
    if num_bad:
        raise PolicyError(
            f"{what} has {num_bad} of {array.size} values that are not finite (NaN or infinite) as {tensor.dtype}, or "
            f"that it cannot hold; expected finite weights. The last good ones stay in use"
        )
    return array


def _flaws(tensor: ParamTensor, given: Array, kept: Array) -> npt.NDArray[np.bool_]:
    """Which values must not be published. `kept`: what became of `given` in the tensor's own dtype."""
    if tensor.dtype == "bfloat16":
        kept = (kept.astype(np.uint32) << 16).view(np.float32)
        given = kept if given.dtype == np.uint16 else given
    elif kept.dtype.kind not in "fc":
        return np.asarray(kept != given)
    if tensor.kind == "parameter":
        return ~(np.isfinite(kept) & np.isfinite(given))
    return np.isnan(given) | np.isnan(kept) | (np.isinf(kept) & np.isfinite(given))


def _as_array(value: Any) -> Array:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":
            value = value.float()
        value = value.numpy()
    return np.asarray(value)


def _bfloat16_bits(array: Array) -> npt.NDArray[np.uint16]:
    """The upper half of a float32, rounded to nearest even."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16).reshape(array.shape)
