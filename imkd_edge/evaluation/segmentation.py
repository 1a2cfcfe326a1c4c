"""Vehicle segmentation on the ground, measured as intersection over union.

The protocol is that of Cross-View Transformers with its visibility mask (Zhou & Krähenbühl, CVPR 2022;
bradyz/cross_view_transformers, metrics.py): that of Lift, Splat, Shoot (Philion & Fidler, ECCV 2020) less hidden
vehicles.

- 100 m x 100 m around the ego, 200 x 200 cells of 0.5 m; a cell is a vehicle's where the probability is at least 0.5.
- Vehicles are VEHICLES together, as the footprints of their labelled boxes.
- Cells of vehicles that are less than 40 % visible count neither as hit nor as error; with unknown visibility they
  count.
- One ratio over all samples: the sum of the intersections by the sum of the unions.

Ours: a footprint is the cells whose centres lie in it (the reference fills polygons with rounded corners); logits of a
network with other cells are interpolated bilinearly at the centres of the protocol's; background lies beyond its grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from imkd_edge.sources.base import HIDDEN, Truth
from imkd_edge.spec import GridSpec

VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle", "motorcycle", "bicycle")
GRID = GridSpec(x_min=-50.0, x_max=50.0, y_min=-50.0, y_max=50.0, cell=0.5)


def centres(grid: GridSpec) -> tuple[np.ndarray, np.ndarray]:
    """x (W,) and y (H,) of the cells' centres, m."""
    x = grid.x_min + (np.arange(grid.width()) + 0.5) * grid.cell
    y = grid.y_min + (np.arange(grid.height()) + 0.5) * grid.cell
    return x, y


def footprints(boxes: np.ndarray, grid: GridSpec) -> np.ndarray:  # boxes (M, 9) -> (H, W) bool
    """Cells whose centres lie in the footprint of a box (its border included); boxes as in Truth."""
    x, y = centres(grid)
    inside = np.zeros((len(y), len(x)), bool)
    for cx, cy, _, length, width, _, yaw, *_ in np.asarray(boxes, float):
        c, s = np.cos(yaw), np.sin(yaw)
        dx, dy = x[None] - cx, y[:, None] - cy
        inside |= (np.abs(c * dx + s * dy) <= length / 2) & (np.abs(c * dy - s * dx) <= width / 2)
    return inside


def vehicle_map(truth: Truth, grid: GridSpec, vehicles: Sequence[str] = VEHICLES) -> np.ndarray:  # (H, W) float32
    """1 in the footprint of a vehicle, 0 elsewhere, nan in that of a hidden vehicle, where nothing counts."""
    is_vehicle = np.array([label in vehicles for label in truth.labels], bool)
    hidden = np.asarray(truth.occlusion) >= HIDDEN
    result = np.zeros((grid.height(), grid.width()), np.float32)
    result[footprints(truth.boxes[is_vehicle & hidden], grid)] = np.nan
    result[footprints(truth.boxes[is_vehicle & ~hidden], grid)] = 1
    return result


def on_grid(logits: np.ndarray, grid: GridSpec) -> np.ndarray:  # (H, W) -> (200, 200)
    """A network's logits at the centres of the protocol's cells: bilinear, edges repeated, -inf beyond its grid."""
    x, y = centres(GRID)
    columns, rows = _Axis(x, grid.x_min, grid.cell, logits.shape[1]), _Axis(y, grid.y_min, grid.cell, logits.shape[0])
    upper, lower = logits[rows.below], logits[rows.below + 1]
    by_row = upper + (lower - upper) * rows.share[:, None]
    left, right = by_row[:, columns.below], by_row[:, columns.below + 1]
    return np.where(rows.inside[:, None] & columns.inside, left + (right - left) * columns.share, -np.inf)


class _Axis:
    """Interpolation along one axis of a grid of two cells or more: the lower neighbour and the weight of the upper."""

    def __init__(self, position: np.ndarray, start: float, cell: float, count: int):
        index = (position - start) / cell - 0.5
        self.inside = (index >= -0.5) & (index < count - 0.5)
        index = index.clip(0, count - 1)
        self.below = np.minimum(index.astype(int), count - 2)
        self.share = index - self.below


def tally(truth: Truth, logits: np.ndarray) -> np.ndarray:  # (200, 200) -> (2,) int64
    """Cells of the intersection and of the union of one sample; logits as from on_grid."""
    target = vehicle_map(truth, GRID)
    counts = np.isfinite(target)
    predicted, real = (logits >= 0) & counts, (target == 1) & counts
    return np.array([(predicted & real).sum(), (predicted | real).sum()])


def vehicle_iou(tallies: Iterable[np.ndarray]) -> float:
    """Intersection over union of all samples, 0..1; nan without a vehicle and a prediction of one."""
    intersection, union = np.sum([np.zeros(2, np.int64), *tallies], 0)
    return float(intersection / union) if union else float("nan")
