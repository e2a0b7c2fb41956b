"""Optimizer state and target network to and from a checkpoint, by name of the parameter each belongs to."""

from __future__ import annotations

import numpy as np

from rtcore.errors import ConfigError
from rtcore.learn.checkpoint import OPTIMIZER, SavedState
from rtcore.memory.master import Floats, MasterCopy
from rtcore.memory.tensors import ParamManifest

_PARTS = ("exp_avg", "exp_avg_sq", "target")


def flatten_optimizer(manifest: ParamManifest, copy: MasterCopy) -> dict[str, Floats]:
    """Moments and target network of each trained parameter, in its own shape, as `part.name`."""
    return {
        f"{part}.{tensor.name}": manifest.array(getattr(copy, part), tensor)
        for part in _PARTS
        for tensor in manifest.trainable()
    }


def unflatten_saved(manifest: ParamManifest, saved: SavedState) -> dict[str, Floats]:
    """The inverse: flat arrays by part. ConfigError if they are not those of this network."""
    found: dict[str, Floats] = {}
    for part in _PARTS:
        flat = found[part] = np.zeros(manifest.trainable_bytes // 4, np.float32)
        for tensor in manifest.trainable():
            array = saved.optimizer.get(f"{part}.{tensor.name}")
            if array is None or array.shape != tensor.shape:
                got = "nothing" if array is None else f"shape {array.shape}"
                raise ConfigError(
                    f"resume: {saved.folder / OPTIMIZER} has {got} for {part}.{tensor.name}; "
                    f"expected shape {tensor.shape}: it is of another network. Use the --policy it was trained with"
                )
            manifest.array(flat, tensor)[...] = array
    return found
