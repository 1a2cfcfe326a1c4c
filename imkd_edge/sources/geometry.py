"""Small geometry shared by the readers: quaternions, rigid transforms, points inside boxes, and the truth that follows from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imkd_edge.sources.base import Truth


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion w, x, y, z, normalised first; ValueError where it is zero or not finite."""
    q = np.asarray(quaternion, np.float64)
    norm = np.linalg.norm(q)
    if q.shape != (4,) or not np.isfinite(norm) or norm < 1e-6:
        raise ValueError(f"not a quaternion: {quaternion}")
    w, x, y, z = q / norm
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def yaw_of(rotation: np.ndarray) -> float:
    """Heading, rad: the rotated x axis projected on the ground plane."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def transform_of(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """(4, 4) T_to_from of a sensor's or vehicle's pose; raises ValueError where it is not one."""
    result = np.eye(4)
    result[:3, :3] = rotation_of(quaternion)
    result[:3, 3] = np.asarray(translation, np.float64)
    if not np.isfinite(result).all():
        raise ValueError(f"not a translation: {translation}")
    return result


def inverse(T: np.ndarray) -> np.ndarray:
    """Inverse of a rigid (4, 4) transform."""
    result = np.eye(4)
    result[:3, :3] = T[:3, :3].T
    result[:3, 3] = -T[:3, :3].T @ T[:3, 3]
    return result


def transform(T: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(N, 3) points brought through a (4, 4) transform, float64."""
    return points @ T[:3, :3].T + T[:3, 3]


def points_in_boxes(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) int32: how many of (N, 3+) points lie in each of (M, 7+) boxes x, y, z centre, l, w, h, yaw; nan in none."""
    return inside_boxes(points, boxes).sum(1, dtype=np.int32)


def inside_boxes(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M, N) bool: which of (N, 3+) points lie in each of (M, 7+) boxes; nan in none."""
    offset = points[None, :, :3] - boxes[:, None, :3]  # (M, N, 3)
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    along = np.abs(cos * offset[..., 0] + sin * offset[..., 1])
    across = np.abs(cos * offset[..., 1] - sin * offset[..., 0])
    half = boxes[:, None, 3:6] / 2
    return (along <= half[..., 0]) & (across <= half[..., 1]) & (np.abs(offset[..., 2]) <= half[..., 2])


def truth_of(
    objects: Sequence[tuple[np.ndarray, str, int]],  # box (9,) as in Truth, label, occlusion
    radar: np.ndarray,  # (N, 3+) m in the ego frame
    lidar: np.ndarray | None,  # (N, 3+) m in the ego frame; None: unknown
) -> Truth:
    """The truth of one sample, with the returns counted that lie in each box."""
    boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 9)
    return Truth(
        boxes=boxes,
        labels=[label for _, label, _ in objects],
        occlusion=np.array([occlusion for _, _, occlusion in objects], np.int8),
        radar_points=points_in_boxes(radar, boxes),
        lidar_points=np.full(len(boxes), -1, np.int32) if lidar is None else points_in_boxes(lidar, boxes),
    )
