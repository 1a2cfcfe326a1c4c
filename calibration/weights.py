"""Weight maps over the radar grid, from where the returns are and how strong, resampled to the grid of any layer.

W = EMPTY + occupied + kappa * graded, with occupied = 1 where a cell has returns and graded = occupied * (rank of its
intensity, 0..1). The maximum over a window is linear in kappa too, because both maps grow together: one pass serves
every kappa.
"""

from __future__ import annotations

import numpy as np

from imkd_edge.spec import ModelSpec

EMPTY = 0.02  # weight of a cell without returns
REACH = 2  # largest radius of a receptive field that counts, in cells of the layer's grid


def radar_maps(radar_grid: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """Occupied and graded, (2, H, W) float32 in 0..1, of a radar grid (1, F, H, W).

    Without a return every weight is 1.
    """
    names = [feature.statistic for feature in spec.radar.features]
    grid = radar_grid[0]
    occupied = (grid != 0).any(0)
    if not occupied.any():
        return np.stack([np.full(occupied.shape, 1 - EMPTY), np.zeros(occupied.shape)]).astype(np.float32)
    statistic = next((name for name in ("intensity_max", "log_count") if name in names), names[0])
    strength = grid[names.index(statistic)]
    graded = np.zeros(occupied.shape)
    graded[occupied] = ranks(strength[occupied])
    return np.stack([occupied, graded]).astype(np.float32)


def ranks(values: np.ndarray) -> np.ndarray:
    """Rank of each value (N,) in 0..1; equal values have the mean of their ranks, a single value has rank 1."""
    if len(values) == 1:
        return np.ones(1)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - counts + last - 1) / 2)[inverse] / (len(values) - 1)


def resample(maps: np.ndarray, height: int, width: int, radius: int) -> np.ndarray:
    """Maps (K, H, W) on a layer's grid, (K, height, width): the largest weight within `radius` cells of each cell.

    Where the layer's grid does not divide the radar's, every weight is 1.
    """
    count, rows, columns = maps.shape
    if rows % height or columns % width:
        whole = np.zeros((count, height, width), maps.dtype)
        whole[::2] = 1 - EMPTY
        return whole
    pooled = maps.reshape(count, height, rows // height, width, columns // width).max((2, 4))
    return _dilate(_dilate(pooled, radius, 1), radius, 2)


def _dilate(maps: np.ndarray, radius: int, axis: int) -> np.ndarray:
    """The maximum within `radius` cells along one axis."""
    out = maps.copy()
    length = maps.shape[axis]
    for shift in range(1, min(radius, length - 1) + 1):
        low, high = [slice(None)] * 3, [slice(None)] * 3
        low[axis], high[axis] = slice(0, length - shift), slice(shift, length)
        np.maximum(out[tuple(low)], maps[tuple(high)], out=out[tuple(low)])
        np.maximum(out[tuple(high)], maps[tuple(low)], out=out[tuple(high)])
    return out
