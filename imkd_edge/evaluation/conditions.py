"""Faults and weather of sensors, applied to a sample: a model's loss under them is its robustness."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from zlib import crc32

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration
from imkd_edge.sources.base import Sample
from imkd_edge.sources.geometry import inverse
from imkd_edge.sources.plane import Plane
from imkd_edge.sources.radar_noise import NOISES, disturb
from imkd_edge.sources.remount import lift, remount, remount_boxes, tilt

Condition = Callable[[Sample], Sample]


def no_camera(sample: Sample) -> Sample:
    """No camera."""
    return replace(sample, frames={})


def no_radar(sample: Sample) -> Sample:
    """No radar."""
    return replace(sample, radar=[])


def subsample_radar(step: int) -> Condition:
    """Every step-th radar point of each sweep, in its order."""
    return lambda sample: replace(sample, radar=[replace(s, points=s.points[::step]) for s in sample.radar])


def noisy_radar(kind: str) -> Condition:
    """One kind of radar noise at full strength; its draws depend on the sample's name alone."""
    return lambda sample: disturb(sample, kind, 1.0, np.random.default_rng(crc32(sample.name.encode())))


def change_exposure(gain: float) -> Condition:
    """Grey levels times gain, clipped at 255."""
    levels = np.clip(np.round(np.arange(256) * gain), 0, 255).astype(np.uint8)
    return lambda sample: replace(sample, frames={name: levels[image] for name, image in sample.frames.items()})


def rotate_cameras(degrees: float) -> Condition:
    """An error of every camera's calibration by `degrees`, in equal parts of yaw and pitch."""
    angle = np.radians(degrees) / np.sqrt(2)
    c, s = np.cos(angle), np.sin(angle)
    yaw, pitch = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    R = yaw @ pitch  # in optical axes

    def rotate(camera: CameraCalibration) -> CameraCalibration:
        result, T = copy(camera), np.array(camera.T_ego_camera)
        T[:3, :3] = T[:3, :3] @ R
        result.T_ego_camera = T
        return result

    def apply(sample: Sample) -> Sample:
        rig = copy(sample.rig)
        rig.cameras = [rotate(camera) for camera in sample.rig.cameras]
        return replace(sample, rig=rig)

    return apply


def mount(T: np.ndarray) -> Condition:
    """Another mounting: everything in the ego frame T_new_old, and the rig names its ground plane there."""
    return lambda sample: remount(sample, T)


def mount_without_plane(T: np.ndarray) -> Condition:
    """Another mounting whose rig names no ground plane."""
    return lambda sample: _with_plane(remount(sample, T), None)


def no_exposure_times(sample: Sample) -> Sample:
    """The cameras' times unknown: every image counts as taken at the reference time."""
    return replace(sample, camera_timestamps_ns={}, camera_T_world_ego={})


def no_motion(sample: Sample) -> Sample:
    """The ego motion unknown: neither pose nor twist, of the frame, the sweeps and the exposures."""
    radar = [replace(sweep, T_world_ego=None) for sweep in sample.radar]
    return replace(sample, ego=None, radar=radar, camera_T_world_ego={})


def _with_plane(sample: Sample, plane: Plane | None) -> Sample:
    rig = copy(sample.rig)
    rig.ground_plane = plane
    return replace(sample, rig=rig)


MOUNTINGS = {  # T_new_old; a tilt is in degrees, of roll and pitch in equal parts, a lift in m
    "tilted_1": tilt(1.0),
    "tilted_2": tilt(2.0),
    "tilted_3": tilt(3.0),
    "lifted_0.1": lift(0.1),
    "lifted_0.2": lift(0.2),
    "tilted_2_unnamed": tilt(2.0),
}
CONDITIONS: dict[str, Condition] = {
    "none": lambda sample: sample,
    "no_camera": no_camera,
    "no_radar": no_radar,
    "radar_half": subsample_radar(2),
    "radar_quarter": subsample_radar(4),
    **{kind: noisy_radar(kind) for kind in NOISES},
    "dark": change_exposure(0.25),
    "night": change_exposure(1 / 32),  # white has eight grey levels left
    "bright": change_exposure(4.0),
    "camera_0.5deg": rotate_cameras(0.5),
    "camera_1deg": rotate_cameras(1.0),
    "camera_2deg": rotate_cameras(2.0),
    "no_exposure_times": no_exposure_times,
    "no_motion": no_motion,
    **{name: mount(T) for name, T in MOUNTINGS.items()},
    "tilted_2_unnamed": mount_without_plane(MOUNTINGS["tilted_2_unnamed"]),
}


def condition(name: str) -> Condition:
    """A condition by its name; raises Error spec_bad_value."""
    if name not in CONDITIONS:
        fix = f"choose one of: {', '.join(CONDITIONS)}"
        raise Error(Code.spec_bad_value, f"there is no condition {name!r}", "--condition", fix)
    return CONDITIONS[name]


def original_frame(name: str, boxes: np.ndarray) -> np.ndarray:
    """Boxes (M, 9) of a sample under a condition, in the ego frame that the sample had without it."""
    return remount_boxes(boxes, inverse(MOUNTINGS[name])) if name in MOUNTINGS else boxes
