"""Counters and histograms in shared memory: one writer each, read by anybody at any time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rtcore._tick import compiled
from rtcore.memory.layout import (
    HISTOGRAM_BUCKETS,
    HISTOGRAM_BYTES,
    HISTOGRAM_HEAD_WORDS,
    HISTOGRAM_SUB_BITS,
    WORD_BYTES,
    Record,
)
from rtcore.memory.stores import IndexedWords, ordered_words

_SUB = 1 << HISTOGRAM_SUB_BITS
_COUNT, _SUM, _SUM_SQ, _MIN, _MAX = range(5)


def bucket_of(value: int) -> int:
    """Log-linear: exact below 256, then 128 buckets an octave (0.8% wide)."""
    if value < _SUB:
        return value
    shift = value.bit_length() - HISTOGRAM_SUB_BITS - 1
    return min(HISTOGRAM_BUCKETS - 1, (shift << HISTOGRAM_SUB_BITS) + (value >> shift))


def bucket_bounds(bucket: int) -> tuple[int, int]:
    """The smallest and largest value that `bucket` holds."""
    if bucket < 2 * _SUB:
        return bucket, bucket
    shift = (bucket >> HISTOGRAM_SUB_BITS) - 1
    low = (bucket - (shift << HISTOGRAM_SUB_BITS)) << shift
    return low, low + (1 << shift) - 1


@dataclass(frozen=True)
class Distribution:
    """A snapshot of a histogram. Percentiles are exact below 256, else within 0.4%."""

    count: int
    mean: float
    std: float
    min: int
    max: int
    buckets: npt.NDArray[np.int64]

    def percentile(self, q: float) -> float:
        """The value a share `q` (0..1) of the samples does not exceed; NaN of none."""
        if self.count == 0:
            return math.nan
        rank = max(1, math.ceil(q * self.count))
        bucket = int(np.searchsorted(np.cumsum(self.buckets), rank))
        low, high = bucket_bounds(min(bucket, HISTOGRAM_BUCKETS - 1))
        return float(min(max((low + high) / 2, self.min), self.max))

    @property
    def cv(self) -> float:
        """Coefficient of variation, std / mean; NaN of none."""
        return self.std / self.mean if self.count and self.mean else math.nan

    def merged(self, other: Distribution) -> Distribution:
        """Both together."""
        if other.count == 0 or self.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        mean = (self.count * self.mean + other.count * other.mean) / count
        square = sum(d.count * (d.std**2 + d.mean**2) for d in (self, other)) / count
        return Distribution(
            count=count,
            mean=mean,
            std=math.sqrt(max(0.0, square - mean**2)),
            min=min(self.min, other.min),
            max=max(self.max, other.max),
            buckets=self.buckets + other.buckets,
        )


class Histogram:
    """Non-negative integers (nanoseconds, ticks) counted in shared or private memory.

    `add` costs well under a microsecond and allocates nothing that stays. Negative values count as 0, values
    of 2**42 and more land in the last bucket.
    """

    def __init__(self, buffer: memoryview | None = None, offset: int = 0) -> None:
        view = memoryview(bytearray(HISTOGRAM_BYTES)) if buffer is None else buffer
        part = view[offset : offset + HISTOGRAM_BYTES]
        self._words = part.cast("q")
        self._floats = part[: WORD_BYTES * HISTOGRAM_HEAD_WORDS].cast("d")
        if compiled is not None:
            self.add = compiled.Words(part).sample  # type: ignore[method-assign]

    def add(self, value: int) -> None:
        # Not max(): the call takes longer than the comparison.
        if value < 0:  # noqa: PLR1730
            value = 0
        words = self._words
        if words[_COUNT] == 0 or value < words[_MIN]:
            words[_MIN] = value
        if value > words[_MAX]:  # noqa: PLR1730
            words[_MAX] = value
        words[_SUM] += value
        self._floats[_SUM_SQ] += float(value) * value
        words[HISTOGRAM_HEAD_WORDS + bucket_of(value)] += 1
        words[_COUNT] += 1

    def totals(self) -> tuple[int, int]:
        """How many samples there were, and their sum: cheaper than a snapshot."""
        return self._words[_COUNT], self._words[_SUM]

    def clear(self) -> None:
        np.frombuffer(self._words, dtype=np.int64)[:] = 0

    def snapshot(self) -> Distribution:
        """A private copy; a sample being added meanwhile may be missing in part of it."""
        words = np.array(self._words, dtype=np.int64)
        buckets = words[HISTOGRAM_HEAD_WORDS:]
        count = int(buckets.sum())
        if count == 0:
            return Distribution(count=0, mean=math.nan, std=math.nan, min=0, max=0, buckets=buckets)
        mean = int(words[_SUM]) / count
        variance = max(0.0, float(self._floats[_SUM_SQ]) / count - mean**2)
        return Distribution(
            count=count, mean=mean, std=math.sqrt(variance), min=int(words[_MIN]), max=int(words[_MAX]), buckets=buckets
        )


class Words:
    """Named 8-byte integers of one record, by a cast memoryview (10x faster than structured scalars)."""

    def __init__(self, record: Record[Any], buffer: memoryview | None = None, offset: int = 0) -> None:
        view = memoryview(bytearray(record.num_bytes)) if buffer is None else buffer
        self.record = record
        part = view[offset : offset + record.num_bytes]
        self.words: IndexedWords = ordered_words(part)
        self._floats = part.cast("d")
        self._index = record.index

    def __getitem__(self, field: str) -> int:
        return self.words[self._index[field]]

    def __setitem__(self, field: str, value: int) -> None:
        self.words[self._index[field]] = value

    def float_of(self, field: str) -> float:
        """One of the record's `floats`."""
        return self._floats[self.record.index[field]]

    def set_float(self, field: str, value: float) -> None:
        self._floats[self.record.index[field]] = value

    def add(self, field: str, delta: int = 1) -> None:
        self.words[self._index[field]] += delta

    def clear(self) -> None:
        for index in range(len(self._index)):
            self.words[index] = 0

    def to_dict(self) -> dict[str, int]:
        return {field: self.words[index] for field, index in self.record.index.items()}
