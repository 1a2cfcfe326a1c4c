"""Truth of a synthetic sample: boxes, visibility from the id images, counts of radar and LiDAR points."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from imkd_edge.frames import RadarSweep
from imkd_edge.rig import SensorRig
from imkd_edge.sources.base import Truth

if TYPE_CHECKING:
    from imkd_edge.sources.synth.camera import Picture
    from imkd_edge.sources.synth.mesh import SceneMesh
    from imkd_edge.sources.synth.roads import State

TRUTH_RANGE = 60.0  # m from the ego, of labelled objects


def near_objects(state: State, T_world_ego: np.ndarray) -> np.ndarray:
    """(M,) indices of the labelled objects."""
    return np.flatnonzero(np.hypot(*(state.xy - T_world_ego[:2, 3]).T) < TRUTH_RANGE)


def truth_of_scene(
    mesh: SceneMesh,
    state: State,
    T_world_ego: np.ndarray,
    pictures: list[Picture],
    radar_points: np.ndarray,
    lidar_owner: np.ndarray | None,
) -> Truth:
    """The labelled objects of a scene, in the ego frame.

    Args:
        state: of the scene's objects at the time of the sample.
        pictures: of all cameras, for the visible share of each object.
        radar_points: (M,) of `count_radar_points`.
        lidar_owner: index of the object of each LiDAR point, negative for none; None without a LiDAR.
    """
    names = mesh.scene.catalogue.labels
    near = near_objects(state, T_world_ego)
    counts = np.full(len(near), -1)
    if lidar_owner is not None:
        counts = np.bincount(lidar_owner[lidar_owner >= 0], minlength=len(mesh.sizes))[near]
    return Truth(
        boxes=boxes_of(mesh, state, T_world_ego),
        labels=[names[mesh.scene.objects.kinds[i]] for i in near],
        occlusion=_occlusion(pictures, near),
        radar_points=radar_points,
        lidar_points=counts.astype(np.int32),
    )


def boxes_of(mesh: SceneMesh, state: State, T_world_ego: np.ndarray) -> np.ndarray:
    """(M, 9) boxes of the labelled objects in the ego frame, as in Truth."""
    near = near_objects(state, T_world_ego)
    R = T_world_ego[:2, :2]  # columns: ego axes in the world
    boxes = np.zeros((len(near), 9))
    boxes[:, :2] = (state.xy[near] - T_world_ego[:2, 3]) @ R
    boxes[:, 3:6] = mesh.sizes[near]
    boxes[:, 2] = boxes[:, 5] / 2 - T_world_ego[2, 3]
    turn = state.yaw[near] - np.arctan2(R[1, 0], R[0, 0])
    boxes[:, 6] = np.arctan2(np.sin(turn), np.cos(turn))
    boxes[:, 7:9] = state.velocity[near] @ R
    return boxes


def _occlusion(pictures: list[Picture], near: np.ndarray) -> np.ndarray:
    """(M,) int8 by the visible share over all cameras together, which is nuScenes' definition."""
    visible, total = np.zeros((2, len(near)))
    for picture in pictures:
        visible, total = visible + picture.visible[near], total + picture.total[near]
    share = visible / np.maximum(total, 1)
    return np.select([share >= 0.8, share >= 0.6, share >= 0.4], [0, 1, 2], 3).astype(np.int8)


def count_radar_points(
    boxes: np.ndarray, T_world_ego: np.ndarray, radar: list[RadarSweep], rig: SensorRig
) -> np.ndarray:
    """(M,) int32 returns of each radar's newest sweep in each box's footprint; height is ignored, which radar lacks."""
    T_ego_radar = {calibration.name: calibration.T_ego_radar for calibration in rig.radars}
    newest: dict[str, RadarSweep] = {}
    for sweep in radar:  # newest first
        newest.setdefault(sweep.radar, sweep)
    count = np.zeros(len(boxes), np.int32)
    for name, sweep in newest.items():
        T = np.linalg.inv(T_world_ego) @ sweep.T_world_ego @ T_ego_radar[name]
        points = sweep.points[:, :3].astype(float) @ T[:3, :3].T + T[:3, 3]
        offset = points[None, :, :2] - boxes[:, None, :2]
        c, s = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
        x, y = offset[..., 0] * c + offset[..., 1] * s, -offset[..., 0] * s + offset[..., 1] * c
        inside = (np.abs(x) <= boxes[:, 3, None] / 2) & (np.abs(y) <= boxes[:, 4, None] / 2)
        count += inside.sum(1).astype(np.int32)
    return count
