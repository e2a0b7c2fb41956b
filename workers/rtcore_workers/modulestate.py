"""Detects what a policy's module changes in itself: state kept between two calls, writes to its own weights."""

from __future__ import annotations

import contextlib
import copy
import functools
import pickle
import random
import threading
import types
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

_OF_TORCH = ("_parameters", "_buffers", "_modules")
#: Random generators: each worker has its own, on purpose.
_GENERATORS = (np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random, torch.Generator)
#: Types that keep no state from call to call, and may not be picklable.
_STATELESS = (
    *(types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, type, functools.partial),
    type(threading.Lock()),
)


#: Of a plain callable, a larger attribute is taken for its weights, and not looked at.
_MOST_BYTES = 1 << 24


class KeptValue(NamedTuple):
    """An attribute of a module. `checksum`: CRC-32, None if it cannot be pickled. `draws`: it contains a generator."""

    checksum: int | None
    is_number: bool
    draws: bool


#: Attributes of a module beside its parameters and shared buffers, by name.
Kept: TypeAlias = dict[str, KeptValue]


def kept_by(module: nn.Module) -> Kept:
    """All state that one call could leave for the next. States of random generators are left out."""
    most_bytes = _MOST_BYTES if isinstance(module, PlainCallable) else None
    return {name: _kept(value, most_bytes) for name, value in _attributes(module) if not isinstance(value, _STATELESS)}


def changed(before: Kept, after: Kept) -> list[str]:
    """Names of attributes that have changed, are new, or may have changed."""
    return [name for name, value in after.items() if value.checksum is None or before.get(name, _NOTHING) != value]


def _kept(value: Any, most_bytes: int | None) -> KeptValue:
    """`most_bytes`: a larger one has no checksum."""
    file = _Checksum(most_bytes)
    pickler = _Pickler(file, protocol=5)
    try:
        pickler.dump(value)
        checksum: int | None = file.checksum
    except Exception:
        checksum = None
    return KeptValue(checksum, isinstance(value, int | float), pickler.draws)


class _Checksum:
    """A file that keeps the checksum of what is written to it."""

    def __init__(self, most_bytes: int | None) -> None:
        self.checksum = 0
        self._left = most_bytes

    def write(self, data: Any) -> None:
        self.checksum = zlib.crc32(data, self.checksum)
        if self._left is not None:
            self._left -= memoryview(data).nbytes
            if self._left < 0:
                raise ValueError("larger than what is looked at")


class _Pickler(pickle.Pickler):
    """Leaves random generators out, at any depth inside a value."""

    draws = False

    def persistent_id(self, value: Any) -> str | None:
        if not isinstance(value, _GENERATORS):
            return None
        self.draws = True
        return "generator"


_NOTHING = KeptValue(None, False, False)


class FromFile(nn.Module):
    """A module that torch loaded from a file (TorchScript, torch.export). Runs as it is; its weights are not shared."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        # In a tuple, so that nn.Module does not register it as a submodule.
        self._inner = (inner,)

    @property
    def inner(self) -> nn.Module:
        return self._inner[0]

    def forward(self, *inputs: Any, **given: Any) -> Any:
        return self.inner(*inputs, **given)


class PlainCallable(nn.Module):
    """A policy that is no module: any callable, which takes and gives NumPy arrays. It has no weights to share."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        # In a tuple, so that nn.Module does not look into it.
        self._inner = (function,)

    @property
    def inner(self) -> Callable[..., Any]:
        return self._inner[0]


def copy_of(module: nn.Module, kept: Kept) -> nn.Module | None:
    """A module that shares the parameters and has the rest for itself; None: something in it cannot be copied.

    Of a plain callable only those attributes of `kept` are copied that have a checksum: others are its weights, or
    somebody that it speaks to.
    """
    try:
        if isinstance(module, PlainCallable):
            return PlainCallable(_copied(module.inner, kept))
        with warnings.catch_warnings(action="ignore"):  # torch warns of copies of what torch.export made
            twin = copy.deepcopy(module, {id(parameter): parameter for parameter in module.parameters()})
    except Exception:
        return None
    return twin


def _copied(function: Any, kept: Kept) -> Any:
    if isinstance(function, types.MethodType):
        return types.MethodType(function.__func__, _copied(function.__self__, kept))
    values = {name: value for name, value in _kept_by_callable(function) if kept.get(name, _NOTHING).checksum}
    own = copy.deepcopy(values)
    if isinstance(function, types.FunctionType):
        around = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        cells = tuple(types.CellType(own[name]) if name in own else cell for name, cell in around)
        code, name, defaults = function.__code__, function.__name__, function.__defaults__
        twin: Any = types.FunctionType(code, function.__globals__, name, defaults, cells)
        twin.__kwdefaults__ = function.__kwdefaults__
    else:
        twin = copy.copy(function)
    vars(twin).update({name: own.get(name, value) for name, value in vars(function).items()})
    return twin


class WriteWatch:
    """Detects in-place writes to tensors, by torch's own version counter. Allocates a small list at each check."""

    def __init__(self, targets: list[tuple[str, Tensor]]) -> None:
        self._targets = targets
        self._tensors = [tensor for _, tensor in targets]
        self.forget()

    def forget(self) -> None:
        """Accept all writes up to now."""
        self._counts = [tensor._version for tensor in self._tensors]

    def written(self) -> list[str]:
        """Names of tensors that were written to since then."""
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
        elif isinstance(each, PlainCallable):
            yield from _kept_by_callable(each.inner)


def _kept_by_callable(function: Any) -> Iterator[tuple[str, Any]]:
    """What is around a function, and the attributes of an object or of a method's."""
    function = getattr(function, "__self__", function)
    yield from getattr(function, "__dict__", {}).items()
    if isinstance(function, types.FunctionType):
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # not filled yet
                yield name, cell.cell_contents


def _is_of_torch(name: str, value: Any) -> bool:
    """Hooks and flags of nn.Module, an RNN's list of its own weights, and modules."""
    if name.startswith("_") and name.endswith(("_hooks", "_set", "_weights", "_weight_refs", "_hooks_with_kwargs")):
        return True
    return name == "_inner" or isinstance(value, nn.Module)
