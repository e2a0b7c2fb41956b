"""Histograms and named words in shared memory."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rtcore.memory.counters import Histogram, Words, bucket_bounds, bucket_of
from rtcore.memory.layout import ENV_STATUS, HISTOGRAM_BUCKETS, HISTOGRAM_BYTES, WORKER_CONTROL
from tests.support.drawn import examples

pytestmark = pytest.mark.unit

LIMIT = 2**42
samples = st.lists(
    st.one_of(st.integers(0, 300), st.integers(0, 10**9), st.integers(0, LIMIT - 1)), min_size=1, max_size=200
)


def filled(values):
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    return histogram.snapshot()


# -- buckets -----------------------------------------------------------------------------------------------------


@examples(300)
@given(st.integers(0, LIMIT - 1))
def test_every_value_lies_within_the_bounds_of_its_bucket(value):
    low, high = bucket_bounds(bucket_of(value))
    assert low <= value <= high
    assert high - low <= value / 128


def test_the_bounds_of_the_buckets_join_without_gap_or_overlap():
    upper = -1
    for bucket in range(HISTOGRAM_BUCKETS):
        low, high = bucket_bounds(bucket)
        assert low == upper + 1
        assert bucket_of(low) == bucket_of(high) == bucket
        upper = high
    assert upper == LIMIT - 1


def test_values_below_256_have_a_bucket_of_their_own():
    assert [bucket_bounds(bucket_of(value)) for value in range(256)] == [(value, value) for value in range(256)]
    assert bucket_bounds(bucket_of(256)) == (256, 257)


# -- percentiles -------------------------------------------------------------------------------------------------


@examples(150)
@given(values=samples, q=st.sampled_from([0.0, 0.25, 0.5, 0.9, 0.99, 1.0]))
def test_a_percentile_is_within_four_per_mille_of_numpys(values, q):
    exact = float(np.quantile(np.array(values), q, method="inverted_cdf"))
    assert filled(values).percentile(q) == pytest.approx(exact, rel=0.004)


@examples(100)
@given(values=st.lists(st.integers(0, 255), min_size=1, max_size=200), q=st.sampled_from([0.0, 0.1, 0.5, 0.99, 1.0]))
def test_a_percentile_below_256_is_exact(values, q):
    assert filled(values).percentile(q) == np.quantile(np.array(values), q, method="inverted_cdf")


@examples(100)
@given(samples)
def test_mean_spread_and_extremes_are_those_of_the_samples(values):
    shape, array = filled(values), np.array(values, dtype=np.float64)
    assert (shape.count, shape.min, shape.max) == (len(values), min(values), max(values))
    assert shape.mean == pytest.approx(array.mean())
    assert shape.std == pytest.approx(array.std(), rel=1e-6, abs=1e-6 * max(1.0, array.mean()))
    assert shape.buckets.sum() == len(values)


def test_an_empty_histogram_has_no_percentile_and_no_mean():
    shape = Histogram().snapshot()
    assert shape.count == 0
    assert math.isnan(shape.percentile(0.5))
    assert math.isnan(shape.mean)
    assert math.isnan(shape.cv)


def test_the_coefficient_of_variation_is_std_over_mean():
    assert filled([2, 4]).cv == pytest.approx(1 / 3)
    assert math.isnan(filled([0, 0]).cv)


def test_negative_values_count_as_nought_and_huge_ones_land_in_the_last_bucket():
    shape = filled([-5, LIMIT, LIMIT * 8])
    assert (shape.min, shape.max) == (0, LIMIT * 8)
    assert (shape.buckets[0], shape.buckets[-1]) == (1, 2)


# -- merging, clearing, sharing ----------------------------------------------------------------------------------


@examples(80)
@given(samples, samples)
def test_merged_is_what_both_together_would_have_given(first, second):
    merged, together = filled(first).merged(filled(second)), filled(first + second)
    assert (merged.count, merged.min, merged.max) == (together.count, together.min, together.max)
    assert (merged.buckets == together.buckets).all()
    assert merged.mean == pytest.approx(together.mean)
    assert merged.std == pytest.approx(together.std, rel=1e-6, abs=1e-5 * max(1.0, together.mean))


def test_merging_with_nothing_changes_nothing():
    some, none = filled([3, 9]), filled([])
    assert some.merged(none) is some
    assert none.merged(some) is some
    assert none.merged(none).count == 0


def test_a_histogram_starts_again_when_cleared():
    histogram = Histogram()
    for value in (7, 900, 10**9):
        histogram.add(value)
    histogram.clear()
    assert histogram.snapshot().count == 0
    histogram.add(5)
    shape = histogram.snapshot()
    assert (shape.count, shape.min, shape.max, shape.mean) == (1, 5, 5, 5.0)


def test_two_histograms_in_one_buffer_keep_to_their_own_bytes():
    buffer = memoryview(bytearray(2 * HISTOGRAM_BYTES))
    first, second = Histogram(buffer, 0), Histogram(buffer, HISTOGRAM_BYTES)
    first.add(1)
    second.add(LIMIT)
    again = Histogram(buffer, 0).snapshot()
    assert (again.count, again.max) == (1, 1)
    assert second.snapshot().count == 1


def test_a_snapshot_is_a_private_copy():
    histogram = Histogram()
    histogram.add(1)
    before = histogram.snapshot()
    histogram.add(1)
    assert (before.count, int(before.buckets[1])) == (1, 1)


# -- named words -------------------------------------------------------------------------------------------------


def test_words_are_read_and_written_by_name():
    buffer = memoryview(bytearray(2 * ENV_STATUS.num_bytes))
    words = Words(ENV_STATUS, buffer, ENV_STATUS.num_bytes)
    words["tick"] = 2**40
    words.add("tick")
    words.add("finished", 3)
    assert (words["tick"], words["finished"]) == (2**40 + 1, 3)
    assert words.to_dict() == dict.fromkeys(ENV_STATUS.fields, 0) | {"tick": 2**40 + 1, "finished": 3}
    assert not any(buffer[: ENV_STATUS.num_bytes])
    words.clear()
    assert not any(buffer)


def test_a_name_that_is_no_field_is_an_error():
    with pytest.raises(KeyError):
        Words(WORKER_CONTROL)["tick"]
