"""Histograms of |x| under several weights, from one pass over values whose range is not known in advance."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096  # the top is a power of two: at least half of the bins are below the largest value
ALL, OCCUPIED, GRADED, PLACEBO_OCCUPIED, PLACEBO_GRADED = range(5)
ROWS = 5


@dataclass
class Histogram:
    """Counts of |x| > 0 in equal bins from 0 to `top`; zeros, exact in every format, have their own count."""

    weighted: bool  # False: the tensor does not depend on radar and every weight is 1
    counts: np.ndarray = field(default_factory=lambda: np.zeros((ROWS, BINS)))  # (ROWS, BINS) float64, rows as above
    top: float = 0.0
    largest: float = 0.0
    zeros: float = 0.0

    def add(self, values: np.ndarray, maps: np.ndarray | None = None) -> None:
        """Counts the values of a tensor.

        Args:
            values: (1, C, H, W), or any shape without maps.
            maps: (4, H, W), the weights of the rows after ALL.
        """
        size = np.abs(values)
        largest = float(size.max(initial=0.0))
        nonzero = np.count_nonzero(size)
        self.zeros += size.size - nonzero
        if not nonzero:
            return
        self._grow_to(largest)
        self.largest = max(self.largest, largest)
        index = np.minimum((size * np.float32(BINS / self.top)).astype(np.int32), BINS - 1)
        index[size == 0] = BINS  # an extra bin, discarded
        self.counts[ALL] += np.bincount(index.ravel(), minlength=BINS + 1)[:BINS]
        if maps is not None and self.weighted:
            for row, weights in enumerate(maps, 1):
                self._add_weighted(row, index[0], weights)

    def _add_weighted(self, row: int, index: np.ndarray, weights: np.ndarray) -> None:
        positive = weights > 0
        bins = index[:, positive]  # (C, cells)
        broadcast = np.broadcast_to(weights[positive], bins.shape)
        self.counts[row] += np.bincount(bins.ravel(), broadcast.ravel(), BINS + 1)[:BINS]

    def _grow_to(self, largest: float) -> None:
        """Doubles the range, merging pairs of bins, until it includes the value."""
        if self.top == 0:
            self.top = float(2.0 ** np.ceil(np.log2(largest)))
        while self.top < largest:
            merged = self.counts.reshape(ROWS, BINS // 2, 2).sum(2)
            self.counts = np.concatenate([merged, np.zeros((ROWS, BINS // 2))], 1)
            self.top *= 2

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both tensors' values."""
        total = Histogram(self.weighted or other.weighted, zeros=self.zeros + other.zeros)
        for part in (self, other):
            if part.top:
                total._grow_to(part.largest)
                total.largest = max(total.largest, part.largest)
        for part in (self, other):
            if part.top:
                ratio = round(total.top / part.top)
                bins = max(1, BINS // ratio)
                counts = part.rows() if total.weighted else part.counts
                total.counts[:, :bins] += counts.reshape(ROWS, bins, -1).sum(2)
        return total

    def rows(self) -> np.ndarray:
        """(ROWS, BINS); every weight is 1 where the tensor does not depend on radar."""
        if self.weighted:
            return self.counts
        rows = np.zeros_like(self.counts)
        rows[[ALL, OCCUPIED, PLACEBO_OCCUPIED]] = self.counts[ALL]
        return rows

    def centers(self) -> np.ndarray:
        """(BINS,) float64: |x| at the centre of each bin."""
        return (np.arange(BINS) + 0.5) * (self.top / BINS)
