"""What acts at a tick that several chunks have an action for (`--on-overlap`), and what lies between two actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rtcore.config.factories import import_factory_module
from rtcore.errors import ConfigError, PolicyError
from rtcore.scheduling.dispatch import Blend
from rtcore.scheduling.takeover import Mix
from rtcore.spaces import ActionSpec

_EXPECTED = "expected newest, mean, or module:function of (n, *action_shape), oldest first, returning one action"


def blend_of(on_overlap: str, action: ActionSpec) -> Blend | None:
    """What makes one action of those of several chunks.

    Args:
        on_overlap: "newest", "mean", or `module:function` of the user's own, which is imported.
        action: The world's.

    Returns:
        A function of the actions' bytes, the oldest chunk first; None: the newest acts.

    Raises:
        ConfigError: It is none of these, cannot be imported, or is a mean of what has none.
    """
    if on_overlap == "newest":
        return None
    if on_overlap == "mean":
        if action.kind != "box":
            raise ConfigError(
                f"on_overlap=mean: the actions of {action.to_space()} are choices, which have no mean; use newest, or "
                "module:function that chooses"
            )
        return _Blend(_mean, on_overlap, action)
    module_name, _, attribute = on_overlap.partition(":")
    if not attribute:
        raise ConfigError(f"on_overlap={on_overlap!r}; {_EXPECTED}")
    try:
        function = getattr(import_factory_module(module_name), attribute)
    except Exception as error:
        raise ConfigError(f"on_overlap={on_overlap}: {error}; {_EXPECTED}") from error
    if not callable(function):
        raise ConfigError(f"on_overlap={on_overlap} is a {type(function).__name__}; {_EXPECTED}")
    return _Blend(function, on_overlap, action)


def mix_of(action: ActionSpec) -> Mix | None:
    """What lies between two actions of a Box, by the share of the second; None: choices have nothing between them."""
    if action.kind != "box":
        return None

    def mix(first: bytes, second: bytes, share: float) -> bytes:
        one, other = (np.frombuffer(raw, action.np_dtype).astype(np.float64) for raw in (first, second))
        between = one + share * (other - one)
        return (np.rint(between) if action.np_dtype.kind in "iu" else between).astype(action.np_dtype).tobytes()

    return mix


def _mean(actions: Any) -> Any:
    if actions.dtype.kind != "f":
        return actions.mean(axis=0)
    # What `mean` does, half floats included, in less than half its time.
    return np.add.reduce(actions, dtype=np.float32 if actions.itemsize == 2 else None) / len(actions)


class _Blend:
    def __init__(self, function: Callable[[Any], Any], name: str, action: ActionSpec) -> None:
        self._function, self._name, self._action = function, name, action

    def __call__(self, actions: Sequence[bytes]) -> bytes:
        spec = self._action
        stacked = np.frombuffer(b"".join(actions), spec.np_dtype).reshape(len(actions), *spec.shape)
        try:
            made = np.asarray(self._function(stacked))
        except Exception as error:
            raise PolicyError(f"on_overlap={self._name} raised {type(error).__name__}: {error}") from error
        if made.shape != spec.shape or made.dtype.kind not in "fiub" or not np.isfinite(made).all():
            raise self._refused(made, len(actions), f"finite numbers of shape {spec.shape}")
        if spec.kind == "box":
            rounded = np.rint(made) if spec.np_dtype.kind in "iu" else made
            made = np.minimum(np.maximum(rounded, spec.low_array), spec.high_array)  # `clip` takes twice the time
        elif made.dtype.kind == "f" or (made < spec.low_array).any() or (made > spec.high_array).any():
            raise self._refused(made, len(actions), f"one of {spec.to_space()}, as there is nothing between choices")
        applied: bytes = made.astype(spec.np_dtype).tobytes()
        return applied

    def _refused(self, made: Any, count: int, expected: str) -> PolicyError:
        return PolicyError(f"on_overlap={self._name} returned {made!r:.80} for {count} actions; expected {expected}")
