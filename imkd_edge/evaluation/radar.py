"""Objects by what radar saw of them: for average precision with and without returns, and by how strong they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from imkd_edge.frames import valid_points
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.geometry import inside_boxes, transform

MARGIN = 0.5  # m around a box: radar's places are not that exact, nor are detected boxes
TERCILES = ("radar_weak", "radar_middle", "radar_strong")


def returns(sample: Sample) -> np.ndarray:
    """(N, 4) float64: x, y, z m in the ego frame, intensity dB of every valid return."""
    places = {radar.name: np.asarray(radar.T_ego_radar) for radar in sample.rig.radars}
    clouds = [
        (places[sweep.radar], sweep.points[valid_points(sweep.points)].astype(np.float64)) for sweep in sample.radar
    ]
    return np.concatenate(
        [np.zeros((0, 4)), *(np.c_[transform(T, points[:, :3]), points[:, 3]] for T, points in clouds)]
    )


def strongest(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) the highest intensity of (N, 4) returns in each of (M, 7+) boxes, MARGIN wider to each side; -inf without any.

    Height does not count: many radars cannot measure it.
    """
    tall = np.array(boxes, np.float64)
    tall[:, 3:5] += 2 * MARGIN
    tall[:, 5] = np.inf
    return np.where(inside_boxes(points, tall), points[:, 3], -np.inf).max(1, initial=-np.inf)


def parts(
    clouds: Sequence[np.ndarray], truths: Sequence[Truth], label: str = "car"
) -> dict[str, Callable[[int, np.ndarray], np.ndarray]]:
    """What kitti.evaluate takes as parts: no_radar, radar, and thirds of the objects with returns by their strongest one.

    Args:
        clouds: of every frame, as `returns` gives them.
        truths: of the same frames; the limits between the thirds are those of their objects of this label.
    """
    seen = [
        strongest(cloud, t.boxes[[name == label for name in t.labels]]) for cloud, t in zip(clouds, truths, strict=True)
    ]
    known = np.concatenate([np.zeros(0), *seen])
    known = known[np.isfinite(known)]
    low, high = np.quantile(known, [1 / 3, 2 / 3]) if len(known) else (np.inf, np.inf)
    thirds = zip(TERCILES, ((-np.inf, low), (low, high), (high, np.inf)), strict=True)
    limits = {"no_radar": (-np.inf, -np.inf), "radar": (-np.inf, np.inf), **dict(thirds)}

    def part(name: str) -> Callable[[int, np.ndarray], np.ndarray]:
        above, up_to = limits[name]

        def member(index: int, boxes: np.ndarray) -> np.ndarray:
            value = strongest(clouds[index], boxes)
            return np.isneginf(value) if name == "no_radar" else (value > above) & (value <= up_to)

        return member

    return {name: part(name) for name in limits}
