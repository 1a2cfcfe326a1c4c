"""Augmentation of raw samples: rotation, mirror and scale of the world, changes of the images, dropped sensors.

A rotated, mirrored or scaled world is a sample with another rig, so that the runtime's ops process it as any other.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from imkd_edge.frames import Ego
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.sources.plane import Plane
from imkd_edge.sources.radar_noise import NOISES, disturb
from imkd_edge.training.sections import AugmentConfig

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])  # ego and radar frames: y -> -y
MIRROR_CAMERA = np.diag([-1.0, 1.0, 1.0, 1.0])  # optical frame: x -> -x
MAX_OFFSET = 60  # grey levels
MAX_STOPS = 5.0  # of darkening: white keeps eight grey levels


@dataclass(frozen=True)
class ImageChange:
    """Change of the images of one frame, the same for all cameras."""

    flip: bool = False
    scale: float = 1.0
    gain: float = 1.0
    offset: float = 0.0  # grey levels
    shift: float = 0.0  # of the crop to the right, as a share of its width


@dataclass(frozen=True)
class View:
    """Change of the world for one example, the same for all frames of a clip, so that their poses stay consistent."""

    images: ImageChange
    angle: float  # rad
    scale: float
    tilt: tuple[float, float] = (0.0, 0.0)  # of the mounting, degrees, and azimuth of its axis, degrees


def draw_view(rng: np.random.Generator, config: AugmentConfig, images: ImageChange) -> View:
    """Draws angle (rad), scale and tilt, uniform within the config's bounds; half the time `reverse` adds pi."""
    angle, scale = rng.uniform(-config.rotation, config.rotation), 1 + rng.uniform(-config.scale, config.scale)
    if config.reverse and rng.random() < 0.5:
        angle += np.pi
    if not config.tilt:  # draws nothing, so that a config without it gets the views it always had
        return View(images, angle, scale)
    return View(images, angle, scale, (rng.uniform(0, config.tilt), rng.uniform(0, 360)))


def draw_image_change(rng: np.random.Generator, config: AugmentConfig) -> ImageChange:
    """Draws flip, crop, colours and light within the config's bounds; MAX_OFFSET times `colour` bounds the offset."""

    def uniform(width: float) -> float:
        return float(rng.uniform(-width, width))

    flip = config.flip and bool(rng.random() < 0.5)
    scale, gain = 1 + uniform(config.image_scale), 1 + uniform(config.colour)
    change = ImageChange(flip, scale, gain, MAX_OFFSET * uniform(config.colour), uniform(config.image_shift))
    if not config.dark or rng.random() >= config.dark:
        return change
    light = 2.0 ** -rng.uniform(0, MAX_STOPS)
    return replace(change, gain=change.gain * light, offset=change.offset * light)


def change_image(image: np.ndarray, change: ImageChange) -> np.ndarray:
    """Mirrors and recolours an image (H,W,3) uint8; the crop applies its scale and shift."""
    if change.flip:
        image = image[:, ::-1]
    if change.gain == 1.0 and change.offset == 0.0:
        return image
    levels = np.clip(np.arange(256) * change.gain + change.offset, 0, 255).round().astype(np.uint8)
    return levels[image]


def mirror(sample: Sample) -> Sample:
    """Mirrors the world at y = 0; change_image mirrors the images."""
    rig = SensorRig(
        cameras=[_mirror_camera(c) for c in sample.rig.cameras],
        radars=[_radar(r, MIRROR @ np.array(r.T_ego_radar) @ MIRROR) for r in sample.rig.radars],
        ground_plane=_change_plane(sample.rig.ground_plane, np.diag([1.0, -1.0]), 1.0),
    )
    signs = np.array([1, -1, 1, 1, 1], np.float32)
    radar = [replace(s, points=s.points * signs, T_world_ego=_conjugate(s.T_world_ego, MIRROR)) for s in sample.radar]
    ego, truth, lidar = sample.ego, sample.truth, sample.lidar
    if ego is not None:
        twist = None if ego.twist is None else np.array(ego.twist) * [1, -1, -1]
        ego = Ego(T_world_ego=_conjugate(ego.T_world_ego, MIRROR), twist=twist)
    if truth is not None:
        truth = replace(truth, boxes=truth.boxes * np.array([1, -1, 1, 1, 1, 1, -1, 1, -1]))
    if lidar is not None:
        lidar = lidar * np.array([1, -1, 1, 1], np.float32)
    poses = {name: MIRROR @ np.asarray(T) @ MIRROR for name, T in sample.camera_T_world_ego.items()}
    return replace(sample, rig=rig, radar=radar, ego=ego, truth=truth, lidar=lidar, camera_T_world_ego=poses)


