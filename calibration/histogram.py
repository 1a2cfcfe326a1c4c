"""Histograms of |x| under several weights at once, in one pass over the values and without knowing their range beforehand."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

BINS = 4096  # the top is a power of two, so at least half of them lie below the largest value
ALL, OCCUPIED, GRADED, PLACEBO_OCCUPIED, PLACEBO_GRADED = range(5)
ROWS = 5


@dataclass
class Histogram:
    """Counts of |x| > 0 in equal bins from 0 to `top`; zeros are exact in every format and are only counted."""

    weighted: bool  # false: of a tensor that radar does not reach; every weight is 1
    counts: np.ndarray = field(default_factory=lambda: np.zeros((ROWS, BINS)))  # (ROWS, BINS) float64, rows as above
    top: float = 0.0
    largest: float = 0.0
    zeros: float = 0.0

    def add(self, values: np.ndarray, maps: np.ndarray | None = None) -> None:
        """Counts a tensor (1, C, H, W) or of any shape without maps; maps (4, H, W): the weights of the rows after ALL."""
        size = np.abs(values)
        largest = float(size.max(initial=0.0))
        nonzero = np.count_nonzero(size)
        self.zeros += size.size - nonzero
        if not nonzero:
            return
        self._reach(largest)
        self.largest = max(self.largest, largest)
        index = np.minimum((size * np.float32(BINS / self.top)).astype(np.int32), BINS - 1)
        index[size == 0] = BINS  # a bin that is cut off
        self.counts[ALL] += np.bincount(index.ravel(), minlength=BINS + 1)[:BINS]
        if maps is not None and self.weighted:
            for row, weights in enumerate(maps, 1):
                self._add_weighted(row, index[0], weights)

    def _add_weighted(self, row: int, index: np.ndarray, weights: np.ndarray) -> None:
        where = weights > 0
        chosen = index[:, where]  # (C, cells)
        spread = np.broadcast_to(weights[where], chosen.shape)
        self.counts[row] += np.bincount(chosen.ravel(), spread.ravel(), BINS + 1)[:BINS]

    def _reach(self, largest: float) -> None:
        """Doubles the range, two bins becoming one, until it holds the value."""
        if self.top == 0:
            self.top = float(2.0 ** np.ceil(np.log2(largest)))
        while self.top < largest:
            self.counts = np.concatenate(
                [self.counts.reshape(ROWS, BINS // 2, 2).sum(2), np.zeros((ROWS, BINS // 2))], 1
            )
            self.top *= 2

    def __add__(self, other: Histogram) -> Histogram:
        """The histogram of both tensors' values."""
        total = Histogram(self.weighted or other.weighted, zeros=self.zeros + other.zeros)
        for part in (self, other):
            if part.top:
                total._reach(part.largest)
                total.largest = max(total.largest, part.largest)
        for part in (self, other):
            if part.top:
                ratio = round(total.top / part.top)
                kept = max(1, BINS // ratio)
                counts = part.rows() if total.weighted else part.counts
                total.counts[:, :kept] += counts.reshape(ROWS, kept, -1).sum(2)
        return total

    def rows(self) -> np.ndarray:
        """(ROWS, BINS) with weight 1 in every weighted row of a tensor that radar does not reach."""
        if self.weighted:
            return self.counts
        rows = np.zeros_like(self.counts)
        rows[[ALL, OCCUPIED, PLACEBO_OCCUPIED]] = self.counts[ALL]
        return rows

    def centers(self) -> np.ndarray:
        """(BINS,) float64: the |x| that each bin stands for."""
        return (np.arange(BINS) + 0.5) * (self.top / BINS)
