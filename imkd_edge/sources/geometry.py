"""Geometry shared by the readers: quaternions, rigid transforms, points inside boxes, Truth from labelled boxes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from imkd_edge.sources.base import Truth

NO_ROTATION = 1e-6  # length of a quaternion below which it has none


def has_rotation(quaternion: np.ndarray) -> np.ndarray:
    """(...) whether quaternions (..., 4) have a rotation: a driver that knows none sends zeros."""
    with np.errstate(over="ignore", invalid="ignore"):
        norm = np.linalg.norm(quaternion, axis=-1)
    return np.isfinite(norm) & (norm >= NO_ROTATION)


def rotation_of(quaternion: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a quaternion w, x, y, z, normalised first; ValueError where it has none."""
    q = np.asarray(quaternion, np.float64)
    if q.shape != (4,) or not has_rotation(q):
        raise ValueError(f"not a quaternion: {quaternion}")
    w, x, y, z = q / np.linalg.norm(q)
    return np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ])  # fmt: skip


def quaternion_of(R: np.ndarray) -> list[float]:
    """Unit quaternion w, x, y, z of a rotation (3, 3); divides by its largest component, so by no small number."""
    trace = np.array([R.trace(), R[0, 0], R[1, 1], R[2, 2]])
    k = int(trace.argmax())
    if k == 0:
        q = np.array([1 + trace[0], R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]])
    else:
        i = k - 1
        j, m = (i + 1) % 3, (i + 2) % 3
        q = np.zeros(4)
        q[0], q[1 + i] = R[m, j] - R[j, m], 1 + R[i, i] - R[j, j] - R[m, m]
        q[1 + j], q[1 + m] = R[j, i] + R[i, j], R[m, i] + R[i, m]
    return (q / np.linalg.norm(q)).tolist()


def yaw_of(rotation: np.ndarray) -> float:
    """Heading, rad: the rotated x axis projected on the ground plane."""
    return float(np.arctan2(rotation[1, 0], rotation[0, 0]))


def transform_of(translation: np.ndarray, quaternion: np.ndarray) -> np.ndarray:
    """(4, 4) T_to_from of a pose; raises ValueError for a zero quaternion or a number that is not finite."""
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
    """(N, 3) points, float64, in the target frame of a (4, 4) transform."""
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
    radar: np.ndarray | None,  # (N, 3+) m in the ego frame; None: unknown
    lidar: np.ndarray | None,  # (N, 3+) m in the ego frame; None: unknown
) -> Truth:
    """The truth of one sample, with the number of radar and LiDAR returns in each box."""
    boxes = np.array([box for box, _, _ in objects], np.float64).reshape(-1, 9)
    unknown = np.full(len(boxes), -1, np.int32)
    return Truth(
        boxes=boxes,
        labels=[label for _, label, _ in objects],
        occlusion=np.array([occlusion for _, _, occlusion in objects], np.int8),
        radar_points=unknown if radar is None else points_in_boxes(radar, boxes),
        lidar_points=unknown if lidar is None else points_in_boxes(lidar, boxes),
    )
