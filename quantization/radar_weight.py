"""Radar-intensity-aware calibration: errors of the outputs weigh more where the radar sees, by its intensity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import cv2
import numpy as np

from imkd_edge.calibration.collect import Collection
from imkd_edge.calibration.histogram import FISHER, Histogram
from imkd_edge.evaluation.fidelity import REACH
from imkd_edge.spec import ModelSpec

ELSEWHERE = 0.02  # of the map, where the radar sees nothing
OWN, MIRRORED, ANOTHER = KINDS = ("own", "mirrored", "another")  # the last two are placebos


def radar_map(spec: ModelSpec, radar_grid: np.ndarray) -> np.ndarray:
    """Where the radar sees the ground: 0.5 near its weakest return, 1 near its strongest, ELSEWHERE far from any.

    Args:
        spec: of the model; without the statistic intensity_max every return counts as the strongest.
        radar_grid: (1, F, H, W) of a Detector, or (F, H, W).

    Returns:
        (height, width) float32 on the output grid. A cell takes the highest value within REACH cells.
    """
    grid = radar_grid.reshape(-1, *radar_grid.shape[-2:])
    occupied = (grid != 0).any(0)
    values = np.where(occupied, 1.0, ELSEWHERE).astype(np.float32)
    names = [feature.statistic for feature in spec.radar.features]
    if "intensity_max" in names and occupied.any():
        found = grid[names.index("intensity_max")][occupied]
        rank = np.searchsorted(np.sort(found), found) / max(len(found) - 1, 1)  # of equal ones the lowest
        values[occupied] = 0.5 + 0.5 * rank
    height, width = spec.grid.height(), spec.grid.width()
    ratio = values.shape[0] // height
    values = values.reshape(height, ratio, width, ratio).max((1, 3))
    return cv2.dilate(values, np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8))


class RadarWeight:
    """The map of each frame; a placebo takes it mirrored at the ego's axis, or that of the frame before.

    Args:
        kind: one of KINDS.
        share: of the map, 0..1; the rest of the weight is the same everywhere.
    """

    def __init__(self, spec: ModelSpec, kind: str = OWN, share: float = 1.0) -> None:
        self.kind, self._spec, self._share = kind, spec, share
        self._before: np.ndarray | None = None

    def __call__(self, tensors: Mapping[str, np.ndarray], highest: np.ndarray) -> np.ndarray:
        """(height, width) weight of a squared error; the expected objects weigh 1 on average.

        Args:
            tensors: of a Detector after the frame.
            highest: (height, width) probability of an object.
        """
        own = radar_map(self._spec, tensors["radar_grid"])
        before, self._before = self._before, own
        weight = {OWN: own, MIRRORED: own[::-1], ANOTHER: own[::-1] if before is None else before}[self.kind]
        return (1 - self._share) + self._share * normalised(weight, highest)


def normalised(weight: np.ndarray, highest: np.ndarray) -> np.ndarray:
    """A weight (H, W) scaled so that its mean, weighted by `highest` (H, W), is 1."""
    return weight * (highest.sum() / max((weight * highest).sum(), 1e-12))


def blend(plain: Collection, radar: Collection, share: float) -> Collection:
    """The sensitivity that weighs an error by (1 - share) + share * map: squares of gradients add up.

    Args:
        plain, radar: of the same frames, without and with a RadarWeight.
        share: 0..1; 0 gives the bits of `plain`.
    """

    def mixed(a, b):
        return (1 - share) * a + share * b

    def histogram(a: Histogram, b: Histogram) -> Histogram:
        counts = a.counts.copy()
        counts[FISHER] = mixed(a.counts[FISHER], b.counts[FISHER])
        return replace(a, counts=counts)

    histograms = {key: histogram(h, radar.histograms[key]) for key, h in plain.histograms.items()}
    layers = {key: mixed(squares, radar.layers[key]) for key, squares in plain.layers.items()}
    return replace(plain, histograms=histograms, layers=layers)
