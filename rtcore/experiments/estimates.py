"""What several seeds come to: a mean or an interquartile mean, with the 95% interval of a bootstrap over the seeds.

A value is what one seed came to (the mean return of its episodes). The interval is the percentile bootstrap's of
`scipy.stats.bootstrap`, always drawn with the same random numbers: the same values give the same interval, bit for bit.
Of few seeds such intervals are too short: of normal values 95% ones hold the true mean in about 84% of the cases with 5
seeds, in 89% with 10, in 93% with 20.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from rtcore.host.extras import import_extra

By = Literal["mean", "iqm"]
#: What one seed came to, by seed.
Values = Mapping[int, float]

#: How sure an interval is.
CONFIDENCE = 0.95
_RESAMPLES = 9_999
#: Resamples at a time: those of a curve take a hundred times the memory of one value.
_BATCH = 1_000
#: Left out at each end by the interquartile mean.
_QUARTER = 0.25


class Estimate(NamedTuple):
    """A value with its interval; NaN where there is none: no seed, and no interval of a single one."""

    value: float
    low: float
    high: float
    num_seeds: int

    @property
    def has_interval(self) -> bool:
        return not math.isnan(self.low)


NONE = Estimate(math.nan, math.nan, math.nan, 0)


def estimate(values: Values, by: By = "mean") -> Estimate:
    """What these seeds come to.

    Args:
        values: By seed; their order does not matter.
        by: The mean, or the mean of the middle half.
    """
    return _bootstrap([_ordered(values)], by)


def difference(first: Values, second: Values, by: By = "mean") -> Estimate:
    """`first` less `second`.

    Where both have the same seeds, seed by seed: what a seed has in common (its episodes) does not widen the interval.
    Else they are drawn independently of each other, and `num_seeds` is that of the smaller one.
    """
    if first.keys() == second.keys():
        return estimate({seed: first[seed] - second[seed] for seed in first}, by)
    return _bootstrap([_ordered(first), _ordered(second)], by)


def band(curves: npt.NDArray[np.float64], by: By = "mean") -> tuple[npt.NDArray[np.float64], ...]:
    """Value, low and high at each point of curves, shape (seeds, points): each an array of all points."""
    centre = _centre_of(by)
    values = centre(curves, 0)
    if len(curves) < 2:
        return values, np.full_like(values, math.nan), np.full_like(values, math.nan)
    low, high = _interval([curves], centre, axis=0)
    return values, low, high


def _ordered(values: Values) -> npt.NDArray[np.float64]:
    return np.array([values[seed] for seed in sorted(values)], np.float64)


def _bootstrap(samples: Sequence[npt.NDArray[np.float64]], by: By) -> Estimate:
    num_seeds = min(len(sample) for sample in samples)
    if num_seeds == 0:
        return NONE
    centre = _centre_of(by)

    def statistic(*parts: npt.NDArray[np.float64], axis: int = -1) -> Any:
        first, *others = (centre(part, axis) for part in parts)
        return first - others[0] if others else first

    value = float(statistic(*samples))
    if num_seeds < 2:
        return Estimate(value, math.nan, math.nan, num_seeds)
    low, high = _interval(samples, statistic, axis=-1)
    return Estimate(value, float(low), float(high), num_seeds)


def _interval(samples: Sequence[npt.NDArray[np.float64]], statistic: Any, *, axis: int) -> tuple[Any, Any]:
    found = _scipy_stats().bootstrap(
        samples,
        statistic,
        n_resamples=_RESAMPLES,
        batch=_BATCH,
        axis=axis,
        confidence_level=CONFIDENCE,
        method="percentile",
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    return found.confidence_interval.low, found.confidence_interval.high


def _centre_of(by: By) -> Any:
    if by == "mean":
        return lambda values, axis: np.mean(values, axis=axis)
    return lambda values, axis: _scipy_stats().trim_mean(values, _QUARTER, axis=axis)


def _scipy_stats() -> Any:
    """It takes a second to import."""
    return import_extra("scipy.stats", "rtcore-sweep report", "sweep")
