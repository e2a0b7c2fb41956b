"""Whether the numbers of an observation lie in the space that the world declares: who is to blame, and how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rtcore.clock import Clock
from rtcore.errors import EnvironmentFailed, PolicyError, RtcoreError, text_of
from rtcore.spaces.arrays import Array, ArraySpec
from rtcore.spaces.observation import ObservationSpec

#: What rounding alone may add to a bound: so many times the dtype's precision.
_ROUNDINGS = 8
#: One part of so many of its caller's time may be spent in looking at frames.
_LOOK_SHARE = 100


class Breach(NamedTuple):
    """Elements of an observation, or of one part of it, that its space does not hold."""

    part: str  #: "" for the observation of a Box
    elements: int
    of_elements: int
    where: tuple[int, ...]  #: of the first of them
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        whose = f" of part {self.part!r}" if self.part else ""
        at = f"[{', '.join(map(str, self.where))}] = " if self.where else ""
        return (
            f"{self.elements} of {self.of_elements} elements{whose} "
            f"({at}{self.value:g} where {self.low:g} to {self.high:g} is declared)"
        )


class _Bounded(NamedTuple):
    """An array whose elements are to be looked at. `low`, `high`: with what rounding may add."""

    dtype: np.dtype[Any]
    part: str
    low: Array
    high: Array
    declared: tuple[Array, Array]


class Promises:
    """What the space of a world promises of the numbers in its observations. NaN is in no space.

    Frames may have axes in front (older frames). Whatever cannot be wrong, such as a pixel of 0 to 255, is not read.
    """

    def __init__(self, observation: ObservationSpec) -> None:
        """`observation`: of one frame."""
        self._observation = observation
        specs: list[tuple[ArraySpec, str]] = [(part, part.name) for part in observation.parts]
        found = [_bounded(*each) for each in specs or [(observation, "")]]
        self._arrays = [each for each in found if each is not None]

    def breach(self, frame: Array) -> Breach | None:
        """The first thing in it that is not as declared; None if there is nothing."""
        for array in self._arrays:
            values = self._values(frame, array.part)
            if _is_within(values, array.low, array.high):
                continue
            with np.errstate(invalid="ignore"):
                return _breach(array, values, ~((values >= array.low) & (values <= array.high)))
        return None

    def not_finite(self, frame: Array) -> Breach | None:
        """The first array in it with NaN or infinity, whatever is declared."""
        for array in self._arrays:
            if array.dtype.kind == "f":
                wrong = ~np.isfinite(self._values(frame, array.part))
                if wrong.any():
                    return _breach(array, self._values(frame, array.part), wrong)
        return None

    def refuse_not_finite(self, frame: Array, when: str) -> None:
        """EnvironmentFailed for NaN or infinity in a frame: for whoever got no finite action from it."""
        breach = self.not_finite(frame)
        if breach is not None:
            raise EnvironmentFailed(
                f"the world returned NaN or infinity {when}: {breach}; no action could be made of that. Correct the "
                "world's step() and reset(), or replace such numbers in a wrapper or in the policy (np.nan_to_num)"
            )

    def raise_culprit(self, error: Exception, frame: Array, when: str) -> NoReturn:
        """What an inference that failed is told as.

        Args:
            error: what the policy raised, rtcore's own check of its output included.
            frame: what it was given.
            when: of which tick that is.

        Raises:
            EnvironmentFailed: the frame was not finite.
            PolicyError: it was, and the policy itself raised.
        """
        self.refuse_not_finite(frame, when)
        if isinstance(error, RtcoreError):
            raise error
        raise PolicyError(
            f"the policy raised {text_of(error)} for the observation {when}. One inference that fails ends the run: "
            "where one may (a server that does not answer), catch it in forward and return the action of before"
        ) from error

    def _values(self, frame: Array, part: str) -> Array:
        values: Array = self._observation.unpack(frame)[part] if part else frame
        return values


class ObservationWatch:
    """Looks at frames as often as that costs its caller little, counts them, and tells of the first that is wrong."""

    def __init__(
        self, observation: ObservationSpec, clock: Clock, count: Callable[[str], object], tell: Callable[[str], object]
    ) -> None:
        """`count` gets "checked_frames", and "frames_outside" too where one is; `tell`, once, what is wrong."""
        self.promises = Promises(observation)
        self._clock = clock
        self._count = count
        self._tell = tell
        self._told = False
        self._rest_until_ns = 0

    def look(self, frame: Array, tick: int) -> None:
        """At the frame of a tick, or not at all if the last look took long."""
        start_ns = self._clock.now_ns()
        if start_ns < self._rest_until_ns:
            return
        breach = self.promises.breach(frame)
        self._count("checked_frames")
        if breach is not None:
            self._count("frames_outside")
            if not self._told:
                self._told = True
                self._tell(f"{breach} at tick {tick}")
        end_ns = self._clock.now_ns()
        self._rest_until_ns = end_ns + (end_ns - start_ns) * _LOOK_SHARE


def _bounded(spec: ArraySpec, part: str) -> _Bounded | None:
    """None if no array of this dtype can be outside."""
    if spec.np_dtype.kind == "b":
        return None
    low, high = declared = _declared(spec)
    if spec.np_dtype.kind == "f":
        return _Bounded(spec.np_dtype, part, _widened(low, -1), _widened(high, 1), declared)
    whole = np.iinfo(spec.np_dtype)
    return (
        None
        if low.max() <= whole.min and high.min() >= whole.max
        else _Bounded(spec.np_dtype, part, low, high, declared)
    )


def _declared(spec: ArraySpec) -> tuple[Array, Array]:
    """The bounds as the space has them; of shape () where one number stands for all elements: frames may be large."""
    arrays = (np.array(bounds, spec.np_dtype) for bounds in (spec.low, spec.high))
    low, high = (bounds.reshape(spec.shape if bounds.size > 1 else ()) for bounds in arrays)
    return low, high


def _widened(bounds: Array, direction: int) -> Array:
    """A bound that a rounded number may just pass."""
    with np.errstate(over="ignore"):
        wider: Array = bounds + direction * np.abs(bounds) * (_ROUNDINGS * np.finfo(bounds.dtype).eps)
    return np.where(np.isfinite(bounds), wider, bounds)


def _is_within(values: Array, low: Array, high: Array) -> bool:
    if low.ndim or high.ndim:
        return bool(((values >= low) & (values <= high)).all())
    # Two numbers instead of arrays; NaN becomes one of them, and is in no order with any other.
    return bool(low <= values.min() and values.max() <= high)


def _breach(array: _Bounded, values: Array, wrong: Array) -> Breach:
    index = np.unravel_index(int(wrong.argmax()), wrong.shape)
    own = tuple(int(i) for i in index)
    lows, highs = (np.broadcast_to(bounds, values.shape) for bounds in array.declared)
    bounds = float(lows[index]), float(highs[index])
    return Breach(array.part, int(wrong.sum()), values.size, own, float(values[index]), *bounds)
