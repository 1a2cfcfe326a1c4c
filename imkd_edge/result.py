"""Result: boxes in the ego frame, the health of the sensors, and the time of each stage."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from imkd_edge.frames import Ego


@dataclass(frozen=True)
class Detection:
    """One object, in the ego frame at the frame's reference time."""

    label: str
    score: float  # 0..1
    center: np.ndarray  # (3,) float32 x, y, z m
    size: np.ndarray  # (3,) float32 length, width, height m
    yaw: float  # rad about +z from +x, in [-pi, pi)
    velocity: np.ndarray  # (2,) float32 vx, vy m/s; NaN: the bundle's velocity was not trained

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        return {
            "label": self.label,
            "score": _short(self.score),
            "center": [_short(value) for value in self.center],
            "size": [_short(value) for value in self.size],
            "yaw": _short(self.yaw),
            "velocity": None if np.isnan(self.velocity).any() else [_short(value) for value in self.velocity],
        }


@dataclass(frozen=True)
class Warning:
    """Something that is unlike the bundle's contract or hurts the boxes; `imkd/result.hpp` lists the codes."""

    code: str  # "W0101"
    text: str


@dataclass(frozen=True)
class Health:
    """State of the sensors in one frame; their faults are reported here and never raised."""

    mode: str  # full, partial, camera_only, radar_only, blind
    sensors: dict[str, str]  # name -> ok, late, stale, invalid, missing, unusable; from a Monitor also frozen, lost
    radar_points: int  # in the grid
    radar_points_invalid: int  # discarded: not finite, nearer than 0.1 m, or beyond 300 dB of intensity or 300 m/s
    radar_points_outside: int  # outside the grid
    radar_points_overflow: int  # beyond the spec's max_points
    boxes_invalid: int  # discarded: the network's output is not finite
    ego_motion: str  # source of the motion within the frame: poses, twist, estimated (by radar) or none
    ego_speed_estimated: bool  # from static radar returns, because there is no odometry
    ego_speed: float  # m/s, forward; nan: unknown
    ego_speed_residual: float  # m/s, median absolute residual of the inliers
    past_frames: int  # past fused maps that the network read, at most the spec's history.frames
    maps_invalid: int = 0  # 1: this frame's fused map has a non-finite value, and was not kept for later frames
    # Those that hold in this frame, by code; an unchanged state keeps the text of the frame where it began.
    warnings: tuple[Warning, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The JSON form."""
        values = {k: _short_or_null(value) if isinstance(value, float) else value for k, value in vars(self).items()}
        return {**values, "warnings": [vars(warning) for warning in self.warnings]}


def health_of(fields: dict[str, Any]) -> Health:
    """Health from the core's dict, whose warnings are (code, text)."""
    speed = math.nan if math.isnan(fields["ego_speed"]) else fields["ego_speed"]  # one NaN: equal states compare equal
    return Health(**{**fields, "ego_speed": speed, "warnings": tuple(Warning(*pair) for pair in fields["warnings"])})


@dataclass(frozen=True)
class Result:
    """The detections of one frame; the arrays belong to this object."""

    timestamp_ns: int
    boxes: np.ndarray  # (M, 9) float32 x, y, z, length, width, height m, yaw rad, vx, vy m/s or NaN; best first
    scores: np.ndarray  # (M,) float32
    labels: np.ndarray  # (M,) int32, index into class_names
    class_names: tuple[str, ...]
    health: Health
    timings_us: dict[str, float]  # stage -> µs
    total_us: float
    # (H, W) float32 probability of a vehicle in each BEV cell, for models that segment.
    segmentation: np.ndarray | None = None
    # With Detector(debug=True): the gates i_cam and i_rad, (H, W) float32 0..1.
    debug: dict[str, np.ndarray] = field(default_factory=dict)
    # Pose and twist of the vehicle at timestamp_ns, where they are known: what Tracker.update needs.
    ego: Ego | None = None

    @property
    def names(self) -> list[str]:
        """The boxes' class names."""
        return [self.class_names[label] for label in self.labels]

    @property
    def detections(self) -> list[Detection]:
        """The boxes one by one, best first."""
        return [
            Detection(name, float(score), box[0:3], box[3:6], float(box[6]), box[7:9])
            for name, score, box in zip(self.names, self.scores, self.boxes, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """The JSON form, as `imkd-edge infer --json` prints it."""
        timings = {stage: round(time, 1) for stage, time in {**self.timings_us, "total": self.total_us}.items()}
        return {
            "timestamp_ns": self.timestamp_ns,
            "detections": [detection.to_dict() for detection in self.detections],
            "health": self.health.to_dict(),
            "timings_us": timings,
        }


def _short_or_null(value: float) -> float | None:
    """Null for a number that is unknown: JSON has no NaN."""
    return None if np.isnan(value) else _short(value)


def _short(value: float) -> float:
    """Rounds to four decimals: a tenth of a millimetre."""
    return round(float(value), 4)
