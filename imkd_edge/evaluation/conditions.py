"""What the road does to sensors, done to a sample on purpose: how much a model loses is its robustness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from imkd_edge.errors import Code, Error
from imkd_edge.rig import CameraCalibration, SensorRig
from imkd_edge.sources.base import Sample

Condition = Callable[[Sample], Sample]


def no_camera(sample: Sample) -> Sample:
    """Every camera is out."""
    return replace(sample, frames={})


def no_radar(sample: Sample) -> Sample:
    """Every radar is out."""
    return replace(sample, radar=[])


def thinned(keep: int) -> Condition:
    """Every keep-th radar point is left, in the order in which the radar gave them."""
    return lambda sample: replace(sample, radar=[replace(s, points=s.points[::keep]) for s in sample.radar])


def exposed(gain: float) -> Condition:
    """Grey levels times gain, clipped at 255."""
    levels = np.clip(np.round(np.arange(256) * gain), 0, 255).astype(np.uint8)
    return lambda sample: replace(sample, frames={name: levels[image] for name, image in sample.frames.items()})


def tilted(degrees: float) -> Condition:
    """The calibration of every camera is wrong by `degrees`, about as much in yaw as in pitch."""
    angle = np.radians(degrees) / np.sqrt(2)
    c, s = np.cos(angle), np.sin(angle)
    R = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array(
        [[1, 0, 0], [0, c, -s], [0, s, c]]
    )  # optical axes: yaw, then pitch

    def turned(camera: CameraCalibration) -> CameraCalibration:
        T = np.array(camera.T_ego_camera)
        T[:3, :3] = T[:3, :3] @ R
        return CameraCalibration(
            name=camera.name, width=camera.width, height=camera.height, K=camera.K, T_ego_camera=T,
            distortion=camera.distortion, coefficients=camera.coefficients,
        )  # fmt: skip

    def apply(sample: Sample) -> Sample:
        return replace(sample, rig=SensorRig(cameras=[turned(c) for c in sample.rig.cameras], radars=sample.rig.radars))

    return apply


CONDITIONS: dict[str, Condition] = {
    "none": lambda sample: sample,
    "no_camera": no_camera,
    "no_radar": no_radar,
    "radar_half": thinned(2),
    "radar_quarter": thinned(4),
    "dark": exposed(0.25),
    "bright": exposed(4.0),
    "camera_0.5deg": tilted(0.5),
    "camera_1deg": tilted(1.0),
    "camera_2deg": tilted(2.0),
}


def condition(name: str) -> Condition:
    """A condition by its name; raises Error spec_bad_value."""
    if name not in CONDITIONS:
        raise Error(
            Code.spec_bad_value,
            f"there is no condition {name!r}",
            "--condition",
            f"choose one of: {', '.join(CONDITIONS)}",
        )
    return CONDITIONS[name]
