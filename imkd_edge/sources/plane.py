"""Ground planes z = a x + b y + c of a frame with z up: (a, b, c), slopes and m."""

from __future__ import annotations

import numpy as np

from imkd_edge.errors import Code, Error

Plane = tuple[float, float, float]
HUBER = 1.345  # standard deviations within which Huber's estimator is least squares (Huber, Robust Statistics, 1981)
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_ITERATIONS = 50
_STEEPEST = 0.1  # smallest z of a ground's unit normal: beyond, z is no function of x and y that a rig can use


def heights_above(plane: Plane, points: np.ndarray) -> np.ndarray:
    """(N,) m of (N, 3+) points above a plane, along z."""
    a, b, c = plane
    return points[:, 2] - (a * points[:, 0] + b * points[:, 1] + c)


def normal_of(plane: Plane) -> np.ndarray:
    """(3,) unit normal of a plane, upwards."""
    normal = np.array([-plane[0], -plane[1], 1.0])
    return normal / np.linalg.norm(normal)


def transform_plane(T: np.ndarray, plane: Plane) -> Plane:
    """The plane in the target frame of a (4, 4) rigid transform.

    Raises: Error rig_bad_value where it stands on edge there.
    """
    normal = T[:3, :3] @ normal_of(plane)
    point = T[:3, :3] @ np.array([0, 0, plane[2]]) + T[:3, 3]
    if normal[2] < _STEEPEST:
        what = f"the ground plane {plane} has the normal {normal.round(3).tolist()} in this frame"
        raise Error(Code.rig_bad_value, what, "ground_plane", "give a frame whose z axis points up")
    return float(-normal[0] / normal[2]), float(-normal[1] / normal[2]), float(normal @ point / normal[2])


def fit_plane(points: np.ndarray) -> Plane:
    """The plane through (N, 3+) points, N >= 3, by Huber's estimator of z: outliers count by their sign only.

    Iterated least squares; the scale is the median absolute deviation of the residuals.
    """
    xy1, z = np.column_stack([points[:, :2], np.ones(len(points))]), np.asarray(points[:, 2], np.float64)
    weights = np.ones(len(points))
    plane = np.zeros(3)
    for _ in range(_ITERATIONS):
        root = np.sqrt(weights)
        previous, plane = plane, np.linalg.lstsq(xy1 * root[:, None], z * root, rcond=None)[0]
        if np.abs(plane - previous).max() < 1e-9:
            break
        residuals = np.abs(z - xy1 @ plane)
        bound = max(HUBER * _MAD * float(np.median(residuals)), 1e-6)
        weights = bound / np.maximum(residuals, bound)
    a, b, c = plane.tolist()
    return a, b, c
