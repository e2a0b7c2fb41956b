"""Whether observations lie within the declared space: where not, how often, and whether world or policy is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, NoReturn

import numpy as np

from rtcore.clock import Clock
from rtcore.errors import EnvironmentFailed, PolicyError, RtcoreError, text_of
from rtcore.spaces.arrays import Array, ArraySpec
from rtcore.spaces.observation import ObservationSpec

#: A value may pass its bound by this many times the precision of its dtype: that is rounding.
_ROUNDINGS = 8
#: Checking frames may take at most 1 / this of the caller's time.
_CHECK_SHARE = 100


class OutOfBounds(NamedTuple):
    """Elements of an observation (or of one part of a Dict) that are outside the declared space."""

    part: str  #: "" for the observation of a Box
    elements: int
    of_elements: int
    where: tuple[int, ...]  #: of the first of them
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        of_part = f" of part {self.part!r}" if self.part else ""
        at = f"[{', '.join(map(str, self.where))}] = " if self.where else ""
        return (
            f"{self.elements} of {self.of_elements} elements{of_part} "
            f"({at}{self.value:g} where {self.low:g} to {self.high:g} is declared)"
        )


class _Bounded(NamedTuple):
    """An array whose elements have to be checked. `low`, `high`: the declared bounds, widened by rounding."""

    dtype: np.dtype[Any]
    part: str
    low: Array
    high: Array
    declared: tuple[Array, Array]


class DeclaredBounds:
    """The bounds that the space of a world declares for the numbers in its observations. NaN is outside every space.

    Frames may have axes in front (older frames). What cannot be outside, such as a uint8 pixel, is not read.
    """

    def __init__(self, observation: ObservationSpec) -> None:
        """`observation`: of one frame."""
        self._observation = observation
        specs: list[tuple[ArraySpec, str]] = [(part, part.name) for part in observation.parts]
        found = [_bounded(*each) for each in specs or [(observation, "")]]
        self._arrays = [each for each in found if each is not None]

    def breach(self, frame: Array) -> OutOfBounds | None:
        """What is outside its bounds in the first array where anything is; None if nothing is."""
        for array in self._arrays:
            values = self._values(frame, array.part)
            if _is_within(values, array.low, array.high):
                continue
            with np.errstate(invalid="ignore"):
                return _breach(array, values, ~((values >= array.low) & (values <= array.high)))
        return None

    def not_finite(self, frame: Array) -> OutOfBounds | None:
        """The first array in it with NaN or infinity, whatever is declared."""
        for array in self._arrays:
            if array.dtype.kind == "f":
                wrong = ~np.isfinite(self._values(frame, array.part))
                if wrong.any():
                    return _breach(array, self._values(frame, array.part), wrong)
        return None

    def refuse_not_finite(self, frame: Array, when: str) -> None:
        """EnvironmentFailed if a frame holds NaN or infinity. Called when a policy gave no finite action for it."""
        breach = self.not_finite(frame)
        if breach is not None:
            raise EnvironmentFailed(
                f"the world returned NaN or infinity {when}: {breach}; no action could be made of that. Correct the "
                "world's step() and reset(), or replace such numbers in a wrapper or in the policy (np.nan_to_num)"
            )

    def raise_culprit(self, error: Exception, frame: Array, when: str) -> NoReturn:
        """Raise the error of a failed inference, naming the world or the policy as its cause.

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
            f"the policy raised {text_of(error)} for the observation {when}. Where an inference may fail "
            "(a server that does not answer), --on-policy-error miss goes on without its action"
        ) from error

    def _values(self, frame: Array, part: str) -> Array:
        values: Array = self._observation.unpack(frame)[part] if part else frame
        return values


class ObservationCheck:
    """Checks frames against the bounds, as often as is cheap for the caller; counts them, reports the first fault."""

    def __init__(
        self,
        observation: ObservationSpec,
        clock: Clock,
        count: Callable[[str], object],
        report: Callable[[str], object],
    ) -> None:
        """`count` gets "checked_frames", and "frames_outside" too where one is; `report`, once, what is wrong."""
        self.bounds = DeclaredBounds(observation)
        self._clock = clock
        self._count = count
        self._report = report
        self._reported = False
        self._rest_until_ns = 0

    def check(self, frame: Array, tick: int, read_again: Callable[[], object] = lambda: None) -> None:
        """Check the frame of a tick; skipped while the time share of the last check is not used up.

        Args:
            frame: That a policy was given: it may have written to it.
            tick: Which tick's it is.
            read_again: Makes `frame` what the world returned, before the world is blamed.
        """
        start_ns = self._clock.now_ns()
        if start_ns < self._rest_until_ns:
            return
        breach = self.bounds.breach(frame)
        self._count("checked_frames")
        if breach is not None:
            read_again()
            breach = self.bounds.breach(frame)
        if breach is not None:
            self._count("frames_outside")
            if not self._reported:
                self._reported = True
                self._report(f"{breach} at tick {tick}")
        end_ns = self._clock.now_ns()
        self._rest_until_ns = end_ns + (end_ns - start_ns) * _CHECK_SHARE


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
    """The bound, moved outwards by what rounding may add."""
    with np.errstate(over="ignore"):
        wider: Array = bounds + direction * np.abs(bounds) * (_ROUNDINGS * np.finfo(bounds.dtype).eps)
    return np.where(np.isfinite(bounds), wider, bounds)


def _is_within(values: Array, low: Array, high: Array) -> bool:
    if low.ndim or high.ndim:
        return bool(((values >= low) & (values <= high)).all())
    # Compare two numbers, not arrays. min() and max() of an array with NaN are NaN, and no comparison with NaN is true.
    return bool(low <= values.min() and values.max() <= high)


def _breach(array: _Bounded, values: Array, wrong: Array) -> OutOfBounds:
    index = np.unravel_index(int(wrong.argmax()), wrong.shape)
    own = tuple(int(i) for i in index)
    lows, highs = (np.broadcast_to(bounds, values.shape) for bounds in array.declared)
    return OutOfBounds(
        part=array.part,
        elements=int(wrong.sum()),
        of_elements=values.size,
        where=own,
        value=float(values[index]),
        low=float(lows[index]),
        high=float(highs[index]),
    )
