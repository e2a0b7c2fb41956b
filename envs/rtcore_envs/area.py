"""Area averaging of grey pictures to a smaller size, exact and without OpenCV.

Every output pixel is the mean of the input under its rectangle, rounded half up: what OpenCV calls
INTER_AREA (which rounds half to even). The work is done in float32 on whole numbers below 2**24, so sums
are exact in any order, and the result is the same on every machine and BLAS.
"""

from math import gcd

import numpy as np
from numpy.typing import NDArray


def _overlaps(num_in: int, num_out: int) -> NDArray[np.float32]:
    """Overlap of each input with each output pixel of one axis, (num_out, num_in) float32 whole numbers.

    In units of 1/num_out of an input pixel, an input pixel is num_out long and an output pixel num_in long.
    """
    in_edges = np.arange(num_in + 1) * num_out
    out_edges = np.arange(num_out + 1) * num_in
    low = np.maximum(in_edges[None, :-1], out_edges[:-1, None])
    high = np.minimum(in_edges[None, 1:], out_edges[1:, None])
    overlaps: NDArray[np.float32] = np.maximum(high - low, 0).astype(np.float32)
    return overlaps


class AreaResizer:
    """Shrinks (rows, columns) uint8 pictures of one fixed size to another.

    The pattern of overlaps repeats every ``gcd(in, out)``-th part of an axis, so both axes are products
    with one small matrix (for 144x160 to 84x84: 12 to 7 rows, 40 to 21 columns). Owns its buffers: one
    resizer per thread.

    Raises:
        ValueError: if a size is not positive or would grow, or if sums could exceed 2**24.
    """

    def __init__(self, in_shape: tuple[int, int], out_shape: tuple[int, int]) -> None:
        if any(not 0 < small <= large for large, small in zip(in_shape, out_shape, strict=True)):
            raise ValueError(f"got a resize from {in_shape} to {out_shape}, expected 0 < out <= in on both axes")
        row_parts, column_parts = (gcd(large, small) for large, small in zip(in_shape, out_shape, strict=True))
        rows_in, columns_in = in_shape[0] // row_parts, in_shape[1] // column_parts
        rows_out, columns_out = out_shape[0] // row_parts, out_shape[1] // column_parts
        self._divisor = np.float32(rows_in * columns_in)
        if 255.5 * rows_in * columns_in >= 2**24:
            raise ValueError(f"got a resize from {in_shape} to {out_shape}, expected sizes with a common divisor")
        self._row_weights = _overlaps(rows_in, rows_out)
        self._column_weights = np.ascontiguousarray(_overlaps(columns_in, columns_out).T)
        # Three buffers, each with the second view that the next product needs.
        self._source = np.empty(in_shape, np.float32)
        self._source_parts = self._source.reshape(row_parts, rows_in, in_shape[1])
        self._short_parts = np.empty((row_parts, rows_out, in_shape[1]), np.float32)
        self._short = self._short_parts.reshape(out_shape[0] * column_parts, columns_in)
        self._small_parts = np.empty((out_shape[0] * column_parts, columns_out), np.float32)
        self._small = self._small_parts.reshape(out_shape)

    def __call__(self, picture: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
        """Write the small picture into ``out``. ``picture`` may be any strided view; allocates nothing."""
        np.copyto(self._source, picture)
        np.matmul(self._row_weights, self._source_parts, out=self._short_parts)
        np.matmul(self._short, self._column_weights, out=self._small_parts)
        # Half up: adding half a divisor and dropping the fraction in the cast. The division is correctly
        # rounded, so whole quotients stay whole; a product with the reciprocal would not.
        np.add(self._small, self._divisor / 2, out=self._small)
        np.divide(self._small, self._divisor, out=self._small)
        np.copyto(out, self._small, casting="unsafe")
