"""Draws places in proportion to their priorities: a sum tree. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Places = npt.NDArray[np.int64]


class Priorities:
    """A priority for each of a fixed number of places, 0 at first: such a place is never drawn.

    `newest`: the largest priority that was ever given, 1 before that. A place without a known priority gets it.
    """

    def __init__(self, num_places: int) -> None:
        self.newest = 1.0
        self._leaves = 1 << max(0, num_places - 1).bit_length()
        # Node i is the sum of nodes 2i and 2i + 1; the places are the last half.
        self._sums = np.zeros(2 * self._leaves)

    @property
    def total(self) -> float:
        """Sum of all priorities."""
        return float(self._sums[1])

    def set(self, places: Places, priorities: npt.NDArray[np.float64] | float) -> None:
        """Give places their priorities.

        Args:
            places: (n,) numbers from 0; of one that is there twice, the last counts.
            priorities: (n,), or one for all; finite, not negative.
        """
        if not len(places):
            return
        nodes = places + self._leaves
        self._sums[nodes] = priorities
        self.newest = max(self.newest, float(np.max(priorities)))
        while nodes[0] > 1:
            nodes = np.unique(nodes >> 1)
            self._sums[nodes] = self._sums[2 * nodes] + self._sums[2 * nodes + 1]

    def draw(self, count: int, rng: np.random.Generator) -> Places:
        """Places, each with the probability priority / total, with repetition.

        Args:
            count: How many.
            rng: What they are drawn by.

        Returns:
            (count,).

        Raises:
            ValueError: All priorities are 0.
        """
        if self.total <= 0:
            raise ValueError("no place has a priority above 0")
        places = self._fall(rng.random(count) * self.total)
        # Sums are rounded: a number at the edge of one may fall into a place that has no priority.
        while (wrong := np.flatnonzero(self._sums[places + self._leaves] <= 0)).size:
            places[wrong] = self._fall(rng.random(wrong.size) * self.total)
        return places

    def probability(self, places: Places) -> npt.NDArray[Any]:
        """Of each place, (n,) float64: how likely a draw is to be it."""
        return np.asarray(self._sums[places + self._leaves] / self._sums[1])

    def _fall(self, numbers: npt.NDArray[np.float64]) -> Places:
        """From the root down to a place: left if the number is below what is on the left, else right, less that."""
        nodes = np.ones(len(numbers), np.int64)
        for _ in range(self._leaves.bit_length() - 1):
            left = self._sums[2 * nodes]
            right = numbers >= left
            numbers = np.where(right, numbers - left, numbers)
            nodes = 2 * nodes + right
        return nodes - self._leaves
