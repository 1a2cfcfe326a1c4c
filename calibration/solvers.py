"""Calibrators: from a tensor's histogram to amax, the largest value that its integers represent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imkd_edge.calibration.histogram import ALL, GRADED, OCCUPIED, PLACEBO_GRADED, PLACEBO_OCCUPIED, Histogram
from imkd_edge.calibration.weights import EMPTY
from imkd_edge.errors import Code, Error

CANDIDATES = 160
LOWEST = 0.06  # lowest candidate over the largest value; below it a step of 8 bits is finer than a bin
GUARD = 0.9995  # share of the values in occupied cells that must not be clipped


@dataclass(frozen=True)
class Method:
    """A calibrator and its settings.

    Args:
        name: max, percentile, entropy, mse, occupancy (riac with kappa 0), riac, or placebo (riac with another frame's
            map).
        bits: 8, or fewer for a study: the integers stay int8 but use only so many levels.
        kappa: extra weight of the strongest return over the weakest, 0..1.
        percentile: of |x|, zeros included, 0..100.
    """

    name: str = "mse"  # no other was better on real data: quantization/README.md
    bits: int = 8
    kappa: float = 0.5
    percentile: float = 99.99

    def __post_init__(self) -> None:
        if self.name not in METHODS:
            fix = f"choose one of: {', '.join(METHODS)}"
            raise Error(Code.spec_bad_value, f"no calibrator {self.name!r}", "--method", fix)
        if not 3 <= self.bits <= 8 or not 0 <= self.kappa <= 1 or not 0 < self.percentile <= 100:
            what = f"bits {self.bits}, kappa {self.kappa}, percentile {self.percentile}"
            raise Error(Code.spec_bad_value, what, "method", "bits 3..8, kappa 0..1, percentile above 0, up to 100")

    @property
    def levels(self) -> int:
        """The largest integer."""
        return 2 ** (self.bits - 1) - 1


def solve(histogram: Histogram, method: Method) -> float:
    """amax of a tensor; 0 only where every value is 0."""
    return METHODS[method.name](histogram, method) if histogram.largest > 0 else 0.0


def _max(histogram: Histogram, method: Method) -> float:
    return histogram.largest


def _percentile(histogram: Histogram, method: Method) -> float:
    below = histogram.zeros + np.cumsum(histogram.counts[ALL])
    first = int(np.searchsorted(below, method.percentile / 100 * below[-1]))
    edge = (first + 1) * histogram.top / histogram.counts.shape[1]
    return float(min(edge, histogram.largest))


def _entropy(histogram: Histogram, method: Method) -> float:
    """The range whose quantized histogram diverges least from the clipped one (Migacz 2017); zeros are in bin 0."""
    counts = histogram.counts[ALL].reshape(-1, 2).sum(1)
    counts[0] += histogram.zeros
    levels, last = method.levels + 1, int(np.flatnonzero(counts)[-1]) + 1
    best, choice = np.inf, last
    for stop in [*range(levels, last, 8), last]:
        divergence = _divergence(counts, stop, min(levels, stop))
        if divergence < best:
            best, choice = divergence, stop
    return float(min(choice * histogram.top / len(counts), histogram.largest))


def _divergence(counts: np.ndarray, stop: int, levels: int) -> float:
    """Kullback-Leibler divergence of the counts clipped to `stop` bins from the same in `levels` levels."""
    clipped = counts[:stop].copy()
    clipped[-1] += counts[stop:].sum()
    level = np.arange(stop) * levels // stop
    occupied = (counts[:stop] > 0).astype(float)
    mean = np.bincount(level, counts[:stop], levels) / np.maximum(np.bincount(level, occupied, levels), 1)
    quantized = mean[level] * occupied
    p, q = clipped / clipped.sum(), quantized / max(quantized.sum(), 1e-300)
    positive = p > 0
    return float(np.sum(p[positive] * np.log(p[positive] / np.maximum(q[positive], 1e-12))))


def _mse(histogram: Histogram, method: Method) -> float:
    return least_squares(histogram, histogram.counts[ALL], method.levels)


def _riac(histogram: Histogram, method: Method, occupied: int = OCCUPIED, graded: int = GRADED) -> float:
    rows = histogram.rows()
    if not histogram.weighted or not rows[occupied].any():
        return _mse(histogram, method)
    best = least_squares(histogram, EMPTY * rows[ALL] + rows[occupied] + method.kappa * rows[graded], method.levels)
    return max(best, min(quantile(histogram, rows[occupied], GUARD), histogram.largest))


def _occupancy(histogram: Histogram, method: Method) -> float:
    return _riac(histogram, Method("riac", method.bits, 0.0))


def _placebo(histogram: Histogram, method: Method) -> float:
    return _riac(histogram, method, PLACEBO_OCCUPIED, PLACEBO_GRADED)


def least_squares(histogram: Histogram, counts: np.ndarray, levels: int) -> float:
    """The amax on a geometric grid with the least squared error of values with weighted counts (BINS,).

    Ties go to the larger one.
    """
    centers = histogram.centers()
    ranges = histogram.largest * np.geomspace(1, LOWEST, CANDIDATES)
    step = ranges[:, None] / levels
    error = (np.minimum(np.rint(centers / step), levels) * step - centers) ** 2 @ counts
    return float(ranges[int(np.argmin(error))])


def quantile(histogram: Histogram, counts: np.ndarray, share: float) -> float:
    """The upper edge of the bin with this quantile of values with weighted counts (BINS,)."""
    below = np.cumsum(counts)
    return float((int(np.searchsorted(below, share * below[-1])) + 1) * histogram.top / len(counts))


METHODS = {
    "max": _max,
    "percentile": _percentile,
    "entropy": _entropy,
    "mse": _mse,
    "occupancy": _occupancy,
    "riac": _riac,
    "placebo": _placebo,
}