def rotate_and_scale(sample: Sample, angle: float, scale: float) -> Sample:
    """Rotates the ego frame by -angle about z (objects by +angle) and scales all lengths, but not velocities."""
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    def pose(T: np.ndarray | None) -> np.ndarray | None:
        return None if T is None else _scale_translation(T, scale) @ R.T

    rig = SensorRig(
        cameras=[_camera(k, np.array(k.K), R @ _scale_translation(k.T_ego_camera, scale)) for k in sample.rig.cameras],
        radars=[_radar(r, R @ _scale_translation(r.T_ego_radar, scale)) for r in sample.rig.radars],
        ground_plane=_change_plane(sample.rig.ground_plane, R[:2, :2], scale),
    )
    point_scale = np.array([scale, scale, scale, 1, 1], np.float32)
    radar = [replace(x, points=x.points * point_scale, T_world_ego=pose(x.T_world_ego)) for x in sample.radar]
    ego, truth, lidar = sample.ego, sample.truth, sample.lidar
    if ego is not None:
        twist = None if ego.twist is None else np.append(R[:2, :2] @ np.array(ego.twist)[:2], ego.twist[2])
        ego = Ego(T_world_ego=pose(ego.T_world_ego), twist=twist)
    if truth is not None:
        truth = replace(truth, boxes=_rotate_and_scale_boxes(truth.boxes, R[:3, :3], angle, scale))
    if lidar is not None:
        lidar = np.concatenate([lidar[:, :3] @ R[:3, :3].T * scale, lidar[:, 3:]], 1).astype(np.float32)
    poses = {name: _scale_translation(T, scale) @ R.T for name, T in sample.camera_T_world_ego.items()}
    return replace(sample, rig=rig, radar=radar, ego=ego, truth=truth, lidar=lidar, camera_T_world_ego=poses)


def _change_plane(plane: Plane | None, R: np.ndarray, scale: float) -> Plane | None:
    """The plane in a world whose horizontal axes are changed by R (2,2), orthogonal, and whose lengths are scaled."""
    if plane is None:
        return None
    a, b = R @ np.array(plane[:2])
    return float(a), float(b), plane[2] * scale


def _scale_translation(T: np.ndarray, scale: float) -> np.ndarray:
    T = np.array(T)
    T[:3, 3] *= scale
    return T


def _rotate_and_scale_boxes(boxes: np.ndarray, R: np.ndarray, angle: float, scale: float) -> np.ndarray:  # (M,9)
    boxes = boxes.copy()
    boxes[:, :3] = boxes[:, :3] @ R.T * scale
    boxes[:, 3:6] *= scale
    boxes[:, 6] += angle
    boxes[:, 7:9] = boxes[:, 7:9] @ R[:2, :2].T
    return boxes


def drop(sample: Sample, rng: np.random.Generator, config: AugmentConfig) -> Sample:
    """Drops radar points, and with the config's probabilities disturbs the radars, drops them or a camera."""
    if config.noisy_radar and rng.random() < config.noisy_radar:
        kind = list(NOISES)[int(rng.integers(len(NOISES)))]
        sample = disturb(sample, kind, rng.uniform(), rng)
    radar, frames = sample.radar, sample.frames
    if config.drop_points:
        share = rng.uniform(0, config.drop_points)
        radar = [replace(s, points=s.points[rng.random(len(s.points)) >= share]) for s in radar]
    if rng.random() < config.drop_radar:
        radar = []
    if rng.random() < config.drop_camera and frames:
        absent = sorted(frames)[int(rng.integers(len(frames)))]
        frames = {k: v for k, v in frames.items() if k != absent}
    return replace(sample, radar=radar, frames=frames)


def _conjugate(T: np.ndarray | None, M: np.ndarray) -> np.ndarray | None:
    return None if T is None else M @ np.array(T) @ M


def _mirror_camera(c: CameraCalibration) -> CameraCalibration:
    """The camera of the mirrored image: skew, principal point and the horizontal tangential coefficient p2 change."""
    K = np.array(c.K)
    K[0, 1], K[0, 2] = -K[0, 1], c.width - 1 - K[0, 2]
    mirrored = _camera(c, K, MIRROR @ np.array(c.T_ego_camera) @ MIRROR_CAMERA)
    if c.distortion in ("plumb_bob", "rational_polynomial"):
        k1, k2, p1, p2, *radial = c.coefficients
        mirrored.coefficients = (k1, k2, p1, -p2, *radial)
    return mirrored


def _camera(c: CameraCalibration, K: np.ndarray, T_ego_camera: np.ndarray) -> CameraCalibration:
    lens: dict[str, Any] = {"distortion": c.distortion, "coefficients": c.coefficients}
    return CameraCalibration(name=c.name, width=c.width, height=c.height, K=K, T_ego_camera=T_ego_camera, **lens)


def _radar(r: RadarCalibration, T_ego_radar: np.ndarray) -> RadarCalibration:
    return RadarCalibration(name=r.name, T_ego_radar=T_ego_radar, velocity=r.velocity, period=r.period)
