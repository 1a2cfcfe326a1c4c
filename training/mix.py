"""Sector mix: on one side of a line through the ego an example is itself, on the other it is the next one of its batch.

PolarMix (Xiao et al., NeurIPS 2022) cuts LiDAR scans in sectors of azimuth; here the maps are cut, seen from above, so that cameras, radar,
LiDAR and targets are cut at one place: along rays of the sensors, where what stands before hides what stands behind.
"""

from __future__ import annotations

import numpy as np
import torch

from imkd_edge.evaluation.segmentation import centres
from imkd_edge.spec import GridSpec

MAPS = ("radar_grid", "lidar_grid", "heatmap", "box", "weight", "group", "label", "unlit", "vehicles")


def draw_own(rng: np.random.Generator, grid: GridSpec, probability: float) -> np.ndarray:  # (H,W) bool
    """The cells where an example stays itself: all, or with this probability those left of the line to a random place of the grid."""
    x, y = centres(grid)
    if rng.random() >= probability:
        return np.ones((len(y), len(x)), bool)
    angle = np.arctan2(rng.uniform(grid.y_min, grid.y_max), rng.uniform(grid.x_min, grid.x_max))
    return np.cos(angle) * y[:, None] - np.sin(angle) * x[None] >= 0


def mixed(maps: torch.Tensor, own: torch.Tensor) -> torch.Tensor:  # (B,...,H*n,W*n), (B,H,W) bool -> as maps
    """Each example where it is itself, the next of the batch elsewhere; a map may be finer than the mask by a whole number."""
    ratio = maps.shape[-1] // own.shape[-1]
    own = own.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)
    own = own.reshape(len(maps), *(1,) * (maps.ndim - 3), *own.shape[-2:])
    return torch.where(own, maps, maps.roll(-1, 0))


def mix_batch(batch: dict) -> dict:
    """Mixes the maps of a batch of data.collate that has `own`; what the cameras see is mixed when it has been lifted (Student.sense)."""
    if "own" not in batch:
        return batch
    return {name: mixed(value, batch["own"]) if name in MAPS else value for name, value in batch.items()}
