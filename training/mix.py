"""Sector mix: a line through the ego cuts two examples; one side comes from an example, the other from the next one.

PolarMix (Xiao et al., NeurIPS 2022) cuts LiDAR scans into sectors of azimuth. Here the cut runs through maps from
above, so that cameras, radar, LiDAR and targets are cut alike: along rays of the sensors, in which occlusion happens.
"""

from __future__ import annotations

import numpy as np
import torch

from imkd_edge.evaluation.segmentation import centres
from imkd_edge.spec import GridSpec

MAPS = ("radar_grid", "lidar_grid", "heatmap", "box", "weight", "group", "label", "unlit", "vehicles", "labelled")


def draw_sector(rng: np.random.Generator, grid: GridSpec, probability: float) -> np.ndarray:  # (H,W) bool
    """Cells that an example keeps: all, or with `probability` those left of the line to a random point of the grid."""
    x, y = centres(grid)
    if rng.random() >= probability:
        return np.ones((len(y), len(x)), bool)
    angle = np.arctan2(rng.uniform(grid.y_min, grid.y_max), rng.uniform(grid.x_min, grid.x_max))
    return np.cos(angle) * y[:, None] - np.sin(angle) * x[None] >= 0


def mix_maps(
    maps: torch.Tensor,  # (B,...,H*n,W*n), n an integer
    sector: torch.Tensor,  # (B,H,W) bool
) -> torch.Tensor:  # as maps
    """Each example inside its sector, the next example of the batch outside."""
    ratio = maps.shape[-1] // sector.shape[-1]
    sector = sector.repeat_interleave(ratio, -2).repeat_interleave(ratio, -1)
    sector = sector.reshape(len(maps), *(1,) * (maps.ndim - 3), *sector.shape[-2:])
    return torch.where(sector, maps, maps.roll(-1, 0))


def mix_batch(batch: dict) -> dict:
    """Mixes the maps of a batch of data.collate that has a "sector"; Student.encode mixes lifted cameras."""
    if "sector" not in batch:
        return batch
    return {name: mix_maps(value, batch["sector"]) if name in MAPS else value for name, value in batch.items()}
