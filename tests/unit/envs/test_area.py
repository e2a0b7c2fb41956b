"""The resize against a slow exact one."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from rtcore_envs.area import AreaResizer

pytestmark = pytest.mark.unit


def exact_mean(picture, out_rows, out_columns):
    """Area means in rational arithmetic, rounded half up; written from the definition."""
    rows, columns = picture.shape
    row_step, column_step = Fraction(rows, out_rows), Fraction(columns, out_columns)

    def parts(index, step):
        low, high = index * step, (index + 1) * step
        return [(k, min(high, k + 1) - max(low, k)) for k in range(floor(low), floor(high) + 1) if k < high]

    out = np.empty((out_rows, out_columns), np.uint8)
    for i in range(out_rows):
        for j in range(out_columns):
            total = sum(
                int(picture[r, c]) * height * width
                for r, height in parts(i, row_step)
                for c, width in parts(j, column_step)
            )
            out[i, j] = floor(total / (row_step * column_step) + Fraction(1, 2))
    return out


@pytest.mark.parametrize(
    ("in_shape", "out_shape"),
    [((36, 80), (21, 42)), ((144, 160), (84, 84)), ((12, 40), (12, 40)), ((7, 5), (3, 2))],
)
@pytest.mark.parametrize("levels", [(0, 85, 153, 255), tuple(range(256))])
def test_resize_is_the_exact_area_mean(in_shape, out_shape, levels):
    picture = np.random.default_rng(1).choice(np.array(levels, np.uint8), in_shape)
    out = np.zeros(out_shape, np.uint8)
    AreaResizer(in_shape, out_shape)(picture, out)
    np.testing.assert_array_equal(out, exact_mean(picture, *out_shape))


@pytest.mark.parametrize("grey", [0, 1, 85, 153, 254, 255])
def test_one_grey_stays_that_grey(grey):
    out = np.zeros((84, 84), np.uint8)
    AreaResizer((144, 160), (84, 84))(np.full((144, 160), grey, np.uint8), out)
    assert (out == grey).all()


@pytest.mark.parametrize("out_shape", [(0, 4), (9, 4), (4, 9)])
def test_growing_and_empty_sizes_are_refused(out_shape):
    with pytest.raises(ValueError, match="expected 0 < out <= in"):
        AreaResizer((8, 8), out_shape)


def test_sizes_too_large_for_exact_sums_are_refused():
    with pytest.raises(ValueError, match="common divisor"):
        AreaResizer((1009, 1009), (1000, 1000))
