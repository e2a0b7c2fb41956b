"""Batches of transitions as torch tensors, for trainers."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch


def to_tensors(batch: Any, device: str = "cpu") -> Any:
    """A NamedTuple of arrays as the same one of tensors, each of its array's dtype and shape, on `device`.

    For a GPU the arrays are copied through pinned memory without waiting: use the tensors on the stream that is
    current now. Arrays are shared, not copied, if they stay on a CPU without a GPU. Fields that are None stay None; a
    dict, of a Dict world's frames, is one of tensors, each contiguous.
    """
    pin = torch.cuda.is_available()

    def convert(array: Any) -> Any:
        if array is None:
            return None
        if isinstance(array, dict):
            return {name: convert(part) for name, part in array.items()}
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if pin:
            tensor = tensor.pin_memory()
        return tensor.to(device, non_blocking=True) if device != "cpu" else tensor

    return type(batch)(*map(convert, batch))


def to_arrays(batch: Any) -> Any:
    """The memory behind a NamedTuple of tensors, where it is an array of this process's; None in place of the rest."""

    def convert(tensor: Any) -> Any:
        return tensor.numpy() if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu" else None

    return type(batch)(*map(convert, batch))
