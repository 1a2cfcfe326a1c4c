"""Augmentation of a raw sample. A turned, mirrored or scaled world is a sample with another rig, so the runtime's ops see it unchanged."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, replace

import numpy as np

from imkd_edge.frames import Ego, RadarSweep
from imkd_edge.rig import CameraCalibration, RadarCalibration, SensorRig
from imkd_edge.sources.base import Sample
from imkd_edge.spec import ModelSpec
from imkd_edge.training.config import AugmentConfig

MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])  # ego and radar frames: y -> -y
MIRROR_CAMERA = np.diag([-1.0, 1.0, 1.0, 1.0])  # optical frame: x -> -x


@dataclass(frozen=True)
class ImageChange:
    """What happens to the images of one frame; shared by all cameras."""

    flip: bool = False
    scale: float = 1.0
    gain: float = 1.0
    offset: float = 0.0  # grey levels
    shift: float = 0.0  # of the crop to the right, share of its width


@dataclass(frozen=True)
class View:
    """How the world is changed for one example: the same for all frames of a clip, so that their poses stay true to each other."""

    images: ImageChange
    angle: float  # rad
    scale: float


def draw_view(rng: np.random.Generator, config: AugmentConfig, images: ImageChange) -> View:
    """Angle (rad) and scale of the world, uniform within the config's bounds; with `reverse` half of the worlds are turned by pi more."""
    angle, scale = rng.uniform(-config.rotation, config.rotation), 1 + rng.uniform(-config.scale, config.scale)
    if config.reverse and rng.random() < 0.5:
        angle += np.pi
    return View(images, angle, scale)


def draw_image_change(rng: np.random.Generator, config: AugmentConfig) -> ImageChange:
    """Flip, crop and colours of a frame's images, within the config's bounds; an offset is at most 60 grey levels times `colour`."""

    def spread(width: float) -> float:
        return float(rng.uniform(-width, width))

    flip = config.flip and bool(rng.random() < 0.5)
    scale, gain, offset = 1 + spread(config.image_scale), 1 + spread(config.colour), 60 * spread(config.colour)
    return ImageChange(flip, scale, gain, offset, spread(config.image_shift))


def change_image(image: np.ndarray, change: ImageChange) -> np.ndarray:
    """Mirrors and recolours an image (H,W,3) uint8; its scale is a matter of the crop."""
    if change.flip:
        image = image[:, ::-1]
    if change.gain == 1.0 and change.offset == 0.0:
        return image
    levels = np.clip(np.arange(256) * change.gain + change.offset, 0, 255).round().astype(np.uint8)
    return levels[image]


def seen_spec(spec: ModelSpec, view: View) -> ModelSpec:
    """A copy of the spec whose ground plane has moved with the world: what stood on the road still does."""
    a, b, c = spec.ground_plane
    if view.images.flip:
        b = -b
    cos, sin = np.cos(view.angle), np.sin(view.angle)
    seen = copy(spec)
    seen.ground_plane = (cos * a - sin * b, sin * a + cos * b, c * view.scale)
    return seen


def mirror(sample: Sample) -> Sample:
    """The world seen in a mirror at y = 0; images are mirrored by change_image."""

    def camera(c: CameraCalibration) -> CameraCalibration:
        K = np.array(c.K)
        K[0, 2] = c.width - 1 - K[0, 2]
        T = MIRROR @ np.array(c.T_ego_camera) @ MIRROR_CAMERA
        return _camera(c, K, T)

    def sweep(s: RadarSweep) -> RadarSweep:
        points = s.points * np.array([1, -1, 1, 1, 1], np.float32)
        return replace(s, points=points, T_world_ego=_conjugate(s.T_world_ego, MIRROR))

    rig = SensorRig(
        cameras=[camera(c) for c in sample.rig.cameras],
        radars=[_radar(r, MIRROR @ np.array(r.T_ego_radar) @ MIRROR) for r in sample.rig.radars],
    )
    ego = sample.ego
    if ego is not None:
        twist = None if ego.twist is None else np.array(ego.twist) * [1, -1, -1]
        ego = Ego(T_world_ego=_conjugate(ego.T_world_ego, MIRROR), twist=twist)
    truth = sample.truth
    if truth is not None:
        boxes = truth.boxes * np.array([1, -1, 1, 1, 1, 1, -1, 1, -1])
        truth = replace(truth, boxes=boxes)
    lidar = None if sample.lidar is None else sample.lidar * np.array([1, -1, 1, 1], np.float32)
    return replace(sample, rig=rig, radar=[sweep(s) for s in sample.radar], ego=ego, truth=truth, lidar=lidar)


