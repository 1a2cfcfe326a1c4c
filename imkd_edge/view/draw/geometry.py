"""Corners of boxes and their edges in a camera image: clipped, and bent by the lens."""

from __future__ import annotations

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration

NEAR = 0.2  # m of optical depth; points nearer or behind are clipped, but in a fisheye
_STEPS = {"none": 2, "fisheye": 17}  # points of an edge; 9 of other lenses
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


def project_edges(camera: CameraCalibration, corners: np.ndarray, edges: list[tuple[int, int]]) -> list[np.ndarray]:
    """Projects edges between ego corners through the lens, clipped to where it sees, to polylines of (K, 2) px."""
    optical = to_camera(camera, corners)
    fisheye = camera.distortion == "fisheye"
    steps = np.linspace(0, 1, _STEPS.get(camera.distortion, 9))[:, None]
    paths = []
    for a, b in edges:
        clipped = (optical[a], optical[b]) if fisheye else clip_near(optical[a], optical[b])
        if clipped is None:
            continue
        path = ops.project(camera, clipped[0] + (clipped[1] - clipped[0]) * steps)
        visible = np.isfinite(path).all(1)
        cuts = np.flatnonzero(np.diff(visible)) + 1
        runs = zip(np.split(path, cuts), np.split(visible, cuts), strict=True)
        paths += [run for run, seen in runs if seen[0] and len(run) > 1]
    return paths


def is_visible(camera: CameraCalibration, paths: list[np.ndarray]) -> bool:
    """True where the bounding rectangle of the paths overlaps the image; of a fisheye, where one of their points does.

    What lies behind a fisheye surrounds its image.
    """
    if not paths:
        return False
    points = np.concatenate(paths)
    if camera.distortion == "fisheye":
        return bool(((points > -0.5) & (points < [camera.width - 0.5, camera.height - 0.5])).all(1).any())
    (u0, v0), (u1, v1) = points.min(0), points.max(0)
    return bool(u1 > 0 and v1 > 0 and u0 < camera.width and v0 < camera.height)
