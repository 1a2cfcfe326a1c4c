"""Histograms of |x| by channel in logarithmic bins, counted plainly and weighted by the outputs' sensitivity."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

PER_OCTAVE, OCTAVES = 8, 15
BINS = PER_OCTAVE * OCTAVES  # the last one ends at `top`, a power of two; the first one holds all that is smaller
PLAIN, FISHER = range(2)
ROWS = 2
MOST = 150_000  # values of a tensor that are looked at where a sample of them is enough


@dataclass
class Histogram:
    """Of one tensor over frames. Zeros, exact in every format, have their own count.

    Args:
        channels: C.
    """

    channels: int
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (ROWS, C, BINS) float64
    highest: np.ndarray = field(default_factory=lambda: np.zeros(0))  # (C,) float64: the largest |x|
    top: float = 0.0
    zeros: float = 0.0

    def __post_init__(self) -> None:
        if not self.counts.size:
            self.counts = np.zeros((ROWS, self.channels, BINS))
            self.highest = np.zeros(self.channels)

    @property
    def largest(self) -> float:
        """Of all channels."""
        return float(self.highest.max())

    def add(
        self, values: np.ndarray, gradient: np.ndarray | None = None, sample: np.random.Generator | None = None
    ) -> None:
        """Counts the values of a frame.

        Args:
            values: (N, C, ...).
            gradient: of the probed outputs by the values; its square is the weight in FISHER.
            sample: draws MOST of the values; None: all are counted.
        """
        size = np.abs(values)
        highest = size.max(axis=tuple(i for i in range(size.ndim) if i != 1)).astype(np.float64)
        self.highest = np.maximum(self.highest, highest)
        if not highest.any():
            self.zeros += size.size
            return
        self._reach(float(2.0 ** np.ceil(np.log2(highest.max()))))
        flat, scale = size.ravel(), 1.0
        chosen = np.arange(flat.size)
        if sample is not None and flat.size > MOST:
            chosen, scale = sample.integers(flat.size, size=MOST), flat.size / MOST
        held = chosen[flat[chosen] > 0]
        self.zeros += scale * (len(chosen) - len(held))
        per_channel = size[0, 0].size
        bins = (PER_OCTAVE * (np.log2(flat[held] / np.float32(self.top)) + OCTAVES)).astype(np.int64)
        index = held // per_channel % self.channels * BINS + bins.clip(0, BINS - 1)
        rows = {PLAIN: None, FISHER: None if gradient is None else gradient.ravel()[held].astype(np.float64) ** 2}
        for row, weights in rows.items():
            if row == PLAIN or weights is not None:
                counts = np.bincount(index, weights, self.counts[row].size)
                self.counts[row] += scale * counts.reshape(self.channels, BINS)

    def _reach(self, top: float) -> None:
        """Moves the counts down to make room for values up to `top`, a power of two."""
        if self.top and top > self.top:
            shift = min(PER_OCTAVE * round(np.log2(top / self.top)), BINS)
            moved = np.zeros_like(self.counts)
            moved[..., : BINS - shift] = self.counts[..., shift:]
            moved[..., 0] += self.counts[..., :shift].sum(-1)
            self.counts = moved
        self.top = max(self.top, top)

    def __add__(self, other: Histogram) -> Histogram:
        """The channels of both side by side."""
        parts = [Histogram(h.channels, h.counts, h.highest, h.top, h.zeros) for h in (self, other)]
        for part in parts:
            part._reach(max(self.top, other.top))
        counts, highest = (np.concatenate([getattr(p, name) for p in parts], axis) for name, axis in _CHANNEL_AXES)
        return Histogram(self.channels + other.channels, counts, highest, parts[0].top, self.zeros + other.zeros)

    def edges(self) -> np.ndarray:
        """(BINS,) float64: |x| at the upper end of each bin."""
        return self.top * 2.0 ** ((np.arange(BINS) + 1) / PER_OCTAVE - OCTAVES)

    def power(self) -> np.ndarray:
        """(C,) mean square of the values."""
        centers = self.edges() * 2.0 ** (-0.5 / PER_OCTAVE)
        size = (self.counts[PLAIN].sum() + self.zeros) / self.channels
        return self.counts[PLAIN] @ centers**2 / max(size, 1.0)


_CHANNEL_AXES = (("counts", 1), ("highest", 0))
