"""Where radar saw something, and how strongly: weight maps over the radar grid, brought to the grid of any layer.

W = EMPTY + occupied + kappa * graded, with occupied = 1 where a cell holds returns and graded = occupied * (rank of its intensity, 0..1).
The maximum over a window is linear in kappa too, because both maps grow together, so one pass serves every kappa.
"""

from __future__ import annotations

import numpy as np

from imkd_edge.spec import ModelSpec

EMPTY = 0.02  # weight of a cell without returns
REACH = 2  # cells of the layer's own grid: the receptive field counts that far


def radar_maps(radar_grid: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Occupied and graded, (2, H, W) float32 in 0..1, of a radar grid (1, F, H, W); without any return every weight is 1."""
    names = [feature.statistic for feature in spec.radar.features]
    grid = radar_grid[0]
    occupied = (grid != 0).any(0)
    if not occupied.any():
        return np.stack([np.full(occupied.shape, 1 - EMPTY), np.zeros(occupied.shape)]).astype(np.float32)
    strength = grid[
        names.index("intensity_max" if "intensity_max" in names else "log_count" if "log_count" in names else names[0])
    ]
    graded = np.zeros(occupied.shape)
    graded[occupied] = ranks(strength[occupied])
    return np.stack([occupied, graded]).astype(np.float32)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value (N,) in 0..1; equal values share the mean of their ranks, a single value has 1."""
    if len(values) == 1:
        return np.ones(1)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse] / (len(values) - 1)


def resample(maps: np.ndarray, height: int, width: int, radius: int) -> np.ndarray:
    """Maps (K, H, W) on a layer's grid, (K, height, width): the largest weight within each cell and `radius` cells around it.

    A grid that does not divide the radar's has no places to weight: every weight is 1.
    """
    count, rows, columns = maps.shape
    if rows % height or columns % width:
        whole = np.zeros((count, height, width), maps.dtype)
        whole[::2] = 1 - EMPTY
        return whole
    pooled = maps.reshape(count, height, rows // height, width, columns // width).max((2, 4))
    return _dilate(_dilate(pooled, radius, 1), radius, 2)


def _dilate(maps: np.ndarray, radius: int, axis: int) -> np.ndarray:
    out = maps.copy()
    length = maps.shape[axis]
    for shift in range(1, min(radius, length - 1) + 1):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(0, length - shift), slice(shift, length)
        np.maximum(out[tuple(low)], maps[tuple(high)], out=out[tuple(low)])
        np.maximum(out[tuple(high)], maps[tuple(low)], out=out[tuple(high)])
    return out
