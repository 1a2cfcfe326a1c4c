"""Calibrators: from a tensor's histogram to amax, the largest value that its integers represent."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from imkd_edge.calibration.histogram import BINS, FISHER, PER_OCTAVE, PLAIN, Histogram
from imkd_edge.errors import Code, Error

FINE, SPAN = 32, 9  # ranges that are tried: so many per octave, so many octaves below the top
METHODS = ("fisher", "riac", "percentile", "mse", "max")
SENSITIVE = ("fisher", "riac")  # by the outputs' sensitivity


@dataclass(frozen=True)
class Method:
    """A calibrator and its settings.

    Args:
        name: fisher (least squared error, weighted by the outputs' sensitivity), riac (where the radar sees these count
            more), mse (unweighted), percentile, max.
        bits: 8, or fewer for a study: the integers stay int8 but use only so many levels.
        percentile: of |x|, zeros included, 0..100.
        equalise: fisher, riac: also scale the channels inside the parts, exact in float.
        share: riac: of the radar's map in the weight, 0..1; None: as large as the outputs' error allows.
        weight_bits: of the camera part's weights, which are most of a bundle; None: `bits`.
    """

    name: str = "fisher"
    bits: int = 8
    percentile: float = 99.99
    equalise: bool = True
    share: float | None = None
    weight_bits: int | None = None

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            fix = f"choose one of: {', '.join(METHODS)}"
            raise Error(Code.spec_bad_value, f"no calibrator {self.name!r}", "--method", fix)
        widths = self.bits, self.bits if self.weight_bits is None else self.weight_bits
        if not all(3 <= bits <= 8 for bits in widths) or not 0 < self.percentile <= 100:
            what = f"bits {widths[0]}, of weights {widths[1]}, percentile {self.percentile}"
            raise Error(Code.spec_bad_value, what, "method", "bits 3..8, percentile above 0, up to 100")
        if self.share is not None and not (self.name == "riac" and 0 <= self.share <= 1):
            what = f"a radar share of {self.share} for {self.name}"
            raise Error(Code.spec_bad_value, what, "--radar-share", "0 to 1, with --method riac")

    @property
    def sensitive(self) -> bool:
        """Whether errors are weighted by the outputs' sensitivity."""
        return self.name in SENSITIVE

    @property
    def levels(self) -> int:
        """The largest integer."""
        return 2 ** (self.bits - 1) - 1

    @property
    def weight_levels(self) -> int:
        """The largest integer of a weight."""
        return 2 ** ((self.weight_bits or self.bits) - 1) - 1

    def of_part(self, part: str) -> Method:
        """The method of "camera" or "bev"."""
        return self if part == "camera" else replace(self, weight_bits=None)


def solve(histogram: Histogram, method: Method) -> float:
    """amax of a tensor; 0 only where every value is 0."""
    if histogram.largest <= 0:
        return 0.0
    if method.name == "max":
        return histogram.largest
    if method.name == "percentile":
        return _percentile(histogram, method.percentile)
    row = FISHER if method.sensitive and histogram.counts[FISHER].any() else PLAIN
    total = errors(histogram, method.levels, row).sum(0)
    return min(float(ranges(histogram)[int(np.argmin(total))]), histogram.largest)


def _percentile(histogram: Histogram, percentile: float) -> float:
    counts = histogram.counts[PLAIN].sum(0)
    below = histogram.zeros + np.cumsum(counts)
    wanted = percentile / 100 * below[-1]
    first = int(np.searchsorted(below, wanted))
    missing = (below[first] - wanted) / counts[first] if counts[first] else 0.0  # share of the bin above it
    return min(float(histogram.edges()[first] * 2.0 ** (-missing / PER_OCTAVE)), histogram.largest)


def ranges(histogram: Histogram) -> np.ndarray:
    """(K,) the ranges that are tried, descending from the top."""
    return histogram.top * 2.0 ** (-np.arange(SPAN * FINE) / FINE)


def errors(histogram: Histogram, levels: int, row: int = FISHER) -> np.ndarray:
    """(C, K) weighted squared error of each channel under each of `ranges`."""
    return histogram.counts[row] @ _law(levels) * ranges(histogram) ** 2


def error_at(histogram: Histogram, levels: int, amax: np.ndarray) -> np.ndarray:
    """(C,) sensitivity-weighted squared error of each channel under its own range (C,)."""
    table, index = errors(histogram, levels), np.arange(histogram.channels)
    where = (FINE * np.log2(histogram.top / np.maximum(amax, 1e-30))).clip(0, SPAN * FINE - 1.001)
    low = where.astype(int)
    return table[index, low] * (1 - where + low) + table[index, low + 1] * (where - low)


def relative_error(histogram: Histogram, levels: int, amax: float) -> float:
    """Plain squared error under a range, by the square of the values."""
    table = errors(histogram, levels, PLAIN).sum(0)
    nearest = int(np.abs(np.log(ranges(histogram) / max(amax, 1e-30))).argmin()) if amax else 0
    return float(table[nearest] / max(histogram.counts[PLAIN].sum(0) @ histogram.edges() ** 2, 1e-30))


@lru_cache(maxsize=8)
def _law(levels: int) -> np.ndarray:
    """(BINS, K): mean squared error of a bin's values, by the square of the range, for each range."""
    octaves = (np.arange(BINS)[:, None] + (np.arange(16) + 0.5) / 16) / PER_OCTAVE - BINS / PER_OCTAVE
    ratio = 2.0 ** (octaves[:, None] + np.arange(SPAN * FINE)[:, None] / FINE)  # (BINS, K, 16): value by range
    return ((np.minimum(np.rint(ratio * levels), levels) / levels - ratio) ** 2).mean(2)
