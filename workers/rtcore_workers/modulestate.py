"""What a policy's module changes about itself: a state that it keeps between two calls, weights that it writes to."""

from __future__ import annotations

import functools
import io
import pickle
import random
import threading
import types
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

_OF_TORCH = ("_parameters", "_buffers", "_modules")
#: What draws random numbers: each worker has its own, and that is meant so.
_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random, torch.Generator)
#: What keeps nothing from call to call, and may not be picklable.
_STATELESS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, functools.partial),
    type(threading.Lock()),
)


class KeptValue(NamedTuple):
    """What a module keeps under a name. `checksum`: CRC-32; None: it cannot be pickled. `draws`: has a generator."""

    checksum: int | None
    is_number: bool
    draws: bool


#: What a module keeps beside its parameters and shared buffers, by name.
Kept: TypeAlias = dict[str, KeptValue]


def kept_by(module: nn.Module) -> Kept:
    """Everything that a call could read again from an earlier one. States of random generators are left out."""
    return {name: _kept(value) for name, value in _attributes(module) if not isinstance(value, _STATELESS)}


def changed(before: Kept, after: Kept) -> list[str]:
    """Names of what is another value now, or was not there, or may be another."""
    return [name for name, value in after.items() if value.checksum is None or before.get(name, _NOTHING) != value]


def _kept(value: Any) -> KeptValue:
    file = io.BytesIO()
    pickler = _Pickler(file, protocol=5)
    try:
        pickler.dump(value)
        checksum: int | None = zlib.crc32(file.getbuffer())
    except Exception:
        checksum = None
    return KeptValue(checksum, isinstance(value, int | float), pickler.draws)


class _Pickler(pickle.Pickler):
    """Passes random generators over, however deep in a value they are."""

    draws = False

    def persistent_id(self, value: Any) -> str | None:
        if not isinstance(value, _GENERATORS):
            return None
        self.draws = True
        return "generator"


_NOTHING = KeptValue(None, False, False)


class FromFile(nn.Module):
    """A module that torch read from a file (TorchScript, torch.export): run as it is. Its weights are not shared."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        # In a tuple, where nn.Module does not look for its parts.
        self._inner = (inner,)

    @property
    def inner(self) -> nn.Module:
        return self._inner[0]

    def forward(self, *inputs: Any) -> Any:
        return self.inner(*inputs)


class WriteWatch:
    """Whether tensors were written to in place, by torch's own count of that. Allocates a small list at each look."""

    def __init__(self, targets: list[tuple[str, Tensor]]) -> None:
        self._targets = targets
        self._tensors = [tensor for _, tensor in targets]
        self.forget()

    def forget(self) -> None:
        """What happened up to now was meant."""
        self._counts = [tensor._version for tensor in self._tensors]

    def written(self) -> list[str]:
        """Names of tensors that were written to since."""
        counts = [tensor._version for tensor in self._tensors]
        if counts == self._counts:
            return []
        pairs = zip(self._targets, counts, self._counts, strict=True)
        return [name for (name, _), now, then in pairs if now != then]


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for path, each in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in vars(each).items():
            if name not in _OF_TORCH and not _is_of_torch(name, value):
                yield prefix + name, value
        for name, buffer in each._buffers.items():
            yield prefix + name, buffer
        if isinstance(each, FromFile):
            yield "buffers of the file", list(each.inner.buffers())


def _is_of_torch(name: str, value: Any) -> bool:
    """Hooks and flags of nn.Module, an RNN's list of its own weights, and modules."""
    if name.startswith("_") and name.endswith(("_hooks", "_set", "_weights", "_weight_refs", "_hooks_with_kwargs")):
        return True
    return name == "_inner" or isinstance(value, nn.Module)
