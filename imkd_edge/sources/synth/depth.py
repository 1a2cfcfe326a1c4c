"""Order of drawing: upright boxes from far to near, exact for disjoint footprints."""

from __future__ import annotations

import numpy as np


def depth_order(corners: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Indices of upright boxes (n, 4, 2 footprint corners, counter-clockwise) from far to near as seen from `eye` (2,).

    Of disjoint rectangles an edge's line always separates two. The one on the eye's side of it may hide the other and
    never the reverse, so an order by these pairs is exact, unlike one by distance.
    """
    if not len(corners):
        return np.zeros(0, int)
    distance = np.linalg.norm(corners - eye, axis=-1)
    near = distance.min(1) * 0.5 + distance.mean(1) * 0.5
    return _topological(_hides(corners, eye).T & _azimuths_overlap(corners, eye), -near)


def _hides(corners: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """(n, n) bool: [i, j]: i may hide j, and j cannot hide i."""
    n = len(corners)
    edges = np.roll(corners, -1, 1) - corners
    normals = np.stack([edges[..., 1], -edges[..., 0]], -1)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)  # (n, 4, 2) outward
    offset = (normals * corners).sum(-1)  # (n, 4)
    reach = (normals.reshape(-1, 2) @ corners.reshape(-1, 2).T).reshape(n, 4, n, 4)
    outside = reach.min(-1) - offset[:, :, None] > -1e-6  # (n, 4, n): all of j outside edge k of i
    eye_out = (normals @ eye - offset > 0)[:, :, None]  # (n, 4, 1)
    i_first = (outside & eye_out).any(1)  # i cannot hide j: j is on the eye's side of an edge of i
    j_first = (outside & ~eye_out).any(1)  # j cannot hide i
    may_hide = ~(i_first | j_first.T)
    return may_hide & ~may_hide.T


def _azimuths_overlap(corners: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """(n, n) bool: whether two boxes share a direction from the eye."""
    azimuth = np.arctan2(corners[..., 1] - eye[1], corners[..., 0] - eye[0])
    middle = np.arctan2(corners[..., 1].mean(1) - eye[1], corners[..., 0].mean(1) - eye[0])
    spread = (azimuth - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
    low, high = spread.min(1) - 0.02, spread.max(1) + 0.02
    gap = (middle[None] - middle[:, None] + np.pi) % (2 * np.pi) - np.pi
    return (gap + low[None] < high[:, None]) & (gap + high[None] > low[:, None])


def _topological(before: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Indices sorted by the pairs of `before`, then by `key`; in a cycle of pairs `key` alone decides."""
    order = np.argsort(key, kind="stable")
    before = before[np.ix_(order, order)]
    if not np.tril(before).any():
        return order
    waiting = before.sum(0)  # how many come first
    done = np.zeros(len(order), bool)
    result = []
    for _ in range(len(order)):
        free = np.flatnonzero((waiting == 0) & ~done)
        k = int(free[0]) if len(free) else int(np.flatnonzero(~done)[0])
        done[k] = True
        result.append(k)
        waiting -= before[k]
    return order[result]
