"""Faults and weather of sensors, applied to a sample: a model's loss under them is its robustness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.base import Sample

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
        T = np.array(camera.T_ego_camera)
        T[:3, :3] = T[:3, :3] @ R
        return CameraCalibration(
            name=camera.name, width=camera.width, height=camera.height, K=camera.K, T_ego_camera=T,
            distortion=camera.distortion, coefficients=camera.coefficients,
        )  # fmt: skip

    def apply(sample: Sample) -> Sample:
        return replace(sample, rig=SensorRig(cameras=[rotate(c) for c in sample.rig.cameras], radars=sample.rig.radars))

    return apply


CONDITIONS: dict[str, Condition] = {
    "none": lambda sample: sample,
    "no_camera": no_camera,
    "no_radar": no_radar,
    "radar_half": subsample_radar(2),
    "radar_quarter": subsample_radar(4),
    "dark": change_exposure(0.25),
    "bright": change_exposure(4.0),
    "camera_0.5deg": rotate_cameras(0.5),
    "camera_1deg": rotate_cameras(1.0),
    "camera_2deg": rotate_cameras(2.0),
}


def condition(name: str) -> Condition:
    """A condition by its name; raises Error spec_bad_value."""
    if name not in CONDITIONS:
        fix = f"choose one of: {', '.join(CONDITIONS)}"
        raise Error(Code.spec_bad_value, f"there is no condition {name!r}", "--condition", fix)
    return CONDITIONS[name]
