"""A sample as seen from another ego frame: what the same sensors give on another mounting of the vehicle's frame."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np

from imkd_edge.frames import Ego
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Sample, Truth
from imkd_edge.sources.geometry import inverse, transform
from imkd_edge.sources.plane import transform_plane


def tilt(degrees: float, azimuth: float = 45.0) -> np.ndarray:
    """(4, 4) rotation by `degrees` about the horizontal axis at `azimuth` degrees from x towards y.

    At 0 a roll, at 90 a pitch, at 45 both in equal parts (Rodrigues' formula).
    """
    angle, bearing = np.radians(degrees), np.radians(azimuth)
    x, y = np.cos(bearing), np.sin(bearing)
    K = np.array([[0, 0, y], [0, 0, -x], [-y, x, 0]])
    T = np.eye(4)
    T[:3, :3] += np.sin(angle) * K + (1 - np.cos(angle)) * K @ K
    return T


def lift(height: float) -> np.ndarray:
    """(4, 4) transform into a frame that lies `height` m higher."""
    T = np.eye(4)
    T[2, 3] = -height
    return T


def remount(sample: Sample, T: np.ndarray) -> Sample:
    """The sample in another ego frame: mounting, ground plane, poses, twist, boxes and LiDAR move, measurements stay.

    Boxes stay upright in the new frame: their centres and headings move exactly, their bottoms to second order of the
    tilt. A rig that names no ground plane names afterwards where z = 0 went.

    Args:
        T: (4, 4) T_new_old, rigid.
    Raises: Error rig_bad_value where the ground stands on edge in the new frame.
    """
    back = inverse(T)

    def pose(T_world_ego: np.ndarray | None) -> np.ndarray | None:
        return None if T_world_ego is None else np.asarray(T_world_ego) @ back

    ego = sample.ego
    return replace(
        sample,
        rig=remount_rig(sample.rig, T),
        radar=[replace(sweep, T_world_ego=pose(sweep.T_world_ego)) for sweep in sample.radar],
        ego=None if ego is None else Ego(pose(ego.T_world_ego), None if ego.twist is None else _twist(ego.twist, T)),
        truth=None if sample.truth is None else _truth(sample.truth, T),
        lidar=None if sample.lidar is None else _points(sample.lidar, T),
        camera_T_world_ego={name: np.asarray(T_camera) @ back for name, T_camera in sample.camera_T_world_ego.items()},
    )


def remount_rig(rig: SensorRig, T: np.ndarray) -> SensorRig:
    """The rig in another ego frame, see `remount`."""
    result = copy(rig)
    cameras, radars = [copy(camera) for camera in rig.cameras], [copy(radar) for radar in rig.radars]
    for camera in cameras:
        camera.T_ego_camera = T @ camera.T_ego_camera
    for radar in radars:
        radar.T_ego_radar = T @ radar.T_ego_radar
    result.cameras, result.radars = cameras, radars
    result.ground_plane = transform_plane(T, rig.ground_plane or (0.0, 0.0, 0.0))
    return result


def _twist(twist: np.ndarray | tuple[float, float, float], T: np.ndarray) -> np.ndarray:
    """Velocity of the new frame's origin and its yaw rate, of a rigid body that turns about the old z axis."""
    vx, vy, rate = twist
    origin, spin = inverse(T)[:3, 3], np.array([0, 0, rate])
    velocity = T[:3, :3] @ (np.array([vx, vy, 0]) + np.cross(spin, origin))
    return np.array([velocity[0], velocity[1], (T[:3, :3] @ spin)[2]])


def _truth(truth: Truth, T: np.ndarray) -> Truth:
    return replace(truth, boxes=remount_boxes(truth.boxes, T), racks=remount_boxes(truth.racks, T))


def remount_boxes(boxes: np.ndarray, T: np.ndarray) -> np.ndarray:
    """(M, 9) boxes as of Truth in another ego frame, see `remount`."""
    result = boxes.copy()
    result[:, :3] = transform(T, boxes[:, :3])
    heading = np.column_stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])]) @ T[:2, :2].T
    result[:, 6] = np.arctan2(heading[:, 1], heading[:, 0])
    result[:, 7:9] = boxes[:, 7:9] @ T[:2, :2].T
    return result


def _points(points: np.ndarray, T: np.ndarray) -> np.ndarray:
    moved = transform(T, points[:, :3].astype(np.float64))
    return np.concatenate([moved, points[:, 3:]], 1).astype(np.float32)
