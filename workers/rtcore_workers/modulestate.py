"""What a policy's module changes about itself: a state that it keeps between two calls, weights that it writes to."""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator
from typing import Any, TypeAlias

from torch import Tensor, nn

#: CRC-32 of what a module keeps beside its parameters and shared buffers, by name.
Kept: TypeAlias = dict[str, int]
_OF_TORCH = ("_parameters", "_buffers", "_modules")
#: Attributes named in a message.
_MOST_NAMED = 3


def kept_by(module: nn.Module) -> Kept:
    """Everything that a call could read again from an earlier one. What cannot be pickled is left out."""
    found: Kept = {}
    for name, value in _attributes(module):
        try:
            found[name] = zlib.crc32(pickle.dumps(value, protocol=5))
        except Exception:
            continue
    return found


def changed(before: Kept, after: Kept) -> list[str]:
    """Names of what is another value now, or was not there."""
    return [name for name, value in after.items() if before.get(name) != value]


def state_note(names: list[str]) -> str:
    """The warning of a module whose output for a frame depends on the frames before."""
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return (
        f"WARNING: the policy keeps a state from call to call ({', '.join(names[:_MOST_NAMED])}{more}). It is not "
        "carried from frame to frame: each worker sees only every N-th, no episode's end resets it, and warm-up and "
        "rehearsal are in it. Let the policy see the past with --obs-history and --act-history instead"
    )


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
    """Hooks and flags of nn.Module, an RNN's list of its own weights, and whatever holds modules or draws numbers."""
    if name.startswith("_") and name.endswith(("_hooks", "_set", "_weights", "_weight_refs", "_hooks_with_kwargs")):
        return True
    return (
        name == "_inner"
        or isinstance(value, nn.Module)
        or type(value).__name__ in ("Generator", "RandomState", "Random")
    )
