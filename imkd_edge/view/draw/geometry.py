"""Corners of boxes and their edges in a camera image: clipped, and bent by the lens."""

from __future__ import annotations

import numpy as np

import imkd_edge.ops as ops
from imkd_edge.rig import CameraCalibration

NEAR = 0.2  # m of optical depth; points nearer or behind are clipped, but in a fisheye
_STEPS = {"none": 2, "fisheye": 17}  # points of an edge; 9 of other lenses
# Corners 0..3 are the bottom (front left, front right, rear right, rear left), 4..7 the top in the same order.
_CORNERS = np.array([[x, y, z] for z in (-1, 1) for x, y in ((1, 1), (1, -1), (-1, -1), (-1, 1))])
EDGES = [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """Corners (..., 8, 3) m of boxes (..., 7 or more: x, y, z centre, length, width, height m, yaw rad)."""
    local, yaw = _CORNERS * boxes[..., None, 3:6] / 2, boxes[..., 6:7]
    x, y, cos, sin = local[..., 0], local[..., 1], np.cos(yaw), np.sin(yaw)
    return boxes[..., None, :3] + np.stack([cos * x - sin * y, sin * x + cos * y, local[..., 2]], -1)


def to_camera(camera: CameraCalibration, points: np.ndarray) -> np.ndarray:
    """Transforms ego points (..., 3) m to the optical frame: x right, y down, z forward."""
    T_camera_ego = np.linalg.inv(np.asarray(camera.T_ego_camera))
    return points @ T_camera_ego[:3, :3].T + T_camera_ego[:3, 3]


def clip_near(start: np.ndarray, end: np.ndarray, near: float = NEAR) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clips segments (N, 3) in the optical frame to z >= near.

    Returns:
        Their starts and ends (N, 3), and a mask (N,) of those of which something is left.
    """
    behind_start, behind_end = start[:, 2:] < near, end[:, 2:] < near
    with np.errstate(divide="ignore", invalid="ignore"):
        cut = start + (end - start) * ((near - start[:, 2:]) / (end[:, 2:] - start[:, 2:]))
    return np.where(behind_start, cut, start), np.where(behind_end, cut, end), ~(behind_start & behind_end)[:, 0]


def project_segments(camera: CameraCalibration, start: np.ndarray, end: np.ndarray) -> list[list[np.ndarray]]:
    """Projects segments between ego points (N, 3) through the lens, clipped to where it sees.

    Returns:
        Of each segment its visible polylines of (K, 2) px: one, or more or none where the lens cuts it.
    """
    start, end, in_front = to_camera(camera, start), to_camera(camera, end), np.ones(len(start), bool)
    if camera.distortion != "fisheye":
        start, end, in_front = clip_near(start, end)
    steps = np.linspace(0, 1, _STEPS.get(camera.distortion, 9))[:, None]
    start, end = start[in_front, None], end[in_front, None]
    points = start + (end - start) * steps
    pixels = np.full((len(in_front), len(steps), 2), np.nan)
    pixels[in_front] = ops.project(camera, points.reshape(-1, 3)).reshape(*points.shape[:2], 2)
    visible = np.isfinite(pixels).all(2)
    parts = np.where(visible.all(1), 1, np.where(visible.any(1), 2, 0))
    cases = zip(pixels, visible, parts, strict=True)
    return [[] if part == 0 else [path] if part == 1 else _runs(path, seen) for path, seen, part in cases]


def _runs(path: np.ndarray, visible: np.ndarray) -> list[np.ndarray]:
    """The visible parts of a path with at least two points."""
    cuts = np.flatnonzero(np.diff(visible)) + 1
    runs = zip(np.split(path, cuts), np.split(visible, cuts), strict=True)
    return [run for run, seen in runs if seen[0] and len(run) > 1]


def project_edges(camera: CameraCalibration, corners: np.ndarray, edges: list[tuple[int, int]]) -> list[np.ndarray]:
    """Projects edges between ego corners (M, 3), as `project_segments`, to one list of polylines."""
    first, second = np.asarray(edges).T
    return [path for paths in project_segments(camera, corners[first], corners[second]) for path in paths]


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