def turn_and_scale(sample: Sample, angle: float, scale: float) -> Sample:
    """The ego frame turned by -angle about z (objects turn by +angle), then all lengths times scale; velocities keep their size."""
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])

    def scaled(T: np.ndarray | None) -> np.ndarray | None:
        if T is None:
            return None
        T = np.array(T)
        T[:3, 3] *= scale
        return T

    def pose(T: np.ndarray | None) -> np.ndarray | None:
        return None if T is None else scaled(T) @ R.T

    def sweep(x: RadarSweep) -> RadarSweep:
        points = x.points * np.array([scale, scale, scale, 1, 1], np.float32)
        return replace(x, points=points, T_world_ego=pose(x.T_world_ego))

    rig = SensorRig(
        cameras=[_camera(k, np.array(k.K), R @ scaled(k.T_ego_camera)) for k in sample.rig.cameras],
        radars=[_radar(r, R @ scaled(r.T_ego_radar)) for r in sample.rig.radars],
    )
    ego = sample.ego
    if ego is not None:
        twist = None if ego.twist is None else np.append(R[:2, :2] @ np.array(ego.twist)[:2], ego.twist[2])
        ego = Ego(T_world_ego=pose(ego.T_world_ego), twist=twist)
    truth = sample.truth
    if truth is not None:
        boxes = truth.boxes.copy()
        boxes[:, :3] = boxes[:, :3] @ R[:3, :3].T * scale
        boxes[:, 3:6] *= scale
        boxes[:, 6] += angle
        boxes[:, 7:9] = boxes[:, 7:9] @ R[:2, :2].T
        truth = replace(truth, boxes=boxes)
    lidar = sample.lidar
    if lidar is not None:
        lidar = np.concatenate([lidar[:, :3] @ R[:3, :3].T * scale, lidar[:, 3:]], 1).astype(np.float32)
    return replace(sample, rig=rig, radar=[sweep(x) for x in sample.radar], ego=ego, truth=truth, lidar=lidar)


def drop(sample: Sample, rng: np.random.Generator, config: AugmentConfig) -> Sample:
    """Loses radar points, and seldom a whole camera or all radars, as the road does."""
    radar, frames = sample.radar, sample.frames
    if config.drop_points:
        share = rng.uniform(0, config.drop_points)
        radar = [replace(s, points=s.points[rng.random(len(s.points)) >= share]) for s in radar]
    if rng.random() < config.drop_radar:
        radar = []
    if rng.random() < config.drop_camera and frames:
        lost = sorted(frames)[int(rng.integers(len(frames)))]
        frames = {k: v for k, v in frames.items() if k != lost}
    return replace(sample, radar=radar, frames=frames)


def _conjugate(T: np.ndarray | None, M: np.ndarray) -> np.ndarray | None:
    return None if T is None else M @ np.array(T) @ M


def _camera(c: CameraCalibration, K: np.ndarray, T_ego_camera: np.ndarray) -> CameraCalibration:
    return CameraCalibration(
        name=c.name, width=c.width, height=c.height, K=K, T_ego_camera=T_ego_camera,
        distortion=c.distortion, coefficients=c.coefficients,
    )  # fmt: skip


def _radar(r: RadarCalibration, T_ego_radar: np.ndarray) -> RadarCalibration:
    return RadarCalibration(name=r.name, T_ego_radar=T_ego_radar, velocity=r.velocity, period=r.period)
