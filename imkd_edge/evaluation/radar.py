"""Groups of objects by their radar returns: without any, with some, and thirds by the strongest one."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imkd_edge.frames import valid_points
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.geometry import inside_boxes, transform

MARGIN = 0.5  # m around a box, for the errors of radar positions and of detected boxes
TERCILES = ("radar_weak", "radar_middle", "radar_strong")


def returns(sample: Sample) -> np.ndarray:
    """(N, 4) float64: x, y, z m in the ego frame, intensity dB of every valid return."""
    T_ego_radar = {radar.name: np.asarray(radar.T_ego_radar) for radar in sample.rig.radars}
    clouds = [np.zeros((0, 4))]
    for sweep in sample.radar:
        points = sweep.points[valid_points(sweep.points)].astype(np.float64)
        clouds.append(np.c_[transform(T_ego_radar[sweep.radar], points[:, :3]), points[:, 3]])
    return np.concatenate(clouds)


def strongest(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) the highest intensity of (N, 4) returns in each of (M, 7+) boxes; -inf without any.

    A box is wider by MARGIN to each side. Height is ignored: many radars do not measure it.
    """
    tall = np.array(boxes, np.float64)
    tall[:, 3:5] += 2 * MARGIN
    tall[:, 5] = np.inf
    return np.where(inside_boxes(points, tall), points[:, 3], -np.inf).max(1, initial=-np.inf)


def groups(
    clouds: Sequence[np.ndarray], truths: Sequence[Truth], label: str = "car"
) -> dict[str, Callable[[int, np.ndarray], np.ndarray]]:
    """Groups for kitti.evaluate: no_radar, radar, and thirds of the objects with returns by their strongest one.

    Args:
        clouds: of every frame, from `returns`.
        truths: of the same frames; their objects of this label fix the limits between the thirds.
    """
    peaks = [
        strongest(cloud, t.boxes[[name == label for name in t.labels]]) for cloud, t in zip(clouds, truths, strict=True)
    ]
    intensity = np.concatenate([np.zeros(0), *peaks])
    intensity = intensity[np.isfinite(intensity)]
    low, high = np.quantile(intensity, [1 / 3, 2 / 3]) if len(intensity) else (np.inf, np.inf)
    thirds = zip(TERCILES, ((-np.inf, low), (low, high), (high, np.inf)), strict=True)
    limits = {"no_radar": (-np.inf, -np.inf), "radar": (-np.inf, np.inf), **dict(thirds)}

    def mask_of(name: str) -> Callable[[int, np.ndarray], np.ndarray]:
        above, up_to = limits[name]

        def mask(index: int, boxes: np.ndarray) -> np.ndarray:
            value = strongest(clouds[index], boxes)
            return np.isneginf(value) if name == "no_radar" else (value > above) & (value <= up_to)

        return mask

    return {name: mask_of(name) for name in limits}
