"""Corners of boxes and their projection into a camera image: near-plane clipping, projection, lens distortion."""

from __future__ import annotations

import numpy as np

from imkd_edge.rig import CameraCalibration

NEAR = 0.2  # m of optical depth; points nearer or behind are clipped
# Corners 0..3 are the bottom (front left, front right, rear right, rear left), 4..7 the top in the same order.
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
FRONT = [(0, 1), (4, 5), (0, 4), (1, 5)]


def box_corners(box: np.ndarray) -> np.ndarray:
    """Corners (8, 3) m of a box (x, y, z centre, length, width, height m, yaw rad, ...), in the order above."""
    length, width, height, yaw = box[3:7]
    x = np.array([1, 1, -1, -1] * 2) * length / 2
    y = np.array([1, -1, -1, 1] * 2) * width / 2
    z = np.repeat([-1, 1], 4) * height / 2
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([box[0] + cos * x - sin * y, box[1] + sin * x + cos * y, box[2] + z], 1)


def to_camera(camera: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Transforms ego points (N, 3) m to the optical frame: x right, y down, z forward."""
    T_camera_ego = np.linalg.inv(np.asarray(camera.T_ego_camera))
    return points @ T_camera_ego[:3, :3].T + T_camera_ego[:3, 3]


def clip_near(start: np.ndarray, end: np.ndarray, near: float = NEAR) -> tuple[np.ndarray, np.ndarray] | None:
    """Clips a segment in the optical frame to z >= near; None where nothing is left."""
    if start[2] < near and end[2] < near:
        return None
    if start[2] >= near and end[2] >= near:
        return start, end
    cut = start + (end - start) * ((near - start[2]) / (end[2] - start[2]))
    return (cut, end) if start[2] < near else (start, cut)


def project(camera: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Projects optical points (N, 3) m with z > 0 to pixels (N, 2) by OpenCV's lens models; NaN beyond their range."""
    x, y = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
    model = str(camera.distortion)
    if model != "none":
        x, y = _distort(model, np.asarray(camera.coefficients, np.float64), x, y)
    K = np.asarray(camera.K)
    return np.stack([K[0, 0] * x + K[0, 1] * y + K[0, 2], K[1, 1] * y + K[1, 2]], 1)


def _distort(model: str, k: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    r2 = x * x + y * y
    if model == "fisheye":
        r = np.sqrt(np.maximum(r2, 1e-12))
        theta = np.arctan(r)
        scale = theta * (1 + theta**2 * (k[0] + theta**2 * (k[1] + theta**2 * (k[2] + theta**2 * k[3])))) / r
        return x * scale, y * scale
    k1, k2, p1, p2, k3 = k[:5]
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 1 + r2 * (3 * k1 + r2 * (5 * k2 + r2 * 7 * k3))  # of r * radial; where it is negative the image folds back
    radial = np.where(slope > 0, radial, np.nan)
    return x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x), y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y


def project_edges(camera: CameraCalibration, corners: np.ndarray, edges: list[tuple[int, int]]) -> list[np.ndarray]:
    """Projects edges between ego corners, clipped to the front of the camera, to polylines of (K, 2) px each."""
    optical = to_camera(camera, corners)
    steps = np.linspace(0, 1, 2 if str(camera.distortion) == "none" else 9)[:, None]
    paths = []
    for a, b in edges:
        clipped = clip_near(optical[a], optical[b])
        if clipped is None:
            continue
        path = project(camera, clipped[0] + (clipped[1] - clipped[0]) * steps)
        if np.isfinite(path).all():
            paths.append(path)
    return paths


def is_visible(camera: CameraCalibration, paths: list[np.ndarray]) -> bool:
    """True where the bounding rectangle of the paths overlaps the image."""
    if not paths:
        return False
    points = np.concatenate(paths)
    (u0, v0), (u1, v1) = points.min(0), points.max(0)
    return bool(u1 > 0 and v1 > 0 and u0 < camera.width and v0 < camera.height)
