"""Overlap of oriented boxes: exact intersection of polygons on the ground plane, times the common height."""

from __future__ import annotations

import numpy as np

_CORNERS = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]]) / 2  # counter-clockwise, in units of length and width
_TOLERANCE = 1e-9  # of an edge's length: corners on an edge count as inside


def ground_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners on the ground plane of (M, 7+) boxes x, y, z, l, w, h, yaw: (M, 4, 2) m, counter-clockwise."""
    cos, sin = np.cos(boxes[:, 6]), np.sin(boxes[:, 6])
    local = _CORNERS * boxes[:, None, 3:5]
    x = cos[:, None] * local[..., 0] - sin[:, None] * local[..., 1]
    y = sin[:, None] * local[..., 0] + cos[:, None] * local[..., 1]
    return np.stack([x, y], -1) + boxes[:, None, :2]


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which of (P, K, 2) points lie in the convex counter-clockwise (P, 4, 2) polygon: (P, K)."""
    edge = np.roll(polygon, -1, 1) - polygon
    side = _cross(edge[:, None], points[:, :, None] - polygon[:, None])  # (P, K, 4)
    return (side >= -_TOLERANCE * (edge**2).sum(-1)[:, None]).all(-1)


def _crossings(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the edges of two polygons (P, 4, 2) cross: points (P, 16, 2) and which of them exist (P, 16)."""
    start, edge = a[:, :, None], (np.roll(a, -1, 1) - a)[:, :, None]  # (P, 4, 1, 2)
    other_start, other = b[:, None], (np.roll(b, -1, 1) - b)[:, None]  # (P, 1, 4, 2)
    area = _cross(edge, other)
    # of parallel edges the ends are corners inside, so they need no crossing
    parallel = np.abs(area) <= 1e-12 * np.sqrt((edge**2).sum(-1) * (other**2).sum(-1))
    area = np.where(parallel, 1.0, area)
    t, u = _cross(other_start - start, other) / area, _cross(other_start - start, edge) / area
    exists = ~parallel & (np.abs(t - 0.5) <= 0.5 + _TOLERANCE) & (np.abs(u - 0.5) <= 0.5 + _TOLERANCE)
    return (start + t[..., None] * edge).reshape(len(a), -1, 2), exists.reshape(len(a), -1)


def intersection_area(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Common area of pairs of convex quadrilaterals (P, 4, 2), counter-clockwise: (P,) m2.

    The vertices of the intersection are the corners of each inside the other and the crossings of their edges. Sorted
    by angle around their mean they are its outline; repeated vertices add no area.
    """
    if not len(a):
        return np.zeros(0)
    origin = a.mean(1, keepdims=True)  # near the origin there is little cancellation
    a, b = a - origin, b - origin

    # candidate vertices
    crossings, exists = _crossings(a, b)
    points = np.concatenate([a, b, crossings], 1)  # (P, 24, 2)
    valid = np.concatenate([_inside(a, b), _inside(b, a), exists], 1)
    count = valid.sum(1)

    # their outline, and its area
    points = np.where(valid[..., None], points, 0)
    points = points - (points.sum(1) / np.maximum(count, 1)[:, None])[:, None]
    angle = np.where(valid, np.arctan2(points[..., 1], points[..., 0]), np.inf)
    order = np.argsort(angle, 1)
    points, valid = np.take_along_axis(points, order[..., None], 1), np.take_along_axis(valid, order, 1)
    points = np.where(valid[..., None], points, points[:, :1])  # invalid ones repeat the first
    area = _cross(points, np.roll(points, -1, 1)).sum(1) / 2
    return np.where(count >= 3, np.maximum(area, 0), 0)


def box_iou(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """BEV and 3D IoU, (N, M) each, of boxes (N, 7+) with boxes (M, 7+): x, y, z centre, l, w, h m, yaw rad."""
    bev, volume = np.zeros((len(a), len(b))), np.zeros((len(a), len(b)))
    reach = (np.hypot(a[:, 3], a[:, 4])[:, None] + np.hypot(b[:, 3], b[:, 4])) / 2
    i, j = np.nonzero(np.hypot(a[:, None, 0] - b[:, 0], a[:, None, 1] - b[:, 1]) < reach)
    if not len(i):
        return bev, volume
    common = intersection_area(ground_corners(a)[i], ground_corners(b)[j])
    area_a, area_b = (a[:, 3] * a[:, 4])[i], (b[:, 3] * b[:, 4])[j]
    bev[i, j] = common / (area_a + area_b - common)
    top = np.minimum((a[:, 2] + a[:, 5] / 2)[i], (b[:, 2] + b[:, 5] / 2)[j])
    bottom = np.maximum((a[:, 2] - a[:, 5] / 2)[i], (b[:, 2] - b[:, 5] / 2)[j])
    shared = common * np.maximum(top - bottom, 0)
    volume[i, j] = shared / (area_a * a[i, 5] + area_b * b[j, 5] - shared)
    return bev, volume
